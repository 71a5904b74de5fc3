"""HTTP/1.1 messages as RFC 9112 has them: heads, framing, chunks; bytes in, values out; no I/O.

One reader for both directions: what clients send us and what upstreams answer. It is strict where
two readers could disagree about where a message ends, for there one request becomes two.
"""

from __future__ import annotations

import functools
import re
from typing import Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

Pairs = List[Tuple[str, str]]
Line = Tuple[str, str, str]  # of a head: a field's name, its value, and its name in lower case

CHUNKED = -1  # a body's length: told chunk by chunk
UNTIL_CLOSE = -2  # a body's length: an answer that ends with its connection

LARGEST_HEAD = 64 * 1024
LONGEST_LINE = 16 * 1024
MOST_FIELDS = 128
USUAL = 256  # bytes of a field line that may be one of those that are sent again and again
MOST_KNOWN = 1024  # of them

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
_CREDENTIAL = re.compile(rb"[^:]*(?:auth|key|cookie|token|secret)", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_PLAIN_CHUNK = re.compile(rb"([1-9A-Fa-f][0-9A-Fa-f]{0,7})\r\n")

#: fields that speak of one connection only, and never travel further
HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


#: fields without which a body means something else: no Connection keeps these from travelling on
MEANING = frozenset({"content-encoding", "content-type"})


class BadMessage(ValueError):  # noqa: N818  (the message is bad, not the program)
    """A message that breaks the rules; `status` is what a server answers to it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Fields:
    """The header fields of one message: in order as they came, looked up by lower-case name."""

    __slots__ = ("_first", "_repeats", "lines")

    def __init__(self, pairs: Iterable[Tuple[str, str]]) -> None:
        self.read([(name, value, name.lower()) for name, value in pairs])

    @classmethod
    def of(cls, lines: List[Line]) -> Fields:
        """Make them of what was read."""
        fields = cls.__new__(cls)
        fields.read(lines)
        return fields

    def read(self, lines: List[Line]) -> None:
        """Take these in place of what was there."""
        self.lines = lines
        self._first: Dict[str, str] = {lower: value for _, value, lower in lines}
        self._repeats = len(self._first) < len(lines)
        if self._repeats:
            self._first = {lower: value for _, value, lower in reversed(lines)}

    @property
    def pairs(self) -> Pairs:
        """Give names and values in order as they came."""
        return [(name, value) for name, value, _ in self.lines]

    def get(self, name: str, default: str = "") -> str:
        """Give the first value of a field."""
        return self._first.get(name, default)

    def all(self, name: str) -> Sequence[str]:
        """Give every value of a field, one a line as they came."""
        value = self._first.get(name)
        if value is None:
            return ()
        return [value for _, value, lower in self.lines if lower == name] if self._repeats else (value,)

    def listed(self, name: str) -> List[str]:
        """Give the members of a field that is a comma list, over all its lines, in lower case."""
        return [item.strip(" \t").lower() for line in self.all(name) for item in line.split(",")]

    def first(self) -> Dict[str, str]:
        """Give the first value of each field by lower-case name."""
        return dict(self._first)

    def __contains__(self, name: str) -> bool:
        return name in self._first


NONE = Fields(())


class RequestHead(NamedTuple):
    """What a request says before its body. `target` is as it was sent; `minor` of HTTP/1.minor."""

    method: str
    target: str
    minor: int
    fields: Fields


class ResponseHead(NamedTuple):
    """What an answer says before its body."""

    status: int
    reason: str
    minor: int
    fields: Fields


def head_end(data: bytes) -> int:
    """Give where the head in `data` ends (behind its empty line); 0 while it is not all there.

    Raises BadMessage for a line that does not end in CRLF and for a head that is too large.
    """
    end = data.find(b"\r\n\r\n", 0, LARGEST_HEAD)
    if 0 <= end < LONGEST_LINE:
        return end + 4
    if end < 0 and _has_lone_end(data[:LARGEST_HEAD]):
        raise BadMessage("a line of the head does not end in CRLF")
    if _is_long(data, data.find(b"\r\n")):
        raise BadMessage("the first line is too long", 414)
    if end >= 0:
        return end + 4
    if len(data) >= LARGEST_HEAD:
        raise BadMessage("the head is too large", 431)
    return 0


def _is_long(data: Union[bytes, bytearray], end: int) -> bool:
    """Tell whether a line of `data` is too long that ends at `end`; -1: not yet, but its CR may be there."""
    return (end if end >= 0 else len(data) - 1) > LONGEST_LINE


def _has_lone_end(data: Union[bytes, bytearray]) -> bool:
    """Tell whether a CR or an LF stands alone; a CR at the very end may still get its LF."""
    both = data.count(b"\r\n")  # counting is fast: a head may come byte by byte, and is looked at each time
    return data.count(b"\n") != both or data.count(b"\r") - data.endswith(b"\r") != both


def request_head(head: bytes) -> RequestHead:
    """Read the head of a request, its empty line included; raises BadMessage."""
    first, *lines = head[:-4].split(b"\r\n")
    if len(first) > LONGEST_LINE:
        raise BadMessage("the request line is too long", 414)
    method, target, minor = _first_line(first) if b"?" in first else _usual_first_line(first)
    fields = Fields.of(_lines(lines))
    if len(fields.all("host")) != 1 and (minor or "host" in fields):
        raise BadMessage("a request has exactly one Host")
    return RequestHead(method, target, minor, fields)


def _first_line(line: bytes) -> Tuple[str, str, int]:
    """Read a request line: method, target, and the minor version; raises BadMessage."""
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        raise BadMessage("the request line is malformed")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise BadMessage("only HTTP/1.1 and 1.0 are spoken here", 505)
    return method.decode(), target.decode(), int(minor)


_usual_first_line = functools.lru_cache(maxsize=256)(_first_line)  # a query may hold a key, which is not to be kept


def response_head(head: bytes) -> ResponseHead:
    """Read the head of an answer, its empty line included; raises BadMessage."""
    first, *lines = head[:-4].split(b"\r\n")
    return ResponseHead(*_status_line(first), Fields.of(_lines(lines)))


@functools.lru_cache(maxsize=256)
def _status_line(line: bytes) -> Tuple[int, str, int]:
    """Read a status line: status, reason, and the minor version; raises BadMessage."""
    match = _STATUS_LINE.fullmatch(line)
    if not match:
        raise BadMessage("the status line is malformed")
    minor, status, reason = match.groups()
    return int(status), (reason or b"").decode("latin-1"), int(minor)


#: field lines as they were read before: most are sent again, word for word, with all messages of a program
_known: Dict[bytes, Line] = {}


def _lines(lines: List[bytes]) -> List[Line]:
    """Read the field lines of a head."""
    if len(lines) > MOST_FIELDS:
        raise BadMessage("too many header fields, or one too long", 431)
    return [_known.get(line) or _new_line(line) for line in lines]


def _new_line(line: bytes) -> Line:
    """Read a line that is not known. Credentials do not become so: they are kept for no longer than needed."""
    read = _line(line)
    if len(line) <= USUAL and not _CREDENTIAL.match(line):
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[line] = read
    return read


def _line(line: bytes) -> Line:
    """Read one field line; raises BadMessage."""
    if len(line) > LONGEST_LINE:
        raise BadMessage("too many header fields, or one too long", 431)
    match = _FIELD.fullmatch(line)
    if not match:
        raise BadMessage("a header field is malformed")
    name = match.group(1).decode()
    return name, match.group(2).strip(b" \t").decode("latin-1"), name.lower()


def request_length(head: RequestHead) -> int:
    """Give the length of a request's body, or CHUNKED; raises BadMessage when it could be read in two ways."""
    lengths = head.fields.all("content-length")
    if "transfer-encoding" in head.fields:
        codings = head.fields.all("transfer-encoding")
        if lengths or head.minor == 0:
            raise BadMessage("Transfer-Encoding goes with neither Content-Length nor HTTP/1.0")
        if len(codings) != 1 or codings[0].lower() != "chunked":
            raise BadMessage("the only Transfer-Encoding accepted is chunked", 501)
        return CHUNKED
    return _length(lengths) if lengths else 0


def response_length(method: str, head: ResponseHead) -> int:
    """Give the length of an answer's body, CHUNKED or UNTIL_CLOSE; raises BadMessage, also for one without a body."""
    bodiless = method == "HEAD" or head.status in (204, 304)
    lengths = head.fields.all("content-length")
    if "transfer-encoding" in head.fields:
        codings = head.fields.all("transfer-encoding")
        if lengths or len(codings) != 1 or codings[0].lower() != "chunked":
            raise BadMessage("the Transfer-Encoding is not chunked alone")
        return 0 if bodiless else CHUNKED
    length = _length(lengths) if lengths else UNTIL_CLOSE
    return 0 if bodiless else length


def _length(values: Sequence[str]) -> int:
    if len(values) != 1 or not _LENGTH.fullmatch(values[0]):
        raise BadMessage("Content-Length is not one number")
    return int(values[0])


def stays_open(minor: int, fields: Fields) -> bool:
    """Tell whether the sender of this head keeps the connection for another message."""
    return minor > 0 and ("connection" not in fields or "close" not in fields.listed("connection"))


def end_to_end(fields: Fields, also: Tuple[str, ...] = ()) -> Pairs:
    """Give the fields that travel on: neither hop-by-hop, nor named by Connection, nor in `also`."""
    dropped = of_one_connection(fields, also)
    return [(name, value) for name, value, lower in fields.lines if lower not in dropped]


def of_one_connection(fields: Fields, also: Tuple[str, ...] = ()) -> FrozenSet[str]:
    """Name the fields that do not travel on: hop-by-hop, named by Connection, or in `also`; in lower case."""
    return _dropped(also, tuple(fields.all("connection")))


@functools.lru_cache(maxsize=256)
def _dropped(also: Tuple[str, ...], connection: Tuple[str, ...]) -> FrozenSet[str]:
    named = Fields([("connection", line) for line in connection]).listed("connection")
    return HOP_BY_HOP.union(also, set(named) - MEANING)


class Dechunker:
    """Takes a chunked body apart as it comes; trailers are checked and thrown away.

    After `done`, `rest` is what followed the body. `declared` counts the bytes announced so far, so
    that a limit can be kept before they arrive.
    """

    MOST_OVERHEAD = 64 * 1024  # size lines' extensions and trailers, bytes in all

    def __init__(self) -> None:
        self.done = False
        self.declared = 0
        self._buffer = bytearray()  # its front can be taken off without moving the rest
        self._left = 0  # of the chunk under way
        self._state: Callable[[List[bytes]], bool] = self._size
        self._overhead = 0

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer)

    def feed(self, data: bytes) -> List[bytes]:
        """Take more bytes in and give the payload they held; raises BadMessage."""
        out: List[bytes] = []
        if not self._buffer and self._state == self._size:
            data = self._whole_chunks(data, out)
        self._buffer += data
        while not self.done and self._state(out):
            pass
        return out

    def _whole_chunks(self, data: bytes, out: List[bytes]) -> bytes:
        """Take off the chunks that are all there and as plain as nearly all are; gives what comes behind them."""
        at = 0
        plain = _PLAIN_CHUNK.match(data)
        while plain:
            begin = plain.end()
            end = begin + int(plain.group(1), 16)
            if data[end : end + 2] != b"\r\n":
                break
            out.append(data[begin:end])
            self.declared += end - begin
            at = end + 2
            plain = _PLAIN_CHUNK.match(data, at)
        return data[at:]

    def _take(self, size: int) -> bytes:
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        return piece

    def _line(self) -> Optional[bytes]:
        """Take one CRLF-ended line off; None while it is not all there."""
        end = self._buffer.find(b"\r\n")
        if _is_long(self._buffer, end) or (end < 0 and _has_lone_end(self._buffer)):
            raise BadMessage("a line of the chunked body is malformed")
        if end < 0:
            return None
        return self._take(end + 2)[:-2]

    def _size(self, _: List[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        match = _CHUNK.fullmatch(line)
        if not match:
            raise BadMessage("a chunk's size is malformed")
        self._spend(len(line) - len(match.group(1)))
        self._left = int(match.group(1), 16)
        self.declared += self._left
        self._state = self._payload if self._left else self._trailer
        return True

    def _payload(self, out: List[bytes]) -> bool:
        if self._left and self._buffer:
            out.append(self._take(self._left))
            self._left -= len(out[-1])
        if self._left or len(self._buffer) < 2:
            return False
        if self._take(2) != b"\r\n":
            raise BadMessage("a chunk is longer than it said")
        self._state = self._size
        return True

    def _trailer(self, _: List[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        if line and not _FIELD.fullmatch(line):
            raise BadMessage("a trailer is malformed")
        self._spend(len(line) + 2)
        self.done = not line
        return True

    def _spend(self, overhead: int) -> None:
        self._overhead += overhead
        if self._overhead > self.MOST_OVERHEAD:
            raise BadMessage("the chunked body has more wrapping than content")
