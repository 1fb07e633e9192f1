"""`make bench-serve`: what `edge-vit serve` carries on this machine, asked by a real client.

Two loads for each runtime: as many connections as workers, each asking again when answered, for
throughput and latency; then many more at once than the queue takes, for what happens to them.
Client and server share this machine's cores. Percentiles have one-sided 99% bounds, where the
number of answers supports them: p99 needs 459.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from pipeline.errors import EdgeVitError, exit_on_error
from pipeline.metrics import timing
from pipeline.process import cores

IMAGE = Path("embedded/photos/cat-451x299.jpg")
RUNTIMES = ("lite", "int8", "executorch")
ANSWERS = 500
OVERLOAD = 64  # connections
BACK_OFF_SECONDS = 0.1  # sooner than told, so that the load stays
START_SECONDS, STOP_SECONDS = 120, 60
CONFIDENCE = 0.99


@dataclass
class Load:
    """What became of the requests of one load."""

    seconds: float = 0.0
    answered_ms: list[float] = field(default_factory=list)
    rejected: int = 0  # told when to come back
    lost: int = 0  # everything else


def bench(release: Path | None, runtimes: Sequence[str], answers: int) -> str:
    """Load a server of each runtime; return the table as Markdown.

    Raises:
        EdgeVitError: a server does not start, or does not stop as it should.
    """
    rows = []
    for runtime in runtimes:
        with _server(release, runtime) as address:
            for connections in (cores(), OVERLOAD):
                print(f"{runtime}: {connections} connections", file=sys.stderr, flush=True)
                load = asyncio.run(_ask(address, connections, answers))
                rows.append([runtime, connections, *_cells(load)])
    heads = ["runtime", "connections", "answered", "a second", "p50 ms", "p99 ms"]
    return tabulate(rows, [*heads, "rejected", "lost"], tablefmt="github", disable_numparse=True)


def _cells(load: Load) -> list[str]:
    per_second = len(load.answered_ms) / load.seconds
    quantiles = [_quantile(load.answered_ms, quantile) for quantile in (0.5, 0.99)]
    counts = [str(load.rejected), str(load.lost)]
    return [str(len(load.answered_ms)), f"{per_second:.1f}", *quantiles, *counts]


def _quantile(values: list[float], quantile: float) -> str:
    bounds = timing.quantile_bounds(values, quantile, CONFIDENCE)
    if bounds.low is None or bounds.high is None:
        return "too few"
    return f"{bounds.estimate:.1f} [{bounds.low:.1f}, {bounds.high:.1f}]"


async def _ask(address: str, connections: int, answers: int) -> Load:
    """Ask until so many are answered, over connections that each wait for their answer."""
    import httpx2

    image, load = IMAGE.read_bytes(), Load()

    async def one(client: httpx2.AsyncClient) -> None:
        while len(load.answered_ms) < answers and load.lost < answers:
            started = time.perf_counter()
            try:
                answer = await client.post(address, content=image)
            except httpx2.HTTPError:
                load.lost += 1
                continue
            if answer.status_code == 200:
                load.answered_ms.append((time.perf_counter() - started) * 1e3)
            elif answer.status_code in (429, 503) and "retry-after" in answer.headers:
                load.rejected += 1
                await asyncio.sleep(BACK_OFF_SECONDS)
            else:
                load.lost += 1

    limits = httpx2.Limits(max_connections=connections)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
        started = time.perf_counter()
        await asyncio.gather(*(one(client) for _ in range(connections)))
        load.seconds = time.perf_counter() - started
    return load


@contextlib.contextmanager
def _server(release: Path | None, runtime: str) -> Iterator[str]:
    """A server that is ready, and stops when the block ends."""
    import httpx2

    chosen = ["--release", str(release)] if release else []
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--runtime", runtime, *chosen], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout
        found = re.search(rb"http://\S+?/", process.stdout.readline())
        if found is None:
            raise EdgeVitError(f"the server did not start; `edge-vit serve --runtime {runtime}`?")
        address = found[0].decode()
        deadline = time.monotonic() + START_SECONDS
        while httpx2.get(f"{address}ready").status_code != 200:
            if time.monotonic() > deadline:
                raise EdgeVitError("the server is not ready after two minutes")
            time.sleep(0.2)
        yield address
        process.send_signal(signal.SIGTERM)
        if process.wait(STOP_SECONDS):
            raise EdgeVitError(f"the server stopped with exit status {process.returncode}")
    finally:
        process.kill()
        process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the servers of the chosen runtimes and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("runtimes", nargs="*", default=list(RUNTIMES), metavar="RUNTIME")
    parser.add_argument("--release", type=Path, metavar="DIR")
    parser.add_argument("--answers", type=int, default=ANSWERS, help="of each load (%(default)s)")
    options = parser.parse_args(arguments)
    if options.answers < 1:
        parser.error("--answers must be at least 1")
    with exit_on_error():
        print(bench(options.release, options.runtimes, options.answers))


if __name__ == "__main__":
    main()
