"""What one inference of a file costs an ARM64 core, modelled from measured files: pure.

A file's retired instructions are taken as a sum over its layers with weights: multiplications times
a rate of the layer's kind, and outputs times a rate that stands for all that lies between the
layers. The rates are fitted to counts of whole files under the emulator of `device_tests/arm64`
(docs/adr/0032), where they repeat exactly. So a recipe has one cost, whatever else the machine
does; it says what work a core is given and not how long it takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.formats import FORMATS
from pipeline.params import Quantize
from pipeline.quantization.layer_names import named
from pipeline.schemes import SCHEMES

if TYPE_CHECKING:
    from pipeline.quantization.layer_sizes import Layer

DYNAMIC, STATIC, FLOAT = "dynamic", "static", "float"


def from_efficient(key: str, quantize: Quantize) -> bool:
    """Whether a file of format ``key`` is made from the form that needs fewer instructions."""
    return not FORMATS[key].takes_symmetric or SCHEMES[quantize.scheme].efficient_form


def instructions_m(key: str, quantize: Quantize, layers: Iterable[Layer]) -> float:
    """Return the modelled cost of a file, in million instructions for one image.

    ``layers`` are of the form that is quantized: see :func:`from_efficient`.
    """
    by_scheme = FORMATS[key].rates
    rates = by_scheme.get(quantize.scheme, by_scheme["per_channel"])
    kinds = {layer: kind(layer, key, quantize) for layer in layers}
    static = {layer.name for layer, kernel in kinds.items() if kernel == STATIC}
    total = 0.0
    for layer, kernel in kinds.items():
        total += layer.macs * rates.by_kind[kernel] + layer.outputs * rates.rest
        block, _, name = layer.name.rpartition(".")
        if name == "fc1":
            whole = {f"{block}.fc1", f"{block}.fc2"} <= static
            total += layer.outputs * (rates.table if whole else rates.activation)
    return total / 1e6


def kind(layer: Layer, key: str, quantize: Quantize) -> str:
    """Return the kind of kernel that a layer runs in: dynamic, static or float."""
    if named(layer.name, quantize.keep_float):
        return FLOAT
    if quantize.static:
        return STATIC
    if FORMATS[key].takes_symmetric and quantize.fixed_ranges:
        return DYNAMIC if named(layer.name, quantize.keep_dynamic) else STATIC
    return DYNAMIC if layer.linear else FLOAT
