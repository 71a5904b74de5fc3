"""A stand-in for an upstream: a scripted HTTP/1.1 server on real sockets, of the standard library alone."""

from __future__ import annotations

import contextlib
import http
import json
import socket
import threading
import time
from types import MappingProxyType
from typing import Any, BinaryIO, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

Pairs = List[Tuple[str, str]]


class Asked(NamedTuple):
    """One request as the stand-in got it."""

    method: str
    target: str  # path and query, as sent
    headers: Dict[str, str]  # lower-case names; of several fields with one name, joined with ", "
    body: bytes = b""
    fields: Tuple[Tuple[str, str], ...] = ()  # the header fields in their order, names as they were spelled

    @property
    def json(self) -> Any:
        """The parsed body; None when there is none."""
        return json.loads(self.body) if self.body else None

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class Reply(NamedTuple):
    """What the stand-in answers. A status of 0 hangs up without a word."""

    status: int = 200
    headers: Union[Mapping[str, str], Pairs] = MappingProxyType({})
    body: Union[bytes, Iterable[Union[bytes, float]]] = b""  # not bytes: a chunk each; a float sleeps so many seconds
    cut: bool = False  # break the connection where the body would have ended
    wait: float = 0.0  # seconds of silence before the first byte
    slow: float = 0.0  # seconds between one byte and the next, the head's too
    raw: bytes = b""  # in place of all the above: these bytes, and then the connection is closed


def json_reply(document: Any, status: int = 200, **more: Any) -> Reply:
    """Give a reply with a JSON body."""
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(document).encode(), **more)


class Left(Exception):
    """The other end closed the connection while it was being answered."""


class Upstream:
    """A server on a free port of 127.0.0.1 that answers each request with what `answer(asked)` gives.

    `asked` lists the requests, `connections` counts what is open now, `accepted` what ever was, `gone`
    holds the times (monotonic) at which somebody left while being answered, `troubles` what went wrong
    in here. After `close` no thread is left.
    """

    def __init__(self, answer: Union[Reply, Callable[[Asked], Reply]]) -> None:
        self.answer: Callable[[Asked], Reply] = answer if not isinstance(answer, Reply) else lambda _: answer
        self.asked: List[Asked] = []
        self.gone: List[float] = []
        self.troubles: List[BaseException] = []
        self.accepted = 0
        self._changed = threading.Condition()
        self._open: Dict[socket.socket, threading.Thread] = {}
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._acceptor = threading.Thread(target=self._accept, name="upstream", daemon=True)
        self._acceptor.start()

    @property
    def connections(self) -> int:
        return len(self._open)

    def until(self, true: Callable[[], Any], seconds: float = 5.0) -> bool:
        """Wait until `true()` is; False when it did not come to be in time."""
        with self._changed:
            return bool(self._changed.wait_for(true, seconds))

    def wait_asked(self, times: int = 1, seconds: float = 5.0) -> bool:
        """Wait until so many requests have come."""
        return self.until(lambda: len(self.asked) >= times, seconds)

    def wait_closed(self, seconds: float = 1.0, times: int = 1) -> bool:
        """Wait until somebody has left while being answered."""
        return self.until(lambda: len(self.gone) >= times, seconds)

    def hang_up(self) -> None:
        """Break every connection that is open now."""
        for connection in list(self._open):
            _shut(connection)
        self.until(lambda: not self._open)

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):  # closed before
            socket.create_connection(("127.0.0.1", self.port), 5).close()  # wakes the acceptor
        self._acceptor.join(10)
        self._listener.close()
        threads = list(self._open.values())
        for connection in list(self._open):
            _shut(connection)
        for thread in threads:
            thread.join(10)

    # the threads

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), name="upstream", daemon=True)
            with self._changed:
                self.accepted += 1
                self._open[connection] = thread
                self._changed.notify_all()
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while self._converse(connection, stream):
                    pass
        except (Left, OSError):
            with self._changed:
                if not self._closing.is_set():
                    self.gone.append(time.monotonic())
        except BaseException as error:
            self.troubles.append(error)
        finally:
            with self._changed:
                del self._open[connection]
                self._changed.notify_all()

    def _converse(self, connection: socket.socket, stream: BinaryIO) -> bool:
        """Take one request and answer it; tells whether another may follow."""
        try:
            asked = read_request(connection, stream)
        except OSError:
            return False
        if asked is None:
            return False
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
        try:
            reply = self.answer(asked)
        except BaseException as error:
            self.troubles.append(error)
            reply = Reply(500, body=repr(error).encode())
        return self._reply(connection, asked, reply)

    def _reply(self, connection: socket.socket, asked: Asked, reply: Reply) -> bool:
        self._sleep(connection, reply.wait)
        if reply.raw or not reply.status:
            self._send(connection, reply.raw, reply.slow)
            return False
        fields = list(reply.headers.items() if isinstance(reply.headers, Mapping) else reply.headers)
        named = {name.lower(): value for name, value in fields}
        bodiless = asked.method == "HEAD" or reply.status in (204, 304) or reply.status < 200
        framed = "content-length" in named or "transfer-encoding" in named
        if isinstance(reply.body, bytes):
            if not framed and (not bodiless or asked.method == "HEAD"):
                fields.append(("Content-Length", str(len(reply.body) + reply.cut)))
            self._send(connection, head(reply.status, fields) + (b"" if bodiless else reply.body), reply.slow)
        else:
            if not framed:
                fields.append(("Transfer-Encoding", "chunked"))
            self._send(connection, head(reply.status, fields), reply.slow)
            if not bodiless:
                self._chunks(connection, reply, chunked="content-length" not in named)
        closes = "close" in (named.get("connection", "").lower(), asked.headers.get("connection", "").lower())
        return not (reply.cut or closes)

    def _chunks(self, connection: socket.socket, reply: Reply, chunked: bool) -> None:
        pieces = iter(reply.body)  # type: ignore[arg-type]
        try:
            for piece in pieces:
                if not isinstance(piece, bytes):
                    self._sleep(connection, piece)
                elif piece:
                    framed = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
                    self._send(connection, framed, reply.slow)
        finally:
            getattr(pieces, "close", lambda: None)()
        if chunked and not reply.cut:
            self._send(connection, b"0\r\n\r\n", reply.slow)

    def _send(self, connection: socket.socket, data: bytes, slow: float) -> None:
        if not slow:
            connection.sendall(data)
            return
        for at in range(len(data)):
            connection.sendall(data[at : at + 1])
            self._sleep(connection, slow)

    def _sleep(self, connection: socket.socket, seconds: float) -> None:
        """Sleep, but not longer than somebody is there to be answered."""
        end = time.monotonic() + seconds
        while seconds > 0:
            connection.settimeout(seconds)
            with contextlib.suppress(socket.timeout):
                if not connection.recv(1, socket.MSG_PEEK):
                    raise Left
                self._closing.wait(min(0.01, seconds))  # it speaks before its turn: look again soon
            seconds = end - time.monotonic()
        connection.settimeout(None)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed meanwhile
        connection.shutdown(socket.SHUT_RDWR)


def head(status: int, fields: Pairs) -> bytes:
    """Put the head of an answer together."""
    try:
        reason = http.HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def read_request(connection: socket.socket, stream: BinaryIO) -> Optional[Asked]:
    """Read one request; None when the connection ended before one was there."""
    line = stream.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split()
    fields: Pairs = []
    headers: Dict[str, str] = {}
    for line in iter(stream.readline, b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            return None
        value = value.strip(" \t\r\n")
        fields.append((name, value))
        before = headers.get(name.lower())
        headers[name.lower()] = value if before is None else f"{before}, {value}"
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join(iter(lambda: _chunk(stream), b""))
    else:
        length = int(headers.get("content-length") or 0)
        body = stream.read(length)
        if len(body) < length:
            return None
    return Asked(method, target, headers, body, tuple(fields))


def _chunk(stream: BinaryIO) -> bytes:
    size = int(stream.readline().partition(b";")[0], 16)
    data = stream.read(size)
    while stream.readline() not in (b"\r\n", b""):
        pass  # trailers behind the last chunk, nothing but the line's end behind the others
    return data
