"""Keep models as safetensors: the float one, and the quantized one beside it.

A quantized file holds, for each int8 layer NAME, ``NAME.weight`` int8 [out, ...], ``NAME.scale``
float64 [out] or [1], ``NAME.bias`` float32 [out]; everything else is float32. Its metadata says how
it was quantized, for static quantization with the range of every activation. Plain arrays instead
of PyTorch's packed ones: no pickle, no engine, and the gate can hold every int8 weight against the
float weight it came from.

Names are timm's; after static quantization, which folds layers first, those of `tracing.fused`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import fx, nn
from torch.ao.nn.quantized.dynamic import Linear as DynamicLinear

from pipeline.contract.contract import Contract
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE, load_contract
from pipeline.errors import ParamsError
from pipeline.files import atomic, write_bytes, write_text
from pipeline.models import efficient, tracing
from pipeline.models.build import create, load_weights
from pipeline.quantization import static, symmetric
from pipeline.quantization.ranges import Range

METADATA_KEY = "edge_vit.quantization"  # one key: safetensors writes several in random order

Arrays = dict[str, torch.Tensor]


def load_model(path: Path, *, fused_attention: bool | None = None) -> tuple[nn.Module, Contract]:
    """Load a float or quantized ``model.safetensors`` and the contract beside it.

    ``fused_attention`` chooses the attention of a float model (default: fused); a quantized file
    says itself which one it was made with.
    """
    contract = load_contract(path.parent)
    state, about = _read(path)
    fused_attention = about.get("fused_attention", fused_attention)
    model = empty_model(contract, fused_attention=fused_attention is not False)
    if "ranges" in about:
        return _static(model, contract, state, about), contract
    return _dynamic(model, state, about, str(path)), contract


def _dynamic(model: nn.Module, state: Arrays, about: Mapping[str, Any], source: str) -> nn.Module:
    """Give a float model its weights, and put the layers that are int8 into it."""
    if "symmetric" in about:
        model = efficient.shaped(model)
        if efficient.cuts_patches(model):
            _flatten_patches(state)
    fixed = {name: _take_arrays(state, name) for name in about.get("static", [])}
    quantized = {name: _take_layer(state, name) for name in about.get("layers", [])}
    for name in (*fixed, *quantized):
        model.set_submodule(name, nn.Identity())
    load_weights(model, state, source)
    for name, layer in quantized.items():
        model.set_submodule(name, layer)
    return symmetric.install(model, fixed, _ranges(about.get("symmetric", {}))).eval()


def empty_model(contract: Contract, *, fused_attention: bool) -> nn.Module:
    """Build the architecture that a contract is about, with random weights."""
    return create(
        contract.checkpoint.architecture,
        num_classes=len(contract.labels),
        image_size=contract.preprocessing.size[0],
        norm_eps=contract.checkpoint.norm_eps,
        fused_attention=fused_attention,
    )


@cache
def load_fused(path: Path, batch: int = 1) -> fx.GraphModule:
    """Load a float ``model.safetensors`` as static quantization starts from it; never change it."""
    model, contract = load_model(path, fused_attention=False)
    return tracing.fused(model, (batch, *contract.input_shape[1:]))


def float_arrays(path: Path, quantized: Path) -> Arrays:
    """The float weights of ``path`` under the names that the file ``quantized`` has."""
    if "ranges" in _about(quantized):
        return dict(load_fused(path).state_dict())
    return _read(path)[0]


def with_float_layers(path: Path, float_path: Path, names: Iterable[str]) -> nn.Module:
    """Load a statically quantized model with the layers ``names`` left in float, as it would have
    been with them in ``quantize.keep_float``."""
    state, about = _read(path)
    if "ranges" in about:
        kept = {*about["keep_float"], *names}
        return _converted(load_fused(float_path), state, about, kept)
    floats, _ = _read(float_path)
    names = set(names)
    for name in names:
        _take_arrays(state, name)
        state |= {key: floats[key] for key in floats if key.rpartition(".")[0] == name}
    for kind in ("layers", "static"):
        about[kind] = [name for name in about.get(kind, []) if name not in names]
    model = empty_model(load_contract(path.parent), fused_attention=about["fused_attention"])
    return _dynamic(model, state, about, str(path))


def load_shaped(path: Path) -> tuple[nn.Module, Contract]:
    """Load a float ``model.safetensors`` in the form that scheme ``static_symmetric`` quantizes."""
    model, contract = load_model(path, fused_attention=False)
    return efficient.shaped(model), contract


def symmetric_layers(
    path: Path,
) -> dict[str, tuple[symmetric.StaticLinear, torch.Tensor]] | None:
    """The static layers of a file of scheme ``static_symmetric``, each alone, and their quantized
    weights; None for a file of another scheme."""
    state, about = _read(path)
    if "symmetric" not in about:
        return None
    if efficient.PATCHES in about["static"]:
        _flatten_patches(state)
    ranges = _ranges(about["symmetric"])
    arrays = {name: _take_arrays(state, name) for name in about["static"]}
    return {
        name: (symmetric.StaticLinear(its, ranges[name]), _packed(its.weight, its.scale))
        for name, its in arrays.items()
    }


def ranges_of(path: Path) -> dict[str, Range]:
    """The ranges that a statically quantized file has, by the name of the value."""
    return _ranges(_about(path)["ranges"])


def _ranges(values: Mapping[str, list[Any]]) -> dict[str, Range]:
    return {name: Range(*known) for name, known in values.items()}


def _about(path: Path) -> dict[str, Any]:
    """What a file says of its quantization; nothing for a float one."""
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    return about


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, _about(path)  # noqa: SIM118


def _static(
    model: nn.Module, contract: Contract, state: Arrays, about: dict[str, Any]
) -> nn.Module:
    fused = tracing.fused(model, contract.input_shape)
    floats = {key: value for key, value in state.items() if not key.endswith(".scale")}
    for key in state.keys() - floats.keys():
        name = key.removesuffix("scale") + "weight"
        scale = state[key].reshape(-1, *[1] * (state[name].ndim - 1))
        floats[name] = (state[name] * scale).float()
    load_weights(fused, floats, contract.name)
    return _converted(fused, state, about, about["keep_float"])


def _converted(
    fused: fx.GraphModule, state: Arrays, about: Mapping[str, Any], kept: Iterable[str]
) -> nn.Module:
    model = static.converted(fused, _ranges(about["ranges"]), kept)
    for name, (_, bias) in static.arrays(model).items():
        key = weight_name(fused, name)
        layer: Any = model.get_submodule(name)
        bias = state.get(f"{key}.bias", bias)  # PyTorch gives zeros to a layer that has none
        layer.set_weight_bias(_packed(state[f"{key}.weight"], state[f"{key}.scale"]), bias)
    return model


def weight_name(fused: fx.GraphModule, layer: str) -> str:
    """Where a layer's arrays are: with the layer, or with the first of a fused pair."""
    own = fused.get_submodule(layer)
    return layer if static.inner(own) is own else f"{layer}.0"


def save_dynamic(
    folder: Path, model: nn.Module, contract: Contract, *, fused_attention: bool
) -> None:
    """Write a model whose linear layers PyTorch has quantized dynamically, and its contract."""
    packed = {
        name: module._weight_bias()
        for name, module in model.named_modules()
        if isinstance(module, DynamicLinear)
    }
    about = {"layers": list(packed), "fused_attention": fused_attention}
    _save(folder, packed, model.state_dict(), about, contract)


def save_symmetric(
    folder: Path,
    model: nn.Module,
    arrays: Mapping[str, symmetric.Arrays],
    ranges: Mapping[str, Range],
    contract: Contract,
) -> None:
    """Write a shaped model whose layers are dynamic int8 but for those that have ``arrays``."""
    packed = {
        name: module._weight_bias()
        for name, module in model.named_modules()
        if isinstance(module, DynamicLinear)
    }
    about = {
        "layers": list(packed),
        "static": list(arrays),
        "fused_attention": False,
        "symmetric": {name: [known.scale, known.zero_point] for name, known in ranges.items()},
    }
    whole = model.state_dict()
    if efficient.cuts_patches(model):
        key = f"{efficient.PATCHES}.weight"
        shape = efficient.patch_shape(model)
        whole[key] = whole[key].view(shape)
        if its := arrays.get(efficient.PATCHES):
            squares = dataclasses.replace(its, weight=its.weight.view(shape))
            arrays = {**arrays, efficient.PATCHES: squares}
    for name, its in arrays.items():
        whole |= {f"{name}.{k}": v for k, v in vars(its).items() if v is not None}
    _save(folder, packed, whole, about, contract)


def save_static(
    folder: Path,
    fused: fx.GraphModule,
    ranges: Mapping[str, Range],
    kept: Iterable[str],
    contract: Contract,
) -> None:
    """Quantize a fused model with ranges from calibration; write it and its contract."""
    kept = sorted(kept)
    quantized = static.converted(fused, ranges, kept)
    floats = fused.state_dict()
    packed = {}
    for layer, (weight, bias) in static.arrays(quantized).items():
        name = weight_name(fused, layer)
        packed[name] = (weight, bias if f"{name}.bias" in floats else None)
    about = {
        "layers": list(packed),
        "fused_attention": False,
        "keep_float": kept,
        "ranges": {name: [known.scale, known.zero_point] for name, known in ranges.items()},
    }
    _save(folder, packed, floats, about, contract)


def _save(
    folder: Path,
    packed: Mapping[str, tuple[torch.Tensor, torch.Tensor | None]],
    floats: Mapping[str, Any],
    about: dict[str, Any],
    contract: Contract,
) -> None:
    arrays: Arrays = {}
    for name, (weight, bias) in packed.items():
        arrays[f"{name}.weight"] = weight.int_repr()
        arrays[f"{name}.scale"] = _scale(weight)
        if bias is not None:
            arrays[f"{name}.bias"] = bias.detach()
    inside = tuple(f"{name}." for name in packed)
    arrays |= {key: value for key, value in floats.items() if not key.startswith(inside)}
    with atomic(folder) as new:
        new.mkdir()
        whole = {key: value.contiguous() for key, value in arrays.items()}
        # Written by Python, whose errors say what is wrong with a disk.
        write_bytes(
            new / MODEL_FILE, save(whole, {METADATA_KEY: json.dumps(about, sort_keys=True)})
        )
        write_text(new / CONTRACT_FILE, contract.to_json())


def matching(
    names: Iterable[str], patterns: tuple[str, ...], parameter: str = "keep_float"
) -> set[str]:
    """The layers that the patterns of a parameter of ``quantize`` name.

    Raises:
        ParamsError: a pattern names no layer that is quantized.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        some = {name for name in names if fnmatchcase(name, pattern)}
        if not some:
            raise ParamsError(
                f"params.yaml: quantize.{parameter}: {pattern!r} names no layer that is quantized; "
                f"there are e.g. {', '.join(names[:5])}"
            )
        found |= some
    return found


def weighted_layers(model: nn.Module, *, convolutions: bool = False) -> list[str]:
    """Names of all linear layers, and of convolutions if asked for, in the model's order."""
    kinds = (nn.Linear, nn.Conv2d) if convolutions else (nn.Linear,)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def _scale(weight: torch.Tensor) -> torch.Tensor:
    if weight.qscheme() == torch.per_channel_affine:
        return weight.q_per_channel_scales().double()
    return torch.tensor([weight.q_scale()], dtype=torch.float64)


def _packed(integers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    if len(scale) == 1 and len(integers) > 1:
        return torch._make_per_tensor_quantized_tensor(integers, scale.item(), 0)
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(integers, scale, zeros, 0)


def _take_layer(state: Arrays, name: str) -> DynamicLinear:
    """Build the layer that ``state`` describes, and take its arrays out of ``state``."""
    integers, scale = state.pop(f"{name}.weight"), state.pop(f"{name}.scale")
    bias = state.pop(f"{name}.bias", None)
    layer = DynamicLinear(integers.shape[1], integers.shape[0], bias_=bias is not None)
    layer.set_weight_bias(_packed(integers, scale), bias)
    return layer


def _take_arrays(state: Arrays, name: str) -> symmetric.Arrays:
    """What a static layer is made of, taken out of ``state``."""
    fields = [field.name for field in dataclasses.fields(symmetric.Arrays)]
    return symmetric.Arrays(**{key: state.pop(f"{name}.{key}", None) for key in fields})  # type: ignore[arg-type]


def _flatten_patches(state: Arrays) -> None:
    """A patch embedding's weight as a linear layer has it, [out, in]."""
    key = f"{efficient.PATCHES}.weight"
    state[key] = state[key].flatten(1)
