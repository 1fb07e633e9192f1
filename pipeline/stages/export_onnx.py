"""Stage ``export_onnx``: the float model and an int8 copy, as single ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import exit_on_error
from pipeline.export.failure import exporting
from pipeline.export.onnx_file import (
    _export,
    _kept_nodes,
    _move_weights,
    _save,
    is_too_large,
)
from pipeline.files import atomic
from pipeline.formats import BUILT_IN
from pipeline.images.samples import calibration_input
from pipeline.params import ExportOnnx, Quantize, load_params
from pipeline.process import one_thread, quiet
from pipeline.progress import note

if TYPE_CHECKING:
    import onnx
    from torch import nn

QUANTIZED_OPERATORS = ["MatMul", "Gemm"]
PLAIN = ExportOnnx(operators="standard")  # with which int8 starts from the float file


def export_onnx(
    params: Quantize,
    checkpoint: Path,
    samples: Path,
    float_out: Path,
    int8_out: Path,
    own: ExportOnnx,
    hessians: Path | None = None,
    formats: Sequence[str] = BUILT_IN,
) -> None:
    """Write folder ``float_out`` with the float file and ``int8_out`` with the int8 one.

    Both take a batch of any size, are checked by onnx and carry the contract in their metadata.
    Weights that are too large for one file lie beside it, in ``NAME.onnx.data``.
    Folder ``samples`` has the calibration images of scheme ``static``, of rounding ``gptq`` and of
    ``smooth_hidden``; folder ``hessians`` has what stage ``hessians`` found on them for the latter
    two, which is collected again if None.

    Raises:
        InputError: ONNX or ONNX Runtime's quantizer cannot express the model.
    """
    outs = {"onnx": float_out, "int8_onnx": int8_out}
    chosen = [key for key, out in outs.items() if not paths.left_out(key, formats, out)]
    if not chosen:
        return
    import onnx

    from pipeline.export.onnx_quantize import quantize as quantize_static
    from pipeline.models import efficient
    from pipeline.models.tracing import plain
    from pipeline.quantization.load import load_model

    params = params.for_other_runtimes
    network, contract = load_model(checkpoint / MODEL_FILE, fused_attention=False)
    network = efficient.to_efficient(plain(network))
    float_name = contract.file_name("float", ".onnx")
    if "onnx" in chosen:
        note("export_onnx: float file (1 of 3)")
        with exporting("onnx", formats, contract), atomic(float_out) as new:
            new.mkdir()
            model = _export(network, contract)
            _save(model, contract, "onnx", "none", (), new / float_name)
    if "int8_onnx" not in chosen:
        return

    if not efficient.has_attention(network):
        own = PLAIN
    own_graph = not params.static and (own != PLAIN or params.rounding != "nearest")
    int8_name = contract.file_name(params.scheme, ".int8.onnx")
    with exporting("int8_onnx", formats, contract), quiet(), atomic(int8_out) as new:
        new.mkdir()
        source, target = float_out / float_name, new / int8_name
        if own_graph:
            folders = samples, hessians
            model = _prepared(network, contract, params, own, folders)
        elif "onnx" not in chosen:
            model = _export(network, contract)
        apart = own_graph or "onnx" not in chosen
        if apart:
            source = _beside(target, model)
        note("export_onnx: int8 file (3 of 3)")
        kept = _kept_nodes(model, params.keep_float)
        if params.static:
            images = calibration_input(samples, contract.preprocessing)
            quantize_static(source, target, kept, images)
        else:
            _quantize_dynamic(source, target, kept, params)
        if apart:
            source.unlink()
            paths.data_file(source).unlink(missing_ok=True)
        quantized = onnx.load(target)
        _save(quantized, contract, "int8_onnx", params.describe(), params.keep_float, target)


def _quantize_dynamic(source: Path, target: Path, kept: list[str], params: Quantize) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        per_channel=params.scheme == "per_channel",
        weight_type=QuantType.QInt8,
        op_types_to_quantize=QUANTIZED_OPERATORS,
        nodes_to_exclude=kept,
        # Of values behind operators of ONNX Runtime's own, whose types onnx does not infer.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _prepared(
    network: nn.Module,
    contract: Contract,
    params: Quantize,
    own: ExportOnnx,
    folders: tuple[Path, Path | None],
) -> onnx.ModelProto:
    """The float model as dynamic int8 is to have it: its weights rounded already, hidden channels
    smoothed, in ONNX Runtime's own operators."""
    import onnx

    from pipeline.export.onnx_operators import DOMAIN, fused

    fuses = own.operators == "fused"
    _smooth_and_round(network, contract, params, own, *folders)
    if fuses:
        network = fused(network, contract.preprocessing, params.keep_float)
    model = _export(network, contract)
    if fuses and all(known.domain != DOMAIN for known in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return model


def _beside(target: Path, model: onnx.ModelProto) -> Path:
    """Write the float model to a file beside ``target``; return its path."""
    import onnx

    source = target.with_suffix(".float")
    if is_too_large(model):
        _move_weights(model, paths.data_file(source))
    onnx.save(model, source)
    return source


def _smooth_and_round(
    network: nn.Module,
    contract: Contract,
    params: Quantize,
    own: ExportOnnx,
    samples: Path,
    hessians: Path | None,
) -> None:
    from pipeline.models.efficient import PATCHES
    from pipeline.quantization import gptq
    from pipeline.quantization.hessians import collect, read

    rounds = params.rounding == "gptq"
    if not rounds and own.smooth_hidden is None:
        return
    # The fused patch embedding has steps of its own, of pixels.
    kept = (*params.keep_float, *([PATCHES] if own.operators == "fused" else []))
    note("export_onnx: rounding weights (2 of 3)")
    if hessians is None:
        asking = "quantize.rounding: gptq" if rounds else "export_onnx.smooth_hidden"
        stats = collect(network, kept, samples, contract.preprocessing, asking)
    else:
        stats = read(hessians, gptq.linears(network, kept))
    with one_thread():
        if own.smooth_hidden is not None:
            gptq.divide_hidden(network, stats, own.smooth_hidden)
        if rounds:
            gptq.round_weights(network, stats, per_channel=params.scheme == "per_channel")


def main() -> None:
    with exit_on_error():
        params = load_params()
        export_onnx(
            params.quantize,
            paths.REWRITTEN,
            paths.SAMPLES,
            paths.ONNX,
            paths.ONNX_INT8,
            params.export_onnx,
            paths.HESSIANS,
            params.formats,
        )
        of_float = paths.note(paths.ONNX) or f"float file in {paths.ONNX}"
        of_int8 = paths.note(paths.ONNX_INT8) or f"int8 file in {paths.ONNX_INT8}"
        print(f"export_onnx: {of_float}, {of_int8}")


if __name__ == "__main__":
    main()
