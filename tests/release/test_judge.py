"""What does not agree is named, by the gate and by whoever publishes: on a run that is made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import EdgeVitError, GateError, IntegrityError
from pipeline.evidence.seal import seal
from pipeline.files import sha256_file
from pipeline.images.samples import SampleSet, samples_sha256
from pipeline.params import Params, load_params
from pipeline.paths import data_file, delivered_file
from pipeline.release import folder
from pipeline.release.manifest import SUMS_FILE, format_sums
from pipeline.release.read import hashes
from pipeline.release.verification import verify
from pipeline.stages.gate import gate
from pipeline.stages.publish import publish
from tests.conftest import ROOT
from tests.made_up import make
from tests.release.conftest import NOWHERE, write_baseline

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "artifacts")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "artifacts"))


def edit(path: Path, change: Edit) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(seal(content) if "seal" in content else content))


def refused(params: Params, run: Path, *words: str) -> None:
    """Neither judges; both say the same."""
    said = []
    for stage in (gate, publish):
        with pytest.raises(EdgeVitError) as error:
            stage(params, run, NOWHERE, run / "out")
        said.append(str(error.value))
    assert said[0] == said[1]
    for word in words:
        assert word in said[0]
    assert not (run / "out").exists()


def test_a_run_that_agrees_is_published(params: Params, run: Path) -> None:
    assert gate(params, run, NOWHERE, run / "verdict").passed
    assert verify(publish(params, run, NOWHERE, run / "release")) == []


def within(*way: str, **values: object) -> Edit:
    def change(content: dict[str, Any]) -> None:
        for key in way:
            content = content[key]
        content.update(values)

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("parity", within(float_size_bytes=9), "float_size_bytes = 9"),
        ("parity", within("reference_accuracy", right=400), "reference_accuracy.right = 400"),
        ("parity", within("artefacts", "pte", size_bytes=7), "size_bytes = 7 of pte"),
        ("parity", within("artefacts", "pte", file="other.pte"), "file = other.pte of pte"),
        ("parity", within("noise_floor", max_abs=1.0), "noise_floor.max_abs = 1.0"),
        ("parity", within("steps", "lite", max_abs=0.0), "max_abs = 0.0 of lite"),
        ("parity", within("steps", "script", "noise", max_abs=9.0), "noise.max_abs = 9.0 of scr"),
        ("parity", within("samples", classes=9), "classes = 9 of the samples"),
        ("parity", within("samples", duplicates=9), "duplicates = 9 of the samples"),
        ("parity", within("samples", skipped=9), "skipped = 9 of the samples"),
        (
            "parity",
            lambda e: e.update(
                published={"dataset": "x", "top1": 100.0, "crop_pct": 1, "interpolation": "box"}
            ),
            "published.top1 = 100.0 of the checkpoint",
        ),
        ("latency", within("artefacts", "ptl", file="other.ptl"), "file = other.ptl of ptl"),
    ],
)
def test_a_number_that_was_edited_and_sealed_again_is_named(
    params: Params, run: Path, name: str, change: Edit, words: str
) -> None:
    edit(run / name / "evidence.json", change)
    refused(params, run, f"{name}/evidence.json says", words, "computed again it is")


def test_labels_that_are_a_file_s_own_answers_are_not_those_of_the_samples(
    params: Params, run: Path
) -> None:
    with np.load(run / "parity" / "logits.npz") as logits:
        answers = logits["ptl"].argmax(1).tolist()
    edit(run / "samples" / "samples.json", lambda about: about.update(labels=answers[::-1]))
    refused(params, run, "samples were changed: expected SHA-256")


def test_a_changed_pixel_is_not_one_of_the_samples(params: Params, run: Path) -> None:
    images = np.load(run / "samples" / "images.npy")
    images[7, 0, 0, 0] ^= 1
    np.save(run / "samples" / "images.npy", images)
    refused(params, run, "samples were changed: expected SHA-256")


def test_other_samples_with_a_hash_that_fits_are_not_those_that_were_measured(
    params: Params, run: Path
) -> None:
    folder = run / "samples"
    pixels = SampleSet.load(folder).verify()

    def relabel(about: dict[str, Any]) -> None:
        about["labels"].reverse()
        about["sha256"] = samples_sha256(pixels, about["labels"], about["ids"])

    edit(folder / "samples.json", relabel)
    edit(run / "reference" / "reference.json", within(samples_sha256="0" * 64))
    with pytest.raises(IntegrityError, match="samples_sha256"):
        gate(params, run, NOWHERE, run / "out")
    digest = json.loads((folder / "samples.json").read_text())["sha256"]
    edit(run / "reference" / "reference.json", within(samples_sha256=digest))
    edit(run / "latency" / "evidence.json", within(samples_sha256=digest))
    edit(run / "parity" / "evidence.json", within("samples", sha256=digest))
    refused(params, run, "content_sha256 = ", "reference_accuracy.right = 500")


def test_a_reference_that_was_edited_is_what_is_named(params: Params, run: Path) -> None:
    logits = np.load(run / "reference" / "logits.npy")
    logits[0, 0] += 1
    np.save(run / "reference" / "logits.npy", logits)
    refused(params, run, "reference/logits.npy was changed after it was taken; run `dvc repro --f")


def test_a_pte_of_another_checkpoint_is_called_that(params: Params, run: Path) -> None:
    path = delivered_file(run, "pte")
    path.write_bytes(b"other weights")
    contract = path.with_name(f"{path.name}.contract.json")
    edit(contract, within("checkpoint", sha256="0" * 64))
    refused(params, run, f"{path.name} carries another contract", "made from other weights")


@pytest.mark.parametrize(
    "change", [within("artefact", operators=[]), within("artefact", oldest_runtime="0.1")]
)
def test_the_contract_beside_a_pte_is_the_measured_one(
    params: Params, run: Path, change: Edit
) -> None:
    contract = next((run / "executorch").glob("*.contract.json"))
    edit(contract, change)
    refused(params, run, f"says beside.{contract.name} = ")


@pytest.mark.parametrize(
    ("key", "words"), [("onnx", "does not have the SHA-256 that"), ("int8_onnx", "is not part of")]
)
def test_other_weights_beside_an_onnx_file_are_named(
    params: Params, run: Path, key: str, words: str
) -> None:
    path = delivered_file(run, key)
    data_file(path).write_bytes(b"slightly other weights")
    refused(params, run, f"{data_file(path).name} {words}")


def test_a_file_swapped_while_it_is_copied_is_not_published(
    params: Params, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = delivered_file(run, "pte")
    fill = folder.fill

    def swap(*given: Any) -> None:
        path.write_bytes(b"other weights")
        fill(*given)

    monkeypatch.setattr("pipeline.stages.publish.fill", swap)
    with pytest.raises(IntegrityError, match=r"(?s)was not published.*\.pte: evidence"):
        publish(params, run, NOWHERE, run / "release")
    assert list((run / "release").iterdir()) == []


def test_a_file_without_limits_is_not_judged_and_not_published(params: Params, run: Path) -> None:
    budgets = params.gate.budgets | {"pte": params.gate.budgets["pte"].model_validate({})}
    empty = params.model_copy(update={"gate": params.gate.model_copy(update={"budgets": budgets})})
    assert not gate(empty, run, NOWHERE, run / "verdict").passed
    with pytest.raises(GateError, match=r"gate\.budgets\.pte has no limit"):
        publish(empty, run, NOWHERE, run / "release")


def test_verify_refuses_a_file_without_limits_too(params: Params, run: Path) -> None:
    release = publish(params, run, NOWHERE, run / "release")
    edit(release / "params.json", lambda judged: judged["gate"]["budgets"].update(pte={}))
    (release / SUMS_FILE).write_text(format_sums(hashes(release)))
    assert any("gate.budgets.pte has no limit" in problem for problem in verify(release))


@pytest.mark.parametrize("key", ["images", "labels"])
def test_a_release_is_held_to_the_hashes_and_labels_of_its_images(
    params: Params, run: Path, key: str
) -> None:
    release = publish(params, run, NOWHERE, run / "release")
    edit(release / "evidence" / "samples.json", lambda about: about[key].reverse())
    (release / SUMS_FILE).write_text(format_sums(hashes(release)))
    assert any("says content_sha256 = " in problem for problem in verify(release))


def test_evidence_of_an_earlier_version_is_read(params: Params, run: Path) -> None:
    def earlier(evidence: dict[str, Any]) -> None:
        del evidence["samples"]["content_sha256"]
        for file in evidence["artefacts"].values():
            del file["beside"]

    edit(run / "parity" / "evidence.json", earlier)
    release = publish(params, run, NOWHERE, run / "release")
    edit(release / "evidence" / "samples.json", lambda about: about.pop("images"))
    (release / SUMS_FILE).write_text(format_sums(hashes(release)))
    assert verify(release) == []


def test_a_record_of_another_gpu_is_named_with_what_it_is(
    params: Params, run: Path, tmp_path: Path
) -> None:
    recorded = type(NOWHERE)(tmp_path / "baselines", tmp_path / "none")
    write_baseline(run, recorded.baselines / "a-gpu" / "a-model", "NVIDIA H200")
    verdict = gate(params, run, recorded, run / "verdict")
    (note,) = {c.note for c in verdict.criteria if c.name == "baseline_logits"}
    assert "there is one of NVIDIA H200, which baseline.device does not ask for" in note


def test_sizes_are_of_files_with_what_lies_beside_them(run: Path) -> None:
    evidence = json.loads((run / "parity" / "evidence.json").read_text())
    contract = next((run / "executorch").glob("*.contract.json"))
    assert evidence["artefacts"]["pte"]["beside"] == {contract.name: sha256_file(contract)}
    assert evidence["artefacts"]["ptl"]["beside"] == {}
