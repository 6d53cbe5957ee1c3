"""Unix sockets: connecting within a time, and who is at the other end."""

from __future__ import annotations

import os
import socket
import struct
import time

_MAX_PATH_BYTES = 107


def check_endpoint(path: str) -> str:
    """`path`, if a socket can be there; else ValueError."""
    raw = os.fsencode(path)
    if not raw.startswith(b"/") or b"\0" in raw or len(raw) > _MAX_PATH_BYTES:
        raise ValueError(f"endpoint {path[:160]!r} is no absolute path of at most {_MAX_PATH_BYTES} bytes")
    return path


def _set_send_timeout(sock: socket.socket, seconds: float) -> None:
    micros = int(seconds * 1_000_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(micros, 1_000_000)))


def dial(path: str, seconds: float) -> socket.socket:
    """A connected, blocking socket. OSError; BlockingIOError where the other
    end's queue stays full for `seconds`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # While its queue is full, connect(2) waits for the time to send.
        _set_send_timeout(sock, max(seconds, 0.001))
        sock.connect(check_endpoint(path))
        _set_send_timeout(sock, 0)
    except BaseException:
        sock.close()
        raise
    return sock


def peer(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of who listened when this connection was made; pid 0 where it
    is of another pid namespace."""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


class Deadline:
    """A point in time, for several steps that share it."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def remaining(self, at_most: float = float("inf")) -> float:
        return max(0.0, min(self._end - time.monotonic(), at_most))
