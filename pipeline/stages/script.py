"""Stage ``script``: the quantized model as TorchScript, by `torch.jit.script`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import paths
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import exit_on_error
from pipeline.export.failure import exporting
from pipeline.formats import BUILT_IN, first_made_by
from pipeline.params import load_params


def script(quantized: Path, out: Path, formats: Sequence[str] = BUILT_IN) -> None:
    """Script the model of folder ``quantized`` and write folder ``out``.

    Raises:
        InputError: TorchScript cannot express the architecture; its own words are passed on.
    """
    if paths.unused("script", formats, out):
        return
    import torch

    from pipeline.export import torchscript
    from pipeline.process import quiet, use_qnnpack
    from pipeline.quantization.load import load_model

    use_qnnpack()
    model, contract = load_model(quantized / MODEL_FILE)
    with exporting(first_made_by("script", formats), formats, contract):
        with quiet():
            scripted = torch.jit.script(model)
        torchscript.save(scripted, contract, out)


def main() -> None:
    with exit_on_error():
        script(paths.QUANTIZED, paths.SCRIPTED, load_params().formats)
        wrote = f"TorchScript file in {paths.SCRIPTED}"
        print(f"script: {paths.note(paths.SCRIPTED) or wrote}")


if __name__ == "__main__":
    main()
