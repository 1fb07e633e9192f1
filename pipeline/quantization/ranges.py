"""How float values become uint8: ranges found on images, for static int8.

A range that is cut loses large values, one that is not cut loses fine ones. The search for the
least error, as an L^p norm over a histogram, is known from PyTorch's observer (p = 2) and others
(p = 2.4 in BRECQ and PTQ4ViT). Which p is best depends on model and images: constant backgrounds
make the rounding of single values matter. So several are tried, and judged by the model's answers.
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
CUTS = np.linspace(0.3, 1.0, 36)  # of the extremes
SIDE = 0.05  # a side shorter than this part of the other is not cut
JUDGED = 32  # images whose answers choose between norms; from 8 on they chose the same
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
        """How far each value is moved."""
        code = np.clip(np.rint(values / self.scale) + self.zero_point, 0, 255)
        moved: NDArray[np.float64] = np.abs((code - self.zero_point) * self.scale - values)
        return moved


@dataclass
class Values:
    """What a tensor was seen to hold: its extremes first, then a histogram between them."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def extend(self, x: torch.Tensor) -> None:
        self.low = min(self.low, float(x.min()))
        self.high = max(self.high, float(x.max()))

    def count(self, x: torch.Tensor) -> None:
        if self.high > self.low:
            for part in x.float().flatten().split(EXACT):
                self.counts += torch.histc(part, BINS, self.low, self.high).double().numpy()

    def ranges(self) -> dict[float, Range]:
        """The range that loses least in each of ``NORMS``."""
        best = dict.fromkeys(NORMS, (np.inf, Range.between(self.low, self.high)))
        width = (self.high - self.low) / BINS
        values = np.asarray(self.low + width * (np.arange(BINS) + 0.5), np.float64)
        for high in self.high * _cuts(self.high, -self.low):
            for low in self.low * _cuts(-self.low, self.high):
                tried = Range.between(low, high)
                moved = tried.error(values)
                for norm in NORMS[:-1]:
                    lost = float(_power(moved, norm) @ self.counts)
                    if lost < best[norm][0]:
                        best[norm] = (lost, tried)
        return {norm: found for norm, (_, found) in best.items()}


def _power(values: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    """As ``values**norm``, which takes ten times as long where a few products do."""
    if norm != int(norm):
        return values**norm
    return np.asarray(math.prod([values] * int(norm)))


def _cuts(side: float, other: float) -> NDArray[np.float64]:
    return CUTS if side > SIDE * other else CUTS[-1:]


class Watching:
    """What makes an observer, of either of PyTorch's frameworks for quantization, fill `Values`.

    To be the first base of a class whose other base is the framework's observer.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.values = Values()
        self.counting = False  # else it sees the extremes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (self.values.count if self.counting else self.values.extend)(x)
        return x


Network = Callable[[torch.Tensor], torch.Tensor]


def search(
    model: Network,
    observers: Mapping[str, Watching],
    batches: Sequence[torch.Tensor],
    quantized: Callable[[dict[str, Range]], Network],
) -> dict[str, Range]:
    """Return a range for each observer in ``model``: those that bring answers nearest to float's.

    Args:
        batches: float32 images [n, 3, H, W] each; the first ones judge.
        quantized: makes the model that has given ranges.
    """
    judged = batches[: max(1, JUDGED // len(batches[0]))]
    with torch.inference_mode():
        expected = [model(batch) for batch in batches][: len(judged)]
        for observer in observers.values():
            observer.counting = True
        for batch in batches:
            model(batch)

    def error(ranges: dict[str, Range]) -> float:
        tried = quantized(ranges)
        with torch.inference_mode():
            pairs = zip(judged, expected, strict=True)
            return sum(float((tried(batch) - y).square().sum()) for batch, y in pairs)

    return choose({name: observer.values for name, observer in observers.items()}, error)


def choose(
    seen: Mapping[str, Values], error: Callable[[dict[str, Range]], float]
) -> dict[str, Range]:
    """Return the ranges, all of one norm, that ``error`` is least of."""
    found = {name: values.ranges() for name, values in seen.items()}
    tried = [{name: ranges[norm] for name, ranges in found.items()} for norm in NORMS]
    return min(progress(tried, desc="calibration", unit="norm"), key=error)
