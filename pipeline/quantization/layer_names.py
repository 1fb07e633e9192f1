"""Patterns of layers' names, as ``keep_float`` and its like have them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def named(layer: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns names the layer."""
    return any(fnmatchcase(layer, pattern) for pattern in patterns)
