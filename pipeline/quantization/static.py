"""Static int8 for QNNPACK by FX graph mode: convolutions and linear layers, calibrated on images.

:func:`calibrated` records the range of every layer's input and output on a traced model,
:func:`converted` makes the quantized model from ranges that were recorded. Normalization,
activations and attention stay in float between the layers: their int8 kernels are missing or lose
too much.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.ao.nn.quantized import Conv2d as QuantizedConv
from torch.ao.nn.quantized import Linear as QuantizedLinear
from torch.ao.quantization import ObserverBase, QConfig, QConfigMapping
from torch.ao.quantization.backend_config import get_qnnpack_backend_config
from torch.ao.quantization.observer import PerChannelMinMaxObserver
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from pipeline.process import quiet, use_qnnpack
from pipeline.quantization.ranges import Range, Watching, search

QUANTIZED = (nn.Conv2d, nn.Linear)


def layers(model: fx.GraphModule) -> dict[str, nn.Module]:
    """The layers of a fused model that can be quantized, by name, in the model's order."""
    found = {}
    for node in model.graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            if isinstance(inner(module), QUANTIZED):
                found[str(node.target)] = module
    return found


def inner(layer: nn.Module) -> nn.Module:
    """The layer that has the weight: itself, or the first of a fused pair."""
    return layer[0] if isinstance(layer, nn.Sequential) else layer


class _Observer(ObserverBase):
    """Of values that are to become uint8."""

    known = Range(1.0, 0)

    def __init__(self) -> None:
        super().__init__(dtype=torch.quint8)
        self.qscheme = torch.per_tensor_affine
        self.quant_min, self.quant_max = 0, 255

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def calculate_qparams(self, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([self.known.scale]), torch.tensor([self.known.zero_point])


def arrays(model: fx.GraphModule) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Packed weight and float32 bias of each int8 layer of a quantized model, by name."""
    return {
        name: module._weight_bias()  # type: ignore[no-untyped-call]
        for name, module in model.named_modules()
        if isinstance(module, QuantizedConv | QuantizedLinear)
    }


class _Watch(Watching, _Observer):
    """Sees what passes."""


def _mapping(activation: Any, kept: Iterable[str]) -> QConfigMapping:
    # QNNPACK multiplies int8 weights without saturation, so the range need not be reduced.
    weight = PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric
    )
    qconfig = QConfig(activation=activation, weight=weight)
    mapping = QConfigMapping()
    for kind in (*QUANTIZED, nn.ReLU):  # a ReLU behind a convolution becomes part of it
        mapping.set_object_type(kind, qconfig)
    for name in kept:
        mapping.set_module_name(name, None)
    return mapping


def _prepared(model: fx.GraphModule, activation: Any, kept: Iterable[str]) -> fx.GraphModule:
    use_qnnpack()
    with quiet():
        prepared: fx.GraphModule = prepare_fx(
            copy.deepcopy(model),
            _mapping(activation, kept),
            example_inputs=(torch.zeros(1),),  # only their number matters
            backend_config=get_qnnpack_backend_config(),
        )
    return prepared


def _observed(prepared: fx.GraphModule) -> dict[str, Any]:
    """Observers by the name of the node whose value they see: that name survives `kept`."""
    found = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            module = prepared.get_submodule(node.target)
            if isinstance(module, ObserverBase):
                found[node.args[0].name] = module
    return found


def calibrated(model: fx.GraphModule, batches: Sequence[torch.Tensor]) -> dict[str, Range]:
    """Run float images [n, 3, H, W] through a fused model; return the range of each value.

    Ranges are those with which the quantized model's answers are nearest to float's.
    """
    prepared = _prepared(model, _Watch, ())
    return search(prepared, _observed(prepared), batches, lambda found: converted(model, found, ()))


def converted(
    model: fx.GraphModule, ranges: Mapping[str, Range], kept: Iterable[str]
) -> fx.GraphModule:
    """Quantize a fused model with known ranges, but for the layers that are ``kept`` in float."""
    prepared = _prepared(model, _Observer, kept)
    for name, observer in _observed(prepared).items():
        observer.known = ranges[name]
    backend = get_qnnpack_backend_config()
    with quiet():
        quantized: fx.GraphModule = convert_fx(prepared, backend_config=backend)
    return quantized.eval()
