"""What is searched, what is chosen from it, and which layers a repair keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.metrics.measures import NonFinite, against_float
from pipeline.params import Budget, Gate, Quantize, Recipe, Rewrite, load_params
from pipeline.tuning.space import (
    Result,
    Space,
    as_cheap,
    by_cost,
    fewest,
    frontier,
    hopeless,
    judged,
    last,
    mendable,
    mended,
    over_budget,
    pareto,
    violation,
)
from tests.verdict.builders import criterion

ROOT = Path(__file__).parent.parent.parent
LAYERS = ("a", "b", "c", "d")
COUNTS = 6  # of layers to keep, where there are enough


class Fixed:
    """A trial that takes what it was given."""

    def __init__(self, given):
        self.given, self.asked = given, []

    def suggest_categorical(self, name, choices):
        self.asked.append(name)
        value = self.given.get(name, choices[0])
        assert value in choices
        return value


PLAIN = Recipe(Rewrite(), Quantize())


def result(number, cost, size, sqnr, violation=0.0, recipe=PLAIN):
    return Result(
        number=number,
        instructions_m=cost,
        size_ratio=size,
        sqnr_db=sqnr,
        agreement=1.0,
        violation=violation,
        recipe=recipe,
    )


@pytest.mark.parametrize("key", ["ptl", "int8_onnx", "pte"])
@pytest.mark.parametrize("transformer", [True, False])
def test_what_is_tried_first_lies_in_the_space_and_asks_for_nothing_else(key, transformer):
    space = Space(key=key, transformer=transformer, ranking=LAYERS)
    recipes = []
    for given in space.first():
        trial = Fixed(given)
        recipes.append(space.suggest(trial))
        assert set(trial.asked) == set(given)
    assert Recipe(Rewrite(), Quantize()) in recipes
    assert {r.quantize.scheme for r in recipes} == set(space.schemes)
    assert any(recipe.rewrite.any for recipe in recipes) is transformer
    assert len({recipe.lines() for recipe in recipes}) == len(recipes)


def test_a_layer_is_left_in_float_or_dynamic_and_not_both():
    space = Space(key="ptl", transformer=True, ranking=LAYERS)
    chosen = space.suggest(
        Fixed({"scheme": "static_symmetric", "keep_float": 1, "keep_dynamic": 2})
    )
    assert (chosen.quantize.keep_float, chosen.quantize.keep_dynamic) == (("a",), ("b", "c"))


@pytest.mark.parametrize(
    ("key", "transformer", "schemes"),
    [
        ("ptl", True, 2 * COUNTS + COUNTS**2),
        ("ptl", False, 3 * COUNTS),
        ("int8_onnx", True, (2 * 2 + 1) * COUNTS),
        ("int8_onnx", False, (2 * 2 + 1) * COUNTS),
        ("pte", True, (2 + 1) * COUNTS),
        ("pte", False, (2 * 2 + 1) * COUNTS),
    ],
)
def test_neighbours_differ_in_one_choice_and_every_recipe_is_reached(key, transformer, schemes):
    space = Space(key=key, transformer=transformer, ranking=tuple(f"blocks.{n}" for n in range(32)))
    start = space.recipe(space.first()[0])
    reached, border = {start.lines()}, [start]
    while border:
        recipe = border.pop()
        for given in space.neighbours(recipe):
            trial = Fixed(given)
            other = space.suggest(trial)
            assert set(trial.asked) == set(given)
            assert other != recipe
            rewrite = other.rewrite
            few = not (rewrite.centre or rewrite.smooth or rewrite.query_key or rewrite.value)
            if few and other.lines() not in reached:
                reached.add(other.lines())
                border.append(other)
    folds = 3 if transformer else 1  # none, fold_norm, and rotate with it
    assert len(reached) == folds * schemes


def test_what_is_not_to_choose_is_replaced_in_the_neighbours_of_a_recipe():
    space = Space(key="ptl", transformer=True, ranking=LAYERS)
    strange = Recipe(Rewrite(centre=True, smooth=0.6), Quantize(keep_float=("a", "b", "c")))
    neighbours = [space.recipe(given) for given in space.neighbours(strange)]
    itself = Recipe(Rewrite(centre=True), Quantize())
    assert Recipe(Rewrite(centre=True, smooth=0.5), Quantize()) in neighbours
    assert Recipe(Rewrite(), Quantize()) in neighbours
    assert itself not in neighbours


def test_the_frontier_gets_nearer_to_the_limits_with_each_dearer_recipe():
    cheap, equal = result(0, 100, 0.3, 30, 0.2), result(1, 100, 0.3, 31, 0.2)
    worse, nearer = result(2, 110, 0.3, 40, 0.3), result(3, 120, 0.3, 40, 0.1)
    fit, dearer = result(4, 130, 0.3, 40), result(5, 140, 0.3, 50)
    assert frontier([dearer, fit, nearer, worse, cheap, equal]) == [equal, nearer, fit]
    assert frontier([]) == []


def test_the_lines_for_params_yaml_read_back_as_the_recipe():
    recipe = Recipe(Rewrite(fold_norm=True, smooth=0.5), Quantize(keep_float=("a", "b.*")))
    assert Recipe.of(recipe.lines()) == recipe
    assert yaml.safe_load(recipe.lines())["quantize"]["keep_float"] == ["a", "b.*"]


def test_the_front_holds_what_no_other_beats_within_the_limits():
    found = [
        result(0, 100, 0.3, 40),
        result(1, 120, 0.3, 40),  # dearer than 0, else as it
        result(2, 120, 0.3, 45),
        result(3, 10, 0.1, 99, violation=0.1),
    ]
    assert [r.number for r in pareto(found)] == [0, 2]
    assert pareto([]) == []
    assert by_cost(found[3:]) == []


def test_the_cheapest_is_first_and_of_those_as_cheap_the_nearest_to_float():
    found = [
        *(result(0, 100, 0.35, 40), result(1, 100.19, 0.28, 50), result(2, 102, 0.2, 60)),
        *(result(3, 100.1, 0.35, 45), result(4, 90, 0.2, 60, violation=0.1)),
    ]
    assert [r.number for r in by_cost(found)] == [1, 3, 0, 2]
    assert as_cheap(found[1], found[0])
    assert not as_cheap(found[2], found[0])


def test_the_recipe_that_is_had_already_is_compared_if_it_is_as_cheap():
    own = Recipe(Rewrite(centre=True), Quantize())

    def chosen(cost, sqnr, violation=0.0):
        others = [result(n, 100.0, 0.3, 40.0 - n) for n in range(4)]
        mine = result(9, cost, 0.3, sqnr, violation, own)
        return [r.number for r in last([*others, mine], own, 3)]

    assert chosen(100.19, 30.0) == [0, 9, 1, 2]
    assert chosen(100.0, 39.5) == [0, 9, 1]
    assert chosen(100.0, 38.5) == [0, 9, 1]
    assert chosen(102.0, 50.0) == [0, 1, 2]
    assert chosen(90.0, 30.0) == [9, 0, 1]
    assert chosen(100.0, 30.0, violation=0.1) == [0, 1, 2]
    assert last([], own, 3) == []


def test_a_cost_beyond_the_users_budget_counts_relatively():
    gate = Gate(budgets={"ptl": Budget(instructions_max_m=200)})
    assert over_budget(gate, "ptl", 300) == pytest.approx(0.5)
    assert over_budget(gate, "ptl", 200) == 0
    assert over_budget(gate, "pte", 300) == 0


@pytest.mark.parametrize(
    ("needed", "expected"),
    [((), []), (("a",), ["a"]), (("a", "c"), ["a", "c"]), (LAYERS, list(LAYERS)), (("x",), None)],
)
def test_the_fewest_layers_are_those_that_are_needed(needed, expected):
    assert fewest(LAYERS, lambda kept: set(needed) <= set(kept)) == expected


def test_of_many_layers_few_sets_are_measured():
    measured = []

    def passes(kept):
        measured.append(kept)
        return 0 in kept

    assert fewest(range(50), passes) == [0]
    assert len(measured) < 10


def test_no_member_of_what_is_found_can_be_left_out():
    weights = {"a": 1, "b": 3, "c": 2, "d": 4}

    def passes(kept):
        return sum(weights[name] for name in kept) >= 5

    found = fewest(LAYERS, passes)
    assert passes(found)
    assert not any(passes([x for x in found if x != name]) for name in found)


def test_a_repair_is_shown_and_not_merely_undecided():
    assert mended([criterion(outcome="pass")], ["sqnr_min_db"])
    assert not mended([criterion(outcome="undecided")], ["sqnr_min_db"])
    other = criterion("accuracy_drop_max_pp")
    assert not mended([criterion(outcome="pass"), other], ["sqnr_min_db"])
    nothing = criterion("parity", value=None, limit=None)
    assert not mended([criterion(outcome="pass"), nothing], ["sqnr_min_db"])
    # Layers in float can only make it larger: that is told with the cost.
    size = criterion("size_ratio_max", value=0.7, limit=0.35)
    assert mended([criterion(outcome="pass"), size], ["sqnr_min_db"])
    assert not mended([], ["sqnr_min_db"])


def test_layers_in_float_mend_quality_of_int8_files_and_nothing_else():
    good = criterion()
    others = [criterion("size_ratio_max"), criterion(subject=".onnx"), criterion("bytes")]
    assert mendable([good, *others, criterion(outcome="undecided")]) == ([good], others)


def test_a_violation_is_relative_and_counts_undecided_values():
    assert violation([criterion(value=27.0, outcome="undecided")]) == pytest.approx(0.1)
    assert violation([criterion(value=31.0)]) == 0
    assert violation([criterion("size_ratio_max", value=0.7, limit=0.35)]) == pytest.approx(1)
    assert violation([criterion(value=None, limit=None)]) == float("inf")


def test_few_images_give_up_what_is_far_below_and_not_what_is_near():
    assert hopeless([criterion(value=26.0)], slack_db=3)
    assert not hopeless([criterion(value=28.0)], slack_db=3)
    assert hopeless([criterion("top1_agreement_min")], slack_db=3)


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
