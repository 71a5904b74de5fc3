"""The upstream where there is no C compiler: selector loops that answer from bytes made once. Prints its port.

    python3 tests/bench/source.py PROCESSES      ends with its standard input

It answers as `upstream.c` does, and that says what the names of models mean.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import os
import re
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, Dict, List, NamedTuple, Tuple

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TARGET = re.compile(rb"[A-Z]+ ([^ ?]*)")
STREAMS = re.compile(rb'"stream": ?true')
MODEL = re.compile(rb'"bench-([a-z]*)-?(\d+)(?:-(\d+))?')
OPENAI, ANTHROPIC = "openai", "anthropic"
TEXT = "word " * 150
USAGE = {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400}
ANTHROPIC_USAGE = {"input_tokens": 200, "output_tokens": 200}
HEAD = {"id": "chatcmpl-bench", "created": 1700000000, "model": "bench"}
MESSAGE = {"id": "msg_bench", "type": "message", "role": "assistant", "model": "bench", "stop_sequence": None}
MODELS = {"object": "list", "data": [{"id": "bench", "object": "model", "created": 1700000000, "owned_by": "bench"}]}


class Plan(NamedTuple):
    """How to answer; times in seconds."""

    dialect: str
    stream: bool
    words: int = 3
    gap: float = 0.0
    wait: float = 0.0
    error: int = 0
    breaks: bool = False


def plan(dialect: str, body: bytes) -> Plan:
    """Read what the name of the model asks for."""
    base = Plan(dialect, bool(STREAMS.search(body)))
    found = MODEL.search(body)
    if not found:
        return base
    kind, first, second = found.group(1).decode(), int(found.group(2)), int(found.group(3) or 0)
    meant: Dict[str, Dict[str, Any]] = {
        "": {"words": first},
        "slow": {"words": first, "gap": second / 1000},
        "wait": {"wait": first / 1000},
        "error": {"error": first},
        "break": {"words": first, "breaks": True},
    }
    return base._replace(**meant[kind])


# what is said


def document(status: int, said: Any) -> bytes:
    body = json.dumps(said).encode()
    head = b"HTTP/1.1 %d Bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


@functools.lru_cache(None)
def whole(dialect: str) -> bytes:
    """Make an answer of about a kilobyte."""
    if dialect == ANTHROPIC:
        content = [{"type": "text", "text": TEXT}]
        return document(200, {**MESSAGE, "content": content, "stop_reason": "end_turn", "usage": ANTHROPIC_USAGE})
    message = {"role": "assistant", "content": TEXT, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return document(200, {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


@functools.lru_cache(None)
def refusal(dialect: str, status: int) -> bytes:
    if dialect == ANTHROPIC:
        return document(status, {"type": "error", "error": {"type": "api_error", "message": "as you wish"}})
    return document(status, {"error": {"message": "as you wish", "type": "bench_error", "param": None, "code": None}})


@functools.lru_cache(None)
def stream(dialect: str, words: int, breaks: bool = False) -> bytes:
    """Make a stream of so many words, an HTTP chunk each."""
    return begin(dialect) + word(dialect, "word ") * words + (b"" if breaks else end(dialect, words))


def begin(dialect: str) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    if dialect == OPENAI:
        return head + openai_event({"role": "assistant", "content": ""})
    usage = {"input_tokens": 200, "output_tokens": 1}
    block = {"type": "text", "text": ""}
    return (
        head
        + anthropic_event("message_start", message={**MESSAGE, "content": [], "stop_reason": None, "usage": usage})
        + anthropic_event("content_block_start", index=0, content_block=block)
    )


def word(dialect: str, text: str) -> bytes:
    if dialect == OPENAI:
        return openai_event({"content": text})
    return anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def end(dialect: str, words: int) -> bytes:
    if dialect == OPENAI:
        usage = chunk(b"data: " + packed({**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}))
        return openai_event({}, "stop") + usage + chunk(b"data: [DONE]") + b"0\r\n\r\n"
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    return (
        anthropic_event("content_block_stop", index=0)
        + anthropic_event("message_delta", delta=stop, usage={"output_tokens": words})
        + anthropic_event("message_stop")
        + b"0\r\n\r\n"
    )


def openai_event(delta: Dict[str, str], finish: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return chunk(b"data: " + packed({**HEAD, "object": "chat.completion.chunk", "choices": [choice]}))


def anthropic_event(kind: str, **fields: Any) -> bytes:
    return chunk(b"event: %s\ndata: %s" % (kind.encode(), packed({"type": kind, **fields})))


def packed(said: Any) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%s\n\n\r\n" % (len(event) + 2, event)


# connections


class Peer:
    """One connection: what it said and was not answered yet, and what it is owed."""

    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        self.sock = sock
        self.loop = loop
        self.heard = b""
        self.owed = b""
        self.plan = Plan(OPENAI, False)
        self.said = 0  # words of a slow stream
        self.busy = False  # with an answer that takes its time
        self.gone = False
        self.last = False  # this connection ends with what is owed

    def hear(self) -> None:
        """Take in what came and answer it."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        self.gone = not data
        self.heard += data
        self.answer_all()

    def answer_all(self) -> None:
        while not self.busy:
            end = self.heard.find(b"\r\n\r\n") + 4
            length = LENGTH.search(self.heard, 0, end) if end >= 4 else None
            rest = end + (int(length.group(1)) if length else 0)
            if end < 4 or len(self.heard) < rest:
                return
            asked, self.heard = self.heard[:rest], self.heard[rest:]
            self.answer(asked[:end], asked[end:])

    def answer(self, head: bytes, body: bytes) -> None:
        path = TARGET.match(head)
        target = path.group(1) if path else b""
        self.last = b"\r\nconnection: close" in head.lower()
        if target.endswith(b"/models"):
            self.owed += document(200, MODELS)
        elif not target.endswith((b"/chat/completions", b"/messages")):
            self.owed += document(404, {"error": {"message": "no such path", "type": "not_found_error"}})
        else:
            self.plan = plan(ANTHROPIC if target.endswith(b"/messages") else OPENAI, body)
            self.begin()

    def begin(self) -> None:
        plan = self.plan
        self.said = 0
        self.busy = bool(plan.wait or (plan.stream and plan.gap))
        if plan.wait:
            self.loop.wake(self, plan.wait)
        elif self.busy:
            self.owed += begin(plan.dialect)
            self.go_on()
        else:
            self.owed += self.made()

    def made(self) -> bytes:
        plan = self.plan
        if plan.error:
            return refusal(plan.dialect, plan.error)
        self.last = self.last or (plan.stream and plan.breaks)
        return stream(plan.dialect, plan.words, plan.breaks) if plan.stream else whole(plan.dialect)

    def go_on(self) -> None:
        """Say what is due now."""
        if self.plan.wait:
            self.busy = False
            self.owed += self.made()
            return
        self.owed += word(self.plan.dialect, f"@{time.monotonic_ns():020}@")
        self.said += 1
        self.busy = self.said < self.plan.words
        if self.busy:
            self.loop.wake(self, self.plan.gap)
        else:
            self.owed += end(self.plan.dialect, self.said)

    def pay(self) -> None:
        """Send what is owed, as far as the other side takes it."""
        with suppress(BlockingIOError):
            self.owed = self.owed[self.sock.send(self.owed) :] if self.owed else b""
        self.gone = self.gone or (self.last and not self.owed and not self.busy)


class Loop:
    """Serves the connections of one process."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.timers: List[Tuple[float, int, Peer]] = []
        self.numbers = itertools.count()

    def wake(self, peer: Peer, seconds: float) -> None:
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.numbers), peer))

    def serve(self) -> None:
        while True:
            patience = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, events in self.selector.select(patience):
                if key.data is None:
                    self.accept()
                else:
                    self.attend(key.data, bool(events & selectors.EVENT_READ))
            while self.timers and self.timers[0][0] <= time.monotonic():
                peer = heapq.heappop(self.timers)[2]
                if not peer.gone:
                    peer.go_on()
                    peer.answer_all()
                    self.attend(peer, False)

    def accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(sock, selectors.EVENT_READ, Peer(sock, self))

    def attend(self, peer: Peer, reads: bool) -> None:
        try:
            if reads:
                peer.hear()
            peer.pay()
        except OSError:
            peer.gone = True
        if peer.gone:
            self.selector.unregister(peer.sock)
            peer.sock.close()
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.owed else 0)
        if wanted != self.selector.get_key(peer.sock).events:
            self.selector.modify(peer.sock, wanted, peer)


def listening(port: int, shared: bool) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(4096)
    listener.setblocking(False)
    return listener


def main(processes: int) -> None:
    """Serve until the standard input ends, from so many processes where the system has what that takes."""
    if not hasattr(os, "fork") or not hasattr(socket, "SO_REUSEPORT"):
        listener = listening(0, False)
        print(listener.getsockname()[1], flush=True)
        Loop(listener).serve()
    listeners = [listening(0, True)]
    port = listeners[0].getsockname()[1]
    listeners += [listening(port, True) for _ in range(processes - 1)]
    children = [served(mine, listeners) for mine in listeners]
    for listener in listeners:
        listener.close()  # what nobody accepts from would swallow connections
    print(port, flush=True)
    sys.stdin.buffer.read()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def served(mine: socket.socket, listeners: List[socket.socket]) -> int:
    """Serve one of the listeners from a process of its own; gives its id."""
    pid = os.fork()
    if pid:
        return pid
    for other in listeners:
        if other is not mine:
            other.close()
    Loop(mine).serve()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1)
