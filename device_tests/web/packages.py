"""What the page takes from npm, with the versions and hashes of ``package-lock.json``."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from device_tests import cache
from device_tests.program import call

HERE = Path(__file__).parent
FILES = ("package.json", "package-lock.json")
INSTALL = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")


def install(folder: Path, wanted: Path = HERE) -> Path:
    """Install what the lock in folder ``wanted`` names into ``folder``; return ``node_modules``.

    Raises:
        InputError: npm is missing or failed.
    """
    recipe = "\n".join([" ".join(INSTALL), *((wanted / name).read_text() for name in FILES)])
    return cache.made(folder / "npm", recipe, partial(_fill, wanted)) / "node_modules"


def _fill(wanted: Path, folder: Path) -> None:
    for name in FILES:
        shutil.copyfile(wanted / name, folder / name)
    call(INSTALL, cwd=folder)
