"""Read CIFAR-10 and CIFAR-100 in their published binary formats (described on CIFAR's home page).

A record is one byte of label (CIFAR-100: the superclass, then the class) and 3072 bytes of pixels:
32 rows of 32 for red, then for green, then for blue. Files lie in a folder, or in the ``.tar.gz``
as it is published, which is read in memory: nothing of it is ever written to disk.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

Part = Literal["train", "test"]

SIDE = 32
PIXELS = 3 * SIDE * SIDE  # bytes of an image
MAX_BYTES = 1 << 28  # more than an archive holds unpacked; a gzip bomb stops here
MAX_NAMES_BYTES = 1 << 16
ARCHIVES = (".tar.gz", ".tgz")
MAX_MEMBERS = 100  # of an archive; the published ones have at most ten
PICKLED = tuple(
    {f"{name}{end}" for name in names}
    for end in ("", ".mat")
    for names in (("batches.meta", "data_batch_1"), ("meta", "train", "test"))
)


@dataclass(frozen=True)
class Layout:
    """The files of one of the two data sets."""

    name: str
    parts: dict[Part, tuple[str, ...]]
    names: tuple[str, ...]  # files of class names, one for each byte of label
    sizes: tuple[int, ...]  # how many classes each of them names

    @property
    def files(self) -> set[str]:
        """Names of all files of the data set."""
        return {*self.needs("train"), *self.needs("test")}

    def needs(self, part: Part) -> tuple[str, ...]:
        """Return the names of the files that hold a part."""
        return (*self.parts[part], *self.names)


CIFAR10 = Layout(
    "CIFAR-10",
    {
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    ("batches.meta.txt",),
    (10,),
)
CIFAR100 = Layout(
    "CIFAR-100",
    {"train": ("train.bin",), "test": ("test.bin",)},
    ("coarse_label_names.txt", "fine_label_names.txt"),
    (20, 100),
)
LAYOUTS = (CIFAR10, CIFAR100)


@dataclass(frozen=True)
class Cifar:
    """Labelled images of one part."""

    images: NDArray[np.uint8]  # [n, 32, 32, 3], RGB
    labels: NDArray[np.int64]  # [n], indices into classes
    classes: tuple[str, ...]  # CIFAR-100: the hundred fine ones


def is_cifar(source: Path) -> bool:
    """Whether this is a folder with files of CIFAR's, or an archive (which is not opened)."""
    if source.is_file():
        return source.name.endswith(ARCHIVES)
    names = set().union(*(layout.files for layout in LAYOUTS), *PICKLED)
    there = {name for name in names if (source / name).is_file()}
    return _layout_of(there) is not None or _is_pickled(there)


def read(source: Path, part: Part) -> Cifar:
    """Read a part of CIFAR-10 or CIFAR-100 from its folder or archive.

    The files may hold any whole number of records, not only as many as are published.

    Raises:
        InputError: a file is missing, damaged, has a label out of range, or is the Python or
            MATLAB version of the data set.
    """
    wanted = {name for layout in LAYOUTS for name in layout.needs(part)}
    content = _from_archive(source, wanted) if source.is_file() else _from_folder(source, wanted)
    layout = _layout_of(set(content))
    if layout is None:
        raise InputError(_not_cifar(source, set(content)))
    missing = [name for name in layout.needs(part) if name not in content]
    if missing:
        raise InputError(f"{source}: {missing[0]} of {layout.name} is missing; fetch it again")
    names = [
        _names(content[name], size, source / name)
        for name, size in zip(layout.names, layout.sizes, strict=True)
    ]
    files = layout.parts[part]
    records = [_records(content[name], names, source / name) for name in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*records, strict=True))
    return Cifar(images, labels, names[-1])


def _layout_of(names: set[str]) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.files & names), None)


def _is_pickled(names: set[str]) -> bool:
    return any(files <= names for files in PICKLED)


def _not_cifar(source: Path, names: set[str]) -> str:
    if _is_pickled(names):
        return (
            f"{source} is CIFAR's Python or MATLAB version; pickles can run code and are not "
            "opened. Take the binary version: cifar-10-binary.tar.gz or cifar-100-binary.tar.gz"
        )
    return (
        f"{source} holds no CIFAR files; expected cifar-10-binary.tar.gz, cifar-100-binary.tar.gz "
        "or the folder in one of them"
    )


def _records(
    content: bytes, names: list[tuple[str, ...]], path: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images [n, 32, 32, 3] and their labels [n] in the last of ``names``."""
    size = len(names) + PIXELS
    if not content or len(content) % size:
        raise InputError(
            f"{path} is damaged: it holds {len(content)} bytes, not a whole number of records of "
            f"{size} bytes; fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    for byte, classes in enumerate(names):
        label = int(records[:, byte].max())
        if label >= len(classes):
            raise InputError(
                f"{path} is damaged: image {int(records[:, byte].argmax())} has label {label}, "
                f"there are {len(classes)} classes; fetch it again"
            )
    planes = records[:, len(names) :].reshape(-1, 3, SIDE, SIDE)
    return planes.transpose(0, 2, 3, 1), records[:, len(names) - 1].astype(np.int64)


def _names(content: bytes, size: int, path: Path) -> tuple[str, ...]:
    try:
        lines = content[:MAX_NAMES_BYTES].decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text ({error}); fetch it again") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != size or len(set(names)) != size:
        raise InputError(
            f"{path} names {len(set(names))} different classes in {len(names)} lines, expected "
            f"{size} in {size}; fetch it again"
        )
    return names


def _from_folder(folder: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Return the content of ``wanted`` files; other files are there with no content."""
    content = {path.name: b"" for path in folder.iterdir() if path.is_file()}
    for name in content.keys() & wanted:
        with open(folder / name, "rb") as file:
            content[name] = file.read(MAX_BYTES + 1)
        if len(content[name]) > MAX_BYTES:
            raise InputError(f"{folder / name} is larger than all of CIFAR; it is refused")
    return content


def _from_archive(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Return the content of ``wanted`` regular files, by the last part of their name.

    Other files are there with no content. Memory and time are bounded, whatever the archive
    claims: it is read as one stream that ends at ``MAX_BYTES``.
    """
    content: dict[str, bytes] = {}
    try:
        with (
            gzip.open(path) as unpacked,
            tarfile.open(fileobj=_Bounded(unpacked, path), mode="r|") as archive,
        ):
            for number, member in enumerate(archive):
                name = PurePosixPath(member.name).name
                if number >= MAX_MEMBERS or member.issparse() or name in content:
                    raise InputError(
                        f"{path} is not an archive of CIFAR's: {_problem(member, content)}"
                    )
                if member.isfile():
                    file = archive.extractfile(member) if name in wanted else None
                    content[name] = file.read() if file else b""
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}); fetch it again") from None
    except (ValueError, RecursionError) as error:  # what else strange headers lead tarfile to
        raise InputError(f"{path} is not a tar archive ({type(error).__name__})") from None
    return content


def _problem(member: tarfile.TarInfo, names: Collection[str]) -> str:
    if member.issparse():
        return f"{member.name} is sparse"
    twice = PurePosixPath(member.name).name in names
    return f"{member.name} is there twice" if twice else f"over {MAX_MEMBERS} members"


class _Bounded(io.RawIOBase):
    """A stream that refuses to go on after ``MAX_BYTES``."""

    def __init__(self, inner: BinaryIO | gzip.GzipFile, path: Path) -> None:
        self.inner, self.path, self.left = inner, path, MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self.inner.read(size if 0 <= size <= self.left else self.left + 1)
        self.left -= len(content)
        if self.left < 0:
            raise InputError(f"{self.path} unpacks to more than all of CIFAR; it is refused")
        return content
