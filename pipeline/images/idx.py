"""Read IDX files, the format of MNIST and Fashion-MNIST (described on MNIST's home page).

A big-endian header: two zero bytes, the element type, the number of dimensions, then each
dimension's size as 32 bits; the elements follow. Files may be gzipped, as they are published.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.files import read_at_most

UNSIGNED_BYTE = 0x08
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MAX_BYTES = 1 << 30  # more than any IDX data set; a gzip bomb stops here


def read_images(path: Path) -> NDArray[np.uint8]:
    """Read images, uint8 [n, height, width].

    Raises:
        InputError: missing, damaged, or not an IDX file of images.
    """
    return _read(path, dimensions=3)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read labels, uint8 [n].

    Raises:
        InputError: missing, damaged, or not an IDX file of labels.
    """
    return _read(path, dimensions=1)


def _read(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    content = _bytes(path)
    header = 4 + 4 * dimensions
    expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if len(content) < header or content[:4] != expected:
        raise InputError(
            f"{path} is not an IDX file of bytes with {dimensions} dimensions: it starts with "
            f"{content[:4].hex()!r}, expected {expected.hex()!r}"
        )
    shape = np.frombuffer(content, ">u4", dimensions, 4).tolist()
    if len(content) - header != math.prod(shape):
        raise InputError(
            f"{path} is damaged: its header promises {math.prod(shape)} bytes for shape {shape}, "
            f"it holds {len(content) - header}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _bytes(path: Path) -> bytes:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            return read_at_most(file, MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}); fetch it again") from None
