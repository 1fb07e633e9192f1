"""What `tune` and `repair` share: images of their own, and one file made and measured on them.

The tuning split is taken as stage ``samples`` takes its images, from the same source and in the
same seeded order, after what the gate and calibration have: none of their ids, none of their
pixels. So a search may look at it as often as it likes and the gate's samples stay unseen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.measures import against_float
from pipeline.core.params import Format, Params
from pipeline.core.tuning import Recipe
from pipeline.runtimes import FloatArray, load
from pipeline.runtimes.interleave import interleave
from pipeline.runtimes.parallel import Run, run_all
from pipeline.support import paths
from pipeline.support.contracts import MODEL_FILE, load_contract
from pipeline.support.files import read_json, sha256_file, write_json
from pipeline.support.images import SAMPLES_FILE, SampleSet, normalize

ABOUT_FILE = "tuning.json"
FLOAT = "float"
LINKED = ("checkpoint", "rewritten", "quantized")
WARMUP, ROUNDS = 3, 30


@dataclass(frozen=True)
class Split:
    """The tuning split; ``folder`` is laid out as a run's artifacts, for `diagnose`."""

    folder: Path
    samples: SampleSet
    reference: FloatArray
    noise_floor: float

    @property
    def float_bytes(self) -> int:
        return (self.folder / "checkpoint" / MODEL_FILE).stat().st_size

    def measured(self, path: Path, logits: FloatArray, size: int | None = None) -> dict[str, Any]:
        """What `parity` would measure of a file's logits on the first images of the split."""
        count = len(logits)
        labels = None if self.samples.labels is None else self.samples.labels[:count]
        found = against_float(self.reference[:count], logits, labels, self.noise_floor)
        return {"file": path.name, "size_bytes": size or paths.size_bytes(path), **found}

    def run(self, path: Path, count: int, words: str) -> FloatArray:
        return run_all([Run("file", path, count)], self.folder / "samples", words)["file"]


def split(params: Params, artifacts: Path, folder: Path, count: int) -> Split:
    """Take ``count`` images and float's answers to them into ``folder``, or find them there.

    Raises:
        InputError: the source has no other images, or artifacts are missing.
    """
    from pipeline.reference import reference
    from pipeline.samples import samples

    about = {
        "how": "as stage samples takes images, after those of evaluation and calibration: "
        "no id and no pixels of theirs",
        "source": str(params.samples.source),
        "asked": count,
        "apart_from_samples_sha256": read_json(artifacts / "samples" / SAMPLES_FILE)["sha256"],
        "checkpoint_sha256": sha256_file(artifacts / "checkpoint" / MODEL_FILE),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(artifacts / name, folder))
    recorded = folder / ABOUT_FILE
    if not recorded.is_file() or read_json(recorded) != about:
        recorded.unlink(missing_ok=True)
        own = params.samples.model_copy(update={"limit": count, "calibration": 0})
        contract = load_contract(artifacts / "checkpoint")
        samples(own, contract, folder / "samples", artifacts / "samples")
        reference(
            params.reference, artifacts / "checkpoint", folder / "samples", folder / "reference"
        )
        write_json(recorded, about)
    return Split(
        folder,
        SampleSet.load(folder / "samples"),
        np.load(folder / "reference" / "logits.npy"),
        read_json(folder / "reference" / "reference.json")["noise_floor"]["max_abs"],
    )


def make(key: Format, recipe: Recipe, artifacts: Path, into: Path) -> Path:
    """Make the one file of format ``key`` below ``into``, by the stages; return its path."""
    from pipeline.rewrite import rewrite

    checkpoint, samples = artifacts / "checkpoint", artifacts / "samples"
    rewritten, quantized = into / "rewritten", into / "quantized"
    rewrite(recipe.rewrite, checkpoint, samples, rewritten)
    if key == "ptl":
        from pipeline.lite import lite
        from pipeline.optimize import optimize
        from pipeline.quantize import quantize
        from pipeline.script import script

        quantize(recipe.quantize, rewritten, samples, quantized)
        script(quantized, into / "scripted")
        optimize(into / "scripted", into / "optimized")
        lite(recipe.quantize, into / "optimized", into / paths.LITE.name)
    elif key == "pte":
        from pipeline.export_executorch import export_executorch

        export_executorch(recipe.quantize, rewritten, samples, into / paths.EXECUTORCH.name)
    elif key == "int8_onnx":
        from pipeline.export_onnx import export_onnx

        onnx = (into / paths.ONNX.name, into / paths.ONNX_INT8.name)
        export_onnx(recipe.quantize, rewritten, samples, *onnx)
    else:
        raise InputError(f"{key} files are not quantized; choose ptl, int8_onnx or pte")
    return paths.delivered_file(into, key)


def rounds(files: dict[str, Path], samples: SampleSet, count: int, words: str) -> dict[str, Any]:
    """Let files take turns on real images, one thread; return the milliseconds of each."""
    runtimes = {key: load(path, threads=1) for key, path in files.items()}
    preprocessing = next(iter(runtimes.values())).contract.preprocessing

    def image(number: int) -> FloatArray:
        chosen = number % len(samples)
        return normalize(samples.images[chosen : chosen + 1], preprocessing)

    return interleave(runtimes, image, warmup=WARMUP, runs=count, min_seconds=0, name=words)
