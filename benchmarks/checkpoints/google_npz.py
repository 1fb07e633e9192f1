"""Write timm's weights as Google's vision_transformer would: the inverse of timm's reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn


def arrays_of(model: Any, head: bool = True) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a timm vision transformer under Google's names, with their axes."""
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    out: dict[str, NDArray[np.float32]] = {"cls": state["cls_token"]}
    out["Transformer/posembed_input/pos_embedding"] = state["pos_embed"]
    out["embedding/kernel"] = state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    out["embedding/bias"] = state["patch_embed.proj.bias"]
    out |= _pair("Transformer/encoder_norm", state, "norm", "scale")
    if head:
        out |= _pair("head", state, "head")
    width = state["pos_embed"].shape[-1]
    for i in range(len(model.blocks)):
        heads = model.blocks[i].attn.num_heads
        to, of = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        out |= _pair(f"{to}/LayerNorm_0", state, f"{of}.norm1", "scale")
        out |= _pair(f"{to}/LayerNorm_2", state, f"{of}.norm2", "scale")
        out |= _pair(f"{to}/MlpBlock_3/Dense_0", state, f"{of}.mlp.fc1")
        out |= _pair(f"{to}/MlpBlock_3/Dense_1", state, f"{of}.mlp.fc2")
        attention = f"{to}/MultiHeadDotProductAttention_1"
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * width, (j + 1) * width)
            weight, bias = state[f"{of}.attn.qkv.weight"][rows], state[f"{of}.attn.qkv.bias"][rows]
            out[f"{attention}/{part}/kernel"] = weight.T.reshape(width, heads, -1)
            out[f"{attention}/{part}/bias"] = bias.reshape(heads, -1)
        projection = state[f"{of}.attn.proj.weight"].T.reshape(heads, -1, width)
        out[f"{attention}/out/kernel"] = projection
        out[f"{attention}/out/bias"] = state[f"{of}.attn.proj.bias"]
    if hasattr(model.patch_embed, "backbone"):
        out |= _backbone(model.patch_embed.backbone)
    return out


def _backbone(backbone: Any) -> dict[str, NDArray[np.float32]]:
    state = {key: value.numpy() for key, value in backbone.state_dict().items()}
    stem = "stem." if hasattr(backbone, "stem") else ""
    out = {"conv_root/kernel": state[f"{stem}conv.weight"].transpose(2, 3, 1, 0)}
    out |= _pair("gn_root", state, f"{stem}norm", "scale")
    for i, stage in enumerate(getattr(backbone, "stages", ())):
        for j, block in enumerate(stage.blocks):
            to, of = f"block{i + 1}/unit{j + 1}", f"stages.{i}.blocks.{j}"
            for r in (1, 2, 3):
                out[f"{to}/conv{r}/kernel"] = state[f"{of}.conv{r}.weight"].transpose(2, 3, 1, 0)
                out |= _pair(f"{to}/gn{r}", state, f"{of}.norm{r}", "scale")
            if block.downsample is not None:
                weight = state[f"{of}.downsample.conv.weight"]
                out[f"{to}/conv_proj/kernel"] = weight.transpose(2, 3, 1, 0)
                out |= _pair(f"{to}/gn_proj", state, f"{of}.downsample.norm", "scale")
    return out


def _pair(
    to: str, state: dict[str, NDArray[np.float32]], of: str, weight: str = "kernel"
) -> dict[str, NDArray[np.float32]]:
    array = state[f"{of}.weight"]
    return {
        f"{to}/{weight}": array.T if array.ndim == 2 else array,
        f"{to}/bias": state[f"{of}.bias"],
    }


def save(model: nn.Module, path: Path, head: bool = True) -> None:
    """Write ``path`` as Google would, with the head or without."""
    np.savez(path, allow_pickle=False, **arrays_of(model, head))
