"""One client's connection: requests read, responses written; who waits, and for what, is for the loop to see to."""

from __future__ import annotations

import contextlib
import http
import logging
import math
import os
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import Any, Iterator, Mapping, Optional, Protocol, Tuple

from providers import Gone, Scope, Trouble, _http

from . import Handler as Respond
from . import Refusal, Request, Response, Waiting
from ._addresses import client_address

log = logging.getLogger("llmproxy")

BLOCK = 64 * 1024
SMALL = 64 * 1024  # bytes of an unwanted body that are read to stay in step
LEAST_RATE = 16 * 1024  # bytes a second a client has to send on average, after `PATIENCE`
PATIENCE = 30.0
FAREWELL = 1.0  # seconds a client has to read our last words before the connection is cut
SHARE = 512 * 1024  # bytes of one body that are written before others have their turn
NEVER = math.inf

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_ABSOLUTE = re.compile(r"https?://([^/?#@]+)([/?].*)?", re.IGNORECASE | re.ASCII)
_DOTTED = re.compile(r"(?:^|/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)|\\|%5c", re.IGNORECASE | re.ASCII)
_SUSPECT = re.compile(r"[#.%\\]")  # one of these is in whatever is malformed
_EMPTY_LINES = re.compile(rb"\A(?:\r\n){1,4}")  # a few between requests do no harm
_SENDABLE = bytes({*b"\t", *range(0x20, 0x7F), *range(0x80, 0x100)})  # in a header's value
_STATUS_LINES = {int(code): f"HTTP/1.1 {int(code)} {code.phrase}" for code in http.HTTPStatus}

PLAIN = {"Vary": "Origin"}  # on what no plugin has seen: what a page is told hangs on where it is from


class Place(Protocol):
    """Where a connection belongs: the server."""

    limits: Mapping[str, Any]
    trusted: Tuple[Any, ...]  # networks
    respond: Respond
    draining: bool

    def date(self) -> str: ...

    def forget(self, handler: Handler) -> None: ...


class Body:
    """The body of a request that did not come together with its head; read when it is first asked for."""

    _began = 0.0  # when we began to wait for it
    _got = 0
    _begun = False

    def __init__(self, handler: Handler, length: int, head: _http.RequestHead) -> None:
        self._handler = handler
        self._length = length
        #: the client waits for our word before it sends
        self._expected = "expect" in head.fields and head.minor > 0 and "100-continue" in head.fields.listed("expect")
        self._patience = PATIENCE
        self.in_step = False

    def read(self) -> Waiting[bytes]:
        """Give it whole; raises Refusal for one that is too large, too slow or malformed."""
        most = self._handler.place.limits["max_body"]
        if self._length > most:
            raise self._too_large(most)
        self._begun = True
        if self._expected and not self._handler.ahead:
            yield from self._handler.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expected = False
        try:
            body = yield from (self._chunked(most) if self._length == _http.CHUNKED else self._counted())
        except _http.BadMessage as error:
            raise Refusal(error.status, str(error), code="bad_request") from None
        self.in_step = True
        return body

    def skip(self) -> Waiting[bool]:
        """Throw a body away that nobody asked for; False when its end is too far to stay in step."""
        if self.in_step:
            return True
        if self._expected or self._begun or not 0 < self._length <= SMALL:
            return False
        self._began, self._patience = time.monotonic(), FAREWELL
        with contextlib.suppress(Refusal):
            yield from self.read()
        return self.in_step

    @staticmethod
    def _too_large(most: int) -> Refusal:
        return Refusal(413, f"the body may have {most} bytes", code="request_too_large")

    def _counted(self) -> Waiting[bytes]:
        body = bytearray()
        while len(body) < self._length:
            body += yield from self._more()
        self._handler.ahead = bytes(body[self._length :])
        return bytes(body[: self._length])

    def _chunked(self, most: int) -> Waiting[bytes]:
        dechunker = _http.Dechunker()
        body = bytearray()
        while not dechunker.done:
            for piece in dechunker.feed((yield from self._more())):
                body += piece
            if dechunker.declared > most:
                raise self._too_large(most)
        self._handler.ahead = dechunker.rest
        return bytes(body)

    def _more(self) -> Waiting[bytes]:
        """Give what comes next; a client has to keep up some pace."""
        block, self._handler.ahead = self._handler.ahead, b""
        if not block:
            self._began = self._began or time.monotonic()
            block = yield from self._handler.receive(self._began + self._patience + self._got / LEAST_RATE)
        if not block:
            raise Refusal(408, "the body comes too slowly", code="request_timeout")
        self._got += len(block)
        return block


class Handler(BaseHTTPRequestHandler):
    """One client's connection; `ahead` is what was read of it and not yet used. Its socket never blocks.

    `work` is the request under way (an `answer`), and `scope` its scope. `deadline` is when the loop gives up waiting,
    for the client or for what the request waits for; `leaving` tells that we have said our last words, `cut` that
    nothing more is to be said, `apart` that a thread goes on with the request, `queued` that it has a turn to come.
    `events` is what the loop's selector tells of the client's socket, `watched` the other socket that is waited for.
    """

    def __init__(self, request: socket.socket, client_address: Any, place: Place) -> None:
        # the base's own __init__ would serve at once
        self.request = self.connection = request
        self.client_address = client_address
        self.address = str(client_address[0])
        self.local = ""
        with contextlib.suppress(OSError):  # it has left already: some systems do not tell then
            self.local = str(request.getsockname()[0])
        self.place = place
        self.ahead = b""
        self.work: Optional[Waiting[bool]] = None
        self.scope = IDLE
        self.deadline = NEVER
        self.leaving = self.cut = False
        self.apart = self.queued = False
        self.events = 0
        self.watched: Any = None

    def collect(self) -> None:
        """Read what has come, if anything. Raises Gone at the end."""
        try:
            block = self.connection.recv(BLOCK)
        except BlockingIOError:
            return
        except OSError:
            raise Gone from None
        if not block:
            raise Gone
        self.ahead += block

    def ripe(self) -> bool:
        """Tell whether a head is all there, or is known to be bad."""
        if self.ahead.startswith(b"\r\n"):
            self.ahead = _EMPTY_LINES.sub(b"", self.ahead)
        try:
            return bool(_http.head_end(self.ahead))
        except _http.BadMessage:
            return True

    def answer(self) -> Waiting[bool]:
        """Read one request and answer it; False when the connection cannot go on. Yields at each pause."""
        scope = self.scope = Scope(self.connection)
        is_head = self.ahead.startswith(b"HEAD ")  # whatever is wrong with the rest of it
        try:
            request, body, minor = self._asked(scope)
            response = self._response(request)
            if response.is_late:
                yield from response.awaited()
            sent = self._sent(request, response, minor)
            keep = sent.keeps and _http.stays_open(minor, request.fields) and not self.place.draining
            if body and not body.in_step:
                keep = (yield from body.skip()) and keep
            begin = sent.head(self.place.date(), keep=keep)
            request.notes["first_byte"] = time.monotonic()
            if sent.blocks is not None:
                return (yield from self._send_blocks(begin, sent, request)) and keep
            left = self.push(begin)
            if left:
                yield from self.send_all(left)
        except Refusal as refusal:
            yield from self.send_all(self.last_words(refusal, is_head=is_head))
            return False
        except Gone:
            scope.left = True
            raise
        finally:
            scope.close()
        return keep

    def _asked(self, scope: Scope) -> Tuple[Request, Optional[Body], int]:
        """Give the request whose head has come, its body if that has not, and the version of HTTP; raises Refusal."""
        try:
            end = _http.head_end(self.ahead)
            head = _http.request_head(self.ahead[:end])
            self.ahead = self.ahead[end:]
            target, fields = _addressed(head)
            length = _http.request_length(head)
        except _http.BadMessage as error:
            raise Refusal(error.status, str(error), code="bad_request") from None
        forwarded = fields.all("x-forwarded-for")
        address = client_address(self.address, forwarded, self.place.trusted) if forwarded else self.address
        body = None
        if 0 <= length <= len(self.ahead) and length <= self.place.limits["max_body"]:
            here, self.ahead = self.ahead[:length], self.ahead[length:]
        else:
            body = Body(self, length, head)
        request = Request(head.method, target, fields, address, body.read if body else here, scope, self.local)
        asked_id = fields.get("x-request-id")
        request.id = asked_id if asked_id and _SANE_ID.fullmatch(asked_id) else os.urandom(8).hex()
        return request, body, head.minor

    def _response(self, request: Request) -> Response:
        try:
            return self.place.respond(request).rescued(failed, request)
        except Exception as error:  # noqa: BLE001  (it is told, and logged)
            return failed(error, request)

    def _sent(self, request: Request, response: Response, minor: int) -> Sent:
        try:
            return Sent(request, response, minor)
        except ValueError as error:
            return Sent(request, failed(error, request), minor)

    def last_words(self, refusal: Refusal, *, is_head: bool = False) -> bytes:
        """Give the whole answer to what is not even a request; to a HEAD its head."""
        request = Request("HEAD" if is_head else "", "", _http.NONE)
        request.id = os.urandom(8).hex()
        told = Response.of(refusal.document(), refusal.status, {**PLAIN, **refusal.headers})
        return Sent(request, told, 1).head(self.place.date(), keep=False)

    def _send_blocks(self, begin: bytes, sent: Sent, request: Request) -> Waiting[bool]:
        """Write a body as it comes; False for one that breaks off, which is never ended as if it were whole.

        It pauses when the body did, also when that said something in a pause, and after its share.
        """
        waiting, written, scope = begin, 0, request.scope
        blocks = sent.blocks or iter(())
        try:
            for block in blocks:
                if block:
                    waiting += sent.framed(block)
                if waiting:
                    written += len(waiting)
                    left, waiting = self.push(waiting), b""
                    if left:
                        yield from self.send_all(left)
                if not block or scope.pending or written >= SHARE:
                    yield
                    written = 0
            yield from self.send_all(waiting + sent.end)
        except Gone:
            raise
        except Exception as error:  # noqa: BLE001  (it is logged)
            self._broke_off(request, sent, error)
            return False
        finally:
            _close(blocks)
        return True

    def _broke_off(self, request: Request, sent: Sent, error: Exception) -> None:
        if isinstance(error, Trouble):
            request.notes["trouble"] = error.code or error.kind
            log.warning("%s: the answer broke off: %s", request.id, error)
        else:
            log.error("%s: failed under way", request.id, exc_info=error)
        if not sent.chunked and not sent.counted:
            self._reset()  # nothing else could tell this end from a good one

    def push(self, data: bytes) -> bytes:
        """Send what the client takes at once, and give what is left; raises Gone when it has left."""
        try:
            sent = self.connection.send(data)
        except BlockingIOError:
            return data
        except OSError:
            raise Gone from None
        return data[sent:] if sent < len(data) else b""

    def send_all(self, data: bytes) -> Waiting[None]:
        """Send, as fast as the client takes it; raises Gone when it does not."""
        left = memoryview(data)
        while left:
            try:
                left = left[self.connection.send(left) :]
            except BlockingIOError:
                patience = self.place.limits["write_timeout"]
                if not (yield from self.scope.waiting(self.connection, patience, write=True, read=False)):
                    raise Gone from None
            except OSError:
                raise Gone from None

    def receive(self, deadline: float) -> Waiting[bytes]:
        """Give what comes before the deadline, b"" if nothing does; raises Gone at the end."""
        while True:
            try:
                block: bytes = self.connection.recv(BLOCK)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not (yield from self.scope.waiting(self.connection, left)):
                    return b""
            except OSError:
                raise Gone from None
            else:
                if not block:
                    raise Gone
                return block

    def _reset(self) -> None:
        """Have the connection end at once, and so that it does not look like an end."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.cut = True

    def hush(self) -> None:
        """Say nothing more."""
        with contextlib.suppress(OSError):  # the client has left
            self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.connection.close()
        self.place.forget(self)


class Sent:
    """A response as it goes out: a head, with the whole body if that is known, and else the `blocks` that come after.

    `chunked` and `counted` tell how the end of the blocks is told; `keeps`, that it can be told without closing the
    connection. Raises ValueError for headers that cannot be sent.
    """

    __slots__ = ("_body", "_lines", "_names", "blocks", "chunked", "counted", "keeps")

    def __init__(self, request: Request, response: Response, minor: int) -> None:
        status, body, headers = response.status, response.body, response.headers
        if "".join([value for _, value in headers]).encode("latin-1").translate(None, _SENDABLE):
            raise ValueError("a header of the response cannot be sent")
        names = {name.lower() for name, _ in headers}
        if "x-request-id" in names:  # ours to say
            headers = [pair for pair in headers if pair[0].lower() != "x-request-id"]
        lines = [f"{name}: {value}" for name, value in headers]
        self._lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown", *lines, f"x-request-id: {request.id}"]
        self.blocks: Optional[Iterator[bytes]] = None
        self.counted, self.chunked, self.keeps = "content-length" in names, False, True
        empty = request.method == "HEAD" or status in (204, 304)
        self._names = names
        self._body = body if isinstance(body, bytes) and not empty else b""
        if isinstance(body, bytes):
            if status not in (204, 304) and not self.counted:
                self._lines.append(f"Content-Length: {len(body)}")
        elif empty:
            _close(body)
        else:
            self._begin(iter(body), minor)

    def _begin(self, blocks: Iterator[bytes], minor: int) -> None:
        self.blocks = blocks
        self.chunked = minor > 0 and not self.counted
        self.keeps = self.chunked or self.counted
        if self.chunked:
            self._lines.append("Transfer-Encoding: chunked")

    def head(self, date: str, *, keep: bool) -> bytes:
        """Give the head, and what goes out with it."""
        lines = self._lines
        if "date" not in self._names:
            lines.append(f"Date: {date}")
        if not keep:
            lines.append("Connection: close")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1") + self._body

    def framed(self, block: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(block), block) if self.chunked else block

    @property
    def end(self) -> bytes:
        """What stands behind the last block."""
        return b"0\r\n\r\n" if self.chunked else b""


def failed(error: Exception, request: Request) -> Response:
    """Tell of a bug of ours, but not what it was; who left is told nothing, and a refusal stays one."""
    if isinstance(error, (Gone, Refusal)):
        raise error
    log.error("%s: failed", request.id, exc_info=error)
    return Response.of(Trouble(500, "internal error", code="internal_error").document(), 500, PLAIN)


def _addressed(head: _http.RequestHead) -> Tuple[str, _http.Fields]:
    """Give the target in origin form, and the fields with the Host it means; raises BadMessage."""
    target, fields = head.target, head.fields
    if head.method in ("CONNECT", "TRACE"):
        raise _http.BadMessage(f"{head.method} is not served here", 501)
    if not target.startswith("/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute:
            target = absolute.group(2) or "/"
            target = target if target.startswith("/") else "/" + target
            others = [pair for pair in fields.pairs if pair[0].lower() != "host"]
            fields = _http.Fields([("Host", absolute.group(1)), *others])
        elif target == "*" and head.method == "OPTIONS":
            return target, fields
    if not target.startswith("/") or (_SUSPECT.search(target) and _is_malformed(target)):
        raise _http.BadMessage("the request's target is malformed")
    return target, fields


def _is_malformed(target: str) -> bool:
    return "#" in target or _DOTTED.search(target.partition("?")[0]) is not None


def _close(blocks: Any) -> None:
    """Close what may be a generator."""
    close = getattr(blocks, "close", None)
    if close is not None:
        close()


#: the scope of a connection that asks nothing
IDLE = Scope()
