"""An environment for each peer, made by uv when it is asked for, with locked packages."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from device_tests import cache
from device_tests.cache import made
from device_tests.program import ONE_THREAD, call

PYTHON = "3.11"
ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv")
INSTALL_SECONDS, RUN_SECONDS = 1800, 3600
VERSIONS = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)


def python(lock: Path) -> Path:
    """The interpreter of the environment that a lock file describes; made if it is not there.

    Raises:
        InputError: a package cannot be installed on this machine.
    """

    def install(folder: Path) -> None:
        call([*UV, "venv", "--quiet", "--python", PYTHON, folder])
        into: list[str | Path] = ["--python", folder / "bin" / "python"]
        checked: list[str | Path] = ["--no-deps", "--require-hashes", "--requirements", lock]
        call([*UV, "pip", "install", "--quiet", *into, *checked], timeout_s=INSTALL_SECONDS)

    folder = cache.folder("peers") / lock.stem / "env"
    return made(folder, PYTHON + lock.read_text(), install) / "bin" / "python"


def run(lock: Path, module: str, *arguments: str | Path) -> str:
    """Run a module of this repository in a peer's environment; return what it printed.

    Raises:
        InputError: it failed; with its last lines.
    """
    command = [python(lock), "-m", module, *arguments]
    return call(command, cwd=ROOT, env=variables(lock), timeout_s=RUN_SECONDS)


def variables(lock: Path) -> dict[str, str]:
    """What a peer's processes get: one thread, nobody's telemetry, tools of their own wheels."""
    # ExecuTorch calls the flatc program that its wheel puts beside the interpreter.
    path = f"{python(lock).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**ONE_THREAD, "PATH": path, "HF_HUB_OFFLINE": "1", "OPENVINO_TELEMETRY": "0"}


def versions(lock: Path) -> dict[str, str]:
    """What a lock file pins, by package."""
    return dict(VERSIONS.findall(lock.read_text()))
