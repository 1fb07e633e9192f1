"""LiteRT: litert-torch converts, ai-edge-quantizer quantizes by its ready-made recipes.

https://github.com/google-ai-edge/litert-torch and https://github.com/google-ai-edge/ai-edge-quantizer
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.recipes.common import Recipe, calibration, main, torch_model


def dynamic(inputs: Path, out: Path) -> None:
    """Write ``model.tflite`` with int8 weights and float activations."""
    from ai_edge_quantizer import quantizer, recipe

    source = _converted(inputs, out)
    quantize = quantizer.Quantizer(str(source))
    quantize.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    quantize.quantize().export_model(str(out / "model.tflite"))
    source.unlink()


def static(inputs: Path, out: Path) -> None:
    """Write ``model.tflite`` with int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.utils import tfl_interpreter_utils as tools

    source = _converted(inputs, out)
    (signature,) = tools.create_tfl_interpreter(str(source)).get_signature_list().items()
    (name,) = signature[1]["inputs"]
    quantize = quantizer.Quantizer(str(source))
    quantize.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = quantize.calibrate({signature[0]: [{name: i[None]} for i in calibration(inputs)]})
    quantize.quantize(ranges).export_model(str(out / "model.tflite"))
    source.unlink()


def _converted(inputs: Path, out: Path) -> Path:
    import litert_torch

    path = out / "float.tflite"
    model, example = torch_model(inputs)
    litert_torch.convert(model, example).export(str(path))
    return path


RECIPES: dict[str, Recipe] = {"dynamic": dynamic, "static": static}

if __name__ == "__main__":
    main(RECIPES)
