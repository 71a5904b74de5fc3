"""A server of ours in a thread, and clients that say what they are told to, byte by byte if need be."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from functools import partial

import pytest

from plugins import Request, Response, late
from plugins._server import Server
from plugins._settings import SERVER

LONG = 20.0  # seconds nobody is to wait for
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def told(request: Request) -> Response:
    """Tell the request back; the body is read unless the path says no."""
    body = b"" if request.path == "/unread" else request.body()
    return Response.of(
        {
            "method": request.method,
            "target": request.target,
            "path": request.path,
            "query": request.query,
            "host": request.header("host"),
            "body": body.decode("latin-1"),
            "fields": request.fields.pairs,
        }
    )


class Client:
    """A client that says what it is told to, and reads answers one by one."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), LONG)
        self.stream = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.sock.close()

    def say(self, data: bytes, pieces: int = 0, pause: float = 0.0) -> Client:
        size = pieces or len(data) or 1
        for at in range(0, len(data), size):
            self.sock.sendall(data[at : at + size])
            time.sleep(pause)
        return self

    def head(self):
        """Read a head: (status, headers)."""
        line = self.stream.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        for field in iter(self.stream.readline, b"\r\n"):
            name, _, value = field.decode("latin-1").partition(":")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers

    def answer(self, method: str = "GET"):
        """Read an answer: (status, headers, body)."""
        status, headers = self.head()
        if method == "HEAD" or status in (204, 304):
            return status, headers, b""
        if "content-length" in headers:
            return status, headers, self.stream.read(int(headers["content-length"]))
        if "transfer-encoding" not in headers:
            return status, headers, self.stream.read()
        body = b""
        while True:
            size = int(self.stream.readline() or b"-1", 16)
            assert size >= 0, "the last chunk is missing"
            body += self.stream.read(size)
            assert self.stream.readline() == b"\r\n"
            if not size:
                return status, headers, body

    def json(self):
        status, _, body = self.answer()
        assert status == 200, body
        return json.loads(body)

    def refused(self, status: int) -> str:
        """Read a refusal of ours, and see the connection end; gives its words."""
        got, headers, body = self.answer()
        error = json.loads(body)["error"]
        assert got == status, error
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        assert headers["date"]
        assert headers["x-request-id"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.ended()
        return error["message"]

    def ended(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return self.stream.read(1) == b""
        return True


def in_thread(respond):
    """Have what may block answered in a thread."""
    return lambda request: Response.aside(request.scope, partial(respond, request), stays=True)


def in_loop(respond):
    """Have what does not block answered in the loop, when the body is there."""

    @late
    def answer(request):
        if request.path != "/unread":
            yield from request.arriving()
        return respond(request)

    return answer


@pytest.fixture(params=[in_thread, in_loop])
def serve(request):
    """Give a maker of servers: `serve(respond, **limits)` gives a maker of clients, which bears its server."""
    with contextlib.ExitStack() as opened:

        def make(respond=told, *, how=None, **limits):
            how = how or request.param
            options = {name: row[0] for name, row in SERVER.items()}
            server = Server(("127.0.0.1", 0), {**options, **limits}, how(respond))
            server._crew.REST = 0.01
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()

            def end():
                server.limits["drain"] = LONG
                server.drain()
                thread.join(LONG)
                server.server_close()

            def client():
                return opened.enter_context(Client(server.server_port))

            client.server, client.thread = server, thread
            opened.callback(end)
            return client

        yield make


def until(true, seconds=LONG):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
