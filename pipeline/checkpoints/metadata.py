"""What is known about a checkpoint besides its weights: architecture, labels, preprocessing.

It comes from params.yaml, from the zoo, from ``config.json`` on the hub and from the metadata that
`finetune` writes into safetensors files. The latter two are read and checked here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import ValidationError

from pipeline.checkpoints.labels import ordered
from pipeline.checkpoints.zoo import DataConfig
from pipeline.contract.contract import Activation
from pipeline.errors import InputError, shown
from pipeline.files import parse_json
from pipeline.images.imagenet import imagenet_labels
from pipeline.network_args import NetworkArgs, read_network_args

IMAGENET_CLASSES = 1000
METADATA_KEY = "edge_vit"  # of a safetensors file: one key, since several have no fixed order


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What one source says about a checkpoint; None and empty where it does not."""

    architecture: str | None = None
    labels: tuple[str, ...] | None = None
    activation: Activation | None = None
    license: str | None = None
    norm_eps: float | None = None  # of layer normalization, where it is not timm's
    data: Mapping[str, Any] = field(default_factory=dict)  # as `DataConfig.to_timm` returns it
    kwargs: NetworkArgs = field(default_factory=NetworkArgs)  # what the network was made with
    notes: tuple[str, ...] = ()  # what was assumed, for the log

    def merged_with(self, fallback: CheckpointInfo) -> CheckpointInfo:
        """Return this information, with gaps filled from ``fallback``."""
        values = {f.name: getattr(self, f.name) or getattr(fallback, f.name) for f in fields(self)}
        return CheckpointInfo(
            **values
            | {
                "data": {**fallback.data, **self.data},
                "kwargs": self.kwargs.merged_with(fallback.kwargs),
            }
        )


def info_from_metadata(metadata: Mapping[str, str], source: str) -> CheckpointInfo:
    """Read what `finetune` writes into a safetensors file; other keys are ignored.

    The values lie in one JSON object under ``METADATA_KEY``, or each under a key of its own.

    Raises:
        InputError: a value is of the wrong type or out of range.
    """
    metadata = _unfolded(metadata, source)
    values: dict[str, Any] = {}
    for key in (*DataConfig.model_fields, "labels"):
        if key in metadata:
            values[key] = _json_or_text(metadata[key])
    labels = values.pop("labels", None)
    return CheckpointInfo(
        architecture=metadata.get("architecture"),
        labels=_labels(labels, source),
        license=metadata.get("license"),
        data=data_config(values, f"{source}: metadata"),
    )


def _unfolded(metadata: Mapping[str, str], source: str) -> dict[str, str]:
    """Return metadata with the object under ``METADATA_KEY`` spread out, each value as text."""
    try:
        ours = parse_json(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise InputError(f"{source}: its metadata {METADATA_KEY} is not JSON ({error})") from None
    if not isinstance(ours, dict):
        raise InputError(f"{source}: its metadata {METADATA_KEY} is not a JSON object")
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in ours.items()}
    return {**metadata, **texts}


def _json_or_text(text: str) -> Any:
    """Read a metadata value, which is always text: JSON, ``0.5,0.5,0.5`` or a bare word."""
    for form in (text, f"[{text}]"):
        try:
            return parse_json(form)
        except ValueError:
            continue
    return text


def info_from_config(config: Any, source: str) -> CheckpointInfo:
    """Read timm's ``config.json``, as `timm.models.load_model_config_from_hf` does.

    Raises:
        InputError: it is not timm's, or a value is of the wrong type or out of range.
    """
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise InputError(
            f"{source}: its config.json is neither timm's nor transformers'. Look for timm's copy "
            "of the model, e.g. hf:timm/deit_tiny_patch16_224.fb_in1k"
        )
    cfg = config.get("pretrained_cfg") or config
    if not isinstance(cfg, dict):
        raise InputError(f"{source}: pretrained_cfg in its config.json is not a JSON object")
    values = {key: cfg.get(key) for key in DataConfig.model_fields}
    labels = _labels(config.get("label_names") or cfg.get("label_names"), source)
    classes = config.get("num_classes") or cfg.get("num_classes")
    if labels is None and classes == IMAGENET_CLASSES:
        labels = imagenet_labels()  # as timm infers it
    if cfg.get("label_offset"):
        raise InputError(
            f"{source}: its config.json has label_offset, a head with classes that have no labels; "
            "save the model again with timm's save_for_hf"
        )
    return CheckpointInfo(
        architecture=config["architecture"],
        labels=labels,
        license=_text(cfg.get("license"), f"{source}: license in its config.json"),
        data=data_config(values, f"{source}: config.json"),
        kwargs=read_network_args(
            config.get("model_args") or {}, f"{source}: model_args in its config.json"
        ),
    )


def _text(value: Any, source: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{source} is not text")
    return value


def _labels(labels: Any, source: str) -> tuple[str, ...] | None:
    return None if labels is None else ordered(labels, source)


def data_config(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return what timm needs of a checkpoint's preprocessing, checked.

    Raises:
        InputError: a value is none that preprocessing can have.
    """
    try:
        return DataConfig.model_validate(values).to_timm()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{source}: {key} is {shown(repr(first['input']))}: {shown(first['msg'])}"
        ) from None
