"""Run files over samples on all cores: one process a core, one thread each.

Several processes of one thread are faster than one of several threads for single images, and on a
busy machine by far: threads that wait for each other spin.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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


def run_all(runs: list[Run], samples: Path, words: str) -> dict[str, FloatArray]:
    """Run everything, with a progress bar called ``words``; return logits [count, classes] by key.

    Raises:
        InputError: a file cannot be loaded; nothing is returned.
    """
    pieces = [(run, start) for run in runs for start in range(0, run.count, CHUNK)]
    rows: dict[tuple[Run, int], FloatArray] = {}
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(
            min(cores(), len(pieces)), mp_context=spawn, initializer=end_with_parent
        ) as pool,
        progress(total=sum(run.count for run in runs), desc=words, unit="image") as bar,
    ):
        futures: dict[Future[FloatArray], tuple[Run, int]] = {
            pool.submit(_run_piece, run, start, samples): (run, start) for run, start in pieces
        }
        try:
            for future in as_completed(futures):
                rows[futures[future]] = future.result()
                bar.set_postfix_str(futures[future][0].key, refresh=False)
                bar.update(len(future.result()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {
        run.key: np.concatenate([rows[run, start] for start in range(0, run.count, CHUNK)])
        for run in runs
    }


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


@functools.lru_cache(maxsize=2)  # a model and its float one; all files of ViT-H/14 fill 14 GB
def _runtime(path: Path, threads: int, float64: bool) -> Runtime:
    if float64:
        from pipeline.runtimes.eager import EagerRuntime

        return EagerRuntime(path, threads, float64=True)
    return load(path, threads=threads)


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
