"""Where two files differ is named in the words of their format."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.release.bytewise import CHUNK_BYTES, difference


def archive(path: Path, members: dict[str, bytes], day: int = 1) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in members.items():
            made.writestr(zipfile.ZipInfo(name, (2020, 1, day, 0, 0, 0)), content)
    return path


def model(path: Path, weight: float = 1.0, metadata: str = "a", name: str = "w") -> Path:
    array = onnx.numpy_helper.from_array(np.full((2, 2), weight, np.float32), name)
    node = onnx.helper.make_node("MatMul", ["x", name], ["y"], "multiply")
    value = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 2]) for n in ("x", "y")
    ]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:], [array])
    made = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(made, {"contract": metadata})
    path.write_bytes(made.SerializeToString(deterministic=True))
    return path


def test_equal_files_do_not_differ(tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number).write_bytes(b"x" * (CHUNK_BYTES + 5))
    assert difference(tmp_path / "1", tmp_path / "2") is None


@pytest.mark.parametrize("offset", [0, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 4])
def test_the_first_byte_is_found_over_chunks(tmp_path: Path, offset: int) -> None:
    content = bytearray(CHUNK_BYTES + 5)
    (tmp_path / "1.pte").write_bytes(content)
    content[offset] ^= 1
    (tmp_path / "2.pte").write_bytes(content)
    assert difference(tmp_path / "1.pte", tmp_path / "2.pte") == f"first at byte {offset}"


def test_a_shorter_file_differs_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "1.pte").write_bytes(b"four")
    (tmp_path / "2.pte").write_bytes(b"fo")
    said = difference(tmp_path / "1.pte", tmp_path / "2.pte")
    assert said == "first at byte 2, 2 bytes instead of 4"


@pytest.mark.parametrize(
    ("members", "day", "words"),
    [
        ({"a": b"1", "b": b"3"}, 1, "member b at its byte 0 changed; first at byte"),
        ({"a": b"1"}, 1, "member b missing"),
        ({"a": b"1", "b": b"2", "c": b""}, 1, "member c added"),
        ({"b": b"2", "a": b"1"}, 1, "members are in another order"),
        ({"a": b"1", "b": b"2"}, 2, "its members are equal, the archive is not"),
    ],
)
def test_members_of_an_archive(
    tmp_path: Path, members: dict[str, bytes], day: int, words: str
) -> None:
    before = archive(tmp_path / "1.ptl", {"a": b"1", "b": b"2"})
    said = difference(before, archive(tmp_path / "2.ptl", members, day))
    assert said is not None
    assert words in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": 2.0}, "initializer w changed; first at byte"),
        ({"metadata": "b"}, "metadata contract changed"),
        ({"name": "v"}, "initializer w missing, initializer v added; node multiply changed"),
    ],
)
def test_parts_of_an_onnx_file(tmp_path: Path, changes: dict, words: str) -> None:
    said = difference(model(tmp_path / "1.onnx"), model(tmp_path / "2.onnx", **changes))
    assert said is not None
    assert words in said


@pytest.mark.parametrize("suffix", [".ptl", ".onnx"])
def test_damaged_files_are_compared_as_bytes(tmp_path: Path, suffix: str) -> None:
    for number, content in (("1", b"\xff\x00"), ("2", b"\xff\x01")):
        (tmp_path / f"{number}{suffix}").write_bytes(content)
    said = difference(tmp_path / f"1{suffix}", tmp_path / f"2{suffix}")
    assert said == "first at byte 1"
