"""Whether labels fit a classifier's outputs only in another order: from its answers alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.intervals import mcnemar_exact

RIGHT_MIN = 0.5  # of the images, with the labels in the other order
GAIN_MIN = 0.1  # of the images, over the order as it is
CHANCE_MAX = 1e-3  # of such a gain where both orders are equally good

Integers = NDArray[np.int64]


def other_order(answers: Integers, labels: Integers, classes: int) -> tuple[int, ...] | None:
    """Return the order of the labels that fits ``answers`` [n] to ``labels`` [n]; None: as it is.

    Both are indices below ``classes``; the order has at place k the label that output k stands for.
    It is looked for on every other image of each class, as the assignment of labels to outputs
    with the most right answers, and must hold on the rest: right for more than half of these, for
    a tenth of them more than the labels as they are, and by McNemar's exact test not by chance.
    """
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[1::2]] = True
    found = _assign(answers[~held_out], labels[~held_out], classes)
    if found == tuple(range(classes)) or not held_out.any():
        return None
    answers_left, labels_left = answers[held_out], labels[held_out]
    before, after = answers_left == labels_left, np.array(found)[answers_left] == labels_left
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    count = len(labels_left)
    if after.sum() <= RIGHT_MIN * count or won - lost < GAIN_MIN * count:
        return None
    return _assign(answers, labels, classes) if mcnemar_exact(lost, won) < CHANCE_MAX else None


def _assign(answers: Integers, labels: Integers, classes: int) -> tuple[int, ...]:
    """The label of each output such that most answers are right; of equally good ones its own."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    seen = np.union1d(answers, labels)  # of a few images; the other classes stay where they are
    counts = np.zeros((len(seen), len(seen)))
    np.add.at(counts, (np.searchsorted(seen, answers), np.searchsorted(seen, labels)), 1)
    own = np.eye(len(seen)) / (len(seen) + 1)
    outputs, named = linear_sum_assignment(counts + own, maximize=True)
    order = np.arange(classes)
    order[seen[outputs]] = seen[named]
    return tuple(order.tolist())
