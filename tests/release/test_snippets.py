"""The code in the model card does what the card says."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from device_tests.snippets import snippets
from pipeline.contract.contract import Preprocessing
from pipeline.contract.files import load_contract
from pipeline.evidence.golden import Golden
from pipeline.images.preprocessing import geometry, normalize
from pipeline.release.documents.card import card
from tests.conftest import ROOT
from tests.release.materials import contract, material

APP = ROOT / "device_tests" / "android" / "app" / "src" / "main" / "java" / "edgevit" / "app"
STAND = Path(__file__).parent / "java"


@pytest.fixture(scope="module")
def golden(published: Path) -> Golden:
    return Golden.load(published / "golden")


def prepare_of(published: Path) -> Any:
    """The card's function ``prepare``, of its first block of Python."""
    names: dict[str, Any] = {}
    with contextlib.chdir(published):
        exec(snippets(published, "python")[0], names)
    return names["prepare"]


def test_images_become_exactly_the_golden_inputs(published: Path, golden: Golden) -> None:
    prepare = prepare_of(published)
    for path, expected in zip(golden.images, golden.inputs, strict=True):
        np.testing.assert_array_equal(prepare(path)[0], expected)


@pytest.mark.parametrize(
    ("mode", "size", "resize"),
    [
        ("center", (224, 224), 256),
        ("center", (96, 96), 97),
        ("squash", (64, 64), 73),
        ("border", (64, 64), 64),
        ("border", (64, 64), 71),
    ],
)
def test_every_way_to_crop_is_timm_s(
    tmp_path: Path, mode: str, size: tuple[int, int], resize: int
) -> None:
    preprocessing = replace(
        contract().preprocessing,
        crop_mode=mode,
        size=size,
        resize=resize,
        crop_pct=size[0] / resize,
    )
    _write(tmp_path, preprocessing)
    prepare, apply = prepare_of(tmp_path), geometry(preprocessing)
    for path in sorted((ROOT / "embedded" / "photos").glob("*2[0-9]*.*g")):
        with Image.open(path) as image:
            expected = normalize(apply(image)[np.newaxis], preprocessing)
        np.testing.assert_array_equal(prepare(path), expected, err_msg=path.name)


def _write(folder: Path, preprocessing: Preprocessing) -> None:
    made = replace(contract(), preprocessing=preprocessing)
    (folder / "README.md").write_text(card(material(contract=made)), encoding="utf-8")
    (folder / "contract.json").write_text(made.to_json(), encoding="utf-8")


@pytest.mark.parametrize("key", ["int8_onnx", "onnx", "ptl", "pte"])
@pytest.mark.full
def test_python_answers_as_the_golden_answers(published: Path, golden: Golden, key: str) -> None:
    got, label = run_python(published, sys.executable, key)
    expected = golden.logits(key)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    labels = json.loads((published / "contract.json").read_text())["labels"]
    assert label == labels[expected.argmax()]


def run_python(published: Path, python: str, key: str) -> tuple[NDArray[np.float64], str]:
    """Run the card's lines for one file in a new process; return logits and the label printed."""
    prepare, *blocks = snippets(published, "python")
    names = {"int8_onnx": ".int8.onnx", "onnx": ".int8.onnx", "ptl": ".ptl", "pte": ".pte"}
    (load,) = [block for block in blocks if f'{names[key]}"' in block]
    if key == "onnx":  # the card shows one ONNX file, and lists both
        load = load.replace("per_channel", "float").replace(".int8.onnx", ".onnx")
    code = f"{prepare}\n{load}\nprint(json.dumps(logits[0].tolist()))"
    ran = subprocess.run([python, "-c", code], cwd=published, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    label, logits = ran.stdout.splitlines()
    return np.array(json.loads(logits)), label


def test_the_java_is_the_app_s_and_compiles_there(published: Path) -> None:
    """device_tests/android compiles the app against PyTorch's classes: the calls are the same."""
    (code,) = snippets(published, "java")
    app = "".join(path.read_text() for path in sorted(APP.glob("*.java")))
    calls = r"^import .*;$|\b(?:LiteModuleLoader|IValue|Tensor)\.\w+\(|\.(?:forward|toTensor)\("
    calls += r"|\.getDataAsFloatArray\(\)|\.getPixels\("
    words = set(re.findall(calls, code, re.MULTILINE))
    assert len(words) >= 12, words
    assert {word for word in words if word not in app} == set()


@pytest.mark.skipif(shutil.which("javac") is None, reason="there is no Java compiler")
def test_the_java_makes_the_golden_inputs_of_pixels(
    published: Path, golden: Golden, tmp_path: Path
) -> None:
    """With stand-ins for Android's and PyTorch's classes; the arithmetic is the card's."""
    (code,) = snippets(published, "java")
    shutil.copytree(STAND, tmp_path / "java")
    (tmp_path / "java" / "Classifier.java").write_text(code)
    sources = sorted(map(str, (tmp_path / "java").rglob("*.java")))
    subprocess.run(["javac", "-Werror", "-d", tmp_path, *sources], check=True)
    preprocessing = load_contract(published).preprocessing
    with Image.open(golden.images[1]) as image:
        pixels = geometry(preprocessing)(image)
    words = (255 << 24) | (pixels[..., 0].astype(np.int64) << 16)
    words |= (pixels[..., 1].astype(np.int64) << 8) | pixels[..., 2]
    given = struct.pack(">ii", *pixels.shape[:2]) + words.astype(">u4").tobytes()
    ran = subprocess.run(["java", "-cp", tmp_path, "Stand"], input=given, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    length = struct.unpack(">H", ran.stdout[:2])[0]
    name = ran.stdout[2 : 2 + length].decode().rpartition("/")[2]
    assert (published / name).is_file()
    seen = np.frombuffer(ran.stdout[2 + length :], ">f4").reshape(golden.inputs[1].shape)
    np.testing.assert_allclose(seen, golden.inputs[1], rtol=0, atol=1e-6)
