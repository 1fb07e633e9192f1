"""The registry's use of git: read, write commits and tags as objects, and push those.

Nothing here touches the user's branch, index or work tree. The `git` command is used rather than a
library, since it knows the user's credentials, hooks and identity.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import EdgeVitError, InputError, NetworkError, first_of, shown

INPUTS = "pipeline", "params.yaml", "dvc.yaml"  # untracked files there change what is made


@dataclass(frozen=True)
class Git:
    """The repository at ``root`` and the remote that tags are pushed to."""

    root: Path
    remote: str

    @classmethod
    def open(cls, root: Path, remote: str | None = None) -> Git:
        """Open the repository whose top is ``root``.

        Raises:
            InputError: there is none, or no remote that is meant.
        """
        git = cls(root, "")
        if git.run("rev-parse", "--show-prefix").strip():
            raise InputError("run this at the top of the git repository, where dvc.yaml is")
        remotes = git.run("remote").split()
        if remote is None and (len(remotes) == 1 or "origin" in remotes):
            remote = "origin" if "origin" in remotes else remotes[0]
        if remote not in remotes:
            raise InputError(
                f"there is no git remote {remote or 'origin'} to push tags to (there are: "
                f"{', '.join(remotes) or 'none'}); `git remote add origin ADDRESS`"
            )
        return cls(root, remote)

    def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        error: type[EdgeVitError] = InputError,
    ) -> str:
        """Run git and return what it prints; raise ``error`` with its complaint if it fails."""
        ran = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            input=stdin,
            env=os.environ | {"LC_ALL": "C"} | dict(environment or {}),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if ran.returncode:
            lines = [line for line in ran.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith(("fatal:", "error:", " ! "))]
            reason = shown((errors or lines or ["no message"])[0].strip(), limit=300)
            raise error(f"git {arguments[0]} failed: {reason}")
        return ran.stdout

    def address(self) -> str:
        """Return the address of the git remote."""
        return self.run("remote", "get-url", self.remote).strip()

    def head(self) -> str:
        """Return the commit that is checked out."""
        return self.run("rev-parse", "--verify", "HEAD^{commit}").strip()

    def file(self, commit: str, path: str) -> str:
        """Return the text of a file in a commit."""
        return self.run("show", f"{commit}:{path}")

    def lock_file(self) -> Path:
        """Return the file that commands of the registry lock, one for all work trees."""
        common = self.run("rev-parse", "--git-common-dir").strip()
        return self.root / common / "edge-vit-registry.lock"

    def check_clean(self) -> None:
        """Refuse to release when HEAD may not be what the release was made from.

        Raises:
            InputError: tracked files differ from HEAD, or code or parameters are not tracked.
        """
        changed = self.run("status", "--porcelain", "--untracked-files=no").splitlines()
        changed += self.run("status", "--porcelain", "--", *INPUTS).splitlines()
        if changed:
            names = sorted({line[3:] for line in changed})
            raise InputError(
                f"not committed: {first_of(names, 3)}; the tag could not say what the "
                "release was made from. Commit (or stash), run `dvc repro` and then this again"
            )

    def commit_with(self, parent: str, files: Mapping[str, str], message: str) -> str:
        """Write a commit object: ``parent``'s tree with ``files`` (path to text) in it."""
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self.run("read-tree", parent, environment=index)
            for path, text in files.items():
                blob = self.run("hash-object", "-w", "--stdin", stdin=text).strip()
                entry = f"100644,{blob},{path}"
                self.run("update-index", "--add", "--cacheinfo", entry, environment=index)
            tree = self.run("write-tree", environment=index).strip()
        return self.run("commit-tree", tree, "-p", parent, "-F", "-", stdin=message).strip()

    def write_tag(self, name: str, commit: str, message: str, after: int) -> str:
        """Write an annotated tag as an object, dated later than ``after`` (seconds since 1970).

        DVC takes the latest tag of a stage, to the second; clocks of others may be ahead.
        """
        who, _, zone = self.run("var", "GIT_COMMITTER_IDENT").strip().rsplit(" ", 2)
        when = max(int(time.time()), after + 1)
        head = f"object {commit}\ntype commit\ntag {name}\ntagger {who} {when} {zone}\n\n"
        return self.run("mktag", stdin=head + message).strip()

    def push(self, tag: str, oid: str) -> None:
        """Push a tag object to the remote, where no tag of this name may be.

        Raises:
            NetworkError: the remote cannot be reached or refuses.
        """
        ref = f"refs/tags/{tag}"
        self.run("push", "--atomic", "--quiet", self.remote, f"{oid}:{ref}", error=NetworkError)

    def keep(self, tag: str, oid: str) -> None:
        """Set the local tag to the object that was pushed."""
        self.run("update-ref", f"refs/tags/{tag}", oid)

    def local_tags(self) -> dict[str, str]:
        """Return the objects of this clone's tags, by name."""
        form = "--format=%(refname:lstrip=2)%09%(objectname)"
        lines = self.run("for-each-ref", form, "refs/tags").splitlines()
        return dict(line.split("\t") for line in lines)

    def remote_tags(self, *patterns: str) -> dict[str, str]:
        """Fetch the remote's annotated tags, without refs; return their objects by name."""
        wanted = [f"refs/tags/{pattern}" for pattern in patterns]
        listed = self.run("ls-remote", self.remote, *wanted, error=NetworkError).splitlines()
        refs = {ref: oid for oid, ref in (line.split("\t") for line in listed)}
        tags = {ref: oid for ref, oid in refs.items() if f"{ref}^{{}}" in refs}
        self._fetch(tags)
        return {ref.removeprefix("refs/tags/"): oid for ref, oid in tags.items()}

    def _fetch(self, refs: Mapping[str, str]) -> None:
        """Fetch the objects that this clone lacks, without writing a ref."""
        asked = "".join(f"{oid}\n" for oid in refs.values())
        answers = self.run("cat-file", "--batch-check", stdin=asked).splitlines()
        absent = {line.split()[0] for line in answers if line.endswith(" missing")}
        wanted = "".join(f"{ref}\n" for ref, oid in refs.items() if oid in absent)
        if wanted:
            options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--stdin")
            self.run("fetch", *options, self.remote, stdin=wanted, error=NetworkError)
