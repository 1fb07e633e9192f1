"""Read addresses and HTTP headers; nothing here opens a connection."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline.errors import InputError, shown

PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be gone at the next attempt
WITHOUT_NETWORK = (
    "Without it, download the file on another machine and set model.checkpoint in "
    "params.yaml to its path"
)


@dataclass(frozen=True)
class RemoteFile:
    """What a server says of a file that is downloaded in parts."""

    validator: str | None = None  # entity tag or date, for If-Range
    strong: bool = False  # whether the validator promises the same bytes
    length: int | None = None  # bytes


def file_name(address: str) -> str:
    """Return the last part of an address's path."""
    return PurePosixPath(unquote(urlsplit(address).path)).name


def without_secrets(address: str) -> str:
    """Return an address as it may be published: no user, no password, no signed query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check_scheme(address: str) -> None:
    """Refuse addresses that others on the way could answer in the server's place.

    Raises:
        InputError: the address is not https (or http to this machine).
    """
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise InputError(f"{address}: only https addresses are downloaded")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def remote_file(headers: Mapping[str, str]) -> RemoteFile:
    """Return what the headers of an answer say of the file that it sends.

    A weak entity tag may not stand in If-Range; a date may miss a change within its second.
    """
    tag, length = headers.get("ETag", ""), headers.get("Content-Length", "")
    strong = tag.startswith('"')
    return RemoteFile(
        validator=tag if strong else headers.get("Last-Modified"),
        strong=strong,
        length=int(length) if length.isdecimal() else None,
    )


def total_of_range(text: str, start: int) -> int | None:
    """Return the length of the whole file if ``text`` is the range from ``start`` to its end."""
    content_range = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text.strip())
    if not content_range:
        return None
    first, last, total = map(int, content_range.groups())
    return total if first == start and last == total - 1 else None


def retry_after(text: str) -> float | None:
    """Return the seconds that a server asks to wait, as a number or a date; None if it does not."""
    if text.strip().isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def reason(error: Exception) -> tuple[str, bool]:
    """Return what happened to a request, and whether it may be gone at the next attempt."""
    import requests
    import urllib3

    problems, kinds = requests.exceptions, urllib3.exceptions
    reasons: tuple[tuple[type[Exception], str, bool], ...] = (
        (problems.SSLError, "the server's certificate cannot be verified", False),
        (problems.ProxyError, "the proxy cannot be reached, or refuses", True),
        (problems.ConnectTimeout, "the server does not answer", True),
        (problems.ReadTimeout, "the server fell silent", True),
        (kinds.ReadTimeoutError, "the server fell silent", True),
        (problems.TooManyRedirects, "the server sends from address to address", False),
        (problems.ConnectionError, "the server cannot be reached", True),
        (kinds.ProtocolError, "the connection broke off", True),
        (kinds.SSLError, "the connection broke off", True),
    )
    for kind, words, passes in reasons:
        if isinstance(error, kind):
            return words, passes
    return shown(error), False
