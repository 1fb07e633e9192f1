"""Stage ``latency``: how long each file takes for one image on this machine, beside float.

All files are loaded in one process and take turns on the same real image (GELU's time depends on
its input), so that what disturbs the machine disturbs all of them, and ratios hold where
milliseconds do not. Load time and first inference, which repacks weights, are kept apart.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.core.errors import IntegrityError, exit_on_error
from pipeline.core.evidence import SCHEMA, seal
from pipeline.core.params import Latency, load_params
from pipeline.runtimes import FloatArray, Runtime, load
from pipeline.support import paths
from pipeline.support.files import atomic, sha256_file, write_json, write_text
from pipeline.support.images import SampleSet, normalize
from pipeline.support.machine import fingerprint

EVIDENCE_FILE = "evidence.json"
METRICS_FILE = "metrics.json"
PLOT_FILE = "latency.csv"
FLOAT = "float"


def latency(params: Latency, artifacts: Path, out: Path) -> None:
    """Time the files below ``artifacts`` and the float model, and write folder ``out``."""
    files = {
        FLOAT: artifacts / "checkpoint" / "model.safetensors",
        **paths.delivered_files(artifacts),
    }
    hashes = {key: sha256_file(path) for key, path in files.items()}
    samples = SampleSet.load(artifacts / "samples")

    runtimes: dict[str, Runtime] = {}
    measured: dict[str, dict[str, Any]] = {}
    for key, path in files.items():
        started = time.perf_counter()
        runtimes[key] = load(path, threads=params.threads)
        measured[key] = {"file": path.name, "sha256": hashes[key], "load_ms": _ms_since(started)}
    images = _images(samples, runtimes[FLOAT], params.warmup + params.runs + 1)
    for key, runtime in runtimes.items():
        measured[key]["first_ms"] = _time(runtime, images[0])

    rounds = _interleave(runtimes, images[1:], params.warmup)
    if {key: sha256_file(path) for key, path in files.items()} != hashes:
        raise IntegrityError("a file was replaced while it was timed; run `dvc repro latency`")
    for key in files:
        measured[key]["runs_ms"] = [round(value, 4) for value in rounds[key]]
    evidence = {
        "kind": "latency",
        "schema": SCHEMA,
        "samples_sha256": samples.sha256,
        "threads": params.threads,
        "warmup": params.warmup,
        "artefacts": measured,
        "peak_rss_mb": round(_peak_rss_mb(), 1),
        "machine": fingerprint(),
    }
    with atomic(out) as new:
        new.mkdir()
        write_json(new / EVIDENCE_FILE, seal(evidence))
        write_json(
            new / METRICS_FILE,
            {key: {"p50_ms": round(float(np.median(rounds[key])), 3)} for key in files},
        )
        lines = [f"{key},{i},{ms:.4f}" for key in files for i, ms in enumerate(rounds[key])]
        write_text(new / PLOT_FILE, "\n".join(["file,run,latency_ms", *lines]) + "\n")


def _images(samples: SampleSet, runtime: Runtime, count: int) -> list[FloatArray]:
    chosen = np.arange(count) % len(samples)
    return [normalize(samples.images[i : i + 1], runtime.contract.preprocessing) for i in chosen]


def _interleave(
    runtimes: dict[str, Runtime], images: list[FloatArray], warmup: int
) -> dict[str, list[float]]:
    """Let the files take turns; return milliseconds by file, without the warm-up rounds."""
    rounds: dict[str, list[float]] = {key: [] for key in runtimes}
    rng = np.random.default_rng(0)
    for number, image in enumerate(tqdm(images, desc="latency", unit="round")):
        # A new order each round, so that nobody always inherits the same neighbour's caches.
        for key in rng.permutation(list(runtimes)).tolist():
            elapsed = _time(runtimes[key], image)
            if number >= warmup:
                rounds[key].append(elapsed)
    return rounds


def _time(runtime: Runtime, image: FloatArray) -> float:
    started = time.perf_counter()
    runtime.logits(image)
    return _ms_since(started)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def _peak_rss_mb() -> float:
    """Peak resident memory of this process, all files and Python together, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def main() -> None:
    with exit_on_error():
        latency(load_params().latency, paths.ARTIFACTS, paths.LATENCY)


if __name__ == "__main__":
    main()
