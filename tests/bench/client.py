"""The client where there is no C compiler: keeps connections busy, one request after the other on each.

    python3 tests/bench/client.py PORT CONNECTIONS SECONDS WARM_UP SPREAD ONCE < request

Takes and prints what `client.c` does, and that says what it means.
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
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
WORD = re.compile(rb"word |@(\d{20})@")
OPEN = re.compile(rb"(@\d*|w|wo|wor|word)\Z")  # the beginning of a word, maybe
KEPT = 24  # bytes at the end of a stream, where its end is looked for
now = time.monotonic


class Plan(NamedTuple):
    """What to do: `request` goes out again and again on each connection."""

    port: int
    request: bytes
    connections: int
    seconds: float
    warm_up: float = 0.0
    spread: float = 0.0
    once: bool = False


class Seen:
    """What was seen from `since` on: microseconds of answers, first words and delays, words, what went wrong."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.times: List[int] = []
        self.firsts: List[int] = []
        self.delays: List[int] = []
        self.words = self.all_words = self.all_answers = self.made_again = 0
        self.wrong: Dict[str, int] = {}

    def blame(self, reason: str) -> None:
        self.wrong[reason] = self.wrong.get(reason, 0) + 1


class Connection:
    """One connection and the answer under way on it."""

    def __init__(self, plan: Plan, seen: Seen) -> None:
        self.plan = plan
        self.seen = seen
        self.answers = 0
        self.reach()

    def reach(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self.plan.port), 30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = 0

    def ask(self) -> None:
        self.heard = b""  # of the head and, when it has a length or refuses, of the body
        self.tail = b""  # the last bytes of a stream
        self.open = b""  # and of those what may be the beginning of a word
        self.body = 0  # where it begins; 0 before the head is all there
        self.total = -1  # bytes in all; -1 for a chunked answer
        self.ended = False
        self.first = 0.0
        self.asked = now()
        self.sock.sendall(self.plan.request)

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
            data = self.heard[self.body :]
        if self.total >= 0:
            self.ended = True
            return len(self.heard) >= self.total
        self.look(data)
        return self.tail.endswith(b"0\r\n\r\n")

    def look(self, data: bytes) -> None:
        """Look through a piece of a stream."""
        self.tail += data
        self.ended = self.ended or b"[DONE]" in self.tail or b"message_stop" in self.tail
        self.tail = self.tail[-KEPT:]
        data = self.open + data
        time_, counts, found = now(), 0, 0
        for match in WORD.finditer(data):
            found += 1
            if time_ >= self.seen.since:
                counts += 1
                if match.group(1):
                    self.seen.delays.append(max(0, int(1e6 * time_) - int(match.group(1)) // 1000))
        rest = OPEN.search(data)
        self.open = rest.group() if rest else b""
        if found and not self.first:
            self.first = time_
        self.seen.all_words += found
        self.seen.words += counts

    def answered(self) -> None:
        """Take note of an answer that is over."""
        seen, time_ = self.seen, now()
        seen.all_answers += 1
        self.answers += 1
        if not self.heard.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            seen.blame(f"{self.heard[9:12].decode('latin-1')}: {self.heard[self.body :][:96].decode('latin-1')}")
        elif not self.ended:
            seen.blame("a stream is not whole")
        elif time_ >= seen.since:
            seen.times.append(round(1e6 * (time_ - self.asked)))
            if self.first:
                seen.firsts.append(round(1e6 * (self.first - self.asked)))

    @property
    def closes(self) -> bool:
        return bool(self.heard.startswith(b"HTTP/1.0") or CLOSES.search(self.heard, 0, self.body))


class Client:
    """All connections of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.selector = selectors.DefaultSelector()
        self.begun = now()
        self.seen = Seen(self.begun + plan.warm_up)

    def run(self) -> Dict[str, Any]:
        """Follow the plan; gives what was seen."""
        plan, started, over = self.plan, 0, 0
        ends = self.seen.since + plan.seconds
        while now() < ends and over < plan.connections:
            while started < plan.connections and self.begun + plan.spread * started / plan.connections <= now():
                started += 1
                over += not self.start()
            for key, _ in self.selector.select(0.001 if started < plan.connections else 0.1):
                over += not self.attend(key.data)
        if plan.once and over < plan.connections:
            self.seen.wrong["not over in time"] = plan.connections - over
        elapsed = max(0.0, now() - self.seen.since)
        for key in list(self.selector.get_map().values()):
            self.leave(key.data)
        self.selector.close()
        told = vars(self.seen)
        return {"elapsed": elapsed, **{name: value for name, value in told.items() if name != "since"}}

    def start(self) -> bool:
        """Open one more connection and ask; False when there is none."""
        try:
            connection = Connection(self.plan, self.seen)
            self.selector.register(connection.sock, selectors.EVENT_READ, connection)
            connection.ask()
        except OSError as error:
            self.seen.blame(str(error))
            return False
        return True

    def leave(self, connection: Connection) -> None:
        self.selector.unregister(connection.sock)
        connection.sock.close()

    def attend(self, connection: Connection) -> bool:
        """Take in what came, and ask again; False when this connection is over."""
        try:
            if not connection.heard_all():
                return True
            connection.answered()
            renew = connection.closes
        except OSError as error:
            renew = True
            if connection.heard or not connection.answers:  # else a kept connection that was closed while it was idle
                self.seen.blame(str(error))
                if self.plan.once:
                    self.leave(connection)
                    return False
        if self.plan.once:
            self.leave(connection)
            return False
        return self.go_on(connection, renew)

    def go_on(self, connection: Connection, renew: bool) -> bool:
        if not renew:
            connection.ask()
            return True
        self.leave(connection)
        self.seen.made_again += 1
        return self.start()


def main() -> None:
    port, connections, seconds, warm_up, spread, once = sys.argv[1:]
    request = sys.stdin.buffer.read()
    plan = Plan(
        int(port), request, int(connections), float(seconds), float(warm_up), float(spread), once not in ("0", "False")
    )
    print(json.dumps(Client(plan).run()))


if __name__ == "__main__":
    main()
