"""The Lite interpreter, as Android's and iOS's PyTorch Lite run a ``.ptl``."""

from __future__ import annotations

from pathlib import Path

from torch.jit.mobile import _load_for_lite_interpreter

from pipeline.contract.files import read_contract
from pipeline.errors import InputError
from pipeline.process import quiet
from pipeline.runtimes.eager import TorchRuntime


class LiteRuntime(TorchRuntime):
    """A ``.ptl``, never through `torch.jit.load`: that is another interpreter."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(threads)
        self.contract = read_contract(path)
        try:
            with quiet():
                self.module = _load_for_lite_interpreter(str(path), map_location="cpu")
        except RuntimeError as error:
            raise InputError(f"{path}: the Lite interpreter cannot load it: {error}") from None
