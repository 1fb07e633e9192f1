"""Workflows run what this repository has, and the README's steps judge what they upload."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.import_closure import ROOT

WORKFLOWS = {path.name: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}


def steps(workflow: str) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(WORKFLOWS[workflow].read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def readme_steps() -> list[dict[str, Any]]:
    (block,) = re.findall(r"```yaml\n(- uses.*?)```", (ROOT / "README.md").read_text(), re.S)
    return list(yaml.safe_load(block))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_actions_are_pinned_and_what_a_step_runs_is_there(workflow: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step
        for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
            assert target in targets
        for script in re.findall(r"\bscripts/[\w.-]+", step.get("run", "")):
            assert os.access(ROOT / script, os.X_OK)


def test_git_may_read_the_checkout_before_anything_is_made() -> None:
    runs = [step.get("run", "") for step in steps("parity.yml")]
    (allowed,) = [place for place, run in enumerate(runs) if "safe.directory" in run]
    assert allowed < min(place for place, run in enumerate(runs) if "make " in run)


def upload(name: str, root: Path, to: Path) -> None:
    """Copy what an upload step named ``name`` takes from ``root``, as the action does."""
    (step,) = [s for s in steps("parity.yml") if s.get("with", {}).get("name") == name]
    patterns = step["with"]["path"].split()
    left_out = [root / pattern[1:] for pattern in patterns if pattern.startswith("!")]
    for pattern in patterns:
        for place in map(Path, glob.glob(str(root / pattern))):
            target = to / place.relative_to(root)
            if place.is_file():
                shutil.copy(place, target)
            else:
                shutil.copytree(
                    place,
                    target,
                    ignore=lambda folder, names: [n for n in names if Path(folder) / n in left_out],
                )


def test_the_steps_of_the_readme_judge_what_the_workflow_uploads(
    healthy: Path, tmp_path: Path
) -> None:
    runner, elsewhere = tmp_path / "runner", tmp_path / "elsewhere"
    shutil.copytree(healthy, runner / "artifacts", copy_function=os.link)
    for name in ("params.yaml", "baselines"):
        (runner / name).symlink_to(ROOT / name)
    elsewhere.mkdir()
    download, install, *rest = readme_steps()
    upload(download["with"]["name"], runner, elsewhere)
    assert install["run"] == "pip install ./edge-vit"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    summary = tmp_path / "summary"
    env = os.environ | {"PATH": path, "GITHUB_STEP_SUMMARY": str(summary)}
    codes = [
        subprocess.run(["bash", "-e", "-c", step["run"]], cwd=elsewhere, env=env).returncode
        for step in rest
    ]
    assert codes == [1, 0]  # 96 images and no record of a GPU: refused, and said why
    assert "undecided" in summary.read_text()
