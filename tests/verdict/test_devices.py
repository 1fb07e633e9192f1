from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from pipeline.errors import IntegrityError
from pipeline.evidence.devices import Cell, DeviceEvidence, Devices
from pipeline.evidence.golden import GoldenEvidence
from pipeline.evidence.model import parse
from pipeline.metrics.logits import json_logits, logits_array
from pipeline.params import Devices as Asked
from pipeline.verdict.criteria.devices import agreement
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED
from tests.verdict import builders
from tests.verdict.builders import Case

LIMITS = {"device_sqnr_min_db": 30, "instructions_max_m": 700, "instructions_growth_max": 1.02}
GOOD = builders.case()
GOLDEN = builders.golden(dict(GOOD.files.artefacts), GOOD.files.checkpoint)
ANSWERS = parse(GOLDEN, GoldenEvidence, "golden.json", "dvc repro")


def cell(**changes: Any) -> dict[str, Any]:
    return {
        "format": "ptl",
        "sha256": GOOD.files.artefacts["ptl"],
        "runtime": "PyTorch Lite 1.13.1",
        "machine": "aarch64",
        "loads": True,
        "runs": True,
        "error": None,
        "own_preprocessing": False,
        "logits": copy.deepcopy(GOLDEN["artefacts"]["ptl"]["logits"]),
        "cost": {"instructions": [600_000_000, 600_000_100]},
    } | changes


def case(
    *cells: dict[str, Any],
    channel: str = "candidate",
    asked: tuple[str, ...] = ("arm64",),
    **changes: Any,
) -> Case:
    found = {
        "target": "arm64",
        "golden": GOLDEN["seal"],
        "formats": ["ptl"],
        "cells": list(cells),
        "checks": [],
        "claims": {},
        "previous": None,
        "machine": builders.MACHINE,
    } | changes
    gate = builders.gate(channel, **LIMITS).model_copy(
        update={"devices": Asked.model_validate({"candidate": (), "release": asked})}
    )
    result = builders.case()
    result.gate = gate
    result.devices = Devices(ANSWERS)
    if cells or changes:
        evidence = parse(found, DeviceEvidence, "arm64.json", "make device-test")
        result.devices = Devices(ANSWERS, {"arm64": evidence})
    return result


def test_the_golden_answers_themselves_pass() -> None:
    got = case(cell())
    assert got.outcome("device_sqnr_min_db", ".ptl on arm64") == PASS
    assert got.outcome("instructions_max_m", ".ptl on arm64") == PASS
    assert got.decide().passed


def test_one_logit_is_compared_by_its_yes_and_no() -> None:
    """Of a threshold of 0.8 the logit is 1.386; every golden answer is just above it."""
    golden = copy.deepcopy(GOLDEN) | {"threshold": 0.8}
    for answers in golden["artefacts"].values():
        answers["logits"] = [[1.4] for _ in answers["logits"]]
    content = parse(golden, GoldenEvidence, "golden.json", "dvc repro")
    count = len(content.images)
    device = [[1.4]] * (count - 3) + [[1.3]] * 3
    named = dict.fromkeys(("sha256", "runtime", "machine"), "")
    near = agreement(content, Cell(format="ptl", loads=True, runs=True, logits=device, **named))
    assert near is not None
    assert (near.top1_equal, near.count) == (count - 3, count)
    for answers in golden["artefacts"].values():
        answers["logits"] = [[1.0, 2.0]] * count
    with pytest.raises(IntegrityError, match="a threshold goes with one number an image, not 2"):
        parse(golden, GoldenEvidence, "golden.json", "dvc repro")


def test_a_target_that_was_not_run_is_undecided_and_says_how() -> None:
    found = case().criterion("devices", "arm64")
    assert (found.outcome, found.waits_for) == (UNDECIDED, "a run on arm64")
    assert case().decide().passed
    assert "make device-test TARGETS=arm64" in found.note


def test_a_candidate_that_asks_for_a_target_refuses_without_it() -> None:
    asking = case()
    asking.gate = asking.gate.model_copy(
        update={"devices": Asked.model_validate({"candidate": ("arm64",)})}
    )
    assert not asking.decide().passed
    assert [c.subject for c in asking.decide().in_the_way] == ["arm64"]


@pytest.mark.parametrize(
    "changes",
    [
        {"loads": False, "logits": None, "error": "operator missing"},
        {"runs": False, "logits": None, "error": "stopped"},
        {"logits": None},
        {"logits": []},
        {"logits": GOLDEN["artefacts"]["ptl"]["logits"][:2]},
        {"logits": [[None] * builders.CLASSES] * 4},
        {"logits": json_logits(-logits_array(GOLDEN["artefacts"]["ptl"]["logits"]))},
    ],
)
def test_a_file_that_does_not_answer_as_it_should_fails(changes: dict[str, Any]) -> None:
    found = case(cell(**changes)).criterion("device_sqnr_min_db", ".ptl on arm64")
    assert found.outcome == FAIL
    assert str(changes.get("error") or "") in found.note


def test_answers_worse_than_the_limit_fail() -> None:
    expected = logits_array(GOLDEN["artefacts"]["ptl"]["logits"])
    noise = np.random.default_rng(0).normal(size=expected.shape)
    for wanted_db, outcome in ((29, FAIL), (31, PASS)):
        scale = np.sqrt((expected**2).sum() / (noise**2).sum() / 10 ** (wanted_db / 10))
        logits = json_logits((expected + scale * noise).astype(np.float32))
        found = case(cell(logits=logits)).criterion("device_sqnr_min_db", ".ptl on arm64")
        assert found.value == pytest.approx(wanted_db, abs=0.01)
        assert found.outcome == outcome


def test_evidence_of_other_bytes_or_other_images_is_no_pass() -> None:
    other = case(cell(sha256="0" * 64))
    assert other.outcome("devices", ".ptl on arm64") == UNDECIDED
    images = case(cell(), golden="0" * 64)
    assert images.outcome("devices", "arm64") == UNDECIDED
    missing = case(formats=["ptl"])
    assert missing.outcome("devices", ".ptl on arm64") == UNDECIDED
    release = case(cell(sha256="0" * 64), channel="release")
    assert ".ptl on arm64" in {c.subject for c in release.decide().in_the_way}


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        ([600_000_000] * 3, PASS),
        ([701_000_000] * 3, FAIL),
        ([600_000_000, 602_000_000], UNDECIDED),
    ],
)
def test_instructions_are_bounded_where_they_repeat(counts: list[int], outcome: str) -> None:
    got = case(cell(cost={"instructions": counts}))
    assert got.outcome("instructions_max_m", ".ptl on arm64") == outcome


@pytest.mark.parametrize(("before", "outcome"), [(590_000_000, PASS), (580_000_000, FAIL)])
def test_growth_since_the_last_release_is_bounded(before: int, outcome: str) -> None:
    previous = {"release": "model-0.0.9", "instructions": {"ptl": before}}
    got = case(cell(), previous=previous)
    assert got.outcome("instructions_growth_max", ".ptl on arm64") == outcome


@pytest.mark.parametrize(("passed", "outcome"), [(True, PASS), (False, FAIL)])
def test_a_check_is_judged_as_the_target_found_it(passed: bool, outcome: str) -> None:
    check = {
        "name": "operators",
        "subject": "ptl",
        "sha256": GOOD.files.artefacts["ptl"],
        "passed": passed,
        "detail": "aten::gelu",
    }
    got = case(cell(), checks=[check])
    assert got.outcome("device_check", ".ptl on arm64") == outcome
    stale = case(cell(), checks=[check | {"sha256": "0" * 64}])
    assert stale.outcome("devices", ".ptl on arm64") == UNDECIDED


@pytest.mark.parametrize(
    ("claimed", "changes", "outcome"),
    [
        ("PyTorch Lite 1.13.1", {}, PASS),
        ("PyTorch Lite 1.13.1", {"loads": False, "logits": None}, FAIL),
        ("PyTorch Lite 2.0.1", {}, UNDECIDED),
    ],
)
def test_the_oldest_runtime_is_one_that_it_ran_on(
    claimed: str, changes: dict[str, Any], outcome: str
) -> None:
    claims = {"ptl": {"sha256": GOOD.files.artefacts["ptl"], "oldest_runtime": claimed}}
    assert case(cell(**changes), claims=claims).outcome("oldest_runtime", ".ptl") == outcome


def test_agreement_counts_against_the_same_file_and_against_float() -> None:
    near = agreement(ANSWERS, Cell(**cell()))
    assert near is not None
    assert (near.top1_equal, near.count, near.sqnr_db) == (4, 4, 300)
    assert 35 < near.float_sqnr_db < 45


def test_golden_answers_of_other_bytes_are_refused() -> None:
    got = case(cell())
    others = builders.golden(dict.fromkeys(GOLDEN["artefacts"], "0" * 64), "0" * 64)
    got.devices = Devices(parse(others, GoldenEvidence, "golden.json", "dvc repro"))
    names = {(c.name, c.subject) for c in got.decide().criteria if c.outcome == FAIL}
    assert ("evidence", ".ptl") in names
