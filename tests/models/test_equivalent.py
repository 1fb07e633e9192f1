"""Every rewrite computes the same, to the last digits of float64, and does what it is for."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from pipeline.models import equivalent
from pipeline.params import Rewrite
from pipeline.stages.rewrite import apply

WIDTH = 48
SMALL = {"num_classes": 10, "depth": 2, "num_heads": 3, "img_size": 64}
MODELS = {
    "deit": ("deit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "average": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "average_after_norm": ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),
    "pre_norm": ("vit_tiny_patch16_224", {"pre_norm": True, "init_values": 0.1, "reg_tokens": 2}),
    "qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "no_qkv_bias": ("vit_tiny_patch16_224", {"qkv_bias": False}),
    "max_pool": ("vit_tiny_patch16_224", {"global_pool": "max", "fc_norm": False}),
    "map_pool": ("vit_tiny_patch16_224", {"global_pool": "map"}),
    "gated": ("vit_tiny_patch16_224", {}),
    "scale_norms": (
        "vit_tiny_patch16_224",
        {"scale_attn_norm": True, "scale_mlp_norm": True},
    ),
}
METHODS = {
    "fold_norm": {"fold_norm": True},
    "rotate": {"fold_norm": True, "rotate": 3},
    "centre": {"centre": True},
    "smooth": {"smooth": 0.6},
    "query_key": {"query_key": 1.0},
    "value": {"value": 0.7},
}
METHODS["all"] = {key: value for method in METHODS.values() for key, value in method.items()}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def made(kind: str, width: int = WIDTH) -> nn.Module:
    """A model whose every weight, scale and offset is random, in float64."""
    architecture, extra = MODELS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(architecture, embed_dim=width, **SMALL, **extra)
        if kind == "gated":
            for block in model.blocks:
                block.attn.gate = nn.Linear(width, width)
        model = model.eval().double()
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def rewritten(model: nn.Module, method: str) -> nn.Module:
    return apply(Rewrite(**METHODS[method]), copy.deepcopy(model), [IMAGES])


def answers(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(IMAGES.double())
    return logits


@pytest.mark.parametrize("kind", MODELS)
def test_every_method_alone_and_all_together_compute_the_same(kind):
    model = made(kind)
    expected = answers(model)
    for method in METHODS:
        found = rewritten(model, method)
        assert (answers(found) - expected).abs().max() < 1e-12 * expected.abs().max(), method


@pytest.mark.parametrize(
    ("kind", "untouched"),
    [
        ("deit", set()),
        ("distilled", set()),
        ("average", set()),
        ("qk_norm", {"query_key", "value"}),  # normalized behind the linear layer
        ("scale_norms", {"query_key", "value"}),
        ("gated", {"query_key", "value"}),
    ],
)
def test_methods_change_the_weights_of_what_they_are_for(kind, untouched):
    model = made(kind)
    before = model.state_dict()
    for method in METHODS:
        after = rewritten(model, method).state_dict()
        assert after.keys() == before.keys()
        changed = [key for key in before if not torch.equal(before[key], after[key])]
        assert bool(changed) == (method not in untouched), method


@pytest.mark.parametrize("kind", ["pre_norm", "no_qkv_bias", "max_pool", "map_pool"])
def test_a_stream_that_cannot_be_turned_is_only_folded(kind):
    model = made(kind)
    assert not equivalent.rotate(copy.deepcopy(model), 0)
    turned, folded = (rewritten(model, method).state_dict() for method in ("rotate", "fold_norm"))
    assert all(torch.equal(turned[key], folded[key]) for key in folded)


def test_folded_normalizations_are_plain():
    for group in equivalent.foldable_norms(rewritten(made("distilled"), "fold_norm")):
        assert (group.norm.weight == 1).all()
        assert group.norm.bias.abs().max() < 1e-15


def ranges(model: nn.Module) -> tuple[list[equivalent.ChannelRange], list[equivalent.ChannelRange]]:
    """Of normalizations, and of attentions' linear layers."""
    norms = {group: group.norm for group in equivalent.foldable_norms(model)}
    linears = {attention: attention.qkv for attention in equivalent.attentions(model)}
    found = equivalent.channel_ranges(model, norms | linears, [IMAGES])
    return [found[key] for key in norms], [found[key] for key in linears]


def test_centred_channels_reach_as_far_up_as_down():
    norms, linears = ranges(rewritten(made("deit"), "centre"))
    whole = [*norms, *(equivalent.ChannelRange(s.low[WIDTH:], s.high[WIDTH:]) for s in linears)]
    assert all(s.middle.abs().max() < 1e-5 * s.max_abs.max() for s in whole)


def test_channels_of_a_pair_end_with_the_same_reach():
    _, linears = ranges(rewritten(made("deit"), "query_key"))
    for found in linears:
        query, key, _ = found.max_abs.chunk(3)
        torch.testing.assert_close(query, key, rtol=1e-5, atol=0)


def test_smoothing_at_one_leaves_channels_of_one_reach():
    model = apply(Rewrite(smooth=1.0), made("deit"), [IMAGES])
    norms, _ = ranges(model)
    for found in norms:
        assert found.max_abs.max() / found.max_abs.min() < 1 + 1e-5


def test_a_rotation_keeps_lengths_and_the_vector_of_ones():
    turn = equivalent.rotation(48, 7)
    one = torch.ones(48, dtype=torch.float64)
    torch.testing.assert_close(turn @ turn.T, torch.eye(48, dtype=torch.float64))
    torch.testing.assert_close(turn @ one, one)
    assert turn.abs().max() < 0.7  # no channel stays what it was
    assert not torch.equal(turn, equivalent.rotation(48, 8))


def test_a_rotation_spreads_a_channel_that_stands_out():
    model = made("deit", width=192)
    for block in model.blocks:
        block.mlp.fc2.bias.data[5] += 40

    def crest(method: str) -> float:
        """Of the last normalization's channels: the largest reach in root mean squares."""
        reach = ranges(rewritten(model, method))[0][-1].max_abs
        return float(reach.max() / reach.square().mean().sqrt())

    assert crest("fold_norm") > 10
    assert crest("rotate") < 5
