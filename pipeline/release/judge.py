"""Judge the evidence of a run for exactly the bytes that are there."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.errors import GateError
from pipeline.evidence.read import Evidence, EvidencePaths, read_evidence
from pipeline.files import read_json, sha256_file
from pipeline.params import Params
from pipeline.paths import Recorded
from pipeline.report import text
from pipeline.verdict.criteria.files import Files
from pipeline.verdict.decide import Verdict, decide


def load_evidence(artifacts: Path, recorded: Recorded) -> Evidence:
    """Read the evidence below ``artifacts`` and what was recorded beside it.

    Raises:
        InputError: a file is missing or not JSON.
        IntegrityError: evidence or a record was changed after it was measured.
    """
    return read_evidence(EvidencePaths.of_run(artifacts, recorded))


def judge(params: Params, artifacts: Path, evidence: Evidence) -> Verdict:
    """Hash the files to be published and judge the evidence for exactly these bytes."""
    delivered = paths.delivered_files(artifacts)
    files = Files(
        artefacts={key: sha256_file(path) for key, path in delivered.items()},
        checkpoint=sha256_file(artifacts / "checkpoint" / "model.safetensors"),
        samples=read_json(artifacts / "samples" / "samples.json")["sha256"],
    )
    return decide(params.gate, params.baseline.device, files, evidence)


def require(verdict: Verdict) -> None:
    """Refuse unless the channel's rule is met.

    Raises:
        GateError: names each failure with its number, its limit and what to try, and what would
            decide what is undecided.
    """
    if not verdict.passed:
        raise GateError(text.refusal(verdict))
