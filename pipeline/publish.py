"""Stage ``publish``: let the files out, after deciding again.

A failed gate can be walked past (`dvc repro --ignore-errors`, `-s publish`) and a verdict edited by
hand, so nothing here trusts either: the files are hashed, what parity says is computed again from
the logits it rests on, and the criteria are judged anew. The release folder is built aside and
moved into place in one step; a failure leaves the last good release as it was.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import report
from pipeline.core.contract import Contract
from pipeline.core.errors import IntegrityError, exit_on_error
from pipeline.core.measures import against_float, between_steps
from pipeline.core.params import Params, load_params
from pipeline.core.verdict import Evidence, Verdict
from pipeline.gate import EVIDENCE_FILE, judge, load_evidence, require
from pipeline.support import paths, reuse
from pipeline.support.contracts import load_contract
from pipeline.support.files import atomic, read_json, sha256_file, write_json, write_text
from pipeline.support.golden import Golden
from pipeline.support.logits import load_logits
from pipeline.support.paths import Recorded
from pipeline.support.releases import SUMS_FILE

LABELS_FILE = "labels.txt"


def publish(params: Params, artifacts: Path, recorded: Recorded, out: Path) -> Path:
    """Write the release folder below ``out`` and return it.

    Raises:
        IntegrityError: evidence and logits disagree, or evidence was changed.
        GateError: the channel's rule is not met.
    """
    evidence = load_evidence(artifacts, recorded)
    _measure_again(evidence.parity, artifacts)
    verdict = judge(params, artifacts, evidence)
    require(verdict)
    contract = load_contract(artifacts / "checkpoint")
    release = out / f"{contract.name}-{params.release.version}"
    with atomic(release) as new:
        _fill(new, artifacts, contract, verdict, evidence, params)
    return release


def _measure_again(parity: Mapping[str, Any], artifacts: Path) -> None:
    """Compute parity's numbers again from the logits; they must be the evidence's, every digit."""
    samples = read_json(artifacts / "samples" / "samples.json")
    labels = None if None in samples["labels"] else np.array(samples["labels"], np.int64)
    logits = load_logits(artifacts, parity)
    floor = parity["noise_floor"]["max_abs"]
    for key, recorded in parity["artefacts"].items():
        _same(key, recorded, against_float(logits["reference"], logits[key], labels, floor))
    for step, recorded in parity["steps"].items():
        before, after = logits[recorded["before"]], logits[recorded["after"]]
        count = min(len(before), len(after))
        _same(step, recorded, between_steps(before[:count], after[:count]))


def _same(subject: str, recorded: dict[str, Any], measured: dict[str, Any]) -> None:
    for key, value in measured.items():
        if recorded.get(key) != value:
            raise IntegrityError(
                f"parity evidence says {key} = {recorded.get(key)} of {subject}, its logits say "
                f"{value}: it was edited; run `dvc repro --force parity`"
            )


def _fill(
    folder: Path,
    artifacts: Path,
    contract: Contract,
    verdict: Verdict,
    evidence: Evidence,
    params: Params,
) -> None:
    (folder / "evidence").mkdir(parents=True)
    for path in paths.delivered_files(artifacts).values():
        shutil.copyfile(path, folder / path.name)
        for beside in paths.companions(path):
            shutil.copyfile(beside, folder / beside.name)
    for kind in ("parity", "latency"):
        shutil.copyfile(artifacts / kind / EVIDENCE_FILE, folder / "evidence" / f"{kind}.json")
    golden = Golden.load(artifacts / "golden")
    shutil.copytree(golden.folder, folder / "golden")
    for target, found in evidence.devices.targets.items():
        if found["golden"] == golden.seal:
            write_json(folder / "evidence" / "devices" / f"{target}.json", found)
    write_text(folder / "contract.json", dataclasses.replace(contract, artefact=None).to_json())
    write_text(folder / LABELS_FILE, "".join(f"{label}\n" for label in contract.labels))
    write_json(folder / "verdict.json", verdict.to_dict())
    judged = reuse.count(artifacts / reuse.LEDGER_FILE, evidence.parity["samples"]["sha256"])
    text = report.markdown(verdict, evidence, params.gate, judged)
    write_text(folder / "verdict.md", text)
    listed = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in listed]
    write_text(folder / SUMS_FILE, "".join(sums))


def main() -> None:
    with exit_on_error():
        release = publish(load_params(), paths.ARTIFACTS, Recorded(), paths.RELEASE)
        print(f"published {release}")


if __name__ == "__main__":
    main()
