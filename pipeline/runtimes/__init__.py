"""Load any file of the pipeline and run it on the runtime that it is meant for.

>>> runtime = load(Path("artifacts/lite/NAME.ptl"))
>>> runtime.logits(batch)  # float32 [n, 3, H, W] -> float32 [n, classes]

The runtime is chosen by the file's ending, so that parity, latency and device tests share one way
to run a thing. Every engine is held to the number of threads asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import formats
from pipeline.contract.contract import Contract
from pipeline.errors import InputError

FloatArray = NDArray[np.float32]


class Runtime(Protocol):
    """A loaded file."""

    contract: Contract

    def logits(self, batch: FloatArray) -> FloatArray:
        """Run contiguous float32 images ``[n, 3, H, W]``; return raw logits ``[n, classes]``."""
        ...


OWN = {  # files that are not delivered, by the end of their names
    ".pt": "pipeline.runtimes.eager:TorchScriptRuntime",
    ".safetensors": "pipeline.runtimes.eager:EagerRuntime",
}


def load(path: Path, *, threads: int = 1) -> Runtime:
    """Load a file for its runtime.

    One of a known format, ``.pt`` (TorchScript) or ``.safetensors`` (the eager model, float or
    quantized, with ``contract.json`` beside it).

    Raises:
        InputError: no runtime for this ending, or the runtime cannot load the file.
        IntegrityError: the file carries no contract.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro` to make it")
    return import_for(path)(path, threads)


def import_for(path: Path) -> Callable[[Path, int], Runtime]:
    """Import whatever runs a file of this ending, without loading it; return the runtime's class.

    Raises:
        InputError: no runtime for this ending, or its library is not installed.
    """
    known = formats.of_file(path.name)
    reference = known.runtime if known else OWN.get(path.suffix)
    if reference is None:
        endings = " ".join([*(f.suffix for f in formats.FORMATS.values()), *OWN])
        raise InputError(f"{path}: no runtime runs *{path.suffix}; known: {endings}")
    if path.suffix == ".safetensors":
        import timm  # noqa: F401  what the eager model is built with
    try:
        runtime: Callable[[Path, int], Runtime] = formats.resolve(reference)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} needs the Python package {error.name}, which is not installed"
        ) from None
    return runtime
