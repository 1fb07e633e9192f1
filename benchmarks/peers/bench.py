"""Measure our files and the peers' in the same way, and gather the evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.peers import environment, inputs, latency, stages
from benchmarks.peers.peers import BY_NAME, RUNTIMES, ComparedFile, Peer, compared_files
from device_tests import cache
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import EdgeVitError, InputError, IntegrityError
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.reference import load_reference
from pipeline.evidence.seal import SCHEMA
from pipeline.files import sha256_file
from pipeline.images.samples import SampleSet
from pipeline.metrics.logits import logits_sha256
from pipeline.metrics.measures import FloatComparison, against_float
from pipeline.paths import delivered_file
from pipeline.process import cores
from pipeline.progress import progress

KIND = "peers"


@dataclass
class Entry:
    """What was measured of one file."""

    file: ComparedFile
    path: Path | None = None
    size_bytes: int | None = None
    measured: FloatComparison | None = None
    logits_sha256: str | None = None
    instructions: list[int] = field(default_factory=list)
    runs_ms: list[float] = field(default_factory=list)
    error: str | None = None  # what stopped it, and in which phase
    instructions_error: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # of each phase

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence of the file as JSON values."""
        return {
            "key": self.file.key,
            "label": self.file.label,
            "counterpart": self.file.counterpart,
            "runtime": self.file.runtime.peer,
            "file": self.path and self.path.name,
            "sha256": self.path and sha256_file(self.path),
            "size_bytes": self.size_bytes,
            "measured": self.measured and self.measured.model_dump(),
            "logits_sha256": self.logits_sha256,
            "instructions": self.instructions,
            "runs_ms": self.runs_ms,
            "error": self.error,
            "instructions_error": self.instructions_error,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Inputs:
    """What all files are made from, run on and compared with."""

    source: Path  # the folder for recipes
    inputs: Path  # float32 [n, 3, H, W]
    samples: SampleSet
    logits: stages.Logits  # float's, [n, classes]
    noise_floor: float


def bench(peers: Sequence[Peer], artifacts: Path, rounds: int) -> dict[str, Any]:
    """Measure peers and the files of ours that they are compared with; return the evidence.

    Raises:
        InputError: a file of the run is missing; the message says how to make it.
        IntegrityError: reference, samples and checkpoint do not belong together.
    """
    if not (artifacts / "reference" / "reference.json").is_file():
        raise InputError(f"{artifacts} has no run to compare with; run `make verdict` first")
    entries = [Entry(file) for file in compared_files(peers)]
    for entry in entries:
        if entry.file.peer is None:
            entry.path = delivered_file(artifacts, entry.file.counterpart)
    common = _inputs(artifacts)
    for entry in progress(entries, desc="environments", unit="file"):
        _try(entry, "install", partial(stages.install, entry.file))
    with ThreadPoolExecutor(cores()) as pool:
        each = pool.map(lambda entry: _measure(entry, common), entries)
        for entry in progress(each, desc="files", unit="file", total=len(entries)):
            tqdm.write(_durations(entry))
    started = time.perf_counter()
    _time([entry for entry in entries if not entry.error], common.inputs, rounds)
    print(f"timing: {time.perf_counter() - started:.0f} s")
    checkpoint = artifacts / "checkpoint" / MODEL_FILE
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "threads": 1,
        "rounds": rounds,
        "samples": {"sha256": common.samples.sha256, "count": len(common.samples)},
        "checkpoint_sha256": sha256_file(checkpoint),
        "float_size_bytes": checkpoint.stat().st_size,
        "entries": [entry.to_dict() for entry in entries],
        "environments": {
            name: environment.versions(BY_NAME[name].lock)
            for name in sorted({entry.file.runtime.peer for entry in entries})
        },
        "environments_arm64": {
            suffix: environment.versions(runtime.arm64)
            for suffix, runtime in RUNTIMES.items()
            if any(entry.file.suffix == suffix for entry in entries)
        },
        "machine": fingerprint(),
    }


def _inputs(artifacts: Path) -> Inputs:
    samples = SampleSet.load(artifacts / "samples")
    logits, description = load_reference(artifacts / "reference")
    recorded = (description.samples_sha256, description.checkpoint_sha256)
    if recorded != (samples.sha256, sha256_file(artifacts / "checkpoint" / MODEL_FILE)):
        raise IntegrityError(
            f"{artifacts / 'reference'} was taken on other samples or another checkpoint; "
            "run `dvc repro reference`"
        )
    folder = cache.folder("peers")
    return Inputs(
        source=inputs.prepare(artifacts, folder / "inputs-of-peers"),
        inputs=inputs.evaluation(artifacts, folder / "inputs"),
        samples=samples,
        logits=logits,
        noise_floor=description.noise_floor.max_abs,
    )


def _measure(entry: Entry, common: Inputs) -> Entry:
    _try(entry, "export", partial(_export, entry, common))
    _try(entry, "answers", partial(_answers, entry, common))
    _try(entry, "instructions", partial(_count, entry, common))
    return entry


def _durations(entry: Entry) -> str:
    phases = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in entry.seconds.items())
    return f"{entry.file.key}: {phases}{'; failed' if entry.error else ''}"


def _try(entry: Entry, phase: str, action: Callable[[], None]) -> None:
    """Do what a phase does, unless one before it failed; a failure is a result."""
    if entry.error:
        return
    started = time.perf_counter()
    try:
        action()
    except EdgeVitError as error:
        entry.error = f"{phase}: {error}"
    entry.seconds[phase] = round(time.perf_counter() - started, 1)


def _export(entry: Entry, common: Inputs) -> None:
    if entry.path is None:
        entry.path = stages.export(entry.file, common.source)
    entry.size_bytes = stages.size_bytes(entry.file, entry.path)


def _answers(entry: Entry, common: Inputs) -> None:
    assert entry.path
    logits = stages.answers(entry.file, entry.path, common.inputs)
    if logits.shape != common.logits.shape:
        raise InputError(f"answers are {logits.shape}, float's are {common.logits.shape}")
    entry.logits_sha256 = logits_sha256(logits)
    measured = against_float(common.logits, logits, common.samples.labels, common.noise_floor)
    if not isinstance(measured, FloatComparison):
        raise InputError("answers hold NaN or infinity")
    entry.measured = measured


def _count(entry: Entry, common: Inputs) -> None:
    assert entry.path
    try:
        entry.instructions = stages.instructions(entry.file, entry.path, common.inputs)
    except EdgeVitError as error:
        entry.instructions_error = str(error)


def _time(entries: list[Entry], inputs: Path, rounds: int) -> None:
    if not rounds:
        return
    files = {e.file.key: (stages.lock(e.file), e.path) for e in entries if e.path}
    times, failed = latency.measure(files, inputs, rounds)
    for entry in entries:
        entry.runs_ms = times.get(entry.file.key, [])
        if reason := failed.get(entry.file.key):
            entry.error = f"timing: {reason}"
