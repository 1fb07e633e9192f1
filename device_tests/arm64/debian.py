"""Unpack Debian's packages of any architecture into a folder, without root.

`apt-get` does it with lists and caches of its own, from the sources that this machine uses anyway,
and checks their signatures as always.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from device_tests.program import call

CODENAME = "bookworm"  # its Python is the last that torch 2.1.2 was released for


def lacking() -> str | None:
    """Say why packages cannot be unpacked here; None if they can."""
    release = Path("/etc/os-release")
    system = release.read_text() if release.is_file() else platform.system()
    if f"VERSION_CODENAME={CODENAME}" not in system:
        return f"ARM64 packages are taken from Debian {CODENAME}, which this is not"
    lost = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    return f"{lost[0]} is not installed" if lost else None


def unpack(architecture: str, packages: Sequence[str], into: Path) -> None:
    """Download packages, which must name all that they need, and unpack them.

    Raises:
        InputError: the package sources cannot be reached or lack one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch)
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (state / name).mkdir(parents=True)
        apt = [
            "apt-get",
            "-qq",
            f"-oAPT::Architecture={architecture}",
            f"-oAPT::Architectures={architecture}",
            "-oAPT::Sandbox::User=",
            f"-oDir::State::Lists={state / 'lists'}",
            "-oDir::State::status=/dev/null",
            f"-oDir::Cache={state / 'cache'}",
        ]
        call([*apt, "update"])
        call([*apt, "download", *packages], cwd=state / "packages")
        for package in sorted((state / "packages").glob("*.deb")):
            call(["dpkg-deb", "--extract", package, into])
