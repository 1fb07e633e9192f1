"""Which quantized layers lose most, and which to leave in float: pure, from measured numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.metrics.intervals import mcnemar_exact

LEAST_ERROR_DB = 10.0  # below the median; less is the ordinary spread of layers
LEAST_GAIN_DB = 1.0  # a fifth of the whole error; less is not worth a layer in float
DEVIATIONS = 4.0  # from the median of all layers, in robust standard deviations
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
SURE_P = 0.05  # McNemar, of answers regained against answers lost


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One quantized layer; gains are of restoring it alone, against the whole quantized model."""

    name: str
    sqnr_db: float  # of its output, fed with what float feeds it
    regained: int  # samples that answer as float again
    lost: int  # samples that do no more
    right_gained: int | None  # change in right answers; None without labels
    logit_sqnr_gain_db: float
    bytes_more: int  # float weights instead of int8 and scales


def standing_out(layers: Sequence[Layer]) -> frozenset[str]:
    """Names of the layers whose restoration gives back more than chance explains.

    On few samples every layer's gain is off by a decibel or so either way, so a gain counts only
    where it lies far from those of the other layers.
    """
    gains = [layer.logit_sqnr_gain_db for layer in layers]
    middle = median(gains)
    deviation = MAD_TO_DEVIATION * median(abs(gain - middle) for gain in gains)
    least = max(LEAST_GAIN_DB, middle + DEVIATIONS * deviation)
    return frozenset(
        layer.name
        for layer in layers
        if layer.logit_sqnr_gain_db >= least
        or (layer.regained > layer.lost and mcnemar_exact(layer.regained, layer.lost) < SURE_P)
    )


def broken(layers: Sequence[Layer]) -> frozenset[str]:
    """Names of the layers whose own error is far larger than that of the others.

    Restoring one may give nothing back, where what follows hardly listens to it.
    """
    own = [layer.sqnr_db for layer in layers]
    middle = median(own)
    deviation = MAD_TO_DEVIATION * median(abs(sqnr - middle) for sqnr in own)
    least = max(LEAST_ERROR_DB, DEVIATIONS * deviation)
    return frozenset(layer.name for layer in layers if layer.sqnr_db < middle - least)


def rank(layers: Sequence[Layer]) -> list[Layer]:
    """Return layers, best to restore first.

    Those that stand out come first, by answers regained per byte, then decibels per byte. Among
    the rest a per-byte order would only rank noise by smallness: they follow by decibels.
    """
    out = standing_out(layers)

    def place(layer: Layer) -> tuple[bool, float, float, str]:
        if layer.name not in out:
            return True, 0.0, -layer.logit_sqnr_gain_db, layer.name
        size = max(1, layer.bytes_more)
        regained = layer.regained - layer.lost
        return False, -regained / size, -layer.logit_sqnr_gain_db / size, layer.name

    return sorted(layers, key=place)
