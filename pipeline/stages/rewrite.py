"""Stage ``rewrite``: function-preserving rewrites, after which int8 loses less.

The error of int8 depends on how values are spread over channels, and many choices of weights give
the same function. Each method is exact except for rounding; ``parity`` holds the rewritten model to
the noise floor. A model without the structure that the methods need is copied unchanged.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE
from pipeline.errors import ParamsError, exit_on_error
from pipeline.files import atomic, write_bytes
from pipeline.params import Rewrite, load_params

if TYPE_CHECKING:
    import torch
    from torch import nn


CHECKED = 4  # images on which rewritten answers are held to the old ones
MOST_NOISE = 10.0  # times that rounding to float32 may cost; as gate.noise_multiple


def rewrite(params: Rewrite, checkpoint: Path, samples: Path, out: Path) -> None:
    """Rewrite the float model of folder ``checkpoint`` and write folder ``out``.

    Folder ``samples`` has the calibration images; `fold_norm` and `rotate` need none.

    Raises:
        ParamsError: a method needs calibration images and there are none, or `rotate` is set
            without `fold_norm`.
    """
    from safetensors.torch import save

    from pipeline.images.samples import calibration_input
    from pipeline.models.equivalent import foldable_norms
    from pipeline.models.hooks import split
    from pipeline.process import one_thread
    from pipeline.quantization.load import load_model

    if params.rotate is not None and not params.fold_norm:
        raise ParamsError(
            "params.yaml: rewrite.rotate needs rewrite.fold_norm: true; only a normalization "
            "without scales of its own can be rotated"
        )
    model, contract = load_model(checkpoint / MODEL_FILE)
    with atomic(out) as new:
        new.mkdir()
        shutil.copyfile(checkpoint / CONTRACT_FILE, new / CONTRACT_FILE)
        if not params.any or not foldable_norms(model):
            shutil.copyfile(checkpoint / MODEL_FILE, new / MODEL_FILE)
            return
        images: Sequence[torch.Tensor] = ()
        if params.calibrated:
            pixels = calibration_input(samples, contract.preprocessing, "rewrite")
            images = split(pixels)
        with one_thread():
            rewritten = _exact(params, checkpoint / MODEL_FILE, images)
        state = {key: value.contiguous() for key, value in rewritten.state_dict().items()}
        write_bytes(new / MODEL_FILE, save(state))


def _exact(params: Rewrite, file: Path, images: Sequence[torch.Tensor]) -> nn.Module:
    """Rewrite the model of ``file`` by the methods that leave its answers what they are.

    In float64 each method does. In float32 an offset far larger than the values that it is added
    to takes their last digits: `centre` in a network whose class token hardly differs from zero.
    """
    import torch

    from pipeline.quantization.load import load_model

    model, _ = load_model(file)
    if not images:
        return apply(params, model.double(), images).float()
    few = images[0][:CHECKED]
    with torch.inference_mode():
        single = model(few).double()
        truth = model.double()(few.double())
    noise = (single - truth).abs().max()
    fewer = [params.model_copy(update={"centre": False})] if params.centre else []
    for methods in [params, *fewer]:
        rewritten = apply(methods, load_model(file)[0].double(), images).float()
        with torch.inference_mode():
            error = (rewritten(few).double() - truth).abs().max()
        if error <= MOST_NOISE * noise:
            return rewritten
        off = "centre is" if methods.centre else "all methods are"
        print(f"rewrite: {off} left out: in float32 it would change answers", file=sys.stderr)
    return load_model(file)[0].float()


def apply(params: Rewrite, model: nn.Module, images: Sequence[torch.Tensor]) -> nn.Module:
    """Rewrite ``model`` in place, in its dtype; return it.

    ``images`` are batches to calibrate on, float32 [n, 3, H, W] each.
    """
    from pipeline.models import equivalent

    groups, attentions = equivalent.foldable_norms(model), equivalent.attentions(model)
    if params.fold_norm:
        for group in groups:
            equivalent.fold_norm(group)
    if params.rotate is not None:
        equivalent.rotate(model, params.rotate)
    if not params.calibrated:
        return model
    modules: dict[object, nn.Module] = {group: group.norm for group in groups}
    modules |= {attention: attention.qkv for attention in attentions}
    ranges = equivalent.channel_ranges(model, modules, images)
    for group in groups:
        channels = ranges[group]
        if params.centre:
            equivalent.centre(group, channels)
            channels = channels.shifted(-channels.middle)
        if params.smooth is not None:
            equivalent.smooth(group, channels, params.smooth)
    for attention in attentions:
        channels = ranges[attention]
        if params.centre:
            channels = equivalent.centre_key_value(attention, channels)
        if params.query_key is not None:
            equivalent.balance_query_key(attention, channels, params.query_key)
        if params.value is not None:
            equivalent.balance_value(attention, channels, params.value)
    return model


def main() -> None:
    with exit_on_error():
        rewrite(load_params().rewrite, paths.CHECKPOINT, paths.SAMPLES, paths.REWRITTEN)
        print(f"rewrite: float weights to quantize in {paths.REWRITTEN}")


if __name__ == "__main__":
    main()
