"""What is known about a checkpoint besides its weights, and who says so.

The zoo and params.yaml say it in our words; timm's ``config.json`` on the hub and the metadata that
`finetune` writes into safetensors files are read here. None of them is believed unchecked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from unicodedata import category

from pydantic import ValidationError

from pipeline.checkpoints.zoo import IMAGENET, DataConfig
from pipeline.errors import InputError, ParamsError, shown
from pipeline.files import parse_json, read_bytes
from pipeline.images.imagenet import imagenet_labels

IMAGENET_CLASSES = 1000
MAX_LABELS_BYTES = 16 << 20
MAX_LABEL = 500  # characters
UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # Unicode's: control, half of a pair, line, paragraph
METADATA_KEY = "edge_vit"  # of a safetensors file: one key, since several have no fixed order


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What somebody says about a checkpoint; None and empty where they do not."""

    architecture: str | None = None
    labels: tuple[str, ...] | None = None
    license: str | None = None
    norm_eps: float | None = None  # of layer normalization, where it is not timm's
    data: Mapping[str, Any] = field(default_factory=dict)  # as `DataConfig.given` returns it

    def over(self, other: Facts) -> Facts:
        """Return these facts, with gaps filled from ``other``."""
        values = {f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)}
        return Facts(**values | {"data": {**other.data, **self.data}})


def read_labels(path: Path) -> tuple[str, ...]:
    if str(path) == IMAGENET:
        return imagenet_labels()
    if not path.exists():
        raise ParamsError(f"params.yaml: model.labels: {path} is missing")
    try:
        lines = read_bytes(path, MAX_LABELS_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}); one class name a line") from None
    while lines and not lines[-1].strip():
        lines.pop()
    labels = tuple(line.strip() for line in lines)
    _check_labels(labels, str(path))
    return labels


def _check_labels(labels: tuple[str, ...], source: str) -> None:
    check_names(labels or ("",), source)
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise InputError(
            f"{source}: {twice[0]!r} is there twice; each class needs a name of its own"
        )


def check_names(labels: tuple[str, ...], source: str) -> None:
    """Hold class names to one line of text each, which apps can show.

    Raises:
        InputError: one holds a control character or half a character, or is a whole text.
    """
    for label in labels:
        if not label.strip():
            raise InputError(f"{source}: a class name is empty; each class needs a name")
        if len(label) > MAX_LABEL or any(category(c) in UNSEEN for c in label):
            raise InputError(
                f"{source}: the class name {shown(label)} is no line of text of at most "
                f"{MAX_LABEL} characters"
            )


def facts_of_metadata(metadata: Mapping[str, str], source: str) -> Facts:
    """Read what `finetune` writes into a safetensors file; anybody else's keys are left alone.

    The facts lie as one JSON object under ``METADATA_KEY``, or each under a key of its own.
    """
    metadata = _unfolded(metadata, source)
    values: dict[str, Any] = {}
    for key in (*DataConfig.model_fields, "labels"):
        if key in metadata:
            values[key] = _json_or_text(metadata[key])
    labels = values.pop("labels", None)
    return Facts(
        architecture=metadata.get("architecture"),
        labels=label_tuple(labels, source),
        license=metadata.get("license"),
        data=_data_config(values, f"{source}: metadata"),
    )


def _unfolded(metadata: Mapping[str, str], source: str) -> dict[str, str]:
    """Return metadata with the object under ``METADATA_KEY`` spread out, each value as text."""
    try:
        own = parse_json(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise InputError(f"{source}: its metadata {METADATA_KEY} is not JSON ({error})") from None
    if not isinstance(own, dict):
        raise InputError(f"{source}: its metadata {METADATA_KEY} is no JSON object")
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in own.items()}
    return {**metadata, **texts}


def _json_or_text(text: str) -> Any:
    """Read a metadata value, which is always text: JSON, ``0.5,0.5,0.5`` or a bare word."""
    for form in (text, f"[{text}]"):
        try:
            return parse_json(form)
        except ValueError:
            continue
    return text


def facts_of_config(config: Any, source: str) -> Facts:
    """Read timm's ``config.json``, as `timm.models.load_model_config_from_hf` does."""
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise InputError(
            f"{source}: its config.json is neither timm's nor transformers'. Look for timm's copy "
            "of the model, e.g. hf:timm/deit_tiny_patch16_224.fb_in1k"
        )
    cfg = config.get("pretrained_cfg") or config
    if not isinstance(cfg, dict):
        raise InputError(f"{source}: pretrained_cfg in its config.json is no JSON object")
    values = {key: cfg.get(key) for key in DataConfig.model_fields}
    labels = label_tuple(config.get("label_names") or cfg.get("label_names"), source)
    classes = config.get("num_classes") or cfg.get("num_classes")
    if labels is None and classes == IMAGENET_CLASSES:
        labels = imagenet_labels()  # as timm infers it
    return Facts(
        architecture=config["architecture"],
        labels=labels,
        license=_text(cfg.get("license"), f"{source}: license in its config.json"),
        data=_data_config(values, f"{source}: config.json"),
    )


def _text(value: Any, source: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{source} is no text")
    return value


def label_tuple(labels: Any, source: str) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{source}: its labels are no list of names")
    _check_labels(tuple(labels), source)
    return tuple(labels)


def _data_config(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    try:
        return DataConfig.model_validate(values).given()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{source}: {key} is {shown(repr(first['input']))}: {shown(first['msg'])}"
        ) from None
