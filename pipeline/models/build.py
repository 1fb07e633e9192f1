"""Create timm vision models and give them weights, with errors that say what to do.

Importing this module is cheap; timm is imported on first use.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, shown

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN_KEYS = 5
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")  # to read from


def create(
    architecture: str,
    *,
    num_classes: int,
    image_size: int | None = None,
    norm_eps: float | None = None,
    fused_attention: bool = True,
) -> nn.Module:
    """Create a timm classifier in evaluation mode, with random weights.

    ``norm_eps`` is what layer normalization adds to the variance, where timm adds something else.
    ``fused_attention`` chooses between `scaled_dot_product_attention` and two matrix products
    around a softmax: PyTorch runtimes before 2.0 have only the latter.

    Raises:
        InputError: timm does not know the architecture (similar names are suggested), or it is no
            image classifier with a head of ``num_classes``.
    """
    import timm
    import torch
    from timm.layers import set_fused_attn

    cfg = pretrained_cfg(architecture)
    usual = cfg.get("input_size", (0, 0, 0))[-1]
    # Convolutional networks take any size and have no `img_size`.
    sized = cfg.get("fixed_input_size") and image_size not in (None, usual)
    extra: dict[str, Any] = {"img_size": image_size} if sized else {}
    set_fused_attn(fused_attention)
    try:
        model = timm.create_model(architecture, pretrained=False, num_classes=num_classes, **extra)
        if getattr(model, "dynamic_img_size", False):
            # Ours have one size, and no runtime has the interpolation that any size would need.
            extra = {"img_size": image_size or usual, "dynamic_img_size": False}
            model = timm.create_model(
                architecture, pretrained=False, num_classes=num_classes, **extra
            )
    except (TypeError, AttributeError, AssertionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"model.architecture: {architecture} cannot be made with {num_classes} classes"
            f"{f' at {image_size} pixels' if image_size else ''}: {error}"
        ) from None
    finally:
        set_fused_attn(True)
    if not hasattr(model, "get_classifier") or getattr(model, "num_classes", 0) != num_classes:
        raise InputError(f"model.architecture: {architecture} is not an image classifier")
    if norm_eps is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = norm_eps
    return model.eval()


def outline(architecture: str, *, num_classes: int, image_size: int | None = None) -> nn.Module:
    """Create a classifier whose weights have shapes but no memory, to hold a file against.

    Raises:
        InputError: as :func:`create`.
    """
    import torch

    with torch.device("meta"):
        return create(architecture, num_classes=num_classes, image_size=image_size)


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


def resample(state: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Fit position embeddings of ``state`` to the grid of ``model`` by bicubic interpolation.

    As the ViT paper does at a higher resolution (Dosovitskiy et al., 2021, section 3.2).
    """
    from timm.layers import resample_abs_pos_embed

    fitted = dict(state)
    target, source = getattr(model, "pos_embed", None), fitted.get("pos_embed")
    if target is None or source is None or source.shape == target.shape:
        return fitted
    prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    if source.ndim != 3 or target.ndim != 3 or not _is_square(source.shape[1] - prefix):
        return fitted
    if source.shape[::2] != target.shape[::2] or str(source.dtype) not in FLOATS:
        return fitted
    grid = model.patch_embed.grid_size
    fitted["pos_embed"] = resample_abs_pos_embed(source, list(grid), num_prefix_tokens=prefix)
    return fitted


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def create_from(
    state: Mapping[str, torch.Tensor],
    architecture: str,
    *,
    num_classes: int,
    image_size: int,
    source: str,
) -> nn.Module:
    """Create a classifier with the weights of ``state``, its positions fitted to the image size.

    Raises:
        InputError: as :func:`create` and :func:`load_weights`, before memory is taken for a model
            that may be much larger than the file.
    """
    planned = outline(architecture, num_classes=num_classes, image_size=image_size)
    state = resample(state, planned)
    check_weights(planned, state, source)
    model = create(architecture, num_classes=num_classes, image_size=image_size)
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
        listed = "; ".join(problems[:SHOWN_KEYS])
        more = f"; and {len(problems) - SHOWN_KEYS} more" if len(problems) > SHOWN_KEYS else ""
        raise InputError(
            f"{source} does not fit the model: {listed}{more}. "
            "Check model.checkpoint and model.architecture in params.yaml"
        )


def _heads_of(model: nn.Module) -> tuple[str, ...]:
    cfg = getattr(model, "pretrained_cfg", None)
    return heads(cfg) if isinstance(cfg, Mapping) else ()
