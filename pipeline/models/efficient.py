"""Vision transformers in a form that needs fewer instructions, before any quantization.

:func:`to_efficient` keeps the function of the model. :func:`for_static_int8` approximates the
softmax: its exponential is a power of a polynomial, since the C library's takes 50 instructions a
number (docs/adr/0028).
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
    """timm's attention with slices and three-dimensional products, which need no copies.

    float32 [n, tokens, channels] to [n, ``tokens_read`` or tokens, channels].
    """

    def __init__(self, attention: Attention, tokens_read: int) -> None:
        """``tokens_read``: compute the first so many tokens only; 0 means all."""
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.num_heads = attention.num_heads
        self.scale = attention.scale
        self.tokens_read = tokens_read

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        q, k, v = (self.split_heads(part) for part in self.query_key_value(self.qkv(x)))
        weights = torch.bmm(q * self.scale, k.transpose(1, 2)).softmax(-1)
        output: torch.Tensor = self.project(torch.bmm(weights, v), x.shape[0])
        return output

    def query_key_value(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Split [n, tokens, 3 * channels]; the query is only of the tokens that are read."""
        # By slices, which XNNPACK has; it lacks split, which would cut its graph in two.
        size = qkv.shape[-1] // 3
        q, k, v = qkv[..., :size], qkv[..., size : 2 * size], qkv[..., 2 * size :]
        return (q[:, : self.tokens_read] if self.tokens_read > 0 else q), k, v

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, channels] to [n * heads, tokens, channels of a head]."""
        heads: torch.Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2).flatten(0, 1)

    def project(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """Project the heads' outputs, [n * heads, tokens, channels of a head]."""
        heads = x.unflatten(0, (count, self.num_heads)).transpose(1, 2).flatten(2)
        projected: torch.Tensor = self.proj(heads)
        return projected


class PolynomialAttention(SlicedAttention):
    """With :func:`unnormalized_softmax`, in the operators that PyTorch Lite runs fastest."""

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        count, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.tokens_read > 0:
            q = q[:, :, : self.tokens_read]
        # A product with a transposed matrix is slower than transposing it first.
        weights = unnormalized_softmax(q @ k.transpose(-2, -1).contiguous(), self.scale)
        mixed = (weights @ v) / weights.sum(-1, keepdim=True)
        output: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(count, q.shape[2], -1))
        return output


def unnormalized_softmax(scores: torch.Tensor, scale: float, squarings: int = 6) -> torch.Tensor:
    """Compute exp(``scores`` * ``scale``) up to one factor a row; [..., n], in place.

    exp(x) = exp(y)^m with y = x / m, m = 2**squarings, and the second-order series of exp(y):
    1 + y + y^2 / 2 = ((1 + y)^2 + 1) / 2. The relative error is x^3 / (6 m^2). The largest x of a
    row is 0; for x below -m the result stays at 2^-m. The factor 1/2 cancels with the row's sum.
    """
    x = scores.sub_(scores.amax(-1, keepdim=True))
    x = x.mul_(scale / 2.0**squarings).add_(1.0).clamp_(min=0.0)
    x = x.mul_(x).add_(1.0)
    for _ in range(squarings):
        x = x.mul_(x)
    return x


class LastBlock(nn.Module):
    """A block that computes only the first tokens, which are all that the head reads."""

    def __init__(self, block: Any, tokens_read: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = block.norm1, block.attn, block.ls1
        self.norm2, self.mlp, self.ls2 = block.norm2, block.mlp, block.ls2
        self.tokens_read = tokens_read

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        x = x[:, : self.tokens_read] + self.ls1(self.attn(self.norm1(x)))
        output: torch.Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return output


class PatchLinear(nn.Module):
    """A patch embedding as a linear layer; float32 [n, 3, H, W] to [n, patches, channels]."""

    def __init__(self, embed: PatchEmbed, proj: nn.Module) -> None:
        super().__init__()
        self.proj, self.norm = proj, embed.norm
        self.rows, self.columns = embed.grid_size
        self.height, self.width = embed.patch_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.norm(self.proj(self.patches(x)))
        return output

    def patches(self, x: torch.Tensor) -> torch.Tensor:
        """Cut the image: [n, patches, 3 * height * width of a patch]."""
        count = x.shape[0]
        x = x.reshape(count, -1, self.rows, self.height, self.columns, self.width)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(count, self.rows * self.columns, -1)


def to_efficient(
    model: Any, attention: Callable[[Attention, int], SlicedAttention] = SlicedAttention
) -> nn.Module:
    """Change a float model in place so that it computes the same with less work; return it.

    The last block computes only the tokens that the head reads, the patch embedding becomes a
    linear layer, and attention becomes ``attention``. Layers keep their names. A model without
    such structure is left unchanged.
    """
    usual_blocks = blocks(model)
    if usual_blocks and _is_grid(model.patch_embed):
        model.patch_embed = PatchLinear(model.patch_embed, _as_linear(model.patch_embed.proj))
    for number, block in enumerate(usual_blocks):
        last = number == len(model.blocks) - 1
        tokens_read = _tokens_read(model) if last else 0
        if _is_plain(block.attn):
            block.attn = attention(block.attn, tokens_read)
            if tokens_read:
                model.blocks[number] = LastBlock(block, tokens_read)
    return model  # type: ignore[no-any-return]


def for_static_int8(model: nn.Module) -> nn.Module:
    """Change a float model in place into the form that scheme ``static_symmetric`` quantizes.

    As :func:`to_efficient`, with an approximated softmax; returns the model.
    """
    return to_efficient(model, PolynomialAttention)


def has_attention(model: nn.Module) -> bool:
    """Whether :func:`to_efficient` found attention that it could change."""
    return any(isinstance(module, SlicedAttention) for module in model.modules())


def is_efficient(model: nn.Module) -> bool:
    """Whether :func:`to_efficient` or :func:`for_static_int8` has changed the model."""
    return any(isinstance(module, SlicedAttention | PatchLinear) for module in model.modules())


def _is_grid(embed: nn.Module) -> bool:
    """Whether an embedding cuts the image into patches and embeds each by itself."""
    return type(embed) is PatchEmbed and embed.flatten and not embed.dynamic_img_pad


def has_linear_patches(model: Any) -> bool:
    """Whether the model has its patch embedding as a linear layer."""
    return isinstance(getattr(model, "patch_embed", None), PatchLinear)


def patch_shape(model: Any, channels: int) -> tuple[int, ...]:
    """Shape of the patch embedding's weight in the checkpoint: (-1, channels, height, width)."""
    embed = model.patch_embed
    return (-1, channels, embed.height, embed.width)


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


def static_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers that ``static_symmetric`` can quantize, in the model's order.

    ``model`` comes from :func:`for_static_int8`.
    """
    names = [PATCHES] if has_linear_patches(model) else []
    for name, module in model.named_modules():
        if isinstance(module, SlicedAttention):
            names += [f"{name}.qkv", f"{name}.proj"]
        elif type(module) is Mlp:
            names += [f"{name}.fc1", f"{name}.fc2"]
    return names
