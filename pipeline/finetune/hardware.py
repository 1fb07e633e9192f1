"""What this machine offers to training: device, bfloat16, a compiler."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.finetune.params import Run


@dataclass(frozen=True)
class Machine:
    """Where and how a model runs."""

    device: torch.device
    bfloat16: bool
    compiles: bool

    @classmethod
    def of(cls, run: Run) -> Machine:
        """Choose by the parameters and by what is there.

        Raises:
            ParamsError: CUDA was asked for and is not there.
        """
        cuda = torch.cuda.is_available()
        if run.device == "cuda" and not cuda:
            raise ParamsError("finetune/params.yaml: run.device is cuda, but PyTorch finds no GPU")
        if run.threads:
            torch.set_num_threads(run.threads)
        device = torch.device("cuda" if cuda and run.device != "cpu" else "cpu")
        bfloat16 = has_bfloat16(device) if run.precision == "auto" else run.precision == "bfloat16"
        compiles = bool(shutil.which("cc") or shutil.which("gcc") or shutil.which("c++"))
        return cls(device, bfloat16, run.compile == "on" or (run.compile == "auto" and compiles))

    def autocast(self) -> torch.autocast:
        """Return the context in which a model runs: bfloat16 where the hardware computes it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def compiled(self, model: nn.Module) -> Callable[[torch.Tensor], Any]:
        """Return ``model``, compiled for fixed shapes if this machine can."""
        if not self.compiles:
            return model
        torch._dynamo.reset()
        compiled: Callable[[torch.Tensor], Any] = torch.compile(model, dynamic=False)
        return compiled


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware rather than emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
