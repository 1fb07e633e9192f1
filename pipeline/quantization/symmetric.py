"""Scheme ``static_symmetric``: static int8 of a vision transformer in its cheapest form on ARM.

Linear layers of a model of `efficient.for_static_int8` become those of `symmetric_layers`, with
ranges from calibration images (docs/adr/0028). Other linear layers are quantized as by
``per_channel``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.images.samples import calibration_input
from pipeline.models import efficient
from pipeline.models.efficient import PATCHES
from pipeline.process import one_thread
from pipeline.quantization import dynamic
from pipeline.quantization.float_model import empty_model, load_float
from pipeline.quantization.layer_names import matching, weighted_layers
from pipeline.quantization.ranges import Range
from pipeline.quantization.scheme import Function, LayerPairs
from pipeline.quantization.storage import (
    Metadata,
    StateDict,
    pack,
    ranges_from_json,
    ranges_to_json,
    read,
    write,
)
from pipeline.quantization.symmetric_calibration import calibrate
from pipeline.quantization.symmetric_layers import LayerArrays, StaticLinear, install

if TYPE_CHECKING:
    from pipeline.params import Quantize

BATCH = 32  # calibration images at once
KEYS = {  # of a layer's arrays in a file, by the field of LayerArrays; as every file has had them
    "weight": "weight",
    "scale": "scale",
    "bias": "bias",
    "output_scale": "unit",
    "output_offset": "middle",
    "input_scale": "columns",
    "input_offset": "shift",
}


def load_efficient(path: Path) -> tuple[nn.Module, Contract]:
    """Load a float ``model.safetensors`` in the form that this scheme quantizes."""
    model, contract = load_float(path)
    return efficient.for_static_int8(model), contract


def quantize(params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
    """See `SchemeModule`."""
    model, contract = load_efficient(checkpoint / MODEL_FILE)
    every = weighted_layers(model)
    others = matching(every, params.keep_float)
    others |= matching(every, params.keep_dynamic, "keep_dynamic")
    names = [name for name in efficient.static_layers(model) if name not in others]
    arrays: dict[str, LayerArrays] = {}
    ranges: dict[str, Range] = {}
    if names:
        asking = f"quantize.scheme: {params.scheme}"
        images = calibration_input(samples, contract.preprocessing, asking)
        batches = torch.from_numpy(images).split(BATCH)
        with one_thread():
            arrays, ranges = calibrate(model, names, batches, contract.preprocessing)
    rest = dynamic.quantize_linears(model, (*params.keep_float, *names))
    save(out, rest, arrays, ranges, contract)


def save(
    folder: Path,
    model: nn.Module,
    arrays: Mapping[str, LayerArrays],
    ranges: Mapping[str, Range],
    contract: Contract,
) -> None:
    """Write a model whose layers are dynamic int8, except those that have ``arrays``."""
    layers = dynamic.packed_layers(model)
    metadata = {
        "layers": list(layers),
        "static": list(arrays),
        "fused_attention": False,
        "symmetric": ranges_to_json(ranges),
    }
    state = model.state_dict()
    if efficient.has_linear_patches(model):
        # As the checkpoint has them, so that the gate can compare.
        shape = efficient.patch_shape(model, contract.preprocessing.channels)
        state[f"{PATCHES}.weight"] = state[f"{PATCHES}.weight"].view(shape)
        if patches := arrays.get(PATCHES):
            arrays = {**arrays, PATCHES: replace(patches, weight=patches.weight.view(shape))}
    for name, layer in arrays.items():
        fields = {f"{name}.{key}": getattr(layer, field) for field, key in KEYS.items()}
        state |= {key: value for key, value in fields.items() if value is not None}
    write(folder, layers, state, metadata, contract)


def load(contract: Contract, state: StateDict, metadata: Metadata, source: str) -> nn.Module:
    """See `SchemeModule`."""
    model = efficient.for_static_int8(empty_model(contract, fused_attention=False))
    if efficient.has_linear_patches(model):
        _flatten_patches(state)
    arrays = {name: _take_arrays(state, name) for name in metadata["static"]}
    for name in arrays:
        model.set_submodule(name, nn.Identity())
    dynamic.fill(model, state, metadata["layers"], source)
    return install(model, arrays, ranges_from_json(metadata["symmetric"]))


def restore(path: Path, float_path: Path, names: Iterable[str]) -> nn.Module:
    """See `SchemeModule`."""
    state, metadata = read(path)
    names = set(names)
    dynamic.restore_floats(state, float_path, names)
    for kind in ("layers", "static"):
        metadata[kind] = [name for name in metadata[kind] if name not in names]
    return load(load_contract(path.parent), state, metadata, str(path))


def float_weights(float_path: Path) -> StateDict:
    """See `SchemeModule`."""
    return read(float_path)[0]


def layer_pairs(float_path: Path, path: Path) -> LayerPairs:
    """See `SchemeModule`."""
    state, metadata = read(path)
    if PATCHES in metadata["static"] or PATCHES in metadata["layers"]:
        _flatten_patches(state)
    ranges = ranges_from_json(metadata["symmetric"])
    layers: dict[str, Function] = {}
    weights: dict[str, torch.Tensor] = {}
    for name in metadata["static"]:
        arrays = _take_arrays(state, name)
        layers[name] = StaticLinear(arrays, ranges[name])
        weights[name] = pack(arrays.weight, arrays.scale)
    for name in metadata["layers"]:
        layers[name] = layer = dynamic.take_layer(state, name)
        weights[name] = layer.weight()
    model, contract = load_efficient(float_path)
    in_order = {name: layers[name] for name, _ in model.named_modules() if name in layers}
    return LayerPairs(model, in_order, weights, contract)


def _take_arrays(state: StateDict, name: str) -> LayerArrays:
    """Take the arrays of a static layer out of ``state``."""
    return LayerArrays(
        **{field: state.pop(f"{name}.{key}", None) for field, key in KEYS.items()}  # type: ignore[arg-type]
    )


def _flatten_patches(state: StateDict) -> None:
    """Give the patch embedding's weight the shape of a linear layer, [out, in]."""
    state[f"{PATCHES}.weight"] = state[f"{PATCHES}.weight"].flatten(1)
