"""Bring one file over HTTP into a part file, in as many goes as the connection needs.

The part's ``.json`` holds what is known of the whole (its validator and length), so that another
process goes on where a killed one stopped. Bytes of two versions of a file are never joined
knowingly: a range is asked for on the condition that the file is the same (RFC 9110, 13.1.5).
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
    Whole,
    check_scheme,
    file_name,
    reason,
    retry_after,
    total_of_range,
    whole_of,
)

if TYPE_CHECKING:
    import requests
    from tenacity import RetryCallState

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
TRIES = 5  # in a row that bring less than a chunk
LONGEST_WAIT_S = 60.0
SLOW_BYTES, SLOW_S = 1 << 16, 60.0  # less than this in this time is no transfer
MAX_GB = 10.0


class _PassingError(NetworkError):
    """What may be over at the next try. ``wait_s`` is what the server asks to wait, if it does."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Transfer:
    """Fetch ``address`` into ``part``.

    ``checked`` says that the caller knows the hash of the whole. Only then are parts joined when
    the server gives no strong validator. ``joined`` tells afterwards whether parts were joined.
    ``clock`` gives seconds.
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
        self._about = part.with_suffix(".json")

    def run(self) -> None:
        """Fetch until the part is the whole.

        Raises:
            NetworkError: the server cannot be reached, keeps breaking off, or sends something
                else. What came so far stays, and the next run goes on from there.
            InputError: the file is larger than allowed, or than the disk.
        """
        from tenacity import Retrying, retry_if_exception_type

        retrying = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=lambda _: self._failures >= TRIES,
            wait=self._wait,
            sleep=lambda seconds: time.sleep(seconds),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            retrying(self._try)
        except _PassingError as error:
            raise NetworkError(
                f"{self.address}: {error}, {TRIES} times in a row; {self._size()} bytes are kept, "
                f"the same command goes on from there. {WITHOUT_NETWORK}"
            ) from None

    def forget(self) -> None:
        """Remove what came so far."""
        self.part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _wait(self, state: RetryCallState) -> float:
        """Full jitter, so that clients that failed together do not come back together."""
        asked = getattr(state.outcome and state.outcome.exception(), "wait_s", None)
        pause = random.uniform(0, min(LONGEST_WAIT_S, 2.0**self._failures))
        return pause if asked is None else min(LONGEST_WAIT_S, asked + pause)

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        seconds = state.next_action.sleep if state.next_action else 0.0
        print(f"{self.address}: {error}; trying again in {seconds:.1f} s", file=sys.stderr)

    def _try(self) -> None:
        try:
            self._go()
        except _PassingError:
            self._failures += 1
            if self._size() >= self._furthest + CHUNK_BYTES:
                self._furthest, self._failures = self._size(), 1
            raise

    def _go(self) -> None:
        known, start = self._known()
        if start and start == known.length:
            self.joined = True
            return  # killed between the last byte and the caller's rename
        with self._ask(known, start) as answer:
            start, whole = self._accept(answer, known, start)
            self._check_room(whole, start)
            if not start:
                self.forget()
            write_json(self._about, {"address": self.address, **vars(whole)})
            self.joined = start > 0
            self._receive(answer, start, whole)

    def _known(self) -> tuple[Whole, int]:
        """What an earlier try left, as far as it can be gone on with, and its length in bytes."""
        if not self._size() or not self._about.exists():
            return Whole(), 0
        try:
            found: Any = read_json(self._about)
            whole = Whole(found["validator"], found["strong"] is True, found["length"])
        except (InputError, KeyError, TypeError):
            return Whole(), 0
        return (whole, self._size()) if whole.strong or self.checked else (Whole(), 0)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    @contextmanager
    def _ask(self, known: Whole, start: int) -> Iterator[requests.Response]:
        import requests

        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if known.validator:
                headers["If-Range"] = known.validator
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

    def _accept(self, answer: requests.Response, known: Whole, start: int) -> tuple[int, Whole]:
        """Return where in the file the answer's body begins, and what the whole is."""
        status, headers = answer.status_code, answer.headers
        if status in PASSING:
            raise _PassingError(
                f"the server answered {status} {shown(answer.reason)}",
                retry_after(headers.get("Retry-After", "")),
            )
        if status == 416 and start:
            self.forget()
            raise _PassingError("the file is not what it was; starting over")
        if status not in (200, 206) or (status == 206 and not start):
            raise NetworkError(
                f"{self.address}: the server answered {status} {shown(answer.reason)}. "
                f"{WITHOUT_NETWORK}"
            )
        self._check_kind(headers)
        whole = whole_of(headers)
        if status == 200:
            return 0, whole
        total = total_of_range(headers.get("Content-Range", ""), start)
        same = known.length in (None, total)
        if known.strong and whole.strong:
            same = same and whole.validator == known.validator
        if total is None or not same:
            self.forget()
            raise _PassingError("the server sent another part than was asked for; starting over")
        return start, replace(known, length=total)

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
                f"not asked for. {WITHOUT_NETWORK}"
            )

    def _check_room(self, whole: Whole, start: int) -> None:
        if whole.length is None:
            return
        self._check_limit(whole.length)
        folder = self.part.parent
        free = shutil.disk_usage(folder).free
        if whole.length - start > free:
            raise InputError(
                f"{self.address} needs {whole.length - start:,} bytes more, {folder} has {free:,}; "
                "free some space, or set EDGE_VIT_CACHE to a folder on another disk"
            )

    def _check_limit(self, size: int) -> None:
        limit = max_bytes()
        if size > limit:
            self.forget()
            raise InputError(
                f"{self.address} has {size:,} bytes or more; up to {limit:,} are fetched. If it is "
                "the file you mean, set EDGE_VIT_MAX_DOWNLOAD_GB to a larger number"
            )

    def _receive(self, answer: requests.Response, start: int, whole: Whole) -> None:
        size = start
        since, before = self._clock(), size
        with (
            self.part.open("r+b" if start else "wb") as file,
            progress(
                total=whole.length,
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
                if whole.length is not None and size > whole.length:
                    self.forget()
                    raise _PassingError(f"more came than the {whole.length} bytes promised")
                file.write(chunk)
                bar.update(len(chunk))
                if (now := self._clock()) - since >= SLOW_S:
                    if size - before < SLOW_BYTES:
                        raise _PassingError(
                            f"only {size - before} bytes came in {now - since:.0f} s"
                        )
                    since, before = now, size
        if whole.length is not None and size < whole.length:
            raise _PassingError(f"{whole.length} bytes were promised, {size} came")

    def _read(self, answer: requests.Response) -> bytes:
        """What has come, without waiting for a whole chunk."""
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
    """The largest file that is fetched, from ``EDGE_VIT_MAX_DOWNLOAD_GB``."""
    given = os.environ.get("EDGE_VIT_MAX_DOWNLOAD_GB") or str(MAX_GB)
    try:
        return int(float(given) * 1e9)
    except (ValueError, OverflowError):
        raise InputError(f"EDGE_VIT_MAX_DOWNLOAD_GB is {given!r}; set it to a number") from None


def _check_redirect(answer: requests.Response, **_: object) -> None:
    """Refuse to be sent to an address that would not have been fetched."""
    if answer.is_redirect:
        try:
            check_scheme(urljoin(answer.url, answer.headers["Location"]))
        except InputError:
            answer.close()
            raise
