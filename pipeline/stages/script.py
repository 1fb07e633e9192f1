"""Stage ``script``: the quantized model as TorchScript, by `torch.jit.script`."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import InputError, exit_on_error


def script(quantized: Path, out: Path) -> None:
    """Script the model of folder ``quantized`` and write folder ``out``.

    Raises:
        InputError: TorchScript cannot express the architecture; its own words are passed on.
    """
    import torch

    from pipeline.export import torchscript
    from pipeline.process import quiet, use_qnnpack
    from pipeline.quantization.load import load_model

    use_qnnpack()
    model, contract = load_model(quantized / MODEL_FILE)
    try:
        with quiet():
            scripted = torch.jit.script(model)
    except (RuntimeError, torch.jit.Error) as error:
        raise InputError(
            f"{contract.checkpoint.architecture} cannot be scripted: {error}"
        ) from None
    torchscript.save(scripted, contract, out)


def main() -> None:
    with exit_on_error():
        script(paths.QUANTIZED, paths.SCRIPTED)
        print(f"script: TorchScript file in {paths.SCRIPTED}")


if __name__ == "__main__":
    main()
