"""The content of a release folder, and its publication: once, never replaced."""

from __future__ import annotations

import dataclasses
import errno
import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.contract.contract import Contract
from pipeline.contract.files import CONTRACT_FILE
from pipeline.errors import IntegrityError
from pipeline.evidence.golden import Golden
from pipeline.evidence.read import Evidence, EvidencePaths
from pipeline.evidence.recompute import load_samples
from pipeline.files import open_up, write_json, write_text
from pipeline.params import Params
from pipeline.release import build
from pipeline.release.documents.write import documents
from pipeline.release.judge import Judged
from pipeline.release.manifest import SUMS_FILE, difference, format_sums
from pipeline.release.read import PARAMS_FILE, hashes
from pipeline.report import text

LABELS_FILE = "labels.txt"
VERDICT_FILE = "verdict.json"
TEXT_FILE = "verdict.md"


def fill(
    folder: Path,
    run: EvidencePaths,
    artifacts: Path,
    contract: Contract,
    judged: Judged,
    params: Params,
) -> None:
    """Write all files of a release into ``folder``; the same inputs give the same bytes."""
    evidence, verdict = judged.evidence, judged.verdict
    folder.mkdir()
    for path in paths.delivered_files(artifacts).values():
        shutil.copyfile(path, folder / path.name)
        for beside in paths.companions(path):
            shutil.copyfile(beside, folder / beside.name)
    shutil.copytree(Golden.load(run.golden).folder, folder / "golden")
    write_text(folder / CONTRACT_FILE, dataclasses.replace(contract, artefact=None).to_json())
    write_text(folder / LABELS_FILE, labels_text(contract))
    _fill_evidence(EvidencePaths.of_release(folder), run, evidence)
    write_json(folder / PARAMS_FILE, _judged_by(params))
    write_json(folder / VERDICT_FILE, verdict.to_dict())
    write_text(folder / TEXT_FILE, text.markdown(verdict, evidence, params.gate))
    build.record(folder, params, contract, artifacts)
    documents(folder, contract, verdict, evidence, params)
    write_text(folder / SUMS_FILE, format_sums(hashes(folder)))


def labels_text(contract: Contract) -> str:
    """Return the text of ``labels.txt``: a class name a line, in the order of the outputs."""
    return "".join(f"{label}\n" for label in contract.labels)


def _fill_evidence(to: EvidencePaths, run: EvidencePaths, evidence: Evidence) -> None:
    """Keep what deciding again needs: evidence, logits, labels, records of other machines.

    Of the images their hashes, and no ids, which may be names of files.
    """
    to.parity.parent.mkdir()
    for name in ("parity", "latency", "logits"):
        shutil.copyfile(getattr(run, name), getattr(to, name))
    write_json(to.samples, load_samples(run).model_dump(mode="json"))
    for target in evidence.devices.targets:
        name = f"{target}.json"
        to.recorded.devices.mkdir(exist_ok=True)
        shutil.copyfile(run.recorded.devices / name, to.recorded.devices / name)
    for path in {b.path for b in evidence.baselines}:
        (to.recorded.baselines / path).mkdir(parents=True)
        for name in (paths.BASELINE_RECORD, paths.BASELINE_LOGITS):
            shutil.copyfile(
                run.recorded.baselines / path / name, to.recorded.baselines / path / name
            )


def edge_vit_version() -> str:
    """Return the version of this edge-vit; "unknown" where it runs without being installed."""
    try:
        return importlib.metadata.version("edge-vit")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _judged_by(params: Params) -> dict[str, Any]:
    return {
        "edge_vit": edge_vit_version(),
        "gate": params.gate.model_dump(mode="json"),
        "baseline": params.baseline.model_dump(mode="json"),
    }


def publish_folder(new: Path, release: Path) -> bool:
    """Rename a finished folder to its release; return False if the same release is there already.

    A signature that the published one has got since is not a difference.

    Raises:
        IntegrityError: something else is there; it is left as it is.
    """
    open_up(new)
    try:
        # Of two at once only one can succeed: a folder that has files is never replaced.
        os.rename(new, release)
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    if not release.is_dir():
        raise IntegrityError(f"{release} is not a folder; move it away and publish again")
    changes = difference(hashes(release), hashes(new))
    if changes:
        lines = "\n  ".join(changes.lines())
        raise IntegrityError(
            f"{release} was published before, with other bytes than would be published now:\n"
            f"  {lines}\n"
            "a release is never replaced: raise release.version in params.yaml, or, if nobody "
            f"has it yet, delete {release}"
        )
    return False
