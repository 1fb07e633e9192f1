"""Judge the evidence of a run for exactly the bytes that are there."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.errors import GateError, InputError
from pipeline.evidence.read import Evidence, EvidencePaths, read_evidence
from pipeline.evidence.samples import read_samples
from pipeline.files import sha256_file
from pipeline.formats import FORMATS, ordered
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
    """Hash the files to be published and judge the evidence for exactly these bytes.

    Raises:
        InputError: the files are not those of the formats that params.yaml chooses.
    """
    delivered = paths.delivered_files(artifacts)
    for key in ordered([*params.formats, *delivered]):
        folder = artifacts / FORMATS[key].folder
        if key not in delivered:
            raise InputError(
                f"{folder} has no {FORMATS[key].suffix}, and {key} is in formats of params.yaml; "
                "run `dvc repro` to make it"
            )
        if key not in params.formats:
            raise InputError(
                f"{folder} has a {FORMATS[key].suffix}, and {key} is not in formats of "
                "params.yaml; run `dvc repro`, which takes it away"
            )
    files = Files(
        artefacts={key: sha256_file(path) for key, path in delivered.items()},
        checkpoint=sha256_file(artifacts / "checkpoint" / "model.safetensors"),
        samples=read_samples(artifacts / "samples" / "samples.json").sha256,
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
