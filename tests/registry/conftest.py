from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.registry_fixture import Forker, Place


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    running = Forker()
    yield running
    running.close()


@pytest.fixture
def place(tmp_path: Path, forker: Forker) -> Place:
    return Place.make(tmp_path, forker)
