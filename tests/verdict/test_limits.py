"""Criteria that are switched off and limits that ask for less are said, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.evidence.latency import Previous
from pipeline.params import SHIPPED, Gate, load_params
from pipeline.verdict.limits import limits, relaxed

DEVICE = "a GPU"


def changed(ptl: dict[str, Any] | None = None, **values: Any) -> Gate:
    content = SHIPPED.model_dump() | values
    content["budgets"]["ptl"] |= ptl or {}
    return Gate.model_validate(content)


def test_what_is_shipped_is_what_params_yaml_has() -> None:
    assert load_params(Path(__file__).parents[2] / "params.yaml").gate == SHIPPED
    assert relaxed(SHIPPED, DEVICE) == ()


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (changed({"sqnr_min_db": None}), "gate.budgets.ptl.sqnr_min_db is not asked for"),
        (changed({"sqnr_min_db": 29}), "ptl.sqnr_min_db is 29, looser than as shipped: 30"),
        (changed({"accuracy_drop_max_pp": 2}), "accuracy_drop_max_pp is 2, looser than"),
        (changed({"size_ratio_max": 0.4}), "size_ratio_max is 0.4, looser than"),
        (changed(confidence=0.9), "gate.confidence is 0.9, looser than as shipped: 0.95"),
        (changed(noise_multiple=20), "gate.noise_multiple is 20"),
        (changed(published_tolerance_pp=None), "gate.published_tolerance_pp is not asked for"),
        (changed(classes_covered_min=0.5), "gate.classes_covered_min is 0.5"),
        (changed(devices={"release": ["web"]}), "gate.devices.release does not ask for lite_app"),
    ],
)
def test_less_is_said(gate: Gate, said: str) -> None:
    (sentence,) = relaxed(gate, DEVICE)
    assert said in sentence


def test_no_reference_gpu_is_said() -> None:
    (sentence,) = relaxed(SHIPPED, None)
    assert sentence.startswith("baseline.device is not asked for")


def test_less_than_in_the_last_release_is_said() -> None:
    stricter = changed({"sqnr_min_db": 40, "size_ratio_max": None}, confidence=0.99)
    before = Previous(release="model-0.0.1", artefacts={}, gate=stricter, device=DEVICE)
    assert set(relaxed(SHIPPED, DEVICE, before)) == {
        "gate.budgets.ptl.sqnr_min_db is 30, looser than in model-0.0.1: 40",
        "gate.confidence is 0.95, looser than in model-0.0.1: 0.99",
    }
    assert relaxed(SHIPPED, DEVICE, before.model_copy(update={"gate": None})) == ()


def test_more_is_not_said_nor_a_format_that_is_off() -> None:
    more = {"sqnr_min_db": 35, "accuracy_drop_max_pp": 0.5, "latency_ratio_max": 1.0}
    stricter = changed(more, confidence=0.99, devices={"candidate": ["web"], "release": ["web"]})
    stricter = stricter.model_copy(update={"devices": SHIPPED.devices})
    assert relaxed(stricter, DEVICE) == ()
    only = SHIPPED.model_copy(update={"budgets": {"onnx": SHIPPED.budgets["onnx"]}})
    assert relaxed(only, DEVICE) == ()
    assert not any("ptl" in name for name in limits(only, DEVICE))
