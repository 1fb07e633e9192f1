from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError, IntegrityError, NetworkError
from pipeline.untrusted import transfer
from pipeline.untrusted.download import download
from pipeline.untrusted.transfer import ATTEMPTS, Transfer
from tests.loopback import Page, Site

BODY = hashlib.shake_256(b"checkpoint").digest(5 << 20)  # several chunks, no two alike
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER = hashlib.shake_256(b"another").digest(len(BODY))
TAG = {"ETag": '"one"'}
OTHER_TAG = {"ETag": '"two"'}
HALF = len(BODY) // 2


@pytest.fixture(autouse=True)
def slept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which nobody waits for."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return pauses


def fetched(pages: list[Page], expected: str | None = SHA256) -> tuple[bytes, Site]:
    with Site({"/a.pth": pages}) as site:
        return download(f"{site.address}/a.pth", expected).read_bytes(), site


@pytest.mark.parametrize("cuts", [[0], [1], [HALF], [len(BODY) - 1], [HALF, 1 << 20, 1 << 20]])
@pytest.mark.parametrize("expected", [SHA256, None], ids=["hash known", "no hash"])
def test_a_cut_connection_costs_only_what_was_not_sent(
    cuts: list[int], expected: str | None
) -> None:
    pages = [Page(BODY, ranges=True, headers=TAG, sent=cut) for cut in cuts]
    body, site = fetched([*pages, Page(BODY, ranges=True, headers=TAG)], expected)
    assert body == BODY
    assert site.sent == len(BODY)
    starts = [min(start, len(BODY)) for start in itertools.accumulate(cuts)]
    assert site.ranges == [None, *(f"bytes={s}-" if s else None for s in starts)]


def test_a_file_that_changed_between_two_tries_is_fetched_from_its_start() -> None:
    new = Page(OTHER, ranges=True, headers=OTHER_TAG)
    body, site = fetched([Page(BODY, headers=TAG, sent=HALF), new], None)
    assert body == OTHER
    assert site.ranges == [None, f"bytes={HALF}-"]


def test_a_server_that_knows_no_ranges_sends_the_whole_again() -> None:
    body, _ = fetched([Page(BODY, headers=TAG, sent=HALF), Page(BODY, headers=TAG)])
    assert body == BODY


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": f"bytes {HALF - 1}-{len(BODY) - 1}/{len(BODY)}", **TAG},
        {"Content-Range": f"bytes {HALF}-{len(BODY)}/{len(BODY) + 1}", **TAG},
        {"Content-Range": f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}", **OTHER_TAG},
        {"Content-Range": "bytes all", **TAG},
        {},
    ],
    ids=["from elsewhere", "of another length", "of another file", "nonsense", "without a range"],
)
def test_a_part_that_was_not_asked_for_is_not_joined(headers: dict[str, str]) -> None:
    wrong = Page(OTHER[HALF:], 206, headers)
    body, site = fetched([Page(BODY, headers=TAG, sent=HALF), wrong, Page(BODY, headers=TAG)], None)
    assert body == BODY
    assert site.ranges == [None, f"bytes={HALF}-", None]


def test_a_range_beyond_the_end_starts_over() -> None:
    short = Page(OTHER[:HALF], ranges=True)
    body, site = fetched([Page(BODY, sent=HALF), short, Page(BODY)])
    assert body == BODY
    assert site.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"one"'}], ids=["no tag", "weak tag"])
def test_without_a_validator_and_a_hash_no_parts_are_joined(headers: dict[str, str]) -> None:
    first, second = Page(BODY, headers=headers, sent=HALF), Page(OTHER, ranges=True)
    body, site = fetched([first, second], None)
    assert body == OTHER
    assert site.ranges == [None, None]


def test_parts_of_two_files_with_the_same_name_do_not_pass_for_one() -> None:
    first, second = Page(OTHER, sent=HALF), Page(BODY, ranges=True)
    body, site = fetched([first, second])
    assert body == BODY
    assert site.ranges == [None, f"bytes={HALF}-", None]


def test_a_failing_server_is_asked_again_later_each_time(slept: list[float]) -> None:
    body, site = fetched([Page(status=status) for status in (500, 502, 503, 504)] + [Page(BODY)])
    assert body == BODY
    assert len(site.asked) == ATTEMPTS
    assert all(0 <= pause <= 2.0**n for n, pause in enumerate(slept, 1))
    assert len(set(slept)) == len(slept) == ATTEMPTS - 1


def test_a_server_that_keeps_failing_is_given_up_and_says_how_to_go_on() -> None:
    with (
        Site({"/a.pth": Page(status=503)}) as site,
        pytest.raises(NetworkError, match=r"503 Service Unavailable, 5 times.*set model\.checkp"),
    ):
        download(f"{site.address}/a.pth", SHA256)
    assert len(site.asked) == ATTEMPTS


def test_progress_gives_new_tries() -> None:
    cut = Page(BODY, ranges=True, headers=TAG, sent=1 << 19)
    body, site = fetched([*[cut] * 9, Page(BODY, ranges=True, headers=TAG)])
    assert body == BODY
    assert len(site.asked) == 10


def test_a_server_that_sends_a_byte_at_a_time_is_given_up() -> None:
    with (
        Site({"/a.pth": Page(BODY, ranges=True, headers=TAG, sent=1)}) as site,
        pytest.raises(NetworkError, match=f"{ATTEMPTS} times in a row; {ATTEMPTS} bytes are"),
    ):
        download(f"{site.address}/a.pth", SHA256)
    assert len(site.asked) == ATTEMPTS


def test_what_came_before_giving_up_is_kept_for_the_next_run() -> None:
    pages = [Page(BODY, headers=TAG, sent=HALF), *[Page(status=503)] * ATTEMPTS]
    with Site({"/a.pth": [*pages, Page(BODY, ranges=True, headers=TAG)]}) as site:
        with pytest.raises(NetworkError, match=f"{HALF} bytes are kept"):
            download(f"{site.address}/a.pth", SHA256)
        assert download(f"{site.address}/a.pth", SHA256).read_bytes() == BODY
    assert site.ranges[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        ("7", 7, 9),
        (format_datetime(datetime(2999, 12, 31, tzinfo=UTC), usegmt=True), 60, 60),
        (format_datetime(datetime(1999, 12, 31, tzinfo=UTC), usegmt=True), 0, 2),
        ("1000000", 60, 60),
        ("soon", 0, 2),
        ("-5", 0, 2),
    ],
)
def test_the_server_says_when_to_come_again_within_reason(
    given: str, least: float, most: float, slept: list[float]
) -> None:
    fetched([Page(status=429, headers={"Retry-After": given}), Page(BODY)])
    assert len(slept) == 1
    assert least <= slept[0] <= most


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (Page(status=401), "401 Unauthorized"),
        (Page(status=403), "403 Forbidden"),
        (Page(status=404), "404 Not Found"),
        (Page(status=410), "410 Gone"),
        (Page(status=206), "206 Partial Content"),
        (Page(b"<html>Sign in</html>", headers={"Content-Type": "text/html"}), "a web page"),
        (Page(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "packed as gzip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_will_not_change_is_asked_for_once(page: Page, words: str, tmp_path: Path) -> None:
    with Site({"/a.pth": page}) as site, pytest.raises(NetworkError) as caught:
        download(f"{site.address}/a.pth", SHA256)
    assert words in str(caught.value)
    assert "set model.checkpoint" in str(caught.value)
    assert site.asked == ["/a.pth"]
    assert not [*tmp_path.rglob("*.part"), *tmp_path.rglob("*.pth")]


def test_a_wrong_file_is_asked_for_once_and_not_kept(tmp_path: Path) -> None:
    with Site({"/a.pth": Page(OTHER)}) as site, pytest.raises(IntegrityError):
        download(f"{site.address}/a.pth", SHA256)
    assert site.asked == ["/a.pth"]
    assert not [*tmp_path.rglob("*.part"), *tmp_path.rglob("*.pth")]


def test_redirects_in_a_circle_are_left() -> None:
    circle = Page(status=302, headers={"Location": "/a.pth"})
    with Site({"/a.pth": circle}) as site, pytest.raises(NetworkError, match="address to address"):
        download(f"{site.address}/a.pth", SHA256)


def test_a_length_that_is_too_long_is_never_reached() -> None:
    with (
        Site({"/a.pth": Page(BODY, length=len(BODY) + 10)}) as site,
        pytest.raises(NetworkError, match="broke off, 5 times in a row"),
    ):
        download(f"{site.address}/a.pth", SHA256)


def test_a_length_that_is_too_short_is_caught_by_the_hash() -> None:
    with Site({"/a.pth": Page(BODY, length=1000)}) as site, pytest.raises(IntegrityError):
        download(f"{site.address}/a.pth", SHA256)


def test_a_host_that_cannot_be_reached_is_a_network_error() -> None:
    with Site({}) as site:
        pass
    with pytest.raises(NetworkError, match=r"cannot be reached.*set model\.checkpoint"):
        download(f"{site.address}/a.pth", SHA256)


def trickle() -> Iterator[bytes]:
    while True:
        yield b"."


def test_a_trickle_is_no_transfer(tmp_path: Path) -> None:
    hours = itertools.count(0, 3600)
    with Site({"/a.pth": Page(pieces=trickle, length=1 << 30)}) as site:
        slow = Transfer(
            f"{site.address}/a.pth", tmp_path / "a.part", checked=True, clock=lambda: next(hours)
        )
        with pytest.raises(NetworkError, match=r"only \d+ bytes came in 3600 s, 5 times"):
            slow.run()
    assert len(site.asked) == ATTEMPTS


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(1 << 16)


@pytest.mark.parametrize(
    "page", [Page(BODY), Page(pieces=endless)], ids=["too long", "without an end"]
)
def test_no_more_than_the_limit_is_fetched(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_VIT_MAX_DOWNLOAD_GB", "0.002")
    with (
        Site({"/a.pth": page}) as site,
        pytest.raises(InputError, match=r"2,000,000 are downloaded.*EDGE_VIT_MAX_DOWNLOAD_GB"),
    ):
        download(f"{site.address}/a.pth", SHA256)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("given", ["much", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VIT_MAX_DOWNLOAD_GB", given)
    with Site({"/a.pth": Page(BODY)}) as site, pytest.raises(InputError, match="to a number"):
        download(f"{site.address}/a.pth", SHA256)


def test_a_file_that_the_disk_cannot_hold_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(1 << 40, 1 << 40, len(BODY) - 1)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    with Site({"/a.pth": Page(BODY)}) as site, pytest.raises(InputError, match="EDGE_VIT_CACHE"):
        download(f"{site.address}/a.pth", SHA256)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"validator": "x"}'])
def test_notes_that_were_damaged_cost_only_a_new_start(text: str, tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(OTHER[:HALF])
    part.with_suffix(".json").write_text(text)
    with Site({"/a.pth": Page(BODY, ranges=True)}) as site:
        Transfer(f"{site.address}/a.pth", part, checked=True).run()
    assert part.read_bytes() == BODY


def test_the_bar_begins_where_the_part_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[dict[str, Any]] = []

    class Bar:
        def __init__(self, *_: object, **options: Any) -> None:
            bars.append(options)
            self.n = options["initial"]

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            bars[-1]["reached"] = self.n

        def update(self, count: int) -> None:
            self.n += count

    monkeypatch.setattr("tqdm.tqdm", Bar)
    pages = [Page(BODY, headers=TAG, sent=HALF), Page(BODY, ranges=True, headers=TAG)]
    fetched(pages)
    seen = [(bar["initial"], bar["reached"], bar["total"]) for bar in bars]
    assert seen == [(0, HALF, len(BODY)), (HALF, len(BODY), len(BODY))]
