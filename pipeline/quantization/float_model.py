"""Float models from ``model.safetensors`` and the contract beside it: what schemes start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.models.build import create, load_weights
from pipeline.quantization.storage import read


def empty_model(contract: Contract, *, fused_attention: bool) -> nn.Module:
    """Build the architecture of a contract with random weights, in evaluation mode."""
    kwargs: dict[str, Any] = {}
    if contract.checkpoint.kwargs:
        from pipeline.network_args import read_network_args  # what `baseline` can do without

        kwargs = read_network_args(contract.checkpoint.kwargs, "contract: kwargs").for_timm()
    return create(
        contract.checkpoint.architecture,
        num_classes=contract.outputs,
        image_size=contract.preprocessing.size,
        kwargs=kwargs,
        norm_eps=contract.checkpoint.norm_eps,
        fused_attention=fused_attention,
    )


def load_float(path: Path, *, fused_attention: bool = False) -> tuple[nn.Module, Contract]:
    """Load a float model and its contract; ``fused_attention`` as `models.build.create` has it."""
    contract = load_contract(path.parent)
    model = empty_model(contract, fused_attention=fused_attention)
    load_weights(model, read(path)[0], str(path))
    return model.eval(), contract
