"""One entry of an ONNX file's metadata, without the onnx package and without reading the weights.

An ONNX file is one protobuf message, ``ModelProto``. Its field 14, ``metadata_props``, has an entry
``{1: key, 2: value}`` for each piece of metadata (onnx.proto3); all other fields are stepped over
by the length that they state. Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import InputError, shown
from pipeline.files import open_regular

METADATA_PROPS = 14
KEY, VALUE = 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; groups (3, 4) are in no ONNX file
MAX_FIELDS = 100_000  # of a message; a real model has some ten
MAX_VARINT_BYTES = 10


def metadata(path: Path, key: str, limit: int) -> bytes | None:
    """Return the value of ``key``, of at most ``limit`` bytes; None if there is none.

    Raises:
        InputError: the file is not a protobuf message, the value is too large, or there are two.
    """
    contents: list[bytes] = []
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        for number, start, length in _fields(file, 0, size, path):
            if number != METADATA_PROPS:
                continue
            value = _value(file, start, length, key, limit, path)
            contents += [] if value is None else [value]
    if len(contents) > 1:
        raise InputError(f"{path} has metadata {key} twice")
    return contents[0] if contents else None


def _value(
    file: BinaryIO, start: int, length: int, key: str, limit: int, path: Path
) -> bytes | None:
    """The value of an entry if it has this key; as in protobuf, the last of a field counts."""
    parts = {number: (s, n) for number, s, n in _fields(file, start, start + length, path)}
    at, size = parts.get(KEY, (0, 0))
    if size != len(key.encode()) or _read(file, at, size) != key.encode():
        return None
    at, size = parts.get(VALUE, (0, 0))
    if size > limit:
        raise InputError(f"{path} has {size} bytes of metadata {key}, more than {limit}")
    return _read(file, at, size)


def _fields(file: BinaryIO, start: int, end: int, path: Path) -> Iterator[tuple[int, int, int]]:
    """Number, start and length in bytes of each field between two places that holds bytes."""
    at = start
    for _ in range(MAX_FIELDS):
        if at == end:
            return
        tag, at = _varint(file, at, end, path)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, at = _varint(file, at, end, path)
            continue
        if kind not in (FIXED64, BYTES, FIXED32):
            raise InputError(f"{path} is not an ONNX file: byte {at} does not start a field")
        length = 8 if kind == FIXED64 else 4
        if kind == BYTES:
            length, at = _varint(file, at, end, path)
        if at + length > end:
            raise InputError(f"{path} is not an ONNX file: it ends in the middle of a field")
        if kind == BYTES:
            yield number, at, length
        at += length
    raise InputError(f"{path} is not an ONNX file: it has more than {shown(MAX_FIELDS)} fields")


def _varint(file: BinaryIO, at: int, end: int, path: Path) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(_read(file, at, min(MAX_VARINT_BYTES, end - at))):
        value |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return value, at + shift + 1
    raise InputError(f"{path} is not an ONNX file: it ends in the middle of a number")


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
