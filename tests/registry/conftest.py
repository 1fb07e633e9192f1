from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.registry_fixture import Forker, Registry
from tests.release.conftest import published, recorded  # noqa: F401


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    running = Forker()
    yield running
    running.close()


@pytest.fixture
def registry(tmp_path: Path, forker: Forker) -> Registry:
    return Registry.make(tmp_path, forker)
