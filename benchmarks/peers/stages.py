"""What is done with each file: made, asked for its answers, counted. All of it is cached by what
went in, so that a second run does only what changed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import environment
from benchmarks.peers.field import BY_NAME, DEVICES, HERE, Contender
from device_tests import cache
from device_tests.arm64 import missing
from device_tests.arm64.emulator import CPU, PLUGIN_SOURCE, Emulator
from device_tests.cache import STAMP, made
from device_tests.program import ONE_THREAD, call
from pipeline import paths
from pipeline.errors import InputError
from pipeline.files import sha256_file, sole_file

CONTENDER = "benchmarks.peers.contender"
COUNTED = 2  # inferences between two marks
COUNT_SECONDS = 1800
RUNNERS = (HERE / "contender.py", DEVICES / "runner.py")

Logits = NDArray[np.float32]


def install(contender: Contender) -> None:
    """Make the environments that a contender needs, and the emulator where there can be one.

    Raises:
        InputError: something cannot be installed on this machine.
    """
    for needed in {lock(contender), contender.peer.lock if contender.peer else lock(contender)}:
        environment.python(needed)
    if missing() is None:
        Emulator(cache.folder("arm64")).install()


def export(contender: Contender, given: Path) -> Path:
    """Let a peer make its file of what it is given; return the file that its runtime loads.

    Raises:
        InputError: its environment cannot be installed, or its recipe fails or leaves no file.
    """
    peer = contender.peer
    assert peer is not None
    source = environment.ROOT / f"{peer.recipe.replace('.', '/')}.py"
    texts = [source, HERE / "recipes" / "common.py", peer.lock, given / STAMP]

    def make(folder: Path) -> None:
        environment.run(peer.lock, peer.recipe, contender.variant, given, folder)
        if len(list(folder.glob(f"*{contender.suffix}"))) != 1:
            raise InputError(f"the recipe left no {contender.suffix} file, or several")

    folder = made(_folder(contender) / "export", _recipe(texts), make)
    return sole_file(folder, contender.suffix)


def size_bytes(contender: Contender, path: Path) -> int:
    """What is to be delivered: one file of ours, or all that a recipe leaves."""
    if contender.peer is None:
        return paths.size_bytes(path)
    return sum(p.stat().st_size for p in path.parent.rglob("*") if p.is_file() and p.name != STAMP)


def answers(contender: Contender, path: Path, inputs: Path) -> Logits:
    """Logits [n, classes] of a file on inputs [n, 3, H, W].

    Raises:
        InputError: it does not load or run.
    """
    where = lock(contender)
    recipe = _recipe([*_delivery(contender, path), inputs.parent / STAMP, where, *RUNNERS])

    def make(folder: Path) -> None:
        environment.run(where, CONTENDER, "answer", path, inputs, folder / "logits.npy")

    folder = made(_folder(contender) / "answers", recipe, make)
    logits: Logits = np.load(folder / "logits.npy")
    return logits


def instructions(contender: Contender, path: Path, inputs: Path) -> list[int]:
    """Retired instructions of each of some inferences, on an emulated ARM64 core.

    Raises:
        InputError: there can be no emulator here, or the runtime does not run in it.
    """
    runtime = contender.runtime
    if lacking := missing():
        raise InputError(lacking.reason)
    emulator = Emulator(cache.folder("arm64"))
    recipe = _recipe(
        [*_delivery(contender, path), inputs.parent / STAMP, runtime.arm64, *RUNNERS, PLUGIN_SOURCE]
    )

    def make(folder: Path) -> None:
        _count(emulator, emulator.site(runtime.arm64), path, inputs, folder / "counts")

    folder = made(_folder(contender) / "instructions", f"{CPU} {recipe}", make)
    marks = [int(line) for line in (folder / "counts").read_text().splitlines()]
    return [after - before for before, after in pairwise(marks)][::2]


def _count(emulator: Emulator, site: Path, path: Path, inputs: Path, counts: Path) -> None:
    counts.touch()  # stays empty where the emulator does not start
    environment_ = emulator.environment(site) | ONE_THREAD
    environment_["PYTHONPATH"] += f":{environment.ROOT}"
    command = [*emulator.command(counts), "-m", CONTENDER, "count", path, inputs, str(COUNTED)]
    call(command, cwd=environment.ROOT, env=environment_, timeout_s=COUNT_SECONDS)
    if len(counts.read_text().splitlines()) != 2 * COUNTED:
        raise InputError("the emulator counted nothing")


def lock(contender: Contender) -> Path:
    """What the environment is made by that runs a contender's file."""
    return BY_NAME[contender.runtime.peer].lock


def _folder(contender: Contender) -> Path:
    return cache.folder("peers") / contender.key


def _delivery(contender: Contender, path: Path) -> list[Path]:
    """The files that a file is run with: its own weights beside it, or nothing else."""
    if contender.peer is None:
        return [path, *(p for p in [paths.data_file(path)] if p.is_file())]
    return sorted(p for p in path.parent.rglob("*") if p.is_file() and p.name != STAMP)


def _recipe(files: list[Path]) -> str:
    return " ".join(f"{path.name} {sha256_file(path)}" for path in files)
