"""`edge-vit predict --all` as a user runs it, on real files of a healthy run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.contract.files import CONTRACT_FILE
from pipeline.errors import InputError
from pipeline.inference.compare import Row, cells, compare, find_files
from pipeline.metrics.intervals import Interval

pytestmark = pytest.mark.full

ROOT = Path(__file__).parent.parent.parent
NAMES = (
    *("float", "quantized", "scripted", "optimized"),
    *("lite (.ptl)", "ONNX float", "ONNX int8", "ExecuTorch (.pte)"),
)


def run(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "predict", "--all", *arguments],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def image(healthy: Path) -> Path:
    return sorted((healthy / "golden" / "images").iterdir())[0]


def test_every_file_has_its_row_with_answer_distance_time_and_size(released, image):
    ran = run(released, str(image), "--runs", "3", "--json")
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(ran.stdout)
    assert tuple(rows) == NAMES
    assert rows["float"]["sqnr_db"] is None
    assert rows["float"]["ratio"] == 1
    assert rows["ONNX float"]["sqnr_db"] > 100
    for name, row in rows.items():
        assert row["agrees"], name
        assert row["ratio_interval"]["low"] <= row["ratio"] <= row["ratio_interval"]["high"]
    quantized, scripted, optimized, lite = (rows[name]["sqnr_db"] for name in NAMES[1:5])
    assert 20 < quantized == scripted < 70
    assert 20 < optimized == lite < 70
    assert rows["lite (.ptl)"]["size_mb"] < rows["float"]["size_mb"] / 3


def test_files_that_lack_are_named_and_the_others_compared(healthy, image, tmp_path):
    artifacts = tmp_path / "artifacts"
    for name in ("checkpoint", "onnx"):
        shutil.copytree(healthy / name, artifacts / name)
    ran = run(tmp_path, str(image), "--runs", "3")
    assert ran.returncode == 0
    assert "ONNX float" in ran.stdout
    assert "optimized" not in ran.stdout
    for name in ("quantized/", "scripted/", "optimized/", "lite", "onnx_int8", "executorch"):
        assert f"left out: artifacts/{name}" in ran.stderr
    assert ran.stderr.count("run `dvc repro`") == 6


def test_without_the_float_model_there_is_nothing_to_compare_with(tmp_path, image):
    ran = run(tmp_path, str(image))
    assert ran.returncode == 2
    assert ran.stderr == (
        "edge-vit: artifacts/checkpoint/model.safetensors is missing; run `dvc repro` to make it\n"
    )


def test_float_alone_is_nothing_to_compare(healthy, tmp_path):
    shutil.copytree(healthy / "checkpoint", tmp_path / "checkpoint")
    with pytest.raises(InputError, match=r"no file to compare with float: .*run `dvc repro`"):
        find_files(tmp_path)


def test_a_bad_image_and_too_few_runs_are_one_clear_error(released, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 no")
    for arguments, words in (
        ((str(bad),), "bad.jpg: "),
        ((str(bad), "--runs", "2"), "'--runs': 2 is not in the range x>=3"),
        (("nowhere.jpg",), "No such file"),
    ):
        ran = run(released, *arguments)
        assert ran.returncode == 2
        assert words in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_wrong_answer_stands_out():
    right = Row("cat", 0.9, True, None, 10.0, 1.0, Interval(1.0, 1.0), 20.0)
    wrong = dataclasses.replace(right, label="dog", agrees=False, sqnr_db=3.0)
    rows = cells({"float": right, "lite": wrong, "same": right})
    assert "NO" not in rows[0]
    assert rows[1][1:5] == ("dog", "0.9000", "NO", "3.0")
    assert rows[2][3:5] == ("yes", "equal")


def test_files_of_another_checkpoint_are_not_compared(healthy, image, tmp_path):
    other = Path(shutil.copytree(healthy / "checkpoint", tmp_path / "other"))
    contract = json.loads((other / CONTRACT_FILE).read_text())
    contract["checkpoint"]["sha256"] = "0" * 64
    (other / CONTRACT_FILE).write_text(json.dumps(contract))
    files = find_files(healthy)[0] | {"float": other / "model.safetensors"}
    with pytest.raises(InputError, match="made from another checkpoint"):
        compare(files, image.read_bytes(), 3)
