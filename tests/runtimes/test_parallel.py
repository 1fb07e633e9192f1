"""Workers that are killed, Ctrl-C, and threads of files that are kept loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pipeline.errors import MachineError
from pipeline.images.samples import SampleSet
from pipeline.paths import delivered_files
from pipeline.runtimes import parallel
from pipeline.runtimes.parallel import Run, run_all


@contextmanager
def at_each_worker(act: Callable[[int], None], *, times: int | None = None):
    """Call ``act`` with the process id of each worker as it appears, at most ``times`` times."""
    done, seen = threading.Event(), set()

    def watch() -> None:
        while not done.wait(0.02):
            for worker in multiprocessing.active_children():
                if worker.pid not in seen and (times is None or len(seen) < times):
                    seen.add(worker.pid)
                    act(worker.pid)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        try:
            yield seen
        finally:
            done.set()


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


@pytest.fixture
def answers(healthy):
    """Run the int8 ONNX file on all samples, as often as asked."""
    samples, path = healthy / "samples", delivered_files(healthy)["int8_onnx"]
    count = len(SampleSet.load(samples))

    def answer(times=1):
        runs = [Run(f"x{number}", path, count) for number in range(times)]
        return run_all(runs, samples, "test")["x0"]

    return answer


@pytest.mark.full
def test_a_killed_worker_changes_no_logits(answers):
    expected = answers()
    with at_each_worker(kill, times=1) as killed:
        assert np.array_equal(answers(), expected)
    assert len(killed) == 1


@pytest.mark.full
def test_workers_killed_in_each_attempt_end_in_one_message(answers):
    with at_each_worker(kill) as killed, pytest.raises(MachineError, match="memory") as error:
        answers()
    assert error.value.exit_status == 2
    assert "\n" not in str(error.value)
    assert len(killed) >= 3


@pytest.mark.full
def test_ctrl_c_ends_at_once_and_leaves_no_worker(answers):
    interrupted = []

    def interrupt(_: int) -> None:
        time.sleep(1)
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with at_each_worker(interrupt, times=1), pytest.raises(KeyboardInterrupt):
        answers(times=20)
    assert time.monotonic() - interrupted[0] < 5
    deadline = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert multiprocessing.active_children() == []


def test_a_file_that_is_kept_loaded_runs_on_its_own_number_of_threads(healthy):
    path = delivered_files(healthy)["ptl"]
    for threads in (1, 2, 1):
        parallel._run_piece(Run("x", path, 1, threads=threads), 0, healthy / "samples")
        assert torch.get_num_threads() == threads
