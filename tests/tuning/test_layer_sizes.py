"""The modelled cost is that of files that were counted under the emulator (docs/adr/0032)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.params import Quantize
from pipeline.tuning.cost_model import from_efficient, instructions_m
from pipeline.tuning.layer_sizes import layers

ALL = ("*",)


@pytest.mark.parametrize(
    ("key", "quantize", "counted_m"),
    [
        ("ptl", Quantize(scheme="per_channel"), 660.66),
        ("ptl", Quantize(scheme="per_channel", keep_float=ALL), 636.74),
        ("ptl", Quantize(scheme="static_symmetric"), 243.3),
        ("ptl", Quantize(scheme="static_symmetric", keep_dynamic=ALL), 553.99),
        ("ptl", Quantize(scheme="static_symmetric", keep_float=ALL), 530.20),
        ("int8_onnx", Quantize(scheme="per_channel"), 222.1),
        ("pte", Quantize(scheme="per_channel"), 255.4),
    ],
)
def test_the_model_comes_within_a_hundredth_of_what_was_counted(
    healthy: Path, key: str, quantize: Quantize, counted_m: float
) -> None:
    found = layers(healthy / "checkpoint", efficient=from_efficient(key, quantize))
    assert instructions_m(key, quantize, found) == pytest.approx(counted_m, rel=0.01)
