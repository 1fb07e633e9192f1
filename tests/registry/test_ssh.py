"""A DVC remote over a real protocol: an SFTP server on loopback, killed in mid-push."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.children import ENDING_WITH_TESTS
from tests.registry.registry_fixture import MODEL, Forker, Registry

SERVER = Path(__file__).with_name("sftp.py")


@contextmanager
def serving(base: Path, port: int = 0, dies_after_bytes: int | None = None) -> Iterator[int]:
    """Serve ``base`` with a new server process; its port."""
    limit = [] if dies_after_bytes is None else [str(dies_after_bytes)]
    server = subprocess.Popen(
        [*ENDING_WITH_TESTS, sys.executable, SERVER, base, base / "host_key", "secret", *limit],
        env=os.environ | {"PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    try:
        yield int(server.stdout.readline())
        if dies_after_bytes is not None:
            assert server.wait(30) == -9, "it was to die"
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("dies_after_bytes", [0, 100_000])
def test_a_server_killed_in_mid_push_leaves_no_tag_and_the_push_goes_on(
    tmp_path: Path, forker: Forker, dies_after_bytes: int
) -> None:
    registry = Registry.make(tmp_path, forker)
    folder = registry.publish("1.0.0")
    assert (folder / f"{MODEL}-1.0.0.ptl").stat().st_size > 100_000
    with serving(tmp_path, dies_after_bytes=dies_after_bytes) as port:
        address = f"ssh://ann@127.0.0.1:{port}/store"
        registry.remote_is(address, password="secret")
        ran = registry.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "run this again to resume" in ran.text
    assert "Traceback" not in ran.text
    assert registry.tags() == {} == registry.tags(registry.work)
    with serving(tmp_path, port):
        registry.do("release")
        registry.check_tags()
        registry.do("promote", "deit-tiny@v1.0.0", "candidate")
        got = registry.fetched("--stage", "candidate")
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=got, check=True)


def test_a_server_that_is_away_is_named(tmp_path: Path, forker: Forker) -> None:
    registry = Registry.make(tmp_path, forker)
    registry.publish("1.0.0")
    registry.remote_is("ssh://ann@127.0.0.1:1/store", password="secret")
    ran = registry.edge_vit("release", "--yes")
    assert ran.status == 2
    assert "DVC remote store (ssh://127.0.0.1:1/store/files/md5) failed" in ran.text
    assert registry.tags() == {}
