"""What becomes of a vision transformer's linear layers in static int8, found on images."""

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
from pipeline.models.hooks import Look, watching
from pipeline.quantization.ranges import JUDGED, Range, Values, choose
from pipeline.quantization.symmetric import LARGEST, Arrays, install

HEADROOM = 1.25  # of what calibration saw: channels reach further on other images
GROUPS = 16  # of an MLP's hidden channels, each with a table of its own
LEAST = 0.5  # of the furthest group's reach: what is rare in a channel may be large in it, too
BALANCE = 0.5  # of what groups differ by, what fc2's weights take over; SmoothQuant's alpha
GELU_ENDS = -4.0  # below, GELU is 0 within 2e-4
SMALLEST = 1e-4  # of a layer's largest; channels that give less count as if they did
PIXEL = Range(1 / 255, 0)  # pixels as they are, 0 to 1
TRIED = 64  # ratios between the steps of outputs and of weights


@dataclass
class Channels:
    """Extremes and squares of values by channel, [channels]."""

    low: torch.Tensor = field(default_factory=lambda: torch.tensor(torch.inf))
    high: torch.Tensor = field(default_factory=lambda: torch.tensor(-torch.inf))
    squares: torch.Tensor = field(default_factory=lambda: torch.tensor(0.0, dtype=torch.float64))
    rows: int = 0

    def see(self, x: torch.Tensor) -> None:
        rows = x.flatten(0, -2)
        self.low = torch.minimum(self.low, rows.amin(0))
        self.high = torch.maximum(self.high, rows.amax(0))
        self.squares = self.squares + rows.square().sum(0)
        self.rows += len(rows)


@dataclass
class Seen:
    """What a layer was given and answered while images ran."""

    given: Channels = field(default_factory=Channels)
    answered: Channels = field(default_factory=Channels)

    def see(self, x: torch.Tensor, answer: torch.Tensor) -> None:
        self.given.see(x)
        self.answered.see(answer)


@dataclass(frozen=True)
class Outputs:
    """Of each channel of a layer's output, [out]: half of its range, and the middle."""

    half: torch.Tensor
    middle: torch.Tensor
    group: torch.Tensor | None = None  # number of the channel's group, where groups are alike


def calibrated(
    model: nn.Module,
    names: Sequence[str],
    batches: Sequence[torch.Tensor],
    preprocessing: Preprocessing,
) -> tuple[dict[str, Arrays], dict[str, Range]]:
    """Run float images [n, 3, H, W] through a shaped model; return what layers ``names`` become.

    The ranges of their inputs are those with which the model's answers are nearest to float's.
    """
    seen = {name: Seen() for name in names}
    with torch.inference_mode():
        with watching(model, {name: its.see for name, its in seen.items()}):
            expected = [model(batch) for batch in batches]
        arrays = _arrays(model, seen, preprocessing)
        values = {n: _values(its, seen[n].given) for n, its in arrays.items() if n != PATCHES}
        with watching(model, {n: _counter(its, arrays[n]) for n, its in values.items()}):
            for batch in batches:
                model(batch)
    judged = list(zip(batches, expected, strict=True))[: max(1, JUDGED // len(batches[0]))]
    fixed = {PATCHES: PIXEL} if PATCHES in arrays else {}

    def error(ranges: dict[str, Range]) -> float:
        tried = install(copy.deepcopy(model), arrays, fixed | ranges)
        with torch.inference_mode():
            return sum(float((tried(batch) - y).square().sum()) for batch, y in judged)

    return arrays, fixed | choose(values, error)


def _values(arrays: Arrays, given: Channels) -> Values:
    """An empty histogram for what the int8 layer is given."""
    columns = 1.0 if arrays.columns is None else arrays.columns
    low, high = (given.low / columns).min(), (given.high / columns).max()
    return Values(min(0.0, float(low)), max(0.0, float(high)))


def _counter(values: Values, arrays: Arrays) -> Look:
    def count(x: torch.Tensor, answer: torch.Tensor) -> None:
        values.count(x if arrays.columns is None else x / arrays.columns)

    return count


def _arrays(
    model: nn.Module, seen: Mapping[str, Seen], preprocessing: Preprocessing
) -> dict[str, Arrays]:
    hidden: dict[str, Outputs] = {}
    columns: dict[str, torch.Tensor] = {}
    for name, mlp in model.named_modules():
        if isinstance(mlp, Mlp) and {f"{name}.fc1", f"{name}.fc2"} <= seen.keys():
            found = _hidden(mlp, seen[f"{name}.fc1"].answered)
            hidden[f"{name}.fc1"], columns[f"{name}.fc2"] = found
    arrays = {}
    for name, its in seen.items():
        layer: Any = model.get_submodule(name)
        outputs = hidden.get(name) or _outputs(its.answered)
        pixels = _pixels(layer, preprocessing) if name == PATCHES else (columns.get(name), None)
        arrays[name] = _layer(layer, its.given, outputs, *pixels)
    return arrays


def _outputs(answered: Channels) -> Outputs:
    half = HEADROOM * (answered.high - answered.low) / 2
    return Outputs(half.clamp(min=SMALLEST * float(half.max())), (answered.high + answered.low) / 2)


def _hidden(mlp: Any, answered: Channels) -> tuple[Outputs, torch.Tensor]:
    """Outputs of ``fc1``, alike in each group of channels, and the columns of ``fc2``.

    Columns leave groups less unlike in what they give. A group's own reach is seldom all of what
    its channels reach on other images, so both leave more room the less a group reaches.
    """
    low, high = answered.low * HEADROOM, answered.high * HEADROOM
    if isinstance(mlp.act, nn.GELU):
        low = low.clamp(min=GELU_ENDS)
    group = torch.zeros(len(high), dtype=torch.int64)
    for number, members in enumerate(high.argsort(stable=True).chunk(GROUPS)):
        low[members], high[members] = low[members].min(), high[members].max()
        group[members] = number
    peak = mlp.act(torch.stack([low, high])).abs().amax(0)
    columns: torch.Tensor = (peak / peak.max()).clamp(min=SMALLEST) ** BALANCE
    high = high.clamp(min=LEAST * float(high.max()))
    outputs = Outputs(((high - low) / 2).clamp(min=SMALLEST), (high + low) / 2, group)
    return outputs, columns


def _pixels(layer: nn.Linear, preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """``columns`` and ``shift`` with which a patch embedding is given pixels from 0 to 1."""
    each = layer.in_features // len(preprocessing.std)
    std, mean = (
        torch.tensor(v).repeat_interleave(each) for v in (preprocessing.std, preprocessing.mean)
    )
    return 1 / std, mean


def _layer(
    layer: nn.Linear,
    given: Channels,
    outputs: Outputs,
    columns: torch.Tensor | None,
    shift: torch.Tensor | None,
) -> Arrays:
    divisor = torch.ones(layer.in_features).double() if columns is None else columns.double()
    weight = layer.weight.detach().double() * divisor
    power = float((given.squares / given.rows / divisor.square()).sum())
    peak = weight.abs().amax(1)
    if outputs.group is not None:
        peak = torch.zeros_like(peak).scatter_reduce(0, outputs.group, peak, "amax")[outputs.group]
    unit, scale = _steps(outputs.half.double() / LARGEST, peak / LARGEST, power)
    return Arrays(
        weight=(weight / scale[:, None]).round().to(torch.int8),
        scale=scale,
        bias=None if layer.bias is None else layer.bias.detach(),
        unit=unit.float(),
        middle=outputs.middle,
        columns=columns,
        shift=shift,
    )


def _steps(
    output: torch.Tensor, weight: torch.Tensor, power: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps of outputs and of weights, [out], of one ratio in all rows.

    ``output`` and ``weight`` are the least that reach far enough. One of the two is made larger in
    each row, so that all rows together lose least for input of that ``power``.
    """
    weight = weight.clamp(min=torch.finfo(torch.float32).tiny)
    ratios = (output / weight).quantile(torch.linspace(0, 1, TRIED, dtype=torch.float64))
    units = torch.maximum(output, ratios[:, None] * weight)
    lost = units.square().sum(1) * (1 + power / ratios.square())
    best = int(lost.argmin())
    return units[best], units[best] / ratios[best]
