"""From an image to the model's input: decoding, timm's geometry, and normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import Preprocessing
from pipeline.errors import InputError
from pipeline.images.decode import MAX_PIXELS, decode

if TYPE_CHECKING:
    from PIL import Image


Pixels = NDArray[np.uint8]
DECODED = ("RGB", "L")  # grey of data sets is RGB without a choice to make


def decoded(data: bytes, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an encoded image as the contract says, RGB; errors as :func:`decode`."""
    return decode(data, preprocessing.orientation, preprocessing.background, max_pixels)


def geometry(preprocessing: Preprocessing) -> Callable[[Image.Image], Pixels]:
    """Return the part of timm's evaluation transform that moves pixels: RGB image -> [H, W, C].

    What it returns takes decoded images (:func:`decoded`) and raises InputError for others: what
    they mean in RGB would be a guess.
    """
    from timm.data import create_transform

    transform = create_transform(
        (preprocessing.channels, *preprocessing.size),
        is_training=False,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    steps = transform.transforms[:-2]  # all but MaybeToTensor and Normalize

    def apply(image: Image.Image) -> Pixels:
        if image.mode not in DECODED:
            raise InputError(f"an image in mode {image.mode} is not decoded; use decoded()")
        image = image.convert(preprocessing.colour_order)
        for step in steps:
            image = step(image)
        pixels = np.asarray(image)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    return apply


def normalize(images: Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn pixels [n, H, W, C] into model input [n, C, H, W], C-contiguous float32.

    Bit-equal to torchvision's ``ToTensor`` and ``Normalize``: each of 256 values is divided by
    255, less the mean, divided by the standard deviation, each step rounded to float32.
    """
    channels = preprocessing.channels
    if images.ndim != 4 or images.shape[3] != channels or images.dtype != np.uint8:
        raise InputError(
            f"images must be uint8 [n, H, W, {channels}], got {images.dtype} {images.shape}"
        )
    unit = np.arange(256, dtype=np.float32) / np.float32(255)
    out = np.empty((len(images), channels, *images.shape[1:3]), np.float32)
    for channel, (mean, std) in enumerate(zip(preprocessing.mean, preprocessing.std, strict=True)):
        table = (unit - np.float32(mean)) / np.float32(std)
        out[:, channel] = table[images[..., channel]]
    return out
