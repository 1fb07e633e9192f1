"""What a release was made from, as ``build.json``: enough to make the same bytes again, or to say
what is missing.

No time and no path of this machine: the same inputs give the same record. What was asked for is in
``params``, with local sources by name only; what came of it is told by hashes.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pipeline
from pipeline.core.contract import Contract
from pipeline.core.params import Params
from pipeline.support.files import read_json, sha256_file, write_json
from pipeline.support.machine import fingerprint

BUILD_FILE = "build.json"
SCHEMA = 1
# What decides the bytes of a delivered file.
PACKAGES = (
    *("torch", "timm", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "executorch", "torchao"),
    *("numpy", "pillow", "safetensors", "protobuf", "flatbuffers"),
)
CODE = Path(pipeline.__file__).parent
LOCK_FILE = "requirements.lock"
LOCAL = (("model", "checkpoint"), ("model", "labels"), ("samples", "source"))
LOCAL_GOLDEN = ("golden", "photographs")


def record(folder: Path, params: Params, contract: Contract, artifacts: Path) -> None:
    """Write ``build.json`` into the release ``folder`` that is being built from ``artifacts``."""
    samples = artifacts / "samples"
    content = {
        "schema": SCHEMA,
        "params": _without_paths(params),
        "inputs": {
            "checkpoint": {
                "source": contract.checkpoint.source,
                "source_sha256": contract.checkpoint.source_sha256,
                "sha256": contract.checkpoint.sha256,
            },
            "samples": {
                "sha256": read_json(samples / "samples.json")["sha256"],
                "calibration_sha256": sha256_file(samples / "calibration.npy"),
            },
        },
        **surroundings(),
    }
    write_json(folder / BUILD_FILE, content)


def surroundings() -> dict[str, Any]:
    """The code, packages and machine that this process has."""
    machine = fingerprint()
    return {
        "code": {**commit(CODE), "sha256": code_sha256(CODE), "lock_sha256": _lock_sha256()},
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": {key: machine[key] for key in ("system", "processor", "flags")},
    }


def differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What is other here than it was when the release was made, a line each."""
    lines = []
    was, now = recorded["code"], here["code"]
    if was["sha256"] != now["sha256"]:
        at = was["commit"] or "no commit"
        words = f"commit {at}" + (", with changes that were not committed" if was["dirty"] else "")
        lines.append(f"code: it was made by other code ({words}); `git checkout {at}` gives it")
        if was["commit"] is None or was["dirty"]:
            lines[-1] = lines[-1].split(";")[0]
    for name in sorted(recorded["packages"].keys() | here["packages"].keys()):
        one, other = recorded["packages"].get(name), here["packages"].get(name)
        if one != other:
            lines.append(f"{name}: it was made with {one or 'none'}, here is {other or 'none'}")
    if recorded["python"] != here["python"]:
        lines.append(f"python: it was made with {recorded['python']}, here is {here['python']}")
    for key in ("system", "processor", "flags"):
        one, other = recorded["machine"][key], here["machine"][key]
        if one != other:
            lines.append(f"machine: {key} was {_words(one)}, here it is {_words(other)}")
    return lines


def code_sha256(code: Path) -> str:
    """SHA-256 over the names and bytes of the package's own files: what ran, committed or not."""
    digest = hashlib.sha256()
    for path in sorted(code.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(code).as_posix()
            digest.update(f"{name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def commit(code: Path) -> dict[str, Any]:
    """The commit that the code is of, and whether it was changed since; null outside of git."""
    # A package that was installed into some repository's folder is no part of that repository.
    if _git(code, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {"commit": None, "dirty": None}
    changed = _git(code, "status", "--porcelain", "--", ".")
    return {"commit": _git(code, "rev-parse", "HEAD"), "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None


def _lock_sha256() -> str | None:
    lock = CODE.parent / LOCK_FILE
    return sha256_file(lock) if lock.is_file() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _without_paths(params: Params) -> dict[str, Any]:
    """Parameters, but for where on this machine something lay."""
    values = params.model_dump(mode="json")
    for section, key in (*LOCAL, LOCAL_GOLDEN):
        value = values[section][key]
        if value and Path(value).is_absolute():
            values[section][key] = Path(value).name
    return values


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
