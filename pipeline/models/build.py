"""Create timm vision models and give them weights, with errors that say what to do.

Importing this module is cheap; timm is imported on first use.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from pipeline.errors import InputError, first_of, shown

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipeline.network_args import ImageSize

SHOWN_KEYS = 5
# In which an architecture fails that does not go with its arguments or weights.
MISFITS = (
    *(TypeError, AttributeError, AssertionError, RuntimeError, ValueError),
    *(LookupError, ArithmeticError),
)
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")  # to read from


def create(
    architecture: str,
    *,
    num_classes: int,
    image_size: int | ImageSize | None = None,
    kwargs: Mapping[str, Any] | None = None,
    norm_eps: float | None = None,
    fused_attention: bool = True,
) -> nn.Module:
    """Create a timm classifier in evaluation mode, with random weights.

    ``image_size`` is in pixels: of both sides, or (height, width). ``kwargs`` are further arguments
    of `timm.create_model` (:mod:`pipeline.network_args`). ``norm_eps`` is what layer normalization
    adds to the variance, where timm adds something else. ``fused_attention`` chooses between
    `scaled_dot_product_attention` and two matrix products around a softmax: PyTorch runtimes before
    2.0 have only the latter.

    Raises:
        InputError: timm does not know the architecture (similar names are suggested), it is no
            image classifier with a head of ``num_classes``, or it does not take an argument.
    """
    import timm
    import torch
    from timm.layers import set_fused_attn

    cfg = pretrained_cfg(architecture)
    usual = tuple(cfg.get("input_size", (0, 0, 0))[1:])
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = None if sides is None else tuple(sides)  # JSON has lists
    more = dict(kwargs or {})
    # Convolutional networks take any size and have no `img_size`.
    sized = cfg.get("fixed_input_size") and size not in (None, usual)
    extra: dict[str, Any] = {"img_size": size} if sized else {}
    set_fused_attn(fused_attention)
    try:
        model = timm.create_model(architecture, num_classes=num_classes, **extra, **more)
        if getattr(model, "dynamic_img_size", False):
            # Ours have one size, and no runtime has the interpolation that any size would need.
            extra = {"img_size": size or usual, "dynamic_img_size": False}
            model = timm.create_model(architecture, num_classes=num_classes, **extra, **more)
    except MISFITS as error:
        told = "".join(f", {key} {value}" for key, value in more.items())
        at = f" at {' x '.join(map(str, dict.fromkeys(size)))} pixels" if size else ""
        raise InputError(
            f"model.architecture: {architecture} cannot be made with {num_classes} classes"
            f"{shown(told, 300)}{at}: {shown(error, 300)}"
        ) from None
    finally:
        set_fused_attn(True)
    if not hasattr(model, "get_classifier") or getattr(model, "num_classes", 0) != num_classes:
        raise InputError(f"model.architecture: {architecture} is not an image classifier")
    if size:
        _refuse_part_of_a_patch(model, architecture, size)
    if norm_eps is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = norm_eps
    return model.eval()


def _refuse_part_of_a_patch(model: Any, architecture: str, size: Sequence[int]) -> None:
    """Refuse a size of which timm would leave out the last pixels without a word."""
    from timm.layers import PatchEmbed

    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or embed.dynamic_img_pad:
        return
    patch = embed.patch_size
    if all(side % part == 0 for side, part in zip(size, patch, strict=True)):
        return
    near = [max(1, round(side / part)) * part for side, part in zip(size, patch, strict=True)]
    raise InputError(
        f"model.image_size: {architecture} cuts images into patches of {patch[0]} x {patch[1]} "
        f"pixels, which {size[0]} x {size[1]} is no multiple of; the next is {near[0]} x {near[1]}"
    )


def outline(architecture: str, *, num_classes: int, **options: Any) -> nn.Module:
    """Create a classifier whose weights have shapes but no memory, to hold a file against.

    Raises:
        InputError: as :func:`create`, which has the same ``options``.
    """
    import torch

    with torch.device("meta"):
        return create(architecture, num_classes=num_classes, **options)


def pretrained_cfg(architecture: str) -> dict[str, Any]:
    """Return timm's configuration of an architecture: input, crop, names of its head; or {}.

    Raises:
        InputError: timm does not know the architecture; similar names are suggested.
    """
    import timm

    if not timm.is_model(architecture):
        similar = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(similar)}?" if similar else "see timm.list_models()"
        raise InputError(f"model.architecture: timm knows no {shown(repr(architecture))}; {hint}")
    try:
        cfg = timm.models.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        raise InputError(f"model.architecture: {architecture}: {error}") from None
    return {} if cfg is None else dict(cfg.to_dict())


def heads(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classifier layers; distilled models have two."""
    names = cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def head_size(cfg: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> int | None:
    """Return how many classes the weights were trained for, None if they hold no head."""
    for name in heads(cfg):
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.ndim > 0:
            return len(weight)
    return None


@cache
def _filter_of(architecture: str) -> Callable[..., dict[str, torch.Tensor]] | None:
    """Return the function that timm itself puts an architecture's published weights through.

    timm hands it to its loader and to nobody else, so the loader is replaced for one call.
    """
    import timm
    import torch
    from timm.models import _builder

    filters: list[Callable[..., dict[str, torch.Tensor]] | None] = [None]

    def load_nothing(*_: Any, filter_fn: Any = None, **__: Any) -> None:
        filters.append(filter_fn)

    with patch.object(_builder, "load_pretrained", load_nothing), torch.device("meta"):
        timm.create_model(architecture, pretrained=True)
    return filters[-1]  # a network's parts are loaded before it


def adapt(
    state: Mapping[str, torch.Tensor], model: Any, trained_size: ImageSize | None = None
) -> dict[str, torch.Tensor]:
    """Return ``state`` as timm loads it into ``model``.

    Keys of older files are renamed, buffers left out, position embeddings fitted to the model's
    grid by bicubic interpolation (Dosovitskiy et al., 2021, section 3.2).

    ``trained_size`` is height and width in pixels that the weights were trained at; None: square.
    Weights that the filter cannot take, and patches of another size, are returned unchanged.
    """
    weights = dict(state)
    expected = model.state_dict()
    # timm would fit patches, too, but that is another network.
    if any(
        value.ndim == 4 and key in expected and value.shape[2:] != expected[key].shape[2:]
        for key, value in weights.items()
    ):
        return weights
    architecture = model.pretrained_cfg.get("architecture")
    filter_ = _filter_of(architecture) if architecture else None
    if filter_ is None:
        return weights
    model.pretrained_model_args = {"img_size": trained_size} if trained_size else {}
    try:
        return dict(filter_(dict(weights), model))
    except MISFITS:
        return weights


def trained_size(state: Mapping[str, torch.Tensor], model: Any, source: str) -> ImageSize | None:
    """Return the image size that position embeddings say, None where they are those of ``model``.

    ``model`` has the size that timm gives the architecture, and is an outline or a real one.

    Raises:
        InputError: they are not of a square grid, so that height and width have to be given.
    """
    target, embedded = getattr(model, "pos_embed", None), state.get("pos_embed")
    if target is None or embedded is None or embedded.ndim != 3 or target.ndim != 3:
        return None
    prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    count = embedded.shape[1] - prefix
    if embedded.shape[1] == target.shape[1] or embedded.shape[2] != target.shape[2] or count < 1:
        return None
    side = math.isqrt(count)
    if side * side != count:
        raise InputError(
            f"{source} has position embeddings of {count} patches, which are no square; set "
            "model.kwargs in params.yaml to the size that it was trained at, e.g. "
            "{img_size: [96, 128]} for 96 pixels of height and 128 of width"
        )
    height, width = model.patch_embed.patch_size
    return side * height, side * width


def create_from(
    state: Mapping[str, torch.Tensor],
    architecture: str,
    *,
    num_classes: int,
    image_size: int | ImageSize,
    source: str,
    trained_size: ImageSize | None = None,
    **options: Any,
) -> nn.Module:
    """Create a classifier with the weights of ``state``, its positions fitted to the image size.

    ``trained_size`` is as in :func:`adapt`; ``options`` are those of :func:`create`.

    Raises:
        InputError: as :func:`create` and :func:`load_weights`, before memory is taken for a model
            that may be much larger than the file.
    """
    options |= {"num_classes": num_classes, "image_size": image_size}
    planned = outline(architecture, **options)
    state = adapt(state, planned, trained_size)
    check_weights(planned, state, source)
    model = create(architecture, **options)
    load_weights(model, state, source)
    return model


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy ``state`` (float tensors by timm's parameter names) into ``model``, as float32.

    Raises:
        InputError: keys or shapes do not fit, the head is missing, or a weight is NaN or infinite;
            the first few are named, with ``source`` as the file to look at.
    """
    check_weights(model, state, source)
    expected = model.state_dict()
    fitting = {key: state[key].float() for key in expected}
    # After the conversion: float64 has finite numbers that float32 has not.
    problems = [
        f"{key} holds NaN or infinity" for key in expected if not fitting[key].isfinite().all()
    ]
    _refuse(problems, source)
    model.load_state_dict(fitting)


def check_weights(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Hold the keys, shapes and dtypes of ``state`` against ``model``, an outline or a real one.

    Raises:
        InputError: as :func:`load_weights`, but for the numbers themselves.
    """
    expected = model.state_dict()
    missing = {key for key in expected if key not in state}
    head = {key for key in expected if key.startswith(tuple(f"{n}." for n in _heads_of(model)))}
    if missing and missing == head:
        raise InputError(
            f"{source} is not a classifier: it has all weights but {', '.join(sorted(head))}. "
            "Fine-tune it on labelled images first, or choose a classifier in model.checkpoint"
        )
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unexpected {shown(key)}" for key in state if key not in expected]
    both = [key for key in expected if key in state]
    problems += [
        f"{key} is {tuple(state[key].shape)}, the model wants {tuple(expected[key].shape)}"
        for key in both
        if state[key].shape != expected[key].shape
    ]
    problems += [
        f"{key} is {str(state[key].dtype).removeprefix('torch.')}, no floating-point numbers"
        for key in both
        if expected[key].is_floating_point() and str(state[key].dtype) not in FLOATS
    ]
    _refuse(problems, source)


def _refuse(problems: list[str], source: str) -> None:
    if problems:
        raise InputError(
            f"{source} does not fit the model: {first_of(problems, SHOWN_KEYS, '; ')}. "
            "Check model.checkpoint and model.architecture in params.yaml"
        )


def _heads_of(model: nn.Module) -> tuple[str, ...]:
    cfg = getattr(model, "pretrained_cfg", None)
    return heads(cfg) if isinstance(cfg, Mapping) else ()
