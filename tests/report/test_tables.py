from __future__ import annotations

import pytest

from pipeline.metrics.intervals import Interval
from pipeline.report import tables
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion, plain
from pipeline.verdict.decide import Verdict
from tests.verdict import builders


def criterion(
    name: str, value: float | None, limit: float | None, interval: Interval | None = None
) -> Criterion:
    return Criterion(
        name=name,
        subject=".ptl",
        outcome=PASS,
        value=value,
        interval=interval,
        limit=limit,
        unit="",
        note="",
    )


@pytest.mark.parametrize(
    ("name", "value", "limit", "allowed"),
    [
        ("top1_agreement_min", 0.99, 0.98, True),
        ("top1_agreement_min", 0.97, 0.98, False),
        ("sqnr_min_db", 41.0, 30.0, True),
        ("size_ratio_max", 0.3, 0.35, True),
        ("size_ratio_max", 0.4, 0.35, False),
        ("noise_multiple", 1e-6, 1e-5, True),
        ("published_tolerance_pp", -3.0, 4.0, True),
        ("published_tolerance_pp", -25.0, 4.0, False),
        ("published_tolerance_pp", 25.0, 4.0, False),
    ],
)
def test_the_dot_is_on_the_shaded_side_when_the_limit_is_kept(name, value, limit, allowed):
    line = tables.number_line(criterion(name, value, limit))
    assert line is not None
    assert (line.allowed.low <= line.value <= line.allowed.high) is allowed


def test_everything_lies_on_the_number_line_and_in_order():
    line = tables.number_line(criterion("size_ratio_max", 0.3, 0.35, Interval(0.28, 0.36)))
    assert line is not None
    assert line.interval is not None
    places = [line.interval.low, line.value, line.limits[0], line.interval.high]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 100


def test_a_value_exactly_at_its_limit_can_be_drawn():
    line = tables.number_line(criterion("size_ratio_max", 0.35, 0.35))
    assert line is not None
    assert line.limits == (line.value,)


@pytest.mark.parametrize(("value", "limit"), [(None, 1.0), (1.0, None), (1.0, float("inf"))])
def test_without_a_number_or_a_limit_there_is_no_line(value, limit):
    assert tables.number_line(criterion("size_ratio_max", value, limit)) is None


@pytest.mark.parametrize(
    ("channel", "stops"), [("candidate", [FAIL]), ("release", [FAIL, UNDECIDED])]
)
def test_what_stands_in_the_way_is_what_the_channel_refuses(channel, stops):
    criteria = tuple(plain(outcome, "float", outcome, "") for outcome in (PASS, FAIL, UNDECIDED))
    found = tables.in_the_way(Verdict(channel, criteria))
    assert [c.outcome for c in found] == stops


def test_every_criterion_has_a_title_and_its_place():
    verdict = builders.case().decide()
    groups = tables.criteria(verdict)
    assert sum(map(len, groups.values())) == len(verdict.criteria)
    assert list(groups)[:4] == [".ptl", ".onnx", ".int8.onnx", ".pte"]
    assert {c.name for c in verdict.criteria} <= set(tables.TITLES)


@pytest.mark.parametrize(
    ("runs", "shown"),
    [(6, []), (43, ["p50 ms"]), (44, ["p50 ms", "p90 ms"]), (459, ["p50 ms", "p90 ms", "p99 ms"])],
)
def test_percentiles_are_printed_only_where_the_runs_bound_them(runs, shown):
    timed = {"runs_ms": [10 + i / 100 for i in range(runs)]}
    evidence = {"artefacts": {"float": timed, "ptl": timed}}
    for row in tables.times(evidence, 0.95)[:2]:
        cells = dict(zip(tables.TIMES[1:], row.cells, strict=True))
        percentiles = ("p50 ms", "p90 ms", "p99 ms")
        assert [name for name in percentiles if cells[name].text != tables.NONE] == shown


def test_a_file_that_was_not_timed_says_so():
    case = builders.case()
    del case.latency["artefacts"]["pte"]
    rows = {row.name: row for row in tables.times(case.latency, 0.95) if not row.below}
    assert rows[".pte"].cells[0].text == "not timed"
    assert rows[".ptl"].cells[0].text != "not timed"


def test_the_last_releases_files_are_named_as_such():
    rows = tables.times(builders.case().latency, 0.95)
    assert [row.below for row in rows[5:]] == ["of model-0.0.1"] * 4


def test_every_row_fills_the_header():
    case = builders.case()
    case.parity["artefacts"]["pte"] = {
        key: case.parity["artefacts"]["pte"][key] for key in ("size_bytes", "count")
    } | {"finite": False}
    del case.parity["artefacts"]["onnx"]
    for row in tables.answers(case.parity, 0.95):
        assert len(row.cells) == len(tables.ANSWERS) - 1, row.name
    for row in tables.times(case.latency, 0.95):
        assert len(row.cells) == len(tables.TIMES) - 1, row.name


def test_without_labels_the_limits_of_the_test_are_said():
    case = builders.case(labelled=False)
    assert any("no labels" in line for line in tables.sight(case.parity, case.gate))
    assert not any("no labels" in line for line in tables.sight(builders.case().parity, case.gate))


def test_what_agreement_proves_at_best_is_wilsons_bound():
    # Wilson's lower bound for n of n is n / (n + z^2): 2000 / (2000 + 1.95996^2).
    case = builders.case()
    assert "99.81%" in tables.sight(case.parity, case.gate)[0]
