"""A real SFTP server that serves one folder on loopback, and may die in mid-upload.

    python sftp.py FOLDER HOST_KEY PASSWORD [BYTES]

It prints its port. With BYTES it kills itself once so many were written to files of more than half
of that: what it was about to acknowledge is on the disk then, as after a crash.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncssh

FOLDER, HOST_KEY, PASSWORD = sys.argv[1:4]
LIMIT = int(sys.argv[4]) if len(sys.argv) > 4 else None
written = 0


class Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return password == PASSWORD


class Files(asyncssh.SFTPServer):
    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel, chroot=FOLDER)

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        global written
        count = super().write(file_obj, offset, data)
        written += len(data)
        if LIMIT is not None and written > LIMIT:
            file_obj.flush()  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)
        return count


async def main() -> None:
    key = Path(HOST_KEY)
    if not key.exists():
        key.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    server = await asyncssh.listen(
        "127.0.0.1",
        int(os.environ.get("PORT", "0")),
        server_factory=Server,
        server_host_keys=[str(key)],
        sftp_factory=Files,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


asyncio.run(main())
