"""Keep models as safetensors: the float one, and the dynamically quantized one beside it.

A quantized file holds, for each quantized linear layer NAME, ``NAME.weight`` int8 [out, in],
``NAME.scale`` float64 [out] or [1], ``NAME.bias`` float32 [out]; everything else is float32 under
timm's names. Plain arrays instead of PyTorch's packed ones: no pickle, no engine, and the gate can
hold every int8 weight against the float weight it came from.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear as QuantizedLinear

from pipeline.core.contract import Contract
from pipeline.core.errors import ParamsError
from pipeline.support.contracts import CONTRACT_FILE, MODEL_FILE, load_contract
from pipeline.support.files import atomic, write_bytes, write_text
from pipeline.support.models import create, load_weights

METADATA_KEY = "edge_vit.quantization"  # one key: safetensors writes several in random order


def load_model(path: Path, *, fused_attention: bool | None = None) -> tuple[nn.Module, Contract]:
    """Load a float or quantized ``model.safetensors`` and the contract beside it.

    ``fused_attention`` chooses the attention of a float model (default: fused); a quantized file
    says itself which one it was made with.
    """
    contract = load_contract(path.parent)
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    fused_attention = about.get("fused_attention", fused_attention)
    model = create(
        contract.checkpoint.architecture,
        num_classes=len(contract.labels),
        image_size=contract.preprocessing.size[0],
        fused_attention=fused_attention is not False,
    )
    quantized = {name: _take_layer(state, name) for name in about.get("layers", [])}
    for name in quantized:
        model.set_submodule(name, nn.Identity())
    load_weights(model, state, str(path))
    for name, layer in quantized.items():
        model.set_submodule(name, layer)
    return model.eval(), contract


def save_quantized(
    folder: Path, model: nn.Module, contract: Contract, *, fused_attention: bool
) -> None:
    """Write a model whose linear layers PyTorch has quantized dynamically, and its contract."""
    arrays: dict[str, torch.Tensor] = {}
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            layers.append(name)
            weight, bias = module._weight_bias()
            arrays[f"{name}.weight"] = weight.int_repr()
            arrays[f"{name}.scale"] = _scale(weight)
            if bias is not None:
                arrays[f"{name}.bias"] = bias.detach()
    inside = tuple(f"{name}." for name in layers)
    for key, value in model.state_dict().items():
        if not key.startswith(inside):
            arrays[key] = value
    about = json.dumps({"layers": layers, "fused_attention": fused_attention}, sort_keys=True)
    with atomic(folder) as new:
        new.mkdir()
        whole = {key: value.contiguous() for key, value in arrays.items()}
        # Written by Python, whose errors say what is wrong with a disk.
        write_bytes(new / MODEL_FILE, save(whole, {METADATA_KEY: about}))
        write_text(new / CONTRACT_FILE, contract.to_json())


def matching_linears(model: nn.Module, patterns: tuple[str, ...]) -> set[str]:
    """Names of the linear layers that the patterns of ``quantize.keep_float`` name.

    Raises:
        ParamsError: a pattern names no linear layer.
    """
    names = linears(model)
    matching: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise ParamsError(
                f"params.yaml: quantize.keep_float: {pattern!r} names no linear layer; "
                f"there are e.g. {', '.join(names[:5])}"
            )
        matching |= found
    return matching


def linears(model: nn.Module) -> list[str]:
    """Names of all linear layers, in the model's order."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def _scale(weight: torch.Tensor) -> torch.Tensor:
    if weight.qscheme() == torch.per_channel_affine:
        return weight.q_per_channel_scales().double()
    return torch.tensor([weight.q_scale()], dtype=torch.float64)


def _take_layer(state: dict[str, torch.Tensor], name: str) -> QuantizedLinear:
    """Build the layer that ``state`` describes, and take its arrays out of ``state``."""
    integers, scale = state.pop(f"{name}.weight"), state.pop(f"{name}.scale")
    bias = state.pop(f"{name}.bias", None)
    if len(scale) == 1:
        weight = torch._make_per_tensor_quantized_tensor(integers, scale.item(), 0)
    else:
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        weight = torch._make_per_channel_quantized_tensor(integers, scale, zeros, 0)
    layer = QuantizedLinear(integers.shape[1], integers.shape[0], bias_=bias is not None)
    layer.set_weight_bias(weight, bias)
    return layer
