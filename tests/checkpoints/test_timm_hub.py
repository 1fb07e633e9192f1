"""Folders as timm's own `save_for_hf` writes them: timm's logits, or a refusal by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
from timm.models import save_for_hf
from torch import nn

from pipeline.errors import InputError
from tests.checkpoints.fetching import answers_as, fetched, trained

TINY = "test_vit"  # 0.4 million weights, 160 px


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def saved(architecture: str = TINY, **kwargs: Any) -> nn.Module:
    """Write folder ``hub``, as timm does."""
    model = trained(timm.create_model(architecture, num_classes=3, **kwargs))
    save_for_hf(model, "hub", model_config={"label_names": ["a", "b", "c"]}, model_args=kwargs)
    return model


def change(**values: Any) -> None:
    path = Path("hub/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"act_layer": "relu"},
        {"norm_layer": "rmsnorm"},
        {"num_heads": 4},
        {"qkv_bias": False},
        {"qk_norm": True},
        {"init_values": 0.5},
        {"reg_tokens": 2},
        {"class_token": False, "global_pool": "avg", "reg_tokens": 1},
        {"global_pool": "avg", "fc_norm": False},
        {"global_pool": "avgmax"},
        {"global_pool": "max"},
        {"global_pool": "map"},
        {"no_embed_class": True},
        {"pos_embed": "none"},
        {"pre_norm": True},
        {"depth": 3, "embed_dim": 96, "mlp_ratio": 2.0},
        {"img_size": [32, 96]},
        {"patch_size": 8},
        {"drop_path_rate": 0.1, "proj_drop_rate": 0.1},
    ],
    ids=str,
)
def test_the_network_is_made_with_its_arguments(kwargs: dict[str, Any]) -> None:
    model = saved(**{"img_size": 64} | kwargs)
    contract = fetched("hub")
    assert answers_as(model, contract)
    height, width = kwargs.get("img_size", (64, 64))
    assert contract.preprocessing.size == (height, width)
    training = {"drop_path_rate", "proj_drop_rate", "img_size"}
    written = {"global_pool": "token"} | kwargs  # timm's writer adds the first
    assert contract.checkpoint.kwargs == {k: v for k, v in written.items() if k not in training}


@pytest.mark.parametrize("name", ["mobilevitv2_050", "test_resnet"])
def test_another_family_is_made_with_its_arguments(name: str) -> None:
    model = saved(name, act_layer="relu") if "resnet" not in name else saved(name, output_stride=16)
    assert answers_as(model, fetched("hub"))


def test_a_convolutional_network_that_was_trained_at_no_square() -> None:
    model = saved("test_resnet")
    cfg = json.loads(Path("hub/config.json").read_text())["pretrained_cfg"]
    change(pretrained_cfg=cfg | {"input_size": [3, 96, 128]})
    contract = fetched("hub")
    assert contract.preprocessing.size == (96, 128)
    assert answers_as(model, contract)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"block_fn": "x"}, "model_args in its config.json has block_fn, which may change"),
        ({"pretrained": True}, "has pretrained"),
        ({"act_layer": "no_such"}, "cannot be made with .* act_layer no_such"),
        ({"window_size": 7}, "cannot be made with .* window_size 7"),
        ({"depth": "deep"}, "depth is 'deep'"),
        ([1], "not a group of arguments"),
    ],
)
def test_an_argument_that_is_not_supported_is_named(args: Any, words: str) -> None:
    saved(img_size=64)
    change(model_args=args)
    with pytest.raises(InputError, match=words):
        fetched("hub")


def test_classes_without_labels_are_refused() -> None:
    saved(img_size=64)
    cfg = json.loads(Path("hub/config.json").read_text())["pretrained_cfg"]
    change(pretrained_cfg=cfg | {"label_offset": 1})
    with pytest.raises(InputError, match="label_offset"):
        fetched("hub")
