"""Record the float model on a GPU as the reference baseline.

Runs where there is nothing but torch (2.1 or newer), timm, numpy, pillow, safetensors and click, on
the folders `checkpoint` and `samples` of a run; see docs/baseline.md. Float32 with TF32 off, so
that the answers are float's and not a faster format's.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.commands.common import COUNT, PATH, command
from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.errors import InputError
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.seal import SCHEMA, seal
from pipeline.files import atomic, sha256_file, write_json
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.metrics.logits import Logits, answers, logits_sha256

if TYPE_CHECKING:
    import torch

BATCHES = (1, 8, 32, 64)
LOGITS_BATCH = 32
PROBE = 64  # samples on which equally correct runs are compared
WARMUP = 20
THROUGHPUT_RUNS = 30
LOGITS_BYTES_MAX = 1 << 20  # a record goes into git


@dataclass(frozen=True)
class Options:
    """What a user may choose; times are of one image unless said otherwise."""

    device: str = "cuda"  # or "cpu", recorded as such
    checkpoint: Path = paths.CHECKPOINT
    samples: Path = paths.SAMPLES
    out: Path = paths.BASELINES
    runs: int = 1000
    batches: tuple[int, ...] = BATCHES
    replace: bool = False


USUAL = Options()


def baseline(options: Options) -> Path:
    """Measure the float model and write its record; return the record's folder.

    Raises:
        InputError: no such device, a record that is there already, or inputs that are missing.
        IntegrityError: the samples were changed.
    """
    import torch

    device = _device(options.device)
    contract = load_contract(options.checkpoint)
    about = _about(device)
    out = options.out / _slug(about["name"]) / contract.name
    if out.exists() and not options.replace:
        raise InputError(f"{out} exists; give --replace to record it again")
    samples = SampleSet.load(options.samples)
    samples.verify()
    with _exact(torch):
        measured = _measure(device, options, contract, samples)
    rows = max(PROBE, LOGITS_BYTES_MAX // (4 * contract.outputs))
    logits = measured.pop("logits")
    stored = logits[:rows]
    record = seal(
        {
            "kind": "baseline",
            "schema": SCHEMA,
            "device": about,
            "checkpoint_sha256": sha256_file(options.checkpoint / MODEL_FILE),
            "samples_sha256": samples.sha256,
            "samples_count": len(samples),
            "preprocessing": contract.preprocessing.to_dict(),
            "tf32": False,
            "accuracy": _accuracy(answers(logits, contract.threshold), samples),
            "logits_sha256": logits_sha256(stored),
            "logits_count": len(stored),
            "machine": fingerprint()
            | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
            "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
            **measured,
        }
    )
    with atomic(out) as new:
        new.mkdir()
        np.save(new / paths.BASELINE_LOGITS, stored)
        write_json(new / paths.BASELINE_RECORD, record)
    return out


def _measure(
    device: torch.device, options: Options, contract: Contract, samples: SampleSet
) -> dict[str, Any]:
    import torch

    from pipeline.quantization.load import load_model

    model, _ = load_model(options.checkpoint / MODEL_FILE)
    model = model.to(device)
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)

    def run(batch: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = model(batch)
        return answer

    def inputs(first: int, count: int) -> torch.Tensor:
        chosen = np.arange(first, first + count) % len(samples)
        return torch.from_numpy(normalize(samples.images[chosen], contract.preprocessing))

    def classify(count: int, batch: int, double: bool = False) -> Logits:
        logits = []
        for first in range(0, count, batch):
            pixels = inputs(first, min(batch, count - first)).to(device)
            logits.append(run(pixels.double() if double else pixels).float().cpu().numpy())
            _show("logits", first + batch, count)
        return np.concatenate(logits)

    try:
        with torch.inference_mode():
            logits = classify(len(samples), LOGITS_BATCH)
            probe = min(PROBE, len(samples))
            others = {"one at a time": classify(probe, 1), "batch of 8": classify(probe, 8)}
            latency = _time(device, run, [inputs(i, 1).to(device) for i in range(16)], options.runs)
            throughput = [
                _throughput(device, run, inputs(0, batch).to(device)) for batch in options.batches
            ]
            model.double()
            others["float64"] = classify(probe, 8, double=True)
    finally:
        torch.set_num_threads(threads)
    differences = {key: float(np.abs(rows - logits[:probe]).max()) for key, rows in others.items()}
    return {
        "logits": logits,
        "noise_floor": {
            "max_abs": max(differences.values()),
            "count": probe,
            "runs": differences,
        },
        "latency": {"runs_ms": latency},
        "throughput": [row for row in throughput if row],
        "threads": 1 if device.type == "cpu" else None,
    }


def _time(
    device: torch.device,
    run: Callable[[torch.Tensor], torch.Tensor],
    batches: list[torch.Tensor],
    runs: int,
) -> list[float]:
    """Milliseconds of each run after warm-up; batches lie on the device and take turns."""
    clock = _cuda_ms if device.type == "cuda" else _cpu_ms
    times = []
    for number in range(WARMUP + runs):
        elapsed = clock(run, batches[number % len(batches)])
        if number >= WARMUP:
            times.append(round(elapsed, 5))
        _show("latency", number + 1, WARMUP + runs)
    return times


def _throughput(
    device: torch.device, run: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor
) -> dict[str, Any] | None:
    """Images a second at one batch size; None, and said, if the memory is too small for it."""
    import torch

    try:
        times = _time(device, run, [batch], THROUGHPUT_RUNS)
    except torch.cuda.OutOfMemoryError:
        print(f"baseline: a batch of {len(batch)} does not fit this GPU's memory", file=sys.stderr)
        return None
    median = float(np.median(times))
    return {
        "batch": len(batch),
        "images_per_s": round(1e3 * len(batch) / median, 1),
        "runs_ms": times,
    }


def _cpu_ms(run: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> float:
    started = time.perf_counter()
    run(batch)
    return (time.perf_counter() - started) * 1e3


def _cuda_ms(run: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run(batch)
    end.record()
    torch.cuda.synchronize()
    elapsed: float = start.elapsed_time(end)
    return elapsed


@contextmanager
def _exact(torch: Any) -> Iterator[None]:
    """Float32 as float32: no TF32 in products and convolutions."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (torch.get_float32_matmul_precision(), matmul.allow_tf32, cudnn.allow_tf32)
    torch.set_float32_matmul_precision("highest")
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        matmul.allow_tf32, cudnn.allow_tf32 = before[1:]


def _device(kind: str) -> torch.device:
    import torch

    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "this machine has no GPU that PyTorch can use; run on one that has, or give "
            "--device cpu for a record that says so (it never counts as the reference)"
        )
    return torch.device(kind)


def _about(device: torch.device) -> dict[str, Any]:
    import torch

    if device.type == "cpu":
        return {"kind": "cpu", "name": fingerprint()["processor"]}
    properties = torch.cuda.get_device_properties(device)
    return {
        "kind": "cuda",
        "name": properties.name,
        "driver": _driver(),
        "memory_mb": properties.total_memory // 1_000_000,
        "compute_capability": f"{properties.major}.{properties.minor}",
    }


def _driver() -> str | None:
    """The NVIDIA driver's version, as the kernel tells it; None where it does not."""
    try:
        version = re.search(
            r"Kernel Module.*?\s(\d+\.[\d.]+)", Path("/proc/driver/nvidia/version").read_text()
        )
    except OSError:
        return None
    return version[1] if version else None


def _accuracy(answered: NDArray[np.int64], samples: SampleSet) -> dict[str, int] | None:
    if samples.labels is None:
        return None
    return {"right": int((answered == samples.labels).sum()), "count": len(samples)}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _show(words: str, done: int, total: int) -> None:
    """A line on a terminal; tqdm need not be on a GPU box."""
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{words}: {min(done, total)} of {total}", end=end, file=sys.stderr, flush=True)


def _batches(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...]:
    """Read sizes such as 1,8,32."""
    return tuple(COUNT(part, param, ctx) for part in text.split(","))


@command("baseline", __doc__)
@click.option("--device", type=click.Choice(("cuda", "cpu")), default=USUAL.device)
@click.option("--checkpoint", type=PATH, default=USUAL.checkpoint, help="Folder of a run.")
@click.option("--samples", type=PATH, default=USUAL.samples, help="Folder of a run.")
@click.option("--out", type=PATH, default=USUAL.out, help="Where records are.")
@click.option("--runs", type=COUNT, default=USUAL.runs, help="Timed inferences.")
@click.option(
    "--batches",
    default=",".join(map(str, USUAL.batches)),
    callback=_batches,
    help="Batch sizes for throughput.",
)
@click.option("--replace", is_flag=True, help="Replace an older record of this device.")
def main(**options: Any) -> None:
    """Record the float baseline of this machine."""
    print(f"recorded {baseline(Options(**options))}; look at it and commit it")


if __name__ == "__main__":
    main()
