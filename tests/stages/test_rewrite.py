"""Stage ``rewrite`` on real checkpoints: what passes as it is, what is refused, what is written."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file, save_file

from pipeline.errors import ParamsError
from pipeline.files import read_json
from pipeline.params import Params, Rewrite
from pipeline.quantization.float_model import load_float
from pipeline.runtimes import load
from pipeline.stages.chain import run as run_stages
from pipeline.stages.rewrite import rewrite
from tests.checkpoints.fetching import OUT, fetched
from tests.conftest import ROOT

pytestmark = pytest.mark.full

EVERYTHING = Rewrite(fold_norm=True, rotate=0, centre=True, smooth=0.5, query_key=1.0, value=0.5)
MODEL = "model.safetensors"


@pytest.fixture(scope="module")
def rewritten(healthy, tmp_path_factory):
    """The embedded DeiT-Tiny, with every method."""
    out = tmp_path_factory.mktemp("rewrite") / "rewritten"
    rewrite(EVERYTHING, healthy / "checkpoint", healthy / "samples", out)
    return out


def test_every_method_together_answers_within_the_noise_floor(healthy, rewritten, params):
    from pipeline.images.preprocessing import normalize
    from pipeline.images.samples import SampleSet

    runtime = load(rewritten / MODEL)
    images = SampleSet.load(healthy / "samples").images[:16]
    answers = runtime.logits(normalize(images, runtime.contract.preprocessing))
    reference = np.load(healthy / "reference" / "logits.npy")[:16]
    floor = read_json(healthy / "reference" / "reference.json")["noise_floor"]["max_abs"]
    assert 0 < np.abs(answers - reference).max() <= params.gate.noise_multiple * floor


def test_the_architecture_and_the_contract_stay(healthy, rewritten):
    before, after = (load_file(path / MODEL) for path in (healthy / "checkpoint", rewritten))
    assert {key: value.shape for key, value in before.items()} == {
        key: value.shape for key, value in after.items()
    }
    contracts = [
        (path / "contract.json").read_bytes() for path in (healthy / "checkpoint", rewritten)
    ]
    assert contracts[0] == contracts[1]


def test_the_same_images_give_the_same_bytes(healthy, rewritten, tmp_path):
    rewrite(EVERYTHING, healthy / "checkpoint", healthy / "samples", tmp_path / "again")
    assert (tmp_path / "again" / MODEL).read_bytes() == (rewritten / MODEL).read_bytes()


def test_no_method_passes_the_checkpoint_bit_for_bit(healthy, tmp_path):
    rewrite(Rewrite(), healthy / "checkpoint", healthy / "samples", tmp_path / "same")
    assert (tmp_path / "same" / MODEL).read_bytes() == (healthy / "checkpoint" / MODEL).read_bytes()


def test_a_network_of_convolutions_passes_bit_for_bit(params, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = params.model_dump()
    values["model"]["checkpoint"] = "mobilevitv2_050.fashion_mnist"
    values["rewrite"] = EVERYTHING.model_dump()
    run_stages(Params.model_validate(values), tmp_path, "fetch", "rewrite")
    before, after = (tmp_path / name / MODEL for name in ("checkpoint", "rewritten"))
    assert before.read_bytes() == after.read_bytes()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Rewrite(rotate=0), r"rewrite\.rotate needs rewrite\.fold_norm: true"),
        (Rewrite(smooth=0.5), r"rewrite needs calibration images.* raise samples\.calibration"),
    ],
)
def test_what_cannot_be_done_says_what_to_change(healthy, tmp_path, method, words):
    samples = tmp_path / "samples"
    samples.mkdir()
    np.save(samples / "calibration.npy", np.zeros((0, 224, 224, 3), np.uint8))
    with pytest.raises(ParamsError, match=words):
        rewrite(method, healthy / "checkpoint", samples, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_rewrite_that_changes_answers_is_named(params, artifacts):
    from pipeline.stages.gate import gate
    from tests.stages.test_faults import RECORDED, failures

    path = artifacts / "rewritten" / MODEL
    weights = load_file(path)
    save_file(weights | {"blocks.3.norm1.weight": weights["blocks.3.norm1.weight"] * 1.01}, path)
    run_stages(params, artifacts, "parity", "latency")
    failed = failures(gate(params, artifacts, RECORDED, artifacts / "verdict"))
    assert ("rewrite", "noise_multiple") in failed
    assert ("quantize", "weights") in failed  # int8 was made from other float weights


def test_an_offset_that_takes_the_last_digits_is_left_out(tmp_path, monkeypatch, capsys, params):
    """DeiT III with LayerScale as timm begins: the class token hardly differs from zero."""
    name = "deit3_small_patch16_224"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, img_size=32, depth=2).eval()
    assert network.blocks[0].ls1.gamma.max() == 1e-6
    torch.save(network.state_dict(), "own.pth")
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    fetched("own.pth", architecture=name, kwargs={"depth": 2}, labels="labels.txt")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "calibration.npy", pixels)
    rewrite(Rewrite(centre=True, smooth=0.75), OUT, tmp_path / "samples", tmp_path / "rewritten")
    assert "centre is left out" in capsys.readouterr().err
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    after, _ = load_float(tmp_path / "rewritten" / MODEL)
    with torch.inference_mode():
        float32, answers = network(images), after(images)
        truth = network.double()(images.double())
    noise = (float32 - truth).abs().max()
    assert 0 < (answers - truth).abs().max() <= params.gate.noise_multiple * noise
    assert after.norm.weight.std() > 0  # smoothed
