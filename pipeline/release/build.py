"""What a release was made from, as ``build.json``: enough to make the same bytes again.

It holds no time and no path of this machine: the same inputs give the same record. ``params`` has
local sources by name only; inputs are identified by hashes. Code, packages and machine are those of
`publish`: what DVC's cache restored may have been made elsewhere, which `edge-vit rebuild` finds.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

import pipeline
from pipeline.contract.contract import Contract
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.samples import read_samples
from pipeline.files import read_bytes, sha256_file, write_json
from pipeline.params import PARAMS_FILE, Params, load_params
from pipeline.schema import Section
from pipeline.untrusted.http import without_secrets

BUILD_FILE = "build.json"
# What decides the bytes of a delivered file.
PACKAGES = (
    "torch",
    "timm",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxruntime",
    "executorch",
    "torchao",
    "numpy",
    "pillow",
    "safetensors",
    "protobuf",
    "flatbuffers",
)
NAME = ("release", "artifact")  # in the registry: no file depends on it
CODE = Path(pipeline.__file__).parent
LOCK_FILE = "requirements.lock"
LOCAL = (
    ("model", "checkpoint"),
    ("model", "labels"),
    ("samples", "source"),
    ("golden", "photographs"),
)


class Checkpoint(Section):
    """The checkpoint, and the hash of the file that it came in."""

    source: str
    source_sha256: str
    sha256: str  # of its float32 copy


class SampleSet(Section):
    """Hashes of the evaluation samples and of the calibration images."""

    sha256: str
    calibration_sha256: str


class Inputs(Section):
    """What went into the run."""

    checkpoint: Checkpoint
    samples: SampleSet


class Code(Section):
    """What ran: the hash is over the package's own files, committed or not."""

    commit: str | None
    dirty: bool | None
    sha256: str
    lock_sha256: str | None


class Machine(Section):
    """The part of a machine that decides the bytes of a file."""

    system: str
    processor: str
    flags: tuple[str, ...]


class Environment(Section):
    """The code, packages and machine of a process."""

    code: Code
    packages: dict[str, str | None]
    python: str
    machine: Machine


class Build(Section):
    """The whole of ``build.json``."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    params: Params
    inputs: Inputs
    published_by: Environment


def record(folder: Path, params: Params, contract: Contract, artifacts: Path) -> None:
    """Write ``build.json`` into the release ``folder`` that is being built from ``artifacts``."""
    samples = artifacts / "samples"
    checkpoint = contract.checkpoint
    build = Build(
        params=_without_paths(params),
        inputs=Inputs(
            checkpoint=Checkpoint(
                source=checkpoint.source,
                source_sha256=checkpoint.source_sha256,
                sha256=checkpoint.sha256,
            ),
            samples=SampleSet(
                sha256=read_samples(samples / "samples.json").sha256,
                calibration_sha256=sha256_file(samples / "calibration.npy"),
            ),
        ),
        published_by=environment(),
    )
    write_json(folder / BUILD_FILE, build.model_dump(mode="json", by_alias=True))


def read(release: Path) -> Build:
    """Read what ``release`` was made from.

    Raises:
        InputError: it has no such record.
        IntegrityError: it is not what edge-vit writes.
    """
    path = release / BUILD_FILE
    if not path.is_file():
        raise InputError(f"{release} has no {path.name}: it was published before that was written")
    try:
        return Build.model_validate_json(read_bytes(path), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise IntegrityError(
            f"{path} is not what edge-vit writes ({where}: {first['msg']}); fetch it again"
        ) from None


def environment() -> Environment:
    """Return the environment of this process."""
    machine = fingerprint()
    return Environment(
        code=Code(**commit(CODE), sha256=code_sha256(CODE), lock_sha256=_lock_sha256(CODE.parent)),
        packages={name: _version(name) for name in PACKAGES},
        python=platform.python_version(),
        machine=Machine(**{key: machine[key] for key in Machine.model_fields}),
    )


def differences(was: Environment, here: Environment) -> list[str]:
    """Return what differs here from when the release was made, a line each."""
    lines = []
    if was.code.sha256 != here.code.sha256:
        lines.append(_other_code(was.code))
    for name in sorted(was.packages.keys() | here.packages.keys()):
        one, other = was.packages.get(name), here.packages.get(name)
        if one != other:
            lines.append(f"{name}: it was made with {one or 'none'}, here is {other or 'none'}")
    if was.python != here.python:
        lines.append(f"python: it was made with {was.python}, here is {here.python}")
    for key in Machine.model_fields:
        one, other = getattr(was.machine, key), getattr(here.machine, key)
        if one != other:
            lines.append(f"machine: {key} was {_words(one)}, here it is {_words(other)}")
    return lines


def checkout_mismatches(checkout: Path, build: Build) -> list[str]:
    """Return what differs in ``checkout`` from what made a release: code, lock, parameters.

    Code that lies elsewhere (an installed package) is not compared: no checkout has it.
    """
    made, lines = build.published_by.code, []
    code = checkout / CODE.name
    if code.is_dir() and code_sha256(code) != made.sha256:
        lines.append(_other_code(made))
    if _lock_sha256(checkout) != made.lock_sha256:
        lines.append(f"{LOCK_FILE}: it was made with a different one")
    here = _without_paths(load_params(checkout / PARAMS_FILE)).model_dump()
    was = build.params.model_dump()
    if here.pop("formats") != was.pop("formats"):
        lines.append(f"{PARAMS_FILE}: formats was different")
    for section in was:
        for key, value in was[section].items():
            if here[section][key] != value and (section, key) != NAME:
                lines.append(f"{PARAMS_FILE}: {section}.{key} was different")
    return lines


def _other_code(code: Code) -> str:
    if code.commit is None:
        return "code: it was made by different code, of no commit"
    if code.dirty:
        return f"code: it was made by commit {code.commit} with changes that were not committed"
    return f"code: it was made by commit {code.commit}; `git checkout {code.commit}` gives it"


def code_sha256(code: Path) -> str:
    """SHA-256 over the names and bytes of the package's own files: what ran, committed or not."""
    digest = hashlib.sha256()
    for path in sorted(code.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(code).as_posix()
            digest.update(f"{name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def commit(code: Path) -> dict[str, Any]:
    """Return the commit of the code, and whether it was changed since; null outside of git.

    Raises:
        InputError: git refuses to read the checkout, since another user owns it.
    """
    # A package that was installed into some repository's folder is not part of that repository.
    tracked = _git(code, "ls-files", "--error-unmatch", "__init__.py")
    if "safe.directory" in tracked.stderr:  # as in a container whose workspace a runner made
        raise InputError(
            f"git refuses to read {code.parent}, since another user owns it, and a release names "
            f"its commit; run `git config --global --add safe.directory {code.parent}`"
        )
    if tracked.returncode:
        return {"commit": None, "dirty": None}
    changed = _git(code, "status", "--porcelain", "--", ".").stdout.strip()
    return {"commit": _git(code, "rev-parse", "HEAD").stdout.strip(), "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git
        return subprocess.CompletedProcess(command, 127, "", "")


def _lock_sha256(checkout: Path) -> str | None:
    lock = checkout / LOCK_FILE
    return sha256_file(lock) if lock.is_file() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _without_paths(params: Params) -> Params:
    """Return parameters without paths of this machine and without secrets in addresses."""
    values = params.model_dump()
    if "://" in params.model.checkpoint:
        values["model"]["checkpoint"] = without_secrets(params.model.checkpoint)
    for section, key in LOCAL:
        value = values[section][key]
        if value and Path(value).is_absolute():
            values[section][key] = Path(value).name
    return Params.model_validate(values)


def _words(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else ", ".join(value)
