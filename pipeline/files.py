"""Read and write files so that a killed run never leaves half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline.errors import EdgeVitError, InputError

CHUNK_BYTES = 1 << 20
MAX_TEXT_BYTES = 64 << 20
OLD = "edge-vit.old"  # in the scratch folder: what had the name before


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there only if the block succeeds.

    The temporary path keeps the suffix, since exporters choose formats by it. The block may
    create a file or a folder, which replaces what had the name before. Scratch that a killed run
    left is cleaned up first. What is delivered gets the permissions that the umask gives, not the
    private ones that libraries leave.
    """
    path = Path(path)
    with beside(path) as new:
        yield new
        open_up(new)
        old = new.with_name(OLD)
        if path.is_dir() or (path.exists() and new.is_dir()):
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, as `atomic` does, for a block that moves it itself.

    Whatever is still there afterwards is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clean_up_after_killed(path)
    with _scratch(path) as scratch:
        try:
            yield scratch / path.name
        except Exception as error:
            # Libraries that write by themselves tell of a full disk in many ways.
            full = shutil.disk_usage(scratch).free < CHUNK_BYTES
            if full and not isinstance(error, OSError | EdgeVitError):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, locked while this process lives, that is gone afterwards."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            lock = os.open(scratch, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another writer of this name took it for a killed run's
        fcntl.flock(lock, fcntl.LOCK_EX)
        if scratch.is_dir():
            break
        os.close(lock)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def clean_up_after_killed(path: Path) -> None:
    """Remove scratch folders of ``path`` that nobody holds; put back what one had moved aside."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")
    for scratch in path.parent.iterdir():
        if not name.fullmatch(scratch.name) or not scratch.is_dir():
            continue
        try:
            lock = os.open(scratch, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (scratch / OLD).exists() and not path.exists():
                os.replace(scratch / OLD, path)
            shutil.rmtree(scratch, ignore_errors=True)
        except BlockingIOError:
            pass  # a writer that lives
        finally:
            os.close(lock)


def open_up(new: Path) -> None:
    """Add the permissions that the umask gives to a file or a whole folder that `beside` gave."""
    probe = new.with_name("edge-vit.probe")
    probe.mkdir()  # reading the umask itself would change it for other threads
    usual = stat.S_IMODE(probe.stat().st_mode)
    for path in [new, *(new.rglob("*") if new.is_dir() else ())]:
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (usual if path.is_dir() else usual & 0o666))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; a killed process leaves the old one or the new one."""
    with atomic(path) as new:
        new.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file as :func:`write_bytes` does."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values are equal bytes. NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it, where a device could be endless, and a pipe never answer.

    Raises:
        InputError: it is missing, or no regular file.
    """
    try:
        # Opening a pipe to read would wait for a writer.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `dvc repro` to make it") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InputError(f"{path} is a folder, a device or a pipe; a file is needed")
    return os.fdopen(number, "rb")


class Readable(Protocol):
    """An open file, or what reads as one."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        ...


def read_at_most(file: Readable, limit: int) -> bytes:
    """Read an open file to its end, or ``limit`` bytes of it.

    In pieces, since one ``read`` takes memory for all that it may read.
    """
    content = bytearray()
    while piece := file.read(min(CHUNK_BYTES, limit - len(content))):
        content += piece
    return bytes(content)


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Return a whole file.

    Raises:
        InputError: it is missing, no regular file, or larger than ``limit`` bytes.
    """
    with open_regular(path) as file:
        content = read_at_most(file, limit + 1)
    if len(content) > limit:
        raise InputError(f"{path} is larger than {limit} bytes; it was not read")
    return content


def read_json(
    path: Path, limit: int = MAX_TEXT_BYTES, advice: str = "delete it and run `dvc repro`"
) -> Any:
    """Read a JSON file of at most ``limit`` bytes; ``advice`` ends the error if it is none.

    Raises:
        InputError: it is missing, too large or not JSON.
    """
    content = read_bytes(path, limit)
    try:
        return parse_json(content.decode())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); {advice}") from None


def parse_json(text: str) -> Any:
    """Read JSON that may come from anywhere.

    Raises:
        ValueError: it is none, is nested too deep, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a regular file in hex.

    Raises:
        InputError: it is missing or not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sole_file(folder: Path, suffix: str) -> Path:
    """Return the one file in ``folder`` whose name ends with ``suffix``.

    Raises:
        InputError: there is no such file, or there are several.
    """
    matching = sorted(p for p in Path(folder).glob(f"*{suffix}") if p.is_file())
    if not Path(folder).exists():
        raise InputError(f"{folder} is missing; run `dvc repro`")
    if len(matching) != 1:
        names = ", ".join(p.name for p in matching) or "none"
        raise InputError(
            f"{folder} should hold exactly one *{suffix} file, found {names}; "
            "delete the folder and run `dvc repro`"
        )
    return matching[0]
