from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.finetune import networks
from pipeline.finetune.distill import Lesson, Teacher, loss_of, split_heads
from pipeline.finetune.hardware import Machine
from pipeline.finetune.params import Distillation

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]])
OTHER = torch.tensor([[0.3, 1.1, -0.4], [-0.2, 0.9, 0.1]])
LABELS = torch.tensor([0, 2])
TAUGHT = torch.tensor([[0.1, 3.0, -2.0], [0.0, 0.4, 1.5]])  # chooses 1, then 2
MACHINE = Machine(torch.device("cpu"), bfloat16=False, compiles=False)
DISTILLED = "deit_tiny_distilled_patch16_224"


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def cross_entropy(logits: torch.Tensor, smoothing: float, chosen: list[int]) -> float:
    total = 0.0
    for row, k in zip(logits.tolist(), chosen, strict=True):
        logs = log_softmax(row)
        total -= (1 - smoothing) * logs[k] + smoothing * sum(logs) / 3
    return total / len(chosen)


def divergence(logits: torch.Tensor, t: float) -> float:
    """Mean over images of KL(teacher || student) at temperature t, by its definition."""
    total = 0.0
    for student, teacher in zip(logits.tolist(), TAUGHT.tolist(), strict=True):
        s, q = (log_softmax([value / t for value in row]) for row in (student, teacher))
        total += sum(math.exp(b) * (b - a) for a, b in zip(s, q, strict=True))
    return total / len(TAUGHT)


def lesson(kind: str, **values: float) -> Lesson:
    method: dict[str, Any] = {"kind": kind} | values
    return Lesson(TAUGHT, Distillation.model_validate(method))


def test_without_a_teacher_it_is_smoothed_cross_entropy() -> None:
    expected = cross_entropy(LOGITS, 0.1, [0, 2])
    assert loss_of(LOGITS, LABELS, 0.1, None).item() == pytest.approx(expected)


def test_hard_distillation_halves_label_and_teachers_choice() -> None:
    found = loss_of(LOGITS, LABELS, 0.1, lesson("hard"))
    expected = 0.5 * cross_entropy(LOGITS, 0.1, [0, 2]) + 0.5 * cross_entropy(LOGITS, 0.0, [1, 2])
    assert found.item() == pytest.approx(expected)


def test_soft_distillation_weighs_the_divergence_by_the_squared_temperature() -> None:
    found = loss_of(LOGITS, LABELS, 0.1, lesson("soft", alpha=0.1, temperature=2.0))
    expected = 0.9 * cross_entropy(LOGITS, 0.1, [0, 2]) + 0.1 * 4 * divergence(LOGITS, 2.0)
    assert found.item() == pytest.approx(expected)


def test_the_defaults_are_alpha_a_half_and_temperature_three() -> None:
    found = loss_of(LOGITS, LABELS, 0.0, lesson("soft"))
    expected = 0.5 * cross_entropy(LOGITS, 0.0, [0, 2]) + 0.5 * 9 * divergence(LOGITS, 3.0)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_with_two_heads_one_learns_from_the_label_the_other_from_the_teacher(kind: str) -> None:
    found = loss_of((LOGITS, OTHER), LABELS, 0.1, lesson(kind, alpha=0.3))
    taught = cross_entropy(OTHER, 0.0, [1, 2]) if kind == "hard" else 9 * divergence(OTHER, 3.0)
    expected = 0.7 * cross_entropy(LOGITS, 0.1, [0, 2]) + 0.3 * taught
    assert found.item() == pytest.approx(expected)


def test_losses_are_torchs_own_formulas() -> None:
    torch.manual_seed(0)
    own, other, taught = torch.randn(3, 7, 11)
    labels = torch.randint(11, (7,))
    method = Distillation(kind="soft", alpha=0.2, temperature=4.0)
    probabilities = (taught / 4).softmax(1)
    soft = nn.KLDivLoss(reduction="sum")((other / 4).log_softmax(1), probabilities) / 7
    expected = 0.8 * nn.CrossEntropyLoss()(own, labels) + 0.2 * 16 * soft
    torch.testing.assert_close(loss_of((own, other), labels, 0, Lesson(taught, method)), expected)


def test_a_student_that_agrees_with_its_teacher_pays_nothing_for_it() -> None:
    label = functional.cross_entropy(LOGITS, LABELS)
    found = loss_of((LOGITS, TAUGHT), LABELS, 0.0, lesson("soft"))
    torch.testing.assert_close(found, 0.5 * label)


def student() -> nn.Module:
    torch.manual_seed(0)
    model = networks.build(DISTILLED, 3, 32, blocks=1)
    for head in (model.head, model.head_dist):
        nn.init.normal_(head.weight)
    split_heads(model)
    return model.train()


def gradients(loss: torch.Tensor, model: nn.Module) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: torch.zeros(1) if g is None else g for name, g in zip(named, found, strict=True)}


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_each_head_gets_gradients_from_its_own_loss_only(kind: str) -> None:
    """The weight of either loss changes its own head's gradient in proportion, and no other's."""
    model = student()
    x = torch.randn(2, 3, 32, 32)
    few, most = (
        gradients(loss_of(model(x), LABELS, 0.1, lesson(kind, alpha=alpha)), model)
        for alpha in (0.25, 0.75)
    )
    torch.testing.assert_close(few["head.weight"], 3 * most["head.weight"])
    torch.testing.assert_close(3 * few["head_dist.weight"], most["head_dist.weight"])
    other = gradients(loss_of(model(x), LABELS.flip(0), 0.1, lesson(kind, alpha=0.25)), model)
    assert torch.equal(other["head_dist.weight"], few["head_dist.weight"])
    assert not torch.equal(other["head.weight"], few["head.weight"])
    assert few["blocks.0.attn.qkv.weight"].abs().max() > 0  # what both share learns from both
    assert few["dist_token"].abs().max() > 0


def test_without_a_teacher_both_heads_learn_from_the_label() -> None:
    model = networks.build(DISTILLED, 3, 32, blocks=1).train()
    x = torch.randn(2, 3, 32, 32)
    found = gradients(loss_of(model(x), LABELS, 0.1, None), model)
    assert found["head.bias"].abs().max() > 0
    torch.testing.assert_close(found["head.bias"], found["head_dist.bias"])


def test_at_evaluation_the_heads_are_averaged() -> None:
    model = student()
    x = torch.randn(2, 3, 32, 32)
    own, taught = model(x)
    torch.testing.assert_close(model.eval()(x), (own + taught) / 2)


def test_one_headed_architectures_are_left_as_they_are() -> None:
    model = networks.build("test_vit", 3, 32).train()
    split_heads(model)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


class Brightest(nn.Module):
    """Sees the class of the brightest channel, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return self.weight * x.mean((2, 3))


def teacher(model: nn.Module, **values: Any) -> Teacher:
    given: dict[str, Any] = {
        "image_size": 32,
        "interpolation": "bilinear",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "method": Distillation(kind="hard"),
        "sha256": "",
    }
    return Teacher(model, **given | values)


def test_a_teacher_sees_the_same_view_at_its_own_size_and_scale() -> None:
    model = Brightest()
    x = torch.zeros(2, 3, 48, 48)
    x[0, 1], x[1, 2] = 1.0, 1.0
    own = teacher(model, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    lesson = own.teach(x, MACHINE)
    assert lesson.logits.argmax(1).tolist() == [1, 2]
    assert model.seen.shape == (2, 3, 32, 32)
    channels = model.seen.mean((2, 3))
    torch.testing.assert_close(channels[0], torch.tensor([-0.2, 3.2, -2.4]))
    torch.testing.assert_close(channels[1], torch.tensor([-0.2, -0.8, 5.6]))


def test_no_gradient_reaches_the_teacher() -> None:
    model = Brightest()
    images = torch.rand(2, 3, 32, 32)
    logits = torch.randn(2, 3, requires_grad=True)
    for kind in ("hard", "soft"):
        taught = teacher(model, method=Distillation(kind=kind)).teach(images, MACHINE)
        assert not taught.logits.requires_grad
        loss_of(logits, LABELS, 0.0, taught).backward()
    assert model.weight.grad is None
    assert logits.grad is not None


def test_what_is_taught_changes_the_fingerprint() -> None:
    one = teacher(Brightest())
    texts = {
        one.fingerprint,
        teacher(Brightest(), sha256="1").fingerprint,
        *(
            teacher(Brightest(), method=method).fingerprint
            for method in (
                Distillation(kind="soft"),
                Distillation(kind="hard", alpha=0.4),
                Distillation(kind="soft", temperature=1.0),
            )
        ),
    }
    assert len(texts) == 5


def test_distilled_weights_go_on_at_another_size_and_depth() -> None:
    small = networks.build(DISTILLED, 3, 32, blocks=1)
    large = networks.build(DISTILLED, 3, 64)
    state = copy.deepcopy(small.state_dict())
    networks.load(large, state, "small")
    assert large.pos_embed.shape == (1, 2 + 16, 192)
    assert torch.equal(large.pos_embed[:, :2], small.pos_embed[:, :2])
