"""The checkpoints that must work, one row each: how it is made, named, and run to a verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkpoints.builders import data_set, one_photograph
from benchmarks.checkpoints.sources import (
    Source,
    deit_pth,
    google,
    in_zoo,
    timm_state,
    transformers_folder,
)
from pipeline.errors import InputError
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.model import read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import EVIDENCE_FILE
from pipeline.formats import FORMATS
from pipeline.metrics.timing import median
from pipeline.params import Params, load_params
from pipeline.stages.chain import alone, stages_of
from pipeline.stages.chain import run as run_stages

SAMPLES, MANY = 48, 200
WHOLE, SMALL, FAIR, MEDIUM, LARGE = 10_000, 256, 96, 24, 12  # images at hand
TRAINED = Path("embedded/deit_tiny_patch16_224.fashion_mnist.safetensors")  # timm's vit_tiny, too
MOBILE = Path("embedded/mobilevitv2_050.fashion_mnist.safetensors")
# What static int8 is held to: its ranges are fixed, so it errs more than dynamic int8 does.
STATIC = {"sqnr_min_db": 18.0, "size_ratio_max": 1 / 3}


@dataclass(frozen=True)
class Row:
    """A checkpoint: ``source`` makes it in a folder and says how params.yaml names it."""

    name: str
    how: str  # as the table says it
    source: Source
    images: int = SMALL  # to fit a random body's head to, and to take the samples of
    static: bool = False  # quantization; else dynamic
    convolved: bool = False  # what convolutions have stays in float with that
    samples: int = SAMPLES
    family: bool = False  # of which nothing is known: refused by a sentence is an answer, too
    shipped: bool = False  # with all that params.yaml has for the files, instead of dynamic int8
    slow: bool = True

    @property
    def slug(self) -> str:
        """A name for a file."""
        return re.sub(r"[^a-z0-9.]+", "-", f"{self.name} {self.how}".lower())


@dataclass(frozen=True)
class Measured:
    """One delivered file against float."""

    size_ratio: float
    agreement: float  # of top-1
    sqnr_db: float
    time_ratio: float  # of medians, to float in PyTorch


@dataclass(frozen=True)
class Result:
    """What became of a row."""

    failed: tuple[str, ...]  # criteria; so few images leave others undecided
    float_mb: float
    files: dict[str, Measured]  # by format
    impossible: dict[str, str]  # by format, the sentence that says why there is no file


VIT: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
ROWS = (
    Row("DeiT-Ti", "zoo, embedded", in_zoo("deit_tiny_patch16_224.fashion_mnist"), WHOLE),
    Row(
        "MobileViTv2-0.5",
        "zoo, embedded",
        in_zoo("mobilevitv2_050.fashion_mnist"),
        WHOLE,
        static=True,
    ),
    Row("DeiT-Ti distilled", "address", deit_pth("deit_tiny_distilled_patch16_224"), slow=False),
    Row("DeiT-S", "address", deit_pth("deit_small_patch16_224")),
    Row("DeiT-S distilled", "address", deit_pth("deit_small_distilled_patch16_224")),
    Row("DeiT-B", "address", deit_pth("deit_base_patch16_224"), MEDIUM),
    Row("DeiT-B distilled", "address", deit_pth("deit_base_distilled_patch16_224"), MEDIUM),
    Row("DeiT-B 384", "address", deit_pth("deit_base_patch16_384"), LARGE),
    Row("DeiT-B distilled 384", "address", deit_pth("deit_base_distilled_patch16_384"), LARGE),
    Row("ViT-Ti/16", "Google's .npz", google("vit_tiny_patch16_224", TRAINED)),
    Row("ViT-B/32", "Google's .npz", google("vit_base_patch32_224"), MEDIUM),
    Row("ViT-B/16", "Google's .npz", google("vit_base_patch16_224"), MEDIUM),
    Row(
        "R50+ViT-B/16",
        "Google's .npz",
        google("vit_base_r50_s16_224"),
        MEDIUM,
        convolved=True,
    ),
    Row("ViT-L/32", "Google's .npz", google("vit_large_patch32_224"), LARGE),
    Row("ViT-L/16", "Google's .npz", google("vit_large_patch16_224"), LARGE),
    Row("ViT-H/14", "Google's .npz", google("vit_huge_patch14_224"), LARGE),
    Row("ViT-B/16", "transformers' folder", transformers_folder("ViT", 224, **VIT), MEDIUM),
    Row(
        "DeiT-B distilled", "transformers' folder", transformers_folder("DeiT", 224, **VIT), MEDIUM
    ),
    Row(
        "MobileViTv2-0.5",
        "transformers' folder",
        transformers_folder("MobileViTV2", 128, MOBILE, width_multiplier=0.5),
        WHOLE,
        static=True,
    ),
    Row(
        "MobileViTv2-0.5",
        "timm's weights",
        timm_state("mobilevitv2_050", MOBILE, image_size=128, crop_pct=1.0),
        WHOLE,
        static=True,
    ),
    # Nobody trained one here, and what static int8 makes of random convolutions says nothing.
    Row(
        "MobileViT-S", "transformers' folder", transformers_folder("MobileViT", 256), convolved=True
    ),
    Row("DeiT-Ti at 160 px", "timm's weights", timm_state("deit_tiny_patch16_224", image_size=160)),
    Row("DeiT-S", "address, defaults", deit_pth("deit_small_patch16_224"), FAIR, shipped=True),
    Row("DeiT-B", "address, defaults", deit_pth("deit_base_patch16_224"), FAIR, shipped=True),
    Row("ViT-B/16", ".npz, defaults", google("vit_base_patch16_224"), FAIR, shipped=True),
    *(
        Row(name, f"{how}, defaults, widened", source, WHOLE, samples=MANY, shipped=True)
        for name, how, source in (
            ("DeiT-S", "address", deit_pth("deit_small_patch16_224", TRAINED)),
            ("DeiT-B", "address", deit_pth("deit_base_patch16_224", TRAINED)),
            ("ViT-B/16", ".npz", google("vit_base_patch16_224", TRAINED)),
        )
    ),
    *(
        Row(name, "random weights", timm_state(architecture, image_size=size), LARGE, family=True)
        for name, architecture, size in (
            ("DeiT-III-S", "deit3_small_patch16_224", None),
            ("ViT-S, relative positions", "vit_relpos_small_patch16_224", None),
            ("LeViT-128S", "levit_128s", None),
            ("TinyViT-5M", "tiny_vit_5m_224", None),
            ("EfficientFormer-L1", "efficientformer_l1", None),
            ("Swin-T", "swin_tiny_patch4_window7_224", None),
            ("DINOv2-S, registers, 224 px", "vit_small_patch14_reg4_dinov2", 224),
            ("SigLIP-B", "vit_base_patch16_siglip_224", None),
            ("FastViT-T8", "fastvit_t8", None),
            ("CaiT-XXS24", "cait_xxs24_224", None),
            ("BEiT-B", "beit_base_patch16_224", None),
            ("EVA-02-Ti", "eva02_tiny_patch14_224", None),
            ("MaxViT-pico", "maxvit_pico_rw_256", None),
        )
    ),
)


def run(row: Row, folder: Path) -> Result:
    """Run the pipeline from `fetch` to the gate, on few samples."""
    import torch

    from pipeline.paths import Recorded
    from pipeline.stages.gate import gate
    from pipeline.verdict.criterion import FAIL

    artifacts = folder / "artifacts"
    torch.manual_seed(0)  # position embeddings have no other: SQNR differed by 3 dB without
    with row.source(folder, row.images) as model:
        params = _params(row, model, data_set(folder, row.images))
        run_stages(params, artifacts, "fetch")
    impossible: dict[str, str] = {}

    def go(*stages: str) -> None:
        # Of large ones each stage in a process of its own, as `dvc repro` has them: what one kept
        # of ViT-H/14, 9 GB, is then not in the way of the next.
        for group in zip(stages) if row.slow else [stages]:
            alone(run_stages, params, artifacts, *group)

    go("samples", "reference")
    while True:
        try:
            go(*stages_of(params.formats))
            break
        except InputError as error:
            if not row.family or not (key := _cannot(str(error), params)):
                raise
            impossible[key] = str(error)
            left = tuple(other for other in params.formats if other != key)
            if not left:
                return Result((), 0.0, {}, impossible)
            params = params.model_copy(update={"formats": left})
    go("golden", "parity", "latency")
    nothing = Recorded(baselines=folder / "none", devices=folder / "none")
    verdict = gate(params, artifacts, nothing, artifacts / "verdict")
    failed = (c for c in verdict.criteria if c.outcome == FAIL)
    sentences = tuple(f"{c.subject}, {c.name}: {c.note}" for c in failed)
    return _result(artifacts, sentences, impossible)


def _cannot(sentence: str, params: Params) -> str | None:
    """The format that an exporter's sentence says cannot be made; None if it says none."""
    return next((k for k in params.formats if f"no {FORMATS[k].suffix} can be" in sentence), None)


def _params(row: Row, model: dict[str, Any], source: Path) -> Params:
    """The default parameters for a row, on few samples and with few timed runs.

    But for ``shipped`` rows, weights are the checkpoint's and int8 is dynamic or ``static``.
    """
    values = load_params().model_dump()
    values["model"] = model
    limit = min(row.samples, row.images * 2 // 3)
    values["samples"] |= {
        "source": source,
        "limit": limit,
        "calibration": min(256, row.images - limit),
    }
    values["golden"] = {"samples": 2, "photographs": one_photograph(source)}
    few = max(4, limit // 6)  # the floor of one image alone would be chance
    values["reference"]["noise_samples"] = values["parity"]["step_samples"] = few
    values["latency"] |= {"warmup": 1, "runs": 10, "min_seconds": 0}
    if not row.shipped:
        values["rewrite"] = {}
        scheme = "static" if row.static else "per_channel"
        values["quantize"] |= {"scheme": scheme, "rounding": "nearest"}
        values["export_onnx"]["smooth_hidden"] = None
    for key, budget in values["gate"]["budgets"].items():
        budget["latency_ratio_max"] = None  # ten runs beside other programs say nothing about speed
        if row.static and FORMATS[key].schemes:
            budget |= STATIC
        if row.convolved:
            budget["size_ratio_max"] = None
    return Params.model_validate(values)


def _result(artifacts: Path, failed: tuple[str, ...], impossible: dict[str, str]) -> Result:
    parity = read_sealed(artifacts / "parity" / EVIDENCE_FILE, ParityEvidence)
    latency = read_sealed(artifacts / "latency" / EVIDENCE_FILE, LatencyEvidence)
    size, count = parity.float_size_bytes, parity.samples.count
    times = {key: median(timed.runs_ms) for key, timed in latency.artefacts.items()}
    files = {
        key: Measured(
            size_ratio=file.size_bytes / size,
            agreement=file.top1_equal / count,
            sqnr_db=file.sqnr_db,
            time_ratio=times[key] / times["float"],
        )
        for key in parity.artefacts
        if (file := parity.measured(key))
    }
    return Result(failed, size / 1e6, files, impossible)
