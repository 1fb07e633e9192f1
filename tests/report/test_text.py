from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.formats import FORMATS
from pipeline.report import text as report
from pipeline.verdict.criterion import FAIL, UNDECIDED
from tests.verdict import builders
from tests.verdict.builders import Case


def broken() -> Case:
    """A failed and an undecided criterion beside the passed ones."""
    case = builders.case()
    case.measure("ptl", case.flipped(60, 0))
    case.measure("pte", case.flipped(60, 50))
    return case


@pytest.mark.parametrize("channel", ["candidate", "release"])
def test_junit_parses_and_its_counts_are_its_cases(channel: str) -> None:
    case = broken()
    case.gate = builders.gate(channel)
    verdict = case.decide()
    suite = ElementTree.fromstring(report.junit(verdict).encode())
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == len(verdict.criteria)
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    assert int(suite.attrib["failures"]) == verdict.count(FAIL) > 0
    assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    assert int(suite.attrib["skipped"]) == verdict.count(UNDECIDED) > 0


def test_junit_declares_utf_8_and_survives_markup() -> None:
    case = builders.case()
    case.latency["machine"]["processor"] = 'Größe <b> & "9"'
    text = report.junit(case.decide())
    assert text.lower().startswith("<?xml version='1.0' encoding='utf-8'?>")
    ElementTree.fromstring(text.encode())


def test_markdown_holds_each_criterion_and_each_file() -> None:
    case = broken()
    verdict = case.decide()
    text = report.markdown(verdict, case.evidence, case.gate, 1)
    lines = text.splitlines()
    for c in verdict.criteria:
        cells = (f" {report.MARKS[c.outcome]} ", f" {c.subject} ", f" {c.name} ")
        assert sum(all(cell in line for cell in cells) for line in lines) == 1, c
    header = next(line for line in lines if "float (PyTorch)" in line)
    assert all(f" {FORMATS[key].suffix} |" in header for key in FORMATS)
    assert text.startswith(f"## edge-vit: {report.headline(verdict)}")


def test_markdown_shows_what_is_open_before_the_files_and_folds_what_passed() -> None:
    case = broken()
    text = report.markdown(case.decide(), case.evidence, case.gate, 1)
    assert text.index("| FAIL ") < text.index("| undecided ") < text.index("float (PyTorch)")
    folded = text.split("<details>")[1].split("</details>")[0]
    assert "| pass " in folded
    assert "| pass " not in text.replace(folded, "")
    assert "| FAIL " not in folded


def test_tables_have_one_number_a_cell() -> None:
    case = broken()
    text = report.markdown(case.decide(), case.evidence, case.gate, 1)
    numbers = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
    for line in text.splitlines():
        if line.startswith(("| pass ", "| FAIL ", "| undecided ")):
            for cell in line.split("|")[4:8]:
                assert not cell.strip() or numbers.fullmatch(cell.strip()), line


def test_the_headline_says_whether_it_goes_out() -> None:
    assert report.headline(builders.case().decide()).startswith("passed for channel candidate: 36 ")
    assert report.headline(broken().decide()).startswith("refused for channel candidate: ")


def test_refusals_are_what_the_channel_refuses() -> None:
    case = broken()
    verdict = case.decide()
    assert len(report.refusals(verdict)) == len(verdict.in_the_way) > verdict.count(FAIL)
    case.gate = builders.gate("release")
    verdict = case.decide()
    assert len(report.refusals(verdict)) == verdict.count(FAIL) + verdict.count(UNDECIDED)
    drop = next(r for r in report.refusals(verdict) if r.startswith(".ptl: accuracy_drop_max_pp"))
    assert "3 pp" in drop
    assert "a limit of 1 pp" in drop


def test_a_refusal_says_how_many_images_would_do_and_what_may_stay_open() -> None:
    case = builders.case()
    case.gate = builders.gate(sqnr_min_db=None)
    case.measure("pte", case.flipped(40, 30))
    verdict = case.decide()
    (open_one,) = verdict.in_the_way
    said = report.refusal(verdict)
    assert f"1: about {open_one.images_needed} images (samples.limit)" in said
    assert "(`edge-vit baseline`), which a candidate may leave open" in said


def test_what_asks_for_less_is_in_markdown_and_junit() -> None:
    case = builders.case()
    verdict = case.decide()
    said = "gate.budgets.ptl.top1_agreement_min is 0.95, looser than as shipped: 0.98"
    assert said in verdict.relaxed
    assert f"- {said}" in report.markdown(verdict, case.evidence, case.gate).splitlines()
    suite = ElementTree.fromstring(report.junit(verdict).encode())
    assert said in [found.attrib["value"] for found in suite.findall("properties/property")]


def test_the_worst_comes_first() -> None:
    rows = report.criteria_table(broken().decide()).splitlines()[2:]
    words = [row.split()[0] for row in rows]
    assert words == sorted(words, key=("FAIL", "undecided", "pass").index)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_file_that_could_not_be_measured_is_reported_all_the_same(labelled: bool) -> None:
    case = builders.case(labelled)
    case.measure("pte", np.full_like(case.reference, np.nan))
    text = report.markdown(case.decide(), case.evidence, case.gate, 1)
    assert "| FAIL " in text
    assert ("Right answers" in text) == labelled


def test_what_the_test_can_show_is_said_once_for_files_of_which_it_is_the_same() -> None:
    case = builders.case()
    case.measure("ptl", case.flipped(60, 60))
    lines = report.power_statement(case.evidence.parity, case.gate)
    assert [line.partition(":")[0] for line in lines] == [".ptl", ".onnx, .int8.onnx, .pte"]
    assert "loses 1 percentage point of accuracy or more passes by luck at most 5%" in lines[1]
    assert "images are enough" in lines[1]


def test_too_many_changed_answers_are_said() -> None:
    case = builders.case()
    case.measure("ptl", case.flipped(180, 180))
    (first, *_) = report.power_statement(case.evidence.parity, case.gate)
    assert first.startswith(".ptl: 360 answers changed, too many for 2000 images")


def test_a_float_model_that_may_as_well_guess_is_said_first() -> None:
    case = builders.case()
    assert report.warnings(case.evidence.parity, case.gate, 0) == []
    case.parity["reference_accuracy"]["right"] = case.parity["samples"]["count"] // 10
    (line,) = report.warnings(case.evidence.parity, case.gate, 0)
    assert "(10.0%), which is not shown to be more than a guess among 10 classes" in line
