"""Images that may become samples: those of the embedded set, of CIFAR, or of a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contract.contract import Contract
from pipeline.errors import InputError
from pipeline.images import cifar
from pipeline.images.idx import FASHION_MNIST_CLASSES, read_images, read_labels
from pipeline.images.imagenet import imagenet_labels, imagenet_wordnet_ids
from pipeline.images.preprocessing import Pixels

if TYPE_CHECKING:
    from PIL import Image

FASHION_MNIST_FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # beside a README
SHOWN = 5


@dataclass(frozen=True)
class Candidate:
    """An image that may become a sample; opened only if its turn comes."""

    id: str
    label: int | None  # index into the model's labels
    open: Callable[[], Image.Image]
    path: Path | None = None  # its file, where it has one of its own


def find_candidates(source: Path, contract: Contract) -> list[Candidate]:
    """List the images of a folder with their labels, or the test images of a data set.

    Data sets are Fashion-MNIST and CIFAR, the latter as a folder or as the published archive.

    Raises:
        InputError: there is no such folder, or its classes are not the model's.
    """
    if (source / FASHION_MNIST_FILES[0]).is_file():
        return _fashion_mnist(source, contract)
    if cifar.is_cifar(source):
        return _cifar(source, contract)
    if not source.is_dir():
        what = "is a file" if source.exists() else "is missing"
        raise InputError(
            f"params.yaml: samples.source: {source} {what}; give a folder of images: {_layout()}"
        )
    entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    loose = [path for path in entries if not path.is_dir()]
    if folders and loose:
        raise InputError(
            f"params.yaml: samples.source: {source} holds class folders and also files outside of "
            f"them ({_some([path.name for path in loose])}); give {_layout()}"
        )
    classes = _match_folders([path.name for path in folders], source, contract)
    labelled = [
        _image_file(path, source, classes[folder.name])
        for folder in folders
        for path in folder.rglob("*")
        if not path.is_dir() and not path.name.startswith(".")
    ]
    return labelled + [_image_file(path, source, None) for path in loose]


def _layout() -> str:
    return "one folder a class, named as the model's label, or unlabelled images in one folder"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _fashion_mnist(source: Path, contract: Contract) -> list[Candidate]:
    index = _match_classes(FASHION_MNIST_CLASSES, "pictures of clothes", source, contract)
    images = read_images(source / FASHION_MNIST_FILES[0])
    labels = read_labels(source / FASHION_MNIST_FILES[1])
    if len(images) != len(labels):
        raise InputError(f"{source}: {len(images)} images but {len(labels)} labels")
    return _in_memory("t10k", images, [index[label] for label in labels.tolist()])


def _cifar(source: Path, contract: Contract) -> list[Candidate]:
    test = cifar.read(source, "test")
    index = _match_classes(test.classes, "CIFAR's images", source, contract)
    return _in_memory("test", test.images, [index[label] for label in test.labels.tolist()])


def _match_classes(
    classes: Sequence[str], what: str, source: Path, contract: Contract
) -> list[int]:
    """Return the index of each class of a data set in the model's labels."""
    if set(classes) - set(contract.labels):
        raise InputError(
            f"params.yaml: samples.source: {source} holds {what} ({_some(classes)}), but "
            f"{contract.name} tells {len(contract.labels)} other classes apart "
            f"({_some(contract.labels)}). Set samples.source to a folder of images of the model's "
            f"own classes: {_layout()}"
        )
    return [contract.labels.index(name) for name in classes]


def _in_memory(prefix: str, images: Pixels, labels: Sequence[int]) -> list[Candidate]:
    """``images`` is uint8 [n, H, W] or [n, H, W, 3]."""
    return [
        Candidate(f"{prefix}-{number:05}", label, partial(_picture, image))
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _match_folders(names: Sequence[str], source: Path, contract: Contract) -> dict[str, int]:
    """Return the index of the class that each folder's name stands for."""
    known: dict[str, int | None] = {}
    for index, label in enumerate(contract.labels):
        for form in {label, re.sub(r'[/\\:*?"<>|]', "_", label)}:  # no folder is called "a/b"
            known[form] = None if form in known else index
    if len(contract.labels) == len(imagenet_labels()) and contract.labels == imagenet_labels():
        known |= {wordnet: index for index, wordnet in enumerate(imagenet_wordnet_ids())}
    found = {name: known.get(name) for name in names}
    lost = [name for name, index in found.items() if index is None]
    if lost:
        raise InputError(
            f"params.yaml: samples.source: {source}: {len(lost)} of {len(names)} folders are named "
            f"as no class of {contract.name}, or as two: {_some(lost)}. Its classes are "
            f"{_some(contract.labels)}. Give {_layout()}; ImageNet's may be WordNet ids (n01440764)"
        )
    return {name: index for name, index in found.items() if index is not None}


def _image_file(path: Path, source: Path, label: int | None) -> Candidate:
    return Candidate(path.relative_to(source).as_posix(), label, partial(_open, path), path)


def _open(path: Path) -> Image.Image:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _picture(pixels: Pixels) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels).convert("RGB")


def image_files(folder: Path) -> list[Candidate]:
    """List the unlabelled images in a folder, by name; open none.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise InputError(f"params.yaml: golden.photographs: {folder} is no folder of images")
    found = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        known = " ".join(IMAGE_SUFFIXES)
        raise InputError(f"params.yaml: golden.photographs: {folder} holds no images ({known})")
    return [_image_file(path, folder, None) for path in found]
