from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, rel_entr, softmax

from pipeline.metrics.measures import (
    NonFinite,
    against_float,
    between_steps,
    float32_resolution,
    weight_error_steps,
)

RNG = np.random.default_rng(0)
REFERENCE = RNG.normal(scale=3, size=(500, 10)).astype(np.float32)
NEAR = (REFERENCE + RNG.normal(scale=0.3, size=REFERENCE.shape)).astype(np.float32)
LABELS = RNG.integers(0, 10, 500)


def test_equal_logits_have_no_distance_and_finite_numbers() -> None:
    measured = against_float(REFERENCE, REFERENCE.copy(), LABELS, 1e-5)
    assert measured.top1_equal == measured.top5_equal == measured.count == 500
    assert measured.sqnr_db == 300
    assert measured.kl_mean == measured.max_abs == 0
    assert measured.cosine_mean == 1
    assert set(measured.flips.model_dump().values()) == {0}
    json.dumps(measured.model_dump(), allow_nan=False)


@pytest.mark.parametrize("size", [1e-30, 1.0, 9.0, 1e6])
def test_the_resolution_covers_a_rounded_sum_and_no_fault(size: float) -> None:
    """Sums of 400 products in float32, in any order, against float64."""
    factors = RNG.normal(size=(2, 200, 400)).astype(np.float32)
    exact = (factors[0].astype(np.float64) * factors[1]).sum(1)
    rounded = (factors[0] * factors[1]).cumsum(1, dtype=np.float32)[:, -1]
    scale = np.float32(size / np.abs(exact).max())
    resolution = float32_resolution((rounded * scale).reshape(20, 10))
    assert np.abs(rounded - exact).max() * scale <= 3 * resolution  # the gate allows 10 of them
    assert 0 < resolution < 1e-6 * size


def test_distances_are_scipys_and_numpys() -> None:
    measured = against_float(REFERENCE, NEAR, LABELS, 1e-5)
    a, b = REFERENCE.astype(np.float64), NEAR.astype(np.float64)
    kl = rel_entr(softmax(a, 1), softmax(b, 1)).sum(1)
    assert measured.kl_mean == pytest.approx(kl.mean(), rel=1e-6)
    assert measured.kl_p99 == pytest.approx(np.percentile(kl, 99), rel=1e-6)
    assert measured.max_abs == pytest.approx(np.abs(a - b).max(), rel=1e-8)
    assert measured.p999_abs == pytest.approx(np.percentile(np.abs(a - b), 99.9), rel=1e-8)
    sqnr = 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum())
    assert measured.sqnr_db == pytest.approx(sqnr, rel=1e-8)


def test_accuracy_is_counted_in_pairs_and_flips_have_the_same_direction() -> None:
    measured = against_float(REFERENCE, NEAR, LABELS, 1e-5)
    pairs, flips = measured.accuracy, measured.flips
    assert pairs.count == 500
    assert pairs.both + pairs.only_float == (REFERENCE.argmax(1) == LABELS).sum()
    assert (flips.right_to_wrong, flips.wrong_to_right) == (
        pairs.only_float,
        pairs.only_edge,
    )
    changed = flips.right_to_wrong + flips.wrong_to_right + flips.wrong_to_wrong
    assert changed == 500 - measured.top1_equal > 0


def test_without_labels_there_is_no_accuracy_and_no_direction() -> None:
    measured = against_float(REFERENCE, NEAR, None, 1e-5)
    assert measured.accuracy is None
    assert measured.flips.unlabelled == 500 - measured.top1_equal > 0


def test_one_sigmoid_logit_is_measured_by_its_yes_and_no() -> None:
    """Four probabilities of float and file about a threshold of 0.8, whose logit is 1.386."""
    reference = np.array([[2.0], [1.5], [1.0], [-3.0]], np.float32)
    candidate = np.array([[2.1], [1.3], [1.1], [-3.0]], np.float32)
    labels = np.array([1, 1, 1, 0])
    measured = against_float(reference, candidate, labels, 1e-5, threshold=0.8)
    assert measured.top1_equal == 3  # at 0.5 it would be all four
    assert (measured.accuracy.right, measured.accuracy.only_float) == (2, 1)
    assert measured.flips.right_to_wrong == 1
    noise = (0.1**2 + 0.2**2 + 0.1**2) / (2.0**2 + 1.5**2 + 1.0**2 + 3.0**2)
    assert measured.sqnr_db == pytest.approx(-10 * np.log10(noise), rel=1e-5)
    both = [expit(np.hstack([-z, z]).astype(np.float64)) for z in (reference, candidate)]
    assert measured.kl_mean == pytest.approx(rel_entr(*both).sum(1).mean(), rel=1e-5)
    assert between_steps(reference, candidate, threshold=0.8).top1_changed == 1
    assert between_steps(reference, candidate, threshold=0.5).top1_changed == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_no_number_is_measured_no_further(bad: float) -> None:
    spoilt = NEAR.copy()
    spoilt[3, 3] = bad
    assert against_float(REFERENCE, spoilt, LABELS, 1e-5) == NonFinite(count=500)
    assert between_steps(REFERENCE, spoilt) == NonFinite(count=500)
    assert between_steps(spoilt, REFERENCE) == NonFinite(count=500)


def test_kl_of_nearly_equal_models_is_more_than_rounding() -> None:
    """Half the variance of the difference under the softmax, to second order."""
    difference = RNG.normal(scale=1e-5, size=REFERENCE.shape)
    candidate = (REFERENCE + difference).astype(np.float32)
    p = softmax(REFERENCE.astype(np.float64), 1)
    d = candidate.astype(np.float64) - REFERENCE
    expected = 0.5 * ((p * d**2).sum(1) - (p * d).sum(1) ** 2)
    measured = against_float(REFERENCE, candidate, None, 1e-5)
    assert measured.kl_mean == pytest.approx(expected.mean(), rel=1e-4)


def test_of_equal_logits_the_lower_class_is_among_the_best() -> None:
    tied = np.zeros((1, 8), np.float32)
    first_five = np.array([[5, 4, 3, 2, 1, 0, 0, 0]], np.float32)
    assert against_float(tied, first_five, None, 0).top5_equal == 1
    assert against_float(tied, first_five[:, ::-1].copy(), None, 0).top5_equal == 0


def test_a_step_is_measured_by_hand() -> None:
    before = np.array([[1, 0], [0, 1]], np.float32)
    after = np.array([[1, 0], [3, 1]], np.float32)
    assert between_steps(before, after).model_dump() == {
        "count": 2,
        "finite": True,
        "max_abs": 3.0,
        "rms": 1.5,
        "top1_changed": 1,
    }


def quantized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 as PyTorch's per-channel observer makes it."""
    scale = np.abs(weight).max(1).astype(np.float64) / 127.5
    return np.clip(np.rint(weight / scale[:, None]), -128, 127).astype(np.int8), scale


WEIGHT = RNG.normal(scale=0.02, size=(64, 192)).astype(np.float32)


def test_a_quantization_lies_within_half_a_step() -> None:
    integers, scale = quantized(WEIGHT)
    assert 0.45 < weight_error_steps(WEIGHT, integers, scale) <= 0.5001


def test_weights_scaled_by_a_twentieth_are_found() -> None:
    integers, scale = quantized(WEIGHT * np.float32(1.05))
    assert weight_error_steps(WEIGHT, integers, scale) > 2
    integers, scale = quantized(WEIGHT)
    assert weight_error_steps(WEIGHT, integers, scale * 1.05) > 2


def test_two_swapped_rows_are_found() -> None:
    integers, scale = quantized(WEIGHT)
    swapped = np.arange(64)
    swapped[[3, 4]] = swapped[[4, 3]]
    assert weight_error_steps(WEIGHT, integers[swapped], scale[swapped]) > 10


def test_a_scale_so_small_that_all_weights_saturate_is_found() -> None:
    scale = np.abs(WEIGHT).min() / np.full(64, 1000.0)
    integers = np.clip(np.rint(WEIGHT / scale[:, None]), -128, 127).astype(np.int8)
    assert weight_error_steps(WEIGHT, integers, scale) > 100
