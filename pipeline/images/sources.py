"""Where images come from: Fashion-MNIST, CIFAR, or a folder of image files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from pipeline.contract.contract import Contract, Preprocessing
from pipeline.errors import InputError, first_of
from pipeline.images import cifar
from pipeline.images.decode import SUFFIXES, read_file
from pipeline.images.folders import LeftOut, listing, refuse_parts, top_folders
from pipeline.images.idx import FASHION_MNIST_CLASSES, read_images, read_labels
from pipeline.images.imagenet import imagenet_labels, imagenet_wordnet_ids, is_imagenet
from pipeline.images.preprocessing import Pixels, decoded

if TYPE_CHECKING:
    from PIL import Image

FASHION_MNIST_FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
SHOWN = 5


@dataclass(frozen=True)
class ImageSource:
    """An image that may become a sample; opened only when it is needed."""

    id: str
    label: int | None  # index into the model's labels
    open: Callable[[], Image.Image]
    path: Path | None = None  # its file, where it has one of its own


@dataclass(frozen=True)
class Found:
    """The images of a source, and what lay beside them."""

    images: list[ImageSource]
    left_out: tuple[LeftOut, ...] = ()


def find_images(source: Path, contract: Contract) -> Found:
    """List the images of a folder with their labels, or the test images of a data set.

    Data sets are Fashion-MNIST and CIFAR, the latter as a folder or as the published archive.

    Raises:
        InputError: there is no such folder, or its classes are not the model's.
    """
    if (source / FASHION_MNIST_FILES[0]).is_file():
        return Found(_fashion_mnist(source, contract))
    if cifar.is_cifar(source):
        return Found(_cifar(source, contract))
    check_source(source)
    listed = listing(source)
    names = top_folders(listed.files)
    loose = [path for path in listed.files if len(path.parts) == 1]
    if names and loose:
        raise InputError(
            f"params.yaml: samples.source: {source} holds class folders and also files outside of "
            f"them ({first_of([path.name for path in loose], SHOWN)}); give {_layout()}"
        )
    classes = _match_folders(names, source, contract)
    images = [
        _image_file(
            source / path, source, classes[path.parts[0]] if names else None, contract.preprocessing
        )
        for path in listed.files
    ]
    return Found(images, listed.left_out)


def check_source(source: Path) -> None:
    """Check that a source of images is there; nothing in it is read.

    Raises:
        InputError: it is missing, or neither a folder nor a data set's archive.
    """
    if source.is_dir() or cifar.is_cifar(source):
        return
    what = "is a file" if source.exists() else "is missing"
    raise InputError(
        f"params.yaml: samples.source: {source} {what}; give a folder of images: {_layout()}"
    )


def class_folders(source: Path) -> tuple[str, ...]:
    """The names of the class folders of a source, sorted as text; none of a data set's files."""
    if not source.is_dir() or (source / FASHION_MNIST_FILES[0]).is_file() or cifar.is_cifar(source):
        return ()
    return tuple(top_folders(listing(source).files))


def labels_of_folders(source: Path, classes: int) -> tuple[str, ...]:
    """The labels of a model of ``classes`` outputs, if a source has as many class folders.

    Training numbers its classes by sorted folders. WordNet ids give ImageNet's labels.

    Raises:
        InputError: torchvision and timm would sort them differently.
    """
    from timm.utils import natural_key

    names = class_folders(source)
    if len(names) != classes:
        return ()
    if classes == len(imagenet_labels()) and names == imagenet_wordnet_ids():
        return imagenet_labels()
    natural = tuple(sorted(names, key=natural_key))
    if names != natural:
        raise InputError(
            "params.yaml: model.labels is missing, and the class folders of "
            f"{source} have two orders: torchvision trains with {first_of(names, SHOWN)}; timm "
            f"with {first_of(natural, SHOWN)}. Write the labels in the order of training into a "
            "file, one a line"
        )
    return tuple(normalize("NFC", name) for name in names)


def _layout() -> str:
    return "one folder a class, named as the model's label, or unlabelled images in one folder"


def _fashion_mnist(source: Path, contract: Contract) -> list[ImageSource]:
    index = _match_classes(FASHION_MNIST_CLASSES, "images of clothes", source, contract)
    images = read_images(source / FASHION_MNIST_FILES[0])
    labels = read_labels(source / FASHION_MNIST_FILES[1])
    if len(images) != len(labels):
        raise InputError(f"{source}: {len(images)} images but {len(labels)} labels")
    return _in_memory("t10k", images, [index[label] for label in labels.tolist()])


def _cifar(source: Path, contract: Contract) -> list[ImageSource]:
    test = cifar.read(source, "test")
    index = _match_classes(test.classes, "CIFAR's images", source, contract)
    return _in_memory("test", test.images, [index[label] for label in test.labels.tolist()])


def _match_classes(
    classes: Sequence[str], what: str, source: Path, contract: Contract
) -> list[int]:
    """Return the index of each class of a data set in the model's labels."""
    if set(classes) - set(contract.labels):
        raise InputError(
            f"params.yaml: samples.source: {source} holds {what} ({first_of(classes, SHOWN)}), but "
            f"{contract.name} has {len(contract.labels)} other classes "
            f"({first_of(contract.labels, SHOWN)}). Set samples.source to a folder of images of "
            f"the model's own classes: {_layout()}"
        )
    return [contract.labels.index(name) for name in classes]


def _in_memory(prefix: str, images: Pixels, labels: Sequence[int]) -> list[ImageSource]:
    """``images`` is uint8 [n, H, W] or [n, H, W, 3]."""
    return [
        ImageSource(f"{prefix}-{number:05}", label, partial(_from_pixels, image))
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _match_folders(names: Sequence[str], source: Path, contract: Contract) -> dict[str, int]:
    """Return the index of the class that each folder's name stands for."""
    index_of: dict[str, int | None] = {}  # None: the name of two classes
    for index, label in enumerate(normalize("NFC", label) for label in contract.labels):
        for form in {label, re.sub(r'[/\\:*?"<>|]', "_", label)}:  # no folder is called "a/b"
            index_of[form] = None if form in index_of else index
    if is_imagenet(contract.labels):
        index_of |= {wordnet: index for index, wordnet in enumerate(imagenet_wordnet_ids())}
    # macOS writes an accent as a character of its own.
    matched = {name: index_of.get(normalize("NFC", name)) for name in names}
    lost = [name for name, index in matched.items() if index is None]
    if lost:
        refuse_parts(source, names, "params.yaml: samples.source")
        raise InputError(
            f"params.yaml: samples.source: {source}: {len(lost)} of {len(names)} folders do not "
            f"name one class of {contract.name}: {first_of(lost, SHOWN)}. Its classes are "
            f"{first_of(contract.labels, SHOWN)}. Give {_layout()}; ImageNet's may be WordNet ids "
            "(n01440764)"
        )
    return {name: index for name, index in matched.items() if index is not None}


def _image_file(
    path: Path, source: Path, label: int | None, preprocessing: Preprocessing
) -> ImageSource:
    opened = partial(_open, path, preprocessing)
    return ImageSource(path.relative_to(source).as_posix(), label, opened, path)


def _open(path: Path, preprocessing: Preprocessing) -> Image.Image:
    return decoded(read_file(path), preprocessing)


def _from_pixels(pixels: Pixels) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels).convert("RGB")


def image_files(folder: Path, preprocessing: Preprocessing) -> list[ImageSource]:
    """List the unlabelled images in a folder, by name; open none.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise InputError(f"params.yaml: golden.photographs: {folder} is not a folder of images")
    names = listing(folder, deep=False).files
    files = [folder / path for path in names if path.suffix.lower() in SUFFIXES]
    if not files:
        suffixes = " ".join(SUFFIXES)
        raise InputError(f"params.yaml: golden.photographs: {folder} holds no images ({suffixes})")
    return [_image_file(path, folder, None, preprocessing) for path in files]
