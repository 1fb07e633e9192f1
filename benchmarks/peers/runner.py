"""Run one file in the environment of its runtime: for its answers, its time or its instructions.

It imports nothing of edge-vit but `runner`, which imports nothing at all. One thread, one image at
a time; our files and peers' go through the same lines.

Use: python -m benchmarks.peers.runner answer FILE INPUTS.npy OUT.npy
     python -m benchmarks.peers.runner count FILE INPUTS.npy RUNS
     python -m benchmarks.peers.runner serve FILE INPUTS.npy

INPUTS.npy is float32 [n, 3, height, width]. `answer` writes logits float32 [n, classes]. `count`
runs the first input between marks, at which the emulator's plugin writes how many instructions
there were. `serve` loads the file, says "ready", then takes one line with the number of an input at
a time and answers with the milliseconds of that inference.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from device_tests.runner import LOADERS, Loader, Run, mark, ms_since


def openvino(path: Path) -> tuple[Run, dict[str, Any]]:
    """Load an OpenVINO network in the execution mode that it names."""
    from openvino import Core

    core = Core()
    network = core.read_model(path)
    # By default float layers are run in bfloat16 where the processor has it; see the recipe.
    mode = network.get_rt_info(["edge_vit", "execution_mode"]).value
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    model = core.compile_model(network, "CPU", options | {"EXECUTION_MODE_HINT": mode})
    return lambda image: model(image)[0], {}


def litert(path: Path) -> tuple[Run, dict[str, Any]]:
    """Load a ``.tflite`` file; integer inputs and outputs are converted from and to float32."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image: Any) -> Any:
        interpreter.set_tensor(into["index"], _quantized(image, into))
        interpreter.invoke()
        return _dequantized(interpreter.get_tensor(out["index"]), out)

    return run, {}


def _quantized(image: Any, details: Any) -> Any:
    """The input as the file takes it: integers, where its quantizer made its ends so."""
    if details["dtype"] == np.float32:
        return image
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    steps = np.clip(np.round(image / scale) + zero, limits.min, limits.max)
    return steps.astype(details["dtype"])


def _dequantized(answer: Any, details: Any) -> Any:
    if details["dtype"] == np.float32:
        return answer
    scale, zero = details["quantization"]
    return (answer.astype(np.float32) - zero) * np.float32(scale)


ALL: dict[str, Loader] = {**LOADERS, ".xml": openvino, ".tflite": litert}


def answer(run: Run, inputs: Any, out: Path) -> None:
    """Write the logits of ``inputs`` (float32 [n, 3, H, W]) to ``out``: float32 [n, classes]."""
    rows = [np.array(run(np.ascontiguousarray(image[None])))[0] for image in inputs]
    np.save(out, np.stack(rows).astype(np.float32))


def count(run: Run, image: Any, runs: int) -> None:
    """Run one image ``runs`` times between marks, after a warm-up."""
    gc.disable()  # a collection in one of them would be counted
    for _ in range(2):  # packs weights, then settles the allocator
        run(image)
    for _ in range(runs):
        mark()
        run(image)
        mark()


def serve(run: Run, inputs: Any, replies: TextIO) -> None:
    """Time the input whose number each line of standard input has; reply in milliseconds."""
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        image = np.ascontiguousarray(inputs[int(line)][None])
        started = time.perf_counter()
        np.array(run(image))  # a lazy answer is waited for
        print(ms_since(started), file=replies, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Do what the first argument says; see the module."""
    # Runtimes greet on stdout; replies have it for themselves.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    what, path, source, *rest = arguments
    run, _ = ALL[Path(path).suffix](Path(path))
    inputs = np.load(source, mmap_mode="r")
    if what == "answer":
        answer(run, inputs, Path(rest[0]))
    elif what == "count":
        count(run, np.ascontiguousarray(inputs[:1]), int(rest[0]))
    else:
        serve(run, inputs, replies)


if __name__ == "__main__":
    main(sys.argv[1:])
