"""Stage ``rewrite``: other weights of the same architecture that compute the same.

What int8 loses depends on how values are spread over channels, which the function of a transformer
leaves open in many places. Each method uses one of them and is exact but for rounding; ``parity``
holds the rewritten model to the noise floor. A model without such places passes as it is.
"""

from __future__ import annotations

import shutil
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


def rewrite(params: Rewrite, checkpoint: Path, samples: Path, out: Path) -> None:
    """Rewrite the float model of folder ``checkpoint`` and write folder ``out``.

    Folder ``samples`` has the calibration images; `fold_norm` and `rotate` need none.

    Raises:
        ParamsError: a method that needs calibration images has none, or `rotate` is without
            `fold_norm`.
    """
    from safetensors.torch import save

    from pipeline.images.samples import calibration_input
    from pipeline.models.equivalent import joins
    from pipeline.models.hooks import split
    from pipeline.process import one_thread
    from pipeline.quantization.load import load_model

    if params.rotate is not None and not params.fold_norm:
        raise ParamsError(
            "params.yaml: rewrite.rotate needs rewrite.fold_norm: true; only a normalization "
            "without scales of its own can be turned"
        )
    model, contract = load_model(checkpoint / MODEL_FILE)
    with atomic(out) as new:
        new.mkdir()
        shutil.copyfile(checkpoint / CONTRACT_FILE, new / CONTRACT_FILE)
        if not params.any or not joins(model):
            shutil.copyfile(checkpoint / MODEL_FILE, new / MODEL_FILE)
            return
        images: Sequence[torch.Tensor] = ()
        if params.calibrated:
            pixels = calibration_input(samples, contract.preprocessing, "rewrite")
            images = split(pixels)
        with one_thread():
            rewritten = apply(params, model.double(), images).float()
        state = {key: value.contiguous() for key, value in rewritten.state_dict().items()}
        write_bytes(new / MODEL_FILE, save(state))


def apply(params: Rewrite, model: nn.Module, images: Sequence[torch.Tensor]) -> nn.Module:
    """Rewrite ``model`` in place, with float32 images [n, 3, H, W] to calibrate on; return it."""
    from pipeline.models import equivalent

    joins, attentions = equivalent.joins(model), equivalent.attentions(model)
    if params.fold_norm:
        for join in joins:
            equivalent.fold_norm(join)
    if params.rotate is not None:
        equivalent.rotate(model, params.rotate)
    if not params.calibrated:
        return model
    watched: dict[object, nn.Module] = {join: join.norm for join in joins}
    watched |= {attention: attention.qkv for attention in attentions}
    spreads = equivalent.spreads(model, watched, images)
    for join in joins:
        spread = spreads[join]
        if params.centre:
            equivalent.centre(join, spread)
            spread = spread.moved(-spread.middle)
        if params.smooth is not None:
            equivalent.smooth(join, spread, params.smooth)
    for attention in attentions:
        spread = spreads[attention]
        if params.centre:
            spread = equivalent.centre_key_value(attention, spread)
        if params.query_key is not None:
            equivalent.balance_query_key(attention, spread, params.query_key)
        if params.value is not None:
            equivalent.balance_value(attention, spread, params.value)
    return model


def main() -> None:
    with exit_on_error():
        rewrite(load_params().rewrite, paths.CHECKPOINT, paths.SAMPLES, paths.REWRITTEN)


if __name__ == "__main__":
    main()
