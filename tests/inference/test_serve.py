"""How the server starts, what it refuses under load, and that it loses nothing when it stops."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.inference.images import encoded
from tests.inference.served import Served, exchange

pytestmark = pytest.mark.full

ROOT = Path(__file__).parent.parent.parent


def refused(work: Path, *options: str) -> str:
    """What a server that does not start says."""
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "serve", "--port", "0", *options],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_what_keeps_it_from_starting_is_one_clear_error(released, tmp_path):
    assert "no release below" in refused(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = refused(released, "--port", str(taken.getsockname()[1]))
    assert "Address already in use" in words
    assert "choose others with --host and --port" in words
    assert "cannot listen on nowhere.invalid" in refused(released, "--host", "nowhere.invalid")
    assert "port must be 0-65535" in refused(released, "--port", "99999")


def test_a_file_that_cannot_be_loaded_ends_the_server_with_its_reason(released, tmp_path):
    from pipeline.files import sha256_file

    release = Path(
        shutil.copytree(released / "artifacts" / "release" / "model-0.1.0", tmp_path / "m")
    )
    ptl = next(release.glob("*.ptl"))
    ptl.write_bytes(ptl.read_bytes()[:1000])
    listed = [p for p in sorted(release.iterdir()) if p.name != "SHA256SUMS"]
    sums = "".join(f"{sha256_file(path)}  {path.name}\n" for path in listed)
    (release / "SHA256SUMS").write_text(sums)
    assert "is damaged" in refused(released, "--release", str(release))


def test_without_the_extra_the_message_names_the_command_that_installs_it(released, tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('no', name='fastapi')")
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "serve"],
        cwd=released,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "needs fastapi, which is not installed" in ran.stderr
    assert "-m pip install -e '.[serve]'" in ran.stderr


def test_an_address_that_others_reach_comes_with_a_warning(released, tmp_path):
    log = tmp_path / "log"
    server = Served(released, log, "--host", "0.0.0.0", wait=False)
    while "docs at" not in server.words():
        assert server.process.poll() is None, server.words()
        time.sleep(0.05)
    time.sleep(0.2)
    assert "warning: 0.0.0.0 can be reached by others" in server.words()
    assert server.stop() == 0


def test_under_overload_every_request_is_answered_or_told_when_to_come_back(released, tmp_path):
    async def load(address: str) -> list[httpx2.Response]:
        image = encoded("JPEG")
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=120, limits=limits) as client:
            return await asyncio.gather(*(client.post(address, content=image) for _ in range(80)))

    options = ("--runtime", "int8", "--workers", "1", "--queue", "4")
    with Served(released, tmp_path / "log", *options) as server:
        answers = asyncio.run(load(f"{server.address}/"))
        assert len(answers) == 80
        counts = Counter(answer.status_code for answer in answers)
        assert set(counts) == {200, 503}
        assert counts[200] >= 5
        for answer in answers:
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert "queue is full" in answer.json()["error"]
        assert server.post(encoded("JPEG")).status_code == 200
        assert server.stop() == 0


def request(image: bytes, *, keep: bool = False) -> bytes:
    connection = "keep-alive" if keep else "close"
    head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n"
    return f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image


class Clients:
    """Threads that ask, each with a new connection, until the server takes no more."""

    def __init__(self, server: Served, count: int) -> None:
        self.answered: Counter[str] = Counter()
        self.lost: list[str] = []
        self._server = server
        self._request = request(encoded("JPEG"))
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while True:
            try:
                connection = self._server.connect(60)
            except OSError:
                return  # never accepted
            with connection:
                answer = exchange(connection, self._request)
            head, _, body = answer.partition(b"\r\n\r\n")
            if body.startswith((b"[", b"{")) and body.endswith((b"]", b"}")):
                self.answered[head.split()[1].decode()] += 1
            else:
                self.lost.append(repr(answer))

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(60)


@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_accepted_request_is_lost_when_it_stops(released, tmp_path, number, whole_group):
    options = ("--runtime", "int8", "--workers", "1", "--queue", "8")
    with Served(released, tmp_path / "log", *options) as server:
        clients = Clients(server, 12)
        deadline = time.monotonic() + 60
        while clients.answered["200"] < 20:
            assert time.monotonic() < deadline, clients.lost[:3]
            time.sleep(0.05)
        if whole_group:  # as a terminal or a service manager does
            os.killpg(server.process.pid, number)
        status = server.stop(number) if not whole_group else server.process.wait(60)
        clients.wait()
    assert status == 0, server.words()
    assert not clients.lost
    assert set(clients.answered) <= {"200", "503"}
    assert "Traceback" not in server.words()


def test_a_request_on_an_open_connection_is_answered_while_it_stops(released, tmp_path):
    with Served(released, tmp_path / "log", "--runtime", "int8", "--workers", "1") as server:
        whole = request(encoded("JPEG"), keep=True)
        with server.connect() as early, server.connect() as late:
            early.sendall(whole[:-10])
            late.sendall(b"")
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            late.sendall(whole)
            early.sendall(whole[-10:])
            for connection in (early, late):
                answer = exchange(connection, b"")
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert b"connection: close" in answer.lower()
        assert server.process.wait(60) == 0


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(released, tmp_path):
    options = ("--runtime", "int8", "--workers", "2")
    with Served(released, tmp_path / "log", *options) as server:
        before = server.workers()
        assert len(before) == 2
        image = encoded("JPEG")
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert [server.post(image).status_code for _ in range(4)] == [200] * 4
        after = server.workers()
        assert len(after) == 2
        assert not set(after) & set(before)
        assert server.stop() == 0


def test_a_fork_server_that_is_killed_again_while_it_loads_costs_no_place(released, tmp_path):
    options = ("--runtime", "int8", "--workers", "2")
    with Served(released, tmp_path / "log", *options) as server:
        image = encoded("JPEG")
        for _ in range(2):  # the second one as soon as it is there, when it still loads
            forking, *workers = server.processes()[2:]
            for pid in (forking, *workers):
                os.kill(pid, signal.SIGKILL)
            asked = threading.Thread(target=server.post, args=(image,))
            asked.start()
            while server.processes()[2:3] in ([], [forking]):
                time.sleep(0.01)
            assert httpx2.get(f"{server.address}/ready").status_code == 503
        deadline = time.monotonic() + 60
        while len(server.workers()) < 2 or httpx2.get(f"{server.address}/ready").is_error:
            assert time.monotonic() < deadline, server.words()
            time.sleep(0.1)
        asked.join(60)
        assert [server.post(image).status_code for _ in range(4)] == [200] * 4
        assert server.stop() == 0


def test_workers_that_die_without_a_request_are_replaced(released, tmp_path):
    with Served(released, tmp_path / "log", "--runtime", "int8", "--workers", "1") as server:
        (before,) = server.workers()
        os.kill(before, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while server.workers() in ([], [before]):
            assert time.monotonic() < deadline, server.words()
            time.sleep(0.1)


def test_a_client_that_ends_its_side_gets_its_answer(released, tmp_path):
    with Served(released, tmp_path / "log", "--runtime", "int8", "--workers", "1") as server:
        for _ in range(5):
            with server.connect() as connection:
                answer = exchange(connection, request(encoded("JPEG"), keep=True), go_away=True)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
            assert answer.endswith(b"]")


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_goes_away_while_it_waits_gives_its_place_back(released, tmp_path, reset):
    def depth() -> float:
        text = httpx2.get(f"{server.address}/metrics").text
        return float(text.partition("\nedge_vit_queue_depth ")[2].split()[0])

    def until(wanted: int) -> None:
        deadline = time.monotonic() + 10
        while depth() != wanted:
            assert time.monotonic() < deadline, depth()
            time.sleep(0.05)

    options = ("--runtime", "int8", "--workers", "1", "--queue", "2")
    with Served(released, tmp_path / "log", *options) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.sendall(request(encoded("JPEG")))
        until(2)
        for client in clients[1:]:
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        until(0)
        os.kill(worker, signal.SIGCONT)
        with clients[0]:
            assert exchange(clients[0], b"").startswith(b"HTTP/1.1 200")
        assert server.post(encoded("JPEG")).status_code == 200


def test_the_end_of_the_server_ends_its_workers_too(released, tmp_path):
    with Served(released, tmp_path / "log", "--runtime", "int8") as server:
        processes = server.processes()
        assert len(processes) > 3
        server.stop(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(_lives(pid) for pid in processes):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_image_that_takes_too_long_costs_its_worker_and_no_more(released, tmp_path):
    options = ("--runtime", "int8", "--workers", "1", "--timeout", "0.001")
    with Served(released, tmp_path / "log", *options) as server:
        before = server.workers()
        for _ in range(2):
            answer = server.post(encoded("JPEG"))
            assert answer.status_code == 422
            assert "takes longer than 0.001 s" in answer.json()["error"]
        assert not set(before) & set(server.workers())
        assert server.stop() == 0
