"""Contracts made by hand."""

from __future__ import annotations

from typing import Any

from pipeline.contract.contract import Artefact, Checkpoint, Contract, Preprocessing


def preprocessing(**changes: Any) -> Preprocessing:
    usual = {
        "size": (224, 224),
        "resize": 248,
        "crop_pct": 0.9,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    return Preprocessing(**usual | changes)


def checkpoint(**changes: Any) -> Checkpoint:
    usual = {
        "name": "m",
        "architecture": "deit_tiny_patch16_224",
        "source": "m.safetensors",
        "source_sha256": "a" * 64,
        "sha256": "b" * 64,
        "license": "MIT",
    }
    return Checkpoint(**usual | changes)


def contract(**changes: Any) -> Contract:
    usual = {
        "name": "m",
        "version": "1.2.0",
        "preprocessing": preprocessing(),
        "labels": ("cat", "dog", "bird"),
        "checkpoint": checkpoint(),
    }
    return Contract(**usual | changes)


def artefact(file_format: str = "ptl", **changes: Any) -> Artefact:
    usual = {
        "format": file_format,
        "quantization": "dynamic int8, per_channel weights",
        "keep_float": (),
        "engine": "qnnpack",
        "oldest_runtime": "PyTorch Lite 1.13.1",
        "operators": ("aten::add", "aten::softmax"),
    }
    return Artefact(**usual | changes)
