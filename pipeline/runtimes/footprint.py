"""How much memory it takes to load and run a file, each in a process of its own.

Resident memory of one process that holds several files cannot be told apart. The process first
imports what runs the file, so that what is counted is the file's own: weights, their packed copies
and the activations of a few inferences.

Use: python -m pipeline.runtimes.footprint FILE SAMPLES THREADS
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.process import cores

INFERENCES = 3


@dataclass(frozen=True)
class Footprint:
    """Memory in MB (10^6 bytes)."""

    peak_memory_mb: float  # of the whole process, Python and libraries included
    own_memory_mb: float | None  # what loading and running added; None where it cannot be told


def measure(files: dict[str, Path], samples: Path, threads: int) -> dict[str, Footprint]:
    """Measure each file on the first of the samples, as many at once as there are cores.

    Raises:
        InputError: a file cannot be loaded or run.
    """
    with ThreadPoolExecutor(cores()) as pool:
        footprints = pool.map(lambda path: _in_process(path, samples, threads), files.values())
        return dict(zip(files, footprints, strict=True))


def _in_process(path: Path, samples: Path, threads: int) -> Footprint:
    command = [sys.executable, "-m", __name__, str(path), str(samples), str(threads)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or [f"exit status {ran.returncode}"]
        raise InputError(f"{path}: cannot be run in a process of its own: {last[0]}")
    return Footprint(**json.loads(ran.stdout.splitlines()[-1]))


def _measure(path: Path, samples: Path, threads: int) -> Footprint:
    from pipeline.images.preprocessing import normalize
    from pipeline.images.samples import SampleSet
    from pipeline.runtimes import import_for, load

    import_for(path)
    images = SampleSet.load(samples).images[:1]
    before, exact = _now_mb(), _forget_peak()
    runtime = load(path, threads=threads)
    batch = normalize(images, runtime.contract.preprocessing)
    for _ in range(INFERENCES):
        runtime.logits(batch)
    peak = _peak_mb()
    own = round(peak - before, 1) if exact and before is not None else None
    return Footprint(round(peak, 1), own)


def _forget_peak() -> bool:
    """Let the kernel count the peak anew (Linux); return whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _now_mb() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _peak_mb() -> float:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    line = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert line, "Linux always tells"
    return int(line[1]) * 1024 / 1e6


def main() -> None:
    """Load the file that the command line names, run it once and print its memory as JSON."""
    path, samples, threads = sys.argv[1:]
    print(json.dumps(asdict(_measure(Path(path), Path(samples), int(threads)))))


if __name__ == "__main__":
    main()
