"""Check a zip archive's directory before anything in it is read; archives are untrusted."""

from __future__ import annotations

import lzma
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError, shown
from pipeline.files import open_regular

MAGIC = b"PK\x03\x04"  # by which PyTorch tells its format
MAX_MEMBERS = 10_000  # ViT-H/14 has some 600 arrays
MAX_DIRECTORY_BYTES = 4 << 20
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
)


@contextmanager
def open_archive(path: Path, source: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose members are few, of different names, and no copies of one another.

    Raises:
        InputError: it is not such an archive, here or while a member is read.
    """
    with open_regular(path) as file:
        try:
            # `zipfile` would make an object of each entry, however many there are.
            ending = zipfile._EndRecData(file)  # type: ignore[attr-defined]
            if ending and ending[zipfile._ECD_SIZE] > MAX_DIRECTORY_BYTES:  # type: ignore[attr-defined]
                raise _refusal(source, f"has a directory larger than {MAX_DIRECTORY_BYTES} bytes")
            with zipfile.ZipFile(file) as archive:
                _check(archive.infolist(), os.fstat(file.fileno()).st_size, source)
                yield archive
        except DAMAGE as error:
            raise InputError(f"{source} is damaged ({shown(error)}); fetch it again") from None
        except (NotImplementedError, RuntimeError) as error:  # encrypted, unknown method
            raise InputError(f"{source}: {shown(error, 300)}; such archives are not read") from None


def _check(entries: list[zipfile.ZipInfo], size: int, source: str) -> None:
    twice = [n for n, count in Counter(e.filename for e in entries).items() if count > 1]
    if len(entries) > MAX_MEMBERS:
        raise _refusal(source, f"has {len(entries)} members, more than {MAX_MEMBERS}")
    if twice:
        raise _refusal(source, f"has two members {shown(twice[0])}")
    if sum(entry.compress_size for entry in entries) > size:
        raise _refusal(source, "has members that lie over one another, or beyond its end")


def _refusal(source: str, problem: str) -> InputError:
    return InputError(f"{source} {problem}; it is not a checkpoint and was not read")
