"""What reads bytes and does no I/O: each check holds the product's reader against another one, and against itself."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import math
import random
import re
import zlib
from typing import Any, Callable, Iterable, Iterator, List, Sequence, Tuple

import second_reader
from plugins import Refusal, Request, _client
from plugins._json import parsed
from plugins.auth import Auth, BadToken, Rules, allowed, sign, verify
from providers import Provider, UpstreamError, _http
from second_reader import Partial, Reader, Unread

#: what a reader makes of data in place of what it says
PARTIAL, REFUSED, LIMIT = "partial", "refused", "beyond our limits"


def outcome(read: Callable[[Any], Any], data: Any) -> Any:
    try:
        return read(data)
    except Partial:
        return PARTIAL
    except Unread:
        return REFUSED
    except _http.BadMessage as error:
        return LIMIT if error.status in (414, 431) else REFUSED


def cut(data: bytes, times: int) -> List[bytes]:
    """Cut data at random places; which, the data tell."""
    rng = random.Random(zlib.crc32(data) + times)
    borders = sorted(rng.randrange(len(data) + 1) for _ in range(times))
    return [data[start:end] for start, end in zip([0, *borders], [*borders, len(data)])]


def cuts(data: bytes) -> Iterator[List[bytes]]:
    """Cut data in a few ways: not at all, as small as can be, and at random."""
    size = 1 if len(data) <= 600 else len(data) // 100
    yield [data]
    yield [data[at : at + size] for at in range(0, len(data), size)]
    yield from (cut(data, times) for times in (1, 2, 5, 12))


# heads

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /llm HTTP/1.1\r\nHost: 127.0.0.1:3500\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /x?y=%20 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\nExpect: 100-continue\r\nX-Odd:\t a  b \t\r\nEmpty:\r\n\r\n",
    b"GET http://localhost/a/b HTTP/1.1\r\nHost: y\r\nAuthorization: Bearer a.b.c\r\nX-L: \xe4\xff\r\n\r\n",
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.0 404 \r\nServer: x\r\n\r\nnot here",
    b"HTTP/1.1 204\r\nConnection: close, x-y\r\n\r\n",
)


def agreed(data: bytes, ours: Callable[[bytes], Any], theirs: Callable[[bytes], Any]) -> None:
    """Two readers of a head agree, and the first one with itself however the bytes come."""
    seen, other = outcome(ours, data), outcome(theirs, data)
    assert seen in (other, LIMIT), ("they read two things", seen, other)
    for blocks in cuts(data):
        coming, soon = b"", PARTIAL
        for block in blocks:
            coming += block
            soon = outcome(ours, coming) if soon == PARTIAL else soon
        assert soon == seen or {soon, seen} == {LIMIT, REFUSED}, ("in pieces it is another", seen, soon)


def head_of(data: bytes) -> Tuple[bytes, int]:
    end = _http.head_end(data)
    if not end:
        raise Partial
    return data[:end], end


def bytes_of(fields: _http.Fields) -> List[Tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in fields.pairs]


def our_request(data: bytes) -> Any:
    head, end = head_of(data)
    read = _http.request_head(head)
    seen = (read.method.encode(), read.target.encode(), read.minor, bytes_of(read.fields), _http.request_length(read))
    with contextlib.suppress(_http.BadMessage):
        target, fields = _client._addressed(read)
        assert re.fullmatch(r"/[!-~]*|\*", target), ("no target", target)
        assert not re.search(r"#|\\", target.partition("?")[0]), ("no target", target)
        assert len(fields.all("host")) <= 1, ("two hosts", fields.pairs)
    again = b"%s %s HTTP/1.%d\r\n" % seen[:3] + b"".join(b"%s: %s\r\n" % pair for pair in seen[3]) + b"\r\n"
    assert outcome(their_request, again)[:-1] == seen, ("sent on, it is another request", head, again)
    return (*seen, end)


def their_request(data: bytes) -> Any:
    reader = Reader(data)
    read = reader.request_head()
    return read.start[0], read.start[1], read.minor, read.fields, second_reader.request_size(read), reader.at


def request_heads(data: bytes) -> None:
    agreed(data, our_request, their_request)


def our_answer(data: bytes) -> Any:
    head, end = head_of(data)
    read = _http.response_head(head)
    keeps, length = _http.stays_open(read.minor, read.fields), _http.response_length("GET", read)
    return b"%d" % read.status, read.minor, bytes_of(read.fields), keeps, length, end


def their_answer(data: bytes) -> Any:
    reader = Reader(data)
    read = reader.answer_head()
    return read.start[1], read.minor, read.fields, not read.closes, second_reader.answer_size(read, b"GET"), reader.at


def answer_heads(data: bytes) -> None:
    agreed(data, our_answer, their_answer)


# chunks

CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n",
    b'1;a=b\r\nx\r\n00A ;q="\xff"\r\n0123456789\r\n0\r\nTrailer: x\r\nOther:\r\n\r\nGET / HTTP/1.1\r\n',
    b"3\r\n\r\n0\r\n2\r\n\r\n\r\n0;last\r\n\r\n",
    b"0\r\n\r\n",
    b"1f\r\n" + b"a" * 31 + b"\r\n000000000000000\r\n\r\n",
)


def dechunked(blocks: Iterable[bytes]) -> Tuple[bool, bytes, bytes]:
    """Give whether the body ended, its payload, and what stood behind it."""
    dechunker = _http.Dechunker()
    payload = b"".join(piece for block in blocks for piece in dechunker.feed(block))
    announced = dechunker.declared
    assert len(payload) == announced if dechunker.done else len(payload) <= announced, (payload, announced)
    return dechunker.done, payload, dechunker.rest if dechunker.done else b""


def chunked_bodies(data: bytes) -> None:
    seen, *others = (outcome(dechunked, blocks) for blocks in cuts(data))
    assert all(one == seen for one in others), ("in pieces it is another", seen, others)
    reader = Reader(data)
    told = outcome(reader.body, second_reader.CHUNKED)
    whole = told if told in (PARTIAL, REFUSED) else (True, told, data[reader.at :])
    if seen != REFUSED or len(data) <= _http.LONGEST_LINE:  # our limits are not theirs
        assert whole == (PARTIAL if seen[0] is False else seen), ("they read two things", seen, whole)


# tokens

SECRET = b"a secret that is long enough for the hash"
NOW = 1_700_000_000
STRICT = Rules("us", "them", 30, require_exp=True)
CLAIMS = (
    {"sub": "alice"},
    {"sub": "bob", "exp": NOW + 60, "nbf": NOW - 60, "iat": NOW, "iss": "us", "aud": ["them", "others"]},
    {"sub": "\u00e4", "exp": NOW + 0.5, "iss": "us", "aud": "them", "deep": [{"a": [1, None, True]}]},
    {"sub": "carol", "providers": ["ollama"], "models": ["openai/gpt-4o*", "echo/echo"]},
    {},
)
GOOD = [sign(claims, SECRET) for claims in CLAIMS]
AUTHORIZATIONS = [b"Bearer " + token.encode() for token in GOOD]
SIGNED = [b'{"alg":"HS256","typ":"JWT"}\n' + json.dumps(claims).encode() for claims in CLAIMS]
DEFAULTS = {name: row[0] for name, row in Auth.options.items()}
GUARD = Auth({**DEFAULTS, "secret": SECRET.decode()}, Provider("none", {}), lambda: NOW)


def authorizations(data: bytes) -> None:
    """Only a token nobody touched is taken, whatever stands in the header."""
    text = data.decode("latin-1")
    scheme, blank, token = text.rpartition(" ")
    assert (outcome_of_token(token, Rules()) is not None) == (token in GOOD), ("taken, or not", token)
    try:
        GUARD.user(Request("GET", "/", _http.Fields([("Authorization", text)])))
    except Refusal as refusal:
        assert refusal.status == 401, refusal
        assert refusal.headers["WWW-Authenticate"].isprintable(), refusal.headers
    else:
        assert blank, ("somebody came in", text)
        assert (scheme.strip(" ").lower(), token in GOOD) == ("bearer", True), ("somebody came in", text)


def outcome_of_token(token: str, rules: Rules) -> Any:
    try:
        return verify(token, SECRET, NOW, rules)
    except BadToken:
        return None


def signed_claims(data: bytes) -> None:
    """What is well signed is taken if it says what it should, and only then."""
    header, _, claims = data.partition(b"\n")
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims))
    digest = hmac.new(SECRET, signed, hashlib.sha256).digest()
    token = (signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()
    for rules in (Rules(), STRICT):
        seen = outcome_of_token(token, rules)
        wanted = granted(header, claims, rules) if len(token) <= 16 * 1024 else None
        assert seen == wanted, ("a token is taken, or not, where it should not be", rules, seen, wanted)
        if seen is not None:
            lists = [seen[name] for name in ("providers", "models") if name in seen]
            named = all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists)
            with contextlib.nullcontext() if named else contextlib.suppress(BadToken):
                allowed(seen)
                assert named, ("a limit that is none", seen)


def granted(header: bytes, claims: bytes, rules: Rules) -> Any:
    """Give the claims if they hold, by rules written down a second time; else None."""
    head, body = plain_json(header), plain_json(claims)
    if not isinstance(head, dict) or not isinstance(body, dict):
        return None
    times = [body[name] for name in ("exp", "nbf", "iat") if name in body]
    audiences = body.get("aud") if isinstance(body.get("aud"), list) else [body.get("aud")]
    holds = (
        head.get("alg") == "HS256",
        "crit" not in head,
        head.get("b64", True) is True,
        all(type(one) in (int, float) and abs(one) != math.inf for one in times),
        "exp" in body or not rules.require_exp,
        isinstance(body.get("sub", ""), str) and len(body.get("sub", "")) <= 256,
        not rules.issuer or body.get("iss") == rules.issuer,
        not rules.audience or rules.audience in audiences,
    )
    alive = all(holds) and body.get("exp", math.inf) > NOW - rules.leeway and body.get("nbf", 0) <= NOW + rules.leeway
    return body if alive else None


def plain_json(data: bytes, *, twice: bool = False) -> Any:
    """Give what strict JSON says, None for anything else; `twice` lets names stand twice with one value."""

    def unique(pairs: Sequence[Tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if not all(found[name] == value if twice else len(found) == len(pairs) for name, value in pairs):
            raise ValueError
        return found

    def never(text: str) -> Any:
        raise ValueError(text)

    try:
        text = data.decode("utf-8-sig" if twice else "utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_constant=never)
    except (ValueError, RecursionError):
        return None


# event streams

EVENTS = (
    'data: {"a": "größe ✓ 灯 😀"}\n\n: a comment\n\nevent: named\nid: 1\ndata: {"b": 2}\n\ndata: [DONE]\n\n'.encode(),
    b'data: {"a":\ndata: [1]}\n\ndata:{"c":3}\r\n\r\ndata: {"d":4}\r\rdata:  [DONE]',
    b'retry: 5\n\n\ndata: {"choices":[{"delta":{"content":"x"}}]}\n\n{"error":{"code":500}}\n\n[{"error":1}]\n\n',
    b'event: error\ndata: {"type":"error"}\n\ndata: {"a":1}\n\ndata\n\ndata:\n\n',
)
LINES = (
    '{"a": "größe ✓ 灯 😀"}\n\n{"b": 2}\r\n  {"c":3} '.encode(),
    b'{"model":"m","message":{"role":"assistant","content":"x"},"done":false}\n{"done":true}\n',
    b'[{"a":1}]\n{"error":"x"}\n',
)


def streamed(reader: Callable[[Iterable[bytes]], Iterator[Any]], data: bytes) -> None:
    """However the bytes come, with pauses or without, there are the same events, and the same end."""

    def told(blocks: Iterable[bytes]) -> str:
        found: List[Any] = []
        try:
            for event in reader(blocks):
                assert isinstance(event, dict), ("no object", event)
                found += [event] if event else []
        except UpstreamError:
            found.append("trouble")
        return repr(found)

    whole = told([data])
    for blocks in cuts(data):
        for coming in (blocks, [b"", *(one for block in blocks for one in (block, b""))]):
            assert told(coming) == whole, ("in pieces it is another", whole, told(coming), coming)


# JSON

BODIES = (
    b'{"model":"echo/echo","messages":[{"role":"user","content":"hi \\u00e4\\ud83d\\ude00 \xc3\xa4"}],"stream":true}',
    b'{"a":[1,-2.5e10,0.0,true,false,null,"",{}],"b":{"c":{"d":[[[]]]}},"\\"[":"\\\\","e\\n":"]}{[\\"["}',
    b'\xef\xbb\xbf{"a":1,"a":1}',
    *(b'{"a":' + b"[" * levels + b"]" * levels + b"}" for levels in (126, 127, 128)),
    b'{"a":"' + b'[\\"' * 200 + b'","b":"\\\\"}',
)


def json_bodies(data: bytes) -> None:
    """A body is taken if it is an object that can be passed on, and read as it is; else it is refused in few words."""
    plain = plain_json(data, twice=True)
    seen = None
    try:
        seen = parsed(data)
    except Refusal as refusal:
        assert refusal.status == 400, refusal
        assert len(json.dumps(refusal.document(), ensure_ascii=False).encode()) < 1000, refusal
    assert (seen is not None) == (isinstance(plain, dict) and is_modest(plain)), ("taken, or not", seen, plain)
    assert seen is None or repr(seen) == repr(plain), ("it is another document", seen, plain)


def is_modest(document: Any) -> bool:
    """Tell whether a document can be passed on: not too deep, no half letters, no numbers beyond measure."""
    level, depth = [document], 0
    while level:
        holders = [one for one in level if isinstance(one, (dict, list))]
        depth += bool(holders)
        if depth > 128 or not all(map(is_fine, level)):
            return False
        level = [item for one in holders for item in (one.values() if isinstance(one, dict) else one)]
    return True


def is_fine(one: Any) -> bool:
    if type(one) is int:
        return abs(one) < 10**299
    if isinstance(one, float):
        return math.isfinite(one)
    texts = one if isinstance(one, dict) else [one] if isinstance(one, str) else ()
    return not re.search("[\ud800-\udfff]", "".join(texts))
