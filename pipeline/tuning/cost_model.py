"""What one inference of a file costs an ARM64 core, modelled from measured files: pure.

A file's retired instructions are taken as a sum over its layers with weights: multiplications times
a rate of the layer's kind, and outputs times a rate that stands for all that lies between the
layers. The rates are fitted to counts of whole files under the emulator of `device_tests/arm64`
(docs/adr/0032), where they repeat exactly. So a recipe has one cost, whatever else the machine
does; it says what work a core is given and not how long it takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.formats import Format
from pipeline.params import Quantize
from pipeline.quantization.layer_names import named
from pipeline.schemes import SCHEMES

DYNAMIC, STATIC, FLOAT = "dynamic", "static", "float"


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution, for one image."""

    name: str
    macs: int  # multiplications
    outputs: int  # values
    linear: bool = True


@dataclass(frozen=True, kw_only=True)
class Rates:
    """ARM64 instructions of the layers of one format's file, and of what lies between them."""

    by_kind: dict[str, float]  # for one multiplication
    rest: float  # for one output of a layer
    activation: float = 0.0  # for one output of fc1, where it is not in the rest
    table: float = 0.0  # the same where fc1 and fc2 are static


RATES = {
    ("ptl", "per_channel"): Rates(
        by_kind={DYNAMIC: 0.3498, FLOAT: 0.3269, STATIC: 0.28}, rest=42.8, activation=60.1
    ),
    ("ptl", "static_symmetric"): Rates(
        by_kind={DYNAMIC: 0.3498, FLOAT: 0.3269, STATIC: 0.1173},
        rest=25.8,
        activation=60.1,
        table=14.5,
    ),
    # The float rate of these two is PyTorch Lite's, and static is counted as dynamic.
    ("int8_onnx", "per_channel"): Rates(
        by_kind={DYNAMIC: 0.1252, FLOAT: 0.3269, STATIC: 0.1252}, rest=24.56
    ),
    ("pte", "per_channel"): Rates(
        by_kind={DYNAMIC: 0.1613, FLOAT: 0.3269, STATIC: 0.1613}, rest=23.75
    ),
}


def from_efficient(key: Format, quantize: Quantize) -> bool:
    """Whether a file of format ``key`` is made from the form that needs fewer instructions."""
    return key != "ptl" or SCHEMES[quantize.scheme].efficient_form


def instructions_m(key: Format, quantize: Quantize, layers: Iterable[Layer]) -> float:
    """The modelled cost of a file, in millions; ``layers`` are of the form that is quantized."""
    rates = RATES.get((key, quantize.scheme), RATES[key, "per_channel"])
    kinds = {layer: kind(layer, key, quantize) for layer in layers}
    static = {layer.name for layer, its in kinds.items() if its == STATIC}
    total = 0.0
    for layer, its in kinds.items():
        total += layer.macs * rates.by_kind[its] + layer.outputs * rates.rest
        block, _, name = layer.name.rpartition(".")
        if name == "fc1":
            whole = {f"{block}.fc1", f"{block}.fc2"} <= static
            total += layer.outputs * (rates.table if whole else rates.activation)
    return total / 1e6


def kind(layer: Layer, key: Format, quantize: Quantize) -> str:
    """In which kind of kernel a layer runs."""
    if named(layer.name, quantize.keep_float):
        return FLOAT
    if quantize.static:
        return STATIC
    if key == "ptl" and quantize.fixed_ranges:
        return DYNAMIC if named(layer.name, quantize.keep_dynamic) else STATIC
    return DYNAMIC if layer.linear else FLOAT
