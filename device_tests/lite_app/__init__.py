"""The Lite interpreter in C++: what Android's and iOS's libraries wrap, built from the wheel."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path

from device_tests import program
from device_tests.cache import made
from device_tests.target import Bundle, Missing, Results
from pipeline.errors import InputError

WHAT = "PyTorch Lite in C++"
FORMATS = ("ptl",)
SOURCES = Path(__file__).parent
RUNS = 10  # timed inferences


def missing() -> Missing | None:
    """Say what this machine lacks; see :class:`device_tests.target.Target`."""
    command = "sudo apt-get install -y g++ cmake nlohmann-json3-dev"
    for tool in ("g++", "cmake"):
        if shutil.which(tool) is None:
            return Missing(f"{tool} is not installed", command)
    if not Path("/usr/include/nlohmann/json.hpp").is_file():
        return Missing("the C++ library nlohmann/json is not installed", command)
    return None


def install(cache: Path) -> None:
    """Install into ``cache``; see :class:`device_tests.target.Target`."""
    _built(cache)


def run(bundle: Bundle, cache: Path) -> Results:
    """Run the files of ``bundle``; see :class:`device_tests.target.Target`."""
    command: list[str | Path] = [
        _built(cache),
        bundle.files["ptl"],
        bundle.golden.inputs_file,
        str(RUNS),
    ]
    return Results(
        [
            program.cell(
                command,
                file_format="ptl",
                path=bundle.files["ptl"],
                runtime=f"PyTorch Lite {_version()}",
                machine=platform.machine(),
            )
        ]
    )


def _version() -> str:
    return importlib.metadata.version("torch").partition("+")[0]


@functools.cache
def _torch() -> Path:
    """The installed wheel's folder, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise InputError("torch is not installed; run `make setup`")
    return Path(spec.origin).parent


def _built(cache: Path) -> Path:
    sources = sorted(p for p in SOURCES.iterdir() if p.suffix in (".cpp", ".txt"))
    recipe = "".join([_version(), str(_torch()), *(p.read_text() for p in sources)])
    return made(cache / "build", recipe, _build) / "lite_app"


def _build(folder: Path) -> None:
    configure: list[str | Path] = ["cmake", "-S", SOURCES, "-B", folder, f"-DTORCH_DIR={_torch()}"]
    program.call([*configure, "-DCMAKE_BUILD_TYPE=Release"])
    program.call(["cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1)])
