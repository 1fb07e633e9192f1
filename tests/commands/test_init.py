"""`edge-vit init` finds what `fetch` and `samples` find, and the file keeps its comments."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from pipeline.commands.init import init
from pipeline.errors import EdgeVitError
from pipeline.files import sha256_file
from pipeline.params import PARAMS_FILE, load_params

ROOT = Path(__file__).parents[2]
TINY = "test_vit"
CLASSES = ("bag", "cat", "cow")


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").symlink_to(ROOT / "embedded")
    shutil.copy(ROOT / PARAMS_FILE, ".")
    for name in CLASSES:
        Path("photos", name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((70, 80, 3), 10 * number, np.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{number}.png")


def save(path: str, **about: object) -> None:
    model = timm.create_model(TINY, num_classes=3, img_size=64)
    torch.save({"state_dict": model.state_dict(), **about}, path)


def save_as_timm(path: str) -> None:
    args = argparse.Namespace(model=TINY, img_size=64, in_chans=None, mean=[0.5, 0.4, 0.3])
    save(path, arch=TINY, args=args)


def said(checkpoint: str, **told: object) -> str:
    return "\n".join(init(checkpoint, Path("photos"), told))


def test_a_training_checkpoint_and_class_folders_are_enough(capsys: pytest.CaptureFixture[str]):
    save_as_timm("best.pth.tar")
    before = Path(PARAMS_FILE).read_text().splitlines()
    words = said("best.pth.tar")
    assert "network: test_vit, 3 classes (bag to cow)" in words
    assert "input: 64 x 64 pixels (height x width), RGB" in words
    assert "images: 18, in 3 classes: 16 to evaluate and 2 to calibrate with" in words
    assert "the gate asks for more" in words
    assert "the labels are the 3 class folders of photos" in capsys.readouterr().out
    params = load_params()
    assert params.model.checkpoint == "best.pth.tar"
    assert params.model.sha256 == sha256_file(Path("best.pth.tar"))
    assert params.samples.source == Path("photos")
    after = Path(PARAMS_FILE).read_text().splitlines()
    changed = [now for was, now in zip(before, after, strict=True) if was != now]
    assert [line.split(":")[0].strip() for line in changed] == ["checkpoint", "sha256", "source"]
    assert all("# " in line for line in changed)


def test_what_fetch_refuses_is_refused_and_nothing_is_written():
    save("plain.pth")
    before = Path(PARAMS_FILE).read_bytes()
    for checkpoint, told, words in (
        ("plain.pth", {}, r"model\.architecture is missing"),
        ("plain.pth", {"architecture": "deit_tiny_patch16_224"}, "does not fit the model"),
        ("nowhere.pth", {}, "neither a file nor in the zoo"),
        ("", {}, "empty"),
    ):
        with pytest.raises(EdgeVitError, match=words):
            said(checkpoint, **told)
    shutil.rmtree("photos/cow")
    with pytest.raises(EdgeVitError, match="no labels are given and photos has 2 class folders"):
        said("plain.pth", architecture=TINY)
    shutil.rmtree("photos")
    with pytest.raises(EdgeVitError, match="photos is missing; give a folder of images"):
        said("plain.pth", architecture=TINY)
    assert Path(PARAMS_FILE).read_bytes() == before


def test_a_file_of_labels_beside_is_taken_and_what_was_set_before_is_kept():
    save("plain.pth")
    Path("labels.txt").write_text("cow\ncat\nbag\n")
    words = said("plain.pth", architecture=TINY)
    assert "assumed: labels.txt has the labels" in words
    assert "(cow to bag)" in words
    assert load_params().model.labels == Path("labels.txt")
    again = said("plain.pth")
    assert f"kept from params.yaml: model.architecture: {TINY}" in again
    assert "kept from params.yaml: model.labels: labels.txt" in again
    assert load_params().model.architecture == TINY


def test_two_files_of_labels_are_a_question():
    save_as_timm("best.pth.tar")
    for name in ("labels.txt", "classes.txt"):
        Path(name).write_text("cow\ncat\nbag\n")
    with pytest.raises(EdgeVitError, match=r"labels\.txt, classes\.txt .* say which does"):
        said("best.pth.tar")


def test_a_name_of_the_zoo_needs_no_hash():
    name = "mobilevitv2_050.fashion_mnist"
    init(name, Path("embedded/fashion_mnist"), {})
    model = load_params().model
    assert (model.checkpoint, model.sha256, model.labels) == (name, None, None)
