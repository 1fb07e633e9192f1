"""The int8 layers of scheme ``static_symmetric``.

XNNPACK multiplies qint8 activations by per-tensor qint8 weights with dot-product instructions, at a
third of the cost of QNNPACK's kernels, but its int8 output has one scale for all channels. So rows
of weights are divided by the range of their output channel, which makes weights and outputs
per-channel, and outputs are multiplied by it again. GELU is a table over its possible inputs.
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
class LayerArrays:
    """The arrays of a static layer.

    The input of the int8 layer is x / ``input_scale`` + ``input_offset``; its weights are the float
    ones times ``input_scale``. An output is its int8 code times ``output_scale``, plus
    ``output_offset``.
    """

    weight: torch.Tensor  # int8 [out, in]
    scale: torch.Tensor  # float64 [out], of the weights
    bias: torch.Tensor | None  # float32 [out], the float layer's
    output_scale: torch.Tensor  # float32 [out]
    output_offset: torch.Tensor  # float32 [out]
    input_scale: torch.Tensor | None = None  # float32 [in]; None: ones
    input_offset: torch.Tensor | None = None  # float32 [in]; None: zeros


class StaticLinear(nn.Module):
    """A linear layer with int8 weights, input and output; float32 [..., in] to [..., out]."""

    def __init__(self, arrays: LayerArrays, input_range: Range) -> None:
        """``input_range``: of x / ``input_scale`` + ``input_offset``."""
        super().__init__()
        out, inputs = arrays.weight.shape
        bias = torch.zeros(out) if arrays.bias is None else arrays.bias.detach()
        offset = torch.zeros(inputs) if arrays.input_offset is None else arrays.input_offset
        # With the rounded weights, so that their rounding error multiplies x and not the offset.
        moved = arrays.scale * (arrays.weight.double() @ offset.double())
        output_scale = arrays.output_scale.double()
        ratio = float(arrays.scale[0] / output_scale[0])  # the same in every row
        self.linear = QuantizedLinear(inputs, out)
        self.linear.set_weight_bias(
            torch._make_per_tensor_quantized_tensor(arrays.weight, ratio, 0),
            ((bias.double() - arrays.output_offset.double() - moved) / output_scale).float(),
        )
        self.linear.scale, self.linear.zero_point = 1.0, 0
        self.output_scale, self.output_offset = arrays.output_scale, arrays.output_offset
        self.scaled = arrays.input_scale is not None
        self.input_offset = offset
        self.input_factor = torch.ones(1) if arrays.input_scale is None else 1 / arrays.input_scale
        self.range_scale = input_range.scale
        self.range_zero = input_range.zero_point + LOWEST

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scaled:
            x = torch.addcmul(self.input_offset, x, self.input_factor)
        return self.values(self.codes(self.quantized(x)))

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """The input of the int8 layer, as qint8."""
        return torch.quantize_per_tensor(x, self.range_scale, self.range_zero, torch.qint8)

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """The codes of the outputs as float32, for a qint8 input."""
        codes: torch.Tensor = self.linear(x).dequantize()
        return codes

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """The outputs that have these codes."""
        return torch.addcmul(self.output_offset, codes, self.output_scale)


class TableMlp(nn.Module):
    """An MLP: fc1, the activation from a table, fc2.

    The code of a hidden channel plus the channel's ``offsets`` is the index of the table's entry,
    which is the int8 input of fc2.
    """

    def __init__(
        self, fc1: StaticLinear, fc2: StaticLinear, table: torch.Tensor, offsets: torch.Tensor
    ) -> None:
        """``table``: int8 [kinds * 256]; ``offsets``: float32 [hidden]."""
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2
        self.table, self.offsets = table, offsets
        self.scale, self.zero = fc2.range_scale, fc2.range_zero

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        index = self.fc1.codes(self.fc1.quantized(x)).add_(self.offsets).to(torch.int32)
        entries = torch.index_select(self.table, 0, index.flatten()).view(index.shape)
        codes = torch._make_per_tensor_quantized_tensor(entries, self.scale, self.zero)
        return self.fc2.values(self.fc2.codes(codes))


def install(
    model: nn.Module, arrays: Mapping[str, LayerArrays], ranges: Mapping[str, Range]
) -> nn.Module:
    """Replace layers of a model of `efficient.for_static_int8` in place; return it.

    Args:
        model: its layers that have ``arrays`` are replaced.
        arrays: by the layer's name.
        ranges: of the int8 layers' inputs, by the layer's name.
    """
    use_qnnpack()
    for name, module in list(model.named_modules()):
        if isinstance(module, Mlp) and {f"{name}.fc1", f"{name}.fc2"} <= arrays.keys():
            model.set_submodule(name, _table_mlp(module, name, arrays, ranges))
    for name, layer in arrays.items():
        if not isinstance(model.get_submodule(name), StaticLinear):
            model.set_submodule(name, StaticLinear(layer, ranges[name]))
    return model


def _table_mlp(
    mlp: Any, name: str, arrays: Mapping[str, LayerArrays], ranges: Mapping[str, Range]
) -> TableMlp:
    first, second = arrays[f"{name}.fc1"], arrays[f"{name}.fc2"]
    divisor = (
        torch.ones_like(first.output_scale) if second.input_scale is None else second.input_scale
    )
    rows = torch.stack([first.output_scale, first.output_offset, divisor], 1)
    # Channels that are alike share a part of the table.
    kinds, kind = rows.unique(dim=0, return_inverse=True)
    scale, offset, divisors = kinds.double().T.unsqueeze(-1)
    after = ranges[f"{name}.fc2"]
    with torch.no_grad():
        values = mlp.act(torch.arange(LOWEST, LARGEST + 1) * scale + offset) / divisors
    codes = ((values / after.scale).round() + after.zero_point).clamp(0, LEVELS - 1)
    return TableMlp(
        StaticLinear(first, ranges[f"{name}.fc1"]),
        StaticLinear(second, after),
        (codes + LOWEST).to(torch.int8).flatten(),
        (kind * LEVELS - LOWEST).float(),
    )
