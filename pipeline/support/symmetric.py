"""Static int8 of a vision transformer in the form that a phone's core computes cheapest.

XNNPACK multiplies qint8 activations with per-tensor qint8 weights by dot-product instructions, a
third of what QNNPACK's kernels cost, but gives int8 back. So every linear layer gets fixed ranges
for its input and its outputs, and what lies between them is written for few instructions: GELU is a
table of its 256 possible inputs, softmax a power of a polynomial (:func:`soft_weights`), and the
last block computes only the tokens that the head reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from torch import nn
from torch.ao.nn.quantized import Linear as QuantizedLinear

from pipeline.support.ranges import Range
from pipeline.support.rewrites import blocks

PATCHES = "patch_embed.proj"
PARTS = {"qkv": 3}  # of a layer's outputs that have a range each; others have one
SQUARINGS = 6
LEVELS = 256
LOWEST = -128  # of int8; ranges are uint8


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


class CheapAttention(nn.Module):
    """timm's attention with :func:`soft_weights` in the place of the softmax.

    ``reads`` is the number of tokens whose answer is asked for, 0 for all.
    """

    def __init__(self, attention: Attention, reads: int) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.num_heads = attention.num_heads
        self.scale = attention.scale
        self.reads = reads

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        count, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.reads > 0:
            q = q[:, :, : self.reads]
        # The product of a transposed matrix costs more than to transpose it.
        weights = soft_weights(q @ k.transpose(-2, -1).contiguous(), self.scale)
        mixed = (weights @ v) / weights.sum(-1, keepdim=True)
        answer: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(count, q.shape[2], -1))
        return answer


def soft_weights(scores: torch.Tensor, scale: float) -> torch.Tensor:
    """In place, exp of scores times ``scale``, but for a factor that each row has; [..., n].

    exp(x) = exp(x / m)^m, with m = 2^6 and the second-order series: 1 + y + y^2 / 2 =
    ((1 + y)^2 + 1) / 2. For y below -1 it is held at 2^-64 of the largest.
    """
    x = scores.sub_(scores.amax(-1, keepdim=True))
    x = x.mul_(scale / 64).add_(1.0).clamp_(min=0.0)
    x = x.mul_(x).add_(1.0).mul_(0.5)
    for _ in range(6):
        x = x.mul_(x)
    return x


class LastBlock(nn.Module):
    """A block that answers for the first tokens only, which are all that the head reads."""

    def __init__(self, block: Any, reads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = block.norm1, block.attn, block.ls1
        self.norm2, self.mlp, self.ls2 = block.norm2, block.mlp, block.ls2
        self.reads = reads

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        x = x[:, : self.reads] + self.ls1(self.attn(self.norm1(x)))
        answer: torch.Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return answer


class PatchLinear(nn.Module):
    """A patch embedding as a linear layer; float32 [n, 3, H, W] to [n, patches, channels]."""

    def __init__(self, embed: PatchEmbed, proj: nn.Module) -> None:
        super().__init__()
        self.proj, self.norm = proj, embed.norm
        self.rows, self.columns = embed.grid_size
        self.height, self.width = embed.patch_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(len(x), -1, self.rows, self.height, self.columns, self.width)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(len(x), self.rows * self.columns, -1)
        answer: torch.Tensor = self.norm(self.proj(x))
        return answer


def shaped(model: Any) -> nn.Module:
    """Change a float model in place into the form whose linear layers are quantized.

    It computes the same but for the softmax. Layers keep their names.
    """
    whole = blocks(model)
    embed = getattr(model, "patch_embed", None)
    if whole and type(embed) is PatchEmbed and embed.flatten and not embed.dynamic_img_pad:
        model.patch_embed = PatchLinear(embed, _as_linear(embed.proj))
    for number, block in enumerate(whole):
        last = number == len(model.blocks) - 1
        reads = _tokens_read(model) if last else 0
        if _is_plain(block.attn):
            block.attn = CheapAttention(block.attn, reads)
            if reads:
                model.blocks[number] = LastBlock(block, reads)
    return model  # type: ignore[no-any-return]


def _as_linear(conv: nn.Conv2d) -> nn.Linear:
    linear = nn.Linear(conv.weight[0].numel(), conv.out_channels, bias=conv.bias is not None)
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1))
    linear.bias = conv.bias
    return linear


def _is_plain(attention: nn.Module) -> bool:
    return (
        type(attention) is Attention
        and all(isinstance(attention.get_submodule(n), nn.Identity) for n in ("q_norm", "k_norm"))
        and isinstance(attention.norm, nn.Identity)
        and attention.gate is None
    )


def _tokens_read(model: Any) -> int:
    """How many tokens of the last block the head reads; 0 if all."""
    if model.attn_pool is not None or model.global_pool != "token":
        return 0
    return 2 if isinstance(model, VisionTransformerDistilled) else 1


def layers(model: nn.Module) -> list[str]:
    """Names of the linear layers of a shaped model that can be static, in the model's order."""
    inside = [PATCHES] if isinstance(getattr(model, "patch_embed", None), PatchLinear) else []
    for name, module in model.named_modules():
        if isinstance(module, CheapAttention):
            inside += [f"{name}.qkv", f"{name}.proj"]
        elif type(module) is Mlp:
            inside += [f"{name}.fc1", f"{name}.fc2"]
    return inside


def sites(layer: str) -> tuple[str, list[str]]:
    """Names of the ranges of a layer: of its input, and of each part of its outputs."""
    parts = PARTS.get(layer.rpartition(".")[2], 1)
    return f"{layer}.input", [f"{layer}.output.{part}" for part in range(parts)]


def per_tensor(weight: torch.Tensor, parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Int8 of a weight [out, ...], and the scale of each of ``parts`` equal parts of its rows."""
    scales, whole = [], []
    for part in weight.double().chunk(parts):
        scale = part.abs().max().clamp(min=torch.finfo(torch.float32).eps) / 127
        scales.append(scale)
        whole.append((part / scale).round().to(torch.int8))
    return torch.cat(whole), torch.stack(scales)


def install(
    model: nn.Module,
    arrays: Mapping[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]],
    ranges: Mapping[str, Range],
) -> nn.Module:
    """Put static layers into a shaped model, in place.

    ``arrays`` has int8 weight [out, in], scale [parts] and bias [out] or None of each layer that
    is to be static.
    """
    for layer, (weight, scale, bias) in arrays.items():
        given, answered = (sites(layer)[0], sites(layer)[1])
        found = [ranges[name] for name in answered]
        model.set_submodule(layer, _static(weight, scale, bias, ranges[given], found))
    for name, module in list(model.named_modules()):
        if type(module) is Mlp and {f"{name}.fc1", f"{name}.fc2"} <= arrays.keys():
            if isinstance(module.norm, nn.Identity):
                model.set_submodule(name, _table_mlp(module, name, arrays, ranges))
    return model


def _static(
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    given: Range,
    answered: list[Range],
    units: Callable[[Range], Range] = lambda found: found,
) -> StaticLinear:
    """``units`` changes the unit of the outputs: numbers of another range, the same codes."""
    count = len(scale)
    biases = [None] * count if bias is None else list(bias.chunk(count))
    parts = []
    for rows, step, offset, found in zip(
        weight.chunk(count), scale, biases, answered, strict=True
    ):
        shown = units(found)
        factor = shown.scale / found.scale
        part = QuantizedLinear(rows.shape[1], len(rows), bias_=offset is not None)
        packed = torch._make_per_tensor_quantized_tensor(rows, float(step) * factor, 0)
        part.set_weight_bias(packed, None if offset is None else (offset * factor).float())
        part.scale, part.zero_point = shown.scale, shown.zero_point + LOWEST
        parts.append(part)
    return StaticLinear(parts, given)


def _table_mlp(
    mlp: Any,
    name: str,
    arrays: Mapping[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]],
    ranges: Mapping[str, Range],
) -> TableMlp:
    given, (answered,) = sites(f"{name}.fc1")
    before = ranges[answered]
    after = ranges[sites(f"{name}.fc2")[0]]
    steps = torch.arange(LEVELS, dtype=torch.float64)
    with torch.no_grad():
        values = mlp.act((steps - before.zero_point) * before.scale)
    codes = (values / after.scale).round() + after.zero_point
    table = (codes.clamp(0, LEVELS - 1) + LOWEST).to(torch.int8)
    fc1 = _static(*arrays[f"{name}.fc1"], ranges[given], [before], lambda _: Range(1.0, 0))
    return TableMlp(fc1, mlp.fc2, table, after.scale, after.zero_point + LOWEST)
