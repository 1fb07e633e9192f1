"""Static int8 of a vision transformer in the form that a phone's core computes cheapest.

XNNPACK multiplies qint8 activations with per-tensor qint8 weights by dot-product instructions, a
third of what QNNPACK's kernels cost, but gives int8 back. So every linear layer gets fixed ranges
for its input and its outputs, and what lies between them is written for few instructions: GELU is a
table of its 256 possible inputs. Models come in the form of :mod:`pipeline.support.forms`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Mlp
from torch import nn
from torch.ao.nn.quantized import Linear as QuantizedLinear

from pipeline.support.ranges import JUDGED, Range, Values, choose
from pipeline.support.torchscript import use_qnnpack

PARTS = {"qkv": 3}  # of a layer's outputs that have a range each; others have one
LEVELS = 256
LOWEST = -128  # of int8; ranges are uint8


@dataclass(frozen=True)
class Arrays:
    """A static layer's: int8 weight [out, in], its scale [parts], float32 bias [out] or None."""

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, layer: nn.Linear, parts: int) -> Arrays:
        """Of a float layer: the largest weight of each of ``parts`` equal parts of rows is 127."""
        scales, whole = [], []
        for part in layer.weight.detach().double().chunk(parts):
            scale = part.abs().max().clamp(min=torch.finfo(torch.float32).eps) / 127
            scales.append(scale)
            whole.append((part / scale).round().to(torch.int8))
        bias = None if layer.bias is None else layer.bias.detach()
        return cls(torch.cat(whole), torch.stack(scales), bias)


class StaticLinear(nn.Module):
    """A linear layer with int8 weights, input and outputs; float32 [..., in] to [..., out]."""

    def __init__(self, parts: list[QuantizedLinear], given: Range) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.given_scale = given.scale
        self.given_zero = given.zero_point + LOWEST

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of_codes(self.codes(x))

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """The input as qint8."""
        return torch.quantize_per_tensor(x, self.given_scale, self.given_zero, torch.qint8)

    def of_codes(self, x: torch.Tensor) -> torch.Tensor:
        """The output, float32, for qint8 input."""
        outputs: list[torch.Tensor] = []
        for part in self.parts:
            outputs.append(part(x).dequantize())
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)


class TableMlp(nn.Module):
    """fc1, the activation by table, fc2.

    ``fc1`` has outputs of scale 1 from 0 to 255: they are where to look in the table, which has
    the int8 input of ``fc2``.
    """

    table: torch.Tensor

    def __init__(
        self, fc1: StaticLinear, fc2: StaticLinear, table: torch.Tensor, scale: float, zero: int
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2
        self.register_buffer("table", table)
        self.scale, self.zero = scale, zero

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        where = self.fc1(x).to(torch.int32)
        found = torch.index_select(self.table, 0, where.flatten()).view(where.shape)
        codes = torch._make_per_tensor_quantized_tensor(found, self.scale, self.zero)
        return self.fc2.of_codes(codes)


def sites(layer: str) -> tuple[str, list[str]]:
    """Names of the ranges of a layer: of its input, and of each part of its outputs."""
    parts = PARTS.get(layer.rpartition(".")[2], 1)
    return f"{layer}.input", [f"{layer}.output.{part}" for part in range(parts)]


def install(
    model: nn.Module, arrays: Mapping[str, Arrays], ranges: Mapping[str, Range]
) -> nn.Module:
    """Put the layers that have ``arrays`` into a shaped model, in place."""
    use_qnnpack()
    for name, module in list(model.named_modules()):
        if _takes_table(module) and {f"{name}.fc1", f"{name}.fc2"} <= arrays.keys():
            model.set_submodule(name, _table_mlp(module, name, arrays, ranges))
    for layer, its in arrays.items():
        if not isinstance(model.get_submodule(layer), StaticLinear):
            model.set_submodule(layer, static_linear(layer, its, ranges))
    return model


def _takes_table(module: nn.Module) -> bool:
    return type(module) is Mlp and isinstance(module.norm, nn.Identity)


def static_linear(layer: str, arrays: Arrays, ranges: Mapping[str, Range]) -> StaticLinear:
    """One layer, its outputs in the values' own unit."""
    given, answered = sites(layer)
    return _linear(arrays, ranges[given], [ranges[name] for name in answered])


def _linear(arrays: Arrays, given: Range, answered: Sequence[Range]) -> StaticLinear:
    count = len(arrays.scale)
    biases = [None] * count if arrays.bias is None else list(arrays.bias.chunk(count))
    parts = []
    for rows, scale, bias, found in zip(
        arrays.weight.chunk(count), arrays.scale, biases, answered, strict=True
    ):
        part = QuantizedLinear(rows.shape[1], len(rows), bias_=bias is not None)
        packed = torch._make_per_tensor_quantized_tensor(rows, float(scale), 0)
        part.set_weight_bias(packed, bias)
        part.scale, part.zero_point = found.scale, found.zero_point + LOWEST
        parts.append(part)
    return StaticLinear(parts, given)


def _in_codes(arrays: Arrays, answered: Range) -> Arrays:
    """The layer whose outputs are where these outputs lie in their range: 0 to 255."""
    bias = torch.zeros(len(arrays.weight)) if arrays.bias is None else arrays.bias
    moved = bias.double() / answered.scale + answered.zero_point
    return Arrays(arrays.weight, arrays.scale / answered.scale, moved.float())


def _table_mlp(
    mlp: Any, name: str, arrays: Mapping[str, Arrays], ranges: Mapping[str, Range]
) -> TableMlp:
    given, (answered,) = sites(f"{name}.fc1")
    before, after = ranges[answered], ranges[sites(f"{name}.fc2")[0]]
    where = torch.arange(LEVELS, dtype=torch.float64)
    with torch.no_grad():
        values = mlp.act((where - before.zero_point) * before.scale)
    codes = ((values / after.scale).round() + after.zero_point).clamp(0, LEVELS - 1)
    fc1 = _linear(_in_codes(arrays[f"{name}.fc1"], before), ranges[given], [Range(1.0, 0)])
    fc2 = static_linear(f"{name}.fc2", arrays[f"{name}.fc2"], ranges)
    table = (codes + LOWEST).to(torch.int8)
    return TableMlp(fc1, fc2, table, after.scale, after.zero_point + LOWEST)


def calibrated(
    model: nn.Module, names: Iterable[str], batches: Sequence[torch.Tensor]
) -> dict[str, Range]:
    """Run float images [n, 3, H, W] through a shaped model; return the ranges of layers ``names``.

    Ranges are those with which the model's answers are nearest to float's when these are static.
    """
    names = list(names)
    seen = {site: Values() for name in names for site in (sites(name)[0], *sites(name)[1])}
    judged = batches[: max(1, JUDGED // len(batches[0]))]
    with torch.inference_mode():
        expected = [_watched(model, names, seen, Values.extend, batch) for batch in batches]
        for batch in batches:
            _watched(model, names, seen, Values.count, batch)
    arrays = {name: arrays_of(model, name) for name in names}

    def error(ranges: dict[str, Range]) -> float:
        quantized = install(copy.deepcopy(model), arrays, ranges)
        with torch.inference_mode():
            pairs = zip(judged, expected, strict=False)
            return sum(float((quantized(batch) - y).square().sum()) for batch, y in pairs)

    return choose(seen, error)


def arrays_of(model: nn.Module, name: str) -> Arrays:
    """Quantize one float layer of a shaped model."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return Arrays.of(layer, len(sites(name)[1]))


def _watched(
    model: nn.Module,
    names: Iterable[str],
    seen: Mapping[str, Values],
    see: Any,
    batch: torch.Tensor,
) -> torch.Tensor:
    """The answer to a batch, while ``see`` is shown what the layers are given and answer."""

    def hold(name: str) -> Any:
        def hook(_: nn.Module, given: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
            before, after = sites(name)
            see(seen[before], given[0])
            for site, part in zip(after, answer.chunk(len(after), -1), strict=True):
                see(seen[site], part)

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(hold(name)) for name in names]
    try:
        answer: torch.Tensor = model(batch)
        return answer
    finally:
        for hook in hooks:
            hook.remove()
