"""What the documents say of the project's structure is true."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from device_tests import targets
from pipeline.formats import BUILT_IN, FORMATS

ROOT = Path(__file__).parent.parent
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())


def test_imports_follow_the_order_of_pyproject():
    """Layers, and that no stage imports another: contracts of import-linter in pyproject.toml."""
    ran = subprocess.run(["lint-imports", "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout


def test_device_tests_import_the_pipeline_and_never_the_reverse():
    for path in (ROOT / "pipeline").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) device_tests", path.read_text(), re.M), path


def test_every_target_that_params_may_name_is_there():
    for name in targets.NAMES:
        found = targets.target(name)
        assert found.WHAT
        assert set(found.FORMATS) <= set(FORMATS)
        assert callable(found.missing)
        assert callable(found.install)
        assert callable(found.run)


def test_core_and_the_gate_are_importable_without_torch():
    code = "import sys, pipeline.stages.gate, pipeline.stages.publish, pipeline.cli; "
    code += "import pipeline.commands.gate; "
    code += "import pipeline.commands.verify, pipeline.commands.sign; "
    code += "import pipeline.commands.release, pipeline.commands.promote; "
    code += "print([m for m in ('torch', 'timm', 'onnxruntime', 'dvc') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]", ran.stderr


@pytest.mark.parametrize("stage", GRAPH["stages"])
def test_a_stage_runs_its_own_module_and_depends_on_it(stage):
    entry = GRAPH["stages"][stage]
    command = f"python -m pipeline.stages.{stage}"
    assert entry["cmd"] == (f"PYTHONHASHSEED=0 {command}" if stage == "script" else command)
    assert f"pipeline/stages/{stage}.py" in entry["deps"]
    assert entry["desc"]
    for dep in entry["deps"]:
        if dep.startswith("pipeline/"):
            assert (ROOT / dep).exists(), dep


def test_a_plugin_that_cannot_be_loaded_is_named_in_one_line():
    variables = os.environ | {"EDGE_VIT_FORMATS": "no_such_module"}
    command = [sys.executable, "-m", "pipeline.stages.gate"]
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=ROOT)
    expected = "edge-vit: EDGE_VIT_FORMATS: no_such_module cannot be loaded: No module named"
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(expected)
    assert ran.stderr.count("\n") == 1


def test_latency_is_never_replayed_from_the_cache():
    latency = GRAPH["stages"]["latency"]
    outputs = latency["outs"] + latency["metrics"]
    assert all(options == {"cache": False} for out in outputs for options in out.values())


def test_every_delivered_file_has_an_artifact_entry():
    paths = {entry["path"] for entry in GRAPH["artifacts"].values()}
    assert {f"artifacts/{FORMATS[key].folder}" for key in BUILT_IN} <= paths
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in GRAPH["artifacts"])


def test_the_graph_in_the_readme_is_the_graph_of_dvc():
    text = (ROOT / "README.md").read_text()
    drawn = text.split("```mermaid")[1].split("```")[0]
    edges = set()
    for line in drawn.splitlines()[2:]:
        names = line.split("-->")
        edges |= {(a.strip(), b.strip()) for a, b in itertools.pairwise(names)}
    makers = {
        (out if isinstance(out, str) else next(iter(out))): stage
        for stage, entry in GRAPH["stages"].items()
        for kind in ("outs", "metrics", "plots")
        for out in entry.get(kind, ())
    }
    real = {
        (maker, stage)
        for stage, entry in GRAPH["stages"].items()
        for dep in entry["deps"]
        for out, maker in makers.items()
        if dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")
    }
    assert {name for edge in edges for name in edge} == set(GRAPH["stages"])
    assert edges <= real


def test_what_stages_write_is_ignored_by_a_hand_written_file():
    assert (ROOT / "artifacts" / ".gitignore").read_text() == "*\n!.gitignore\n"
