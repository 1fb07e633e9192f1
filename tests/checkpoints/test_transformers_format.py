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
from pipeline.checkpoints.transformers_options import IRRELEVANT
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
    prepared = _preprocessing(info, {}, info.data["input_size"][1:], 3, None)
    ramp = np.mgrid[0:300, 0:400].sum(0)[..., None] * (1, 2, 3) // 9
    image = Image.fromarray(ramp.astype(np.uint8))
    own = normalize(geometry(prepared)(image)[None], prepared)
    with quiet():
        theirs = prepare(image, return_tensors="np")["pixel_values"]
    theirs = theirs[:, ::-1] if "Mobile" in kind else theirs
    step = 1 / 255 / min(prepared.std)  # transformers resizes tensors, Pillow images
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
        ({"hidden_act": "relu"}, "hidden_act is 'relu', and timm's vit has 'gelu'"),
        ({"num_channels": 1}, "num_channels is 1"),
        ({"problem_type": "multi_label_classification"}, "several labels an image are not supp"),
        ({"problem_type": "regression"}, "problem_type is 'regression'"),
        ({"new_option": True}, "new_option is not known, and may change the network"),
        ({"auto_map": {"AutoModel": "own.Model"}}, "auto_map is not known"),
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


@pytest.mark.parametrize("names", [{0: "LABEL_0"}, {0: "broken"}])
def test_one_label_of_several_possible_ones_is_a_sigmoid(
    files: tuple[Any, Any], names: dict[int, str]
) -> None:
    """With this problem_type transformers trains binary cross entropy, of one label, too."""
    config, preprocessor = files
    config |= {"problem_type": "multi_label_classification", "id2label": names}
    assert checkpoint_info(config, preprocessor, "it").activation == "sigmoid"
    config["problem_type"] = "single_label_classification"
    assert checkpoint_info(config, preprocessor, "it").activation is None


def test_placeholder_labels_are_no_labels(files: tuple[Any, Any]) -> None:
    config, preprocessor = files
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert checkpoint_info(config, preprocessor, "it").labels is None


# Each key in turn


SMALL = {"ViT": 32, "DeiT": 32, "MobileViT": 64, "MobileViTv2": 64}
OTHER_VALUES: dict[str, Any] = {  # where another value of the type says little
    "hidden_act": "relu",
    "output_stride": 16,
    "problem_type": "multi_label_classification",
    "patch_size": 8,
    "num_attention_heads": 2,
    "hidden_size": 384,
    "pooler_act": "relu",
    "layer_norm_eps": 0.3,
    "dtype": "float32",
    "expand_ratio": 3.0,
    "width_multiplier": 0.75,
    "image_size": 128,
    "output_attentions": False,  # the other attention that it needs is slower, and no other
    "return_dict": True,  # ViT itself fails without
    "mlp_ratio": 1.0,
}
NOT_CHANGED = {"model_type", "architectures", "id2label", "label2id", "transformers_version"}


def small(kind: str, change: dict[str, Any]) -> Any:
    config, classifier, _ = (getattr(transformers, name) for name in CLASSES[kind])
    torch.manual_seed(0)
    options = {**CASES[kind][1], "image_size": SMALL[kind], "id2label": NAMES} | change
    with quiet():
        return classifier(config(**options)).eval()


def other(key: str, value: Any) -> Any:
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    match value:
        case bool():
            return not value
        case float():
            return value + 0.5 if value < 0.5 else value + 1
        case int():
            return value + 2
        case str():
            return f"{value}_"
        case list():
            return [item + 16 for item in value]
    return "something"


def usual_config(kind: str) -> dict[str, Any]:
    config = getattr(transformers, CLASSES[kind][0])(**CASES[kind][1])
    return {key: value for key, value in config.to_dict().items() if key not in NOT_CHANGED}


IRRELEVANT_KEYS = {kind: sorted(IRRELEVANT & usual_config(kind).keys()) for kind in SMALL}
OTHER_KEYS = [
    (kind, key) for kind in SMALL for key in sorted(usual_config(kind).keys() - IRRELEVANT)
]


def logits(model: nn.Module, kind: str, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(images.flip(1) if "Mobile" in kind else images, return_dict=True).logits


def read_as_ours(model: nn.Module, kind: str, folder: Path) -> tuple[nn.Module, torch.Tensor]:
    """Save a classifier, and read it; return ours with images that it takes."""
    config = json.loads(model.config.to_json_string())
    size = config["image_size"]
    preprocessor = {"size": size} if kind in ("ViT", "DeiT") else {"size": size, "crop_size": size}
    info = checkpoint_info(config, preprocessor, "it")
    with quiet():
        model.save_pretrained(folder)
    own = create(str(info.architecture), num_classes=3, image_size=size, norm_eps=info.norm_eps)
    state = to_timm(load_file(folder / "model.safetensors"), config, preprocessor)
    load_weights(own, state, "it")
    return own, torch.randn(2, 3, size, size)


def normal(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.full
@pytest.mark.parametrize("kind", SMALL)
def test_irrelevant_options_change_nothing(kind: str, tmp_path: Path) -> None:
    usual = usual_config(kind)
    changes = {key: other(key, usual[key]) for key in IRRELEVANT_KEYS[kind]}
    changed = normal(small(kind, changes))
    same = small(kind, {})
    same.load_state_dict(changed.state_dict())
    own, images = read_as_ours(changed, kind, tmp_path)
    expected = logits(same, kind, images)
    assert torch.equal(logits(changed, kind, images), expected)
    assert torch.allclose(own(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize(("kind", "key"), OTHER_KEYS)
def test_another_value_of_an_option_is_used_or_refused(kind: str, key: str, tmp_path: Path) -> None:
    """transformers' logits, or a refusal that names the key or weights of another shape."""
    usual = usual_config(kind)[key]
    model = normal(small(kind, {key: other(key, usual)}))
    try:
        own, images = read_as_ours(model, kind, tmp_path)
    except InputError as error:
        shapes = small(kind, {}).state_dict()
        theirs = {name: value.shape for name, value in model.state_dict().items()}
        by_shape = theirs != {name: value.shape for name, value in shapes.items()}
        words = str(error).replace("width, blocks, heads and MLP width", SIZE_KEYS)
        if not (key in words or ("does not fit the model" in words and by_shape)):
            raise
    else:
        assert torch.allclose(own(images), logits(model, kind, images), atol=1e-4, rtol=1e-4)


SIZE_KEYS = "hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, patch_size"
