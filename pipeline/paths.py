"""Where the stages put things, under ``artifacts/``; the same names as in ``dvc.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import atomic, sole_file, write_text
from pipeline.formats import FORMATS, PLUGINS_FOLDER, made_by

ARTIFACTS = Path("artifacts")
BASELINES = Path("baselines")  # recorded elsewhere, and committed
BASELINE_RECORD, BASELINE_LOGITS = "record.json", "logits.npy"  # in the folder of each
DEVICES = Path("device_tests/evidence")  # recorded by `make device-test`

CHECKPOINT = ARTIFACTS / "checkpoint"
SAMPLES = ARTIFACTS / "samples"
REFERENCE = ARTIFACTS / "reference"
REWRITTEN = ARTIFACTS / "rewritten"
HESSIANS = ARTIFACTS / "hessians"
QUANTIZED = ARTIFACTS / "quantized"
SCRIPTED = ARTIFACTS / "scripted"
OPTIMIZED = ARTIFACTS / "optimized"
PLUGINS = ARTIFACTS / PLUGINS_FOLDER
GOLDEN = ARTIFACTS / "golden"
PARITY = ARTIFACTS / "parity"
LATENCY = ARTIFACTS / "latency"
REPORTS = ARTIFACTS / "reports"
VERDICT = ARTIFACTS / "verdict"
RELEASE = ARTIFACTS / "release"

OFF_FILE = "README.txt"  # all that a stage writes for a format that is off
TORCHSCRIPT_FILE = "model.pt"
CONTRACT_SUFFIX = ".contract.json"  # beside a .pte, which has no room for a contract
DATA_SUFFIX = ".data"  # beside an .onnx, which has no room for more than 2 GB of weights


@dataclass(frozen=True)
class Recorded:
    """Folders of evidence that commands write and stages only read."""

    baselines: Path = BASELINES
    devices: Path = DEVICES


def delivered_files(artifacts: Path) -> dict[str, Path]:
    """The files that a release delivers, by format; without formats that are off.

    Raises:
        InputError: one is missing, or there is more than one of its kind.
    """
    return {
        key: delivered_file(artifacts, key)
        for key, known in FORMATS.items()
        if (folder := artifacts / known.folder).is_dir() and not is_off(folder)
    }


def delivered_file(artifacts: Path, key: str) -> Path:
    """The one of them that has format ``key``; errors as :func:`delivered_files`, or it is off."""
    known = FORMATS[key]
    folder = artifacts / known.folder
    if is_off(folder):
        raise InputError(note(folder))
    return sole_file(folder, known.suffix)


def left_out(key: str, formats: Sequence[str], folder: Path) -> bool:
    """Whether format ``key`` is off; then write ``folder`` with a note that says so."""
    return _off(key in formats, folder, f"format {key} is off: it is not")


def unused(stage: str, formats: Sequence[str], folder: Path) -> bool:
    """Whether no chosen format needs ``stage``; then write ``folder`` with a note that says so."""
    users = made_by(stage)
    words = f"stage {stage} is off: none of {', '.join(users)} is"
    return _off(any(key in formats for key in users), folder, words)


def _off(chosen: bool, folder: Path, words: str) -> bool:
    if not chosen:
        with atomic(folder) as new:
            new.mkdir()
            write_text(new / OFF_FILE, f"{words} in formats of params.yaml\n")
    return not chosen


def is_off(folder: Path) -> bool:
    """Whether a stage left a note in ``folder`` instead of its output."""
    return (folder / OFF_FILE).is_file()


def note(folder: Path) -> str:
    """The note that says which format is off; empty where there is none."""
    return (folder / OFF_FILE).read_text(encoding="utf-8").strip() if is_off(folder) else ""


def data_file(path: Path) -> Path:
    """Where the weights of an ONNX file are if it is too large for one."""
    return path.with_name(path.name + DATA_SUFFIX)


def companions(path: Path) -> list[Path]:
    """The files that a delivered file needs beside it."""
    names = (path.name + suffix for suffix in (CONTRACT_SUFFIX, DATA_SUFFIX))
    return [beside for name in names if (beside := path.with_name(name)).is_file()]


def size_bytes(path: Path) -> int:
    """Size of a delivered file with all its weights."""
    data = data_file(path)
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
