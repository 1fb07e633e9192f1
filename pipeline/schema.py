"""Read a YAML file into a declared section, with messages that a user can act on.

Validation and most words are pydantic's; each message starts with the key's path, and a misspelt
key is answered with the one that was meant.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import ParamsError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Byte = Annotated[int, Field(ge=0, le=255)]

COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0)}


def _colour(value: Any) -> Any:
    if isinstance(value, str):
        if value not in COLOURS:
            raise ValueError(f"{value} is no colour; give {', '.join(COLOURS)} or [R, G, B]")
        return COLOURS[value]
    return tuple(value) if isinstance(value, list) else value


Colour = Annotated[tuple[Byte, Byte, Byte], BeforeValidator(_colour)]  # RGB, or a name of COLOURS


def _word(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[
    Literal["auto", "on", "off"], BeforeValidator(_word)
]  # YAML 1.1 has off as false

HASH_OR_TRUST = r"^(trust-first-use|[0-9a-f]{8,64})$"
HASH = r"^[0-9a-f]{8,64}$"  # the zoo's
VERSION = r"^[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.-]+)?$"
KEBAB = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_PATTERNS = {
    KEBAB: "lower-case words with hyphens, such as deit-tiny",
    HASH_OR_TRUST: "8 to 64 lower-case hex digits or trust-first-use",
    HASH: "8 to 64 lower-case hex digits",
    VERSION: "MAJOR.MINOR.PATCH, such as 1.0.0",
}
_WORDS = {  # pydantic's, and what people say of YAML
    "an object": "a group of keys",
    "a valid array": "a list",
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid ": "a ",
    "a string": "text",
    "less than or equal to": "at most",
    "greater than or equal to": "at least",
    "have at least 1 character": "text that is not empty",
    "have at least 1 item after validation, not 0": "a list of at least 1",
}


class Section(BaseModel):
    """A group of parameters: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


M = TypeVar("M", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; people mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+][0-9]+$"),
    list("-+0123456789"),
)


def load(path: Path, model: type[M]) -> M:
    """Read a YAML file into ``model``.

    Raises:
        ParamsError: the file is missing or not YAML, or a value is missing, misspelt or out of
            range; the message names the file, the key's path and what is allowed.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
        text = json.dumps(values, default=str)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; run from the repository's root") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError, RecursionError) as error:
        raise ParamsError(f"{path} is not YAML: {error}") from None
    try:
        # As JSON, since pydantic is strict there about numbers and text, not about lists and paths.
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        lines = _explain(error.errors(include_url=False), json.loads(text), model)
        raise ParamsError("\n".join(f"{path}: {line}" for line in lines)) from None


def _explain(problems: list[ErrorDetails], values: Any, model: type[Section]) -> list[str]:
    """One sentence for each key; misspelt keys first, since they often explain what is missing."""
    misspelt: list[str] = []
    missing: list[str] = []
    wrong: dict[str, list[str]] = {}  # of a union each member says what it takes
    got: dict[str, str] = {}
    for problem in problems:
        key, kind = field_path(problem, values) or "the file", problem["type"]
        if kind == "value_error":
            misspelt.append(f"{key}: {problem['ctx']['error']}")
        elif kind == "extra_forbidden":
            near = difflib.get_close_matches(key.rpartition(".")[2], _names(model), n=1)
            hint = f"did you mean {near[0]}?" if near else "take it out"
            misspelt.append(f"{key} is not a parameter; {hint}")
        elif kind == "missing":
            missing.append(f"{key} is missing; add it")
        else:
            wrong.setdefault(key, []).append(_allowed(problem))
            got[key] = _shown(problem["input"])
    # A member of a union that says what is wrong inside explains more than one of another shape.
    outer = {key for key in wrong for other in wrong if other.startswith(f"{key}.")}
    return [
        *misspelt,
        *missing,
        *(
            f"{key} must be {' or '.join(allowed)}, got {got[key]}"
            for key, allowed in wrong.items()
            if key not in outer
        ),
    ]


def _allowed(problem: ErrorDetails) -> str:
    """Pydantic's words, but for patterns and for a number that YAML took for one."""
    if problem["type"] == "string_pattern_mismatch":
        pattern = problem["ctx"]["pattern"]
        return _PATTERNS.get(pattern, f"text that matches {pattern}")
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        return "text (put it in quotes)"
    message = re.sub(r"^\w+ should be |^\w+ should (?=have)", "", problem["msg"])
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message


def field_path(problem: ErrorDetails, values: Any) -> str:
    """The dotted path of a problem's field, without the members of unions that pydantic adds."""
    parts, here, location = [], values, problem["loc"]
    for number, part in enumerate(location, 1):
        # pydantic also names the place that a list lacks
        within = range(len(here)) if isinstance(here, list | tuple) else here
        inside = isinstance(within, dict | range) and part in within
        if inside:
            here = here[part]
        if inside or (number == len(location) and problem["type"] == "missing"):
            parts.append(str(part))
    return ".".join(parts)


def _names(annotation: Any) -> set[str]:
    """The names of all keys that are declared at ``annotation`` and below."""
    names = set().union(*map(_names, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Section):
        for name, field in annotation.model_fields.items():
            names |= {name} | _names(field.annotation)
    return names


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a group of keys"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
