"""The int8 layers of a quantized model as functions of float values, beside the float model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear

from pipeline.contract.contract import Contract
from pipeline.quantization import static
from pipeline.quantization.load import (
    load_fused,
    load_model,
    load_shaped,
    ranges_of,
    symmetric_layers,
)

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pairs:
    """A float model, and its layers in int8 by the name that both have."""

    model: nn.Module
    layers: dict[str, Function]  # float32 to float32, as the float layer of that name
    weights: dict[str, torch.Tensor]  # quantized
    contract: Contract


def pairs(float_file: Path, quantized_file: Path) -> Pairs:
    """Load both files. ``model`` may be a cached one: leave it as it is."""
    quantized, contract = load_model(quantized_file)
    if isinstance(quantized, fx.GraphModule):
        return _static(float_file, quantized_file, quantized, contract)
    modules: dict[str, Any] = {
        name: module
        for name, module in quantized.named_modules()
        if isinstance(module, DynamicLinear)
    }
    weights = {name: module.weight() for name, module in modules.items()}
    fixed = symmetric_layers(quantized_file)
    if fixed is None:
        model, _ = load_model(float_file, fused_attention=False)
        return Pairs(model, dict(modules), weights, contract)
    model, _ = load_shaped(float_file)
    layers = dict(modules) | {name: layer for name, (layer, _) in fixed.items()}
    weights |= {name: weight for name, (_, weight) in fixed.items()}
    in_order = {name: layers[name] for name, _ in model.named_modules() if name in layers}
    return Pairs(model, in_order, weights, contract)


def _static(
    float_file: Path, quantized_file: Path, quantized: fx.GraphModule, contract: Contract
) -> Pairs:
    model, ranges = load_fused(float_file), ranges_of(quantized_file)
    weights = {name: weight for name, (weight, _) in static.arrays(quantized).items()}
    given = {str(node.target): node.args[0] for node in model.graph.nodes if node.args}

    def function(name: str) -> Function:
        layer: Any = quantized.get_submodule(name)
        known = ranges[given[name].name]

        def run(x: torch.Tensor) -> torch.Tensor:
            taken = torch.quantize_per_tensor(x, known.scale, known.zero_point, torch.quint8)
            answer: torch.Tensor = layer(taken).dequantize()
            return answer

        return run

    return Pairs(model, {name: function(name) for name in weights}, weights, contract)
