"""What training starts from, and teachers, in the formats of the main pipeline and hostile ones."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.checkpoints import google_npz
from pipeline.errors import InputError
from pipeline.finetune.data import load_train
from pipeline.finetune.networks import build, start_from
from pipeline.finetune.params import FinetuneParams
from pipeline.finetune.teacher import make_teacher
from pipeline.stages.chain import alone
from tests.finetune.conftest import TINY, params_for
from tests.untrusted.pickles import Call, write_legacy

GOOGLES = "vit_tiny_patch16_224"
CLASSES_21K = 21_843


def randomized(classes: int, size: int = 32) -> Any:
    torch.manual_seed(0)
    model: Any = build(GOOGLES, classes, size)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.05)
    return model


@pytest.mark.parametrize(("classes", "head"), [(CLASSES_21K, True), (5, False)])
def test_training_starts_from_googles_checkpoint_without_its_head(
    classes: int, head: bool, tmp_path: Path
) -> None:
    given, model = randomized(classes), build(GOOGLES, 3, 32)
    google_npz.save(given, tmp_path / "it.npz", head=head)
    fresh = model.head.weight.clone()
    start_from(model, tmp_path / "it.npz")
    theirs, own = given.state_dict(), model.state_dict()
    assert all(torch.equal(own[key], theirs[key]) for key in own if not key.startswith("head."))
    assert torch.equal(model.head.weight, fresh)


def test_googles_head_of_the_same_classes_is_taken_and_positions_are_fitted(
    tmp_path: Path,
) -> None:
    given, model = randomized(3, size=32), build(GOOGLES, 3, 64)
    google_npz.save(given, tmp_path / "it.npz")
    start_from(model, tmp_path / "it.npz")
    assert torch.equal(model.head.weight, given.head.weight)
    assert torch.equal(model.pos_embed[:, 0], given.pos_embed[:, 0])


def test_googles_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    google_npz.save(randomized(3), tmp_path / "it.npz")
    with pytest.raises(InputError, match="does not fit the model"):
        start_from(build(TINY, 3, 32), tmp_path / "it.npz")


def test_code_is_not_run_where_training_starts(tmp_path: Path) -> None:
    write_legacy(tmp_path / "it.pth", Call(os.mkdir, str(tmp_path / "ran")), [])
    with pytest.raises(InputError, match="could run code"):
        start_from(build(TINY, 3, 32), tmp_path / "it.pth")
    assert not (tmp_path / "ran").exists()


def taught_by(root: Path, folder: Path, **teacher: Any) -> FinetuneParams:
    params = params_for(root)
    (folder / "names.txt").write_text("\n".join(load_train(params.data).classes))
    values = params.model_dump(mode="json")
    known = {"labels": str(folder / "names.txt"), "interpolation": "bicubic"}
    return FinetuneParams.model_validate(values | {"teacher": known | teacher})


def test_googles_checkpoint_is_a_teacher(idx_root: Path, tmp_path: Path) -> None:
    classes = len(load_train(params_for(idx_root).data).classes)
    given = randomized(classes)
    google_npz.save(given, tmp_path / "it.npz")
    make_teacher(taught_by(idx_root, tmp_path, checkpoint=str(tmp_path / "it.npz")), tmp_path)
    written = load_file(tmp_path / "teacher" / "weights.safetensors")
    own = given.state_dict()
    assert written.keys() == own.keys()
    assert all(torch.equal(written[key], own[key]) for key in own)


@pytest.mark.full
def test_a_teacher_of_a_larger_architecture_than_its_file_takes_no_memory(
    idx_root: Path, tmp_path: Path
) -> None:
    save_file(build(TINY, 3, 160).state_dict(), tmp_path / "it.safetensors")
    alone(refused_in_a_gigabyte, idx_root, tmp_path)
    assert not (tmp_path / "teacher" / "weights.safetensors").exists()


def refused_in_a_gigabyte(idx_root: Path, tmp_path: Path) -> None:
    """In a process of its own: what other tests have mapped would count for or against it."""

    def refused(architecture: str) -> None:
        checkpoint = str(tmp_path / "it.safetensors")
        params = taught_by(idx_root, tmp_path, checkpoint=checkpoint, architecture=architecture)
        with pytest.raises(InputError, match="does not fit the model"):
            make_teacher(params, tmp_path)

    refused("vit_tiny_patch16_224")  # loads what is loaded when it is needed
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30),) * 2)
    refused("vit_gigantic_patch14_224")  # 7 GB of weights
