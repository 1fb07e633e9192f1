"""What a format of delivered files is: one description each, and no library that it needs.

Everything else asks these descriptions, so a format is added by a description here (or by
:func:`register` in a module that ``EDGE_VIT_FORMATS`` names), a module that writes its files and
one that runs them. Without a stage of its own in dvc.yaml it has ``export_plugins``.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError

PLUGINS = "EDGE_VIT_FORMATS"  # environment: modules, with commas between, that register formats
PLUGINS_STAGE = "export_plugins"  # of dvc.yaml: exports the formats that have no stage there
PLUGINS_FOLDER = "plugins"  # below artifacts/, where that stage writes
REFERENCE = "reference"  # float's answers


@dataclass(frozen=True, kw_only=True)
class Rates:
    """ARM64 instructions of the layers of one format's file, and of what lies between them.

    They are fitted to counts of whole files (docs/adr/0032).
    """

    by_kind: Mapping[str, float]  # "dynamic", "static" or "float": for one multiplication
    rest: float  # for one output of a layer
    activation: float = 0.0  # for one output of fc1, where it is not in the rest
    table: float = 0.0  # the same where fc1 and fc2 are static


@dataclass(frozen=True)
class Step:
    """A stage that should change no answer: what is compared with what, by names of parity."""

    stage: str
    before: str  # an intermediate file's, or REFERENCE
    after: str


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of delivered files.

    What needs libraries is named as ``module:object`` and imported when it is used.
    """

    key: str  # in params.yaml, contracts and evidence
    suffix: str  # how a file's name ends; its name for people, too
    folder: str  # below artifacts/
    title: str  # in tables that compare files
    used_by: str  # who loads it, for people
    tag: str  # its library's tag on Hugging Face's hub
    option: str  # of `--runtime`
    exporter: str  # writes the file; see pipeline.export.exporter.Exporter
    runtime: str  # loads a path for a number of threads; see pipeline.runtimes.Runtime
    contract: str  # reads the bytes of a file's contract, without the runtime
    # That make it from checkpoint and samples, in this order; the last one exports it.
    stages: tuple[str, ...] = ("rewrite", PLUGINS_STAGE)
    schemes: tuple[str, ...] = ()  # of int8, that `tune` tries on a vision transformer; none: float
    between: Mapping[str, str] = field(default_factory=dict)  # files on its way, below artifacts/
    compared: tuple[Step, ...] = ()
    rounds: bool = False  # whether quantize.rounding changes it
    smooths: bool = False  # whether export_onnx.smooth_hidden changes it
    loading: str = ""  # stem of the templates in release/documents/loading that show how
    rates: Mapping[str, Rates] = field(default_factory=dict)  # by scheme

    @property
    def takes_symmetric(self) -> bool:
        """Whether scheme static_symmetric is made for it."""
        return "static_symmetric" in self.schemes


FORMATS: dict[str, Format] = {}
"""Every known format by its key, in the order in which tables show them."""


def register(new: Format) -> None:
    """Make a format known.

    Raises:
        ValueError: another format has its key, suffix, folder or option, or no stage writes the
            folder.
    """
    if new.stages[-1] == PLUGINS_STAGE and not new.folder.startswith(f"{PLUGINS_FOLDER}/"):
        raise ValueError(f"format {new.key}: its folder is to lie below {PLUGINS_FOLDER}/")
    for other in FORMATS.values():
        for name in ("key", "suffix", "folder", "option"):
            if getattr(new, name) == getattr(other, name) and new != other:
                raise ValueError(f"formats {new.key} and {other.key} have the same {name}")
    FORMATS[new.key] = new


def get(key: str) -> Format:
    """Return the format ``key``.

    Raises:
        InputError: there is none; the message names those that there are.
    """
    if key not in FORMATS:
        raise InputError(unknown(key))
    return FORMATS[key]


def unknown(key: str) -> str:
    """What to say of a key that no format has."""
    near = difflib.get_close_matches(key, FORMATS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FORMATS)}"
    return f"{key} is not a format; {hint}"


def name_of(key: str) -> str:
    """What people call a format; one that is not known here has its key."""
    return FORMATS[key].suffix if key in FORMATS else key


def of_file(name: str) -> Format | None:
    """The format of a file by the end of its name, the longest that fits; None if none does."""
    fits = [known for known in FORMATS.values() if name.endswith(known.suffix)]
    return max(fits, key=lambda known: len(known.suffix), default=None)


def ordered(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys in the order of :data:`FORMATS`, each once."""
    chosen = set(keys)
    return tuple(key for key in FORMATS if key in chosen)


def made_by(stage: str) -> tuple[str, ...]:
    """The keys of the formats that have ``stage`` among theirs."""
    return tuple(key for key, known in FORMATS.items() if stage in known.stages)


def first_made_by(stage: str, chosen: Iterable[str]) -> str:
    """The first of the chosen formats that have ``stage``; there must be one."""
    return next(key for key in made_by(stage) if key in set(chosen))


def exported_by(stage: str) -> tuple[str, ...]:
    """The keys of the formats whose file ``stage`` writes."""
    return tuple(key for key, known in FORMATS.items() if known.stages[-1] == stage)


def tagged(tag: str) -> tuple[str, ...]:
    """The keys of the formats of one library."""
    return tuple(key for key, known in FORMATS.items() if known.tag == tag)


def quantized() -> tuple[str, ...]:
    """The keys of the formats that are int8."""
    return tuple(key for key, known in FORMATS.items() if known.schemes)


def resolve(reference: str) -> Any:
    """Import what a description names as ``module:object``."""
    return pkgutil.resolve_name(reference)


register(
    Format(
        key="ptl",
        suffix=".ptl",
        folder="lite",
        title="lite (.ptl)",
        used_by="Android and iOS with PyTorch Lite",
        tag="pytorch",
        option="lite",
        stages=("rewrite", "quantize", "script", "optimize", "lite"),
        between={
            "quantized": "quantized/model.safetensors",
            "scripted": "scripted/model.pt",
            "optimized": "optimized/model.pt",
        },
        compared=(
            Step("script", "quantized", "scripted"),
            Step("optimize", "scripted", "optimized"),
            Step("lite", "optimized", "ptl"),
        ),
        exporter="pipeline.export.ptl:export",
        loading="ptl",
        runtime="pipeline.runtimes.ptl:LiteRuntime",
        contract="pipeline.contract.files:in_archive",
        schemes=("per_channel", "per_tensor", "static_symmetric"),
        rates={
            "per_channel": Rates(
                by_kind={"dynamic": 0.3498, "float": 0.3269, "static": 0.28},
                rest=42.8,
                activation=60.1,
            ),
            "static_symmetric": Rates(
                by_kind={"dynamic": 0.3498, "float": 0.3269, "static": 0.1173},
                rest=25.8,
                activation=60.1,
                table=14.5,
            ),
        },
    )
)
register(
    Format(
        key="onnx",
        suffix=".onnx",
        folder="onnx",
        title="ONNX float",
        used_by="ONNX Runtime, browsers, in float",
        tag="onnx",
        option="onnx",
        stages=("rewrite", "export_onnx"),
        compared=(Step("export_onnx", REFERENCE, "onnx"),),
        exporter="pipeline.export.onnx:export",
        loading="onnx",
        runtime="pipeline.runtimes.onnx:OnnxRuntime",
        contract="pipeline.contract.files:in_metadata",
    )
)
register(
    Format(
        key="int8_onnx",
        suffix=".int8.onnx",
        folder="onnx_int8",
        title="ONNX int8",
        used_by="ONNX Runtime, browsers",
        tag="onnx",
        option="int8",
        stages=("rewrite", "export_onnx"),
        exporter="pipeline.export.int8_onnx:export",
        loading="onnx",
        runtime="pipeline.runtimes.onnx:OnnxRuntime",
        contract="pipeline.contract.files:in_metadata",
        schemes=("per_channel", "per_tensor", "static"),
        rounds=True,
        smooths=True,
        # The float rate is PyTorch Lite's, and static is counted as dynamic.
        rates={
            "per_channel": Rates(
                by_kind={"dynamic": 0.1252, "float": 0.3269, "static": 0.1252}, rest=24.56
            )
        },
    )
)
register(
    Format(
        key="pte",
        suffix=".pte",
        folder="executorch",
        title="ExecuTorch (.pte)",
        used_by="ExecuTorch with XNNPACK",
        tag="executorch",
        option="executorch",
        stages=("rewrite", "export_executorch"),
        exporter="pipeline.export.pte:export",
        loading="pte",
        runtime="pipeline.runtimes.pte:ExecuTorchRuntime",
        contract="pipeline.contract.files:beside",
        schemes=("per_channel", "static"),
        rounds=True,
        # As of int8_onnx.
        rates={
            "per_channel": Rates(
                by_kind={"dynamic": 0.1613, "float": 0.3269, "static": 0.1613}, rest=23.75
            )
        },
    )
)

BUILT_IN = tuple(FORMATS)
"""The formats that are made unless params.yaml chooses others."""


def _load_plugins() -> None:
    for module in filter(None, os.environ.get(PLUGINS, "").split(",")):
        try:
            importlib.import_module(module)
        except (ImportError, ValueError) as error:  # before any module can show errors as messages
            print(f"edge-vit: {PLUGINS}: {module} cannot be loaded: {error}", file=sys.stderr)
            sys.exit(InputError.exit_status)


_load_plugins()
