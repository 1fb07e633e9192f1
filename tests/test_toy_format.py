"""A format that one module registers goes from export to users, with no other line changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.params import Params
from pipeline.release.manifest import SUMS_FILE
from tests.conftest import ROOT

MADE_OF = ("checkpoint", "samples", "reference", "rewritten")
STAGES = ("export_plugins", "golden", "parity", "latency", "report", "gate", "publish")
SUFFIX = ".numpy.npz"

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def work(healthy: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage ran, each as DVC runs it."""
    work = tmp_path_factory.mktemp("toy")
    (work / "artifacts").mkdir()
    for name in MADE_OF:
        (work / "artifacts" / name).symlink_to(healthy / name)
    values = json.loads(params.model_dump_json())
    limits = {"top1_agreement_min": 0.95, "accuracy_drop_max_pp": 20.0, "sqnr_min_db": 90.0}
    values["formats"] = ["numpy"]
    values["gate"]["budgets"] = {"numpy": limits}
    (work / "params.yaml").write_text(yaml.safe_dump(values))
    for stage in STAGES:
        run(work, f"pipeline.stages.{stage}")
    return work


def run(work: Path, module: str, *arguments: str) -> str:
    # One thread of numpy's for each process: those of several would wait for each other.
    own = {"EDGE_VIT_FORMATS": "tests.numpy_format", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=work,
        env=os.environ | own | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, f"{module}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def release_of(work: Path) -> Path:
    (sums,) = (work / "artifacts" / "release").glob(f"*/{SUMS_FILE}")
    return sums.parent


def test_it_is_exported_measured_and_judged(work: Path) -> None:
    (file,) = (work / "artifacts" / "plugins" / "numpy").iterdir()
    assert file.name.endswith(SUFFIX)
    parity = json.loads((work / "artifacts" / "parity" / "evidence.json").read_text())
    assert parity["artefacts"]["numpy"]["sqnr_db"] > 90  # float as PyTorch's, but for rounding
    latency = json.loads((work / "artifacts" / "latency" / "evidence.json").read_text())
    assert len(latency["artefacts"]["numpy"]["runs_ms"]) == 10
    criteria = json.loads((work / "artifacts" / "verdict" / "verdict.json").read_text())["criteria"]
    outcomes = {c["name"]: c["outcome"] for c in criteria if c["subject"] == SUFFIX}
    assert outcomes["sqnr_min_db"] == outcomes["top1_agreement_min"] == "pass"


def test_it_is_in_the_report_the_card_and_the_release(work: Path) -> None:
    (page,) = (work / "artifacts" / "reports").glob("*.html")
    assert f"Logits of {SUFFIX} over those of float" in page.read_text()
    release = release_of(work)
    (file,) = release.glob(f"*{SUFFIX}")
    assert (
        f"| `{file.name}` | numpy, in float | none | numpy | numpy 1.26 |"
        in (release / "README.md").read_text()
    )
    assert file.name in (release / SUMS_FILE).read_text()


def test_its_release_is_verified(work: Path) -> None:
    release = release_of(work)
    assert "whole, and everything in it agrees" in run(work, "pipeline.cli", "verify", str(release))


def test_it_answers_users(work: Path) -> None:
    image = str(ROOT / "embedded" / "photos" / "cat-451x299.jpg")
    runtimes = {
        name: json.loads(
            run(work, "pipeline.cli", "predict", image, "--json", "--runtime", name, "--top", "1")
        )[0]["predictions"][0]
        for name in ("numpy", "float")
    }
    assert runtimes["numpy"]["label"] == runtimes["float"]["label"]
    assert runtimes["numpy"]["score"] == pytest.approx(runtimes["float"]["score"], abs=1e-3)
    rows = json.loads(run(work, "pipeline.cli", "predict", image, "--all", "--json"))
    assert set(rows) == {"float", "numpy float"}
    assert rows["numpy float"]["sqnr_db"] > 90
