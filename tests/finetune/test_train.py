from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.finetune import trainer
from pipeline.finetune.evaluate import evaluate, measure
from pipeline.finetune.pack import pack
from pipeline.finetune.params import FinetuneParams
from pipeline.finetune.teacher import make_teacher
from pipeline.finetune.train import train
from tests.finetune.conftest import params_for

ROOT = Path(__file__).parents[2]
# Dies by SIGKILL, as a machine that loses power does, after so many steps.
KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.finetune import trainer
from pipeline.finetune.params import FinetuneParams
from pipeline.finetune.train import train

step, left = trainer.Trainer._step, [int(sys.argv[2])]
def dying(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments)
trainer.Trainer._step = dying
params = FinetuneParams.model_validate_json(Path(sys.argv[1]).read_text())
train(params, Path(sys.argv[3]), Path(sys.argv[3]))
"""


def kill_after(steps: int, params: FinetuneParams, artifacts: Path) -> None:
    file = artifacts.parent / "params.json"
    file.write_text(params.model_dump_json())
    command = [sys.executable, "-c", KILLED, str(file), str(steps), str(artifacts)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def weights(artifacts: Path) -> dict[str, torch.Tensor]:
    return load_file(artifacts / "train" / "weights.safetensors")


def history(artifacts: Path) -> list[dict[str, str]]:
    with open(artifacts / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


class Stopped(Exception):
    pass


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run fail after so many steps; the next run goes on undisturbed."""
    step, left = trainer.Trainer._step, [steps]

    def stopping(self: trainer.Trainer, batch: trainer.Batch, lr: float, seed: int) -> float:
        left[0] -= 1
        if left[0] == -1:
            raise Stopped
        return step(self, batch, lr, seed)

    monkeypatch.setattr(trainer.Trainer, "_step", stopping)


def assert_same(whole: Path, other: Path) -> None:
    expected, found = weights(whole), weights(other)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert history(whole) == history(other)
    assert [row["image_size"] for row in history(other)] == ["32", "48"]
    assert not (other / "resume" / "train.pt").exists()


@pytest.mark.full
def test_a_killed_run_ends_with_the_same_bits(idx_root: Path, tmp_path: Path) -> None:
    params = params_for(idx_root, optimizer={"name": "muon"})
    train(params, tmp_path / "whole", tmp_path / "whole")
    kill_after(6, params, tmp_path / "killed")  # in the second phase: there are 4 steps in each
    assert (tmp_path / "killed" / "resume" / "train.pt").is_file()
    assert not (tmp_path / "killed" / "train" / "weights.safetensors").exists()
    train(params, tmp_path / "killed", tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_run_stopped_in_its_first_phase_ends_with_the_same_bits(
    idx_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_for(idx_root)
    train(params, tmp_path / "whole", tmp_path / "whole")
    stop_after(3, monkeypatch)
    with pytest.raises(Stopped):
        train(params, tmp_path / "stopped", tmp_path / "stopped")
    train(params, tmp_path / "stopped", tmp_path / "stopped")
    assert_same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.full
def test_a_checkpoint_of_other_parameters_is_not_gone_on_from(
    idx_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = params_for(idx_root, label_smoothing=0.0)
    stop_after(2, monkeypatch)
    with pytest.raises(Stopped):
        train(params_for(idx_root), tmp_path / "a", tmp_path / "a")
    train(changed, tmp_path / "a", tmp_path / "a")
    train(changed, tmp_path / "b", tmp_path / "b")
    assert history(tmp_path / "a") == history(tmp_path / "b")


def test_training_learns(idx_root: Path, tmp_path: Path) -> None:
    phase = {"image_size": 32, "epochs": 6, "batch_size": 8, "lr": 2e-3}
    params = params_for(idx_root, phases=[phase], ema_decay=0.8)
    train(params, tmp_path, tmp_path)
    evaluate(params, tmp_path, tmp_path)
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["top1"] > 0.8  # of 15 images; guessing gives a third
    assert metrics["top1_low"] < metrics["top1"] <= metrics["top1_high"]
    assert (metrics["images"], metrics["measured_on"]) == (15, "test")
    with open(tmp_path / "confusion.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["actual"] == row["predicted"] for row in rows)
    assert (len(rows), right / 15) == (15, metrics["top1"])


@pytest.mark.full
def test_a_teacher_is_trained_and_changes_what_is_learnt(idx_root: Path, tmp_path: Path) -> None:
    alone = params_for(idx_root)
    phase = {"image_size": 32, "epochs": 1, "batch_size": 10, "lr": 1e-2}
    teacher = {"architecture": "test_resnet", "phases": [phase]}
    values = alone.model_dump(mode="json")
    taught = FinetuneParams.model_validate(values | {"teacher": teacher})
    with pytest.raises(InputError, match=r"teacher/weights\.safetensors is missing"):
        train(taught, tmp_path / "taught", tmp_path / "taught")
    make_teacher(taught, tmp_path / "taught")
    train(taught, tmp_path / "taught", tmp_path / "taught")
    make_teacher(alone, tmp_path / "alone")
    train(alone, tmp_path / "alone", tmp_path / "alone")
    assert not list((tmp_path / "alone" / "teacher").iterdir())
    losses = [history(tmp_path / name)[0]["train_loss"] for name in ("taught", "alone")]
    assert losses[0] != losses[1]


def test_class_folders_are_trained_on_and_measured_on_held_out_images(
    folder_root: Path, tmp_path: Path
) -> None:
    phase = {"image_size": 32, "epochs": 1, "batch_size": 4, "lr": 1e-3}
    params = params_for(folder_root, phases=[phase])
    train(params, tmp_path, tmp_path)
    evaluate(params, tmp_path, tmp_path)
    metrics = read_json(tmp_path / "metrics.json")
    assert (metrics["images"], metrics["measured_on"]) == (2, "validation")
    pack(params, tmp_path)


def test_stages_say_what_must_run_first(params: FinetuneParams, tmp_path: Path) -> None:
    words = r"weights\.safetensors is missing; run `dvc repro"
    with pytest.raises(InputError, match=words):
        evaluate(params, tmp_path, tmp_path)
    with pytest.raises(InputError, match=words):
        pack(params, tmp_path)


def test_a_damaged_checkpoint_is_said_and_kept(params: FinetuneParams, tmp_path: Path) -> None:
    path = tmp_path / "resume" / "train.pt"
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(InputError, match=r"train\.pt is not a checkpoint.*delete it to train anew"):
        train(params, tmp_path, tmp_path)
    assert path.exists()


@pytest.mark.full
def test_packed_weights_measure_as_those_they_were_packed_from(
    params: FinetuneParams, tmp_path: Path
) -> None:
    train(params, tmp_path, tmp_path)
    trained = measure(params, tmp_path / "train" / "weights.safetensors")
    assert measure(params, pack(params, tmp_path)) == trained
