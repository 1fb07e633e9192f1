"""A git repository with a git remote and a DVC remote, and what has to be true of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.files import write_json, write_text
from pipeline.params import load_params
from pipeline.release.build import BUILD_FILE, code_sha256
from pipeline.release.manifest import SIGNATURE_FILE, SUMS_FILE, format_sums, parse_sums
from pipeline.release.read import hashes
from tests.contract.test_contract import CONTRACT
from tests.release import materials
from tests.verdict import builders
from tests.verdict.test_decide import recorded

ROOT = Path(__file__).parent.parent.parent
MODEL = "deit_tiny_patch16_224.fashion_mnist"
PUSH = "push of the tag"  # a step within step `tag`: the object is written, and not pushed
GRAPH = """\
stages:
  publish:
    cmd: python -m pipeline.stages.publish
    outs:
      - artifacts/release: {persist: true}

artifacts:
  release:
    path: artifacts/release
"""
IDENTITY = {
    **{f"GIT_{who}_NAME": "Ann" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "ann@example.org" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}


@dataclass(frozen=True)
class Ran:
    status: int
    text: str


class Forker:
    """Runs commands through `forker.py`; see there."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.registry.forker"],
            cwd=ROOT,
            env=os.environ | IDENTITY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, request: dict[str, Any]) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


@dataclass(frozen=True)
class Registry:
    """``work`` is the clone that releases; ``origin`` its git remote, ``store`` its DVC remote."""

    base: Path
    forker: Forker
    small: bool = True

    @classmethod
    def make(cls, base: Path, forker: Forker, small: bool = True) -> Registry:
        registry = cls(base, forker, small)
        git(base, "init", "-q", "--bare", "-b", "main", "origin.git")
        git(base, "init", "-q", "-b", "main", "work")
        (registry.work / ".dvc").mkdir()
        (registry.work / "artifacts").mkdir()
        for name in ("params.yaml", ".dvc/.gitignore", "artifacts/.gitignore"):
            shutil.copyfile(ROOT / name, registry.work / name)
        write_text(registry.work / "dvc.yaml", GRAPH if small else (ROOT / "dvc.yaml").read_text())
        git(registry.work, "remote", "add", "origin", str(registry.origin))
        registry.remote_is(str(registry.store))
        return registry

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def origin(self) -> Path:
        return self.base / "origin.git"

    @property
    def store(self) -> Path:
        return self.base / "store"

    def remote_is(self, url: str, **options: str) -> None:
        """Let ``url`` be the DVC remote, committed and pushed."""
        lines = "".join(f"    {key} = {value}\n" for key, value in {"url": url, **options}.items())
        text = f"[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n{lines}"
        write_text(self.work / ".dvc" / "config", text)
        self.commit("a remote")
        self.push()

    def push(self) -> None:
        git(self.work, "push", "-q", "origin", "main")

    def commit(self, message: str) -> None:
        git(self.work, "add", "-A")
        git(self.work, "commit", "-q", "-m", message)

    def publish(self, version: str, content: str = "weights", channel: str = "candidate") -> Path:
        """Write a small release as `publish` does, with a real contract, verdict and list; made
        from a commit whose parameters have the version."""
        folder = self.work / "artifacts" / "release" / f"{MODEL}-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        self.set_version(version)
        contract = dataclasses.replace(CONTRACT, name=MODEL, version=version)
        case = builders.case()
        if channel == "release":
            case = dataclasses.replace(case, gate=builders.gate("release"))
            case.baselines = (recorded(case),)
        write_text(folder / "contract.json", contract.to_json())
        write_json(folder / "verdict.json", case.decide().to_dict())
        write_json(folder / BUILD_FILE, self._build())
        write_text(folder / f"{MODEL}-{version}.ptl", f"{version} {content}" * 9999)
        write_text(folder / "evidence" / "parity.json", "{}\n")
        write_text(folder / SUMS_FILE, format_sums(hashes(folder)))
        return folder

    def set_version(self, version: str) -> None:
        path = self.work / "params.yaml"
        old = path.read_text()
        new = re.sub(r"(?m)^(  version: ).*$", rf"\g<1>{version}", old)
        if new != old:
            write_text(path, new)
            self.commit(f"version {version}")
            self.push()

    def _build(self) -> Any:
        """What `publish` records of this checkout."""
        code = self.work / "pipeline"
        build = materials.build(
            sha256=code_sha256(code) if code.is_dir() else "d" * 64, lock_sha256=None
        )
        build = build.model_copy(update={"params": load_params(self.work / "params.yaml")})
        return build.model_dump(mode="json", by_alias=True)

    def edge_vit(
        self, *arguments: str, kill: str | None = None, where: Path | None = None, dvc: bool = False
    ) -> Ran:
        """Run a command, or one of DVC; with ``kill`` it dies before the step of that name."""
        out = self.base / "out.txt"
        request = {
            "where": str(where or self.work),
            "arguments": arguments,
            "kill": kill,
            "dvc": dvc,
        }
        status = self.forker.run(request | {"small": self.small, "out": str(out)})
        return Ran(status, out.read_text())

    def do(self, *arguments: str, where: Path | None = None) -> str:
        """Run a command that has to succeed, and do what it says."""
        ran = self.edge_vit(*arguments, "--yes", where=where)
        assert ran.status == 0, ran.text
        return ran.text

    def release(self, version: str, **options: str) -> None:
        self.do("release", str(self.publish(version, **options)))

    def tags(self, where: Path | None = None) -> dict[str, str]:
        form = "--format=%(refname:lstrip=2) %(objectname)"
        listed = git(where or self.origin, "for-each-ref", form, "refs/tags").splitlines()
        return dict(line.split(" ") for line in listed)

    def state(self) -> dict[str, Any]:
        """Everything that others could notice, and the clone's branch, index and work tree."""
        return {
            "origin": git(self.origin, "for-each-ref"),
            "work": git(self.work, "for-each-ref"),
            "status": git(self.work, "status", "--porcelain", "--branch"),
            "index": git(self.work, "ls-files", "--stage"),
            "store": {
                str(path): (path.stat().st_size, path.stat().st_mtime_ns)
                for path in sorted(self.store.rglob("*"))
                if path.is_file()
            },
        }

    def fetched(self, *which: str) -> Path:
        """What `dvc artifacts get` brings in a clone that was made just now."""
        clone = self.base / "clone"
        shutil.rmtree(clone, ignore_errors=True)
        git(self.base, "clone", "-q", str(self.origin), "clone")
        arguments = ("artifacts", "get", ".", "deit-tiny", "-o", "got", *which)
        ran = self.edge_vit(*arguments, where=clone, dvc=True)
        assert ran.status == 0, ran.text
        return clone / "got"

    def check_tags(self) -> None:
        """Every tag of the git remote and of the clone has its files, whole, on the DVC remote."""
        for where in (self.origin, self.work):
            for tag in self.tags(where):
                check_files(where, tag, self.store)


def check_files(repository: Path, tag: str, store: Path) -> None:
    """Follow a tag to its files as DVC does, and hold them to their hashes."""
    listed = git(repository, "ls-tree", "-r", "--name-only", tag, "released/").split()
    (path,) = [name for name in listed if name.endswith(".dvc")]
    (out,) = yaml.safe_load(git(repository, "show", f"{tag}:{path}"))["outs"]
    files = {e["relpath"]: at(store, e["md5"]) for e in json.loads(at(store, out["md5"]))}
    sums = parse_sums(files[SUMS_FILE].decode(), SUMS_FILE)
    assert sums.keys() == files.keys() - {SUMS_FILE, SIGNATURE_FILE}
    for name, digest in sums.items():
        assert hashlib.sha256(files[name]).hexdigest() == digest, name


def at(store: Path, md5: str) -> bytes:
    """An object of a DVC remote."""
    content = (store / "files" / "md5" / md5[:2] / md5[2:]).read_bytes()
    assert hashlib.md5(content).hexdigest() == md5.removesuffix(".dir")
    return content


def git(where: Path, *arguments: str) -> str:
    environment = os.environ | IDENTITY
    ran = subprocess.run(
        ["git", *arguments], cwd=where, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
