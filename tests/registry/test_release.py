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
from tests.registry.registry_fixture import IDENTITY, MODEL, PUSH, ROOT, Place, git

STEPS = ("verify", "version", "push", "check", "commit", "tag", "keep")


def steps(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("  ")]


def test_what_another_clone_fetches_is_what_was_released(place: Place) -> None:
    folder = place.publish("1.2.0")
    text = place.do("release", "-m", "for the spring")
    assert tuple(steps(text)) == STEPS
    got = place.fetched("--rev", "v1.2.0")
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=got, check=True)
    assert (got / f"{MODEL}-1.2.0.ptl").read_bytes() == (folder / f"{MODEL}-1.2.0.ptl").read_bytes()
    assert "for the spring" in git(place.origin, "cat-file", "tag", "deit-tiny@v1.2.0")


def test_a_dry_run_says_the_steps_and_changes_nothing(place: Place) -> None:
    place.publish("1.0.0")
    before = place.state()
    ran = place.edge_vit("release")
    assert ran.status == 0
    assert tuple(steps(ran.text)) == STEPS
    assert "6 of 6 files to DVC remote store" in ran.text
    assert place.state() == before
    place.do("release")
    assert place.state() != before


def test_branch_index_and_work_tree_stay_as_they_are(place: Place) -> None:
    place.publish("1.0.0")
    (place.work / "notes.txt").write_text("not added")
    before = place.state()
    place.do("release")
    after = place.state()
    assert (after["status"], after["index"]) == (before["status"], before["index"])
    parent = git(place.work, "rev-parse", "deit-tiny@v1.0.0^{commit}^").strip()
    assert parent == git(place.work, "rev-parse", "HEAD").strip()


@pytest.mark.parametrize("step", [*STEPS, PUSH])
def test_killed_before_any_step_it_goes_on(place: Place, step: str) -> None:
    place.release("1.0.0")
    folder = place.publish("1.1.0")
    before = place.state()
    assert place.edge_vit("release", "--yes", kill=step).status == -9
    place.check_tags()
    assert place.state()["index"] == before["index"]
    assert ("deit-tiny@v1.1.0" in place.tags()) == (step == "keep")
    place.do("release")
    place.check_tags()
    assert list(place.tags()) == ["deit-tiny@v1.0.0", "deit-tiny@v1.1.0"]
    assert place.tags(place.work) == place.tags()
    done = place.state()
    assert "has been released before, with these bytes" in place.do("release", str(folder))
    assert place.state() == done


def test_half_a_file_on_the_remote_is_not_taken_for_whole(place: Place) -> None:
    place.publish("1.0.0")
    assert place.edge_vit("release", "--yes", kill="check").status == -9
    stored = max(place.store.rglob("*"), key=lambda path: path.stat().st_size)
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:1000])
    place.do("release")
    place.check_tags()


def test_the_same_version_with_other_bytes_is_refused(place: Place) -> None:
    place.release("1.0.0")
    before = place.state()
    place.publish("1.0.0", content="others")
    ran = place.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "deit-tiny@v1.0.0 exists with other bytes" in ran.text
    assert "raise release.version in params.yaml" in ran.text
    assert place.state() == before


def test_a_tampered_release_is_refused(place: Place) -> None:
    folder = place.publish("1.0.0")
    (folder / "evidence" / "parity.json").write_text("{ }\n")
    before = place.state()
    ran = place.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "evidence/parity.json" in ran.text
    assert place.state() == before


def test_a_release_that_changes_after_it_was_verified_gets_no_tag(place: Place) -> None:
    folder = place.publish("1.0.0")
    assert place.edge_vit("release", "--yes", kill="check").status == -9
    (folder / "evidence" / "parity.json").write_text("{ }\n")
    assert place.edge_vit("release", "--yes").status == 2
    assert place.tags() == {}


def test_lower_versions_are_refused_but_for_patches_of_a_line(place: Place) -> None:
    for version in ("1.0.0", "2.0.0", "1.0.1"):
        place.release(version)
    for version in ("1.0.0-rc.1", "1.9.0", "0.9.0"):
        place.publish(version)
        ran = place.edge_vit("release", str(place.publish(version)), "--yes")
        assert ran.status == 2
        assert "which is not lower" in ran.text
    assert len(place.tags()) == 3


@pytest.mark.parametrize("name", ["params.yaml", "pipeline/new.py"])
def test_what_is_not_committed_cannot_be_traced(place: Place, name: str) -> None:
    place.publish("1.0.0")
    path = place.work / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write("# changed\n")
    ran = place.edge_vit("release", "--yes")
    assert ran.status == 2
    assert f"not committed: {name.split('/')[0]}" in ran.text
    assert place.tags() == {}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("path", "old", "new", "words"),
    [
        ("pipeline/code.py", "1", "2", f"code: it was made by commit {'c' * 40}; `git checkout"),
        ("params.yaml", "smooth: 0.75", "smooth: 0.5", "params.yaml: rewrite.smooth was other"),
        ("params.yaml", "version: 1.0.0", "version: 1.0.1", "params.yaml: release.version was"),
        ("requirements.lock", "", "torch", "requirements.lock: it was made with another one"),
    ],
)
def test_a_commit_that_did_not_make_the_release_gets_no_tag(
    place: Place, path: str, old: str, new: str, words: str
) -> None:
    code = place.work / "pipeline" / "code.py"
    code.parent.mkdir()
    code.write_text("A = 1\n")
    place.commit("code")
    folder = place.publish("1.0.0")
    (place.work / path).touch()
    edit(place.work / path, old, new)
    place.commit("something else")
    for yes in ((), ("--yes",)):
        ran = place.edge_vit("release", str(folder), *yes)
        assert ran.status == 2
        assert words in ran.text
    assert place.tags() == {}
    git(place.work, "checkout", "-q", "HEAD~1")
    place.do("release", str(folder))
    made = git(place.work, "rev-parse", "HEAD").strip()
    assert f"Made-from: {made}" in git(place.origin, "cat-file", "tag", "deit-tiny@v1.0.0")
    git(place.work, "checkout", "-q", "main")  # what is released already may be released again
    assert "has been released before" in place.do("release", str(folder))


def test_a_commit_that_changes_nothing_of_a_release_may_have_its_tag(place: Place) -> None:
    place.publish("1.0.0")
    (place.work / "notes.txt").write_text("none of code, parameters and packages")
    place.commit("notes")
    place.do("release")
    place.check_tags()


def test_another_model_cannot_take_a_name(place: Place) -> None:
    place.release("1.0.0")
    edit(place.work / "params.yaml", "artifact: null", "artifact: other")
    place.commit("a name")
    place.do("release")
    assert list(place.tags()) == ["deit-tiny@v1.0.0", "other@v1.0.0"]
    folder = place.publish("1.0.0")
    edit(folder / "contract.json", MODEL, "another")
    moved = folder.rename(folder.with_name("another-1.0.0"))
    ran = place.edge_vit("release", str(moved), "--yes")
    assert ran.status == 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[core]\n    analytics = false\n", "`dvc remote add --default NAME ADDRESS`"),
        ("[core]\n    remote = gone\n", "there is no DVC remote gone; see `dvc remote list`"),
    ],
)
def test_without_a_dvc_remote_it_says_what_to_run(place: Place, config: str, words: str) -> None:
    (place.work / ".dvc" / "config").write_text(config)
    place.commit("no remote")
    place.publish("1.0.0")
    ran = place.edge_vit("release")
    assert ran.status == 2
    assert words in ran.text


def test_without_a_git_remote_it_says_what_to_run(place: Place) -> None:
    place.publish("1.0.0")
    git(place.work, "remote", "remove", "origin")
    ran = place.edge_vit("release")
    assert ran.status == 2
    assert "`git remote add origin ADDRESS`" in ran.text


def test_a_git_remote_that_cannot_be_reached_leaves_no_tag(place: Place) -> None:
    place.publish("1.0.0")
    assert place.edge_vit("release", "--yes", kill="tag").status == -9
    away = place.origin.rename(place.base / "away.git")
    ran = place.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "git ls-remote failed: fatal:" in ran.text
    away.rename(place.origin)
    place.do("release")
    place.check_tags()


def test_two_at_once_in_one_clone_make_one_release(place: Place) -> None:
    folder = place.publish("1.0.0")
    code = "from tests.registry.forker import child; import sys; "
    code += "child(sys.argv[1], ['release', sys.argv[2], '--yes'], None, True, sys.argv[3])"
    command = [sys.executable, "-c", code, str(place.work), str(folder)]
    environment = os.environ | IDENTITY
    both = [
        subprocess.Popen([*command, str(place.base / name)], cwd=ROOT, env=environment)
        for name in ("a", "b")
    ]
    assert [process.wait() for process in both] == [0, 0]
    texts = [(place.base / name).read_text() for name in ("a", "b")]
    assert sorted("tag" in steps(text) for text in texts) == [False, True]
    place.check_tags()


def test_of_two_clones_that_take_one_version_the_second_is_refused(place: Place) -> None:
    folder = place.publish("1.0.0")
    other = place.base / "other"
    git(place.base, "clone", "-q", str(place.origin), "other")
    shutil.copytree(folder, other / folder.relative_to(place.work))
    theirs = place.publish("1.0.0", content="theirs")
    assert place.edge_vit("release", "--yes", kill=PUSH).status == -9
    place.do("release", where=other)
    ran = place.edge_vit("release", str(theirs), "--yes")
    assert ran.status == 2
    assert "exists with other bytes" in ran.text
    place.check_tags()


def test_a_version_that_was_released_unsigned_is_not_signed_later(place: Place) -> None:
    place.release("1.0.0")
    before = place.state()
    ran = place.edge_vit("release", "--yes", "--key", str(place.base / "edge-vit.key"))
    assert ran.status == 2
    assert "another signature; a version does not change, sign the next one" in ran.text
    assert place.state() == before


def test_a_remote_that_is_not_the_default_is_recorded_with_the_release(place: Place) -> None:
    config = place.work / ".dvc" / "config"
    archive = place.base / "archive"
    config.write_text(f"{config.read_text()}['remote \"archive\"']\n    url = {archive}\n")
    place.commit("another remote")
    place.push()
    place.publish("1.0.0")
    place.do("release", "--remote", "archive")
    assert not place.store.exists()
    assert "DVC remote archive" in place.do("promote", "deit-tiny@v1.0.0", "candidate")
    assert (place.fetched("--stage", "candidate") / "SHA256SUMS").is_file()


def test_files_that_were_removed_from_the_remote_are_brought_back(place: Place) -> None:
    place.release("1.0.0")
    tags = place.tags()
    max(place.store.rglob("*"), key=lambda path: path.stat().st_size).unlink()
    assert "push     1 of 6 files" in place.do("release")
    place.check_tags()
    assert place.tags() == tags


def test_without_dvc_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "dvc", None)
    words = r"needs dvc, which is not installed.*'\.\[pipeline\]'"
    with pytest.raises(InputError, match=words), alone(tmp_path / "lock"):
        pass
