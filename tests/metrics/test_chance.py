from __future__ import annotations

import pytest

from pipeline.metrics import chance


@pytest.mark.parametrize(("right", "count", "classes"), [(41, 200, 5), (0, 50, 10), (26, 40, 2)])
def test_a_model_that_may_as_well_guess_is_named_with_the_usual_causes(
    right: int, count: int, classes: int
) -> None:
    words = chance.warning(right, count, classes)
    assert words is not None
    assert f"right for {right} of {count} images" in words
    for cause in ("order", "mean and standard deviation", "head that was not trained"):
        assert cause in words


@pytest.mark.parametrize(
    # Of 40 fair coins 27 heads or more are rarer than one in 40: Wilson's lower end is 52%.
    ("right", "count", "classes"),
    [(27, 40, 2), (80, 200, 5), (1846, 2000, 10), (30, 2000, 1000), (3, 3, 1)],
)
def test_a_model_that_knows_more_than_a_guess_is_not(right: int, count: int, classes: int) -> None:
    assert chance.warning(right, count, classes) is None
