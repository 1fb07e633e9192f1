"""Stage ``export_onnx``: the float model and an int8 copy, as single ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.contract import DATA_KEY, METADATA_KEY, Artefact, Contract
from pipeline.core.errors import exit_on_error
from pipeline.core.params import ExportOnnx, Quantize, load_params
from pipeline.core.patterns import named
from pipeline.support import paths
from pipeline.support.contracts import MODEL_FILE
from pipeline.support.files import atomic, sha256_file, write_bytes
from pipeline.support.images import calibration_input
from pipeline.support.quiet import quiet
from pipeline.support.threads import one_thread

if TYPE_CHECKING:
    import onnx
    from torch import nn

OPSET = 18  # has LayerNormalization; ONNX Runtime 1.14 and later load it
OLDEST_RUNTIME = "ONNX Runtime 1.20.1"  # the oldest that device_tests runs the files on
QUANTIZED_OPERATORS = ["MatMul", "Gemm"]
MAX_FILE_BYTES = 2_000_000_000  # protobuf holds less than 2 GiB
PLAIN = ExportOnnx(operators="standard")  # with which int8 starts from the float file


def export_onnx(
    params: Quantize,
    checkpoint: Path,
    samples: Path,
    float_out: Path,
    int8_out: Path,
    own: ExportOnnx,
) -> None:
    """Write folder ``float_out`` with the float file and ``int8_out`` with the int8 one.

    Both take a batch of any size, are checked by onnx and carry the contract in their metadata.
    Weights that are too large for one file lie beside it, in ``NAME.onnx.data``.
    Folder ``samples`` has the calibration images of scheme ``static``, of rounding ``gptq`` and of
    ``smooth_hidden``.
    """
    import onnx

    from pipeline.support import forms
    from pipeline.support.onnx_static import quantize as quantize_static
    from pipeline.support.quantized import load_model
    from pipeline.support.tracing import plain

    params = params.elsewhere
    network, contract = load_model(checkpoint / MODEL_FILE, fused_attention=False)
    network = forms.lean(plain(network))
    model = _export(network, contract)
    float_name = contract.file_name("float", ".onnx")
    with atomic(float_out) as new:
        new.mkdir()
        _save(model, contract, "onnx", "none", (), new / float_name)

    if not forms.attends(network):
        own = PLAIN
    own_graph = not params.static and (own != PLAIN or params.rounding != "nearest")
    int8_name = contract.file_name(params.scheme, ".int8.onnx")
    with quiet(), atomic(int8_out) as new:
        new.mkdir()
        source, target = float_out / float_name, new / int8_name
        if own_graph:
            source, model = _prepared(network, contract, params, own, samples, target)
        kept = _kept_nodes(model, params.keep_float)
        if params.static:
            images = calibration_input(samples, contract.preprocessing)
            quantize_static(source, target, kept, images)
        else:
            _quantize_dynamic(source, target, kept, params)
        if own_graph:
            source.unlink()
            paths.data_file(source).unlink(missing_ok=True)
        quantized = onnx.load(target)
        _save(quantized, contract, "int8_onnx", params.words(), params.keep_float, target)


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
    samples: Path,
    target: Path,
) -> tuple[Path, onnx.ModelProto]:
    """The float model as dynamic int8 is to have it, in a file beside ``target``: its weights
    rounded already, hidden channels smoothed, in ONNX Runtime's own operators."""
    import onnx

    from pipeline.support.onnx_fused import DOMAIN, fused

    fuses = own.operators == "fused"
    _smooth_and_round(network, contract, params, own, samples)
    if fuses:
        network = fused(network, contract.preprocessing, params.keep_float)
    model = _export(network, contract)
    if fuses and all(known.domain != DOMAIN for known in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    source = target.with_suffix(".float")
    if _weights_bytes(model) > MAX_FILE_BYTES:
        _move_weights(model, paths.data_file(source))
    onnx.save(model, source)
    return source, model


def _smooth_and_round(
    network: nn.Module, contract: Contract, params: Quantize, own: ExportOnnx, samples: Path
) -> None:
    from pipeline.support import rounding
    from pipeline.support.forms import PATCHES
    from pipeline.support.watching import split

    rounds = params.rounding == "gptq"
    if not rounds and own.smooth_hidden is None:
        return
    # The fused patch embedding has steps of its own, of pixels.
    kept = (*params.keep_float, *([PATCHES] if own.operators == "fused" else []))
    asking = "quantize.rounding: gptq" if rounds else "export_onnx.smooth_hidden"
    images = calibration_input(samples, contract.preprocessing, asking)
    with one_thread():
        seen = rounding.watch(network, rounding.linears(network, kept), split(images))
        if own.smooth_hidden is not None:
            rounding.divide_hidden(network, seen, own.smooth_hidden)
        if rounds:
            rounding.round_weights(network, seen, per_channel=params.scheme == "per_channel")


def _export(network: nn.Module, contract: Contract) -> onnx.ModelProto:
    import torch

    example = torch.zeros(2, *contract.input_shape[1:])
    with quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[contract.input_name],
            output_names=[contract.output_name],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
    assert program is not None
    proto = program.model_proto
    # Shapes of inner values: ONNX Runtime's quantizer transposes weights and then finds them wrong.
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]  # where PyTorch had it from: half a megabyte that nobody reads
    return proto


def _kept_nodes(model: onnx.ModelProto, patterns: tuple[str, ...]) -> list[str]:
    """Names of the nodes whose weight belongs to a layer that ``keep_float`` names."""
    kept = []
    for node in model.graph.node:
        layers = [name.rsplit(".", 1)[0] for name in node.input]
        if any(named(layer, patterns) for layer in layers):
            kept.append(node.name)
    return kept


def _save(
    model: onnx.ModelProto,
    contract: Contract,
    file_format: str,
    quantization: str,
    keep_float: tuple[str, ...],
    path: Path,
) -> None:
    import onnx

    operators = sorted({f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in model.graph.node})
    final = contract.for_artefact(
        Artefact(
            format=file_format,
            quantization=quantization,
            keep_float=keep_float,
            engine="onnxruntime",
            oldest_runtime=OLDEST_RUNTIME,
            operators=tuple(operators),
        )
    )
    about = {METADATA_KEY: final.to_json()}
    if _weights_bytes(model) > MAX_FILE_BYTES:
        about[DATA_KEY] = _move_weights(model, paths.data_file(path))
    onnx.helper.set_model_props(model, about)
    write_bytes(path, model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path, full_check=True)  # a file, which may have others beside it


def _weights_bytes(model: onnx.ModelProto) -> int:
    """Size of the weights; protobuf cannot tell that of a message that it cannot write."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def _move_weights(model: onnx.ModelProto, path: Path) -> str:
    """Write the weights of ``model`` to a file beside it, refer to them; return its SHA-256."""
    import onnx

    onnx.external_data_helper.convert_model_to_external_data(model, location=path.name)
    onnx.external_data_helper.write_external_data_tensors(model, str(path.parent))
    return sha256_file(path)


def main() -> None:
    with exit_on_error():
        params = load_params()
        outs = paths.ONNX, paths.ONNX_INT8
        export_onnx(params.quantize, paths.REWRITTEN, paths.SAMPLES, *outs, params.export_onnx)


if __name__ == "__main__":
    main()
