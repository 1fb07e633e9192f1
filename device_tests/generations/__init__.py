"""Released generations of PyTorch's Lite interpreter, each in an environment of its own."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from device_tests import program
from device_tests.cache import made
from device_tests.target import Bundle, Missing, Results

HERE = Path(__file__).parent
RUNNER = HERE.parent / "runner.py"
PYTHON = "3.11"  # the last that torch 1.13.1 was released for
RUNS = 10  # timed inferences
UV = (sys.executable, "-m", "uv")


@dataclass(frozen=True)
class Generation:
    """One release. 1.13.1 and 2.1.2 have the operators of Android's last 1.x and 2.x libraries."""

    version: str

    @property
    def FORMATS(self) -> tuple[str, ...]:
        """The formats that PyTorch Lite takes."""
        return ("ptl",)

    @property
    def WHAT(self) -> str:
        """The runtime and its version."""
        return f"PyTorch Lite {self.version}"

    def missing(self) -> Missing | None:
        """Say what this machine lacks; see :class:`device_tests.target.Target`."""
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            here = f"{platform.system()} {platform.machine()}"
            return Missing(
                f"the environment is locked for Linux x86_64, this is {here}",
                f"make device-test TARGETS=torch_{self.version.replace('.', '_')}  # on such a one",
            )
        return None

    def install(self, cache: Path) -> None:
        """Install into ``cache``; see :class:`device_tests.target.Target`."""
        self._environment(cache)

    def run(self, bundle: Bundle, cache: Path) -> Results:
        """Run the files of ``bundle``; see :class:`device_tests.target.Target`."""
        python = self._environment(cache) / "bin" / "python"
        path, count = bundle.files["ptl"], str(len(bundle.golden.ids))
        return Results(
            [
                program.cell(
                    [python, RUNNER, path, bundle.golden.inputs_file, count, str(RUNS), "0"],
                    file_format="ptl",
                    path=path,
                    runtime=self.WHAT,
                    machine=platform.machine(),
                )
            ]
        )

    def _environment(self, cache: Path) -> Path:
        lock = HERE / f"torch-{self.version}.lock"

        def install(folder: Path) -> None:
            program.call([*UV, "venv", "--quiet", "--python", PYTHON, folder])
            into: list[str | Path] = ["--python", folder / "bin" / "python"]
            checked: list[str | Path] = ["--no-deps", "--require-hashes", "--requirements", lock]
            program.call([*UV, "pip", "install", "--quiet", *into, *checked])

        return made(cache / "env", PYTHON + lock.read_text(), install)
