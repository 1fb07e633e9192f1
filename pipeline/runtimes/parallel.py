"""Run files over samples on all cores: one process a core, one thread each.

Several processes of one thread are faster than one of several threads for single images, and on a
busy machine by far: threads that wait for each other spin.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import MachineError
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.process import cores, end_with_parent
from pipeline.progress import progress
from pipeline.runtimes import FloatArray, Runtime, load

if TYPE_CHECKING:
    pass

CHUNK = 48  # images that a worker runs before it reports
NUDGE = 2.0**-23  # relative; the last bit of a float32


@dataclass(frozen=True)
class Run:
    """One file over the first ``count`` samples, ``batch`` images at a time.

    Dynamic quantization sees the range of a whole batch, so what is delivered runs one image at a
    time, as an app sends them. ``nudged`` moves every input by its last bit (see :func:`_nudge`);
    ``float64`` widens an eager model; layers ``restored`` come from the float model of
    ``float_path`` instead of the quantized one.
    """

    key: str
    path: Path
    count: int
    batch: int = 1
    threads: int = 1
    nudged: bool = False
    float64: bool = False
    restored: tuple[str, ...] = ()
    float_path: Path | None = None


Piece = tuple[Run, int]  # a run, and the first of the CHUNK images of this piece


def run_all(runs: list[Run], samples: Path, desc: str) -> dict[str, FloatArray]:
    """Run everything, with a progress bar called ``desc``; return logits [count, classes] by key.

    When a worker is killed, what is left runs again with fewer workers, to the same logits.

    Raises:
        InputError: a file cannot be loaded; nothing is returned.
        MachineError: workers were killed again and again.
    """
    pieces = [(run, start) for run in runs for start in range(0, run.count, CHUNK)]
    rows: dict[Piece, FloatArray] = {}
    with progress(total=sum(run.count for run in runs), desc=desc, unit="image") as bar:
        for most in (cores(), cores() // 2, 1):
            left = [piece for piece in pieces if piece not in rows]
            workers = max(1, min(most, len(left)))
            with suppress(BrokenProcessPool):
                for piece, logits in _results(left, samples, workers):
                    rows[piece] = logits
                    bar.set_postfix_str(piece[0].key, refresh=False)
                    bar.update(len(logits))
                break
        else:
            raise MachineError(
                f"{desc}: a worker process was killed in each of 3 attempts, the last with one "
                "process. The system does this when memory runs out: free some, or use a "
                "smaller model, and run the same command again"
            )
    return {
        run.key: np.concatenate([rows[run, start] for start in range(0, run.count, CHUNK)])
        for run in runs
    }


def _results(
    pieces: list[Piece], samples: Path, workers: int
) -> Iterator[tuple[Piece, FloatArray]]:
    """Yield each piece with its logits as it is done; leave no worker behind, whatever happens."""
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent)
    try:
        with _interrupts_held_back():  # Ctrl-C is for this process, which then ends its workers
            futures = {pool.submit(_run_piece, *piece, samples): piece for piece in pieces}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise
    pool.shutdown()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Deliver Ctrl-C after the block. Processes started in the block never get it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_piece(run: Run, start: int, samples: Path) -> FloatArray:
    runtime = _runtime(run.path, run.threads, run.float64)
    images = _samples(samples).images
    stop = min(start + CHUNK, run.count)
    rows = []
    with _restored(runtime, run):
        for first in range(start, stop, run.batch):
            pixels = images[first : min(first + run.batch, stop)]
            batch = normalize(pixels, runtime.contract.preprocessing)
            rows.append(runtime.logits(_nudge(batch, first) if run.nudged else batch))
    return np.concatenate(rows)


@contextmanager
def _restored(runtime: Runtime, run: Run) -> Iterator[None]:
    """Run the quantized model with some of its layers in float, inside the block."""
    if not run.restored or run.float_path is None:
        yield
        return
    from pipeline.quantization.load import load_restored
    from pipeline.runtimes.eager import EagerRuntime

    assert isinstance(runtime, EagerRuntime)
    quantized = runtime.module
    runtime.module = load_restored(run.path, run.float_path, run.restored)
    try:
        yield
    finally:
        runtime.module = quantized


def _runtime(path: Path, threads: int, float64: bool) -> Runtime:
    return _loader(threads)(path, float64)


@functools.lru_cache(maxsize=1)  # an engine has one number of threads a process, set as it loads
def _loader(threads: int) -> Callable[[Path, bool], Runtime]:
    @functools.lru_cache(maxsize=2)  # a model and its float one; all files of ViT-H/14 fill 14 GB
    def loaded(path: Path, float64: bool) -> Runtime:
        if float64:
            from pipeline.runtimes.eager import EagerRuntime

            return EagerRuntime(path, threads, float64=True)
        return load(path, threads=threads)

    return loaded


@functools.cache
def _samples(folder: Path) -> SampleSet:
    return SampleSet.load(folder)


def _nudge(batch: FloatArray, seed: int) -> FloatArray:
    """Move every input value by its last bit, up or down at random.

    A quantized model answers rounding with a whole quantization step. How far it moves for an
    input that float32 hardly tells apart is the noise floor of everything that comes after it.
    """
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), batch.shape)
    return batch * (1 + signs * np.float32(NUDGE))
