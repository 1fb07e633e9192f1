"""Read ``.npz`` files from untrusted sources: arrays of numbers come out, or one clear error.

Every array's header is compared with the archive's own directory before anything is unpacked, so a
file cannot claim, or unpack to, more than it may.
"""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, shown
from pipeline.untrusted.zip_archive import open_archive

MAX_BYTES = 16 << 30  # unpacked
MAX_RATIO = 50  # of unpacked to packed; trained weights hardly pack at all
HEADER_BYTES = 4096
MAX_ITEM_BYTES = 8  # PyTorch has no longer numbers
READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def open_npz(
    path: Path, source: str, names: Collection[str] | None = None, limit: int | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; ``source`` is what errors call it.

    Only those in ``names``, if given; ``limit`` in bytes of each array, in place of what weights
    may have together.

    Raises:
        InputError: damaged, too large, or something else in it than arrays of numbers.
    """
    with open_archive(path, source) as archive:
        entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}
        chosen = {k: e for k, e in entries.items() if names is None or k in names}
        _check_directory(list(chosen.values()), source, limit)
        return {key: _read(archive, entry, source) for key, entry in chosen.items()}


def _check_directory(entries: list[zipfile.ZipInfo], source: str, limit: int | None) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if limit is None:
        too_large = unpacked > min(MAX_BYTES, MAX_RATIO * max(packed, 1))
    else:
        too_large = any(entry.file_size > limit for entry in entries)
    problem = None
    if too_large:
        problem = f"would unpack {packed} bytes to {unpacked}"
    elif other := next((e.filename for e in entries if not e.filename.endswith(".npy")), None):
        problem = f"holds {shown(other)}, which is not an array"
    if problem:
        raise InputError(f"{source} {problem}; it is not a checkpoint and was not read")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: str) -> NDArray[Any]:
    name = shown(entry.filename)
    with archive.open(entry) as file:
        shape, fortran, dtype, size = _header(file, name, source)
        expected = math.prod(shape) * dtype.itemsize
        if size + expected != entry.file_size:
            raise InputError(
                f"{source}: {name} says {shown(expected)} bytes, it has {entry.file_size - size}; "
                "fetch the file again"
            )
        content = file.read(expected)
    if len(content) != expected:
        raise InputError(f"{source}: {name} is cut short; fetch the file again")
    order = "F" if fortran else "C"
    array = np.frombuffer(content, dtype).reshape(shape, order=order)  # type: ignore[call-overload]
    native: NDArray[Any] = np.ascontiguousarray(array, dtype=dtype.newbyteorder("="))
    return native.reshape(shape)


def _header(file: IO[bytes], name: str, source: str) -> tuple[tuple[int, ...], bool, Any, int]:
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise InputError(f"{source}: {name} is of .npy version {version}, which is not read")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        try:
            shape, fortran, dtype = READERS[version](file, max_header_size=HEADER_BYTES)
        except (MemoryError, RecursionError, SyntaxError, tokenize.TokenError):
            raise ValueError(f"{name} has an unreadable header") from None
    if dtype.kind not in "fiub" or dtype.itemsize > MAX_ITEM_BYTES:
        objects = "Python objects, which could run code"
        what = objects if dtype.hasobject else f"{dtype}, which PyTorch has no type for"
        raise InputError(f"{source}: {name} holds {shown(what)}; the file was not read")
    if not all(type(length) is int for length in shape):
        raise ValueError(f"{name} has a shape that is not a tuple of numbers")
    return shape, fortran, dtype, file.tell()
