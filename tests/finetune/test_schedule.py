from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.finetune.optimizer import lr_at, optimizers, set_lr
from pipeline.finetune.params import Optimizer, Phase
from pipeline.finetune.schedule import draws, split, steps_of
from pipeline.models.build import create
from tests.finetune.conftest import TINY

PHASE = Phase(image_size=32, epochs=2.5, batch_size=8, lr=1.0, lr_end=0.2, warmup_fraction=0.2)


def test_the_rate_rises_then_follows_half_a_cosine() -> None:
    rates = [lr_at(step, 20, PHASE) for step in range(20)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0  # warm-up is over, the cosine is at its top
    assert rates[12] == pytest.approx((1.0 + 0.2) / 2)  # half of the 16 steps
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert lr_at(20, 20, PHASE) == pytest.approx(0.2)


def test_fractional_epochs_count_whole_batches() -> None:
    assert steps_of(PHASE, 83) == 25  # 10 batches an epoch
    assert steps_of(PHASE, 5) == 2  # one smaller batch an epoch, 2.5 rounded to even


def test_each_epoch_shows_each_image_at_most_once_in_a_new_order() -> None:
    part = torch.arange(100, 183)
    found = draws(part, PHASE, 0, 0, seed=3)
    epochs = [[i for draw in found[at : at + 10] for i in draw.indices] for at in (0, 10)]
    for shown in epochs:
        assert len(set(shown)) == 80
        assert set(shown) <= set(part.tolist())
    assert epochs[0] != epochs[1]
    assert len({draw.seed for draw in found}) == len(found)


def test_draws_from_a_later_step_are_the_rest_of_all_draws() -> None:
    part = torch.arange(83)
    assert draws(part, PHASE, 1, 13, seed=0) == draws(part, PHASE, 1, 0, seed=0)[13:]


def test_draws_depend_on_seed_and_phase() -> None:
    part = torch.arange(83)
    assert draws(part, PHASE, 0, 0, seed=0) != draws(part, PHASE, 0, 0, seed=1)
    assert draws(part, PHASE, 0, 0, seed=0) != draws(part, PHASE, 1, 0, seed=0)


def test_held_out_images_are_never_trained_on() -> None:
    training, validation = split(50, 0.1, seed=1)
    assert len(validation) == 5
    assert sorted([*training.tolist(), *validation.tolist()]) == list(range(50))


def decayed(found: list[torch.optim.Optimizer], model: nn.Module) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [group for optimizer in found for group in optimizer.param_groups]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(names)  # each just once
    return {names[id(p)] for g in groups if g["weight_decay"] > 0 for p in g["params"]}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_matrices_decay(name: str) -> None:
    model = create(TINY, num_classes=3)
    options = Optimizer.model_validate({"name": name})
    found = decayed(optimizers(model, options), model)
    assert {
        "blocks.0.attn.qkv.weight",
        "head.weight",
        "patch_embed.proj.weight",
    } <= found
    assert not {"pos_embed", "cls_token", "head.bias", "norm.weight"} & found


def test_muon_takes_the_blocks_matrices_at_its_own_rate() -> None:
    model = create(TINY, num_classes=3)
    adamw, muon = optimizers(model, Optimizer(name="muon", muon_lr_ratio=2.0))
    set_lr([adamw, muon], 0.01)
    assert {group["lr"] for group in adamw.param_groups} == {0.01}
    assert {group["lr"] for group in muon.param_groups} == {0.02}
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    expected = {n for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2}
    assert {n for n, p in model.named_parameters() if id(p) in taken} == expected
