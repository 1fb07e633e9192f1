from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.untrusted.images import FORMATS, MAX_SCANS, ImageError, decode
from tests.inference.images import encoded, oriented, pixels, png_bomb, scan_bomb


def near(image: Image.Image, other: Image.Image) -> bool:
    if image.size != other.size:
        return False
    difference = np.asarray(image, np.int16) - np.asarray(other, np.int16)
    return float(np.abs(difference).mean()) < 4


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_that_is_promised_is_decoded(image_format):
    assert near(decode(encoded(image_format)), pixels())


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_other_colour_modes_become_rgb(mode):
    image_format = "JPEG" if mode == "CMYK" else "PNG"
    assert decode(encoded(image_format, pixels().convert(mode))).mode == "RGB"


TURNS = {
    2: ImageOps.mirror,
    3: lambda image: image.rotate(180),
    6: lambda image: image.rotate(-90, expand=True),
    8: lambda image: image.rotate(90, expand=True),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_seen_upright_as_a_person_sees_it(orientation):
    assert near(decode(oriented(orientation)), TURNS[orientation](pixels()))


def test_broken_exif_data_leave_the_image_as_stored():
    data = oriented(6).replace(b"Exif\0\0MM\0*", b"Exif\0\0XX\0*")
    assert near(decode(data), pixels())


def test_the_first_frame_of_an_animation_counts():
    frames = [pixels(), Image.new("RGB", pixels().size)]
    data = encoded("GIF", frames[0], save_all=True, append_images=frames[1:])
    assert near(decode(data), pixels())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_an_image_cut_short_is_damaged_and_not_half_answered(image_format):
    data = encoded(image_format)
    with pytest.raises(ImageError) as caught:
        decode(data[: len(data) // 2])
    assert caught.value.fault == "damaged"


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff", b"%PDF-1.7", b"\0" * 999])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(ImageError, match="not an image in a known format") as caught:
        decode(data)
    assert caught.value.fault == "format"


def test_formats_that_are_not_promised_are_not_opened():
    with pytest.raises(ImageError, match="known format"):
        decode(encoded("TIFF"))


def test_too_many_pixels_are_refused_before_any_is_decoded():
    for width, words in ((60_000, "more than 89478485"), (12_000, "12000 x 12000 pixels")):
        with pytest.raises(ImageError, match=words) as caught:
            decode(png_bomb(width, width))
        assert caught.value.fault == "size"
    assert decode(encoded("PNG"), max_pixels=96 * 64).size == (96, 64)
    with pytest.raises(ImageError, match="more than 6143 in all"):
        decode(encoded("PNG"), max_pixels=96 * 64 - 1)


def test_a_jpeg_of_endless_scans_is_refused_and_a_progressive_one_is_not():
    with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans"):
        decode(scan_bomb())
    assert near(decode(encoded("JPEG", progressive=True, quality=95)), pixels())


def test_scans_hidden_behind_a_false_end_in_the_header_are_counted():
    data = scan_bomb()
    comment = b"\xff\xda\xff\xd9"
    hidden = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
    with pytest.raises(ImageError, match="scans"):
        decode(hidden)
