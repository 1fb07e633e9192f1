"""Run a delivered file on the runtime that is installed where this runs; print JSON.

It runs in other environments than edge-vit's: older PyTorch, ARM64 under an emulator. So it imports
nothing of edge-vit, and each runtime only for its own files. One thread, one image at a time.

Use: runner.py FILE INPUTS.f32 IMAGES RUNS COUNTED, inputs being float32 [n, 3, height, width]; so
many images are run for their logits, then the first of them RUNS times for its time, and COUNTED
times between two marks, at which a plugin of the emulator writes how many instructions there were.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import resource
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MARKER = 0x45564954  # see arm64/count.c; the kernel refuses it without effect elsewhere
PRIO = 0
CONTRACT = "edge_vit.contract"  # the key in an ONNX file's metadata
Run = Callable[[Any], Any]  # float32 [1, 3, height, width] -> [1, classes]
Loader = Callable[[Path], tuple[Run, dict[str, Any]]]  # and the contract; {} if there is none


def lite(path: Path) -> tuple[Run, dict[str, Any]]:
    """Load a ``.ptl`` file into PyTorch Lite, one thread."""
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    torch.set_num_threads(1)
    # Before the file is loaded: weights are packed for the engine that is set then.
    torch.backends.quantized.engine = "qnnpack"
    torch._C._set_mkldnn_enabled(False)  # Android's library has no oneDNN
    torch.set_grad_enabled(False)
    model = _load_for_lite_interpreter(str(path))
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if name.endswith("/extra/contract.json")]
        contract = json.loads(archive.read(inside[0])) if inside else {}
    return lambda image: model(torch.from_numpy(image)).numpy(), contract


def onnx(path: Path) -> tuple[Run, dict[str, Any]]:
    """Load an ``.onnx`` file into ONNX Runtime on the CPU, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    contract = json.loads(session.get_modelmeta().custom_metadata_map.get(CONTRACT, "{}"))
    name, outputs = session.get_inputs()[0].name, None
    if contract:
        name, outputs = contract["input_name"], [contract["output_name"]]
    return lambda image: session.run(outputs, {name: image})[0], contract


def executorch(path: Path) -> tuple[Run, dict[str, Any]]:
    """Load a ``.pte`` file into ExecuTorch, one thread."""
    import torch

    # The package's own import brings exporters; only this is needed to run a file.
    from executorch.extension.pybindings import _portable_lib

    _portable_lib._unsafe_reset_threadpool(1)  # others would be counted, and not exactly
    module = _portable_lib._load_for_executorch(str(path))
    beside = Path(f"{path}.contract.json")
    contract = json.loads(beside.read_text()) if beside.is_file() else {}
    return lambda image: module.forward([torch.from_numpy(image)])[0].numpy(), contract


LOADERS: dict[str, Loader] = {".ptl": lite, ".onnx": onnx, ".pte": executorch}


def answer_all(
    path: Path, inputs: Path, count: int, runs: int, counted: int, answer: dict[str, Any]
) -> None:
    """Fill ``answer`` as far as the file goes."""
    started = time.perf_counter()
    run, contract = LOADERS[path.suffix](path)
    if not contract:
        raise ValueError(f"{path.name} has no contract")
    answer["load_ms"] = ms_since(started)
    answer["loads"] = True
    images = np.fromfile(inputs, "<f4").reshape(-1, *contract["input_shape"])
    rows = []
    for image in images[:count]:
        started = time.perf_counter()
        rows.append(np.array(run(image))[0])
        answer.setdefault("first_ms", ms_since(started))
    answer["logits"] = [
        [float(str(value)) if math.isfinite(value) else None for value in row] for row in rows
    ]
    answer["runs"] = True
    answer["runs_ms"] = []
    for _ in range(runs):
        started = time.perf_counter()
        run(images[0])
        answer["runs_ms"].append(ms_since(started))
    if counted:
        gc.disable()  # a collection in one of them would be counted
        run(images[0])  # settles the allocator
    for _ in range(counted):
        mark()
        run(images[0])
        mark()


def mark() -> None:
    """Make the system call at which the emulator's plugin writes its count."""
    LIBC.getpriority(MARKER, PRIO)


def ms_since(started: float) -> float:
    """Return the milliseconds since ``started``, of ``time.perf_counter()``."""
    return (time.perf_counter() - started) * 1e3


LIBC = ctypes.CDLL(None)


def main() -> None:
    """Run the file that the command line names and print its answers as JSON."""
    path, inputs, *numbers = sys.argv[1:]
    count, runs, counted = map(int, numbers)
    answer: dict[str, Any] = {"loads": False, "runs": False, "error": None, "logits": None}
    try:
        answer_all(Path(path), Path(inputs), count, runs, counted, answer)
    except Exception as error:  # whatever stops the file is the finding
        answer["error"] = str(error).strip() or repr(error)
    # Under an emulator this is the emulator's, which holds the program and its translation.
    answer["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
