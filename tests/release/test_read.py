from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.errors import InputError, IntegrityError
from pipeline.release.read import last_release, read_release


def publish(releases: Path, folder: str, text: str = "weights") -> Path:
    made = releases / folder
    made.mkdir(parents=True)
    sums = ""
    for name in ("a-1.ptl", "a-1.int8.onnx", "a-1.onnx", "a-1.pte", "labels.txt"):
        content = f"{text} {name}".encode()
        (made / name).write_bytes(content)
        sums += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    (made / "SHA256SUMS").write_text(sums)
    return made


def test_the_highest_version_of_the_same_model_is_the_last(tmp_path: Path) -> None:
    for folder in ("m-0.9.0", "m-0.10.0", "m-0.10.0-rc1", "m-0.2.0", "m-large-3.0.0", "m-next"):
        publish(tmp_path, folder)
    found = last_release(tmp_path, "m", "9.0.0")
    assert found is not None
    assert found.folder.name == "m-0.10.0"
    assert {key: path.name for key, path in found.files.items()} == {
        "ptl": "a-1.ptl",
        "onnx": "a-1.onnx",
        "int8_onnx": "a-1.int8.onnx",
        "pte": "a-1.pte",
    }


def test_no_release_is_none(tmp_path: Path) -> None:
    assert last_release(tmp_path / "missing", "m", "1.0.0") is None
    assert last_release(tmp_path, "m", "1.0.0") is None


def test_a_release_that_was_changed_is_not_compared_with(tmp_path: Path) -> None:
    folder = publish(tmp_path, "m-1.0.0")
    (folder / "a-1.ptl").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"not what was published: a-1\.ptl has SHA-256"):
        last_release(tmp_path, "m", "2.0.0")
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(IntegrityError, match="SHA256SUMS is missing"):
        last_release(tmp_path, "m", "2.0.0")


def test_no_folder_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is not a folder; give the folder of a release"):
        read_release(tmp_path / "nothing")


def test_the_version_that_is_being_made_and_later_ones_are_not_compared_with(
    tmp_path: Path,
) -> None:
    for folder in ("m-0.1.0", "m-0.2.0-rc1", "m-0.2.0", "m-0.10.0"):
        publish(tmp_path, folder)

    def found(below: str) -> str | None:
        release = last_release(tmp_path, "m", below)
        return release and release.folder.name

    assert found("0.1.0") is None
    assert found("0.2.0-rc1") == "m-0.1.0"
    assert found("0.2.0") == "m-0.2.0-rc1"
    assert found("0.10.0") == "m-0.2.0"
