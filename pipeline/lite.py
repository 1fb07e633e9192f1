"""Stage ``lite``: the ``.ptl`` that Android's and iOS's PyTorch Lite load, contract inside."""

from __future__ import annotations

import warnings
from pathlib import Path

from pipeline.core.contract import EXTRA_FILE, Artefact, Contract
from pipeline.core.errors import exit_on_error
from pipeline.core.params import Quantize, load_params
from pipeline.support import paths
from pipeline.support.files import atomic

FUSED_ATTENTION = "aten::scaled_dot_product_attention"
# The file loads on these and no older ones; fused attention is missing from 1.13 (docs/adr/0004).
OLDEST_RUNTIME = "PyTorch Lite 1.13"
OLDEST_RUNTIME_FUSED = "PyTorch Lite 2.0"


def lite(params: Quantize, optimized: Path, out: Path) -> Path:
    """Write folder ``out`` with the one ``NAME-SCHEME-VERSION.ptl``; return its path."""
    import torch
    from torch.jit.mobile import _export_operator_list, _load_for_lite_interpreter

    torch.backends.quantized.engine = "qnnpack"
    extra = {EXTRA_FILE: ""}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.*deprecated", DeprecationWarning)
        model = torch.jit.load(optimized / paths.TORCHSCRIPT_FILE, _extra_files=extra)
    contract = Contract.from_json(extra[EXTRA_FILE])
    name = contract.file_name(params.scheme, ".ptl")
    with atomic(out) as new:
        new.mkdir()
        # The operators are those of the bytecode, which exists only once it has been written.
        model._save_for_lite_interpreter(str(new / name))
        operators = _export_operator_list(_load_for_lite_interpreter(str(new / name)))
        final = contract.for_artefact(
            Artefact(
                format="ptl",
                quantization=f"dynamic int8, {params.scheme} weights",
                keep_float=params.keep_float,
                engine="qnnpack",
                oldest_runtime=(
                    OLDEST_RUNTIME_FUSED if FUSED_ATTENTION in operators else OLDEST_RUNTIME
                ),
                operators=tuple(sorted(operators)),
            )
        )
        model._save_for_lite_interpreter(
            str(new / name), _extra_files={EXTRA_FILE: final.to_json()}
        )
    return out / name


def main() -> None:
    with exit_on_error():
        lite(load_params().quantize, paths.OPTIMIZED, paths.LITE)


if __name__ == "__main__":
    main()
