"""The code in the model card of a release, on what a reader would run it with.

Python, and Java's arithmetic, are held to it in ``tests/release``, which need nothing but the
environment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from device_tests import android, cache, lite_app, web
from device_tests.android import maven
from device_tests.snippets import snippets
from device_tests.web import packages
from pipeline.contract.files import load_contract
from pipeline.errors import InputError
from pipeline.evidence.golden import Golden
from pipeline.images.preprocessing import geometry
from pipeline.metrics.distances import sqnr_db
from pipeline.release.manifest import SUMS_FILE

WASM_DB = 30.0  # of one image; other kernels round int8 otherwise (docs/adr/0015)


@pytest.fixture(scope="module")
def release(artifacts: Path) -> Path:
    if (artifacts / SUMS_FILE).is_file():
        return artifacts
    contract = load_contract(artifacts / "checkpoint")
    found = artifacts / "release" / f"{contract.name}-{contract.version}"
    if not found.is_dir():
        pytest.fail(f"there is no {found}; run `make repro` first")
    return found


@pytest.fixture(scope="module")
def golden(release: Path) -> Golden:
    return Golden.load(release / "golden")


def test_the_cpp_answers_as_the_golden_answers(
    release: Path, golden: Golden, tmp_path: Path
) -> None:
    if lacking := lite_app.missing():
        pytest.fail(f"{lacking.reason}; {lacking.command}")
    source, program, wheel = tmp_path / "card.cpp", tmp_path / "card", Path(torch.__file__).parent
    source.write_text(snippets(release, "cpp")[0])
    strict = ["-std=c++20", "-Wall", "-Wextra", "-Werror"]
    compiler: list[str | Path] = ["g++", *strict, "-isystem", wheel / "include"]
    libraries = [f"-L{wheel / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{wheel / 'lib'}"]
    linker = ["-Wl,--allow-shlib-undefined", *libraries]
    subprocess.run([*compiler, source, "-o", program, *linker], check=True)
    ran = subprocess.run([program], cwd=release, capture_output=True, text=True, check=True)
    assert int(ran.stdout) == golden.logits("ptl")[0].argmax()


def test_the_javascript_answers_as_the_golden_answers(
    release: Path, golden: Golden, tmp_path: Path
) -> None:
    """By onnxruntime-web in node, given the pixels that a canvas would hand over."""
    if lacking := web.missing():
        pytest.fail(f"{lacking.reason}; {lacking.command}")
    (tmp_path / "node_modules").symlink_to(packages.install(cache.folder("web")))
    (tmp_path / "card.mjs").write_text(snippets(release, "js")[0])
    (tmp_path / "main.mjs").write_text(
        'import { readFileSync } from "node:fs";\n'
        'import { classify } from "./card.mjs";\n'
        "const logits = await classify({ data: readFileSync(process.argv[2]) });\n"
        "console.log(JSON.stringify(Array.from(logits)));\n"
    )
    with Image.open(golden.images[0]) as image:
        pixels = geometry(load_contract(release).preprocessing)(image)
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    np.concatenate([pixels, opaque], axis=2).tofile(tmp_path / "image.rgba")
    command: list[str | Path] = ["node", tmp_path / "main.mjs", tmp_path / "image.rgba"]
    ran = subprocess.run(command, cwd=release, capture_output=True, text=True, check=True)
    got, expected = np.array([json.loads(ran.stdout)]), golden.logits("int8_onnx")[:1]
    assert got.argmax() == expected.argmax()
    assert sqnr_db(expected, got.astype(np.float32)) > WASM_DB


def test_the_java_compiles_against_pytorch_s_and_android_s_classes(
    release: Path, tmp_path: Path
) -> None:
    if lacking := android.missing():
        pytest.fail(f"{lacking.reason}; {lacking.command}")
    folder = cache.folder("android")
    archive = next(iter(maven.archives(folder).values()))
    with zipfile.ZipFile(archive) as content, (tmp_path / "classes.jar").open("wb") as jar:
        shutil.copyfileobj(content.open("classes.jar"), jar)
    platform = next((folder / "repository").rglob("android-all-7*.jar"), None)
    if platform is None:
        raise InputError(f"{folder} holds no classes of Android; delete it and run again")
    classes = f"{tmp_path / 'classes.jar'}:{platform}"
    source = tmp_path / "Classifier.java"
    source.write_text(snippets(release, "java")[0])
    command: list[str | Path] = ["javac", "-cp", classes, "-d", tmp_path, source]
    subprocess.run(command, check=True)
    assert (tmp_path / "Classifier.class").is_file()
