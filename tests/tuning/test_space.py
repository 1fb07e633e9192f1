"""What is searched: which parameters a recipe has, and which recipes are beside it."""

from __future__ import annotations

import pytest
import yaml

from pipeline.params import Quantize, Recipe, Rewrite
from pipeline.tuning.space import Space

LAYERS = ("a", "b", "c", "d")
COUNTS = 6  # of layers to keep, where there are enough


@pytest.mark.parametrize("key", ["ptl", "int8_onnx", "pte"])
@pytest.mark.parametrize("transformer", [True, False])
def test_starting_points_lie_in_the_space(key, transformer):
    space = Space(key=key, transformer=transformer, ranking=LAYERS)
    points = space.starting_points()
    assert [space.complete(values) for values in points] == points
    recipes = [space.recipe(values) for values in points]
    assert Recipe(Rewrite(), Quantize(scheme="per_channel")) in recipes
    assert {r.quantize.scheme for r in recipes} == set(space.schemes)
    assert any(recipe.rewrite.any for recipe in recipes) is transformer
    assert len({recipe.lines() for recipe in recipes}) == len(recipes)


def test_a_layer_is_left_in_float_or_dynamic_and_not_both():
    space = Space(key="ptl", transformer=True, ranking=LAYERS)
    chosen = space.recipe({"scheme": "static_symmetric", "keep_float": 1, "keep_dynamic": 2})
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
    start = space.recipe(space.starting_points()[0])
    reached, border = {start.lines()}, [start]
    while border:
        recipe = border.pop()
        for values in space.neighbours(recipe):
            other = space.recipe(values)
            assert space.complete(values) == values
            assert other != recipe
            rewrite = other.rewrite
            few = not (rewrite.centre or rewrite.smooth or rewrite.query_key or rewrite.value)
            if few and other.lines() not in reached:
                reached.add(other.lines())
                border.append(other)
    folds = 3 if transformer else 1  # none, fold_norm, and rotate with it
    assert len(reached) == folds * schemes


def test_neighbours_of_a_recipe_outside_the_space_lie_in_it():
    space = Space(key="ptl", transformer=True, ranking=LAYERS)
    strange = Recipe(
        Rewrite(centre=True, smooth=0.6), Quantize(scheme="per_channel", keep_float=("a", "b", "c"))
    )
    neighbours = [space.recipe(values) for values in space.neighbours(strange)]
    itself = Recipe(Rewrite(centre=True), Quantize(scheme="per_channel"))
    assert Recipe(Rewrite(centre=True, smooth=0.5), Quantize(scheme="per_channel")) in neighbours
    assert Recipe(Rewrite(), Quantize(scheme="per_channel")) in neighbours
    assert itself not in neighbours


def test_the_lines_for_params_yaml_read_back_as_the_recipe():
    recipe = Recipe(
        Rewrite(fold_norm=True, smooth=0.5), Quantize(scheme="per_channel", keep_float=("a", "b.*"))
    )
    assert Recipe.of(recipe.lines()) == recipe
    assert yaml.safe_load(recipe.lines())["quantize"]["keep_float"] == ["a", "b.*"]


def test_optuna_is_asked_for_what_applies_and_nothing_else():
    space = Space(key="int8_onnx", transformer=True, ranking=LAYERS)
    asked = []

    def first(name, choices):
        asked.append(name)
        return choices[0]

    assert space.recipe(space.assign(first)) == Recipe(Rewrite(), Quantize(scheme="per_channel"))
    assert asked == [
        *("fold_norm", "centre", "smooth", "query_key", "value"),
        *("scheme", "keep_float", "rounding"),
    ]
