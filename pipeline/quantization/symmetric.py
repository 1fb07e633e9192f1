"""Static int8 of a vision transformer in the form that a phone's core computes cheapest.

XNNPACK multiplies qint8 activations with per-tensor qint8 weights by dot-product instructions, a
third of what QNNPACK's kernels cost, but gives int8 back, of one scale for all channels. So rows of
weights are divided by what their channel reaches, which makes both weights and outputs per-channel,
and outputs are multiplied by it again. GELU is a table of its possible inputs. Models come in the
form of :mod:`pipeline.models.efficient`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Mlp
from torch import nn
from torch.ao.nn.quantized import Linear as QuantizedLinear

from pipeline.process import use_qnnpack
from pipeline.quantization.ranges import Range

LEVELS, LOWEST, LARGEST = 256, -128, 127  # of int8; ranges are uint8


@dataclass(frozen=True)
class Arrays:
    """A static layer's arrays, by their names in a file.

    What the int8 layer is given is x / ``columns`` + ``shift``, and its weights are the float ones
    times ``columns``. An output is its int8 code times ``unit``, plus ``middle``.
    """

    weight: torch.Tensor  # int8 [out, in]
    scale: torch.Tensor  # float64 [out], of the weights
    bias: torch.Tensor | None  # float32 [out], the float layer's
    unit: torch.Tensor  # float32 [out]
    middle: torch.Tensor  # float32 [out]
    columns: torch.Tensor | None = None  # float32 [in]; None: ones
    shift: torch.Tensor | None = None  # float32 [in]; None: zeros


class StaticLinear(nn.Module):
    """A linear layer with int8 weights, input and outputs; float32 [..., in] to [..., out]."""

    def __init__(self, arrays: Arrays, given: Range) -> None:
        """``given`` is the range of x / ``columns`` + ``shift``."""
        super().__init__()
        out, inputs = arrays.weight.shape
        bias = torch.zeros(out) if arrays.bias is None else arrays.bias.detach()
        shift = torch.zeros(inputs) if arrays.shift is None else arrays.shift
        # By the rounded weights: what they lose then multiplies x and not the shift.
        moved = arrays.scale * (arrays.weight.double() @ shift.double())
        unit = arrays.unit.double()
        ratio = float(arrays.scale[0] / unit[0])  # every row's
        self.linear = QuantizedLinear(inputs, out)
        self.linear.set_weight_bias(
            torch._make_per_tensor_quantized_tensor(arrays.weight, ratio, 0),
            ((bias.double() - arrays.middle.double() - moved) / unit).float(),
        )
        self.linear.scale, self.linear.zero_point = 1.0, 0
        self.unit, self.middle = arrays.unit, arrays.middle
        self.scaled = arrays.columns is not None
        self.shift = shift
        self.factor = torch.ones(1) if arrays.columns is None else 1 / arrays.columns
        self.given_scale = given.scale
        self.given_zero = given.zero_point + LOWEST

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scaled:
            x = torch.addcmul(self.shift, x, self.factor)
        return self.values(self.codes(self.quantized(x)))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """What the int8 layer is given, as qint8."""
        return torch.quantize_per_tensor(x, self.given_scale, self.given_zero, torch.qint8)

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs' codes as float32, for qint8 input."""
        answer: torch.Tensor = self.linear(x).dequantize()
        return answer

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """The outputs that have these codes."""
        return torch.addcmul(self.middle, codes, self.unit)


class TableMlp(nn.Module):
    """fc1, the activation by table, fc2.

    The code of a hidden channel and the channel's ``place`` give where the table has the int8 input
    of ``fc2``.
    """

    def __init__(
        self, fc1: StaticLinear, fc2: StaticLinear, table: torch.Tensor, place: torch.Tensor
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2
        self.table, self.place = table, place
        self.scale, self.zero = fc2.given_scale, fc2.given_zero

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        where = self.fc1.codes(self.fc1.quantized(x)).add_(self.place).to(torch.int32)
        found = torch.index_select(self.table, 0, where.flatten()).view(where.shape)
        codes = torch._make_per_tensor_quantized_tensor(found, self.scale, self.zero)
        return self.fc2.values(self.fc2.codes(codes))


def install(
    model: nn.Module, arrays: Mapping[str, Arrays], ranges: Mapping[str, Range]
) -> nn.Module:
    """Put the layers that have ``arrays`` into a shaped model, in place; return it."""
    use_qnnpack()
    for name, module in list(model.named_modules()):
        if isinstance(module, Mlp) and {f"{name}.fc1", f"{name}.fc2"} <= arrays.keys():
            model.set_submodule(name, _table_mlp(module, name, arrays, ranges))
    for name, its in arrays.items():
        if not isinstance(model.get_submodule(name), StaticLinear):
            model.set_submodule(name, StaticLinear(its, ranges[name]))
    return model


def _table_mlp(
    mlp: Any, name: str, arrays: Mapping[str, Arrays], ranges: Mapping[str, Range]
) -> TableMlp:
    first, second = arrays[f"{name}.fc1"], arrays[f"{name}.fc2"]
    columns = torch.ones_like(first.unit) if second.columns is None else second.columns
    rows = torch.stack([first.unit, first.middle, columns], 1)
    kinds, kind = rows.unique(dim=0, return_inverse=True)
    unit, middle, divisor = kinds.double().T.unsqueeze(-1)
    after = ranges[f"{name}.fc2"]
    with torch.no_grad():
        values = mlp.act(torch.arange(LOWEST, LARGEST + 1) * unit + middle) / divisor
    codes = ((values / after.scale).round() + after.zero_point).clamp(0, LEVELS - 1)
    return TableMlp(
        StaticLinear(first, ranges[f"{name}.fc1"]),
        StaticLinear(second, after),
        (codes + LOWEST).to(torch.int8).flatten(),
        (kind * LEVELS - LOWEST).float(),
    )
