from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from pipeline.contract.contract import Preprocessing
from pipeline.errors import InputError, IntegrityError
from pipeline.images.preprocessing import geometry, normalize
from pipeline.images.samples import SampleSet, content_hash, load_pixels, samples_sha256
from tests.contract import builders

RNG = np.random.default_rng(0)


def preprocessing(**changes: Any) -> Preprocessing:
    return builders.preprocessing(**{"size": (64, 64), "resize": 71} | changes)


def drawn(mode: str, width: int, height: int) -> Image.Image:
    noise = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def timm_answer(image: Image.Image, how: Preprocessing) -> torch.Tensor:
    transform = create_transform(
        (3, *how.size),
        is_training=False,
        crop_pct=how.crop_pct,
        crop_mode=how.crop_mode,
        interpolation=how.interpolation,
        mean=how.mean,
        std=how.std,
    )
    answer: torch.Tensor = transform(image.convert("RGB"))
    return answer


@pytest.mark.parametrize(
    ("mode", "width", "height", "changes"),
    [
        ("RGB", 101, 83, {}),
        ("RGB", 28, 28, {"crop_pct": 1.0}),
        ("RGB", 300, 40, {}),
        ("L", 90, 91, {}),
        ("RGB", 101, 83, {"crop_pct": 0.875, "interpolation": "bilinear"}),
        ("RGB", 101, 83, {"interpolation": "nearest"}),
        ("RGB", 101, 83, {"crop_mode": "squash"}),
        ("RGB", 101, 83, {"crop_mode": "border"}),
        ("RGB", 101, 83, {"size": (64, 48)}),
        ("RGB", 101, 83, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}),
    ],
)
def test_geometry_then_normalize_is_exactly_timms_transform(
    mode: str, width: int, height: int, changes: dict[str, Any]
) -> None:
    how, image = preprocessing(**changes), drawn(mode, width, height)
    pixels = geometry(how)(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*how.size, 3)
    ours = normalize(pixels[None], how)[0]
    assert np.array_equal(ours, timm_answer(image, how).numpy())


def test_every_pixel_value_is_normalized_as_torchvision_does() -> None:
    how = preprocessing(size=(16, 16), mean=(0.1, 0.2, 0.3), std=(0.7, 0.8, 0.9))
    values = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    from torchvision.transforms import Compose, Normalize, ToTensor

    expected = Compose([ToTensor(), Normalize(how.mean, how.std)])(Image.fromarray(values))
    assert np.array_equal(normalize(values[None], how)[0], expected.numpy())


def test_normalized_batches_are_contiguous_float32() -> None:
    batch = normalize(np.zeros((2, 5, 7, 3), np.uint8), preprocessing())
    assert batch.shape == (2, 3, 5, 7)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous


def test_normalize_refuses_what_are_no_pixels() -> None:
    with pytest.raises(InputError, match=r"float32 \(1, 4, 4, 3\)"):
        normalize(np.zeros((1, 4, 4, 3), np.float32), preprocessing())
    with pytest.raises(InputError, match=r"\(4, 4, 3\)"):
        normalize(np.zeros((4, 4, 3), np.uint8), preprocessing())


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "1", "I;16", "F"])
def test_what_is_not_decoded_is_refused_not_guessed_at(mode: str) -> None:
    with pytest.raises(InputError, match=f"mode {mode} is not decoded"):
        geometry(preprocessing())(Image.new(mode, (90, 91)))


def write_samples(folder: Path, true_labels: list[int | None], **changes: Any) -> None:
    images = RNG.integers(0, 256, (len(true_labels), 4, 4, 3), dtype=np.uint8)
    ids = [f"image-{index}" for index in range(len(true_labels))]
    np.save(folder / "images.npy", images)
    about = {
        "schema": 1,
        "ids": ids,
        "labels": true_labels,
        "classes": ["a", "b"],
        "sha256": samples_sha256([content_hash(image) for image in images], true_labels, ids),
    }
    (folder / "samples.json").write_text(json.dumps(about | changes))


def test_samples_are_mapped_not_read(tmp_path: Path) -> None:
    write_samples(tmp_path, [0, 1, 1])
    loaded = SampleSet.load(tmp_path)
    assert isinstance(loaded.images, np.memmap)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1, 1]
    assert loaded.ids == ("image-0", "image-1", "image-2")
    assert loaded.classes == ("a", "b")
    assert len(loaded) == 3
    loaded.verify()


def test_unlabelled_samples_have_no_labels(tmp_path: Path) -> None:
    write_samples(tmp_path, [None, None])
    loaded = SampleSet.load(tmp_path)
    assert loaded.labels is None
    loaded.verify()


def test_a_changed_pixel_is_found(tmp_path: Path) -> None:
    write_samples(tmp_path, [0, 1])
    images = np.load(tmp_path / "images.npy")
    images[1, 2, 3, 0] ^= 1
    np.save(tmp_path / "images.npy", images)
    with pytest.raises(IntegrityError, match="samples were changed"):
        SampleSet.load(tmp_path).verify()


@pytest.mark.parametrize("changes", [{"labels": [1, 1]}, {"ids": ["image-1", "image-0"]}])
def test_a_changed_label_or_id_is_found(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_samples(tmp_path, [0, 1], **changes)
    with pytest.raises(IntegrityError, match="samples were changed"):
        SampleSet.load(tmp_path).verify()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [0]}, "2 images, 2 ids and 1 labels"),
        ({"schema": 99}, "schema 99"),
        ({"ids": None}, "lacks"),
    ],
)
def test_samples_that_do_not_belong_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    write_samples(tmp_path, [0, 1], **changes)
    with pytest.raises(InputError, match=words):
        SampleSet.load(tmp_path)


def test_a_cut_array_is_refused(tmp_path: Path) -> None:
    write_samples(tmp_path, [0, 1])
    whole = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"images\.npy is not an array of images"):
        SampleSet.load(tmp_path)


def test_an_array_with_objects_is_refused_unopened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy is not an array of images"):
        load_pixels(tmp_path / "a.npy")


def test_an_array_of_floats_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(InputError, match="float32"):
        load_pixels(tmp_path / "a.npy")
