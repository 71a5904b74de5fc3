"""Connections to upstreams: made, secured, waited on, and kept for the next question.

Sockets never block: whoever waits, waits in `Scope.wait`, which watches the client too.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import os
import select
import socket
import threading
import time
import urllib.parse
from typing import Any, Deque, Dict, Generator, List, NamedTuple, Optional, Tuple, Type

try:
    import ssl
except ImportError:  # a Python built without it: https upstreams are out of reach, the rest works
    ssl = None  # type: ignore[assignment]

from . import BRIEFLY, JSON, PAUSE, Scope, UpstreamError

BLOCK = 64 * 1024
TICK = 5.0  # seconds of silence between two pauses
KEPT_FOR = 45.0  # seconds a connection may lie idle: servers close theirs after 60 and more
MOST_KEPT = 1024  # connections to one address


class Timeouts(NamedTuple):
    """Seconds to wait: for a connection, for the first byte of an answer, for each byte after it."""

    connect: float
    first_byte: float
    idle: float


def unreachable(message: str, error: object, code: str = "provider_unreachable") -> UpstreamError:
    """Word a failure of the network."""
    return UpstreamError(502, f"{message}: {error}", code=code)


def host_port(netloc: str, default: int) -> Tuple[str, int]:
    parts = urllib.parse.urlsplit("//" + netloc)
    return parts.hostname or "", parts.port or default


class Connection:
    """One connection to an upstream. Its socket never blocks.

    `watched` is set while somebody would have noticed (and taken it back) if there had been something to read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.watched = False
        self._not_yet: Tuple[Type[OSError], ...] = (BlockingIOError,)  # what a socket says that has nothing now
        self.idle_since: Optional[float] = None  # None: its answer has begun, or it was never used before
        self._early = b""  # what it said while it was spoken to
        self._drained = False  # nothing more was there when it was read last, or has come since we spoke

    def speak_tls(self, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
        """Put TLS on the socket, which stays the same one to the system; the handshake is to come."""
        self.sock = wrapped = context.wrap_socket(self.sock, server_hostname=host, do_handshake_on_connect=False)
        self._not_yet += (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        return wrapped

    def push(self, data: bytes) -> bytes:
        """Begin a question: send what goes out at once, and give what is left."""
        try:
            sent = self.sock.send(data)
        except OSError:
            return data  # what is wrong will be told to `send`
        self._drained = sent == len(data)
        return data[sent:]

    def send(self, data: bytes, scope: Scope, seconds: float) -> Generator[JSON, None, bool]:
        """Send everything; False when the upstream answers or closes before it has heard all."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except OSError as error:
                if not isinstance(error, self._not_yet):
                    return False  # what it said, if anything, is read next
                if not (yield from scope.waiting(self, seconds, write=True)):
                    raise UpstreamError(
                        504, "the upstream does not take the request", code="provider_timeout"
                    ) from None
                if self._answers():
                    return False
        return True

    def _answers(self) -> bool:
        """Tell whether the upstream has begun to answer, or left. A 1xx is no answer, and TLS has words of its own."""
        try:
            self._early += self.sock.recv(BLOCK)
        except OSError as error:
            return not isinstance(error, self._not_yet)
        return not self._early.startswith(b"HTTP/1.1 1")

    def heard(self) -> Optional[bytes]:
        """Give what has come, b"" at the end; None: nothing has. Raises OSError as the socket does.

        Where all that had come was read the last time, it is for a wait to tell of more: to look would be in vain.
        """
        if self._early:
            early, self._early = self._early, b""
            return early
        if self._drained:
            return None
        try:
            block = self.sock.recv(BLOCK)
        except OSError as error:
            if not isinstance(error, self._not_yet):
                raise
            return None
        self._drained = 0 < len(block) < BLOCK and not self._holds()
        return block

    def _holds(self) -> bool:
        """Tell whether TLS holds something that the system cannot tell of."""
        return bool(getattr(self.sock, "pending", int)())

    def receive(self, scope: Scope, seconds: float) -> Generator[JSON, None, bytes]:
        """Wait for bytes, b"" at the end; pauses before each wait. Raises OSError as the socket does."""
        deadline = time.monotonic() + seconds
        while True:
            block = self.heard()
            if block is not None:
                return block
            left = deadline - time.monotonic()
            if left <= 0:
                raise UpstreamError(504, f"the upstream said nothing for {seconds:g} s", code="provider_timeout")
            pending = scope.pause_for(self, min(left, TICK))
            yield PAUSE
            self._drained = not scope.resume(pending)

    def fileno(self) -> int:
        return self.sock.fileno()

    def fresh(self) -> bool:
        """Tell whether a kept connection may be used: young, and with nothing to read, neither bytes nor an end."""
        is_young = time.monotonic() - (self.idle_since or 0) < KEPT_FOR
        return is_young and (self.watched or not _readable(self.sock))

    def hang_up(self) -> None:
        """Close, also under a thread that is waiting."""
        with contextlib.suppress(OSError):  # it may be down already
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def _readable(sock: socket.socket) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def connected(host: str, port: int, scope: Scope, deadline: float) -> Generator[JSON, None, Connection]:
    """Connect to the first address that answers; each has its share of the time. Pauses where it waits."""
    failure: object = "no address"
    addresses = yield from _resolved(host, port, scope)
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - tried)
        try:
            connection = Connection(socket.socket(family, kind, protocol))
        except OSError as error:
            failure = error
            continue
        code = -1
        try:
            code = yield from _connect(connection, address, scope, share)
            failure = os.strerror(code)
        except OSError as error:
            failure = error
        finally:
            if code:
                connection.sock.close()
        if code == 0:
            return connection
    raise unreachable(f"cannot connect to {host}:{port}", failure)


def _resolved(host: str, port: int, scope: Scope) -> Generator[JSON, None, List[Any]]:
    """Give the addresses of a host; to look up a name blocks."""
    try:
        return _spelled_out(host, port)
    except (OSError, UnicodeError):
        yield from scope.aside(BRIEFLY)
    try:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise unreachable(f"cannot resolve {host}", error) from error


@functools.lru_cache(maxsize=64)
def _spelled_out(host: str, port: int) -> List[Any]:
    """Give the addresses of a host that is one, and not a name; OSError for a name."""
    return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)


def _connect(connection: Connection, address: Any, scope: Scope, seconds: float) -> Generator[JSON, None, int]:
    """Connect a new socket and leave it non-blocking; gives the error number, 0 for none."""
    sock = connection.sock
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = sock.connect_ex(address)
    if code not in (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", -1)):
        return code
    if not _has_peer(sock) and not (yield from scope.waiting(connection, seconds, write=True, read=False)):
        return errno.ETIMEDOUT
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _has_peer(sock: socket.socket) -> bool:
    """Tell whether a socket is connected already, as it is to most of what runs on this machine."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Give the one TLS context, made when first needed: the system's roots, or SSL_CERT_FILE's."""
    if ssl is None:
        raise UpstreamError(502, "this Python has no ssl module: https upstreams are out of reach", code="provider_tls")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def secure(connection: Connection, host: str, scope: Scope, deadline: float) -> Generator[JSON, None, None]:
    """Put TLS on a connection; whoever made it closes it if that fails. Pauses where it waits."""
    yield from scope.aside(BRIEFLY)  # roots are read, and numbers are large
    context = tls()
    try:
        wrapped = connection.speak_tls(context, host)
        yield from _shake_hands(connection, wrapped, host, scope, deadline)
    except ssl.SSLCertVerificationError as error:
        remedy = "if your network has a root certificate of its own, name its file in [server] ca_file"
        raise unreachable(f"{host} is not who it says", f"{error.verify_message}; {remedy}", "provider_tls") from error
    except OSError as error:
        raise unreachable(f"no TLS with {host}", error, "provider_tls") from error


def _shake_hands(
    connection: Connection, sock: ssl.SSLSocket, host: str, scope: Scope, deadline: float
) -> Generator[JSON, None, None]:
    while True:
        try:
            return sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
            write = isinstance(want, ssl.SSLWantWriteError)
        if not (yield from scope.waiting(connection, deadline - time.monotonic(), write=write, read=not write)):
            raise unreachable(f"no TLS with {host}", "timed out")


class Pool:
    """The connections kept for the next question; last in, first out, so that the idle ones grow old."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Dict[Tuple[str, ...], Deque[Connection]] = {}
        self._closed = False

    def take(self, key: Tuple[str, ...]) -> Optional[Connection]:
        while True:
            with self._lock:
                kept = self._kept.get(key)
                connection = kept.pop() if kept else None
            if connection is None or connection.fresh():
                return connection
            connection.hang_up()

    def give(self, key: Tuple[str, ...], connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        with self._lock:
            kept = self._kept.setdefault(key, collections.deque())
            kept.append(connection)
            is_old = (
                len(kept) > MOST_KEPT or self._closed or connection.idle_since - (kept[0].idle_since or 0) > KEPT_FOR
            )
            oldest = kept.popleft() if is_old else None
        if oldest:
            oldest.hang_up()

    def close(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, {}
            self._closed = True
        for connections in kept.values():
            for connection in connections:
                connection.hang_up()
