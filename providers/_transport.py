"""The only door to the network: urllib's opener, with handlers of our own that keep connections alive.

urllib chooses the proxy and the scheme; what it would do next (a connection per request, redirects
followed with the credentials on, header names respelled) is not for a proxy, so `Answer` sends and
reads itself.

Nothing here runs before it is asked: `Exchange` connects when its head is first waited for. A question
is asked again only while no byte of an answer has come: once, silently, when a connection that was kept
alive turns out to be dead, and up to `retries` times after a failure that passes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import threading
import time
import traceback
import urllib.parse
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Optional,
    Tuple,
    Type,
    TypeVar,
)

from . import BRIEFLY, JSON, LARGE, PAUSE, Options, Scope, UpstreamError, _http, _json
from ._connection import Connection, Pool, Timeouts, connected, host_port, secure, unreachable

if TYPE_CHECKING:
    from ._opener import Question

T = TypeVar("T")
log = logging.getLogger("llmproxy")

#: what every provider behind a network has to set: merge it into a provider's own `options`
OPTIONS: Options = {
    "connect_timeout": (5.0, "Seconds to wait for a connection."),
    "first_byte_timeout": (600.0, "Seconds to wait for the first byte of an answer."),
    "idle_timeout": (120.0, "Seconds an answer under way may be silent."),
    "retries": (2, "How often to ask again, before the first byte, after a passing failure."),
}

#: (status, headers with lower-case names, parsed JSON or text) -> the error, worded by the provider
Worded = Callable[[int, Mapping[str, str], Any], UpstreamError]

LARGEST_DOCUMENT = 512 * 1024 * 1024
LARGEST_ERROR = 64 * 1024
MOST_INTERIM = 1000  # heads of one answer: some say 1xx while they work
LONGEST_WAIT = 5.0  # seconds an upstream may ask us to wait before asking again

#: what a translator raises over an answer that has, say, a text where an object should be
STUMBLES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_VERSION = re.compile(r"/v\d+[a-z]*\d*(?=/|$)", re.ASCII)
_BASE_URL = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?(/[!$-;=@-~]*)?", re.IGNORECASE | re.ASCII)
_SENDABLE = re.compile(r"[\t\x20-\x7e]*")


class Answer:
    """What an upstream answers to one question, as it comes; what its bytes mean is not known here."""

    def __init__(self, question: Question, pool: Pool) -> None:
        self.question = question
        self.status = 0
        self.fields = _http.NONE
        self._pool = pool
        self._key = (question.type, question.host, question.netloc)
        self._left = self._ahead = b""
        self._length = self._interim = 0
        self._heard_all = self._keeps = True
        self._connection: Optional[Connection] = None

    def _ask(self, connection: Optional[Connection]) -> Generator[JSON, None, None]:
        """Send the question, on a new connection where there is no kept one; pauses where it waits."""
        scope, timeouts = self.question.scope, self.question.timeouts
        if connection is None:
            connection = yield from self._connect(scope, time.monotonic() + timeouts.connect)
            if self._say(connection):
                return
        try:
            self._heard_all = yield from connection.send(self._left, scope, timeouts.idle)
        except BaseException:
            self.close()
            raise

    def _say(self, connection: Connection) -> bool:
        """Begin to send the question; True when all of it goes out at once, as nearly always."""
        self._connection, self._heard_all = connection, True
        self.question.scope.add(connection.hang_up)
        self._left = connection.push(self.question.bytes())
        return not self._left

    def _connect(self, scope: Scope, deadline: float) -> Generator[JSON, None, Connection]:
        question = self.question
        host, port = host_port(question.host, 443 if question.type == "https" else 80)
        connection = yield from connected(host, port, scope, deadline)
        try:
            if question.type == "https":
                if question.tunnels:
                    yield from self._tunnel(connection, scope, deadline)
                yield from secure(connection, host_port(question.netloc, 443)[0], scope, deadline)
        except BaseException:
            connection.sock.close()
            raise
        return connection

    def _tunnel(self, connection: Connection, scope: Scope, deadline: float) -> Generator[JSON, None, None]:
        """Have the proxy connect us to the upstream."""
        host, port = host_port(self.question.netloc, 443)
        lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
        if self.question.has_header("Proxy-authorization"):
            lines.append(f"Proxy-Authorization: {self.question.get_header('Proxy-authorization')}")
        request = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        yield from connection.send(request, scope, deadline - time.monotonic())
        try:
            data = b""
            while not _http.head_end(data):
                block = yield from connection.receive(scope, deadline - time.monotonic())
                if not block:
                    raise unreachable("the proxy", "closed the connection")
                data += block
            head = _http.response_head(data[: _http.head_end(data)])
        except (OSError, _http.BadMessage) as error:
            raise unreachable("the proxy", error) from error
        if head.status != 200:
            raise unreachable("the proxy refused the tunnel", f"{head.status} {head.reason}")

    def head(self) -> Generator[JSON, None, None]:
        """Ask, and wait for status and fields; yields PAUSE at each pause."""
        connection = self._pool.take(self._key)
        if connection is None or not self._say(connection):
            yield from self._ask(connection)
        try:
            head = None
            while head is None:
                connection = self._open()
                try:
                    block = yield from connection.receive(self.question.scope, self.question.timeouts.first_byte)
                    if not block:
                        raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
                except OSError as error:
                    yield from self._once_more(connection, error)
                else:
                    connection.idle_since = None
                    self._ahead += block
                    head = self._heard()
            self._length = _http.response_length(self.question.method or "", head)
        except _http.BadMessage as error:
            raise _begun("the upstream does not speak HTTP", error, "provider_error") from error
        self.status, self.fields = head.status, head.fields
        self._keeps = _http.stays_open(head.minor, head.fields)
        if not self._length:
            self._finish()

    def _heard(self) -> Optional[_http.ResponseHead]:
        """Take the head off what has come, if it is all there, and each 100 and 103 before it."""
        end = _http.head_end(self._ahead)
        while end:
            head = _http.response_head(self._ahead[:end])
            self._ahead = self._ahead[end:]
            if head.status >= 200:
                return head
            self._interim += 1
            if head.status == 101:
                raise _http.BadMessage("it switches to a protocol nobody asked for")
            if self._interim > MOST_INTERIM:
                raise _http.BadMessage("its 1xx have no end")
            end = _http.head_end(self._ahead)
        return None

    def _once_more(self, connection: Connection, error: OSError) -> Generator[JSON, None, None]:
        """Ask on another connection where a kept one has died before the first byte of all; else raise."""
        if self._ahead:
            raise _begun("the upstream's answer broke off", error, "stream_truncated") from error
        if connection.idle_since is None:
            raise unreachable("the upstream did not answer", error) from error
        self.close()
        yield from self._ask(None)

    def at_once(self) -> Optional[bytes]:
        """Give the whole body if it has come together with the head."""
        if not 0 <= self._length <= len(self._ahead):
            return None
        body, self._ahead = self._ahead[: self._length], self._ahead[self._length :]
        self._length = 0
        self._finish()
        return body

    def _open(self) -> Connection:
        if self._connection is None:
            raise unreachable("the upstream's answer", "has been closed")
        return self._connection

    def blocks(self) -> Generator[bytes, None, None]:
        """Give the body as it comes, an empty block at each pause; a body that is cut short raises."""
        try:
            if self._length == _http.CHUNKED:
                yield from self._chunked()
            elif self._length == _http.UNTIL_CLOSE:
                yield from self._until_close()
            else:
                yield from self._counted(self._length)
        except (OSError, _http.BadMessage) as error:
            raise UpstreamError(502, f"the upstream's answer broke off: {error}", code="stream_truncated") from error

    def _block(self) -> Generator[bytes, None, bytes]:
        """Read one block; b"" at the end."""
        if self._ahead:
            block, self._ahead = self._ahead, b""
            return block
        connection = self._open()
        at_hand = connection.heard()
        if at_hand is not None:
            return at_hand
        receiving = connection.receive(self.question.scope, self.question.timeouts.idle)
        while True:
            try:
                next(receiving)
            except StopIteration as end:
                return bytes(end.value)
            yield b""

    def _counted(self, left: int) -> Generator[bytes, None, None]:
        while left:
            block = yield from self._block()
            if not block:
                raise _http.BadMessage(f"{left} bytes are missing")
            if len(block) > left:
                self._ahead = block[left:]
                block = block[:left]
            left -= len(block)
            if not left:
                self._finish()
            yield block
        self._finish()

    def _chunked(self) -> Generator[bytes, None, None]:
        dechunker = _http.Dechunker()
        while not dechunker.done:
            block = yield from self._block()
            if not block:
                raise _http.BadMessage("its last chunk is missing")
            payload = b"".join(dechunker.feed(block))
            if dechunker.done:
                self._ahead = dechunker.rest
                self._finish()
            if payload:
                yield payload

    def _until_close(self) -> Generator[bytes, None, None]:
        while True:
            block = yield from self._block()
            if not block:
                self.close()
                return
            yield block

    def _finish(self) -> None:
        """Keep the connection for the next question if both sides are at the start of one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self.question.scope.drop(connection.hang_up)
        if self._heard_all and not self._ahead and self._keeps:
            self._pool.give(self._key, connection)
        else:
            connection.hang_up()

    def close(self) -> None:
        """Let go of the connection: an answer not read to its end cannot be followed by another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.question.scope.drop(connection.hang_up)
            connection.hang_up()


def _begun(message: str, error: object, code: str) -> UpstreamError:
    """Word the failure of an answer that has begun: to ask again might be to pay twice."""
    trouble = unreachable(message, error, code)
    trouble.passing = False
    return trouble


def _finished(waiting: Generator[Any, None, T]) -> T:
    """Run a wait to its end."""
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            found: T = end.value
            return found


def opener() -> Any:
    """Give urllib's opener for our questions; urllib takes long to import, and nobody needs it before the first."""
    from . import _opener

    return _opener.director(Answer)


class Exchange:
    """One question to an upstream and its answer; a context manager that closes it.

    Translate the answer in its block: as soon as the head is heard, a translator that stumbles there has
    stumbled over what the upstream said, and that is a 502 of its own. Before, it is a bug of ours, and stays one.

    `status`, `fields` and `headers` (first values, lower-case names) are known once the head is.
    """

    def __init__(
        self, name: str, ask: Callable[[], Answer], scope: Scope, worded: Optional[Worded], retries: int
    ) -> None:
        self._name = name
        self._ask = ask
        self._scope = scope
        self._worded = worded
        self._retries = retries
        self._answer: Optional[Answer] = None
        self.status = 0
        self.fields = _http.NONE

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, _: Optional[Type[BaseException]], error: Optional[BaseException], __: Optional[TracebackType]
    ) -> None:
        self.close()
        is_translated = self._worded is not None  # a relay's answer is not
        if is_translated and self._answer and self._answer.status and isinstance(error, STUMBLES):
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(place.filename)}:{place.lineno}: {type(error).__name__}"  # not what it read
            log.warning("%s: an answer of no known shape: %s", self._name, where)
            raise self._useless("not of the shape it should have") from error

    @property
    def headers(self) -> Mapping[str, str]:
        return self.fields.first()

    def head(self) -> Generator[JSON, None, None]:
        """Ask, and wait for an answer that is none of trouble; yields PAUSE at each pause.

        Raises UpstreamError: the provider's words for a status of 300 and more (unless this is a
        relay), 502 for a network or an answer that is broken, 504 for a silent upstream.
        """
        tries = 0
        while not self.status:
            answer = self._answer = self._ask()
            try:
                yield from answer.head()
                if self._worded and answer.status >= 300:
                    raise self._worded(answer.status, answer.fields.first(), (yield from _said(answer)))
            except UpstreamError as error:
                self.close()
                self._sign(error)
                wait = pause_before(tries, error, self._retries)
                if wait is None:
                    raise
                tries += 1
                yield from self._scope.waiting(None, wait)
            else:
                self.status, self.fields = answer.status, answer.fields

    def at_once(self) -> Optional[bytes]:
        """Give the whole body, after the head, if it has come together with that."""
        return self._answer.at_once() if self._answer else None

    def blocks(self) -> Generator[bytes, None, None]:
        """Give the body as it comes, after the head; an empty block is a pause."""
        for _ in self.head():
            yield b""
        if self._answer is not None:
            try:
                yield from self._answer.blocks()
            except UpstreamError as error:
                self._sign(error)
                raise

    def _sign(self, error: UpstreamError) -> None:
        """Put the provider's name to trouble that arose below it."""
        if not error.provider:
            error.provider, error.message = self._name, f"{self._name}: {error.message}"

    def document(self) -> Generator[JSON, None, JSON]:
        """Read the whole body and return its JSON, an object; yields PAUSE at each pause."""
        yield from self.head()
        body = self.at_once()
        if body is None:
            come = bytearray()
            yield from _gathered(self.blocks(), LARGEST_DOCUMENT, come)
            body = bytes(come)
        if len(body) > LARGEST_DOCUMENT:
            raise self._useless("too large")
        if len(body) > LARGE:
            yield from self._scope.aside(BRIEFLY)
        try:
            document = _json.told(body.decode("utf-8"))
        except ValueError:
            raise self._useless("not JSON") from None
        if not isinstance(document, dict):
            raise self._useless("JSON, but not an object")
        return document

    def _useless(self, why: str) -> UpstreamError:
        message = f"{self._name}: the upstream's answer is {why}"
        return UpstreamError(502, message, code="provider_error", provider=self._name)

    def close(self) -> None:
        """Let go of the connection."""
        if self._answer is not None:
            self._answer.close()


def _gathered(blocks: Iterable[bytes], most: int, body: bytearray) -> Generator[JSON, None, None]:
    """Read a body into `body`, but not much more than `most` bytes; yields PAUSE at each pause."""
    for block in blocks:
        body += block
        if not block:
            yield PAUSE
        if len(body) > most:
            return


def _said(answer: Answer) -> Generator[JSON, None, Any]:
    """Read the body of an error: its JSON, or its text, or what there is of it."""
    body = bytearray()
    with contextlib.suppress(UpstreamError):  # the status is known, and its words are cut
        yield from _gathered(answer.blocks(), LARGEST_ERROR, body)
    text = body.decode("utf-8", "replace")
    try:
        return _json.loads(text)
    except ValueError:
        return text


def pause_before(
    tries: int, error: UpstreamError, retries: int, chance: Callable[[int], bytes] = os.urandom
) -> Optional[float]:
    """Give the seconds to wait before asking again after `tries` failures more than one; None: give up."""
    most = min(retries, 1) if error.code == "rate_limit_exceeded" else retries
    if not error.passing or tries >= most or (error.retry_after or 0) > LONGEST_WAIT:
        return None
    jitter = 0.5 + chance(1)[0] / 255
    return max(error.retry_after or 0.0, 0.3 * float(2**tries) * jitter)


class Door:
    """One upstream's address: what its provider sends through and reads from.

    `base_url` may end in a version (`/v1`), else `version` is put behind it; `root` is the address
    without it. `headers` go with every question; `worded` turns an answer of trouble into words.
    Raises ValueError for an address or a header that cannot be sent.
    """

    def __init__(  # an address has this many sides
        self,
        name: str,
        base_url: str,
        options: Mapping[str, Any],
        worded: Worded,
        *,
        version: str = "/v1",
        headers: Iterable[Tuple[str, str]] = (),
    ) -> None:
        self.name = name
        self.root, self.base = addresses(base_url, version)
        headers_ = list(headers)
        self._own = frozenset(field.lower() for field, _ in headers_)
        self.fields: _http.Pairs = [("User-Agent", "llmproxy"), *headers_]
        for field, value in self.fields:
            if not _SENDABLE.fullmatch(value):
                raise ValueError(f"the value for {field} holds characters that no header may")
        self._worded = partial(_discreet, worded, [value.rpartition(" ")[2] for _, value in headers_])
        self._retries = int(options["retries"])
        self._timeouts = Timeouts(*(float(options[f"{of}_timeout"]) for of in ("connect", "first_byte", "idle")))
        self._make_opener = opener
        self._opener: Any = None
        self._lock = threading.Lock()

    def send(
        self, method: str, path: str, scope: Scope, body: Optional[JSON] = None, headers: Iterable[Tuple[str, str]] = ()
    ) -> Exchange:
        """Ask below the versioned base URL (`/chat/completions`); JSON in, errors worded.

        Passing ones are retried, but not those of a GET: lists are asked for often, and had better fail at once.
        """
        fields = [*self.fields, ("Accept-Encoding", "identity"), *headers]
        data = None
        if body is not None:
            fields.append(("Content-Type", "application/json"))
            data = _json.written(body).encode()
        return self._exchange(method, self.base + path, fields, data, scope, self._worded)

    def ask(
        self,
        method: str,
        path: str,
        scope: Scope,
        told: Callable[[JSON], T],
        body: Optional[JSON] = None,
        headers: Iterable[Tuple[str, str]] = (),
    ) -> T:
        """Ask, wait for the whole JSON answer, and give what `told` makes of it."""
        with self.send(method, path, scope, body, headers) as exchange:
            return told(_finished(exchange.document()))

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Exchange:
        """Pass a request on below the root (the base URL without its version), whatever the answer's status."""
        passed = [(name, value) for name, value in fields if name.lower() not in self._own]
        data = body if body or method not in ("GET", "HEAD", "OPTIONS", "DELETE") else None
        passed += self.fields[1:]  # all but our own User-Agent
        return self._exchange(method, self.root + path, passed, data, scope, None)

    def _exchange(  # what tells a translated question from a relayed one
        self,
        method: str,
        url: str,
        fields: _http.Pairs,
        data: Optional[bytes],
        scope: Scope,
        worded: Optional[Worded],
    ) -> Exchange:
        def ask() -> Any:
            if self._opener is None:
                self._begin()
            return self._opener.open(self._question(method, url, fields, data, scope, self._timeouts))

        return Exchange(self.name, ask, scope, worded, self._retries if worded and method != "GET" else 0)

    def _begin(self) -> None:
        from ._opener import Question

        with self._lock:
            self._question = Question
            self._opener = self._opener or self._make_opener()

    def close(self) -> None:
        """Close the connections kept for the next question."""
        for handler in getattr(self._opener, "handlers", ()):  # not in its documentation, but there since ever
            handler.close()


def _discreet(
    worded: Worded, secrets: Iterable[str], status: int, headers: Mapping[str, str], body: Any
) -> UpstreamError:
    """Have an error worded, without what we sent as a secret: some upstreams repeat a key they refuse."""
    error = worded(status, headers, body)
    for secret in secrets:
        if len(secret) >= 8:
            error.message = error.message.replace(secret, "***")
    return error


def addresses(base_url: str, version: str) -> Tuple[str, str]:
    """Split a base URL into its root and its versioned base; a version that stands in it is kept as its own."""
    base_url = base_url.strip().rstrip("/")
    if not _BASE_URL.fullmatch(base_url):
        shown = re.sub(r"//[^/@]*@", "//***@", base_url)  # what stands before the @ may be a password
        raise ValueError(f"base_url must be like http://host:port, not {shown!r}")
    parts = urllib.parse.urlsplit(base_url)
    host_port(parts.netloc, 0)  # a port that is none raises
    url = f"{parts.scheme}://{parts.netloc}"
    own = _VERSION.search(parts.path)
    if own:
        return url + parts.path[: own.start()], url + parts.path
    return url + parts.path, url + parts.path + version
