"""Load ``model.safetensors``, float or quantized, whichever scheme wrote it.

Layers have timm's names; after scheme ``static``, which folds layers first, those of
`models.tracing.fused`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.quantization.float_model import load_float
from pipeline.quantization.scheme import LayerPairs, module_of
from pipeline.quantization.storage import StateDict, read, read_metadata


def load_model(path: Path, *, fused_attention: bool | None = None) -> tuple[nn.Module, Contract]:
    """Load a model in evaluation mode and the contract beside it.

    ``fused_attention`` chooses the attention of a float model (default: fused); a quantized file
    records its own.
    """
    state, metadata = read(path)
    if not metadata:
        return load_float(path, fused_attention=fused_attention is not False)
    contract = load_contract(path.parent)
    return module_of(metadata).load(contract, state, metadata, str(path)).eval(), contract


def load_restored(path: Path, float_path: Path, names: Iterable[str]) -> nn.Module:
    """Load the quantized file ``path`` with the layers ``names`` in float, of ``float_path``.

    The model is the one that quantization would have made with them in ``quantize.keep_float``.
    """
    return module_of(read_metadata(path)).restore(path, float_path, names).eval()


def float_weights(float_path: Path, path: Path) -> StateDict:
    """Return the arrays of a float file by the keys that the quantized file ``path`` has."""
    return module_of(read_metadata(path)).float_weights(float_path)


def layer_pairs(float_path: Path, path: Path) -> LayerPairs:
    """Load a quantized file and the float one it came from, as pairs of layers."""
    return module_of(read_metadata(path)).layer_pairs(float_path, path)
