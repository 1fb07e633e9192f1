"""Export a network to ONNX, and write ONNX files with their contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import paths
from pipeline.contract.contract import DATA_KEY, METADATA_KEY, Artefact, Contract
from pipeline.files import sha256_file, write_bytes
from pipeline.process import quiet
from pipeline.quantization.layer_names import named

if TYPE_CHECKING:
    import onnx
    from torch import nn


OPSET = 18  # has LayerNormalization; ONNX Runtime 1.14 and later load it


OLDEST_RUNTIME = "ONNX Runtime 1.20.1"  # the oldest that device_tests runs the files on
MAX_FILE_BYTES = 2_000_000_000  # protobuf holds less than 2 GiB


def trace(network: nn.Module, contract: Contract) -> onnx.ModelProto:
    """Export a network for any batch size, with the names of the contract."""
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


def kept_nodes(model: onnx.ModelProto, patterns: tuple[str, ...], network: nn.Module) -> list[str]:
    """Names of the nodes whose weight belongs to a layer of ``network`` that ``keep_float`` names.

    Export transposes most weights and gives them other names: they are known by their values.
    """
    values = set()
    for name, layer in network.named_modules() if patterns else ():
        weight = getattr(layer, "weight", None)
        if named(name, patterns) and weight is not None:
            array = weight.detach().numpy()
            values |= {array.tobytes(), array.T.tobytes()}
    weights = {tensor.name for tensor in model.graph.initializer if tensor.raw_data in values}
    kept = []
    for node in model.graph.node:
        layers = [name.rsplit(".", 1)[0] for name in node.input]
        if weights & {*node.input} or any(named(layer, patterns) for layer in layers):
            kept.append(node.name)
    return kept


def save(
    model: onnx.ModelProto,
    contract: Contract,
    file_format: str,
    quantization: str,
    keep_float: tuple[str, ...],
    path: Path,
) -> None:
    """Write ``model`` to ``path``, with the contract of this file in it.

    A model beyond protobuf's 2 GiB has its weights in a second file beside it.
    """
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
    if is_too_large(model):
        about[DATA_KEY] = move_weights(model, paths.data_file(path))
    onnx.helper.set_model_props(model, about)
    write_bytes(path, model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path, full_check=True)  # a file, which may have others beside it


def is_too_large(model: onnx.ModelProto) -> bool:
    """Whether the weights must lie in a file of their own."""
    return _weights_bytes(model) > MAX_FILE_BYTES


def _weights_bytes(model: onnx.ModelProto) -> int:
    """Size of the weights; protobuf cannot tell that of a message that it cannot write."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def move_weights(model: onnx.ModelProto, path: Path) -> str:
    """Write the weights of ``model`` to a file beside it, refer to them; return its SHA-256."""
    import onnx

    onnx.external_data_helper.convert_model_to_external_data(model, location=path.name)
    onnx.external_data_helper.write_external_data_tensors(model, str(path.parent))
    return sha256_file(path)
