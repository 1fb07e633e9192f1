"""Stage ``quantize``: int8 weights and activations for QNNPACK, by the scheme of params.yaml."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.params import Quantize, load_params


def quantize(params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
    """Quantize the float model of folder ``checkpoint`` and write folder ``out``.

    Folder ``samples`` has the calibration images, which schemes with fixed ranges need.

    Raises:
        ParamsError: a pattern of ``quantize.keep_float`` or ``keep_dynamic`` names no layer, or
            there are no calibration images and the scheme needs some.
    """
    from pipeline.quantization.scheme import scheme_module

    scheme_module(params.scheme).quantize(params, checkpoint, samples, out)


def main() -> None:
    with exit_on_error():
        quantize(load_params().quantize, paths.REWRITTEN, paths.SAMPLES, paths.QUANTIZED)
        print(f"quantize: int8 weights in {paths.QUANTIZED}")


if __name__ == "__main__":
    main()
