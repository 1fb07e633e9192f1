"""Distillation as DeiT does it (Touvron et al., 2021): soft, hard, and by a token of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from pipeline.finetune.data import resize
from pipeline.finetune.hardware import Machine
from pipeline.finetune.params import Distillation

Triple = tuple[float, float, float]
Outputs = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Lesson:
    """A teacher's logits of a batch, float32 [n, classes], and what to make of them."""

    logits: torch.Tensor
    method: Distillation


@dataclass(frozen=True)
class Teacher:
    """A trained classifier, how images are prepared for it, and how it teaches."""

    model: nn.Module  # in evaluation mode, without gradients
    image_size: int  # pixels
    interpolation: str
    mean: Triple
    std: Triple
    method: Distillation
    sha256: str  # of its weights and of the metadata that says the rest

    @property
    def fingerprint(self) -> str:
        """Everything that what it teaches depends on, as text."""
        return f"{self.sha256} {self.method}"

    def teach(self, images: torch.Tensor, machine: Machine) -> Lesson:
        """Return what the student is to learn from ``images``, as :meth:`logits` takes them."""
        return Lesson(self.logits(images, machine), self.method)

    @torch.no_grad()
    def logits(self, images: torch.Tensor, machine: Machine) -> torch.Tensor:
        """Return what it sees in ``images``, float32 [n, 3, H, W] in [0, 1]: float32 [n, classes].

        It sees the student's own view, crop and flip included, at its own resolution.
        """
        if images.shape[2:] != (self.image_size, self.image_size):
            images = resize(images, self.image_size, self.interpolation)
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        with machine.autocast():
            logits: torch.Tensor = self.model((images - mean) / std)
        return logits.float()


def split_heads(model: nn.Module) -> None:
    """Let one of timm's distilled architectures return both heads' logits in training.

    Otherwise it returns their mean, as it always does in evaluation. Others are left as they are.
    """
    if hasattr(model, "set_distilled_training"):
        model.set_distilled_training(True)  # type: ignore[operator]


def loss_of(
    outputs: Outputs, labels: torch.Tensor, smoothing: float, lesson: Lesson | None
) -> torch.Tensor:
    """Return the loss of a batch.

    ``outputs`` are logits [n, classes], or those of class head and distillation head: the first
    learns from ``labels`` (int64 [n], smoothed), the second from the teacher. One head learns from
    both. Equations 2 (soft) and 3 (hard) of DeiT; the divergence is summed over classes as there,
    not divided by their number as in its code.
    """
    own, taught = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    loss = functional.cross_entropy(own.float(), labels, label_smoothing=smoothing)
    if lesson is None:
        return loss
    alpha = lesson.method.alpha
    return (1 - alpha) * loss + alpha * _distance(taught.float(), lesson)


def _distance(logits: torch.Tensor, lesson: Lesson) -> torch.Tensor:
    """How far ``logits`` are from the teacher's: from its choice (hard), or from all (soft)."""
    if lesson.method.kind == "hard":
        return functional.cross_entropy(logits, lesson.logits.argmax(1))
    t = lesson.method.temperature
    student, teacher = (functional.log_softmax(z / t, 1) for z in (logits, lesson.logits))
    return t * t * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
