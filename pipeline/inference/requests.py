"""Requests for classification and their answers, in the hub's format.

The body is an encoded image, or JSON ``{"inputs": BASE64, "parameters": {"top_k": 5,
"function_to_apply": "softmax"}}``; the answer a list of ``{"label": L, "score": S}``, best first,
or ``{"error": MESSAGE}``. Nothing here depends on HTTP: it runs in the workers, so that a
hostile body costs the server itself no time.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.images.decode import Fault, ImageError
from pipeline.inference.classify import TOP, Classifier, Transform

STATUS: dict[Fault, int] = {"format": 415, "size": 413, "damaged": 400}


class Parameters(BaseModel):
    """How to answer."""

    model_config = ConfigDict(extra="forbid")

    top_k: int | None = Field(default=None, ge=1, description=f"number of classes, {TOP} if null")
    function_to_apply: Transform | None = Field(
        default=None,
        description="what turns logits into scores, null: as the contract says",
    )


class Classification(BaseModel):
    """An image with parameters."""

    inputs: str = Field(description="the encoded image in base64")
    parameters: Parameters | None = None


class Label(BaseModel):
    """One class of the answer."""

    label: str
    score: float


class Failure(BaseModel):
    """Why there is no answer."""

    error: str


@dataclass(frozen=True)
class Job:
    """A request's body, as it came."""

    body: bytes
    is_json: bool


@dataclass(frozen=True)
class Reply:
    """The answer: ``content`` is the list of labels, or the error's message."""

    status: int
    content: list[dict[str, Any]] | str


def reply(classifier: Classifier, job: Job) -> Reply:
    """Answer one request, whatever its body holds."""
    try:
        image, parameters = _parse(job)
        predictions = classifier.classify(
            image, parameters.top_k or TOP, parameters.function_to_apply
        )
    except ValidationError as error:
        return _invalid(error)
    except binascii.Error as error:
        return Reply(400, f"inputs: not base64 of an image: {error}")
    except ImageError as error:
        return Reply(STATUS[error.fault], str(error))
    return Reply(200, [asdict(prediction) for prediction in predictions])


def _parse(job: Job) -> tuple[bytes, Parameters]:
    if not job.is_json:
        return job.body, Parameters()
    request = Classification.model_validate_json(job.body)
    text = request.inputs
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if not text.isascii():
        raise binascii.Error("not ASCII")
    return base64.b64decode(text, validate=True), request.parameters or Parameters()


def _invalid(error: ValidationError) -> Reply:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return Reply(400, f"the body is not JSON: {first['msg']}")
    where = ".".join(map(str, first["loc"]))[:100] or "the body"
    return Reply(422, f"{where}: {first['msg']}"[:300])
