"""Hold evidence to everything that can be computed again from what is there.

A release has less than a run: what it no longer has (the images, the checkpoint, files between the
steps) is compared where a run is judged. docs/gate.md lists what is believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import paths as run_paths
from pipeline.checkpoints.zoo import load_zoo
from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import IntegrityError, shown
from pipeline.evidence.golden import GOLDEN_FILE
from pipeline.evidence.logits import load_logits
from pipeline.evidence.numbers import (
    Load,
    delivered_file,
    file_numbers,
    right_answers,
    step_numbers,
    steps_of,
)
from pipeline.evidence.parity import DeliveredFile, ParityEvidence
from pipeline.evidence.read import Evidence, EvidencePaths
from pipeline.evidence.reference import load_reference
from pipeline.evidence.samples import Samples, content_sha256, described, of_images, read_samples
from pipeline.files import sha256_file
from pipeline.formats import FORMATS, REFERENCE, ordered
from pipeline.images.samples import CALIBRATION_FILE, SampleSet, load_pixels
from pipeline.metrics.logits import Logits
from pipeline.schema import Section

REL_TOL = 1e-9  # of numbers that are computed in float64


def edits(
    paths: EvidencePaths,
    evidence: Evidence,
    contract: Contract,
    files: Mapping[str, Path],
    sha256: Mapping[str, str],
) -> Iterator[str]:
    """Yield a sentence for each number of the evidence that is not what it follows from.

    ``files`` are the delivered ones by format, ``sha256`` theirs. Other bytes than were measured
    are left to the verdict, which names them.

    Raises:
        InputError: samples, logits or the reference are missing or damaged.
        IntegrityError: samples, logits or the reference are not those that were measured.
    """
    parity = evidence.parity
    same = {
        key: files[key]
        for key, file in parity.artefacts.items()
        if key in files and file.sha256 == sha256[key]
    }
    yield from _names(paths, evidence, same)
    if golden := evidence.devices.golden:
        yield from _differing(
            paths.golden / GOLDEN_FILE,
            "the contract",
            {"threshold": golden.threshold},
            {"threshold": contract.threshold},
        )
    yield from _published(paths, parity, contract)
    if paths.run is not None:
        yield from _run(paths, parity, paths.run)
    samples = load_samples(paths)
    if samples.sha256 != parity.samples.sha256:
        return  # the verdict names it, too
    yield from _samples(paths, parity, samples, contract)
    if len(samples.labels) == parity.samples.count:
        yield from _numbers(paths, parity, samples, same, contract)


def load_samples(paths: EvidencePaths) -> Samples:
    """The samples' labels and hashes; of a run from the images themselves.

    Raises:
        InputError: a file is missing or damaged.
        IntegrityError: pixels, labels or ids were changed.
    """
    if paths.run is None:
        return read_samples(paths.samples)
    samples = SampleSet.load(paths.samples.parent)
    load_pixels(paths.samples.parent / CALIBRATION_FILE)  # a release states its hash
    return of_images(samples, samples.verify())


def _names(paths: EvidencePaths, evidence: Evidence, same: Mapping[str, Path]) -> Iterator[str]:
    """Names in other evidence than parity's, which is compared whole."""
    golden = evidence.devices.golden
    for key, path in same.items():
        others = (
            (paths.latency, evidence.latency.artefacts.get(key)),
            (paths.golden / GOLDEN_FILE, golden.artefacts.get(key) if golden else None),
        )
        for where, file in others:
            if file is not None and file.sha256 == evidence.parity.artefacts[key].sha256:
                yield from _differing(where, key, {"file": file.file}, {"file": path.name})


def _published(paths: EvidencePaths, parity: ParityEvidence, contract: Contract) -> Iterator[str]:
    """The published accuracy; that it was left out is believed, as its images' size is timm's."""
    if parity.published is not None:
        entry = load_zoo().entry_of(contract.checkpoint.source_sha256)
        known = entry.published if entry else None
        yield from _differing(
            paths.parity,
            "the checkpoint",
            {"published": parity.published.model_dump()},
            {"published": known.model_dump() if known else None},
        )


def _run(paths: EvidencePaths, parity: ParityEvidence, run: Path) -> Iterator[str]:
    """What only a run has: the checkpoint's size, the reference, the files between the steps."""
    weights = run / run_paths.CHECKPOINT.name / MODEL_FILE
    reference = load_reference(run / run_paths.REFERENCE.name)[1]
    recorded: dict[str, Any] = {
        "noise_floor": parity.noise_floor.model_dump(),
        "logits_sha256": parity.logits_sha256.get(REFERENCE),
        "checkpoint_sha256": parity.checkpoint_sha256,
        "samples_sha256": parity.samples.sha256,
    }
    there: dict[str, Any] = {
        "noise_floor": reference.noise_floor.model_dump(),
        "logits_sha256": reference.logits_sha256,
        "checkpoint_sha256": reference.checkpoint_sha256,
        "samples_sha256": reference.samples_sha256,
    }
    if weights.is_file():  # else the contract's check says that it is missing
        recorded["float_size_bytes"] = parity.float_size_bytes
        there["float_size_bytes"] = weights.stat().st_size
    yield from _differing(paths.parity, "the reference", recorded, there)


def _samples(
    paths: EvidencePaths, parity: ParityEvidence, samples: Samples, contract: Contract
) -> Iterator[str]:
    about = parity.samples
    there: dict[str, Any] = {
        "count": len(samples.labels),
        "labelled": samples.label_array is not None,
        "classes": len(contract.labels),
    }
    if about.content_sha256 is not None and samples.images is not None:
        there["content_sha256"] = content_sha256(samples)
        there["duplicates"] = len(samples.images) - len(set(samples.images))
    if paths.run is not None:
        hashes = [bytes.fromhex(digest) for digest in samples.images or ()]
        whole = dict(described(SampleSet.load(paths.samples.parent), hashes))
        del whole["sha256"], whole["content_sha256"]  # the verdict's, and the one above
        there = whole | there
    recorded = {key: getattr(about, key) for key in there}
    yield from _differing(paths.parity, "the samples", recorded, there)


def _numbers(
    paths: EvidencePaths,
    parity: ParityEvidence,
    samples: Samples,
    same: Mapping[str, Path],
    contract: Contract,
) -> Iterator[str]:
    """What follows from logits, labels and files."""
    labels, floor = samples.label_array, parity.noise_floor.max_abs
    threshold = contract.threshold
    reference = load_logits(paths.logits, parity, [REFERENCE])[REFERENCE]

    def load(key: str) -> Logits:
        logits = load_logits(paths.logits, parity, [key])[key]  # one at a time: they may be large
        if logits.shape[1] != reference.shape[1]:
            raise IntegrityError(
                f"the logits of {key} are of {logits.shape[1]} classes, the reference's of "
                f"{reference.shape[1]}; run `{parity.remedy}`"
            )
        return logits

    if reference.shape[1] != contract.outputs:
        raise IntegrityError(
            f"the reference's logits are {reference.shape[1]} an image, the contract says "
            f"{contract.outputs}; run `{parity.remedy}`"
        )
    right = right_answers(reference, labels, threshold)
    yield from _differing(
        paths.parity,
        "float",
        {"reference_accuracy": _dumped(parity.reference_accuracy)},
        {"reference_accuracy": _dumped(right)},
    )
    for key, recorded in parity.artefacts.items():
        file = DeliveredFile(**recorded.model_dump(include=set(DeliveredFile.model_fields)))
        if key in same:
            there = delivered_file(same[key], recorded.sha256)
            file = there if file.beside is not None else there.model_copy(update={"beside": None})
        measured = file_numbers(file, reference, load(key), labels, floor, threshold)
        yield from _differing(paths.parity, key, recorded.model_dump(), measured.model_dump())
    yield from _steps(paths, parity, load, threshold)


def _steps(
    paths: EvidencePaths, parity: ParityEvidence, load: Load, threshold: float | None
) -> Iterator[str]:
    """The steps; hashes are of the files where a run still has them."""
    hashes: dict[str, str] = {}
    for step in parity.steps.values():
        hashes |= {step.before: step.before_sha256} if step.before_sha256 else {}
        hashes[step.after] = step.after_sha256
    keys = ordered(parity.artefacts)
    if paths.run is not None:
        between = {"rewritten": f"{run_paths.REWRITTEN.name}/{MODEL_FILE}"}
        between |= {name: path for key in keys for name, path in FORMATS[key].between.items()}
        for name, path in between.items():
            if (paths.run / path).is_file():
                hashes[name] = sha256_file(paths.run / path)
    known = steps_of(keys)
    for name, recorded in parity.steps.items():
        if name not in known:
            yield f"{paths.parity} has a step {shown(name)}, which no file of it has"
        elif known[name].after in hashes:
            again = step_numbers(load, hashes, known[name], threshold)
            yield from _differing(paths.parity, name, recorded.model_dump(), again.model_dump())


def _dumped(section: Section | None) -> dict[str, Any] | None:
    return section.model_dump() if section else None


def _differing(
    where: Path, subject: str, recorded: Mapping[str, Any], there: Mapping[str, Any]
) -> Iterator[str]:
    """A sentence for each value that is not what is there."""
    if recorded.get("finite", True) and not there.get("finite", True):
        yield (
            f"{where} has numbers of {subject}, whose logits hold NaN or infinity: it was edited; "
            f"run `dvc repro --force {where.parent.name}`"
        )
        return
    before, after = dict(_leaves(recorded)), dict(_leaves(there))
    for key in sorted(before.keys() | after.keys()):
        was, value = before.get(key), after.get(key)
        if not _same(was, value):
            yield (
                f"{where} says {key} = {shown(was)} of {subject}, computed again it is "
                f"{shown(value)}: it was edited; run `dvc repro --force {where.parent.name}`"
            )


def _same(was: Any, value: Any) -> bool:
    """Whether two values agree; last bits of sums and logarithms depend on the processor."""
    if isinstance(was, float) and isinstance(value, float):
        return math.isclose(was, value, rel_tol=REL_TOL)
    if isinstance(was, list | tuple) and isinstance(value, list | tuple):
        return len(was) == len(value) and all(map(_same, was, value))
    return bool(was == value)


def _leaves(values: Mapping[str, Any], below: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{below}{key}.")
        else:
            yield f"{below}{key}", value
