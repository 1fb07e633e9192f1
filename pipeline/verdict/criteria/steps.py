"""The steps from float weights to a file, each against the step before: names the broken one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evidence.parity import MeasuredStep, ParityEvidence, Weights
from pipeline.formats import FORMATS, ordered
from pipeline.metrics.measures import NonFinite
from pipeline.params import Gate
from pipeline.verdict.criterion import FAIL, PASS, Criterion, plain

NO_LAYER = "no int8 layer was compared"
ALWAYS = "rewrite"  # the step that every format has


def criteria(gate: Gate, parity: ParityEvidence) -> Iterator[Criterion]:
    """Yield the criteria of the int8 weights and of the steps that should change nothing."""
    keys = ordered([*gate.budgets, *parity.artefacts])
    if parity.weights is not None:
        yield from _weights(gate, parity.weights)
    elif any("quantize" in FORMATS[key].stages for key in keys):
        yield plain("weight_error_max_steps", "quantize", FAIL, NO_LAYER)
    wanted = [step.stage for key in keys for step in FORMATS[key].compared]
    yield from _steps(gate, parity, [ALWAYS, *wanted])


def _weights(gate: Gate, weights: Weights) -> Iterator[Criterion]:
    worst, limit = weights.worst_error_steps, gate.weight_error_max_steps
    changed = weights.changed_floats
    if changed:
        yield plain(
            "weights",
            "quantize",
            FAIL,
            f"{len(changed)} arrays that quantization leaves alone differ from the rewritten "
            f"model's, first {changed[0]}; run `dvc repro --force quantize`",
        )
    if not weights.layers:
        yield plain("weight_error_max_steps", "quantize", FAIL, NO_LAYER)
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
        note=f"{weights.layers} int8 layers lie within half a step of their float weights"
        if ok
        else f"{weights.worst_layer} is not a quantization of the rewritten model's weights; "
        "look at the quantize stage",
    )


def _steps(gate: Gate, parity: ParityEvidence, names: Sequence[str]) -> Iterator[Criterion]:
    """Steps that should change nothing, each against the step before and its noise floor."""
    for name in names:
        step = parity.steps.get(name)
        if step is None:
            yield plain("noise_multiple", name, FAIL, f"the {name} step was not compared")
            continue
        noise = step.noise or parity.noise_floor
        limit = None
        if not isinstance(noise, NonFinite):  # a nudged int8 run may happen to change nothing
            limit = gate.noise_multiple * max(noise.max_abs, parity.noise_floor.max_abs)
        difference = step.max_abs if isinstance(step, MeasuredStep) and limit is not None else None
        ok = difference is not None and limit is not None and difference <= limit
        yield Criterion(
            name="noise_multiple",
            subject=name,
            outcome=PASS if ok else FAIL,
            value=difference,
            interval=None,
            limit=limit,
            unit="logits",
            note=f"{step.after} answers as {step.before} does"
            if ok
            else f"the {name} stage changed the answers: {step.after} differs from "
            f"{step.before} by more than {gate.noise_multiple:g} noise floors",
        )
