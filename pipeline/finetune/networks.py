"""Models at a chosen image size, with weights that may come from another size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from pipeline.checkpoints.fitting import fit
from pipeline.checkpoints.read import read_weights
from pipeline.errors import InputError, ParamsError
from pipeline.models.build import adapt, create, heads, load_weights

State = Mapping[str, torch.Tensor]


def build(
    architecture: str,
    classes: int,
    image_size: int,
    patch_drop: float = 0.0,
    blocks: int | None = None,
) -> nn.Module:
    """Create a classifier for images of ``image_size``, with fresh weights.

    ``blocks`` keeps the first of its blocks only; None keeps all.

    Raises:
        InputError: timm does not know the architecture or cannot make it at this size.
        ParamsError: patches are to be dropped, or blocks left out, of a model that has none.
    """
    model = create(architecture, num_classes=classes, image_size=image_size)
    if patch_drop:
        if not hasattr(model, "patch_drop"):
            raise ParamsError(f"patch_drop: {architecture} has no patches to drop; set it to 0")
        from timm.layers import PatchDropout

        prefix = getattr(model, "num_prefix_tokens", 1)
        model.patch_drop = PatchDropout(patch_drop, num_prefix_tokens=prefix)
    if blocks is not None:
        all_blocks = getattr(model, "blocks", None)
        if not isinstance(all_blocks, nn.Sequential) or blocks > len(all_blocks):
            raise ParamsError(
                f"blocks: {architecture} has no {blocks} blocks to train first; leave it null"
            )
        model.blocks = all_blocks[:blocks]
    return model


def grow(state: State, blocks: int) -> dict[str, torch.Tensor]:
    """Deepen a transformer's ``state`` to ``blocks`` blocks without changing what it computes.

    Each new block is a copy of the one before it whose two output projections are zero, so that it
    adds nothing until it is trained (Net2Net, Chen et al. 2016; stacking, Gong et al. 2019).
    """
    names = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    fewer = len(names)
    if not 0 < fewer < blocks:
        return dict(state)
    grown = {key: value for key, value in state.items() if not key.startswith("blocks.")}
    taken: set[int] = set()
    for new in range(blocks):
        old = new * fewer // blocks
        for key, value in state.items():
            if key.startswith(f"blocks.{old}."):
                rest = key.split(".", 2)[2]
                silent = old in taken and rest.startswith(("attn.proj.", "mlp.fc2."))
                grown[f"blocks.{new}.{rest}"] = torch.zeros_like(value) if silent else value.clone()
        taken.add(old)
    return grown


def load(model: nn.Module, state: State, source: str) -> None:
    """Copy ``state`` into ``model``, with position embeddings and depth fitted to it.

    Raises:
        InputError: the weights do not fit; see :func:`pipeline.models.build.load_weights`.
    """
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential):
        state = grow(state, len(blocks))
    load_weights(model, adapt(state, model), source)


def start_from(model: nn.Module, checkpoint: Path) -> None:
    """Copy a checkpoint into ``model``; a head for other classes is left as it is, fresh.

    Raises:
        InputError: the file is missing, cannot be read, or does not fit the architecture.
    """
    if not checkpoint.is_file():
        raise InputError(f"model.checkpoint: there is no file {checkpoint}")
    states, _ = read_weights(checkpoint, str(checkpoint), head=False)
    state = fit(states, model, str(checkpoint)).state
    fresh = model.state_dict()
    for head in heads(getattr(model, "pretrained_cfg", None) or {}):
        for key in (f"{head}.weight", f"{head}.bias"):
            if key in fresh and (key not in state or state[key].shape != fresh[key].shape):
                state[key] = fresh[key]
    load(model, state, str(checkpoint))
