from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.contract.contract import Artefact, Checkpoint, Contract, Preprocessing
from pipeline.errors import IntegrityError
from tests.contract import builders

TEXT = st.text(max_size=20)
PIXELS = st.integers(1, 4096)
RGB = st.tuples(*[st.floats(0, 1)] * 3)
CONTRACTS = st.builds(
    Contract,
    name=TEXT,
    version=TEXT,
    preprocessing=st.builds(
        Preprocessing,
        size=st.tuples(PIXELS, PIXELS),
        resize=PIXELS,
        crop_pct=st.floats(0.1, 1),
        crop_mode=st.sampled_from(["center", "squash", "border"]),
        interpolation=TEXT,
        mean=RGB,
        std=RGB,
        orientation=st.sampled_from(["upright", "stored"]),
        background=st.tuples(*[st.integers(0, 255)] * 3),
    ),
    labels=st.lists(TEXT, max_size=5).map(tuple),
    checkpoint=st.builds(
        Checkpoint,
        name=TEXT,
        architecture=TEXT,
        source=TEXT,
        source_sha256=TEXT,
        sha256=TEXT,
        license=st.none() | TEXT,
    ),
    artefact=st.none()
    | st.builds(
        Artefact,
        format=TEXT,
        quantization=TEXT,
        keep_float=st.lists(TEXT, max_size=3).map(tuple),
        engine=TEXT,
        oldest_runtime=TEXT,
        operators=st.lists(TEXT, max_size=3).map(tuple),
    ),
    schema=st.just(1),
)
CONTRACT = builders.contract(
    name="deit",
    version="1.0.0",
    preprocessing=builders.preprocessing(size=(224, 192)),
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(CONTRACTS)
def test_what_is_written_is_read_back_and_equal_contracts_are_equal_bytes(c: Contract) -> None:
    read = Contract.from_json(c.to_json())
    assert read == c
    assert read.to_json() == c.to_json()


def test_a_contract_that_says_nothing_of_its_head_means_a_softmax() -> None:
    said = json.loads(CONTRACT.to_json())
    assert said.keys().isdisjoint({"activation", "threshold"})
    assert (CONTRACT.outputs, CONTRACT.threshold) == (len(CONTRACT.labels), None)


BINARY = {"activation": "sigmoid", "threshold": 0.25, "labels": ("no", "yes")}


def test_one_logit_of_two_labels_is_written_and_read() -> None:
    contract = builders.contract(**BINARY)
    assert contract.outputs == 1
    assert Contract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.0},
        {"threshold": "high"},
        {"threshold": None},
        {"activation": "softmax"},
        {"activation": "tanh"},
        {"labels": ["no", "yes", "perhaps"]},
    ],
)
def test_a_head_that_nobody_could_read_is_no_contract(change: dict[str, Any]) -> None:
    values = json.loads(builders.contract(**BINARY).to_json()) | change
    with pytest.raises(IntegrityError, match="not an edge-vit contract"):
        Contract.from_json(json.dumps(values))


def test_the_order_of_keys_and_the_layout_of_the_text_do_not_matter() -> None:
    values = dict(reversed(json.loads(CONTRACT.to_json()).items()))
    assert Contract.from_json(json.dumps(values)) == CONTRACT


def test_an_app_reads_the_shape_of_its_input() -> None:
    assert json.loads(CONTRACT.to_json())["input_shape"] == [1, 3, 224, 192]


def test_a_contract_that_says_nothing_of_images_means_upright_on_white() -> None:
    written = json.loads(CONTRACT.to_json())["preprocessing"]
    assert not {"orientation", "background"} & written.keys()
    prepared = Contract.from_json(CONTRACT.to_json()).preprocessing
    assert (prepared.orientation, prepared.background) == ("upright", (255, 255, 255))


def test_another_treatment_of_images_is_written() -> None:
    other = dataclasses.replace(CONTRACT.preprocessing, orientation="stored", background=(0, 0, 0))
    written = json.loads(dataclasses.replace(CONTRACT, preprocessing=other).to_json())
    assert written["preprocessing"]["orientation"] == "stored"
    assert written["preprocessing"]["background"] == [0, 0, 0]


@pytest.mark.parametrize(
    "changes", [{"orientation": "left"}, {"background": [0, 0]}, {"background": [0, 0, 256]}]
)
def test_an_unknown_treatment_of_images_is_refused(changes: dict[str, Any]) -> None:
    values = CONTRACT.to_dict()
    values["preprocessing"] |= changes
    with pytest.raises(IntegrityError, match="not an edge-vit contract"):
        Contract.from_json(json.dumps(values))


def test_a_delivered_file_is_named_by_model_scheme_and_version() -> None:
    assert CONTRACT.file_name("per_channel", ".int8.onnx") == "deit-per_channel-1.0.0.int8.onnx"


@pytest.mark.parametrize("schema", [None, 0, 2, "1"])
def test_an_unknown_schema_is_refused(schema: Any) -> None:
    text = json.dumps(CONTRACT.to_dict() | {"schema": schema})
    with pytest.raises(IntegrityError, match=r"of schema .*, this edge-vit reads 1"):
        Contract.from_json(text)


@pytest.mark.parametrize("text", ["", "no json", "[]", "null", "3", '"text"', '{"schema": 1}'])
def test_garbage_is_no_contract(text: str) -> None:
    with pytest.raises(IntegrityError, match=r"not an edge-vit contract|of schema None"):
        Contract.from_json(text)


@pytest.mark.parametrize("key", [f.name for f in dataclasses.fields(CONTRACT)][:5])
@pytest.mark.parametrize("value", ["missing", 3, "text", None])
def test_a_contract_with_a_broken_part_is_refused(key: str, value: Any) -> None:
    values = CONTRACT.to_dict()
    if value == "missing":
        del values[key]
    elif key in ("name", "version"):
        values[f"{key}_"] = value
    else:
        values[key] = value
    with pytest.raises(IntegrityError, match="not an edge-vit contract"):
        Contract.from_json(json.dumps(values))


def test_nan_is_never_written() -> None:
    broken = dataclasses.replace(CONTRACT.preprocessing, crop_pct=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(CONTRACT, preprocessing=broken).to_json()
