"""Whatever bytes a client or an upstream sends to a running house: one request stays one, and nothing waits for ever.

Each row of `CASES` is sent whole, in single bytes, and between two good requests in one breath. Then the
answers are counted, and what the upstream was asked is compared to the byte.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import pytest

from houses import ROOT, House
from plugins.auth import sign
from scripted import Scripted, read_all, read_exactly, read_head

LONG = 20.0  # seconds nobody is to wait for
SECRET = "a secret of thirty-two characters"
TOKEN = f"Authorization: Bearer {sign({'sub': 'me'}, SECRET.encode())}\r\n".encode()

pytestmark = pytest.mark.outermost

INI = """
[server]
head_timeout = 60
[plugins.rate_limit]
enabled = no
[providers.lmstudio]
base_url = {recorder}
[providers.hostile]
type = lmstudio
base_url = {hostile}
retries = 0
[providers.ollama]
enabled = no
"""


# what is sent


class Seen(NamedTuple):
    """A request as the upstream is to get it, but for its Host, which is its own."""

    line: bytes
    fields: Tuple[bytes, ...] = ()
    body: Optional[bytes] = None

    def wire(self, host: bytes) -> bytes:
        length = () if self.body is None else (b"Content-Length: %d" % len(self.body),)
        lines = [self.line + b" HTTP/1.1", b"Host: " + host, *self.fields, *length, b"", b""]
        return b"\r\n".join(lines) + (self.body or b"")


class Case(NamedTuple):
    """What is sent; the statuses allowed, 0 for none at all; what the upstream is asked; what the answer tells.

    `ends` tells that the client says no more behind it: the message is not all there.
    """

    name: str
    sent: bytes
    statuses: Tuple[int, ...]
    seen: Tuple[Seen, ...] = ()
    told: bytes = b""
    ends: bool = False
    guarded: bool = False


A = b"/lmstudio/a"
BAD, GOOD = (400,), (200,)
HOST = b"Host: localhost"


def ask(method: bytes, target: bytes, *fields: bytes, body: bytes = b"", host: bytes = HOST) -> bytes:
    """Put a request together; nothing is added but a Host."""
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *([host] if host else []), *fields, b"", b""]) + body


HIDDEN = ask(b"GET", b"/lmstudio/smuggled")  # what must never be taken for a request
LENGTH = b"Content-Length: %d" % len(HIDDEN)
CHUNKED = b"Transfer-Encoding: chunked"
JSON = b"Content-Type: application/json"


def post(*fields: bytes, body: bytes = b"", target: bytes = A) -> bytes:
    return ask(b"POST", target, *fields, body=body)


def chunks(*lines: bytes) -> bytes:
    """Send these lines, CRLF between them, as a chunked body."""
    return post(CHUNKED, body=b"\r\n".join(lines))


def posted(*fields: bytes, body: bytes = b"hello") -> Tuple[Seen, ...]:
    return (Seen(b"POST /a", fields, body),)


def got(target: bytes, *fields: bytes) -> Tuple[Seen, ...]:
    return (Seen(b"GET " + target, fields),)


# fmt: off


def lengths() -> Iterator[Case]:
    """Bodies whose end could be found in two places."""
    zero = b"0\r\n\r\n"
    rows = {
        "CL.TE": (b"Content-Length: 6", CHUNKED),
        "TE.CL": (CHUNKED, b"Content-Length: 4"),
        "TE and an empty CL": (CHUNKED, b"Content-Length:"),
        "TE and CL 0": (CHUNKED, b"Content-Length: 0"),
        "TE and CL far apart": (CHUNKED, *[b"X-%d: x" % n for n in range(50)], b"content-length: 5"),
    }
    for name, fields in rows.items():
        yield Case(name, post(*fields, body=zero + HIDDEN), BAD)
    for value in [
        b"+5", b"-5", b"-0", b"0x5", b"5_0", b"5.0", b"5e0", b"5 5", b"", b'"5"', b"5,", b",5", b"5, 5", b"5, 6",
        b"0, 5", b"5;", b"5\xa0", b"5\x85", b"\xd9\xa5", b"\xef\xbc\x95", b"5\x0b", b"\x0c5", b"5\x00", b"\x005",
        b"five", b"NaN", b"1" * 19, b"1" * 5000, b"18446744073709551621", b"4294967301" + b"0" * 10, b"0" * 30 + b"5",
    ]:
        name = f"CL {value[:30]!r}"
        yield Case(name, post(b"Content-Length: " + value, body=b"hello" + HIDDEN), BAD)
    for name, fields in {
        "CL twice the same": (b"Content-Length: 5", b"Content-Length: 5"),
        "CL twice": (b"Content-Length: 5", b"Content-Length: 0"),
        "CL twice in two spellings": (b"Content-Length: 0", b"cOnTeNt-LeNgTh: 5"),
        "CL and an empty CL": (b"Content-Length: 5", b"Content-Length:"),
        "CL with a blank before its colon": (b"Content-Length : 5",),
        "CL with a tab before its colon": (b"Content-Length\t: 5",),
        "CL folded": (b"Content-Length:", b" 5"),
        "CL behind a folded line": (b"X: x", b"\tContent-Length: 5"),
        "CL behind a NUL": (b"\x00Content-Length: 5",),
    }.items():
        yield Case(name, post(*fields, body=b"hello" + HIDDEN), BAD)
    yield Case("CL on GET of 1.0", b"GET /health HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5, 5\r\n\r\nhello", BAD)
    yield Case("CL over the limit", post(b"Content-Length: 999999999999999", body=HIDDEN), (413,))
    yield Case("CL with zeros before", post(b"Content-Length: 0005", body=b"hello"), GOOD, posted())
    yield Case("CL between blanks", post(b"Content-Length: \t 5 \t", body=b"hello"), GOOD, posted())
    yield Case("CL 0", post(b"Content-Length: 0"), GOOD, posted(body=b""))
    yield Case("no length at all", post(), GOOD, posted(body=b""))
    twin = b"Content_Length: 500"
    yield Case("CL has a twin", post(twin, b"Content-Length: 5", body=b"hello"), GOOD, posted(twin))
    yield Case("CL.0 OPTIONS", ask(b"OPTIONS", A, LENGTH, body=HIDDEN), (204,))
    for method in (b"GET", b"HEAD", b"DELETE", b"PUT", b"PATCH", b"BREW"):
        seen = (Seen(method + b" /a", (), HIDDEN),)
        yield Case(f"CL.0 {method.decode()}", ask(method, A, LENGTH, body=HIDDEN), GOOD, seen)
    yield Case("CL.0 POST", post(LENGTH, body=HIDDEN), GOOD, posted(body=HIDDEN))


def codings() -> Iterator[Case]:
    """Transfer-Encoding as one reader takes it and another does not."""
    zero = b"0\r\n\r\n"
    for value in [
        b"xchunked", b"chunkedx", b"chunk", b"identity", b"cow", b"", b"chunked, identity", b"identity, chunked",
        b"gzip, chunked", b"chunked, chunked", b"chunked,", b",chunked", b"'chunked'", b'"chunked"', b"chunked;q=1",
        b"chunked\xa0", b"\xefchunked", b"chunked chunked", b"chunked;", b"x: chunked", b"c\xe9unked", b"deflate",
    ]:
        yield Case(f"TE {value!r}", post(b"Transfer-Encoding: " + value, body=zero + HIDDEN), (501,))
        yield Case(f"TE {value!r} and CL", post(b"Transfer-Encoding: " + value, b"Content-Length: 5", body=zero), BAD)
    for name, fields in {
        "TE behind VT": (b"Transfer-Encoding: \x0bchunked",),
        "TE before VT": (b"Transfer-Encoding: chunked\x0b",),
        "TE before NUL": (b"Transfer-Encoding: chunked\x00",),
        "TE name before NUL": (b"Transfer-Encoding\x00: chunked",),
        "TE blank before its colon": (b"Transfer-Encoding : chunked",),
        "TE tab before its colon": (b"Transfer-Encoding\t: chunked",),
        "TE without colon": (b"Transfer-Encoding chunked",),
        "TE empty name before": (b": Transfer-Encoding: chunked",),
        "TE first and indented": (b" Transfer-Encoding: chunked",),
        "TE in a folded line": (b"X: x", b" Transfer-Encoding: chunked"),
        "TE value folded": (b"Transfer-Encoding:", b" chunked"),
        "TE value folded by a tab": (b"Transfer-Encoding:", b"\tchunked"),
        "TE folded after": (b"Transfer-Encoding: chunked", b" , identity"),
        "TE behind LF": (b"X: x\nTransfer-Encoding: chunked",),
        "TE behind CR": (b"X: x\rTransfer-Encoding: chunked",),
        "TE behind CRCR": (b"X: x\r\rTransfer-Encoding: chunked",),
        "TE before LF": (b"Transfer-Encoding: chunked\nX: x",),
        "TE behind LFCR": (b"X: x\n\rTransfer-Encoding: chunked",),
        "TE non-ASCII name": (b"Transfer\xadEncoding: chunked",),
        "TE name in quotes": (b'"Transfer-Encoding": chunked',),
    }.items():
        yield Case(name, post(*fields, body=zero + HIDDEN), BAD)
        yield Case(f"{name}, and CL", post(b"Content-Length: 5", *fields, body=zero + HIDDEN), BAD)
    for second in (b"identity", b"chunked", b"x", b""):
        fields = (CHUNKED, b"Transfer-encoding: " + second)
        yield Case(f"TE chunked and {second!r}", post(*fields, body=zero + HIDDEN), (501,))
        yield Case(f"TE {second!r} and chunked", post(*fields[::-1], body=zero + HIDDEN), (501,))
    old = b"POST /lmstudio/a HTTP/1.0\r\nHost: localhost\r\n"
    yield Case("TE in 1.0", old + CHUNKED + b"\r\n\r\n" + zero + HIDDEN, BAD)
    yield Case("TE and CL in 1.0", old + CHUNKED + b"\r\nContent-Length: 5\r\n\r\n" + zero + HIDDEN, BAD)
    for value in (b"chunked", b"CHUNKED", b"cHuNkEd", b"\t chunked \t"):
        sent = post(b"Transfer-Encoding:" + value, body=b"5\r\nhello\r\n" + zero)
        yield Case(f"TE fine {value!r}", sent, GOOD, posted())
    for twin in (b"Transfer_Encoding: chunked", b"X-Transfer-Encoding: chunked", b"Transfer-Encoding-: chunked"):
        yield Case(f"no TE {twin!r}", post(twin, b"Content-Length: 5", body=b"hello"), GOOD, posted(twin))
    yield Case("TE in TE", post(b"TE: chunked, trailers", b"Content-Length: 5", body=b"hello"), GOOD, posted())
    for method in (b"GET", b"DELETE", b"PUT"):
        sent = ask(method, A, CHUNKED, body=b"%x\r\n%s\r\n" % (len(HIDDEN), HIDDEN) + zero)
        yield Case(f"TE on {method.decode()}", sent, GOOD, (Seen(method + b" /a", (), HIDDEN),))


def chunked() -> Iterator[Case]:
    """Chunks, and what looks like them."""
    for size in [
        b"0x5", b"+5", b"-5", b"5_0", b" 5", b"\t5", b"5 ", b"5\t", b"", b"g", b"5.0", b"5,", b"5h", b"\xef\xbc\x95",
        b"5\x00", b"\x005", b"5\x0b", b"5\xa0", b'"5"', b"5;\x00", b"5;a\nb", b"5;\n", b"5\n", b"5\r", b"5;a\rb",
        b"5\r;a", b"0000000000000005" * 2, b"fffffffffffffffff0000000000000005", b"10000000000000005",
        b"ffffffffffffffff", b"8000000000000005", b"7fffffffffffffff", b"5;" + b"a" * 20000,
    ]:
        yield Case(f"chunk {size[:40]!r}", chunks(size, b"hello", b"0", b"", b"") + HIDDEN, BAD)
    for name, lines in {
        "chunk too long": (b"5", b"hello!", b"0", b"", b""),
        "chunk too short": (b"6", b"hello", b"0", b"", b""),
        "chunk ended by LF": (b"5", b"hello\n0", b"", b""),
        "chunk ended by CR": (b"5", b"hello\r0", b"", b""),
        "chunk ended by LFCR": (b"5", b"hello\n\r0", b"", b""),
        "chunk ended by two bytes": (b"5", b"helloXX0", b"", b""),
        "chunk ended by nothing": (b"5", b"hello0", b"", b""),
        "an empty line between chunks": (b"5", b"hello", b"", b"0", b"", b""),
        "last chunk ended by LF": (b"5", b"hello", b"0\n\n"),
        "last chunk ended by CRLFLF": (b"5", b"hello", b"0", b"\n"),
        "last chunk ended by CR": (b"5", b"hello", b"0\r\r"),
        "a request for a trailer": (b"0", HIDDEN),
        "trailer with a blank before its colon": (b"0", b"X : y", b"", b""),
        "trailer without a colon": (b"0", b"X", b"", b""),
        "trailer without a name": (b"0", b": x", b"", b""),
        "trailer folded": (b"0", b"X: y", b" z", b"", b""),
        "trailer with NUL": (b"0", b"X: \x00", b"", b""),
        "trailer with LF": (b"0", b"X: y\nZ: z", b"", b""),
        "trailer with CR": (b"0", b"X: y\rZ: z", b"", b""),
        "trailers without end": (b"0", *[b"X: " + b"y" * 1000] * 80, b"", b""),
        "a trailer too long": (b"0", b"X: " + b"y" * 20_000, b"", b""),
        "extensions without end": (*[b"1;" + b"a" * 9000, b"x"] * 9, b"0", b"", b""),
    }.items():
        yield Case(name, chunks(*lines) + HIDDEN, BAD)
    yield Case("chunk over the limit", chunks(b"5", b"hello", b"fffffffffffffff", HIDDEN), (413,))
    yield Case("chunks over the limit", chunks(b"5", b"hello", b"2000000", HIDDEN), (413,))
    for size in [
        b"5;a", b"5;a=b", b'5;a="b;c"', b"5 ;a", b"5\t; a", b"000000005", b"5;", b"5;" + b"a" * 1000, b"5;\xff",
    ]:
        yield Case(f"chunk fine {size[:20]!r}", chunks(size, b"hello", b"0", b"", b""), GOOD, posted())
    for last in (b"0", b"000", b"0;a", b"0;a=b"):
        yield Case(f"last chunk fine {last!r}", chunks(b"5", b"hello", last, b"", b""), GOOD, posted())
    for trailer in [
        b"X-Admin: 1", b"Content-Length: 500", b"Host: evil.test", b"Transfer-Encoding: identity",
        b"Authorization: x", b"Connection: close", b"Content-Type: text/html", b"X:", b"Expect: 100-continue",
    ]:
        yield Case(f"trailer dropped {trailer!r}", chunks(b"5", b"hello", b"0", trailer, b"", b""), GOOD, posted())
    sent = post(CHUNKED, b"Trailer: X-Admin", body=b"5\r\nhello\r\n0\r\nX-Admin: 1\r\n\r\n")
    yield Case("trailer announced", sent, GOOD, posted())
    ones = b"".join(b"1\r\n%c\r\n" % letter for letter in b"hello")
    yield Case("chunks of one byte", chunks(ones + b"0", b"", b""), GOOD, posted())
    yield Case("chunk in capitals", chunks(b"0A", b"0123456789", b"0", b"", b""), GOOD, posted(body=b"0123456789"))
    inner = b"0\r\n\r\n" + HIDDEN
    yield Case("an end inside a chunk", chunks(b"%X" % len(inner), inner, b"0", b"", b""), GOOD, posted(body=inner))


def heads() -> Iterator[Case]:
    """Request lines and header lines that are none."""
    host = b"\r\n" + HOST + b"\r\n\r\n"
    for line in [
        b"GET", b"GET ", b"GET /health", b"GET /health ", b" GET /health HTTP/1.1", b"GET  /health HTTP/1.1",
        b"GET /health  HTTP/1.1", b"GET /health HTTP/1.1 ", b"GET\t/health\tHTTP/1.1", b"GET\x0b/health HTTP/1.1",
        b"GET\xa0/health HTTP/1.1", b"GET /health\x0cHTTP/1.1", b"GET /health\x85HTTP/1.1", b" /health HTTP/1.1",
        b"GET /health http/1.1", b"GET /health HTTP/1.10", b"GET /health HTTP/01.1", b"GET /health HTTP/1,1",
        b"GET /health HTTP/ 1.1", b"GET /health HTTP/1.1x", b"GET /health HTP/1.1", b"GET /health HTTP/1",
        b"GET HTTP/1.1", b"GET /health HTTP/+1.1", b"GET /health HTTP/1.\xb9", b"GET /he alth HTTP/1.1",
        b"G(T /health HTTP/1.1", b"GET\x00 /health HTTP/1.1", b"GET /health\x00 HTTP/1.1",
        b"GET /health\x7f HTTP/1.1", b"GET /\xc3\xa4 HTTP/1.1", b"GET /health\r HTTP/1.1", b"GET /health\n HTTP/1.1",
        b"GET /health HTTP/1.1\rX: y", b"GET /health HTTP/1.1\r", b"G\xcbT /health HTTP/1.1",
        b"GET: /health HTTP/1.1", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", b"SSH-2.0-OpenSSH_9",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 12, b"HTTP/1.1 200 OK",
        b"GET /health HTTP/1.1, HTTP/1.0",
    ]:
        yield Case(f"line {line!r}", line + host + HIDDEN, BAD)
    for line in (b"GET /health HTTP/2.0", b"GET /health HTTP/0.9", b"GET /health HTTP/9.9", b"GET /health HTTP/0.0"):
        yield Case(f"version {line!r}", line + host + HIDDEN, (505,))
    yield Case("h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", (505,))
    yield Case("version 1.2", b"GET /lmstudio/a HTTP/1.2" + host, GOOD, got(b"/a"))
    for name, sent in {
        "HTTP/0.9": b"GET /health\r\n\r\n",
        "LF for line ends": b"GET /health HTTP/1.1\nHost: localhost\n\n",
        "LF for some line ends": b"GET /health HTTP/1.1\nHost: localhost\r\n\r\n",
        "LF for the last line end": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\n",
        "CR for line ends": b"GET /health HTTP/1.1\rHost: localhost\r\r" + HIDDEN,
        "CRCRLF": b"GET /health HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
        "CR in the empty line": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\r\n\r\n",
        "LF before": b"\n" + HIDDEN,
        "CR before": b"\r" + HIDDEN,
        "NUL before": b"\x00" + HIDDEN,
        "BOM before": b"\xef\xbb\xbf" + HIDDEN,
        "no Host": b"GET /lmstudio/a HTTP/1.1\r\n\r\n",
    }.items():
        yield Case(name, sent + HIDDEN, BAD)
    for line in [
        b" X: y", b"\tX: y", b"X : y", b"X\t: y", b"X", b": y", b":", b"X Y: z", b"X(: y", b"X\x00: y", b"X: \x00",
        b"X: \x01", b"X: \x7f", b"X: \x1b[0m", b"X: a\rb", b"X: a\nb", b"X: a\r", b"\x0bX: y", b"\xa0X: y",
        b"X\xff: y", b"X;: y", b"X: y\r\n z", b"X: y\r\n\tz", b"X: y\r\n \r\nZ: z", b"X[]: y", b"{X: y", b"X/Y: z",
        b'X": y', b"X\\: y", b"X@: y", b"x-request-id: a\rSet-Cookie: b", b"x-request-id: a\nSet-Cookie: b",
        b"x-request-id: a\x00b",
    ]:
        yield Case(f"field {line!r}", ask(b"GET", A, line) + HIDDEN, BAD)
        yield Case(f"field first {line!r}", ask(b"GET", A, line, HOST, host=b"") + HIDDEN, BAD)
    for field in [
        b"X_Y: z", b"X:", b"X:y", b"X: \xff\x80", b"!#$%&'*+.^_`|~: x", b"X: a:b", b'X: "', b"X: a\tb", b"1: 2",
    ]:
        seen = field.replace(b"X:y", b"X: y") + (b" " if field == b"X:" else b"")
        yield Case(f"field fine {field!r}", ask(b"GET", A, field), GOOD, got(b"/a", seen))
    yield Case("blanks around a value", ask(b"GET", A, b"X: \t y \t "), GOOD, got(b"/a", b"X: y"))


def hosts() -> Iterator[Case]:
    """Host, and the authority of a target."""
    for value in [
        b"", b"evil.test", b"localhost.evil.test", b"localhost@evil.test", b"evil.test@localhost",
        b"localhost, evil.test", b"localhost:80:80", b"localhost:", b"localhost:x", b"localhost evil.test",
        b"evil.test#localhost", b"localhost.", b"127.0.0.1.evil.test", b"127.1", b"2130706433", b"0x7f.1", b"0.0.0.0",
        b"127.0.0.2", b"[::1", b"::1", b"[::]", b"[::ffff:127.0.0.1]", b"localhost/", b"localhost?",
        b"http://localhost", b"\xe2\x93\x9bocalhost", b"localhost:123456", b"127.0.0.1:-80", b"local host",
        b"evil.test:localhost", b"localhost\\@evil.test", b"127.0.0.\xb2",
    ]:
        yield Case(f"Host {value!r}", ask(b"GET", A, host=b"Host: " + value), (421, 400))
    yield Case("Host foreign and a body", ask(b"POST", A, LENGTH, body=HIDDEN, host=b"Host: evil.test"), (421,))
    yield Case("Host foreign of /health", ask(b"GET", b"/health", host=b"Host: evil.test"), (421,))
    yield Case("Host foreign of nothing", ask(b"GET", b"/nothing", host=b"Host: evil.test"), (421,))
    for value in (b"LocalHost:1", b"[::1]:65535", b"127.0.0.1", b" localhost\t"):
        yield Case(f"Host fine {value!r}", ask(b"GET", A, host=b"Host:" + value), GOOD, got(b"/a"))
    for name, fields in {
        "Host twice the same": (HOST,),
        "Host twice": (b"Host: evil.test",),
        "Host twice in two spellings": (b"hOST: evil.test",),
        "Host and an empty one": (b"Host:",),
        "Host behind a blank": (b" Host: evil.test",),
        "Host with a blank before its colon": (b"Host : evil.test",),
        "Host with NUL": (b"Host\x00: evil.test",),
    }.items():
        yield Case(name, ask(b"GET", A, *fields) + HIDDEN, BAD)
        yield Case(f"{name}, the other way round", ask(b"GET", A, HOST, host=fields[0]) + HIDDEN, BAD)
    for line in (b"GET /lmstudio/a HTTP/1.0\r\n\r\n", b"GET /lmstudio/a HTTP/1.0\r\nHost: evil.test\r\n\r\n"):
        yield Case(f"1.0 and {line[26:-4]!r}", line, (421,))
    evil = b"Host: evil.test"
    for target in (b"http://localhost/lmstudio/a", b"HTTP://127.0.0.1:1/lmstudio/a", b"https://[::1]/lmstudio/a"):
        yield Case(f"authority beats Host {target!r}", ask(b"GET", target, host=evil), GOOD, got(b"/a"))
    yield Case("authority and query", ask(b"GET", b"http://localhost?/lmstudio/a"), (404,))
    for target in [
        b"http://evil.test/lmstudio/a", b"http://localhost.evil.test/lmstudio/a",
        b"http://localhost:80:80/lmstudio/a", b"http://[::1/lmstudio/a", b"http://evil.test",
        b"http://localhost%2eevil.test/a", b"http://evil.test:80/health", b"http://localhost\\evil.test/a",
        b"http://localhost;evil.test/a", b"http://%6cocalhost/lmstudio/a",
    ]:
        yield Case(f"authority foreign {target!r}", ask(b"GET", target), (421, 400))
    for target in [
        b"http:///lmstudio/a", b"http:/lmstudio/a", b"http:lmstudio/a", b"ftp://localhost/lmstudio/a",
        b"localhost:80", b"*", b"http://me@localhost/lmstudio/a", b"http://me:pw@evil.test/a",
        b"http://localhost/lmstudio/a#b", b"lmstudio/a", b"http://localhost/lmstudio/../health",
        b"http://localhost/lmstudio/%2e%2e/health", b"?a", b"#", b"http://#/a", b"file:///lmstudio/a",
        b"javascript:0", b"http://localhost@/lmstudio/a", b"http://@localhost/lmstudio/a",
    ]:
        yield Case(f"target form {target!r}", ask(b"GET", target) + HIDDEN, BAD)
    yield Case("absolute without Host", b"GET http://localhost/lmstudio/a HTTP/1.1\r\n\r\n" + HIDDEN, BAD)
    yield Case("absolute and two Hosts", ask(b"GET", b"http://localhost/lmstudio/a", HOST) + HIDDEN, BAD)
    for line in (b"CONNECT evil.test:443", b"CONNECT /lmstudio/a", b"TRACE /lmstudio/a", b"TRACE *", b"CONNECT *"):
        method, _, target = line.partition(b" ")
        yield Case(line.decode(), ask(method, target, b"Cookie: a=b") + HIDDEN, (501,))
    yield Case("OPTIONS *", ask(b"OPTIONS", b"*"), (204,))
    yield Case("OPTIONS * with a body", ask(b"OPTIONS", b"*", LENGTH, body=HIDDEN), (204,))
    forwarded = (
        b"X-Forwarded-Host: evil.test",
        b"X-Host: evil.test",
        b"Forwarded: host=evil.test",
        b"X-Original-URL: /llm",
    )
    yield Case("Host's substitutes", ask(b"GET", A, *forwarded), GOOD, got(b"/a", *forwarded))


def targets() -> Iterator[Case]:
    """Paths that climb, and paths that only look as if."""
    for path in [
        b"/lmstudio/..", b"/lmstudio/../health", b"/lmstudio/a/../../llm", b"/lmstudio/./a", b"/./lmstudio/a",
        b"/../lmstudio/a", b"/lmstudio/%2e%2e/health", b"/lmstudio/.%2e/health", b"/lmstudio/%2E./health",
        b"/lmstudio/%2e/a", b"/lmstudio/a/%2E%2e", b"/lmstudio/..%2fhealth", b"/lmstudio/a%2F..%2f..",
        b"/lmstudio/%2e%2e%2fhealth", b"/lmstudio/a%2f.", b"/lmstudio\\a", b"/lmstudio/..\\health",
        b"/lmstudio/a%5c..%5Cb", b"/lmstudio/%5C", b"/\\evil.test/a", b"/v1/../v1/models", b"/..", b"/lmstudio/a#b",
        b"/lmstudio/#", b"/lmstudio/../?a=b",
    ]:
        yield Case(f"climbs {path!r}", ask(b"GET", path) + HIDDEN, BAD)
    for path in [
        b"//evil.test/x", b"/http://evil.test/x", b"/@evil.test/x", b"/:80/x", b"/a@evil.test:80/x",
        b"/%2f%2fevil.test/x", b"/%0d%0aHost:%20evil.test", b"/%00", b"/%20HTTP/1.1%0d%0a", b"/%252e%252e/x",
        b"/a..b", b"/...", b"/.a", b"/%2e%2e%2e", b"/%c0%ae%c0%ae/x", b"/%zz%", b"/?a=/../b", b"/a?b=%0d%0aX:y",
        b"/a?b=http://evil.test/&c", b"/?", b"/a??b", b"/", b"/a;b=c/d", b"/%E4", b'/[a]{b}|c^d`e"f<g>', b"/a+b%2Bc",
        b"/a//b///c", b"/!$&'()*,=:;~", b"/a?b=\\..\\c",
    ]:
        yield Case(f"stays {path!r}", ask(b"GET", b"/lmstudio" + path), GOOD, got(path))
    yield Case("stays /v1/a", ask(b"GET", b"/v1/a"), GOOD, got(b"/v1/a"))
    for path in [
        b"/lmstudio", b"/lmstudio?x=/y", b"/lmstudiox/a", b"/LMStudio/a", b"/%6cmstudio/a", b"//lmstudio/a",
        b"/lmstudio%2fa", b"/v1?x=/y", b"/nothing%0d%0aSet-Cookie:%20a=b", b"/nothing?a=%0d%0aSet-Cookie:b",
        b"/<script>alert(1)</script>", b"/llmx", b"/llm/x", b"/evil.test/a", b"/%", b"/nothing" + b"a" * 9000,
    ]:
        yield Case(f"nothing at {path[:40]!r}", ask(b"GET", path), (404,))


def travellers() -> Iterator[Case]:
    """Which fields travel on, and which stay."""
    typed = b"Content-Type: text/plain"
    body = b"Content-Length: 5"
    for named in [
        b"Content-Length", b"Host", b"Content-Type", b"content-length, host, content-type", b"Transfer-Encoding",
    ]:
        field = b"Connection: keep-alive, " + named
        yield Case(f"Connection names {named!r}", post(field, typed, body, body=b"hello"), GOOD, posted(typed))
        sent = post(field, typed, CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n")
        yield Case(f"Connection names {named!r}, chunked", sent, GOOD, posted(typed))
    for field in [
        b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: trailers", b"Trailer: X", b"Upgrade: h2c",
        b"Expect: x", b"HTTP2-Settings: AAMAAABk", b"Proxy-Authorization: Basic eDp5", b"Proxy-Authenticate: x",
        b"Connection: x", b"Authorization: Bearer theirs", b"Cookie: a=b", b"X-Api-Key: theirs",
        b"x-goog-api-key: theirs", b"Connection:",
    ]:
        yield Case(f"stays here {field!r}", post(field, body, body=b"hello"), GOOD, posted())
    two = (b"Connection: X-One", b"X-One: 1", b"connection: ,x-two,,", b"X-Two: 2", b"X-Three: 3", b"X-One: 11")
    yield Case("two Connections", ask(b"GET", A, *two), GOOD, got(b"/a", b"X-Three: 3"))
    for value in (b"close", b"CLOSE", b"x, close", b"close, keep-alive", b"keep-alive\r\nConnection: close"):
        field = b"Connection: " + value
        yield Case(f"the end by {value!r}", ask(b"GET", A, field), GOOD, got(b"/a"))
    yield Case(
        "1.0 and keep-alive",
        b"GET /lmstudio/a HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
        GOOD,
        got(b"/a"),
    )
    same = (b"X-A: 1", b"x-a: 2", b"X-A: 1", b"Accept: a", b"Accept: b, c")
    yield Case("repeated fields", ask(b"GET", A, *same), GOOD, got(b"/a", *same))
    many = tuple(b"X-%d: x" % n for n in range(127))
    yield Case("as many fields as may be", ask(b"GET", A, *many), GOOD, got(b"/a", *many))
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    yield Case("upgrade to h2c", ask(b"GET", A, *upgrade), GOOD, got(b"/a"))
    yield Case("upgrade to h2c with a body", post(*upgrade, LENGTH, body=HIDDEN), GOOD, posted(body=HIDDEN))
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    socket_ = (b"Connection: Upgrade", b"Upgrade: websocket", key)
    yield Case("upgrade to a web socket", ask(b"GET", A, *socket_), GOOD, got(b"/a", key))
    yield Case("upgrade of /health", ask(b"GET", b"/health", *socket_), GOOD, told=b"ok")


def expectations() -> Iterator[Case]:
    """Expect: 100-continue, or nearly."""
    body = b"Content-Length: 5"
    for value in [
        b"100-continue", b"100-Continue", b" \t100-continue", b"x, 100-continue", b"100-continue, 100-continue",
        b"100-continued", b"y 100-continue", b"", b"200-ok", b"100-continue;q=1", b"100-continue\r\nExpect: x",
    ]:
        field = b"Expect: " + value
        yield Case(f"Expect {value!r}", post(field, body, body=b"hello"), GOOD, posted())
        yield Case(f"Expect {value!r} and no body", ask(b"GET", A, field), GOOD, got(b"/a"))
        sent = post(field, CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n")
        yield Case(f"Expect {value!r}, chunked", sent, GOOD, posted())
    old = b"POST /lmstudio/a HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    yield Case("Expect in 1.0", old, GOOD, posted())
    expect = b"Expect: 100-continue"
    for target, status in ((b"/nothing", 404), (b"/health", 405), (b"/llm", 415)):
        sent = post(expect, LENGTH, body=HIDDEN, target=target)
        yield Case(f"Expect and {status}", sent, (status,))
    yield Case("Expect and CL.TE", post(expect, CHUNKED, LENGTH, body=HIDDEN), BAD)
    yield Case("Expect and too much", post(expect, b"Content-Length: 99999999999", body=HIDDEN), (413,))


def refusals() -> Iterator[Case]:
    """Answers that do not wait for the body: what is in it is no request."""
    origin = b"Origin: https://evil.test"
    rows = [
        ("404", b"POST", b"/nothing", (), 404),
        ("405", b"POST", b"/health", (), 405),
        ("405 of DELETE", b"DELETE", b"/llm", (), 405),
        ("405 of BREW", b"BREW", b"/llm", (), 405),
        ("403", b"POST", A, (origin,), 403),
        ("403 of /llm", b"POST", b"/llm", (origin, JSON), 403),
        ("403 of two origins", b"POST", A, (b"Origin: http://localhost", b"Origin: http://localhost"), 403),
        ("403 of null", b"POST", A, (b"Origin: null",), 403),
        ("403 of another site", b"POST", A, (b"Sec-Fetch-Site: cross-site",), 403),
        ("415", b"POST", b"/llm", (b"Content-Type: text/plain",), 415),
        ("415 of a packed body", b"POST", b"/llm", (JSON, b"Content-Encoding: gzip"), 415),
        ("415 of no type", b"POST", b"/llm", (), 415),
        ("400 of no JSON", b"POST", b"/llm", (JSON,), 400),
        ("200 of /health", b"GET", b"/health", (), 200),
        ("200 of /health to HEAD", b"HEAD", b"/health", (), 200),
        ("404 to HEAD", b"HEAD", b"/nothing", (), 404),
        ("204 to OPTIONS", b"OPTIONS", b"/llm", (), 204),
        (
            "204 to a preflight",
            b"OPTIONS",
            A,
            (b"Origin: http://localhost", b"Access-Control-Request-Method: POST"),
            204,
        ),
    ]
    for name, method, target, fields, status in rows:
        yield Case(f"early {name}", ask(method, target, *fields, LENGTH, body=HIDDEN), (status,))
        sent = ask(method, target, *fields, CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN))
        yield Case(f"early {name}, chunked", sent, (status,))
        sent = ask(method, target, *fields, CHUNKED, body=b"0\r\n\r\n")
        yield Case(f"early {name}, chunked and empty", sent, (status,))
        large = HIDDEN * 2000
        sent = ask(method, target, *fields, b"Content-Length: %d" % len(large), body=large)
        yield Case(f"early {name}, large", sent, (status,))
    for field in (b"X: y", b"Authorization: Bearer x", b"Authorization: Basic eDp5", TOKEN[:-2] + b"\r\n" + TOKEN[:-2]):
        for target in (A, b"/llm", b"/nothing"):
            sent = post(field, JSON, LENGTH, body=HIDDEN, target=target)
            yield Case(f"early 401 {field[:24]!r} {target!r}", sent, (401,), guarded=True)
    yield Case(
        "early 401, chunked", post(CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)), (401,), guarded=True
    )
    sent = post(b"Transfer-Encoding: x", body=HIDDEN)
    yield Case("401 does not come before the framing", sent, (501,), guarded=True)
    yield Case(
        "a token does not travel", post(TOKEN[:-2], b"Content-Length: 5", body=b"hello"), GOOD, posted(), guarded=True
    )
    yield Case(
        "a token named by Connection",
        ask(b"GET", A, b"Connection: Authorization", TOKEN[:-2]),
        GOOD,
        got(b"/a"),
        guarded=True,
    )


def chat(document: Any, *fields: bytes) -> bytes:
    body = json.dumps(document).encode()
    return post(JSON, *fields, b"Content-Length: %d" % len(body), body=body, target=b"/llm")


def reflections() -> Iterator[Case]:
    """What comes back to its sender comes back harmless."""
    hello = {"model": "echo/echo", "messages": [{"role": "user", "content": "hello there"}]}
    body = json.dumps(hello).encode()
    yield Case("chat", chat(hello), GOOD, told=b"hello there")
    yield Case("chat in a stream", chat({**hello, "stream": True}), GOOD, told=b"data: [DONE]")
    pieces = b"".join(
        b"%x;a=b\r\n%s\r\n" % (len(body[at : at + 9]), body[at : at + 9]) for at in range(0, len(body), 9)
    )
    sent = post(JSON, CHUNKED, body=pieces + b"0\r\nContent-Type: text/plain\r\n\r\n", target=b"/llm")
    yield Case("chat in chunks", sent, GOOD, told=b"hello there")
    evil = "a\r\nSet-Cookie: a=b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    yield Case("CRLF in a field's name", chat({**hello, evil: 1}), GOOD, told=b"hello there")
    yield Case("CRLF in a model", chat({**hello, "model": "echo/" + evil}), (200, 400))
    yield Case("CRLF in a provider", chat({**hello, "provider": evil}), BAD)
    yield Case("CRLF in a type", chat({**hello, "type": evil}), BAD)
    yield Case("CRLF in a role", chat({**hello, "messages": [{"role": evil, "content": "x"}]}), BAD)
    yield Case("half a surrogate pair", chat({**hello, "provider": "\ud800"}), BAD)
    for value in [
        b"%0d%0aSet-Cookie:a=b", b"a b", b"<script>", b"x" * 65, b"\xe5\x98\x8a\xe5\x98\x8d", b"a;b", b"a,b", b'"',
    ]:
        yield Case(f"id {value[:30]!r}", ask(b"GET", b"/nothing", b"x-request-id: " + value), (404,))
    yield Case("two ids", ask(b"GET", b"/health", b"x-request-id: a", b"x-request-id: b"), GOOD, told=b"ok")
    for value in [
        b"http://localhost%0d%0aX:y", b"http://localhost\tx", b"http://localhost@evil.test", b"http://localhost:x",
    ]:
        yield Case(f"origin {value!r}", ask(b"POST", A, b"Origin: " + value, LENGTH, body=HIDDEN), (403,))
    asked = (
        b"Origin: http://localhost",
        b"Access-Control-Request-Method: x",
        b"Access-Control-Request-Headers: a\xffb, " + b"x" * 9000,
    )
    yield Case("odd names in a preflight", ask(b"OPTIONS", A, *asked), (204,))


def sizes() -> Iterator[Case]:
    """More than anybody needs."""
    wide = b"x" * 20_000
    yield Case("line too long", ask(b"GET", b"/" + wide) + HIDDEN, (414,))
    yield Case("line without end", b"GET /" + wide, (414,))
    yield Case("method too long", ask(b"G" * 20_000, A) + HIDDEN, (414,))
    yield Case("nothing but letters", wide, (414,))
    yield Case("field too long", ask(b"GET", A, b"X: " + wide) + HIDDEN, (431,))
    yield Case("name too long", ask(b"GET", A, wide + b": x") + HIDDEN, (431,))
    yield Case("too many fields", ask(b"GET", A, *[b"X: y"] * 128) + HIDDEN, (431,))
    yield Case("far too many fields", ask(b"GET", A, *[b"X: y"] * 5000) + HIDDEN, (431,))
    yield Case("head too large", ask(b"GET", A, *[b"X: " + b"y" * 1000] * 80) + HIDDEN, (431,))
    yield Case("head without end", ask(b"GET", A, *[b"X: " + b"y" * 1000] * 80)[:-2], (431,))
    yield Case("CL of 16 KiB", post(b"Content-Length: " + b"0" * 20_000) + HIDDEN, (431,))
    long_ = b"X: " + b"y" * 16_000
    yield Case("a long field", ask(b"GET", A, long_, long_), GOOD, got(b"/a", long_, long_))
    path = b"/" + b"a" * 16_000
    yield Case("a long path", ask(b"GET", b"/lmstudio" + path), GOOD, got(path))


def halves() -> Iterator[Case]:
    """Clients that stop in the middle: what is not all there never happens."""
    for name, sent in {
        "line": b"GET /lmstu",
        "line and its end": b"GET /lmstudio/a HTTP/1.1\r\n",
        "head": ask(b"GET", A)[:-2],
        "head but a byte": ask(b"GET", A)[:-1],
        "empty lines": b"\r\n\r\n",
        "body": post(b"Content-Length: 500", body=HIDDEN),
        "body but a byte": post(b"Content-Length: 6", body=b"hello"),
        "chunk's size": chunks(b"5"),
        "chunk": chunks(b"500", HIDDEN),
        "chunk's end": chunks(b"5", b"hello"),
        "chunks": chunks(b"5", b"hello", b""),
        "last chunk": chunks(b"5", b"hello", b"0"),
        "last chunk's end": chunks(b"5", b"hello", b"0", b""),
        "last chunk but a byte": chunks(b"5", b"hello", b"0", b"", b"")[:-1],
        "trailer": chunks(b"5", b"hello", b"0", b"X: y", b""),
    }.items():
        yield Case(f"half a {name}", sent, (0, 400, 408), ends=True)
    yield Case("half a body nobody wants", post(LENGTH, body=HIDDEN[:-9], target=b"/nothing"), (0, 404), ends=True)


# fmt: on

TABLES = (
    lengths,
    codings,
    chunked,
    heads,
    hosts,
    targets,
    travellers,
    expectations,
    refusals,
    reflections,
    sizes,
    halves,
)
CASES = [case for table in TABLES for case in table()]


# the house


class World(NamedTuple):
    """Houses with the upstreams behind them: `asked` is what the good one was asked, to the byte."""

    house: House
    guarded: House
    asked: List[bytes]
    host: bytes


def recorder(asked: List[bytes]) -> Any:
    """Give a script that notes one request and answers it; what follows on its connection is an error."""

    def script(peer: Any) -> None:
        head = read_head(peer)
        length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head)
        request = head + read_exactly(peer, int(length.group(1)) if length else 0)
        asked.append(request)
        line = head.partition(b"\r\n")[0]
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(line)
        peer.sendall(answer + (b"" if line.startswith(b"HEAD ") else line))
        peer.shutdown(socket.SHUT_WR)
        surplus = read_all(peer)
        assert surplus == b"", (request, surplus)

    return script


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    asked: List[bytes] = []
    with Scripted(recorder(asked)) as good, Scripted(hostile) as bad:
        ini = INI.format(recorder=good.url, hostile=bad.url)

        def build(args: Tuple[str, ...]) -> House:
            return House(tmp_path_factory.mktemp("house"), ini, {"JWT_SECRET": SECRET}, args, ROOT / "llmproxy.py")

        houses = build(()), build(("--enable-auth",))
        yield World(*houses, asked, good.url[7:].encode())
        assert [house.stop() for house in houses] == [0, 0]
        for house in houses:
            assert "Traceback" not in house.log, house.log


class Answer(NamedTuple):
    status: int
    fields: List[Tuple[str, str]]
    body: bytes
    whole: bool

    def all(self, name: str) -> List[str]:
        return [value for known, value in self.fields if known == name]

    @property
    def closes(self) -> bool:
        return "close" in self.all("connection") or not self.whole


class Client:
    """A client that says what it is told to, and reads answers as strictly as can be."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), LONG)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""
        self.reset = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, data: bytes, size: int = 0) -> None:
        """Send; the house may have had its last word before we are through."""
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(data), size or len(data) or 1):
                self.sock.sendall(data[at : at + size] if size else data)
                time.sleep(0)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def more(self) -> bool:
        """Read; False at the end."""
        block = b""
        try:
            block = self.sock.recv(65536)
        except ConnectionError:
            self.reset = True
        self.data += block
        return bool(block)

    def take(self, size: int) -> bytes:
        while len(self.data) < size and self.more():
            pass
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def line(self) -> bytes:
        while b"\r\n" not in self.data:
            if not self.more():
                return b""
        line, _, self.data = self.data.partition(b"\r\n")
        return line

    def answer(self, *, bare: bool = False) -> Optional[Answer]:
        """Read one answer, None when there is none; `bare` is one to HEAD."""
        first = self.line()
        if not first:
            assert self.data == b""
            return None
        assert re.fullmatch(rb"HTTP/1\.1 [1-5][0-9]{2} [ -~]*", first), first
        fields = []
        for line in iter(self.line, b""):
            assert re.fullmatch(rb"[A-Za-z-]+: [ -~\x80-\xff]*", line), line
            name, _, value = line.decode("latin-1").partition(": ")
            fields.append((name.lower(), value))
        status = int(first[9:12])
        if status == 100:
            assert fields == []
            return self.answer(bare=bare)
        head = Answer(status, fields, b"", whole=True)
        assert len(head.all("content-length") + head.all("transfer-encoding")) <= 1
        return head if bare or status in (204, 304) else self.bodied(head)

    def bodied(self, head: Answer) -> Answer:
        length = head.all("content-length")
        if length:
            body = self.take(int(length[0]))
            return head._replace(body=body, whole=len(body) == int(length[0]))
        if head.all("transfer-encoding") != ["chunked"]:
            assert head.closes
            while self.more():
                pass
            return head._replace(body=self.take(len(self.data)), whole=not self.reset)
        body, size = b"", -1
        while size:
            line = self.line()
            if not line:
                return head._replace(body=body, whole=False)
            size = int(line, 16)
            body += self.take(size)
            assert self.take(2) in (b"\r\n", b""), "a chunk does not end"
        return head._replace(body=body)

    def ended(self) -> bool:
        while not self.data and self.more():
            pass
        return not self.data


def sane(answer: Answer, *also: int) -> None:
    """See that an answer is fit to be sent, whatever was asked."""
    assert len(answer.all("date")) == len(answer.all("x-request-id")) == 1
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.all("x-request-id")[0])
    assert "python" not in str(answer.fields).lower()
    assert not answer.all("set-cookie")
    assert answer.status != 204 or not answer.all("content-length")
    assert answer.status < 500 or answer.status in (501, 505, *also)
    if answer.status >= 400 and answer.body:
        refusal(answer)


def refusal(answer: Answer) -> Any:
    assert answer.all("content-type") == ["application/json"]
    error = json.loads(answer.body)["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert len(answer.body) < 2000
    return error


def good(name: bytes, case: Case, last: bool = False) -> bytes:
    fields = [TOKEN[:-2]] if case.guarded else []
    return ask(b"GET", b"/lmstudio/" + name, *fields, *([b"Connection: close"] if last else []))


def is_good(answer: Optional[Answer], name: bytes) -> None:
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"GET /" + name + b" HTTP/1.1")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_request_stays_one(world: World, case: Case) -> None:
    for how in ("whole", "in bytes", "in a row"):
        sent_and_counted(world, case, how)


def sent_and_counted(world: World, case: Case, how: str) -> None:
    row = how == "in a row"
    before, after = good(b"before", case), good(b"after", case, last=True)
    sent = before + case.sent + (b"" if case.ends else after) if row else case.sent
    expected = [*([Seen(b"GET /before")] if row else []), *case.seen]
    world.asked.clear()
    with Client((world.guarded if case.guarded else world.house).port) as client:
        client.say(sent, 0 if how != "in bytes" else 1 if len(sent) < 3000 else 97)
        if row:
            is_good(client.answer(), b"before")
        if case.ends:
            client.stop()
        answer = client.answer(bare=case.sent.startswith(b"HEAD "))
        assert (answer.status if answer else 0) in case.statuses, answer
        if answer:
            sane(answer)
            assert case.told in answer.body
        if answer and not answer.closes and not case.ends:
            client.say(b"" if row else after)
            is_good(client.answer(), b"after")
            expected.append(Seen(b"GET /after"))
        assert client.ended(), client.data
    assert world.asked == [seen.wire(world.host) for seen in expected]


# what upstreams answer


class Hostile(NamedTuple):
    """What an upstream says, and `again` and again; then it hangs up, unless it `holds` the line.

    `body` is what our client may take for a whole answer; None: it is a 502, or plainly cut (`begun`).
    """

    name: str
    said: bytes
    body: Optional[bytes] = None
    begun: bool = False
    again: bytes = b""
    holds: bool = False
    method: str = "POST"
    status: int = 200
    fields: Tuple[Tuple[str, str], ...] = ()


OK = b"HTTP/1.1 200 OK\r\n"
POISON = OK + b"Content-Length: 6\r\n\r\npoison"
ENOUGH = 64 * 1024 * 1024  # bytes nobody is to listen to


# fmt: off


def no_answers() -> Iterator[Hostile]:
    """Heads that are none."""
    five = b"\r\nContent-Length: 5\r\n\r\nhello"
    for line in [
        b"hello", b"", b"SSH-2.0-OpenSSH", b"<html>", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 99 OK",
        b"HTTP/1.1 1000 OK", b"HTTP/1.1 000 OK", b"HTTP/1.1 600 OK", b"HTTP/1.1 2OO OK", b"HTTP/1.1 20 OK",
        b"HTTP/1.1 +200 OK", b"HTTP/1.1 -200", b"HTTP/1.1 200.0 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 200\xa0OK", b"HTTP/1.1 200OK", b"HTTP/1.1 OK", b"HTTP/2 200", b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK", b"HTTP/1.10 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b" " + OK[:-2],
        b"HTTP/1.1 200 \x00", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 \x1b[0m", b"HTTP/1.1 101 Switching",
        b"\x00" * 40, b"\r\n" + OK, b"GET / HTTP/1.1", b"HTTP/1.1 \xb2\xb9\xb9 OK", b"{}", b"data: {}",
        b"5\r\nhello\r\n0",
    ]:
        yield Hostile(f"line {line!r}", line + five, holds=b"101" not in line)
    yield Hostile(
        "101 and silence", b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", holds=True
    )
    lengths_ = [b"-5", b"+5", b"5, 5", b"5, 6", b"", b"x", b"0x5", b"5 5", b"5_0", b"9" * 30]
    codings_ = [b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"", b"xchunked", b"\x0bchunked"]
    for field in [
        b"X: \x00", b"X: a\rSet-Cookie: b", b"X: a\nSet-Cookie: b", b"X: y\r\n z", b" X: y", b"X : y", b"X", b": y",
        b"X Y: z", b"X: \x1b", b"X\x00: y", b"X\xe9: y", b"X: \x7f", b"X(: y", b"\tX: y", b"X: a\r",
        b"X: " + b"y" * 20_000, *[b"Content-Length: " + value for value in lengths_],
        b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5\r\ncontent-length: 6", b"Content-Length : 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 0",
        *[b"Transfer-Encoding: " + value for value in codings_], b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ]:
        yield Hostile(f"field {field[:60]!r}", OK + field + b"\r\n\r\nhello", holds=True)
    for method, status in (("HEAD", 200), ("POST", 204), ("GET", 304)):
        for field in [
            b"Content-Length: x", b"Content-Length: 1\r\nContent-Length: 2",
            b"Content-Length: 1\r\nTransfer-Encoding: chunked",
        ]:
            said = b"HTTP/1.1 %d Go\r\n%s\r\n\r\n" % (status, field)
            yield Hostile(f"{field!r} to {method} {status}", said, method=method, holds=True)
    for name, said, again in (
        ("a line", b"HTTP/1.1 200 ", b"a"),
        ("a field", OK + b"X: ", b"a"),
        ("fields", OK, b"X: y\r\n"),
        ("long fields", OK, b"X: " + b"y" * 1000 + b"\r\n"),
        ("names", OK, b"X"),
        ("100", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("103", b"", b"HTTP/1.1 103 Hints\r\nLink: </a>; rel=preload\r\n\r\n"),
        ("empty lines", b"", b"\r\n"),
        ("LF", b"", b"\n"),
        ("NUL", b"", b"\x00"),
        ("blanks", OK + b"X:", b" "),
    ):
        yield Hostile(f"{name} without end", said, again=again)
    head = b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\n"
    for size in (0, 1, 9, 24, 25, 26, 33, 40, 42, 50, 60, len(head) - 2, len(head) - 1):
        yield Hostile(f"the end after {size} bytes", head[:size])


def cut_answers() -> Iterator[Hostile]:
    """Bodies that are not all there, or not what they say."""
    for body in (b"", b"h", b"hell"):
        yield Hostile(f"{len(body)} of 5", OK + b"Content-Length: 5\r\n\r\n" + body, begun=True)
    yield Hostile("1 of 999999999999999", OK + b"Content-Length: 999999999999999\r\n\r\nh", begun=True)
    chunked_ = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    whole = b"5\r\nhello\r\n0\r\n\r\n"
    for size in range(len(whole)):
        yield Hostile(f"{size} bytes of chunks", chunked_ + whole[:size], begun=True)
    for size_ in [
        b"0x5", b"-5", b"+5", b" 5", b"5 ", b"g", b"", b"5_0", b"5.0", b"5\x00", b"5;\x00", b"5\n", b"5\rX",
        b"ffffffffffffffff5", b"10000000000000005", b"\xef\xbc\x95", b"4", b"6", b"5;" + b"a" * 20000, b"5;a\nb",
    ]:
        said = chunked_ + size_ + b"\r\nhello\r\n0\r\n\r\n"
        yield Hostile(f"chunk {size_[:40]!r}", said, begun=True, holds=True)
        yield Hostile(
            f"second chunk {size_[:40]!r}", chunked_ + b"3\r\nhey\r\n" + said[len(chunked_) :], begun=True, holds=True
        )
    yield Hostile("a chunk of all there is", chunked_ + b"fffffffffffffff\r\nhello", begun=True)
    for lines in [
        b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r\n\r\n0\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\nX\r\n\r\n",
        b"0\r\n" + POISON,
    ]:
        yield Hostile(f"chunks {lines!r}", chunked_ + lines, begun=True, holds=True)
    for name, said, again in (
        ("a size", b"", b"0"),
        ("an extension", b"5;", b"a"),
        ("extensions", b"", b"1;" + b"a" * 1000 + b"\r\nx\r\n"),
        ("trailers", b"0\r\n", b"X: y\r\n"),
        ("a trailer", b"0\r\nX: ", b"y"),
    ):
        yield Hostile(f"{name} without end", chunked_ + said, begun=True, again=again)


def odd_answers() -> Iterator[Hostile]:
    """Answers that are fine, and what is behind them or about them is not."""
    five = b"Content-Length: 5\r\n\r\nhello"
    chunks_ = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    for poison in (b"X", b"\r\n", POISON, b"HTTP/1.1 100 Continue\r\n\r\n"):
        yield Hostile(f"surplus {poison[:20]!r}", OK + five + poison, b"hello", holds=True)
        yield Hostile(f"surplus behind chunks {poison[:20]!r}", OK + chunks_ + poison, b"hello", holds=True)
    none = b"Content-Length: 5\r\n\r\nhello" + POISON
    yield Hostile("a body to HEAD", OK + none, b"", holds=True, method="HEAD", fields=(("content-length", "5"),))
    for status in (204, 304):
        said = b"HTTP/1.1 %d Go\r\n" % status + none
        yield Hostile(f"a body to {status}", said, b"", holds=True, method="GET", status=status)
    yield Hostile("no length", OK + b"\r\nhello", b"hello")
    yield Hostile("no length, and 1.0", b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello")
    yield Hostile("no reason", b"HTTP/1.1 200\r\n" + five, b"hello")
    yield Hostile("length with zeros", OK + b"Content-Length: 0005\r\n\r\nhello", b"hello")
    yield Hostile("a few 1xx", b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hints\r\nX: y\r\n\r\n" * 3 + OK + five, b"hello")
    hop = [
        b"Connection: X-Mine, close, Content-Type, Date", b"X-Mine: 1", b"Keep-Alive: 5",
        b"Upgrade: h2c", b"Proxy-Authenticate: Basic", b"Trailer: X", b"Access-Control-Allow-Origin: *",
        b"ACCESS-CONTROL-ALLOW-CREDENTIALS: true", b"x-request-id: theirs", b"Access-Control-Max-Age: 1",
        b"Content-Type: text/x", b"X-Kept: 1", b"X-Kept: 2", b"TE: x",
    ]
    kept = (("content-type", "text/x"), ("x-kept", "1"), ("x-kept", "2"))
    yield Hostile("fields", OK + b"\r\n".join(hop) + b"\r\n" + five, b"hello", fields=(*kept, ("content-length", "5")))


# fmt: on

HOSTILES = [*no_answers(), *cut_answers(), *odd_answers()]
OURS = {"date", "x-request-id", "vary", "connection", "transfer-encoding"}


def hostile(peer: Any) -> None:
    """Answer a request as the row says that it names. Whoever goes on asking on a broken connection is in error."""
    head = read_head(peer)
    length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head)
    body = read_exactly(peer, int(length.group(1)) if length else 0)
    number = re.search(rb"hostile-([0-9]+)", head + body)
    row = (
        HOSTILES[int(number.group(1))]
        if number
        else Hostile("fine", OK + b"Connection: close\r\nContent-Length: 4\r\n\r\nfine")
    )
    peer.sendall(row.said)
    with contextlib.suppress(OSError):
        block = row.again * (65536 // len(row.again or b"x"))
        for _ in range(ENOUGH // len(block) if block else 0):
            peer.sendall(block)
        assert not block, f"{row.name} was listened to"
    if row.holds:
        asked = read_all(peer)
        assert asked == b"", (row.name, asked)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("number", range(len(HOSTILES)), ids=[row.name for row in HOSTILES])
def test_a_hostile_answer_is_a_502_or_plainly_cut(world: World, number: int, version: str) -> None:
    row = HOSTILES[number]
    line = f"{row.method} /hostile/hostile-{number} HTTP/{version}"
    with Client(world.house.port) as client:
        client.say(line.encode() + b"\r\nHost: localhost\r\n\r\n")
        answer = client.answer(bare=row.method == "HEAD")
        if answer is None:
            assert (version, row.begun, client.reset) == ("1.0", True, True)
            return
        sane(answer, 502)
        if row.body is not None:
            assert (answer.status, answer.body, answer.whole) == (row.status, row.body, True)
            fields = [pair for pair in answer.fields if pair[0] not in OURS]
            assert not row.fields or sorted(fields) == sorted(row.fields)
            assert answer.all("x-request-id") != ["theirs"]
        elif answer.status == 502 and row.method != "HEAD":
            assert refusal(answer)["provider"] == "hostile"
        elif answer.status != 502:
            assert (row.begun, answer.status, answer.whole) == (True, 200, False)
        if answer.closes:
            assert client.ended()
    with Client(world.house.port) as client:
        client.say(ask(b"GET", b"/hostile/fine"))
        fine = client.answer()
        assert fine is not None
        assert (fine.status, fine.body) == (200, b"fine")


@pytest.mark.parametrize("number", [n for n, row in enumerate(HOSTILES) if row.method == "POST" and row.status == 200])
def test_a_hostile_answer_is_no_chat(world: World, number: int) -> None:
    question = {"model": f"hostile/hostile-{number}", "messages": [{"role": "user", "content": "hi"}]}
    for streams in (False, True):
        with Client(world.house.port) as client:
            client.say(chat({**question, "stream": streams}))
            answer = client.answer()
            assert answer is not None
            sane(answer, 502)
            if answer.status == 502:
                assert refusal(answer)["provider"] == "hostile"
            else:
                assert streams
                assert answer.status == 200
                assert b"[DONE]" not in answer.body
                assert not answer.whole or b'"error"' in answer.body
