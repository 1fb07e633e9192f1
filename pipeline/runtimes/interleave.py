"""Time files that take turns: what disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.progress import progress
from pipeline.runtimes import FloatArray, Runtime


def interleave(
    runtimes: Mapping[str, Runtime],
    image: Callable[[int], FloatArray],
    *,
    warmup: int,
    runs: int,
    min_seconds: float,
    name: str,
) -> dict[str, list[float]]:
    """Let the runtimes take turns until there are enough rounds and they took long enough.

    ``image`` gives the input of a round [1, 3, H, W]. Returns the milliseconds of each runtime,
    one a round; those of the first ``warmup`` rounds are left out. ``name`` is the progress bar's.
    """
    rounds: dict[str, list[float]] = {key: [] for key in runtimes}
    rng = np.random.default_rng(0)
    with progress(desc=name, unit="round", total=warmup + runs) as bar:
        number, started = 0, time.perf_counter()
        while number < warmup + runs or time.perf_counter() - started < min_seconds:
            if number == warmup:
                started = time.perf_counter()
            batch = image(number)
            # A new order each round, so that nobody always inherits the same neighbour's caches.
            for key in rng.permutation(list(runtimes)).tolist():
                elapsed = time_ms(runtimes[key], batch)
                if number >= warmup:
                    rounds[key].append(round(elapsed, 4))
            number += 1
            bar.update()
    return rounds


def time_ms(runtime: Runtime, batch: FloatArray) -> float:
    """Return how many milliseconds one inference takes."""
    started = time.perf_counter()
    runtime.logits(batch)
    return (time.perf_counter() - started) * 1e3
