"""Load any file of the pipeline and run it on the runtime that it is meant for.

>>> runtime = load(Path("artifacts/lite/NAME.ptl"))
>>> runtime.logits(batch)  # float32 [n, 3, H, W] -> float32 [n, classes]

The runtime is chosen by the file's ending, so that parity, latency and device tests share one way
to run a thing. Every engine is held to the number of threads asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import Contract
from pipeline.errors import InputError

FloatArray = NDArray[np.float32]


class Runtime(Protocol):
    """A loaded file."""

    contract: Contract

    def logits(self, batch: FloatArray) -> FloatArray:
        """Run contiguous float32 images ``[n, 3, H, W]``; return raw logits ``[n, classes]``."""
        ...


MODULES = {
    ".ptl": ("pipeline.runtimes.lite", "LiteRuntime"),
    ".onnx": ("pipeline.runtimes.onnx", "OnnxRuntime"),
    ".pte": ("pipeline.runtimes.executorch", "ExecuTorchRuntime"),
    ".pt": ("pipeline.runtimes.eager", "TorchScriptRuntime"),
    ".safetensors": ("pipeline.runtimes.eager", "EagerRuntime"),
}


def load(path: Path, *, threads: int = 1) -> Runtime:
    """Load a file for its runtime: ``.ptl``, ``.onnx``, ``.pte``, ``.pt`` (TorchScript) or
    ``.safetensors`` (the eager model, float or quantized, with ``contract.json`` beside it).

    Raises:
        InputError: no runtime for this ending, or the runtime cannot load the file.
        IntegrityError: the file carries no contract.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro` to make it")
    runtime: Runtime = import_for(path)(path, threads)
    return runtime


def import_for(path: Path) -> Callable[[Path, int], Runtime]:
    """Import whatever runs a file of this ending, without loading it; return the runtime's class.

    Raises:
        InputError: no runtime for this ending.
    """
    if path.suffix not in MODULES:
        known = " ".join(MODULES)
        raise InputError(f"{path}: no runtime runs *{path.suffix}; known: {known}")
    module, name = MODULES[path.suffix]
    if path.suffix == ".safetensors":
        import timm  # noqa: F401  what the eager model is built with
    runtime: Callable[[Path, int], Runtime] = getattr(importlib.import_module(module), name)
    return runtime
