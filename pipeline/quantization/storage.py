"""Quantized models as safetensors: plain arrays, and metadata that says how to read them.

For each int8 layer NAME a file has ``NAME.weight`` int8 [out, ...], ``NAME.scale`` float64 [out] or
[1], and ``NAME.bias`` float32 [out] if there is one; everything else is float32. Plain arrays
instead of PyTorch's packed ones need no pickle and no engine, and the gate can compare every int8
weight with the float weight it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from pipeline.contract.contract import Contract
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE
from pipeline.files import atomic, write_bytes, write_text
from pipeline.quantization.ranges import Range

METADATA_KEY = "edge_vit.quantization"  # one key: safetensors writes several in random order

StateDict = dict[str, torch.Tensor]
Metadata = dict[str, Any]
PackedLayer = tuple[torch.Tensor, torch.Tensor | None]  # PyTorch's quantized weight, float32 bias


def read_metadata(path: Path) -> Metadata:
    """Return how a file was quantized; empty for a float one."""
    with safe_open(path, framework="pt") as file:
        metadata: Metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    return metadata


def read(path: Path) -> tuple[StateDict, Metadata]:
    """Return the arrays of a float or quantized file, and its metadata."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, read_metadata(path)  # noqa: SIM118


def write(
    folder: Path,
    int8_layers: Mapping[str, PackedLayer],
    others: Mapping[str, Any],
    metadata: Metadata,
    contract: Contract,
) -> None:
    """Write ``folder`` with the quantized model and its contract.

    Args:
        folder: replaced as a whole.
        int8_layers: by name.
        others: every other array by key; what belongs to an int8 layer is left out.
        metadata: how to read the file, for JSON.
        contract: of the float model.
    """
    arrays: StateDict = {}
    for name, (weight, bias) in int8_layers.items():
        arrays[f"{name}.weight"] = weight.int_repr()
        arrays[f"{name}.scale"] = _scale(weight)
        if bias is not None:
            arrays[f"{name}.bias"] = bias.detach()
    inside = tuple(f"{name}." for name in int8_layers)
    arrays |= {key: value for key, value in others.items() if not key.startswith(inside)}
    contiguous = {key: value.contiguous() for key, value in arrays.items()}
    with atomic(folder) as new:
        new.mkdir()
        # Written by Python, whose errors say what is wrong with a disk.
        metadata_json = json.dumps(metadata, sort_keys=True)
        write_bytes(new / MODEL_FILE, save(contiguous, {METADATA_KEY: metadata_json}))
        write_text(new / CONTRACT_FILE, contract.to_json())


def pack(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Make PyTorch's quantized tensor of int8 ``weight`` [out, ...] and float64 ``scale``.

    ``scale`` is [out], or [1] for one scale for the whole layer.
    """
    if len(scale) == 1 and len(weight) > 1:
        return torch._make_per_tensor_quantized_tensor(weight, scale.item(), 0)
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(weight, scale, zeros, 0)


def _scale(weight: torch.Tensor) -> torch.Tensor:
    if weight.qscheme() == torch.per_channel_affine:
        return weight.q_per_channel_scales().double()
    return torch.tensor([weight.q_scale()], dtype=torch.float64)


def ranges_to_json(ranges: Mapping[str, Range]) -> dict[str, list[float]]:
    """Return the ranges as metadata has them: scale and zero point by name."""
    return {name: [value.scale, value.zero_point] for name, value in ranges.items()}


def ranges_from_json(values: Mapping[str, list[Any]]) -> dict[str, Range]:
    """Return the ranges that metadata has."""
    return {name: Range(*value) for name, value in values.items()}
