"""Golden inputs and outputs: what any device must make of the same images (stage ``golden``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError
from pipeline.evidence.seal import check_seal
from pipeline.files import read_json, sha256_file
from pipeline.metrics.logits import logits_array

GOLDEN_FILE = "golden.json"
INPUTS_FILE = "inputs.f32"
IMAGES = "images"
FLOAT = "float"  # the key of the checkpoint's own answers

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """A golden folder whose files are those that were sealed."""

    folder: Path
    content: Mapping[str, Any]  # golden.json

    @classmethod
    def load(cls, folder: Path) -> Golden:
        """Open ``folder`` and hold every file in it to its hash.

        Raises:
            InputError: a file is missing.
            IntegrityError: a file is not the one that was sealed.
        """
        content = read_golden(folder)
        inputs = content["inputs"]
        expected = {image["file"]: image["sha256"] for image in content["images"]}
        for name, sha256 in (expected | {inputs["file"]: inputs["sha256"]}).items():
            if sha256_file(folder / name) != sha256:
                raise IntegrityError(
                    f"{folder / name} is not the golden one; run `dvc repro --force golden`"
                )
        return cls(folder, content)

    @property
    def seal(self) -> str:
        """What stands for the whole: images, inputs and answers."""
        return str(self.content["seal"])

    @property
    def ids(self) -> list[str]:
        return [image["id"] for image in self.content["images"]]

    @property
    def images(self) -> list[Path]:
        return [self.folder / image["file"] for image in self.content["images"]]

    @property
    def inputs_file(self) -> Path:
        """The model's input for each image: little-endian float32 [n, 3, H, W]."""
        return self.folder / str(self.content["inputs"]["file"])

    @property
    def inputs(self) -> Floats:
        """The model's input for each image, float32 [n, 3, H, W]."""
        values = np.fromfile(self.inputs_file, dtype="<f4").astype(np.float32, copy=False)
        return values.reshape(self.content["inputs"]["shape"])

    def logits(self, key: str) -> Floats:
        """Answers of ``float`` or a format, float32 [n, classes]; NaN where there was no number."""
        return logits_array(self.content["artefacts"][key]["logits"])


def read_golden(folder: Path) -> dict[str, Any]:
    """Read ``golden.json`` and check its seal, without the images.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: it was changed.
    """
    path = folder / GOLDEN_FILE
    return check_seal(read_json(path), "golden", str(path))
