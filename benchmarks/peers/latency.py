"""Time files that take turns, each warm in a process of its own: runtimes that cannot share one."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.peers import environment
from benchmarks.peers.stages import RUNNER
from pipeline.errors import InputError
from pipeline.progress import progress

ANSWER_SECONDS = 300  # to load a file, or to run it once
WARMUP = 5  # inferences of each before any is counted
IMAGES = 64  # of the inputs, in turn


@dataclass(frozen=True)
class Server:
    """A process that holds one loaded file and waits."""

    process: subprocess.Popen[str]
    requests: IO[str]
    replies: IO[str]

    def ask(self, request: str = "") -> str:
        """Send a line, unless it is empty, and wait for the answer.

        Raises:
            InputError: the process ended, or does not answer.
        """
        watchdog = threading.Timer(ANSWER_SECONDS, self.process.kill)
        watchdog.start()
        try:
            if request:
                print(request, file=self.requests, flush=True)
            reply = self.replies.readline()
        except BrokenPipeError:
            reply = ""
        finally:
            watchdog.cancel()
        if not reply:
            raise InputError(f"the process that was timed ended ({self.process.wait()})")
        return reply


@contextmanager
def server(lock: Path, path: Path, inputs: Path) -> Iterator[Server]:
    """Start a process that has ``path`` loaded; it ends with the block.

    Raises:
        InputError: it does not load.
    """
    command = [environment.python(lock), "-m", RUNNER, "serve", path, inputs]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=environment.ROOT,
        env={**os.environ, **environment.variables(lock)},
    )
    assert process.stdin
    assert process.stdout
    try:
        started = Server(process, process.stdin, process.stdout)
        started.ask()
        yield started
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):  # of a request that nobody took
            process.stdin.close()


def measure(
    files: Mapping[str, tuple[Path, Path]], inputs: Path, rounds: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time files in turns, in a new order each round, so that all suffer the same disturbances.

    ``files`` has, by key, the lock of the runtime's environment and the file; ``inputs`` is
    float32 [n, 3, H, W].

    Returns:
        The milliseconds of each file, one a round, and why the others could not be timed.
    """
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    images = min(IMAGES, len(np.load(inputs, mmap_mode="r")))
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for key, (lock, path) in files.items():
            try:
                servers[key] = stack.enter_context(server(lock, path, inputs))
                times[key] = []
            except InputError as error:
                failed[key] = str(error)
        for number in progress(range(WARMUP + rounds), desc="timing", unit="round"):
            for key in rng.permutation(list(times)).tolist():
                try:
                    elapsed = float(servers[key].ask(str(number % images)))
                except InputError as error:
                    failed[key] = str(error)
                    del times[key]
                    continue
                if number >= WARMUP:
                    times[key].append(round(elapsed, 4))
    return times, failed
