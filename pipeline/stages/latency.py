"""Stage ``latency``: how long each file takes for one image on this machine, beside float.

All files are loaded in one process and take turns on the same real image (GELU's time depends on
its input), so that what disturbs the machine disturbs all of them, and ratios hold where
milliseconds do not. Files of the last release take their turns, too. Load time and first inference,
which repacks weights, are kept apart; memory is measured in a process for each file.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.contract.files import load_contract
from pipeline.errors import EdgeVitError, IntegrityError, exit_on_error
from pipeline.evidence.latency import FLOAT, LatencyEvidence, Previous, TimedFile, Timing
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import Machine, sealed_json
from pipeline.files import atomic, sha256_file, write_json, write_text
from pipeline.formats import FORMATS
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.metrics import timing
from pipeline.params import Latency, load_params
from pipeline.progress import note
from pipeline.release.read import Release, judged_by, last_release
from pipeline.runtimes import FloatArray, Runtime, footprint, load
from pipeline.runtimes.interleave import interleave, time_ms

EVIDENCE_FILE = "evidence.json"
METRICS_FILE = "metrics.json"
PLOT_FILE = "latency.csv"
PREVIOUS = "previous "  # before the format, where a file of the last release is meant

Measured = dict[str, dict[str, Any]]


def latency(params: Latency, artifacts: Path, out: Path) -> LatencyEvidence:
    """Time the files below ``artifacts`` and the float model, and write folder ``out``.

    Raises:
        IntegrityError: a file changed while it was timed, or the last release is not whole.
        InputError: a file cannot be loaded or run.
    """
    files = {
        FLOAT: artifacts / "checkpoint" / "model.safetensors",
        **paths.delivered_files(artifacts),
    }
    hashes = {key: sha256_file(path) for key, path in files.items()}
    contract = load_contract(artifacts / "checkpoint")
    before = last_release(artifacts / "release", contract.name, contract.version)
    older = _changed(before, hashes)
    samples = SampleSet.load(artifacts / "samples")
    samples.verify()

    note("latency: memory of each file in a process of its own")
    memory = footprint.measure(files, artifacts / "samples", params.threads)
    measured = _time_all(params, files | older, samples)
    if {key: sha256_file(path) for key, path in files.items()} != hashes:
        raise IntegrityError("a file was replaced while it was timed; run `dvc repro latency`")
    evidence = LatencyEvidence(
        samples_sha256=samples.sha256,
        threads=params.threads,
        warmup=params.warmup,
        artefacts={
            key: TimedFile(sha256=hashes[key], **measured[key], **asdict(memory[key]))
            for key in files
        },
        previous=_previous(before, older, measured),
        machine=Machine(**fingerprint()),
    )
    with atomic(out) as new:
        new.mkdir()
        write_json(new / EVIDENCE_FILE, sealed_json(evidence))
        write_json(new / METRICS_FILE, _metrics(evidence))
        write_text(new / PLOT_FILE, _rounds(evidence))
    return evidence


def _changed(before: Release | None, hashes: dict[str, str]) -> dict[str, Path]:
    """The files of the last release that are other bytes than those to be timed."""
    return {
        PREVIOUS + key: path
        for key, path in (before.files.items() if before else ())
        if before and before.sha256[key] != hashes.get(key)
    }


def _previous(
    before: Release | None, older: dict[str, Path], measured: Measured
) -> Previous | None:
    if before is None:
        return None
    artefacts = {
        key: Timing(sha256=before.sha256[key], **measured[PREVIOUS + key])
        for key in before.files
        if PREVIOUS + key in older
    }
    try:
        by = judged_by(before.folder)
    except EdgeVitError:  # of an earlier edge-vit; its files are still timed
        return Previous(release=before.folder.name, artefacts=artefacts)
    return Previous(
        release=before.folder.name,
        artefacts=artefacts,
        gate=by.gate,
        device=by.baseline.device,
    )


def _time_all(params: Latency, files: dict[str, Path], samples: SampleSet) -> Measured:
    """Load everything and let it take turns; return what was measured of each file."""
    runtimes: dict[str, Runtime] = {}
    measured: Measured = {}
    for key, path in files.items():
        started = time.perf_counter()
        runtimes[key] = load(path, threads=params.threads)
        elapsed_ms = (time.perf_counter() - started) * 1e3
        measured[key] = {"file": path.name, "load_ms": elapsed_ms}
    first = _image(samples, runtimes[FLOAT], 0)
    for key, runtime in runtimes.items():
        measured[key]["first_ms"] = time_ms(runtime, first)
    runs = interleave(
        runtimes,
        lambda number: _image(samples, runtimes[FLOAT], number + 1),
        warmup=params.warmup,
        runs=params.runs,
        min_seconds=params.min_seconds,
        name="latency",
    )
    for key in files:
        measured[key]["runs_ms"] = runs[key]
    return measured


def _image(samples: SampleSet, runtime: Runtime, number: int) -> FloatArray:
    chosen = number % len(samples)
    return normalize(samples.images[chosen : chosen + 1], runtime.contract.preprocessing)


def _metrics(evidence: LatencyEvidence) -> dict[str, Any]:
    """Return the few columns of `dvc metrics show` and `dvc exp show`.

    They are each file's share of float's time: it holds on other machines, milliseconds do not.
    """
    shares = {
        key: round(timing.bootstrap_ratio(file.runs_ms, evidence.float_runs_ms).median, 3)
        for key, file in evidence.artefacts.items()
        if key != FLOAT
    }
    return {"time": shares}


def _rounds(evidence: LatencyEvidence) -> str:
    """Every time in milliseconds by round and file, as CSV for `dvc plots`."""
    lines = ["round,file,ms"]
    for key, file in evidence.artefacts.items():
        lines += [f"{number},{_name(key)},{ms}" for number, ms in enumerate(file.runs_ms, 1)]
    return "\n".join(lines) + "\n"


def _name(key: str) -> str:
    return FORMATS[key].suffix if key in FORMATS else key


def main() -> None:
    with exit_on_error():
        timed = latency(load_params().latency, paths.ARTIFACTS, paths.LATENCY).artefacts
        medians = (f"{_name(key)} {timing.median(file.runs_ms):.1f}" for key, file in timed.items())
        print(f"latency: median ms for one image: {', '.join(medians)}")


if __name__ == "__main__":
    main()
