"""What the tests of faults share: the files of a run, and a way to judge changed ones."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from device_tests import bundle as bundles
from device_tests.__main__ import device_test
from device_tests.target import Bundle
from pipeline.params import load_params

ROOT = Path(__file__).parent.parent

Judge = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where a run's files are: EDGE_VIT_ARTIFACTS, or ``artifacts/`` of this checkout."""
    folder = Path(os.environ.get("EDGE_VIT_ARTIFACTS") or ROOT / "artifacts")
    if not (folder / "golden").is_dir():
        pytest.fail(f"{folder} holds no golden images; run `make repro` first")
    return folder


@pytest.fixture(scope="session")
def bundle(artifacts: Path) -> Bundle:
    return bundles.find(artifacts)


@pytest.fixture
def judge(bundle: Bundle, tmp_path: Path) -> Judge:
    """Run one target on the bundle, or another, with some files changed; return exit status and
    text."""

    def run(target: str, other: Bundle | None = None, **files: Path) -> tuple[int, str]:
        given = other or bundle
        changed = dataclasses.replace(given, files=given.files | files)
        gate = load_params(ROOT / "params.yaml").gate
        status, lines = device_test([target], changed, gate, tmp_path / "evidence")
        return status, "\n".join(lines)

    return run
