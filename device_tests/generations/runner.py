"""Run a .ptl in an older PyTorch's Lite interpreter; print what it answered as JSON.

Runs in that PyTorch's own environment, so it imports nothing of edge-vit.

Use: runner.py MODEL.ptl INPUTS.f32 RUNS, inputs being float32 [n, 3, height, width]
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
import zipfile
from typing import Any

import numpy as np
import torch
from torch.jit.mobile import _load_for_lite_interpreter

EXTRA = "contract.json"


def run(path: str, inputs: str, runs: int, answer: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "qnnpack"
    torch._C._set_mkldnn_enabled(False)  # Android's library has no oneDNN

    started = time.perf_counter()
    model = _load_for_lite_interpreter(path)
    answer["load_ms"] = ms_since(started)
    answer["loads"] = True

    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(f"/extra/{EXTRA}")]
        shape = json.loads(archive.read(names[0]))["input_shape"]
    images = torch.from_numpy(np.fromfile(inputs, "<f4").reshape(-1, *shape))
    rows = []
    with torch.no_grad():
        for image in images:
            started = time.perf_counter()
            rows.append(model(image)[0].tolist())
            answer.setdefault("first_ms", ms_since(started))
        answer["logits"] = [[v if math.isfinite(v) else None for v in row] for row in rows]
        answer["runs"] = True
        for _ in range(runs):
            started = time.perf_counter()
            model(images[0])
            answer.setdefault("runs_ms", []).append(ms_since(started))


def ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    path, inputs, runs = sys.argv[1:]
    answer: dict[str, Any] = {"loads": False, "runs": False, "error": None, "logits": None}
    try:
        run(path, inputs, int(runs), answer)
    except Exception as error:  # whatever stops the file is the finding
        answer["error"] = str(error).strip() or repr(error)
    answer["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
