"""Run other programs: tools that install, and runners that print their results as JSON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_tests.target import Cell, Cost
from pipeline.errors import InputError
from pipeline.files import sha256_file

LAST_LINES = 12
# Threads that spin while they wait for work are counted as work.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def call(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900,
) -> str:
    """Run a tool; return what it printed on stdout.

    Raises:
        InputError: it is not installed, failed, or took too long; with its last lines.
    """
    ran = _run(command, cwd, env, timeout_s)
    if ran.returncode:
        raise InputError(_tail(ran))
    return ran.stdout


def _run(
    command: Sequence[str | Path],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    timeout_s: float,
) -> subprocess.CompletedProcess[str]:
    words = [str(part) for part in command]
    try:
        return subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise InputError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{Path(words[0]).name} took longer than {timeout_s:g} s") from None


def _tail(ran: subprocess.CompletedProcess[str]) -> str:
    lines = (ran.stdout + ran.stderr).strip().splitlines()[-LAST_LINES:]
    return "\n".join([f"{' '.join(ran.args)[:200]} failed ({ran.returncode}):", *lines])


def cell(
    command: Sequence[str | Path],
    *,
    file_format: str,
    path: Path,
    runtime: str,
    machine: str,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900,
) -> Cell:
    """Run a runner on a delivered file and read its last line of JSON.

    The runner prints one object: ``loads``, ``runs``, ``error`` (text or null), ``logits`` (a list
    for each image, or null) and, where it can tell, ``load_ms``, ``first_ms``, ``runs_ms``,
    ``peak_memory_mb`` and ``instructions``. Its exit status does not matter, and one that crashes
    is a finding about the file, not an error of ours.

    Raises:
        InputError: there is no such runner.
    """
    ran = _run(command, None, {**ONE_THREAD, **(env or {})}, timeout_s)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        found = {"loads": False, "runs": False, "error": _tail(ran)}
    return Cell(
        format=file_format,
        sha256=sha256_file(path),
        runtime=runtime,
        machine=machine,
        loads=bool(found["loads"]),
        runs=bool(found["runs"]),
        error=found.get("error"),
        logits=found.get("logits"),
        cost=Cost(
            load_ms=found.get("load_ms"),
            first_ms=found.get("first_ms"),
            runs_ms=tuple(found.get("runs_ms") or ()),
            peak_memory_mb=found.get("peak_memory_mb"),
            instructions=tuple(found.get("instructions") or ()),
        ),
    )
