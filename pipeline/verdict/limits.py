"""The limits that a gate judges by, and which of them ask for less than others.

A criterion that is switched off leaves no line in a verdict, and a limit that was loosened looks
like any other. So a verdict says of both what they are as shipped, and in the last release.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.evidence.latency import Previous
from pipeline.params import SHIPPED, Budget, Gate

Limit = float | str | tuple[str, ...] | None

OF_GATE = (
    "confidence",
    "noise_multiple",
    "weight_error_max_steps",
    "published_tolerance_pp",
    "classes_covered_min",
)
# The larger, the more is asked for; of the others, the smaller.
AT_LEAST = ("confidence", "_min", "_min_db")


def limits(gate: Gate, device: str | None) -> dict[str, Limit]:
    """Every limit by its place in params.yaml; None: it is not asked for."""
    found: dict[str, Limit] = {f"gate.{name}": getattr(gate, name) for name in OF_GATE}
    for channel in type(gate.devices).model_fields:
        found[f"gate.devices.{channel}"] = getattr(gate.devices, channel)
    for key, budget in gate.budgets.items():
        for name in Budget.model_fields:
            found[f"gate.budgets.{key}.{name}"] = getattr(budget, name)
    return found | {"baseline.device": device}


def relaxed(gate: Gate, device: str | None, previous: Previous | None = None) -> tuple[str, ...]:
    """A sentence for each limit that asks for less than as shipped, or than in the last release.

    Only the formats of ``gate`` are compared.
    """
    actual = limits(gate, device)
    found = list(_looser(actual, limits(SHIPPED, device or "a reference GPU"), "as shipped"))
    if previous is not None and previous.gate is not None:
        before = limits(previous.gate, previous.device)
        found += _looser(actual, before, f"in {previous.release}")
    return tuple(found)


def _looser(actual: Mapping[str, Limit], others: Mapping[str, Limit], whose: str) -> Iterator[str]:
    for name in (name for name in others if name in actual):
        limit, usual = actual[name], others[name]
        if usual is None or limit == usual:
            continue
        if limit is None:
            yield f"{name} is not asked for ({whose}: {shown(usual)})"
        elif isinstance(limit, tuple) and isinstance(usual, tuple):
            if missing := [target for target in usual if target not in limit]:
                yield f"{name} does not ask for {', '.join(missing)}, {whose} it does"
        elif _less(name, limit, usual):
            yield f"{name} is {shown(limit)}, looser than {whose}: {shown(usual)}"


def _less(name: str, limit: Limit, usual: Limit) -> bool:
    """Whether a number asks for less; another reference GPU does not."""
    if not (isinstance(limit, float | int) and isinstance(usual, float | int)):
        return False
    return limit < usual if name.endswith(AT_LEAST) else limit > usual


def shown(limit: Limit) -> str:
    """A limit in words."""
    if limit is None:
        return "not asked for"
    if isinstance(limit, tuple):
        return ", ".join(limit) or "none"
    return f"{limit:g}" if isinstance(limit, float | int) else limit
