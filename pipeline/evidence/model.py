"""What every kind of evidence shares: how it is sealed, written and strictly read.

A kind is a frozen model. On disk it is JSON with the model's fields beside ``kind``, ``schema`` and
``seal`` (see :mod:`pipeline.evidence.seal`). Unknown and missing fields, NaN and infinity are
refused with one message that names the file and the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, ValidationError

from pipeline.errors import IntegrityError, shown
from pipeline.evidence.seal import SCHEMA, check_seal, seal
from pipeline.files import read_json
from pipeline.schema import Count, Section, field_path

ENVELOPE = ("kind", "schema")  # beside the fields of every kind

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NotNegative = Annotated[float, Field(ge=0)]


class Machine(Section):
    """The machine that a measurement was taken on, as `machine.fingerprint` describes it."""

    device: str
    processor: str
    cores: Count
    flags: tuple[str, ...]  # instruction sets that decide which kernels run
    system: str
    python: str
    packages: dict[str, str | None]  # versions, by package; None: not installed


class NoiseFloor(Section):
    """How far equally correct float runs differ, in logits; at least float32's resolution."""

    max_abs: NotNegative  # the largest difference of any logit
    count: Count  # samples compared
    runs: dict[str, NotNegative]  # the largest difference of each kind of run, the resolution


class SealedEvidence(Section):
    """A kind of evidence; subclasses add what was measured."""

    kind: ClassVar[str]
    remedy: ClassVar[str]  # the command that measures it again

    seal: str = ""  # SHA-256 of the rest as JSON; empty before it is sealed


E = TypeVar("E", bound=SealedEvidence)
S = TypeVar("S", bound=Section)


def sealed_json(evidence: SealedEvidence) -> dict[str, Any]:
    """The evidence as JSON values with its envelope and a seal."""
    content = evidence.model_dump(exclude={"seal"})
    return seal({"kind": evidence.kind, "schema": SCHEMA, **content})


def read_sealed(path: Path, model: type[E]) -> E:
    """Read evidence from ``path`` and check kind, schema, seal and every field.

    Raises:
        InputError: the file is missing or not JSON.
        IntegrityError: it is other evidence, was changed after it was measured, or a field is
            missing, unknown or impossible; the message names the file and the field.
    """
    content = check_seal(read_json(path), model.kind, str(path), model.remedy)
    return parse(content, model, str(path), model.remedy)


def parse(content: Mapping[str, Any], model: type[S], source: str, remedy: str) -> S:
    """Return JSON values as ``model``; ``source`` is what errors call them.

    Raises:
        IntegrityError: a field is missing, unknown or impossible; ``remedy`` is the command that
            the message recommends.
    """
    fields = {key: value for key, value in content.items() if key not in ENVELOPE}
    try:
        # As JSON, since pydantic is strict there about numbers and text, not about lists.
        return model.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        problem = _problem(error, fields)
        raise IntegrityError(f"{source}: {problem}; run `{remedy}` to measure again") from None


def _problem(error: ValidationError, content: Any) -> str:
    """The first problem in words, after the path of its field."""
    first = error.errors(include_url=False)[0]
    field = field_path(first, content)
    message, value = first["msg"], first["input"]
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "extra_forbidden":
        return f"{field} is not a field that this edge-vit knows"
    if first["type"] == "value_error":
        reason = message.removeprefix("Value error, ")
        return f"{field}: {reason}" if field else reason
    if first["type"].startswith("union_tag"):
        return f"{field}.finite must be true or false"
    expected = message.removeprefix("Input should be ").replace("a valid ", "a ")
    expected = expected.replace("a integer", "a whole number")
    return f"{field}: expected {expected}, found {shown(json.dumps(value, default=str))}"
