"""An ARM64 Python under qemu-user, with the plugin that counts instructions, in the cache."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from device_tests.arm64 import debian
from device_tests.cache import made
from device_tests.program import call

CPU = "cortex-a76"  # a phone's core with dot-product instructions, of 2018
PLUGIN_SOURCE = Path(__file__).parent / "count.c"
QEMU = (
    *("qemu-user", "libcapstone4", "libffi8", "libglib2.0-0", "libgmp10", "libgnutls30"),
    *("libhogweed6", "libidn2-0", "libnettle8", "libnuma1", "libp11-kit0", "libpcre2-8-0"),
    *("libtasn1-6", "libunistring2", "liburing2", "zlib1g"),
)
PYTHON = (
    *("python3.11", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libbz2-1.0", "libc6", "libexpat1", "libffi8", "libgcc-s1", "libgomp1", "liblzma5"),
    *("libsqlite3-0", "libssl3", "libstdc++6", "libuuid1", "zlib1g"),
)
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
CC = ("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden")
PLATFORM = "aarch64-manylinux_2_35"  # Debian 12 has glibc 2.36
UV = (sys.executable, "-m", "uv")


@dataclass(frozen=True)
class Emulator:
    """What `install` made below folder ``cache``."""

    cache: Path

    def install(self) -> None:
        """Unpack qemu and an ARM64 Python, and build the plugin, unless they are there."""
        for name, architecture, packages in (("qemu", "amd64", QEMU), ("root", "arm64", PYTHON)):
            unpack = partial(debian.unpack, architecture, packages)
            made(self.cache / name, f"{debian.CODENAME} {architecture} {packages}", unpack)
        made(self.cache / "plugin", PLUGIN_SOURCE.read_text() + " ".join(CC), _build_plugin)

    def site(self, lock: Path) -> Path:
        """The folder with the ARM64 wheels of a lock file, installed unless it is there."""

        def install(folder: Path) -> None:
            platform = ["--python-platform", PLATFORM, "--python-version", "3.11"]
            checked = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
            where: list[str | Path] = ["--target", folder, "--requirements", lock]
            call([*UV, "pip", "install", "--quiet", *platform, *checked, *where])

        return made(self.cache / lock.stem, lock.read_text(), install)

    def command(self, counts: Path | None = None) -> list[str | Path]:
        """The command that runs ARM64 Python; counts of instructions go to file ``counts``."""
        qemu = self.cache / "qemu" / "usr" / "bin" / "qemu-aarch64"
        plugin: list[str | Path] = []
        if counts is not None:
            plugin = ["-plugin", f"{self.cache / 'plugin' / 'count.so'},out={counts}"]
        root = self.cache / "root"
        return [
            *(qemu, "-U", "LD_LIBRARY_PATH", "-cpu", CPU, *plugin),
            *("-L", root, root / "usr" / "bin" / "python3.11"),
        ]

    def environment(self, site: Path | None = None) -> dict[str, str]:
        """What :meth:`command` needs in its environment."""
        folders = [str(self.cache / "qemu" / folder) for folder in LIBRARIES]
        values = {"LD_LIBRARY_PATH": os.pathsep.join(folders), "PYTHONHASHSEED": "0"}
        return values if site is None else values | {"PYTHONPATH": str(site)}

    def version(self) -> str:
        """The version of qemu, e.g. "7.2.22"."""
        qemu = self.command()[0]
        return call([qemu, "--version"], env=self.environment()).split()[2]


def _build_plugin(folder: Path) -> None:
    call([*CC, "-o", folder / "count.so", PLUGIN_SOURCE])
