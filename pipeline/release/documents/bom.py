"""The bill of materials in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/), an ML-BOM.

Written as plain JSON: `cyclonedx-python-lib` has no model cards yet (its issue 912), but it ships
the official schema, which the tests hold this to. Nothing here comes from a clock or from chance:
equal material gives equal bytes, and the serial number follows from the content.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from pipeline.formats import FORMATS
from pipeline.release.documents import licences
from pipeline.release.documents.material import File, Material
from pipeline.release.documents.numbers import FLOAT, Number, numbers

BOM_FILE = "bom.cdx.json"
SPEC_VERSION = "1.6"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edge-vit:bom")  # of serial numbers
CHECKPOINT, SAMPLES = "checkpoint", "samples"
DIGITS = 9  # significant, of a number

Json = dict[str, Any]


def bom(material: Material) -> Json:
    """Return the bill of materials of a release."""
    packages, measured = list(_packages(material)), numbers(material)
    content: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": _model(material, measured)},
        "components": [
            *(_file(material, file, measured) for file in material.files),
            _checkpoint(material),
            _samples(material),
            *packages,
        ],
        "dependencies": _dependencies(material, [package["bom-ref"] for package in packages]),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return content | {"serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, text)}"}


def _model(material: Material, measured: list[Number]) -> Json:
    """The release as a whole: what it was made from, and how float fares."""
    contract = material.contract
    return {
        "type": "machine-learning-model",
        "bom-ref": _release_ref(material),
        "name": contract.name,
        "version": contract.version,
        "description": f"{contract.checkpoint.architecture}, {len(contract.labels)} classes, as "
        f"{', '.join(FORMATS[file.key].suffix for file in material.files)}",
        "licenses": _licences(contract.checkpoint.license),
        "pedigree": {"ancestors": [_checkpoint(material, inside=True)]},
        "modelCard": _card(material, FLOAT, measured),
        "properties": _properties({"confidence_of_intervals": material.params.gate.confidence}),
    }


def _file(material: Material, file: File, measured: list[Number]) -> Json:
    about = file.about
    facts = {"size_bytes": str(file.size_bytes), "format": file.key}
    if about is not None:
        facts |= {
            "quantization": about.quantization,
            "engine": about.engine,
            "oldest_runtime": about.oldest_runtime,
            "operators": ", ".join(about.operators),
        }
    beside = [
        {"type": "file", "name": name, "hashes": [_hash(sha256)]}
        for name, sha256 in file.beside.items()
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": file.name,
        "name": file.name,
        "version": material.contract.version,
        "hashes": [_hash(file.sha256)],
        "licenses": _licences(material.contract.checkpoint.license),
        "modelCard": _card(material, file.key, measured),
        **({"components": beside} if beside else {}),
        "properties": _properties(facts),
    }


def _card(material: Material, key: str, measured: list[Number]) -> Json:
    contract = material.contract
    shape = "x".join(map(str, contract.input_shape))
    found: Json = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image classification",
            "modelArchitecture": contract.checkpoint.architecture,
            "datasets": [{"ref": SAMPLES}],
            "inputs": [{"format": f"{contract.dtype} {contract.layout} {shape}, RGB"}],
            "outputs": [{"format": f"{contract.dtype} {contract.output}, {contract.outputs}"}],
        },
        "considerations": {
            "useCases": ["telling its classes apart in images like those it was measured on"],
            "technicalLimitations": [
                "answers with one of its classes whatever it is shown; logits are not calibrated"
            ],
        },
    }
    metrics = [_metric(n) for n in measured if n.key == key]
    if metrics:
        found["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return found


def _metric(number: Number) -> Json:
    found = {"type": f"{number.metric} ({number.unit})" if number.unit else number.metric}
    found["value"] = _digits(number.value)
    if number.where:
        found["slice"] = number.where
    if number.interval is None:
        return found
    bounds = {
        "lowerBound": _digits(number.interval.low),
        "upperBound": _digits(number.interval.high),
    }
    return found | {"confidenceInterval": bounds}


def _checkpoint(material: Material, inside: bool = False) -> Json:
    """The float weights that everything was made from; ``inside`` another component, without id."""
    checkpoint = material.contract.checkpoint
    reference = {} if inside else {"bom-ref": CHECKPOINT}
    return reference | {
        "type": "machine-learning-model",
        "name": checkpoint.name,
        "description": f"float weights of {checkpoint.architecture}",
        "hashes": [_hash(checkpoint.source_sha256)],
        "licenses": _licences(checkpoint.license),
        "properties": _properties(
            {"source": checkpoint.source, "float32_safetensors_sha256": checkpoint.sha256}
        ),
    }


def _samples(material: Material) -> Json:
    """The images that it was measured on; they are no part of the release but for golden ones."""
    samples = material.evidence.parity.samples
    facts = {
        "count": samples.count,
        "labelled": str(samples.labelled).lower(),
        "edge_vit_samples_sha256": samples.sha256,
    }
    return {
        "type": "data",
        "bom-ref": SAMPLES,
        "name": material.samples_name,
        "description": "images that the release was measured on, not what it was trained on",
        "data": [{"type": "dataset", "name": material.samples_name}],
        "properties": _properties(facts),
    }


def _packages(material: Material) -> Iterator[Json]:
    """The packages that decide what bytes come out, as ``build.json`` names them."""
    for name, version in sorted(material.build.published_by.packages.items()):
        if version is not None:
            address = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
            yield {
                "type": "library",
                "bom-ref": address,
                "name": name,
                "version": version,
                "purl": address,
                "scope": "excluded",  # it was used to make the files, and is not in them
            }


def _dependencies(material: Material, packages: list[str]) -> list[Json]:
    files = [file.name for file in material.files]
    return [
        {"ref": _release_ref(material), "dependsOn": files},
        *({"ref": name, "dependsOn": [CHECKPOINT, *packages]} for name in files),
    ]


def _release_ref(material: Material) -> str:
    return f"{material.contract.name}@{material.contract.version}"


def _licences(text: str | None) -> list[Json]:
    expression = licences.spdx(text)
    if expression:
        return [{"expression": expression}]
    return [{"license": {"name": licences.shown(text)}}]


def _hash(sha256: str) -> Json:
    return {"alg": "SHA-256", "content": sha256}


def _properties(values: dict[str, Any]) -> list[Json]:
    return [{"name": f"edge-vit:{key}", "value": str(value)} for key, value in values.items()]


def _digits(value: float) -> str:
    return f"{value:.{DIGITS}g}"
