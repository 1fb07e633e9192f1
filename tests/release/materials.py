"""Material of documents from synthetic evidence, to be spoilt by a test."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from pipeline.contract.contract import Artefact, Contract
from pipeline.evidence.seal import seal
from pipeline.formats import FORMATS
from pipeline.params import load_params
from pipeline.release.build import Build
from pipeline.release.documents.material import File, Material
from tests.contract import builders
from tests.verdict.builders import Case, case

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
CODE: dict[str, Any] = {
    "commit": "c" * 40,
    "dirty": False,
    "sha256": "d" * 64,
    "lock_sha256": "e" * 64,
}


def build(**code: Any) -> Build:
    """What ``build.json`` holds, with other facts of the code."""
    environment = {
        "code": CODE | code,
        "packages": {"torch": "2.12.1+cpu", "numpy": "2.4.6", "x": None},
        "python": "3.11.7",
        "machine": {"system": "Linux x86_64", "processor": "a test", "flags": ("avx2",)},
    }
    samples = {"sha256": "a" * 64, "calibration_sha256": "b" * 64}
    checkpoint = {"source": "some_vit.pth", "source_sha256": "5" * 64, "sha256": "6" * 64}
    return Build.model_validate(
        {
            "params": PARAMS,
            "inputs": {"checkpoint": checkpoint, "samples": samples},
            "published_by": environment,
        }
    )


def contract(labels: tuple[str, ...] = ("cat", "dog"), licence: str | None = "MIT") -> Contract:
    return builders.contract(
        name="some_vit",
        version="1.2.3",
        preprocessing=builders.preprocessing(resize=256, crop_pct=0.875),
        labels=labels,
        checkpoint=builders.checkpoint(
            name="some_vit",
            source="some_vit.pth",
            source_sha256="5" * 64,
            sha256=case().files.checkpoint,
            license=licence,
        ),
    )


def about(key: str) -> Artefact:
    return Artefact(
        format=key,
        quantization="none" if key == "onnx" else "dynamic int8, per_channel weights",
        keep_float=(),
        engine=f"the engine of {key}",
        oldest_runtime=f"the oldest of {key}",
        operators=("aten::add", "aten::linear"),
    )


def material(evidence: Case | None = None, **changes: Any) -> Material:
    """Material of a release whose files have the hashes that the evidence names."""
    return dataclasses.replace(_of(evidence) if evidence else usual(), **changes)


@functools.cache
def usual() -> Material:
    return _of(case())


def _of(evidence: Case) -> Material:
    evidence.parity = seal(evidence.parity)
    files = [
        File(
            key=key,
            name=f"some_vit-{key}-1.2.3{FORMATS[key].suffix}",
            sha256=sha256,
            size_bytes=evidence.parity["artefacts"][key]["size_bytes"],
            about=about(key),
        )
        for key, sha256 in evidence.files.artefacts.items()
        if key in evidence.parity["artefacts"]
    ]
    return Material(
        contract=contract(),
        verdict=evidence.decide(),
        evidence=evidence.evidence,
        params=PARAMS.model_copy(update={"gate": evidence.gate}),
        files=tuple(files),
        evidence_sha256={"evidence/parity.json": "1" * 64, "evidence/latency.json": "2" * 64},
        build=build(),
        golden_image="golden/images/00-cat.png",
    )
