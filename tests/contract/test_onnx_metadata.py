"""Metadata of ONNX files, against the onnx package, and on files that nobody should trust."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline.contract.onnx_metadata import metadata
from pipeline.errors import InputError

KEY = "edge_vit.contract"


def model(**entries: str) -> onnx.ModelProto:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1000], [0.5] * 1000)
    graph = helper.make_graph([], "g", [], [], [weights])
    made = helper.make_model(graph)
    helper.set_model_props(made, {key.replace("__", "."): text for key, text in entries.items()})
    return made


def test_it_reads_what_onnx_wrote(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(other="x", edge_vit__contract="{ é }", edge_vit__contracts="y"), path)
    assert metadata(path, KEY, 100) == "{ é }".encode()
    assert metadata(path, "nothing", 100) is None
    path.write_bytes(b"")
    assert metadata(path, KEY, 100) is None


def test_too_much_and_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    made = model(edge_vit__contract="x" * 101)
    onnx.save(made, path)
    with pytest.raises(InputError, match="has 101 bytes of metadata"):
        metadata(path, KEY, 100)
    made.metadata_props.add(key=KEY, value="y")
    onnx.save(made, path)
    with pytest.raises(InputError, match="twice"):
        metadata(path, KEY, 1000)


@pytest.mark.parametrize(
    "content",
    [
        b"\x72\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # an entry longer than the file
        b"\x72\x03\x0a\x7f\x00",  # a key longer than its entry
        b"\x73",  # a group
        b"\x08" + b"\xff" * 11,  # a number without end
        b"\x09\x00",  # eight bytes, and one is there
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_what_is_no_message_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not an ONNX file"):
        metadata(path, KEY, 100)


def test_a_file_of_nothing_but_fields_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x01" * 100_001)
    with pytest.raises(InputError, match="more than 100000 fields"):
        metadata(path, KEY, 100)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    import tempfile

    content = bytearray(model(edge_vit__contract="{}").SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(content[: data.draw(st.integers(0, len(content)))])
        file.flush()
        try:
            found = metadata(Path(file.name), KEY, 100)
        except InputError:
            return
    assert found is None or len(found) <= 100
