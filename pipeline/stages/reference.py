"""Stage ``reference``: float32 logits of the checkpoint on the samples, and their noise floor.

Equally correct float runs differ in their last bits: other batch sizes and thread counts sum in
another order, float64 rounds later. The noise floor is how far they differ on these weights and
these images, and no less than what float32 can resolve at the size of the logits; whatever claims
to change nothing is held to it, instead of to a tolerance that somebody once guessed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.contract.files import load_contract
from pipeline.errors import InputError, exit_on_error
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import Machine, NoiseFloor
from pipeline.evidence.reference import LOGITS_FILE, REFERENCE_FILE, Reference
from pipeline.files import atomic, sha256_file, write_json
from pipeline.images.samples import SampleSet
from pipeline.metrics import chance
from pipeline.metrics.label_order import other_order
from pipeline.metrics.logits import answers, logits_sha256
from pipeline.metrics.measures import float32_resolution
from pipeline.params import Reference as Settings
from pipeline.params import load_params
from pipeline.runtimes.parallel import Run, run_all

LABELS_SHOWN = 20


def reference(params: Settings, checkpoint: Path, samples: Path, out: Path) -> None:
    """Write folder ``out``: ``logits.npy`` float32 [n, outputs] and ``reference.json``.

    Raises:
        InputError: the labels fit the model in another order only.
    """
    weights = checkpoint / "model.safetensors"
    images = SampleSet.load(samples)
    images.verify()
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
    differences["float32's resolution"] = float32_resolution(expected[:probe])
    if images.labels is not None:
        answered = answers(expected, load_contract(checkpoint).threshold)
        _check_order(answered, images.labels, images.classes)
        right = int((answered == images.labels).sum())
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


def _check_order(
    answered: NDArray[np.int64], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> None:
    """Refuse labels in another order than the model's outputs, and show the one that fits."""
    order = other_order(answered, labels, len(classes))
    if order is None:
        return
    fitting = [classes[label] for label in order]
    before, after = (answered == labels).mean(), (np.array(order)[answered] == labels).mean()
    shown = ", ".join(fitting[:LABELS_SHOWN]) + (", ..." if len(fitting) > LABELS_SHOWN else "")
    raise InputError(
        f"labels look permuted: the float model is right for {before:.1%} of {len(labels)} images "
        f"with the labels as they are, and for {after:.1%} with the order {shown}; set "
        "model.labels in params.yaml to a file with the names in the order of training, one a line "
        "(folders are often sorted 0, 1, 10, 2)"
    )


def main() -> None:
    with exit_on_error():
        reference(load_params().reference, paths.CHECKPOINT, paths.SAMPLES, paths.REFERENCE)
        print(f"reference: logits of the float model in {paths.REFERENCE}")


if __name__ == "__main__":
    main()
