"""Stage ``hessians``: statistics of the linear layers' inputs, which both int8 exporters need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import paths
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import exit_on_error
from pipeline.formats import BUILT_IN, FORMATS
from pipeline.params import ExportOnnx, Quantize, load_params


def hessians(
    quantize: Quantize,
    export_onnx: ExportOnnx,
    checkpoint: Path,
    samples: Path,
    out: Path,
    formats: Sequence[str] = BUILT_IN,
) -> None:
    """Collect statistics on the calibration images of folder ``samples``; write folder ``out``.

    The file in it is empty if no parameter and no format needs them.

    Raises:
        ParamsError: there are no calibration images and a parameter needs them.
    """
    from pipeline.models import efficient
    from pipeline.models.tracing import plain
    from pipeline.quantization.auto import settle
    from pipeline.quantization.hessians import collect, write
    from pipeline.quantization.load import load_model

    if not any(FORMATS[key].rounds or FORMATS[key].smooths for key in formats):
        write({}, out)
        return
    network, contract = load_model(checkpoint / MODEL_FILE, fused_attention=False)
    network = efficient.to_efficient(plain(network))
    smooths = (
        any(FORMATS[key].smooths for key in formats)
        and export_onnx.smooth_hidden is not None
        and efficient.has_attention(network)
    )
    quantize = settle(quantize, checkpoint)
    rounds = quantize.rounding == "gptq"
    if quantize.for_other_runtimes.static or not (rounds or smooths):
        write({}, out)
        return
    asking = "quantize.rounding: gptq" if rounds else "export_onnx.smooth_hidden"
    write(collect(network, (), samples, contract.preprocessing, asking), out)


def main() -> None:
    with exit_on_error():
        params = load_params()
        folders = paths.REWRITTEN, paths.SAMPLES, paths.HESSIANS
        hessians(params.quantize, params.export_onnx, *folders, params.formats)
        print(f"hessians: statistics of the linear layers' inputs in {paths.HESSIANS}")


if __name__ == "__main__":
    main()
