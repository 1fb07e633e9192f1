"""Running targets, and what becomes of it; the targets themselves are tested beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from device_tests import __main__ as harness
from device_tests import bundle as bundles
from device_tests import cache, program
from device_tests.target import Bundle, Cell, Check, Cost, Missing, Results
from pipeline.errors import InputError
from pipeline.files import sha256_file
from pipeline.params import Params
from pipeline.paths import Recorded
from pipeline.stages.gate import gate
from pipeline.stages.publish import publish

NAME = "lite_app"
Change = Callable[[Cell], Cell]


@dataclass
class Fake:
    """A target that answers what the golden answers say, but for a change."""

    change: Change = lambda cell: cell
    checks: tuple[Check, ...] = ()
    lacking: Missing | None = None
    WHAT = "a test"
    FORMATS = ("ptl",)

    def missing(self) -> Missing | None:
        return self.lacking

    def install(self, cache: Path) -> None:
        assert self.lacking is None

    def run(self, bundle: Bundle, cache: Path) -> Results:
        cell = Cell(
            format="ptl",
            sha256=sha256_file(bundle.files["ptl"]),
            runtime="PyTorch Lite 1.13.1",
            machine="a test",
            loads=True,
            runs=True,
            logits=[list(row) for row in bundle.golden.content.artefacts["ptl"].logits],
            cost=Cost(instructions=(100, 100)),
        )
        return Results([self.change(cell)], self.checks)


@pytest.fixture
def run(
    healthy: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))

    def with_target(fake: Fake, files: Path = healthy) -> tuple[int, str]:
        monkeypatch.setattr(harness, "target", lambda name: fake)
        status, lines = harness.device_test(
            [NAME], bundles.find(files), params.gate, tmp_path / "evidence"
        )
        return status, "\n".join(lines)

    return with_target


def test_what_agrees_is_recorded_and_the_gate_counts_it(
    run: Callable[..., tuple[int, str]], params: Params, artifacts: Path, tmp_path: Path
) -> None:
    status, text = run(Fake())
    assert status == 0
    assert "1 targets run, 0 not, 0 broken, 0 FAIL" in text
    recorded = Recorded(Path("none"), tmp_path / "evidence")
    verdict = gate(params, artifacts, recorded, tmp_path / "verdict")
    outcomes = {(c.subject, c.name): c.outcome for c in verdict.criteria}
    assert outcomes[".ptl on lite_app", "device_sqnr_min_db"] == "pass"
    assert outcomes[".ptl", "oldest_runtime"] == "pass"
    assert outcomes["arm64", "devices"] == "undecided"
    assert "PyTorch Lite 1.13.1" in (tmp_path / "verdict" / "verdict.md").read_text()
    release = publish(params, artifacts, recorded, tmp_path / "release")
    published = (release / "evidence" / "devices" / f"{NAME}.json").read_text()
    assert published == (tmp_path / "evidence" / f"{NAME}.json").read_text()


def test_instructions_are_compared_with_the_last_release(
    run: Callable[..., tuple[int, str]], params: Params, artifacts: Path, tmp_path: Path
) -> None:
    run(Fake())
    recorded = Recorded(Path("none"), tmp_path / "evidence")
    release = publish(params, artifacts, recorded, artifacts / "release")
    release.rename(release.with_name(release.name.replace("0.1.0", "0.0.9")))
    more = Cost(instructions=(150, 150))
    status, text = run(Fake(change=lambda cell: replace(cell, cost=more)), artifacts)
    assert status == 1
    evidence = json.loads((tmp_path / "evidence" / f"{NAME}.json").read_text())
    assert evidence["previous"]["instructions"] == {"ptl": 100}
    assert "FAIL .ptl on lite_app" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: replace(c, loads=False, error="no such operator"), "no such operator"),
        (lambda c: replace(c, runs=False, error="out of memory"), "does not run"),
        (lambda c: replace(c, logits=c.logits[::-1]), "of 19 golden images"),
    ],
)
def test_what_does_not_agree_fails_in_words(
    run: Callable[..., tuple[int, str]], change: Change, words: str
) -> None:
    status, text = run(Fake(change=change))
    assert status == 1
    assert words in text


def test_a_failed_check_fails(run: Callable[..., tuple[int, str]], healthy: Path) -> None:
    sha256 = sha256_file(bundles.find(healthy).files["ptl"])
    check = Check(name="operators", subject="ptl", sha256=sha256, passed=False, detail="lacks x")
    status, text = run(Fake(checks=(check,)))
    assert status == 1
    assert "operators: lacks x" in text


def test_a_target_that_is_missing_is_named_with_its_command(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    status, text = run(Fake(lacking=Missing("no compiler", "sudo apt-get install -y g++")))
    assert status == 0
    assert "lite_app: not run: no compiler\n    sudo apt-get install -y g++" in text
    assert not list((tmp_path / "evidence").glob("*.json"))


def test_a_target_that_does_not_work_is_no_finding(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    def broken(cell: Cell) -> Cell:
        raise InputError("the registry cannot be reached")

    status, text = run(Fake(change=broken))
    assert status == 2
    assert "does not work here: the registry cannot be reached" in text
    assert not list((tmp_path / "evidence").glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toaster"], "no target toaster"),
        (["--files", "nowhere"], "nowhere"),
        (["--into", "x", "--files", "tests"], "golden.json is missing"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        harness.main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_release_can_be_tested_as_well(
    run: Callable[..., tuple[int, str]], params: Params, artifacts: Path, tmp_path: Path
) -> None:
    nowhere = Recorded(Path("none"), Path("none"))
    release = publish(params, artifacts, nowhere, tmp_path / "release")
    status, text = run(Fake(), release)
    assert status == 0, text


def test_a_runner_that_crashes_is_a_finding(healthy: Path) -> None:
    path = bundles.find(healthy).files["ptl"]
    code = "import sys, os; print('half a line', file=sys.stderr, flush=True); os._exit(3)"
    found = program.cell(
        [sys.executable, "-c", code], file_format="ptl", path=path, runtime="x", machine="y"
    )
    assert (found.loads, found.runs, found.logits) == (False, False, None)
    assert "half a line" in str(found.error)
    assert "(3)" in str(found.error)


def test_a_tool_that_fails_or_is_missing_says_so() -> None:
    with pytest.raises(InputError, match="no-such-tool is not installed"):
        program.call(["no-such-tool"])
    with pytest.raises(InputError, match=r"failed \(1\):\n.*what went wrong"):
        program.call([sys.executable, "-c", "raise SystemExit('what went wrong')"])
    with pytest.raises(InputError, match="took longer than"):
        program.call([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


def test_the_cache_is_made_once_for_a_recipe_and_never_half(tmp_path: Path) -> None:
    made: list[str] = []

    def make(folder: Path) -> None:
        made.append("once")
        (folder / "file").write_text(f"{len(made)}")

    def stop(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise InputError("the network went away")

    path = tmp_path / "tool"
    with pytest.raises(InputError):
        cache.made(path, "1", stop)
    assert not path.exists()
    assert cache.made(path, "1", make) == cache.made(path, "1", make) == path
    assert len(made) == 1
    with pytest.raises(InputError):
        cache.made(path, "2", stop)
    assert (path / "file").read_text() == "1"
    cache.made(path, "2", make)
    assert (path / "file").read_text() == "2"
