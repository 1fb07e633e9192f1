"""The evaluation samples: pixels, labels and ids, bound by one SHA-256.

A sample is stored as the uint8 pixels that come out of the transform's geometry (resize and crop);
:func:`pipeline.images.preprocessing.normalize` does the rest of it, with the same result bit by
bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import Preprocessing
from pipeline.errors import InputError, IntegrityError, ParamsError
from pipeline.files import read_json
from pipeline.images.preprocessing import Pixels, normalize

SCHEMA = 1
IMAGES_FILE = "images.npy"
CALIBRATION_FILE = "calibration.npy"
SAMPLES_FILE = "samples.json"
MAX_CLASSES = 1 << 31


def content_hash(image: Pixels) -> bytes:
    """Return the SHA-256 of one image's pixels (C order)."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def samples_sha256(
    image_hashes: Sequence[bytes], labels: Sequence[int | None], ids: Sequence[str]
) -> str:
    """Return the SHA-256 that stands for samples: pixels, labels and ids, in their order."""
    listing = json.dumps([list(ids), list(labels)], separators=(",", ":"))
    return hashlib.sha256(b"".join(image_hashes) + listing.encode()).hexdigest()


@dataclass(frozen=True)
class Beside:
    """What there is to know of a source beside its samples; earlier files say nothing of it."""

    skipped: int = 0  # files that are no images
    left_out: int = 0  # hidden files, and what systems and tools leave
    duplicates: int = 0  # samples with the pixels of an earlier one
    classes_without_images: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleSet:
    """Evaluation images, as the ``samples`` stage wrote them."""

    images: Pixels  # [n, H, W, C], on disk
    labels: NDArray[np.int64] | None  # [n] indices into the model's labels; None: unlabelled
    ids: tuple[str, ...]  # [n], unique
    classes: tuple[str, ...]  # the model's labels
    sha256: str  # of pixels, labels and ids
    beside: Beside = Beside()

    @classmethod
    def load(cls, folder: Path) -> SampleSet:
        """Open the samples in ``folder``; pixels are read when they are used.

        Raises:
            InputError: a file is missing or damaged.
        """
        content = read_json(folder / SAMPLES_FILE)
        images = load_pixels(folder / IMAGES_FILE)
        try:
            if content["schema"] != SCHEMA:
                raise InputError(
                    f"{folder / SAMPLES_FILE} is of schema {content['schema']}, this edge-vit "
                    f"reads {SCHEMA}; delete it and run `dvc repro`"
                )
            ids, labels = _texts(content, "ids"), _labels(content)
            classes, sha256 = _texts(content, "classes"), str(content["sha256"])
            beside = Beside(
                skipped=len(content.get("skipped", ())),
                left_out=len(content.get("left_out", ())),
                duplicates=len(content.get("duplicates", ())),
                classes_without_images=_texts(
                    {"classes_without_images": []} | content, "classes_without_images"
                ),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder / SAMPLES_FILE} lacks {error}; delete it and run `dvc repro`"
            ) from None
        if not len(ids) == len(labels) == len(images):
            raise InputError(
                f"{folder}: {len(images)} images, {len(ids)} ids and {len(labels)} labels do not "
                "belong together; delete the folder and run `dvc repro`"
            )
        indices = None if None in labels else np.array(labels, np.int64)
        return cls(images, indices, ids, classes, sha256, beside)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def label_list(self) -> list[int | None]:
        """The labels as they are listed: None for each image where there are none."""
        return [None] * len(self) if self.labels is None else self.labels.tolist()

    def verify(self) -> list[bytes]:
        """Read every pixel, compare with the recorded hash, and return the hash of each image.

        Raises:
            IntegrityError: pixels, labels or ids were changed.
        """
        hashes = [content_hash(image) for image in self.images]
        actual = samples_sha256(hashes, self.label_list, self.ids)
        if actual != self.sha256:
            raise IntegrityError(
                f"samples were changed: expected SHA-256 {self.sha256}, got {actual}; "
                "run `dvc repro --force samples`"
            )
        return hashes


def _texts(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = content[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"a list of texts in {key}")
    return tuple(values)


def _labels(content: Mapping[str, Any]) -> list[int | None]:
    values = content["labels"]
    if not isinstance(values, list) or not all(
        value is None or (type(value) is int and 0 <= value < MAX_CLASSES) for value in values
    ):
        raise TypeError("a list of indices in labels")
    return values


def load_pixels(path: Path) -> Pixels:
    """Map ``images.npy`` or ``calibration.npy`` into memory: uint8 [n, H, W, 3 or 1], read-only.

    Raises:
        InputError: missing, damaged, or not such an array.
    """
    try:
        array: Pixels = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `dvc repro` to make it") from None
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{path} is not an array of images ({error}); delete it and run `dvc repro`"
        ) from None
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3):
        raise InputError(f"{path} holds {array.dtype} {array.shape}, not uint8 [n, H, W, C]")
    return array


def calibration_input(
    folder: Path, preprocessing: Preprocessing, asking: str = "quantize.scheme: static"
) -> NDArray[np.float32]:
    """Return the calibration images in ``folder`` as model input, float32 [n, 3, H, W].

    ``asking`` is the parameter that needs them, for the error.

    Raises:
        ParamsError: there are none.
    """
    images = load_pixels(folder / CALIBRATION_FILE)
    if not len(images):
        about = folder / SAMPLES_FILE
        asked = read_json(about).get("asked", {}).get("calibration") if about.is_file() else None
        remedy = "give more images in samples.source" if asked else "raise samples.calibration"
        raise ParamsError(
            f"params.yaml: {asking} needs calibration images, and there are none; {remedy}"
        )
    return normalize(images, preprocessing)
