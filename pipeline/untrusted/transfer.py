"""Download one file over HTTP into a part file, in as many attempts as the connection needs.

The part's ``.json`` holds the validator and length of the remote file, so that another process
resumes an interrupted download. Bytes of two versions of a file are never joined knowingly: a
range is requested on the condition that the file is the same (RFC 9110, 13.1.5).
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from pipeline.errors import InputError, NetworkError, shown
from pipeline.files import CHUNK_BYTES, read_json, write_json
from pipeline.progress import progress
from pipeline.untrusted.http import (
    PASSING,
    WITHOUT_NETWORK,
    RemoteFile,
    check_scheme,
    file_name,
    reason,
    remote_file,
    retry_after,
    total_of_range,
)

if TYPE_CHECKING:
    import requests
    from tenacity import RetryCallState

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
ATTEMPTS = 5  # in a row that bring less than a chunk
LONGEST_WAIT_S = 60.0
SLOW_BYTES, SLOW_S = 1 << 16, 60.0  # a connection with fewer bytes in this time has stalled
MAX_GB = 10.0


class _PassingError(NetworkError):
    """An error that may be gone at the next attempt, after ``wait_s`` if the server says so."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Transfer:
    """Downloads ``address`` into ``part``.

    ``checked`` says that the caller knows the hash of the whole file. Only then are parts joined
    when the server gives no strong validator. ``joined`` says afterwards whether parts were
    joined. ``clock`` gives seconds.
    """

    def __init__(
        self,
        address: str,
        part: Path,
        *,
        checked: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.part = part
        self.checked = checked
        self.joined = False
        self._clock = clock
        self._failures = 0
        self._furthest = self._size()
        self._state_file = part.with_suffix(".json")

    def run(self) -> None:
        """Download until the part is the whole file.

        Raises:
            NetworkError: the server cannot be reached, keeps breaking off, or sends something
                else. What came so far stays, and the next run resumes there.
            InputError: the file is larger than allowed, or than the disk.
        """
        from tenacity import Retrying, retry_if_exception_type

        retrying = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=lambda _: self._failures >= ATTEMPTS,
            wait=self._wait,
            sleep=lambda seconds: time.sleep(seconds),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            retrying(self._counted_attempt)
        except _PassingError as error:
            raise NetworkError(
                f"{self.address}: {error}, {ATTEMPTS} times in a row; {self._size()} bytes are "
                f"kept, and the same command resumes there. {WITHOUT_NETWORK}"
            ) from None

    def discard(self) -> None:
        """Remove the part and what is recorded of it."""
        self.part.unlink(missing_ok=True)
        self._state_file.unlink(missing_ok=True)

    def _wait(self, state: RetryCallState) -> float:
        """Full jitter, so that clients that failed together do not come back together."""
        asked = getattr(state.outcome and state.outcome.exception(), "wait_s", None)
        pause = random.uniform(0, min(LONGEST_WAIT_S, 2.0**self._failures))
        return pause if asked is None else min(LONGEST_WAIT_S, asked + pause)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        seconds = state.next_action.sleep if state.next_action else 0.0
        print(f"{self.address}: {error}; trying again in {seconds:.1f} s", file=sys.stderr)

    def _counted_attempt(self) -> None:
        try:
            self._attempt()
        except _PassingError:
            self._failures += 1
            if self._size() >= self._furthest + CHUNK_BYTES:
                self._furthest, self._failures = self._size(), 1
            raise

    def _attempt(self) -> None:
        earlier, start = self._earlier()
        if start and start == earlier.length:
            self.joined = True
            return  # killed between the last byte and the caller's rename
        with self._request(earlier, start) as answer:
            start, remote = self._accept(answer, earlier, start)
            self._check_room(remote, start)
            if not start:
                self.discard()
            write_json(self._state_file, {"address": self.address, **vars(remote)})
            self.joined = start > 0
            self._receive(answer, start, remote)

    def _earlier(self) -> tuple[RemoteFile, int]:
        """Return the file of an earlier attempt that can be resumed, and how many bytes of it."""
        if not self._size() or not self._state_file.exists():
            return RemoteFile(), 0
        try:
            saved: Any = read_json(self._state_file)
            remote = RemoteFile(saved["validator"], saved["strong"] is True, saved["length"])
        except (InputError, KeyError, TypeError):
            return RemoteFile(), 0
        return (remote, self._size()) if remote.strong or self.checked else (RemoteFile(), 0)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    @contextmanager
    def _request(self, earlier: RemoteFile, start: int) -> Iterator[requests.Response]:
        import requests

        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if earlier.validator:
                headers["If-Range"] = earlier.validator
        with self._passing_errors():
            answer = requests.get(
                self.address,
                stream=True,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                headers=headers,
                hooks={"response": _check_redirect},
            )
        with answer:
            yield answer

    def _accept(
        self, answer: requests.Response, earlier: RemoteFile, start: int
    ) -> tuple[int, RemoteFile]:
        """Return where in the file the answer's body begins, and which file it is."""
        status, headers = answer.status_code, answer.headers
        if status in PASSING:
            raise _PassingError(
                f"the server answered {status} {shown(answer.reason)}",
                retry_after(headers.get("Retry-After", "")),
            )
        if status == 416 and start:
            self.discard()
            raise _PassingError("the file has changed; starting over")
        if status not in (200, 206) or (status == 206 and not start):
            raise NetworkError(
                f"{self.address}: the server answered {status} {shown(answer.reason)}. "
                f"{WITHOUT_NETWORK}"
            )
        self._check_kind(headers)
        remote = remote_file(headers)
        if status == 200:
            return 0, remote
        total = total_of_range(headers.get("Content-Range", ""), start)
        same = earlier.length in (None, total)
        if earlier.strong and remote.strong:
            same = same and remote.validator == earlier.validator
        if total is None or not same:
            self.discard()
            raise _PassingError("the server sent another part than was requested; starting over")
        return start, replace(earlier, length=total)

    def _check_kind(self, headers: Any) -> None:
        kind = headers.get("Content-Type", "")
        if kind.lower().startswith("text/html"):
            raise NetworkError(
                f"{self.address}: the server sent a web page ({shown(kind)}), not a checkpoint. "
                f"{WITHOUT_NETWORK}"
            )
        coding = headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            raise NetworkError(
                f"{self.address}: the server sent the file packed as {shown(coding)}, which was "
                f"not requested. {WITHOUT_NETWORK}"
            )

    def _check_room(self, remote: RemoteFile, start: int) -> None:
        if remote.length is None:
            return
        self._check_limit(remote.length)
        folder = self.part.parent
        free = shutil.disk_usage(folder).free
        if remote.length - start > free:
            raise InputError(
                f"{self.address} needs {remote.length - start:,} bytes more, {folder} has {free:,} "
                "left; free some space, or set EDGE_VIT_CACHE to a folder on another disk"
            )

    def _check_limit(self, size: int) -> None:
        limit = max_bytes()
        if size > limit:
            self.discard()
            raise InputError(
                f"{self.address} has {size:,} bytes or more; up to {limit:,} are downloaded. If it "
                "is the file you mean, set EDGE_VIT_MAX_DOWNLOAD_GB to a larger number"
            )

    def _receive(self, answer: requests.Response, start: int, remote: RemoteFile) -> None:
        size = start
        since, before = self._clock(), size
        with (
            self.part.open("r+b" if start else "wb") as file,
            progress(
                total=remote.length,
                initial=start,
                unit="B",
                unit_scale=True,
                desc=file_name(self.address),
            ) as bar,
        ):
            file.seek(start)
            while chunk := self._read(answer):
                size += len(chunk)
                self._check_limit(size)
                if remote.length is not None and size > remote.length:
                    self.discard()
                    raise _PassingError(f"more came than the {remote.length} bytes promised")
                file.write(chunk)
                bar.update(len(chunk))
                if (now := self._clock()) - since >= SLOW_S:
                    if size - before < SLOW_BYTES:
                        raise _PassingError(
                            f"only {size - before} bytes came in {now - since:.0f} s"
                        )
                    since, before = now, size
        if remote.length is not None and size < remote.length:
            raise _PassingError(f"{remote.length} bytes were promised, {size} came")

    def _read(self, answer: requests.Response) -> bytes:
        """Return the bytes that have arrived, without waiting for a whole chunk."""
        with self._passing_errors():
            return answer.raw.read1(CHUNK_BYTES, decode_content=False) or b""

    @contextmanager
    def _passing_errors(self) -> Iterator[None]:
        import requests
        import urllib3

        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            words, passes = reason(error)
            if not passes:
                raise NetworkError(f"{self.address}: {words}. {WITHOUT_NETWORK}") from None
            raise _PassingError(words) from None


def max_bytes() -> int:
    """Return the size in bytes of the largest file that is downloaded.

    Raises:
        InputError: ``EDGE_VIT_MAX_DOWNLOAD_GB`` is not a number.
    """
    gigabytes = os.environ.get("EDGE_VIT_MAX_DOWNLOAD_GB") or str(MAX_GB)
    try:
        return int(float(gigabytes) * 1e9)
    except (ValueError, OverflowError):
        raise InputError(f"EDGE_VIT_MAX_DOWNLOAD_GB is {gigabytes!r}; set it to a number") from None


def _check_redirect(answer: requests.Response, **_: object) -> None:
    """Refuse to be sent to an address that would not have been fetched."""
    if answer.is_redirect:
        try:
            check_scheme(urljoin(answer.url, answer.headers["Location"]))
        except InputError:
            answer.close()
            raise
