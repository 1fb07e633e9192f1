"""Vision transformers that compute the same with less work, for files that are exported.

The class is read from the first tokens only, so the last block needs keys and values of all tokens,
and queries, projection and multilayer perceptron of those few. Attention is written with slices and
products of three dimensions, for which runtimes have kernels that need no copies. And the patch
embedding is a linear layer like others, so that it can be int8, too.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from pipeline.support.rewrites import MODELS, attentions, blocks


class SlicedAttention(nn.Module):
    """timm's attention; only the first ``tokens`` of [batch, count, channels] ask, None: all."""

    def __init__(self, attention: Any, tokens: int | None) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.tokens = tokens

    def forward(
        self, x: torch.Tensor, attn_mask: None = None, is_causal: bool = False
    ) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = self.by_head(q[:, : self.tokens]), self.by_head(k), self.by_head(v)
        scores = torch.bmm(q * self.scale, k.transpose(1, 2)).softmax(-1)
        return self.joined(torch.bmm(scores, v), x.shape[0])

    def by_head(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, tokens, channels] to [batch * heads, tokens, channels of a head]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).flatten(0, 1)

    def joined(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        """The projection of what the heads gave, [batch * heads, tokens, channels of a head]."""
        heads = x.unflatten(0, (batch, self.num_heads)).transpose(1, 2).flatten(2)
        projected: torch.Tensor = self.proj(heads)
        return projected


class LastBlock(nn.Module):
    """timm's block, of whose answer [batch, count, channels] only the first tokens are read."""

    def __init__(self, block: Any, tokens: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.ls1, self.ls2 = block.ls1, block.ls2
        self.attn, self.mlp = SlicedAttention(block.attn, tokens), block.mlp
        self.tokens = tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, : self.tokens] + self.ls1(self.attn(self.norm1(x)))
        answer: torch.Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return answer


class LinearPatches(nn.Module):
    """timm's patch embedding: images [batch, 3, H, W] to [batch, patches, channels]."""

    def __init__(self, embed: Any) -> None:
        super().__init__()
        conv = embed.proj
        self.side = conv.kernel_size
        weight = conv.weight.data.flatten(1)
        self.proj = nn.Linear(weight.shape[1], weight.shape[0])
        self.proj.weight.data, self.proj.bias.data = weight, conv.bias.data

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.proj(self.rows(x))
        return answer

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """The values of each patch, [batch, patches, 3 * height * width of a patch]."""
        batch, channels, high, wide = x.shape
        down, right = high // self.side[0], wide // self.side[1]
        x = x.reshape(batch, channels, down, self.side[0], right, self.side[1])
        return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, down * right, -1)


def lean(model: nn.Module) -> nn.Module:
    """Return a copy that computes the same; the names of all weights stay.

    What has no such structure is left as it is.
    """
    model = copy.deepcopy(model).eval()
    known, tokens = attentions(model), tokens_read(model)
    for block in blocks(model):
        if block.attn not in known:
            continue
        if tokens and block is model.blocks[-1]:  # type: ignore[index]
            model.blocks[-1] = LastBlock(block, tokens)  # type: ignore[index,operator]
        else:
            block.attn = SlicedAttention(block.attn, None)
    if type(model) in MODELS and _is_linear(model.patch_embed):
        model.patch_embed = LinearPatches(model.patch_embed)
    return model


def _is_linear(embed: Any) -> bool:
    """Whether it is an embedding of patches that do not overlap, with a bias and no more."""
    return (
        type(embed) is PatchEmbed
        and embed.proj.kernel_size == embed.proj.stride
        and embed.proj.bias is not None
        and embed.flatten
        and isinstance(embed.norm, nn.Identity)
        and not embed.dynamic_img_pad
    )


def tokens_read(model: Any) -> int:
    """How many of the last block's tokens the head reads; 0: all."""
    if type(model) not in MODELS or model.attn_pool is not None:
        return 0
    if type(model) is VisionTransformerDistilled:
        return 2
    return 1 if model.global_pool == "token" else 0


def attends(model: nn.Module) -> bool:
    """Whether `lean` found attention that it knows."""
    return any(isinstance(module, SlicedAttention) for module in model.modules())
