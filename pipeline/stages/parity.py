"""Stage ``parity``: run every file on every sample and write down how far it is from float.

Always succeeds when it could measure; deciding is the gate's. Images go one at a time, as an app
sends them: dynamic quantization sees the range of a whole batch, so a batch would flatter it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.checkpoints.zoo import Published, load_zoo
from pipeline.contract.files import load_contract
from pipeline.errors import IntegrityError, exit_on_error
from pipeline.evidence.logits import LOGITS_FILE
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import Machine, sealed_json
from pipeline.evidence.numbers import (
    NUDGED,
    delivered_file,
    file_numbers,
    first_compared,
    right_answers,
    step_numbers,
    steps_of,
)
from pipeline.evidence.parity import MeasuredFile, ParityEvidence, Weights
from pipeline.evidence.reference import Reference, load_reference
from pipeline.evidence.samples import described
from pipeline.files import atomic, sha256_file, write_json, write_text
from pipeline.formats import FORMATS, REFERENCE, quantized
from pipeline.images.samples import SampleSet
from pipeline.metrics.logits import Logits, answers, logits_sha256
from pipeline.metrics.measures import weight_error_steps
from pipeline.params import Parity, load_params
from pipeline.runtimes.parallel import Run, run_all

EVIDENCE_FILE = "evidence.json"
METRICS_FILE = "metrics.json"
PLOT_FILE = "confusion.csv"


def parity(params: Parity, artifacts: Path, out: Path) -> ParityEvidence:
    """Measure the files below ``artifacts`` and write folder ``out``.

    Raises:
        IntegrityError: samples or reference were changed, or reference and samples, or reference
            and checkpoint, do not belong together.
    """
    samples = SampleSet.load(artifacts / "samples")
    images = samples.verify()
    reference, description = _load_reference(artifacts, samples)
    threshold = load_contract(artifacts / "checkpoint").threshold
    steps = min(params.step_samples, len(samples))
    whole = paths.delivered_files(artifacts)
    partial = {"rewritten": artifacts / "rewritten" / "model.safetensors"}
    for key in whole:
        partial |= {name: artifacts / path for name, path in FORMATS[key].between.items()}
    hashes = {key: sha256_file(path) for key, path in (whole | partial).items()}
    files = {key: delivered_file(path, hashes[key]) for key, path in whole.items()}
    runs = [Run(key, path, len(samples)) for key, path in whole.items()]
    runs += [Run(key, path, steps) for key, path in partial.items()]
    runs += [
        Run(f"{name}{NUDGED}", partial[name], steps, nudged=True)
        for name in {first_compared(step) for step in steps_of(whole).values()} - {REFERENCE}
    ]
    logits = run_all(runs, artifacts / "samples", "parity")
    for key, path in (whole | partial).items():
        if sha256_file(path) != hashes[key] or (
            key in files and delivered_file(path, hashes[key]) != files[key]
        ):
            raise IntegrityError(f"{path} was replaced while it was measured; run `dvc repro`")

    quantizes = any("quantize" in FORMATS[key].stages for key in whole)
    floor = description.noise_floor.max_abs
    everything = {"reference": reference} | logits
    evidence = ParityEvidence(
        checkpoint_sha256=description.checkpoint_sha256,
        samples=described(samples, images),
        noise_floor=description.noise_floor,
        published=_published(artifacts),
        reference_accuracy=right_answers(reference, samples.labels, threshold),
        artefacts={
            key: file_numbers(files[key], reference, logits[key], samples.labels, floor, threshold)
            for key in whole
        },
        float_size_bytes=(artifacts / "checkpoint" / "model.safetensors").stat().st_size,
        steps={
            name: step_numbers(everything.__getitem__, hashes, step, threshold)
            for name, step in steps_of(whole).items()
        },
        weights=_weights(artifacts) if quantizes else None,
        logits_sha256={key: logits_sha256(rows) for key, rows in everything.items()},
        machine=Machine(**fingerprint()),
    )
    with atomic(out) as new:
        new.mkdir()
        np.savez_compressed(new / LOGITS_FILE, allow_pickle=False, **everything)
        write_json(new / EVIDENCE_FILE, sealed_json(evidence))
        write_json(new / METRICS_FILE, _metrics(evidence))
        answered = answers(logits[next(iter(whole))], threshold)
        write_text(new / PLOT_FILE, _confusion(answered, samples))
    return evidence


def _load_reference(artifacts: Path, samples: SampleSet) -> tuple[Logits, Reference]:
    logits, description = load_reference(artifacts / "reference")
    if description.samples_sha256 != samples.sha256:
        raise IntegrityError("the reference was taken on other samples; run `dvc repro reference`")
    checkpoint = sha256_file(artifacts / "checkpoint" / "model.safetensors")
    if description.checkpoint_sha256 != checkpoint:
        raise IntegrityError(
            f"the reference belongs to checkpoint {description.checkpoint_sha256}, there is "
            f"{checkpoint}; run `dvc repro reference`"
        )
    return logits, description


def _weights(artifacts: Path) -> Weights:
    """The int8 weights against the float ones: the worst layer, in quantization steps."""
    from safetensors.numpy import load_file

    from pipeline.quantization.load import float_weights

    rewritten = artifacts / "rewritten" / "model.safetensors"
    quantized = artifacts / "quantized" / "model.safetensors"
    floats = {key: value.numpy() for key, value in float_weights(rewritten, quantized).items()}
    arrays = load_file(quantized)
    scales = {
        key.removesuffix(".scale"): value for key, value in arrays.items() if key.endswith(".scale")
    }
    errors = {
        name: weight_error_steps(
            _times_columns(floats[f"{name}.weight"], arrays.get(f"{name}.columns")),
            arrays[f"{name}.weight"],
            scale,
        )
        for name, scale in scales.items()
    }
    changed = [
        key
        for key in sorted(floats)
        if f"{key.removesuffix('weight')}scale" not in arrays
        and not (key in arrays and np.array_equal(floats[key], arrays[key]))
    ]
    worst = max(errors, key=lambda name: errors[name], default=None)
    return Weights(
        layers=len(errors),
        worst_layer=worst,
        worst_error_steps=round(errors[worst], 6) if worst else 0.0,
        changed_floats=tuple(changed),
    )


def _times_columns(
    weight: NDArray[np.float32], columns: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """The weights [out, ...] that were quantized, where inputs are divided by ``columns``."""
    return weight if columns is None else weight * columns.reshape(weight.shape[1:])


def _published(artifacts: Path) -> Published | None:
    """The accuracy that was published of this checkpoint; None if none was, or at another size."""
    from pipeline.models.build import pretrained_cfg

    contract = load_contract(artifacts / "checkpoint")
    entry = load_zoo().entry_of(contract.checkpoint.source_sha256)
    if entry is None or entry.published is None:
        return None
    usual = entry.input_size or pretrained_cfg(entry.architecture)["input_size"]
    same_size = tuple(usual[1:]) == contract.preprocessing.size
    return entry.published if same_size else None


def _metrics(evidence: ParityEvidence) -> dict[str, Any]:
    """Return the few columns of `dvc metrics show` and `dvc exp show`.

    They are SQNR of each int8 file in dB; the worst file's agreement in % and drop in accuracy in
    percentage points; all files' MB.
    """
    files = {k: f for k, f in evidence.artefacts.items() if isinstance(f, MeasuredFile)}
    size = sum(file.size_bytes for file in evidence.artefacts.values())
    shown: dict[str, Any] = {"size_mb": round(size / 1e6, 2)}
    if files:
        agreement = min(file.top1_equal / file.count for file in files.values())
        shown["agreement"] = round(100 * agreement, 2)
    pairs = [file.accuracy for file in files.values() if file.accuracy]
    if pairs:
        drop = max((pair.only_float - pair.only_edge) / pair.count for pair in pairs)
        shown["drop_pp"] = round(100 * drop, 2)
    return shown | {"sqnr": {k: round(files[k].sqnr_db, 1) for k in quantized() if k in files}}


def _confusion(answered: NDArray[np.int64], samples: SampleSet) -> str:
    """A file's answers beside the labels, as CSV for `dvc plots`; empty without labels."""
    lines = ["actual,predicted"]
    if samples.labels is not None:
        names = [label.replace(",", " ") for label in samples.classes]
        pairs = zip(samples.labels, answered, strict=True)
        lines += [f"{names[actual]},{names[predicted]}" for actual, predicted in pairs]
    return "\n".join(lines) + "\n"


def main() -> None:
    with exit_on_error():
        written = parity(load_params().parity, paths.ARTIFACTS, paths.PARITY)
        agreement = _metrics(written).get("agreement")
        worst = "no file" if agreement is None else f"every file at least {agreement:g}% of them"
        print(f"parity: {written.samples.count} images; {worst} as float does")


if __name__ == "__main__":
    main()
