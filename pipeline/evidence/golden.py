"""Golden inputs and outputs: what any device must make of the same images (stage ``golden``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.errors import IntegrityError
from pipeline.evidence.model import Machine, SealedEvidence, Sha256, read_sealed
from pipeline.files import sha256_file
from pipeline.metrics.logits import logits_array
from pipeline.schema import Count, Section

GOLDEN_FILE = "golden.json"
INPUTS_FILE = "inputs.f32"
IMAGES = "images"
FLOAT = "float"  # the key of the checkpoint's own answers

Floats = NDArray[np.float32]


class GoldenImage(Section):
    """One image file, as it lies below the golden folder."""

    id: str
    file: str
    sha256: Sha256
    width: Count
    height: Count
    label: int | None


class GoldenInputs(Section):
    """The file with the model's inputs, [n, 3, H, W]."""

    file: str
    sha256: Sha256
    dtype: Literal["little-endian float32"]
    shape: tuple[Count, Literal[1, 3], Count, Count]


class GoldenAnswers(Section):
    """The logits that one file gives, [n, classes]; None stands for NaN and infinity."""

    file: str
    sha256: Sha256
    logits: Annotated[tuple[tuple[float | None, ...], ...], Field(min_length=1)]


class GoldenEvidence(SealedEvidence):
    """The content of ``golden.json``."""

    kind: ClassVar[str] = "golden"
    remedy: ClassVar[str] = "dvc repro --force golden"

    inputs: GoldenInputs
    images: tuple[GoldenImage, ...]
    artefacts: dict[str, GoldenAnswers]  # by format, and the float model
    machine: Machine
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # of one sigmoid logit

    @model_serializer(mode="wrap")
    def _without_no_threshold(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in serialize(self).items() if v is not None or k != "threshold"}

    @model_validator(mode="after")
    def _one_answer_an_image(self) -> GoldenEvidence:
        if FLOAT not in self.artefacts:
            raise ValueError("artefacts.float is missing")
        outputs = len(self.artefacts[FLOAT].logits[0])
        if self.threshold is not None and outputs != 1:
            raise ValueError(f"a threshold goes with one number an image, not {outputs}")
        for key, answers in self.artefacts.items():
            shape = (len(answers.logits), {len(row) for row in answers.logits})
            if shape != (len(self.images), {outputs}):
                raise ValueError(
                    f"artefacts.{key}.logits are not {outputs} numbers for each of "
                    f"{len(self.images)} images"
                )
        return self

    def logits(self, key: str) -> Floats:
        """Answers of ``float`` or a format, float32 [n, classes]; NaN where there was no number."""
        return logits_array(self.artefacts[key].logits)


@dataclass(frozen=True)
class Golden:
    """A golden folder whose files are those that were sealed."""

    folder: Path
    content: GoldenEvidence

    @classmethod
    def load(cls, folder: Path) -> Golden:
        """Open ``folder`` and compare every file in it with its recorded hash.

        Raises:
            InputError: a file is missing.
            IntegrityError: a file is not the one that was sealed.
        """
        content = read_golden(folder)
        expected = {image.file: image.sha256 for image in content.images}
        expected[content.inputs.file] = content.inputs.sha256
        for name, sha256 in expected.items():
            if sha256_file(folder / name) != sha256:
                raise IntegrityError(
                    f"{folder / name} is not the golden one; run `dvc repro --force golden`"
                )
        return cls(folder, content)

    @property
    def seal(self) -> str:
        """Stands for the whole: images, inputs and answers."""
        return self.content.seal

    @property
    def ids(self) -> list[str]:
        """The images' names, in their order."""
        return [image.id for image in self.content.images]

    @property
    def images(self) -> list[Path]:
        """The image files, in their order."""
        return [self.folder / image.file for image in self.content.images]

    @property
    def inputs_file(self) -> Path:
        """The model's input for each image: little-endian float32 [n, 3, H, W]."""
        return self.folder / self.content.inputs.file

    @property
    def inputs(self) -> Floats:
        """The model's input for each image, float32 [n, 3, H, W]."""
        values = np.fromfile(self.inputs_file, dtype="<f4").astype(np.float32, copy=False)
        return values.reshape(self.content.inputs.shape)

    def logits(self, key: str) -> Floats:
        """Answers of ``float`` or a format, float32 [n, classes]; NaN where there was no number."""
        return self.content.logits(key)


def read_golden(folder: Path) -> GoldenEvidence:
    """Read ``golden.json`` and check its seal and fields, without the images.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: it was changed, or a field is missing, unknown or impossible.
    """
    return read_sealed(folder / GOLDEN_FILE, GoldenEvidence)
