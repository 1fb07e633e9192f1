"""The targets by name, in the order of the matrix; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
from typing import cast, get_args

from device_tests.target import Target
from pipeline.params import Target as Name

NAMES: tuple[str, ...] = get_args(Name)


def target(name: str) -> Target:
    """Import a target of :data:`NAMES`."""
    if name.startswith("torch_"):
        from device_tests.generations import Generation

        return Generation(name.removeprefix("torch_").replace("_", "."))
    return cast(Target, importlib.import_module(f"device_tests.{name}"))
