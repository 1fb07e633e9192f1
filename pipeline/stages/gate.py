"""Stage ``gate``: read the evidence, write the verdict, and fail when the channel refuses.

No torch, no measuring: the same evidence gives the same verdict on every machine, in less than a
second. The verdict is written before the exit status says no, so that it can be read. In an
experiment (`dvc exp run`) the status never says no, so that DVC records what was refused, too.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.evidence import sample_reuse
from pipeline.files import atomic, write_json, write_text
from pipeline.params import Params, load_params
from pipeline.paths import Recorded
from pipeline.process import in_experiment
from pipeline.release.judge import judge, require
from pipeline.report import text
from pipeline.verdict.decide import Verdict


def gate(params: Params, artifacts: Path, recorded: Recorded, out: Path) -> Verdict:
    """Write folder ``out`` with the verdict for people, CI and DVC, and return it."""
    judged = judge(params, artifacts, recorded)
    evidence, verdict = judged.evidence, judged.verdict
    variants = sample_reuse.record(artifacts / sample_reuse.LEDGER_FILE, evidence.parity)
    with atomic(out) as new:
        new.mkdir()
        write_json(new / "verdict.json", verdict.to_dict())
        write_text(new / "verdict.md", text.markdown(verdict, evidence, params.gate, variants))
        write_text(new / "junit.xml", text.junit(verdict))
        write_json(new / "metrics.json", {"gate": "passed" if verdict.passed else "refused"})
    return verdict


def main() -> None:
    with exit_on_error():
        verdict = gate(load_params(), paths.ARTIFACTS, Recorded(), paths.VERDICT)
        if not in_experiment():
            require(verdict)
        print(f"gate: {text.headline(verdict)}")


if __name__ == "__main__":
    main()
