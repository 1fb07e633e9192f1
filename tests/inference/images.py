"""Images for tests: whole ones in each format, and hostile ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def pixels(width: int = 96, height: int = 64) -> Image.Image:
    """Left third red, the rest a blue gradient: every rotation looks different."""
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 2] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    array[:, : width // 3] = (255, 0, 0)
    return Image.fromarray(array)


def encoded(image_format: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or pixels()).save(buffer, image_format, **options)
    return buffer.getvalue()


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A few kilobytes that promise gigabytes of pixels."""
    rows = zlib.compress(bytes(1 + 3 * width) * 16, 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def scan_bomb(scans: int = 20_000, side: int = 2000) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all pixels."""
    whole = encoded("JPEG", Image.new("L", (side, side)), progressive=True)
    last = whole.rfind(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + b"\xff\xd9"


def oriented(orientation: int) -> bytes:
    """A JPEG that its EXIF data say to turn."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded("JPEG", exif=exif, quality=95, subsampling=0)
