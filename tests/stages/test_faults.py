"""Planted faults, through the real stages: each is refused, and the verdict names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.errors import GateError, IntegrityError
from pipeline.evidence.seal import seal
from pipeline.metrics.logits import logits_sha256
from pipeline.params import Params
from pipeline.paths import Recorded, delivered_files
from pipeline.stages.chain import run as run_stages
from pipeline.stages.gate import gate
from pipeline.stages.publish import publish
from pipeline.stages.report import report
from pipeline.verdict.criterion import FAIL
from pipeline.verdict.decide import Verdict

RECORDED = Recorded(Path("none"), Path("none"))
AFTER_QUANTIZE = ("script", "optimize", "lite", "golden", "parity", "latency")


def failures(verdict: Verdict) -> set[tuple[str, str]]:
    return {(c.subject, c.name) for c in verdict.criteria if c.outcome == FAIL}


def refused(params: Params, artifacts: Path) -> set[tuple[str, str]]:
    """Gate and publish both refuse; return what failed."""
    verdict = gate(params, artifacts, RECORDED, artifacts / "verdict")
    with pytest.raises(GateError):
        publish(params, artifacts, RECORDED, artifacts / "release")
    assert not list((artifacts / "release").glob("*"))
    return failures(verdict)


def change_quantized(artifacts: Path, change: dict[str, np.ndarray]) -> None:
    """Overwrite arrays of the quantized model only, keeping its metadata."""
    from safetensors import safe_open

    path = artifacts / "quantized" / "model.safetensors"
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    save_file(load_file(path) | change, path, metadata)


def test_a_healthy_run_is_published(params, artifacts):
    verdict = gate(params, artifacts, RECORDED, artifacts / "verdict")
    assert not failures(verdict)
    release = publish(params, artifacts, RECORDED, artifacts / "release")
    for path in delivered_files(artifacts).values():
        assert (release / path.name).read_bytes() == path.read_bytes()


@pytest.mark.full
def test_two_head_rows_swapped_in_the_quantized_model_are_refused(params, artifacts):
    arrays = load_file(artifacts / "quantized" / "model.safetensors")
    order = np.arange(10)
    order[[0, 5]] = order[[5, 0]]
    swapped = {key: arrays[key][order] for key in ("head.weight", "head.scale", "head.bias")}
    change_quantized(artifacts, swapped)
    run_stages(params, artifacts, *AFTER_QUANTIZE)
    failed = refused(params, artifacts)
    assert {(".ptl", "top1_agreement_min"), ("quantize", "weight_error_max_steps")} <= failed
    assert not {subject for subject, _ in failed} & {".onnx", ".int8.onnx", ".pte"}


@pytest.mark.full
def test_one_layer_scaled_by_a_twentieth_is_refused_and_named(params, artifacts):
    arrays = load_file(artifacts / "quantized" / "model.safetensors")
    change_quantized(artifacts, {"blocks.5.mlp.fc1.scale": arrays["blocks.5.mlp.fc1.scale"] * 1.05})
    run_stages(params, artifacts, *AFTER_QUANTIZE)
    assert ("quantize", "weight_error_max_steps") in refused(params, artifacts)
    text = (artifacts / "verdict" / "verdict.md").read_text()
    assert "blocks.5.mlp.fc1 is not a quantization" in text


@pytest.mark.full
def test_an_onnx_file_from_other_weights_is_refused(params, artifacts):
    path = artifacts / "rewritten" / "model.safetensors"
    weights = load_file(path)
    kept = path.read_bytes()
    order = np.roll(np.arange(10), 1)
    save_file(
        weights | {key: weights[key][order] for key in ("head.weight", "head.bias")},
        path,
    )
    run_stages(params, artifacts, "export_onnx")
    path.write_bytes(kept)
    run_stages(params, artifacts, "parity", "latency")
    failed = refused(params, artifacts)
    assert {(".onnx", "top1_agreement_min"), ("export_onnx", "noise_multiple")} <= failed
    assert (".int8.onnx", "top1_agreement_min") in failed


@pytest.mark.parametrize("stage", ["parity", "latency"])
def test_evidence_edited_by_hand_is_refused(params, artifacts, stage):
    path = artifacts / stage / "evidence.json"
    text = path.read_text()
    edited = text.replace('"count": 96', '"count": 95').replace('"threads": 1', '"threads": 2')
    assert edited != text
    path.write_text(edited)
    for run in (gate, publish):
        with pytest.raises(IntegrityError, match="changed after it was measured"):
            run(params, artifacts, RECORDED, artifacts / "out")
    assert not (artifacts / "out").exists()


def test_evidence_edited_and_sealed_again_is_refused_by_publish(params, artifacts):
    path = artifacts / "parity" / "evidence.json"
    evidence = json.loads(path.read_text())
    evidence["artefacts"]["ptl"]["sqnr_db"] = 99.0
    path.write_text(json.dumps(seal(evidence)))
    with pytest.raises(IntegrityError, match=r"sqnr_db = 99\.0 of ptl"):
        publish(params, artifacts, RECORDED, artifacts / "release")


def test_a_ptl_replaced_after_measuring_is_refused(params, artifacts):
    path = delivered_files(artifacts)["ptl"]
    path.write_bytes(path.read_bytes() + b"\0")
    assert (".ptl", "evidence") in refused(params, artifacts)


def test_a_refusal_leaves_the_last_good_release_as_it_was(params, artifacts):
    release = publish(params, artifacts, RECORDED, artifacts / "release")
    before = {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}
    ptl = delivered_files(artifacts)["ptl"]
    ptl.write_bytes(ptl.read_bytes() + b"\0")
    with pytest.raises(GateError):
        publish(params, artifacts, RECORDED, artifacts / "release")
    assert {path: path.read_bytes() for path in release.rglob("*") if path.is_file()} == before


def test_a_release_channel_refuses_what_is_undecided(params, artifacts):
    strict = params.model_copy(
        update={"gate": params.gate.model_copy(update={"channel": "release"})}
    )
    verdict = gate(strict, artifacts, RECORDED, artifacts / "verdict")
    assert not verdict.passed
    with pytest.raises(GateError, match="1: a record of the reference GPU"):
        publish(strict, artifacts, RECORDED, artifacts / "release")


def stopped(params: Params, artifacts: Path, *words: str) -> None:
    """Gate, report and publish stop with the same words, before anything is decided."""
    for run in (gate, report, publish):
        with pytest.raises(IntegrityError) as error:
            run(params, artifacts, RECORDED, artifacts / "out")
        for word in words:
            assert word in str(error.value), run.__name__
    assert not (artifacts / "out").exists()


def change_contracts(artifacts: Path, **changes: object) -> None:
    """Edit the contract files of a finished run, but not the contracts inside files."""
    for path in artifacts.rglob("*contract.json"):
        contract = json.loads(path.read_text())
        contract["preprocessing"] |= changes
        path.write_text(json.dumps(contract))


def edit(artifacts: Path, stage: str, **changes: object) -> None:
    """Change evidence and seal it again."""
    path = artifacts / stage / "evidence.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour_order": "BGR"}, ["preprocessing.colour_order is RGB, in contract.json BGR"]),
        (
            {"mean": [0.229, 0.224, 0.225], "std": [0.485, 0.456, 0.406]},
            ["preprocessing.mean is [0.485, ", "preprocessing.std is [0.229, "],
        ),
    ],
)
def test_contract_files_that_say_something_else_than_those_inside_files_are_refused(
    params, artifacts, changes, words
):
    change_contracts(artifacts, **changes)
    names = [path.name for key, path in delivered_files(artifacts).items() if key != "pte"]
    stopped(params, artifacts, *words, *(f"{name} carries another contract" for name in names))


def change_logits(artifacts: Path, change) -> None:
    """Change arrays of logits, and the evidence so that their hashes fit."""
    with np.load(artifacts / "parity" / "logits.npz") as archive:
        logits = dict(archive)
    change(logits)
    np.savez(artifacts / "parity" / "logits.npz", allow_pickle=False, **logits)
    edit(artifacts, "parity", logits_sha256={k: logits_sha256(v) for k, v in logits.items()})


def test_a_nan_that_was_left_out_of_the_numbers_is_refused(params, artifacts):
    change_logits(artifacts, lambda logits: logits["int8_onnx"].__setitem__((3, 2), np.nan))
    stopped(params, artifacts, "has numbers of int8_onnx, whose logits hold NaN or infinity")


def test_rows_four_times_over_are_refused_in_one_sentence(params, artifacts):
    def four_times(logits):
        logits |= {key: np.tile(rows, (4, 1)) for key, rows in logits.items()}

    change_logits(artifacts, four_times)
    stopped(params, artifacts, "the logits of reference have shape (384, 10), parity was measured")
