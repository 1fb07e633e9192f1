"""Run the delivered files on every runtime that this machine can, and record what came of it.

For each target one file of evidence is written, which the gate reads. A target that cannot be run
here is named with the command that would enable it. Exit status 0: what was run agrees; 1: a file
does not load, run or agree somewhere, or a check failed; 2: bad input, or a target does not work.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from device_tests import bundle, cache
from device_tests.record import record
from device_tests.target import Bundle, Missing, Results
from device_tests.targets import NAMES, target
from pipeline import paths
from pipeline.errors import EdgeVitError, InputError, exit_on_error
from pipeline.evidence.devices import Devices, read_devices
from pipeline.files import sha256_file
from pipeline.params import Gate, load_params
from pipeline.report import device_matrix
from pipeline.verdict.criteria import devices
from pipeline.verdict.criteria.files import Files
from pipeline.verdict.criterion import FAIL


def device_test(
    names: Sequence[str], files: Bundle, gate: Gate, into: Path
) -> tuple[int, list[str]]:
    """Run targets and write their evidence into folder ``into``.

    Returns the exit status and what is to be said at the end.
    """
    missing: dict[str, Missing] = {}
    broken: dict[str, EdgeVitError] = {}
    for name in names:
        chosen = target(name)
        formats = tuple(key for key in chosen.FORMATS if key in files.files)
        if not formats:
            record(name, (), Results([]), files, into)
            print(f"{name}: none of its formats is in formats of params.yaml", flush=True)
            continue
        lacking = chosen.missing()
        if lacking is not None:
            missing[name] = lacking
            continue
        print(f"{name}: {chosen.WHAT} ...", flush=True)
        started = time.perf_counter()
        folder = cache.folder(name)
        try:
            chosen.install(folder)
            installed = time.perf_counter()
            found = chosen.run(files, folder)
        except EdgeVitError as error:
            broken[name] = error
            continue
        record(name, formats, found, files, into)
        ran = time.perf_counter()
        print(f"{name}: {installed - started:.0f} s to install, {ran - installed:.0f} s to run")
    return _judge(names, files, gate, into, missing, broken)


def _judge(
    names: Sequence[str],
    files: Bundle,
    gate: Gate,
    into: Path,
    missing: dict[str, Missing],
    broken: dict[str, EdgeVitError],
) -> tuple[int, list[str]]:
    """Say what the gate will say of these files."""
    found = Devices(files.golden.content, read_devices(into))
    hashes = {key: sha256_file(path) for key, path in files.files.items()}
    checkpoint = files.golden.content.artefacts["float"].sha256
    judged = devices.criteria(
        gate, Files(artefacts=hashes, checkpoint=checkpoint, samples=""), found
    )
    failed = [c for c in judged if c.outcome == FAIL]
    lines = ["", *device_matrix.lines(found, gate)]
    lines += [f"{name}: not run: {m.reason}\n    {m.command}" for name, m in missing.items()]
    lines += [f"{name}: does not work here: {error}" for name, error in broken.items()]
    lines += [f"FAIL {c.subject}: {c.note}" for c in failed]
    ran = len(names) - len(missing) - len(broken)
    lines.append(f"{ran} targets run, {len(missing)} not, {len(broken)} broken, {len(failed)} FAIL")
    return (2 if broken else 1 if failed else 0), lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the chosen targets on a run's or a release's files and record what they did."""
    parser = argparse.ArgumentParser(prog="python -m device_tests", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {' '.join(NAMES)}; all")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail, too, if a target that the release channel asks for cannot be run here",
    )
    parser.add_argument("--files", type=Path, default=paths.ARTIFACTS, help="or a release's folder")
    parser.add_argument("--into", type=Path, default=paths.DEVICES, help="where evidence goes")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.targets if name not in NAMES]
    if unknown:
        parser.error(f"no target {unknown[0]}; there are {' '.join(NAMES)}")
    names = chosen.targets or NAMES
    with exit_on_error():
        gate = load_params().gate
        status, lines = device_test(names, bundle.find(chosen.files), gate, chosen.into)
        print("\n".join(lines))
        if chosen.strict:
            _require([name for name in gate.devices.release if name in names])
    sys.exit(status)


def _require(names: Sequence[str]) -> None:
    """Raise InputError if one of the targets cannot be run here."""
    for name in names:
        if lacking := target(name).missing():
            raise InputError(f"{name} was not run: {lacking.reason}; {lacking.command}")


if __name__ == "__main__":
    main()
