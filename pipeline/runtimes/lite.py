"""The Lite interpreter, as Android's and iOS's PyTorch Lite run a ``.ptl``."""

from __future__ import annotations

import zipfile
from pathlib import Path

from torch.jit.mobile import _load_for_lite_interpreter

from pipeline.core.contract import EXTRA_FILE, Contract
from pipeline.core.errors import InputError, IntegrityError
from pipeline.runtimes.eager import TorchRuntime
from pipeline.support.quiet import quiet


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


def read_contract(path: Path) -> Contract:
    """Read the contract out of a ``.ptl`` (a zip archive) without PyTorch's interpreter.

    Raises:
        IntegrityError: not an archive, or no contract in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if n.endswith(f"/extra/{EXTRA_FILE}")]
            if len(inside) != 1:
                raise IntegrityError(f"{path} carries no contract; was it made by edge-vit?")
            return Contract.from_json(archive.read(inside[0]).decode())
    except zipfile.BadZipFile as error:
        raise IntegrityError(f"{path} is damaged ({error}); fetch or build it again") from None
