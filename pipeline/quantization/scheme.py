"""What the module of a quantization scheme offers, and how to find it.

To add a scheme: describe it in `pipeline.schemes`, write its module here, list it in the formats
that have it (`pipeline.formats`), and add its test to ``tests/quantization``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import nn

from pipeline.contract.contract import Contract
from pipeline.quantization.storage import Metadata, StateDict
from pipeline.schemes import SCHEMES

if TYPE_CHECKING:
    from pipeline.params import Quantize

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LayerPairs:
    """A float model, and its int8 layers by the name that both models have."""

    model: nn.Module
    layers: dict[str, Function]  # float32 to float32, like the float layer of that name
    weights: dict[str, torch.Tensor]  # quantized, PyTorch's
    contract: Contract


class SchemeModule(Protocol):
    """The functions that a scheme's module has; files are ``model.safetensors``."""

    def quantize(self, params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
        """Quantize the float model of folder ``checkpoint``; write folder ``out``.

        Raises:
            ParamsError: a pattern names no layer, or calibration images of folder ``samples`` are
                needed and missing.
        """

    def load(
        self, contract: Contract, state: StateDict, metadata: Metadata, source: str
    ) -> nn.Module:
        """Build the quantized model of a file's arrays; ``source`` names the file in errors."""

    def restore(self, path: Path, float_path: Path, names: Iterable[str]) -> nn.Module:
        """Load the quantized file ``path`` with layers ``names`` in float, from ``float_path``."""

    def float_weights(self, float_path: Path) -> StateDict:
        """Return the arrays that were quantized, by the keys that a quantized file has."""

    def layer_pairs(self, float_path: Path, path: Path) -> LayerPairs:
        """Load both files as pairs of layers. The float model may be cached: do not change it."""


def scheme_module(name: str) -> SchemeModule:
    """Return the module of the scheme that ``params.yaml`` calls ``name``."""
    return _imported(SCHEMES[name].module)


def module_of(metadata: Metadata) -> SchemeModule:
    """Return the module of the scheme that wrote a file with this metadata."""
    marked = (scheme.module for scheme in SCHEMES.values() if scheme.marker in metadata)
    return _imported(next(marked, SCHEMES["per_channel"].module))


def _imported(name: str) -> SchemeModule:
    return cast(SchemeModule, importlib.import_module(f"{__package__}.{name}"))
