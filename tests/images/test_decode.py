from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.images import decode as decoding
from pipeline.images.decode import FORMATS, MAX_SCANS, ImageError, decode
from tests.images.cases import (
    CASES,
    COLOUR,
    HEIGHT,
    OPACITY,
    RIGHT_SIDE_UP,
    SMOOTH,
    WIDTH,
    exif,
    saved,
    tiff,
    turned,
)
from tests.inference.images import encoded, oriented, pixels, png_bomb, scan_bomb

HEIC_BOX = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def levels_apart(image: Image.Image, right: np.ndarray) -> float:
    found = np.asarray(image, np.int16)
    assert found.shape == right.shape
    return float(np.abs(found - right).mean())


def near(image: Image.Image, other: Image.Image) -> bool:
    if image.size != other.size:
        return False
    difference = np.asarray(image, np.int16) - np.asarray(other, np.int16)
    return float(np.abs(difference).mean()) < 4


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_that_is_promised_is_decoded(image_format):
    assert near(decode(encoded(image_format)), pixels())


@pytest.mark.parametrize("name", CASES)
def test_an_image_of_each_kind_is_read_as_it_was_written_or_refused_by_name(name):
    case = CASES[name]
    if case.right is None:
        with pytest.raises(ImageError, match=case.refusal) as caught:
            decode(case.data)
        assert caught.value.fault == "format"
        return
    found = decode(case.data)
    assert (found.mode, found.info) == ("RGB", {})
    assert levels_apart(found, case.right) <= case.within


def test_the_table_for_readers_has_every_kind_and_what_becomes_of_it():
    lines = Path("docs/image-files.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = {row[0]: row[1:] for row in rows if len(row) == 3}
    for name, case in CASES.items():
        here, page = table[re.sub(r"orientation [1-8]$", "orientation 1 to 8", name)]
        assert here.startswith("refused" if case.right is None else "read"), name
        assert page.startswith("the same" if case.page == "same" else "refused"), name


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", RIGHT_SIDE_UP)
def test_stored_images_are_not_turned(image_format, orientation):
    options = {"quality": 95} if image_format == "JPEG" else {"lossless": True}
    data = saved(SMOOTH, image_format, exif=exif(orientation), **options)
    assert levels_apart(decode(data, "stored"), SMOOTH) <= (3 if image_format == "JPEG" else 0)


def test_what_lies_under_full_transparency_does_not_count():
    clear = np.where(OPACITY > 127, 255, 0).astype(np.uint8)
    blackened = np.where(clear[..., None], COLOUR, 0).astype(np.uint8)
    seen = [decode(saved(np.dstack([c, clear]), "PNG")).tobytes() for c in (COLOUR, blackened)]
    assert seen[0] == seen[1]


def test_transparency_is_put_on_the_background_that_the_contract_names():
    glass = saved(np.zeros((2, 3, 4), np.uint8), "PNG")
    assert decode(glass, background=(1, 2, 3)).getcolors() == [(6, (1, 2, 3))]


def test_heic_names_the_command_that_installs_its_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoding._register_heif.cache_clear()
    with pytest.raises(ImageError, match=r"-m pip install -e '\.\[heic\]'") as caught:
        decode(HEIC_BOX + b"whatever")
    assert caught.value.fault == "format"


def test_heic_is_read_upright():
    pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    decoding._register_heif.cache_clear()
    decoding._register_heif()
    data = saved(SMOOTH, "HEIF", quality=95, exif=exif(6).tobytes())
    assert data[4:12] == HEIC_BOX[4:12]
    assert levels_apart(decode(data), turned(6)) <= 4


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
        decode(encoded("ICO"))


def test_a_tiff_of_unread_pixels_says_what_to_do():
    doubles = tiff(np.zeros((HEIGHT, WIDTH)), t339=3)
    with pytest.raises(ImageError, match="TIFF whose kind of pixels is not read; save it with 8"):
        decode(doubles)


def test_libtiff_says_nothing_to_the_terminal(capfd):
    data = encoded("TIFF", compression="tiff_lzw")
    middle = len(data) // 2
    with pytest.raises(ImageError, match="damaged"):
        decode(data[:middle] + bytes(40) + data[middle + 40 :])
    assert capfd.readouterr().err == ""
    assert decode(data).tobytes() == pixels().tobytes()


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
