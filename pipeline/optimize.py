"""Stage ``optimize``: `optimize_for_mobile`, which fuses and prepacks for phones."""

from __future__ import annotations

import warnings
from pathlib import Path

from pipeline.core.contract import EXTRA_FILE
from pipeline.core.errors import InputError, exit_on_error
from pipeline.support import paths
from pipeline.support.files import atomic


def optimize(scripted: Path, out: Path) -> None:
    """Optimize the TorchScript file of folder ``scripted`` and write folder ``out``.

    Raises:
        InputError: this PyTorch is built without XNNPACK, as 2.13 and later are.
    """
    import torch
    from torch.utils.mobile_optimizer import optimize_for_mobile

    if not torch._C._is_xnnpack_enabled():
        raise InputError(
            f"torch {torch.__version__} is built without XNNPACK, which optimize_for_mobile "
            "needs; install torch 2.12.1, the last that has it (`make repro` does)"
        )
    torch.backends.quantized.engine = "qnnpack"
    extra = {EXTRA_FILE: ""}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.*deprecated", DeprecationWarning)
        model = torch.jit.load(scripted / paths.TORCHSCRIPT_FILE, _extra_files=extra)
        optimized = optimize_for_mobile(model)
    with atomic(out) as new:
        new.mkdir()
        optimized.save(str(new / paths.TORCHSCRIPT_FILE), _extra_files=extra)


def main() -> None:
    with exit_on_error():
        optimize(paths.SCRIPTED, paths.OPTIMIZED)


if __name__ == "__main__":
    main()
