"""What `make repro` shows at the end: each file beside float, the verdict, and the release."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline import paths
from pipeline.contract.files import load_contract
from pipeline.errors import exit_on_error
from pipeline.evidence.read import Evidence
from pipeline.files import read_json
from pipeline.params import Params, load_params
from pipeline.paths import Recorded
from pipeline.release.folder import VERDICT_FILE, without_refused
from pipeline.release.judge import judge, load_evidence
from pipeline.report import comparison, text


def summary(params: Params, artifacts: Path, recorded: Recorded) -> str:
    """Return the text; judged anew, so that it never shows an old verdict."""
    evidence = load_evidence(artifacts, recorded)
    verdict = judge(params, artifacts, evidence)
    contract = load_contract(artifacts / "checkpoint")
    release = artifacts / "release" / f"{contract.name}-{params.release.version}"
    lines = [
        comparison.files_table(evidence.parity, evidence.latency, params.gate.confidence),
        "",
        text.criteria_table(verdict),
        "",
        f"edge-vit: {text.headline(verdict)}",
    ]
    if verdict.passed and release.is_dir():
        lines.append(_release(release, params, artifacts, evidence))
    return "\n".join(lines)


def _release(release: Path, params: Params, artifacts: Path, evidence: Evidence) -> str:
    """Whether the release is of this run: `publish` never replaces one of another."""
    verdict = judge(params, artifacts, without_refused(evidence))
    if read_json(release / VERDICT_FILE) == json.loads(json.dumps(verdict.to_dict())):
        return f"release: {release}"
    return f"{release} is of another run; raise release.version in params.yaml to publish this one"


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="edge-vit summary", description=__doc__).parse_args(arguments)
    with exit_on_error():
        print(summary(load_params(), paths.ARTIFACTS, Recorded()))


if __name__ == "__main__":
    main()
