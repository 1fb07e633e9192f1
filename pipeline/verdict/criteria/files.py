"""Evidence counts only for the bytes that it was taken on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.formats import FORMATS
from pipeline.verdict.criterion import FAIL, PASS, Criterion, plain

DELIVERING = {"lite": "ptl", "export_onnx": "onnx"}  # steps whose output is let out


@dataclass(frozen=True, kw_only=True)
class Files:
    """SHA-256 of what is about to be let out, and of what it was made from."""

    artefacts: Mapping[str, str]  # by format
    checkpoint: str
    samples: str


def criteria(
    files: Files,
    parity: Mapping[str, Any],
    latency: Mapping[str, Any],
    golden: Mapping[str, Any] | None,
) -> Iterator[Criterion]:
    """Yield a failed criterion for each file that is not the measured one, else a passed one."""
    pairs: list[tuple[str, str | None, str | None, str]] = [
        ("checkpoint", files.checkpoint, parity["checkpoint_sha256"], "parity"),
        ("checkpoint", files.checkpoint, latency["artefacts"]["float"]["sha256"], "latency"),
        ("samples", files.samples, parity["samples"]["sha256"], "parity"),
        ("samples", files.samples, latency["samples_sha256"], "latency"),
    ]
    for key in FORMATS:
        for kind, evidence in (("parity", parity), ("latency", latency)):
            measured = evidence["artefacts"].get(key, {}).get("sha256")
            pairs.append((FORMATS[key].suffix, files.artefacts.get(key), measured, kind))
    if golden is not None:
        answers = golden["artefacts"]
        pairs.append(("checkpoint", files.checkpoint, answers["float"]["sha256"], "golden"))
        for key in FORMATS:
            measured = answers.get(key, {}).get("sha256")
            pairs.append((FORMATS[key].suffix, files.artefacts.get(key), measured, "golden"))
    for step, delivered in DELIVERING.items():
        if step in parity["steps"]:
            measured = parity["steps"][step].get("after_sha256")
            pairs.append((step, files.artefacts.get(delivered), measured, "parity"))
    other = [pair for pair in pairs if not pair[1] or pair[1] != pair[2]]
    for subject, actual, measured, kind in other:
        yield plain(
            "evidence",
            subject,
            FAIL,
            f"{kind} was measured on {_short(measured)}, this is {_short(actual)}; "
            f"run `dvc repro {kind}` to measure these bytes",
        )
    if not other:
        yield plain("evidence", "all files", PASS, "every file is the one that was measured")


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "nothing"
