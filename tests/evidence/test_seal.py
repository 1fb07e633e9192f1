from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import IntegrityError
from pipeline.evidence.seal import check_seal, seal
from pipeline.metrics.logits import logits_sha256
from tests.verdict import builders
from tests.verdict.test_decide import paths, shuffled

SEALED = seal(builders.case().parity)
PLACES = paths(SEALED)


def test_sealed_evidence_is_read_back_as_it_was() -> None:
    read = json.loads(json.dumps(SEALED))
    assert check_seal(read, "parity", "evidence.json") == SEALED


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_break_the_seal(chance: random.Random) -> None:
    assert seal(shuffled(SEALED, chance)) == SEALED
    check_seal(shuffled(SEALED, chance), "parity", "evidence.json")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(PLACES), st.sampled_from(["edit", "delete", "add", "nan"]))
def test_an_edit_anywhere_breaks_the_seal(path: tuple[str, ...], how: str) -> None:
    edited = copy.deepcopy(SEALED)
    place: Any = edited
    for key in path[:-1]:
        place = place[key]
    if how == "delete":
        del place[path[-1]]
    elif how == "add":
        place["added"] = 1
    else:
        place[path[-1]] = "edited" if how == "edit" else float("nan")
    with pytest.raises(IntegrityError, match=r"evidence\.json .*dvc repro --force parity"):
        check_seal(edited, "parity", "evidence.json")


@pytest.mark.parametrize("garbage", [None, [], "text", 3, {}, {"kind": "latency"}])
def test_what_is_no_evidence_is_refused(garbage: Any) -> None:
    with pytest.raises(IntegrityError, match="is not parity evidence"):
        check_seal(garbage, "parity", "evidence.json")


def test_evidence_of_another_kind_is_refused() -> None:
    with pytest.raises(IntegrityError, match="is not latency evidence"):
        check_seal(SEALED, "latency", "evidence.json")


def test_an_unknown_schema_is_refused_even_if_sealed() -> None:
    with pytest.raises(IntegrityError, match="of schema 2, this edge-vit reads 1"):
        check_seal(seal(SEALED | {"schema": 2}), "parity", "evidence.json")


def test_logits_have_the_same_digest_however_they_lie_in_memory() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    assert logits_sha256(np.asfortranarray(logits)) == logits_sha256(logits)
    changed = logits.copy()
    changed[3, 2] = np.nextafter(changed[3, 2], np.float32(9))
    assert logits_sha256(changed) != logits_sha256(logits)
