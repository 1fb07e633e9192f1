"""The int8 ``.pte`` for ExecuTorch, delegated to XNNPACK, with its contract beside it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.contract.contract import Artefact, Contract
from pipeline.contract.files import MODEL_FILE
from pipeline.export.exporter import Sources
from pipeline.files import write_text
from pipeline.images.samples import calibration_input
from pipeline.params import Params, Quantize
from pipeline.process import one_thread, quiet
from pipeline.progress import note

if TYPE_CHECKING:
    import torch

LINEAR = "aten.linear.default"
LAYER_OPERATORS = {
    LINEAR,
    *(f"aten.{name}.default" for name in ("conv2d", "batch_norm", "relu", "relu_")),
}
OLDEST_RUNTIME = "ExecuTorch 1.0.1"  # the oldest that device_tests runs the file on


def export(params: Params, sources: Sources, out: Path) -> None:
    """Write the ``.pte`` and its contract.

    XNNPACK quantizes dynamically only with per-channel weights, so that is what the file has for
    scheme ``per_tensor``, too; its name and contract say so. Calibration images are asked for by
    scheme ``static`` and rounding ``gptq``.
    """
    from pipeline.quantization.load import load_model

    quantize = params.quantize.for_other_runtimes
    # Fused attention would be decomposed with a guard for fully masked rows, whose operators
    # XNNPACK lacks: twice the latency, for a case that images never have.
    model, contract = load_model(sources.rewritten / MODEL_FILE, fused_attention=False)
    program = _program(quantize, model, contract, sources)
    final = contract.for_artefact(
        Artefact(
            format="pte",
            quantization=quantize.describe("per_channel"),
            keep_float=quantize.keep_float,
            engine="executorch with XNNPACK",
            oldest_runtime=OLDEST_RUNTIME,
            operators=tuple(sorted(_operators(program))),
        )
    )
    name = contract.file_name("static" if quantize.static else "per_channel", ".pte")
    (out / name).write_bytes(program.buffer)
    write_text(out / (name + paths.CONTRACT_SUFFIX), final.to_json())


def _program(
    params: Quantize,
    model: torch.nn.Module,
    contract: Contract,
    sources: Sources,
) -> Any:
    """Round the weights, quantize and lower; return ExecuTorch's program."""
    import torch

    from pipeline.models.efficient import to_efficient
    from pipeline.models.tracing import plain
    from pipeline.quantization.gptq import linears, round_weights
    from pipeline.quantization.hessians import collect, read

    # Standardized weights become constants, which XNNPACK takes.
    model = to_efficient(plain(model))
    example = (torch.zeros(contract.input_shape),)
    batches = list(example)
    if params.static:
        # One image at a time: the exported graph has the example's batch size in it.
        images = calibration_input(sources.samples, contract.preprocessing)
        batches = list(torch.from_numpy(images).split(1))
    elif params.rounding == "gptq":
        note("export_executorch: rounding weights (1 of 3)")
        kept = params.keep_float
        if sources.hessians is None:
            asking = "quantize.rounding: gptq"
            stats = collect(model, kept, sources.samples, contract.preprocessing, asking)
        else:
            stats = read(sources.hessians, linears(model, kept))
        with one_thread():
            round_weights(model, stats, per_channel=True)
    with quiet():
        note("export_executorch: quantizing (2 of 3)")
        quantized = _quantize(model, batches, params)
        note("export_executorch: lowering to XNNPACK (3 of 3)")
        return _lower(quantized, example)


def _quantize(
    model: torch.nn.Module, batches: list[torch.Tensor], params: Quantize
) -> torch.nn.Module:
    """Quantize for XNNPACK; ranges that are fixed come from ``batches``, [1, 3, H, W] each."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from pipeline.export.xnnpack_quantize import calibrated, recorded
    from pipeline.quantization.layer_names import matching, weighted_layers

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=not params.static)
    config = recorded(config) if params.static else config
    kept = matching(weighted_layers(model, convolutions=params.static), params.keep_float)

    # Dynamic int8 convolutions that pad cannot be run, or not even be lowered, by XNNPACK.
    operators = LAYER_OPERATORS if params.static else {LINEAR}

    def wanted(node: torch.fx.Node) -> bool:
        return not _module_paths(node) & kept and _in_layer(node, operators) and not _constant(node)

    quantizer = XNNPACKQuantizer().set_global(config)
    quantizer.set_filter_function(wanted)
    exported = torch.export.export(model, (batches[0],)).module()
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad(), one_thread():
        if params.static:
            return calibrated(prepared, batches)
        prepared(batches[0])
        converted: torch.nn.Module = convert_pt2e(prepared)
    return converted


def _constant(node: torch.fx.Node) -> bool:
    """Whether a layer's input does not depend on the image.

    Quantized, such a layer would be folded at export, but for operators that no runtime has.
    """
    pending = node.all_input_nodes[:1]
    seen: set[torch.fx.Node] = set()
    while pending:
        source = pending.pop()
        if source in seen:
            continue
        seen.add(source)
        if source.op == "placeholder":
            return False
        pending += source.all_input_nodes
    return bool(seen)


def _in_layer(node: torch.fx.Node, operators: Container[str]) -> bool:
    """Whether a node belongs to a layer of these operators: with its weight and what is folded."""
    return node.op != "call_function" or str(node.target) in operators


def _module_paths(node: torch.fx.Node) -> set[str]:
    """Names of the modules that a node of an exported graph came from, outermost to innermost."""
    stack = node.meta.get("nn_module_stack", {})
    return {path for path, _ in stack.values()}


def _lower(model: torch.nn.Module, example: tuple[torch.Tensor]) -> Any:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    # ExecuTorch calls the flatc program that its wheel puts beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # Lowering makes millions of small objects that all live: collecting costs a quarter of it.
    gc.disable()
    try:
        exported = torch.export.export(model, example)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        return edge.to_executorch()
    finally:
        gc.enable()


def _operators(program: Any) -> set[str]:
    plan = program.executorch_program.execution_plan[0]
    operators = {f"{op.name}.{op.overload}".rstrip(".") for op in plan.operators}
    return operators | {f"delegate::{delegate.id}" for delegate in plan.delegates}
