"""Contracts and small releases, made by hand."""

from __future__ import annotations

import dataclasses

from pipeline.contract.contract import Artefact, Checkpoint, Contract, Preprocessing


def contract(**changes: object) -> Contract:
    made = Contract(
        name="m",
        version="1.2.0",
        preprocessing=Preprocessing(
            size=(224, 224),
            resize=248,
            crop_pct=0.9,
            crop_mode="center",
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        labels=("cat", "dog", "bird"),
        checkpoint=Checkpoint(
            name="m",
            architecture="deit_tiny_patch16_224",
            source="m.safetensors",
            source_sha256="a" * 64,
            sha256="b" * 64,
            license="MIT",
        ),
    )
    return dataclasses.replace(made, **changes)


def artefact(file_format: str = "ptl", **changes: object) -> Artefact:
    made = Artefact(
        format=file_format,
        quantization="dynamic int8, per_channel weights",
        keep_float=(),
        engine="qnnpack",
        oldest_runtime="PyTorch Lite 1.13.1",
        operators=("aten::add", "aten::softmax"),
    )
    return dataclasses.replace(made, **changes)
