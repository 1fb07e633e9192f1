"""`edge-vit release`: from a published folder to a version that others can fetch.

The files are on the DVC remote and were read back before the commit that names them is written;
the tag is pushed to the git remote before there is a local one. So wherever it is interrupted,
there is no tag without its files, and the git remote alone decides which versions exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.errors import InputError, IntegrityError
from pipeline.files import read_json, sha256_file
from pipeline.registry.git import Git
from pipeline.registry.names import check_successor, version_tag
from pipeline.registry.steps import Step
from pipeline.registry.store import Store, Tree
from pipeline.registry.tags import FOLDER, MODEL, SUMS, TREE, Registry, Tag, message
from pipeline.release import build
from pipeline.release.folder import VERDICT_FILE
from pipeline.release.manifest import SIGNATURE_FILE, SUMS_FILE
from pipeline.release.signing import sign
from pipeline.release.verification import require_whole
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED

RELEASED_FOLDER = "released"  # where a tagged commit has the `.dvc` file of its release


@dataclass
class Releasing:
    """One release; its steps are methods, and their results are kept here."""

    git: Git
    store: Store
    name: str
    folder: Path
    key: Path | None = None
    why: str | None = None
    tree: Tree | None = None
    commit: str = ""
    oid: str = ""

    def __post_init__(self) -> None:
        self.parent = self.git.head()
        self.contract: Contract = load_contract(self.folder)
        self.registry = Registry.read(self.git, self.name)
        self.tag = version_tag(self.name, self.contract.version)
        if self.exists:
            self.oid = self.registry.versions()[self.contract.version].oid

    def check_version(self) -> None:
        """Refuse a version that must not be released.

        Raises:
            InputError: the version is taken or too low, the name is another model's, or HEAD is
                not what the release was made from.
        """
        model, version = self.contract.name, self.contract.version
        self.git.check_clean()
        versions = self.registry.versions()
        others = {tag.facts.get(MODEL, model) for tag in versions.values()} - {model}
        if others:
            raise InputError(
                f"{self.name} is the name of {', '.join(sorted(others))}, not of {model}; "
                "set release.artifact in params.yaml"
            )
        if self.exists:
            self._check_same(versions[version])
        else:
            check_successor(self.name, version, versions)
            self._check_made_from()

    def _check_made_from(self) -> None:
        if mismatches := build.checkout_mismatches(self.git.root, build.read(self.folder)):
            lines = "\n  ".join(mismatches)
            raise InputError(
                f"{self.folder} was not made from HEAD, but the tag would say so:\n  {lines}\n"
                "check that out and run this again; or raise release.version in params.yaml, "
                "commit and run `dvc repro`"
            )

    def _check_same(self, released: Tag) -> None:
        there = released.facts.get(SUMS)
        if there != self.sums_sha256:
            raise InputError(
                f"{self.tag} exists with other bytes (its {SUMS_FILE} is {there}, that of "
                f"{self.folder} {self.sums_sha256}); raise release.version in params.yaml and run "
                "`dvc repro`"
            )
        signed = (self.folder / SIGNATURE_FILE).exists()
        if (self.key and not signed) or released.facts.get(TREE) != self._outline().oid:
            raise InputError(
                f"{self.tag} exists with the same {SUMS_FILE} and another signature; a version "
                "does not change, sign the next one"
            )

    @property
    def sums_sha256(self) -> str:
        """SHA-256 of the release's list of hashes, which stands for all its files."""
        return sha256_file(self.folder / SUMS_FILE)

    def _outline(self) -> Tree:
        return self.store.outline(self.folder)

    @property
    def exists(self) -> bool:
        """Whether the git remote has a tag of this version."""
        return self.contract.version in self.registry.versions()

    def steps(self) -> list[Step]:
        """What is left to do, in order."""
        outline = self._outline()
        count, size = len(outline.files), f"{outline.size_bytes / 1e6:.2f} MB"
        missing = len(self.store.missing(outline))
        first = [
            Step("verify", f"{self.folder}: {count} files, {size}", self.verify, dry=True),
            Step("version", f"{self.tag}, of {self.contract.name}", self.check_version, dry=True),
        ]
        sign = Step("sign", f"{self.folder} with {self.key}", self.sign)
        files = [
            Step("push", f"{missing} of {count} files to {self.store}", self.push),
            Step("check", f"read {count} files back from the DVC remote", self.read_back),
        ]
        name = [
            Step("commit", f"{self.dvc_file} on {self.parent[:12]}, no branch", self.write_commit),
            Step("tag", f"{self.tag} to git remote {self.git.address()}", self.push_tag),
        ]
        keep = Step("keep", f"{self.tag} in this clone", self.keep)
        if not self.exists:
            return [*first, *([sign] if self.key else []), *files, *name, keep]
        kept = self.git.local_tags().get(self.tag) == self.oid
        # Somebody may have removed files from the remote since.
        return [*first, *(files if missing else []), *([] if kept else [keep])]

    @property
    def dvc_file(self) -> str:
        """Path, in the tagged commit, of the `.dvc` file of the release."""
        return f"{RELEASED_FOLDER}/{self.folder.name}.dvc"

    def verify(self) -> None:
        """Check that the folder is exactly what was published.

        Raises:
            IntegrityError: it is not.
        """
        published = f"{self.contract.name}-{self.contract.version}"
        if self.folder.resolve().name != published:
            raise IntegrityError(f"{self.folder} holds {published}; publish it again")
        require_whole(self.folder)

    def sign(self) -> None:
        """Sign the release in its folder."""
        assert self.key
        sign(self.folder, self.key)

    def push(self) -> None:
        """Upload the files to the DVC remote."""
        self.tree = self.store.push(self.folder)

    def read_back(self) -> None:
        """Read every file back from the DVC remote, and check its hash."""
        assert self.tree
        self.store.check(self.tree.oid, self.sums_sha256)

    def write_commit(self) -> None:
        """Add to the parent what DVC needs to find the files: a `.dvc` file and an artifact."""
        assert self.tree
        out: dict[str, Any] = {
            "hash": "md5",
            "md5": self.tree.oid,
            "nfiles": len(self.tree.files),
            "path": self.folder.name,
            "size": self.tree.size_bytes,
        }
        if not self.store.is_default:
            out["remote"] = self.store.name
        files = {
            self.dvc_file: yaml.safe_dump({"outs": [out]}),
            f"{RELEASED_FOLDER}/.gitignore": "*\n!.gitignore\n!*.dvc\n",
            "dvc.yaml": self._graph(),
        }
        self.commit = self.git.commit_with(self.parent, files, f"Release {self.tag}\n")

    def _graph(self) -> str:
        """`dvc.yaml` of the parent with this release as an artifact."""
        entry = {
            "path": f"{RELEASED_FOLDER}/{self.folder.name}",
            "type": "model",
            "desc": f"release {self.contract.version} of {self.contract.name}",
        }
        return with_artifact(self.git.file(self.parent, "dvc.yaml"), self.name, entry)

    def push_tag(self) -> None:
        """Write the version's tag, with the facts that are read again, and push it."""
        assert self.tree
        verdict = read_json(self.folder / VERDICT_FILE)
        counts = ", ".join(f"{verdict['counts'][key]} {key}" for key in (PASS, FAIL, UNDECIDED))
        facts = {
            MODEL: self.contract.name,
            FOLDER: self.folder.name,
            SUMS: self.sums_sha256,
            TREE: self.tree.oid,
            "Files": len(self.tree.files),
            "Size-bytes": self.tree.size_bytes,
            "Verdict": f"{verdict['channel']}: {counts}",
            "Made-from": self.parent,
        }
        text = message(f"{self.name} {self.contract.version}", self.why, facts)
        self.oid = self.git.write_tag(self.tag, self.commit, text, self.registry.latest)
        self.git.push(self.tag, self.oid)

    def keep(self) -> None:
        """Set the tag in this clone, too."""
        self.git.keep(self.tag, self.oid)


def with_artifact(graph: str, name: str, entry: Mapping[str, str]) -> str:
    """Add an artifact to the text of a `dvc.yaml`; its other lines stay as they are.

    Raises:
        InputError: it has one of that name, or its `artifacts:` are not in block style.
    """
    expected = yaml.safe_load(graph) or {}
    artifacts = expected["artifacts"] = expected.get("artifacts") or {}
    if name in artifacts:
        raise InputError(
            f"dvc.yaml has an artifact {name} already; set release.artifact in params.yaml"
        )
    artifacts[name] = dict(entry)
    head = re.search(r"^artifacts:[ ]*(#.*)?\n(?:[ ]*(?:#.*)?\n)*(?P<indent> +)?", graph, re.M)
    indent = (head and head["indent"]) or "  "
    lines = "".join(f"{indent * 2}{key}: {json.dumps(value)}\n" for key, value in entry.items())
    added = f"{indent}{name}:\n{lines}"
    if head:
        start = graph.index("\n", head.start()) + 1
        new = graph[:start] + added + graph[start:]
    else:
        new = f"{graph}\nartifacts:\n{added}"
    if yaml.safe_load(new) != expected:
        raise InputError("dvc.yaml: `artifacts:` must be in block style, an artifact a few lines")
    return new
