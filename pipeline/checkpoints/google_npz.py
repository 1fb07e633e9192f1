"""Read Google's network checkpoints of vision transformers: the ``.npz`` of vision_transformer.

The shapes of the arrays say which network they are of; timm's own loader transposes them and puts
them in place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipeline.checkpoints.metadata import IMAGENET_CLASSES, CheckpointInfo
from pipeline.errors import InputError, shown
from pipeline.images.imagenet import imagenet_labels
from pipeline.models.build import create, outline
from pipeline.untrusted.npz import open_npz

if TYPE_CHECKING:
    import torch

# Width and blocks, as the papers' names.
SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
}
# Units of each stage of the residual network before it, and what timm calls them.
BACKBONES = {(): "r", (2, 2, 2, 2): "r26", (3, 4, 9): "r50", (3, 4, 6, 3): "r50"}
PREFIXES = ("", "opt/target/", "params/")
BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/")
POSITIONS = "Transformer/posembed_input/pos_embedding"
# How many axes the arrays have that tell what a network is like.
AXES = {"embedding/kernel": 4, POSITIONS: 3}
HEAD_AXES = {"head/kernel": 2, "head/bias": 1}
UNIT = re.compile(r"block(\d+)/unit(\d+)/conv1/kernel")

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Shape:
    """What the arrays tell of their network."""

    architecture: str
    image_size: int  # pixels
    classes: int  # 0 without a head


def read(
    path: Path, source: str, *, head: bool = True
) -> tuple[dict[str, torch.Tensor], CheckpointInfo]:
    """Return weights by timm's names, and what the arrays say of the network.

    Raises:
        InputError: damaged, not a vision transformer of timm's, or without a head if ``head`` asks
            for one.
    """
    arrays = open_npz(path, source)
    shape = shape_of(arrays, source, head=head)
    needed, there = _numbers(arrays, shape, source)
    few = _misfit(source, shape, f"it has {there} numbers, the network {needed}")
    if there < needed // 2:  # before memory is taken for it
        raise few
    model: Any = create(shape.architecture, num_classes=shape.classes, image_size=shape.image_size)
    try:
        model.load_pretrained(str(path))
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise _misfit(source, shape, shown(error)) from None
    if there < needed:  # timm repeats an array that is too small
        raise few
    size = shape.image_size
    info = CheckpointInfo(
        architecture=shape.architecture,
        # Google fine-tuned with a thousand classes on ImageNet-1k only.
        labels=imagenet_labels() if shape.classes == IMAGENET_CLASSES else None,
        data={"input_size": (3, size, size)},
    )
    return dict(model.state_dict()), info


def _misfit(source: str, shape: Shape, why: str) -> InputError:
    return InputError(f"{source} does not fit {shape.architecture}: {why}; fetch it again")


def _numbers(arrays: Arrays, shape: Shape, source: str) -> tuple[int, int]:
    """Return how many numbers the network has, and how many the file."""
    model = outline(shape.architecture, num_classes=shape.classes, image_size=shape.image_size)
    needed = sum(value.numel() for value in model.state_dict().values())
    return needed, sum(value.size for value in _without_prefix(arrays, source).values())


def _without_prefix(arrays: Arrays, source: str) -> Arrays:
    """The network's arrays, without what the names of all of them begin with."""
    prefix = next((p for p in PREFIXES if f"{p}embedding/kernel" in arrays), None)
    if prefix is None:
        raise InputError(
            f"{source} is not a vision transformer of Google's: it has no embedding/kernel"
        )
    named = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return {key: value for key, value in named.items() if not key.startswith("pre_logits/")}


def shape_of(arrays: Arrays, source: str, *, head: bool = True) -> Shape:
    """Return which network the arrays are of.

    Raises:
        InputError: timm has no such network, or it is not a classifier and ``head`` asks for one.
    """
    import timm

    network = _without_prefix(arrays, source)
    if head and "head/kernel" not in network:
        raise InputError(
            f"{source} is not a classifier: it has no head. Choose a checkpoint that was "
            "fine-tuned, or fine-tune it (docs/fine-tuning.md)"
        )
    _check_axes(network, source)
    kernel = network["embedding/kernel"]
    patch, width = kernel.shape[0], kernel.shape[-1]
    blocks = len({match[1] for key in network if (match := BLOCK.match(key))})
    size = SIZES.get((width, blocks))
    stages = _stages(network)
    hybrid = "conv_root/kernel" in network
    # The root halves an image twice, each stage but the first once more.
    stride = patch * 4 * 2 ** max(len(stages) - 1, 0) if hybrid else patch
    side = _grid(network, source) * stride
    unit = f"patch{patch}"
    if hybrid:
        backbone = BACKBONES.get(stages)
        unit = f"{backbone}_s{stride}" if stages else f"{backbone}_s{2 * patch}_p{patch}"
    names = [f"vit_{size}_{unit}_{pixels}" for pixels in (side, 224, 384)]
    name = next((name for name in names if timm.is_model(name)), None)
    if size is None or name is None:
        raise InputError(
            f"{source}: timm has no vision transformer of width {width} with {blocks} blocks, "
            f"patches of {patch} and residual stages {stages}"
        )
    classes = network["head/kernel"].shape[-1] if "head/kernel" in network else 0
    return Shape(name, side, int(classes))


def _check_axes(arrays: Arrays, source: str) -> None:
    """Check that the arrays that tell the network's size have their axes and are not empty."""
    with_head = any(name.startswith("head/") for name in arrays)
    for name, axes in (AXES | HEAD_AXES if with_head else AXES).items():
        if name not in arrays:
            raise InputError(f"{source} is not a vision transformer that timm reads: no {name}")
        if arrays[name].ndim != axes or not arrays[name].size:
            raise InputError(
                f"{source} is not a vision transformer that timm reads: {name} has the shape "
                f"{arrays[name].shape}"
            )
    if odd := next((key for key, value in arrays.items() if value.dtype.kind != "f"), None):
        raise InputError(
            f"{source} is not a vision transformer that timm reads: {shown(odd)} holds "
            f"{arrays[odd].dtype}"
        )


def _stages(arrays: Arrays) -> tuple[int, ...]:
    units: dict[int, int] = {}
    for key in arrays:
        if match := UNIT.fullmatch(key):
            units[int(match[1])] = max(units.get(int(match[1]), 0), int(match[2]))
    return tuple(units[number] for number in sorted(units))


def _grid(arrays: Arrays, source: str) -> int:
    """Patches on a side, from the position embeddings [1, 1 + side * side, width]."""
    positions = arrays[POSITIONS].shape[1]
    side = math.isqrt(positions - 1)
    if side * side != positions - 1 or not side:
        raise InputError(f"{source}: {positions} position embeddings are not 1 more than a square")
    return side
