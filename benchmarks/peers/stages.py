"""Make each file, run it for its answers, count its instructions.

All of it is cached by its inputs, so that a second run does only what changed.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import environment
from benchmarks.peers.peers import BY_NAME, DEVICES, HERE, ComparedFile
from device_tests import cache
from device_tests.arm64 import missing
from device_tests.arm64.emulator import CPU, PLUGIN_SOURCE, Emulator
from device_tests.cache import STAMP, made
from device_tests.program import ONE_THREAD, call
from pipeline import paths
from pipeline.errors import InputError
from pipeline.files import sha256_file, sole_file

RUNNER = "benchmarks.peers.runner"
COUNTED = 2  # inferences between two marks
COUNT_SECONDS = 1800
RUNNERS = (HERE / "runner.py", DEVICES / "runner.py")

Logits = NDArray[np.float32]


def install(file: ComparedFile) -> None:
    """Make the environments that a file needs, and the emulator where there can be one.

    Raises:
        InputError: something cannot be installed on this machine.
    """
    for needed in {lock(file), file.peer.lock if file.peer else lock(file)}:
        environment.python(needed)
    if missing() is None:
        Emulator(cache.folder("arm64")).install()


def export(file: ComparedFile, inputs: Path) -> Path:
    """Let a peer make its file from ``inputs``; return the file that its runtime loads.

    Raises:
        InputError: its environment cannot be installed, or its recipe fails or leaves no file.
    """
    peer = file.peer
    assert peer is not None
    source = environment.ROOT / f"{peer.recipe.replace('.', '/')}.py"
    texts = [source, HERE / "recipes" / "common.py", peer.lock, inputs / STAMP]

    def make(folder: Path) -> None:
        environment.run(peer.lock, peer.recipe, file.variant, inputs, folder)
        if len(list(folder.glob(f"*{file.suffix}"))) != 1:
            raise InputError(f"the recipe left no {file.suffix} file, or several")

    folder = made(_folder(file) / "export", _recipe(texts), make)
    return sole_file(folder, file.suffix)


def size_bytes(file: ComparedFile, path: Path) -> int:
    """Return the bytes to deliver: of one file of ours, or of all that a recipe leaves."""
    if file.peer is None:
        return paths.size_bytes(path)
    return sum(p.stat().st_size for p in path.parent.rglob("*") if p.is_file() and p.name != STAMP)


def answers(file: ComparedFile, path: Path, inputs: Path) -> Logits:
    """Return the logits [n, classes] of a file on inputs [n, 3, H, W], both float32.

    Raises:
        InputError: it does not load or run.
    """
    environment_lock = lock(file)
    recipe = _recipe([*_delivery(file, path), inputs.parent / STAMP, environment_lock, *RUNNERS])

    def make(folder: Path) -> None:
        environment.run(environment_lock, RUNNER, "answer", path, inputs, folder / "logits.npy")

    folder = made(_folder(file) / "answers", recipe, make)
    logits: Logits = np.load(folder / "logits.npy")
    return logits


def instructions(file: ComparedFile, path: Path, inputs: Path) -> list[int]:
    """Return the retired instructions of each of some inferences, on an emulated ARM64 core.

    Raises:
        InputError: there can be no emulator here, or the runtime does not run in it.
    """
    runtime = file.runtime
    if obstacle := missing():
        raise InputError(obstacle.reason)
    emulator = Emulator(cache.folder("arm64"))
    recipe = _recipe(
        [*_delivery(file, path), inputs.parent / STAMP, runtime.arm64, *RUNNERS, PLUGIN_SOURCE]
    )

    def make(folder: Path) -> None:
        _count(emulator, emulator.site(runtime.arm64), path, inputs, folder / "counts")

    folder = made(_folder(file) / "instructions", f"{CPU} {recipe}", make)
    marks = [int(line) for line in (folder / "counts").read_text().splitlines()]
    return [after - before for before, after in pairwise(marks)][::2]


def _count(emulator: Emulator, site: Path, path: Path, inputs: Path, counts: Path) -> None:
    counts.touch()  # stays empty where the emulator does not start
    environment_ = emulator.environment(site) | ONE_THREAD
    environment_["PYTHONPATH"] += f":{environment.ROOT}"
    command = [*emulator.command(counts), "-m", RUNNER, "count", path, inputs, str(COUNTED)]
    call(command, cwd=environment.ROOT, env=environment_, timeout_s=COUNT_SECONDS)
    if len(counts.read_text().splitlines()) != 2 * COUNTED:
        raise InputError("the emulator counted nothing")


def lock(file: ComparedFile) -> Path:
    """Return the lock of the environment that runs a file."""
    return BY_NAME[file.runtime.peer].lock


def _folder(file: ComparedFile) -> Path:
    return cache.folder("peers") / file.key


def _delivery(file: ComparedFile, path: Path) -> list[Path]:
    """The files that a file is run with: its own weights beside it, or nothing else."""
    if file.peer is None:
        return [path, *(p for p in [paths.data_file(path)] if p.is_file())]
    return sorted(p for p in path.parent.rglob("*") if p.is_file() and p.name != STAMP)


def _recipe(files: list[Path]) -> str:
    return " ".join(f"{path.name} {sha256_file(path)}" for path in files)
