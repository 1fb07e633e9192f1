"""What the samples' own description says that evidence is checked against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError
from pipeline.evidence.model import Sha256, parse
from pipeline.files import read_json
from pipeline.schema import Section

REMEDY = "dvc repro --force samples"


class Samples(Section, extra="ignore"):
    """Labels and hash of the evaluation images, as a release keeps them, too."""

    labels: tuple[int | None, ...]
    sha256: Sha256  # of pixels, labels and ids

    @property
    def label_array(self) -> NDArray[np.int64] | None:
        """Indices into the model's labels, [n]; None where an image has none."""
        return None if None in self.labels else np.array(self.labels, np.int64)


def read_samples(path: Path) -> Samples:
    """Read ``samples.json``.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: a field is missing or impossible.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise IntegrityError(f"{path} does not describe samples; run `{REMEDY}`")
    return parse(content, Samples, str(path), REMEDY)
