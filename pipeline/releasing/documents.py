"""What a release says of itself beside its files: model card, bill of materials, attestations."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.contract import Contract
from pipeline.core.params import Params
from pipeline.core.verdict import Evidence, Verdict


def documents(
    release: Path, contract: Contract, verdict: Verdict, evidence: Evidence, params: Params
) -> None:
    """Add the documents to the folder that is being built, before its files are listed.

    Equal inputs must give equal bytes: a release of the same evidence is the same release.
    """
