from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import PatchDropout

from pipeline.errors import InputError, ParamsError
from pipeline.finetune.networks import build, load, start_from
from pipeline.models import build as models
from tests.finetune.conftest import TINY


def test_positions_are_interpolated_to_the_new_grid() -> None:
    small, large = build(TINY, 3, 32), build(TINY, 3, 64)
    width = small.pos_embed.shape[2]
    grid = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    positions = torch.cat(
        [torch.full((1, 1, width), 9.0), grid.view(1, 4, 1).expand(1, 4, width)], 1
    )
    fitted = models.adapt({"pos_embed": positions}, large)["pos_embed"]
    assert fitted.shape == large.pos_embed.shape == (1, 17, width)
    assert fitted[0, 0].tolist() == [9.0] * width  # the class token has no place in the grid
    map_ = fitted[0, 1:, 0].view(4, 4)
    expected = torch.nn.functional.interpolate(
        grid[None, None], (4, 4), mode="bicubic", antialias=True, align_corners=False
    )[0, 0]
    torch.testing.assert_close(map_, expected)


def test_other_weights_go_on_unchanged() -> None:
    small, large = build(TINY, 3, 32), build(TINY, 3, 64)
    load(large, small.state_dict(), "small")
    before, after = small.state_dict(), large.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key != "pos_embed")


def test_patches_are_dropped_in_training_only() -> None:
    model = build(TINY, 3, 64, patch_drop=0.5)
    assert isinstance(model.patch_drop, PatchDropout)
    tokens: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda _, x: tokens.append(x[0].shape[1]))
    x = torch.zeros(1, 3, 64, 64)
    model.train()(x)
    model.eval()(x)
    assert tokens == [1 + 8, 1 + 16]


def test_dropping_patches_of_a_convolution_is_refused() -> None:
    with pytest.raises(ParamsError, match="patch_drop: test_resnet has no patches"):
        build("test_resnet", 3, 32, patch_drop=0.5)


def test_an_unknown_architecture_gets_near_names() -> None:
    with pytest.raises(InputError, match=r"'deit_tinny_patch16_224'.*deit_tiny_patch16_224"):
        build("deit_tinny_patch16_224", 3, 32)


def test_a_checkpoint_of_other_classes_gives_all_but_its_head(tmp_path: Path) -> None:
    given, model = build(TINY, 5, 160), build(TINY, 3, 32)
    head = model.head.weight.clone()
    save_file(given.state_dict(), tmp_path / "given.safetensors")
    start_from(model, tmp_path / "given.safetensors")
    assert torch.equal(model.blocks[0].attn.qkv.weight, given.blocks[0].attn.qkv.weight)
    assert torch.equal(model.head.weight, head)


def test_a_checkpoint_of_the_same_classes_gives_its_head_too(tmp_path: Path) -> None:
    given, model = build(TINY, 3, 32), build(TINY, 3, 32)
    torch.nn.init.normal_(given.head.weight)
    save_file(given.state_dict(), tmp_path / "given.safetensors")
    start_from(model, tmp_path / "given.safetensors")
    assert torch.equal(model.head.weight, given.head.weight)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.checkpoint: there is no file .*gone"):
        start_from(build(TINY, 3, 32), tmp_path / "gone.safetensors")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    state = build("test_resnet", 3, 32).state_dict()
    save_file(state, tmp_path / "resnet.safetensors")
    with pytest.raises(InputError, match="does not fit the model"):
        start_from(build(TINY, 3, 32), tmp_path / "resnet.safetensors")


def test_a_deeper_model_computes_what_the_shallower_one_did() -> None:
    torch.manual_seed(0)
    shallow, deep = build(TINY, 3, 48, blocks=2), build(TINY, 3, 48)
    assert len(shallow.blocks) == 2
    assert len(deep.blocks) > 2
    for model in (shallow, deep):
        torch.nn.init.normal_(model.head.weight)
    load(deep, shallow.state_dict(), "shallow")
    x = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(deep(x), shallow(x))
    deep(x).sum().backward()
    silent = deep.blocks[1].attn.proj.weight.grad
    assert silent is not None
    assert silent.abs().max() > 0  # so that training wakes them


def test_more_blocks_than_there_are_are_refused() -> None:
    with pytest.raises(ParamsError, match="blocks: test_vit has no 99 blocks"):
        build(TINY, 3, 32, blocks=99)


def test_blocks_of_a_convolution_are_refused() -> None:
    with pytest.raises(ParamsError, match="blocks: test_resnet has no 2 blocks"):
        build("test_resnet", 3, 32, blocks=2)
