from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from pipeline.images.samples import SampleSet
from pipeline.metrics import distances
from pipeline.report import flips

FLOOR = 0.05
CLASSES = ("bag", "coat", "dress")


def one_hot(*answers: tuple[int, float]) -> np.ndarray:
    """Logits that answer so, each with a lead."""
    logits = np.zeros((len(answers), len(CLASSES)), np.float32)
    for row, (answer, lead) in enumerate(answers):
        logits[row, answer] = lead
    return logits


#                   lost      won       wrong both ways, within noise; unchanged
REFERENCE = one_hot((0, 3.0), (1, 5.0), (1, 0.08), (2, 4.0))
CANDIDATE = one_hot((1, 1.0), (0, 1.0), (2, 1.0), (2, 1.0))
LABELS = np.array([0, 0, 0, 2])


def samples(labels: np.ndarray | None = LABELS) -> SampleSet:
    images = np.random.default_rng(0).integers(0, 256, (len(REFERENCE), 224, 112, 3), np.uint8)
    return SampleSet(images, labels, ("a", "b", "c", "d"), CLASSES, "0" * 64)


def test_flips_are_sorted_by_how_sure_float_was():
    gallery = flips.gallery("ptl", REFERENCE, CANDIDATE, samples(), FLOOR)
    assert [(flip.sample, flip.kind) for flip in gallery.shown] == [
        ("b", flips.WON),
        ("a", flips.LOST),
        ("c", flips.NEITHER),
    ]
    first = gallery.shown[0]
    assert (first.before, first.after, first.truth) == ("coat", "bag", "bag")


def test_flips_are_counted_as_the_evidence_counts_them():
    gallery = flips.gallery("ptl", REFERENCE, CANDIDATE, samples(), FLOOR)
    counted = distances.flips(REFERENCE, CANDIDATE, LABELS, FLOOR)
    assert gallery.within_noise == counted.within_noise == 1
    assert [flip.within_noise for flip in gallery.shown] == [False, False, True]
    kinds = [flip.kind for flip in gallery.shown]
    assert kinds.count(flips.LOST) == counted.right_to_wrong
    assert kinds.count(flips.WON) == counted.wrong_to_right
    assert kinds.count(flips.NEITHER) == counted.wrong_to_wrong


def test_without_labels_nothing_is_said_of_the_truth():
    gallery = flips.gallery("ptl", REFERENCE, CANDIDATE, samples(None), FLOOR)
    assert {(flip.truth, flip.kind) for flip in gallery.shown} == {(None, flips.UNLABELLED)}


def test_more_flips_than_can_be_shown_are_counted():
    count = flips.IMAGES_MAX + 5
    before, after = one_hot(*[(0, 1.0)] * count), one_hot(*[(1, 1.0)] * count)
    many = SampleSet(
        np.zeros((count, 8, 8, 3), np.uint8), None, tuple(map(str, range(count))), CLASSES, ""
    )
    gallery = flips.gallery("pte", before, after, many, FLOOR)
    assert gallery.total == count
    assert len(gallery.shown) == flips.IMAGES_MAX


def test_a_thumbnail_is_a_small_png_of_the_same_shape():
    gallery = flips.gallery("ptl", REFERENCE, CANDIDATE, samples(), FLOOR)
    kind, _, content = gallery.shown[0].thumbnail.partition(",")
    assert kind == "data:image/png;base64"
    thumbnail = Image.open(io.BytesIO(base64.b64decode(content)))
    assert thumbnail.size == (36, 72)  # width, height; of 112 and 224


def test_classes_have_their_counts_and_the_largest_change_first():
    rows = flips.by_class(
        REFERENCE, {"ptl": CANDIDATE, "onnx": REFERENCE}, np.array([0, 1, 1, 2]), CLASSES
    )
    assert [row.name for row in rows] == ["coat", "bag", "dress"]
    coat, bag, dress = rows
    assert (coat.count, coat.float_right) == (2, 2)
    assert coat.changes["ptl"] == flips.Change(right=0, lost=2, won=0)
    assert coat.changes["onnx"] == flips.Change(right=2, lost=0, won=0)
    assert bag.changes["ptl"].net == -1
    assert dress.changes["ptl"].net == 0


def test_a_class_without_samples_has_no_row():
    rows = flips.by_class(REFERENCE, {"ptl": CANDIDATE}, LABELS, CLASSES)
    assert {row.name for row in rows} == {"bag", "dress"}
