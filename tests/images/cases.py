"""The table of docs/image-files.md: an image of each kind, with its pixels or its refusal.

Each is written by the library that owns its format, or chunk by chunk where none writes that kind.
What is right is computed from the values that were written, by no decoder.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

HEIGHT, WIDTH = 24, 40
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
SMOOTH = np.dstack([COLUMNS * 6, ROWS * 10, (ROWS + COLUMNS) * 4]).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
COLOUR, OPACITY = NOISE[..., :3], NOISE[..., 3]
GREY = COLOUR[..., 0]
WIDE = (GREY.astype(np.uint16) * 257) ^ 0x25  # the low byte counts for nothing
ORIENTATION, RIGHT_SIDE_UP = 0x0112, range(1, 9)

Values = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """An encoded image and what is right of it."""

    data: bytes
    right: NDArray[np.uint8] | None = None  # [H, W, 3]; None: refused
    within: float = 0  # levels that a lossy format may be away from what was written, on average
    refusal: str = ""  # words of it
    page: str = "same"  # "same", or words of the page's refusal


def saved(values: Values | Image.Image, image_format: str, **options: Any) -> bytes:
    image = values.copy() if isinstance(values, Image.Image) else Image.fromarray(values)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(values: Values, bits: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of grey or RGB values, with chunks before its pixels, as the format's text has it."""
    height, width = values.shape[:2]
    if bits < 8:
        shifts = np.arange(8 - bits, -1, -bits)
        rows = (values.reshape(height, -1, 8 // bits) << shifts).sum(axis=2).astype(np.uint8)
    else:
        rows = values.astype(f">u{bits // 8}").reshape(height, -1)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, 2 * (values.ndim - 2), 0, 0, 0)
    whole = [(b"IHDR", header), *chunks, (b"IDAT", content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in whole
    )


def key(*values: int) -> tuple[bytes, bytes]:
    """PNG's transparent grey or colour."""
    return b"tRNS", struct.pack(f">{len(values)}H", *values)


def tiff(values: Values, *, big_endian: bool = False, **tags: Any) -> bytes:
    """An uncompressed grey TIFF, tag by tag; ``tags`` are Photometric, SampleFormat and Bits."""
    order, form = ("MM", ">") if big_endian else ("II", "<")
    body: bytes = tags.pop(
        "body", values.astype(values.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
    )
    about = {256: WIDTH, 257: HEIGHT, 258: 8 * values.itemsize, 259: 1, 262: 1, 273: 0, 277: 1}
    about |= {278: HEIGHT, 279: len(body), 339: 1} | {int(k[1:]): v for k, v in tags.items()}
    about[273] = 8 + 2 + 12 * len(about) + 4
    entries = b"".join(
        struct.pack(f"{form}HHI", tag, 4, 1) + struct.pack(f"{form}I", value)
        for tag, value in sorted(about.items())
    )
    header = order.encode() + struct.pack(f"{form}HI", 42, 8) + struct.pack(f"{form}H", len(about))
    return header + entries + bytes(4) + body


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data


def turned(orientation: int) -> NDArray[np.uint8]:
    """SMOOTH as a person sees it, as the EXIF standard's table has it."""
    rows, columns = SMOOTH, SMOOTH.transpose(1, 0, 2)
    return {
        1: rows,
        2: rows[:, ::-1],
        3: rows[::-1, ::-1],
        4: rows[::-1],
        5: columns,
        6: columns[:, ::-1],
        7: columns[::-1, ::-1],
        8: columns[::-1],
    }[orientation]


def rgb(values: Values) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def on_white(colour: Values, opacity: Values) -> NDArray[np.uint8]:
    share = opacity[..., None] / 255
    mixed: NDArray[np.float64] = colour * share + 255 * (1 - share)
    return np.floor(mixed + 0.5).astype(np.uint8)


def cmyk_shown(inks: Values) -> NDArray[np.uint8]:
    light: NDArray[np.float64] = 255 - inks.astype(float)
    shown: NDArray[np.float64] = light[..., :3] * light[..., 3:] / 255
    return np.round(shown).astype(np.uint8)


def without_adobe(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def _cases() -> dict[str, Case]:
    unread = "is not an image that this browser can read"
    smooth = Image.fromarray(SMOOTH)
    inks = np.dstack([SMOOTH, SMOOTH[..., 0] // 2])
    cmyk = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)
    palette = smooth.convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    shown = np.asarray(palette.convert("RGB"))
    clear = np.asarray(palette) == 3
    on = on_white(shown, np.where(clear, 0, 255))
    twos = GREY >> 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()

    def first_and_second() -> dict[str, Any]:
        return {"save_all": True, "append_images": [ImageOps.invert(smooth)]}

    dark = GREY.astype(np.uint16) << 4
    wide_colour = COLOUR.astype(np.uint16) * 257
    premade: dict[str, Case] = {
        "JPEG": Case(saved(SMOOTH, "JPEG", quality=95), SMOOTH, 3),
        "JPEG, progressive": Case(saved(SMOOTH, "JPEG", quality=95, progressive=True), SMOOTH, 3),
        "JPEG, grey": Case(saved(SMOOTH[..., 2], "JPEG", quality=95), rgb(SMOOTH[..., 2]), 1),
        "JPEG, CMYK with Adobe's marker": Case(cmyk, cmyk_shown(inks), 2),
        "JPEG, CMYK without Adobe's marker": Case(
            without_adobe(cmyk),
            refusal="CMYK JPEG without Adobe's marker",
            page="CMYK JPEG without Adobe's marker",
        ),
        "JPEG, several images (MPO)": Case(
            saved(smooth, "MPO", quality=95, **first_and_second()), SMOOTH, 3
        ),
        "PNG": Case(saved(COLOUR, "PNG"), COLOUR),
        "PNG, grey": Case(saved(GREY, "PNG"), rgb(GREY)),
        "PNG, 1 bit": Case(png(GREY & 1, 1), rgb((GREY & 1) * 255)),
        "PNG, palette": Case(saved(palette, "PNG"), shown),
        "PNG, 16-bit grey": Case(png(WIDE, 16), rgb(GREY)),
        "PNG, 16-bit colour": Case(png(wide_colour, 16), COLOUR),
        "PNG, 12 bits in 16": Case(
            png(dark, 16), refusal="as of 12 bits stored in 16", page="as of 12 bits stored in 16"
        ),
        "PNG, alpha": Case(saved(NOISE, "PNG"), on_white(COLOUR, OPACITY)),
        "PNG, grey with alpha": Case(
            saved(np.dstack([GREY, OPACITY]), "PNG"), on_white(rgb(GREY), OPACITY)
        ),
        "PNG, palette with transparency": Case(saved(palette, "PNG", transparency=3), on),
        "PNG, transparent grey": Case(
            png(GREY, 8, key(7)), on_white(rgb(GREY), np.where(GREY == 7, 0, 255))
        ),
        "PNG, transparent grey of 2 bits": Case(
            png(twos, 2, key(2)), on_white(rgb(twos * 85), np.where(twos == 2, 0, 255))
        ),
        "PNG, transparent grey of 16 bits": Case(
            png(WIDE, 16, key(int(WIDE[3, 5]))),
            on_white(rgb(GREY), np.where(WIDE[3, 5] == WIDE, 0, 255)),
        ),
        "PNG, transparent colour": Case(
            png(SMOOTH, 8, key(*SMOOTH[3, 5].tolist())),
            on_white(SMOOTH, np.where((SMOOTH[3, 5] == SMOOTH).all(axis=2), 0, 255)),
        ),
        "PNG, transparent colour of 16 bits": Case(
            png(wide_colour, 16, key(1, 2, 3)),
            refusal="16-bit PNG with one transparent colour",
            page="16-bit PNG with one transparent colour",
        ),
        "PNG, gamma": Case(png(COLOUR, 8, (b"gAMA", struct.pack(">I", 100_000))), COLOUR),
        "PNG, colour profile": Case(saved(COLOUR, "PNG", icc_profile=profile), COLOUR),
        "WebP": Case(saved(SMOOTH, "WEBP", quality=95), SMOOTH, 4),
        "WebP, lossless": Case(saved(COLOUR, "WEBP", lossless=True), COLOUR),
        "WebP, alpha": Case(
            saved(NOISE, "WEBP", lossless=True, exact=True), on_white(COLOUR, OPACITY)
        ),
        "WebP, animated": Case(saved(smooth, "WEBP", lossless=True, **first_and_second()), SMOOTH),
        "GIF": Case(saved(palette, "GIF"), shown),
        "GIF, transparency": Case(saved(palette, "GIF", transparency=3, optimize=False), on),
        "GIF, animated": Case(
            saved(palette, "GIF", save_all=True, append_images=[Image.new("RGB", smooth.size)]),
            shown,
        ),
        "BMP": Case(saved(COLOUR, "BMP"), COLOUR),
        "AVIF": Case(saved(SMOOTH, "AVIF", quality=95), SMOOTH, 4),
        "AVIF, alpha": Case(
            saved(np.dstack([SMOOTH, OPACITY]), "AVIF", quality=95, subsampling="4:4:4"),
            on_white(SMOOTH, OPACITY),
            3,
            page="AVIF with transparency, which browsers read differently",
        ),
        "TIFF": Case(saved(COLOUR, "TIFF"), COLOUR, page=unread),
        "TIFF, alpha": Case(saved(NOISE, "TIFF"), on_white(COLOUR, OPACITY), page=unread),
        "TIFF, 16-bit grey": Case(tiff(WIDE), rgb(GREY), page=unread),
        "TIFF, 16-bit grey, big-endian": Case(tiff(WIDE, big_endian=True), rgb(GREY), page=unread),
        "TIFF, 16-bit grey, white is zero": Case(tiff(~WIDE, t262=0), rgb(GREY), page=unread),
        "TIFF, 12-bit grey": Case(
            tiff(GREY, t258=12, body=_packed(GREY.astype(np.uint16) << 4 | 9)),
            rgb(GREY),
            page=unread,
        ),
        "TIFF, 12 bits in 16": Case(tiff(dark), refusal="as of 12 bits stored in 16", page=unread),
        "TIFF, CMYK": Case(
            saved(Image.fromarray(inks, "CMYK"), "TIFF"), cmyk_shown(inks), 1, page=unread
        ),
        "TIFF, floating point": Case(
            tiff(GREY.astype(np.float32) / 255, t339=3), refusal="floating-point", page=unread
        ),
        "TIFF, signed": Case(
            tiff(GREY.astype(np.int16), t339=2), refusal="negative values", page=unread
        ),
        "TIFF, 32 bits": Case(
            tiff(GREY.astype(np.uint32) << 24), refusal="32-bit pixels", page=unread
        ),
        "TIFF, several pages": Case(
            saved(smooth, "TIFF", **first_and_second()), refusal="several pages", page=unread
        ),
        "JPEG 2000": Case(saved(COLOUR, "JPEG2000"), COLOUR, page=unread),
        "JPEG 2000, 16-bit grey": Case(saved(WIDE, "JPEG2000"), rgb(GREY), page=unread),
        "PPM": Case(saved(COLOUR, "PPM"), COLOUR, page=unread),
        "PGM, 12 bits": Case(
            b"P5 %d %d 4095\n" % (WIDTH, HEIGHT) + (dark | GREY >> 4).astype(">u2").tobytes(),
            rgb(GREY),
            page=unread,
        ),
    }
    for number in RIGHT_SIDE_UP:
        for name, options in (("JPEG", {"quality": 95}), ("PNG", {}), ("WebP", {"lossless": True})):
            premade[f"{name}, EXIF orientation {number}"] = Case(
                saved(SMOOTH, name.upper(), exif=exif(number), **options),
                turned(number),
                3 if name == "JPEG" else 0,
            )
    premade["AVIF, orientation 6"] = Case(
        saved(SMOOTH, "AVIF", quality=95, exif=exif(6)), turned(6), 4
    )
    premade["TIFF, orientation 6"] = Case(
        saved(SMOOTH, "TIFF", exif=exif(6)), turned(6), page=unread
    )
    return premade


def _packed(values: Values) -> bytes:
    """Twelve bits a value, two values in three bytes."""
    first, second = values.reshape(-1, 2).astype(int).T
    triples = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    return np.stack(triples, axis=1).astype(np.uint8).tobytes()


CASES = _cases()
