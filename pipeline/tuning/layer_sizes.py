"""The size of a model's layers with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.contract.files import MODEL_FILE
from pipeline.models.hooks import Hook, forward_hooks
from pipeline.quantization.layer_names import weighted_layers
from pipeline.quantization.load import load_model
from pipeline.quantization.symmetric import load_efficient
from pipeline.tuning.cost_model import Layer


def layers(checkpoint: Path, *, efficient: bool = False) -> list[Layer]:
    """Return the linear layers and convolutions of a float checkpoint's folder, in model order.

    ``efficient``: in the form that needs fewer instructions; see :mod:`pipeline.models.efficient`.
    """
    path = checkpoint / MODEL_FILE
    model, contract = load_efficient(path) if efficient else load_model(path, fused_attention=False)
    sizes: list[Layer] = []

    def recorder(name: str) -> Hook:
        layer: Any = model.get_submodule(name)

        def record(_: torch.Tensor, answer: torch.Tensor) -> None:
            macs = answer.numel() * layer.weight[0].numel()
            sizes.append(Layer(name, macs, answer.numel(), isinstance(layer, nn.Linear)))

        return record

    hooks = {name: recorder(name) for name in weighted_layers(model, convolutions=True)}
    with forward_hooks(model, hooks), torch.inference_mode():
        model(torch.zeros(contract.input_shape))
    return sizes
