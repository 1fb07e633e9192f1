"""The real server in a process of its own, and sockets to misuse it with."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx2

from tests.children import ENDING_WITH_TESTS

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "pipeline.cli", "serve", "--port", "0")
START_SECONDS = 120
STOP_SECONDS = 60


class Served:
    """``edge-vit serve`` on a free port while in a ``with`` block."""

    def __init__(self, work: Path, log: Path, *options: str, wait: bool = True) -> None:
        self.log = log
        self._wait = wait
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [*ENDING_WITH_TESTS, *COMMAND, *options],
                cwd=work,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Served:
        found = None
        deadline = time.monotonic() + START_SECONDS
        while found is None:
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.05)
            found = re.search(r"on http://127\.0\.0\.1:(\d+)/", self.words())
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"
        while self._wait and httpx2.get(f"{self.address}/ready").status_code != 200:
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(signal.SIGKILL)

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def post(self, body: bytes, path: str = "/", **headers: str) -> httpx2.Response:
        return httpx2.post(f"{self.address}{path}", content=body, headers=headers, timeout=60)

    def connect(self, seconds: float = 30) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def processes(self) -> list[int]:
        """The server and all below it, parents first."""
        parents: dict[int, int] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def workers(self) -> list[int]:
        """Those that were forked from the process below the server."""
        return self.processes()[3:]  # the server, multiprocessing's tracker, and the forking one

    def memory(self) -> dict[int, Memory]:
        """Of each process that lives."""
        found = {}
        for pid in self.processes():
            try:
                text = Path(f"/proc/{pid}/status").read_text()
            except FileNotFoundError:
                continue
            values = dict(re.findall(r"(VmHWM|VmRSS):\s+(\d+) kB", text))
            if values:
                found[pid] = Memory(int(values["VmRSS"]) / 1e3, int(values["VmHWM"]) / 1e3)
        return found


@dataclass(frozen=True)
class Memory:
    """Resident memory in MB, now and at most so far."""

    now_mb: float
    peak_mb: float


def exchange(connection: socket.socket, request: bytes, *, go_away: bool = False) -> bytes:
    """Send everything and read until the server closes; b"" where it closed without a word.

    With ``go_away`` the client's side ends first, whatever it still owes.
    """
    answer = b""
    try:
        connection.sendall(request)
        if go_away:
            connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the server had heard enough, and the connection is closed, reset or gone
    try:
        while chunk := connection.recv(1 << 16):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer
