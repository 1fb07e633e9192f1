from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError, IntegrityError, NetworkError
from pipeline.untrusted.download import check_sha256, download, hub_file, trust, trusted_sha256
from tests.loopback import Page, Site, hub_pages
from tests.waiting import until

BODY = bytes(range(256)) * 8192  # 2 MiB: more than one chunk
SHA256 = hashlib.sha256(BODY).hexdigest()


def left(cache: Path) -> list[Path]:
    """Whatever of a download is in the cache; the lock of one is empty."""
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


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
    assert left(cache) == []


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


def test_a_hub_file_is_gone_on_with_after_a_cut(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = 10 << 20  # what huggingface_hub writes at once
    body = BODY * 8
    pages: dict[str, Page | list[Page]] = {}
    for path, page in hub_pages("org/name", {"model.safetensors": body}).items():
        page.ranges = True
        pages[path] = [replace(page, sent=chunk + 1), page]
    monkeypatch.setattr("time.sleep", lambda _: None)
    with Site(pages) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        assert hub_file("org/name", "model.safetensors").read_bytes() == body
    assert site.ranges == [None, f"bytes={chunk}-"]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "RepoNotFound", "no such repository, or it is private and HF_TOKEN"),
        (401, "RepoNotFound", "no such repository, or it is private and HF_TOKEN"),
        (403, "GatedRepo", "consent: give it on the repository's page, then set HF_TOKEN"),
        (404, "RevisionNotFound", "it has no revision v2"),
        (404, "EntryNotFound", "it has no file config.json"),
        (500, "", "does not answer as it should (Server error '500"),
    ],
)
def test_what_a_hub_refuses_is_one_line_that_says_why(
    status: int, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page(status=status, headers={"X-Error-Code": code} if code else {})
    monkeypatch.setattr("time.sleep", lambda _: None)
    with Site({"/org/name/resolve/v2/config.json": page}) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        with pytest.raises(NetworkError, match=r"set model\.checkpoint") as caught:
            hub_file("org/name", "config.json", "v2")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client retries for 20 s
    with Site({}) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
    with pytest.raises(NetworkError, match=r"hf:org/name: the hub does not answer.*set model"):
        hub_file("org/name", "config.json")


@pytest.mark.parametrize("variable", ["EDGE_VIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_only_what_is_in_the_cache_is_used(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"/a.pth": Page(BODY), "/b.pth": Page(b"b")}
    with Site({**pages, **hub_pages("org/name", {"config.json": b"{}"})}) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        path, file = download(f"{site.address}/a.pth", SHA256), hub_file("org/name", "config.json")
        site.asked.clear()
        monkeypatch.setenv(variable, "1")
        assert download(f"{site.address}/a.pth", SHA256) == path
        assert hub_file("org/name", "config.json") == file
        with pytest.raises(NetworkError, match=r"b\.pth is not in .*offline mode is on.*Without"):
            download(f"{site.address}/b.pth", "b" * 64)
        with pytest.raises(NetworkError, match=r"other\.json is not in .*offline mode is on"):
            hub_file("org/name", "other.json")
    assert site.asked == []


def test_offline_can_be_said_to_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VIT_OFFLINE", "0")
    with Site({"/a.pth": Page(BODY)}) as site:
        assert download(f"{site.address}/a.pth", SHA256).read_bytes() == BODY


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://127.0.0.1:9/a.pth"  # nobody listens there
    with Site({address: Page(BODY)}) as proxy:
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        assert download(address, SHA256).read_bytes() == BODY
    assert proxy.asked == [address]


def test_a_proxy_that_refuses_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with Site({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        with pytest.raises(NetworkError, match="the proxy cannot be reached, or refuses"):
            download("https://models.invalid/a.pth", SHA256)
    assert set(proxy.asked) == {"models.invalid:443"}


def test_two_processes_download_once(cache: Path, tmp_path: Path) -> None:
    both_there = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield BODY[:1000]
        assert both_there.wait(60)
        yield BODY[1000:]

    code = "import sys; from pipeline.untrusted.download import download; "
    code += "print(download(*sys.argv[1:]))"
    with Site({"/a.pth": Page(pieces=pieces, length=len(BODY))}) as site:
        command = [sys.executable, "-c", code, f"{site.address}/a.pth", SHA256]
        first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        until(lambda: any(cache.glob("partial/*.part")))
        second = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert "waiting for another process" in second.stderr.readline()
        both_there.set()
        answers = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert answers == [f"{cache / SHA256}.pth\n"] * 2
    assert site.asked == ["/a.pth"]


def test_what_a_killed_process_left_is_gone_on_with(cache: Path) -> None:
    half = len(BODY) // 2

    def pieces() -> Iterator[bytes]:
        yield BODY[:half]
        killed.wait(60)

    killed = threading.Event()
    headers = {"ETag": '"1"'}
    stuck = Page(pieces=pieces, length=len(BODY), headers=headers)
    with Site({"/a.pth": [stuck, Page(BODY, ranges=True, headers=headers)]}) as site:
        code = "import sys; from pipeline.untrusted.download import download; "
        code += "download(sys.argv[1])"
        child = subprocess.Popen([sys.executable, "-c", code, f"{site.address}/a.pth"])
        until(lambda: sum(p.stat().st_size for p in cache.glob("partial/*.part")) == half)
        child.kill()
        child.wait()
        killed.set()
        assert download(f"{site.address}/a.pth").read_bytes() == BODY
    assert site.ranges == [None, f"bytes={half}-"]
    assert left(cache) == [cache / f"{SHA256}.pth"]
