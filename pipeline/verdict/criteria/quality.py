"""How close each file's answers are to float's, and float's accuracy to the published one.

These rest on the samples. What rests on too few different images, or on few of the model's classes,
is undecided, however good it looks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from pipeline.evidence.parity import ParityEvidence, Samples
from pipeline.formats import FORMATS, ordered
from pipeline.metrics import intervals
from pipeline.metrics.intervals import Interval
from pipeline.metrics.measures import FloatComparison, NonFinite
from pipeline.params import Budget, Gate
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion, compare, plain

IMAGES_MIN = 50  # different ones; fewer show nothing of a model
OF_SAMPLES = (
    "published_tolerance_pp",
    "top1_agreement_min",
    "accuracy_drop_max_pp",
    "sqnr_min_db",
)


def criteria(gate: Gate, parity: ParityEvidence) -> Iterator[Criterion]:
    """Yield the criteria of the float model and of each file."""
    unfit = _unfit(gate, parity.samples)
    for c in _criteria(gate, parity):
        if unfit and c.name in OF_SAMPLES and c.outcome != FAIL:
            why, needed = unfit
            needed = max(filter(None, (needed, c.images_needed)), default=None)
            note = f"{c.note}; {why}" if c.note else why
            yield replace(c, outcome=UNDECIDED, note=note, images_needed=needed)
        else:
            yield c


def _criteria(gate: Gate, parity: ParityEvidence) -> Iterator[Criterion]:
    yield from _published(gate, parity)
    for key in ordered([*gate.budgets, *parity.artefacts]):
        file = parity.artefacts.get(key)
        size = file.size_bytes if file else 0
        yield from _unlimited(gate, key)
        yield from of_file(gate, key, file, size, parity.float_size_bytes)


def _unlimited(gate: Gate, key: str) -> Iterator[Criterion]:
    """Fail a file that no limit holds to float's answers: nothing about it would be judged."""
    budget = gate.budgets.get(key, Budget())
    if {budget.top1_agreement_min, budget.accuracy_drop_max_pp, budget.sqnr_min_db} == {None}:
        yield plain(
            "budget",
            FORMATS[key].suffix,
            FAIL,
            f"gate.budgets.{key} has no limit for how close answers must be to float's; give "
            "top1_agreement_min, accuracy_drop_max_pp or sqnr_min_db",
        )


def _unfit(gate: Gate, samples: Samples) -> tuple[str, int | None] | None:
    """Why nothing can rest on these samples, and how many would do; None where they are fit."""
    if samples.duplicates:
        return (
            f"{samples.duplicates} of the {samples.count} images have the pixels of an earlier "
            "one; run `dvc repro --force samples`, which counts none twice"
        ), None
    if samples.count < IMAGES_MIN:
        return (
            f"{samples.count} images are too few, at least {IMAGES_MIN} are needed (samples.limit)"
        ), IMAGES_MIN
    covered = samples.classes - len(samples.classes_without_images)
    least = math.ceil((gate.classes_covered_min or 0) * samples.classes)
    if covered < least:
        return (
            f"the images are of {covered} of the model's {samples.classes} classes, at least "
            f"{least} are asked for; give images of the others or raise samples.limit, or say by "
            "gate.classes_covered_min that these are meant"
        ), None
    return None


def _published(gate: Gate, parity: ParityEvidence) -> Iterator[Criterion]:
    """Float accuracy far from the published one: whatever follows is measured on a broken base."""
    published, measured, band = (
        parity.published,
        parity.reference_accuracy,
        gate.published_tolerance_pp,
    )
    if band is None or published is None or measured is None:
        return
    percent = intervals.wilson(measured.right, measured.count, gate.confidence).percent
    interval = Interval(percent.low - published.top1, percent.high - published.top1)
    outcome = compare(
        -band <= interval.low and interval.high <= band,
        interval.high < -band or interval.low > band,
    )
    note = f"published for {published.dataset}: {published.top1:g}%"
    if outcome == FAIL:
        note += (
            "; look at weights, preprocessing and the order of labels first. Are these other "
            "images? Then set gate.published_tolerance_pp to null"
        )
    needed = None
    if outcome == UNDECIDED:
        low, high = (published.top1 - band) / 100, (published.top1 + band) / 100
        needed = intervals.samples_to_decide_band(
            measured.right, measured.count, low, high, gate.confidence
        )
        note += _more_samples(needed, measured.count)
    yield Criterion(
        name="published_tolerance_pp",
        subject="float",
        outcome=outcome,
        value=100 * measured.right / measured.count - published.top1,
        interval=interval,
        limit=band,
        unit="pp",
        note=note,
        images_needed=needed,
    )


def of_file(
    gate: Gate,
    key: str,
    measured: FloatComparison | NonFinite | None,
    size_bytes: int,
    float_size_bytes: int,
) -> Iterator[Criterion]:
    """Yield the criteria of one file, ``measured`` against float; None: it was not measured."""
    budget = gate.budgets.get(key)
    if not isinstance(measured, FloatComparison):
        why = "answers with NaN or infinity" if measured else "was not measured on any sample"
        yield plain("parity", FORMATS[key].suffix, FAIL, f"{FORMATS[key].suffix} {why}")
        return
    if budget is None:
        return
    yield from _agreement(gate, budget, key, measured)
    yield from _accuracy(gate, budget, key, measured)
    yield from _bounded(
        "sqnr_min_db",
        key,
        measured.sqnr_db,
        budget.sqnr_min_db,
        "dB",
        least=True,
        hint=f"more of the signal was lost than allowed; {_remedy(key)}",
    )
    ratio = size_bytes / float_size_bytes
    yield from _bounded(
        "size_ratio_max",
        key,
        ratio,
        budget.size_ratio_max,
        "of float",
        least=False,
        hint=f"larger than allowed; {_smaller(key)}",
    )


def _remedy(key: str) -> str:
    """What helps a file whose answers are not close enough to float's."""
    if FORMATS[key].schemes:
        return f"`edge-vit diagnose --format {key}` ranks its layers to leave in float"
    return "it is float: set the methods of rewrite to null or false one by one"


def _smaller(key: str) -> str:
    """What helps a file that is too large."""
    raised = f"raise gate.budgets.{key}.size_ratio_max"
    if FORMATS[key].schemes:
        return (
            "quantize.scheme: static makes convolutions int8, too, and layers in "
            f"quantize.keep_float, if any, are four times as large; else {raised}"
        )
    return f"it is float, which nothing makes smaller: {raised}"


def _agreement(
    gate: Gate, budget: Budget, key: str, measured: FloatComparison
) -> Iterator[Criterion]:
    limit = budget.top1_agreement_min
    if limit is None:
        return
    equal, count = measured.top1_equal, measured.count
    interval = intervals.wilson(equal, count, gate.confidence)
    outcome = compare(interval.low >= limit, interval.high < limit)
    note, needed = f"{equal} of {count} answers are float's", None
    if outcome == UNDECIDED:
        needed = intervals.samples_to_decide_proportion(equal, count, limit, gate.confidence)
        note += _more_samples(needed, count)
    elif outcome == FAIL:
        note += f"; {_remedy(key)}"
    yield Criterion(
        name="top1_agreement_min",
        subject=FORMATS[key].suffix,
        outcome=outcome,
        value=equal / count,
        interval=interval,
        limit=limit,
        unit="",
        note=note,
        images_needed=needed,
    )


def _accuracy(
    gate: Gate, budget: Budget, key: str, measured: FloatComparison
) -> Iterator[Criterion]:
    """Non-inferiority: the upper bound of the drop against the margin.

    That a drop is not significant would prove nothing: too few samples find no drop either.
    """
    margin = budget.accuracy_drop_max_pp
    if margin is None:
        return
    pairs = measured.accuracy
    if pairs is None:
        yield plain(
            "accuracy_drop_max_pp",
            FORMATS[key].suffix,
            UNDECIDED,
            "the samples have no labels; give a folder with one folder a class, or set "
            f"gate.budgets.{key}.accuracy_drop_max_pp to null",
        )
        return
    drop = intervals.paired_drop(**pairs.model_dump(), confidence=gate.confidence)
    outcome = compare(drop.upper_pp <= margin, drop.interval_pp.low > margin)
    note, needed = f"{pairs.only_float} answers lost, {pairs.only_edge} won", None
    if outcome == UNDECIDED:
        needed = intervals.samples_to_decide(
            pairs.only_float, pairs.only_edge, measured.count, margin, gate.confidence
        )
        note += _more_samples(needed, measured.count)
    elif outcome == FAIL:
        note += f"; {_remedy(key)}"
    yield Criterion(
        name="accuracy_drop_max_pp",
        subject=FORMATS[key].suffix,
        outcome=outcome,
        value=drop.drop_pp,
        interval=Interval(drop.interval_pp.low, drop.upper_pp),
        limit=margin,
        unit="pp",
        note=note,
        images_needed=needed,
    )


def _bounded(
    name: str, key: str, value: float, limit: float | None, unit: str, *, least: bool, hint: str
) -> Iterator[Criterion]:
    """A limit without chance: ``value`` may not be under it (``least``) or not over it."""
    if limit is None:
        return
    ok = value >= limit if least else value <= limit
    yield Criterion(
        name=name,
        subject=FORMATS[key].suffix,
        outcome=PASS if ok else FAIL,
        value=value,
        interval=None,
        limit=limit,
        unit=unit,
        note="" if ok else hint,
    )


def _more_samples(needed: int | None, count: int) -> str:
    if needed is None:
        return "; more samples would not show it, as what was seen is at or over the limit"
    return f"; about {max(needed, count + 1)} samples would decide (samples.limit)"
