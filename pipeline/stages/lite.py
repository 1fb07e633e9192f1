"""Stage ``lite``: the ``.ptl`` that Android's and iOS's PyTorch Lite load, contract inside."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from pipeline import paths
from pipeline.contract.contract import EXTRA_FILE, Artefact
from pipeline.errors import exit_on_error
from pipeline.export.failure import exporting
from pipeline.files import atomic, write_bytes
from pipeline.formats import BUILT_IN
from pipeline.params import Quantize, load_params

FUSED_ATTENTION = "aten::scaled_dot_product_attention"
# The oldest that device_tests runs the file on; 1.13.1 lacks fused attention (docs/adr/0004).
OLDEST_RUNTIME = "PyTorch Lite 1.13.1"
OLDEST_RUNTIME_FUSED = "PyTorch Lite 2.1.2"
SOURCE = "code/"
WRITTEN_ALWAYS = {"version", "byteorder", ".data/serialization_id"}  # by PyTorch's writer


def lite(
    params: Quantize, optimized: Path, out: Path, formats: Sequence[str] = BUILT_IN
) -> Path | None:
    """Write folder ``out`` with the one ``NAME-SCHEME-VERSION.ptl``; return its path.

    Raises:
        InputError: the Lite interpreter's writer cannot express the model.
    """
    if paths.left_out("ptl", formats, out):
        return None
    from torch.jit.mobile import _export_operator_list, _load_for_lite_interpreter

    from pipeline.export import torchscript
    from pipeline.process import ENGINE, quiet

    model, contract = torchscript.load(optimized / torchscript.FILE)
    name = contract.file_name(params.scheme, ".ptl")
    with exporting("ptl", formats, contract), quiet():
        # The operators are those of the bytecode, which exists only once it has been written.
        bytecode = model._save_to_buffer_for_lite_interpreter()
        operators = _export_operator_list(_load_for_lite_interpreter(io.BytesIO(bytecode)))
        final = contract.for_artefact(
            Artefact(
                format="ptl",
                quantization=params.describe(),
                keep_float=params.keep_float,
                engine=ENGINE,
                oldest_runtime=(
                    OLDEST_RUNTIME_FUSED if FUSED_ATTENTION in operators else OLDEST_RUNTIME
                ),
                operators=tuple(sorted(operators)),
            )
        )
        content = model._save_to_buffer_for_lite_interpreter({EXTRA_FILE: final.to_json()})
    with atomic(out) as new:
        new.mkdir()
        write_bytes(new / name, without_source(content))
    return out / name


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


def main() -> None:
    with exit_on_error():
        params = load_params()
        written = lite(params.quantize, paths.OPTIMIZED, paths.LITE, params.formats)
        print(f"lite: {written or paths.note(paths.LITE)}")


if __name__ == "__main__":
    main()
