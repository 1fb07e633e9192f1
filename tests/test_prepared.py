"""What is prepared once is made once, by one process, and anew after a change; children end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.stages.chain import alone
from tests.import_closure import ROOT
from tests.prepared import IN_USE_SECONDS, KEPT, key_of, prepared
from tests.waiting import until


def note_and_wait(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)


def is_running(pid: int) -> bool:
    """Whether it is there and no zombie."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True)


@pytest.mark.parametrize(
    "code",
    [
        "from tests.test_prepared import *; alone(note_and_wait, path)",
        "from tests.children import *; "
        "subprocess.run([*ENDING_WITH_TESTS, 'sh', '-c', 'echo $$ > $0; exec sleep 600', path])",
    ],
)
def test_what_tests_start_ends_when_they_are_killed(tmp_path: Path, code: str) -> None:
    note = tmp_path / "pid"
    given = f"path = pathlib.Path({str(note)!r})"
    parent = python(f"import pathlib, subprocess; {given}; {code}")
    until(lambda: note.exists() and note.read_text() != "")
    child = int(note.read_text())
    assert is_running(child)
    parent.kill()
    parent.wait()
    until(lambda: not is_running(child))


def test_what_a_process_of_its_own_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        alone(int, "x")


def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from tests.prepared import prepared\n"
        f"base = pathlib.Path({str(tmp_path)!r})\n"
        "def make(folder):\n"
        "    open(base / 'made', 'a').write('x'); time.sleep(0.5); (folder / 'a').write_text('b')\n"
        "assert (prepared(base / 'cache', 'key', make) / 'a').read_text() == 'b'\n"
    )
    assert [process.wait() for process in [python(code), python(code)]] == [0, 0]
    assert (tmp_path / "made").read_text() == "x"


def test_what_could_not_be_made_is_not_there_and_is_made_next_time(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("no space")

    with pytest.raises(ValueError, match="no space"):
        prepared(tmp_path, "key", fail)
    assert not (tmp_path / "key").exists()
    assert list(prepared(tmp_path, "key", lambda folder: None).iterdir()) == []


def test_old_entries_are_removed_and_those_in_use_are_kept(tmp_path: Path) -> None:
    keys = [f"key{number}" for number in range(KEPT + 3)]
    for age, key in enumerate(keys):
        entry = prepared(tmp_path, key, lambda folder: None)
        if key != keys[0]:  # one that a session uses now
            old = time.time() - IN_USE_SECONDS - 100 + age
            os.utime(entry, (old, old))
    prepared(tmp_path, "new", lambda folder: None)
    kept = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert kept == {"new", keys[0], keys[-1]}


def test_the_key_follows_files_and_texts(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("a = 1")
    key = key_of([path], "text")
    assert key_of([path], "text") == key != key_of([path], "other")
    path.write_text("a = 2")
    assert key_of([path], "text") != key
