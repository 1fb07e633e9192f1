"""Labelled images for training: IDX files, CIFAR, or one folder of image files a class.

A data set hands out whole batches of uint8 [n, C, S, S]. What it draws at random depends on the
batch's seed alone, so an interrupted run resumes with exactly the images it would have seen.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import InputError, first_of
from pipeline.finetune.params import Augmentation, Data
from pipeline.images import cifar, idx
from pipeline.images.decode import SUFFIXES, ImageError, decode, read_file
from pipeline.images.folders import listing, refuse_parts, top_folders

if TYPE_CHECKING:
    from PIL import Image

ASPECT = (3 / 4, 4 / 3)  # of random crops, as in Inception and everything since

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Draw:
    """Which images make a batch, and the seed of whatever is random about them."""

    indices: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class View:
    """How images are shown: size in pixels, interpolation, augmentation (None: as they are)."""

    size: int
    interpolation: str
    augmentation: Augmentation | None = None


class ImageData:
    """Labelled images that can be drawn in batches."""

    source: str  # where they come from, for messages
    classes: tuple[str, ...]
    labels: torch.Tensor  # int64 [n]
    workers = 0

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, draw: Draw, view: View) -> torch.Tensor:
        """Return images in [0, 1], float32 [len(draw.indices), 3, view.size, view.size]."""
        raise NotImplementedError

    def open(self, index: int) -> Image.Image:
        """Return one image as it was stored."""
        raise NotImplementedError


class PixelData(ImageData):
    """Images of one size, all in memory; resized on the fly as tensors."""

    def __init__(
        self, source: Path, pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str]
    ) -> None:
        """``pixels`` is uint8 [n, H, W, C] of 1 or 3 channels, ``labels`` integers [n]."""
        self.source, self.classes = str(source), tuple(classes)
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def batch(self, draw: Draw, view: View) -> torch.Tensor:
        """As :meth:`ImageData.batch`; images of one channel get three."""
        x = self.pixels[torch.tensor(draw.indices)].float() / 255
        if view.augmentation:
            generator = torch.Generator().manual_seed(draw.seed)
            x = _flip_and_shift(x, view.augmentation, generator)
        return resize(x, view.size, view.interpolation).expand(-1, 3, -1, -1)

    def open(self, index: int) -> Image.Image:
        """As :meth:`ImageData.open`; grey if the data set is."""
        from PIL import Image

        pixels = self.pixels[index].permute(1, 2, 0).numpy()
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def resize(x: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    """Resize images in [0, 1], float32 [n, C, H, W], as Pillow would: antialiased, clamped."""
    x = torch.nn.functional.interpolate(x, (size, size), mode=interpolation, antialias=True)
    return x.clamp(0, 1)


def _idx_data(root: Path, part: str) -> PixelData:
    pixels = idx.read_images(_idx_file(root, part, "images-idx3")).copy()
    labels = idx.read_labels(_idx_file(root, part, "labels-idx1"))
    if len(labels) != len(pixels):
        raise InputError(f"{root}: {len(pixels)} {part} images, {len(labels)} labels")
    names = idx.FASHION_MNIST_CLASSES
    more = [str(number) for number in range(len(names), int(labels.max()) + 1)]
    return PixelData(root, pixels[..., None], labels, [*names, *more])


def _cifar_data(source: Path, part: cifar.Part) -> PixelData:
    content = cifar.read(source, part)
    return PixelData(source, content.images, content.labels, content.classes)


def _flip_and_shift(
    x: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Flip and shift images [n, C, H, W] by whole pixels; what moves in is black."""
    n, channels, height, width = x.shape
    flipped = torch.rand(n, 1, 1, 1, generator=generator) < augmentation.flip
    x = torch.where(flipped, x.flip(3), x)
    most = round(augmentation.shift * min(height, width))
    padded = torch.nn.functional.pad(x, (most,) * 4)
    top = torch.randint(0, 2 * most + 1, (n, 1), generator=generator)
    left = torch.randint(0, 2 * most + 1, (n, 1), generator=generator)
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    image = torch.arange(n)[:, None, None, None]
    return padded[image, torch.arange(channels)[:, None, None], rows, columns]


class FolderData(ImageData):
    """Image files in one folder a class, decoded as they are needed."""

    def __init__(self, root: Path, data: Data) -> None:
        """``data.workers`` processes decode images; 0 decodes them in this one.

        Raises:
            InputError: fewer than two folders hold images.
        """
        self.source = str(root)
        images = [path for path in listing(root).files if path.suffix.lower() in SUFFIXES]
        self.classes = tuple(top_folders(images))
        refuse_parts(root, self.classes, "data.root or data.test")
        if len(self.classes) < 2:
            raise InputError(
                f"{root} has {len(self.classes)} folders with images, one for each "
                "class; at least 2 are needed"
            )
        inside = [path for path in images if len(path.parts) > 1]  # sorted, so class by class
        self.files = [root / path for path in inside]
        by_class = Counter(path.parts[0] for path in inside)
        counts = [by_class[name] for name in self.classes]
        self.labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        self.workers = data.workers
        self._decode = partial(decode, orientation=data.orientation, background=data.background)

    def batch(self, draw: Draw, view: View) -> torch.Tensor:
        """As :meth:`ImageData.batch`.

        Raises:
            InputError: a file is not an image that can be read.
        """
        rng = random.Random(draw.seed)
        images = [_crop(self.open(index), view, rng) for index in draw.indices]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255

    def open(self, index: int) -> Image.Image:
        """As :meth:`ImageData.open`, as RGB; errors as :meth:`batch`."""
        path = self.files[index]
        try:
            return self._decode(read_file(path))
        except (ImageError, OSError) as error:
            raise InputError(f"{path} is not an image that can be read ({error})") from None


def _crop(image: Image.Image, view: View, rng: random.Random) -> np.ndarray:
    from PIL import Image

    box = _box(image.size, view.augmentation, rng)
    resample = Image.Resampling[view.interpolation.upper()]
    image = image.resize((view.size, view.size), resample, box=box)
    if view.augmentation and rng.random() < view.augmentation.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def _box(
    size: tuple[int, int], augmentation: Augmentation | None, rng: random.Random
) -> tuple[float, float, float, float]:
    """Return a crop (left, upper, right, lower): the central square, or a random one."""
    width, height = size
    if augmentation is None:
        w = h = float(min(size))
        left, top = (width - w) / 2, (height - h) / 2
    else:
        area = width * height * rng.uniform(augmentation.min_area, 1)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = min(width, math.sqrt(area * aspect)), min(height, math.sqrt(area / aspect))
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return left, top, left + w, top + h


def _idx_file(root: Path, part: str, kind: str) -> Path:
    name = f"{part}-{kind}-ubyte"
    plain, packed = root / name, root / f"{name}.gz"
    return plain if plain.exists() else packed


def is_idx(root: Path) -> bool:
    """Whether a folder holds IDX files, packed or not."""
    return any(root.glob("*-images-idx3-ubyte*"))


def load_train(data: Data) -> ImageData:
    """Open the training images.

    Raises:
        InputError: the data set is missing or damaged, or has fewer than two classes.
    """
    _require_root(data)
    if cifar.is_cifar(data.root):
        return _cifar_data(data.root, "train")
    if is_idx(data.root):
        return _idx_data(data.root, "train")
    return FolderData(data.root, data)


def load_test(data: Data) -> ImageData | None:
    """Open the test images: those of a data set, or ``data.test``; None if there are none.

    Raises:
        InputError: ``data.test`` is missing, or its classes are not those of the training images.
    """
    _require_root(data)
    if cifar.is_cifar(data.root):
        return _cifar_data(data.root, "test")
    if is_idx(data.root):
        return _idx_data(data.root, "t10k")
    if data.test is None:
        return None
    if not data.test.is_dir():
        raise InputError(f"data.test: there is no folder {data.test}")
    test = FolderData(data.test, data)
    classes = load_train(data).classes
    if test.classes != classes:
        differ = sorted(set(test.classes) ^ set(classes))
        raise InputError(
            f"data.test: {data.test} has other classes than {data.root}: {first_of(differ, 5)}"
        )
    return test


def _require_root(data: Data) -> None:
    if not data.root.is_dir() and not cifar.is_cifar(data.root):
        raise InputError(
            f"data.root: there is no folder {data.root}. Fashion-MNIST comes with `apt-get install "
            "dataset-fashion-mnist`; CIFAR is taken as its binary .tar.gz; for your own images "
            "give a folder with one folder a class"
        )


class _Batches(Dataset[Batch]):
    def __init__(self, data: ImageData, draws: Sequence[Draw], view: View) -> None:
        self.data, self.draws, self.view = data, draws, view

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, step: int) -> Batch:
        draw = self.draws[step]
        images = self.data.batch(draw, self.view)
        return images, self.data.labels[torch.tensor(draw.indices)]


def batches(data: ImageData, draws: Sequence[Draw], view: View) -> Iterator[Batch]:
    """Yield (images float32 [n, 3, S, S] in [0, 1], labels int64 [n]) for each draw, in order."""
    workers = min(data.workers, len(draws))
    yield from DataLoader(_Batches(data, draws, view), batch_size=None, num_workers=workers)
