"""Runs `edge-vit` commands in forks of a process that has DVC imported already.

One JSON request a line on stdin: where, arguments, the step before which the process kills itself
(SIGKILL), a file for what it prints. The answer is its exit status, -9 for a killed one.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from pipeline import cli
from pipeline.commands import promote, release  # noqa: F401
from pipeline.registry import git, released, staged, steps
from pipeline.release import verification
from pipeline.release.read import check_sums
from tests.registry.registry_fixture import PUSH

WARM = (  # what the commands import when they need it
    *("dvc.cli.parser", "dvc.commands.artifacts", "dvc.logger", "dvc.ui"),
    *("dvc.repo", "dvc.repo.fetch", "dvc.data_cloud", "dvc.cachemgr", "dvc.stage.cache"),
    *("dvc_data.hashfile.build", "dvc_data.hashfile.transfer", "dvc_data.hashfile.cache"),
    *("dvc_data.index", "dvc_objects.executors", "scmrepo.git", "pygit2", "dulwich.porcelain"),
    *("dvc.repo.artifacts", "dvc.repo.metrics", "dvc.repo.params", "dvc.repo.plots"),
    *("dvc.repo.stage", "dvc.lock", "dvc_data.hashfile.db.local", "dvc_data.hashfile.status"),
    *("gto.tag", "semver", "filelock", "psutil", "platformdirs"),
)


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def make_deadly(at: str) -> None:
    def step(name: str, words: str, do: Callable[[], object], dry: bool = False) -> steps.Step:
        return steps.Step(name, words, die if name == at else do, dry)

    released.Step = staged.Step = step  # type: ignore[assignment,misc]
    if at == PUSH:
        git.Git.push = die  # type: ignore[method-assign,assignment]


def child(
    where: str, arguments: list[str], kill: str | None, small: bool, out: str, dvc: bool = False
) -> None:
    os.chdir(where)
    os.environ["DVC_SITE_CACHE_DIR"] = f"{where}.cache"
    number = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(number, 1)
    os.dup2(number, 2)
    if small:  # these have no model files; what all of `verify` refuses is tested beside it
        verification.verify = lambda folder: check_sums(folder).problems  # type: ignore[assignment]
    if kill:
        make_deadly(kill)
    status = 0
    try:
        if dvc:
            sys.exit(importlib.import_module("dvc.cli").main(arguments))
        cli.main(arguments)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    sys.stdout.flush()
    os._exit(status)


def main() -> None:
    for name in WARM:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                child(**request)
            finally:
                traceback.print_exc()
                os._exit(99)
        _, ended = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    main()
