"""Read ``.npz`` files from anywhere: plain numbers come out, or one clear error.

Every array's header is held against the archive's own directory before anything is unpacked, so a
file cannot claim, or unpack to, more than it may.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError

MAX_ARRAYS = 10_000  # ViT-H/14 has some 600
MAX_BYTES = 16 << 30  # unpacked
MAX_RATIO = 50  # of unpacked to packed; trained weights hardly pack at all
HEADER_BYTES = 4096
READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def open_npz(path: Path, source: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; ``source`` is what errors call it.

    Raises:
        InputError: damaged, too large, or something else in it than arrays of numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_directory(entries, source)
            return {e.filename.removesuffix(".npy"): _read(archive, e, source) for e in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise InputError(f"{source} is not a whole .npz file ({error}); fetch it again") from None
    except (NotImplementedError, RuntimeError) as error:  # of zipfile: encrypted, unknown method
        raise InputError(f"{source}: {error}; such .npz files are not read") from None


def _check_directory(entries: list[zipfile.ZipInfo], source: str) -> None:
    names = [entry.filename for entry in entries]
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    problem = None
    if len(entries) > MAX_ARRAYS:
        problem = f"holds {len(entries)} arrays, more than {MAX_ARRAYS}"
    elif unpacked > MAX_BYTES or unpacked > MAX_RATIO * max(packed, 1):
        problem = f"would unpack {packed} bytes to {unpacked}"
    elif len(set(names)) < len(names):
        problem = "holds two arrays of one name"
    elif other := next((name for name in names if not name.endswith(".npy")), None):
        problem = f"holds {other!r}, which is no array"
    if problem:
        raise InputError(f"{source} {problem}; it is no checkpoint and was not read")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: str) -> NDArray[Any]:
    name = entry.filename
    with archive.open(entry) as file:
        shape, fortran, dtype, size = _header(file, name, source)
        promised = math.prod(shape) * dtype.itemsize
        if size + promised != entry.file_size:
            raise InputError(
                f"{source}: {name} says {promised} bytes, it has {entry.file_size - size}; fetch "
                "the file again"
            )
        content = file.read(promised)
    if len(content) != promised:
        raise InputError(f"{source}: {name} is cut short; fetch the file again")
    order = "F" if fortran else "C"
    array = np.frombuffer(content, dtype).reshape(shape, order=order)  # type: ignore[call-overload]
    native: NDArray[Any] = np.ascontiguousarray(array, dtype=dtype.newbyteorder("="))
    return native.reshape(shape)


def _header(file: IO[bytes], name: str, source: str) -> tuple[tuple[int, ...], bool, Any, int]:
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise InputError(f"{source}: {name} is of .npy version {version}, which is not read")
    shape, fortran, dtype = READERS[version](file, max_header_size=HEADER_BYTES)
    if dtype.kind not in "fiub":
        what = "Python objects, which could run code" if dtype.hasobject else f"{dtype}, no numbers"
        raise InputError(f"{source}: {name} holds {what}; the file was not read")
    return shape, fortran, dtype, file.tell()
