"""Vision transformers with less work compute the same."""

from __future__ import annotations

import copy

import pytest
import torch

from pipeline.models.build import create
from pipeline.models.efficient import LastBlock, PatchLinear, SlicedAttention, to_efficient

SIZE = 32


def made(name, **more):
    torch.manual_seed(0)
    model = create(
        name, num_classes=5, image_size=SIZE, norm_eps=None, fused_attention=False, **more
    )
    for parameter in model.parameters():  # offsets and tokens start at zero
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224"]
)
def test_it_computes_the_same_under_the_same_names(name, images):
    model = made(name)
    less = to_efficient(copy.deepcopy(model))
    assert isinstance(less.patch_embed, PatchLinear)
    assert isinstance(less.blocks[0].attn, SlicedAttention)
    assert isinstance(less.blocks[-1], LastBlock)
    assert less.state_dict().keys() == model.state_dict().keys()
    with torch.inference_mode():
        assert torch.allclose(less.double()(images.double()), model.double()(images.double()))


def test_only_the_tokens_that_the_head_reads_are_computed(images):
    less = to_efficient(made("deit_tiny_distilled_patch16_224"))
    seen = {}
    less.blocks[-1].mlp.register_forward_pre_hook(lambda _, x: seen.update(shape=x[0].shape))
    less(images)
    assert seen["shape"] == (3, 2, 192)


def test_a_network_without_attention_stays_as_it_is():
    model = made("mobilevitv2_050")
    less = to_efficient(copy.deepcopy(model))
    assert [type(m) for m in less.modules()] == [type(m) for m in model.modules()]
