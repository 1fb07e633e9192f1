"""The float ``.onnx``, with the contract in its metadata."""

from __future__ import annotations

from pathlib import Path

from pipeline.contract.files import MODEL_FILE
from pipeline.export import onnx_file
from pipeline.export.exporter import Sources
from pipeline.params import Params
from pipeline.progress import note


def export(params: Params, sources: Sources, out: Path) -> None:
    """Write ``NAME-float-VERSION.onnx``, which takes a batch of any size and is checked by onnx.

    Weights that are too large for one file lie beside it, in ``NAME.onnx.data``.
    """
    from pipeline.models.efficient import to_efficient
    from pipeline.models.tracing import plain
    from pipeline.quantization.load import load_model

    note("export_onnx: float file (1 of 3)")
    network, contract = load_model(sources.rewritten / MODEL_FILE, fused_attention=False)
    model = onnx_file.trace(to_efficient(plain(network)), contract)
    path = out / contract.file_name("float", ".onnx")
    onnx_file.save(model, contract, "onnx", "none", (), path)
