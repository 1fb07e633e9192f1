"""Static int8 of an ONNX file: convolutions and products with weights, ranges from images.

ONNX Runtime's own calibrators take the extremes of each value, or cut by percentile or entropy; all
lose far more than a search for the least squared error (docs/adr/0020). The search here is
PyTorch's, as for the ``.ptl``; the quantizer is ONNX Runtime's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    from pipeline.support.static import Range

OPERATORS = ("MatMul", "Gemm", "Conv")
BATCH = 32  # images at once


def quantize(source: Path, target: Path, kept: Iterable[str], images: NDArray[np.float32]) -> None:
    """Write ``target``: the float file ``source`` in QDQ format, but for the nodes ``kept``.

    ``images`` are model input, float32 [n, 3, H, W]. Weights are int8 with a scale for each output,
    values uint8; products of two values, as in attention, stay in float.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(source)
    given = model.graph.input[0].name
    ranges = calibrated(model, images)
    quantize_static(
        source,
        target,
        _reader(given, images[:1]),  # asks for images even if every range is given
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=list(OPERATORS),
        nodes_to_exclude=list(kept),
        extra_options={
            "MatMulConstBOnly": True,
            "TensorQuantOverrides": {name: [_override(known)] for name, known in ranges.items()},
        },
    )


def calibrated(model: onnx.ModelProto, images: NDArray[np.float32]) -> dict[str, Range]:
    """Run float32 images [n, 3, H, W]; return the range of each input and output of a layer.

    ``model`` gets those values as outputs.
    """
    import onnx
    import onnxruntime
    import torch
    from tqdm import tqdm

    from pipeline.support.static import histogram, range_of

    observers = {name: histogram() for name in _values(model)}
    given = model.graph.input[0].name
    inner = observers.keys() - {given, *(value.name for value in model.graph.output)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(inner))
    options = onnxruntime.SessionOptions()
    # Fusing would remove values that are asked for.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = sorted(observers.keys() - {given})
    starts = range(0, len(images), BATCH)
    for start in tqdm(starts, desc="calibration", unit="batch", disable=None):
        batch = images[start : start + BATCH]
        values = dict(zip(names, session.run(names, {given: batch}), strict=True))
        for name, observer in observers.items():
            observer(torch.from_numpy(values.get(name, batch)))
    return {name: range_of(observer) for name, observer in observers.items()}


def _values(model: onnx.ModelProto) -> set[str]:
    """Names of what goes into each layer and what comes out of it."""
    weights = {array.name for array in model.graph.initializer}
    layers = [
        node for node in model.graph.node if node.op_type in OPERATORS and node.input[1] in weights
    ]
    return {name for node in layers for name in (node.input[0], node.output[0])}


def _override(known: Range) -> dict[str, NDArray[np.generic]]:
    return {
        "scale": np.array(known.scale, np.float32),
        "zero_point": np.array(known.zero_point, np.uint8),
    }


def _reader(name: str, images: NDArray[np.float32]) -> CalibrationDataReader:
    from onnxruntime.quantization import CalibrationDataReader

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.rest, None)
            return None if image is None else {name: image[None]}

    return Images()
