"""The steps from float weights to a file, each against the step before: names the broken one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.params import Gate
from pipeline.verdict.criterion import FAIL, PASS, Criterion, plain

STEPS = ("rewrite", "script", "optimize", "lite", "export_onnx")


def criteria(gate: Gate, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    """Yield what is to be said of the int8 weights and of the steps that change nothing."""
    yield from _weights(gate, parity)
    yield from _steps(gate, parity)


def _weights(gate: Gate, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    weights = parity["weights"]
    worst, limit = weights["worst_error_steps"], gate.weight_error_max_steps
    changed = weights["changed_floats"]
    if changed:
        yield plain(
            "weights",
            "quantize",
            FAIL,
            f"{len(changed)} arrays that quantization leaves alone differ from the rewritten "
            f"model's, first {changed[0]}; run `dvc repro --force quantize`",
        )
    if not weights["layers"]:
        yield plain("weight_error_max_steps", "quantize", FAIL, "no int8 layer was compared")
        return
    ok = worst <= limit
    yield Criterion(
        name="weight_error_max_steps",
        subject="quantize",
        outcome=PASS if ok else FAIL,
        value=worst,
        interval=None,
        limit=limit,
        unit="steps",
        note=f"{weights['layers']} int8 layers lie within half a step of their float weights"
        if ok
        else f"{weights['worst_layer']} is no quantization of the rewritten model's weights; "
        "look at the quantize stage",
    )


def _steps(gate: Gate, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    """Steps that should change nothing, each against the step before and its noise floor."""
    for step in STEPS:
        measured = parity["steps"].get(step)
        if measured is None:
            yield plain("noise_multiple", step, FAIL, f"the {step} step was not compared")
            continue
        noise = measured.get("noise", parity["noise_floor"])["max_abs"]
        limit = gate.noise_multiple * noise
        finite = measured["finite"] and measured["count"] > 0 and math.isfinite(limit)
        ok = finite and measured["max_abs"] <= limit
        yield Criterion(
            name="noise_multiple",
            subject=step,
            outcome=PASS if ok else FAIL,
            value=measured["max_abs"] if finite else None,
            interval=None,
            limit=limit,
            unit="logits",
            note=f"{measured['after']} answers as {measured['before']} does"
            if ok
            else f"the {step} stage changed the answers: {measured['after']} differs from "
            f"{measured['before']} by more than {gate.noise_multiple:g} noise floors",
        )
