"""Build a release again from what it records, and compare each file byte by byte.

Run from the root of a checkout, in the environment that made it: what differs here (code, packages,
processor) is listed, and stops it unless --anyway is given. Samples are needed only where the files
depend on them: where a rewrite, ranges or rounding come from the calibration images.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from pipeline import paths
from pipeline.commands.common import PATH, command
from pipeline.contract.contract import Contract
from pipeline.contract.files import CONTRACT_FILE, load_contract
from pipeline.errors import EdgeVitError, InputError, IntegrityError
from pipeline.evidence.samples import read_samples
from pipeline.files import sha256_file, write_text
from pipeline.params import Params
from pipeline.release import build
from pipeline.release.bytewise import difference
from pipeline.release.folder import LABELS_FILE, labels_text
from pipeline.release.verification import require_whole
from pipeline.report.table import columns


def rebuild(params: Params, inputs: build.Inputs, into: Path) -> dict[str, Path]:
    """Make the files of a release below ``into``; return each by its name in the release.

    Raises:
        InputError: checkpoint or samples are not at hand.
        IntegrityError: they are not those that the release was made from.
    """
    from pipeline.stages import chain

    checkpoint, samples = into / paths.CHECKPOINT.name, into / paths.SAMPLES.name
    contract = _checkpoint(params, inputs.checkpoint, checkpoint)
    if params.calibrated:
        _samples(params, inputs.samples, contract, samples)
    chain.run(params, into, *chain.stages_of(params.formats))
    write_text(into / LABELS_FILE, labels_text(contract))
    made = [into / LABELS_FILE, checkpoint / CONTRACT_FILE]
    for path in paths.delivered_files(into).values():
        made += sorted(path.parent.iterdir())  # with what lies beside it
    return {path.name: path for path in made}


def _checkpoint(params: Params, recorded: build.Checkpoint, into: Path) -> Contract:
    from pipeline.stages.fetch import fetch

    try:
        fetch(params, into)
    except EdgeVitError as error:
        raise InputError(
            f"the checkpoint {recorded.source} (SHA-256 {recorded.source_sha256}) is not at "
            f"hand: {error}; give its path with --checkpoint"
        ) from None
    contract = load_contract(into)
    for key, what in (("source_sha256", "the checkpoint"), ("sha256", "its float32 copy")):
        found, expected = getattr(contract.checkpoint, key), getattr(recorded, key)
        if found != expected:
            raise IntegrityError(
                f"{what} has SHA-256 {found}, the release was made from {expected}; give the "
                "right one with --checkpoint"
            )
    return contract


def _samples(params: Params, recorded: build.SampleSet, contract: Contract, into: Path) -> None:
    from pipeline.images.samples import CALIBRATION_FILE, SAMPLES_FILE
    from pipeline.stages.samples import samples

    try:
        samples(params.samples, contract, into)
    except EdgeVitError as error:
        raise InputError(
            f"the samples are not at hand: {error}; give their path with --samples"
        ) from None
    found = {
        "sha256": read_samples(into / SAMPLES_FILE).sha256,
        "calibration_sha256": sha256_file(into / CALIBRATION_FILE),
    }
    for key, what in (("sha256", "the samples"), ("calibration_sha256", "the calibration images")):
        expected = getattr(recorded, key)
        if found[key] != expected:
            raise IntegrityError(
                f"{what} of {params.samples.source} are others: {found[key]}, the release was made "
                f"with {expected}; give the right ones with --samples"
            )


def located(
    params: Params, release: Path, scratch: Path, checkpoint: Path | None, samples: Path | None
) -> Params:
    """Recorded parameters, with where their inputs are now; links to them are put into ``scratch``.

    A contract has the name of the checkpoint's file in it, so a link gives it the one that it had.
    """
    model = params.model
    if checkpoint is not None:
        named = scratch / Path(model.checkpoint).name
        named.symlink_to(checkpoint.resolve())
        model = model.model_copy(update={"checkpoint": str(named)})
    if model.labels is not None and model.labels.suffix and not model.labels.is_file():
        model = model.model_copy(update={"labels": release / LABELS_FILE})
    chosen = params.samples
    if samples is not None:
        chosen = chosen.model_copy(update={"source": samples})
    return params.model_copy(update={"model": model, "samples": chosen})


def compare(release: Path, made: Mapping[str, Path]) -> dict[str, str | None]:
    """Where each file that was made differs from the release's; None where it does not."""
    found: dict[str, str | None] = {}
    for name, path in made.items():
        published = release / name
        found[name] = difference(published, path) if published.is_file() else "not in the release"
    return found


def table(found: Mapping[str, str | None]) -> str:
    """Return a table of the files and what differs in each; None is nothing."""
    rows = [(name, f"DIFFERS: {where}" if where else "identical") for name, where in found.items()]
    return columns(rows, ("file", "rebuilt"))


@command("rebuild", __doc__)
@click.argument("release", type=PATH, metavar="DIR")
@click.option("--checkpoint", type=PATH, metavar="PATH", help="Where the checkpoint is now.")
@click.option("--samples", type=PATH, metavar="PATH", help="Where the images are now.")
@click.option("--anyway", is_flag=True, help="Build although code, packages or machine differ.")
def main(release: Path, checkpoint: Path | None, samples: Path | None, anyway: bool) -> None:
    """Build a release again and compare it byte by byte."""
    with tempfile.TemporaryDirectory() as scratch:
        require_whole(release)
        recorded = build.read(release)
        other = build.differences(recorded.published_by, build.environment())
        if other and not anyway:
            lines = "\n  ".join(other)
            raise InputError(
                f"this is not what {release.name} was made by, so other bytes would prove "
                f"nothing:\n  {lines}\nfix that, or compare all the same with --anyway"
            )
        for line in other:
            print(f"edge-vit: {line}", file=sys.stderr)
        folder = Path(scratch)
        params = located(recorded.params, release, folder, checkpoint, samples)
        results = compare(release, rebuild(params, recorded.inputs, folder / "made"))
    print(table(results))
    differ = sum(where is not None for where in results.values())
    print(
        f"{release}: {differ} of {len(results)} files differ"
        if differ
        else f"{release}: rebuilt, every file the same bytes"
    )
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
