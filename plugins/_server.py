"""Sockets to clients: connections, requests read, responses written. It serves whatever `respond` answers.

One loop (the server's own) accepts, parks idle connections and collects heads without a thread; a
connection whose head is all there goes to a crew of threads, where plain blocking code answers it. So a
slow or silent client costs a socket, and a thread only when it has asked something.

After every response a connection is either in step (its request has been read to the end) or closed.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import re
import selectors
import socket
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Callable, Deque, Iterator, List, Mapping, Optional, Set, Tuple

from providers import Gone, Scope, Trouble, _http

from . import Handler as Respond
from . import Refusal, Request, Response
from ._addresses import client_address, networks

log = logging.getLogger("llmproxy")

BLOCK = 64 * 1024
SMALL = 64 * 1024  # bytes of an unwanted body that are read to stay in step
LEAST_RATE = 16 * 1024  # bytes a second a client has to send on average, after `PATIENCE`
PATIENCE = 30.0
LINGER = 0.02  # seconds a thread waits for the next request of its connection before the loop does
FAREWELL = 1.0  # seconds a client has to read our last words before the connection is cut
LAST_WORDS = 64 * 1024 * 1024  # bytes of its own that are heard and dropped meanwhile
DRAIN_TICK = 0.05  # seconds between two looks at whether the last answer has ended
SPARE = 128  # connections over the limit that are told so; more are closed without a word

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_ABSOLUTE = re.compile(r"https?://([^/?#@]+)([/?].*)?", re.IGNORECASE | re.ASCII)
_DOTTED = re.compile(r"(?:^|/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)|\\|%5c", re.IGNORECASE | re.ASCII)
_EMPTY_LINES = re.compile(rb"\A(?:\r\n){1,4}")  # a few between requests do no harm
_SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


FULL = Refusal(503, "the proxy is full", {"Retry-After": "1"}, code="overloaded")
PLAIN = {"Vary": "Origin"}  # on what no plugin has seen: what a page is told hangs on where it is from
SLOW = Refusal(408, "the request comes too slowly", code="request_timeout")


class Body:
    """The body of one request, read when it is first asked for."""

    def __init__(self, handler: Handler, length: int, *, expected: bool) -> None:
        self._handler = handler
        self._length = length
        self._expected = expected  # the client waits for our word before it sends
        self._patience = PATIENCE
        self._began = time.monotonic()
        self._got = 0
        self._begun = False
        self.in_step = length == 0

    def read(self) -> bytes:
        """Give it whole; raises Refusal for one that is too large, too slow or malformed."""
        if self.in_step:
            return b""
        most = self._handler.server.limits["max_body"]
        if self._length > most:
            raise self._too_large(most)
        self._begun = True
        if self._expected and not self._handler.ahead:
            self._handler.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expected = False
        try:
            body = self._chunked(most) if self._length == _http.CHUNKED else self._counted()
        except _http.BadMessage as error:
            raise Refusal(error.status, str(error), code="bad_request") from None
        self.in_step = True
        return body

    def skip(self) -> bool:
        """Throw a body away that nobody asked for; False when its end is too far to stay in step."""
        if self.in_step:
            return True
        if self._expected or self._begun or not 0 < self._length <= SMALL:
            return False
        self._began, self._patience = time.monotonic(), FAREWELL
        with contextlib.suppress(Refusal):
            self.read()
        return self.in_step

    @staticmethod
    def _too_large(most: int) -> Refusal:
        return Refusal(413, f"the body may have {most} bytes", code="request_too_large")

    def _counted(self) -> bytes:
        body = bytearray()
        while len(body) < self._length:
            body += self._more()
        self._handler.ahead = bytes(body[self._length :])
        return bytes(body[: self._length])

    def _chunked(self, most: int) -> bytes:
        dechunker = _http.Dechunker()
        body = bytearray()
        while not dechunker.done:
            for piece in dechunker.feed(self._more()):
                body += piece
            if dechunker.declared > most:
                raise self._too_large(most)
        self._handler.ahead = dechunker.rest
        return bytes(body)

    def _more(self) -> bytes:
        """Give what comes next; a client has to keep up some pace."""
        block, self._handler.ahead = self._handler.ahead, b""
        if not block:
            block = self._handler.receive(self._began + self._patience + self._got / LEAST_RATE)
        if not block:
            raise Refusal(408, "the body comes too slowly", code="request_timeout")
        self._got += len(block)
        return block


class Handler(BaseHTTPRequestHandler):
    """One client's connection; `ahead` is what was read of it and not yet used. Its socket never blocks."""

    server: Server

    def __init__(self, request: socket.socket, client_address: Any, server: Server) -> None:
        # the base's own __init__ would serve at once, in the thread of the loop
        self.request = self.connection = request
        self.client_address = client_address
        self.address = str(client_address[0])
        self.local = ""
        with contextlib.suppress(OSError):  # it has left already: some systems do not tell then
            self.local = str(request.getsockname()[0])
        self.server = server
        self.ahead = b""
        self.deadline = 0.0  # when the loop gives up on it
        self._waiting = Scope()

    # what the loop calls

    def collect(self) -> bool:
        """Read what has come of a head; True when there is something to answer. Raises Gone."""
        try:
            block = self.connection.recv(BLOCK)
        except BlockingIOError:
            return False
        except OSError:
            block = b""
        if not block:
            raise Gone
        if not self.ahead:
            self.deadline = min(self.deadline, time.monotonic() + self.server.limits["head_timeout"])
        self.ahead += block
        return self.ripe()

    def ripe(self) -> bool:
        """Tell whether a head is all there, or is known to be bad."""
        self.ahead = _EMPTY_LINES.sub(b"", self.ahead)
        try:
            return bool(_http.head_end(self.ahead))
        except _http.BadMessage:
            return True

    # what a thread of the crew calls

    def handle(self) -> None:
        """Answer requests as long as they come at once, then hand the connection back to the loop."""
        try:
            while self._answer_one():
                if not self.ripe() and not self._comes_soon():
                    self.server.park(self)
                    return
            self._farewell()
        except Gone:
            pass
        except Exception:
            log.exception("a connection failed")
        self.close()

    def _comes_soon(self) -> bool:
        """Wait a moment for the next request; True when its head is there."""
        if self.server.draining or not self._waiting.wait(self.connection, LINGER):
            return False
        return self.collect()

    def _answer_one(self) -> bool:
        """Read one request and answer it; False when the connection cannot go on."""
        method = "HEAD" if self.ahead.startswith(b"HEAD ") else ""  # whatever is wrong with the rest of it
        try:
            end = _http.head_end(self.ahead)
            head = _http.request_head(self.ahead[:end])
            method, self.ahead = head.method, self.ahead[end:]
            target, fields = _addressed(head)
            length = _http.request_length(head)
        except _http.BadMessage as error:
            self.send_all(self.last_words(Refusal(error.status, str(error), code="bad_request"), method))
            return False
        expected = head.minor > 0 and "100-continue" in fields.listed("expect")
        body = Body(self, length, expected=expected)
        scope = Scope(self.connection)
        address = client_address(self.address, fields.all("x-forwarded-for"), self.server.trusted)
        request = Request(head.method, target, fields, address, body.read, scope, self.local)
        asked_id = fields.get("x-request-id")
        request.id = asked_id if _SANE_ID.fullmatch(asked_id) else _new_id()
        try:
            response = self._response(request)
            keep = _http.stays_open(head.minor, fields) and body.skip() and not self.server.draining
            return self._send(response, request, head.minor, keep=keep)
        except Gone:
            scope.left = True
            raise
        finally:
            scope.close()

    def _response(self, request: Request) -> Response:
        """Have a request answered; a bug is a bare 500."""
        try:
            response = self.server.respond(request)
            response.headers = [pair for pair in response.headers if pair[0].lower() != "x-request-id"]
            response.headers.append(("x-request-id", request.id))
            _check(response)
        except Gone:
            raise
        except Exception:
            log.exception("%s: failed", request.id)
            error = Trouble(500, "internal error", code="internal_error").document()
            return Response.of(error, 500, {**PLAIN, "x-request-id": request.id})
        return response

    def _send(self, response: Response, request: Request, minor: int, *, keep: bool) -> bool:
        """Write a response, the head with the first of the body; False when the connection is to end."""
        body = response.body
        names = {name.lower() for name, _ in response.headers}
        empty = request.method == "HEAD" or response.status in (204, 304)
        chunked = False
        if isinstance(body, bytes):
            if response.status not in (204, 304):
                response.headers.append(("Content-Length", str(len(body))))
        elif not empty and "content-length" not in names:
            chunked = minor > 0
            keep = keep and chunked
            if chunked:
                response.headers.append(("Transfer-Encoding", "chunked"))
        head = self._head(response, names, keep=keep)
        request.notes["first_byte"] = time.monotonic()
        if isinstance(body, bytes):
            self.send_all(head if empty else head + body)
        elif empty:
            _close(body)
            self.send_all(head)
        else:
            whole = self._send_blocks(head, iter(body), _chunk if chunked else bytes, request)
            if not whole and not chunked and "content-length" not in names:
                self._reset()  # nothing else could tell this end from a good one
            return keep and whole
        return keep

    def _head(self, response: Response, names: Set[str], *, keep: bool) -> bytes:
        reason = self.responses.get(response.status, ("Unknown",))[0]
        lines = [f"HTTP/1.1 {response.status} {reason}", *(f"{name}: {value}" for name, value in response.headers)]
        if "date" not in names:
            lines.append(f"Date: {self.server.date()}")
        if not keep:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def last_words(self, refusal: Refusal, method: str = "") -> bytes:
        """Give the whole answer to what is not even a request; to a HEAD its head."""
        body = json.dumps(refusal.document(), separators=(",", ":")).encode()
        more = {
            **PLAIN,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "x-request-id": _new_id(),
        }
        head = self._head(Response(refusal.status, {**refusal.headers, **more}), set(), keep=False)
        return head if method == "HEAD" else head + body

    def _send_blocks(
        self, head: bytes, blocks: Iterator[bytes], framed: Callable[[bytes], bytes], request: Request
    ) -> bool:
        """Write a body as it comes; False for one that breaks off, which is never ended as if it were whole."""
        waiting = head
        try:
            for block in blocks:
                if block:
                    waiting += framed(block)
                if waiting:
                    self.send_all(waiting)
                    waiting = b""
            self.send_all(waiting + (b"0\r\n\r\n" if framed is _chunk else b""))
        except Gone:
            raise
        except Trouble as trouble:
            request.notes["trouble"] = trouble.code or trouble.kind
            log.warning("%s: the answer broke off: %s", request.id, trouble)
            return False
        except Exception:
            log.exception("%s: failed under way", request.id)
            return False
        finally:
            _close(blocks)
        return True

    def send_all(self, data: bytes) -> None:
        """Send, as fast as the client takes it; raises Gone when it does not."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.connection.send(view) :]
            except BlockingIOError:
                patience = self.server.limits["write_timeout"]
                if not self._waiting.wait(self.connection, patience, write=True, read=False):
                    raise Gone from None
            except OSError:
                raise Gone from None

    def receive(self, deadline: float) -> bytes:
        """Give what comes before the deadline, b"" if nothing does; raises Gone at the end."""
        while True:
            try:
                block: bytes = self.connection.recv(BLOCK)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not self._waiting.wait(self.connection, left):
                    return b""
            except OSError:
                raise Gone from None
            else:
                if not block:
                    raise Gone
                return block

    def _reset(self) -> None:
        """End the connection at once, and so that it does not look like an end."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.connection.close()

    def _farewell(self) -> None:
        """Let the client read our last words: closing over unread input would destroy them on their way."""
        self.hush()
        deadline = time.monotonic() + FAREWELL
        dropped = 0
        while dropped < LAST_WORDS:
            block = self.receive(deadline)
            if not block:
                return
            dropped += len(block)

    def hush(self) -> None:
        """Say nothing more."""
        with contextlib.suppress(OSError):  # the client has left
            self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.connection.close()
        self.server.forget(self)


def _addressed(head: _http.RequestHead) -> Tuple[str, _http.Fields]:
    """Give the target in origin form, and the fields with the Host it means; raises BadMessage."""
    target, fields = head.target, head.fields
    if head.method in ("CONNECT", "TRACE"):
        raise _http.BadMessage(f"{head.method} is not served here", 501)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute:
        target = absolute.group(2) or "/"
        target = target if target.startswith("/") else "/" + target
        others = [pair for pair in fields.pairs if pair[0].lower() != "host"]
        fields = _http.Fields([("Host", absolute.group(1)), *others])
    elif target == "*" and head.method == "OPTIONS":
        return target, fields
    if not target.startswith("/") or "#" in target or _DOTTED.search(target.partition("?")[0]):
        raise _http.BadMessage("the request's target is malformed")
    return target, fields


def _check(response: Response) -> None:
    for name, value in response.headers:
        if not _SENDABLE.fullmatch(value):
            raise ValueError(f"the value of {name} cannot be sent")


def _new_id() -> str:
    return os.urandom(8).hex()


def _chunk(block: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(block), block)


def _close(blocks: Any) -> None:
    """Close what may be a generator."""
    close = getattr(blocks, "close", None)
    if close is not None:
        close()


class Crew:
    """A bounded number of threads, there when they are needed and gone when they were not for a while."""

    REST = 30.0  # seconds without work after which a thread goes

    def __init__(self, most: int) -> None:
        self._most = most
        self._stirred = threading.Condition()  # SimpleQueue's timeout can fail to end when there are two who wait
        self._jobs: Deque[Callable[[], None]] = collections.deque()
        self._idle = 0  # and no job waits for them
        self._all = 0

    @property
    def busy(self) -> int:
        with self._stirred:
            return self._all - self._idle

    def take(self, job: Callable[[], None]) -> bool:
        """Have a job done; False when every hand is full."""
        with self._stirred:
            if self._idle:
                self._idle -= 1
                self._jobs.append(job)
                self._stirred.notify()
                return True
            if self._all >= self._most:
                return False
            self._all += 1
        try:
            threading.Thread(target=self._work, args=(job,), daemon=True).start()
        except RuntimeError:  # the system has no more threads for us
            with self._stirred:
                self._all -= 1
            return False
        return True

    def _work(self, job: Optional[Callable[[], None]]) -> None:
        while job is not None:
            job()
            job = self._next()

    def _next(self) -> Optional[Callable[[], None]]:
        """Wait for a job; None when there was none for long enough."""
        with self._stirred:
            self._idle += 1
            if self._stirred.wait_for(lambda: self._jobs, self.REST):
                return self._jobs.popleft()
            self._idle -= 1
            self._all -= 1
            return None


class Server(ThreadingHTTPServer):
    """Listens, parks connections, and has requests answered by `respond`.

    `limits` are the kernel's own options. A thread per request comes from a crew that is bounded, not
    from the mix-in, which is not.
    """

    request_queue_size = 1024
    allow_reuse_address = os.name == "posix"  # elsewhere it would let a second server steal the port
    daemon_threads = True

    def __init__(self, address: Tuple[str, int], limits: Mapping[str, Any], respond: Respond) -> None:
        self.limits = limits
        self.trusted = networks(limits["trusted_proxies"])
        self.respond = respond
        self.draining = False
        self.on_tick: Callable[[], None] = lambda: None  # called about once a second, in the loop
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._hurries = False
        self._drain_until = 0.0
        self._lock = threading.Lock()
        self._open: Set[Handler] = set()
        self._returned: Deque[Handler] = collections.deque()
        self._crew = Crew(limits["threads"])
        self._bells: Tuple[socket.socket, ...] = ()
        self._dated: Tuple[int, str] = (0, "")
        super().__init__(address, Handler)

    def server_close(self) -> None:
        super().server_close()
        for end in self._bells:
            end.close()

    def server_bind(self) -> None:
        """Bind, without HTTPServer's question to the DNS for our own name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def serve_forever(self, poll_interval: float = 1.0) -> None:
        """Run the loop until drained."""
        self.socket.setblocking(False)
        woken = self.bells()[0]
        with selectors.DefaultSelector() as self._parked:
            self._parked.register(self.socket, selectors.EVENT_READ, self._accept)
            self._parked.register(woken, selectors.EVENT_READ, self._take_back)
            ticked = time.monotonic()
            while not self._drained():
                for key, _ in self._parked.select(min(poll_interval, DRAIN_TICK) if self.draining else poll_interval):
                    _safely(key.data)
                if self._hurries or time.monotonic() - ticked >= poll_interval:
                    self._hurries = False
                    ticked = time.monotonic()
                    _safely(self._expire)
                    _safely(self.on_tick)

    def bells(self) -> Tuple[socket.socket, ...]:
        """Give both ends of what wakes the loop, the one to write to last; made after a fork, for no two share them."""
        if not self._bells:
            self._bells = socket.socketpair()
            for end in self._bells:
                end.setblocking(False)
        return self._bells

    def hurry(self) -> None:
        """Have `on_tick` called now; safe in a signal handler."""
        self._hurries = True
        self._ring()

    def drain(self) -> None:
        """Take no more connections, and end when the open answers have; safe in a signal handler."""
        self.draining = True
        self._drain_until = time.monotonic() + self.limits["drain"]
        self._ring()

    def _drained(self) -> bool:
        if not self.draining:
            return False
        if self.socket.fileno() >= 0:
            self._parked.unregister(self.socket)
            self.socket.close()
        self._take_back()
        for handler in self._parked_handlers():
            self._unpark(handler)
            handler.close()
        return not self._crew.busy or time.monotonic() >= self._drain_until

    def _parked_handlers(self) -> List[Handler]:
        found = [getattr(key.data, "args", (None,))[0] for key in self._parked.get_map().values()]
        return [handler for handler in found if handler is not None]

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    sock, address = self.socket.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                except OSError as error:  # no descriptors left: a moment later there may be
                    log.warning("cannot accept: %s", error)
                    time.sleep(0.05)
                    return
                sock.setblocking(False)
                self._admit(Handler(sock, address, self))

    def _admit(self, handler: Handler) -> None:
        """Count a new connection, and park it if there is room."""
        with self._lock:
            over = len(self._open) - self.limits["max_connections"]
            self._open.add(handler)
        if over >= SPARE:
            handler.close()
        elif over >= 0:
            self._turn_away(handler, FULL)
        else:
            with contextlib.suppress(OSError):  # it has left already
                handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stand(handler)

    def _stand(self, handler: Handler) -> None:
        """Park a connection until it stirs."""
        wait = self.limits["head_timeout" if handler.ahead else "idle_timeout"]
        handler.deadline = time.monotonic() + wait
        self._parked.register(handler.connection, selectors.EVENT_READ, partial(self._stirred, handler))

    def _unpark(self, handler: Handler) -> None:
        self._parked.unregister(handler.connection)

    def _stirred(self, handler: Handler) -> None:
        """Read what came on a parked connection, and have it answered once it is a request."""
        try:
            ripe = handler.collect()
        except Gone:
            self._unpark(handler)
            handler.close()
            return
        if ripe:
            self._unpark(handler)
            if not self._crew.take(handler.handle):
                self._turn_away(handler, FULL)

    def _turn_away(self, handler: Handler, refusal: Refusal) -> None:
        """Tell a client why it is not served, without waiting for it; the loop sees it off."""
        with contextlib.suppress(OSError):  # what does not go out at once does not go out
            handler.connection.send(handler.last_words(refusal))
        handler.hush()
        handler.ahead = b""
        handler.deadline = time.monotonic() + FAREWELL
        self._parked.register(handler.connection, selectors.EVENT_READ, partial(self._seen_off, handler))

    def _seen_off(self, handler: Handler) -> None:
        """Drop what comes from a client that was turned away, until it leaves."""
        try:
            handler.collect()
            handler.ahead = b""
        except Gone:
            self._unpark(handler)
            handler.close()

    def park(self, handler: Handler) -> None:
        """Take a connection back from a thread."""
        self._returned.append(handler)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it rings already, or the loop has ended
            if self._bells:
                self._bells[1].send(b"!")

    def _take_back(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._bells[0].recv(BLOCK):
                pass
        while self._returned:
            handler = self._returned.popleft()
            if self.draining:
                handler.close()
            else:
                self._stand(handler)

    def _expire(self) -> None:
        """Give up on connections that say nothing, or not enough of it."""
        now = time.monotonic()
        for handler in self._parked_handlers():
            if now >= handler.deadline:
                self._unpark(handler)
                if handler.ahead:
                    self._turn_away(handler, SLOW)
                else:
                    handler.close()

    def forget(self, handler: Handler) -> None:
        """Count a connection as closed."""
        with self._lock:
            self._open.discard(handler)

    def date(self) -> str:
        """Give the time as a Date header has it; made once a second."""
        now = int(time.time())
        if self._dated[0] != now:
            from email.utils import formatdate

            self._dated = (now, formatdate(now, usegmt=True))
        return self._dated[1]


def _safely(do: Callable[[], None]) -> None:
    """Do a part of the loop's work: what goes wrong with one connection is not the end of all."""
    try:
        do()
    except Exception:
        log.exception("the loop stumbled")
