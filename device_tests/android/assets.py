"""Put a release's files where the Android app looks for them: ``main`` FOLDER, ``androidTest``.

    python -m device_tests.android.assets RELEASE [OUT]

RELEASE is the release's folder. OUT is the app's source folder, by default the one here; Git
ignores what is written there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pipeline.errors import InputError, IntegrityError, exit_on_error
from pipeline.evidence.golden import GOLDEN_FILE, Golden
from pipeline.files import atomic, sha256_file
from pipeline.release.manifest import SUMS_FILE
from pipeline.release.read import read_release

SOURCES = Path(__file__).parent / "app" / "src"


def assets(model: Path, golden: Golden, out: Path = SOURCES) -> None:
    """Write the app's assets (the model and its SHA-256) and its test's (golden images).

    Raises:
        IntegrityError: the golden answers are of another file.
    """
    sha256 = sha256_file(model)
    if golden.content.artefacts["ptl"].sha256 != sha256:
        raise IntegrityError(f"{golden.folder / GOLDEN_FILE} has no answers of {model}")
    with atomic(out / "main" / "assets" / "release") as new:
        new.mkdir()
        shutil.copyfile(model, new / model.name)
        (new / SUMS_FILE).write_text(f"{sha256}  {model.name}\n")
    with atomic(out / "androidTest" / "assets" / "golden") as new:
        shutil.copytree(golden.folder, new)


def from_release(release: Path, out: Path = SOURCES) -> None:
    """Take a published release's ``.ptl``, held to the release's own SHA256SUMS.

    Raises:
        InputError: the release lacks a file.
        IntegrityError: a file is not the released one.
    """
    model = read_release(release).files.get("ptl")
    if model is None:
        raise InputError(f"{release} has no .ptl")
    assets(model, Golden.load(release / "golden"), out)


def main(arguments: list[str] | None = None) -> None:
    """Write the assets into the folder that the command line names."""
    given = sys.argv[1:] if arguments is None else arguments
    with exit_on_error():
        if len(given) not in (1, 2):
            raise InputError("use: python -m device_tests.android.assets RELEASE [OUT]")
        from_release(Path(given[0]), Path(given[1]) if len(given) == 2 else SOURCES)


if __name__ == "__main__":
    main()
