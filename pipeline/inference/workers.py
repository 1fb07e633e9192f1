"""A fixed number of processes, each with a runtime of its own on one thread.

Processes, since two of the runtimes hold Python's global lock while they run, and since a process
can be killed: an image that takes too long or a decoder that crashes costs one worker, which is
replaced, and one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import multiprocessing
import re
import resource
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import EdgeVitError
from pipeline.inference.classify import Classifier
from pipeline.inference.requests import Job, Reply, reply

LOG = logging.getLogger("edge_vit")
LOAD_SECONDS = 120.0
RETRY_SECONDS = 1.0
WATCH_SECONDS = 1.0  # after which a worker that died without a request is noticed
WARMUP = 2
ATTEMPTS = 2  # a worker may have died before a request came; one that dies twice dies of it
SLACK_BYTES = 256 << 20  # what a worker may grow by, beside what pixels and bodies take
BYTES_A_PIXEL = 16  # decoded, rotated, converted and resized at once
BODIES = 6  # JSON, its text, base64 and the image in it, at once

T = TypeVar("T")


class WorkerDied(Exception):
    """A worker ended before it answered."""


class NoneFree(Exception):
    """No worker was free in time."""


@dataclass(frozen=True)
class Limits:
    """What one request may take."""

    max_pixels: int
    max_body_bytes: int
    seconds: float  # to decode and classify one image


class Worker:
    """One process; methods block, and are called by one thread at a time."""

    def __init__(self, path: Path, limits: Limits) -> None:
        # Started from a small server process that has the libraries loaded: quick to replace, and
        # without the threads and open connections of the one that answers requests.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pipeline.inference.worker_preload"])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, path, limits), daemon=True)
        self._process.start()
        theirs.close()
        self._seconds = limits.seconds

    def wait_ready(self) -> str:
        """Wait until the file is loaded and warmed up; return its contract as JSON.

        Raises:
            EdgeVitError: it cannot be loaded.
        """
        try:
            loaded = self._receive(LOAD_SECONDS)
        except (TimeoutError, EOFError, OSError) as error:
            self.kill()
            raise EdgeVitError(f"a worker did not start: {error or 'it died'}") from error
        if isinstance(loaded, EdgeVitError):
            raise loaded
        return str(loaded)

    def ask(self, job: Job) -> Reply:
        """Answer one request; a worker that takes too long is killed.

        Raises:
            WorkerDied: it can answer no more.
        """
        try:
            self._connection.send(job)
            answer: Reply = self._receive(self._seconds)
            return answer
        except TimeoutError:
            self.kill()
            return Reply(422, f"the image takes longer than {self._seconds:g} s")
        except (EOFError, OSError):
            self.kill()
            raise WorkerDied from None

    def _receive(self, seconds: float) -> Any:
        if not self._connection.poll(seconds):
            raise TimeoutError(f"no answer in {seconds:g} s")
        return self._connection.recv()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        self._process.join()
        # One whose fork server was killed counts as gone and is not; it ends with its connection.
        self._connection.close()


class Workers:
    """All workers; requests wait for the next free one, first come first served."""

    def __init__(self, path: Path, count: int, limits: Limits) -> None:
        self.count = count
        self._path, self._limits = path, limits
        self._threads = ThreadPoolExecutor(2 * count)  # one asks, one replaces
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._all: set[Worker] = set()
        self._loaded: set[Worker] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def start(self) -> str:
        """Start all; return the file's contract as JSON.

        Raises:
            EdgeVitError: the file cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        started = [loop.run_in_executor(self._threads, self._start) for _ in range(self.count)]
        contract = ""
        for future in asyncio.as_completed(started):
            worker, contract = await future
            self._idle.put_nowait(worker)
        self._keep(self._watch())
        return contract

    @property
    def alive(self) -> bool:
        """Whether there is a worker that is loaded and lives."""
        return any(worker.alive for worker in list(self._loaded))

    async def ask(self, job: Job, wait_seconds: float) -> Reply:
        """Answer a request by the next free worker; a worker that died is replaced.

        Cancelled while it waits, it gives its turn to the next; later, it ends with the worker.

        Raises:
            NoneFree: it would have waited longer than ``wait_seconds``.
        """
        try:
            async with asyncio.timeout(wait_seconds):
                worker = await self._idle.get()
        except TimeoutError:
            raise NoneFree from None
        running = self._keep(self._ask(worker, job))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])  # the worker is free again only when it has answered
            raise

    def close(self) -> None:
        """End all at once, whatever they do."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._all):
            worker.kill()

    async def _ask(self, worker: Worker, job: Job) -> Reply:
        """Ask ``worker``; whatever happens, a live one is free afterwards in its place."""
        loop = asyncio.get_running_loop()
        try:
            for _ in range(ATTEMPTS):
                try:
                    if not worker.alive:
                        worker = await self._replaced(worker)
                    return await loop.run_in_executor(self._threads, worker.ask, job)
                except WorkerDied:
                    continue
            return Reply(500, "the workers that took this image died; others are still answered")
        finally:
            self._release(worker)

    def _release(self, worker: Worker) -> None:
        if worker.alive:
            self._idle.put_nowait(worker)
        elif not self._closed:
            self._keep(self._refill(worker))

    async def _watch(self) -> None:
        """Replace workers that die while they wait; else nothing would until a request comes."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for _ in range(self._idle.qsize()):
                self._release(self._idle.get_nowait())

    async def _refill(self, dead: Worker) -> None:
        with contextlib.suppress(WorkerDied):  # the server ends
            self._idle.put_nowait(await self._replaced(dead))

    async def _replaced(self, dead: Worker) -> Worker:
        """Start another worker, however often that fails: a place that is given up is lost.

        Raises:
            WorkerDied: the server ends meanwhile.
        """
        self._forget(dead)
        loop = asyncio.get_running_loop()
        while True:
            try:
                worker, _ = await loop.run_in_executor(self._threads, self._start)
                return worker
            except Exception as error:  # a fork server that was killed shows in many ways
                if self._closed:
                    raise WorkerDied from error
                LOG.error("%s; trying again", str(error) or repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    def _start(self) -> tuple[Worker, str]:
        """Start a worker and wait until it is loaded; return its contract, too."""
        worker = Worker(self._path, self._limits)
        self._all.add(worker)
        try:
            if self._closed:
                raise WorkerDied
            contract = worker.wait_ready()
        except BaseException:
            self._forget(worker)
            raise
        self._loaded.add(worker)
        return worker, contract

    def _forget(self, worker: Worker) -> None:
        self._all.discard(worker)
        self._loaded.discard(worker)
        worker.kill()

    def _keep(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)  # asyncio itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task


def _work(connection: Connection, path: Path, limits: Limits) -> None:
    """Run a worker until the server closes its connection."""
    try:
        classifier = Classifier(path, max_pixels=limits.max_pixels)
        for _ in range(WARMUP):
            classifier.classify(_grey_image())
        connection.send(classifier.contract.to_json())
    except EdgeVitError as error:
        connection.send(EdgeVitError(str(error)))
        return
    _limit_memory(limits)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            answer = reply(classifier, job)
        except Exception as error:
            LOG.exception("a request failed")
            answer = Reply(500, f"the request failed: {type(error).__name__}")
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


def _grey_image() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (256, 256), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def _limit_memory(limits: Limits) -> None:
    """Let the kernel refuse memory beyond what one request needs at most (Linux)."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return
    vm_data = re.search(r"VmData:\s+(\d+) kB", text)
    if vm_data is None:
        return
    growth = BYTES_A_PIXEL * limits.max_pixels + BODIES * limits.max_body_bytes + SLACK_BYTES
    limit = int(vm_data[1]) * 1024 + growth
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
