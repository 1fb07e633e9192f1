"""The training loop: phases of growing resolution, resumable at any step.

Nothing random is carried from step to step: each step draws from generators seeded by the run's
seed and the step's number. A run that was killed and started again therefore ends with the same
bits as one that was not (on the same machine and build of PyTorch).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from pipeline.finetune import nets
from pipeline.finetune.data import Draw, ImageData, View, batches
from pipeline.finetune.machine import Machine
from pipeline.finetune.optim import lr_at, optimizers, set_lr
from pipeline.finetune.params import Model, Phase, Run, Training
from pipeline.support.files import atomic

EVALUATION_BATCH = 250
STEP_SEED = 1_000_003  # a prime, so that seeds of different runs' steps do not meet
LOSS_MEMORY = 0.98  # of the running mean that is shown and recorded

Teach = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Epoch:
    """What is recorded at the end of an epoch, or of a phase that ends within one."""

    phase: int
    image_size: int
    step: int  # over all phases
    images: int  # seen so far, over all phases
    lr: float
    train_loss: float
    validation_top1: float
    seconds: float  # of training and validation, over all phases and restarts


@dataclass
class Progress:
    """Where training stands; what a checkpoint holds besides weights and optimisers."""

    phase: int = 0
    step: int = 0  # within the phase
    total: int = 0  # steps over all phases
    images: int = 0
    loss: float = 0.0
    seconds: float = 0.0


class Trainer:
    """Trains one architecture by one recipe on one data set."""

    def __init__(
        self,
        model: Model,
        recipe: Training,
        run: Run,
        data: ImageData,
        parts: tuple[torch.Tensor, torch.Tensor],
        *,
        resume: Path,
        teach: Teach | None = None,
    ) -> None:
        """``parts`` are training and validation indices; ``resume`` is where checkpoints lie."""
        self.options, self.recipe, self.run, self.data = model, recipe, run, data
        self.train_part, self.validation_part = parts
        self.machine = Machine.of(run)
        self.resume, self.teach = resume, teach
        self.progress = Progress()
        self.history: list[Epoch] = []
        self.mean = torch.tensor(model.mean, device=self.machine.device).view(1, 3, 1, 1)
        self.std = torch.tensor(model.std, device=self.machine.device).view(1, 3, 1, 1)

    def fit(self) -> tuple[dict[str, torch.Tensor], list[Epoch]]:
        """Train, from the last checkpoint if there is one; return averaged weights and history.

        Raises:
            InputError: the architecture, the first weights or an image cannot be used.
        """
        saved = self._saved()
        if saved:
            self.progress = Progress(**saved["progress"])
            self.history = [Epoch(**epoch) for epoch in saved["history"]]
        state = None
        for number, phase in enumerate(self.recipe.phases):
            if number < self.progress.phase:
                continue
            self.progress.phase = number
            state = self._fit_phase(number, phase, state, saved)
            saved = None
        assert state is not None
        return {key: value.cpu() for key, value in state["ema"].items()}, self.history

    def _fit_phase(
        self, number: int, phase: Phase, state: dict[str, Any] | None, saved: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Train one phase; return the weights at its end, as they are and averaged."""
        self._start_phase(phase, state, saved)
        steps = steps_of(phase, len(self.train_part))
        per_epoch = len(self.train_part) // phase.batch_size or 1
        first = self.progress.step
        draws = [self._draw(number, phase, step) for step in range(first, steps)]
        view = View(phase.image_size, self.options.interpolation, self.recipe.augmentation)
        bar = tqdm(
            total=steps, initial=first, unit="step", desc=f"{phase.image_size} px", smoothing=0.05
        )
        last_saved = mark = time.monotonic()
        with bar:
            for step, (draw, (x, y)) in enumerate(
                zip(draws, batches(self.data, draws, view), strict=True), first
            ):
                lr = lr_at(step, steps, phase)
                loss = self._step(x, y, lr, draw.seed)
                self._advance(step + 1, len(y), loss)
                bar.update()
                bar.set_postfix(loss=f"{self.progress.loss:.3f}", refresh=False)
                if (step + 1) % per_epoch == 0 or step + 1 == steps:
                    top1 = self._validate(phase)
                    self.progress.seconds += time.monotonic() - mark
                    mark = time.monotonic()
                    self._record(number, phase, lr, top1)
                if time.monotonic() - last_saved >= self.run.checkpoint_seconds:
                    self.progress.seconds += time.monotonic() - mark
                    self._save()
                    last_saved = mark = time.monotonic()
        self.progress.step = 0
        return {"model": self.model.state_dict(), "ema": self.ema.state_dict()}

    def _start_phase(
        self, phase: Phase, state: dict[str, Any] | None, saved: dict[str, Any] | None
    ) -> None:
        torch.manual_seed(self.run.seed)
        self.model = self._build(phase)
        if state is None and saved is None and self.options.checkpoint:
            nets.start_from(self.model, self.options.checkpoint)
        self.ema = copy.deepcopy(self.model)
        for part in (state, saved):
            if part:
                nets.load(self.model, part["model"], "the phase before")
                nets.load(self.ema, part["ema"], "the phase before")
        self.model.to(self.machine.device).train()
        self.ema.to(self.machine.device).eval().requires_grad_(False)
        self.optimizers = optimizers(self.model, self.recipe.optimizer)
        if saved:
            for optimizer, content in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(content)
        self.compiled = self.machine.compiled(self.model)

    def _build(self, phase: Phase) -> nn.Module:
        classes = len(self.data.classes)
        return nets.build(self.options.architecture, classes, phase.image_size, phase.patch_drop)

    def _draw(self, number: int, phase: Phase, step: int) -> Draw:
        """Say which images make this step's batch: each epoch is a permutation of its own."""
        n, size = len(self.train_part), phase.batch_size
        per_epoch = n // size or 1
        epoch, position = divmod(step, per_epoch)
        key = (number, epoch)
        if getattr(self, "_permuted", None) != key:
            generator = torch.Generator().manual_seed(
                self.run.seed * STEP_SEED + number * 10_007 + epoch
            )
            self._order = self.train_part[torch.randperm(n, generator=generator)]
            self._permuted = key
        chosen = self._order[position * size : (position + 1) * size]
        seed = (self.run.seed * STEP_SEED + number) * STEP_SEED + step
        return Draw(tuple(chosen.tolist()), seed)

    def _step(self, x: torch.Tensor, y: torch.Tensor, lr: float, seed: int) -> float:
        torch.manual_seed(seed)  # what the model draws: dropped patches, stochastic depth
        x, y = self._to_input(x), y.to(self.machine.device)
        set_lr(self.optimizers, lr)
        with self.machine.autocast():
            logits = self.compiled(x).float()
        taught = self.teach(x) if self.teach else None
        loss = loss_of(logits, y, self.recipe.label_smoothing, taught)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self._average()
        return loss.item()

    def _to_input(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(self.machine.device) - self.mean) / self.std

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the present ones; faster at first, as they are old."""
        total = self.progress.total + 1
        decay = min(self.recipe.ema_decay, (1 + total) / (10 + total))
        torch._foreach_lerp_(
            list(self.ema.parameters()), list(self.model.parameters()), 1 - decay
        )
        for old, new in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            old.copy_(new)

    def _advance(self, step: int, images: int, loss: float) -> None:
        at = self.progress
        at.loss = loss if at.total == 0 else LOSS_MEMORY * at.loss + (1 - LOSS_MEMORY) * loss
        at.step, at.total, at.images = step, at.total + 1, at.images + images

    @torch.no_grad()
    def _validate(self, phase: Phase) -> float:
        """Return the top-1 accuracy of the averaged weights on the held-out images."""
        parts = self.validation_part.split(EVALUATION_BATCH)
        draws = [Draw(tuple(part.tolist()), 0) for part in parts]
        view = View(phase.image_size, self.options.interpolation)
        right = 0
        for x, y in batches(self.data, draws, view):
            with self.machine.autocast():
                logits = self.ema(self._to_input(x))
            right += int((logits.argmax(1).cpu() == y).sum())
        return right / len(self.validation_part)

    def _record(self, number: int, phase: Phase, lr: float, top1: float) -> None:
        at = self.progress
        self.history.append(
            Epoch(
                number, phase.image_size, at.total, at.images, lr, at.loss, top1, at.seconds
            )
        )
        tqdm.write(
            f"{phase.image_size} px, step {at.step}: loss {at.loss:.4f}, "
            f"validation top-1 {top1:.2%}, {at.seconds:.0f} s"
        )

    def _save(self) -> None:
        content = {
            "recipe": self._fingerprint(self.progress.phase),
            "progress": asdict(self.progress),
            "history": [asdict(epoch) for epoch in self.history],
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        with atomic(self.resume) as new:
            torch.save(content, new)

    def _saved(self) -> dict[str, Any] | None:
        """Return the last checkpoint, if it belongs to this recipe."""
        if not self.resume.is_file():
            return None
        content: dict[str, Any] = torch.load(self.resume, map_location="cpu", weights_only=True)
        if content["recipe"] != self._fingerprint(content["progress"]["phase"]):
            tqdm.write(f"{self.resume} belongs to other parameters; training starts anew")
            return None
        return content

    def _fingerprint(self, phase: int) -> str:
        """Everything that the course of training up to this phase depends on, as text.

        Later phases are left out: they may be changed while training stands before them.
        """
        so_far = self.recipe.model_copy(update={"phases": self.recipe.phases[: phase + 1]})
        texts = [part.model_dump_json() for part in (self.options, so_far)]
        texts += [str(self.run.seed), str(len(self.data)), str(self.machine)]
        texts += [str(len(self.train_part)), ",".join(self.data.classes)]
        return "\n".join(texts)


def steps_of(phase: Phase, images: int) -> int:
    """Return how many steps a phase takes; a part of an epoch's last batch is left out."""
    return max(1, round(phase.epochs * max(1, images // phase.batch_size)))


def loss_of(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float, taught: torch.Tensor | None
) -> torch.Tensor:
    """Return the loss: cross-entropy to the labels, or half that and half to a teacher's choice.

    ``logits`` [n, classes], ``labels`` and ``taught`` int64 [n]. Hard distillation as DeiT does it
    (Touvron et al., 2021, equation 3); the teacher's choice is not smoothed.
    """
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if taught is None:
        return loss
    return 0.5 * loss + 0.5 * functional.cross_entropy(logits, taught)


def total_steps(phases: Sequence[Phase], images: int) -> int:
    return sum(steps_of(phase, images) for phase in phases)
