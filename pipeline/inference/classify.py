"""From an encoded image to labels with scores: decode, geometry, runtime, ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EdgeVitError
from pipeline.images.decode import MAX_PIXELS, ImageError
from pipeline.images.preprocessing import decoded, geometry, normalize
from pipeline.metrics.logits import class_logits
from pipeline.runtimes import FloatArray, load

TOP = 5

Transform = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Prediction:
    """One class, and how sure the model is of it."""

    label: str
    score: float  # 0..1, or a raw logit where no function was applied


class Classifier:
    """A delivered file, or the float checkpoint, with the preprocessing that its contract states.

    Raises:
        InputError: the file cannot be loaded.
        IntegrityError: it carries no contract.
    """

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        self.runtime = load(path, threads=1)
        self.contract = self.runtime.contract
        self._max_pixels = max_pixels
        self._geometry = geometry(self.contract.preprocessing)

    def prepare(self, encoded: bytes) -> FloatArray:
        """Turn an encoded image into model input, float32 [1, 3, H, W].

        Raises:
            ImageError: the bytes are not an image that can be used.
        """
        preprocessing = self.contract.preprocessing
        image = decoded(encoded, preprocessing, self._max_pixels)
        width, height = image.size
        rows, columns = preprocessing.covered
        # Resizing the shorter side of a line of pixels would make a gigantic image of it.
        resized = max(rows / height, columns / width) ** 2 * width * height
        if preprocessing.crop_mode == "center" and resized > self._max_pixels:
            raise ImageError("size", f"{width} x {height} pixels are too long and thin an image")
        return normalize(self._geometry(image)[None], preprocessing)

    def classify(
        self, encoded: bytes, top: int = TOP, transform: Transform | None = None
    ) -> list[Prediction]:
        """Return the ``top`` best classes of an encoded image, best first.

        Raises:
            ImageError: the bytes are not an image that can be used.
        """
        logits = self.runtime.logits(self.prepare(encoded))[0]
        contract = self.contract
        return rank(logits, contract.labels, top, transform, contract.threshold)


def rank(
    logits: FloatArray,
    labels: Sequence[str],
    top: int,
    transform: Transform | None = None,
    threshold: float | None = None,
) -> list[Prediction]:
    """Return the ``top`` best of logits [outputs], best first; of equal ones the lower class.

    ``threshold`` is the contract's: None where there is a logit of each class. With one sigmoid
    logit the second label's score is its sigmoid, the first one's what is left to 1, and the answer
    that the threshold decides comes first; ``transform`` "none" gives the logit and its negative.

    Raises:
        EdgeVitError: a logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise EdgeVitError("the model answered NaN or infinity; run `edge-vit gate` on its files")
    ranked, values = class_logits(logits[None], threshold)[0], logits.astype(np.float64)
    if threshold is not None:  # a softmax of two classes is a sigmoid
        values = np.concatenate([-values, values])
        transform = "none" if transform == "none" else "sigmoid"
    scores = _scores(values, transform or "softmax")
    best = np.argsort(-ranked, kind="stable")[:top]
    return [Prediction(labels[index], float(scores[index])) for index in best.tolist()]


def _scores(logits: NDArray[np.float64], transform: Transform) -> NDArray[np.float64]:
    if transform == "none":
        return logits
    if transform == "sigmoid":
        sigmoid: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        return sigmoid
    exponents = np.exp(logits - logits.max())
    softmax: NDArray[np.float64] = exponents / exponents.sum()
    return softmax
