"""The layer that was broken on purpose is found first, on the real quantized model."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from safetensors.numpy import load_file

from pipeline.errors import InputError, IntegrityError
from pipeline.files import read_json, write_json
from pipeline.params import Params
from pipeline.tuning.diagnose import diagnose, diagnose_file
from tests.stages.test_faults import change_quantized

BAD = "blocks.6.mlp.fc1"
FEW = 6


@pytest.mark.full
def test_a_planted_bad_layer_is_found_first_and_its_line_given(artifacts: Path) -> None:
    scale = load_file(artifacts / "quantized" / "model.safetensors")[f"{BAD}.scale"]
    change_quantized(artifacts, {f"{BAD}.scale": scale * 1.3})
    out = artifacts / "diagnosis"
    text = diagnose(artifacts, out, FEW, "blocks.[56].*")
    found = read_json(out / "layers.json")
    assert found["layers"][0]["name"] == BAD
    assert BAD in found["keep_float"]
    assert f"keep_float: [{', '.join(found['keep_float'])}]" in text
    assert found["together"]["logit_sqnr_gain_db"] > 1
    assert f"{BAD} errs far more than the other layers" in text
    assert min(found["layers"], key=lambda layer: layer["sqnr_db"])["name"] == BAD
    with open(out / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer["name"] for layer in found["layers"]]
    assert len(rows) == 8  # qkv, proj, fc1, fc2 of two blocks
    assert ElementTree.parse(out / "layers.svg").getroot().tag.endswith("svg")
    assert BAD in (out / "layers.md").read_text()


@pytest.mark.full
def test_a_healthy_model_has_nothing_to_restore(healthy: Path, tmp_path: Path) -> None:
    texts = {diagnose(healthy, tmp_path / name, FEW, "blocks.3.*") for name in ("a", "b")}
    assert len(texts) == 1
    found = read_json(tmp_path / "a" / "layers.json")
    assert all(layer["sqnr_db"] > 25 for layer in found["layers"])
    assert found["count"] == FEW


@pytest.mark.full
def test_a_layer_of_another_format_is_restored_by_making_its_file(
    healthy: Path, params: Params, tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in healthy.rglob("*") if p.is_file()}
    text = diagnose_file(params, healthy, tmp_path / "out", "int8_onnx", FEW, BAD)
    (layer,) = read_json(tmp_path / "out" / "layers.json")["layers"]
    assert (layer["name"], layer["sqnr_db"]) == (BAD, None)
    assert layer["bytes_more"] == pytest.approx(3 * 192 * 768, rel=0.02)
    assert layer["logit_sqnr_gain_db"] != 0
    assert BAD in text
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_float_file_has_no_layers_to_restore(
    healthy: Path, params: Params, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"\.onnx is float: it has no quantized layers"):
        diagnose_file(params, healthy, tmp_path, "onnx")


def test_a_pattern_that_names_nothing_is_said(healthy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'head\.9' names no quantized layer"):
        diagnose(healthy, tmp_path / "out", FEW, "head.9")
    assert not (tmp_path / "out").exists()


def test_artifacts_that_do_not_belong_together_are_refused(artifacts: Path, tmp_path: Path) -> None:
    about = artifacts / "reference" / "reference.json"
    write_json(about, read_json(about) | {"samples_sha256": "0" * 64})
    with pytest.raises(IntegrityError, match="the reference belongs to 000000000000"):
        diagnose(artifacts, tmp_path / "out", FEW)
    shutil.rmtree(artifacts / "reference")
    with pytest.raises(InputError, match=r"reference\.json is missing"):
        diagnose(artifacts, tmp_path / "out", FEW)
