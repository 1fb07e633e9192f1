"""Stage ``gate``: read the evidence, write the verdict, and fail when the channel refuses.

No torch, no measuring: the same evidence gives the same verdict on every machine, in less than a
second. The verdict is written before the exit status says no, so that it can be read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core import report
from pipeline.core.criteria.files import Files
from pipeline.core.errors import GateError, exit_on_error
from pipeline.core.params import Params, load_params
from pipeline.core.verdict import Evidence, Verdict, decide
from pipeline.support import paths, reuse
from pipeline.support.evidence import Places, read_evidence
from pipeline.support.files import atomic, read_json, sha256_file, write_json, write_text
from pipeline.support.paths import Recorded


def load_evidence(artifacts: Path, recorded: Recorded) -> Evidence:
    """Read the evidence below ``artifacts`` and what was recorded beside it.

    Raises:
        InputError: a file is missing or not JSON.
        IntegrityError: evidence or a record was changed after it was measured.
    """
    return read_evidence(Places.of_run(artifacts, recorded))


def judge(params: Params, artifacts: Path, evidence: Evidence) -> Verdict:
    """Hash what is about to be let out and judge the evidence for exactly these bytes."""
    delivered = paths.delivered_files(artifacts)
    files = Files(
        artefacts={key: sha256_file(path) for key, path in delivered.items()},
        checkpoint=sha256_file(artifacts / "checkpoint" / "model.safetensors"),
        samples=read_json(artifacts / "samples" / "samples.json")["sha256"],
    )
    return decide(params.gate, params.baseline.device, files, evidence)


def gate(params: Params, artifacts: Path, recorded: Recorded, out: Path) -> Verdict:
    """Write folder ``out`` with the verdict as JSON, Markdown and JUnit XML, and return it."""
    evidence = load_evidence(artifacts, recorded)
    verdict = judge(params, artifacts, evidence)
    judged = reuse.record(artifacts / reuse.LEDGER_FILE, evidence.parity)
    with atomic(out) as new:
        new.mkdir()
        write_json(new / "verdict.json", verdict.to_dict())
        write_text(new / "verdict.md", report.markdown(verdict, evidence, params.gate, judged))
        write_text(new / "junit.xml", report.junit(verdict))
    return verdict


def require(verdict: Verdict) -> None:
    """Stop unless the channel's rule is met.

    Raises:
        GateError: names each criterion in the way, its number, its limit and what to try.
    """
    if not verdict.passed:
        raise GateError("\n  ".join([report.headline(verdict), *report.refusals(verdict)]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit gate", description=__doc__)
    parser.add_argument(
        "--channel", choices=("candidate", "release"), help="instead of gate.channel of params.yaml"
    )
    channel = parser.parse_args(arguments).channel
    with exit_on_error():
        params = load_params()
        if channel:
            changed = params.gate.model_copy(update={"channel": channel})
            params = params.model_copy(update={"gate": changed})
        verdict = gate(params, paths.ARTIFACTS, Recorded(), paths.VERDICT)
        print(report.criteria_table(verdict))
        require(verdict)


if __name__ == "__main__":
    main()
