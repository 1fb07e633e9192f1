"""ONNX Runtime's own quantizer: preprocessing, then its functions with their defaults.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.recipes.common import Recipe, calibration, main


def dynamic(inputs: Path, out: Path) -> None:
    """Write ``model.onnx`` by ``quantize_dynamic``."""
    from onnxruntime.quantization import quantize_dynamic

    source = _preprocessed(inputs, out)
    quantize_dynamic(source, out / "model.onnx")
    source.unlink()


def static(inputs: Path, out: Path) -> None:
    """Write ``model.onnx`` by ``quantize_static``, calibrated on all images."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(calibration(inputs))

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {"input": image[None]}

    source = _preprocessed(inputs, out)
    quantize_static(source, out / "model.onnx", Reader())
    source.unlink()


def _preprocessed(inputs: Path, out: Path) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = out / "preprocessed.onnx"
    quant_pre_process(inputs / "model.onnx", path)
    return path


RECIPES: dict[str, Recipe] = {"dynamic": dynamic, "static": static}

if __name__ == "__main__":
    main(RECIPES)
