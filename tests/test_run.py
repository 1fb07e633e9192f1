"""The runner of stages: two at a time, recorded by DVC, with the status of what fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest
import yaml

from pipeline.errors import InputError
from pipeline.run import StageError, main, run

# DVC uses what its own dependencies have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
COMMAND = f"{sys.executable} work.py"
WORK = """
import pathlib, sys, time
name, seconds, status, *inputs = sys.argv[1:]
started = time.time()
text = "".join(pathlib.Path(f"{other}.txt").read_text() for other in inputs)
time.sleep(float(seconds))
if status != "0":
    sys.exit(int(status))
pathlib.Path(f"{name}.txt").write_text(text + name)
with open("log", "a") as log:
    log.write(f"{name} {started} {time.time()}\\n")
"""


def stage(name, *inputs, seconds=0.0, status=0):
    return {
        "cmd": f"{COMMAND} {name} {seconds} {status} {' '.join(inputs)}".strip(),
        "deps": [f"{other}.txt" for other in inputs],
        "outs": [f"{name}.txt"],
    }


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that writes dvc.yaml into an empty DVC repository without git."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORK)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    # As in a source archive: DVC is not told that there is no git.
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")

    def write(**stages):
        (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
        return tmp_path

    return write


def graph(**slow):
    return {
        "fetch": stage("fetch"),
        "slow": stage("slow", "fetch", **slow),
        "quick": stage("quick", "fetch", seconds=1),
        "gate": stage("gate", "slow", "quick"),
    }


def test_slow_stages_run_beside_and_dvc_has_nothing_to_do_afterwards(project, capfd):
    root = project(**graph(seconds=2))
    run(root, beside=("slow",))
    assert (root / "gate.txt").read_text() == "fetchslowfetchquickgate"
    times = {
        name: (float(start), float(end))
        for name, start, end in map(str.split, (root / "log").read_text().splitlines())
    }
    assert times["quick"][0] < times["slow"][1]
    said = capfd.readouterr().out
    assert "stage 2 of 4: slow, beside the others" in said
    assert "stage 4 of 4: gate, about" in said
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    status = [sys.executable, "-m", "dvc", "status"]
    assert "up to date" in subprocess.run(status, capture_output=True, text=True).stdout
    before = (root / "log").read_text()
    run(root, beside=("slow",))
    assert (root / "log").read_text() == before
    assert capfd.readouterr().out == ""


def test_dvc_says_nothing_of_its_own(project, capfd):
    root = project(**graph())
    subprocess.run(["git", "init", "-q"], check=True)  # without it DVC has less to say
    run(root, beside=("slow",))
    said = capfd.readouterr()
    assert all(line.startswith("stage ") for line in said.out.splitlines())
    assert said.err == ""


def test_a_target_runs_what_it_needs(project):
    root = project(**graph())
    run(root, "quick", beside=("slow",))
    assert (root / "quick.txt").exists()
    assert not (root / "slow.txt").exists()
    with pytest.raises(InputError, match="has no stage qick; it has fetch, slow, quick, gate"):
        run(root, "qick")


@pytest.mark.parametrize("beside", [(), ("slow",)])
def test_a_stage_that_fails_gives_its_status(project, beside):
    root = project(**graph(status=7))
    with pytest.raises(StageError, match="stage slow failed") as error:
        run(root, beside=beside)
    assert error.value.exit_status == 7
    assert not (root / "gate.txt").exists()


def test_a_failure_ends_the_stage_beside(project):
    stages = graph(seconds=60) | {"quick": stage("quick", "fetch", seconds=1, status=3)}
    root = project(**stages)
    started = time.monotonic()
    with pytest.raises(StageError, match="stage quick failed"):
        run(root, beside=("slow",))
    assert time.monotonic() - started < 30


def test_what_a_killed_run_left_does_not_stop_the_next(project, capfd):
    root = project(**graph())
    run(root)
    shutil.rmtree(root / ".dvc" / "cache" / "runs", ignore_errors=True)
    scratch = root / ".gate.txt.abcdefgh"
    scratch.mkdir()
    for name in ("dvc.lock", ".dvc/tmp/rwlock"):
        (root / name).write_bytes(b"")
        run(root)
        assert f"{name} was left damaged by a killed run" in capfd.readouterr().out
        assert (root / "gate.txt").exists()
        assert (root / name).read_bytes()
    assert not scratch.exists()


@pytest.fixture
def shown(monkeypatch):
    """What is printed after the stages: the names of the parts, in their order."""
    parts = []
    monkeypatch.setattr("pipeline.run._show_files", lambda: parts.append("files"))
    monkeypatch.setattr("pipeline.run._conclude", lambda: parts.append("conclusion"))
    return parts


def test_a_run_ends_with_its_result_also_if_there_was_nothing_to_do(project, shown):
    project(**graph())
    main([])
    assert shown == ["files", "conclusion"]
    main([])
    assert shown == ["files", "conclusion"] * 2
    main(["quick"])
    assert shown == ["files", "conclusion"] * 2


@pytest.mark.parametrize(("failing", "parts"), [("gate", ["files"]), ("quick", [])])
def test_a_refused_run_shows_its_files_and_no_conclusion(project, shown, failing, parts):
    project(**graph() | {failing: stage(failing, "fetch", status=1)})
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 1
    assert shown == parts
