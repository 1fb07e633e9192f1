"""Distillation as DeiT does it (Touvron et al., 2021): soft, hard, and by a token of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from pipeline.checkpoints.metadata import info_from_metadata
from pipeline.errors import InputError
from pipeline.files import sha256_file
from pipeline.finetune import networks
from pipeline.finetune.data import resize
from pipeline.finetune.hardware import Machine
from pipeline.finetune.params import TEACHER, WEIGHTS_FILE, Distillation, FinetuneParams
from pipeline.untrusted.state_dict import open_checkpoint

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
        """Return its logits, float32 [n, classes], of images float32 [n, 3, H, W] in [0, 1].

        It sees the student's own view, crop and flip included, at its own resolution.
        """
        if images.shape[2:] != (self.image_size, self.image_size):
            images = resize(images, self.image_size, self.interpolation)
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        with machine.autocast():
            logits: torch.Tensor = self.model((images - mean) / std)
        return logits.float()


def load_teacher(
    params: FinetuneParams, artifacts: Path, classes: Sequence[str], device: str
) -> Teacher | None:
    """Return the teacher that stage ``teacher`` made, None if it is not to teach.

    Raises:
        InputError: it was not made yet, or for other classes.
    """
    if params.teacher is None or params.method.kind == "none":
        return None
    return read_teacher(params, artifacts, classes, device)


def read_teacher(
    params: FinetuneParams, artifacts: Path, classes: Sequence[str], device: str
) -> Teacher:
    """Return the teacher in ``artifacts``, whether or not it is to teach; errors as above."""
    path = artifacts / TEACHER / WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro finetune/dvc.yaml` to make it")
    opened = open_checkpoint(path)
    info = info_from_metadata(opened.metadata, str(path))
    check_classes(info.labels, classes, str(path))
    size = info.data["input_size"][-1]
    model = networks.build(str(info.architecture), len(classes), size)
    networks.load(model, opened.state, str(path))
    return Teacher(
        model=model.to(device).eval().requires_grad_(False),
        image_size=size,
        interpolation=info.data["interpolation"],
        mean=info.data["mean"],
        std=info.data["std"],
        method=params.method,
        sha256=sha256_file(path),
    )


def check_classes(labels: Sequence[str] | None, classes: Sequence[str], source: str) -> None:
    """Refuse a teacher whose outputs mean something else than the student's.

    Raises:
        InputError: ``labels`` of the teacher are not exactly ``classes`` of the data, in order.
    """
    if labels is None:
        raise InputError(
            f"{source} does not say its classes; set teacher.labels to a file with one class name "
            "a line, in the order of its outputs"
        )
    if tuple(labels) == tuple(classes):
        return
    if sorted(labels) == sorted(classes):
        problem = "has the data's classes in another order"
    else:
        problem = f"has other classes than the data ({len(labels)}, the data has {len(classes)})"
    pairs = enumerate(zip(labels, classes, strict=False))
    first = next(((n, a, b) for n, (a, b) in pairs if a != b), None)
    where = f": class {first[0]} is {first[1]!r}, the data's is {first[2]!r}" if first else ""
    raise InputError(f"{source} {problem}{where}. Use a teacher with exactly these classes")


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
    student, taught = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    loss = functional.cross_entropy(student.float(), labels, label_smoothing=smoothing)
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
