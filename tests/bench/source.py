"""The upstream of the benchmark: one selector loop that answers from bytes made once. Prints its port.

The model `bench-200` is answered with 200 chunks of a stream, or with one kilobyte when no stream is asked for.
"""

from __future__ import annotations

import functools
import json
import re
import selectors
import socket
from typing import Any, Dict

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
STREAMS = re.compile(rb'"stream": ?true')
MODEL = re.compile(rb"bench-(\d+)")
HEAD = {"id": "chatcmpl-bench", "created": 1700000000, "model": "bench"}
USAGE = {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400}


@functools.cache
def whole() -> bytes:
    """Make an answer of about a kilobyte."""
    message = {"role": "assistant", "content": "word " * 150, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = json.dumps({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@functools.cache
def stream(chunks: int) -> bytes:
    """Make a stream of so many words, an HTTP chunk each."""
    parts = [event({"role": "assistant", "content": ""}), *[event({"content": "word "})] * chunks, event({}, "stop")]
    parts.append(said({**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}))
    parts.append(b"data: [DONE]\n\n")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def event(delta: Dict[str, str], finish: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return said({**HEAD, "object": "chat.completion.chunk", "choices": [choice]})


def said(document: Any) -> bytes:
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


class Peer:
    """One connection: what it said and was not answered yet, and what it is owed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard = b""
        self.owed = b""

    def answered(self) -> bool:
        """Take in what came and answer it; False when the peer has left."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        self.heard += data
        end = self.heard.find(b"\r\n\r\n") + 4
        while end >= 4:
            length = LENGTH.search(self.heard, 0, end)
            rest = end + (int(length.group(1)) if length else 0)
            if len(self.heard) < rest:
                break
            asked, self.heard = self.heard[:rest], self.heard[rest:]
            model = MODEL.search(asked, end)
            self.owed += stream(int(model.group(1))) if model and STREAMS.search(asked, end) else whole()
            end = self.heard.find(b"\r\n\r\n") + 4
        return True

    def paid(self) -> bool:
        """Send what is owed; False when the peer does not take all of it now."""
        if self.owed:
            try:
                self.owed = self.owed[self.sock.send(self.owed) :]
            except BlockingIOError:
                return False
        return not self.owed


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, events in selector.select():
            peer = key.data
            if peer is None:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ, Peer(sock))
                continue
            try:
                stays = not events & selectors.EVENT_READ or peer.answered()
                wanted = selectors.EVENT_READ | (0 if peer.paid() else selectors.EVENT_WRITE)
            except OSError:
                stays = False
            if not stays:
                selector.unregister(peer.sock)
                peer.sock.close()
            elif wanted != key.events:
                selector.modify(peer.sock, wanted, peer)


if __name__ == "__main__":
    main()
