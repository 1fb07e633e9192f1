"""OpenVINO with NNCF's post-training quantization of transformers.

https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training/basic-quantization-flow.html
"""

from __future__ import annotations

from pathlib import Path

from device_tests.peers.recipes.common import Recipe, calibration, main


def transformer(given: Path, out: Path) -> None:
    import nncf
    import openvino

    model = openvino.convert_model(given / "model.onnx")
    images = calibration(given)
    dataset = nncf.Dataset(images, lambda image: image[None])
    quantized = nncf.quantize(
        model,
        dataset,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=min(300, len(images)),  # 300 is NNCF's default, of as many as there are
    )
    openvino.save_model(quantized, out / "model.xml")


RECIPES: dict[str, Recipe] = {"transformer": transformer}

if __name__ == "__main__":
    main(RECIPES)
