"""Answer over HTTP, as hub inference endpoints for image classification do.

    curl --data-binary @cat.jpg http://127.0.0.1:8080/

docs/serving.md shows clients, limits and what the server carries. SIGTERM and Ctrl-C stop it: what
was accepted is answered first.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import InputError, exit_on_error
from pipeline.inference import select
from pipeline.process import cores

if TYPE_CHECKING:
    import uvicorn

    from pipeline.inference.app import Service

BACKLOG = 1024
BODY_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 15


def serve(given: argparse.Namespace) -> None:
    """Serve until a signal.

    Raises:
        InputError: the release, the address or the extra packages are not there.
        EdgeVitError: the model cannot be loaded.
    """
    _require_extra()
    chosen = select.select_artifact(given.release, given.runtime)
    listener = _listen(given.host, given.port)
    server, service = _make(given, chosen)
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


def _make(given: argparse.Namespace, chosen: select.Chosen) -> tuple[uvicorn.Server, Service]:
    import uvicorn

    from pipeline.inference.admission import Admission
    from pipeline.inference.app import Service, build
    from pipeline.inference.connections import Protocol, Server
    from pipeline.inference.workers import Limits, Workers

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    max_bytes = int(given.max_body * 1e6)
    limits = Limits(int(given.max_pixels * 1e6), max_bytes, given.timeout)
    admission = Admission(
        given.workers, given.queue, max_body_bytes=max_bytes, body_seconds=BODY_SECONDS
    )
    service = Service(
        chosen,
        Workers(chosen.path, given.workers, limits),
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
            timeout_graceful_shutdown=given.grace,
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


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="edge-vit serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    select.add_options(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=_whole, default=8080, help="0: any that is free (%(default)s)")
    add("--workers", type=select.count, default=cores(), help="processes (cores: %(default)s)")
    add("--queue", type=_whole, default=16, help="requests that may wait (%(default)s)")
    add("--max-body", type=_positive, default=16, metavar="MB", help="of a request (%(default)s)")
    add("--max-pixels", type=_positive, default=25, metavar="MP", help="of an image (%(default)s)")
    add("--timeout", type=_positive, default=10, metavar="S", help="for an image (%(default)s)")
    add("--grace", type=select.count, default=30, metavar="S", help="to stop in (%(default)s)")
    given = parser.parse_args(arguments)
    with exit_on_error():
        serve(given)


if __name__ == "__main__":
    main()
