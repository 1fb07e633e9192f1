"""Stage ``report``: one page that tells a team lead what was decided, and what it rests on.

Judges the evidence itself, as the gate does, so that a refused run has its page, too. The page is
one file without scripts that loads nothing from elsewhere; equal evidence gives equal bytes.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.contract.files import load_contract
from pipeline.errors import exit_on_error
from pipeline.evidence import sample_reuse
from pipeline.evidence.logits import LOGITS_FILE, load_logits
from pipeline.files import write_text
from pipeline.formats import FORMATS
from pipeline.images.samples import SampleSet
from pipeline.params import Params, load_params
from pipeline.paths import Recorded
from pipeline.release.judge import judge
from pipeline.report.page import Findings, page

PAGE_FILE = "report.html"


def report(params: Params, artifacts: Path, recorded: Recorded, out: Path) -> Path:
    """Write ``report.html`` into folder ``out`` and return its path, whatever the verdict.

    Raises:
        InputError: evidence, logits, samples or a deliverable are missing or damaged.
        IntegrityError: evidence was changed, or the logits are not the measured ones.
    """
    judged = judge(params, artifacts, recorded)
    evidence = judged.evidence
    samples = SampleSet.load(artifacts / "samples")
    measured = evidence.parity.samples.sha256
    files = [key for key in FORMATS if key in evidence.parity.artefacts]
    findings = Findings(
        params=params,
        contract=load_contract(artifacts / "checkpoint"),
        verdict=judged.verdict,
        evidence=evidence,
        judged=sample_reuse.record(artifacts / sample_reuse.LEDGER_FILE, evidence.parity),
        logits=load_logits(
            artifacts / "parity" / LOGITS_FILE, evidence.parity, ["reference", *files]
        ),
        samples=samples if samples.sha256 == measured else None,
    )
    write_text(out / PAGE_FILE, page(findings))
    return out / PAGE_FILE


def main() -> None:
    with exit_on_error():
        report(load_params(), paths.ARTIFACTS, Recorded(), paths.REPORTS)


if __name__ == "__main__":
    main()
