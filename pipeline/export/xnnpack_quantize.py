"""Static int8 for XNNPACK, with ranges found as for the ``.ptl`` in place of the quantizer's own.

ExecuTorch's quantizer brings PyTorch's histogram observer, which searches the least squared error
only (docs/adr/0020).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

from pipeline.quantization.ranges import HistogramObserver, Range, search

SMALLEST_SCALE = 2.0**-12  # that ExecuTorch's quantizer gives


class _Observer(HistogramObserver, UniformQuantizationObserverBase):  # type: ignore[misc]
    """Sees what passes, and gives the range that it is told."""

    known = Range(1.0, 0)

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        scale = max(self.known.scale, SMALLEST_SCALE)
        return torch.tensor([scale]), torch.tensor([self.known.zero_point + self.quant_min])


def recorded(config: Any) -> Any:
    """A static configuration of XNNPACK's quantizer whose activations are seen by `calibrated`."""
    return replace(
        config,
        input_activation=_recorded(config.input_activation),
        output_activation=_recorded(config.output_activation),
    )


def _recorded(spec: Any) -> Any:
    return spec and replace(spec, observer_or_fake_quant_ctr=_Observer)


def calibrated(prepared: fx.GraphModule, batches: Sequence[torch.Tensor]) -> nn.Module:
    """Convert a prepared model with the ranges that bring its answers nearest to float's.

    Args:
        prepared: by `prepare_pt2e` with a configuration of :func:`recorded`.
        batches: float32, of the example's shape.
    """
    convert = partial(_converted, prepared)
    return convert(search(prepared, _observers(prepared), batches, convert))


def _converted(prepared: fx.GraphModule, ranges: Mapping[str, Range]) -> nn.Module:
    copied = copy.deepcopy(prepared)
    for name, observer in _observers(copied).items():
        observer.known = ranges[name]
    converted: nn.Module = convert_pt2e(copied)
    return converted


def _observers(prepared: fx.GraphModule) -> dict[str, _Observer]:
    return {name: m for name, m in prepared.named_modules() if isinstance(m, _Observer)}
