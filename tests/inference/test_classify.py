from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import EdgeVitError
from pipeline.evidence.golden import Golden
from pipeline.images.decode import ImageError
from pipeline.inference.classify import Classifier, rank
from tests.inference.images import encoded

LOGITS = np.array([0.5, 2.0, 2.0, -1.0], np.float32)


def test_scores_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for transform in ("softmax", "sigmoid"):
        own = rank(LOGITS, "abcd", 4, transform)
        function = getattr(torch, transform)
        arguments = (torch.from_numpy(LOGITS).double(),) + ((0,) if transform == "softmax" else ())
        theirs = sorted(function(*arguments).tolist(), reverse=True)
        assert [p.score for p in own] == pytest.approx(theirs, rel=1e-12)
    assert [p.score for p in rank(LOGITS, "abcd", 9, "none")] == [2.0, 2.0, 0.5, -1.0]


@pytest.mark.parametrize("transform", [None, "softmax", "sigmoid"])
def test_one_logit_gives_both_labels_and_the_answer_first(transform):
    yes = np.array([np.log(4)], np.float32)  # 80%

    def found(threshold):
        return [(p.label, round(p.score, 6)) for p in rank(yes, "ny", 5, transform, threshold)]

    assert found(0.5) == [("y", 0.8), ("n", 0.2)]
    assert found(0.9) == [("n", 0.2), ("y", 0.8)]
    assert rank(np.zeros(1, np.float32), "ny", 1, transform, 0.5)[0].label == "n"


def test_one_logit_as_it_is_and_its_negative():
    found = rank(np.array([1.5], np.float32), "ny", 2, "none", 0.5)
    assert [(p.label, p.score) for p in found] == [("y", 1.5), ("n", -1.5)]


def test_the_best_come_first_and_of_equals_the_lower_class():
    assert [p.label for p in rank(LOGITS, "abcd", 3)] == ["b", "c", "a"]


def test_large_logits_overflow_nothing():
    extreme = np.array([3e4, -3e4], np.float32)
    for transform in ("softmax", "sigmoid"):
        assert [p.score for p in rank(extreme, "ab", 2, transform)] == pytest.approx([1, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_an_error(bad):
    with pytest.raises(EdgeVitError, match="NaN or infinity"):
        rank(np.array([1, bad], np.float32), "ab", 2)


@pytest.fixture(scope="module")
def classifier(healthy):
    return Classifier(next((healthy / "onnx").glob("*.onnx")))


def test_answers_of_image_files_are_the_golden_ones(healthy, classifier):
    golden = Golden.load(healthy / "golden")
    for image, logits in zip(golden.content.images, golden.logits("onnx"), strict=True):
        content = (golden.folder / image.file).read_bytes()
        labels = classifier.contract.labels
        assert [p.label for p in classifier.classify(content)] == [
            p.label for p in rank(logits, labels, 5)
        ]
        assert classifier.runtime.logits(classifier.prepare(content))[0] == pytest.approx(
            logits, abs=1e-3
        )


def test_a_line_of_pixels_is_refused_before_it_is_resized(classifier):
    with pytest.raises(ImageError, match="too long and thin"):
        classifier.classify(encoded("PNG", Image.new("RGB", (50_000, 1))))
