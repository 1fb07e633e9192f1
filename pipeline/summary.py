"""What `make repro` shows at the end: each file beside float, the verdict, and the release."""

from __future__ import annotations

from pathlib import Path

from pipeline.core import report
from pipeline.core.contract import Contract
from pipeline.core.errors import exit_on_error
from pipeline.core.params import Params, load_params
from pipeline.gate import Evidence, judge
from pipeline.support import paths


def summary(params: Params, artifacts: Path) -> str:
    """Return the text; judged anew, so that it never shows an old verdict."""
    evidence = Evidence.load(artifacts)
    verdict = judge(params, artifacts, evidence)
    contract = Contract.from_json((artifacts / "checkpoint" / "contract.json").read_text())
    release = artifacts / "release" / f"{contract.name}-{params.release.version}"
    lines = [
        report.files_table(evidence.parity, evidence.latency, params.gate.confidence),
        "",
        report.criteria_table(verdict),
        "",
        f"edge-vit: {report.headline(verdict)}",
    ]
    if verdict.passed and release.is_dir():
        lines.append(f"release: {release}")
    return "\n".join(lines)


def main() -> None:
    with exit_on_error():
        print(summary(load_params(), paths.ARTIFACTS))


if __name__ == "__main__":
    main()
