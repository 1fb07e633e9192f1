from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.tuning.ranking import Layer, broken, minimal_passing_set, outliers, rank

NAMES = ("a", "b", "c", "d")


def layer(name: str, **changes: Any) -> Layer:
    values: dict[str, Any] = {
        "sqnr_db": 40.0,
        "regained": 0,
        "lost": 0,
        "right_gained": None,
        "logit_sqnr_gain_db": 0.1,
        "bytes_more": 100_000,
    }
    return Layer(name=name, **(values | changes))


ORDINARY = [layer(f"layer {i}", logit_sqnr_gain_db=0.02 * (i - 4)) for i in range(9)]


def order(*layers: Layer) -> list[str]:
    return [found.name for found in rank([*ORDINARY, *layers])]


def test_a_layer_that_regains_many_answers_comes_before_one_that_regains_decibels() -> None:
    answers = layer("answers", regained=12, lost=1, logit_sqnr_gain_db=0.2)
    decibels = layer("decibels", logit_sqnr_gain_db=3.0)
    assert order(decibels, answers)[:2] == ["answers", "decibels"]


def test_among_those_that_stand_out_a_byte_counts() -> None:
    large = layer("large", regained=12, logit_sqnr_gain_db=6.0, bytes_more=400_000)
    small = layer("small", regained=6, logit_sqnr_gain_db=6.0, bytes_more=50_000)
    assert order(large, small)[:2] == ["small", "large"]


def test_a_small_layer_does_not_win_by_being_small() -> None:
    tiny = layer("tiny", regained=1, logit_sqnr_gain_db=0.2, bytes_more=10)
    bad = layer("bad", regained=1, logit_sqnr_gain_db=9.0)
    assert order(tiny, bad)[:2] == ["bad", "tiny"]
    assert outliers([*ORDINARY, tiny, bad]) == {"bad"}


@pytest.mark.parametrize(
    ("regained", "lost", "sure"), [(1, 0, False), (4, 2, False), (0, 9, False), (8, 0, True)]
)
def test_one_answer_more_is_chance(regained: int, lost: int, sure: bool) -> None:
    one = layer("x", regained=regained, lost=lost)
    assert (outliers([*ORDINARY, one]) == {"x"}) == sure


def test_gains_that_scatter_as_the_others_do_are_chance() -> None:
    wide = [layer(str(i), logit_sqnr_gain_db=gain) for i, gain in enumerate((1.2, 0.1, -1, -1.3))]
    assert outliers(wide) == frozenset()


def test_the_order_given_changes_nothing() -> None:
    layers = [layer(str(i), logit_sqnr_gain_db=i % 3, regained=i % 5) for i in range(20)]
    expected = rank(layers)
    random.Random(0).shuffle(layers)
    assert rank(layers) == expected


def test_a_layer_that_errs_far_more_than_the_others_is_broken_though_restoring_it_is_idle() -> None:
    bad = layer("bad", sqnr_db=11.0, logit_sqnr_gain_db=0.0)
    spread = [layer(str(i), sqnr_db=36.0 + i) for i in range(9)]
    assert broken([*spread, bad]) == {"bad"}
    assert broken(spread) == frozenset()


@pytest.mark.parametrize(
    ("needed", "expected"),
    [((), []), (("a",), ["a"]), (("a", "c"), ["a", "c"]), (NAMES, list(NAMES)), (("x",), None)],
)
def test_the_minimal_set_is_of_what_is_needed(
    needed: tuple[str, ...], expected: list[str] | None
) -> None:
    assert minimal_passing_set(NAMES, lambda kept: set(needed) <= set(kept)) == expected


def test_of_many_layers_few_sets_are_measured() -> None:
    measured: list[tuple[int, ...]] = []

    def passes(kept: tuple[int, ...]) -> bool:
        measured.append(kept)
        return 0 in kept

    assert minimal_passing_set(range(50), passes) == [0]
    assert len(measured) < 10


def test_no_member_of_the_minimal_set_can_be_left_out() -> None:
    weights = {"a": 1, "b": 3, "c": 2, "d": 4}

    def passes(kept: Sequence[str]) -> bool:
        return sum(weights[name] for name in kept) >= 5

    minimal = minimal_passing_set(NAMES, passes)
    assert minimal is not None
    assert passes(minimal)
    assert not any(passes([x for x in minimal if x != name]) for name in minimal)
