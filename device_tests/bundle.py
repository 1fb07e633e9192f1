"""What is to be run: the files of ``artifacts/`` or of a release, with their golden answers."""

from __future__ import annotations

from pathlib import Path

from device_tests.target import Bundle
from pipeline.contract.files import load_contract
from pipeline.evidence.golden import Golden
from pipeline.paths import delivered_files
from pipeline.release.manifest import SUMS_FILE
from pipeline.release.read import last_release, read_release


def find(folder: Path) -> Bundle:
    """Find what ``dvc repro`` left in ``folder``, or the release that it is.

    Raises:
        InputError: a file is missing; the message says how to make it.
        IntegrityError: the golden folder or a release is not what was written.
    """
    golden = Golden.load(folder / "golden")
    if (folder / SUMS_FILE).is_file():
        return Bundle(read_release(folder).files, golden)
    contract = load_contract(folder / "checkpoint")
    before = last_release(folder / "release", contract.name, contract.version)
    return Bundle(delivered_files(folder), golden, before)
