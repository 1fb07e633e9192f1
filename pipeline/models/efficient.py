"""Vision transformers in forms that cost a core fewer instructions, before any int8.

What they compute is the model's but, for PyTorch Lite, for the softmax, whose exponential is a
power of a polynomial: the C library's costs 50 instructions for each number (docs/adr/0028).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from pipeline.models.equivalent import blocks

PATCHES = "patch_embed.proj"


class SlicedAttention(nn.Module):
    """timm's attention, written with slices and products of three dimensions, which need no copies.

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
        q, k, v = (self.by_head(part) for part in self.asking(self.qkv(x)))
        weights = torch.bmm(q * self.scale, k.transpose(1, 2)).softmax(-1)
        answer: torch.Tensor = self.joined(torch.bmm(weights, v), x.shape[0])
        return answer

    def asking(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value, of which the query is of the tokens that are read."""
        # By slices: XNNPACK has them, and no split, which would cut its graph in two.
        size = qkv.shape[-1] // 3
        q, k, v = qkv[..., :size], qkv[..., size : 2 * size], qkv[..., 2 * size :]
        return (q[:, : self.reads] if self.reads > 0 else q), k, v

    def by_head(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, channels] to [n * heads, tokens, channels of a head]."""
        heads: torch.Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2).flatten(0, 1)

    def joined(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """The projection of what the heads gave, [n * heads, tokens, channels of a head]."""
        heads = x.unflatten(0, (count, self.num_heads)).transpose(1, 2).flatten(2)
        projected: torch.Tensor = self.proj(heads)
        return projected


class CheapAttention(SlicedAttention):
    """The same with :func:`soft_weights` in the place of the softmax, for PyTorch's operators."""

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
        answer: torch.Tensor = self.norm(self.proj(self.patches(x)))
        return answer

    def patches(self, x: torch.Tensor) -> torch.Tensor:
        """The values of each patch, [n, patches, 3 * height * width of a patch]."""
        count = x.shape[0]
        x = x.reshape(count, -1, self.rows, self.height, self.columns, self.width)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(count, self.rows * self.columns, -1)


def lean(
    model: Any, attention: Callable[[Attention, int], SlicedAttention] = SlicedAttention
) -> nn.Module:
    """Change a float model in place, so that it computes the same with less work; return it.

    The last block answers for the tokens that the head reads, and the patch embedding is a linear
    layer. Layers keep their names. What has no such structure is left as it is.
    """
    whole = blocks(model)
    if whole and _is_grid(model.patch_embed):
        model.patch_embed = PatchLinear(model.patch_embed, _as_linear(model.patch_embed.proj))
    for number, block in enumerate(whole):
        last = number == len(model.blocks) - 1
        reads = _tokens_read(model) if last else 0
        if _is_plain(block.attn):
            block.attn = attention(block.attn, reads)
            if reads:
                model.blocks[number] = LastBlock(block, reads)
    return model  # type: ignore[no-any-return]


def shaped(model: nn.Module) -> nn.Module:
    """Change a float model in place into the form whose linear layers scheme ``static_symmetric``
    quantizes. It computes the same but for the softmax."""
    return lean(model, CheapAttention)


def attends(model: nn.Module) -> bool:
    """Whether :func:`lean` found attention that it knows."""
    return any(isinstance(module, SlicedAttention) for module in model.modules())


def is_shaped(model: nn.Module) -> bool:
    """Whether a model is in this form."""
    return any(isinstance(module, SlicedAttention | PatchLinear) for module in model.modules())


def _is_grid(embed: nn.Module) -> bool:
    """Whether an embedding cuts the image into patches and takes each by itself."""
    return type(embed) is PatchEmbed and embed.flatten and not embed.dynamic_img_pad


def cuts_patches(model: Any) -> bool:
    """Whether a shaped model has its patch embedding as a linear layer."""
    return isinstance(getattr(model, "patch_embed", None), PatchLinear)


def patch_shape(model: Any) -> tuple[int, ...]:
    """Of the patch embedding's weight as the checkpoint has it: [out, 3, height, width]."""
    embed = model.patch_embed
    return (-1, 3, embed.height, embed.width)


def _as_linear(conv: nn.Conv2d) -> nn.Linear:
    linear = nn.Linear(conv.weight[0].numel(), conv.out_channels, bias=conv.bias is not None)
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1))
    linear.bias = conv.bias  # type: ignore[assignment]
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
    inside = [PATCHES] if cuts_patches(model) else []
    for name, module in model.named_modules():
        if isinstance(module, SlicedAttention):
            inside += [f"{name}.qkv", f"{name}.proj"]
        elif type(module) is Mlp:
            inside += [f"{name}.fc1", f"{name}.fc2"]
    return inside
