"""The limits that a gate judges by, and which of them ask for less than those that are shipped.

A criterion that is switched off leaves no line in a verdict, and a limit that was loosened looks
like any other. So a verdict says of both what they are as shipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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


def relaxed(gate: Gate, device: str | None) -> tuple[str, ...]:
    """A sentence for each limit that asks for less than the shipped one of the same formats."""
    budgets = {key: budget for key, budget in SHIPPED.budgets.items() if key in gate.budgets}
    shipped = SHIPPED.model_copy(update={"budgets": budgets})
    return tuple(_looser(limits(gate, device), limits(shipped, device or "a reference GPU")))


def _looser(actual: Mapping[str, Limit], shipped: Mapping[str, Limit]) -> Iterator[str]:
    for name, usual in shipped.items():
        limit = actual[name]
        if usual is None or limit == usual:
            continue
        if limit is None:
            yield f"{name} is not asked for (as shipped: {shown(usual)})"
        elif isinstance(limit, tuple) and isinstance(usual, tuple):
            if missing := [target for target in usual if target not in limit]:
                yield f"{name} does not ask for {', '.join(missing)}"
        elif _less(name, limit, usual):
            yield f"{name} is {shown(limit)}, looser than as shipped: {shown(usual)}"


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
