"""Distances between logits: against scipy, hand-made cases and what must be refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from scipy.stats import entropy

from pipeline.metrics.distances import (
    Flips,
    Logits,
    agreement_counts,
    cosine,
    flips,
    kl_divergence,
    sqnr_db,
    top1_margin,
)

PAIRWISE: list[Callable[[Logits, Logits], Any]] = [
    agreement_counts,
    kl_divergence,
    cosine,
    sqnr_db,
    lambda a, b: flips(a, b, None, 0.1),
]


@pytest.fixture
def pair() -> tuple[Logits, Logits]:
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 4, (200, 10)).astype(np.float32)
    return reference, (reference + rng.normal(0, 0.5, reference.shape)).astype(np.float32)


def logits(*rows: list[float]) -> Logits:
    return np.array(rows, np.float32)


def test_equal_logits_are_equal_in_every_way(pair: tuple[Logits, Logits]) -> None:
    reference, _ = pair
    counts = agreement_counts(reference, reference.copy())
    assert (counts.top1, counts.top5) == (200, 200)
    assert (kl_divergence(reference, reference) == 0).all()
    assert cosine(reference, reference) == pytest.approx(1)
    assert sqnr_db(reference, reference) == math.inf
    assert set(flips(reference, reference, None, 0.1).model_dump().values()) == {0}


def test_kl_is_scipys(pair: tuple[Logits, Logits]) -> None:
    p, q = (softmax(values.astype(np.float64), axis=1) for values in pair)
    assert kl_divergence(*pair) == pytest.approx(rel_entr(p, q).sum(1), abs=1e-12)
    assert kl_divergence(*pair) == pytest.approx(entropy(p, q, axis=1), abs=1e-12)


def test_kl_of_logits_that_overflow_a_softmax_is_finite() -> None:
    far = kl_divergence(logits([1e4, 0, -1e4]), logits([-1e4, 0, 1e4]))
    assert far == pytest.approx([2e4])


def test_kl_knows_only_differences_of_logits(pair: tuple[Logits, Logits]) -> None:
    reference, candidate = pair
    assert kl_divergence(reference, candidate + np.float32(8)) == pytest.approx(
        kl_divergence(reference, candidate), abs=1e-5
    )


def test_cosine_of_known_angles() -> None:
    reference = logits([1, 0], [1, 0], [1, 0], [0, 0], [0, 0])
    candidate = logits([2, 0], [0, 3], [-1, 0], [0, 0], [1, 0])
    assert cosine(reference, candidate).tolist() == [1, 0, -1, 1, 0]


def test_sqnr_of_a_known_ratio() -> None:
    reference = logits([10, 0], [0, 10])
    assert sqnr_db(reference, reference + logits([0, 1], [1, 0])) == pytest.approx(20)
    assert sqnr_db(logits([0, 0]), logits([1, 0])) == -math.inf


def test_agreement_counts_samples_whose_best_classes_are_the_same() -> None:
    reference = logits([9, 8, 7, 6, 5, 0, 1], [9, 8, 7, 6, 5, 0, 1])
    candidate = logits([8, 9, 7, 6, 5, 0, 1], [9, 8, 7, 6, 0, 5, 1])
    counts = agreement_counts(reference, candidate)
    assert (counts.top1, counts.top5) == (1, 1)


def test_top5_of_three_classes_is_all_of_them() -> None:
    assert agreement_counts(logits([3, 2, 1]), logits([1, 2, 3])).top5 == 1


def test_margin_is_the_lead_of_the_best_class() -> None:
    assert top1_margin(logits([5, 1, 3], [2, 2, 0])).tolist() == [2, 0]
    assert top1_margin(logits([5], [1])).tolist() == [math.inf, math.inf]


def test_flips_have_a_direction() -> None:
    reference = logits([9, 1, 0], [9, 1, 0], [9, 1, 0], [9, 1, 0], [9, 8.9, 0])
    candidate = logits([1, 9, 0], [1, 9, 0], [1, 9, 0], [9, 1, 0], [8.9, 9, 0])
    labels = np.array([0, 1, 2, 0, 0])
    assert flips(reference, candidate, labels, 0.1) == Flips(
        right_to_wrong=2, wrong_to_right=1, wrong_to_wrong=1, unlabelled=0, within_noise=1
    )
    assert flips(reference, candidate, None, 0.1) == Flips(
        right_to_wrong=0, wrong_to_right=0, wrong_to_wrong=0, unlabelled=4, within_noise=1
    )


@pytest.mark.parametrize("measure", PAIRWISE)
def test_nothing_to_compare_is_refused(measure: Callable[[Logits, Logits], Any]) -> None:
    with pytest.raises(ValueError, match="n > 0"):
        measure(np.zeros((0, 10), np.float32), np.zeros((0, 10), np.float32))


@pytest.mark.parametrize("measure", PAIRWISE)
def test_logits_of_other_samples_are_refused(measure: Callable[[Logits, Logits], Any]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        measure(np.zeros((2, 10), np.float32), np.zeros((3, 10), np.float32))


@pytest.mark.parametrize("measure", PAIRWISE)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(measure: Callable[[Logits, Logits], Any], bad: float) -> None:
    good = logits([1, 2])
    for pair in ((good, logits([1, bad])), (logits([1, bad]), good)):
        with pytest.raises(ValueError, match="NaN"):
            measure(*pair)


def test_labels_of_another_length_are_refused() -> None:
    for labels in (np.array([0, 1]), np.array([[0]])):
        with pytest.raises(ValueError, match="1 labels"):
            flips(logits([1, 2]), logits([2, 1]), labels, 0.1)


@pytest.mark.parametrize("bad", [math.nan, -1.0])
def test_a_noise_floor_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="noise floor"):
        flips(logits([1, 2]), logits([2, 1]), None, bad)
