"""ExecuTorch's runtime with the XNNPACK delegate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from executorch.extension.pybindings import _portable_lib as portable

from pipeline.contract.files import read_contract
from pipeline.errors import InputError
from pipeline.process import stderr_unless_error
from pipeline.runtimes import FloatArray


class ExecuTorchRuntime:
    """A ``.pte``. The method takes one image at a time, so batches are run image by image."""

    def __init__(self, path: Path, threads: int) -> None:
        self.contract = read_contract(path)
        try:
            with stderr_unless_error():  # it logs how it looks for the processor's properties
                portable._unsafe_reset_threadpool(threads)
                self.module = portable._load_for_executorch(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: ExecuTorch cannot load it: {error}") from None

    def logits(self, batch: FloatArray) -> FloatArray:
        """Return logits float32 [n, classes] of ``batch``, float32 [n, 3, H, W]."""
        # ExecuTorch reads strides wrongly without a word, so contiguity is made sure of here.
        images = torch.from_numpy(np.ascontiguousarray(batch)).split(1)
        rows = [self.module.forward([image])[0].numpy().copy() for image in images]
        return np.concatenate(rows).astype(np.float32, copy=False)
