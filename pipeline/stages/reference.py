"""Stage ``reference``: float32 logits of the checkpoint on the samples, and their noise floor.

Equally correct float runs differ in their last bits: other batch sizes and thread counts sum in
another order, float64 rounds later. The noise floor is how far they differ on these weights and
these images; whatever claims to change nothing is held to it, instead of to a tolerance that
somebody once guessed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import Machine, NoiseFloor
from pipeline.evidence.reference import LOGITS_FILE, REFERENCE_FILE, Reference
from pipeline.files import atomic, sha256_file, write_json
from pipeline.images.samples import SampleSet
from pipeline.metrics import chance
from pipeline.metrics.logits import logits_sha256
from pipeline.params import Reference as Settings
from pipeline.params import load_params
from pipeline.runtimes.parallel import Run, run_all


def reference(params: Settings, checkpoint: Path, samples: Path, out: Path) -> None:
    """Write folder ``out``: ``logits.npy`` float32 [n, classes] and ``reference.json``."""
    weights = checkpoint / "model.safetensors"
    images = SampleSet.load(samples)
    probe = min(params.noise_samples, len(images))
    others = [
        Run("batch of 8", weights, probe, batch=8),
        Run("batch of 32, two threads", weights, probe, batch=32, threads=2),
        Run("float64", weights, probe, float64=True),
    ]
    runs = [Run("reference", weights, len(images)), *others]
    logits = run_all(runs, samples, "reference")
    expected = logits["reference"]
    differences = {
        run.key: float(np.abs(logits[run.key] - expected[:probe]).max()) for run in others
    }
    if images.labels is not None:
        right = int((expected.argmax(1) == images.labels).sum())
        if words := chance.warning(right, len(images), len(images.classes)):
            print(f"reference: {words}", file=sys.stderr)
    with atomic(out) as new:
        new.mkdir()
        np.save(new / LOGITS_FILE, expected)
        description = Reference(
            checkpoint_sha256=sha256_file(weights),
            samples_sha256=images.sha256,
            logits_sha256=logits_sha256(expected),
            noise_floor=NoiseFloor(
                max_abs=max(differences.values()), count=probe, runs=differences
            ),
            machine=Machine(**fingerprint()),
        )
        write_json(new / REFERENCE_FILE, description.model_dump(by_alias=True))


def main() -> None:
    with exit_on_error():
        reference(load_params().reference, paths.CHECKPOINT, paths.SAMPLES, paths.REFERENCE)
        print(f"reference: logits of the float model in {paths.REFERENCE}")


if __name__ == "__main__":
    main()
