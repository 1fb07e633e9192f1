"""The size of a model's layers with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.contract.files import MODEL_FILE
from pipeline.models.hooks import Look, watching
from pipeline.quantization.load import load_model, load_shaped, weighted_layers
from pipeline.tuning.cost_model import Layer


def layers(checkpoint: Path, *, shaped: bool = False) -> list[Layer]:
    """The linear layers and convolutions of a float checkpoint's folder, in the model's order.

    ``shaped``: in the form that does less work; see :mod:`pipeline.models.efficient`.
    """
    path = checkpoint / MODEL_FILE
    model, contract = load_shaped(path) if shaped else load_model(path, fused_attention=False)
    found: list[Layer] = []

    def hold(name: str) -> Look:
        layer: Any = model.get_submodule(name)

        def look(_: torch.Tensor, answer: torch.Tensor) -> None:
            macs = answer.numel() * layer.weight[0].numel()
            found.append(Layer(name, macs, answer.numel(), isinstance(layer, nn.Linear)))

        return look

    looks = {name: hold(name) for name in weighted_layers(model, convolutions=True)}
    with watching(model, looks), torch.inference_mode():
        model(torch.zeros(contract.input_shape))
    return found
