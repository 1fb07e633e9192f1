"""The commands as a user runs them: exit status, one message, no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.cli import COMMANDS, RENAMED
from pipeline.params import Params
from pipeline.report.table import columns
from tests.children import ENDING_WITH_TESTS

ROOT = Path(__file__).parent.parent


def run(work: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def work(artifacts: Path, params: Params) -> Path:
    """A working folder with the artifacts of a healthy run."""
    folder = artifacts.parent
    (folder / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    return folder


def change(work: Path, section: str, **values: object) -> None:
    params = yaml.safe_load((work / "params.yaml").read_text())
    params[section] |= values
    (work / "params.yaml").write_text(yaml.safe_dump(params))


def test_gate_passes_a_healthy_candidate(work):
    ran = run(work, "-m", "pipeline.cli", "gate")
    assert ran.returncode == 0, ran.stderr
    assert "undecided" in ran.stdout
    assert (work / "artifacts" / "verdict" / "junit.xml").exists()


def test_gate_refuses_with_status_1_and_says_what_and_what_to_do(work):
    change(work, "gate", channel="release")
    ran = run(work, "-m", "pipeline.cli", "gate")
    assert ran.returncode == 1
    assert "refused for channel release" in ran.stderr
    assert " undecided; what would decide them:" in ran.stderr
    assert ": a record of the reference GPU (`edge-vit baseline`)" in ran.stderr
    assert "(`make device-test`)" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_experiment_records_a_refusal_and_publishes_nothing(work, monkeypatch):
    change(work, "gate", channel="release")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)  # as `dvc exp run` has it
    for stage in ("gate", "publish"):
        ran = run(work, "-m", f"pipeline.stages.{stage}")
        assert ran.returncode == 0, ran.stderr
    assert "this is an experiment" in ran.stdout
    recorded = json.loads((work / "artifacts" / "verdict" / "metrics.json").read_text())
    assert recorded == {"gate": "refused"}
    assert list((work / "artifacts" / "release").iterdir()) == []


def test_gate_judges_for_another_channel_when_asked(work):
    ran = run(work, "-m", "pipeline.cli", "gate", "--channel", "release")
    assert ran.returncode == 1
    assert "refused for channel release" in ran.stderr


@pytest.mark.full
def test_help_lists_every_command_and_each_command_has_its_own():
    ran = run(ROOT, "-m", "pipeline.cli", "--help")
    assert ran.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in ran.stdout
        own = run(ROOT, "-m", "pipeline.cli", name, "--help")
        assert own.returncode == 0, own.stderr
        assert f"Usage: edge-vit {name}" in own.stdout


def test_the_version_is_that_of_the_package():
    ran = run(ROOT, "-m", "pipeline.cli", "--version")
    assert ran.returncode == 0
    assert re.fullmatch(r"edge-vit \d+\.\d+\.\d+\n", ran.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gat",), "No such command 'gat'. Did you mean 'gate'?"),
        (
            ("gate", "--chanel", "release"),
            "Did you mean one of: '--channel'",
        ),
        *(((old,), f"{old!r} is now `{new}`") for old, new in RENAMED.items()),
    ],
)
def test_a_wrong_name_is_bad_input_and_the_right_one_is_said(arguments, words):
    ran = run(ROOT, "-m", "pipeline.cli", *arguments)
    assert ran.returncode == 2
    assert words in ran.stderr


def test_the_gate_prints_what_would_decide_and_all_criteria_when_asked(work):
    brief = run(work, "-m", "pipeline.cli", "gate").stdout
    assert "size_ratio_max" not in brief
    assert len(re.findall(r"^\d+ undecided; what would decide them:$", brief, re.M)) == 1
    assert len(re.findall(r"^  \d+: a record of the reference GPU", brief, re.M)) == 1
    assert (
        len(re.findall(r"^  \d+: runs on devices' runtimes \(`make device-test`\)", brief, re.M))
        == 1
    )
    assert "size_ratio_max" in run(work, "-m", "pipeline.cli", "gate", "--verbose").stdout


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_table_is_no_wider_than_the_terminal(monkeypatch, width):
    rows = [("blocks.0.attn.qkv", "[0.49, 0.51]", "word " * 40)]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = columns(rows, ("layer", "interval", "note")).splitlines()
    assert max(map(len, lines)) <= width
    assert "".join(lines).count("word") == 40
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert max(map(len, columns(rows, ("layer", "interval", "note")).splitlines())) > 200


def test_help_wraps_at_the_terminals_width(monkeypatch):
    for width in (60, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = run(ROOT, "-m", "pipeline.cli", "gate", "--help").stdout.splitlines()
        assert max(map(len, lines)) <= width
    assert max(map(len, lines)) > 100


@pytest.mark.parametrize("arguments", [(), ("gates",)])
def test_an_unknown_command_is_bad_input(arguments):
    ran = run(ROOT, "-m", "pipeline.cli", *arguments)
    assert ran.returncode == 2
    assert "Usage: edge-vit" in ran.stderr


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("gate", {"confidence": 1.2}, "params.yaml: gate.confidence must be less than 1"),
        ("samples", {"limits": 5}, "samples.limits is not a parameter; did you mean limit?"),
        ("release", {"version": "one"}, "params.yaml: release.version must be"),
        ("quantize", {"scheme": "per_row"}, "quantize.scheme must be"),
    ],
)
def test_a_bad_parameter_ends_with_status_2_and_its_key(work, section, values, words):
    change(work, section, **values)
    ran = run(work, "-m", "pipeline.stages.gate")
    assert ran.returncode == 2
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.full
def test_a_pattern_of_keep_float_that_names_nothing_is_refused(work):
    change(work, "quantize", keep_float=["blocks.99.*"])
    ran = run(work, "-m", "pipeline.stages.quantize")
    assert ran.returncode == 2
    assert (
        "'blocks.99.*' names no layer that is quantized; there are e.g. blocks.0.attn.qkv"
        in ran.stderr
    )


def test_missing_evidence_is_named(work):
    (work / "artifacts" / "latency" / "evidence.json").unlink()
    ran = run(work, "-m", "pipeline.cli", "gate")
    assert ran.returncode == 2
    assert "latency/evidence.json is missing; run `dvc repro`" in ran.stderr


@pytest.mark.full
def test_a_full_disk_ends_in_one_message_and_keeps_the_old_file(work):
    path = next((work / "artifacts" / "lite").glob("*.ptl"))
    before = path.read_bytes()
    limited = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
    )
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limited += "runpy.run_module('pipeline.stages.quantize', run_name='__main__')"
    ran = run(work, "-c", limited)
    assert ran.returncode == 2, ran.stderr
    assert "File too large" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert path.read_bytes() == before
    assert not list((work / "artifacts").glob(".quantized*"))


@pytest.mark.full
def test_parity_killed_halfway_leaves_nothing_and_runs_again(work):
    evidence = work / "artifacts" / "parity" / "evidence.json"
    before = evidence.read_bytes()
    talkative = "import runpy; from pipeline import progress; progress.SECONDS_BETWEEN_LINES = 0;"
    talkative += "runpy.run_module('pipeline.stages.parity', run_name='__main__')"
    process = subprocess.Popen(
        [*ENDING_WITH_TESTS, sys.executable, "-c", talkative],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = b""
    while b"ptl" not in said:  # the progress names a file once it ran
        piece = process.stderr.read1()
        assert piece, said
        said += piece
    process.kill()
    process.wait()
    process.stderr.close()
    assert evidence.read_bytes() == before
    deadline = time.monotonic() + 60
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _alive(process.pid), "workers outlive a killed parent"
    ran = run(work, "-m", "pipeline.stages.parity")
    assert ran.returncode == 0, ran.stderr
    assert run(work, "-m", "pipeline.stages.gate").returncode == 0


def _alive(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True
