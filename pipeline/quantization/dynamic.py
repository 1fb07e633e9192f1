"""Schemes ``per_channel`` and ``per_tensor``: linear layers whose input range is found at run time.

``per_tensor``, which the tutorials use, has one weight scale for a layer; ``per_channel`` has one
for each output.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear
from torch.ao.quantization import (
    default_dynamic_qconfig,
    per_channel_dynamic_qconfig,
    quantize_dynamic,
)

from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.models.build import load_weights
from pipeline.process import quiet, use_qnnpack
from pipeline.quantization.float_model import empty_model, load_float
from pipeline.quantization.layer_names import matching, weighted_layers
from pipeline.quantization.scheme import LayerPairs
from pipeline.quantization.storage import Metadata, PackedLayer, StateDict, pack, read, write
from pipeline.schemes import SCHEMES

if TYPE_CHECKING:
    from pipeline.params import Quantize


def quantize(params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
    """See `SchemeModule`; needs no calibration images."""
    path = checkpoint / MODEL_FILE
    model, contract = load_float(path, fused_attention=params.fused_attention)
    per_channel = SCHEMES[params.scheme].per_channel
    quantized = quantize_linears(model, params.keep_float, per_channel=per_channel)
    save(out, quantized, contract, fused_attention=params.fused_attention)


def quantize_linears(
    model: nn.Module, keep_float: tuple[str, ...], *, per_channel: bool = True
) -> nn.Module:
    """Return a copy of ``model`` with dynamic int8 linear layers, except those of ``keep_float``.

    Raises:
        ParamsError: a pattern of ``keep_float`` names no linear layer.
    """
    use_qnnpack()
    names = weighted_layers(model)
    kept = matching(names, keep_float)
    qconfig = per_channel_dynamic_qconfig if per_channel else default_dynamic_qconfig
    with quiet():
        quantized: nn.Module = quantize_dynamic(
            model, {name: qconfig for name in names if name not in kept}
        )
    return quantized


def save(folder: Path, model: nn.Module, contract: Contract, *, fused_attention: bool) -> None:
    """Write a model of :func:`quantize_linears` and its contract."""
    layers = packed_layers(model)
    metadata = {"layers": list(layers), "fused_attention": fused_attention}
    write(folder, layers, model.state_dict(), metadata, contract)


def packed_layers(model: nn.Module) -> dict[str, PackedLayer]:
    """Return weight and bias of each dynamic int8 layer, by name."""
    return {name: layer._weight_bias() for name, layer in int8_modules(model).items()}


def int8_modules(model: nn.Module) -> dict[str, DynamicLinear]:
    """Return the dynamic int8 layers of a model, by name, in the model's order."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, DynamicLinear)
    }


def load(contract: Contract, state: StateDict, metadata: Metadata, source: str) -> nn.Module:
    """See `SchemeModule`."""
    model = empty_model(contract, fused_attention=metadata["fused_attention"])
    return fill(model, state, metadata["layers"], source)


def fill(model: nn.Module, state: StateDict, int8: Iterable[str], source: str) -> nn.Module:
    """Put the layers ``int8`` of ``state`` into ``model``, in place, and load the float weights."""
    layers = {name: take_layer(state, name) for name in int8}
    for name in layers:
        model.set_submodule(name, nn.Identity())
    load_weights(model, state, source)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return model


def take_layer(state: StateDict, name: str) -> DynamicLinear:
    """Build the int8 layer ``name`` and remove its arrays from ``state``."""
    weight, scale = state.pop(f"{name}.weight"), state.pop(f"{name}.scale")
    bias = state.pop(f"{name}.bias", None)
    layer = DynamicLinear(weight.shape[1], weight.shape[0], bias_=bias is not None)
    layer.set_weight_bias(pack(weight, scale), bias)
    return layer


def restore(path: Path, float_path: Path, names: Iterable[str]) -> nn.Module:
    """See `SchemeModule`."""
    state, metadata = read(path)
    names = set(names)
    restore_floats(state, float_path, names)
    metadata["layers"] = [name for name in metadata["layers"] if name not in names]
    return load(load_contract(path.parent), state, metadata, str(path))


def restore_floats(state: StateDict, float_path: Path, names: Container[str]) -> None:
    """Replace the arrays of the layers ``names`` in ``state`` by those of a float file."""
    for key in list(state):
        if key.rpartition(".")[0] in names:
            del state[key]
    floats, _ = read(float_path)
    state |= {key: value for key, value in floats.items() if key.rpartition(".")[0] in names}


def float_weights(float_path: Path) -> StateDict:
    """See `SchemeModule`."""
    return read(float_path)[0]


def layer_pairs(float_path: Path, path: Path) -> LayerPairs:
    """See `SchemeModule`."""
    state, metadata = read(path)
    quantized = load(load_contract(path.parent), state, metadata, str(path))
    model, contract = load_float(float_path)
    modules = int8_modules(quantized)
    weights: dict[str, torch.Tensor] = {name: layer.weight() for name, layer in modules.items()}
    return LayerPairs(model, dict(modules), weights, contract)
