"""The files of releases on a DVC remote: uploaded, and read back before anything names them.

DVC names objects by MD5 and takes an existing one for whole, though a server that died during an
upload may have kept half of it. So every file is read back from the remote and compared with the
SHA-256 of the release's own list; damaged ones are removed and sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, IntegrityError, NetworkError, shown
from pipeline.files import CHUNK_BYTES
from pipeline.release.manifest import SUMS_FILE, UNLISTED, parse_sums

AT_ONCE = 4  # files that are read at the same time
NO_REMOTE = "there is no DVC remote to push files to; `dvc remote add --default NAME ADDRESS`"


@dataclass(frozen=True)
class Tree:
    """A folder as DVC knows it: ``oid`` ends with `.dir`, ``files`` are MD5s by relative path."""

    oid: str
    files: Mapping[str, str]
    size_bytes: int = 0


class Store:
    """A DVC remote of the repository at ``root``; make one with :func:`open_store`."""

    def __init__(self, repo: Any, name: str) -> None:
        self.repo, self.name = repo, name
        self.remote = repo.cloud.get_remote_odb(name)

    @property
    def address(self) -> str:
        """Address of the remote, such as `s3://bucket/folder`."""
        return str(self.remote.fs.unstrip_protocol(self.remote.path))

    @property
    def is_default(self) -> bool:
        """Whether it is the repository's default remote."""
        return bool(self.repo.config["core"].get("remote") == self.name)

    def outline(self, folder: Path) -> Tree:
        """Hash a folder, without storing anything."""
        return self._build(folder, dry_run=True)

    def push(self, folder: Path) -> Tree:
        """Copy a folder into the cache and to the remote; whole files that are there stay.

        Raises:
            NetworkError: the remote cannot be reached, or did not take every file.
        """
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.transfer import transfer

        tree = self._build(folder)
        with self._reaching():
            for oid in self._broken(tree):
                self.remote.fs.remove(self.remote.oid_to_path(oid))
            cache = self.repo.cache.local
            # Without DVC's index of what a remote has: it would not look whether it still is there.
            asked = {HashInfo("md5", tree.oid)}
            failed = transfer(cache, self.remote, asked, shallow=False).failed
        if failed:
            raise NetworkError(f"{self} did not take {len(failed)} files; run this again to resume")
        return tree

    def missing(self, tree: Tree) -> list[str]:
        """Return the relative paths of a folder's files that the remote lacks."""
        with self._reaching():
            there = set(self.remote.oids_exist([*tree.files.values(), tree.oid]))
        absent = [path for path, oid in tree.files.items() if oid not in there]
        return absent if absent or tree.oid in there else ["their list"]

    def read(self, tree: str, path: str) -> bytes:
        """Return the content of one small file of a folder on the remote.

        Raises:
            NetworkError: the remote cannot be reached, or has no such file.
        """
        with self._reaching():
            return self._bytes(self._files(tree)[path])

    def check(self, tree: str, sums_sha256: str) -> None:
        """Read every file of a folder back from the remote and check its SHA-256.

        Raises:
            IntegrityError: files are missing or damaged; each is named.
            NetworkError: the remote cannot be reached.
        """
        with self._reaching():
            problems = self._problems(tree, sums_sha256)
        if problems:
            raise IntegrityError(
                f"{self} does not have the release as it was: " + "; ".join(problems[:5])
            )

    def _problems(self, tree: str, sums_sha256: str) -> list[str]:
        try:
            files = self._files(tree)
            sums = self._bytes(files[SUMS_FILE])
        except (FileNotFoundError, KeyError, ValueError) as error:
            return [f"its list of files cannot be read ({error!r})"]
        if hashlib.sha256(sums).hexdigest() != sums_sha256:
            return [f"{SUMS_FILE} is not the one that was released"]
        wanted = parse_sums(sums.decode(), SUMS_FILE)
        problems = [f"{name} is not among its files" for name in wanted.keys() - files.keys()]
        extra = files.keys() - wanted.keys() - UNLISTED
        problems += [f"{name} is not in {SUMS_FILE}" for name in extra]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            all_digests = pool.map(self._digests, files.values())
            for (name, oid), digests in zip(files.items(), all_digests, strict=True):
                if digests is None:
                    problems.append(f"{name} is missing")
                elif digests != (oid, wanted.get(name, digests[1])):
                    problems.append(f"{name} is damaged")
        return sorted(problems)

    def _broken(self, tree: Tree) -> list[str]:
        """Return the objects of the remote whose bytes are not those that their name promises."""
        there = list(self.remote.oids_exist([*tree.files.values(), tree.oid]))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            all_digests = list(pool.map(self._digests, there))
        return [
            oid
            for oid, digests in zip(there, all_digests, strict=True)
            if digests and digests[0] != oid.removesuffix(".dir")
        ]

    def _files(self, tree: str) -> dict[str, str]:
        return {entry["relpath"]: entry["md5"] for entry in json.loads(self._bytes(tree))}

    def _bytes(self, oid: str) -> bytes:
        with self.remote.fs.open(self.remote.oid_to_path(oid), "rb") as file:
            content: bytes = file.read()
        return content

    def _digests(self, oid: str) -> tuple[str, str] | None:
        """Return MD5 and SHA-256 of an object on the remote; None if there is none."""
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        try:
            with self.remote.fs.open(self.remote.oid_to_path(oid), "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    md5.update(chunk)
                    sha256.update(chunk)
        except FileNotFoundError:
            return None
        return md5.hexdigest(), sha256.hexdigest()

    def _build(self, folder: Path, dry_run: bool = False) -> Tree:
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.transfer import transfer
        from dvc_data.hashfile.tree import Tree as Listing

        cache = self.repo.cache.local
        path = os.path.abspath(folder)
        staging, meta, tree = build(cache, path, cache.fs, "md5", dry_run=dry_run)
        assert isinstance(tree, Listing)
        assert tree.oid
        if not dry_run:
            transfer(staging, cache, {tree.hash_info}, shallow=False)
        files = {"/".join(key): info.value for key, _meta, info in tree}
        return Tree(tree.oid, files, meta.size or 0)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn whatever a remote's library raises into NetworkError."""
        try:
            yield
        except (InputError, IntegrityError, NetworkError):
            raise
        except Exception as error:
            reason = shown(f"{type(error).__name__}: {error}", limit=200)
            raise NetworkError(f"{self} failed ({reason}); run this again to resume") from error

    def __str__(self) -> str:
        return f"DVC remote {self.name} ({self.address})"


@contextmanager
def open_store(root: Path, name: str | None) -> Iterator[Store]:
    """Open DVC remote ``name`` of the repository at ``root``, or its default one.

    Raises:
        InputError: DVC is not set up here, or there is no such remote.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            chosen = name or repo.config["core"].get("remote")
            if not chosen:
                raise InputError(NO_REMOTE)
            if chosen not in repo.config["remote"]:
                raise InputError(f"there is no DVC remote {shown(chosen)}; see `dvc remote list`")
            yield Store(repo, chosen)
    except DvcException as error:
        raise InputError(f"DVC: {shown(error, limit=200)}") from error
