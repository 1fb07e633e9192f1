"""Valid evidence from synthetic logits, as JSON has it, for tests of what judges it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evidence.baselines import Baseline
from pipeline.evidence.devices import Devices
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.model import parse
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import Evidence
from pipeline.evidence.seal import SCHEMA, seal
from pipeline.formats import FORMATS
from pipeline.metrics.logits import json_logits, logits_sha256
from pipeline.metrics.measures import against_float, between_steps
from pipeline.params import Budget, Gate
from pipeline.verdict.criteria.files import Files
from pipeline.verdict.criteria.steps import ALWAYS
from pipeline.verdict.criterion import FAIL, Criterion
from pipeline.verdict.decide import Verdict, decide

Logits = NDArray[np.float32]

COUNT, CLASSES = 2000, 10
STEPS = (ALWAYS, *(step.stage for known in FORMATS.values() for step in known.compared))
FLOOR = 1e-5
DEVICE = "NVIDIA GeForce RTX 4090"
MACHINE = {
    "device": "cpu",
    "processor": "a test",
    "cores": 2,
    "flags": ["avx2"],
    "system": "Linux x86_64",
    "python": "3.11.7",
    "packages": {"torch": "2.12.1", "executorch": None},
}
BUDGET = Budget(
    top1_agreement_min=0.95,
    accuracy_drop_max_pp=1.0,
    sqnr_min_db=30,
    size_ratio_max=0.35,
    latency_ratio_max=1.0,
    memory_ratio_max=1.0,
    regression_ratio_max=1.2,
    baseline_ratio_max=20,
)


def gate(channel: str = "candidate", **budget: float | None) -> Gate:
    limits = BUDGET.model_dump() | budget
    values = {"channel": channel, "noise_multiple": 4.0}
    return Gate.model_validate(values | {"budgets": dict.fromkeys(FORMATS, limits)})


def digest(name: str) -> str:
    return logits_sha256(np.frombuffer(name.encode(), np.uint8).astype(np.float32))


@dataclass
class Case:
    """Evidence that passes everything but the baseline, to be spoilt by a test."""

    reference: Logits
    labels: NDArray[np.int64] | None
    parity: dict[str, Any]  # as JSON has it
    latency: dict[str, Any]
    files: Files
    gate: Gate = field(default_factory=gate)
    baselines: tuple[Baseline, ...] = ()
    devices: Devices = field(default_factory=Devices)

    def decide(self) -> Verdict:
        return decide(self.gate, DEVICE, self.files, self.evidence)

    @property
    def evidence(self) -> Evidence:
        return Evidence(
            parity=parse(self.parity, ParityEvidence, "parity.json", "dvc repro"),
            latency=parse(self.latency, LatencyEvidence, "latency.json", "dvc repro"),
            baselines=self.baselines,
            devices=self.devices,
        )

    def outcome(self, name: str, subject: str) -> str:
        return self.criterion(name, subject).outcome

    def criterion(self, name: str, subject: str) -> Any:
        found = [c for c in self.decide().criteria if (c.name, c.subject) == (name, subject)]
        assert len(found) == 1, f"{len(found)} criteria {name} of {subject}"
        return found[0]

    def measure(self, key: str, candidate: Logits) -> None:
        """Put another answer of one file into the evidence."""
        measured = against_float(self.reference, candidate, self.labels, FLOOR)
        before = self.parity["artefacts"][key]
        file = {name: before[name] for name in ("file", "sha256", "size_bytes")}
        self.parity["artefacts"][key] = file | measured.model_dump()

    def flipped(self, lost: int, won: int) -> Logits:
        """Logits that lose so many right answers of float's and win so many wrong ones."""
        assert self.labels is not None
        logits, right = self.reference.copy(), self.reference.argmax(1) == self.labels
        for row in np.flatnonzero(right)[:lost]:
            logits[row] = np.roll(logits[row], 1)
        for row in np.flatnonzero(~right)[:won]:
            logits[row, self.labels[row]] = logits[row].max() + 1
        return logits


def criterion(
    name: str = "sqnr_min_db",
    outcome: str = FAIL,
    value: float | None = 20.0,
    limit: float | None = 30.0,
    subject: str = ".ptl",
    note: str = "",
) -> Criterion:
    """A criterion as the gate gives it, that failed unless something else is asked for."""
    return Criterion(
        name=name,
        subject=subject,
        outcome=outcome,
        value=value,
        interval=None,
        limit=limit,
        unit="dB",
        note=note,
    )


def case(labelled: bool = True) -> Case:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, COUNT)
    reference = rng.normal(size=(COUNT, CLASSES)).astype(np.float32)
    right = rng.random(COUNT) < 0.9
    reference[np.arange(COUNT), np.where(right, labels, (labels + 1) % CLASSES)] += 8
    near = (reference + rng.normal(scale=1e-3, size=reference.shape)).astype(np.float32)
    known = labels if labelled else None
    hashes = {key: digest(key) for key in FORMATS}
    delivered = {"lite": "ptl", "export_onnx": "onnx"}
    same = between_steps(reference[:64], reference[:64])
    parity = {
        "kind": "parity",
        "schema": SCHEMA,
        "checkpoint_sha256": digest("checkpoint"),
        "samples": {
            "sha256": digest("samples"),
            "count": COUNT,
            "labelled": labelled,
            "classes": CLASSES,
        },
        "noise_floor": {"max_abs": FLOOR, "count": 32, "runs": {"float64": FLOOR}},
        "published": {
            "dataset": "a test",
            "top1": 90.0,
            "top5": None,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
        },
        "reference_accuracy": {"right": int(right.sum()), "count": COUNT} if labelled else None,
        "artefacts": {
            key: {
                "file": f"model.{key}",
                "sha256": hashes[key],
                "size_bytes": 6_000_000,
                **against_float(reference, near, known, FLOOR).model_dump(),
            }
            for key in FORMATS
        },
        "float_size_bytes": 22_000_000,
        "steps": {
            step: {
                "before": "the step before",
                "after": step,
                "after_sha256": hashes.get(delivered.get(step, ""), digest(step)),
                **same.model_dump(),
            }
            for step in STEPS
        },
        "weights": {
            "layers": 49,
            "worst_layer": "head",
            "worst_error_steps": 0.5,
            "changed_floats": [],
        },
        "logits_sha256": {"reference": logits_sha256(reference)},
        "machine": dict(MACHINE),
    }
    noise = rng.normal(scale=0.02, size=(100, 5))
    times = np.round(np.array([30.0, 15, 15, 15, 15]) * np.exp(noise), 4)
    older = np.round(15 * np.exp(rng.normal(scale=0.02, size=(100, 4))), 4)
    latency = {
        "kind": "latency",
        "schema": SCHEMA,
        "samples_sha256": digest("samples"),
        "threads": 1,
        "warmup": 5,
        "artefacts": {
            key: _timing(key, hashes.get(key, digest("checkpoint")), times[:, column].tolist())
            | {"own_memory_mb": 80.0 if key == "float" else 40.0, "peak_memory_mb": 200.0}
            for column, key in enumerate(("float", *FORMATS))
        },
        "previous": {
            "gate": None,
            "device": None,
            "release": "model-0.0.1",
            "artefacts": {
                key: _timing(key, digest(f"old {key}"), older[:, column].tolist())
                for column, key in enumerate(FORMATS)
            },
        },
        "machine": dict(MACHINE),
    }
    files = Files(artefacts=hashes, checkpoint=digest("checkpoint"), samples=digest("samples"))
    return Case(reference, known, parity, latency, files)


def _timing(key: str, sha256: str, runs_ms: list[float]) -> dict[str, Any]:
    once = {"load_ms": 20.0, "first_ms": 30.0}
    return {"file": f"model.{key}", "sha256": sha256, "runs_ms": runs_ms, **once}


def golden(hashes: dict[str, str], checkpoint: str, count: int = 4) -> dict[str, Any]:
    """The content of a golden.json; its files are not there."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(count, CLASSES)).astype(np.float32)
    near = (logits + rng.normal(scale=1e-2, size=logits.shape)).astype(np.float32)
    answers = {
        key: {"file": f"model.{key}", "sha256": value, "logits": json_logits(near)}
        for key, value in hashes.items()
    }
    answers["float"] = {"file": "m", "sha256": checkpoint, "logits": json_logits(logits)}
    image = {"sha256": digest("image"), "width": 28, "height": 28, "label": None}
    return seal(
        {
            "kind": "golden",
            "schema": SCHEMA,
            "inputs": {
                "file": "inputs.f32",
                "sha256": digest("inputs"),
                "dtype": "little-endian float32",
                "shape": [count, 3, 28, 28],
            },
            "images": [{"id": str(i), "file": f"images/{i}.png"} | image for i in range(count)],
            "artefacts": answers,
            "machine": dict(MACHINE),
        }
    )
