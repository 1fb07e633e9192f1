"""Answer over HTTP, as hub inference endpoints for image classification do.

    \b
    curl --data-binary @cat.jpg http://127.0.0.1:8080/

docs/serving.md shows clients, limits and what the server carries. SIGTERM and Ctrl-C stop it: what
was accepted is answered first.
"""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.common import COUNT, command, release_options
from pipeline.errors import InputError
from pipeline.inference import select
from pipeline.process import cores

if TYPE_CHECKING:
    import uvicorn

    from pipeline.inference.app import Service

BACKLOG = 1024
BODY_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 15
POSITIVE = click.FloatRange(0, 1e6, min_open=True, max_open=True)


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    release: Path | None
    runtime: str
    host: str
    port: int
    workers: int
    queue: int
    max_body: float  # 10^6 bytes
    max_pixels: float  # 10^6
    timeout: float  # seconds
    grace: int  # seconds


def serve(options: Options) -> None:
    """Serve until a signal.

    Raises:
        InputError: the release, the address or the extra packages are not there.
        EdgeVitError: the model cannot be loaded.
    """
    _require_extra()
    chosen = select.select_artifact(options.release, options.runtime)
    listener = _listen(options.host, options.port)
    server, service = _make(options, chosen)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)  # uvicorn ends with the handler it found
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"edge-vit: {chosen.path.name} on http://{shown}:{port}/, docs at /docs", flush=True)
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        print(
            f"edge-vit: warning: {host} can be reached by others, who need no password and are not "
            "encrypted; put a proxy with both before it",
            file=sys.stderr,
            flush=True,
        )
    server.run([listener])
    if service.failure:
        raise service.failure


def _make(options: Options, chosen: select.Chosen) -> tuple[uvicorn.Server, Service]:
    import uvicorn

    from pipeline.inference.admission import Admission
    from pipeline.inference.app import Service, build
    from pipeline.inference.connections import Protocol, Server
    from pipeline.inference.workers import Limits, Workers

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    max_bytes = int(options.max_body * 1e6)
    limits = Limits(int(options.max_pixels * 1e6), max_bytes, options.timeout)
    admission = Admission(
        options.workers, options.queue, max_body_bytes=max_bytes, body_seconds=BODY_SECONDS
    )
    service = Service(
        chosen,
        Workers(chosen.path, options.workers, limits),
        admission,
        stopping=lambda: server.should_exit,
    )

    def stop() -> None:
        server.should_exit = True

    server = Server(
        uvicorn.Config(
            build(service, stop),
            http=Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=options.grace,
        )
    )
    return server, service


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The port as given: getaddrinfo makes 34463 of 99999.
        listener = socket.create_server((address[0], port), family=family, backlog=BACKLOG)
        # Connections inherit it; without it an answer's second packet waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on {host} port {port}: {words}; choose others with --host and --port"
        ) from None


def _require_extra() -> None:
    try:
        import fastapi
        import fastapi_offline
        import prometheus_client
        import uvicorn
    except ModuleNotFoundError as error:
        raise InputError(
            f"edge-vit serve needs {error.name}, which is not installed; in the repository's "
            f"folder, run: {sys.executable} -m pip install -e '.[serve]'"
        ) from None
    del fastapi, fastapi_offline, prometheus_client, uvicorn


@command("serve", __doc__)
@release_options
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(min=0), default=8080, help="0: any that is free.")
@click.option("--workers", type=COUNT, default=cores, show_default="cores", help="Processes.")
@click.option("--queue", type=click.IntRange(min=0), default=16, help="Requests that may wait.")
@click.option("--max-body", type=POSITIVE, default=16, metavar="MB", help="Size of a request.")
@click.option("--max-pixels", type=POSITIVE, default=25, metavar="MP", help="Size of an image.")
@click.option("--timeout", type=POSITIVE, default=10, metavar="S", help="Seconds for an image.")
@click.option("--grace", type=COUNT, default=30, metavar="S", help="Seconds to stop in.")
def main(**options: Any) -> None:
    """Serve a file until the process is stopped."""
    serve(Options(**options))


if __name__ == "__main__":
    main()
