"""Judge the evidence below artifacts/, and write artifacts/verdict/.

Shows each file compared with float, what failed, and what would decide what is undecided; --verbose
shows every criterion. Nothing is measured, so the same evidence gives the same verdict everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline import paths
from pipeline.commands.common import command
from pipeline.contract.files import load_contract
from pipeline.evidence.read import EvidencePaths, read_evidence
from pipeline.files import read_json
from pipeline.params import Params, load_params
from pipeline.paths import Recorded
from pipeline.release.folder import VERDICT_FILE
from pipeline.release.judge import decided, of_run, require, without_refused
from pipeline.report import comparison, text
from pipeline.stages.gate import gate
from pipeline.verdict.decide import Verdict


@command("gate", __doc__)
@click.option(
    "--channel",
    type=click.Choice(("candidate", "release")),
    help="Channel to judge for.  [default: gate.channel of params.yaml]",
)
@click.option("-v", "--verbose", is_flag=True, help="Show every criterion.")
def main(channel: str | None, verbose: bool) -> None:
    """Print and write the verdict; exit with 1 if it refuses."""
    params, artifacts, recorded = load_params(), paths.ARTIFACTS, Recorded()
    wanted = {"channel": channel or params.gate.channel}
    judged = params.model_copy(update={"gate": params.gate.model_copy(update=wanted)})
    verdict = gate(judged, artifacts, recorded, paths.VERDICT)
    print(files_table(params, artifacts, recorded))
    print()
    if verbose:
        print(text.criteria_table(verdict))
        print()
    require(verdict)
    print(conclusion(verdict, params, artifacts, recorded))


def files_table(params: Params, artifacts: Path, recorded: Recorded) -> str:
    """Return a table of each file compared with float."""
    evidence = read_evidence(EvidencePaths.of_run(artifacts, recorded))
    return comparison.files_table(evidence.parity, evidence.latency, params.gate.confidence)


def conclusion(verdict: Verdict, params: Params, artifacts: Path, recorded: Recorded) -> str:
    """The verdict, where the release is, and what would decide what is undecided; a line each."""
    lines = [
        f"edge-vit: {text.headline(verdict)}",
        _release(params, artifacts, recorded),
        text.undecided(verdict),
    ]
    return "\n".join(line for line in lines if line)


def _release(params: Params, artifacts: Path, recorded: Recorded) -> str | None:
    """Where the release of this run is: `publish` never replaces one of another run."""
    folder = artifacts / paths.RELEASE.name
    release = folder / f"{load_contract(artifacts / 'checkpoint').name}-{params.release.version}"
    if not release.is_dir():
        return None
    subject = of_run(params, artifacts, recorded)
    verdict = decided(subject, without_refused(read_evidence(subject.places)))
    if read_json(release / VERDICT_FILE) == json.loads(json.dumps(verdict.to_dict())):
        return f"release: {release}"
    return f"{release} is of another run; raise release.version in params.yaml to publish this one"


if __name__ == "__main__":
    main()
