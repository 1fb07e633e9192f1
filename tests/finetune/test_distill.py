from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pipeline.finetune.distill import Teacher, loss_of
from pipeline.finetune.machine import Machine

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]])
LABELS = torch.tensor([0, 2])
TAUGHT = torch.tensor([1, 2])


def log_probability(row: list[float], k: int) -> float:
    return row[k] - math.log(sum(math.exp(value) for value in row))


def by_hand(smoothing: float, chosen: list[int]) -> float:
    total = 0.0
    for row, k in zip(LOGITS.tolist(), chosen, strict=True):
        uniform = sum(log_probability(row, j) for j in range(3)) / 3
        total -= (1 - smoothing) * log_probability(row, k) + smoothing * uniform
    return total / len(chosen)


def test_without_a_teacher_it_is_smoothed_cross_entropy() -> None:
    assert loss_of(LOGITS, LABELS, 0.1, None).item() == pytest.approx(by_hand(0.1, [0, 2]))


def test_hard_distillation_halves_label_and_teacher() -> None:
    expected = 0.5 * by_hand(0.1, [0, 2]) + 0.5 * by_hand(0.0, [1, 2])
    assert loss_of(LOGITS, LABELS, 0.1, TAUGHT).item() == pytest.approx(expected)


class Brightest(nn.Module):
    """Sees the class of the brightest channel, and remembers what size it was shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = tuple(x.shape)
        return x.mean((2, 3))


def test_a_teacher_sees_the_same_view_at_its_own_size() -> None:
    model = Brightest()
    x = torch.zeros(2, 3, 48, 48)
    x[0, 1], x[1, 2] = 1.0, 1.0
    machine = Machine(torch.device("cpu"), bfloat16=False, compiles=False)
    chosen = Teacher(model, 32, "").choose(x, machine)
    assert chosen.tolist() == [1, 2]
    assert model.seen == (2, 3, 32, 32)
