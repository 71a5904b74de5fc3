"""Connections that asked once, were answered, and are idle since."""

from __future__ import annotations

import re
import socket
from typing import List

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
AT_ONCE = 100  # are opened together


class Crowd:
    """So many idle connections to a port, for the length of a `with`; each asked for `request` once."""

    def __init__(self, port: int, request: bytes, wanted: int) -> None:
        self.socks: List[socket.socket] = []
        self.answered = 0
        self.wrong: List[str] = []
        try:
            for begun in range(0, wanted, AT_ONCE):
                if not self._more(port, request, min(AT_ONCE, wanted - begun)):
                    break
        except BaseException:
            self.__exit__()
            raise

    def _more(self, port: int, request: bytes, wanted: int) -> bool:
        try:
            socks = []
            for _ in range(wanted):
                socks.append(socket.create_connection(("127.0.0.1", port), 30))
                self.socks.append(socks[-1])
            for sock in socks:
                sock.sendall(request)
            for sock in socks:
                self.answered += whole(sock)
        except OSError as error:
            self.wrong.append(f"after {self.answered} idle connections: {error}")
            return False
        return True

    def open(self) -> int:
        """Give how many of them the other side has not closed."""
        found = 0
        for sock in self.socks:
            sock.setblocking(False)
            try:
                found += bool(sock.recv(1))
            except BlockingIOError:
                found += 1
            except OSError:
                pass
        return found

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.socks:
            sock.close()


def whole(sock: socket.socket) -> bool:
    """Read one answer; gives whether it says 200. Raises OSError when it breaks off."""
    heard = b""
    while True:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError(f"the answer broke off: {heard[:200]!r}")
        heard += data
        end = heard.find(b"\r\n\r\n") + 4
        if end < 4:
            continue
        length = LENGTH.search(heard, 0, end)
        if len(heard) >= end + int(length.group(1)) if length else heard.endswith(b"0\r\n\r\n"):
            return heard.startswith(b"HTTP/1.1 200")
