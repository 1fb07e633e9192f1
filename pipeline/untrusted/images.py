"""Decode images from untrusted sources, in bounded memory and time."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Literal

from pipeline.errors import InputError
from pipeline.process import quiet

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 89_478_485  # where Pillow starts to warn of decompression bombs
MAX_SCANS = 100  # usual progressive JPEGs have about ten; each passes over the whole image
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of a JPEG; the others belong to a scan
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9

Fault = Literal["format", "size", "damaged"]


class ImageError(InputError):
    """Bytes that cannot be used as an image, and what is wrong with them."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the first frame, upright (EXIF orientation applied), as RGB.

    Raises:
        ImageError: no image of ``FORMATS``, one of more than ``max_pixels``, or a damaged one.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with quiet():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(image.size, max_pixels)
            _check_scans(data, image.format)
            image.load()
            _turn_upright(image)
            return image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise ImageError("format", f"not an image in a known format ({formats})") from None
    except Image.DecompressionBombError:
        raise ImageError("size", f"the image has more than {max_pixels} pixels") from None
    except MemoryError:
        raise ImageError("size", "the image takes more memory than there is") from None
    except Exception as error:
        # Damaged bytes make Pillow's decoders fail in any way there is.
        reason = str(error)[:100] or type(error).__name__
        raise ImageError("damaged", f"the image is damaged or cut short: {reason}") from None


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            "size", f"the image has {width} x {height} pixels, more than {max_pixels} in all"
        )


def _check_scans(data: bytes, image_format: str | None) -> None:
    """Refuse a JPEG of many scans: each takes a few bytes and a pass over all pixels."""
    if image_format not in ("JPEG", "MPO"):
        return
    scans, position = 0, 2
    while match := MARKER.search(data, position):
        marker = match[0][1]
        if marker == END_OF_IMAGE:
            return
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise ImageError("size", f"the JPEG has more than {MAX_SCANS} scans")
        length = int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + max(length, 2)


def _turn_upright(image: Image.Image) -> None:
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:
        return  # broken EXIF data say nothing of the orientation; viewers show such files as stored
