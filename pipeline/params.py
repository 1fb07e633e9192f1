"""Everything a user may change, read once from ``params.yaml``. Sections are named as stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pipeline.formats import BUILT_IN, FORMATS, ordered, unknown
from pipeline.network_args import ImageSize, NetworkArgs, both_sides
from pipeline.schema import (
    COLOURS,
    HASH_OR_TRUST,
    KEBAB,
    VERSION,
    Colour,
    Count,
    Fraction,
    Positive,
    Section,
    load,
)
from pipeline.schemes import AUTO, SCHEMES, Scheme, SchemeChoice

PARAMS_FILE = Path("params.yaml")

THRESHOLD = 0.5  # of a probability: the likelier of two labels is the answer
Target = Literal["lite_app", "torch_1_13_1", "torch_2_1_2", "arm64", "web", "android", "phone"]
Side = Annotated[int, Field(ge=16, le=1024)]  # pixels


class Model(Section):
    """The checkpoint, and what it does not say of itself."""

    checkpoint: str = Field(min_length=1)
    architecture: str | None = None
    sha256: str | None = Field(default=None, pattern=HASH_OR_TRUST)
    labels: Path | None = None
    weights: str | None = None
    kwargs: NetworkArgs = NetworkArgs()
    activation: Literal["softmax", "sigmoid"] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = THRESHOLD
    image_size: Side | tuple[Side, Side] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    orientation: Literal["upright", "stored"] = "upright"
    background: Colour = COLOURS["white"]

    @property
    def size(self) -> ImageSize | None:
        """Height and width in pixels; None is what the checkpoint was trained at."""
        return both_sides(self.image_size)


class Samples(Section):
    """The images that files are measured and calibrated on."""

    source: Path
    limit: Count = 2000
    calibration: Annotated[int, Field(ge=0)] = 256
    seed: Annotated[int, Field(ge=0)] = 0
    bad_images: Literal["stop", "skip"] = "stop"


class Reference(Section):
    """The float reference and its noise floor."""

    noise_samples: Count = 32


class Rewrite(Section):
    """Methods that change weights and not what they compute; null or false is off."""

    fold_norm: bool = False
    rotate: Annotated[int, Field(ge=0)] | None = None
    centre: bool = False
    smooth: Fraction | None = None
    query_key: Fraction | None = None
    value: Fraction | None = None

    @property
    def calibrated(self) -> bool:
        """Whether a method asks calibration images."""
        return self.centre or {self.smooth, self.query_key, self.value} != {None}

    @property
    def any(self) -> bool:
        """Whether a method is on."""
        return self.fold_norm or self.calibrated


class Quantize(Section):
    """The int8 scheme, and the layers that are excepted from it."""

    scheme: SchemeChoice = "auto"
    rounding: Literal["nearest", "gptq"] = "nearest"
    keep_float: tuple[str, ...] = ()
    keep_dynamic: tuple[str, ...] = ()
    fused_attention: bool = False

    @property
    def settled(self) -> Scheme:
        """The scheme; ``auto`` is settled by :func:`pipeline.quantization.auto.settle` before."""
        if self.scheme == AUTO:
            raise ValueError("scheme auto is not settled yet")
        return SCHEMES[self.scheme]

    @property
    def static(self) -> bool:
        """Whether every format's int8 file has fixed ranges, of convolutions, too."""
        return self.settled.convolutions

    @property
    def calibrated(self) -> bool:
        """Whether it needs calibration images; with scheme ``auto`` it may."""
        return self.scheme == AUTO or self.fixed_ranges or self.rounding != "nearest"

    @property
    def fixed_ranges(self) -> bool:
        """Whether activation ranges are found on calibration images."""
        return self.settled.fixed_ranges

    @property
    def for_other_runtimes(self) -> Quantize:
        """The same for runtimes other than PyTorch Lite, with a scheme that they have."""
        scheme = self.settled.for_other_runtimes
        if scheme is None:
            return self
        return self.model_copy(update={"scheme": scheme, "keep_dynamic": ()})

    def describe(self, weights: str | None = None) -> str:
        """Describe the quantization for a contract; ``weights`` if the engine has one scheme."""
        if self.fixed_ranges:
            return "static int8, per_channel weights"
        return f"dynamic int8, {weights or self.scheme} weights"


class ExportOnnx(Section):
    """Of the int8 file of a vision transformer; others have standard operators in any case."""

    operators: Literal["fused", "standard"] = "fused"
    smooth_hidden: Fraction | None = None


class Golden(Section):
    """The images that are published with the right answers."""

    samples: Annotated[int, Field(ge=0)] = 8
    photographs: Path = Path("embedded/photos")


class Parity(Section):
    """How many samples each step is compared on."""

    step_samples: Count = 32


class Latency(Section):
    """How files are timed; ``min_seconds`` is of each file."""

    threads: Count = 1
    warmup: Annotated[int, Field(ge=0)] = 5
    runs: Annotated[int, Field(ge=10)] = 100
    min_seconds: Annotated[float, Field(ge=0)] = 10.0


def _known_format(key: str) -> str:
    if key not in FORMATS:
        raise ValueError(unknown(key))
    return key


FormatKey = Annotated[str, AfterValidator(_known_format)]


def _each_once(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The formats in the order of tables, which is that of everything that is made of them."""
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key} is named more than once")
    return ordered(keys)


Formats = Annotated[tuple[FormatKey, ...], Field(min_length=1), AfterValidator(_each_once)]


class Budget(Section):
    """Limits of one artefact; a key left out is a criterion not asked for."""

    top1_agreement_min: Fraction | None = None
    accuracy_drop_max_pp: Annotated[float, Field(gt=0, le=100)] | None = None
    sqnr_min_db: float | None = None
    size_ratio_max: Positive | None = None
    latency_ratio_max: Positive | None = None
    regression_ratio_max: Positive | None = None
    memory_ratio_max: Positive | None = None
    baseline_ratio_max: Positive | None = None
    device_sqnr_min_db: float | None = None
    instructions_max_m: Positive | None = None
    instructions_growth_max: Positive | None = None


class Devices(Section):
    """The targets of `device_tests` whose evidence a channel asks for."""

    candidate: tuple[Target, ...] = ()
    release: tuple[Target, ...] = ()


class Gate(Section):
    """The channel, its limits and how sure a verdict must be."""

    channel: Literal["candidate", "release"] = "candidate"
    confidence: Annotated[float, Field(ge=0.9, lt=1)] = 0.95
    noise_multiple: Annotated[float, Field(ge=1)] = 10.0
    weight_error_max_steps: Annotated[float, Field(ge=0.5)] = 0.51
    published_tolerance_pp: Annotated[float, Field(gt=0, le=100)] | None = 4.0
    latency_noise: Annotated[float, Field(ge=0, lt=1)] = 0.03
    classes_covered_min: Fraction | None = 0.8
    devices: Devices = Devices()
    budgets: dict[FormatKey, Budget]


_INT8 = Budget(
    top1_agreement_min=0.98,
    accuracy_drop_max_pp=1.0,
    sqnr_min_db=30,
    size_ratio_max=0.35,
    memory_ratio_max=1.0,
    regression_ratio_max=1.1,
    baseline_ratio_max=50,
    device_sqnr_min_db=35,
    instructions_growth_max=1.02,
)
_TIMED = _INT8.model_copy(update={"latency_ratio_max": 1.0})
# What params.yaml has as shipped: a verdict says which limits ask for less.
SHIPPED = Gate(
    devices=Devices(release=("lite_app", "torch_1_13_1", "torch_2_1_2", "arm64", "web", "android")),
    budgets={
        "ptl": _INT8,
        "int8_onnx": _TIMED,
        "pte": _TIMED,
        "onnx": Budget(
            top1_agreement_min=0.99,
            accuracy_drop_max_pp=1.0,
            size_ratio_max=1.05,
            latency_ratio_max=1.5,
            memory_ratio_max=1.5,
            regression_ratio_max=1.1,
            baseline_ratio_max=50,
            device_sqnr_min_db=80,
            instructions_growth_max=1.02,
        ),
    },
)


class Baseline(Section):
    """The reference GPU; null: none, and nothing is asked of it."""

    device: Annotated[str, Field(min_length=1)] | None = None


class Release(Section):
    """Version and name of what is published."""

    version: str = Field(pattern=VERSION)
    artifact: Annotated[str, Field(pattern=KEBAB)] | None = None


class Params(Section):
    """The whole of ``params.yaml``."""

    model: Model
    samples: Samples
    reference: Reference = Reference()
    rewrite: Rewrite = Rewrite()
    quantize: Quantize = Quantize()
    export_onnx: ExportOnnx = ExportOnnx()
    golden: Golden = Golden()
    parity: Parity = Parity()
    latency: Latency = Latency()
    formats: Formats = BUILT_IN  # before the gate, whose budgets are checked against it
    gate: Gate
    baseline: Baseline
    release: Release

    @field_validator("gate")
    @classmethod
    def _budgets_of_formats(cls, gate: Gate, info: ValidationInfo) -> Gate:
        """Keep the budgets of the chosen formats; each needs one."""
        chosen = info.data.get("formats", ())  # nothing where they are not valid themselves
        for key in chosen:
            if key not in gate.budgets:
                raise ValueError(
                    f"budgets has none for {key}; add gate.budgets.{key}, or take {key} out of "
                    "formats"
                )
        return gate.model_copy(
            update={"budgets": {key: gate.budgets[key] for key in gate.budgets if key in chosen}}
        )

    @property
    def calibrated(self) -> bool:
        """Whether the files depend on calibration images."""
        smoothed = self.export_onnx.smooth_hidden is not None
        return self.rewrite.calibrated or self.quantize.calibrated or smoothed


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read ``params.yaml``; see :func:`load` for errors."""
    return load(path, Params)


@dataclass(frozen=True)
class Recipe:
    """The two sections of params.yaml that are searched."""

    rewrite: Rewrite
    quantize: Quantize

    def lines(self) -> str:
        """What to paste into params.yaml."""
        sections = {
            "rewrite": self.rewrite.model_dump(mode="json"),
            "quantize": self.quantize.model_dump(mode="json"),
        }
        return yaml.safe_dump(sections, sort_keys=False).rstrip()

    @classmethod
    def of(cls, lines: str) -> Recipe:
        """Read what :meth:`lines` gave."""
        sections = yaml.safe_load(lines)
        return cls(Rewrite(**sections["rewrite"]), Quantize(**sections["quantize"]))
