"""Static int8 of a vision transformer in the form that a phone's core computes cheapest.

XNNPACK multiplies qint8 activations with per-tensor qint8 weights by dot-product instructions, a
third of what QNNPACK's kernels cost, but gives int8 back. So every linear layer gets fixed ranges
for its input and its outputs, and what lies between them is written for few instructions: GELU is a
table of its 256 possible inputs, softmax a power of a polynomial (:func:`soft_weights`), and the
last block computes only the tokens that the head reads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from torch import nn
from torch.ao.nn.quantized import Linear as QuantizedLinear

from pipeline.support.ranges import JUDGED, Range, Values, choose
from pipeline.support.rewrites import blocks
from pipeline.support.torchscript import use_qnnpack

PATCHES = "patch_embed.proj"
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


def soft_weights(scores: torch.Tensor, scale: float, squarings: int = 6) -> torch.Tensor:
    """In place, exp of scores [..., n] times ``scale``, but for a factor that is its row's.

    exp(x) = exp(y)^m with y = x / m, m a power of two, and the series of second order for exp(y):
    1 + y + y^2 / 2 = ((1 + y)^2 + 1) / 2. It is relatively wrong by x^3 / (6 m^2), and held at
    2^-m of the largest, which is 0 here, for x below -m. The half cancels with the row's sum.
    """
    x = scores.sub_(scores.amax(-1, keepdim=True))
    x = x.mul_(scale / 2.0**squarings).add_(1.0).clamp_(min=0.0)
    x = x.mul_(x).add_(1.0)
    for _ in range(squarings):
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
