"""Decode images into RGB: the one decoder of everything that reads any (docs/image-files.md).

Images come from strangers, so memory and time are bounded. What has no one meaning is refused by
name: no image is turned into another in silence.
"""

from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import UPRIGHT, WHITE, Colour, Orientation
from pipeline.errors import InputError
from pipeline.files import read_at_most
from pipeline.process import quiet, stderr_unless_error

if TYPE_CHECKING:
    from PIL import Image, TiffImagePlugin

FORMATS = {  # Pillow's name, and how files in the format end
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
HEIF, HEIF_SUFFIXES = "HEIF", (".heic", ".heif")  # of the extra `heic`
SUFFIXES = (*(suffix for endings in FORMATS.values() for suffix in endings), *HEIF_SUFFIXES)
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
MAX_BYTES = 200_000_000  # of one encoded image
MAX_PIXELS = 89_478_485  # where Pillow starts to warn of decompression bombs
MAX_SCANS = 100  # usual progressive JPEGs have about ten; each passes over the whole image
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of a JPEG; the others belong to a scan
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
XMP = ("xmp", "XML:com.adobe.xmp")  # Pillow's names of metadata in which no viewer looks for a turn

WIDE = ("I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of 16-bit grey
DARKEST = 1 << 12  # a 16-bit image that never comes so far holds fewer bits than it says
AS_8_BITS = "save it with 8 bits a channel"
TIFF_BITS, TIFF_GREY, TIFF_ORIENTATION, TIFF_SAMPLE = 258, 262, 274, 339  # tags
WHITE_IS_ZERO, UNSIGNED = 0, 1

LIBTIFF = threading.Lock()  # standard error is the process's

Fault = Literal["format", "size", "damaged"]


class ImageError(InputError):
    """Bytes that cannot be used as an image, and what is wrong with them."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault


def read_file(path: Path) -> bytes:
    """Read an encoded image, unless it is too large or not a regular file.

    Raises:
        ImageError: it is.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ImageError("format", "not a regular file; pipe it in and give - as its name")
    with open(path, "rb") as file:
        return bounded(file)


def bounded(file: BinaryIO) -> bytes:
    """Read an open file to its end.

    Raises:
        ImageError: it is too large.
    """
    data = read_at_most(file, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError("size", f"more than {MAX_BYTES / 1e6:.0f} MB, which no image needs")
    return data


def decode(
    data: bytes,
    orientation: Orientation = UPRIGHT,
    background: Colour = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode an image, the first frame of an animation, as RGB of 8 bits a channel.

    ``orientation`` and ``background`` are those of the contract. Colour profiles are not applied.

    Raises:
        ImageError: no image of ``FORMATS``, one of more than ``max_pixels``, a damaged one, or
            one that does not say what its values mean.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with quiet():
            image: Image.Image = Image.open(io.BytesIO(data), formats=_formats(data))
            _check_size(image.size, max_pixels)
            _check_scans(data, image.format)
            _check_meaning(image, data)
            stored_turn = _tiff_tag(image, TIFF_ORIENTATION, 1)  # Pillow applies it as it loads
            inverted = _tiff_tag(image, TIFF_GREY, 1) == WHITE_IS_ZERO
            _load(image)
            image = _turned(image, orientation, stored_turn)
            return _as_rgb(image, data, background, inverted=inverted)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("format", _unknown(data)) from None
    except Image.DecompressionBombError:
        raise ImageError("size", f"the image has more than {max_pixels} pixels") from None
    except MemoryError:
        raise ImageError("size", "the image takes more memory than there is") from None
    except Exception as error:
        # Damaged bytes make Pillow's decoders fail in any way there is.
        reason = str(error)[:100] or type(error).__name__
        raise ImageError("damaged", f"the image is damaged or cut short: {reason}") from None


def _load(image: Image.Image) -> None:
    """Decode the pixels. What libtiff finds wrong it writes to standard error; nobody needs it."""
    tile = getattr(image, "tile", None)
    if not tile or tile[0][0] != "libtiff":
        image.load()
        return
    failure = None
    with LIBTIFF, stderr_unless_error():
        try:
            image.load()
        except Exception as error:
            failure = error
    if failure:
        raise failure


def _formats(data: bytes) -> tuple[str, ...]:
    """What to let Pillow try; HEIC's reader is loaded for HEIC only."""
    if not _is_heif(data):
        return tuple(FORMATS)
    if not _register_heif():
        raise ImageError(
            "format",
            "a HEIC image, as iPhones store them, needs pillow-heif; in edge-vit's folder, run: "
            f"{sys.executable} -m pip install -e '.[heic]', or save it as JPEG",
        )
    return (HEIF,)


def _is_heif(data: bytes) -> bool:
    """Whether the brands in the first box are HEIC's (AVIF's box is of the same kind)."""
    if data[4:8] != b"ftyp":
        return False
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return not HEIF_BRANDS.isdisjoint(box[at : at + 4] for at in range(0, len(box), 4))


@cache
def _register_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def _unknown(data: bytes) -> str:
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"a TIFF whose kind of pixels is not read; {AS_8_BITS}"
    return f"not an image in a known format ({', '.join([*FORMATS, HEIF])})"


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
    scans = 0
    for marker, _ in jpeg_markers(data):
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise ImageError("size", f"the JPEG has more than {MAX_SCANS} scans")


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker of a JPEG with the place behind it, up to the end of the first image."""
    position = 2
    while match := MARKER.search(data, position):
        marker = match[0][1]
        if marker == END_OF_IMAGE:
            return
        yield marker, match.end()
        length = int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + max(length, 2)


def _check_meaning(image: Image.Image, data: bytes) -> None:
    """Refuse what does not say what its values mean."""
    mode, kind = image.mode, image.format
    if kind == "TIFF" and getattr(image, "is_animated", False):
        raise ImageError("format", "a TIFF of several pages; save the page that counts by itself")
    if mode == "F":
        raise ImageError("format", f"floating-point pixels have no white; {AS_8_BITS}")
    if kind == "TIFF" and set(_as_tuple(_tiff_tag(image, TIFF_SAMPLE, UNSIGNED))) != {UNSIGNED}:
        raise ImageError("format", f"a TIFF with negative values has no black; {AS_8_BITS}")
    if mode == "I" and kind != "PPM":
        raise ImageError("format", f"32-bit pixels have no white; {AS_8_BITS}")
    if mode == "CMYK" and kind in ("JPEG", "MPO") and "adobe" not in image.info:
        raise ImageError(
            "format",
            "a CMYK JPEG without Adobe's marker does not say whether its values are inverted; "
            "save it as RGB",
        )
    if mode == "CMYK" and kind not in ("JPEG", "MPO", "TIFF"):
        raise ImageError("format", f"a {kind} in CMYK is not read; save it as RGB")
    if mode in ("LAB", "HSV"):
        raise ImageError("format", f"a {kind} in {mode} colours is not read; save it as RGB")
    if kind == "PNG" and _bits(image, data) > 8 and mode == "RGB" and "transparency" in image.info:
        raise ImageError("format", f"a 16-bit PNG with one transparent colour; {AS_8_BITS}")


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits a channel as the file has them, where the format leaves their range to the writer."""
    if image.format == "PNG":
        return data[24]
    return max(_as_tuple(_tiff_tag(image, TIFF_BITS, 8)))


def _tiff_tag(image: Image.Image, tag: int, otherwise: int) -> int | tuple[int, ...]:
    if image.format != "TIFF":
        return otherwise
    tags: TiffImagePlugin.ImageFileDirectory_v2 = image.tag_v2  # type: ignore[attr-defined]
    value: int | tuple[int, ...] = tags.get(tag, otherwise)
    return value


def _as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _turned(
    image: Image.Image, orientation: Orientation, tiff_turn: int | tuple[int, ...]
) -> Image.Image:
    """Turn an image as its EXIF data say, or leave or make it as it was stored."""
    from PIL import Image, ImageOps

    if orientation == UPRIGHT:
        for key in XMP:
            image.info.pop(key, None)
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except MemoryError:
            raise
        except Exception:
            pass  # broken EXIF data say nothing of the orientation; viewers show them as stored
        return image
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(_as_tuple(tiff_turn)[0])
    return image if back is None else image.transpose(back)


def _as_rgb(image: Image.Image, data: bytes, background: Colour, *, inverted: bool) -> Image.Image:
    """Reduce 16 bits to 8, put transparency on the background and convert to RGB."""
    from PIL import Image

    bits = _bits(image, data)
    alpha = _alpha(image, bits)
    if image.mode in WIDE or image.mode == "I":
        image = Image.fromarray(_reduced(image, bits, inverted=inverted))
    elif bits > 8 and image.mode != "CMYK":
        _check_range(max(high for _, high in _bands(image)) * 257, bits)
    if alpha is None:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    else:
        rgb = Image.new("RGB", image.size, background)
        rgb.paste(image.convert("RGB"), mask=alpha)  # rounds exactly
    rgb.info = {}  # what it says was applied, and no writer of files may copy it
    return rgb


def _bands(image: Image.Image) -> list[tuple[int, int]]:
    """Lowest and highest value of each colour."""
    return image.convert("RGB").getextrema()  # type: ignore[return-value]


def _alpha(image: Image.Image, bits: int) -> Image.Image | None:
    """The opacity of each pixel, mode L; None if all are opaque."""
    from PIL import Image

    if not image.has_transparency_data:
        return None
    key = image.info.get("transparency")
    if image.format == "PNG" and key is not None and image.mode in ("1", "L", "RGB", *WIDE):
        if image.mode == "L":
            key = key * 255 // ((1 << min(bits, 8)) - 1)  # Pillow keeps the value as it is stored
        values = np.asarray(image)
        differs = values != np.array(key != 0 if image.mode == "1" else key)
        seen = differs if differs.ndim == 2 else differs.any(axis=2)
        return Image.fromarray(np.where(seen, np.uint8(255), np.uint8(0)))
    return image.convert("RGBA").getchannel("A")


def _reduced(image: Image.Image, bits: int, *, inverted: bool) -> NDArray[np.uint8]:
    """Grey of up to 16 bits by the range of its format, uint8 [H, W]."""
    values = np.asarray(image)
    most = 4095 if bits == 12 else 65535  # PGM's are scaled to 16 bits by Pillow
    if bits == 16:
        _check_range(int(values.max()), bits)
    # The high byte, as of colours.
    table = (np.arange(most + 1) * 256 // (most + 1)).astype(np.uint8)
    reduced: NDArray[np.uint8] = (table[::-1] if inverted else table)[np.minimum(values, most)]
    return reduced


def _check_range(highest: int, bits: int) -> None:
    if highest < DARKEST:
        raise ImageError(
            "format",
            f"a {bits}-bit image whose values end at {highest}, as of 12 bits stored in 16, would"
            f" be nearly black; {AS_8_BITS}, or scaled to the whole range",
        )
