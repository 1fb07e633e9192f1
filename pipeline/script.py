"""Stage ``script``: the quantized model as TorchScript, by `torch.jit.script`."""

from __future__ import annotations

import warnings
from pathlib import Path

from pipeline.core.contract import EXTRA_FILE
from pipeline.core.errors import InputError, exit_on_error
from pipeline.support import paths
from pipeline.support.files import atomic


def script(quantized: Path, out: Path) -> None:
    """Script the model of folder ``quantized`` and write folder ``out``.

    Raises:
        InputError: TorchScript cannot express the architecture; its own words are passed on.
    """
    import torch

    from pipeline.support.quantized import MODEL_FILE, load_model

    torch.backends.quantized.engine = "qnnpack"
    model, contract = load_model(quantized / MODEL_FILE)
    try:
        with warnings.catch_warnings():
            # TorchScript is what the Lite interpreter loads, deprecated or not: docs/adr/0001.
            warnings.filterwarnings("ignore", ".*torch.jit.*deprecated", DeprecationWarning)
            scripted = torch.jit.script(model)
    except (RuntimeError, torch.jit.Error) as error:
        raise InputError(
            f"{contract.checkpoint.architecture} cannot be scripted: {error}"
        ) from None
    with atomic(out) as new:
        new.mkdir()
        scripted.save(new / paths.TORCHSCRIPT_FILE, _extra_files={EXTRA_FILE: contract.to_json()})


def main() -> None:
    with exit_on_error():
        script(paths.QUANTIZED, paths.SCRIPTED)


if __name__ == "__main__":
    main()
