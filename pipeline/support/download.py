"""Bring files from elsewhere into a cache, and hold them to the hash that was promised.

The cache (``EDGE_VIT_CACHE``, default ``~/.cache/edge-vit``) holds each file under its SHA-256, so
that a name or an address can never stand for other bytes. ``trusted.json`` in it remembers what
``model.sha256: trust-first-use`` was given the first time.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from pipeline.core.errors import InputError, IntegrityError, NetworkError
from pipeline.support.files import CHUNK_BYTES, read_json, sha256_file, write_json

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
WITHOUT_NETWORK = (
    "To go on without it, download the file on another machine and set model.checkpoint in "
    "params.yaml to its path"
)


def cache_folder() -> Path:
    return Path(os.environ.get("EDGE_VIT_CACHE") or Path.home() / ".cache" / "edge-vit")


def check_sha256(path: Path, expected: str, source: str) -> str:
    """Return the SHA-256 of ``path``, which must begin with ``expected``.

    Raises:
        IntegrityError: it does not; the message holds both values.
    """
    actual = sha256_file(path)
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
    known = _trusted()
    if known.setdefault(source, sha256) != sha256:
        raise IntegrityError(
            f"{source}: trusted before with SHA-256 {known[source]}, now it is {sha256}. If the "
            f"change is meant, remove its line from {_trusted_file()} or set model.sha256"
        )
    write_json(_trusted_file(), known)


def _trusted_file() -> Path:
    return cache_folder() / "trusted.json"


def _trusted() -> dict[str, str]:
    known = read_json(_trusted_file()) if _trusted_file().exists() else {}
    if not isinstance(known, dict):
        raise InputError(f"{_trusted_file()} is not a table of hashes; delete it")
    return known


def file_name(address: str) -> str:
    """Return the last part of an address's path."""
    return PurePosixPath(unquote(urlsplit(address).path)).name


def download(address: str, expected: str | None = None) -> Path:
    """Return a local copy of ``address``, from the cache if it is there.

    ``expected`` is its SHA-256 or the first digits of it; None takes whatever comes, and the
    caller decides. The copy's name is its SHA-256 with the address's ending.

    Raises:
        NetworkError: the server cannot be reached, breaks off, or sends something else.
        IntegrityError: wrong SHA-256.
        InputError: the address is not https (or http to this machine).
    """
    suffix = PurePosixPath(file_name(address)).suffix.lower()
    if expected and (cached := _find(expected, suffix)):
        return cached
    _check_scheme(address)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".partial-") as folder:
        part = Path(folder) / "file"
        with part.open("wb") as file:
            sha256 = _receive(address, file)
        if expected:
            _compare(sha256, expected, address)
        path = cache_folder() / f"{sha256}{suffix}"
        os.replace(part, path)
    return path


def _find(expected: str, suffix: str) -> Path | None:
    for path in cache_folder().glob(f"{expected}*{suffix}"):
        if sha256_file(path) == path.name.removesuffix(suffix):
            return path
        path.unlink()  # damaged on disk; fetch it again
    return None


def _check_scheme(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise InputError(f"{address}: only https addresses are fetched")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _receive(address: str, file: BinaryIO) -> str:
    """Write the body of ``address`` to ``file``; return its SHA-256."""
    import requests
    from tqdm import tqdm

    digest, received = hashlib.sha256(), 0
    try:
        with requests.get(
            address,
            stream=True,
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            headers={"Accept-Encoding": "identity"},
            hooks={"response": _check_redirect},
        ) as answer:
            size = _check_answer(address, answer)
            with tqdm(
                total=size, unit="B", unit_scale=True, desc=file_name(address), disable=None
            ) as bar:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    digest.update(chunk)
                    received += file.write(chunk)
                    bar.update(len(chunk))
    except requests.RequestException as error:
        raise NetworkError(
            f"{address}: {_reason(error)} after {received} bytes. {WITHOUT_NETWORK}"
        ) from None
    if size is not None and received != size:
        raise NetworkError(
            f"{address}: {size} bytes were promised, {received} came. {WITHOUT_NETWORK}"
        )
    return digest.hexdigest()


def _check_redirect(answer: requests.Response, **_: object) -> None:
    """Refuse to be sent to an address that would not have been fetched."""
    if answer.is_redirect:
        _check_scheme(urljoin(answer.url, answer.headers["Location"]))


def _check_answer(address: str, answer: requests.Response) -> int | None:
    """Return the promised length in bytes, None if the server does not say."""
    if answer.status_code != 200:
        raise NetworkError(
            f"{address}: the server answered {answer.status_code} {answer.reason}. "
            f"{WITHOUT_NETWORK}"
        )
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html"):
        raise NetworkError(
            f"{address}: the server sent a web page ({kind}), not a checkpoint. {WITHOUT_NETWORK}"
        )
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _reason(error: requests.RequestException) -> str:
    import requests

    reasons: dict[type[requests.RequestException], str] = {
        requests.exceptions.SSLError: "the server's certificate cannot be verified",
        requests.exceptions.ProxyError: "the proxy cannot be reached",
        requests.exceptions.ConnectTimeout: "the server does not answer",
        requests.exceptions.ReadTimeout: "the server fell silent",
        requests.exceptions.ChunkedEncodingError: "the connection broke off",
        requests.exceptions.ConnectionError: "the server cannot be reached",
    }
    for kind, words in reasons.items():
        if isinstance(error, kind):
            return words
    return str(error)


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
    }
    try:
        return Path(hf_hub_download(repository, name, **options))
    except HFValidationError as error:
        raise InputError(f"hf:{repository} is not a hub id: {error}") from None
    except Exception as error:
        # The hub's client lets its transport's errors through, and changes that transport.
        first_line = str(error).strip().split("\n")[0]
        raise NetworkError(
            f"hf:{repository}: cannot get {name} from the hub: {first_line}. {WITHOUT_NETWORK}"
        ) from None
