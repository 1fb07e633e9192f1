from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline.metrics.intervals import wilson
from pipeline.release.documents.bom import bom
from tests.release.materials import contract, material
from tests.verdict import builders as evidence
from tests.verdict import test_devices


def violations(content: dict[str, Any]) -> str | None:
    """What the official schema has against it."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(content))
    return found and str(found)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (value["bom-ref"],) if "bom-ref" in value else ()
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


@pytest.mark.parametrize(
    "licence", ["MIT", None, "other", "MIT OR Apache-2.0", "LicenseRef-own", "my <own>"]
)
def test_it_is_valid_whatever_the_licence(licence: str | None) -> None:
    content = bom(material(contract=contract(licence=licence)))
    assert violations(content) is None
    (stated,) = content["metadata"]["component"]["licenses"]
    if licence is None:
        assert stated == {"license": {"name": "unknown"}}


def test_the_schema_refuses_what_is_wrong() -> None:
    content = bom(material())
    content["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] = {"x": 1}
    assert violations(content) is not None


@pytest.mark.parametrize(
    "made",
    [
        evidence.case(labelled=False),
        test_devices.case(
            test_devices.cell(
                cost={"runs_ms": [], "peak_memory_mb": None, "instructions": [600_000_000]}
            )
        ),
    ],
    ids=["unlabelled", "devices"],
)
def test_it_is_valid_whatever_was_measured(made: evidence.Case) -> None:
    assert violations(bom(material(made))) is None


def test_each_file_is_there_with_its_hash_and_its_numbers() -> None:
    made = material()
    components = {c["bom-ref"]: c for c in bom(made)["components"]}
    for file in made.files:
        found = components[file.name]
        assert found["hashes"] == [{"alg": "SHA-256", "content": file.sha256}]
        metrics = found["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        accuracy = next(m for m in metrics if m["type"] == "accuracy")
        pairs = made.evidence.parity.artefacts[file.key].accuracy
        right = pairs.right
        bounds = accuracy["confidenceInterval"]
        assert float(accuracy["value"]) == right / 2000
        expected = wilson(right, 2000)
        assert float(bounds["lowerBound"]) == pytest.approx(expected.low)
        assert float(bounds["upperBound"]) == pytest.approx(expected.high)


def test_every_reference_is_to_something_that_is_there_once() -> None:
    content = bom(material())
    found = list(references(content["components"])) + list(references(content["metadata"]))
    assert len(found) == len(set(found))
    for entry in content["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= set(found)
    used = {
        dataset["ref"]
        for component in content["components"]
        for dataset in component.get("modelCard", {}).get("modelParameters", {}).get("datasets", ())
    }
    assert used == {"samples"}


def test_packages_are_those_that_the_evidence_names() -> None:
    components = bom(material())["components"]
    packages = {c["purl"] for c in components if c["type"] == "library"}
    assert packages == {"pkg:pypi/torch@2.12.1%2Bcpu", "pkg:pypi/numpy@2.4.6"}


def test_the_serial_number_follows_from_the_content() -> None:
    made = material()
    assert bom(made) == bom(material(evidence.case()))
    other = bom(material(contract=contract(("a", "b", "c"))))
    assert other["serialNumber"] != bom(made)["serialNumber"]
    assert "timestamp" not in json.dumps(other)
