"""uvicorn's server with a deadline for slow senders, and a shutdown that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import socket
import struct
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

CLOSED_SECONDS = 0.25  # between two looks at a client that sends no more
HEAD_SECONDS = 10.0  # from the first byte, or the connection, to a whole head
BEGINNING = b"HTTP/1.1 "  # of every answer
LINGER_SECONDS = 0.5  # what is already on its way when the server stops is still read
MAX_CONNECTIONS = 512
SETTLE_SECONDS = 0.05  # what is connecting when the server stops has connected by then
SO_ATTACH_FILTER = 26  # of Linux; Python's socket module has no name for it


class Protocol(H11Protocol):
    """One connection of a client."""

    _deadline: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request; refuse a connection beyond ``MAX_CONNECTIONS``."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "too many connections", [(b"retry-after", b"1")])
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._expect_nothing()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that ends its side after a whole request, unless it has gone.

        Both look alike until something is sent: so the bytes that every answer begins with are.
        The system of a client that has gone refuses them.
        """
        cycle = self.cycle
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        cycle.keep_alive = False
        if not cycle.response_started:
            self.transport.write(BEGINNING)
            cycle.transport = _Begun(self.transport)  # type: ignore[assignment]
        self._look_for_client()
        return True

    def _look_for_client(self) -> None:
        """Asyncio no longer does, once the client's side has ended."""
        connected = self.transport.get_extra_info("socket")
        if self.transport.is_closing():
            return
        if connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._look = self.loop.call_later(CLOSED_SECONDS, self._look_for_client)

    def data_received(self, data: bytes) -> None:
        """Read; a request's head has to be whole within ``HEAD_SECONDS``."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._expect_nothing()
        elif self._deadline is None and not self.transport.is_closing():
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the form of all errors."""
        self._refuse(400, msg, [])

    def shutdown(self) -> None:
        """Close when the server stops, but not before requests that were sent are answered."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_SECONDS, self._close_idle)
        else:
            super().shutdown()

    def _close_idle(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> None:
        body = json.dumps({"error": reason}).encode()
        fixed: list[Any] = [
            *headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=status, headers=fixed),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Begun:
    """A transport on which ``BEGINNING`` of the answer was sent already."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._missing = transport, BEGINNING

    def write(self, data: bytes) -> None:
        """Send what follows the beginning."""
        if self._missing:
            data, self._missing = data.removeprefix(self._missing), b""
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Server(uvicorn.Server):
    """Takes over connections that the kernel has accepted before listening stops; no reset."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer every connection that was accepted, then close."""
        loop = asyncio.get_running_loop()
        for listener in sockets or []:
            ignore_new(listener)
            loop.remove_reader(listener)
        await asyncio.sleep(SETTLE_SECONDS)
        waiting = [taken for listener in sockets or [] for taken in accept_all(listener)]
        for server in self.servers:
            server.close()
        for taken in waiting:
            await loop.connect_accepted_socket(self._protocol, taken)
        await super().shutdown(sockets)

    def _protocol(self) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)


def ignore_new(listener: socket.socket) -> None:
    """Let the kernel ignore who asks for a connection from now on; it takes who has asked before.

    Without it, a client that connects between the last ``accept`` and ``close`` is reset, and its
    request is lost. Its system asks again after a second, and hears then that nobody listens.
    """
    if sys.platform != "linux":
        return
    instructions = (  # classic BPF over the TCP header: drop SYN without ACK
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # only SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # take
    )
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in instructions))
    option = struct.pack("HP", len(instructions), ctypes.addressof(program))
    with contextlib.suppress(OSError):  # a system that has no such filters
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


def accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept every connection that waits."""
    accepted: list[socket.socket] = []
    listener.setblocking(False)
    try:
        while True:
            accepted.append(listener.accept()[0])
    except OSError:  # no more, or no more of them can be opened
        return accepted
