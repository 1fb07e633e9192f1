"""PyTorch itself: the eager model, float or quantized, and TorchScript files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.contract.contract import Contract
from pipeline.export import torchscript
from pipeline.process import quiet, use_qnnpack
from pipeline.quantization.load import load_model
from pipeline.runtimes import FloatArray


class TorchRuntime:
    """Call a PyTorch module on numpy images, on QNNPACK wherever it is quantized.

    The engine is forced because files are packed for the engine that loads them: on another one
    the same file gives other numbers.
    """

    contract: Contract
    module: torch.nn.Module
    dtype: torch.dtype = torch.float32

    def __init__(self, threads: int) -> None:
        use_qnnpack()
        torch.set_num_threads(threads)

    def logits(self, batch: FloatArray) -> FloatArray:
        """Return logits float32 [n, classes] of ``batch``, float32 [n, 3, H, W]."""
        with torch.inference_mode():
            answer: FloatArray = self.module(torch.from_numpy(batch).to(self.dtype)).numpy()
        return answer.astype(np.float32, copy=True)


class EagerRuntime(TorchRuntime):
    """A ``model.safetensors`` that `fetch` or `quantize` wrote."""

    def __init__(self, path: Path, threads: int, *, float64: bool = False) -> None:
        super().__init__(threads)
        self.module, self.contract = load_model(path)
        self.dtype = torch.float64 if float64 else torch.float32
        self.module.to(self.dtype)


class TorchScriptRuntime(TorchRuntime):
    """A TorchScript file of the stages between quantization and delivery."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(threads)
        self.module, self.contract = torchscript.load(path)

    def logits(self, batch: FloatArray) -> FloatArray:
        """Return logits float32 [n, classes] of ``batch``, float32 [n, 3, H, W]."""
        with quiet():  # QNNPACK warns, once in a process, of a flag that nobody here sets
            return super().logits(batch)
