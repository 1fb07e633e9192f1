"""`edge-vit release`, against a real git remote and a real DVC remote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.registry.steps import alone
from tests.registry.registry_fixture import IDENTITY, MODEL, PUSH, ROOT, Registry, git

STEPS = ("verify", "version", "push", "check", "commit", "tag", "keep")


def steps(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("  ")]


def test_what_another_clone_fetches_is_what_was_released(registry: Registry) -> None:
    folder = registry.publish("1.2.0")
    text = registry.do("release", "-m", "for the spring")
    assert tuple(steps(text)) == STEPS
    got = registry.fetched("--rev", "v1.2.0")
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=got, check=True)
    assert (got / f"{MODEL}-1.2.0.ptl").read_bytes() == (folder / f"{MODEL}-1.2.0.ptl").read_bytes()
    assert "for the spring" in git(registry.origin, "cat-file", "tag", "deit-tiny@v1.2.0")


def test_a_dry_run_says_the_steps_and_changes_nothing(registry: Registry) -> None:
    registry.publish("1.0.0")
    before = registry.state()
    ran = registry.edge_vit("release")
    assert ran.status == 0
    assert tuple(steps(ran.text)) == STEPS
    assert "6 of 6 files to DVC remote store" in ran.text
    assert registry.state() == before
    registry.do("release")
    assert registry.state() != before


def test_branch_index_and_work_tree_stay_as_they_are(registry: Registry) -> None:
    registry.publish("1.0.0")
    (registry.work / "notes.txt").write_text("not added")
    before = registry.state()
    registry.do("release")
    after = registry.state()
    assert (after["status"], after["index"]) == (before["status"], before["index"])
    parent = git(registry.work, "rev-parse", "deit-tiny@v1.0.0^{commit}^").strip()
    assert parent == git(registry.work, "rev-parse", "HEAD").strip()


@pytest.mark.parametrize("step", [*STEPS, PUSH])
def test_killed_before_any_step_it_goes_on(registry: Registry, step: str) -> None:
    registry.release("1.0.0")
    folder = registry.publish("1.1.0")
    before = registry.state()
    assert registry.edge_vit("release", "--yes", kill=step).status == -9
    registry.check_tags()
    assert registry.state()["index"] == before["index"]
    assert ("deit-tiny@v1.1.0" in registry.tags()) == (step == "keep")
    registry.do("release")
    registry.check_tags()
    assert list(registry.tags()) == ["deit-tiny@v1.0.0", "deit-tiny@v1.1.0"]
    assert registry.tags(registry.work) == registry.tags()
    done = registry.state()
    assert "has been released before, with these bytes" in registry.do("release", str(folder))
    assert registry.state() == done


def test_half_a_file_on_the_remote_is_not_taken_for_whole(registry: Registry) -> None:
    registry.publish("1.0.0")
    assert registry.edge_vit("release", "--yes", kill="check").status == -9
    stored = max(registry.store.rglob("*"), key=lambda path: path.stat().st_size)
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:1000])
    registry.do("release")
    registry.check_tags()


def test_the_same_version_with_other_bytes_is_refused(registry: Registry) -> None:
    registry.release("1.0.0")
    before = registry.state()
    registry.publish("1.0.0", content="others")
    ran = registry.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "deit-tiny@v1.0.0 exists with other bytes" in ran.text
    assert "raise release.version in params.yaml" in ran.text
    assert registry.state() == before


def test_a_tampered_release_is_refused(registry: Registry) -> None:
    folder = registry.publish("1.0.0")
    (folder / "evidence" / "parity.json").write_text("{ }\n")
    before = registry.state()
    ran = registry.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "evidence/parity.json" in ran.text
    assert registry.state() == before


def test_a_release_that_changes_after_it_was_verified_gets_no_tag(registry: Registry) -> None:
    folder = registry.publish("1.0.0")
    assert registry.edge_vit("release", "--yes", kill="check").status == -9
    (folder / "evidence" / "parity.json").write_text("{ }\n")
    assert registry.edge_vit("release", "--yes").status == 2
    assert registry.tags() == {}


def test_lower_versions_are_refused_but_for_patches_of_a_line(registry: Registry) -> None:
    for version in ("1.0.0", "2.0.0", "1.0.1"):
        registry.release(version)
    for version in ("1.0.0-rc.1", "1.9.0", "0.9.0"):
        registry.publish(version)
        ran = registry.edge_vit("release", str(registry.publish(version)), "--yes")
        assert ran.status == 2
        assert "which is not lower" in ran.text
    assert len(registry.tags()) == 3


@pytest.mark.parametrize("name", ["params.yaml", "pipeline/new.py"])
def test_what_is_not_committed_cannot_be_traced(registry: Registry, name: str) -> None:
    registry.publish("1.0.0")
    path = registry.work / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write("# changed\n")
    ran = registry.edge_vit("release", "--yes")
    assert ran.status == 2
    assert f"not committed: {name.split('/')[0]}" in ran.text
    assert registry.tags() == {}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("path", "old", "new", "words"),
    [
        ("pipeline/code.py", "1", "2", f"code: it was made by commit {'c' * 40}; `git checkout"),
        ("params.yaml", "smooth: 0.75", "smooth: 0.5", "params.yaml: rewrite.smooth was different"),
        ("params.yaml", "version: 1.0.0", "version: 1.0.1", "params.yaml: release.version was"),
        ("requirements.lock", "", "torch", "requirements.lock: it was made with a different one"),
    ],
)
def test_a_commit_that_did_not_make_the_release_gets_no_tag(
    registry: Registry, path: str, old: str, new: str, words: str
) -> None:
    code = registry.work / "pipeline" / "code.py"
    code.parent.mkdir()
    code.write_text("A = 1\n")
    registry.commit("code")
    folder = registry.publish("1.0.0")
    (registry.work / path).touch()
    edit(registry.work / path, old, new)
    registry.commit("something else")
    for yes in ((), ("--yes",)):
        ran = registry.edge_vit("release", str(folder), *yes)
        assert ran.status == 2
        assert words in ran.text
    assert registry.tags() == {}
    git(registry.work, "checkout", "-q", "HEAD~1")
    registry.do("release", str(folder))
    made = git(registry.work, "rev-parse", "HEAD").strip()
    assert f"Made-from: {made}" in git(registry.origin, "cat-file", "tag", "deit-tiny@v1.0.0")
    git(registry.work, "checkout", "-q", "main")  # what is released already may be released again
    assert "has been released before" in registry.do("release", str(folder))


def test_a_commit_that_changes_nothing_of_a_release_may_have_its_tag(registry: Registry) -> None:
    registry.publish("1.0.0")
    (registry.work / "notes.txt").write_text("none of code, parameters and packages")
    registry.commit("notes")
    registry.do("release")
    registry.check_tags()


def test_another_model_cannot_take_a_name(registry: Registry) -> None:
    registry.release("1.0.0")
    edit(registry.work / "params.yaml", "artifact: null", "artifact: other")
    registry.commit("a name")
    registry.do("release")
    assert list(registry.tags()) == ["deit-tiny@v1.0.0", "other@v1.0.0"]
    folder = registry.publish("1.0.0")
    edit(folder / "contract.json", MODEL, "another")
    moved = folder.rename(folder.with_name("another-1.0.0"))
    ran = registry.edge_vit("release", str(moved), "--yes")
    assert ran.status == 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[core]\n    analytics = false\n", "`dvc remote add --default NAME ADDRESS`"),
        ("[core]\n    remote = gone\n", "there is no DVC remote gone; see `dvc remote list`"),
    ],
)
def test_without_a_dvc_remote_it_says_what_to_run(
    registry: Registry, config: str, words: str
) -> None:
    (registry.work / ".dvc" / "config").write_text(config)
    registry.commit("no remote")
    registry.publish("1.0.0")
    ran = registry.edge_vit("release")
    assert ran.status == 2
    assert words in ran.text


def test_without_a_git_remote_it_says_what_to_run(registry: Registry) -> None:
    registry.publish("1.0.0")
    git(registry.work, "remote", "remove", "origin")
    ran = registry.edge_vit("release")
    assert ran.status == 2
    assert "`git remote add origin ADDRESS`" in ran.text


def test_a_git_remote_that_cannot_be_reached_leaves_no_tag(registry: Registry) -> None:
    registry.publish("1.0.0")
    assert registry.edge_vit("release", "--yes", kill="tag").status == -9
    away = registry.origin.rename(registry.base / "away.git")
    ran = registry.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "git ls-remote failed: fatal:" in ran.text
    away.rename(registry.origin)
    registry.do("release")
    registry.check_tags()


@pytest.mark.full
def test_two_at_once_in_one_clone_make_one_release(registry: Registry) -> None:
    folder = registry.publish("1.0.0")
    code = "from tests.registry.forker import child; import sys; "
    code += "child(sys.argv[1], ['release', sys.argv[2], '--yes'], None, True, sys.argv[3])"
    command = [sys.executable, "-c", code, str(registry.work), str(folder)]
    environment = os.environ | IDENTITY
    both = [
        subprocess.Popen([*command, str(registry.base / name)], cwd=ROOT, env=environment)
        for name in ("a", "b")
    ]
    assert [process.wait() for process in both] == [0, 0]
    texts = [(registry.base / name).read_text() for name in ("a", "b")]
    assert sorted("tag" in steps(text) for text in texts) == [False, True]
    registry.check_tags()


def test_of_two_clones_that_take_one_version_the_second_is_refused(registry: Registry) -> None:
    folder = registry.publish("1.0.0")
    other = registry.base / "other"
    git(registry.base, "clone", "-q", str(registry.origin), "other")
    shutil.copytree(folder, other / folder.relative_to(registry.work))
    theirs = registry.publish("1.0.0", content="theirs")
    assert registry.edge_vit("release", "--yes", kill=PUSH).status == -9
    registry.do("release", where=other)
    ran = registry.edge_vit("release", str(theirs), "--yes")
    assert ran.status == 2
    assert "exists with other bytes" in ran.text
    registry.check_tags()


def test_a_version_that_was_released_unsigned_is_not_signed_later(registry: Registry) -> None:
    registry.release("1.0.0")
    before = registry.state()
    ran = registry.edge_vit("release", "--yes", "--key", str(registry.base / "edge-vit.key"))
    assert ran.status == 2
    assert "another signature; a version does not change, sign the next one" in ran.text
    assert registry.state() == before


def test_a_remote_that_is_not_the_default_is_recorded_with_the_release(registry: Registry) -> None:
    config = registry.work / ".dvc" / "config"
    archive = registry.base / "archive"
    config.write_text(f"{config.read_text()}['remote \"archive\"']\n    url = {archive}\n")
    registry.commit("another remote")
    registry.push()
    registry.publish("1.0.0")
    registry.do("release", "--remote", "archive")
    assert not registry.store.exists()
    assert "DVC remote archive" in registry.do("promote", "deit-tiny@v1.0.0", "candidate")
    assert (registry.fetched("--stage", "candidate") / "SHA256SUMS").is_file()


def test_files_that_were_removed_from_the_remote_are_brought_back(registry: Registry) -> None:
    registry.release("1.0.0")
    tags = registry.tags()
    max(registry.store.rglob("*"), key=lambda path: path.stat().st_size).unlink()
    assert "push     1 of 6 files" in registry.do("release")
    registry.check_tags()
    assert registry.tags() == tags


def test_without_dvc_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "dvc", None)
    words = r"needs dvc, which is not installed.*'\.\[pipeline\]'"
    with pytest.raises(InputError, match=words), alone(tmp_path / "lock"):
        pass
