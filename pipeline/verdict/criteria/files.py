"""Evidence counts only for the bytes that it was taken on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.evidence.golden import FLOAT, GoldenAnswers, GoldenEvidence
from pipeline.evidence.latency import LatencyEvidence, TimedFile
from pipeline.evidence.parity import DeliveredFile, ParityEvidence
from pipeline.formats import FORMATS, ordered
from pipeline.params import Gate
from pipeline.verdict.criterion import FAIL, PASS, Criterion, plain


@dataclass(frozen=True, kw_only=True)
class Files:
    """SHA-256 of what is about to be published, and of what it was made from."""

    artefacts: Mapping[str, str]  # by format
    checkpoint: str
    samples: str


def criteria(
    gate: Gate,
    files: Files,
    parity: ParityEvidence,
    latency: LatencyEvidence,
    golden: GoldenEvidence | None,
) -> Iterator[Criterion]:
    """Yield a failed criterion for each file that is not the measured one, else a passed one.

    Files are those that have a budget, are there, or are in some evidence.
    """
    measured_keys = [*parity.artefacts, *latency.artefacts, *(golden.artefacts if golden else ())]
    keys = ordered([*gate.budgets, *files.artefacts, *measured_keys])
    pairs: list[tuple[str, str | None, str | None, str]] = [
        ("checkpoint", files.checkpoint, parity.checkpoint_sha256, "parity"),
        ("checkpoint", files.checkpoint, latency.artefacts[FLOAT].sha256, "latency"),
        ("samples", files.samples, parity.samples.sha256, "parity"),
        ("samples", files.samples, latency.samples_sha256, "latency"),
    ]
    for key in keys:
        measured, timed = parity.artefacts.get(key), latency.artefacts.get(key)
        pairs.append((FORMATS[key].suffix, files.artefacts.get(key), _sha256(measured), "parity"))
        pairs.append((FORMATS[key].suffix, files.artefacts.get(key), _sha256(timed), "latency"))
    if golden is not None:
        pairs.append(("checkpoint", files.checkpoint, golden.artefacts[FLOAT].sha256, "golden"))
        for key in keys:
            answers = golden.artefacts.get(key)
            pairs.append(
                (FORMATS[key].suffix, files.artefacts.get(key), _sha256(answers), "golden")
            )
    for key in keys:
        for step in FORMATS[key].compared:
            seen = parity.steps.get(step.stage)
            if seen and step.after == key:  # whose output is published
                pairs.append((step.stage, files.artefacts.get(key), seen.after_sha256, "parity"))
    others = [pair for pair in pairs if not pair[1] or pair[1] != pair[2]]
    for subject, actual, recorded, kind in others:
        yield plain(
            "evidence",
            subject,
            FAIL,
            f"{kind} was measured on {_short(recorded)}, this is {_short(actual)}; "
            f"run `dvc repro {kind}` to measure these bytes",
        )
    if not others:
        yield plain("evidence", "all files", PASS, "every file is the one that was measured")


def _sha256(file: DeliveredFile | TimedFile | GoldenAnswers | None) -> str | None:
    return file.sha256 if file else None


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "nothing"
