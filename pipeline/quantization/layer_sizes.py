"""The size of a model's layers with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.models.hooks import Hook, forward_hooks
from pipeline.quantization.layer_names import weighted_layers


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution, for one image."""

    name: str
    macs: int  # multiplications
    outputs: int  # values
    linear: bool = True


def layer_sizes(model: nn.Module, input_shape: Sequence[int]) -> list[Layer]:
    """Return the linear layers and convolutions in the order in which they run.

    ``model`` runs once on zeros of ``input_shape``; on PyTorch's meta device if it lies there.
    """
    sizes: list[Layer] = []

    def recorder(name: str) -> Hook:
        layer: Any = model.get_submodule(name)

        def record(_: torch.Tensor, answer: torch.Tensor) -> None:
            macs = answer.numel() * layer.weight[0].numel()
            sizes.append(Layer(name, macs, answer.numel(), isinstance(layer, nn.Linear)))

        return record

    hooks = {name: recorder(name) for name in weighted_layers(model, convolutions=True)}
    device = next(model.parameters()).device
    with forward_hooks(model, hooks), torch.inference_mode():
        model(torch.zeros(tuple(input_shape), device=device))
    return sizes
