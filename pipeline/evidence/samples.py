"""The evaluation samples as evidence is held to them: a hash of each image, and its label.

A run has the images themselves, a release only their hashes; it has no ids, which may be names of
files.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.errors import IntegrityError
from pipeline.evidence.model import Sha256, parse
from pipeline.evidence.parity import Samples as Described
from pipeline.files import read_json
from pipeline.images.samples import MAX_CLASSES, SampleSet
from pipeline.schema import Section

REMEDY = "dvc repro --force samples"

Label = Annotated[int, Field(ge=0, lt=MAX_CLASSES)] | None


class Samples(Section, extra="ignore"):
    """Labels and hashes of the evaluation images, as a release keeps them, too."""

    labels: tuple[Label, ...]
    sha256: Sha256  # of pixels, labels and ids
    images: tuple[Sha256, ...] | None = None  # of each one's pixels; None: by an earlier edge-vit

    @property
    def label_array(self) -> NDArray[np.int64] | None:
        """Indices into the model's labels, [n]; None where an image has none."""
        return None if None in self.labels else np.array(self.labels, np.int64)

    @model_validator(mode="after")
    def _one_label_an_image(self) -> Samples:
        if self.images is not None and len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels of {len(self.images)} images")
        return self


def read_samples(path: Path) -> Samples:
    """Read labels and hashes from ``samples.json``, without the images.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: a field is missing or impossible.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise IntegrityError(f"{path} does not describe samples; run `{REMEDY}`")
    return parse(content, Samples, str(path), REMEDY)


def of_images(samples: SampleSet, hashes: Sequence[bytes]) -> Samples:
    """Return labels and hashes of samples; ``hashes`` is what :meth:`SampleSet.verify` gave."""
    return Samples(
        labels=tuple(samples.label_list),
        sha256=samples.sha256,
        images=tuple(digest.hex() for digest in hashes),
    )


def described(samples: SampleSet, hashes: Sequence[bytes]) -> Described:
    """What parity evidence says of the samples; ``hashes`` as for :func:`of_images`."""
    return Described(
        sha256=samples.sha256,
        count=len(samples),
        labelled=samples.labels is not None,
        classes=len(samples.classes),
        content_sha256=content_sha256(of_images(samples, hashes)),
        **dataclasses.asdict(samples.beside),
    )


def content_sha256(samples: Samples) -> str | None:
    """SHA-256 over the hash and the label of each image; None where there are no hashes."""
    if samples.images is None:
        return None
    pairs = zip(samples.images, samples.labels, strict=True)
    lines = (f"{sha256} {label}\n" for sha256, label in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
