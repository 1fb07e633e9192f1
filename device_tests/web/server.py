"""The server of the page: a model and its golden samples, on this machine only."""

from __future__ import annotations

import errno
import functools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pipeline.errors import InputError

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"

# Nothing but this server is reached; isolation gives the page exact times.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Site:
    """What is served: the page, packages from npm, a model, a golden folder if there is one."""

    modules: Path  # node_modules
    model: Path
    golden: Path | None

    def file(self, path: str) -> Path | None:
        """The file that stands for a path such as ``/golden/golden.json``; None: there is none."""
        folders = {
            "model": self.model.parent,
            "golden": self.golden,
            "vendor/onnxruntime": self.modules / "onnxruntime-web" / "dist",
            "vendor/protobuf": self.modules / "@bufbuild" / "protobuf" / "dist" / "esm",
        }
        name = path.strip("/") or "index.html"
        folder: Path | None = PAGE
        for prefix, served in folders.items():
            if name.startswith(f"{prefix}/"):
                folder, name = served, name.removeprefix(f"{prefix}/")
                break
        if folder is None or (folder == self.model.parent and name != self.model.name):
            return None
        file = (folder / name).resolve()
        inside = file.is_relative_to(folder.resolve())
        return file if inside and file.is_file() else None

    def description(self) -> bytes:
        """``site.json``: what the page asks for first."""
        name = self.model.name
        model = {"name": name, "url": f"model/{quote(name)}"}
        return json.dumps({"model": model, "golden": self.golden and "golden/"}).encode()


class Handler(SimpleHTTPRequestHandler):
    """Answers with the files of one site, whatever page asks for them."""

    protocol_version = "HTTP/1.1"
    extensions_map = {  # noqa: RUF012  # as the base class has it
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".jpg": "image/jpeg",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".mjs": "text/javascript; charset=utf-8",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".wasm": "application/wasm",
        "": "application/octet-stream",
    }

    def __init__(self, *args: object, site: Site) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send a file or ``site.json``."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Send the headers alone."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/site.json":
            body, kind = self.site.description(), "application/json"
        elif file := self.site.file(path):
            body, kind = file.read_bytes(), self.guess_type(str(file))
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "there is no such file here")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def end_headers(self) -> None:
        """Add the headers that every answer has."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the address is all that people need."""


class Server(ThreadingHTTPServer):
    """A server on loopback that no slow browser keeps from ending."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a browser goes away in the middle of a file."""


def server(site: Site, port: int) -> Server:
    """Listen on loopback; ``port`` 0 takes any that is free.

    Raises:
        InputError: the port cannot be used.
    """
    try:
        return Server((HOST, port), functools.partial(Handler, site=site))
    except (OSError, OverflowError) as error:
        used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is used by another program" if used else f"cannot be used ({error})"
        raise InputError(f"port {port} {reason}; choose another with --port") from None


def address(listening: Server) -> str:
    """Return the URL of a server."""
    return f"http://{HOST}:{listening.server_port}/"


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """Serve in a thread on a free port; yield the address."""
    with server(site, 0) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield address(listening)
        finally:
            listening.shutdown()
            thread.join()
