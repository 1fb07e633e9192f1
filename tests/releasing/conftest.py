from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.params import Params
from pipeline.publish import publish
from pipeline.support.paths import Recorded
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def release(healthy: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of the healthy run; shared, so never change it in place."""
    folder = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return publish(params, healthy, Recorded(folder / "none", folder / "none"), folder / "out")
