"""A real HTTP server on loopback that serves files, and misbehaves when a test asks for it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass
class Page:
    """One answer. ``sent`` is how many bytes of the body go out before the connection drops.

    ``ranges`` answers a request for the rest of the file, if the file is still what If-Range says.
    ``pieces`` is a body that is made while it is sent, without a length unless one is given.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # Content-Length, true unless a test lies
    sent: int | None = None
    ranges: bool = False
    pieces: Callable[[], Iterator[bytes]] | None = None

    def part(self, asked: Mapping[str, str]) -> Page:
        """What is left of the page for a request with these headers."""
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.get("Range", ""))
        validators = (self.headers.get("ETag"), self.headers.get("Last-Modified"))
        if not (self.ranges and wanted) or asked.get("If-Range", validators[0]) not in validators:
            return self
        start, total = int(wanted[1]), len(self.body)
        if start >= total:
            return Page(status=416, headers={"Content-Range": f"bytes */{total}"})
        headers = {"Content-Range": f"bytes {start}-{total - 1}/{total}", **self.headers}
        return Page(self.body[start:], 206, headers, sent=self.sent)


class Loopback:
    """A server on a free port of this machine, while in a ``with`` block."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
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


class Site(Loopback):
    """Serve ``pages`` by path while in a ``with`` block, and remember what was asked for.

    A list of pages is answered one after the other, the last one from then on.
    """

    def __init__(self, pages: Mapping[str, Page | list[Page]]) -> None:
        self.pages = dict(pages)
        self.asked: list[str] = []
        self.ranges: list[str | None] = []  # of each request
        self.sent = 0  # bytes of bodies
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.ranges.append(self.headers["Range"])
                self.answer(site.page(self.path).part(self.headers))

            def do_HEAD(self) -> None:
                self.answer(site.page(self.path, turn=False))

            def do_CONNECT(self) -> None:
                """What clients ask a proxy for before they speak to an https server."""
                site.asked.append(self.path)
                self.answer(Page(status=403))

            def answer(self, page: Page) -> None:
                length = len(page.body) if page.length is None else page.length
                endless = page.pieces is not None and page.length is None
                size = {"Connection": "close"} if endless else {"Content-Length": str(length)}
                self.send_response(page.status)
                for key, value in {**size, **page.headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "GET":
                    return
                self.close_connection = endless or (page.sent, page.length) != (None, None)
                for piece in page.pieces() if page.pieces else [page.body[: page.sent]]:
                    # Counted first: a client that has it all may ask before this thread goes on.
                    site.sent += len(piece)
                    try:
                        self.wfile.write(piece)
                    except OSError:  # the client has seen enough
                        site.sent -= len(piece)
                        self.close_connection = True
                        break

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(Handler)

    def page(self, path: str, turn: bool = True) -> Page:
        found = self.pages.get(path, Page(b"no such page", 404))
        if isinstance(found, Page):
            return found
        return found.pop(0) if turn and len(found) > 1 else found[0]


def hub_pages(repository: str, files: dict[str, bytes], commit: str = "c" * 40) -> dict[str, Page]:
    """Return what a model hub answers for the files of one repository."""
    pages = {}
    for name, body in files.items():
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hash(body) & 0xFFFFFFFF:040x}"'}
        for revision in ("main", commit):
            pages[f"/{repository}/resolve/{revision}/{name}"] = Page(body, headers=headers)
    return pages
