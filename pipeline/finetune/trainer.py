"""The training loop: phases of growing resolution, resumable at any step.

Nothing random is carried from step to step: each step draws from generators seeded by the run's
seed and the step's number. An interrupted and resumed run therefore ends with the same
bits as one that was not (on the same machine and build of PyTorch).
"""

from __future__ import annotations

import copy
import csv
import io
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from pipeline.errors import InputError
from pipeline.files import atomic, write_bytes
from pipeline.finetune import networks, schedule
from pipeline.finetune.data import Batch, Draw, ImageData, View, batches
from pipeline.finetune.distill import Teacher, loss_of, split_heads
from pipeline.finetune.distributed import ProcessGroup
from pipeline.finetune.hardware import Machine
from pipeline.finetune.optimizer import lr_at, optimizers, set_lr
from pipeline.finetune.params import Model, Phase, Run, Training
from pipeline.progress import progress

EVALUATION_BATCH = 250
CHECKPOINT_KEYS = {"recipe", "progress", "history", "optimizers", "model", "ema"}
LOSS_MEMORY = 0.98  # of the running mean that is shown and recorded

State = dict[str, torch.Tensor]


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
    """Where training stands; what a checkpoint holds besides weights and optimizers."""

    phase: int = 0
    step: int = 0  # within the phase
    total: int = 0  # steps over all phases
    images: int = 0
    loss: float = 0.0  # running mean
    seconds: float = 0.0


@dataclass(frozen=True)
class ResumePaths:
    """Where a trainer writes: a checkpoint to resume from, and the curve so far."""

    checkpoint: Path
    history: Path


class Trainer:
    """Trains one architecture by one recipe on one data set."""

    def __init__(
        self,
        model: Model,
        recipe: Training,
        run: Run,
        data: ImageData,
        paths: ResumePaths,
        *,
        validation: float = 0.02,
        teacher: Teacher | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        """``validation`` is the fraction of ``data`` that is held out to measure on."""
        self.options, self.recipe, self.run, self.data = model, recipe, run, data
        self.paths, self.teacher, self.group = paths, teacher, group or ProcessGroup()
        self.train_part, self.validation_part = schedule.split(len(data), validation, run.seed)
        self.machine = Machine.of(run)
        self.progress = Progress()
        self.history: list[Epoch] = []
        self.mean = torch.tensor(model.mean, device=self.machine.device).view(1, 3, 1, 1)
        self.std = torch.tensor(model.std, device=self.machine.device).view(1, 3, 1, 1)

    def fit(self) -> State:
        """Train, from the last checkpoint if there is one; return averaged weights.

        Raises:
            InputError: the architecture, the first weights, an image or the last checkpoint
                cannot be used.
        """
        saved = self._saved()
        if saved:
            self.progress = Progress(**saved["progress"])
            self.history = [Epoch(**epoch) for epoch in saved["history"]]
        before = saved
        for number in range(self.progress.phase, len(self.recipe.phases)):
            self.progress.phase = number
            self._start_phase(before, saved)
            self._run_phase()
            before, saved = self._weights(), None
            self.progress.step = 0
        return {key: value.cpu() for key, value in self.ema.state_dict().items()}

    @property
    def phase(self) -> Phase:
        """The phase that training is in."""
        return self.recipe.phases[self.progress.phase]

    def _start_phase(self, before: dict[str, Any] | None, saved: dict[str, Any] | None) -> None:
        """Make model and optimizers; weights of ``before`` go on, optimizers of ``saved`` too."""
        torch.manual_seed(self.run.seed)
        phase, classes = self.phase, len(self.data.classes)
        architecture = self.options.architecture
        self.model = networks.build(
            architecture, classes, phase.image_size, phase.patch_drop, phase.blocks
        )
        if before is None and self.options.checkpoint:
            networks.start_from(self.model, self.options.checkpoint)
        self.ema = copy.deepcopy(self.model)
        if before:
            networks.load(self.model, before["model"], "the phase before")
            networks.load(self.ema, before["ema"], "the phase before")
        self.model.to(self.machine.device).train()
        self.ema.to(self.machine.device).eval().requires_grad_(False)
        if self.teacher:
            split_heads(self.model)
        self.optimizers = optimizers(self.model, self.recipe.optimizer)
        if saved:
            for optimizer, content in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(content)
        self.compiled = self.machine.compiled(self.model)

    def _run_phase(self) -> None:
        phase, at = self.phase, self.progress
        n = len(self.train_part)
        steps, per_epoch = schedule.steps_of(phase, n), schedule.steps_per_epoch(phase, n)
        draws = schedule.draws(self.train_part, phase, at.phase, at.step, self.run.seed)
        view = View(phase.image_size, self.options.interpolation, self.recipe.augmentation)
        clock = Clock()
        shards = [self.group.shard(draw) for draw in draws]
        for draw, batch in self._shown(draws, batches(self.data, shards, view), steps):
            lr = lr_at(at.step, steps, phase)
            self._advance(len(draw.indices), self._step(batch, lr, draw.seed))
            if not self.group.is_main:
                continue
            if at.step % per_epoch == 0 or at.step == steps:
                top1 = self._validate()
                at.seconds += clock.lap()
                self._record(lr, top1)
            if clock.since_start() >= self.run.checkpoint_seconds:
                at.seconds += clock.lap()
                self._save()
                clock = Clock()
        at.seconds += clock.lap()

    def _shown(
        self, draws: Sequence[Draw], loaded: Iterator[Batch], steps: int
    ) -> Iterator[tuple[Draw, Batch]]:
        """Pass batches on behind a progress bar that shows the time left."""
        label = f"{self.phase.image_size} px"
        with progress(
            total=steps,
            initial=self.progress.step,
            unit="step",
            desc=label,
            smoothing=0.05,
            disable=not self.group.is_main,
        ) as bar:
            for draw, batch in zip(draws, loaded, strict=True):
                yield draw, batch
                bar.set_postfix(loss=f"{self.progress.loss:.3f}", refresh=False)
                bar.update()

    def _step(self, batch: Batch, lr: float, seed: int) -> float:
        """Take one step of the optimizers; return the loss."""
        # What the model draws: dropped patches, stochastic depth.
        torch.manual_seed(seed + self.group.rank)
        set_lr(self.optimizers, lr)
        loss = self._loss(*batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.group.average(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self._average()
        return float(loss.item())

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images, labels = images.to(self.machine.device), labels.to(self.machine.device)
        with self.machine.autocast():
            outputs = self.compiled(self._to_input(images))
        lesson = self.teacher.teach(images, self.machine) if self.teacher else None
        return loss_of(outputs, labels, self.recipe.label_smoothing, lesson)

    def _to_input(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(self.machine.device) - self.mean) / self.std

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the present ones; faster at first, as they are old."""
        total = self.progress.total + 1
        decay = min(self.recipe.ema_decay, (1 + total) / (10 + total))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
        for old, new in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            old.copy_(new)

    def _advance(self, images: int, loss: float) -> None:
        at = self.progress
        at.loss = loss if at.total == 0 else LOSS_MEMORY * at.loss + (1 - LOSS_MEMORY) * loss
        at.step, at.total, at.images = at.step + 1, at.total + 1, at.images + images

    @torch.no_grad()
    def _validate(self) -> float:
        """Return the top-1 accuracy of the averaged weights on the held-out images."""
        parts = self.validation_part.split(EVALUATION_BATCH)
        draws = [Draw(tuple(part.tolist()), 0) for part in parts]
        view = View(self.phase.image_size, self.options.interpolation)
        right = 0
        for x, y in batches(self.data, draws, view):
            with self.machine.autocast():
                logits = self.ema(self._to_input(x))
            right += int((logits.argmax(1).cpu() == y).sum())
        return right / len(self.validation_part)

    def _record(self, lr: float, top1: float) -> None:
        at, size = self.progress, self.phase.image_size
        self.history.append(
            Epoch(at.phase, size, at.total, at.images, lr, at.loss, top1, at.seconds)
        )
        write_history(self.history, self.paths.history)
        tqdm.write(
            f"{size} px, step {at.step}: loss {at.loss:.4f}, validation top-1 {top1:.2%}, "
            f"{at.seconds:.0f} s"
        )

    def _weights(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "ema": self.ema.state_dict()}

    def _save(self) -> None:
        content = self._weights() | {
            "recipe": self._fingerprint(self.progress.phase),
            "progress": asdict(self.progress),
            "history": [asdict(epoch) for epoch in self.history],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_bytes(self.paths.checkpoint, buffer.getvalue())

    def _saved(self) -> dict[str, Any] | None:
        """Return the last checkpoint, if it belongs to this recipe."""
        path = self.paths.checkpoint
        if not path.is_file():
            return None
        content = _read_checkpoint(path)
        if content["recipe"] != self._fingerprint(content["progress"]["phase"]):
            tqdm.write(f"{path} belongs to other parameters; training starts anew")
            return None
        return content

    def _fingerprint(self, phase: int) -> str:
        """Everything that the course of training up to this phase depends on, as text.

        Later phases are left out: they may be changed while training stands before them.
        """
        so_far = self.recipe.model_copy(update={"phases": self.recipe.phases[: phase + 1]})
        texts = [part.model_dump_json() for part in (self.options, so_far)]
        texts += [str(self.run.seed), str(self.machine), str(self.group.size)]
        texts += [self.teacher.fingerprint if self.teacher else "no teacher"]
        texts += [self.data.source, str(len(self.data)), str(len(self.train_part))]
        return "\n".join([*texts, *self.data.classes])


class Clock:
    """Seconds since it was made, and since the last lap."""

    def __init__(self) -> None:
        self.start = self.mark = time.monotonic()

    def lap(self) -> float:
        """Return seconds since the last lap, and start the next."""
        now = time.monotonic()
        seconds, self.mark = now - self.mark, now
        return seconds

    def since_start(self) -> float:
        """Return seconds since this clock was made."""
        return time.monotonic() - self.start


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if missing := CHECKPOINT_KEYS - set(content):
            raise KeyError(*missing)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a checkpoint of a training run ({error}); delete it to train anew"
        ) from None
    return content


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write one row an epoch as CSV, which `dvc plots` reads."""
    with atomic(path) as new, open(new, "w", newline="") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(Epoch)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(epoch) for epoch in history)
