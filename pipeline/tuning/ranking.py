"""Which quantized layers lose most, and which to leave in float: pure, from measured numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from pipeline.metrics.intervals import mcnemar_exact

MIN_ERROR_DB = 10.0  # below the median; less is the ordinary spread of layers
MIN_GAIN_DB = 1.0  # a fifth of the whole error; less is not worth a layer in float
DEVIATIONS = 4.0  # from the median of all layers, in robust standard deviations
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
SIGNIFICANCE = 0.05  # McNemar, of answers regained against answers lost

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One quantized layer; gains are of restoring it alone, against the whole quantized model."""

    name: str
    sqnr_db: float | None  # of its output, fed with what float feeds it; None: not measured
    regained: int  # samples that answer as float again
    lost: int  # samples that do no more
    right_gained: int | None  # change in right answers; None without labels
    logit_sqnr_gain_db: float
    bytes_more: int  # float weights instead of int8 and scales


def outliers(layers: Sequence[Layer]) -> frozenset[str]:
    """Return the names of layers whose restoration gives back more than chance explains.

    On few samples every layer's gain is off by a decibel or so either way, so a gain counts only
    where it lies far from those of the other layers.
    """
    gains = [layer.logit_sqnr_gain_db for layer in layers]
    least = max(MIN_GAIN_DB, median(gains) + DEVIATIONS * _deviation(gains))
    return frozenset(
        layer.name
        for layer in layers
        if layer.logit_sqnr_gain_db >= least
        or (
            layer.regained > layer.lost and mcnemar_exact(layer.regained, layer.lost) < SIGNIFICANCE
        )
    )


def broken(layers: Sequence[Layer]) -> frozenset[str]:
    """Return the names of layers whose own error is far larger than that of the others.

    Restoring one may give nothing back, where the layers after it hardly use its output.
    """
    sqnrs = {layer.name: layer.sqnr_db for layer in layers if layer.sqnr_db is not None}
    if not sqnrs:
        return frozenset()
    values = list(sqnrs.values())
    least = median(values) - max(MIN_ERROR_DB, DEVIATIONS * _deviation(values))
    return frozenset(name for name, sqnr in sqnrs.items() if sqnr < least)


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation, estimated by the median absolute deviation."""
    center = median(values)
    return MAD_TO_DEVIATION * median(abs(value - center) for value in values)


def rank(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers, best to restore first.

    Outliers come first, by answers regained per byte, then decibels per byte. Among the rest a
    per-byte order would only rank noise by smallness: they follow by decibels.
    """
    first = outliers(layers)

    def order(layer: Layer) -> tuple[bool, float, float, str]:
        if layer.name not in first:
            return True, 0.0, -layer.logit_sqnr_gain_db, layer.name
        size = max(1, layer.bytes_more)
        regained = layer.regained - layer.lost
        return False, -regained / size, -layer.logit_sqnr_gain_db / size, layer.name

    return sorted(layers, key=order)


def minimal_passing_set(
    ranked: Sequence[Item], passes: Callable[[tuple[Item, ...]], bool]
) -> list[Item] | None:
    """Return a set that passes, and fails without any one of its members.

    The shortest prefix of ``ranked`` that passes is found by bisection; then each member is left
    out in turn, the last first, and stays out if the rest passes. There may be a smaller set.

    Returns:
        The set, in the order of ``ranked``; None if all of ``ranked`` together do not pass.
    """
    if passes(()):
        return []
    if not passes(tuple(ranked)):
        return None
    count = bisect_left(range(1, len(ranked)), True, key=lambda n: passes(tuple(ranked[:n]))) + 1
    chosen = list(ranked[:count])
    for item in reversed(ranked[:count]):
        fewer = [other for other in chosen if other != item]
        if fewer and passes(tuple(fewer)):
            chosen = fewer
    return chosen
