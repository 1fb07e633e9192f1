"""Make the environment that the Makefile uses: a virtual environment with the locked packages.

Needs nothing but Python's standard library. Every package is held to the hash in
requirements.lock. Bytecode is compiled at once: without it importing timm takes twice as long, in
every stage. A stamp is written last, so an interrupted installation is finished by the next run
and a finished one costs nothing.

Use: python3 scripts/bootstrap.py [FOLDER]

TORCH_WHEELS may name an index address or a folder that has other builds of torch and torchvision,
such as CPU-only ones; the CUDA libraries are then left out.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
UV = "uv==0.13.9"
SUPPORTED = ((3, 11), (3, 13))
FROM_TORCH_WHEELS = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)$")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".venv")
    wheels = os.environ.get("TORCH_WHEELS", "")
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        sys.exit(
            f"edge-vit needs Python 3.11 to 3.13, this is {sys.version.split()[0]}; "
            "name another with `make BOOTSTRAP_PYTHON=python3.11 ...`"
        )
    stamp = folder / "edge-vit.stamp"
    wanted = hashlib.sha256(
        LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + wheels.encode()
    ).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    python = folder / "bin" / "python"
    print(f"edge-vit: installing into {folder}", flush=True)
    if not python.exists():
        run(sys.executable, "-m", "venv", str(folder))
    run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV)
    uv, options = str(folder / "bin" / "uv"), ("--compile-bytecode", "--quiet")
    install = [uv, "pip", "install", "--python", str(python), *options]
    lock = LOCK
    if wheels:
        source = "--find-links" if Path(wheels).is_dir() else "--index"
        pins = re.findall(r"^(?:torch|torchvision)==[^\s\\;]+", LOCK.read_text(), re.MULTILINE)
        run(*install, source, wheels, "--no-deps", *pins)
        lock = folder / "without-torch.lock"
        lock.write_text(without_torch(LOCK.read_text()))
    run(*install, "--no-deps", "--require-hashes", "-r", str(lock))
    run(*install, "--no-deps", "--editable", str(ROOT))
    stamp.write_text(wanted)


def without_torch(lock: str) -> str:
    """Leave out torch's own entries of a lock file, each with its hashes."""
    entries = re.split(r"^(?=[a-zA-Z0-9])", lock, flags=re.MULTILINE)
    kept = [
        e for e in entries if not FROM_TORCH_WHEELS.match(re.split(r"[=\s\[]", e, maxsplit=1)[0])
    ]
    return "".join(kept)


def run(*command: str) -> None:
    try:
        subprocess.run(command, check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"edge-vit: installing failed ({error}); mend it and run the same command again")


if __name__ == "__main__":
    main()
