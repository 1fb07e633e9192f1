"""Which images are trained on in which step: a pure function of the seed."""

from __future__ import annotations

import torch

from pipeline.finetune.data import Draw
from pipeline.finetune.params import Phase

STEP_SEED = 1_000_003  # primes, so that the seeds of different runs, phases and steps do not meet
PHASE_SEED = 10_007


def split(n: int, fraction: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split 0..n-1 at random into training and validation indices (at least one of each)."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held_out = min(max(1, round(n * fraction)), n - 1)
    return order[held_out:].sort().values, order[:held_out].sort().values


def steps_per_epoch(phase: Phase, images: int) -> int:
    """Return the number of whole batches in an epoch; the remaining images are not seen in it."""
    return max(1, images // phase.batch_size)


def steps_of(phase: Phase, images: int) -> int:
    """Return how many steps a phase takes."""
    return max(1, round(phase.epochs * steps_per_epoch(phase, images)))


def draws(part: torch.Tensor, phase: Phase, number: int, first: int, seed: int) -> list[Draw]:
    """Return the batches of phase ``number`` from step ``first`` on.

    ``part`` holds the indices to train on, int64 [n]; each epoch is a new permutation of it.
    """
    n, size = len(part), phase.batch_size
    per_epoch = steps_per_epoch(phase, n)
    batches: list[Draw] = []
    for epoch in range(first // per_epoch, -(-steps_of(phase, n) // per_epoch)):
        key = seed * STEP_SEED + number * PHASE_SEED + epoch
        order = part[torch.randperm(n, generator=torch.Generator().manual_seed(key))].tolist()
        steps = range(epoch * per_epoch, min((epoch + 1) * per_epoch, steps_of(phase, n)))
        for step in steps:
            at = (step - epoch * per_epoch) * size
            key = (seed * STEP_SEED + number) * STEP_SEED + step
            batches += [Draw(tuple(order[at : at + size]), key)] if step >= first else []
    return batches
