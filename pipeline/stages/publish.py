"""Stage ``publish``: publish the files, after judging again.

A failed gate can be walked past (`dvc repro --ignore-errors`, `-s publish`) and a verdict edited by
hand, so nothing here trusts either: the run is judged anew. The release folder is built aside, goes
through `edge-vit verify` there, and is moved into place in one step, once: a release is never
replaced (docs/adr/0021). An experiment (`dvc exp run`) publishes nothing.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.contract.files import load_contract
from pipeline.errors import IntegrityError, exit_on_error
from pipeline.evidence.read import EvidencePaths
from pipeline.files import beside
from pipeline.params import Params, load_params
from pipeline.paths import Recorded
from pipeline.process import in_experiment
from pipeline.release.folder import fill, publish_folder
from pipeline.release.judge import judge, require
from pipeline.release.verification import verify


def publish(params: Params, artifacts: Path, recorded: Recorded, out: Path) -> Path:
    """Write the release folder below ``out``, unless the same is there already, and return it.

    Raises:
        IntegrityError: files, contracts and evidence disagree; the files are of another version;
            what was written is not what was judged; or this version was published before with
            other bytes.
        GateError: the channel's rule is not met.
    """
    judged = judge(params, artifacts, recorded, released=True)
    require(judged.verdict)
    contract = load_contract(artifacts / "checkpoint")
    if contract.version != params.release.version:
        raise IntegrityError(
            f"the files are of version {contract.version}, release.version is "
            f"{params.release.version} in params.yaml; run `dvc repro` to make them again"
        )
    release = out / f"{contract.name}-{params.release.version}"
    with beside(release) as new:
        run = EvidencePaths.of_run(artifacts, recorded)
        fill(new, run, artifacts, contract, judged, params)
        _require_verified(new, release)
        is_new = publish_folder(new, release)
    print(f"publish: {release}" if is_new else f"publish: {release} is there already, the same")
    return release


def _require_verified(new: Path, release: Path) -> None:
    """Stop before a folder gets the name of a release that `edge-vit verify` would refuse."""
    if problems := verify(new):
        listed = "\n  ".join(problems)
        raise IntegrityError(
            f"{release} was not published, since `edge-vit verify` refuses what was written:\n"
            f"  {listed}\nif a file was replaced meanwhile, run `dvc repro`"
        )


def main() -> None:
    with exit_on_error():
        if in_experiment():
            paths.RELEASE.mkdir(parents=True, exist_ok=True)  # an output of the stage
            print("publish: nothing, since this is an experiment; `make repro` publishes")
            return
        publish(load_params(), paths.ARTIFACTS, Recorded(), paths.RELEASE)


if __name__ == "__main__":
    main()
