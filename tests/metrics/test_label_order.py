"""The order of labels that fits: found where there is one, and never made of noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.metrics.label_order import other_order

Integers = NDArray[np.int64]
AS_TEXT = tuple(sorted(range(12), key=str))  # 0, 1, 10, 11, 2, ...: the label of each output
RNG = np.random.default_rng(0)


def answered(
    outputs: Integers, classes: int, accuracy: float, rng: np.random.Generator
) -> Integers:
    """Answers of a model that is right so often, and else gives any class."""
    wrong = rng.integers(0, classes, len(outputs))
    return np.where(rng.random(len(outputs)) < accuracy, outputs, wrong)


@pytest.mark.parametrize("count", [60, 600])
@pytest.mark.parametrize("accuracy", [0.7, 1.0])
def test_labels_that_were_sorted_as_text_are_put_in_order(count: int, accuracy: float) -> None:
    """The model was trained with the order as text; the labels are given by number."""
    labels = np.arange(count) % 12
    outputs = np.array([AS_TEXT.index(label) for label in labels])
    answers = answered(outputs, 12, accuracy, RNG)
    order = other_order(answers, labels, 12)
    if count == 60:  # five images of a class: one may be lost to noise, not more
        assert order is not None
        assert sum(a != b for a, b in zip(order, AS_TEXT, strict=True)) <= 3
    else:
        assert order == AS_TEXT


def test_two_classes_are_found_swapped() -> None:
    labels = np.arange(60) % 2
    assert other_order(1 - labels, labels, 2) == (1, 0)
    assert other_order(labels, labels, 2) is None


def test_classes_without_images_keep_their_place() -> None:
    labels = np.repeat([3, 5], 30)
    assert other_order(8 - labels, labels, 10) == (0, 1, 2, 5, 4, 3, 6, 7, 8, 9)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.8])
def test_noise_makes_no_order(classes: int, accuracy: float) -> None:
    """Of 1000 classes with two images each, the best assignment fits nearly half of pure noise."""
    rng = np.random.default_rng(1)
    labels = np.arange(2000) % classes
    for _ in range(3 if classes == 1000 else 30):
        assert other_order(answered(labels, classes, accuracy, rng), labels, classes) is None


def test_two_classes_that_a_model_confuses_are_no_order() -> None:
    """A tenth of the images, of which half are answered with the other class."""
    labels = np.arange(2000) % 20
    answers = labels.copy()
    answers[(labels == 3) & (np.arange(2000) % 7 < 4)] = 4
    answers[(labels == 4) & (np.arange(2000) % 7 < 4)] = 3
    assert other_order(answers, labels, 20) is None


def test_one_image_a_class_shows_nothing() -> None:
    labels = np.arange(10)
    assert other_order((labels + 1) % 10, labels, 10) is None
