"""Faults in a .ptl that the Lite interpreter in C++ must catch."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from device_tests import cache, lite_app
from device_tests.conftest import Judge
from device_tests.target import Bundle


def rewritten(source: Path, out: Path, *, leave_out: str = "", negate: str = "") -> Path:
    """Copy an archive without some members, or with the sign of some float32 members changed."""
    changed = 0
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if leave_out and info.filename.endswith(leave_out):
                changed += 1
                continue
            if negate and info.filename.endswith(negate):
                content = (-np.frombuffer(content, np.float32)).tobytes()
                changed += 1
            new.writestr(info.filename, content)
    assert changed == 1
    return out


def largest_float_member(path: Path) -> str:
    """The patch embedding's weights, which stay in float."""
    with zipfile.ZipFile(path) as archive:
        constants = [i for i in archive.infolist() if "/constants/" in i.filename]
    return max(constants, key=lambda info: info.file_size).filename


def test_the_delivered_file_answers_as_its_golden_answers(judge: Judge) -> None:
    status, text = judge("lite_app")
    assert status == 0, text


def test_a_truncated_file_is_caught(judge: Judge, bundle: Bundle, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ptl"
    content = bundle.files["ptl"].read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    status, text = judge("lite_app", ptl=cut)
    assert status == 1
    assert "FAIL .ptl on lite_app: does not load" in text


def test_a_model_of_other_weights_is_caught(judge: Judge, bundle: Bundle, tmp_path: Path) -> None:
    path = bundle.files["ptl"]
    other = rewritten(path, tmp_path / "other.ptl", negate=largest_float_member(path))
    status, text = judge("lite_app", ptl=other)
    assert status == 1
    assert "FAIL .ptl on lite_app" in text
    assert "top-1" in text


def test_a_file_without_a_contract_is_caught(judge: Judge, bundle: Bundle, tmp_path: Path) -> None:
    bare = rewritten(bundle.files["ptl"], tmp_path / "bare.ptl", leave_out="/contract.json")
    status, text = judge("lite_app", ptl=bare)
    assert status == 1
    assert "carries no contract" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "use: lite_app"),
        (["MODEL", "missing.f32"], "missing.f32 cannot be opened"),
        (["missing.ptl", "INPUTS"], "missing.ptl"),
    ],
)
def test_the_program_says_what_is_wrong(bundle: Bundle, arguments: list[str], words: str) -> None:
    lite_app.install(cache.folder("lite_app"))
    given = {"MODEL": str(bundle.files["ptl"]), "INPUTS": str(bundle.golden.inputs_file)}
    program = cache.folder("lite_app") / "build" / "lite_app"
    command = [str(program), *(given.get(word, word) for word in arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert words in json.loads(ran.stdout)["error"]
