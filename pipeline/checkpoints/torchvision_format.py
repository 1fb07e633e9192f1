"""Vision transformers of torchvision, ``vit_b_16`` to ``vit_h_14``, under timm's names."""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline.checkpoints.metadata import CheckpointInfo
from pipeline.checkpoints.transformers_format import VIT_SIZES
from pipeline.untrusted.state_dict import State

POSITIONS, PATCHES = "encoder.pos_embedding", "conv_proj.weight"
BLOCK = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.")
HIDDEN = re.compile(r"\.mlp\.(linear_1|0)\.weight$")
NAMES = (
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(linear_2|3)\.", ".mlp.fc2."),
)
USUAL = 224  # pixels; weights of other sizes are of SWAG, with a preprocessing of their own
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def prefix_of(state: State) -> str | None:
    """Return what stands before torchvision's names, None if it is not one of its networks."""
    for key in state:
        prefix = key.removesuffix(POSITIONS)
        if prefix != key and f"{prefix}{PATCHES}" in state:
            return prefix
    return None


def to_timm(state: State, prefix: str) -> State:
    """Return weights by timm's names, behind the same prefix; both networks are the same."""
    renamed: State = {}
    for key, value in state.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            for pattern, replacement in NAMES:
                name = re.sub(pattern, replacement, name)
            key = prefix + name
        renamed[key] = value
    return renamed


def checkpoint_info(state: State, prefix: str) -> CheckpointInfo:
    """Say what timm calls the network, if it has one of its size, and how torchvision feeds it."""
    import timm

    positions, patches = state[prefix + POSITIONS], state[prefix + PATCHES]
    hidden = next((value for key, value in state.items() if HIDDEN.search(key)), None)
    if positions.ndim != 3 or patches.ndim != 4 or hidden is None or hidden.ndim != 2:
        return CheckpointInfo()
    blocks = len({match[1] for key in state if (match := BLOCK.search(key))})
    shape = (patches.shape[0], blocks, hidden.shape[0])
    names = {(w, b, mlp): name for (w, b, _, mlp), name in VIT_SIZES.items()}
    patch = patches.shape[-1]
    architecture = f"vit_{names.get(shape)}_patch{patch}_{USUAL}"
    if not timm.is_model(architecture):
        return CheckpointInfo()
    size = patch * math.isqrt(max(positions.shape[1] - 1, 0))
    data: dict[str, Any] = {"mean": MEAN, "std": STD}
    data |= (
        {"crop_pct": USUAL / 256, "interpolation": "bilinear"}
        if size == USUAL
        else {"crop_pct": 1.0, "interpolation": "bicubic"}
    )
    how = f"resized with {data['interpolation']}, crop_pct {data['crop_pct']:g}, ImageNet's mean"
    return CheckpointInfo(
        architecture=architecture,
        data=data,
        notes=(f"a network of torchvision's: images are {how}, as for its published weights",),
    )
