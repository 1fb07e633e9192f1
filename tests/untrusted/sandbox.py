"""Run `fetch` on hostile checkpoints in processes that may use little memory and time.

One interpreter imports torch once and forks for each attack. A fork that is killed, runs out of
memory or of time, or ends with a traceback is seen as such; so is whatever it leaves behind.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pipeline.models.build import create

ROOT = Path(__file__).parents[2]
ARCHITECTURE = "test_vit"  # 0.4 million weights
CLASSES = 3
MORE_BYTES = 1 << 30  # beyond what the interpreter with torch has mapped
CPU_SECONDS = 20
SECONDS = 60  # for what waits and does not compute
RAN = "ran"  # the file that a payload writes in its folder

# Writes its files into a folder; returns what of `model` in params.yaml is not the usual.
Attack = Callable[[Path], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Outcome:
    """What an attack led to."""

    status: int  # negative: the signal that killed it
    message: str  # all it wrote
    left: list[str]  # files that were not there before


@cache
def _usual() -> Mapping[str, torch.Tensor]:
    torch.manual_seed(0)
    return create(ARCHITECTURE, num_classes=CLASSES).state_dict()


def usual_state() -> dict[str, torch.Tensor]:
    return dict(_usual())


def attack_all(folder: Path, attacks: Mapping[str, Attack]) -> dict[str, Outcome]:
    """Carry out attacks, each in a folder of its own below ``folder``."""
    plan: dict[str, dict[str, Any]] = {}
    for name, attack in attacks.items():
        place = folder / name
        place.mkdir(parents=True)
        (place / "labels.txt").write_text("cat\ndog\ncow\n")
        model = {"architecture": ARCHITECTURE, "labels": "labels.txt", "sha256": "trust-first-use"}
        plan[name] = model | dict(attack(place) or {})
        plan[name].setdefault("checkpoint", next(p.name for p in place.glob("it*")))
    (folder / "plan.json").write_text(json.dumps(plan))
    subprocess.run(
        [sys.executable, "-m", "tests.untrusted.sandbox", str(folder)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=True,
    )
    found = json.loads((folder / "outcomes.json").read_text())
    for name in attacks:
        shutil.rmtree(folder / name)  # some are large
    return {name: Outcome(**outcome) for name, outcome in found.items()}


def assert_refused(outcome: Outcome, words: str) -> None:
    """Hold an attack to one clear message, and to nothing else."""
    assert outcome.status == 2, outcome
    assert outcome.message.startswith("edge-vit: "), outcome
    assert outcome.message.count("\n") == 1, outcome
    assert len(outcome.message) < 1000, outcome
    assert outcome.message.rstrip("\n").isprintable(), outcome
    assert re.search(words, outcome.message), outcome
    assert outcome.left == [], outcome


def _main(folder: Path) -> None:
    import timm  # noqa: F401

    import pipeline.stages.fetch
    from pipeline.checkpoints import google_npz, transformers_format  # noqa: F401
    from pipeline.params import load_params

    default = load_params(ROOT / "params.yaml")
    plan = json.loads((folder / "plan.json").read_text())
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

    def victim(name: str) -> None:
        from pipeline.errors import exit_on_error
        from pipeline.params import Model

        os.chdir(folder / name)
        os.environ["EDGE_VIT_CACHE"] = str(folder / "cache" / name)
        log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MORE_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        with exit_on_error():
            params = default.model_copy(update={"model": Model.model_validate(plan[name])})
            pipeline.stages.fetch.fetch(params, Path("out"))

    outcomes: dict[str, dict[str, Any]] = {}
    for name in plan:
        before = set(os.listdir(folder / name))
        if (child := os.fork()) == 0:
            status = 1
            try:
                victim(name)
                status = 0
            except SystemExit as exit_:
                status = int(exit_.code or 0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, code, usage = os.wait4(child, 0)
        outcomes[name] = {
            "status": os.waitstatus_to_exitcode(code),
            "message": (folder / f"{name}.log").read_text(errors="replace"),
            "left": sorted(set(os.listdir(folder / name)) - before),
        }
        if "VERBOSE" in os.environ:
            print(name, outcomes[name]["status"], f"{usage.ru_utime:.1f} s", usage.ru_maxrss >> 10)
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
