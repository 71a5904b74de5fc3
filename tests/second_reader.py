"""HTTP/1.1 read a second time, by somebody who has not seen the first reader: plain loops, no regular expressions.

Written from RFC 9112 for the fuzzer, to disagree wherever the product's reader is lax. It knows no limits but the two
on digits, and goes through its bytes as if they had all come at once.
"""

from __future__ import annotations

from typing import FrozenSet, List, NamedTuple, Optional, Tuple

DIGITS = frozenset(b"0123456789")
HEX = DIGITS | frozenset(b"ABCDEFabcdef")
TCHAR = DIGITS | frozenset(b"!#$%&'*+-.^_`|~ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
VCHAR = frozenset(range(0x21, 0x7F))
TEXT = VCHAR | frozenset(range(0x80, 0x100)) | frozenset(b" \t")  # of values, reasons and what extends a chunk
CHUNKED, UNTIL_CLOSE = -1, -2
MOST_SIZE_DIGITS, MOST_LENGTH_DIGITS = 15, 18


class Unread(Exception):
    """This is no HTTP."""


class Partial(Exception):
    """There is more to come."""


class Message(NamedTuple):
    """A request (its `start` is method, target, version) or an answer (version, status, reason)."""

    start: Tuple[bytes, bytes, bytes]
    fields: List[Tuple[bytes, bytes]]
    body: bytes = b""

    def all(self, name: bytes) -> List[bytes]:
        return [value for one, value in self.fields if one.lower() == name]

    def listed(self, name: bytes) -> List[bytes]:
        return [one.strip(b" \t").lower() for line in self.all(name) for one in line.split(b",")]

    @property
    def minor(self) -> int:
        version = self.start[0] if b"/" in self.start[0] else self.start[2]  # no method has one
        return version[7] - 48

    @property
    def closes(self) -> bool:
        return self.minor == 0 or b"close" in self.listed(b"connection")


class Reader:
    """Goes through bytes once; `at` is how far it has come."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def line(self) -> bytes:
        """Read a line that ends in CRLF, and holds neither of the two."""
        for at in range(self.at, len(self.data)):
            if self.data[at] == 0x0A:
                raise Unread("an LF of its own")
            if self.data[at] == 0x0D:
                if at + 1 == len(self.data):
                    raise Partial
                if self.data[at + 1] != 0x0A:
                    raise Unread("a CR of its own")
                start, self.at = self.at, at + 2
                return self.data[start:at]
        raise Partial

    def exactly(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise Partial
        self.at += size
        return self.data[self.at - size : self.at]

    def body(self, size: int) -> bytes:
        if size != CHUNKED:
            return self.exactly(size)
        body = b""
        while True:
            size = chunk_size(self.line())
            if size == 0:
                list(map(field, iter(self.line, b"")))  # trailers
                return body
            body += self.exactly(size)
            if self.exactly(2) != b"\r\n":
                raise Unread("no CRLF behind a chunk")

    def request_head(self) -> Message:
        first, rest = self.line(), list(iter(self.line, b""))
        head = Message(request_line(first), list(map(field, rest)))
        hosts = len(head.all(b"host"))
        if hosts > 1 or (hosts == 0 and head.minor > 0):
            raise Unread("not one Host")
        return head

    def request(self) -> Message:
        head = self.request_head()
        return head._replace(body=self.body(request_size(head)))

    def answer_head(self) -> Message:
        first, rest = self.line(), list(iter(self.line, b""))
        return Message(status_line(first), list(map(field, rest)))

    def answer(self, method: bytes, *, ended: bool) -> Message:
        """Read one answer, those of 1xx before it passed over; `ended` tells that no more will come."""
        head = self.answer_head()
        while head.start[1] < b"200":
            if head.start[1] == b"101":
                raise Unread("nobody asked to switch")
            head = self.answer_head()
        size = answer_size(head, method)
        if size == UNTIL_CLOSE:
            if not ended:
                raise Partial
            size = len(self.data) - self.at
        return head._replace(body=self.body(size))


def request_size(head: Message) -> int:
    """Give how long the body of a request is, or how that is told."""
    if head.minor == 0 and head.all(b"transfer-encoding"):
        raise Unread("a coding in HTTP/1.0")
    size = told_size(head)
    return 0 if size == UNTIL_CLOSE else size


def answer_size(head: Message, method: bytes) -> int:
    """Give how long the body of an answer is, or how that is told."""
    size = told_size(head)  # also of an answer without a body: what it says of one has to be sound
    return 0 if method == b"HEAD" or head.start[1] in (b"204", b"304") else size


def told_size(head: Message) -> int:
    codings, lengths = head.all(b"transfer-encoding"), head.all(b"content-length")
    if codings:
        if lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise Unread("framed in two ways, or in an unknown one")
        return CHUNKED
    if not lengths:
        return UNTIL_CLOSE
    if len(lengths) != 1 or not lengths[0] or len(lengths[0]) > MOST_LENGTH_DIGITS:
        raise Unread("no length")
    return int(of_only(DIGITS, lengths[0]))


def of_only(allowed: FrozenSet[int], octets: bytes) -> bytes:
    if not allowed.issuperset(octets):
        raise Unread("what is not allowed there")
    return octets


def some_of(allowed: FrozenSet[int], octets: bytes) -> bytes:
    if not octets:
        raise Unread("nothing where something should be")
    return of_only(allowed, octets)


def request_line(line: bytes) -> Tuple[bytes, bytes, bytes]:
    words = line.split(b" ")
    if len(words) != 3:
        raise Unread("not three words")
    return some_of(TCHAR, words[0]), some_of(VCHAR, words[1]), version(words[2])


def status_line(line: bytes) -> Tuple[bytes, bytes, bytes]:
    status = of_only(DIGITS, line[9:12])
    if line[8:9] != b" " or line[12:13] not in (b" ", b"") or len(status) != 3 or not b"100" <= status < b"600":
        raise Unread("no status")
    return version(line[:8]), status, of_only(TEXT, line[13:])


def version(word: bytes) -> bytes:
    if len(word) != 8 or word[:7] != b"HTTP/1." or word[7] not in DIGITS:
        raise Unread("another version")
    return word


def field(line: bytes) -> Tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon:
        raise Unread("no field")
    return some_of(TCHAR, name), of_only(TEXT, value).strip(b" \t")


def chunk_size(line: bytes) -> int:
    size, semicolon, more = line.partition(b";")
    of_only(TEXT, more)
    digits = size.rstrip(b" \t") if semicolon else size
    if len(digits) > MOST_SIZE_DIGITS:
        raise Unread("no size")
    return int(some_of(HEX, digits), 16)


class Pipeline(NamedTuple):
    """What a connection said: whole requests, how it ends (`end`, `partial` or `bad`), and where the last one does."""

    requests: List[Message]
    state: str
    used: int


def pipeline(data: bytes, most_empty_lines: int = 4) -> Pipeline:
    """Read requests up to the one that closes the connection, or to more empty lines than there should be."""
    found: List[Message] = []
    reader, used = Reader(data), 0
    while True:
        while data.startswith(b"\r\n", reader.at):
            reader.at += 2
        if data[reader.at :] in (b"", b"\r") or reader.at - used > 2 * most_empty_lines:
            return Pipeline(found, "end", used)
        try:
            found.append(reader.request())
        except (Partial, Unread) as trouble:
            return Pipeline(found, "partial" if isinstance(trouble, Partial) else "bad", used)
        used = reader.at
        if found[-1].closes:
            return Pipeline(found, "end", used)


def answer(data: bytes, method: bytes, *, ended: bool = True) -> Optional[Message]:
    """Read one whole answer; None for one that is bad, or cut short."""
    try:
        return Reader(data).answer(method, ended=ended)
    except (Unread, Partial):
        return None
