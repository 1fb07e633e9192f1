"""The same image gives the same pixels to everything that reads images."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.contract.files import load_contract
from pipeline.finetune.data import load_train
from pipeline.finetune.params import Data
from pipeline.images.preprocessing import decoded, normalize
from pipeline.images.samples import SampleSet
from pipeline.inference.classify import Classifier
from pipeline.inference.requests import Job, reply
from pipeline.params import Samples
from pipeline.stages.samples import samples
from tests.images.cases import CASES

READ = {name: case.data for name, case in CASES.items() if case.right is not None}


@pytest.fixture
def folder(healthy: Path, tmp_path: Path) -> Path:
    """A class folder with every image that is read; each under the name of its row."""
    labels = load_contract(healthy / "checkpoint").labels
    for label in (labels[8], labels[9]):
        (tmp_path / "images" / label).mkdir(parents=True)
    for name, data in READ.items():
        (tmp_path / "images" / labels[9] / f"{name}.png").write_bytes(data)
    (tmp_path / "images" / labels[8] / "one.png").write_bytes(READ["PNG"])
    return tmp_path / "images"


def test_samples_predict_and_serve_feed_the_same_input(
    healthy: Path, folder: Path, tmp_path: Path
) -> None:
    contract = load_contract(healthy / "checkpoint")
    samples(Samples(source=folder, calibration=0), contract, tmp_path / "samples")
    taken = SampleSet.load(tmp_path / "samples")
    classifier = Classifier(next((healthy / "onnx").glob("*.onnx")))
    # Many show the same; samples take none twice.
    seen = {normalize(image[None], contract.preprocessing).tobytes() for image in taken.images}
    fed = {name: classifier.prepare(data).tobytes() for name, data in READ.items()}
    assert [name for name in fed if fed[name] not in seen] == []
    assert len(seen) == len(taken) == len({*fed.values()})
    data = READ["PNG, 16-bit grey"]
    body = json.dumps({"inputs": base64.b64encode(data).decode()}).encode()
    served = reply(classifier, Job(body, is_json=True))
    expected = [{"label": p.label, "score": p.score} for p in classifier.classify(data)]
    assert (served.status, served.content) == (200, expected)


def test_training_sees_what_the_files_will_be_fed(healthy: Path, folder: Path) -> None:
    preprocessing = load_contract(healthy / "checkpoint").preprocessing
    data = load_train(Data(root=folder, workers=0))
    for index, path in enumerate(data.files):
        seen = decoded(path.read_bytes(), preprocessing)
        assert np.array_equal(data.open(index), seen), path.name


@pytest.mark.parametrize("name", [n for n, made in CASES.items() if made.right is None])
def test_what_is_refused_is_refused_by_the_server_as_no_image(healthy: Path, name: str) -> None:
    classifier = Classifier(next((healthy / "onnx").glob("*.onnx")))
    served = reply(classifier, Job(CASES[name].data, is_json=False))
    assert served.status == 415
    assert CASES[name].refusal in str(served.content)
