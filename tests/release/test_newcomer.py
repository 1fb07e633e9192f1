"""Somebody who has a release, Python, and what the model card tells them to install."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pipeline.evidence.golden import Golden
from tests.conftest import ROOT
from tests.release.conftest import copy, put
from tests.release.test_snippets import run_python

UV = Path(sys.executable).with_name("uv")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not UV.exists() and not shutil.which("uv"), reason="there is no uv"),
]


def empty(folder: Path, *packages: str) -> str:
    """Make an environment with these packages only; return its Python."""
    uv = str(UV) if UV.exists() else "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
    return python


def test_the_card_s_lines_give_the_golden_answers(published: Path, tmp_path: Path) -> None:
    card = (published / "README.md").read_text()
    (packages,) = re.findall(r"`pip install ([\w ]+)`, and in this folder:", card)
    (runtime,) = re.findall(r"ONNX files, with `pip install (\w+)`:", card)
    python = empty(tmp_path / "venv", *packages.split(), runtime)
    has = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert has.returncode != 0
    golden = Golden.load(published / "golden")
    for key in ("int8_onnx", "onnx"):
        logits, _ = run_python(published, python, key)
        np.testing.assert_allclose(logits, golden.logits(key)[0], rtol=1e-3, atol=1e-3)


def test_a_release_is_verified_with_the_base_dependencies(published: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = empty(tmp_path / "venv", *project["dependencies"])
    command = [python, "-m", "pipeline.cli", "verify"]
    ran = subprocess.run([*command, published], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    damaged = copy(published, tmp_path / "damaged")
    put(damaged / "labels.txt", b"other\n")
    ran = subprocess.run([*command, damaged], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "labels.txt has other labels" in ran.stdout
