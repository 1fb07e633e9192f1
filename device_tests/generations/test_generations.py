"""An operator that a generation lacks is caught there, and the contract names a newer one."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_tests.bundle import find
from device_tests.conftest import ROOT, Judge
from device_tests.target import Bundle
from pipeline.contract.files import read_contract
from pipeline.params import Quantize, load_params
from pipeline.stages.chain import run as run_stages


@pytest.fixture(scope="session")
def fused(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same run, its ``.ptl`` exported with fused attention, with golden answers of that."""
    folder = tmp_path_factory.mktemp("fused")
    for name in ("checkpoint", "samples", "rewritten", "onnx", "onnx_int8", "executorch"):
        (folder / name).symlink_to((artifacts / name).absolute())
    params = load_params(ROOT / "params.yaml").model_copy(
        update={"quantize": Quantize(scheme="per_channel", fused_attention=True)}
    )
    stages = ("quantize", "script", "optimize", "lite", "golden")
    run_stages(params, folder, *stages, script_apart=False)
    return find(folder)


def test_fused_attention_does_not_load_on_1_13_1(judge: Judge, fused: Bundle) -> None:
    status, text = judge("torch_1_13_1", fused)
    assert status == 1
    assert "FAIL .ptl on torch_1_13_1: does not load" in text
    assert "aten::scaled_dot_product_attention" in text


def test_fused_attention_runs_on_the_generation_its_contract_names(
    judge: Judge, fused: Bundle
) -> None:
    contract = read_contract(fused.files["ptl"])
    assert contract.artefact is not None
    assert contract.artefact.oldest_runtime == "PyTorch Lite 2.1.2"
    status, text = judge("torch_2_1_2", fused)
    assert status == 0, text


def test_the_default_export_runs_on_the_generation_its_contract_names(
    judge: Judge, bundle: Bundle
) -> None:
    contract = read_contract(bundle.files["ptl"])
    assert contract.artefact is not None
    assert contract.artefact.oldest_runtime == "PyTorch Lite 1.13.1"
    status, text = judge("torch_1_13_1")
    assert status == 0, text
