"""The size of a model's layers with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.core.costs import Layer
from pipeline.support.contracts import MODEL_FILE
from pipeline.support.quantized import load_model, load_shaped


def layers(checkpoint: Path, *, shaped: bool = False) -> list[Layer]:
    """The linear layers and convolutions of a float checkpoint's folder, in the model's order.

    ``shaped``: in the form that does less work; see :mod:`pipeline.support.forms`.
    """
    path = checkpoint / MODEL_FILE
    model, contract = load_shaped(path) if shaped else load_model(path, fused_attention=False)
    found: list[Layer] = []

    def hold(name: str) -> Any:
        def hook(module: Any, _: Any, answer: torch.Tensor) -> None:
            macs = answer.numel() * module.weight[0].numel()
            found.append(Layer(name, macs, answer.numel(), isinstance(module, nn.Linear)))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(hold(name))
    with torch.inference_mode():
        model(torch.zeros(contract.input_shape))
    return found
