"""Hostile files beside weights, and things that are not files: each is refused with one message."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save

from tests.untrusted.sandbox import Attack, Outcome, assert_refused, attack_all, usual_state

pytestmark = pytest.mark.full

FOLDER = {"checkpoint": "it", "architecture": None, "labels": None}
OF_TIMM = {"architecture": "test_vit", "label_names": ["cat", "dog", "cow"]}
OF_TRANSFORMERS = {
    "model_type": "vit",
    "hidden_size": 192,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "id2label": {"0": "cat", "1": "dog", "2": "cow"},
}
PREPARED = {"size": {"height": 224, "width": 224}}
DEEP = 100_000
INF, NAN = float("inf"), float("nan")
ROWS = b"".join(b"%d,name %d\n" % (n, n) for n in range(100_000))


def folder_of(config: bytes, preprocessor: bytes = b"{}") -> Attack:
    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "it").mkdir()
        (folder / "it" / "config.json").write_bytes(config)
        (folder / "it" / "preprocessor_config.json").write_bytes(preprocessor)
        (folder / "it" / "model.safetensors").write_bytes(save(usual_state()))
        return FOLDER

    return write


def timm(**changes: Any) -> Attack:
    return folder_of(json.dumps(OF_TIMM | changes).encode())


def theirs(**changes: Any) -> Attack:
    """transformers' ``config.json``."""
    config, preprocessor = OF_TRANSFORMERS | changes, PREPARED
    return folder_of(json.dumps(config).encode(), json.dumps(preprocessor).encode())


def mobile(**changes: Any) -> Attack:
    """transformers' ``config.json`` of a network that is mostly convolution."""
    config = {"model_type": "mobilevitv2", "id2label": OF_TRANSFORMERS["id2label"]} | changes
    return folder_of(json.dumps(config).encode(), json.dumps(PREPARED).encode())


def prepared(**changes: Any) -> Attack:
    texts = (json.dumps(values).encode() for values in (OF_TRANSFORMERS, PREPARED | changes))
    return folder_of(*texts)


def labels(content: bytes, name: str = "labels.txt") -> Attack:
    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "it.safetensors").write_bytes(save(usual_state()))
        (folder / name).write_bytes(content)
        return {"labels": name}

    return write


def giant(name: str) -> Attack:
    """A file of a terabyte that takes no room on the disk."""

    def write(folder: Path) -> Mapping[str, Any]:
        model = dict(timm()(folder) or {})
        os.truncate(folder / "it" / name, 1 << 40)
        return model

    return write


def instead(name: str, make: Any, **model: Any) -> Attack:
    """Something else in the place of a file."""

    def write(folder: Path) -> Mapping[str, Any]:
        known = dict(timm()(folder) or {})
        path = folder / name
        path.unlink(missing_ok=True)
        make(path)
        return known | model

    return write


def to(target: str) -> Any:
    return lambda path: path.symlink_to(target)


def hidden(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0)


FILE = {"checkpoint": "file.pth"}
HASH = {"sha256": "0" * 64}
LABELS = {"labels": "names.txt"}
NEITHER = "neither a file nor in the zoo"
ROOT = os.geteuid() == 0

ATTACKS: dict[str, tuple[str, Attack]] = {
    "deep": ("config.json is not JSON", folder_of(b"[" * DEEP + b"]" * DEEP)),
    "deep objects": ("config.json is not JSON", folder_of(b'{"a":' * DEEP + b"1" + b"}" * DEEP)),
    "deep, of the preprocessor": (
        "preprocessor_config.json is not JSON",
        folder_of(json.dumps(OF_TRANSFORMERS).encode(), b"[" * DEEP),
    ),
    "number of many digits": (
        "config.json is not JSON",
        folder_of(b'{"architecture": "test_vit", "num_classes": ' + b"9" * 100_000 + b"}"),
    ),
    "giant number": (
        "config.json is larger than",
        folder_of(b'{"architecture": "test_vit", "num_classes": ' + b"9" * 20_000_000 + b"}"),
    ),
    "many lists": ("config.json is larger than", folder_of(b"[" + b"[]," * 20_000_000 + b"[]]")),
    "no text": ("config.json is not JSON", folder_of(os.urandom(5000))),
    "empty": ("config.json is not JSON", folder_of(b"")),
    "a list": ("neither timm's nor", folder_of(b"[1]")),
    "text": ("neither timm's nor", folder_of(b'"x"')),
    "timm: architecture": ("neither timm's nor", timm(architecture=["test_vit"])),
    "timm: architecture of the hub": ("timm knows no", timm(architecture="hf-hub:a/b")),
    "timm: path for an architecture": ("timm knows no", timm(architecture="local-dir:/etc")),
    "timm: configuration": ("pretrained_cfg", timm(pretrained_cfg=[1])),
    "timm: arguments": ("model_args", timm(model_args=[1])),
    "timm: weights from elsewhere": (
        "has pretrained_cfg_overlay",
        timm(model_args={"pretrained_cfg_overlay": {"url": "http://x"}, "depth": 1}),
    ),
    "timm: a file for weights": ("has checkpoint_path", timm(model_args={"checkpoint_path": "/x"})),
    "timm: argument without end": ("reg_tokens is", timm(model_args={"reg_tokens": 10**4000})),
    "timm: argument of no number": ("mlp_ratio is", timm(model_args={"mlp_ratio": NAN})),
    "timm: argument of words": ("act_layer is", timm(model_args={"act_layer": "\x1b[2J\n" * 999})),
    "timm: arguments that do not go together": (
        "cannot be made",
        timm(model_args={"embed_dim": 63, "num_heads": 64}),
    ),
    "timm: licence": ("license", timm(license={"a": 1})),
    "timm: size": ("input_size", timm(input_size=[3, 10**9, 10**9])),
    "timm: no size": ("input_size", timm(input_size=[3, -1, -1])),
    "timm: size without end": ("input_size", timm(input_size=[3, INF, INF])),
    "timm: crop": ("crop_pct", timm(crop_pct=NAN)),
    "timm: tiny crop": ("crop_pct|pixels", timm(crop_pct=1e-12)),
    "timm: mean": ("mean", timm(mean=[NAN, 0, 0])),
    "timm: deviation": ("std", timm(std=[0, 0, 0])),
    "timm: endless deviation": ("std", timm(std=[INF, 1, 1])),
    "timm: filter": ("interpolation", timm(interpolation="\x1b[2J\n" * 2000)),
    "timm: labels": ("labels do not have the numbers", timm(label_names={"a": 1})),
    "timm: other labels": ("3 classes, but 2 labels", timm(label_names=["a", "b"])),
    "timm: labels of lines": ("class name", timm(label_names=["a\nb", "c", "d"])),
    "timm: one label twice": (
        "two classes are called",
        timm(label_names=["a" * 400, "a" * 400, "d"]),
    ),
    "timm: classes": ("3 classes, but", timm(label_names=None, num_classes=10**9)),
    "timm: larger model": ("does not fit", timm(architecture="vit_gigantic_patch14_224")),
    "transformers: kind": ("config.json is of a", theirs(model_type=["vit"] * 9999)),
    "transformers: kind without end": (
        "config.json is of a",
        theirs(model_type="\x1b[2J\n" * 9999),
    ),
    "transformers: class": ("not a classifier", theirs(architectures=["\x1b[2J\n" * 9999])),
    "transformers: activation": ("hidden_act", theirs(hidden_act="\x1b[2J\n" * 9999)),
    "transformers: layers": ("num_hidden_layers is 10000000", theirs(num_hidden_layers=10_000_000)),
    "transformers: no patches": ("patch_size is 0", theirs(patch_size=0)),
    "transformers: negative patches": ("patch_size is -16", theirs(patch_size=-16)),
    "transformers: width": ("hidden_size", theirs(hidden_size=INF)),
    "transformers: long width": ("hidden_size is 1000", theirs(hidden_size=10**4000)),
    "transformers: image": ("image_size", theirs(image_size="x")),
    "transformers: epsilon": ("layer_norm_eps", theirs(layer_norm_eps=NAN)),
    "transformers: endless epsilon": ("layer_norm_eps", theirs(layer_norm_eps=INF)),
    "transformers: options in options": (
        "output_stride is",
        mobile(output_stride={"a": [{"b": 1}] * 9999}),
    ),
    "transformers: many keys": ("is not known", theirs(**{f"a{n}": n for n in range(9999)})),
    "transformers: key that controls a terminal": (
        "is not known",
        theirs(**{"\x1b[2J\n" * 9999: 1}),
    ),
    "transformers: code from elsewhere": (
        "auto_map is not known",
        theirs(auto_map={"AutoModel": "evil.Model"}),
    ),
    "transformers: labels": ("id2label", theirs(id2label=["a", "b", "c"])),
    "transformers: labels that leave some out": (
        "id2label",
        theirs(id2label={"0": "a", "1": "b", "7": "c"}),
    ),
    "transformers: negative labels": ("id2label", theirs(id2label={"-1": "a", "0": "b", "1": "c"})),
    "transformers: labels' keys": ("id2label", theirs(id2label={"\x1b[2J\n" * 9999: "a"})),
    "transformers: labels of lines": (
        "class name",
        theirs(id2label={"0": "a\nb", "1": "b", "2": "c"}),
    ),
    "transformers: empty labels": ("class name", theirs(id2label={"0": "", "1": "b", "2": "c"})),
    "transformers: endless multiplier": ("width_multiplier", mobile(width_multiplier=INF)),
    "transformers: no multiplier": ("width_multiplier", mobile(width_multiplier=NAN)),
    "transformers: giant multiplier": ("width_multiplier", mobile(width_multiplier=1e308)),
    "transformers: many sizes": (
        "hidden_sizes",
        mobile(model_type="mobilevit", hidden_sizes=[64] * 99_999),
    ),
    "prepared: size": ("size", prepared(size={"height": 10**9, "width": 10**9})),
    "prepared: size 0": ("size", prepared(size={"height": 0, "width": 0})),
    "prepared: no size": ("size", prepared(size={})),
    "prepared: negative size": ("size", prepared(size=-224)),
    "prepared: endless size": ("size", prepared(size=INF)),
    "prepared: crop": ("size", prepared(do_center_crop=True, crop_size=0, size=10**9)),
    "prepared: negative crop": ("size", prepared(do_center_crop=True, crop_size=-1)),
    "prepared: tiny crop": ("size", prepared(do_center_crop=True, crop_size=1, size=10**9)),
    "prepared: factor": ("rescale_factor", prepared(rescale_factor=NAN)),
    "prepared: filter": ("filter", prepared(resample=10**4000)),
    "prepared: mean": ("image_mean", prepared(image_mean=[NAN, 0, 0])),
    "prepared: deviation": ("image_std", prepared(image_std=[0, 0, 0])),
    "prepared: negative deviation": ("image_std", prepared(image_std=[-1, 1, 1])),
    "prepared: many deviations": ("image_std", prepared(image_std=[1] * 99_999)),
    "prepared: a list": (
        "preprocessor_config.json",
        folder_of(json.dumps(OF_TRANSFORMERS).encode(), b"[1]"),
    ),
    "labels: noise": ("not UTF-8", labels(b"\xff\xff" + os.urandom(5000))),
    "labels: half of a pair": ("not UTF-16", labels(b"\xff\xfe\x00\xd8a\x00")),
    "labels: a cell without end": (
        "is not a table",
        labels(b'0,"' + b"a" * 10_000_000 + b'"\n', "names.csv"),
    ),
    "labels: many columns": ("columns has the names", labels(b"a," * 500_000, "names.csv")),
    "labels: many rows": ("3 classes, but 100000", labels(ROWS, "names.csv")),
    "labels: deep": ("not JSON", labels(b"[" * DEEP, "names.json")),
    "labels: numbers without end": (
        "is not JSON|do not have the numbers",
        labels(b'{"cat": ' + b"9" * 4000 + b"}", "names.json"),
    ),
    "labels: key of many digits": (
        "its labels are not",
        labels(b'{"' + b"9" * 9000 + b'": "cat"}', "names.json"),
    ),
    "labels: a program": (
        "class name|not UTF-8|labels",
        labels(b"\x7fELF\x02\x01\x01" + bytes(500)),
    ),
    "labels: giant": ("larger than", labels(b"a\n" * 20_000_000)),
    "labels: one giant name": ("class name", labels(b"a" * 10_000_000)),
    "labels: too many": (
        "3 classes, but 100000",
        labels(b"".join(b"%d\n" % n for n in range(100_000))),
    ),
    "labels: too few": ("3 classes, but 1 labels", labels(b"cat\n")),
    "labels: twice": ("two classes are called", labels(b"cat\ndog\ncat\n")),
    "labels: empty lines": ("a class name is empty", labels(b"cat\n\n\ndog\n")),
    "labels: nothing": ("a class name is empty", labels(b"")),
    "labels: control": ("class name", labels(b"cat\n\x1b[2J\ncow\n")),
    "giant config": ("config.json is larger than", giant("config.json")),
    "giant weights": ("model.safetensors has 1099511627776 bytes", giant("model.safetensors")),
    "pipe for weights": (NEITHER, instead("file.pth", os.mkfifo, **FILE, **HASH)),
    "endless device for weights": (NEITHER, instead("file.pth", to("/dev/zero"), **FILE, **HASH)),
    "link to itself for weights": (NEITHER, instead("file.pth", to("file.pth"), **FILE, **HASH)),
    "folder for weights": ("is a folder without", instead("file.pth", os.mkdir, **FILE, **HASH)),
    "pipe for config": ("is a folder without", instead("it/config.json", os.mkfifo)),
    "pipe for weights in a folder": ("has neither", instead("it/model.safetensors", os.mkfifo)),
    "device for weights in a folder": (
        "has neither",
        instead("it/model.safetensors", to("/dev/zero")),
    ),
    "pipe for labels": (
        "names.txt is a folder, a device or a pipe",
        instead("names.txt", os.mkfifo, **LABELS),
    ),
    "device for labels": (
        "names.txt is a folder, a device",
        instead("names.txt", to("/dev/zero"), **LABELS),
    ),
    "folder for labels": ("names.txt is a folder", instead("names.txt", os.mkdir, **LABELS)),
    "link to itself for labels": ("names.txt", instead("names.txt", to("names.txt"), **LABELS)),
    "no labels": ("names.txt is missing", instead("names.txt", lambda path: None, **LABELS)),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    attacks = {name: attack for name, (_, attack) in ATTACKS.items()}
    attacks |= {"none": timm(), "valid, of other weights": theirs()}
    attacks |= {"hidden": instead("names.txt", hidden, **LABELS)}
    return attack_all(tmp_path_factory.mktemp("config"), attacks)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused(name: str, outcomes: dict[str, Outcome]) -> None:
    assert_refused(outcomes[name], ATTACKS[name][0])


@pytest.mark.skipif(ROOT, reason="root may read everything")
def test_what_may_not_be_read_is_named(outcomes: dict[str, Outcome]) -> None:
    assert_refused(outcomes["hidden"], r"Permission denied.*names\.txt")


def test_what_is_harmless_is_taken_within_the_same_limits(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["none"].status == 0, outcomes["none"]
    assert outcomes["none"].left == ["out"]
    assert_refused(outcomes["valid, of other weights"], "does not fit the model")
