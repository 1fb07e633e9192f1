"""Function-preserving rewrites: other weights, the same function, and a smaller error in int8.

Each function changes a timm `VisionTransformer` in place, in the dtype of its weights. A model
without the structure that a rewrite needs is left unchanged. Sources: SmoothQuant (Xiao et al.,
2023), Outlier Suppression+ (Wei et al., 2023), QuaRot (Ashkboos et al., 2024).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from pipeline.models.hooks import Hook, forward_hooks
from pipeline.progress import progress

# Subclasses may compute something else between the layers.
MODELS = (VisionTransformer, VisionTransformerDistilled)
TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")
LINEAR_POOLS = ("", "token", "avg")  # a channel's offset or scale passes through them unchanged
SMALLEST = 1e-5  # of the largest channel; smaller ones count as this large


@dataclass(frozen=True)
class NormLinearGroup:
    """A layer normalization and the linear layers behind it, which read nothing else."""

    norm: nn.LayerNorm
    linears: tuple[nn.Linear, ...]

    @property
    def weights(self) -> torch.Tensor:
        """The weights of all linear layers, one below the other: [out, channels]."""
        return torch.cat([linear.weight.data for linear in self.linears])


@dataclass(frozen=True)
class ChannelRange:
    """The smallest and the largest value of each channel, both [channels]."""

    low: torch.Tensor
    high: torch.Tensor

    @property
    def middle(self) -> torch.Tensor:
        """The centre of each channel's range, [channels]."""
        return (self.low + self.high) / 2

    @property
    def max_abs(self) -> torch.Tensor:
        """The largest magnitude of each channel, [channels]; never zero, as it divides."""
        largest = torch.maximum(self.low.abs(), self.high.abs())
        tiny = torch.finfo(largest.dtype).tiny
        return largest.clamp(min=max(SMALLEST * float(largest.max()), tiny))

    def shifted(self, offset: torch.Tensor) -> ChannelRange:
        """The ranges after ``offset`` [channels] was added to the values."""
        return ChannelRange(self.low + offset, self.high + offset)


def foldable_norms(model: nn.Module) -> list[NormLinearGroup]:
    """Return the layer normalizations whose scale and offset the layers behind can take over."""
    groups: list[tuple[Any, tuple[Any, ...]]] = []
    for block in blocks(model):
        attention = block.attn
        if type(attention) is Attention:
            gate = () if attention.gate is None else (attention.gate,)
            groups.append((block.norm1, (attention.qkv, *gate)))
        if type(block.mlp) is Mlp:
            groups.append((block.norm2, (block.mlp.fc1,)))
    groups += _before_the_head(model)
    return [
        NormLinearGroup(norm, linears) for norm, linears in groups if _is_foldable(norm, linears)
    ]


def blocks(model: nn.Module) -> list[Any]:
    """Return the transformer blocks that are built as usual: normalize, compute, add."""
    every: Iterable[nn.Module] = model.blocks if type(model) in MODELS else ()  # type: ignore[assignment]
    return [block for block in every if type(block) is Block]


def _before_the_head(model: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    if type(model) not in MODELS or model.attn_pool is not None:
        return []
    heads = (model.head, model.head_dist) if hasattr(model, "head_dist") else (model.head,)
    if isinstance(model.fc_norm, nn.Identity):
        return [(model.norm, heads)] if model.global_pool in LINEAR_POOLS else []
    return [(model.fc_norm, heads)]


def _is_foldable(norm: Any, linears: Sequence[Any]) -> bool:
    return (
        isinstance(norm, nn.LayerNorm)
        and norm.weight is not None
        and norm.bias is not None
        and all(isinstance(linear, nn.Linear) and linear.bias is not None for linear in linears)
    )


def fold_norm(group: NormLinearGroup) -> None:
    """Move the normalization's scale and offset into the layers behind; leave 1 and 0."""
    _shift(group, group.norm.bias.data.clone())
    _scale(group, group.norm.weight.data.clone())


def smooth(group: NormLinearGroup, channels: ChannelRange, alpha: float) -> None:
    """Move scale from the channels of a normalization to the weights that read them.

    Args:
        group: changed in place.
        channels: of the normalization's output on calibration images.
        alpha: 0 to 1; see :func:`smoothing`.
    """
    weights = ChannelRange(group.weights.amin(0), group.weights.amax(0)).max_abs
    _scale(group, smoothing(channels.max_abs, weights, alpha))


def smoothing(max_abs: torch.Tensor, weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return the divisor of each channel, which its weights are multiplied by: [channels].

    SmoothQuant (Xiao et al., 2023), equation 4, here with a geometric mean of 1. With ``alpha`` 1
    all differences between channels go to the weights, with 0 all differences between weights go
    to the channels.

    Args:
        max_abs: largest magnitude of each channel, [channels], positive.
        weights: largest magnitude of the weights that read each channel, [channels], positive.
        alpha: 0 to 1.
    """
    scale = max_abs**alpha / weights ** (1 - alpha)
    return scale / scale.log().mean().exp()


def centre(group: NormLinearGroup, channels: ChannelRange) -> None:
    """Shift each channel's range so that it is centred on zero (Outlier Suppression+)."""
    _shift(group, channels.middle)


def _shift(group: NormLinearGroup, offset: torch.Tensor) -> None:
    """Subtract ``offset`` [channels] from the norm's output, and correct the biases behind it."""
    group.norm.bias.data -= offset
    for linear in group.linears:
        linear.bias.data += linear.weight.data @ offset


def _scale(group: NormLinearGroup, scale: torch.Tensor) -> None:
    """Divide the norm's output by ``scale`` [channels], and multiply the weights behind it."""
    group.norm.weight.data /= scale
    group.norm.bias.data /= scale
    for linear in group.linears:
        linear.weight.data *= scale


def attentions(model: nn.Module) -> list[Attention]:
    """Return the attentions in which nothing but their products reads query, key and value."""
    return [
        block.attn
        for block in blocks(model)
        if type(block.attn) is Attention
        and all(isinstance(block.attn.get_submodule(n), nn.Identity) for n in ("q_norm", "k_norm"))
        and isinstance(block.attn.norm, nn.Identity)
        and block.attn.gate is None
        and block.attn.qkv.bias is not None
        and block.attn.proj.bias is not None
    ]


def balance_query_key(attention: Attention, channels: ChannelRange, strength: float) -> None:
    """Equalize the magnitude of each query channel and its key channel; their product stays.

    Args:
        attention: changed in place.
        channels: of the output of ``qkv`` on calibration images, [3 * width].
        strength: 1 makes both equal, 0 changes nothing.
    """
    query, key, _ = channels.max_abs.chunk(3)
    scale = (query / key) ** (strength / 2)
    _scale_rows(attention, torch.cat([1 / scale, scale, torch.ones_like(scale)]))


def balance_value(attention: Attention, channels: ChannelRange, strength: float) -> None:
    """Equalize the magnitude of the value channels; the projection's weights compensate.

    Arguments as for :func:`balance_query_key`.
    """
    _, _, value = channels.max_abs.chunk(3)
    scale = (value / value.log().mean().exp()) ** strength
    _scale_rows(attention, torch.cat([torch.ones_like(scale).repeat(2), 1 / scale]))
    attention.proj.weight.data *= scale


def centre_key_value(attention: Attention, channels: ChannelRange) -> ChannelRange:
    """Centre each channel of key and value on zero; return the ranges after that.

    An offset of all keys adds the same number to every score of a query, to which a softmax is
    invariant. An offset of all values passes through unchanged, since attention weights add up to
    1, so the projection's bias compensates. ``channels`` as for :func:`balance_query_key`.
    """
    middle = channels.middle.clone()
    width = len(middle) // 3
    middle[:width] = 0  # a query's offset does change the scores
    attention.qkv.bias.data -= middle
    attention.proj.bias.data += attention.proj.weight.data @ middle[2 * width :]
    return channels.shifted(-middle)


def _scale_rows(attention: Attention, scale: torch.Tensor) -> None:
    attention.qkv.weight.data *= scale[:, None]
    attention.qkv.bias.data *= scale


def rotate(model: Any, seed: int) -> bool:
    """Rotate the basis of the residual stream at random, so that no channel stands out.

    As QuaRot (Ashkboos et al., 2024) does for RMS normalization: layer normalization without scale
    and offset commutes with a rotation that keeps the vector of ones. Every normalization has to be
    folded before (:func:`fold_norm`). Returns whether the model could be rotated.
    """
    if not _can_rotate(model):
        return False
    weight = model.patch_embed.proj.weight
    matrix = rotation(weight.shape[0], seed).to(weight.dtype)
    writers = [model.patch_embed.proj]
    readers = [linear for group in foldable_norms(model) for linear in group.linears]
    for block in model.blocks:
        writers += [block.attn.proj, block.mlp.fc2]
    for writer in writers:
        writer.weight.data = (matrix @ writer.weight.data.flatten(1)).view_as(writer.weight)
        if writer.bias is not None:
            writer.bias.data = matrix @ writer.bias.data
    for reader in readers:
        reader.weight.data = reader.weight.data @ matrix.T
    for name in TOKENS:
        if getattr(model, name, None) is not None:
            token = getattr(model, name)
            token.data = token.data @ matrix.T
    return True


def _can_rotate(model: Any) -> bool:
    groups = foldable_norms(model)
    return (
        type(model) in MODELS
        and type(model.patch_embed) is PatchEmbed
        and isinstance(model.patch_embed.norm, nn.Identity)
        and isinstance(model.norm_pre, nn.Identity)
        and len(groups) == 2 * len(model.blocks) + 1
        and all((g.norm.weight == 1).all() and (g.norm.bias == 0).all() for g in groups)
        and all(isinstance(module, nn.Identity) for b in blocks(model) for module in (b.ls1, b.ls2))
    )


def rotation(size: int, seed: int) -> torch.Tensor:
    """Return a random orthogonal matrix, float64 [size, size], that maps the ones to themselves."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.randn(size - 1, size - 1, generator=generator, dtype=torch.float64)
    inner, triangle = torch.linalg.qr(rest)
    block = torch.eye(size, dtype=torch.float64)
    block[1:, 1:] = inner * triangle.diagonal().sign()
    # The reflection that swaps the first axis and the direction of ones.
    normal = torch.full((size,), -(size**-0.5), dtype=torch.float64)
    normal[0] += 1
    mirror = torch.eye(size, dtype=torch.float64) - 2 * torch.outer(normal, normal) / normal.dot(
        normal
    )
    return mirror @ block @ mirror


def channel_ranges(
    model: nn.Module, modules: Mapping[Any, nn.Module], batches: Sequence[torch.Tensor]
) -> dict[Any, ChannelRange]:
    """Run images through a float32 copy of ``model``; return the ranges of the modules' outputs.

    Args:
        model: not changed.
        modules: of ``model``, by any key.
        batches: float32 [n, 3, H, W] each.
    """
    names = {id(module): name for name, module in model.named_modules()}
    running = copy.deepcopy(model).float()
    ranges: dict[Any, ChannelRange] = {}

    def recorder(key: Any) -> Hook:
        def record(_: torch.Tensor, output: torch.Tensor) -> None:
            rows = output.flatten(0, -2)
            low, high = rows.amin(0), rows.amax(0)
            before = ranges.get(key, ChannelRange(low, high))
            ranges[key] = ChannelRange(
                torch.minimum(low, before.low), torch.maximum(high, before.high)
            )

        return record

    hooks = {names[id(module)]: recorder(key) for key, module in modules.items()}
    with forward_hooks(running, hooks), torch.inference_mode():
        for batch in progress(batches, desc="rewrite: channel ranges", unit="batch"):
            running(batch)
    dtype = next(model.parameters()).dtype
    return {
        key: ChannelRange(r.low.clone().to(dtype), r.high.clone().to(dtype))
        for key, r in ranges.items()
    }
