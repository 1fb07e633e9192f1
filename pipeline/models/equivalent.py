"""Give a vision transformer other weights that compute the same and lose less in int8.

Each function changes a timm `VisionTransformer` in place, in whatever precision its weights have.
What has no such structure is left as it is.
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

from pipeline.models.hooks import Look, watching

# Others compute something else in between.
MODELS = (VisionTransformer, VisionTransformerDistilled)
TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")
POOLS_LINEAR = ("", "token", "avg")  # an offset or a scale of each channel passes through them
SMALLEST = 1e-5  # of the largest channel; what is less is as good as never used


@dataclass(frozen=True)
class Join:
    """A layer normalization and all the linear layers that read it and nothing else."""

    norm: nn.LayerNorm
    readers: tuple[nn.Linear, ...]

    @property
    def weights(self) -> torch.Tensor:
        """Of all readers, [out, channels]."""
        return torch.cat([reader.weight.data for reader in self.readers])


@dataclass(frozen=True)
class Spread:
    """The least and the largest value of each channel, [channels]."""

    low: torch.Tensor
    high: torch.Tensor

    @property
    def middle(self) -> torch.Tensor:
        return (self.low + self.high) / 2

    @property
    def reach(self) -> torch.Tensor:
        """How far the channel gets from zero; channels that never leave it count as little."""
        far = torch.maximum(self.low.abs(), self.high.abs())
        return far.clamp(min=max(SMALLEST * float(far.max()), torch.finfo(far.dtype).tiny))

    def moved(self, by: torch.Tensor) -> Spread:
        return Spread(self.low + by, self.high + by)


def joins(model: nn.Module) -> list[Join]:
    """The layer normalizations of a model whose affine part the layers behind can take over."""
    found: list[tuple[Any, tuple[Any, ...]]] = []
    for block in blocks(model):
        attention = block.attn
        if type(attention) is Attention:
            gate = () if attention.gate is None else (attention.gate,)
            found.append((block.norm1, (attention.qkv, *gate)))
        if type(block.mlp) is Mlp:
            found.append((block.norm2, (block.mlp.fc1,)))
    found += _before_the_head(model)
    return [Join(norm, readers) for norm, readers in found if _is_join(norm, readers)]


def blocks(model: nn.Module) -> list[Any]:
    """Its transformer blocks, those that are built as usual: normalize, compute, add."""
    every: Iterable[nn.Module] = model.blocks if type(model) in MODELS else ()  # type: ignore[assignment]
    return [block for block in every if type(block) is Block]


def _before_the_head(model: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    if type(model) not in MODELS or model.attn_pool is not None:
        return []
    heads = (model.head, model.head_dist) if hasattr(model, "head_dist") else (model.head,)
    if isinstance(model.fc_norm, nn.Identity):
        return [(model.norm, heads)] if model.global_pool in POOLS_LINEAR else []
    return [(model.fc_norm, heads)]


def _is_join(norm: Any, readers: Sequence[Any]) -> bool:
    return (
        isinstance(norm, nn.LayerNorm)
        and norm.weight is not None
        and norm.bias is not None
        and all(isinstance(reader, nn.Linear) and reader.bias is not None for reader in readers)
    )


def fold_norm(join: Join) -> None:
    """Let the readers do the normalization's affine part: it is left with scale 1, offset 0."""
    _shift(join, join.norm.bias.data.clone())
    _scale(join, join.norm.weight.data.clone())


def smooth(join: Join, spread: Spread, alpha: float) -> None:
    """Move scale from the channels of a normalization to the weights that read them."""
    weights = Spread(join.weights.amin(0), join.weights.amax(0)).reach
    _scale(join, smoothing(spread.reach, weights, alpha))


def smoothing(reach: torch.Tensor, weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """What channels of that ``reach`` are to be divided by, and their weights to be multiplied.

    SmoothQuant (Xiao et al., 2023), equation 4: with ``alpha`` 1 the weights get all differences
    between channels, with 0 the channels do.
    """
    scale = reach**alpha / weights ** (1 - alpha)
    return scale / scale.log().mean().exp()


def centre(join: Join, spread: Spread) -> None:
    """Move the middle of each channel to zero; Outlier Suppression+ (Wei et al., 2023)."""
    _shift(join, spread.middle)


def _shift(join: Join, offset: torch.Tensor) -> None:
    """Take ``offset`` [channels] from what the norm gives, and give it to the readers' bias."""
    join.norm.bias.data -= offset
    for reader in join.readers:
        reader.bias.data += reader.weight.data @ offset


def _scale(join: Join, scale: torch.Tensor) -> None:
    """Divide what the norm gives by ``scale`` [channels], and multiply the readers' weights."""
    join.norm.weight.data /= scale
    join.norm.bias.data /= scale
    for reader in join.readers:
        reader.weight.data *= scale


def attentions(model: nn.Module) -> list[Attention]:
    """The attentions in which query, key and value are read by nothing but their products."""
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


def balance_query_key(attention: Attention, spread: Spread, strength: float) -> None:
    """Give each channel of query and key the same reach, which their product never sees.

    ``strength`` 1 makes them equal, 0 changes nothing.
    """
    query, key, _ = spread.reach.chunk(3)
    scale = (query / key) ** (strength / 2)
    _scale_rows(attention, torch.cat([1 / scale, scale, torch.ones_like(scale)]))


def balance_value(attention: Attention, spread: Spread, strength: float) -> None:
    """Give the channels of value the same reach; the projection's weights take the difference."""
    _, _, reach = spread.reach.chunk(3)
    scale = (reach / reach.log().mean().exp()) ** strength
    _scale_rows(attention, torch.cat([torch.ones_like(scale).repeat(2), 1 / scale]))
    attention.proj.weight.data *= scale


def centre_key_value(attention: Attention, spread: Spread) -> Spread:
    """Move the middle of each channel of key and value to zero; return the spread after that.

    What all keys have in common adds the same to every score of a query, which a softmax does not
    see; what all values have in common comes out as it is, since the weights add up to 1.
    """
    middle = spread.middle.clone()
    channels = len(middle) // 3
    middle[:channels] = 0  # a query's is seen
    attention.qkv.bias.data -= middle
    attention.proj.bias.data += attention.proj.weight.data @ middle[2 * channels :]
    return spread.moved(-middle)


def _scale_rows(attention: Attention, scale: torch.Tensor) -> None:
    attention.qkv.weight.data *= scale[:, None]
    attention.qkv.bias.data *= scale


def rotate(model: Any, seed: int) -> bool:
    """Turn the basis of the residual stream at random, so that no channel stands out.

    As QuaRot (Ashkboos et al., 2024) does for RMS normalization: layer normalization without an
    affine part commutes with a rotation that keeps the vector of ones. Needs every normalization
    folded; returns whether the model could be turned.
    """
    if not _is_turnable(model):
        return False
    weight = model.patch_embed.proj.weight
    turn = rotation(weight.shape[0], seed).to(weight.dtype)
    writers = [model.patch_embed.proj]
    readers = [reader for join in joins(model) for reader in join.readers]
    for block in model.blocks:
        writers += [block.attn.proj, block.mlp.fc2]
    for writer in writers:
        writer.weight.data = (turn @ writer.weight.data.flatten(1)).view_as(writer.weight)
        if writer.bias is not None:
            writer.bias.data = turn @ writer.bias.data
    for reader in readers:
        reader.weight.data = reader.weight.data @ turn.T
    for name in TOKENS:
        if getattr(model, name, None) is not None:
            token = getattr(model, name)
            token.data = token.data @ turn.T
    return True


def _is_turnable(model: Any) -> bool:
    found = joins(model)
    return (
        type(model) in MODELS
        and type(model.patch_embed) is PatchEmbed
        and isinstance(model.patch_embed.norm, nn.Identity)
        and isinstance(model.norm_pre, nn.Identity)
        and len(found) == 2 * len(model.blocks) + 1
        and all((j.norm.weight == 1).all() and (j.norm.bias == 0).all() for j in found)
        and all(isinstance(module, nn.Identity) for b in blocks(model) for module in (b.ls1, b.ls2))
    )


def rotation(size: int, seed: int) -> torch.Tensor:
    """A random orthogonal matrix, float64 [size, size], that leaves the vector of ones as it is."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.randn(size - 1, size - 1, generator=generator, dtype=torch.float64)
    inner, triangle = torch.linalg.qr(rest)
    turn = torch.eye(size, dtype=torch.float64)
    turn[1:, 1:] = inner * triangle.diagonal().sign()
    # The reflection that swaps the first axis and the direction of ones.
    normal = torch.full((size,), -(size**-0.5), dtype=torch.float64)
    normal[0] += 1
    mirror = torch.eye(size, dtype=torch.float64) - 2 * torch.outer(normal, normal) / normal.dot(
        normal
    )
    return mirror @ turn @ mirror


def spreads(
    model: nn.Module, watched: Mapping[Any, nn.Module], batches: Iterable[torch.Tensor]
) -> dict[Any, Spread]:
    """Run float32 images [n, 3, H, W] and return the spread of what each watched module gives."""
    names = {id(module): name for name, module in model.named_modules()}
    running = copy.deepcopy(model).float()
    seen: dict[Any, Spread] = {}

    def hold(key: Any) -> Look:
        def look(_: torch.Tensor, answer: torch.Tensor) -> None:
            rows = answer.flatten(0, -2)
            low, high = rows.amin(0), rows.amax(0)
            old = seen.get(key, Spread(low, high))
            seen[key] = Spread(torch.minimum(low, old.low), torch.maximum(high, old.high))

        return look

    looks = {names[id(module)]: hold(key) for key, module in watched.items()}
    with watching(running, looks), torch.inference_mode():
        for batch in batches:
            running(batch)
    dtype = next(model.parameters()).dtype
    return {k: Spread(s.low.clone().to(dtype), s.high.clone().to(dtype)) for k, s in seen.items()}
