from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import numpy as np
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult as Result
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message

from pipeline.release.documents.attestations import provenance
from pipeline.release.documents.attestations import test_result as statement_of
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED
from tests.release.materials import PARAMS, build, material
from tests.verdict import builders as evidence


def check(statement: dict[str, Any]) -> None:
    """Hold a statement to in-toto's own messages and rules."""
    message = ParseDict(statement, Message())  # refuses unknown fields and wrong types
    Statement.copy_from_pb(message).validate()


def test_the_verdict_is_stated_of_every_file() -> None:
    made = material()
    got = statement_of(made)
    check(got)
    assert {s["name"]: s["digest"]["sha256"] for s in got["subject"]} == {
        file.name: file.sha256 for file in made.files
    }
    ParseDict(got["predicate"], Result())


def test_every_criterion_is_in_the_list_of_its_outcome() -> None:
    made = material()
    predicate = statement_of(made)["predicate"]
    keys = {"passedTests": PASS, "warnedTests": UNDECIDED, "failedTests": FAIL}
    for key, outcome in keys.items():
        assert len(predicate[key]) == made.verdict.count(outcome)
    assert ".ptl: top1_agreement_min" in predicate["passedTests"]
    assert "float: baseline_logits" in predicate["warnedTests"]


def test_undecided_warns_and_a_refusal_fails() -> None:
    assert statement_of(material())["predicate"]["result"] == "WARNED"
    strict = evidence.case()
    strict.gate = evidence.gate("release")
    assert statement_of(material(strict))["predicate"]["result"] == "FAILED"
    bad = evidence.case()
    bad.measure("ptl", np.roll(bad.reference, 1, axis=1))
    got = statement_of(material(bad))["predicate"]
    assert got["result"] == "FAILED"
    assert ".ptl: top1_agreement_min" in got["failedTests"]


def test_the_rules_that_it_was_decided_by_are_inside() -> None:
    made = material()
    rules, *others = statement_of(made)["predicate"]["configuration"]
    content = base64.b64decode(rules["content"])
    assert hashlib.sha256(content).hexdigest() == rules["digest"]["sha256"]
    assert json.loads(content) == made.params.gate.model_dump(mode="json")
    assert [o["name"] for o in others] == ["evidence/parity.json", "evidence/latency.json"]


def test_provenance_is_of_slsa_and_claims_no_more_than_level_1() -> None:
    made = material()
    got = provenance(made)
    check(got)
    ParseDict(got["predicate"], Provenance())
    assert got["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = got["predicate"]["buildDefinition"]
    assert definition["internalParameters"]["level"].startswith("SLSA build level 1")
    inputs = [d["digest"] for d in definition["resolvedDependencies"]]
    checkpoint, samples = made.contract.checkpoint, made.evidence.parity.samples
    assert inputs == [
        {"gitCommit": "c" * 40},
        {"sha256": "d" * 64},
        {"sha256": "e" * 64},
        {"sha256": checkpoint.source_sha256},
        {"sha256": samples.sha256},
    ]
    assert definition["externalParameters"]["params"] == PARAMS.model_dump(mode="json")


def test_provenance_outside_of_git_names_no_commit() -> None:
    got = provenance(material(build=build(commit=None, dirty=None, lock_sha256=None)))
    check(got)
    inputs = got["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [d["name"] for d in inputs][:1] == ["edge-vit's package"]
    assert "gitCommit" not in json.dumps(got)


def test_provenance_says_that_the_commit_was_changed() -> None:
    got = provenance(material(build=build(dirty=True)))
    first = got["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert first["annotations"] == {"changed_since": True}


def test_equal_material_gives_equal_statements() -> None:
    made, again = material(), material(evidence.case())
    assert statement_of(made) == statement_of(again)
    assert provenance(made) == provenance(again)
