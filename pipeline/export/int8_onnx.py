"""The ``.int8.onnx``, with the contract in its metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE
from pipeline.export import onnx_file
from pipeline.export.exporter import Sources
from pipeline.images.samples import calibration_input
from pipeline.params import ExportOnnx, Params, Quantize
from pipeline.process import one_thread, quiet
from pipeline.progress import note

if TYPE_CHECKING:
    import onnx
    from torch import nn

QUANTIZED_OPERATORS = ["MatMul", "Gemm"]
PLAIN = ExportOnnx(operators="standard")  # with which int8 starts from the float file


def export(params: Params, sources: Sources, out: Path) -> None:
    """Write ``NAME-SCHEME-VERSION.int8.onnx``; it takes a batch of any size and is checked by onnx.

    Calibration images are asked for by scheme ``static``, rounding ``gptq`` and ``smooth_hidden``.
    """
    import onnx

    from pipeline.export.onnx_quantize import quantize as quantize_static
    from pipeline.models import efficient
    from pipeline.models.tracing import plain
    from pipeline.quantization.load import load_model

    quantize = params.quantize.for_other_runtimes
    network, contract = load_model(sources.rewritten / MODEL_FILE, fused_attention=False)
    network = efficient.to_efficient(plain(network))
    own = params.export_onnx if efficient.has_attention(network) else PLAIN
    own_graph = not quantize.static and (own != PLAIN or quantize.rounding != "nearest")
    target = out / contract.file_name(quantize.scheme, ".int8.onnx")
    with quiet():
        shared = not own_graph and "onnx" in params.formats  # the float file is what it starts from
        if shared:
            source = paths.delivered_file(sources.artifacts, "onnx")
            model = onnx.load(source, load_external_data=bool(quantize.keep_float))
        else:
            model = (
                _prepared(network, contract, quantize, own, sources)
                if own_graph
                else onnx_file.trace(network, contract)
            )
            source = _beside(target, model)
        note("export_onnx: int8 file (3 of 3)")
        kept = onnx_file.kept_nodes(model, quantize.keep_float, network)
        if quantize.static:
            images = calibration_input(sources.samples, contract.preprocessing)
            quantize_static(source, target, kept, images)
        else:
            _quantize_dynamic(source, target, kept, quantize)
        if not shared:
            source.unlink()
            paths.data_file(source).unlink(missing_ok=True)
        onnx_file.save(
            onnx.load(target),
            contract,
            "int8_onnx",
            quantize.describe(),
            quantize.keep_float,
            target,
        )


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
    sources: Sources,
) -> onnx.ModelProto:
    """Return the float model as dynamic int8 takes it.

    Its weights are rounded and its hidden channels smoothed, in ONNX Runtime's own operators.
    """
    import onnx

    from pipeline.export.onnx_operators import DOMAIN, fused

    fuses = own.operators == "fused"
    _smooth_and_round(network, contract, params, own, sources)
    if fuses:
        network = fused(network, contract.preprocessing, params.keep_float)
    model = onnx_file.trace(network, contract)
    if fuses and all(known.domain != DOMAIN for known in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return model


def _beside(target: Path, model: onnx.ModelProto) -> Path:
    """Write the float model to a file beside ``target``; return its path."""
    import onnx

    source = target.with_suffix(".float")
    if onnx_file.is_too_large(model):
        onnx_file.move_weights(model, paths.data_file(source))
    onnx.save(model, source)
    return source


def _smooth_and_round(
    network: nn.Module,
    contract: Contract,
    params: Quantize,
    own: ExportOnnx,
    sources: Sources,
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
    if sources.hessians is None:
        asking = "quantize.rounding: gptq" if rounds else "export_onnx.smooth_hidden"
        stats = collect(network, kept, sources.samples, contract.preprocessing, asking)
    else:
        stats = read(sources.hessians, gptq.linears(network, kept))
    with one_thread():
        if own.smooth_hidden is not None:
            gptq.divide_hidden(network, stats, own.smooth_hidden)
        if rounds:
            gptq.round_weights(network, stats, per_channel=params.scheme == "per_channel")
