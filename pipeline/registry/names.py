"""Names of versions and stages: the grammar of tags, and the order of versions and rollbacks.

Names of tags are GTO's (`deit-tiny@v1.2.0`, `deit-tiny#prod#3`), so that `dvc artifacts get` and
`gto show` read them. Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import InputError, shown

STAGES = ("candidate", "prod")
PROD = "prod"
USUAL_SIZE = "224"  # pixels; every other one is part of the name
SEMVER = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([-+][0-9A-Za-z.+-]+)?"


def registry_name(model: str) -> str:
    """Return the name that people look for: of `deit_tiny_patch16_224.fashion_mnist`, `deit-tiny`.

    The data set, the size of patches and the usual size of images are left out.

    Raises:
        InputError: nothing is left.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", model.split(".")[0].lower()) if word]
    words = [word for word in words if not re.fullmatch(r"patch\d+", word)]
    if words[1:] and words[-1] == USUAL_SIZE:
        words.pop()
    if not words:
        raise InputError(f"{shown(model)} gives no name; set release.artifact in params.yaml")
    return "-".join(words)


def parse_version(text: str) -> tuple[str, str]:
    """Split `deit-tiny@v1.2.0` into the name and the version; the `v` may be left out.

    Raises:
        InputError: it is not of that form.
    """
    parts = re.fullmatch(rf"([a-z0-9]+(?:-[a-z0-9]+)*)@v?({SEMVER})", text)
    if not parts:
        raise InputError(f"{shown(text)!r} does not name a version; write it as deit-tiny@v1.2.0")
    return parts[1], parts[2]


def version_tag(name: str, version: str) -> str:
    """Return the tag of a version, such as `deit-tiny@v1.2.0`."""
    return f"{name}@v{version}"


def check_successor(name: str, version: str, existing: Iterable[str]) -> None:
    """Refuse a version that is not the newest, neither of all nor of its MAJOR.MINOR.

    So 1.2.4 may still follow 1.2.3 when there is a 1.3.0, and 1.2.2 or a first 1.1.0 may not.

    Raises:
        InputError: it is too low, or not a semantic version.
    """
    from semver import Version

    if not re.fullmatch(SEMVER, version):
        raise InputError(
            f"release.version {shown(version)} is not a semantic version (no leading zeros)"
        )
    new = Version.parse(version)
    others = [Version.parse(other) for other in existing]
    line = [other for other in others if other.to_tuple()[:2] == new.to_tuple()[:2]]
    highest = max(line or others, default=None)
    if highest is not None and new <= highest:
        raise InputError(
            f"{name} {version} would come after {highest}, which is not lower; raise "
            "release.version in params.yaml and run `dvc repro`"
        )


@dataclass(frozen=True)
class Move:
    """One change of a stage."""

    version: str
    kind: str  # "promote", "rollback" or "unassign"


def standing(moves: Sequence[Move]) -> list[str]:
    """Return the versions that a stage can be rolled back to, oldest first; the last has it now.

    ``moves`` are in the order of the tags. A promotion adds on top; a rollback removes what is
    above its version. So two rollbacks in a row go back two versions.
    """
    stack: list[str] = []
    for move in moves:
        if move.kind == "unassign":
            stack = [version for version in stack if version != move.version]
        elif move.kind == "rollback" and move.version in stack:
            del stack[_last(stack, move.version) + 1 :]
        elif stack[-1:] != [move.version]:
            stack.append(move.version)
    return stack


def _last(stack: Sequence[str], version: str) -> int:
    return max(index for index, other in enumerate(stack) if other == version)
