"""What is stated of a release for tools that read in-toto: its verdict, and how it was built.

Statements of https://in-toto.io/Statement/v1 as plain JSON, without an envelope: what signs them is
the signature over the whole folder (docs/adr/0026). The provenance claims what is true of a build
that anybody may run on their own machine: it is there, level 1 of SLSA's build track, and nothing
but the signature stands for what it says.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.params import Params
from pipeline.release.build import LOCK_FILE
from pipeline.release.documents.material import Material
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion

FOLDER = "attestations"
VERDICT_FILE, PROVENANCE_FILE = "verdict.intoto.json", "provenance.intoto.json"
STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:edge-vit:build:dvc-repro:1"
# Nobody stands behind this builder: whoever has the repository is it.
BUILDER = "urn:edge-vit:builder:whoever-ran-it"
LEVEL = "SLSA build level 1: made on the builder's own machine, not hosted, not isolated"

Json = dict[str, Any]


def test_result(material: Material) -> Json:
    """State the verdict: every criterion by name, and what it was decided from.

    WARNED is a verdict that allows publishing with criteria undecided, FAILED one that refuses.
    """
    verdict = material.verdict
    undecided = [c for c in verdict.criteria if c.outcome == UNDECIDED]
    result = "FAILED" if not verdict.passed else "WARNED" if undecided else "PASSED"
    predicate = {
        "result": result,
        "configuration": [
            _inline(f"gate of params.yaml, channel {verdict.channel}", _gate(material.params)),
            *_evidence(material),
        ],
        "passedTests": _names(verdict.criteria, PASS),
        "warnedTests": _names(verdict.criteria, UNDECIDED),
        "failedTests": _names(verdict.criteria, FAIL),
    }
    return _statement(material, TEST_RESULT, predicate)


def provenance(material: Material) -> Json:
    """State how the files were built, as far as that is known.

    Code, packages and machine are those of `publish`, as ``build.json`` says.
    """
    build = material.build.model_dump(mode="json")
    return _statement(
        material,
        PROVENANCE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"params": build["params"]},
                "internalParameters": {
                    "level": LEVEL,
                    "published_by": build["published_by"],
                },
                "resolvedDependencies": _inputs(material),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"edge-vit": _version()}},
                "metadata": {},
                "byproducts": _evidence(material),
            },
        },
    )


def _code(material: Material) -> Iterator[Json]:
    """The code that ran: its commit, where it was one, and the hash of what really was there."""
    code = material.build.published_by.code
    if code.commit:
        yield {
            "name": "edge-vit",
            "digest": {"gitCommit": code.commit},
            "annotations": {"changed_since": bool(code.dirty)},
        }
    yield {
        "name": "edge-vit's package",
        "digest": {"sha256": code.sha256},
        "annotations": {"of": "names and hashes of its files, as in build.json"},
    }
    if code.lock_sha256:
        yield {"name": LOCK_FILE, "digest": {"sha256": code.lock_sha256}}


def _inputs(material: Material) -> list[Json]:
    checkpoint, samples = material.contract.checkpoint, material.evidence.parity.samples
    return [
        *_code(material),
        {
            "name": f"checkpoint {checkpoint.name}, {checkpoint.source}",
            "digest": {"sha256": checkpoint.source_sha256},
        },
        {
            "name": f"samples, {samples.count} images of {material.samples_name}",
            "digest": {"sha256": samples.sha256},
            "annotations": {"of": "pixels, labels and ids, as stage `samples` hashes them"},
        },
    ]


def _statement(material: Material, predicate_type: str, predicate: Json) -> Json:
    files = [pair for f in material.files for pair in ((f.name, f.sha256), *f.beside.items())]
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in files],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _evidence(material: Material) -> list[Json]:
    return [
        {"name": name, "digest": {"sha256": sha256}}
        for name, sha256 in material.evidence_sha256.items()
    ]


def _inline(name: str, value: Mapping[str, Any]) -> Json:
    content = json.dumps(value, sort_keys=True, allow_nan=False).encode()
    return {
        "name": name,
        "digest": {"sha256": hashlib.sha256(content).hexdigest()},
        "mediaType": "application/json",
        "content": base64.b64encode(content).decode(),
    }


def _gate(params: Params) -> Json:
    values: Json = params.gate.model_dump(mode="json")
    return values


def _names(criteria: tuple[Criterion, ...], outcome: str) -> list[str]:
    return [f"{c.subject}: {c.name}" for c in criteria if c.outcome == outcome]


def _version() -> str:
    try:
        return version("edge-vit")
    except PackageNotFoundError:
        return "unknown"
