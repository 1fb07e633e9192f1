"""A repair leaves in float what was broken on purpose, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from pipeline.errors import GateError
from pipeline.params import Params, Recipe
from pipeline.tuning.repair import repair
from pipeline.tuning.split import tuning_split
from pipeline.verdict.criterion import PASS
from tests.stages.test_faults import change_quantized
from tests.test_cli import run
from tests.verdict.builders import criterion

pytestmark = pytest.mark.full

BAD = "blocks.6.mlp.fc1"
PATTERN = "blocks.[56].*"
COUNT = 12


@pytest.fixture(scope="module")
def split(healthy: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The healthy run with a tuning split."""
    copied = Path(shutil.copytree(healthy, tmp_path_factory.mktemp("split") / "artifacts"))
    with tuning_split(params, copied, COUNT):
        return copied


@pytest.fixture
def artifacts(split: Path, tmp_path: Path) -> Path:
    """A copy of that, to plant a fault in."""
    return Path(shutil.copytree(split, tmp_path / "artifacts"))


def test_the_planted_bad_layer_is_what_is_left_in_float(artifacts: Path, params: Params) -> None:
    scale = load_file(artifacts / "quantized" / "model.safetensors")[f"{BAD}.scale"]
    change_quantized(artifacts, {f"{BAD}.scale": scale * 1.3})
    before = {p: p.read_bytes() for p in artifacts.rglob("*") if p.is_file()}
    text = repair(
        params, artifacts, [criterion(), criterion("bytes", note="the note")], COUNT, PATTERN
    )
    lines = text.partition("for params.yaml:\n")[2].partition("then `make verdict`")[0]
    assert Recipe.of(lines).quantize.keep_float == (BAD,)
    more_mb = float(text.partition(f".ptl with {BAD} in float: ")[2].split()[0])
    assert more_mb == pytest.approx(0.44, abs=0.02)  # three bytes more for each of 192x768 weights
    assert "keep_float cannot fix .ptl bytes 20 (limit 30 dB) fail: the note" in text
    assert {p: p.read_bytes() for p in before} == before


def test_what_passes_on_other_images_is_left_as_it_is(artifacts: Path, params: Params) -> None:
    text = repair(params, artifacts, [criterion()], COUNT, "head")
    assert f".ptl passes as it is on {COUNT} other images" in text
    assert "for params.yaml" not in text


def test_without_a_repair_it_gives_the_criteria_of_all_layers_in_float(
    artifacts: Path, params: Params
) -> None:
    strict = params.model_copy(deep=True)
    strict.gate.budgets["ptl"] = strict.gate.budgets["ptl"].model_copy(
        update={"sqnr_min_db": 200.0}
    )
    with pytest.raises(
        GateError,
        match=r"no set of layers in float makes \.ptl pass on 12 images; "
        r"with all 1 in float: .*sqnr_min_db 4[0-9.]+ \(limit 200 dB\) fail",
    ):
        repair(strict, artifacts, [criterion()], COUNT, "head")


def test_what_layers_in_float_cannot_fix_is_refused(tmp_path: Path, params: Params) -> None:
    failed = [criterion("size_ratio_max"), criterion(subject=".onnx"), criterion(outcome=PASS)]
    with pytest.raises(GateError, match="layers in float fix nothing of what failed"):
        repair(params, tmp_path, failed, COUNT)
    assert not list(tmp_path.iterdir())


def test_the_command_reads_the_verdict(artifacts: Path, params: Params) -> None:
    work = artifacts.parent
    (work / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    ran = run(work, "-m", "pipeline.cli", "diagnose", "--fix")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "nothing failed" in ran.stderr
    assert run(work, "-m", "pipeline.cli", "diagnose", "--fix", "--samples", "0").returncode == 2
    (artifacts / "parity" / "evidence.json").unlink()
    ran = run(work, "-m", "pipeline.cli", "diagnose", "--fix")
    assert ran.returncode == 2
    assert "parity/evidence.json is missing; run `dvc repro`" in ran.stderr
    assert "Traceback" not in ran.stderr
