"""A recipe as peers have them, that needs nothing installed: small networks, sound or not."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.peers.recipes.common import main

SIZE, CLASSES = 8, 6


def write_model(path: Path, classes: int = CLASSES, scale: float = 1.0) -> None:
    """An ONNX file: the mean of each channel, times a matrix."""
    weights = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "small",
        [helper.make_tensor_value_info("input", 1, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", 1, [1, classes])],
        [numpy_helper.from_array(weights * np.float32(scale), "weights")],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def sound(inputs: Path, out: Path) -> None:
    shutil.copyfile(inputs / "model.onnx", out / "model.onnx")
    (out / "weights.bin").write_bytes(bytes(1000))
    with (Path(os.environ["CALLS"])).open("a") as calls:
        calls.write("sound\n")


def broken(inputs: Path, out: Path) -> None:
    raise ValueError("this operator is not known")


def written(scale: float, classes: int, inputs: Path, out: Path) -> None:
    write_model(out / "model.onnx", classes, scale)


def nothing(inputs: Path, out: Path) -> None: ...


def truncated(inputs: Path, out: Path) -> None:
    (out / "model.onnx").write_bytes((inputs / "model.onnx").read_bytes()[:100])


if __name__ == "__main__":
    main(
        {
            "sound": sound,
            "broken": broken,
            "nan": partial(written, float("nan"), CLASSES),
            "classes": partial(written, 1.0, CLASSES + 1),
            "nothing": nothing,
            "truncated": truncated,
        }
    )
