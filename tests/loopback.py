"""A real HTTP server on loopback that serves files, and misbehaves when a test asks for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass
class Page:
    """One answer. ``sent`` is how many bytes of the body go out before the connection drops."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # Content-Length, true unless a test lies
    sent: int | None = None


class Site:
    """Serve ``pages`` by path while in a ``with`` block, and remember what was asked for."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                self.answer(site.pages.get(self.path, Page(b"no such page", 404)))

            def do_HEAD(self) -> None:
                self.answer(site.pages.get(self.path, Page(status=404)))

            def answer(self, page: Page) -> None:
                self.send_response(page.status)
                length = len(page.body) if page.length is None else page.length
                for key, value in {"Content-Length": str(length), **page.headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(page.body[: page.sent])
                    self.close_connection = page.sent is not None or page.length is not None

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Site:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


def hub_pages(repository: str, files: dict[str, bytes], commit: str = "c" * 40) -> dict[str, Page]:
    """Return what a model hub answers for the files of one repository."""
    pages = {}
    for name, body in files.items():
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hash(body) & 0xFFFFFFFF:040x}"'}
        for revision in ("main", commit):
            pages[f"/{repository}/resolve/{revision}/{name}"] = Page(body, headers=headers)
    return pages
