from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import IntegrityError
from pipeline.evidence.baselines import Baseline
from pipeline.formats import FORMATS
from pipeline.metrics import intervals
from pipeline.metrics.measures import NonFinite, StepComparison, between_steps
from pipeline.params import Budget
from pipeline.verdict.criterion import FAIL, PASS, QUIET, UNDECIDED
from pipeline.verdict.decide import Verdict, decide
from tests.verdict import builders
from tests.verdict.builders import COUNT, STEPS, Case

GOOD = builders.case()
FORMAT = st.sampled_from(list(FORMATS))
BAD_NUMBER = st.sampled_from([float("nan"), float("inf"), -float("inf")])


def fresh() -> Case:
    return replace(GOOD, parity=copy.deepcopy(GOOD.parity), latency=copy.deepcopy(GOOD.latency))


def shuffled(value: Any, chance: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    keys = list(value)
    chance.shuffle(keys)
    return {key: shuffled(value[key], chance) for key in keys}


def refused(case: Case) -> bool:
    """Not published: either failed or not judged at all."""
    try:
        return not case.decide().passed
    except IntegrityError:
        return True


def test_sound_evidence_passes_everything_but_the_record_that_is_not_there() -> None:
    verdict = fresh().decide()
    assert {c.name for c in verdict.criteria if c.outcome != PASS} == {
        "baseline_logits",
        "baseline_ratio_max",
    }
    assert verdict.count(UNDECIDED) == 1 + 4
    # evidence, weights, five steps, published, eight limits of four files, baseline's logits
    assert len(verdict.criteria) == 1 + 1 + 5 + 1 + 8 * 4 + 1


def test_a_candidate_goes_out_with_undecided_criteria_and_a_release_does_not() -> None:
    assert fresh().decide().passed
    release = replace(fresh(), gate=builders.gate("release")).decide()
    assert (release.count(FAIL), release.passed) == (0, False)


def test_a_candidate_leaves_undecided_only_what_this_machine_cannot_decide() -> None:
    case = replace(fresh(), gate=builders.gate(sqnr_min_db=None))
    case.measure("pte", case.flipped(60, 50))
    assert [(c.name, c.outcome) for c in case.decide().in_the_way] == [
        ("top1_agreement_min", UNDECIDED),
        ("accuracy_drop_max_pp", UNDECIDED),
    ]
    unlabelled = builders.case(labelled=False).decide()
    assert {c.name for c in unlabelled.in_the_way} == {"accuracy_drop_max_pp"}


SAMPLES = {"published_tolerance_pp", "top1_agreement_min", "accuracy_drop_max_pp", "sqnr_min_db"}


@pytest.mark.parametrize("channel", ["candidate", "release"])
@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"duplicates": 1}, "1 of the 2000 images have the pixels of an earlier one"),
        ({"classes_without_images": tuple("abc")}, "7 of the model's 10 classes, at least 8"),
        ({"count": 49}, "49 images are too few, at least 50"),
    ],
)
def test_what_rests_on_unfit_samples_is_undecided_in_each_channel(
    samples: dict[str, Any], words: str, channel: str
) -> None:
    gate, evidence = builders.gate(channel), fresh().evidence
    about = evidence.parity.samples.model_copy(update=samples)
    parity = evidence.parity.model_copy(update={"samples": about})
    verdict = decide(gate, None, GOOD.files, replace(evidence, parity=parity))
    assert {c.name for c in verdict.in_the_way} == SAMPLES
    assert {c.name for c in verdict.criteria if c.outcome == UNDECIDED} == SAMPLES
    assert all(words in c.note for c in verdict.in_the_way)
    asking_less = gate.model_copy(update={"classes_covered_min": None})
    verdict = decide(asking_less, None, GOOD.files, replace(evidence, parity=parity))
    assert verdict.passed == ("classes_without_images" in samples)


def test_good_looking_answers_of_unfit_samples_hide_no_failure() -> None:
    case = fresh()
    case.measure("ptl", case.flipped(200, 0))
    case.parity["samples"]["duplicates"] = 5
    assert case.outcome("top1_agreement_min", ".ptl") == FAIL


def test_a_release_without_undecided_criteria_passes() -> None:
    criteria = tuple(c for c in fresh().decide().criteria if c.outcome == PASS)
    assert Verdict("release", criteria).passed


@pytest.mark.parametrize("channel", ["candidate", "release"])
def test_no_criteria_are_no_pass(channel: str) -> None:
    assert not Verdict(channel, ()).passed


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_nothing(chance: random.Random) -> None:
    case = fresh()
    case.parity, case.latency = shuffled(case.parity, chance), shuffled(case.latency, chance)
    case.files = replace(case.files, artefacts=shuffled(dict(case.files.artefacts), chance))
    assert case.decide() == GOOD.decide()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(FORMAT, st.sampled_from(["parity", "latency"]))
def test_a_file_without_evidence_fails(key: str, kind: str) -> None:
    case = fresh()
    del getattr(case, kind)["artefacts"][key]
    assert case.outcome("evidence", FORMATS[key].suffix) == FAIL
    if kind == "parity":
        assert case.outcome("parity", FORMATS[key].suffix) == FAIL
    else:
        assert case.outcome("latency", FORMATS[key].suffix) == FAIL
    assert not case.decide().passed


@settings(max_examples=10, deadline=None, derandomize=True)
@given(FORMAT)
def test_a_file_that_is_not_delivered_fails(key: str) -> None:
    case = fresh()
    kept = {name: value for name, value in case.files.artefacts.items() if name != key}
    case.files = replace(case.files, artefacts=kept)
    assert {c.subject for c in case.decide().criteria if c.outcome == FAIL} >= {FORMATS[key].suffix}
    assert not case.decide().passed


def test_evidence_of_nothing_does_not_match_a_file_that_is_missing() -> None:
    case = fresh()
    case.files = replace(case.files, artefacts={})
    for evidence in (case.parity, case.latency):
        for key in FORMATS:
            evidence["artefacts"][key]["sha256"] = None
    assert refused(case)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(FORMAT, st.sampled_from(["files", "parity", "latency"]))
def test_evidence_for_other_bytes_fails(key: str, where: str) -> None:
    case, other = fresh(), builders.digest("other bytes")
    if where == "files":
        case.files = replace(case.files, artefacts={**case.files.artefacts, key: other})
    else:
        getattr(case, where)["artefacts"][key]["sha256"] = other
    failed = [c for c in case.decide().criteria if c.name == "evidence"]
    assert {c.outcome for c in failed} == {FAIL}
    assert FORMATS[key].suffix in {c.subject for c in failed}
    assert not case.decide().passed


@pytest.mark.parametrize("which", ["checkpoint", "samples"])
def test_evidence_for_another_checkpoint_or_other_samples_fails(which: str) -> None:
    case = fresh()
    case.files = replace(case.files, **{which: builders.digest("another")})
    failed = [c for c in case.decide().criteria if c.name == "evidence"]
    assert [c.subject for c in failed] == [which, which]  # parity and latency
    assert not case.decide().passed


@pytest.mark.parametrize("step", ["lite", "export_onnx"])
def test_a_step_that_ended_in_other_bytes_than_the_delivered_fails(step: str) -> None:
    case = fresh()
    case.parity["steps"][step]["after_sha256"] = builders.digest("other")
    assert case.outcome("evidence", step) == FAIL


@settings(max_examples=12, deadline=None, derandomize=True)
@given(FORMAT, BAD_NUMBER, st.integers(0, COUNT - 1), st.booleans())
def test_one_nan_or_infinity_among_the_answers_fails(
    key: str, bad: float, row: int, asked: bool
) -> None:
    case = fresh()
    if not asked:  # a file that nobody set limits for is published all the same
        budgets = {name: b for name, b in case.gate.budgets.items() if name != key}
        case.gate = case.gate.model_copy(update={"budgets": budgets})
    logits = case.reference.copy()
    logits[row, 3] = bad
    case.measure(key, logits)
    assert "NaN" in case.criterion("parity", FORMATS[key].suffix).note
    assert case.outcome("parity", FORMATS[key].suffix) == FAIL
    assert not case.decide().passed


@pytest.mark.parametrize("key", FORMATS)
def test_no_samples_are_no_pass(key: str) -> None:
    case = fresh()
    case.parity["artefacts"][key]["count"] = 0
    with pytest.raises(IntegrityError, match=f"artefacts.{key}.count: expected"):
        case.decide()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    FORMAT,
    st.sampled_from(["count", "top1_equal", "sqnr_db", "size_bytes"]),
    st.sampled_from([float("nan"), -float("inf"), -1, None, "many"]),
)
def test_a_number_that_cannot_be_is_never_let_out(key: str, name: str, bad: Any) -> None:
    case = fresh()
    case.parity["artefacts"][key][name] = bad
    assert refused(case)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(FORMAT | st.just("float"), st.sampled_from([float("nan"), float("inf"), 0.0, -1.0]))
def test_a_time_that_cannot_be_is_never_let_out(key: str, bad: float) -> None:
    case = fresh()
    case.latency["artefacts"][key]["runs_ms"][7] = bad
    assert refused(case)


def test_fewer_times_than_rounds_are_never_let_out() -> None:
    for runs in ([], [15.0], [15.0] * 99):
        case = fresh()
        case.latency["artefacts"]["ptl"]["runs_ms"] = runs
        assert refused(case), runs


def paths(value: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    below = [p for key in value for p in paths(value[key], (*above, key))]
    return [(*above, key) for key in value] + below


ENVELOPE = (("kind",), ("schema",))  # checked with the seal
MAPPINGS = (  # what they have beyond what is judged may lack an entry
    *(("noise_floor", "runs"), ("machine", "packages"), ("logits_sha256",)),
    ("previous", "artefacts"),  # the last release may not have had a format
)
NULLABLE = (("published", "top5"),)  # absent is null
REQUIRED = [
    (kind, path)
    for kind in ("parity", "latency")
    for path in paths(getattr(GOOD, kind))
    if path not in (*ENVELOPE, *NULLABLE) and path[:-1] not in MAPPINGS
]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(REQUIRED))
def test_evidence_that_lacks_anything_is_never_published(
    which: tuple[str, tuple[str, ...]],
) -> None:
    kind, path = which
    case = fresh()
    place = getattr(case, kind)
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    assert refused(case), f"{kind} without {'.'.join(path)}"


def test_counts_that_contradict_each_other_are_refused() -> None:
    case = fresh()
    case.parity["artefacts"]["ptl"]["accuracy"]["both"] += 1
    with pytest.raises(IntegrityError, match="2001"):
        case.decide()
    case = fresh()
    case.parity["samples"]["count"] = 20
    with pytest.raises(IntegrityError, match="20"):
        case.decide()


@pytest.mark.parametrize(
    ("top1", "outcome"), [(90.0, PASS), (92.0, PASS), (95.0, UNDECIDED), (99.0, FAIL)]
)
def test_float_accuracy_far_from_the_published_one_fails(top1: float, outcome: str) -> None:
    case = fresh()
    case.parity["reference_accuracy"]["right"] = 1800  # 90% of 2000, +-1.4 points
    case.parity["published"]["top1"] = top1
    seen = case.criterion("published_tolerance_pp", "float")
    assert (seen.outcome, round(seen.value, 6)) == (outcome, round(90 - top1, 6))
    assert f"{top1:g}%" in seen.note


@pytest.mark.parametrize("lacking", ["published", "reference_accuracy"])
def test_without_labels_or_a_published_figure_nothing_is_compared(lacking: str) -> None:
    case = fresh()
    case.parity[lacking] = None
    assert "published_tolerance_pp" not in {c.name for c in case.decide().criteria}


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, PASS), (1.2, UNDECIDED), (1.4, FAIL)])
def test_time_beside_the_last_release_has_three_outcomes(factor: float, outcome: str) -> None:
    case = fresh()
    old = case.latency["previous"]["artefacts"]["ptl"]["runs_ms"]
    runs = case.latency["artefacts"]["ptl"]["runs_ms"]
    same = np.median(np.array(runs) / old)
    case.latency["artefacts"]["ptl"]["runs_ms"] = [value * factor / same for value in runs]
    seen = case.criterion("regression_ratio_max", ".ptl")
    assert (seen.outcome, seen.unit) == (outcome, "of model-0.0.1")


def test_what_the_last_release_was_judged_by_is_in_the_evidence_of_time() -> None:
    case = fresh()
    before = builders.gate(sqnr_min_db=35).model_dump(mode="json")
    case.latency["previous"] |= {"gate": before, "device": builders.DEVICE}
    relaxed = case.decide().relaxed
    assert "gate.budgets.ptl.sqnr_min_db is 30, looser than in model-0.0.1: 35" in relaxed
    assert sum("in model-0.0.1" in sentence for sentence in relaxed) == len(FORMATS)


def test_without_a_release_there_is_nothing_to_be_slower_than() -> None:
    case = fresh()
    case.latency["previous"] = None
    assert "regression_ratio_max" not in {c.name for c in case.decide().criteria}
    case.latency["previous"] = {"release": "model-0.0.1", "artefacts": {}}
    assert "regression_ratio_max" not in {c.name for c in case.decide().criteria}


@pytest.mark.parametrize(("own", "outcome"), [(80.0, PASS), (80.1, FAIL), (None, UNDECIDED)])
def test_memory_is_judged_beside_float(own: float | None, outcome: str) -> None:
    case = fresh()
    case.latency["artefacts"]["pte"]["own_memory_mb"] = own
    assert case.outcome("memory_ratio_max", ".pte") == outcome


def around(ms: float, count: int) -> tuple[float, ...]:
    """Times within 5% of ``ms``, in no order."""
    return tuple(np.random.default_rng(0).permutation(np.linspace(0.95 * ms, 1.05 * ms, count)))


def recorded(case: Case, **changes: Any) -> Baseline:
    same = between_steps(case.reference, case.reference)
    values: dict[str, Any] = {
        "device": builders.DEVICE,
        "kind": "cuda",
        "recorded": "2026-01-01",
        "refusal": None,
        "difference": same,
        "noise_floor": builders.FLOOR,
        "runs_ms": around(2.0, 200),
    }
    return Baseline(**(values | changes))


def test_a_release_passes_with_the_record_of_the_reference() -> None:
    case = replace(fresh(), gate=builders.gate("release"))
    assert not case.decide().passed
    case.baselines = (recorded(case),)
    assert [c for c in case.decide().criteria if c.outcome != PASS] == []
    assert case.decide().passed


@pytest.mark.parametrize(
    "changes",
    [{"device": "NVIDIA H200"}, {"kind": "cpu"}, {"refusal": "it is of other weights"}],
)
def test_a_record_of_something_else_never_counts(changes: dict[str, Any]) -> None:
    case = fresh()
    case.baselines = (recorded(case, **changes),)
    assert case.outcome("baseline_logits", "float") == UNDECIDED
    assert case.outcome("baseline_ratio_max", ".ptl") == UNDECIDED
    if "refusal" in changes:
        assert "it is of other weights" in case.criterion("baseline_logits", "float").note


@pytest.mark.parametrize("floors", [0.0, 8.0, 8.1, float("nan"), float("inf")])
def test_float_must_answer_as_on_the_reference_within_both_noise_floors(floors: float) -> None:
    case = fresh()
    difference = recorded(case).difference
    assert difference is not None
    assert isinstance(difference, StepComparison)
    difference = difference.model_copy(update={"max_abs": floors * builders.FLOOR})
    case.baselines = (recorded(case, difference=difference),)
    assert case.outcome("baseline_logits", "float") == (PASS if floors <= 8 else FAIL)


@pytest.mark.parametrize("difference", [None, NonFinite(count=10)])
def test_a_record_that_was_not_compared_fails(difference: NonFinite | None) -> None:
    case = fresh()
    case.baselines = (recorded(case, difference=difference),)
    assert case.outcome("baseline_logits", "float") == FAIL


@pytest.mark.parametrize(
    ("ms", "count", "outcome"),
    [(2.0, 200, PASS), (0.75, 200, UNDECIDED), (0.5, 200, FAIL), (2.0, 4, UNDECIDED)],
)
def test_the_edge_may_be_so_many_times_slower(ms: float, count: int, outcome: str) -> None:
    case = fresh()  # the files take 15 ms, at most 20 times the record is allowed
    case.baselines = (recorded(case, runs_ms=around(ms, count)),)
    seen = case.criterion("baseline_ratio_max", ".ptl")
    assert seen.outcome == outcome
    assert seen.value == pytest.approx(15 / ms, rel=0.03)


@pytest.mark.parametrize(
    ("errors", "limit_kept"), [(0.5, True), (0.51, True), (0.52, False), (99.0, False)]
)
def test_weights_must_lie_within_the_limit(errors: float, limit_kept: bool) -> None:
    case = fresh()
    case.parity["weights"]["worst_error_steps"] = errors
    assert case.outcome("weight_error_max_steps", "quantize") == (PASS if limit_kept else FAIL)


def test_no_compared_layer_is_no_pass() -> None:
    case = fresh()
    case.parity["weights"] |= {"layers": 0, "worst_error_steps": 0.0}
    assert case.outcome("weight_error_max_steps", "quantize") == FAIL


def test_a_changed_float_array_is_named() -> None:
    case = fresh()
    case.parity["weights"]["changed_floats"] = ["pos_embed"]
    assert case.outcome("weights", "quantize") == FAIL
    assert "pos_embed" in case.criterion("weights", "quantize").note


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("floors", [0.0, 4.0, 4.1])
def test_a_step_may_differ_by_the_noise_and_the_broken_one_is_named(
    step: str, floors: float
) -> None:
    case = fresh()
    case.parity["steps"][step]["max_abs"] = floors * builders.FLOOR
    failed = [c for c in case.decide().criteria if c.outcome == FAIL]
    assert [c.subject for c in failed] == ([] if floors <= 4 else [step])
    assert all(step in c.note for c in failed)


def test_a_step_whose_own_noise_is_zero_is_held_to_the_floor_of_float() -> None:
    case, same = fresh(), between_steps(GOOD.reference[:64], GOOD.reference[:64])
    for floors, outcome in ((4.0, PASS), (4.1, FAIL)):
        step = case.parity["steps"]["lite"]
        step |= {"noise": same.model_dump(), "max_abs": floors * builders.FLOOR}
        assert case.outcome("noise_multiple", "lite") == outcome


def test_without_a_reference_gpu_nothing_is_asked_of_it() -> None:
    case = replace(fresh(), gate=builders.gate("release"))
    verdict = decide(case.gate, None, case.files, case.evidence)
    assert verdict.passed
    assert not any(c.name.startswith("baseline") for c in verdict.criteria)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    BAD_NUMBER | st.just(-1.0),
    st.sampled_from(
        [
            *(("steps", step, "max_abs") for step in STEPS),
            ("noise_floor", "max_abs"),
            ("weights", "worst_error_steps"),
        ]
    ),
)
def test_a_distance_that_cannot_be_is_refused_by_name(bad: float, path: tuple[str, ...]) -> None:
    case = fresh()
    place = case.parity
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = bad
    with pytest.raises(IntegrityError, match=rf"parity.json: {'.'.join(path)}: expected"):
        case.decide()


def test_a_step_with_nan_or_infinity_fails() -> None:
    for step in STEPS:
        case = fresh()
        known = case.parity["steps"][step]
        case.parity["steps"][step] = {
            **{key: known[key] for key in ("before", "after", "after_sha256")},
            **NonFinite(count=64).model_dump(),
        }
        assert case.outcome("noise_multiple", step) == FAIL


def test_a_step_whose_noise_is_not_finite_fails() -> None:
    case = fresh()
    case.parity["steps"]["script"]["noise"] = NonFinite(count=64).model_dump()
    assert case.outcome("noise_multiple", "script") == FAIL


def test_weights_that_were_not_compared_fail_where_a_file_has_them() -> None:
    case = fresh()
    case.parity["weights"] = None
    assert case.outcome("weight_error_max_steps", "quantize") == FAIL


def test_nothing_is_asked_of_a_format_that_is_off() -> None:
    case = fresh()
    only = {"onnx": case.gate.budgets["onnx"]}
    case.gate = case.gate.model_copy(update={"budgets": only})
    case.parity["weights"] = None
    case.parity["steps"] = {name: case.parity["steps"][name] for name in ("rewrite", "export_onnx")}
    for key in ("ptl", "int8_onnx", "pte"):
        for evidence in (case.parity, case.latency, case.latency["previous"]):
            del evidence["artefacts"][key]
    artefacts = {"onnx": case.files.artefacts["onnx"]}
    case.files = replace(case.files, artefacts=artefacts)
    verdict = case.decide()
    assert verdict.passed
    about = {"all files", "rewrite", "export_onnx", "float", ".onnx"}
    assert {c.subject for c in verdict.criteria if c.name != "devices"} == about


def test_a_step_that_was_not_compared_fails() -> None:
    for step in STEPS:
        case = fresh()
        del case.parity["steps"][step]
        assert case.outcome("noise_multiple", step) == FAIL


@pytest.mark.parametrize(
    ("changed", "outcome"), [(0, PASS), (80, PASS), (100, UNDECIDED), (130, FAIL)]
)
def test_agreement_has_three_outcomes(changed: int, outcome: str) -> None:
    case = fresh()
    case.measure("ptl", case.flipped(changed, 0))
    case.gate = builders.gate(accuracy_drop_max_pp=None, sqnr_min_db=None)
    seen = case.criterion("top1_agreement_min", ".ptl")
    assert (seen.outcome, seen.value) == (outcome, 1 - changed / COUNT)


@pytest.mark.parametrize(
    ("lost", "won", "outcome"),
    [(0, 0, PASS), (5, 4, PASS), (60, 50, UNDECIDED), (20, 0, UNDECIDED), (60, 0, FAIL)],
)
def test_the_drop_of_accuracy_has_three_outcomes(lost: int, won: int, outcome: str) -> None:
    case = fresh()
    case.measure("pte", case.flipped(lost, won))
    seen = case.criterion("accuracy_drop_max_pp", ".pte")
    assert seen.outcome == outcome
    assert seen.value == pytest.approx(100 * (lost - won) / COUNT)
    assert f"{lost} answers lost, {won} won" in seen.note


def test_a_drop_without_labels_is_undecided_and_says_why() -> None:
    seen = builders.case(labelled=False).criterion("accuracy_drop_max_pp", ".onnx")
    assert (seen.outcome, "labels" in seen.note) == (UNDECIDED, True)


def test_undecided_says_how_many_samples_would_decide() -> None:
    case = fresh()
    case.measure("pte", case.flipped(60, 50))
    needed = intervals.samples_to_decide(60, 50, COUNT, 1.0, 0.95)
    assert needed is not None
    assert needed > COUNT
    note = case.criterion("accuracy_drop_max_pp", ".pte").note
    assert f"about {needed} samples would decide" in note

    case.measure("ptl", case.flipped(90, 0))
    needed = intervals.samples_to_decide_proportion(COUNT - 90, COUNT, 0.95, 0.95)
    note = case.criterion("top1_agreement_min", ".ptl").note
    assert f"about {needed} samples would decide" in note


def test_undecided_at_the_limit_says_that_more_samples_would_not_help() -> None:
    case = fresh()
    case.measure("pte", case.flipped(20, 0))
    note = case.criterion("accuracy_drop_max_pp", ".pte").note
    assert "more samples would not" in note


@pytest.mark.parametrize(
    ("name", "field", "limit", "over", "under"),
    [("sqnr_min_db", "sqnr_db", 30, 30.0, 29.9), ("size_ratio_max", "size_bytes", 0.35, 1, 10**8)],
)
def test_a_limit_without_chance_passes_or_fails(
    name: str, field: str, limit: float, over: float, under: float
) -> None:
    for value, outcome in ((over, PASS), (under, FAIL)):
        case = fresh()
        case.parity["artefacts"]["ptl"][field] = value
        seen = case.criterion(name, ".ptl")
        assert (seen.outcome, seen.limit) == (outcome, limit)


@pytest.mark.parametrize(
    ("key", "helps", "smaller"),
    [
        *(
            (key, f"`edge-vit diagnose --format {key}`", "quantize.scheme: static")
            for key in ("ptl", "int8_onnx", "pte")
        ),
        ("onnx", "methods of rewrite", "raise gate.budgets.onnx.size_ratio_max"),
    ],
)
def test_a_refusal_names_what_helps_that_file(key: str, helps: str, smaller: str) -> None:
    case = fresh()
    budget = Budget(top1_agreement_min=0.98, sqnr_min_db=30, size_ratio_max=0.35)
    case.gate = case.gate.model_copy(update={"budgets": {**case.gate.budgets, key: budget}})
    case.measure(key, case.flipped(COUNT, 0))
    case.parity["artefacts"][key] |= {"sqnr_db": 1.0, "size_bytes": 10**9}
    suffix = FORMATS[key].suffix
    for name in ("top1_agreement_min", "sqnr_min_db"):
        assert helps in case.criterion(name, suffix).note
    assert smaller in case.criterion("size_ratio_max", suffix).note


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, PASS), (2.0, UNDECIDED), (2.2, FAIL)])
def test_latency_has_three_outcomes(factor: float, outcome: str) -> None:
    case = fresh()
    runs = case.latency["artefacts"]["ptl"]["runs_ms"]
    noise = np.median(np.array(runs) / case.latency["artefacts"]["float"]["runs_ms"]) / 0.5
    case.latency["artefacts"]["ptl"]["runs_ms"] = [value * factor / noise for value in runs]
    assert case.outcome("latency_ratio_max", ".ptl") == outcome


def test_times_from_a_machine_that_changed_are_undecided() -> None:
    case = fresh()
    runs = case.latency["artefacts"]["float"]["runs_ms"]
    drifting = [value * (1 + number / 100) for number, value in enumerate(runs)]
    case.latency["artefacts"]["float"]["runs_ms"] = drifting
    seen = case.criterion("latency_ratio_max", ".ptl")
    assert seen.outcome == UNDECIDED
    assert "float ran on" in seen.note
    assert case.decide().passed
    case.gate = builders.gate("release")
    assert not case.decide().passed


@pytest.mark.parametrize(("period", "count"), [(1, 49), (50, 100)])
def test_few_runs_or_runs_that_are_all_alike_decide_nothing(period: int, count: int) -> None:
    """Far below the limit; ``period`` is that of a wave, through which neighbours are alike."""
    case = fresh()
    wave = np.exp(0.3 * np.sin(2 * np.pi * np.arange(100) / period))
    ptl = case.latency["artefacts"]["ptl"]
    ptl["runs_ms"] = (np.array(ptl["runs_ms"]) * wave).tolist()
    for timings in (case.latency["artefacts"], case.latency["previous"]["artefacts"]):
        for timing in timings.values():
            timing["runs_ms"] = timing["runs_ms"][:count]
    case.baselines = (recorded(case),)
    for name in ("latency_ratio_max", "regression_ratio_max", "baseline_ratio_max"):
        seen = case.criterion(name, ".ptl")
        assert seen.outcome == UNDECIDED, name
        assert ("raise latency.runs" in seen.note) == (count < 50)
        assert (seen.waits_for == QUIET) == (count == 100)
    assert case.decide().passed == (count == 100)


def test_a_limit_that_is_not_asked_for_is_no_criterion_but_a_file_needs_one() -> None:
    case = replace(fresh(), gate=builders.gate(**dict.fromkeys(type(builders.BUDGET).model_fields)))
    assert {c.name for c in case.decide().criteria} == {
        "evidence", "weight_error_max_steps", "noise_multiple", "published_tolerance_pp",
        "baseline_logits", "budget",
    }  # fmt: skip
    assert case.outcome("budget", ".ptl") == FAIL


def test_a_verdict_as_json_counts_what_it_holds() -> None:
    case = fresh()
    case.parity["artefacts"]["ptl"]["sqnr_db"] = 1.0
    written = case.decide().to_dict()
    assert written["passed"] is False
    assert written["counts"] == {PASS: len(written["criteria"]) - 6, FAIL: 1, UNDECIDED: 5}
