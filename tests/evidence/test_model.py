"""Evidence is read strictly: what is wrong is named by file and field."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import IntegrityError
from pipeline.evidence.golden import GoldenEvidence
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.model import SealedEvidence, parse, read_sealed, sealed_json
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.reference import read_reference
from pipeline.evidence.seal import seal
from pipeline.files import write_json
from tests.verdict import builders

CASE = builders.case()
KINDS: list[tuple[type[SealedEvidence], dict[str, Any]]] = [
    (ParityEvidence, seal(CASE.parity)),
    (LatencyEvidence, seal(CASE.latency)),
    (GoldenEvidence, builders.golden(dict(CASE.files.artefacts), CASE.files.checkpoint)),
]
ABSENT = object()


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "evidence.json"
    write_json(path, seal(content))
    return path


@pytest.mark.parametrize(("model", "content"), KINDS)
def test_what_is_read_is_written_again_byte_by_byte(
    model: type[SealedEvidence], content: dict[str, Any], tmp_path: Path
) -> None:
    path, again = written(tmp_path, content), tmp_path / "again.json"

    write_json(again, sealed_json(read_sealed(path, model)))

    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("artefacts.ptl.sqnr_db", "x", 'artefacts.ptl.sqnr_db: expected a number, found "x"'),
        ("artefacts.ptl.sqnr_db", ABSENT, "artefacts.ptl.sqnr_db is missing"),
        ("artefacts.ptl.snr", 1.0, "artefacts.ptl.snr is not a field that this edge-vit knows"),
        ("artefacts.ptl.finite", 3, "artefacts.ptl.finite must be true or false"),
        ("artefacts.ptl.count", 7, "ptl was measured on [7, 2000] samples at once"),
        ("samples.count", 1.5, "samples.count: expected a whole number, found 1.5"),
        ("noise_floor", None, "noise_floor: expected an object, found null"),
        ("machine.packages.torch", 3, "machine.packages.torch: expected a string, found 3"),
        ("seal_of", "me", "seal_of is not a field that this edge-vit knows"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, words: str, tmp_path: Path) -> None:
    content = copy.deepcopy(CASE.parity)
    *above, last = field.split(".")
    place = content
    for key in above:
        place = place[key]
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    path = written(tmp_path, content)

    with pytest.raises(IntegrityError) as refusal:
        read_sealed(path, ParityEvidence)

    assert str(refusal.value) == (
        f"{path}: {words}; run `dvc repro --force parity` to measure again"
    )


def test_a_list_that_is_too_short_says_which_place_is_missing() -> None:
    content = copy.deepcopy(KINDS[2][1])
    content["inputs"]["shape"].pop()

    with pytest.raises(IntegrityError, match=r"inputs\.shape\.3 is missing"):
        parse(content, GoldenEvidence, "golden.json", "dvc repro")


def test_a_format_of_your_own_is_read() -> None:
    content = copy.deepcopy(CASE.parity)
    content["artefacts"]["npy"] = content["artefacts"]["ptl"]

    evidence = parse(content, ParityEvidence, "evidence.json", "dvc repro")

    assert evidence.measured("npy") == evidence.measured("ptl") is not None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "describes no reference"),
        ({"schema": 2}, "is of schema 2, this edge-vit reads 1"),
        ({"schema": 1}, "checkpoint_sha256 is missing"),
    ],
)
def test_a_reference_that_is_none_is_named(content: Any, words: str, tmp_path: Path) -> None:
    write_json(tmp_path / "reference.json", content)

    with pytest.raises(IntegrityError, match=words):
        read_reference(tmp_path)
