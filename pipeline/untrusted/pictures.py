"""Decode pictures that may come from anybody, in bounded memory and time."""

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
MAX_SCANS = 100  # usual progressive JPEGs have about ten; each passes over the whole picture
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of a JPEG; the others belong to a scan
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9

Fault = Literal["format", "size", "damaged"]


class PhotoError(InputError):
    """Bytes that cannot be used as a picture, and what is wrong with them."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the first frame, upright (EXIF orientation applied), as RGB.

    Raises:
        PhotoError: no picture of ``FORMATS``, one of more than ``max_pixels``, or a damaged one.
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
    except PhotoError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise PhotoError("format", f"not a picture in a known format ({known})") from None
    except Image.DecompressionBombError:
        raise PhotoError("size", f"the picture has more than {max_pixels} pixels") from None
    except MemoryError:
        raise PhotoError("size", "the picture takes more memory than there is") from None
    except Exception as error:
        # Damaged bytes make Pillow's decoders fail in any way there is.
        reason = str(error)[:100] or type(error).__name__
        raise PhotoError("damaged", f"the picture is damaged or cut short: {reason}") from None


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PhotoError(
            "size", f"the picture has {width} x {height} pixels, more than {max_pixels} in all"
        )


def _check_scans(data: bytes, image_format: str | None) -> None:
    """Refuse the bomb of time: a few bytes a scan make libjpeg walk over all pixels again."""
    if image_format not in ("JPEG", "MPO"):
        return
    scans, position = 0, 2
    while found := MARKER.search(data, position):
        marker = found[0][1]
        if marker == END_OF_IMAGE:
            return
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise PhotoError("size", f"the JPEG has more than {MAX_SCANS} scans")
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + max(length, 2)


def _turn_upright(image: Image.Image) -> None:
    from PIL import ImageOps

    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:
        return  # broken EXIF data say nothing of the orientation; viewers show such files as stored
