"""Download files into a cache, and check them against the expected hash.

The cache (``EDGE_VIT_CACHE``, default ``~/.cache/edge-vit``) holds each file under its SHA-256, so
that a name or an address can never stand for other bytes. ``trusted.json`` in it remembers the hash
that ``model.sha256: trust-first-use`` saw first. ``partial`` holds interrupted downloads.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import InputError, IntegrityError, NetworkError, shown
from pipeline.files import read_json, sha256_file, write_json
from pipeline.untrusted.http import WITHOUT_NETWORK, check_scheme, file_name
from pipeline.untrusted.shards import weights_sha256
from pipeline.untrusted.state_dict import suffix_of
from pipeline.untrusted.transfer import Transfer


def cache_folder() -> Path:
    """Return the cache: ``EDGE_VIT_CACHE``, or its default."""
    return Path(os.environ.get("EDGE_VIT_CACHE") or Path.home() / ".cache" / "edge-vit")


def check_sha256(path: Path, expected: str, source: str) -> str:
    """Return the SHA-256 of weights, of an index with all shards; it must begin with ``expected``.

    Raises:
        IntegrityError: it does not; the message holds both values.
    """
    actual = weights_sha256(path)
    _compare(actual, expected, source)
    return actual


def _compare(actual: str, expected: str, source: str) -> None:
    if not actual.startswith(expected):
        raise IntegrityError(
            f"{source}: wrong SHA-256, expected {expected}, got {actual}; the file is damaged, was "
            "replaced, or is another one. Nothing in it was opened"
        )


def trusted_sha256(source: str) -> str | None:
    """Return the SHA-256 that ``source`` had when it was first trusted on this machine."""
    return _trusted().get(source)


def trust(source: str, sha256: str) -> None:
    """Remember the bytes of ``source``; other bytes from there are refused from now on.

    Raises:
        IntegrityError: other bytes were trusted before.
    """
    trusted = _trusted()
    if trusted.setdefault(source, sha256) != sha256:
        raise IntegrityError(
            f"{source}: trusted before with SHA-256 {trusted[source]}, now it is {sha256}. If the "
            f"change is meant, remove its line from {_trusted_file()} or set model.sha256"
        )
    write_json(_trusted_file(), trusted)


def _trusted_file() -> Path:
    return cache_folder() / "trusted.json"


def _trusted() -> dict[str, str]:
    trusted = read_json(_trusted_file()) if _trusted_file().exists() else {}
    if not isinstance(trusted, dict):
        raise InputError(f"{_trusted_file()} is not a table of hashes; delete it")
    return trusted


def offline() -> bool:
    """Whether the user asked to leave the network alone, for this project or for every hub."""
    return any(
        os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")
        for name in ("EDGE_VIT_OFFLINE", "HF_HUB_OFFLINE")
    )


def download(address: str, expected: str | None = None) -> Path:
    """Return a local copy of ``address``, from the cache if it is there.

    ``expected`` is its SHA-256 or the first digits of it; None takes whatever comes, and the
    caller decides. The copy's name is its SHA-256 with the address's ending. An
    interrupted download is resumed. Of several processes that ask at once, one downloads.

    Raises:
        NetworkError: the server cannot be reached, breaks off, or sends something else; or the
            file is not in the cache and the user asked to stay offline.
        IntegrityError: wrong SHA-256.
        InputError: the address is not https (or http to this machine), or the file is too large.
    """
    path = PurePosixPath(file_name(address))
    suffix = suffix_of(path) or path.suffix.lower()
    if expected and (cached := _find(expected, suffix)):
        return cached
    check_scheme(address)
    if offline():
        raise NetworkError(
            f"{address} is not in {cache_folder()}, and offline mode is on (EDGE_VIT_OFFLINE or "
            f"HF_HUB_OFFLINE). {WITHOUT_NETWORK}"
        )
    part = cache_folder() / "partial" / hashlib.sha256(address.encode()).hexdigest()[:32]
    with _alone(part, address):
        if expected and (cached := _find(expected, suffix)):
            return cached
        return _fetch(address, expected, part, suffix)


@contextmanager
def _alone(part: Path, address: str) -> Iterator[None]:
    """Hold the lock of ``part``; the kernel releases it if the process dies."""
    from filelock import FileLock, Timeout

    part.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(part.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{address}: waiting for another process that downloads it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(address: str, expected: str | None, part: Path, suffix: str) -> Path:
    transfer = Transfer(address, part.with_suffix(".part"), checked=bool(expected))
    transfer.run()
    sha256 = sha256_file(transfer.part)
    if transfer.joined and expected and not sha256.startswith(expected):
        # The parts may be of different files without anybody having said so.
        transfer.discard()
        transfer.run()
        sha256 = sha256_file(transfer.part)
    try:
        _compare(sha256, expected or "", address)
        path = cache_folder() / f"{sha256}{suffix}"
        os.replace(transfer.part, path)
    finally:
        transfer.discard()
    return path


def _find(expected: str, suffix: str) -> Path | None:
    for path in cache_folder().glob(f"{expected}*{suffix}"):
        if sha256_file(path) == path.name.removesuffix(suffix):
            return path
        path.unlink(missing_ok=True)  # damaged on disk; fetch it again
    return None


def hub_file(repository: str, name: str, revision: str | None = None) -> Path:
    """Return a local copy of one file of a hub repository, kept in this cache's ``hub`` folder.

    ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` are honoured. The folder that holds the
    file is named by the commit it came from.

    Raises:
        NetworkError: the hub cannot be reached, or has no such repository, revision or file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    options: dict[str, Any] = {
        "revision": revision,
        "cache_dir": cache_folder() / "hub",
        "endpoint": os.environ.get("HF_ENDPOINT"),
        "local_files_only": offline(),
    }
    try:
        return Path(hf_hub_download(repository, name, **options))
    except HFValidationError as error:
        raise InputError(f"hf:{repository} is not a hub id: {error}") from None
    except Exception as error:
        # The hub's client lets its transport's errors through, and changes that transport.
        raise NetworkError(
            f"hf:{repository}: {_hub_reason(error, name, revision)}. {WITHOUT_NETWORK}"
        ) from None


def _hub_reason(error: Exception, name: str, revision: str | None) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and offline():
        return f"{name} is not in {cache_folder() / 'hub'}, and offline mode is on"
    reasons: tuple[tuple[type[Exception], str], ...] = (
        (
            errors.GatedRepoError,
            "its owner asks for consent: give it on the repository's page, then set HF_TOKEN",
        ),
        (
            errors.RepositoryNotFoundError,
            "the hub has no such repository, or it is private and HF_TOKEN is not set or not "
            "allowed to read it",
        ),
        (errors.RevisionNotFoundError, f"it has no revision {revision}"),
        (
            errors.LocalEntryNotFoundError,
            f"the hub does not answer as it should ({_first_line(error.__cause__ or error)}), and "
            f"{name} is not in {cache_folder() / 'hub'}",
        ),
        (errors.EntryNotFoundError, f"it has no file {name}"),
    )
    for kind, words in reasons:
        if isinstance(error, kind):
            return words
    return f"cannot get {name} from the hub: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return shown(str(error).strip().split("\n")[0], 200)
