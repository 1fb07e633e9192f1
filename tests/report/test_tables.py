from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.report import comparison, tables
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, plain
from pipeline.verdict.decide import Verdict
from tests.verdict import builders

CONFIDENCE = 0.95


def cells(case, title):
    parity, latency = case.evidence.parity, case.evidence.latency
    """One row of the comparison, by what the file is called."""
    names = [comparison.name(key) for key in comparison.keys(parity, latency)]
    rows = [r for r in comparison.rows(parity, latency, CONFIDENCE) if r.title == title]
    return dict(zip(names, rows[0].cells, strict=True)) if rows else {}


def test_criteria_are_told_apart_by_outcome():
    criteria = tuple(plain(outcome, "float", outcome, "") for outcome in (PASS, FAIL, UNDECIDED))
    verdict = Verdict("candidate", criteria)
    assert [c.name for c in tables.failed(verdict)] == [FAIL]
    assert [c.name for c in tables.undecided(verdict)] == [UNDECIDED]
    assert list(tables.passed(verdict)) == [PASS]


def test_criteria_of_one_reason_are_one_row_with_one_command():
    targets = ("web", "arm64")
    criteria = tuple(
        plain("devices", target, UNDECIDED, f"was not run; run `make device-test TARGETS={target}`")
        for target in targets
    )
    (row,) = tables.undecided(Verdict("candidate", (*criteria, plain("a", "b", UNDECIDED, ""))))[:1]
    assert row.subjects == "web, arm64"
    assert row.note == 'was not run; run `make device-test TARGETS="web arm64"`'


def test_one_target_keeps_its_command():
    note = "was not run; run `make device-test TARGETS=web`"
    (row,) = tables.undecided(Verdict("candidate", (plain("devices", "web", UNDECIDED, note),)))
    assert row.note == note


def test_every_criterion_has_a_title_and_its_place():
    verdict = builders.case().decide()
    groups = tables.passed(verdict)
    assert sum(map(len, groups.values())) == verdict.count(PASS)
    assert {c.name for c in verdict.criteria} <= set(tables.TITLES)
    titles = list(groups)
    assert titles.index("Size") < titles.index("Change made by the step")


def test_each_number_of_a_file_has_its_criterion_in_the_table_of_files():
    case = builders.case()
    verdict = case.decide()
    rows = tables.files(case.evidence.parity, case.evidence.latency, CONFIDENCE, verdict)
    shown = {
        (cell.judged.name, cell.judged.subjects) for r in rows for cell in r.cells if cell.judged
    }
    numbers = {
        (c.name, c.subject)
        for c in verdict.criteria
        if c.value is not None and c.name in comparison.CRITERIA
    }
    assert shown == numbers
    assert {name for name, _ in shown} == set(comparison.CRITERIA)


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        (6, []),
        (43, [comparison.P50]),
        (44, [comparison.P50, comparison.P90]),
        (459, [comparison.P50, comparison.P90, comparison.P99]),
    ],
)
def test_percentiles_are_shown_only_where_the_runs_bound_them(runs, shown):
    case = builders.case()
    times = {"runs_ms": [10 + i / 100 for i in range(runs)]}
    files = {key: case.latency["artefacts"][key] | times for key in ("float", "ptl")}
    case.latency |= {"artefacts": files, "previous": None}
    percentiles = (comparison.P50, comparison.P90, comparison.P99)
    found = {t: cells(case, t).get(".ptl") for t in percentiles}
    assert [t for t, cell in found.items() if cell and cell.text != comparison.NONE] == shown


def test_a_file_that_was_not_timed_or_not_measured_says_so():
    case = builders.case()
    del case.latency["artefacts"]["pte"]
    del case.parity["artefacts"]["onnx"]
    times = cells(case, comparison.P50)
    assert times[".pte"].text == "not timed"
    assert times[".ptl"].text != "not timed"
    assert cells(case, comparison.SIZE)[".onnx"].text == "not measured"


def test_a_file_that_is_not_delivered_has_no_column():
    case = builders.case()
    del case.latency["artefacts"]["pte"], case.parity["artefacts"]["pte"]
    assert ".pte" not in cells(case, comparison.SIZE)


def test_the_last_releases_times_have_a_row():
    case = builders.case()
    row = cells(case, comparison.PREVIOUS)
    assert row["float (PyTorch)"].text == comparison.NONE
    assert row[".ptl"].text != comparison.NONE


def test_a_file_without_numbers_says_why():
    case = builders.case()
    case.measure("pte", np.full_like(case.reference, np.nan))
    cell = cells(case, comparison.AGREEMENT)[".pte"]
    assert (cell.text, cell.bound) == (comparison.NONE, "NaN or infinity")


def test_a_cell_has_one_number():
    case = builders.case()
    for row in comparison.rows(case.evidence.parity, case.evidence.latency, CONFIDENCE):
        for cell in row.cells:
            assert len(re.findall(r"\d+(?:\.\d+)?", cell.text)) <= 1, row
            assert len(re.findall(r"\d+(?:\.\d+)?", cell.bound)) <= 1, row


def test_the_headline_is_of_the_fastest_file_and_rounds_agreement_down():
    case = builders.case()
    case.measure("onnx", case.flipped(1, 0))  # 1999 of 2000 are float's
    case.parity |= {"float_size_bytes": 22_000_000}
    case.parity["artefacts"]["onnx"]["size_bytes"] = 6_000_000
    base = case.latency["artefacts"]["float"]["runs_ms"]
    for key, factor in {"ptl": 0.9, "onnx": 0.4, "int8_onnx": 0.5, "pte": 2.0}.items():
        case.latency["artefacts"][key]["runs_ms"] = [factor * run for run in base]
    assert comparison.headline(case.evidence.parity, case.evidence.latency) == (
        "3.7 times smaller, 2.5 times faster, 99.9% of the answers: .onnx compared with float"
    )


def test_the_headline_hides_no_loss_and_needs_numbers():
    case = builders.case()
    base = case.latency["artefacts"]["float"]["runs_ms"]
    for key in ("onnx", "int8_onnx", "pte"):
        del case.parity["artefacts"][key]
    case.parity |= {"float_size_bytes": 6_000_000}
    case.parity["artefacts"]["ptl"]["size_bytes"] = 12_000_000
    case.latency["artefacts"]["ptl"]["runs_ms"] = [1.5 * run for run in base]
    words = comparison.headline(case.evidence.parity, case.evidence.latency)
    assert words.startswith("2.0 times larger, 1.5 times slower, 100% of the answers")
    case.measure("ptl", np.full_like(case.reference, np.nan))
    assert comparison.headline(case.evidence.parity, case.evidence.latency) == ""


def test_without_labels_the_limits_of_the_test_are_said():
    case = builders.case(labelled=False)
    assert any("no labels" in line for line in tables.resolution(case.evidence.parity, case.gate))
    assert not any(
        "no labels" in line
        for line in tables.resolution(builders.case().evidence.parity, case.gate)
    )


def test_what_agreement_proves_at_best_is_wilsons_bound():
    # Wilson's lower bound for n of n is n / (n + z^2): 2000 / (2000 + 1.95996^2).
    case = builders.case()
    assert "99.81%" in tables.resolution(case.evidence.parity, case.gate)[0]


def test_what_lies_beside_the_samples_is_said():
    case = builders.case()
    assert tables.beside(case.evidence.parity) == []
    case.parity["samples"] |= {
        "skipped": 3,
        "left_out": 2,
        "duplicates": 1,
        "classes_without_images": [f"class {number}" for number in range(25)],
    }
    skipped, left_out, duplicates, classes = tables.beside(case.evidence.parity)
    assert skipped.startswith("3 file(s) of the source are not images")
    assert left_out.startswith("2 hidden or unrelated")
    assert duplicates.startswith("1 sample(s) have the pixels of an earlier one")
    assert classes.endswith(
        "nothing is known of them: "
        + ", ".join(f"class {number}" for number in range(20))
        + " and 5 more."
    )
