"""Run DVC's stages, the slow independent ones beside the others: `python -m pipeline.run [STAGE]`.

DVC runs one stage at a time. Here the stages of ``BESIDE`` run in a second lane, as soon as what
they read is there; `dvc commit` records them as `dvc repro` would have. Afterwards `dvc repro` has
nothing to do. It stays the plain way to the same result.
"""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import EdgeVitError, InputError, exit_on_error
from pipeline.files import clean_up_after_killed, parse_json, read_json, write_json
from pipeline.params import load_params
from pipeline.paths import ARTIFACTS, Recorded

BESIDE = ("reference", "export_executorch")
# Of the default run on two cores, until a run here has recorded its own.
SECONDS = {
    "fetch": 6,
    "samples": 8,
    "rewrite": 25,
    "hessians": 12,
    "quantize": 8,
    "script": 8,
    "optimize": 5,
    "lite": 5,
    "export_onnx": 25,
    "export_plugins": 1,
    "golden": 8,
    "parity": 60,
    "latency": 45,
    "report": 8,
    "gate": 4,
    "publish": 6,
}


class StageError(EdgeVitError):
    """A stage failed; it has said why."""

    def __init__(self, stage: str, status: int) -> None:
        super().__init__(f"stage {stage} failed; what the stages before it made is kept")
        self.stage = stage
        self.exit_status = status


@dataclass
class Run:
    """Stages ``names`` of DVC repository ``repo``, in an order in which they can run."""

    repo: Any
    names: list[str]
    needs: dict[str, set[str]]  # by stage: all stages before it
    beside: tuple[str, ...]
    seconds: dict[str, float]
    done: set[str] = field(default_factory=set)
    lane: tuple[str, subprocess.Popen[bytes], float] | None = None

    def go(self) -> None:
        """Run whatever has changed.

        Raises:
            StageError: with the exit status of the stage that failed.
        """
        try:
            for name in (name for name in self.names if name not in self.beside):
                self._beside_before(name)
                if self._changed(name):
                    self._announce(name)
                    self._reproduce(name)
                self.done.add(name)
            self._beside_before(None)
        finally:
            if self.lane is not None:
                self.lane[1].terminate()
                self.lane[1].wait()

    def _beside_before(self, name: str | None) -> None:
        """Wait for the stages that stage ``name`` reads (None: for all); start what can start."""
        while True:
            if self.lane is not None and self.lane[1].poll() is not None:
                self._record()
            self._start()
            waited = set(self.names) if name is None else self.needs[name]
            if not (set(self.beside) & set(self.names) & waited) - self.done:
                return
            if self.lane is not None:
                self.lane[1].wait()

    def _start(self) -> None:
        for name in self.beside:
            if self.lane is not None:
                return
            if name not in self.names or name in self.done or self.needs[name] - self.done:
                continue
            stage = self._stage(name)
            if not self._changed(name) or self._in_run_cache(stage):
                self._reproduce(name)
                self.done.add(name)
            else:
                self._announce(name)
                process = subprocess.Popen(shlex.split(stage.cmd))
                self.lane = name, process, time.monotonic()

    def _record(self) -> None:
        assert self.lane is not None
        name, process, started = self.lane
        self.lane = None
        if process.returncode:
            raise StageError(name, process.returncode)
        self.repo.commit(target=name, force=True)
        self.seconds[name] = time.monotonic() - started
        self.done.add(name)

    def _reproduce(self, name: str) -> None:
        from dvc.exceptions import ReproductionError

        started = time.monotonic()
        try:
            ran = self.repo.reproduce(name, single_item=True)
        except ReproductionError as error:
            status = re.search(r"exited with (\d+)$", str(error.__cause__))
            if status is None:
                raise
            raise StageError(name, int(status[1])) from None
        if ran:
            self.seconds[name] = time.monotonic() - started

    def _stage(self, name: str) -> Any:
        (stage,) = self.repo.stage.collect(name)
        return stage

    def _changed(self, name: str) -> bool:
        return bool(self.repo.status(targets=[name]))

    def _in_run_cache(self, stage: Any) -> bool:
        from dvc.stage.cache import RunCacheNotFoundError

        try:
            with self.repo.lock:
                self.repo.stage_cache.restore(stage, dry=True)
        except RunCacheNotFoundError:
            return False
        return True

    def _announce(self, name: str) -> None:
        number = self.names.index(name) + 1
        lane = [other for other in self.names[number - 1 :] if other not in self.beside]
        left = sum(self.seconds.get(other, 0) for other in lane)
        about = f"{left / 60:.0f} min" if left >= 90 else f"{max(10, round(left, -1)):.0f} s"
        when = "beside the others" if name in self.beside else f"about {about} left"
        print(f"stage {number} of {len(self.names)}: {name}, {when}", flush=True)


def run(root: Path, target: str | None = None, beside: tuple[str, ...] = BESIDE) -> None:
    """Bring ``target`` of ``dvc.yaml`` below ``root`` up to date, or all stages.

    Raises:
        InputError: DVC refuses, or has no such stage.
        StageError: a stage failed; the error has its exit status.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from networkx import descendants

    logging.getLogger("dvc").setLevel(logging.WARNING)  # `Running stage`: said here

    # DVC asks for git, which a source archive has not.
    config = {} if (root / ".git").exists() else {"core": {"no_scm": True}}
    try:
        _mend(root)
        with Repo(str(root), config=config) as repo:
            stages = {stage.name: stage for stage in repo.stage.load_all("dvc.yaml")}
            for out in (out for stage in stages.values() for out in stage.outs):
                path = Path(out.fs_path)  # DVC may restore it, and then no stage writes it
                if path.parent.is_dir():
                    clean_up_after_killed(path)
            if target is not None and target not in stages:
                raise InputError(f"dvc.yaml has no stage {target}; it has {', '.join(stages)}")
            graph = repo.index.graph
            needs = {
                name: {other.name for other in descendants(graph, stage)}
                for name, stage in stages.items()
            }
            wanted = {*needs[target], target} if target else set(stages)
            names = [name for name in stages if name in wanted]
            record = Path(repo.tmp_dir) / "stage_seconds.json"
            seconds = SECONDS | (read_json(record) if record.is_file() else {})
            whole = Run(repo, names, needs, beside, seconds)
            try:
                whole.go()
            finally:
                write_json(record, whole.seconds)
    except DvcException as error:
        raise InputError(f"DVC: {error}") from error


def _mend(root: Path) -> None:
    """Remove the files of DVC's that a killed process left empty or cut: DVC would only refuse.

    It makes both anew: ``rwlock`` lists processes that live, ``dvc.lock`` what was run.
    """
    lock, rwlock = root / "dvc.lock", root / ".dvc" / "tmp" / "rwlock"
    damaged = [lock] if lock.is_file() and not lock.read_bytes().strip() else []
    if rwlock.is_file():
        try:
            parse_json(rwlock.read_text(errors="replace"))
        except ValueError:
            damaged.append(rwlock)
    for path in damaged:
        path.unlink(missing_ok=True)
        print(f"{path.relative_to(root)} was left damaged by a killed run and is made anew")


def main(arguments: list[str] | None = None) -> None:
    """Run the stages up to the one that the command line names, or all; print the result."""
    given = sys.argv[1:] if arguments is None else arguments
    target = given[0] if given else None
    with exit_on_error():
        try:
            run(Path.cwd(), target)
        except StageError as error:
            if error.stage == "gate":
                _show_files()
            raise
        if target in (None, "gate"):
            _show_files()
            _conclude()


def _show_files() -> None:
    from pipeline.commands.gate import files_table

    print(f"\n{files_table(load_params(), ARTIFACTS, Recorded())}\n", flush=True)


def _conclude() -> None:
    """Judged anew, so that a run with nothing to do shows its verdict, too."""
    from pipeline.commands.gate import conclusion
    from pipeline.release.judge import judge

    params, recorded = load_params(), Recorded()
    verdict = judge(params, ARTIFACTS, recorded).verdict
    print(conclusion(verdict, params, ARTIFACTS, recorded))


if __name__ == "__main__":
    main()
