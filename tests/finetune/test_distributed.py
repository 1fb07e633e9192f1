from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import InputError
from pipeline.finetune import networks
from pipeline.finetune.data import Draw
from pipeline.finetune.distributed import ProcessGroup, run_together
from pipeline.finetune.train import train
from tests.finetune.conftest import TINY, params_for

pytestmark = pytest.mark.full

PHASE = {"image_size": 32, "epochs": 0.5, "batch_size": 8, "lr": 1e-3}


def test_shares_make_up_the_batch() -> None:
    draw = Draw((5, 6, 7, 8, 9), 3)
    parts = [ProcessGroup(rank, 2).shard(draw) for rank in range(2)]
    assert sorted(i for part in parts for i in part.indices) == [5, 6, 7, 8, 9]
    assert parts[0].seed != parts[1].seed
    assert ProcessGroup().shard(draw) == draw


def test_one_image_is_shared_by_all() -> None:
    assert ProcessGroup(1, 2).shard(Draw((4,), 0)).indices == (4,)


def test_two_processes_take_the_steps_of_one(idx_root: Path, tmp_path: Path) -> None:
    plain = {"phases": [PHASE], "augmentation": {"flip": 0, "shift": 0}}
    one = params_for(idx_root, **plain)
    run = one.run.model_copy(update={"processes": 2, "threads": 1})
    train(one, tmp_path / "one", tmp_path / "one")
    train(one.model_copy(update={"run": run}), tmp_path / "two", tmp_path / "two")
    torch.manual_seed(one.run.seed)
    start = networks.build(TINY, 10, PHASE["image_size"]).state_dict()
    first, second = (
        load_file(tmp_path / name / "train" / "weights.safetensors") for name in ("one", "two")
    )
    moved = torch.cat([(first[key] - start[key]).flatten() for key in start]).norm()
    apart = torch.cat([(first[key] - second[key]).flatten() for key in start]).norm()
    assert moved > 0
    assert apart < 0.1 * moved  # Adam magnifies the rounding of gradients that are all but zero


def refuse(group: ProcessGroup) -> None:
    if group.is_main:
        raise InputError("this image cannot be read")


def test_an_error_in_one_process_is_raised_as_it_is() -> None:
    with pytest.raises(InputError, match=r"^this image cannot be read$"):
        run_together(2, refuse)
