from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.files import read_json, write_json
from pipeline.images.samples import content_hash, samples_sha256
from pipeline.metrics.measures import float32_resolution
from pipeline.params import Reference
from pipeline.stages.reference import reference

pytestmark = pytest.mark.full


COUNT = 200  # images


def labelled(healthy: Path, folder: Path, labels: Callable[[int], int]) -> Path:
    content = read_json(healthy / "samples" / "samples.json")
    content["labels"] = [labels(label) for label in content["labels"][:COUNT]]
    content["ids"] = content["ids"][:COUNT]
    folder.mkdir()
    images = np.load(healthy / "samples" / "images.npy")[:COUNT]
    np.save(folder / "images.npy", images)
    hashes = [content_hash(image) for image in images]
    content["sha256"] = samples_sha256(hashes, content["labels"], content["ids"])
    write_json(folder / "samples.json", content)
    return folder


def test_labels_in_another_order_stop_with_the_order_that_fits(
    healthy: Path, tmp_path: Path
) -> None:
    samples = labelled(healthy, tmp_path / "samples", lambda label: (label + 1) % 10)
    classes = read_json(samples / "samples.json")["classes"]
    right = ", ".join(classes[1:] + classes[:1])
    with pytest.raises(InputError, match=f"labels look permuted: .*the order {right}; set model"):
        reference(Reference(noise_samples=1), healthy / "checkpoint", samples, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_guesses_is_noticed_at_once(
    healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    samples = labelled(healthy, tmp_path / "samples", lambda _: int(rng.integers(10)))
    reference(Reference(noise_samples=1), healthy / "checkpoint", samples, tmp_path / "reference")
    assert "more than a guess among 10 classes" in capsys.readouterr().err
    logits = np.load(tmp_path / "reference" / "logits.npy")
    floor = read_json(tmp_path / "reference" / "reference.json")["noise_floor"]
    assert floor["max_abs"] >= float32_resolution(logits[:1]) > 0
