from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.core.errors import InputError, IntegrityError, NetworkError
from pipeline.support.download import (
    check_sha256,
    download,
    hub_file,
    trust,
    trusted_sha256,
)
from tests.loopback import Page, Site, hub_pages

BODY = bytes(range(256)) * 8192  # 2 MiB: more than one chunk
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGE_VIT_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


def test_a_downloaded_file_is_named_by_its_hash(cache: Path) -> None:
    with Site({"/a.pth": Page(BODY)}) as site:
        path = download(f"{site.address}/a.pth")
    assert path == cache / f"{SHA256}.pth"
    assert path.read_bytes() == BODY


def test_a_file_in_the_cache_needs_no_server() -> None:
    with Site({"/a.pth": Page(BODY)}) as site:
        first = download(f"{site.address}/a.pth", SHA256[:8])
    assert download(f"{site.address}/a.pth", SHA256[:8]) == first


def test_a_file_damaged_in_the_cache_is_fetched_again() -> None:
    with Site({"/a.pth": Page(BODY)}) as site:
        path = download(f"{site.address}/a.pth", SHA256)
        path.write_bytes(BODY[:-1])
        assert download(f"{site.address}/a.pth", SHA256).read_bytes() == BODY
    assert site.asked == ["/a.pth", "/a.pth"]


def test_another_file_is_refused_with_both_hashes_and_leaves_nothing(cache: Path) -> None:
    with Site({"/a.pth": Page(b"another")}) as site, pytest.raises(IntegrityError) as caught:
        download(f"{site.address}/a.pth", SHA256[:8])
    assert SHA256[:8] in str(caught.value)
    assert hashlib.sha256(b"another").hexdigest() in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (Page(BODY, sent=1 << 20), "broke off"),
        (Page(BODY, length=len(BODY) + 10), "broke off"),
        (Page(b"<html>Sign in</html>", headers={"Content-Type": "text/html"}), "web page"),
        (Page(b"gone", status=404), "404 Not Found"),
        (Page(b"", status=503), "503"),
    ],
    ids=["dropped midway", "length too long", "html", "404", "503"],
)
def test_a_misbehaving_server_is_a_network_error_that_says_how_to_go_on(
    page: Page, words: str, cache: Path
) -> None:
    with Site({"/a.pth": page}) as site, pytest.raises(NetworkError) as caught:
        download(f"{site.address}/a.pth", SHA256)
    assert words in str(caught.value)
    assert "set model.checkpoint" in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_length_that_is_too_short_is_caught_by_the_hash() -> None:
    with Site({"/a.pth": Page(BODY, length=1000)}) as site, pytest.raises(IntegrityError):
        download(f"{site.address}/a.pth", SHA256)


def test_a_host_that_cannot_be_reached_is_a_network_error() -> None:
    with Site({}) as site:
        pass
    with pytest.raises(NetworkError, match=r"cannot be reached.*set model\.checkpoint"):
        download(f"{site.address}/a.pth", SHA256)


def test_plain_http_to_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match="only https"):
        download("http://192.0.2.1/a.pth", SHA256)


def test_a_redirect_to_plain_http_is_not_followed() -> None:
    away = Page(status=302, headers={"Location": "http://192.0.2.1/a.pth"})
    with Site({"/a.pth": away}) as site, pytest.raises(InputError, match=r"192\.0\.2\.1.*https"):
        download(f"{site.address}/a.pth", SHA256)


def test_a_redirect_on_loopback_is_followed() -> None:
    pages = {"/a.pth": Page(status=302, headers={"Location": "/b"}), "/b": Page(BODY)}
    with Site(pages) as site:
        assert download(f"{site.address}/a.pth", SHA256).read_bytes() == BODY


def test_a_hash_prefix_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(BODY)
    assert check_sha256(tmp_path / "a", SHA256[:8], "a") == SHA256


def test_what_was_trusted_once_may_not_change() -> None:
    assert trusted_sha256("a") is None
    trust("a", "1" * 64)
    trust("a", "1" * 64)
    trust("b", "2" * 64)
    with pytest.raises(IntegrityError, match=f"{'1' * 64}.*{'2' * 64}.*trusted.json"):
        trust("a", "2" * 64)
    assert trusted_sha256("a") == "1" * 64


def test_a_hub_file_lies_in_a_folder_named_by_its_commit(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Site(hub_pages("org/name", {"config.json": b"{}"}, commit="d" * 40)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        path = hub_file("org/name", "config.json")
    assert path.read_bytes() == b"{}"
    assert path.parent.name == "d" * 40
    assert cache in path.parents


def test_a_hub_without_the_repository_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site({}) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        with pytest.raises(NetworkError, match=r"hf:org/name.*set model\.checkpoint"):
            hub_file("org/name", "config.json")


def test_a_hub_that_cannot_be_reached_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client retries for 20 s
    with Site({}) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
    with pytest.raises(NetworkError, match=r"hf:org/name.*set model\.checkpoint"):
        hub_file("org/name", "config.json")
