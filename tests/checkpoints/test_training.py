"""Checkpoints of training scripts: the owner's logits, whatever is written around the weights."""

from __future__ import annotations

import argparse
import copy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn

from pipeline.errors import InputError, ParamsError
from pipeline.params import Model
from tests.checkpoints.fetching import answers_as, fetched, trained

TINY = "test_vit"  # 0.4 million weights, 160 px
SIZE = 64


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("cat\ndog\ncow\n")


def tiny(**kwargs: Any) -> nn.Module:
    return trained(timm.create_model(TINY, num_classes=3, img_size=SIZE, **kwargs))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def own(checkpoint: str, **model: Any) -> Any:
    return fetched(checkpoint, **{"architecture": TINY, "labels": "labels.txt"} | model)


def save_as_timm(model: nn.Module, folder: Path, args: argparse.Namespace, **more: Any) -> None:
    """Write what timm's train.py writes at the end of an epoch."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 3, SIZE, SIZE)).sum().backward()
    optimizer.step()
    saver = CheckpointSaver(model, optimizer, args=args, checkpoint_dir=str(folder), **more)
    saver.save_checkpoint(9, metric=71.5)


def args_of_timm(**more: Any) -> argparse.Namespace:
    usual = {
        "model": TINY,
        "img_size": SIZE,
        "input_size": None,
        "in_chans": None,
        "num_classes": 3,
        "gp": None,
        "mean": [0.5, 0.4, 0.3],
        "std": None,
        "crop_pct": 0.8,
        "interpolation": "",
        "model_kwargs": {},
        "drop_path": 0.1,
        "aug_splits": 0,
        "output": "runs/1",
    }
    return argparse.Namespace(**usual | more)


@pytest.mark.parametrize("name", ["model_best", "last", "checkpoint-9"])
def test_timms_training_checkpoint_says_what_it_is(name: str, tmp_path: Path) -> None:
    model = tiny(global_pool="avg", act_layer="relu")
    args = args_of_timm(gp="avg", model_kwargs={"act_layer": "relu", "drop_rate": 0.2})
    save_as_timm(model, tmp_path, args)
    contract = fetched(f"{name}.pth.tar", labels="labels.txt")
    assert answers_as(model, contract)
    assert contract.name == name
    assert contract.checkpoint.architecture == TINY
    assert contract.checkpoint.kwargs == {"global_pool": "avg", "act_layer": "relu"}
    assert contract.preprocessing.size == (SIZE, SIZE)
    assert contract.preprocessing.mean == (0.5, 0.4, 0.3)
    assert contract.preprocessing.crop_pct == 0.8


def test_timms_average_is_taken_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny()
    average = ModelEmaV3(model, decay=0.5)
    trained(model)
    save_as_timm(model, tmp_path, args_of_timm(), model_ema=average)
    contract = fetched("last.pth.tar", labels="labels.txt")
    timms = timm.create_model(TINY, num_classes=3, img_size=SIZE)
    timm.models.load_checkpoint(timms, "last.pth.tar")
    assert answers_as(timms, contract)
    assert contract.checkpoint.weights == "state_dict_ema"
    assert "averaged weights of state_dict_ema are taken, not" in capsys.readouterr().out
    contract = fetched("last.pth.tar", labels="labels.txt", weights="state_dict")
    assert answers_as(model, contract)
    assert contract.checkpoint.weights == "state_dict"
    with pytest.raises(ParamsError, match=r"no fitting weights 'raw', but state_dict, state_dict"):
        fetched("last.pth.tar", labels="labels.txt", weights="raw")


def test_an_argument_of_timms_script_that_is_not_supported_is_named(tmp_path: Path) -> None:
    save_as_timm(tiny(), tmp_path, args_of_timm(model_kwargs={"block_fn": "x"}))
    with pytest.raises(InputError, match=r"args has block_fn, which may change the network"):
        fetched("last.pth.tar", labels="labels.txt")


def compiled(model: nn.Module) -> dict[str, Any]:
    return dict(torch.compile(model, backend="eager").state_dict())


def parallel(model: nn.Module) -> dict[str, Any]:
    return dict(nn.DataParallel(model).state_dict())


def both(model: nn.Module) -> dict[str, Any]:
    return dict(torch.compile(nn.DataParallel(model), backend="eager").state_dict())


def recomputed(model: Any) -> dict[str, Any]:
    """With a block inside the module that activation checkpointing puts around it."""
    wrapper = nn.Module()
    wrapper._checkpoint_wrapped_module = model.blocks[0]
    copy_ = copy.copy(model)
    copy_._modules = {**model._modules, "blocks": nn.Sequential(wrapper, *model.blocks[1:])}
    return dict(copy_.state_dict())


def sharded(model: nn.Module) -> dict[str, Any]:
    """As FullyShardedDataParallel names the modules of a network whose blocks it wraps, too."""
    inner = {f"_fsdp_wrapped_module.{key}": value for key, value in model.state_dict().items()}
    return {
        key.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): value
        for key, value in inner.items()
    }


def averaged(model: nn.Module) -> dict[str, Any]:
    return dict(torch.optim.swa_utils.AveragedModel(model).state_dict())


class Lit(nn.Module):
    """A Lightning module: the network is an attribute, beside a loss with a buffer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(3))


def lightning(model: nn.Module) -> dict[str, Any]:
    return dict(Lit(model).state_dict())


@pytest.mark.parametrize(
    "wrap", [compiled, parallel, both, recomputed, sharded, averaged, lightning]
)
def test_what_wraps_a_network_is_taken_off_its_keys(
    wrap: Callable[[nn.Module], dict[str, Any]],
) -> None:
    model = tiny()
    torch.save({"state_dict": wrap(model)}, "own.pth")
    assert answers_as(model, own("own.pth"))


def test_what_was_taken_off_and_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(lightning(tiny()), "own.pth")
    own("own.pth")
    said = capsys.readouterr().out
    assert "fetch: model. is taken off the front of its keys" in said
    assert "fetch: 1 tensors beside the network are left out: criterion.weight" in said


def test_a_lightning_checkpoint_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class AttributeDict(dict[str, Any]):
        pass

    name = "lightning.fabric.utilities.data"
    AttributeDict.__module__, AttributeDict.__qualname__ = name, "AttributeDict"
    for end in range(1, 5):
        module = types.ModuleType(".".join(name.split(".")[:end]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    module.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    model = tiny()
    content = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": Lit(model).state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [torch.optim.SGD(model.parameters(), 0.1).state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(model_name=TINY, lr=0.1),
    }
    torch.save(content, "epoch=3-step=120.ckpt")
    contract = fetched("epoch=3-step=120.ckpt", labels="labels.txt")
    assert contract.checkpoint.architecture == TINY
    assert contract.name == "epoch-3-step-120"
    assert answers_as(model, contract)


@pytest.mark.parametrize(
    ("places", "ask"),
    [
        (("student", "teacher"), "student, teacher"),
        (("model", "ema"), "model, ema"),
    ],
)
def test_of_several_weights_the_one_to_take_is_asked_for(places: tuple[str, str], ask: str) -> None:
    models = [tiny(), trained(tiny())]
    states = [state_of(model) for model in models]
    content = dict(zip(places, states, strict=True)) | {"dino_loss": {"center": torch.ones(1, 3)}}
    torch.save(content, "own.pth")
    with pytest.raises(ParamsError, match=rf"model\.weights is missing: .*that fit, {ask};"):
        own("own.pth")
    for place, model in zip(places, models, strict=True):
        contract = own("own.pth", weights=place)
        assert answers_as(model, contract)
        assert contract.checkpoint.weights == place


def test_weights_in_one_state_dict_are_told_apart_by_their_prefix() -> None:
    models = {"student": tiny(), "teacher": trained(tiny())}
    torch.save({"state_dict": nn.ModuleDict(models).state_dict()}, "own.pth")
    with pytest.raises(ParamsError, match=r"state_dict\.student, state_dict\.teacher; set it"):
        own("own.pth")
    assert answers_as(models["teacher"], own("own.pth", weights="state_dict.teacher"))


@pytest.mark.parametrize("place", ["model_ema", "ema", "teacher"])
def test_weights_under_another_name_are_found(place: str) -> None:
    model = tiny()
    torch.save({place: state_of(model), "epoch": 3}, "own.pth")
    contract = own("own.pth")
    assert answers_as(model, contract)
    assert contract.checkpoint.weights is None


def test_keys_that_do_not_fit_are_shown_beside_the_models() -> None:
    torch.save({f"layer{i}.weight": torch.ones(3, 3) for i in range(9)}, "own.pth")
    words = r"keys are as layer0\.weight, .* and 6 more, the model's as cls_token, .*\(0 of \d+ are"
    with pytest.raises(InputError, match=words):
        own("own.pth")


# Keys that timm itself renames or leaves out


def test_the_names_of_published_deit_iii_are_read() -> None:
    model = trained(
        timm.create_model("deit3_small_patch16_224", num_classes=3, img_size=32, depth=2)
    )
    names = {".ls1.gamma": ".gamma_1", ".ls2.gamma": ".gamma_2"}
    state = state_of(model)
    for timms, published in names.items():
        state = {key.replace(timms, published): value for key, value in state.items()}
    assert any("gamma_1" in key for key in state)
    torch.save({"model": state}, "own.pth")
    contract = own("own.pth", architecture="deit3_small_patch16_224", kwargs={"depth": 2})
    assert contract.preprocessing.size == (32, 32)
    assert answers_as(model, contract)


def test_swins_buffers_are_left_out() -> None:
    name = "swin_tiny_patch4_window7_224"
    model = trained(timm.create_model(name, num_classes=3))
    buffers = {key: value for key, value in model.named_buffers() if value is not None}
    assert any(key.endswith("relative_position_index") for key in buffers)
    assert any(key.endswith("attn_mask") for key in buffers)
    torch.save({"model": state_of(model) | buffers}, "own.pth")
    assert answers_as(model, own("own.pth", architecture=name))


# The image size


@pytest.mark.parametrize("size", [32, 96])
def test_the_image_size_is_what_the_position_embeddings_are_for(
    size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(timm.create_model(TINY, num_classes=3, img_size=size))
    save_file(state_of(model), "own.safetensors")
    contract = own("own.safetensors")
    assert contract.preprocessing.size == (size, size)
    assert answers_as(model, contract)
    assert f"the image size is {size} x {size} pixels" in capsys.readouterr().out


def test_weights_that_are_fitted_to_another_size_are_said_to_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny()
    save_file(state_of(model), "own.safetensors")
    contract = own("own.safetensors", image_size=96)
    timms = timm.create_model(TINY, num_classes=3, img_size=96)
    filter_ = timm.models.vision_transformer.checkpoint_filter_fn
    timms.load_state_dict(filter_(state_of(model), timms))
    assert answers_as(timms, contract)
    words = "trained at 64 x 64 pixels (height x width) and are fitted to 96 x 96 pixels"
    assert words in capsys.readouterr().out


def test_a_grid_that_is_no_square_needs_its_size() -> None:
    model = trained(timm.create_model(TINY, num_classes=3, img_size=(32, 96)))
    save_file(state_of(model), "own.safetensors")
    with pytest.raises(InputError, match=r"12 patches, which are no square; set model\.kwargs"):
        own("own.safetensors")
    contract = own("own.safetensors", kwargs={"img_size": [32, 96]})
    assert contract.preprocessing.size == (32, 96)
    assert answers_as(model, contract)


def one_logit() -> nn.Module:
    model = trained(timm.create_model(TINY, num_classes=1, img_size=SIZE))
    save_file(state_of(model), "own.safetensors")
    return model


def test_a_softmax_over_one_class_is_refused_with_the_way_out() -> None:
    one_logit()
    for model in ({}, {"activation": "softmax"}):
        with pytest.raises(InputError, match=r"always says 100%; .*set model.activation: sigmoid"):
            own("own.safetensors", **model)


def test_one_sigmoid_logit_is_the_owners_and_says_yes_above_the_threshold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = one_logit()
    Path("labels.txt").write_text("intact\nbroken\n")
    contract = own("own.safetensors", activation="sigmoid", threshold=0.7)
    assert (contract.labels, contract.outputs) == (("intact", "broken"), 1)
    assert (contract.activation, contract.threshold) == ("sigmoid", 0.7)
    assert answers_as(model, contract)
    assert "a probability above 0.7 means 'broken', any other 'intact'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "labels", "model", "words"),
    [
        (3, "cat\ndog\ncow", {"activation": "sigmoid"}, "has 3 outputs and a sigmoid of each"),
        (1, "cat\ndog\ncow", {"activation": "sigmoid"}, "needs two labels, the one for no first"),
        (3, "cat\ndog\ncow", {"threshold": 0.3}, r"model\.threshold is 0\.3, which is of one sig"),
    ],
)
def test_a_head_that_cannot_be_read_is_refused(
    classes: int, labels: str, model: dict[str, Any], words: str
) -> None:
    network = timm.create_model(TINY, num_classes=classes, img_size=SIZE)
    save_file(state_of(network), "own.safetensors")
    Path("labels.txt").write_text(labels)
    with pytest.raises((InputError, ParamsError), match=words):
        own("own.safetensors", **model)


@pytest.mark.parametrize("own", [{"kwargs": {"depth": 3}}, {"weights": "model"}])
def test_parameters_for_own_files_do_not_pass_for_the_zoos(own: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=rf"model\.{next(iter(own))} is for a checkpoint of your"):
        fetched("deit_tiny_patch16_224.fashion_mnist", sha256=None, **own)


def test_kwargs_are_checked_by_name_and_range() -> None:
    for wrong in ({"pretrained": True}, {"depth": 10**9}, {"in_chans": 4}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Model(checkpoint="own.pth", kwargs=wrong)
