"""What recipes share: how they are called, and the model as PyTorch has it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Recipe = Callable[[Path, Path], None]  # INPUTS, OUT


def main(recipes: Mapping[str, Recipe]) -> None:
    """Run the variant that the command line names."""
    variant, inputs, out = sys.argv[1:]
    recipes[variant](Path(inputs), Path(out))


def torch_model(
    inputs: Path, fused_attention: bool = True
) -> tuple[torch.nn.Module, tuple[torch.Tensor]]:
    """The float model as timm makes it, and an example input [1, 3, H, W].

    ``fused_attention`` is timm's default; False is its `set_fused_attn(False)`.
    """
    import torch
    from safetensors.torch import load_file

    from pipeline.models.build import create, load_weights

    description = json.loads((inputs / "model.json").read_text())
    model = create(**description["create"], fused_attention=fused_attention)
    load_weights(model, load_file(inputs / "model.safetensors"), "model.safetensors")
    return model, (torch.zeros(description["input_shape"]),)


def calibration(inputs: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Calibration images as the model takes them, float32 [n, 3, H, W], mapped into memory."""
    images: np.ndarray[Any, np.dtype[np.float32]] = np.load(
        inputs / "calibration.npy", mmap_mode="r"
    )
    return images
