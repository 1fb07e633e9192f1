"""Calibration of scheme ``static_symmetric``: from float linear layers to their int8 arrays."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import Mlp
from torch import nn

from pipeline.contract.contract import Preprocessing
from pipeline.models.efficient import PATCHES
from pipeline.models.hooks import Hook, forward_hooks
from pipeline.progress import progress
from pipeline.quantization.ranges import JUDGED, Histogram, Range, choose
from pipeline.quantization.symmetric_layers import LARGEST, LayerArrays, install

HEADROOM = 1.25  # of the calibrated range: channels reach further on other images
GROUPS = 16  # of an MLP's hidden channels, each with a table of its own
LEAST = 0.5  # of the largest group's maximum: a rarely used channel may be large elsewhere
BALANCE = 0.5  # of the differences between groups, how much fc2's weights take; SmoothQuant's alpha
GELU_ENDS = -4.0  # below, GELU is 0 within 2e-4
SMALLEST = 1e-4  # of a layer's largest channel; smaller ones count as this large
PIXEL = Range(1 / 255, 0)  # pixels from 0 to 1
TRIED = 64  # ratios between the steps of outputs and of weights


@dataclass
class ChannelStats:
    """Extremes and sums of squares by channel, [channels] each."""

    low: torch.Tensor = field(default_factory=lambda: torch.tensor(torch.inf))
    high: torch.Tensor = field(default_factory=lambda: torch.tensor(-torch.inf))
    squares: torch.Tensor = field(default_factory=lambda: torch.tensor(0.0, dtype=torch.float64))
    rows: int = 0

    def record(self, x: torch.Tensor) -> None:
        """Add values, float32 [..., channels]."""
        rows = x.flatten(0, -2)
        self.low = torch.minimum(self.low, rows.amin(0))
        self.high = torch.maximum(self.high, rows.amax(0))
        self.squares = self.squares + rows.square().sum(0)
        self.rows += len(rows)


@dataclass
class LayerStats:
    """Statistics of a layer's inputs and outputs."""

    inputs: ChannelStats = field(default_factory=ChannelStats)
    outputs: ChannelStats = field(default_factory=ChannelStats)

    def record(self, x: torch.Tensor, output: torch.Tensor) -> None:
        """Add an input [..., in] and its output [..., out]."""
        self.inputs.record(x)
        self.outputs.record(output)


@dataclass(frozen=True)
class OutputRanges:
    """Half the range of each output channel and its centre, [out] each."""

    half: torch.Tensor
    centre: torch.Tensor
    group: torch.Tensor | None = None  # int64 [out]: channels of one group have the same range


def calibrate(
    model: nn.Module,
    names: Sequence[str],
    batches: Sequence[torch.Tensor],
    preprocessing: Preprocessing,
) -> tuple[dict[str, LayerArrays], dict[str, Range]]:
    """Return the int8 arrays of the layers ``names`` and the ranges of their inputs.

    The ranges are those for which the model's output is closest to float.

    Args:
        model: of `efficient.for_static_int8`; not changed.
        names: of linear layers.
        batches: float32 images [n, 3, H, W] each.
        preprocessing: of the model, which the patch embedding takes over.
    """
    stats = {name: LayerStats() for name in names}
    with torch.inference_mode():
        with forward_hooks(model, {name: layer.record for name, layer in stats.items()}):
            shown = progress(batches, desc="calibration: extremes", unit="batch")
            expected = [model(batch) for batch in shown]
        arrays = _arrays(model, stats, preprocessing)
        histograms = {
            name: _histogram(layer, stats[name].inputs)
            for name, layer in arrays.items()
            if name != PATCHES
        }
        with forward_hooks(model, {n: _counter(h, arrays[n]) for n, h in histograms.items()}):
            for batch in progress(batches, desc="calibration: histograms", unit="batch"):
                model(batch)
    judged = list(zip(batches, expected, strict=True))[: max(1, JUDGED // len(batches[0]))]
    fixed = {PATCHES: PIXEL} if PATCHES in arrays else {}

    def error(ranges: dict[str, Range]) -> float:
        tried = install(copy.deepcopy(model), arrays, fixed | ranges)
        with torch.inference_mode():
            return sum(float((tried(batch) - y).square().sum()) for batch, y in judged)

    return arrays, fixed | choose(histograms, error)


def _histogram(arrays: LayerArrays, inputs: ChannelStats) -> Histogram:
    """An empty histogram for the input of the int8 layer."""
    scale = 1.0 if arrays.input_scale is None else arrays.input_scale
    low, high = (inputs.low / scale).min(), (inputs.high / scale).max()
    return Histogram(min(0.0, float(low)), max(0.0, float(high)))


def _counter(histogram: Histogram, arrays: LayerArrays) -> Hook:
    def count(x: torch.Tensor, _: torch.Tensor) -> None:
        histogram.count(x if arrays.input_scale is None else x / arrays.input_scale)

    return count


def _arrays(
    model: nn.Module, stats: Mapping[str, LayerStats], preprocessing: Preprocessing
) -> dict[str, LayerArrays]:
    hidden: dict[str, OutputRanges] = {}
    input_scales: dict[str, torch.Tensor] = {}
    for name, mlp in model.named_modules():
        if isinstance(mlp, Mlp) and {f"{name}.fc1", f"{name}.fc2"} <= stats.keys():
            ranges, scale = _hidden(mlp, stats[f"{name}.fc1"].outputs)
            hidden[f"{name}.fc1"], input_scales[f"{name}.fc2"] = ranges, scale
    arrays = {}
    for name, layer_stats in stats.items():
        layer: Any = model.get_submodule(name)
        outputs = hidden.get(name) or _outputs(layer_stats.outputs)
        scale_and_offset = (
            _pixels(layer, preprocessing) if name == PATCHES else (input_scales.get(name), None)
        )
        arrays[name] = _layer(layer, layer_stats.inputs, outputs, *scale_and_offset)
    return arrays


def _outputs(stats: ChannelStats) -> OutputRanges:
    half = HEADROOM * (stats.high - stats.low) / 2
    half = half.clamp(min=SMALLEST * float(half.max()))
    return OutputRanges(half, (stats.high + stats.low) / 2)


def _hidden(mlp: Any, stats: ChannelStats) -> tuple[OutputRanges, torch.Tensor]:
    """Ranges of the outputs of ``fc1``, equal in each group of channels, and fc2's input scale.

    The input scale makes groups more alike. A group's own maximum is seldom the maximum of its
    channels on other images, so both leave more room the smaller a group's maximum is.
    """
    low, high = stats.low * HEADROOM, stats.high * HEADROOM
    if isinstance(mlp.act, nn.GELU):
        low = low.clamp(min=GELU_ENDS)
    group = torch.zeros(len(high), dtype=torch.int64)
    for number, members in enumerate(high.argsort(stable=True).chunk(GROUPS)):
        low[members], high[members] = low[members].min(), high[members].max()
        group[members] = number
    peak = mlp.act(torch.stack([low, high])).abs().amax(0)
    input_scale: torch.Tensor = (peak / peak.max()).clamp(min=SMALLEST) ** BALANCE
    high = high.clamp(min=LEAST * float(high.max()))
    outputs = OutputRanges(((high - low) / 2).clamp(min=SMALLEST), (high + low) / 2, group)
    return outputs, input_scale


def _pixels(layer: nn.Linear, preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """Input scale and offset with which the int8 patch embedding sees pixels from 0 to 1."""
    each = layer.in_features // len(preprocessing.std)
    std, mean = (
        torch.tensor(v).repeat_interleave(each) for v in (preprocessing.std, preprocessing.mean)
    )
    return 1 / std, mean


def _layer(
    layer: nn.Linear,
    inputs: ChannelStats,
    outputs: OutputRanges,
    input_scale: torch.Tensor | None,
    input_offset: torch.Tensor | None,
) -> LayerArrays:
    divisor = (
        torch.ones(layer.in_features).double() if input_scale is None else input_scale.double()
    )
    weight = layer.weight.detach().double() * divisor
    power = float((inputs.squares / inputs.rows / divisor.square()).sum())
    peak = weight.abs().amax(1)
    if outputs.group is not None:
        peak = torch.zeros_like(peak).scatter_reduce(0, outputs.group, peak, "amax")[outputs.group]
    output_scale, scale = _steps(outputs.half.double() / LARGEST, peak / LARGEST, power)
    return LayerArrays(
        weight=(weight / scale[:, None]).round().to(torch.int8),
        scale=scale,
        bias=None if layer.bias is None else layer.bias.detach(),
        output_scale=output_scale.float(),
        output_offset=outputs.centre,
        input_scale=input_scale,
        input_offset=input_offset,
    )


def _steps(
    output: torch.Tensor, weight: torch.Tensor, power: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantization steps of outputs and of weights, [out] each, with one ratio in all rows.

    ``output`` and ``weight`` are the smallest steps that cover the ranges. In each row one of the
    two is made larger, such that the expected squared error of all rows is smallest for inputs
    whose squares sum to ``power``.
    """
    weight = weight.clamp(min=torch.finfo(torch.float32).tiny)
    ratios = (output / weight).quantile(torch.linspace(0, 1, TRIED, dtype=torch.float64))
    steps = torch.maximum(output, ratios[:, None] * weight)
    error = steps.square().sum(1) * (1 + power / ratios.square())
    best = int(error.argmin())
    return steps[best], steps[best] / ratios[best]
