"""Read a YAML file into a declared section, with messages that a user can act on.

Validation is pydantic's; the words are ours, because the first thing a user needs is the key's
path and what is allowed there.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
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
_TYPES = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_too_short": "text that is not empty",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
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
        raise ParamsError("\n".join(_explain(error.errors(), path, model))) from None


@dataclass
class _Place:
    """Where an error is: the key's path, what is declared there, and the keys known beside it."""

    key: str
    annotation: Any
    constraints: dict[str, Any]
    beside: list[str]


def _explain(problems: list[ErrorDetails], path: Path, model: type[Section]) -> list[str]:
    """One line for each key; what may stand there in several ways is joined by "or"."""
    misspelt: list[str] = []  # first, since they often explain what is missing
    missing: list[str] = []
    wrong: dict[str, tuple[list[str], Any]] = {}
    for problem in problems:
        place = _find(problem["loc"], model)
        kind = problem["type"]
        if kind == "value_error":
            misspelt.append(f"{path}: {place.key}: {problem['ctx']['error']}")
        elif kind == "extra_forbidden" or problem["loc"][-1:] == ("[key]",):
            name = place.key.rpartition(".")[2]
            near = difflib.get_close_matches(name, place.beside, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(place.beside)}"
            misspelt.append(f"{path}: {place.key} is not a parameter; {hint}")
        elif kind == "missing":
            missing.append(f"{path}: {place.key} is missing")
        else:
            allowed = _allowed(problem, place)
            wrong.setdefault(place.key, ([], problem["input"]))[0].append(allowed)
    lines = [
        f"{path}: {key} must be {' or '.join(allowed)}, got {_shown(value)}"
        for key, (allowed, value) in wrong.items()
    ]
    return misspelt + missing + lines


def _allowed(problem: ErrorDetails, place: _Place) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    for start, words in _TYPES.items():
        if kind.startswith(start):
            if words == "text" and isinstance(problem["input"], int | float):
                return "text (put it in quotes)"
            return words
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return _range(place.constraints)
    if kind == "literal_error":
        choices = [str(choice) for choice in get_args(place.annotation)]
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind == "too_short":
        return f"a list of at least {context['min_length']}"
    if kind == "too_long":
        return f"a list of at most {context['max_length']}"
    return problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _range(limits: dict[str, Any]) -> str:
    """A range in words, from annotated_types' ge, gt, le and lt."""
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is None or high is None:
        words = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
        return " and ".join(f"{words[key]} {limit:g}" for key, limit in limits.items())
    outside = [f"{limits[key]:g}" for key in ("gt", "lt") if key in limits]
    excluded = f" ({' and '.join(outside)} excluded)" if outside else ""
    return f"between {low:g} and {high:g}{excluded}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a group of keys"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _find(location: tuple[int | str, ...], model: type[Section]) -> _Place:
    """Follow an error's location through the declarations, through optional and union types."""
    place = _Place("the file", model, {}, [])
    parts: list[str] = []
    for part in location:
        members = _members(place.annotation)
        if len(members) > 1:  # the part says which member of the union was tried
            chosen = [m for m in members if str(part).startswith(_tag(m))]
            place.annotation = (chosen or members)[0]
            continue
        if part == "[key]":
            continue
        place = _step(members[0], part)
        parts.append(str(part))
    members = _members(place.annotation)
    if len(members) == 1:
        place.annotation = members[0]
        place.constraints |= _constraints(place.annotation)
        place.annotation = _bare(place.annotation)
    place.key = ".".join(parts) or "the file"
    return place


def _step(annotation: Any, part: int | str) -> _Place:
    """What is declared at ``part`` of a section, a dict or a tuple."""
    annotation = _bare(annotation)
    arguments = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        beside = sorted(annotation.model_fields)
        field = annotation.model_fields.get(str(part))
        if field is None:
            return _Place("", Any, {}, beside)
        return _Place("", field.annotation, _limits(field.metadata), beside)
    if get_origin(annotation) is dict:
        return _Place("", arguments[1], {}, sorted(map(str, get_args(arguments[0]))))
    if get_origin(annotation) is tuple and isinstance(part, int):
        last = len(arguments) - 1 - (arguments[-1] is Ellipsis)
        return _Place("", arguments[min(part, last)], {}, [])
    return _Place("", Any, {}, [])


def _members(annotation: Any) -> list[Any]:
    """The types that may stand here, without None."""
    bare = _bare(annotation)
    if get_origin(bare) in (Union, UnionType):
        return [member for member in get_args(bare) if member is not NoneType]
    return [annotation]


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tag(member: Any) -> str:
    """How pydantic starts the name of a union's member."""
    if get_origin(member) is Literal:
        return "literal"
    return str(getattr(get_origin(member) or member, "__name__", member))


def _constraints(annotation: Any) -> dict[str, Any]:
    if get_origin(annotation) is not Annotated:
        return {}
    fields = [item for item in get_args(annotation)[1:] if isinstance(item, FieldInfo)]
    return _limits([limit for field in fields for limit in field.metadata])


def _limits(metadata: list[Any]) -> dict[str, Any]:
    """What annotated_types' Ge, Gt, Le and Lt say, in this order."""
    return {
        name: getattr(item, name)
        for name in ("ge", "gt", "le", "lt")
        for item in metadata
        if getattr(item, name, None) is not None
    }
