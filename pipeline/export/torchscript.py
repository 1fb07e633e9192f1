"""TorchScript files between quantization and delivery, each with the contract inside."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from pipeline.contract.contract import EXTRA_FILE, Contract
from pipeline.errors import InputError
from pipeline.files import atomic, write_bytes
from pipeline.paths import TORCHSCRIPT_FILE
from pipeline.process import quiet, use_qnnpack

FILE = TORCHSCRIPT_FILE


def save(model: torch.jit.ScriptModule, contract: Contract, folder: Path) -> None:
    """Write ``folder`` with the one TorchScript file."""
    # Through memory: to a file, PyTorch puts the file's name inside and hides what a disk says.
    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(model, buffer, _extra_files={EXTRA_FILE: contract.to_json()})
    with atomic(folder) as new:
        new.mkdir()
        write_bytes(new / FILE, buffer.getvalue())


def load(path: Path) -> tuple[torch.jit.ScriptModule, Contract]:
    """Load a TorchScript file for QNNPACK, in evaluation mode, and its contract.

    Raises:
        InputError: not a TorchScript file.
        IntegrityError: no contract in it.
    """
    use_qnnpack()
    extra = {EXTRA_FILE: ""}
    try:
        with quiet():
            model = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is no TorchScript file: {error}") from None
    return model.eval(), Contract.from_json(extra[EXTRA_FILE])
