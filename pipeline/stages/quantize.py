"""Stage ``quantize``: int8 weights and activations, for QNNPACK.

Weights become int8 once. Schemes ``per_tensor``, which is what the tutorials do, and
``per_channel``, which gives each output its own scale, quantize linear layers, and their input
while the model runs. ``static`` quantizes convolutions, too, and fixes the range of every input and
output beforehand, on the calibration images. ``static_symmetric`` fixes them, too, for the linear
layers of a vision transformer in the form that ARM cores compute cheapest; what it does not know
is quantized as by ``per_channel``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import exit_on_error
from pipeline.params import Quantize, load_params

if TYPE_CHECKING:
    from torch import nn

BATCH = 32  # calibration images at once: observers cost more than the model


def quantize(params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
    """Quantize the float model of folder ``checkpoint`` and write folder ``out``.

    Folder ``samples`` has the calibration images of scheme ``static``.

    Raises:
        ParamsError: a pattern of ``quantize.keep_float`` names no layer, or scheme ``static`` has
            no calibration images or is to use fused attention.
    """
    if params.scheme == "static":
        _quantize_static(params, checkpoint, samples, out)
        return
    if params.scheme == "static_symmetric":
        _quantize_symmetric(params, checkpoint, samples, out)
        return
    from pipeline.quantization.load import load_model, save_dynamic

    model, contract = load_model(checkpoint / MODEL_FILE, fused_attention=params.fused_attention)
    model = quantize_linears(model, params.scheme, params.keep_float)
    save_dynamic(out, model, contract, fused_attention=params.fused_attention)


def quantize_linears(model: nn.Module, scheme: str, keep_float: tuple[str, ...]) -> nn.Module:
    """Return a copy of ``model`` whose linear layers, but for ``keep_float``, are dynamic int8."""
    from torch.ao.quantization import (
        default_dynamic_qconfig,
        per_channel_dynamic_qconfig,
        quantize_dynamic,
    )

    from pipeline.process import quiet, use_qnnpack
    from pipeline.quantization.load import matching, weighted_layers

    use_qnnpack()
    names = weighted_layers(model)
    kept = matching(names, keep_float)
    qconfig = per_channel_dynamic_qconfig if scheme == "per_channel" else default_dynamic_qconfig
    with quiet():
        quantized: nn.Module = quantize_dynamic(
            model, {name: qconfig for name in names if name not in kept}
        )
    return quantized


def _quantize_static(params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
    import torch

    from pipeline.contract.files import load_contract
    from pipeline.images.samples import calibration_input
    from pipeline.process import one_thread
    from pipeline.quantization.load import load_fused, matching, save_static
    from pipeline.quantization.static import calibrated, layers

    contract = load_contract(checkpoint)
    images = calibration_input(samples, contract.preprocessing)
    fused = load_fused(checkpoint / MODEL_FILE)
    kept = matching(layers(fused), params.keep_float)
    batch = min(BATCH, len(images))
    batches = torch.from_numpy(images[: len(images) // batch * batch]).split(batch)
    # A traced model has its batch size in it.
    several = load_fused(checkpoint / MODEL_FILE, batch)
    with one_thread():
        ranges = calibrated(several, batches)
    save_static(out, fused, ranges, kept, contract)


def _quantize_symmetric(params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
    import torch

    from pipeline.images.samples import calibration_input
    from pipeline.models import efficient
    from pipeline.process import one_thread
    from pipeline.quantization.load import load_shaped, matching, save_symmetric, weighted_layers
    from pipeline.quantization.ranges import Range
    from pipeline.quantization.symmetric import Arrays
    from pipeline.quantization.symmetric_calibration import calibrated

    model, contract = load_shaped(checkpoint / MODEL_FILE)
    every = weighted_layers(model)
    others = matching(every, params.keep_float)
    others |= matching(every, params.keep_dynamic, "keep_dynamic")
    names = [name for name in efficient.layers(model) if name not in others]
    arrays: dict[str, Arrays] = {}
    ranges: dict[str, Range] = {}
    if names:
        asking = f"quantize.scheme: {params.scheme}"
        images = calibration_input(samples, contract.preprocessing, asking)
        batches = torch.from_numpy(images).split(BATCH)
        with one_thread():
            arrays, ranges = calibrated(model, names, batches, contract.preprocessing)
    dynamic = quantize_linears(model, "per_channel", (*params.keep_float, *names))
    save_symmetric(out, dynamic, arrays, ranges, contract)


def main() -> None:
    with exit_on_error():
        quantize(load_params().quantize, paths.REWRITTEN, paths.SAMPLES, paths.QUANTIZED)


if __name__ == "__main__":
    main()
