"""How float values become uint8: ranges found on images, for static int8.

A narrow range clips large values, a wide one rounds small values more coarsely. The search for the
smallest error, as an L^p norm over a histogram, is known from PyTorch's histogram observer (p = 2)
and from BRECQ and PTQ4ViT (p = 2.4). Which p is best depends on model and images: with constant
backgrounds the rounding of single values matters. So several are tried, and the model's output
decides (docs/adr/0020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.progress import progress

BINS = 2048
NORMS = (2.0, 2.4, 3.0, 4.0, np.inf)  # the last keeps the extremes
CUTS = np.linspace(0.3, 1.0, 36)  # tried ends of a range, as fractions of the extremes
SIDE = 0.05  # a side shorter than this fraction of the other is not cut
JUDGED = 32  # images whose outputs choose between norms; from 8 on they chose the same
EXACT = 1 << 24  # counts up to which torch.histc is exact
SMALLEST = float(np.finfo(np.float32).eps)  # scale that kernels divide by


@dataclass(frozen=True)
class Range:
    """How a float tensor becomes uint8: ``round(x / scale) + zero_point``."""

    scale: float
    zero_point: int

    @classmethod
    def between(cls, low: float, high: float) -> Range:
        """The range from ``low`` to ``high``, which have zero between them."""
        scale = max((high - low) / 255, SMALLEST)
        return cls(scale, min(255, max(0, round(-low / scale))))

    def error(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the absolute error of each value after quantization, of the same shape."""
        code = np.clip(np.rint(values / self.scale) + self.zero_point, 0, 255)
        moved: NDArray[np.float64] = np.abs((code - self.zero_point) * self.scale - values)
        return moved


@dataclass
class Histogram:
    """What values a tensor has: first its extremes, then counts in ``BINS`` between them."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def extend(self, x: torch.Tensor) -> None:
        """Widen the extremes to those of ``x``, of any shape."""
        self.low = min(self.low, float(x.min()))
        self.high = max(self.high, float(x.max()))

    def count(self, x: torch.Tensor) -> None:
        """Count the values of ``x``; the extremes have to be final."""
        if self.high > self.low:
            for part in x.float().flatten().split(EXACT):
                self.counts += torch.histc(part, BINS, self.low, self.high).double().numpy()

    def ranges(self) -> dict[float, Range]:
        """Return the range with the smallest error in each of ``NORMS``."""
        best = dict.fromkeys(NORMS, (np.inf, Range.between(self.low, self.high)))
        width = (self.high - self.low) / BINS
        values = np.asarray(self.low + width * (np.arange(BINS) + 0.5), np.float64)
        for high in self.high * _cuts(self.high, -self.low):
            for low in self.low * _cuts(-self.low, self.high):
                tried = Range.between(low, high)
                errors = tried.error(values)
                for norm in NORMS[:-1]:
                    total = float(_power(errors, norm) @ self.counts)
                    if total < best[norm][0]:
                        best[norm] = (total, tried)
        return {norm: found for norm, (_, found) in best.items()}


def _power(values: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    """As ``values**norm``, which takes ten times as long where a few products do."""
    if norm != int(norm):
        return values**norm
    return np.asarray(math.prod([values] * int(norm)))


def _cuts(side: float, other: float) -> NDArray[np.float64]:
    return CUTS if side > SIDE * other else CUTS[-1:]


class HistogramObserver:
    """Makes an observer, of either of PyTorch's quantization frameworks, fill a `Histogram`.

    To be the first base of a class whose other base is the framework's observer.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.histogram = Histogram()
        self.counting = False  # else it records the extremes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Record ``x`` and return it."""
        (self.histogram.count if self.counting else self.histogram.extend)(x)
        return x


Network = Callable[[torch.Tensor], torch.Tensor]


def search(
    model: Network,
    observers: Mapping[str, HistogramObserver],
    batches: Sequence[torch.Tensor],
    quantized: Callable[[dict[str, Range]], Network],
) -> dict[str, Range]:
    """Return a range for each observer, such that the quantized model is closest to float.

    Args:
        model: calls the observers.
        observers: by the name of the value.
        batches: float32 images [n, 3, H, W] each; the outputs of the first ones are compared.
        quantized: makes the model that has given ranges.
    """
    judged = batches[: max(1, JUDGED // len(batches[0]))]
    with torch.inference_mode():
        extremes = progress(batches, desc="activation extremes", unit="batch")
        expected = [model(batch) for batch in extremes][: len(judged)]
        for observer in observers.values():
            observer.counting = True
        for batch in progress(batches, desc="activation histograms", unit="batch"):
            model(batch)

    def error(ranges: dict[str, Range]) -> float:
        tried = quantized(ranges)
        with torch.inference_mode():
            pairs = zip(judged, expected, strict=True)
            return sum(float((tried(batch) - y).square().sum()) for batch, y in pairs)

    return choose({name: observer.histogram for name, observer in observers.items()}, error)


def choose(
    histograms: Mapping[str, Histogram], error: Callable[[dict[str, Range]], float]
) -> dict[str, Range]:
    """Return the ranges with the smallest ``error``: those of one of ``NORMS`` for all values."""
    shown = progress(histograms.items(), desc="range search", unit="value")
    candidates = {name: histogram.ranges() for name, histogram in shown}
    tried = [{name: ranges[norm] for name, ranges in candidates.items()} for norm in NORMS]
    return min(progress(tried, desc="range choice", unit="norm"), key=error)
