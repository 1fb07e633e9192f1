"""What changes for an app from one release to the next, from their contracts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.contract.contract import Artefact, Contract
from pipeline.errors import first_of
from pipeline.formats import FORMATS

SHOWN = 3  # names in a sentence
FEEDING = {  # what code that prepares images has in it, by its place in the contract
    "preprocessing.size": "height and width of the input",
    "preprocessing.resize": "pixels that the image is resized to before the crop",
    "preprocessing.crop_mode": "way to crop",
    "preprocessing.interpolation": "filter to resize with",
    "preprocessing.mean": "mean to subtract",
    "preprocessing.std": "deviation to divide by",
    "preprocessing.colour_order": "colour order",
    "preprocessing.orientation": "what to do with an EXIF orientation",
    "preprocessing.background": "colour behind transparent parts",
    "layout": "layout of the input",
    "dtype": "type of the input",
    "input_name": "name of the input",
    "output_name": "name of the output",
    "output": "meaning of the output",
    "activation": "function that makes probabilities of the output",
    "threshold": "probability above which the answer is the second label",
}


@dataclass(frozen=True)
class Side:
    """One release: what all files have in common, and by format each one's name and needs."""

    contract: Contract
    names: Mapping[str, str]
    artefacts: Mapping[str, Artefact]


@dataclass(frozen=True)
class Change:
    """One value of the contract; labels are counted, not listed."""

    what: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Operators:
    """What a runtime must have for one file that it need not have had, and the reverse."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def changes(before: Contract, after: Contract) -> list[Change]:
    """Every value that differs in what both releases say of all their files."""
    one, other = _flat(before), _flat(after)
    changed = [
        Change(key, one.get(key), other.get(key))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]
    if before.labels != after.labels:
        changed.append(Change("labels", *map(_counted, (before, after))))
    return changed


def _flat(contract: Contract) -> dict[str, Any]:
    values = asdict(contract)
    flat = {key: values[key] for key in values.keys() - {"preprocessing", "checkpoint"}}
    for group in ("preprocessing", "checkpoint"):
        flat |= {f"{group}.{key}": value for key, value in values[group].items()}
    return {key: value for key, value in flat.items() if key not in ("labels", "artefact")}


def _counted(contract: Contract) -> str:
    return f"{len(contract.labels)}: {first_of(contract.labels, SHOWN)}"


def operators(before: Artefact, after: Artefact) -> Operators:
    """Return the operators that were added and removed."""
    one, other = set(before.operators), set(after.operators)
    return Operators(tuple(sorted(other - one)), tuple(sorted(one - other)))


def to_do(before: Side, after: Side) -> list[str]:
    """What the developer of an app that uses ``before`` must change, a sentence each."""
    return [
        *_feeding(before.contract, after.contract),
        *_reading(before.contract, after.contract),
        *_files(before.names, after.names),
        *_runtimes(before.artefacts, after.artefacts),
    ]


def _feeding(before: Contract, after: Contract) -> Iterator[str]:
    one, other = _flat(before), _flat(after)
    for key, words in FEEDING.items():
        if one[key] != other[key]:
            yield f"{words}: {_said(other[key])} instead of {_said(one[key])}"


def _reading(before: Contract, after: Contract) -> Iterator[str]:
    one, other = before.labels, after.labels
    if len(one) != len(other):
        yield f"number of answers: {len(other)} instead of {len(one)}"
    if one != other:
        yield f"labels: ship the new labels.txt; {_labels(one, other)}"
    if before.checkpoint.sha256 != after.checkpoint.sha256:
        yield "thresholds on scores: set them anew, the answers come from other weights"


def _labels(one: tuple[str, ...], other: tuple[str, ...]) -> str:
    added = [label for label in other if label not in set(one)]
    removed = [label for label in one if label not in set(other)]
    moved = [i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    said = [
        f"{how} {first_of(names, SHOWN)}"
        for how, names in (("new:", added), ("gone:", removed))
        if names
    ]
    if moved:
        first = moved[0]
        said.append(f"answer {first} now means {other[first]!r}, not {one[first]!r}")
    return ", ".join(said)


def _files(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for key in FORMATS:
        one, other = before.get(key), after.get(key)
        if one and not other:
            yield f"{FORMATS[key].suffix}: there is none any more; load another file"
        elif one and other and one != other:
            yield f"{FORMATS[key].suffix}: load {other} instead of {one}"


def _runtimes(before: Mapping[str, Artefact], after: Mapping[str, Artefact]) -> Iterator[str]:
    for key in FORMATS:
        if key not in before or key not in after:
            continue
        one, other = before[key], after[key]
        name = FORMATS[key].suffix
        if one.engine != other.engine:
            yield f"{name}: run it with {other.engine} instead of {one.engine}"
        if one.oldest_runtime != other.oldest_runtime:
            yield f"{name}: the oldest runtime is {other.oldest_runtime}, was {one.oldest_runtime}"
        if added := operators(one, other).added:
            yield (
                f"{name}: the runtime must have {first_of(added, SHOWN)}; rebuild it if it was "
                "built for chosen operators only"
            )


def _said(value: Any) -> str:
    return (
        " x ".join(map(str, value)) if isinstance(value, tuple) and len(value) == 2 else str(value)
    )
