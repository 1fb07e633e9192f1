"""Stage ``quantize``: dynamic int8 of the linear layers, for QNNPACK.

Weights become int8 once; activations are quantized per tensor while the model runs. Scheme
``per_tensor`` is what the tutorials do; ``per_channel`` gives each output its own scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.errors import exit_on_error
from pipeline.core.params import Quantize, load_params
from pipeline.support import paths
from pipeline.support.contracts import MODEL_FILE

if TYPE_CHECKING:
    from torch import nn


def quantize(params: Quantize, checkpoint: Path, out: Path) -> None:
    """Quantize the float model of folder ``checkpoint`` and write folder ``out``.

    Raises:
        ParamsError: a pattern of ``quantize.keep_float`` names no linear layer.
    """
    from pipeline.support.quantized import load_model, save_quantized

    model, contract = load_model(checkpoint / MODEL_FILE, fused_attention=params.fused_attention)
    model = quantize_linears(model, params.scheme, params.keep_float)
    save_quantized(out, model, contract, fused_attention=params.fused_attention)


def quantize_linears(model: nn.Module, scheme: str, keep_float: tuple[str, ...]) -> nn.Module:
    """Return a copy of ``model`` whose linear layers, but for ``keep_float``, are dynamic int8."""
    from torch.ao.quantization import (
        default_dynamic_qconfig,
        per_channel_dynamic_qconfig,
        quantize_dynamic,
    )

    from pipeline.support.quantized import linears, matching_linears
    from pipeline.support.quiet import quiet
    from pipeline.support.torchscript import use_qnnpack

    use_qnnpack()
    kept = matching_linears(model, keep_float)
    qconfig = per_channel_dynamic_qconfig if scheme == "per_channel" else default_dynamic_qconfig
    with quiet():
        quantized: nn.Module = quantize_dynamic(
            model, {name: qconfig for name in linears(model) if name not in kept}
        )
    return quantized


def main() -> None:
    with exit_on_error():
        quantize(load_params().quantize, paths.CHECKPOINT, paths.QUANTIZED)


if __name__ == "__main__":
    main()
