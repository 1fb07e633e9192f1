from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.contract.files import load_contract, read_contract
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.golden import Golden
from pipeline.evidence.logits import LOGITS_FILE, load_logits
from pipeline.evidence.model import read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.images.preprocessing import geometry, normalize
from pipeline.params import Params
from pipeline.paths import Recorded, delivered_files
from pipeline.stages.golden import golden
from pipeline.stages.publish import publish
from tests.images.cases import CASES


def with_photographs(params: Params, folder: Path) -> Params:
    values = params.model_dump()
    values["golden"] = {"samples": 0, "photographs": folder}
    return Params.model_validate(values)


def test_each_file_leads_to_its_input(healthy: Path) -> None:
    found = Golden.load(healthy / "golden")
    preprocessing = load_contract(healthy / "checkpoint").preprocessing
    apply = geometry(preprocessing)
    pixels = np.stack([apply(Image.open(path)) for path in found.images])
    assert len(found.images) == 2 + 17
    assert normalize(pixels, preprocessing).tobytes() == found.inputs.tobytes()


def test_answers_are_those_that_parity_measured(healthy: Path) -> None:
    found = Golden.load(healthy / "golden")
    parity = read_sealed(healthy / "parity" / "evidence.json", ParityEvidence)
    ids = json.loads((healthy / "samples" / "samples.json").read_text())["ids"]
    logits = load_logits(healthy / "parity" / LOGITS_FILE, parity)
    for key, measured in (("float", "reference"), ("ptl", "ptl"), ("int8_onnx", "int8_onnx")):
        rows = logits[measured][[ids.index(name) for name in found.ids[:2]]]
        assert np.array_equal(found.logits(key)[:2], rows), key


@pytest.mark.parametrize("name", ["inputs.f32", "images/02-astronaut-255x254.png"])
def test_a_changed_file_is_noticed_and_not_published(
    params: Params, artifacts: Path, name: str
) -> None:
    path = artifacts / "golden" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=path.name):
        Golden.load(artifacts / "golden")
    nowhere = Recorded(Path("none"), Path("none"))
    with pytest.raises(IntegrityError, match=path.name):
        publish(params, artifacts, nowhere, artifacts / "release")
    assert not list((artifacts / "release").glob("*"))


def test_changed_answers_are_noticed(artifacts: Path) -> None:
    path = artifacts / "golden" / "golden.json"
    content = json.loads(path.read_text())
    content["artefacts"]["ptl"]["logits"][0][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="dvc repro --force golden"):
        Golden.load(artifacts / "golden")


def test_what_decoders_read_differently_is_written_anew(
    params: Params, healthy: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    kinds = {
        "a-turned.jpg": "JPEG, EXIF orientation 6",
        "b-print.jpg": "JPEG, CMYK with Adobe's marker",
        "c-alpha.png": "PNG, alpha",
        "d-plain.png": "PNG",
        "e-gamma.png": "PNG, gamma",
        "f-key.png": "PNG, transparent grey",
        "g-wide.png": "PNG, 16-bit grey",
        "h-profile.png": "PNG, colour profile",
        "i-turned.png": "PNG, EXIF orientation 8",
        "j-grey.jpg": "JPEG, grey",
    }
    for name, kind in kinds.items():
        (photos / name).write_bytes(CASES[kind].data)
    (photos / "README.md").write_text("no image")
    golden(with_photographs(params, photos), healthy, tmp_path / "golden")
    found = Golden.load(tmp_path / "golden")
    for number, (path, (name, kind)) in enumerate(zip(found.images, kinds.items(), strict=True)):
        made = CASES[kind]
        if name in ("d-plain.png", "j-grey.jpg"):
            assert path.name == f"{number:02}-{name}"
            assert path.read_bytes() == made.data
            continue
        assert path.name == f"{number:02}-{Path(name).stem}.png"
        with Image.open(path) as image:
            assert made.right is not None
            assert (image.mode, dict(image.info)) == ("RGB", {})
            assert np.abs(np.asarray(image, np.int16) - made.right).mean() <= made.within


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a folder of images"),
        ({}, "holds no images"),
        ({"torn.jpg": b"\xff\xd8\xff"}, "torn.jpg is not an image"),
    ],
)
def test_photographs_that_are_none_are_named(
    params: Params,
    healthy: Path,
    tmp_path: Path,
    content: dict[str, bytes] | None,
    words: str,
) -> None:
    folder = tmp_path / "photos"
    if content is not None:
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        golden(with_photographs(params, folder), healthy, tmp_path / "golden")
    assert not (tmp_path / "golden").exists()


@pytest.mark.parametrize("key", ["ptl", "onnx", "int8_onnx", "pte"])
def test_a_delivered_file_says_how_to_feed_it(healthy: Path, key: str, tmp_path: Path) -> None:
    path = delivered_files(healthy)[key]
    contract = read_contract(path)
    assert contract.artefact is not None
    assert contract.artefact.format == key
    cut = tmp_path / path.name
    cut.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(IntegrityError):
        read_contract(cut)


def test_the_golden_folder_is_published(params: Params, artifacts: Path) -> None:
    nowhere = Recorded(Path("none"), Path("none"))
    release = publish(params, artifacts, nowhere, artifacts / "release")
    shutil.rmtree(artifacts / "golden")
    assert len(Golden.load(release / "golden").images) == 19
