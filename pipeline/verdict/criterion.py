"""One rule of the gate, and what the evidence says of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.metrics.intervals import Interval

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"
QUIET = "a quiet machine"  # to wait for where something else ran meanwhile


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One rule, and what the evidence says of it."""

    name: str  # the key in params.yaml that sets the limit, where there is one
    subject: str  # the file or step that it is about
    outcome: str  # pass, fail or undecided
    value: float | None  # as measured
    interval: Interval | None
    limit: float | None
    unit: str
    note: str  # what was seen, and for a fail or an undecided one what to do
    waits_for: str = ""  # of an undecided one: what another machine must bring; "": decidable here
    images_needed: int | None = None  # of an undecided one: about so many would decide it


def compare(passes: bool, fails: bool) -> str:
    """The outcome of a comparison of an interval with a limit; undecided where neither is shown."""
    return PASS if passes else FAIL if fails else UNDECIDED


def plain(name: str, subject: str, outcome: str, note: str, *, waits_for: str = "") -> Criterion:
    """A criterion without a number."""
    return Criterion(
        name=name,
        subject=subject,
        outcome=outcome,
        value=None,
        interval=None,
        limit=None,
        unit="",
        note=note,
        waits_for=waits_for,
    )
