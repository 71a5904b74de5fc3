"""A whole house between a client that says anything and an upstream that answers anything, on real sockets."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import tempfile
import zlib
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import second_reader
from fuzz_answers import CONVERSATIONS
from fuzz_readers import cut
from houses import ROOT, House
from scripted import Scripted
from second_reader import Message, Partial, Reader

PROGRAM = ROOT / "llmproxy.py"
PATIENCE = 20.0  # seconds after which an answer that is due has not come
HOP_BY_HOP = {b"connection", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
MEANING = {b"content-type", b"content-encoding"}  # travels whatever Connection names
REFRAMED = {b"host", b"content-length"}
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
INI = """
[plugins.rate_limit]
enabled = no
[plugins.access_log]
enabled = no
[plugins.execute]
enabled = no
[providers.ollama]
base_url = {url}
retries = 0
[providers.lmstudio]
base_url = {url}
retries = 0
"""


def pieces(data: bytes) -> List[bytes]:
    """Give what is sent in one go: mostly all of it, else two or three pieces."""
    return cut(data, max(0, zlib.crc32(data) % 4 - 1))


def said(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((line + b" HTTP/1.1", b"Host: 127.0.0.1", *fields, b"", b""))


def mark(method: bytes, target: bytes, body: bytes) -> bytes:
    return b"%s %s %d %08x" % (method, target, len(body), zlib.crc32(body))


def relayed(target: bytes) -> bytes:
    """Give the target as the upstream should see it."""
    path = re.sub(rb"(?i)^https?://[^/?]*", b"", target)
    return re.sub(rb"^/(ollama|lmstudio)(?=/|$)", b"", path if path[:1] == b"/" else b"/" + path)


def echo(asked: Message) -> Tuple[bytes, bool]:
    """Answer with what was asked, in words that Ollama's client takes as a chat."""
    body = b'{"model":"m","message":{"role":"assistant","content":"x"},"done":true,"done_reason":"stop"}\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Mark: %s\r\nContent-Length: %d\r\n\r\n"
    marked = mark(asked.start[0], asked.start[1], asked.body)
    return head % (marked, len(body)) + (b"" if asked.start[0] == b"HEAD" else body), True


class World:
    """A house before an upstream that takes only what the second reader takes, and keeps it in `seen`.

    `answer(asked)` gives the bytes it answers with, and whether the connection stays open behind them.
    """

    def __init__(self, folder: Path) -> None:
        self.upstream = Scripted(self._converse)
        self.house = House(folder, INI.format(url=self.upstream.url), {}, (), PROGRAM)
        self.sentinels = self.logged = 0
        self.begin(echo)

    def begin(self, answer: Callable[[Message], Tuple[bytes, bool]]) -> None:
        self.answer = answer
        self.seen: List[Message] = []
        self.upstream.troubles.clear()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stays, said = True, b""
        while stays:
            block = connection.recv(65536)
            if not block:
                return
            reader = Reader(said + block)
            try:
                asked = reader.request()
            except Partial:
                said += block
                continue
            assert reader.at == len(reader.data), ("more than one request was sent", reader.data)
            self.seen.append(asked)
            said, (told, stays) = b"", self.answer(asked)
            for piece in pieces(told):
                connection.sendall(piece)

    def connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.house.port), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def still_good(self) -> None:
        """Ask something plain, and look whether the upstream was told what is no request, or the log what is a bug."""
        self.answer = echo
        self.sentinels += 1
        target = b"/sentinel/%d" % self.sentinels
        with self.connected() as connection:
            connection.sendall(said(b"GET /ollama" + target, b"Connection: close"))
            answer = second_reader.answer(to_the_end(connection), b"GET")
        told = answer and answer.all(b"x-mark")
        assert told == [mark(b"GET", target, b"")], ("a good request afterwards is not answered well", answer)
        assert not self.upstream.troubles, self.upstream.troubles
        log, self.logged = self.house.log[self.logged :], len(self.house.log)
        assert not re.search("Traceback| stumbled", log), log[-5000:]


@contextlib.contextmanager
def brought_up(check: Callable[[World, bytes], None]) -> Iterator[Callable[[bytes], None]]:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            yield lambda data: check(world, data)
        finally:
            world.house.stop()
            world.upstream.troubles.clear()  # they have been told
            world.upstream.__exit__()


def to_the_end(connection: socket.socket, said: bytes = b"") -> bytes:
    """Read until the other end closes, also rudely; raises for one that never does."""
    try:
        for block in iter(lambda: connection.recv(65536), b""):
            said += block
    except socket.timeout:
        raise AssertionError("it hangs", said) from None
    except OSError:
        pass
    return said


# whatever a client says

CHAT = b'{"model":"echo/echo","messages":[{"role":"user","content":"hi there"}]%s}'
SMUGGLED = said(b"GET /ollama/smuggled")


def posted(path: bytes, body: bytes, *fields: bytes) -> bytes:
    more = (b"Content-Type: application/json", *fields, b"Content-Length: %d" % len(body))
    return said(b"POST " + path, *more) + body


REQUESTS = (
    said(b"GET /ollama/a", b"X-A: b") + said(b"GET /health"),
    posted(b"/ollama/b?c=%20", b"hello") + posted(b"/v1/d", b"{}", b"X-E: \xe4") + said(b"HEAD /ollama/f"),
    posted(b"/llm", CHAT % b"") + posted(b"/llm", CHAT % b',"stream":true') + posted(b"/ollama/g", b"x"),
    said(b"PUT /ollama/h", b"Transfer-Encoding: chunked")
    + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n"
    + said(b"DELETE /ollama/i", b"Connection: x-a", b"X-A: b"),
    posted(b"/nowhere", SMUGGLED) + posted(b"/ollama/j", b"GET / HTTP/1.1\r\n"),
    posted(b"/ollama/k", b"late", b"Expect: 100-continue") + said(b"OPTIONS *"),
    said(b"GET http://localhost/ollama/l") + b"GET /ollama/m HTTP/1.0\r\n\r\n",
    posted(b"/ollama/n", SMUGGLED + b"0\r\n\r\n", b"Connection: keep-alive"),
)


def asked() -> Any:
    return brought_up(ask_anything)


def ask_anything(world: World, data: bytes) -> None:
    """Each request the second reader sees is answered in its turn, and the upstream sees no other."""
    world.begin(echo)
    told = second_reader.pipeline(data)
    if told.state == "end":
        data = data[: told.used]
    answers = conversation(world, data, told)
    check_answers(answers, told)
    left = iter(told.requests)
    for one in world.seen:  # in order, some of what was asked
        assert any(is_of(one, request) for request in left), ("nobody asked that", one, told.requests)
    world.still_good()


def conversation(world: World, data: bytes, told: second_reader.Pipeline) -> List[Message]:
    """Say it all, take the answers that are due, leave, and take what still comes."""
    last = data[told.used :].lstrip(b"\r\n").partition(b" ")[0]  # of a request which breaks off, or goes wrong
    asked_with = [*(one.start[0] for one in told.requests), last]
    due = len(told.requests) + (told.state == "bad")
    heard = b""
    with world.connected() as connection:
        with contextlib.suppress(OSError):  # it may have heard enough
            for piece in pieces(data):
                connection.sendall(piece)
        try:
            while len(read_answers(heard, asked_with)) < due:
                block = connection.recv(65536)
                if not block:
                    break
                heard += block
            connection.shutdown(socket.SHUT_WR)
        except socket.timeout:
            raise AssertionError("it hangs", due, heard) from None
        except OSError:
            pass
        heard = to_the_end(connection, heard)
    return read_answers(heard, asked_with, ended=True)


def read_answers(heard: bytes, asked_with: List[bytes], *, ended: bool = False) -> List[Message]:
    """Read as many answers as have come whole."""
    found: List[Message] = []
    reader = Reader(heard)
    while reader.at < len(heard):
        start = reader.at
        assert len(found) < len(asked_with), ("an answer that nobody asked for", heard[start:])
        try:
            found.append(reader.answer(asked_with[len(found)], ended=ended))
        except Partial:
            assert not ended or heard[start:] == GO_ON, ("an answer is cut short", heard[start:])
            break
    return found


def check_answers(answers: List[Message], told: second_reader.Pipeline) -> None:
    missing = len(told.requests) - len(answers)
    ends = bool(answers) and answers[-1].closes
    assert not any(answer.closes for answer in answers[:-1]), ("it goes on behind its last words", answers)
    assert ends or missing == 0, ("a request is not answered, or what is none is and it goes on", told, answers)
    assert ends or told.state != "bad", ("what is no request is not answered", told, answers)
    for answer in answers:
        assert answer.start[1] < b"500" or answer.start[1] in (b"501", b"505"), ("trouble of ours", answer)
    for answer, request in zip(answers, told.requests):
        marked = answer.all(b"x-mark")
        wanted = mark(request.start[0], relayed(request.start[1]), request.body)
        assert marked in ([], [wanted]), ("the answer to another request", request, answer)


def is_of(seen: Message, request: Message) -> bool:
    """Tell whether the upstream was asked what this request asks, with no field more than may travel."""
    target = relayed(request.start[1])
    if target.partition(b"?")[0].startswith(b"/llm"):
        return True  # asked in other words
    if (seen.start[0], seen.start[1], seen.body) != (request.start[0], target, request.body):
        return False
    dropped = HOP_BY_HOP | set(request.listed(b"connection")) - MEANING
    sent = [pair for pair in seen.fields if pair[0].lower() not in REFRAMED]
    left = iter(request.fields)
    return all(name.lower() not in dropped and any(one == (name, value) for one in left) for name, value in sent)


# whatever an upstream answers

#: the first letter of an input -> what is asked
WAYS = {
    b"g": said(b"GET /ollama/x", b"Connection: close"),
    b"h": said(b"HEAD /ollama/x", b"Connection: close"),
    b"w": posted(b"/llm", (CHAT % b"").replace(b"echo/echo", b"ollama/m"), b"Connection: close"),
    b"s": posted(b"/llm", (CHAT % b',"stream":true').replace(b"echo/echo", b"lmstudio/m"), b"Connection: close"),
}
OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = CONVERSATIONS["ollama/chat_plain"].came
EVENTS = CONVERSATIONS["lmstudio/stream_plain"].came


def counted(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def chunked(*blocks: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(block), block) for block in blocks)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


ANSWERS = (
    b"g" + OK + b"X-A: b\r\nConnection: keep-alive, x-c\r\nX-C: d\r\n" + counted(b'{"a":1}'),
    b"g" + OK + chunked(b'{"a":', b"1}"),
    b"gHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 404 No\r\nServer: y\r\n\r\nnot here",
    b"gHTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: z\r\n\r\n",
    b"h" + OK + b"Content-Length: 5\r\n\r\n",
    b"w" + OK + counted(WHOLE),
    b"w" + OK + chunked(WHOLE[:50], WHOLE[50:]),
    b"wHTTP/1.1 404 Not Found\r\n" + counted(b'{"error":"no such model"}'),
    b"s" + OK + chunked(*EVENTS.splitlines(keepends=True)),
    b"s" + OK + b"\r\n" + EVENTS,
    b"sHTTP/1.1 429 Slow\r\nRetry-After: 1\r\n" + counted(b"{}"),
)


def answered() -> Any:
    return brought_up(answer_anything)


def answer_anything(world: World, data: bytes) -> None:
    """What the client is told ends well only if what the upstream told did, and says the same."""
    way, raw = data[:1] if data[:1] in WAYS else b"g", data[1:]

    def answer(asked: Message) -> Tuple[bytes, bool]:
        framed = second_reader.answer(raw, asked.start[0], ended=False)
        return raw, framed is not None and zlib.crc32(raw) % 2 == 0

    world.begin(answer)
    with world.connected() as connection:
        connection.sendall(WAYS[way])
        heard = to_the_end(connection)
    Reader(heard).answer_head()  # there always is one
    assert b'"code":"internal_error"' not in heard, ("trouble of ours", heard)
    method = WAYS[way].partition(b" ")[0]
    ours, theirs = second_reader.answer(heard, method), second_reader.answer(raw, method)
    CHECKS[way](ours, theirs, heard, raw)
    world.still_good()


def check_relayed(ours: Any, theirs: Any, heard: bytes, raw: bytes) -> None:
    if theirs is None:
        assert ours is None or ours.start[1] == b"502", ("a bad answer is told as a good one", raw, ours)
    elif len(raw) <= 16 * 1024 and raw.count(b"\r\n") <= 128:  # our limits are not the second reader's
        assert ours, ("a good answer is cut", theirs, heard)
        assert (ours.start[1], ours.body) == (theirs.start[1], theirs.body), ("it told something else", theirs, ours)


def check_whole(ours: Any, theirs: Any, heard: bytes, raw: bytes) -> None:
    assert ours, ("no whole answer", heard)
    assert isinstance(json.loads(ours.body), dict), ("no object", ours)
    good = theirs and theirs.start[1] < b"300"
    assert good or ours.start[1] >= b"300", ("a bad answer is told as a good one", raw, ours)


def check_stream(ours: Any, theirs: Any, heard: bytes, raw: bytes) -> None:
    """The stream is told as whole if it was, or if its end mark came before what was wrong."""
    assert ours, ("no whole answer", heard)
    if b"data: [DONE]" in ours.body:
        ended = theirs.start[1] < b"300" if theirs else b"[DONE]" in raw
        assert ended, ("trouble is told as an answer", raw, ours)


CHECKS = {b"g": check_relayed, b"h": check_relayed, b"w": check_whole, b"s": check_stream}
