"""`edge-vit promote`, also with `--rollback`: each says by one more tag which version has a stage.

Tags are never removed, so they are the history. Each says who, when and why, and the hash of the
release's list of files. Before a tag is written, every file is read back from the DVC remote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.errors import GateError, InputError, first_of
from pipeline.registry.git import Git
from pipeline.registry.names import PROD, version_tag
from pipeline.registry.released import RELEASED_FOLDER
from pipeline.registry.steps import Step, carry_out
from pipeline.registry.store import Store, open_store
from pipeline.registry.tags import ACTION, FOLDER, SUMS, TREE, Registry, Tag, message
from pipeline.release.folder import VERDICT_FILE

UNDECIDED = "Accepted-undecided"


@dataclass
class Moving:
    """One promotion or rollback of a stage; its steps are methods."""

    git: Git
    store: Store
    registry: Registry
    version: str
    stage: str
    action: str  # "promote" or "rollback"
    why: str | None = None
    accepted: str | None = None  # why undecided criteria do not matter
    oid: str = ""

    def __post_init__(self) -> None:
        self.release = self.registry.version(self.version)
        self.name = self.registry.next_stage_tag(self.stage)
        self.done = self.registry.stage(self.stage)[-1:] == [self.version]
        if self.done:
            last = [tag for tag in self.registry.tags if tag.stage == self.stage][-1]
            self.name, self.oid = last.name, last.oid

    def read_back(self) -> None:
        """Read every file of the release back from the DVC remote, and check its hash."""
        self.store.check(self.release.facts[TREE], self.release.facts[SUMS])

    def check_verdict(self) -> None:
        """Refuse a release whose verdict is not good enough; see :func:`require_release`."""
        content = self.store.read(self.release.facts[TREE], VERDICT_FILE)
        require_release(json.loads(content), self.release.name, self.accepted)

    def steps(self) -> list[Step]:
        """What is left to do; nothing if the version has the stage already."""
        keep = Step("keep", f"{self.name} in this clone", self.keep)
        if self.done:
            return [] if self.git.local_tags().get(self.name) == self.oid else [keep]
        count, release = self.release.facts.get("Files", "the"), self.release.name
        first = [
            Step("check", f"read {count} files back from {self.store}", self.read_back, dry=True)
        ]
        if self.action == "promote" and self.stage == PROD:
            description = f"of {release}, by the rule of channel release"
            first.append(Step("verdict", description, self.check_verdict, dry=True))
        address = self.git.address()
        tag = Step("tag", f"{self.name} on {release}, to git remote {address}", self.push_tag)
        return [*first, tag, keep]

    def push_tag(self) -> None:
        """Write the stage's tag and push it to the git remote."""
        before = self.registry.stage(self.stage)
        facts = {
            ACTION: self.action,
            "Version": self.version,
            "Instead-of": before[-1] if before else "none",
            FOLDER: self.release.facts[FOLDER],
            SUMS: self.release.facts[SUMS],
        }
        if self.accepted:
            facts[UNDECIDED] = self.accepted
        text = message(f"{self.registry.name} {self.stage}: {self.version}", self.why, facts)
        commit, after = self.release.commit, self.registry.latest
        self.oid = self.git.write_tag(self.name, commit, text, after)
        self.git.push(self.name, self.oid)

    def keep(self) -> None:
        """Set the tag in this clone, too."""
        self.git.keep(self.name, self.oid)


def require_release(verdict: Any, tag: str, accepted: str | None) -> None:
    """Refuse a verdict that channel release would not publish; undecided criteria may be accepted.

    Raises:
        GateError: a criterion failed, or some are undecided and ``accepted`` gives no reason.
    """
    by_outcome: dict[str, list[str]] = {}
    for c in verdict["criteria"]:
        by_outcome.setdefault(c["outcome"], []).append(f"{c['name']} of {c['subject']}")
    if not verdict["passed"] or "fail" in by_outcome:
        raise GateError(f"the verdict of {tag} is a refusal; it cannot go to {PROD}")
    undecided = by_outcome.get("undecided", [])
    if not (accepted and accepted.strip()) and (undecided or verdict["channel"] != "release"):
        raise GateError(
            f"{tag} was published by channel {verdict['channel']} with {len(undecided)} undecided "
            f"criteria ({first_of(undecided, 3) or 'none'}); {PROD} takes what channel release "
            'publishes. To promote it all the same, say why: --accept-undecided "REASON"'
        )


def rollback_target(
    registry: Registry, local_tags: Mapping[str, str], stage: str, to: str | None
) -> str:
    """Return the version that a rollback goes back to, from what this clone knew of the stage.

    Where the stage has moved without ``local_tags`` of the clone saying so, by somebody else or by
    an interrupted rollback, it is not moved again.

    Raises:
        InputError: there is none, ``to`` never had the stage, or the stage moved meanwhile.
    """
    mine = registry.only(local_tags)
    version = _before(mine, stage, to)
    now = registry.stage(stage)[-1:]
    if now not in ([version], mine.stage(stage)[-1:]):
        raise InputError(
            f"{registry.name} {stage} has moved to {', '.join(now)} since this clone last looked; "
            "run `git fetch --tags`, then decide again"
        )
    return version


def _before(registry: Registry, stage: str, to: str | None) -> str:
    versions = registry.stage(stage)
    if to is None:
        if len(versions) < 2:
            only = "nothing has it"
            if versions:
                only = f"only {version_tag(registry.name, versions[0])} had it"
            raise InputError(
                f"{registry.name} {stage} has no version to go back to: {only}, as far as this "
                "clone knows (`git fetch --tags` asks the others)"
            )
        return versions[-2]
    version = to.removeprefix("v")
    if version not in versions:
        raise InputError(
            f"{registry.name} {stage} cannot go back to {to}, only to one of: "
            f"{', '.join(versions) or 'none'}"
        )
    return version


def move(
    git: Git,
    registry: Registry,
    version: str,
    stage: str,
    action: str,
    *,
    yes: bool,
    remote: str | None = None,
    why: str | None = None,
    accepted: str | None = None,
) -> None:
    """Print the steps that give ``stage`` to ``version``, and with ``yes`` carry them out.

    Raises:
        InputError: there is no such version.
        IntegrityError: the DVC remote does not have the release as it was.
        GateError: its verdict is not good enough for the stage.
    """
    chosen = remote or _remote_of(git, registry.version(version))
    with open_store(git.root, chosen) as store:
        moving = Moving(git, store, registry, version, stage, action, why, accepted)
        carry_out(f"{action} {moving.release.name} as {stage}", moving.steps(), yes)
        if moving.done:
            print(f"{moving.release.name} is {stage} already")


def _remote_of(git: Git, release: Tag) -> str | None:
    """The DVC remote that the release names, if it is not the default one."""
    path = f"{RELEASED_FOLDER}/{release.facts[FOLDER]}.dvc"
    outs = yaml.safe_load(git.file(release.commit, path))["outs"]
    name: str | None = outs[0].get("remote")
    return name
