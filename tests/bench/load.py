"""The client of the benchmark: keeps connections busy for a while, one request after the other on each.

Reads a plan as JSON from its standard input, and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from typing import Any, Dict, List, NamedTuple

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
WORD = b"word "


class Plan(NamedTuple):
    """What to do: `request` goes out again and again on each connection from `start` (time.time) on."""

    port: int
    request: str
    connections: int
    start: float
    seconds: float
    warm_up: float


class Connection:
    """One connection and the answer under way on it."""

    def __init__(self, plan: Plan) -> None:
        self.sock = socket.create_connection(("127.0.0.1", plan.port), 30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = plan.request.encode()
        self.asked = 0.0

    def ask(self) -> None:
        self.heard = b""
        self.tail = b""  # the last bytes of a stream, where its end is looked for
        self.body = 0  # where it begins; 0 before the head is all there
        self.total = -1  # bytes in all; -1 for a chunked answer
        self.events = 0
        self.first = 0.0  # when its first word came
        self.asked = time.perf_counter()
        self.sock.sendall(self.request)

    def heard_all(self) -> bool:
        """Take in what came; True at the end of the answer. Raises ConnectionError when it breaks off."""
        data = self.sock.recv(262144)
        if not data:
            raise ConnectionError("the answer broke off")
        if not self.body or self.total >= 0:
            self.heard += data
        if not self.body:
            self.body = self.heard.find(b"\r\n\r\n") + 4
            if self.body < 4:
                self.body = 0
                return False
            length = LENGTH.search(self.heard, 0, self.body)
            self.total = self.body + int(length.group(1)) if length else -1
            data = self.heard[self.body :] if self.total < 0 else data
        if self.total >= 0:
            return len(self.heard) >= self.total
        data = self.tail + data
        self.events += data.count(b"data:") - self.tail.count(b"data:")
        if not self.first and WORD in data:
            self.first = time.perf_counter()
        self.tail = data[-20:]
        return self.tail.endswith(b"0\r\n\r\n")

    @property
    def refused(self) -> bool:
        return not self.heard.startswith(b"HTTP/1.1 200")


class Seen:
    """What was seen: seconds of each answer, and of each first word; events; what went wrong."""

    def __init__(self) -> None:
        self.seconds: List[float] = []
        self.first: List[float] = []
        self.events = 0
        self.wrong: Dict[str, int] = {}

    def take(self, connection: Connection) -> None:
        self.seconds.append(time.perf_counter() - connection.asked)
        self.events += connection.events
        if connection.first:
            self.first.append(connection.first - connection.asked)
        if connection.refused:
            self.blame(connection.heard[:300].decode("latin-1"))

    def blame(self, reason: str) -> None:
        self.wrong[reason] = self.wrong.get(reason, 0) + 1


def run(plan: Plan) -> Dict[str, Any]:
    """Follow the plan."""
    selector = selectors.DefaultSelector()
    seen = Seen()
    for _ in range(plan.connections):
        connection = Connection(plan)
        selector.register(connection.sock, selectors.EVENT_READ, connection)
    time.sleep(max(0.0, plan.start - time.time()))
    begun = time.perf_counter() + plan.warm_up
    for key in list(selector.get_map().values()):
        key.data.ask()
    now = time.perf_counter()
    while now < begun + plan.seconds and selector.get_map():
        for key, _ in selector.select(1.0):
            connection = key.data
            try:
                if connection.heard_all():
                    if connection.asked >= begun:
                        seen.take(connection)
                    connection.ask()
            except OSError as error:
                seen.blame(str(error))
                selector.unregister(connection.sock)
                connection.sock.close()
        now = time.perf_counter()
    return {**vars(seen), "elapsed": now - begun}


if __name__ == "__main__":
    print(json.dumps(run(Plan(**json.load(sys.stdin)))))
