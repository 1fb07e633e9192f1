"""Record the inputs and outputs of a model's layers while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

BATCH = 16  # images at once

Hook = Callable[[torch.Tensor, torch.Tensor], None]  # takes a layer's input and its output


@contextmanager
def forward_hooks(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Call each hook with input and output of the layer of its name, inside the block.

    Args:
        model: changed only while the block runs.
        hooks: by the layer's name; called once for each forward pass through the layer.
    """

    def adapted(hook: Hook) -> Any:
        return lambda _, inputs, output: hook(inputs[0], output)

    handles = [
        model.get_submodule(name).register_forward_hook(adapted(hook))
        for name, hook in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def split(images: NDArray[np.float32]) -> tuple[torch.Tensor, ...]:
    """Split calibration images, float32 [n, 3, H, W], into batches of at most ``BATCH``."""
    batches: tuple[torch.Tensor, ...] = torch.from_numpy(images).split(BATCH)
    return batches
