"""Make the environment that the Makefile uses: a virtual environment with the locked packages.

Needs nothing but Python's standard library. Every package is held to the hash in a lock file:
requirements.lock has what `make repro` needs, requirements-dev.lock also what tests and checks
need, in the same versions. Bytecode is compiled at once: without it importing timm takes twice as
long, in every stage. A stamp is written last, so an interrupted installation is finished by the
next run and a finished one costs nothing.

Use: python3 scripts/bootstrap.py [--dev] [FOLDER]

CPU builds of torch are taken where the package index has them (the CUDA libraries are then left
out). TORCH_WHEELS may name an index address or a folder with other builds of torch and torchvision.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = "uv==0.13.9"
SUPPORTED = ((3, 11), (3, 13))
FROM_TORCH_WHEELS = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)$")


def main() -> None:
    """Make or update ``.venv`` from the lock that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(".venv"))
    parser.add_argument("--dev", action="store_true", help="with what tests and checks need")
    arguments = parser.parse_args()
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        sys.exit(
            f"edge-vit needs Python 3.11 to 3.13, this is {sys.version.split()[0]}; "
            "name another with `make BOOTSTRAP_PYTHON=python3.11 ...`"
        )
    wheels = os.environ.get("TORCH_WHEELS", "")
    if arguments.dev:
        install(arguments.folder, ROOT / "requirements-dev.lock", wheels)
    elif not is_installed(arguments.folder, ROOT / "requirements-dev.lock", wheels):
        install(arguments.folder, ROOT / "requirements.lock", wheels)


def is_installed(folder: Path, lock: Path, wheels: str) -> bool:
    """Whether ``folder`` was installed from these inputs, and to the end."""
    stamp = folder / f"{lock.stem}.stamp"
    return stamp.is_file() and stamp.read_text() == fingerprint(lock, wheels)


def fingerprint(lock: Path, wheels: str) -> str:
    """Return what an installation depends on, in one line."""
    content = lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + wheels.encode()
    return hashlib.sha256(content).hexdigest()


def install(folder: Path, lock: Path, wheels: str) -> None:
    """Install what ``lock`` has into the environment ``folder``, unless it is there."""
    if is_installed(folder, lock, wheels):
        return
    python = folder / "bin" / "python"
    text = lock.read_text()
    count = len(re.findall(r"^[a-zA-Z0-9]", text, re.MULTILINE))
    print(f"edge-vit: installing {count} packages into {folder}", flush=True)
    if not python.exists():
        run(sys.executable, "-m", "venv", str(folder))
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV)
    uv = [str(folder / "bin" / "uv"), "pip", "install", "--python", str(python), "--no-deps"]
    if not sys.stderr.isatty():
        uv.append("--quiet")
    torch = torch_builds(uv, text, wheels)
    if torch:
        run(*uv, "--compile-bytecode", *torch)
        text = without_torch(text)
    locked = folder / lock.name
    locked.write_text(text)
    run(*uv, "--compile-bytecode", "--require-hashes", "-r", str(locked))
    run(*uv, "--editable", str(ROOT))
    (folder / f"{lock.stem}.stamp").write_text(fingerprint(lock, wheels))


def torch_builds(uv: list[str], lock: str, wheels: str) -> list[str]:
    """Arguments that install other builds of torch than the lock's; none: there are no others."""
    pins = re.findall(r"^(?:torch|torchvision)==[^\s\\;]+", lock, re.MULTILINE)
    if wheels:
        return ["--find-links" if Path(wheels).is_dir() else "--index", wheels, *pins]
    builds = [f"{pin}+cpu" for pin in pins]
    asked = subprocess.run([*uv, "--dry-run", *builds], capture_output=True, check=False)
    return [] if asked.returncode else builds


def without_torch(lock: str) -> str:
    """Leave out torch's own entries of a lock file, each with its hashes."""
    entries = re.split(r"^(?=[a-zA-Z0-9])", lock, flags=re.MULTILINE)
    kept = [
        e for e in entries if not FROM_TORCH_WHEELS.match(re.split(r"[=\s\[]", e, maxsplit=1)[0])
    ]
    return "".join(kept)


def run(*command: str) -> None:
    """Run a command; end with its exit status if it fails."""
    try:
        subprocess.run(command, check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"edge-vit: installing failed ({error}); fix it and run the same command again")


if __name__ == "__main__":
    main()
