"""Static int8 of an ONNX file: convolutions and products with weights, ranges from images.

ONNX Runtime's own calibrators take the extremes of each value, or cut by percentile or entropy; all
lose far more than a search (docs/adr/0020). The search is that of the ``.ptl``; the quantizer is
ONNX Runtime's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.quantization.ranges import JUDGED, Histogram, Range, choose

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

OPERATORS = ("MatMul", "Gemm", "Conv")
BATCH = 32  # images at once


def quantize(source: Path, target: Path, kept: Iterable[str], images: NDArray[np.float32]) -> None:
    """Write ``target``: the float file ``source`` in QDQ format, but for the nodes ``kept``.

    ``images`` are model input, float32 [n, 3, H, W]. Weights are int8 with a scale for each output,
    values uint8; products of two values, as in attention, stay in float.
    """
    import onnx

    kept = list(kept)
    model = onnx.load(source)
    given, answer = model.graph.input[0].name, model.graph.output[0].name
    seen, answers = _watch(model, images)
    judged, expected = images[:JUDGED], answers[:JUDGED]
    example = {given: images[:1]}

    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        tried = Path(folder) / target.name

        def error(ranges: dict[str, Range]) -> float:
            _convert(source, tried, kept, ranges, example)
            session = _session(str(tried))
            logits = [session.run([answer], {given: image[None]})[0] for image in judged]
            return float(np.square(np.concatenate(logits) - expected).sum())

        ranges = choose(seen, error)
    _convert(source, target, kept, ranges, example)


def _convert(
    source: Path,
    target: Path,
    kept: list[str],
    ranges: Mapping[str, Range],
    example: dict[str, NDArray[np.float32]],
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        source,
        target,
        _reader(example),  # is asked for even if every range is given
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=list(OPERATORS),
        nodes_to_exclude=kept,
        extra_options={
            "MatMulConstBOnly": True,
            "TensorQuantOverrides": {name: [_override(known)] for name, known in ranges.items()},
        },
    )


def _watch(
    model: onnx.ModelProto, images: NDArray[np.float32]
) -> tuple[dict[str, Histogram], NDArray[np.float32]]:
    """Run images [n, 3, H, W]; return what each input and output of a layer holds, and the answers.

    ``model`` gets those values as outputs.
    """
    import onnx
    import torch

    seen = {name: Histogram() for name in _values(model)}
    given, answer = model.graph.input[0].name, model.graph.output[0].name
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in sorted(seen.keys() - {given, answer})
    )
    names = sorted({*seen, answer} - {given})
    session = _session(model.SerializeToString(), fused=False)  # fused values cannot be asked for

    def look(see: Callable[[Histogram, torch.Tensor], None]) -> NDArray[np.float32]:
        answers = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            values = dict(zip(names, session.run(names, {given: batch}), strict=True))
            answers.append(values[answer])
            for name, known in seen.items():
                see(known, torch.from_numpy(values.get(name, batch)))
        return np.concatenate(answers)

    look(Histogram.extend)
    return seen, look(Histogram.count)


def _session(model: str | bytes, fused: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


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


def _reader(example: dict[str, NDArray[np.float32]]) -> CalibrationDataReader:
    from onnxruntime.quantization import CalibrationDataReader

    class One(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter([example])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.rest, None)

    return One()
