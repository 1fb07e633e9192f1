"""Where two files differ: the first byte, and in which part of the format it lies."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def difference(expected: Path, actual: Path) -> str | None:
    """Return where ``actual`` first differs from ``expected``; None if the bytes are equal."""
    offset = _first(expected, actual)
    if offset is None:
        return None
    inside = {".ptl": _in_archive, ".onnx": _in_model}.get(expected.suffix)
    where = inside(expected, actual) if inside else None
    sizes = expected.stat().st_size, actual.stat().st_size
    grown = f", {sizes[1]} bytes instead of {sizes[0]}" if sizes[0] != sizes[1] else ""
    return (f"{where}; " if where else "") + f"first at byte {offset}{grown}"


def _first(expected: Path, actual: Path) -> int | None:
    """Offset of the first byte that differs, or of the end of the shorter file."""
    at = 0
    with expected.open("rb") as one, actual.open("rb") as other:
        while True:
            a, b = one.read(CHUNK_BYTES), other.read(CHUNK_BYTES)
            if a != b:
                return at + _first_of(a, b)
            if not a:
                return None
            at += len(a)


def _first_of(a: bytes, b: bytes) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(map(len, (a, b)))
    )


def _in_archive(expected: Path, actual: Path) -> str | None:
    """The members of a ``.ptl`` that differ."""
    try:
        with zipfile.ZipFile(expected) as one, zipfile.ZipFile(actual) as other:
            before, after = one.namelist(), other.namelist()
            changed = [
                f"{name} at its byte {_first_of(a, b)}"
                for name in before
                if name in after and (a := one.read(name)) != (b := other.read(name))
            ]
    except zipfile.BadZipFile:
        return None
    return _summary("member", before, after, changed) or "its members are equal, the archive is not"


def _in_model(expected: Path, actual: Path) -> str | None:
    """The initializers, nodes and metadata of an ONNX file that differ."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        one, other = onnx.load(expected), onnx.load(actual)
    except DecodeError:
        return None
    parts = {
        "initializer": (one.graph.initializer, other.graph.initializer, "name"),
        "node": (one.graph.node, other.graph.node, "name"),
        "metadata": (one.metadata_props, other.metadata_props, "key"),
    }
    summaries = [_of_part(part, *entries) for part, entries in parts.items()]
    return "; ".join(filter(None, summaries)) or "its weights and nodes are equal, the rest is not"


def _of_part(part: str, before: Iterable[Any], after: Iterable[Any], key: str) -> str:
    one, other = (
        {getattr(entry, key): entry.SerializeToString(deterministic=True) for entry in entries}
        for entries in (before, after)
    )
    changed = [name for name in one if name in other and one[name] != other[name]]
    return _summary(part, list(one), list(other), changed)


def _summary(part: str, before: list[str], after: list[str], changed: list[str]) -> str:
    """What is missing, added, changed or in another order, with the first name of each."""
    groups = {
        "changed": changed,
        "missing": [name for name in before if name not in set(after)],
        "added": [name for name in after if name not in set(before)],
    }
    phrases = [
        f"{part} {names[0]} {how}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
        for how, names in groups.items()
        if names
    ]
    if not phrases and before != after:
        phrases = [f"{part}s are in another order"]
    return ", ".join(phrases)
