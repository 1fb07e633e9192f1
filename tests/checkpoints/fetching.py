"""Run `fetch` on a checkpoint, and see what network came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.contract.contract import Contract
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE
from pipeline.params import Model, load_params
from pipeline.quantization.float_model import load_float
from pipeline.stages.fetch import fetch

ROOT = Path(__file__).parents[2]
OUT = Path("out")


def fetched(checkpoint: Any, **model: Any) -> Contract:
    """Fetch into folder ``out``; return the contract."""
    named = {"checkpoint": str(checkpoint), "sha256": "trust-first-use"}
    params = load_params(ROOT / "params.yaml")
    fetch(params.model_copy(update={"model": Model(**named | model)}), OUT)
    return Contract.from_json((OUT / CONTRACT_FILE).read_text())


def answers_as(owner: nn.Module, contract: Contract, atol: float = 1e-5) -> bool:
    """Whether the fetched network gives the owner's logits."""
    network, _ = load_float(OUT / MODEL_FILE)
    images = torch.randn(2, *contract.input_shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = owner.eval()(images)
        return torch.allclose(network(images), getattr(expected, "logits", expected), atol=atol)


def trained(model: nn.Module) -> nn.Module:
    """Give every weight a random value, of the size that a trained one may have."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        size = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()
