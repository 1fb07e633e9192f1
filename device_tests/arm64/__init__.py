"""The delivered files on ARM64 code, emulated: the kernels that phones run, and what they cost.

Each runtime is the released wheel for aarch64. Times say how slow the emulator is; what says
something of a phone is the number of retired instructions. Memory is the emulator's: the program's,
and the translation of its code.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from device_tests import program
from device_tests.arm64 import debian
from device_tests.arm64.emulator import CPU, Emulator
from device_tests.target import Bundle, Cell, Missing, Results
from pipeline import formats
from pipeline.process import cores

WHAT = "PyTorch Lite, ONNX Runtime and ExecuTorch for ARM64, under qemu"
HERE = Path(__file__).parent
RUNNER = HERE.parent / "runner.py"
IMAGES = 16  # of the golden ones: an inference takes seconds here
COUNTED = 2  # inferences between two marks


@dataclass(frozen=True)
class _Runtime:
    name: str  # as contracts name it
    lock: Path


# ONNX Runtime's and ExecuTorch's are the oldest that contracts name; onnxruntime from 1.28 on stops
# at import under qemu 7.2.
RUNTIMES = {
    "pytorch": _Runtime("PyTorch Lite 2.1.2", HERE / "torch-2.1.2.lock"),
    "onnx": _Runtime("ONNX Runtime 1.20.1", HERE / "onnxruntime-1.20.1.lock"),
    "executorch": _Runtime("ExecuTorch 1.0.1", HERE / "executorch-1.0.1.lock"),
}  # by the tag of the formats that it runs
FORMATS = tuple(key for key, known in formats.FORMATS.items() if known.tag in RUNTIMES)


def missing() -> Missing | None:
    """Say what this machine lacks; see :class:`device_tests.target.Target`."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Missing(
            f"the emulator is taken for Linux x86_64, this is {platform.machine()}",
            "make device-test TARGETS=arm64  # on Debian 12, x86_64",
        )
    if lacking := debian.lacking():
        return Missing(lacking, "docker run -v .:/edge-vit -w /edge-vit -it python:3.11-bookworm")
    if shutil.which("cc") is None:
        return Missing("no C compiler is installed", "sudo apt-get install -y gcc libc6-dev")
    return None


def install(cache: Path) -> None:
    """Install into ``cache``; see :class:`device_tests.target.Target`."""
    emulator = Emulator(cache)
    emulator.install()
    for runtime in RUNTIMES.values():
        emulator.site(runtime.lock)


def run(bundle: Bundle, cache: Path) -> Results:
    """Run the files of ``bundle``; see :class:`device_tests.target.Target`."""
    emulator = Emulator(cache)
    machine = f"aarch64 (qemu {emulator.version()}, {CPU})"

    def one(key: str) -> Cell:
        return _run(emulator, bundle, key, machine)

    with ThreadPoolExecutor(cores()) as pool:
        return Results(list(pool.map(one, filter(bundle.files.__contains__, FORMATS))))


def _run(emulator: Emulator, bundle: Bundle, key: str, machine: str) -> Cell:
    runtime, path = RUNTIMES[formats.FORMATS[key].tag], bundle.files[key]
    with tempfile.TemporaryDirectory() as scratch:
        counts = Path(scratch) / "counts"
        arguments: list[str | Path] = [
            path,
            bundle.golden.inputs_file,
            str(IMAGES),
            "0",
            str(COUNTED),
        ]
        counts.touch()  # stays empty where the emulator does not start
        cell = program.cell(
            [*emulator.command(counts), RUNNER, *arguments],
            file_format=key,
            path=path,
            runtime=runtime.name,
            machine=machine,
            env=emulator.environment(emulator.site(runtime.lock)),
        )
        marks = [int(line) for line in counts.read_text().splitlines()]
    instructions = tuple(after - before for before, after in pairwise(marks))[::2]
    return replace(cell, cost=replace(cell.cost, instructions=instructions))
