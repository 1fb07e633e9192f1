"""The app's Maven project: what it downloads, and one run of it under Robolectric."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from device_tests import program
from device_tests.cache import made
from pipeline.errors import InputError

PROJECT = Path(__file__).parent / "ci"
POM = PROJECT / "pom.xml"
LITE = "org.pytorch:pytorch_android_lite"
# Newest first. The app ships the first; it is built and looked into the newest that can be had.
RELEASES = ("2.1.0", "1.13.1", "1.12.2")
# The whole library of the last generation before fused attention, to show that look-ups can say no.
CONTROL, CONTROL_VERSION = "org.pytorch:pytorch_android", "1.13.1"
GET = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get"
ABSENT = re.compile(r"Could not find artifact|was not found in")
REQUESTS, ABOUT = "requests.json", "about.json"


@dataclass(frozen=True)
class Inputs:
    """Image files that the app's preprocessing turns into model inputs."""

    contract: str  # JSON
    images: Sequence[Path]


@dataclass(frozen=True)
class Resize:
    """Pixels, uint8 [height, width, 3], that the app's resampling brings to another size."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]  # height, width
    interpolation: str


@dataclass
class Answers:
    """What the app answered, in the order of its inputs."""

    inputs: list[NDArray[np.float32] | str] = field(default_factory=list)  # or the app's refusal
    sizes: list[NDArray[np.uint8]] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)  # "java", "android"
    tests: int = 0  # of JUnit, all passed


def robolectric() -> str:
    """Return the version of Robolectric that the project names."""
    version = re.search(r"<robolectric.version>(.*)</", POM.read_text())
    assert version is not None
    return version[1]


def archives(cache: Path) -> dict[str, Path]:
    """The .aar of each release that the registry has, newest first."""
    paths = {version: _path(_repository(cache), LITE, version) for version in RELEASES}
    present = {version: path for version, path in paths.items() if path.is_file()}
    if not present:
        raise InputError(f"the registry that Maven reaches has no {LITE}")
    return present


def control(cache: Path) -> Path:
    """The .aar with the whole library, which registers what the lite one does, and more."""
    return _path(_repository(cache), CONTROL, CONTROL_VERSION)


def install(cache: Path) -> None:
    """Fill Maven's local repository below ``cache``."""
    _repository(cache)


def run(cache: Path, inputs: Sequence[Inputs], sizes: Sequence[Resize] = ()) -> Answers:
    """Compile the app, run its tests, and have it answer ``inputs`` and ``sizes``.

    Raises:
        InputError: it does not compile, or a test of it fails; with Maven's last lines.
    """
    repository, version = _repository(cache), next(iter(archives(cache)))
    with tempfile.TemporaryDirectory() as name:
        folder, build = Path(name) / "requests", Path(name) / "build"
        folder.mkdir()
        _ask(folder, inputs, sizes)
        _build(repository, version, build, ["--offline", f"-Drequests={folder}"])
        answers = _read(folder, inputs, sizes)
        answers.tests = sum(_ran(report) for report in build.glob("surefire-reports/*.xml"))
        return answers


def _repository(cache: Path) -> Path:
    return made(cache / "repository", f"{POM.read_text()}{RELEASES}{CONTROL_VERSION}", _download)


def _path(repository: Path, library: str, version: str) -> Path:
    group, _, name = library.partition(":")
    return repository.joinpath(*group.split("."), name, version, f"{name}-{version}.aar")


def _download(repository: Path) -> None:
    versions = [version for version in RELEASES if _has(repository, LITE, version)]
    if not versions:
        raise InputError(f"the registry that Maven reaches has no {LITE} {', '.join(RELEASES)}")
    if not _has(repository, CONTROL, CONTROL_VERSION):
        raise InputError(f"the registry that Maven reaches has no {CONTROL} {CONTROL_VERSION}")
    # Maven knows all that a build downloads only by building.
    with tempfile.TemporaryDirectory() as build:
        _build(repository, versions[0], Path(build), [])


def _has(repository: Path, library: str, version: str) -> bool:
    """Download a release; False where the registry says that there is none."""
    options = [f"-Dartifact={library}:{version}:aar", "-Dtransitive=false"]
    try:
        program.call([*_maven(repository), GET, *options])
    except InputError as error:
        if ABSENT.search(str(error)):
            return False
        raise
    return True


def _build(repository: Path, version: str, folder: Path, options: Sequence[str]) -> None:
    properties = [f"-Dpytorch.version={version}", f"-Dbuild.folder={folder}"]
    program.call([*_maven(repository), "test", *properties, *options], cwd=PROJECT)


def _maven(repository: Path) -> list[str]:
    quiet = ["--batch-mode", "--no-transfer-progress"]
    return ["mvn", *quiet, "--file", str(POM), f"-Dmaven.repo.local={repository}"]


def _ask(folder: Path, inputs: Sequence[Inputs], sizes: Sequence[Resize]) -> None:
    asked: Mapping[str, list[dict[str, Any]]] = {"inputs": [], "sizes": []}
    for i, request in enumerate(inputs):
        (folder / f"{i}.contract.json").write_text(request.contract)
        paths = [str(path.resolve()) for path in request.images]
        asked["inputs"].append(
            {"contract": f"{i}.contract.json", "images": paths, "answer": f"{i}.f32"}
        )
    for i, resize in enumerate(sizes):
        (folder / f"{i}.rgb").write_bytes(resize.pixels.tobytes())
        asked["sizes"].append(
            {
                "file": f"{i}.rgb",
                "height": resize.pixels.shape[0],
                "width": resize.pixels.shape[1],
                "out_height": resize.size[0],
                "out_width": resize.size[1],
                "filter": resize.interpolation,
                "answer": f"{i}.resized",
            }
        )
    (folder / REQUESTS).write_text(json.dumps(asked))


def _read(folder: Path, inputs: Sequence[Inputs], sizes: Sequence[Resize]) -> Answers:
    answers = Answers(about=json.loads((folder / ABOUT).read_text()))
    for i, request in enumerate(inputs):
        refusal = folder / f"{i}.f32.error"
        if refusal.is_file():
            answers.inputs.append(refusal.read_text())
            continue
        shape = json.loads(request.contract)["input_shape"][1:]
        values = np.fromfile(folder / f"{i}.f32", "<f4").astype(np.float32, copy=False)
        answers.inputs.append(values.reshape(len(request.images), *shape))
    for i, resize in enumerate(sizes):
        pixels = np.fromfile(folder / f"{i}.resized", np.uint8)
        answers.sizes.append(pixels.reshape(*resize.size, 3))
    return answers


def _ran(report: Path) -> int:
    return int(ElementTree.parse(report).getroot().get("tests", "0"))
