"""The contract: how to feed an artefact and how to read its answer.

It travels inside the file it describes (``contract.json`` in a ``.ptl``'s extra files, the
``edge_vit.contract`` key of ONNX ``metadata_props``) or beside it (``NAME.pte.contract.json``),
so that an app never guesses at a crop or a colour order. `fetch` writes the first half, with
``artefact`` null; each exporter adds its own with :func:`for_artefact`.

Laws: ``Contract.from_json(contract.to_json()) == contract``, and equal contracts are equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipeline.errors import IntegrityError, shown

SCHEMA = 1
EXTRA_FILE = "contract.json"
METADATA_KEY = "edge_vit.contract"

Orientation = Literal["upright", "stored"]
Activation = Literal["softmax", "sigmoid"]
Colour = tuple[int, int, int]  # RGB, 0 to 255
UPRIGHT: Orientation = "upright"
WHITE: Colour = (255, 255, 255)
DATA_KEY = "edge_vit.data_sha256"  # of the weights beside an ONNX file that cannot hold them


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image file to the model's input.

    Decode to RGB (docs/image-files.md): turned as its EXIF data say unless ``orientation`` is
    "stored", transparency on ``background``, 16 bits to 8 by the range of the format; with
    ``colour_order`` "L" then to grey by Pillow's weights. Resize the shorter side to ``resize``
    pixels (or, with ``crop_mode`` "squash", both sides), cut ``size`` from the centre, divide by
    255, subtract ``mean``, divide by ``std``. Where ``size`` is no square, ``resize`` is a height
    and a width, which the image is resized to cover.
    """

    size: tuple[int, int]  # height, width in pixels
    resize: int | tuple[int, int]  # pixels; height and width where `size` is no square
    crop_pct: float  # size / resize, as timm states it
    crop_mode: str  # timm's: "center", "squash" or "border"
    interpolation: str  # Pillow's filter: "bicubic", "bilinear", ...
    mean: tuple[float, ...]  # of each channel, of values in 0..1
    std: tuple[float, ...]
    colour_order: str = "RGB"  # or "L", one channel of grey
    orientation: Orientation = UPRIGHT
    background: Colour = WHITE

    def __post_init__(self) -> None:
        if self.orientation not in get_args(Orientation):
            raise ValueError(f"orientation is {self.orientation!r}")
        if len(self.background) != 3 or not {*self.background} <= {*range(256)}:
            raise ValueError(f"background is {self.background!r}")

    @property
    def channels(self) -> int:
        """Channels of the input: 3 or 1."""
        return len(self.mean)

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width in pixels that an image is resized to cover before the crop."""
        return (self.resize, self.resize) if isinstance(self.resize, int) else self.resize

    def to_dict(self) -> dict[str, Any]:
        """As it is written: without what the two last fields are by default (docs/adr/0034)."""
        values = dataclasses.asdict(self)
        for key, default in (("orientation", UPRIGHT), ("background", WHITE)):
            if values[key] == default:
                del values[key]
        return values


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The published float weights that everything was made from."""

    name: str
    architecture: str  # timm's name
    source: str  # as given: a zoo entry's address, a path's file name, a hub id
    source_sha256: str  # of the file that was fetched
    sha256: str  # of the float32 safetensors that `fetch` wrote
    license: str | None
    norm_eps: float | None = None  # of layer normalization, where it is not timm's
    # Left out of the JSON where they are None, as they are for most checkpoints.
    kwargs: Mapping[str, Any] | None = None  # further arguments of `timm.create_model`
    weights: str | None = None  # place in the file, where it has several, as "state_dict_ema"


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What is true of one delivered file only."""

    format: str  # a key of formats.FORMATS
    quantization: str  # "none", or what was quantized and how
    keep_float: tuple[str, ...]  # names of layers left in float
    engine: str  # what must run it
    oldest_runtime: str  # oldest release known to load it
    operators: tuple[str, ...]  # sorted; what a runtime must have


@dataclass(frozen=True, kw_only=True)
class Contract:
    """How to feed an artefact and read it. The input is float32 NCHW, the output raw logits.

    With ``activation`` "softmax" there is one of each label, and the answer is the largest. With
    "sigmoid" there is one of two labels: its sigmoid is the probability of the second, and the
    answer is the second where that is above ``threshold``, else the first.
    """

    name: str
    version: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    checkpoint: Checkpoint
    artefact: Artefact | None = None
    input_name: str = "input"
    output_name: str = "logits"
    layout: str = "NCHW"
    dtype: str = "float32"
    output: str = "logits"
    # Both left out of the JSON with a softmax (docs/adr/0040).
    activation: Activation = "softmax"
    threshold: float | None = None  # between 0 and 1, of a sigmoid only
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation is {self.activation!r}")
        if self.activation == "softmax":
            if self.threshold is not None:
                raise ValueError("a threshold goes with activation sigmoid")
        elif self.threshold is None or not 0 < self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold!r}")
        elif len(self.labels) != 2:
            raise ValueError(f"a sigmoid answers with one of 2 labels, not {len(self.labels)}")

    @property
    def outputs(self) -> int:
        """How many logits the model gives for an image."""
        return len(self.labels) if self.threshold is None else 1

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one image: ``(1, channels, height, width)``."""
        return (1, self.preprocessing.channels, *self.preprocessing.size)

    def for_artefact(self, artefact: Artefact) -> Contract:
        """Return the contract of one delivered file."""
        return dataclasses.replace(self, artefact=artefact)

    def file_name(self, scheme: str, suffix: str) -> str:
        """Name of a delivered file: model, scheme and version, since apps cache by name."""
        return f"{self.name}-{scheme}-{self.version}{suffix}"

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as JSON values, with the shape of the input."""
        values = dataclasses.asdict(self) | {
            "preprocessing": self.preprocessing.to_dict(),
            "input_shape": list(self.input_shape),
        }
        for key in ("kwargs", "weights"):
            if values["checkpoint"][key] is None:
                del values["checkpoint"][key]
        if self.activation == "softmax":
            del values["activation"], values["threshold"]
        return values

    def to_json(self) -> str:
        """Return the contract as JSON with sorted keys: the same bytes for the same contract."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read a contract.

        Raises:
            IntegrityError: not a contract, or of a schema that this version does not know.
        """
        try:
            values = json.loads(text)
            if values.get("schema") != SCHEMA:
                raise IntegrityError(
                    f"contract of schema {values.get('schema')}, this edge-vit reads {SCHEMA}; "
                    "use the version that wrote it"
                )
            shape = values.pop("input_shape", None)
            artefact = values["artefact"]
            contract = cls(
                **_tuples(values)
                | {
                    "preprocessing": Preprocessing(**_tuples(values["preprocessing"])),
                    "checkpoint": Checkpoint(**values["checkpoint"]),
                    "artefact": None if artefact is None else Artefact(**_tuples(artefact)),
                }
            )
            if problem := next(_mistyped(contract), None):
                raise TypeError(problem)
            if shape not in (None, list(contract.input_shape)):
                raise ValueError(f"input_shape is {shape}, the rest gives {contract.input_shape}")
            return contract
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            lacks = f"{error} is missing" if isinstance(error, KeyError) else shown(error, 200)
            raise IntegrityError(f"not an edge-vit contract: {lacks}") from None


def differences(one: Contract, other: Contract) -> dict[str, tuple[Any, Any]]:
    """Return the values that differ in what two files say of the same model, by dotted path.

    What is true of one file only (``artefact``) is left out.
    """
    sides = [
        dict(_leaves(dataclasses.replace(contract, artefact=None).to_dict(), ""))
        for contract in (one, other)
    ]
    names = sorted(sides[0].keys() | sides[1].keys())
    pairs = {name: (sides[0].get(name), sides[1].get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _leaves(values: Mapping[str, Any], below: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{below}{key}.")
        else:
            yield f"{below}{key}", list(value) if isinstance(value, tuple) else value


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _mistyped(part: Any) -> Iterator[str]:
    """A sentence for each field whose value is of another type than is declared."""
    hints = get_type_hints(type(part))
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if not _fits(value, hints[field.name]):
            yield f"{field.name} is {value!r}"
        elif dataclasses.is_dataclass(value):
            yield from _mistyped(value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value that JSON gave is of a declared type; NaN and infinity are no numbers."""
    kind, members = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_fits(value, member) for member in members)
    if kind is Literal:
        return value in members
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        of = members[:1] * len(value) if members[-1] is Ellipsis else members
        return len(of) == len(value) and all(map(_fits, value, of))
    if hint is float:
        return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
    if hint is int:
        return type(value) is int
    return isinstance(value, kind or hint)
