"""One release of the healthy run, with a recorded baseline and a device's evidence in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from device_tests.bundle import find
from device_tests.record import record
from device_tests.target import Cell, Cost, Results
from pipeline.contract.files import load_contract
from pipeline.evidence.logits import load_logits
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import EvidencePaths
from pipeline.evidence.seal import SCHEMA, seal
from pipeline.files import write_json
from pipeline.metrics.logits import logits_sha256
from pipeline.params import Params
from pipeline.paths import BASELINE_LOGITS, BASELINE_RECORD, Recorded
from pipeline.release.signing import generate
from pipeline.stages.publish import publish

NOWHERE = Recorded(Path("none"), Path("none"))


@pytest.fixture(scope="session")
def recorded(healthy: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """What other machines are said to have found: the very same answers."""
    folder = tmp_path_factory.mktemp("recorded")
    to = Recorded(folder / "baselines", folder / "devices")
    write_baseline(healthy, to.baselines / "a-gpu" / "a-model", params.baseline.device)
    write_device(healthy, to.devices, Cost(instructions=(100, 100)))
    return to


def write_device(artifacts: Path, folder: Path, cost: Cost) -> None:
    """Evidence of a device whose answers of the `.ptl` are the golden ones."""
    bundle = find(artifacts)
    answers = bundle.golden.content.artefacts["ptl"]
    cell = Cell(
        format="ptl",
        sha256=answers.sha256,
        runtime="PyTorch Lite 1.13.1",
        machine="a test",
        loads=True,
        runs=True,
        logits=[list(row) for row in answers.logits],
        cost=cost,
    )
    record("lite_app", ("ptl",), Results([cell], ()), bundle, folder)


def write_baseline(artifacts: Path, folder: Path, device: str) -> None:
    """A record of the reference's own logits, as `edge-vit baseline` writes one."""
    places = EvidencePaths.of_run(artifacts, NOWHERE)
    parity = read_sealed(places.parity, ParityEvidence)
    logits = load_logits(places.logits, parity, ["reference"])["reference"][:32]
    preprocessing = load_contract(artifacts / "checkpoint").preprocessing
    folder.mkdir(parents=True)
    np.save(folder / BASELINE_LOGITS, logits)
    content = {
        "kind": "baseline",
        "schema": SCHEMA,
        "device": {"kind": "cuda", "name": device},
        "checkpoint_sha256": parity.checkpoint_sha256,
        "samples_sha256": parity.samples.sha256,
        "samples_count": parity.samples.count,
        "preprocessing": preprocessing.to_dict(),
        "tf32": False,
        "accuracy": None,
        "throughput": [],
        "threads": None,
        "machine": fingerprint() | {"cuda": "12.8", "cudnn": 91002},
        "logits_sha256": logits_sha256(logits),
        "logits_count": len(logits),
        "recorded": "2026-01-01T00:00:00+00:00",
        "noise_floor": {"max_abs": 1e-5, "count": 32, "runs": {"float64": 1e-5}},
        "latency": {"runs_ms": [500.0] * 100},  # so slow that no load here fails a file
    }
    write_json(folder / BASELINE_RECORD, seal(content))


@pytest.fixture(scope="session")
def published(
    healthy: Path,
    recorded: Recorded,
    params: Params,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The release; shared, so never change it in place."""
    return publish(params, healthy, recorded, tmp_path_factory.mktemp("published"))


@pytest.fixture
def release(published: Path, tmp_path: Path) -> Path:
    """A copy to tamper with. Its files are links: replace them, never write into them."""
    return copy(published, tmp_path / "releases" / published.name)


def copy(published: Path, to: Path) -> Path:
    return Path(shutil.copytree(published, to, copy_function=os.link))


def put(path: Path, content: bytes) -> None:
    """Give a file other content, without changing those that it shares its bytes with."""
    path.unlink()
    path.write_bytes(content)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and a public key."""
    private, public, _ = generate(tmp_path_factory.mktemp("keys") / "mine")
    return private, public


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    private, public, _ = generate(tmp_path_factory.mktemp("keys") / "theirs")
    return private, public
