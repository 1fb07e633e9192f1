"""The size of a checkpoint's layers with weights."""

from __future__ import annotations

from pathlib import Path

from pipeline.contract.files import MODEL_FILE
from pipeline.quantization.layer_sizes import Layer, layer_sizes
from pipeline.quantization.load import load_model
from pipeline.quantization.symmetric import load_efficient


def layers(checkpoint: Path, *, efficient: bool = False) -> list[Layer]:
    """Return the linear layers and convolutions of a float checkpoint's folder, as they run.

    ``efficient``: in the form that needs fewer instructions; see :mod:`pipeline.models.efficient`.
    """
    path = checkpoint / MODEL_FILE
    model, contract = load_efficient(path) if efficient else load_model(path, fused_attention=False)
    return layer_sizes(model, contract.input_shape)
