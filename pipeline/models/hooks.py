"""Look at what layers of a model are given and answer, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

BATCH = 16  # images at once

Look = Callable[[torch.Tensor, torch.Tensor], None]  # at what a layer is given, and answers


@contextmanager
def watching(model: nn.Module, looks: Mapping[str, Look]) -> Iterator[None]:
    """Show ``looks`` what the layers of these names are given and answer, inside the block."""

    def hook(look: Look) -> Any:
        return lambda _, given, answer: look(given[0], answer)

    hooks = [
        model.get_submodule(name).register_forward_hook(hook(look)) for name, look in looks.items()
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def split(images: NDArray[np.float32]) -> tuple[torch.Tensor, ...]:
    """Calibration images [n, 3, H, W] in batches."""
    batches: tuple[torch.Tensor, ...] = torch.from_numpy(images).split(BATCH)
    return batches
