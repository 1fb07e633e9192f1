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
    cancels: bool  # GTO's `!`: the version is no more, or left the stage


def message(subject: str, why: str | None, facts: Mapping[str, object]) -> str:
    """What a tag says: a line, why, and facts that are read again; see :attr:`Tag.facts`."""
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
        """Ask the git remote.

        Raises:
            NetworkError: it cannot be reached.
        """
        from gto.constants import ACTION as ACT
        from gto.constants import NAME, STAGE, VERSION, Action
        from gto.tag import parse_name

        found = []
        for tag, oid in git.remote_tags(f"{name}@*", f"{name}#*").items():
            parsed = parse_name(tag, raise_on_fail=False)
            if parsed and parsed[NAME] == name:
                version = parsed.get(VERSION, "").removeprefix("v") or None
                cancels = parsed[ACT] in (Action.DEREGISTER, Action.UNASSIGN)
                content = git.run("cat-file", "tag", oid)
                found.append(_parse(tag, oid, content, version, parsed.get(STAGE), cancels))
        return cls(name, sorted(found, key=lambda tag: (tag.time, _counter(tag.name))))

    def only(self, known: Mapping[str, str]) -> Registry:
        """What a clone knows that has these tags, object by name."""
        return Registry(self.name, [tag for tag in self.tags if known.get(tag.name) == tag.oid])

    @property
    def latest(self) -> int:
        """When the last tag was made, in seconds since 1970; 0 if there is none."""
        return max((tag.time for tag in self.tags), default=0)

    def versions(self) -> dict[str, Tag]:
        """The tag of every version, also of those that were taken away by GTO."""
        return {t.version: t for t in self.tags if t.version and not t.cancels}

    def version(self, version: str) -> Tag:
        """The tag of a version that may be promoted.

        Raises:
            InputError: there is none, or GTO's `deregister` took it away.
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
        """The versions that ``stage`` could go back to; the last one has it. See `standing`."""
        owners = {tag.commit: version for version, tag in self.versions().items()}
        moves = []
        for tag in self.tags:
            if tag.stage == stage and tag.commit in owners:
                kind = "unassign" if tag.cancels else tag.facts.get(ACTION, "promote")
                moves.append(Move(owners[tag.commit], kind))
        return standing(moves)

    def next_stage_tag(self, stage: str) -> str:
        """GTO counts all stages of an artifact together."""
        last = max((_counter(tag.name) for tag in self.tags), default=0)
        return f"{self.name}#{stage}#{last + 1}"


def _counter(name: str) -> int:
    found = re.search(r"#(\d+)$", name)
    return int(found[1]) if found else 0


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
