"""Hugging Face Optimum's presets for ONNX Runtime, with their defaults.

https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/quantization
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers.recipes.common import Recipe, calibration, main

PRESETS = ("arm64",)  # "avx512_vnni" gives the same bytes (optimum-onnx 0.1.0)


def quantize(preset: str, is_static: bool, inputs: Path, out: Path) -> None:
    """Write the ONNX file that Optimum's ``preset`` makes."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    config = getattr(AutoQuantizationConfig, preset)(is_static=is_static)
    quantizer = ORTQuantizer.from_pretrained(inputs, file_name="model.onnx")
    with TemporaryDirectory() as scratch:
        ranges = _ranges(quantizer, config, inputs, Path(scratch)) if is_static else None
        quantizer.quantize(config, save_dir=out, calibration_tensors_range=ranges)
    for path in out.glob("*.json"):
        path.unlink()  # optimum's own record, which no device needs


def _ranges(quantizer: Any, config: Any, inputs: Path, scratch: Path) -> Any:
    from datasets import Dataset
    from optimum.onnxruntime.configuration import AutoCalibrationConfig

    images = calibration(inputs)
    dataset = Dataset.from_generator(
        lambda: ({"input": image} for image in images), cache_dir=str(scratch)
    )
    return quantizer.fit(
        dataset=dataset,
        calibration_config=AutoCalibrationConfig.minmax(dataset),
        onnx_augmented_model_name=scratch / "augmented.onnx",
        operators_to_quantize=config.operators_to_quantize,
    )


RECIPES: dict[str, Recipe] = {
    f"{preset}_{word}": partial(quantize, preset, word == "static")
    for preset in PRESETS
    for word in ("dynamic", "static")
}

if __name__ == "__main__":
    main(RECIPES)
