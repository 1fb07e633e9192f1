"""Parity's numbers, from logits, labels and files alone.

Stage ``parity`` writes them, and whoever judges computes them again by the same functions.
``threshold`` is the contract's, as :func:`pipeline.metrics.logits.class_logits` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.evidence.parity import (
    DeliveredFile,
    MeasuredFile,
    MeasuredStep,
    NonFiniteFile,
    NonFiniteStep,
    RightAnswers,
)
from pipeline.files import sha256_file
from pipeline.formats import FORMATS, REFERENCE, Step
from pipeline.metrics.logits import Logits, answers
from pipeline.metrics.measures import (
    FloatComparison,
    NonFinite,
    StepComparison,
    against_float,
    between_steps,
)

NUDGED = "_nudged"  # behind the name of what ran
Load = Callable[[str], Logits]  # the logits of a key


def delivered_file(path: Path, sha256: str) -> DeliveredFile:
    """What evidence says of a file that is there, and of the files that it needs beside it."""
    return DeliveredFile(
        file=path.name,
        sha256=sha256,
        size_bytes=paths.size_bytes(path),
        beside={beside.name: sha256_file(beside) for beside in paths.companions(path)},
    )


def file_numbers(
    file: DeliveredFile,
    reference: Logits,
    logits: Logits,
    labels: NDArray[np.int64] | None,
    noise_floor: float,
    threshold: float | None,
) -> MeasuredFile | NonFiniteFile:
    """A file's logits [n, outputs] against the float reference's; errors as `against_float`."""
    measured = against_float(reference, logits, labels, noise_floor, threshold)
    model = MeasuredFile if isinstance(measured, FloatComparison) else NonFiniteFile
    return model(**dict(file), **dict(measured))


def steps_of(keys: Iterable[str]) -> dict[str, Step]:
    """The steps on the way to formats ``keys``, by name; ``rewrite`` is on the way to each."""
    steps = {"rewrite": Step("rewrite", REFERENCE, "rewritten")}
    for key in keys:
        steps |= {step.stage: step for step in FORMATS[key].compared}
    return steps


def first_compared(step: Step) -> str:
    """What the answers of the first step on the way of ``step`` are compared with."""
    ways = (known.compared for known in FORMATS.values())
    return next((way[0].before for way in ways if step in way), REFERENCE)


def step_numbers(
    load: Load, hashes: Mapping[str, str], step: Step, threshold: float | None
) -> MeasuredStep | NonFiniteStep:
    """Compare a step with the one before it; ``hashes`` are of the files.

    What it may change is float's noise floor, or what nudged inputs of the first model on its way
    change.
    """
    measured = _between(load(step.before), load(step.after), threshold)
    model = MeasuredStep if isinstance(measured, StepComparison) else NonFiniteStep
    first = first_compared(step)
    nudged = None
    if first != REFERENCE:
        nudged = _between(load(first), load(f"{first}{NUDGED}"), threshold)
    return model(
        before=step.before,
        after=step.after,
        before_sha256=hashes.get(step.before),
        after_sha256=hashes[step.after],
        noise=nudged,
        **dict(measured),
    )


def _between(before: Logits, after: Logits, threshold: float | None) -> StepComparison | NonFinite:
    """Compare on as many images as both ran on."""
    count = min(len(before), len(after))
    return between_steps(before[:count], after[:count], threshold)


def right_answers(
    logits: Logits, labels: NDArray[np.int64] | None, threshold: float | None
) -> RightAnswers | None:
    """How many of logits [n, outputs] mean what their labels [n] say; None without labels."""
    if labels is None:
        return None
    right = int((answers(logits, threshold) == labels).sum())
    return RightAnswers(right=right, count=len(labels))
