"""OpenVINO with NNCF's post-training quantization of transformers.

Both execution modes of the documentation: PERFORMANCE, the default, runs what is not int8 in
bfloat16 where the processor has it, ACCURACY in float32. The file says which, in its own
`rt_info`, and :mod:`benchmarks.peers.runner` compiles it so.

https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training/basic-quantization-flow.html
https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference/precision-control.html
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.peers.recipes.common import Recipe, calibration, main


def transformer(mode: str, inputs: Path, out: Path) -> None:
    """Write ``model.xml`` and its weights, quantized by NNCF for execution mode ``mode``."""
    import nncf
    import openvino

    model = openvino.convert_model(inputs / "model.onnx")
    images = calibration(inputs)
    dataset = nncf.Dataset(images, lambda image: image[None])
    quantized = nncf.quantize(
        model,
        dataset,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=min(300, len(images)),  # 300 is NNCF's default, of as many as there are
    )
    quantized.set_rt_info(mode, ["edge_vit", "execution_mode"])
    openvino.save_model(quantized, out / "model.xml")


RECIPES: dict[str, Recipe] = {
    mode: partial(transformer, mode.upper()) for mode in ("performance", "accuracy")
}

if __name__ == "__main__":
    main(RECIPES)
