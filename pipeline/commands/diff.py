"""Compare release B with the earlier release A, both folders: what an app must change first.

Compares contract, answers, accuracy, size, time, operators and the gate's limits, all from what the
releases recorded; nothing is run. Intervals are 95%: Wilson for proportions, Tango for the paired
drop, a block bootstrap for times that took turns in one process. What was measured on other images
or another machine is not compared.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from pipeline.commands.common import PATH, command, json_option
from pipeline.contract import changes
from pipeline.contract.changes import Change, Operators
from pipeline.formats import FORMATS
from pipeline.metrics.summary import Proportion
from pipeline.release import differences
from pipeline.release.differences import KEYS, Accuracy, Agreement, Cost, Opened
from pipeline.report.table import columns

SIDES = ("before", "after")


@dataclass(frozen=True)
class Difference:
    """What differs between two releases; files by format, ``float`` is the checkpoint."""

    before: str
    after: str
    app_must_change: list[str]
    contract: list[Change]
    accuracy: dict[str, Accuracy]
    agreement: dict[str, Agreement | str]
    cost: dict[str, Cost]
    operators: dict[str, Operators]
    limits: list[Change]


def diff(before: Path, after: Path) -> Difference:
    """Compare the releases in two folders.

    Raises:
        InputError: something in one is missing or damaged.
        IntegrityError: one is not what was published.
    """
    a, b = Opened.open(before), Opened.open(after)
    both = [key for key in FORMATS if key in a.artefacts and key in b.artefacts]
    return Difference(
        before=a.release.folder.name,
        after=b.release.folder.name,
        app_must_change=changes.to_do(a.side, b.side),
        contract=changes.changes(a.contract, b.contract),
        accuracy={key: differences.accuracy(a, b, key) for key in KEYS},
        agreement={key: differences.agreement(a, b, key) for key in KEYS},
        cost={key: differences.cost(a, b, key) for key in FORMATS},
        operators={k: changes.operators(a.artefacts[k], b.artefacts[k]) for k in both},
        limits=differences.limits(a, b),
    )


def text(difference: Difference) -> str:
    """The whole as tables, what an app must change first."""
    return "\n".join(
        [
            f"{difference.before} -> {difference.after}",
            "",
            "What an app must change:",
            *(f"  - {line}" for line in difference.app_must_change or ["nothing"]),
            "",
            _files(difference),
            "",
            _changes("contract", difference.contract),
            "",
            _changes("limits of the gate", difference.limits),
            "",
            *_operators(difference.operators),
        ]
    ).rstrip()


def _files(difference: Difference) -> str:
    rows = []
    for key in KEYS:
        accuracy, agreement, cost = (
            difference.accuracy[key],
            difference.agreement[key],
            difference.cost.get(key),
        )
        rows.append(
            (
                FORMATS[key].suffix if key in FORMATS else "float (PyTorch)",
                *(_share(getattr(accuracy, side)) for side in SIDES),
                f"{accuracy.drop.drop_pp:+.2f} {accuracy.drop.interval_pp:+.2f}"
                if accuracy.drop
                else "",
                *_agreement(agreement),
                *(_cost(cost) if cost else ("", "", "")),
            )
        )
    heads = (
        *("file", "top-1 % before", "after", "drop pp", "same answers %", "SQNR dB"),
        *("size MB", "time", "M instructions"),
    )
    return columns(rows, heads)


def _agreement(agreement: Agreement | str) -> tuple[str, str]:
    if isinstance(agreement, str):
        return agreement, ""
    return (
        f"{_share(agreement.same)} of {agreement.count} {agreement.on}",
        f"{agreement.sqnr_db:.1f}",
    )


def _cost(cost: Cost) -> tuple[str, str, str]:
    sizes = [None if size is None else size / 1e6 for size in cost.size_bytes]
    time = cost.note
    if cost.time_ratio is not None:
        bounds = f" {cost.time_interval:.2f}" if cost.time_interval else ""
        time = f"x {cost.time_ratio:.2f}{bounds} ({cost.note})"
    return _pair(sizes, ".2f"), time, _pair(list(cost.instructions_m), ".1f")


def _pair(values: list[float | None], digits: str) -> str:
    if values == [None, None]:
        return ""
    return " -> ".join("none" if value is None else format(value, digits) for value in values)


def _changes(what: str, changes: list[Change]) -> str:
    rows = [(change.what, change.before, change.after) for change in changes]
    return columns(rows or [("nothing", "", "")], (what, *SIDES))


def _operators(differences: dict[str, Operators]) -> list[str]:
    lines = []
    for key, operators in differences.items():
        for how, names in (("needs", operators.added), ("no longer needs", operators.removed)):
            if names:
                lines.append(f"{FORMATS[key].suffix} {how} {', '.join(names)}")
    return lines or ["operators: the same"]


def _share(share: Proportion | None) -> str:
    if share is None:
        return ""
    return f"{100 * share.value:.2f} {share.interval.percent:.2f}"


@command("diff", __doc__)
@click.argument("before", type=PATH, metavar="A")
@click.argument("after", type=PATH, metavar="B")
@json_option
def main(before: Path, after: Path, as_json: bool) -> None:
    """Print what differs between two releases."""
    difference = diff(before, after)
    print(json.dumps(asdict(difference), indent=2) if as_json else text(difference))


if __name__ == "__main__":
    main()
