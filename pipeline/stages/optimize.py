"""Stage ``optimize``: `optimize_for_mobile`, which fuses and prepacks for phones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import paths
from pipeline.errors import InputError, exit_on_error
from pipeline.export.failure import exporting
from pipeline.formats import BUILT_IN, first_made_by
from pipeline.params import load_params


def optimize(scripted: Path, out: Path, formats: Sequence[str] = BUILT_IN) -> None:
    """Optimize the TorchScript file of folder ``scripted`` and write folder ``out``.

    Raises:
        InputError: this PyTorch is built without XNNPACK, as 2.13 and later are.
    """
    if paths.unused("optimize", formats, out):
        return
    import torch
    from torch.utils.mobile_optimizer import optimize_for_mobile

    from pipeline.export import torchscript
    from pipeline.process import quiet

    if not torch._C._is_xnnpack_enabled():
        raise InputError(
            f"torch {torch.__version__} is built without XNNPACK, which optimize_for_mobile "
            "needs; install torch 2.12.1, the last that has it (`make repro` does)"
        )
    model, contract = torchscript.load(scripted / torchscript.FILE)
    with exporting(first_made_by("optimize", formats), formats, contract):
        with quiet():
            optimized = optimize_for_mobile(model)
        torchscript.save(optimized, contract, out)


def main() -> None:
    with exit_on_error():
        optimize(paths.SCRIPTED, paths.OPTIMIZED, load_params().formats)
        wrote = f"TorchScript file for mobile in {paths.OPTIMIZED}"
        print(f"optimize: {paths.note(paths.OPTIMIZED) or wrote}")


if __name__ == "__main__":
    main()
