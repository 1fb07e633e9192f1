"""A run made up of small files that agree with each other, to be judged in a moment.

No stage ran: the files are a few bytes with a contract, the logits are random numbers, and the
evidence follows from them by the functions that stages call.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.contract.contract import DATA_KEY, EXTRA_FILE, METADATA_KEY, Contract
from pipeline.contract.onnx_metadata import BYTES, KEY, METADATA_PROPS, VALUE
from pipeline.evidence.golden import GOLDEN_FILE
from pipeline.evidence.model import NoiseFloor
from pipeline.evidence.numbers import (
    delivered_file,
    file_numbers,
    right_answers,
    step_numbers,
    steps_of,
)
from pipeline.evidence.reference import LOGITS_FILE, REFERENCE_FILE, Reference
from pipeline.evidence.samples import described
from pipeline.evidence.seal import seal
from pipeline.files import sha256_file, write_json, write_text
from pipeline.formats import FORMATS, REFERENCE
from pipeline.images.samples import SampleSet, content_hash, samples_sha256
from pipeline.metrics.logits import logits_sha256
from tests.contract import builders as contracts
from tests.verdict import builders

LABELS = ("bag", "coat", "dress", "shoe")
STEP_SAMPLES = 16
SIDE = 8  # pixels


def make(
    artifacts: Path,
    *,
    count: int = 500,
    labels: tuple[str, ...] = LABELS,
    source: str = "somewhere",
    side: int = SIDE,
    labelled: bool = True,
    changes_answers: str | None = None,
    broken: str | None = None,
) -> Path:
    """Write a run that passes the gate of the default params.

    Or one of which a format ``changes_answers`` in part, or ``broken`` gives none.
    """
    rng = np.random.default_rng(0)
    contract = _files(artifacts, labels, source, side)
    samples = _samples(artifacts / "samples", rng, count, labels, side, labelled)
    assert isinstance(samples.labels, np.ndarray) == labelled
    checkpoint = contract.checkpoint.sha256
    classes = rng.integers(0, len(labels), count) if samples.labels is None else samples.labels

    reference = rng.normal(size=(count, len(labels))).astype(np.float32)
    reference[np.arange(count), classes] += 8
    logits = {REFERENCE: reference}
    logits |= {key: reference + np.float32(1e-5) * rng.random(reference.shape, np.float32)
               for key in FORMATS}  # fmt: skip
    if changes_answers:
        other = rng.normal(scale=4, size=reference.shape).astype(np.float32)
        logits[changes_answers] = reference + other
    if broken:
        logits[broken] = np.full_like(reference, np.nan)
    for step in steps_of(FORMATS).values():
        for name in (step.before, step.after):
            logits.setdefault(name, reference[:STEP_SAMPLES])
    logits["quantized_nudged"] = reference[:STEP_SAMPLES] + np.float32(1e-4)

    floor = NoiseFloor(max_abs=1e-5, count=STEP_SAMPLES, runs={"float64": 1e-5})
    _reference(artifacts / "reference", reference, checkpoint, samples, floor)
    files = paths.delivered_files(artifacts)
    hashes = {key: sha256_file(path) for key, path in files.items()}
    between = dict.fromkeys(("rewritten", "quantized", "scripted", "optimized"), "0" * 64)
    case = builders.case(labelled)
    parity: dict[str, Any] = case.parity | {
        "checkpoint_sha256": checkpoint,
        "samples": described(samples, samples.verify()).model_dump(),
        "noise_floor": floor.model_dump(),
        "published": None,
        "reference_accuracy": (right := right_answers(reference, samples.labels, None))
        and right.model_dump(),
        "artefacts": {
            key: file_numbers(
                delivered_file(path, hashes[key]),
                reference,
                logits[key],
                samples.labels,
                floor.max_abs,
                threshold=None,
            ).model_dump()
            for key, path in files.items()
        },
        "float_size_bytes": (artifacts / "checkpoint" / "model.safetensors").stat().st_size,
        "steps": {
            name: step_numbers(logits.__getitem__, hashes | between, step, None).model_dump()
            for name, step in steps_of(FORMATS).items()
        },
        "logits_sha256": {key: logits_sha256(rows) for key, rows in logits.items()},
        "machine": builders.MACHINE | {"processor": "a <test>", "packages": {"torch": "9.9"}},
    }
    latency = case.latency | {"samples_sha256": samples.sha256}
    for key, timed in latency["artefacts"].items():
        timed["sha256"] = hashes.get(key, checkpoint)
        timed["file"] = files[key].name if key in files else "model.safetensors"
    write_json(artifacts / "parity" / "evidence.json", seal(parity))
    write_json(artifacts / "latency" / "evidence.json", seal(latency))
    np.savez_compressed(artifacts / "parity" / "logits.npz", allow_pickle=False, **logits)
    _golden(artifacts / "golden", hashes, files, checkpoint)
    return artifacts


def _files(artifacts: Path, labels: tuple[str, ...], source: str, side: int) -> Contract:
    weights = artifacts / "checkpoint" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(8000))
    contract = contracts.contract(
        name="made_up",
        version="0.1.0",
        preprocessing=contracts.preprocessing(size=(side, side), resize=side, crop_pct=1.0),
        labels=labels,
        checkpoint=contracts.checkpoint(source=source, sha256=sha256_file(weights)),
    )
    write_text(weights.parent / "contract.json", contract.to_json())
    for key, known in FORMATS.items():
        path = artifacts / known.folder / contract.file_name("x", known.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = contract.for_artefact(contracts.artefact(key)).to_json().encode()
        if key == "ptl":
            path.write_bytes(_archive(about))
        elif key == "pte":
            path.write_bytes(b"a program")
            path.with_name(path.name + paths.CONTRACT_SUFFIX).write_bytes(about)
        else:
            entries = {METADATA_KEY: about}
            if key == "onnx":
                data = paths.data_file(path)
                data.write_bytes(b"weights")
                entries[DATA_KEY] = sha256_file(data).encode()
            path.write_bytes(b"".join(_metadata(*entry) for entry in entries.items()))
    return contract


def _metadata(key: str, value: bytes) -> bytes:
    return _field(METADATA_PROPS, _field(KEY, key.encode()) + _field(VALUE, value))


def _archive(about: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"made_up/extra/{EXTRA_FILE}", about)
    return buffer.getvalue()


def _field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that holds bytes."""
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _samples(
    folder: Path,
    rng: np.random.Generator,
    count: int,
    labels: tuple[str, ...],
    side: int,
    labelled: bool,
) -> SampleSet:
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    known = (np.arange(count) % len(labels)).tolist() if labelled else [None] * count
    ids = [f"image {number}" for number in range(count)]
    digest = samples_sha256([content_hash(image) for image in images], known, ids)
    about = {"schema": 1, "ids": ids, "labels": known, "classes": labels, "sha256": digest}
    write_json(folder / "samples.json", about)
    np.save(folder / "images.npy", images)
    np.save(folder / "calibration.npy", images[:2])
    return SampleSet.load(folder)


def _reference(
    folder: Path, logits: Any, checkpoint: str, samples: SampleSet, floor: NoiseFloor
) -> None:
    folder.mkdir()
    np.save(folder / LOGITS_FILE, logits)
    about = Reference(
        checkpoint_sha256=checkpoint,
        samples_sha256=samples.sha256,
        logits_sha256=logits_sha256(logits),
        noise_floor=floor,
        machine=builders.MACHINE,
    )
    write_json(folder / REFERENCE_FILE, about.model_dump(mode="json", by_alias=True))


def _golden(folder: Path, hashes: dict[str, str], files: dict[str, Path], checkpoint: str) -> None:
    content = builders.golden(hashes, checkpoint)
    for key, path in files.items():
        content["artefacts"][key]["file"] = path.name
    (folder / "images").mkdir(parents=True)
    inputs = folder / content["inputs"]["file"]
    np.zeros(content["inputs"]["shape"], "<f4").tofile(inputs)
    content["inputs"]["sha256"] = sha256_file(inputs)
    for image in content["images"]:
        write_text(folder / image["file"], image["id"])
        image["sha256"] = sha256_file(folder / image["file"])
    write_json(folder / GOLDEN_FILE, seal(content))
