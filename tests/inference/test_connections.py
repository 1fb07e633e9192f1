"""A socket that stops listening takes who has connected, and resets nobody."""

from __future__ import annotations

import socket
import sys

import pytest

from pipeline.inference.connections import accept_all, ignore_new


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_who_has_connected_is_taken_and_who_comes_later_is_not_accepted(family, host):
    with socket.create_server((host, 0), family=family) as listener:
        address = listener.getsockname()[:2]
        with socket.create_connection(address, timeout=5) as early:
            ignore_new(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            (taken,) = accept_all(listener)
            with taken:
                early.sendall(b"still answered")
                taken.settimeout(5)
                assert taken.recv(100) == b"still answered"
