"""Stage ``quantize``: int8 weights and activations for QNNPACK, by the scheme of params.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.formats import BUILT_IN
from pipeline.params import Quantize, load_params


def quantize(
    params: Quantize,
    checkpoint: Path,
    samples: Path,
    out: Path,
    formats: Sequence[str] = BUILT_IN,
) -> None:
    """Quantize the float model of folder ``checkpoint`` and write folder ``out``.

    Folder ``samples`` has the calibration images, which schemes with fixed ranges need.

    Raises:
        ParamsError: a pattern of ``quantize.keep_float`` or ``keep_dynamic`` names no layer, or
            there are no calibration images and the scheme needs some.
    """
    if paths.unused("quantize", formats, out):
        return
    from pipeline.quantization.auto import settle
    from pipeline.quantization.scheme import scheme_module

    settled = settle(params, checkpoint)
    if settled != params:
        print(f"quantize: scheme {settled.scheme} suits this network (quantize.scheme: auto)")
    scheme_module(settled.scheme).quantize(settled, checkpoint, samples, out)


def main() -> None:
    with exit_on_error():
        params = load_params()
        folders = paths.REWRITTEN, paths.SAMPLES, paths.QUANTIZED
        quantize(params.quantize, *folders, params.formats)
        wrote = f"int8 weights in {paths.QUANTIZED}"
        print(f"quantize: {paths.note(paths.QUANTIZED) or wrote}")


if __name__ == "__main__":
    main()
