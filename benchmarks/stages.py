"""`make bench`: wall time and peak memory of each stage up to latency, for three sizes of DeiT.

Weights are random (time and memory do not depend on their values) and samples few, so the table
says what one run of each stage costs beside the images it measures. Each stage is its own process,
as under DVC; memory is that of its largest process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from tabulate import tabulate

from pipeline.errors import EdgeVitError, exit_on_error
from pipeline.files import sha256_file

ARCHITECTURES = (
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
)
JUDGING = ("report", "gate", "publish")  # read evidence; take no time that a model decides
SAMPLES = 32
ROOT = Path(__file__).resolve().parent.parent


def bench(architectures: list[str], samples: int) -> str:
    """Run every stage once for each architecture; return the table as Markdown."""
    commands = stage_commands()
    columns = {name: _measure(name, samples, commands) for name in architectures}
    rows = [
        [
            stage,
            *(
                f"{columns[name][stage][0]:.1f} s, {columns[name][stage][1]:.0f} MB"
                for name in columns
            ),
        ]
        for stage in commands
    ]
    total = [
        f"{sum(seconds for seconds, _ in column.values()):.0f} s" for column in columns.values()
    ]
    return tabulate([*rows, ["all", *total]], ["stage", *columns], tablefmt="github")


def stage_commands() -> dict[str, str]:
    """Return the command of each stage that measures or makes files, in the order of dvc.yaml."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage["cmd"] for name, stage in stages.items() if name not in JUDGING}


def _measure(
    architecture: str, samples: int, commands: dict[str, str]
) -> dict[str, tuple[float, float]]:
    """Return seconds and megabytes of each stage."""
    with tempfile.TemporaryDirectory(prefix="edge-vit-bench-") as folder:
        work = Path(folder)
        _prepare(work, architecture, samples)
        measured = {}
        for stage, command in commands.items():
            print(f"{architecture}: {stage}", file=sys.stderr, flush=True)
            measured[stage] = _run(stage, command, work)
        return measured


def _prepare(work: Path, architecture: str, samples: int) -> None:
    from safetensors.torch import save_file

    from pipeline.images.idx import FASHION_MNIST_CLASSES
    from pipeline.models.build import create

    weights = work / "random.safetensors"
    save_file(
        create(architecture, num_classes=len(FASHION_MNIST_CLASSES)).state_dict(),
        weights,
    )
    (work / "labels.txt").write_text("\n".join(FASHION_MNIST_CLASSES) + "\n")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["model"] = {
        "checkpoint": str(weights),
        "architecture": architecture,
        "sha256": sha256_file(weights),
        "labels": str(work / "labels.txt"),
    }
    params["samples"] |= {
        "source": str(ROOT / "embedded" / "fashion_mnist"),
        "limit": samples,
        "calibration": 8,
    }
    params["golden"]["photographs"] = str(ROOT / "embedded" / "photos")
    (work / "params.yaml").write_text(yaml.safe_dump(params))


def _run(stage: str, command: str, work: Path) -> tuple[float, float]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    started = time.perf_counter()
    with open(work / "log.txt", "w+") as log:
        process = subprocess.Popen(
            f"exec env {command}",
            shell=True,  # as DVC runs it; it may begin with variables
            cwd=work,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise EdgeVitError(f"stage {stage} failed:\n{log.read()[-2000:]}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return time.perf_counter() - started, kilobytes / 1e3


def main() -> None:
    """Measure the chosen architectures and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("architectures", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--samples", type=int, default=SAMPLES, help="images (default %(default)s)")
    chosen = parser.parse_args()
    with exit_on_error():
        print(bench(chosen.architectures, chosen.samples))


if __name__ == "__main__":
    main()
