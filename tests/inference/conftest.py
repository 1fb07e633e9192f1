"""A release made of the healthy run, without asking the gate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.files import sha256_file
from pipeline.formats import FORMATS


@pytest.fixture(scope="session")
def released(healthy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with ``artifacts/``: the checkpoint, golden images and one release."""
    work = tmp_path_factory.mktemp("released")
    artifacts = work / "artifacts"
    for name in ("checkpoint", "golden", "quantized", "scripted", "optimized"):
        (artifacts / name).parent.mkdir(exist_ok=True)
        (artifacts / name).symlink_to(healthy / name)
    for known in FORMATS.values():
        (artifacts / known.folder).symlink_to(healthy / known.folder)
    folder = artifacts / "release" / "model-0.1.0"
    folder.mkdir(parents=True)
    for path in paths.delivered_files(healthy).values():
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, folder)
    shutil.copy(healthy / "checkpoint" / "contract.json", folder)
    sums = [f"{sha256_file(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return work
