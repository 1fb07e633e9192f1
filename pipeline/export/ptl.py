"""The ``.ptl`` that Android's and iOS's PyTorch Lite load, contract inside."""

from __future__ import annotations

import io
from pathlib import Path

from pipeline.contract.contract import EXTRA_FILE, Artefact
from pipeline.export.exporter import Sources
from pipeline.files import write_bytes
from pipeline.params import Params

FUSED_ATTENTION = "aten::scaled_dot_product_attention"
# The oldest that device_tests runs the file on; 1.13.1 lacks fused attention (docs/adr/0004).
OLDEST_RUNTIME = "PyTorch Lite 1.13.1"
OLDEST_RUNTIME_FUSED = "PyTorch Lite 2.1.2"
SOURCE = "code/"
WRITTEN_ALWAYS = {"version", "byteorder", ".data/serialization_id"}  # by PyTorch's writer


def export(params: Params, sources: Sources, out: Path) -> None:
    """Write ``NAME-SCHEME-VERSION.ptl`` from the optimized TorchScript file."""
    from torch.jit.mobile import _export_operator_list, _load_for_lite_interpreter

    from pipeline.export import torchscript
    from pipeline.process import ENGINE, quiet

    quantize = params.quantize
    model, contract = torchscript.load(sources.optimized / torchscript.FILE)
    with quiet():
        # The operators are those of the bytecode, which exists only once it has been written.
        bytecode = model._save_to_buffer_for_lite_interpreter()
        operators = _export_operator_list(_load_for_lite_interpreter(io.BytesIO(bytecode)))
        final = contract.for_artefact(
            Artefact(
                format="ptl",
                quantization=quantize.describe(),
                keep_float=quantize.keep_float,
                engine=ENGINE,
                oldest_runtime=(
                    OLDEST_RUNTIME_FUSED if FUSED_ATTENTION in operators else OLDEST_RUNTIME
                ),
                operators=tuple(sorted(operators)),
            )
        )
        content = model._save_to_buffer_for_lite_interpreter({EXTRA_FILE: final.to_json()})
    name = contract.file_name(quantize.scheme, ".ptl")
    write_bytes(out / name, without_source(content))


def without_source(content: bytes) -> bytes:
    """Return a ``.ptl`` without the TorchScript source beside its bytecode.

    The Lite interpreter never reads it; in a small model it is a thirtieth of the file, and its
    debug records name files of the machine that wrote it.
    """
    import torch

    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    stripped = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(stripped)
    for name in reader.get_all_records():
        if not name.startswith(SOURCE) and name not in WRITTEN_ALWAYS:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return stripped.getvalue()
