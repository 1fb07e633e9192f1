"""The registry's state, read from the annotated tags of the git remote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import InputError, IntegrityError
from pipeline.registry.git import Git
from pipeline.registry.names import Move, standing, version_tag

SUMS, TREE, MODEL, FOLDER, ACTION = "Sha256sums", "Dvc-tree", "Model", "Folder", "Action"


@dataclass(frozen=True)
class Tag:
    """An annotated tag. ``facts`` are the `Key: value` lines at the end of its message."""

    name: str
    oid: str
    commit: str
    tagger: str
    time: int  # seconds since 1970
    message: str
    facts: Mapping[str, str]
    version: str | None  # of a version's tag, without the v
    stage: str | None
    cancels: bool  # GTO's `!`: the version was deregistered, or left the stage


def message(subject: str, why: str | None, facts: Mapping[str, object]) -> str:
    """Return a tag's message: a line, why, and the facts that :attr:`Tag.facts` reads."""
    paragraphs = [subject, *([why.strip()] if why and why.strip() else ())]
    lines = [f"{key}: {' '.join(str(value).split())}" for key, value in facts.items()]
    return "\n\n".join([*paragraphs, "\n".join(lines)]) + "\n"


@dataclass(frozen=True)
class Registry:
    """Every tag of one model, oldest first."""

    name: str
    tags: Sequence[Tag]

    @classmethod
    def read(cls, git: Git, name: str) -> Registry:
        """Read the tags of the git remote.

        Raises:
            NetworkError: it cannot be reached.
        """
        from gto.constants import ACTION as ACT
        from gto.constants import NAME, STAGE, VERSION, Action
        from gto.tag import parse_name

        tags = []
        for tag, oid in git.remote_tags(f"{name}@*", f"{name}#*").items():
            parsed = parse_name(tag, raise_on_fail=False)
            if parsed and parsed[NAME] == name:
                version = parsed.get(VERSION, "").removeprefix("v") or None
                cancels = parsed[ACT] in (Action.DEREGISTER, Action.UNASSIGN)
                content = git.run("cat-file", "tag", oid)
                tags.append(_parse(tag, oid, content, version, parsed.get(STAGE), cancels))
        return cls(name, sorted(tags, key=lambda tag: (tag.time, _counter(tag.name))))

    def only(self, local_tags: Mapping[str, str]) -> Registry:
        """Return the part of the registry that a clone has; ``local_tags`` are objects by name."""
        shared = [tag for tag in self.tags if local_tags.get(tag.name) == tag.oid]
        return Registry(self.name, shared)

    @property
    def latest(self) -> int:
        """When the last tag was made, in seconds since 1970; 0 if there is none."""
        return max((tag.time for tag in self.tags), default=0)

    def versions(self) -> dict[str, Tag]:
        """Return the tag of every version, also of those that GTO deregistered."""
        return {t.version: t for t in self.tags if t.version and not t.cancels}

    def version(self, version: str) -> Tag:
        """Return the tag of a version that may be promoted.

        Raises:
            InputError: there is none, or GTO deregistered it.
            IntegrityError: the tag was not made by `edge-vit release`.
        """
        tag = self.versions().get(version)
        if tag is None or any(t.cancels and t.version == version for t in self.tags):
            have = ", ".join(f"v{v}" for v in self.versions()) or "none"
            raise InputError(f"there is no {version_tag(self.name, version)} (versions: {have})")
        if not {SUMS, TREE, FOLDER} <= tag.facts.keys():
            raise IntegrityError(
                f"tag {tag.name} does not say which files it stands for; "
                "it was not made by `edge-vit release`"
            )
        return tag

    def stage(self, stage: str) -> list[str]:
        """Return the versions that ``stage`` can be rolled back to; see `standing`."""
        owners = {tag.commit: version for version, tag in self.versions().items()}
        moves = []
        for tag in self.tags:
            if tag.stage == stage and tag.commit in owners:
                kind = "unassign" if tag.cancels else tag.facts.get(ACTION, "promote")
                moves.append(Move(owners[tag.commit], kind))
        return standing(moves)

    def next_stage_tag(self, stage: str) -> str:
        """Return the next tag of ``stage``; GTO counts all stages of an artifact together."""
        last = max((_counter(tag.name) for tag in self.tags), default=0)
        return f"{self.name}#{stage}#{last + 1}"


def _counter(name: str) -> int:
    counter = re.search(r"#(\d+)$", name)
    return int(counter[1]) if counter else 0


def _parse(
    name: str, oid: str, content: str, version: str | None, stage: str | None, cancels: bool
) -> Tag:
    head, _, body = content.partition("\n\n")
    fields = dict(line.split(" ", 1) for line in head.splitlines())
    who, when, _zone = fields["tagger"].rsplit(" ", 2)
    last = body.strip().rpartition("\n\n")[2]
    facts = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", last, re.M))
    return Tag(
        name, oid, fields["object"], who, int(when), body.strip(), facts, version, stage, cancels
    )
