"""What of the gate's criteria a search and a repair go by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.metrics.measures import NonFinite, against_float
from pipeline.params import Budget, Gate, load_params
from pipeline.tuning.criteria import early_stop, fixable, is_fixed, judged, over_budget, violation
from tests.verdict.builders import criterion

ROOT = Path(__file__).parent.parent.parent


def test_a_cost_beyond_the_users_budget_counts_relatively():
    gate = Gate(budgets={"ptl": Budget(instructions_max_m=200)})
    assert over_budget(gate, "ptl", 300) == pytest.approx(0.5)
    assert over_budget(gate, "ptl", 200) == 0
    assert over_budget(gate, "pte", 300) == 0


def test_fixed_is_passed_and_not_merely_undecided():
    assert is_fixed([criterion(outcome="pass")], ["sqnr_min_db"])
    assert not is_fixed([criterion(outcome="undecided")], ["sqnr_min_db"])
    other = criterion("accuracy_drop_max_pp")
    assert not is_fixed([criterion(outcome="pass"), other], ["sqnr_min_db"])
    nothing = criterion("parity", value=None, limit=None)
    assert not is_fixed([criterion(outcome="pass"), nothing], ["sqnr_min_db"])
    # Layers in float can only make it larger: the cost tells that.
    size = criterion("size_ratio_max", value=0.7, limit=0.35)
    assert is_fixed([criterion(outcome="pass"), size], ["sqnr_min_db"])
    assert not is_fixed([], ["sqnr_min_db"])


def test_layers_in_float_fix_the_quality_of_int8_files_and_nothing_else():
    good = criterion()
    others = [criterion("size_ratio_max"), criterion(subject=".onnx"), criterion("bytes")]
    assert fixable([good, *others, criterion(outcome="undecided")]) == ([good], others)


def test_a_violation_is_relative_and_counts_undecided_values():
    assert violation([criterion(value=27.0, outcome="undecided")]) == pytest.approx(0.1)
    assert violation([criterion(value=31.0)]) == 0
    assert violation([criterion("size_ratio_max", value=0.7, limit=0.35)]) == pytest.approx(1)
    assert violation([criterion(value=None, limit=None)]) == float("inf")


def test_few_images_stop_what_is_far_below_a_limit_and_not_what_is_close():
    assert early_stop([criterion(value=26.0)], slack_db=3)
    assert not early_stop([criterion(value=28.0)], slack_db=3)
    assert early_stop([criterion("top1_agreement_min")], slack_db=3)


def test_judging_is_the_gates():
    gate = load_params(ROOT / "params.yaml").gate
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(256, 10)).astype(np.float32)
    candidate = (reference + rng.normal(scale=0.1, size=reference.shape)).astype(np.float32)
    candidate[:56] = np.roll(reference[:56], 1, axis=1)
    measured = against_float(reference, candidate, None, 0.0)
    outcomes = {c.name: c.outcome for c in judged(gate, "ptl", measured, 30, 100)}
    assert outcomes == {
        "top1_agreement_min": "fail",
        "accuracy_drop_max_pp": "undecided",
        "sqnr_min_db": "fail",
        "size_ratio_max": "pass",
    }
    (nothing,) = judged(gate, "ptl", NonFinite(count=256), 30, 100)
    assert nothing.outcome == "fail"
