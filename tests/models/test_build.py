from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.models.build import (
    adapt,
    create,
    head_size,
    heads,
    load_weights,
    outline,
    pretrained_cfg,
)

TINY = "test_vit"  # 0.4 million weights, 160 px


@pytest.fixture
def model() -> nn.Module:
    return create(TINY, num_classes=3)


def test_an_unknown_architecture_gets_near_names() -> None:
    with pytest.raises(InputError, match=r"'deit_tinny_patch16_224'.*deit_tiny_patch16_224"):
        create("deit_tinny_patch16_224", num_classes=3)


def test_an_unknown_pretrained_tag_is_refused() -> None:
    with pytest.raises(InputError, match="no_such_tag"):
        create("deit_tiny_patch16_224.no_such_tag", num_classes=3)


def test_an_architecture_without_a_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_classifier(pretrained: bool = False, **kwargs: object) -> nn.Module:
        return nn.Conv2d(3, 3, 1)

    entrypoints = timm.models._registry._model_entrypoints
    monkeypatch.setitem(entrypoints, "no_classifier", no_classifier)
    with pytest.raises(InputError, match="no_classifier is not an image classifier"):
        create("no_classifier", num_classes=3)


def test_an_image_size_of_which_a_part_of_a_patch_would_be_left_out_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"patches of 16 x 16 .* 225 x 225 is no multiple of; the next is 224 x 224",
    ):
        outline("vit_tiny_patch16_224", num_classes=3, image_size=225)


def test_an_image_size_that_an_architecture_cannot_take_is_refused() -> None:
    with pytest.raises(InputError, match=r"xcit_nano\S+ cannot be made .* at 17 pixels"):
        create("xcit_nano_12_p16_224", num_classes=3, image_size=17)


def test_a_convolutional_model_takes_any_size() -> None:
    made = create("test_resnet", num_classes=3, image_size=96)
    assert made(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_a_convolutional_model_is_made_at_its_usual_size() -> None:
    usual = pretrained_cfg("test_resnet")["input_size"][-1]
    made = create("test_resnet", num_classes=3, image_size=usual)
    assert made(torch.zeros(1, 3, usual, usual)).shape == (1, 3)


def test_a_transformer_is_made_for_another_size() -> None:
    made = create(TINY, num_classes=3, image_size=96)
    assert made(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_a_transformer_for_any_size_is_made_for_one() -> None:
    anything = timm.create_model(TINY, num_classes=3).eval()
    assert anything.dynamic_img_size
    for size in (None, 96):
        one = create(TINY, num_classes=3, image_size=size)
        assert not one.dynamic_img_size
        load_weights(one, adapt(anything.state_dict(), one), "a.pth")
        x = torch.randn(2, 3, size or 160, size or 160)
        torch.testing.assert_close(one(x), anything(x))


def test_unfused_attention_gives_the_same_answer(model: nn.Module) -> None:
    unfused = create(TINY, num_classes=3, fused_attention=False)
    load_weights(unfused, model.state_dict(), "a.pth")
    assert not unfused.get_submodule("blocks.0.attn").fused_attn
    assert model.get_submodule("blocks.0.attn").fused_attn
    x = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(unfused(x), model(x))


def test_half_precision_weights_become_float32(model: nn.Module) -> None:
    half = {key: value.half() for key, value in model.state_dict().items()}
    other = create(TINY, num_classes=3)
    load_weights(other, half, "a.pth")
    weight = other.state_dict()["head.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, half["head.weight"].float())


def test_distilled_models_have_two_heads() -> None:
    assert heads(pretrained_cfg("deit_tiny_distilled_patch16_224")) == ("head", "head_dist")


def test_the_number_of_classes_is_read_from_the_head(model: nn.Module) -> None:
    cfg = pretrained_cfg(TINY)
    assert head_size(cfg, model.state_dict()) == 3
    assert head_size(cfg, {}) is None


def test_weights_that_do_not_fit_are_named(model: nn.Module) -> None:
    state = model.state_dict()
    state["bogus"] = state.pop("norm.weight")
    state["cls_token"] = state["cls_token"][..., :5]
    with pytest.raises(InputError) as caught:
        load_weights(model, state, "a.pth")
    message = str(caught.value)
    assert "a.pth does not fit" in message
    assert "missing norm.weight" in message
    assert "unexpected bogus" in message
    assert "cls_token is (1, 1, 5), the model wants (1, 1, 64)" in message


def test_only_the_first_misfits_are_named(model: nn.Module) -> None:
    with pytest.raises(InputError, match=r"missing cls_token.*and \d+ more"):
        load_weights(model, {}, "a.pth")


def test_weights_without_a_head_are_no_classifier(model: nn.Module) -> None:
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    with pytest.raises(InputError, match=r"a\.pth is not a classifier.*head\.bias, head\.weight"):
        load_weights(model, state, "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(model: nn.Module, value: float) -> None:
    state = model.state_dict()
    state["head.bias"] = torch.full((3,), value)
    with pytest.raises(InputError, match=r"head\.bias holds NaN or infinity"):
        load_weights(model, state, "a.pth")
