"""Every delivered file through its own runtime, and files that no runtime should take."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError, IntegrityError
from pipeline.formats import FORMATS
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.paths import delivered_files
from pipeline.runtimes import load
from pipeline.runtimes.parallel import Run, run_all


@pytest.mark.parametrize("key", FORMATS)
def test_a_delivered_file_says_itself_how_to_feed_it(healthy, key):
    runtime = load(delivered_files(healthy)[key])
    contract = runtime.contract
    assert contract.artefact is not None
    assert contract.artefact.format == key
    assert contract.artefact.operators
    samples = SampleSet.load(healthy / "samples")
    answer = runtime.logits(normalize(samples.images[:2], contract.preprocessing))
    assert answer.shape == (2, len(contract.labels))
    assert answer.dtype == np.float32
    assert np.isfinite(answer).all()


@pytest.mark.full
@pytest.mark.parametrize("key", FORMATS)
def test_no_library_writes_a_line_while_a_file_runs(healthy, key):
    path = delivered_files(healthy)[key]
    command = [sys.executable, "-m", "pipeline.runtimes.footprint", path, healthy / "samples", "1"]
    variables = {k: v for k, v in os.environ.items() if k != "TORCH_CPP_LOG_LEVEL"}
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert ran.stderr == ""


def test_the_default_ptl_needs_no_operator_that_1_13_lacks(healthy):
    artefact = load(delivered_files(healthy)["ptl"]).contract.artefact
    assert artefact is not None
    assert "aten::scaled_dot_product_attention" not in artefact.operators
    assert "quantized::linear_dynamic" in artefact.operators
    assert artefact.oldest_runtime == "PyTorch Lite 1.13.1"


def test_the_onnx_files_take_a_batch_of_any_size(healthy):
    for key in ("onnx", "int8_onnx"):
        runtime = load(delivered_files(healthy)[key])
        for count in (1, 3):
            batch = np.zeros((count, 3, 224, 224), np.float32)
            assert runtime.logits(batch).shape == (count, 10)


def test_the_pte_reads_images_that_are_not_contiguous(healthy):
    runtime = load(delivered_files(healthy)["pte"])
    samples = SampleSet.load(healthy / "samples")
    batch = normalize(samples.images[:1], runtime.contract.preprocessing)
    mirrored = np.ascontiguousarray(batch[..., ::-1])
    assert np.array_equal(runtime.logits(batch[..., ::-1]), runtime.logits(mirrored))


@pytest.mark.full
def test_workers_return_each_sample_in_its_place(healthy):
    path = delivered_files(healthy)["int8_onnx"]
    samples = SampleSet.load(healthy / "samples")
    together = run_all([Run("x", path, len(samples))], healthy / "samples", "test")["x"]
    runtime = load(path)
    for index in (0, 47, 48, 95):
        image = normalize(samples.images[index : index + 1], runtime.contract.preprocessing)
        assert np.array_equal(together[index : index + 1], runtime.logits(image))


@pytest.mark.parametrize("suffix", [".ptl", ".onnx", ".pt"])
def test_a_file_that_is_something_else_is_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"wrong{suffix}"
    path.write_bytes(b"not a model")
    with pytest.raises((InputError, IntegrityError)) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_ptl_without_a_contract_is_refused(healthy, tmp_path):
    source, path = delivered_files(healthy)["ptl"], tmp_path / "bare.ptl"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if "/extra/" not in name:
                new.writestr(name, old.read(name))
    with pytest.raises(IntegrityError, match="carries no contract"):
        load(path)


def test_a_pte_without_its_contract_is_refused(healthy, tmp_path):
    path = tmp_path / "bare.pte"
    path.write_bytes(delivered_files(healthy)["pte"].read_bytes())
    with pytest.raises(IntegrityError, match=r"bare\.pte\.contract\.json is missing"):
        load(path)


def test_an_unknown_ending_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"")
    with pytest.raises(InputError, match="no runtime runs"):
        load(tmp_path / "model.tflite")
    with pytest.raises(InputError, match="is missing"):
        load(Path("nowhere.ptl"))
