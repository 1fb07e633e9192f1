"""Which file answers: one of a release, by runtime, or the float checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.contract.contract import Contract
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE, load_contract
from pipeline.errors import InputError
from pipeline.files import sha256_file
from pipeline.formats import FORMATS
from pipeline.release.read import Release, newest_release, read_release

FLOAT = "float"


@dataclass(frozen=True)
class Chosen:
    """The file that answers."""

    path: Path
    sha256: str
    runtime: str  # the option of a format, or FLOAT
    release: str  # the name of the release's folder; of the checkpoint, where there is none
    contract: Contract  # without what is true of one file only


def select_artifact(folder: Path | None, runtime: str, artifacts: Path = paths.ARTIFACTS) -> Chosen:
    """Find the file of the release in ``folder`` (None: the newest) that ``runtime`` runs.

    Raises:
        InputError: there is no release, or no such file in it; no checkpoint, or another one.
        IntegrityError: the release's files are not those that were published.
    """
    checkpoint = artifacts / paths.CHECKPOINT.name
    if runtime == FLOAT and folder is None and newest_release(artifacts / "release") is None:
        return _float(checkpoint, None)
    release = _release(folder, artifacts)
    if runtime == FLOAT:
        return _float(checkpoint, release)
    key = next(key for key, known in FORMATS.items() if known.option == runtime)
    if key not in release.files:
        raise InputError(f"{release.folder} has no file for --runtime {runtime}; publish it again")
    contract = load_contract(release.folder)
    return Chosen(release.files[key], release.sha256[key], runtime, release.folder.name, contract)


def _release(folder: Path | None, artifacts: Path) -> Release:
    if folder is None:
        newest = newest_release(artifacts / paths.RELEASE.name)
        if newest is None:
            raise InputError(
                f"no release below {artifacts / paths.RELEASE.name}; run `dvc repro` to make one, "
                "or give the folder of one with --release"
            )
        return newest
    return read_release(folder)


def _float(checkpoint: Path, release: Release | None) -> Chosen:
    """Return the checkpoint's weights, which a release does not carry."""
    path = checkpoint / MODEL_FILE
    if not path.is_file():
        raise InputError(
            f"{path} is missing: a release carries no float weights of its own; run `dvc repro "
            "fetch` to make it, or use --runtime onnx, the same model in float"
        )
    contract, sha256 = load_contract(checkpoint), sha256_file(path)
    if release and load_contract(release.folder).checkpoint.sha256 != sha256:
        raise InputError(
            f"{path} is not what {release.folder / CONTRACT_FILE} was made from; run `dvc repro "
            "fetch` with that model, or use --runtime onnx, the same model in float"
        )
    name = release.folder.name if release else contract.name
    return Chosen(path, sha256, FLOAT, name, contract)
