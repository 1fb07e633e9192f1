"""The verdict: every criterion with its number, interval, limit and outcome, from evidence alone.

Three outcomes. **pass**: the evidence shows that the limit is kept. **fail**: it shows that the
limit is broken. **undecided**: it shows neither, and says what would. Nothing to compare, NaN,
evidence for other bytes: never a pass. The same evidence gives the same verdict everywhere; nothing
here reads a file, a clock or the machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.evidence.read import Evidence
from pipeline.params import Gate
from pipeline.verdict.criteria import baseline, devices, files, quality, speed, steps
from pipeline.verdict.criteria.files import Files
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion
from pipeline.verdict.limits import relaxed


@dataclass(frozen=True)
class Verdict:
    """All criteria, and whether the channel's rule is met."""

    channel: str
    criteria: tuple[Criterion, ...]
    relaxed: tuple[str, ...] = ()  # what asks for less than as shipped or in the last release

    @property
    def passed(self) -> bool:
        """Whether nothing is in the way of the channel's rule."""
        return bool(self.criteria) and not self.in_the_way

    @property
    def in_the_way(self) -> tuple[Criterion, ...]:
        """The criteria for which the channel refuses: failures, and undecided ones.

        A candidate may leave undecided what another machine or an earlier release must bring.
        """
        strict = self.channel != "candidate"
        return tuple(
            c
            for c in self.criteria
            if c.outcome == FAIL or (c.outcome == UNDECIDED and (strict or not c.waits_for))
        )

    def count(self, outcome: str) -> int:
        """How many criteria ended in ``outcome``: pass, fail or undecided."""
        return sum(c.outcome == outcome for c in self.criteria)

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON values, as ``verdict.json`` has it."""
        return {
            "schema": 1,
            "channel": self.channel,
            "passed": self.passed,
            "counts": {outcome: self.count(outcome) for outcome in (PASS, FAIL, UNDECIDED)},
            "criteria": [asdict(c) for c in self.criteria],
            "relaxed": list(self.relaxed),
        }


def decide(gate: Gate, device: str | None, delivered: Files, evidence: Evidence) -> Verdict:
    """Judge the evidence; ``device`` is the reference GPU whose record a release needs, if any."""
    parity, latency = evidence.parity, evidence.latency
    criteria = (
        *files.criteria(gate, delivered, parity, latency, evidence.devices.golden),
        *steps.criteria(gate, parity),
        *quality.criteria(gate, parity),
        *speed.criteria(gate, latency),
        *baseline.criteria(gate, device, parity, latency, evidence.baselines),
        *devices.criteria(gate, delivered, evidence.devices),
    )
    return Verdict(gate.channel, criteria, relaxed(gate, device, latency.previous))
