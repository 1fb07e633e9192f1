"""Stage ``gate``: read the evidence, write the verdict, and fail when the channel refuses.

No torch, no measuring: the same evidence gives the same verdict on every machine, in less than a
second. The verdict is written before the exit status says no, so that it can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import report
from pipeline.core.errors import GateError, exit_on_error
from pipeline.core.evidence import check_seal
from pipeline.core.params import Params, load_params
from pipeline.core.verdict import Files, Verdict, decide
from pipeline.support import paths
from pipeline.support.files import atomic, read_json, sha256_file, write_json, write_text

EVIDENCE_FILE = "evidence.json"


@dataclass(frozen=True)
class Evidence:
    """Sealed measurements, as the stages wrote them."""

    parity: dict[str, Any]
    latency: dict[str, Any]

    @classmethod
    def load(cls, artifacts: Path) -> Evidence:
        """Read the evidence below ``artifacts``.

        Raises:
            InputError: a file is missing or not JSON.
            IntegrityError: evidence was changed after it was measured.
        """
        read = {
            kind: check_seal(read_json(path), kind, str(path))
            for kind in ("parity", "latency")
            for path in [artifacts / kind / EVIDENCE_FILE]
        }
        return cls(**read)


def judge(params: Params, artifacts: Path, evidence: Evidence) -> Verdict:
    """Hash what is about to be let out and judge the evidence for exactly these bytes."""
    delivered = paths.delivered_files(artifacts)
    files = Files(
        artefacts={key: sha256_file(path) for key, path in delivered.items()},
        checkpoint=sha256_file(artifacts / "checkpoint" / "model.safetensors"),
        samples=read_json(artifacts / "samples" / "samples.json")["sha256"],
    )
    return decide(params.gate, params.baseline.device, files, evidence.parity, evidence.latency)


def gate(params: Params, artifacts: Path, out: Path) -> Verdict:
    """Write folder ``out`` with the verdict as JSON, Markdown and JUnit XML, and return it."""
    evidence = Evidence.load(artifacts)
    verdict = judge(params, artifacts, evidence)
    with atomic(out) as new:
        new.mkdir()
        write_json(new / "verdict.json", verdict.to_dict())
        text = report.markdown(verdict, evidence.parity, evidence.latency)
        write_text(new / "verdict.md", text)
        write_text(new / "junit.xml", report.junit(verdict))
    return verdict


def require(verdict: Verdict) -> None:
    """Stop unless the channel's rule is met.

    Raises:
        GateError: names each criterion in the way, its number, its limit and what to try.
    """
    if not verdict.passed:
        raise GateError("\n  ".join([report.headline(verdict), *report.refusals(verdict)]))


def main() -> None:
    with exit_on_error():
        verdict = gate(load_params(), paths.ARTIFACTS, paths.VERDICT)
        print(report.criteria_table(verdict))
        require(verdict)


if __name__ == "__main__":
    main()
