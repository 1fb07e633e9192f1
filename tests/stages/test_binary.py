"""A network with one sigmoid logit, through all stages: yes where its probability is above 0.7."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from device_tests.snippets import snippets
from pipeline import paths
from pipeline.commands.diff import diff
from pipeline.contract.files import load_contract, read_contract
from pipeline.evidence.golden import Golden
from pipeline.evidence.logits import load_logits
from pipeline.evidence.model import read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import EvidencePaths
from pipeline.files import read_json
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.inference.classify import Classifier
from pipeline.inference.compare import compare, find_files
from pipeline.inference.requests import Job, reply
from pipeline.params import Params
from pipeline.paths import Recorded
from pipeline.release.differences import Agreement
from pipeline.runtimes import FloatArray
from pipeline.stages.chain import run as run_stages
from pipeline.stages.gate import gate
from pipeline.stages.publish import publish
from pipeline.stages.report import report
from tests.checkpoints.fetching import trained

pytestmark = pytest.mark.full

TINY, SIZE, COUNT, THRESHOLD = "test_vit", 64, 40, 0.7
NOWHERE = Recorded(Path("none"), Path("none"))
STAGES = (
    *("fetch", "samples", "reference", "rewrite", "quantize", "script", "optimize", "lite"),
    *("export_onnx", "golden", "parity", "latency"),
)


class Run:
    """The owner's network, what the stages made of it, and what was published."""

    def __init__(self, owner: nn.Module, artifacts: Path, release: Path, params: Params) -> None:
        self.owner, self.artifacts, self.release = owner, artifacts, release
        self.params = params
        self.samples = SampleSet.load(artifacts / "samples")
        self.contract = load_contract(artifacts / "checkpoint")
        self.parity = read_sealed(EvidencePaths.of_run(artifacts, NOWHERE).parity, ParityEvidence)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Of yes, by the owner's network and torch's sigmoid."""
        with torch.inference_mode():
            logits = self.owner(torch.from_numpy(normalize(images, self.contract.preprocessing)))
        found: NDArray[np.float64] = torch.sigmoid(logits.double())[:, 0].numpy()
        return found

    def logits(self, *keys: str) -> dict[str, FloatArray]:
        """Measured ones."""
        return load_logits(EvidencePaths.of_run(self.artifacts, NOWHERE).logits, self.parity, keys)


def draw(root: Path) -> None:
    """Dark and bright noise; the two overlap."""
    rng = np.random.default_rng(0)
    for name, mean in (("dark", 100), ("bright", 150)):
        folder = root / f"{'0' if name == 'dark' else '1'}-{name}"
        folder.mkdir(parents=True)
        for number in range(COUNT):
            level = rng.normal(mean, 25)
            noise = rng.normal(level, 20, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / f"{number:02}.png")


def network(root: Path) -> nn.Module:
    """Random weights, whose features a regression turns into a logit."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = trained(timm.create_model(TINY, num_classes=1, img_size=SIZE))
    files = sorted(root.rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path), np.float32) for path in files]) / 127.5 - 1
    wanted = np.array([4.0 if path.parent.name == "1-bright" else -4.0 for path in files])
    with torch.inference_mode():
        inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        features = model.forward_head(model.forward_features(inputs), pre_logits=True).double()
        mean = features.mean(0)
        centred = features - mean
        ridge = centred.T @ centred + 10 * torch.eye(features.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(ridge, centred.T @ torch.from_numpy(wanted))
        model.head.weight.copy_(weight[None])
        model.head.bias.copy_(-(weight @ mean)[None])
    return model.eval()


@pytest.fixture(scope="module")
def run(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("binary")
    draw(folder / "images")
    (folder / "photos").mkdir()
    shutil.copy(folder / "images" / "0-dark" / "00.png", folder / "photos")
    owner = network(folder / "images")
    save_file(owner.state_dict(), folder / "own.safetensors")
    values = params.model_dump()
    values["model"] |= {
        "checkpoint": str(folder / "own.safetensors"),
        "architecture": TINY,
        "sha256": "trust-first-use",
        "activation": "sigmoid",
        "threshold": THRESHOLD,
        "image_size": SIZE,
        "crop_pct": 1.0,
        "kwargs": {"img_size": SIZE},
    }
    values["samples"] |= {"source": folder / "images", "limit": 60, "calibration": 8}
    values["golden"] = {"samples": 4, "photographs": folder / "photos"}
    values["formats"] = ("ptl", "int8_onnx")
    values["gate"]["budgets"] = {key: {"sqnr_min_db": 15} for key in values["formats"]}
    # One logit of so small a network is rounded alike by chance; steps have tests of their own.
    values["gate"]["noise_multiple"] = 1e6
    changed, artifacts = Params.model_validate(values), folder / "artifacts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_VIT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        run_stages(changed, artifacts, *STAGES)
        assert gate(changed, artifacts, NOWHERE, folder / "verdict").passed
        release = publish(changed, artifacts, NOWHERE, folder / "release")
    return Run(owner, artifacts, release, changed)


def test_each_file_says_how_to_read_its_one_logit(run: Run) -> None:
    made = paths.delivered_files(run.artifacts)
    assert made.keys() == {"ptl", "int8_onnx"}
    for contract in (run.contract, *map(read_contract, made.values())):
        assert contract.labels == ("0-dark", "1-bright")
        said = json.loads(contract.to_json())
        assert (said["activation"], said["threshold"]) == ("sigmoid", THRESHOLD)


def test_logits_are_the_owners_and_answers_those_of_its_sigmoid(run: Run) -> None:
    logits = run.logits("reference", "int8_onnx")
    share = run.probabilities(run.samples.images)
    assert logits["reference"].shape == (60, 1)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits["reference"][:, 0])), share, atol=1e-5)
    assert run.samples.labels is not None
    yes, truth = share > THRESHOLD, run.samples.labels == 1
    right = int((yes == truth).sum())
    assert 30 < right < 60
    assert right != int(((share > 0.5) == truth).sum())  # the threshold decides some
    assert run.parity.reference_accuracy is not None
    assert run.parity.reference_accuracy.right == right
    edge = 1 / (1 + np.exp(-logits["int8_onnx"][:, 0].astype(np.float64))) > THRESHOLD
    file = run.parity.measured("int8_onnx")
    assert file is not None
    assert file.accuracy is not None
    assert file.top1_equal == int((yes == edge).sum())
    assert file.accuracy.right == int((edge == truth).sum())
    signal, noise = logits["reference"], logits["reference"] - logits["int8_onnx"]
    assert file.sqnr_db == pytest.approx(10 * np.log10((signal**2).sum() / (noise**2).sum()))


def test_predict_and_serve_give_both_labels_and_the_answer_first(run: Run) -> None:
    classifier = Classifier(next(run.release.glob("*.int8.onnx")))
    golden = Golden.load(run.artifacts / "golden")
    answered = set()
    for path, logit in zip(golden.images, golden.logits("int8_onnx")[:, 0], strict=True):
        share = 1 / (1 + np.exp(-float(logit)))
        scores = {"0-dark": 1 - share, "1-bright": share}
        found = classifier.classify(path.read_bytes())
        assert {p.label: p.score for p in found} == pytest.approx(scores, abs=1e-4)
        assert found[0].label == ("1-bright" if share > THRESHOLD else "0-dark")
        served = reply(classifier, Job(path.read_bytes(), is_json=False))
        assert (served.status, served.content) == (200, [vars(p) for p in found])
        answered.add(found[0].label)
    assert len(answered) == 2


def test_every_file_is_compared_by_its_answer(run: Run) -> None:
    files, _ = find_files(run.artifacts)
    image = Golden.load(run.artifacts / "golden").images[0]
    rows = compare(files, image.read_bytes(), 10)
    assert all(row.agrees and row.label == rows["float"].label for row in rows.values())


def test_the_report_and_the_release_say_yes_and_no(run: Run, tmp_path: Path) -> None:
    assert read_json(run.release / "golden" / "golden.json")["threshold"] == THRESHOLD
    assert (run.release / "labels.txt").read_text() == "0-dark\n1-bright\n"
    page = report(run.params, run.artifacts, NOWHERE, tmp_path).read_text()
    assert "1-bright" in page
    card = " ".join((run.release / "README.md").read_text().split())
    assert "[1, 1]: its sigmoid is the probability of the second label" in card


def test_a_release_is_compared_by_its_answers(run: Run) -> None:
    found = diff(run.release, run.release)
    agreement = found.agreement["int8_onnx"]
    assert isinstance(agreement, Agreement)
    assert (agreement.count, agreement.same.value) == (60, 1.0)
    file = run.parity.measured("int8_onnx")
    assert file is not None
    assert file.accuracy is not None
    accuracy = found.accuracy["int8_onnx"]
    assert accuracy.after is not None
    assert accuracy.after.value == file.accuracy.right / 60
    assert accuracy.drop is not None
    assert accuracy.drop.drop_pp == 0


def test_the_cards_code_answers_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, *blocks = snippets(run.release, "python")
    (load,) = (block for block in blocks if "onnxruntime" in block)
    names: dict[str, Any] = {}
    with contextlib.chdir(run.release):
        exec(prepare + load, names)
    share = 1 / (1 + np.exp(-float(names["logits"][0, 0])))
    assert capsys.readouterr().out.strip() == ("1-bright" if share > THRESHOLD else "0-dark")
