"""Everything a user may change, read once from ``params.yaml`` and validated with its key path.

Sections are named as the stages are. Validation is pydantic's; the messages are ours, because
the first thing a user needs is the key's path and what is allowed there.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from pipeline.core.errors import ParamsError

PARAMS_FILE = Path("params.yaml")

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of parameters: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Model(Section):
    checkpoint: str = Field(min_length=1)
    architecture: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^(trust-first-use|[0-9a-f]{8,64})$")
    labels: Path | None = None


class Samples(Section):
    source: Path
    limit: Count = 2000
    calibration: Annotated[int, Field(ge=0)] = 256
    seed: Annotated[int, Field(ge=0)] = 0
    bad_images: Literal["stop", "skip"] = "stop"


class Reference(Section):
    noise_samples: Count = 64


class Quantize(Section):
    scheme: Literal["per_tensor", "per_channel"] = "per_channel"
    keep_float: tuple[str, ...] = ()
    fused_attention: bool = False


class Parity(Section):
    step_samples: Count = 64


class Latency(Section):
    threads: Count = 1
    warmup: Annotated[int, Field(ge=0)] = 5
    runs: Annotated[int, Field(ge=10)] = 100


class Budget(Section):
    """Limits of one artefact; a key left out is a criterion not asked for."""

    top1_agreement_min: Fraction | None = None
    accuracy_drop_max_pp: Annotated[float, Field(gt=0, le=100)] | None = None
    sqnr_min_db: float | None = None
    size_ratio_max: Positive | None = None
    latency_ratio_max: Positive | None = None


class Gate(Section):
    channel: Literal["candidate", "release"] = "candidate"
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    noise_multiple: Annotated[float, Field(ge=1)] = 4.0
    weight_error_max_steps: Annotated[float, Field(ge=0.5)] = 0.51
    budgets: dict[Literal["ptl", "onnx", "int8_onnx", "pte"], Budget]


class Baseline(Section):
    device: str = Field(min_length=1)


class Release(Section):
    version: str = Field(pattern=r"^\d+\.\d+\.\d+([-+][0-9A-Za-z.-]+)?$")


class Params(Section):
    """The whole of ``params.yaml``."""

    model: Model
    samples: Samples
    reference: Reference = Reference()
    quantize: Quantize = Quantize()
    parity: Parity = Parity()
    latency: Latency = Latency()
    gate: Gate
    baseline: Baseline
    release: Release


M = TypeVar("M", bound=Section)


def load(path: Path, model: type[M]) -> M:
    """Read a YAML file into ``model``.

    Raises:
        ParamsError: the file is missing or not YAML, or a value is missing, misspelt or out of
            range; the message names the file, the key's path and what is allowed.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run from the repository's root") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem, path, model) for problem in error.errors()]
        raise ParamsError("\n".join(problems)) from None


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read ``params.yaml``; see :func:`load` for errors."""
    return load(path, Params)


def _explain(problem: ErrorDetails, path: Path, model: type[Section]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_beside(problem["loc"], model)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{path}: {key} is not a parameter; {hint}"
    if kind == "missing":
        return f"{path}: {key} is missing"
    allowed = _allowed(kind, context, problem["msg"])
    return f"{path}: {key} must be {allowed}, got {problem['input']!r}"


def _allowed(kind: str, context: dict[str, Any], message: str) -> str:
    words = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "greater than {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "less than {lt}",
        "literal_error": "one of {expected}",
        "string_pattern_mismatch": "text that matches {pattern}",
        "string_too_short": "text that is not empty",
    }
    if kind in words:
        return words[kind].format(**context)
    return message.removeprefix("Input should be ").removeprefix("a valid ")


def _keys_beside(location: tuple[int | str, ...], model: type[Section]) -> list[str]:
    section: Any = model
    for part in location[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        section = field.annotation if field is not None else Budget
    return sorted(getattr(section, "model_fields", {}))
