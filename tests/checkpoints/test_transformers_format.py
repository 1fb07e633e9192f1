"""Checkpoints of transformers' format, made by transformers itself, against its own answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pipeline.checkpoints.transformers_format import checkpoint_info, is_transformers, to_timm
from pipeline.errors import InputError
from pipeline.images.preprocessing import geometry, normalize
from pipeline.models.build import adapt, create, load_weights
from pipeline.process import quiet

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 192,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "initializer_range": 0.2,  # answers that tell a layer in the wrong place
}
NAMES = {0: "crane", 1: "tench", 2: "crane"}  # ImageNet has two cranes
CASES = {
    "ViT": ("vit_tiny_patch16_224", TINY),
    "DeiT": ("deit_tiny_distilled_patch16_224", TINY),
    "DeiT with teacher": ("deit_tiny_distilled_patch16_224", TINY),
    "MobileViT": (
        "mobilevit_xxs",
        {
            "hidden_sizes": [64, 80, 96],
            "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
            "expand_ratio": 2.0,
            "initializer_range": 0.2,
        },
    ),
    "MobileViTv2": ("mobilevitv2_050", {"width_multiplier": 0.5, "initializer_range": 0.2}),
}
CLASSES = {
    "ViT": ("ViTConfig", "ViTForImageClassification", "ViTImageProcessor"),
    "DeiT": ("DeiTConfig", "DeiTForImageClassification", "DeiTImageProcessor"),
    "DeiT with teacher": (
        *("DeiTConfig", "DeiTForImageClassificationWithTeacher", "DeiTImageProcessor"),
    ),
    "MobileViT": ("MobileViTConfig", "MobileViTForImageClassification", "MobileViTImageProcessor"),
    "MobileViTv2": (
        *("MobileViTV2Config", "MobileViTV2ForImageClassification", "MobileViTImageProcessor"),
    ),
}


def saved(kind: str, folder: Path) -> tuple[nn.Module, Any]:
    """Write a random classifier as transformers does; return it with its preprocessor."""
    torch.manual_seed(0)
    config, classifier, processor = (getattr(transformers, name) for name in CLASSES[kind])
    with quiet():
        model = classifier(config(**CASES[kind][1], id2label=NAMES)).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        options = {"size": {"shortest_edge": 288}} if "Mobile" in kind else {}
        prepare = processor(**options)
        model.save_pretrained(folder)
        prepare.save_pretrained(folder)
    return model, prepare


def read(folder: Path) -> tuple[Any, Any]:
    names = ("config.json", "preprocessor_config.json")
    config, preprocessor = (json.loads((folder / name).read_text()) for name in names)
    return config, preprocessor


@pytest.mark.parametrize("kind", CASES)
def test_a_classifier_answers_as_transformers_answers(kind: str, tmp_path: Path) -> None:
    model, _ = saved(kind, tmp_path)
    config, preprocessor = read(tmp_path)
    assert is_transformers(config)
    info = checkpoint_info(config, preprocessor, "it")
    assert info.architecture == CASES[kind][0]
    assert info.labels == ("crane", "tench", "crane")
    size = info.data["input_size"][1]
    own = create(info.architecture, num_classes=3, image_size=size, norm_eps=info.norm_eps)
    state = to_timm(load_file(tmp_path / "model.safetensors"), config, preprocessor)
    load_weights(own, adapt(state, own), kind)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        # MobileViT's preprocessor hands over BGR; ours is RGB, the first layer is turned.
        expected = model(images.flip(1) if "Mobile" in kind else images).logits
        assert torch.allclose(own(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", CASES)
def test_images_are_prepared_as_transformers_prepares_them(kind: str, tmp_path: Path) -> None:
    from pipeline.stages.fetch import _preprocessing

    _, prepare = saved(kind, tmp_path)
    info = checkpoint_info(*read(tmp_path), "it")
    prepared = _preprocessing(info, {}, info.data["input_size"][1:], None)
    ramp = np.mgrid[0:300, 0:400].sum(0)[..., None] * (1, 2, 3) // 9
    image = Image.fromarray(ramp.astype(np.uint8))
    own = normalize(geometry(prepared)(image)[None], prepared)
    with quiet():
        theirs = prepare(image, return_tensors="np")["pixel_values"]
    theirs = theirs[:, ::-1] if "Mobile" in kind else theirs
    step = 1 / 255 / min(prepared.std)  # transformers resizes tensors, Pillow pictures
    assert own.shape == theirs.shape
    assert np.abs(own - theirs).max() <= 1.01 * step


@pytest.fixture
def files(tmp_path: Path) -> tuple[Any, Any]:
    saved("ViT", tmp_path)
    return read(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "swin"}, "'swin' model"),
        ({"architectures": ["ViTModel"]}, "not a classifier but ViTModel"),
        ({"hidden_size": 200}, r"timm has no vit with .*\(200, 12, 3, 768\)"),
        ({"hidden_act": "relu"}, "timm has no ViT with activation 'relu'"),
        ({"num_channels": 1}, "num_channels is 1"),
    ],
)
def test_a_network_that_timm_has_not_is_refused(
    files: tuple[Any, Any], change: dict[str, Any], words: str
) -> None:
    config, preprocessor = files
    with pytest.raises(InputError, match=words):
        checkpoint_info(config | change, preprocessor, "it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_resize": False}, "does not resize"),
        ({"size": {"shortest_edge": 256}}, "images of several shapes"),
        ({"rescale_factor": 1.0}, "multiplies pixels by 1"),
        ({"resample": 9}, "unknown filter 9"),
        ({"do_center_crop": True, "crop_size": 300}, "cuts 300 pixels out of 224"),
        ({"size": {"height": 224, "width": 192}}, "images of several shapes"),
        ({"image_mean": [0.5]}, "image_mean"),
    ],
)
def test_a_preparation_that_has_no_name_is_refused(
    files: tuple[Any, Any], change: dict[str, Any], words: str
) -> None:
    config, preprocessor = files
    with pytest.raises(InputError, match=words):
        checkpoint_info(config, preprocessor | change, "it")


def test_an_old_preprocessor_with_bare_numbers_is_understood(files: tuple[Any, Any]) -> None:
    config, _ = files
    old = {"do_normalize": True, "do_resize": True, "resample": 2, "size": 224}
    data = checkpoint_info(config, old, "it").data
    assert (data["input_size"], data["crop_mode"], data["crop_pct"]) == (
        *((3, 224, 224), "squash"),
        1.0,
    )


def test_placeholder_labels_are_no_labels(files: tuple[Any, Any]) -> None:
    config, preprocessor = files
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert checkpoint_info(config, preprocessor, "it").labels is None
