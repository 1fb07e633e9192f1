"""`edge-vit promote`, with and without `--rollback`, on real git and DVC remotes."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.registry.registry_fixture import PUSH, Forker, Registry, git

REASON = ("--accept-undecided", "no record of the GPU yet")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, forker: Forker) -> Registry:
    """Versions 1.0.0 and 1.1.0, of channel candidate; and a copy of the whole, to come back to."""
    base = tmp_path_factory.mktemp("stages") / "base"
    base.mkdir()
    registry = Registry.make(base, forker)
    registry.release("1.0.0")
    registry.release("1.1.0")
    shutil.copytree(base, base.with_name("copy"))
    return registry


@pytest.fixture
def released(template: Registry) -> Registry:
    """The template as it was made, at the same paths, since remotes are named by them."""
    shutil.rmtree(template.base)
    shutil.copytree(template.base.with_name("copy"), template.base)
    return template


def promote(registry: Registry, version: str, stage: str = "prod") -> None:
    registry.do("promote", f"deit-tiny@{version}", stage, *(REASON if stage == "prod" else ()))


def served(registry: Registry, stage: str = "prod") -> str:
    """The version that another clone fetches by its stage; every byte is held to the list."""
    got = registry.fetched("--stage", stage)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=got, check=True)
    (model,) = got.glob("*.ptl")
    return model.stem.rpartition("-")[2]


def pointed(registry: Registry, stage: str = "prod") -> str:
    """The version of the latest tag of a stage, as DVC chooses it; cheaper than to fetch it."""
    form = "--format=%(*objectname) %(refname:lstrip=2)"
    refs = ("--sort=-taggerdate", form, "refs/tags")
    tags = [line.split() for line in git(registry.origin, "for-each-ref", *refs).splitlines()]
    commit = next(commit for commit, name in tags if f"#{stage}#" in name)
    (version,) = [name for of, name in tags if of == commit and "@v" in name]
    return version.partition("@v")[2]


def test_another_clone_fetches_by_stage_whatever_was_promoted_last(released: Registry) -> None:
    promote(released, "v1.0.0")
    promote(released, "v1.1.0", "candidate")
    assert (served(released), served(released, "candidate")) == ("1.0.0", "1.1.0")
    promote(released, "v1.1.0")
    assert served(released) == "1.1.0"
    released.do("promote", "deit-tiny", "prod", "--rollback", "-m", "slow on old phones")
    assert served(released) == "1.0.0"
    assert list(released.tags()) == [
        *("deit-tiny#candidate#2", "deit-tiny#prod#1", "deit-tiny#prod#3", "deit-tiny#prod#4"),
        *("deit-tiny@v1.0.0", "deit-tiny@v1.1.0"),
    ]


def test_a_tag_says_who_when_why_and_which_files(released: Registry) -> None:
    promote(released, "1.0.0")
    released.do("promote", "deit-tiny@1.1.0", "prod", *REASON, "-m", "for the spring")
    text = git(released.origin, "cat-file", "tag", "deit-tiny#prod#2")
    version = git(released.origin, "cat-file", "tag", "deit-tiny@v1.1.0")
    (sums,) = [line for line in version.splitlines() if line.startswith("Sha256sums: ")]
    assert "tagger Ann <ann@example.org> " in text
    for line in (
        "for the spring",
        "Action: promote",
        "Version: 1.1.0",
        "Instead-of: 1.0.0",
        sums,
        "Accepted-undecided: no record of the GPU yet",
    ):
        assert line in text.splitlines()


def test_tags_of_one_second_are_dated_apart_so_that_dvc_takes_the_last(released: Registry) -> None:
    for version in ("1.0.0", "1.1.0", "1.0.0", "1.1.0"):
        promote(released, version)
    form = "--format=%(taggerdate:unix)"
    dates = git(released.origin, "for-each-ref", form, "--sort=taggerdate").split()
    assert len(set(dates)) == 6
    assert served(released) == "1.1.0"


@pytest.mark.parametrize("step", ["check", "verdict", "tag", PUSH, "keep"])
def test_a_promotion_killed_before_any_step_goes_on(released: Registry, step: str) -> None:
    promote(released, "1.0.0")
    command = ("promote", "deit-tiny@v1.1.0", "prod", *REASON)
    assert released.edge_vit(*command, "--yes", kill=step).status == -9
    released.check_tags()
    assert ("deit-tiny#prod#2" in released.tags()) == (step == "keep")
    assert pointed(released) == ("1.1.0" if step == "keep" else "1.0.0")
    released.do(*command)
    assert pointed(released) == "1.1.0"
    assert released.tags(released.work) == released.tags()
    done = released.state()
    assert "deit-tiny@v1.1.0 is prod already" in released.do(*command)
    assert released.state() == done


@pytest.mark.parametrize("step", ["check", "tag", PUSH, "keep"])
def test_a_rollback_killed_before_any_step_goes_on_and_back_once(
    released: Registry, step: str
) -> None:
    released.release("1.2.0")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        promote(released, version)
    command = ("promote", "deit-tiny", "prod", "--rollback")
    assert released.edge_vit(*command, "--yes", kill=step).status == -9
    released.check_tags()
    assert pointed(released) == ("1.1.0" if step == "keep" else "1.2.0")
    released.do(*command)
    assert pointed(released) == "1.1.0"
    assert released.tags(released.work) == released.tags()


def test_a_rollback_does_not_go_on_from_what_this_clone_has_not_seen(released: Registry) -> None:
    for version in ("1.0.0", "1.1.0"):
        promote(released, version)
    git(released.base, "clone", "-q", str(released.origin), "other")
    other = released.base / "other"
    released.release("1.2.0")
    promote(released, "1.2.0")
    ran = released.edge_vit("promote", "deit-tiny", "prod", "--rollback", "--yes", where=other)
    assert ran.status == 2
    assert "has moved to 1.2.0 since this clone last looked; run `git fetch --tags`" in ran.text
    git(other, "fetch", "-q", "--tags")
    released.do("promote", "deit-tiny", "prod", "--rollback", where=other)
    assert pointed(released) == "1.1.0"


def test_a_rollback_goes_to_a_version_that_had_the_stage(released: Registry) -> None:
    released.release("1.2.0")
    for version in ("1.0.0", "1.1.0"):
        promote(released, version)
    ran = released.edge_vit("promote", "deit-tiny", "prod", "--rollback", "--to", "v1.2.0", "--yes")
    assert ran.status == 2
    assert "cannot go back to v1.2.0, only to one of: 1.0.0, 1.1.0" in ran.text
    released.do("promote", "deit-tiny", "prod", "--rollback", "--to", "v1.0.0")
    assert pointed(released) == "1.0.0"
    ran = released.edge_vit("promote", "deit-tiny", "prod", "--rollback", "--yes")
    assert ran.status == 2
    assert "only deit-tiny@v1.0.0 had it" in ran.text


def test_dry_runs_say_the_steps_and_change_nothing(released: Registry) -> None:
    for version in ("1.0.0", "1.1.0"):
        promote(released, version)
    before = released.state()
    ran = released.edge_vit("promote", "deit-tiny", "prod", "--rollback")
    assert ran.status == 0
    assert "deit-tiny#prod#3 on deit-tiny@v1.0.0, to git remote" in ran.text
    assert released.edge_vit("promote", "deit-tiny@v1.0.0", "candidate").status == 0
    assert released.state() == before


def test_prod_takes_what_channel_release_lets_out_or_a_reason(registry: Registry) -> None:
    registry.release("1.0.0", channel="release")
    registry.do("promote", "deit-tiny@v1.0.0", "prod")
    registry.release("1.1.0")
    before = registry.state()
    for reason in ((), ("--accept-undecided", " ")):
        ran = registry.edge_vit("promote", "deit-tiny@v1.1.0", "prod", *reason, "--yes")
        assert ran.status == 1
        assert "was published by channel candidate with 5 undecided criteria" in ran.text
        assert '--accept-undecided "REASON"' in ran.text
    assert registry.state() == before
    registry.do("promote", "deit-tiny@v1.1.0", "candidate")


@pytest.mark.parametrize("damage", ["removed", "truncated", "changed"])
def test_no_stage_is_given_to_files_that_the_remote_no_longer_has(
    released: Registry, damage: str
) -> None:
    promote(released, "1.0.0", "candidate")
    (model,) = (released.work / "artifacts" / "release").glob("*1.1.0/*.ptl")
    (stored,) = [
        path
        for path in released.store.rglob("*")
        if path.is_file() and path.read_bytes() == model.read_bytes()
    ]
    stored.chmod(0o644)
    if damage == "removed":
        stored.unlink()
    else:
        content = model.read_bytes()
        stored.write_bytes(content[:-9] if damage == "truncated" else content[:-1] + b"!")
    before = released.state()
    for yes in ((), ("--yes",)):
        ran = released.edge_vit("promote", "deit-tiny@v1.1.0", "candidate", *yes)
        assert ran.status == 2
        words = "missing" if damage == "removed" else "damaged"
        assert f"{model.name} is {words}" in ran.text
    assert released.state() == before


def test_a_version_that_is_not_there_cannot_be_promoted(released: Registry) -> None:
    ran = released.edge_vit("promote", "deit-tiny@v3.0.0", "candidate", "--yes")
    assert ran.status == 2
    assert "there is no deit-tiny@v3.0.0 (versions: v1.0.0, v1.1.0)" in ran.text
    ran = released.edge_vit("promote", "deit-tiny", "candidate", "--yes")
    assert "does not name a version; write it as deit-tiny@v1.2.0" in ran.text


def test_of_two_clones_that_promote_at_once_one_is_refused(released: Registry) -> None:
    promote(released, "1.0.0", "candidate")
    git(released.base, "clone", "-q", str(released.origin), "other")
    hook = released.work / ".git" / "hooks" / "pre-push"
    # While this clone pushes, the other one promotes.
    tag = "GIT_DIR=$PWD/../other/.git git push -q origin 'deit-tiny@v1.0.0^{}:refs/tags/taken'"
    hook.write_text(f"#!/bin/sh\n{tag.replace('taken', 'deit-tiny#candidate#2')}\n")
    hook.chmod(0o755)
    ran = released.edge_vit("promote", "deit-tiny@v1.1.0", "candidate", "--yes")
    assert ran.status == 2
    assert "git push failed" in ran.text
    assert "deit-tiny#candidate#2" not in released.tags(released.work)


def test_gto_reads_what_edge_vit_writes(released: Registry) -> None:
    promote(released, "1.0.0")
    promote(released, "1.1.0", "candidate")
    from gto.api import show

    shown = show(str(released.work), name="deit-tiny", table=False)
    stages = {row["version"]: [s["stage"] for s in row["stages"]] for row in shown}
    assert stages == {"v1.1.0": ["candidate"], "v1.0.0": ["prod"]}
