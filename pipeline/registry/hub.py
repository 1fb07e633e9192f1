"""Put a release on the Hugging Face Hub: all files in one commit, then a tag of its version.

The order leaves nothing half done. Large files are uploaded first, where nobody sees them; one
commit makes all files visible at once; the hub's own listing of that commit is compared with the
hashes here; only then the tag ``vVERSION`` is set. Interrupted at any point, the same command
resumes. A tag that exists is never moved: with other files it is an error, with these files there
is nothing to do.

Files travel by Git LFS over HTTP, not by Xet, the default of `huggingface_hub`: its storage
service cannot be served on loopback, so it could not be tested (docs/adr/0025).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.errors import EdgeVitError, InputError, IntegrityError, NetworkError, first_of, shown
from pipeline.files import open_regular
from pipeline.release.manifest import SUMS_FILE
from pipeline.release.read import read_release
from pipeline.untrusted.download import offline

if TYPE_CHECKING:
    from huggingface_hub import HfApi

BRANCH = "main"
OF_THE_HUB = {".gitattributes"}  # says which files are large; the hub writes it
EXPECTED_FILES = OF_THE_HUB | {"README.md", "LICENSE"}  # what a new repository may have
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class File:
    """A file and both hashes by which the hub may identify it."""

    path: Path
    sha256: str  # of a large file
    git_sha1: str  # of a small one, as a git blob
    size_bytes: int


@dataclass(frozen=True)
class HubRepository:
    """A repository on the hub: the commit that its branch is at, and its tags."""

    head: str | None
    tags: dict[str, str]


def upload(folder: Path, repo: str, *, do: bool) -> list[str]:
    """Put the release in ``folder`` into the model repository ``repo`` (ORG/NAME).

    ``HF_ENDPOINT`` and ``HF_TOKEN`` are honoured, and the token of `hf auth login`. A repository
    that is not there is created, private.

    Returns:
        What was done, a line each; with ``do`` false what would be.

    Raises:
        IntegrityError: the release is not whole, the tag exists with other files, or the hub holds
            other bytes than were sent.
        InputError: ``repo`` is not a hub id, or holds files that are not a release.
        NetworkError: the hub cannot be reached or refuses.
    """
    files = _files(folder)
    contract = load_contract(folder)
    tag = _tag(contract)
    if offline():
        raise NetworkError(f"hf:{repo}: nothing can be uploaded while offline mode is on")
    with _explained(repo):
        api = _api()
        remote = _find(api, repo)
        if remote is not None and tag in remote.tags:
            _require_same(api, repo, tag, files, f"hf:{repo} has a tag {tag} with other files")
            return [f"hf:{repo} has {folder.name} already, as {tag}"]
        extra = _files_to_remove(api, repo, remote, files)
        lines = _plan(repo, remote, files, extra, tag)
        if do:
            _commit(api, repo, remote, files, extra, contract)
    return lines


def _tag(contract: Contract) -> str:
    return f"v{contract.version}"


def _files(folder: Path) -> dict[str, File]:
    """Return the files of a whole release, by their name in it."""
    read_release(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _file(path) for path in paths}


def _file(path: Path) -> File:
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            sha1.update(chunk)
    return File(path, sha256.hexdigest(), sha1.hexdigest(), size)


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants

    constants.HF_HUB_DISABLE_XET = True
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _find(api: HfApi, repo: str) -> HubRepository | None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        refs = api.list_repo_refs(repo)
    except RepositoryNotFoundError:
        return None
    heads = {branch.name: branch.target_commit for branch in refs.branches}
    return HubRepository(heads.get(BRANCH), {tag.name: tag.target_commit for tag in refs.tags})


def _listing(api: HfApi, repo: str, revision: str) -> dict[str, tuple[str, int]]:
    """Return the hash (SHA-256 of large files, else git's) and size of each file, by name."""
    from huggingface_hub.hf_api import RepoFile

    return {
        entry.path: (entry.lfs.sha256 if entry.lfs else entry.blob_id, entry.size)
        for entry in api.list_repo_tree(repo, revision=revision, recursive=True)
        if isinstance(entry, RepoFile) and entry.path not in OF_THE_HUB
    }


def _require_same(
    api: HfApi, repo: str, revision: str, files: dict[str, File], otherwise: str
) -> None:
    """Refuse unless the hub has exactly the files here at ``revision``."""
    there = _listing(api, repo, revision)
    wrong = sorted(
        name
        for name in there.keys() | files.keys()
        if name not in there
        or name not in files
        or there[name][0] not in (files[name].sha256, files[name].git_sha1)
    )
    if wrong:
        raise IntegrityError(
            f"{otherwise}: {first_of(wrong, SHOWN)}; a version is never replaced: raise "
            "release.version in params.yaml"
        )


def _files_to_remove(
    api: HfApi, repo: str, remote: HubRepository | None, files: dict[str, File]
) -> list[str]:
    """Return the names of files of an earlier release that this one lacks."""
    if remote is None or remote.head is None:
        return []
    there = _listing(api, repo, remote.head)
    foreign = sorted(there.keys() - EXPECTED_FILES)
    if foreign and SUMS_FILE not in there:
        raise InputError(
            f"hf:{repo} holds files that are not part of a release "
            f"({first_of(foreign, SHOWN)}), which an upload would replace; give a "
            "repository of its own"
        )
    return sorted(there.keys() - files.keys())


def _plan(
    repo: str, remote: HubRepository | None, files: dict[str, File], extra: list[str], tag: str
) -> list[str]:
    size = sum(file.size_bytes for file in files.values()) / 1e6
    return [
        *([f"create hf:{repo}, private"] if remote is None else []),
        f"commit {len(files)} files, {size:.1f} MB, to {BRANCH} of hf:{repo}",
        *(f"remove {name} of an earlier release from {BRANCH}" for name in extra),
        f"tag it {tag}",
    ]


def _commit(
    api: HfApi,
    repo: str,
    remote: HubRepository | None,
    files: dict[str, File],
    extra: list[str],
    contract: Contract,
) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    message, tag = f"{contract.name} {contract.version}", _tag(contract)
    if remote is None:
        api.create_repo(repo, private=True, exist_ok=True)
        remote = _find(api, repo)
    done = api.create_commit(
        repo,
        [
            *(CommitOperationAdd(name, file.path) for name, file in files.items()),
            *(CommitOperationDelete(name, is_folder=False) for name in extra),
        ],
        commit_message=message,
        parent_commit=remote.head if remote else None,  # refused if somebody else was first
    )
    _require_same(api, repo, done.oid, files, f"hf:{repo} did not keep what was sent")
    try:
        api.create_tag(repo, tag=tag, tag_message=message, revision=done.oid)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        _require_same(
            api, repo, tag, files, f"hf:{repo} got a tag {tag} meanwhile, with other files"
        )


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn the client's errors, and those of the transport below it, into one line."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (EdgeVitError, KeyboardInterrupt):
        raise
    except HFValidationError as error:
        raise InputError(f"hf:{repo} is not a hub id, such as hf:ORG/NAME: {error}") from None
    except Exception as error:
        raise NetworkError(f"hf:{repo}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    error = error.__cause__ or error  # of an upload in a thread
    status = getattr(getattr(error, "response", None), "status_code", None)
    message = shown(" ".join(str(error).split()), 200)
    if status in (401, 403):
        return (
            f"the hub refuses ({status}); run `hf auth login`, or set HF_TOKEN to a token that may "
            "write there"
        )
    if status in (409, 412):
        return f"it was changed meanwhile ({message}); run the same command again"
    return f"{message or type(error).__name__}; run the same command again; it resumes"
