"""What is recorded of how a release was made, and what is said where something is other now."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.contract.files import load_contract
from pipeline.errors import InputError
from pipeline.files import sha256_file
from pipeline.params import Params
from pipeline.release import build


def test_a_release_records_what_it_was_made_from(published: Path, healthy: Path) -> None:
    recorded = json.loads((published / build.BUILD_FILE).read_text())
    contract = load_contract(healthy / "checkpoint")
    assert recorded["inputs"]["checkpoint"] == {
        "source": contract.checkpoint.source,
        "source_sha256": contract.checkpoint.source_sha256,
        "sha256": sha256_file(healthy / "checkpoint" / "model.safetensors"),
    }
    calibration = sha256_file(healthy / "samples" / "calibration.npy")
    assert recorded["inputs"]["samples"]["calibration_sha256"] == calibration
    assert recorded["published_by"]["packages"]["torch"] == "2.12.1"
    assert build.differences(build.read(published).published_by, build.environment()) == []


def test_the_same_inputs_give_the_same_record_wherever_they_lie(
    healthy: Path, params: Params, tmp_path: Path
) -> None:
    contract = load_contract(healthy / "checkpoint")
    elsewhere = params.model_dump()
    elsewhere["samples"]["source"] = tmp_path / "somewhere" / "fashion_mnist"
    elsewhere["golden"]["photographs"] = tmp_path / "photos"
    for name, values in (("a", params), ("b", Params.model_validate(elsewhere))):
        (tmp_path / name).mkdir()
        build.record(tmp_path / name, values, contract, healthy)
    texts = [(tmp_path / name / build.BUILD_FILE).read_text() for name in ("a", "b")]
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]


def test_what_an_address_has_for_its_server_only_is_not_recorded(
    healthy: Path, params: Params, tmp_path: Path
) -> None:
    values = params.model_dump()
    values["model"]["checkpoint"] = "https://me:passw0rd@example.org/w/own.pth?token=s3cret"
    contract = load_contract(healthy / "checkpoint")
    build.record(tmp_path, Params.model_validate(values), contract, healthy)
    assert build.read(tmp_path).params.model.checkpoint == "https://example.org/w/own.pth"


def test_each_thing_that_is_other_is_named() -> None:
    here = build.environment()
    values = here.model_dump()
    values["code"] |= {"sha256": "0" * 64, "commit": "abc", "dirty": False}
    values["packages"] |= {"torch": "2.11.0", "timm": None}
    values["python"] = "3.12.1"
    values["machine"] |= {"system": "Linux aarch64", "flags": ["asimddp"]}
    said = "\n".join(build.differences(build.Environment.model_validate(values), here))
    for words in (
        "code: it was made by commit abc; `git checkout abc` gives it",
        "torch: it was made with 2.11.0, here is 2.12.1",
        "timm: it was made with none, here is",
        "python: it was made with 3.12.1",
        "machine: system was Linux aarch64, here it is",
        "machine: flags was asimddp",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("commit", "dirty", "words"),
    [("abc", True, "commit abc with changes"), (None, None, "different code, of no commit")],
)
def test_code_that_no_checkout_gives_back(commit: str, dirty: bool, words: str) -> None:
    here = build.environment()
    changes = {"sha256": "0" * 64, "commit": commit, "dirty": dirty}
    was = here.model_copy(update={"code": here.code.model_copy(update=changes)})
    (said,) = build.differences(was, here)
    assert words in said
    assert "checkout" not in said


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A package in a git repository of its own."""
    made = tmp_path / "repository" / "package"
    made.mkdir(parents=True)
    (made / "__init__.py").write_text("")
    git(made, "init", "-q")
    git(made, "add", ".")
    git(made, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "first")
    return made


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_the_code_was_changed_since(code: Path) -> None:
    head = git(code, "rev-parse", "HEAD")
    assert build.commit(code) == {"commit": head, "dirty": False}
    before = build.code_sha256(code)
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "x.pyc").write_bytes(b"")
    (code.parent / "README.md").write_text("not the package's")
    assert build.code_sha256(code) == before
    (code / "more.py").write_text("")
    assert build.commit(code) == {"commit": head, "dirty": True}
    assert build.code_sha256(code) != before


def test_a_package_that_is_only_installed_into_a_repository_has_no_commit(code: Path) -> None:
    installed = code.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert build.commit(installed) == {"commit": None, "dirty": None}
    assert build.commit(code.parent.parent) == {"commit": None, "dirty": None}


def test_a_checkout_that_git_refuses_to_read_is_said_with_what_helps(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InputError, match=r"another user owns it.*--add safe.directory"):
        build.commit(code)
