"""Folders as timm's own `save_for_hf` writes them: timm's logits, or a refusal by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from torch import nn

from pipeline.errors import InputError
from pipeline.images.preprocessing import geometry, normalize
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
        {"in_chans": 1},
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


def test_a_network_for_grey_is_fed_grey() -> None:
    """One channel, with the mean of the colours' means, as timm's loader has it."""
    from timm.data.loader import adapt_to_chs

    saved("test_resnet", in_chans=1)
    cfg = json.loads(Path("hub/config.json").read_text())["pretrained_cfg"]
    change(pretrained_cfg=cfg | {"input_size": [1, 96, 128], "mean": [0.5, 0.4, 0.3]})
    contract = fetched("hub")
    assert contract.input_shape == (1, 1, 96, 128)
    how = contract.preprocessing
    assert how.colour_order == "L"
    assert how.mean == pytest.approx(adapt_to_chs((0.5, 0.4, 0.3), 1))
    change(pretrained_cfg=cfg | {"input_size": [1, 96, 128], "mean": [0.2], "std": [0.1]})
    how = fetched("hub").preprocessing
    assert (how.mean, how.std) == ((0.2,), (0.1,))


@pytest.mark.parametrize("size", [(96, 128), (128, 64)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_images_are_prepared_as_timm_prepares_them(
    size: tuple[int, int], channels: int, crop_mode: str
) -> None:
    model = saved("test_resnet", in_chans=channels)
    cfg = json.loads(Path("hub/config.json").read_text())["pretrained_cfg"]
    told = {"input_size": [channels, *size], "crop_pct": 0.8, "crop_mode": crop_mode}
    change(pretrained_cfg=cfg | told | {"mean": [0.4] * channels, "std": [0.2] * channels})
    contract = fetched("hub")
    how = contract.preprocessing
    assert how.covered == (size[0] * 10 // 8, size[1] * 10 // 8)
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (150, 333, 3), dtype=np.uint8))
    own = normalize(geometry(how)(image)[None], how)
    config = resolve_data_config(told, pretrained_cfg=cfg | {"mean": how.mean, "std": how.std})
    timms = create_transform(**config)(image.convert("L" if channels == 1 else "RGB"))
    assert np.array_equal(own[0], timms.numpy())
    assert answers_as(model, contract)
