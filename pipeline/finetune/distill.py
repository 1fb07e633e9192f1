"""Hard distillation from a convolutional teacher, as DeiT does it (Touvron et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from pipeline.finetune.machine import Machine


@dataclass(frozen=True)
class Teacher:
    """A trained classifier that says what it sees at its own resolution."""

    model: nn.Module
    image_size: int
    sha256: str  # of its weights

    @torch.no_grad()
    def choose(self, x: torch.Tensor, machine: Machine) -> torch.Tensor:
        """Return the class that the teacher sees in each of ``x`` [n, 3, H, W]: int64 [n]."""
        size = (self.image_size, self.image_size)
        if x.shape[2:] != size:
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        with machine.autocast():
            logits: torch.Tensor = self.model(x)
        return logits.argmax(1)


def loss_of(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float, taught: torch.Tensor | None
) -> torch.Tensor:
    """Return the loss: cross-entropy to the labels, or half that and half to a teacher's choice.

    ``logits`` [n, classes], ``labels`` and ``taught`` int64 [n]. Equation 3 of DeiT; the teacher's
    choice is not smoothed.
    """
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if taught is None:
        return loss
    return 0.5 * loss + 0.5 * functional.cross_entropy(logits, taught)
