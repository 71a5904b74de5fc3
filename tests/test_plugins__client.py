"""One client's connection: what is read of it, what is refused, and that nothing else ever happens to a request."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time

import pytest

from plugins import Refusal, Response, _client
from plugins._client import Handler
from providers import Trouble
from scripted import RESET
from talking import GET, LONG, in_thread, serve, told, until

__all__ = ["serve"]


# requests


def test_a_request_is_handed_on_as_it_came(serve):
    client = serve()()
    client.say(b"PATCH /a%2Fb//c?d=%zz&e HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: \xe4\r\nContent-Length: 2\r\n\r\n\xff\0")
    got = client.json()
    assert (got["method"], got["target"]) == ("PATCH", "/a%2Fb//c?d=%zz&e")
    assert (got["path"], got["query"], got["body"]) == ("/a%2Fb//c", "d=%zz&e", "\xff\0")
    assert got["fields"] == [["Host", "x"], ["X-A", "1"], ["x-a", "\xe4"], ["Content-Length", "2"]]


def test_a_connection_is_kept_for_the_next_request(serve):
    client = serve()()
    for path in (b"/a", b"/b", b"/c"):
        assert client.say(GET.replace(b"/a", path)).json()["target"] == path.decode()
    time.sleep(0.05)
    assert client.say(GET).json()["target"] == "/a"


def test_requests_in_one_breath_are_answered_in_order(serve):
    client = serve(lambda request: time.sleep(0.05 if request.path == "/0" else 0) or told(request))()
    posts = b"".join(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n%03d" % (n, n) for n in range(50))
    client.say(posts + GET + b"GET /unread HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    for n in range(50):
        got = client.json()
        assert (got["target"], got["body"]) == (f"/{n}", f"{n:03d}")
    assert [client.json()["target"] for _ in range(3)] == ["/a", "/unread", "/a"]


def test_a_bad_request_does_not_lose_the_good_ones_before_it(serve):
    client = serve()()
    client.say(GET + GET + b"BAD\r\n\r\n" + GET)
    assert client.json()["target"] == client.json()["target"] == "/a"
    client.refused(400)


@pytest.mark.parametrize(
    "data",
    [
        GET,
        b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\nT: x\r\n\r\n",
        b"\r\n\r\n" + GET,
    ],
)
def test_a_request_may_come_byte_by_byte(serve, data):
    client = serve()()
    client.say(data + GET, pieces=1, pause=0.0005)
    assert client.json()["body"] == ("hello" if b"/b" in data else "")
    assert client.json()["target"] == "/a"


def test_a_chunked_body_is_read_to_its_end(serve):
    client = serve()()
    chunks = b"".join(b"%x\r\n%s\r\n" % (n, b"x" * n) for n in range(1, 600))
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n" + GET)
    assert len(client.json()["body"]) == 600 * 599 // 2
    assert client.json()["target"] == "/a"


def test_a_large_body_is_read_whole(serve):
    client = serve(lambda request: Response.of(len(request.body())))()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000 + GET)
    assert client.json() == 9_000_000
    assert client.json() == 0


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_empty_lines_before_a_request_do_no_harm(serve, lines):
    client = serve()()
    for _ in range(2):
        assert client.say(b"\r\n" * lines + GET).json()["target"] == "/a"


def test_many_empty_lines_are_no_request(serve):
    serve()().say(b"\r\n" * 20 + GET).refused(400)


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://Up.test:80/a?b", "/a?b", "Up.test:80"),
        (b"HTTP://[::1]/a//b", "/a//b", "[::1]"),
        (b"http://up.test", "/", "up.test"),
        (b"https://up.test?q", "/?q", "up.test"),
    ],
)
def test_the_authority_of_an_absolute_target_is_the_host(serve, target, path, host):
    got = serve()().say(b"GET " + target + b" HTTP/1.1\r\nHost: other\r\nA: b\r\n\r\n").json()
    assert (got["target"], got["host"]) == (path, host)
    assert got["fields"] == [["Host", host], ["A", "b"]]


def test_options_may_ask_about_the_whole_server(serve):
    assert serve()().say(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").json()["target"] == "*"


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"a",
        b"a:80",
        b"http:///a",
        b"http://u@h/a",
        b"ftp://h/a",
        b"http://h#f",
        b"/a#f",
        b"/..",
        b"/a/../b",
        b"/a/./b",
        b"/a/%2e%2E/b",
        b"/a/.%2e",
        b"/a%2f..%2Fb",
        b"/a\\..\\b",
        b"/a%5cb",
        b"http://h/a/../b",
    ],
)
def test_a_target_that_could_mean_something_else_is_refused(serve, target):
    serve()().say(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n").refused(400)


@pytest.mark.parametrize(
    "target", [b"/a..b", b"/...", b"/.a", b"/a?b=/../c", b"/a?b=\\", b"/a%252e%252e", b"//a", b"/a;b"]
)
def test_a_target_that_only_looks_odd_is_served(serve, target):
    assert serve()().say(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n").json()["target"] == target.decode()


@pytest.mark.parametrize("line", [b"CONNECT up.test:443", b"TRACE /", b"CONNECT /"])
def test_no_tunnel_and_no_mirror(serve, line):
    serve()().say(line + b" HTTP/1.1\r\nHost: x\r\n\r\n").refused(501)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"GET /\r\n\r\n"),
        (400, b"GET / HTTP/1.1\nHost: x\n\n"),
        (400, b"GET / HTTP/1.1\r\nHost: x\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (501, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (501, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"),
        (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA : b\r\n\r\n"),
        (414, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        (414, b"GET /" + b"a" * 20_000),
        (431, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
        (431, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000 + b"\r\n\r\n"),
        (431, b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"b" * 1000 + b"\r\n") * 100),
        (414, b"x" * 200_000),
    ],
)
def test_what_breaks_the_rules_is_refused_and_nothing_behind_it_is_served(serve, status, data):
    served = []

    def respond(request):
        try:
            request.body()
        except Refusal as refusal:
            return Response.of(refusal.document(), refusal.status)
        served.append(request.path)
        return told(request)

    serve(respond)().say(data + SMUGGLED).refused(status)
    assert served == []


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"HEAD /../a HTTP/1.1\r\nHost: x\r\n\r\n"),
        (400, b"HEAD / HTTP/1.1\r\n\r\n"),
        (414, b"HEAD /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        (431, b"HEAD / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
    ],
    ids=["path", "host", "line", "fields"],
)
def test_a_refused_head_gets_no_body(serve, status, data):
    client = serve()().say(data)
    got, headers, _ = client.answer("HEAD")
    assert (got, headers["connection"]) == (status, "close")
    assert client.ended()


def test_a_head_of_blanks_does_not_stop_the_house(serve):
    open_ = serve()
    begun = time.monotonic()
    open_().say(b"GET / HTTP/1.1\r\nHost: x\r\nA:" + b" " * 60_000 + b"\0\r\n\r\n")
    open_().say(GET).json()
    assert time.monotonic() - begun < 5  # a pattern that tries twice takes a quarter of a minute


# bodies nobody wanted


@pytest.mark.parametrize("size", [1, 1000, 60_000])
def test_a_body_nobody_read_is_not_the_next_request(serve, size):
    client = serve()()
    body = (SMUGGLED * (size // len(SMUGGLED) + 1))[:size]
    client.say(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + body + GET)
    assert client.json()["target"] == "/unread"
    assert client.json()["target"] == "/a"


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
def test_a_body_nobody_read_ends_the_connection_when_its_end_is_far(serve, framing):
    client = serve()()
    client.say(b"POST /unread HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + SMUGGLED)
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.ended()


def test_a_body_nobody_reads_and_nobody_sends_is_not_waited_for_long(serve, monkeypatch):
    monkeypatch.setattr(_client, "FAREWELL", 0.1)
    client = serve()()
    client.say(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nGET ")
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.ended()


def test_a_body_that_came_too_slowly_is_not_begun_anew(serve, monkeypatch):
    """Half of it was read; the other half and what follows must not be taken for the whole."""
    monkeypatch.setattr(_client, "PATIENCE", 0.15)
    late = threading.Event()

    def respond(request):
        try:
            return told(request)
        except Refusal as refusal:
            late.set()
            time.sleep(0.1)
            return Response.of(refusal.document(), refusal.status)

    client = serve(respond, how=in_thread)()
    client.say(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n" + b"x" * 20)
    assert late.wait(LONG)
    client.say(b"y" * 20 + b"POST / HTTP/1.1\r\nA: " + SMUGGLED)
    client.refused(408)


# limits


def test_a_body_over_the_limit_is_refused_before_it_is_read(serve):
    client = serve(refusing, max_body=1000)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
    assert "1000" in client.refused(413)
    client = serve(refusing, max_body=1000)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n200\r\n" + b"x" * 512 + b"\r\n3e9\r\n")
    client.refused(413)


def refusing(request):
    try:
        return told(request)
    except Refusal as refusal:
        return Response.of(refusal.document(), refusal.status, refusal.headers)


def test_a_body_at_the_limit_is_taken(serve):
    client = serve(max_body=1000)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    assert len(client.json()["body"]) == 1000


def test_a_refusal_reaches_a_client_that_sends_its_whole_body_first(serve):
    client = serve(refusing, max_body=1000)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
    client.refused(413)


def test_go_on_is_said_when_the_body_is_wanted(serve):
    wanted = threading.Event()
    client = serve(lambda request: wanted.wait(LONG) and told(request), how=in_thread)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n")
    client.sock.settimeout(0.05)
    with pytest.raises(OSError, match="timed out"):
        client.sock.recv(1)
    client.sock.settimeout(LONG)
    wanted.set()
    assert client.head() == (100, {})
    assert client.say(b"hello" + GET).json()["body"] == "hello"
    assert client.json()["target"] == "/a"


def test_go_on_is_not_said_when_the_body_is_there(serve):
    client = serve()()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
    assert client.json()["body"] == "hello"


@pytest.mark.parametrize("length", [b"5", b"5000"])
def test_go_on_is_not_said_before_a_refusal(serve, length):
    client = serve(lambda request: Response.of({}, 403), max_body=1000, how=in_thread)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\nExpect: 100-continue\r\n\r\n")
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (403, "close")
    assert client.ended()


def test_go_on_is_not_said_to_http_1_0(serve):
    client = serve()()
    client.say(b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    client.sock.settimeout(0.05)
    with pytest.raises(OSError, match="timed out"):
        client.sock.recv(1)


# time


def test_a_head_that_trickles_is_given_up(serve):
    client = serve(head_timeout=0.3)()
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        client.say(GET[:20], pieces=1, pause=0.05)
    client.refused(408)
    assert time.monotonic() - begun < 10


def test_empty_lines_that_trickle_are_given_up(serve):
    client = serve(head_timeout=0.2, idle_timeout=LONG)()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        client.say(b"\r\n" * 100, pieces=2, pause=0.05)


def test_a_connection_that_asks_nothing_is_closed_without_a_word(serve):
    open_ = serve(idle_timeout=0.1)
    fresh = open_()
    used = open_()
    used.say(GET).json()
    assert fresh.ended()
    assert used.ended()


def test_a_body_that_trickles_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(_client, "PATIENCE", 0.2)
    client = serve(refusing)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(OSError):
        client.say(b"x" * 8, pieces=1, pause=0.05)
    assert "too slowly" in client.refused(408)


def test_a_body_that_keeps_its_pace_has_time(serve, monkeypatch):
    monkeypatch.setattr(_client, "PATIENCE", 0.3)
    monkeypatch.setattr(_client, "LEAST_RATE", 1000)
    client = serve(refusing)()
    client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n")
    client.say(b"x" * 10_000, pieces=1000, pause=0.05)
    assert len(client.json()["body"]) == 10_000


def test_a_client_that_does_not_take_its_answer_is_given_up(serve):
    open_ = serve(lambda request: Response(200, {}, b"x" * 30_000_000), write_timeout=0.1)
    open_().say(GET)
    assert until(lambda: not open_.server._open)


# answers


def test_head_has_the_headers_of_get_and_no_body(serve):
    client = serve()()
    client.say(GET.replace(b"GET", b"HEAD"))
    status, headers, _ = client.answer("HEAD")
    assert status == 200
    assert int(headers["content-length"]) > 90
    assert client.say(GET).json()["method"] == "GET"


class Blocks:
    """A body that tells whether it was closed."""

    def __init__(self, *blocks, trouble=None) -> None:
        self.blocks = iter(blocks)
        self.trouble = trouble
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        for block in self.blocks:
            return block
        if self.trouble:
            raise self.trouble
        raise StopIteration

    def close(self):
        self.closed = True


def test_a_body_of_unknown_length_is_chunked(serve):
    body = Blocks(b"", b"one", b"", b"", b"two")
    client = serve(lambda request: Response(200, {"Content-Type": "text/plain"}, body))()
    client.say(GET)
    status, headers, text = client.answer()
    assert (status, headers["transfer-encoding"], text) == (200, "chunked", b"onetwo")
    assert "content-length" not in headers
    client.say(GET)
    assert client.answer()[2] == b""
    assert until(lambda: body.closed)


def test_a_body_of_known_length_is_not_chunked(serve):
    client = serve(lambda request: Response(200, {"content-length": "6"}, Blocks(b"one", b"two")))()
    for _ in range(2):
        _, headers, text = client.say(GET).answer()
        assert ("transfer-encoding" in headers, text) == (False, b"onetwo")


def test_http_1_0_is_answered_until_the_end(serve):
    client = serve(lambda request: Response(200, {}, Blocks(b"one", b"two")))()
    client.say(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    status, headers, text = client.answer()
    assert (status, headers["connection"], text) == (200, "close", b"onetwo")
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_a_body_that_is_not_sent_is_closed(serve, method):
    bodies = [Blocks(b"one"), Blocks(b"two")]
    status = 200 if method == b"HEAD" else 304
    client = serve(lambda request: Response(status, {"ETag": "x"}, bodies[0]))()
    client.say(method + GET[3:])
    got, headers, _ = client.answer("HEAD")
    assert (got, headers["etag"]) == (status, "x")
    assert until(lambda: bodies[0].closed)
    bodies.pop(0)
    client.say(method + GET[3:])
    client.answer("HEAD")


def test_what_comes_is_sent_at_once(serve):
    go_on = threading.Event()

    def words():
        yield b""  # a pause: the head goes
        go_on.wait(LONG)
        yield b"one"
        go_on.wait(LONG)
        yield b"two"

    client = serve(lambda request: Response(200, {}, words()))()
    client.say(GET)
    assert client.head()[0] == 200
    go_on.set()
    assert client.stream.readline() == b"3\r\n"


@pytest.mark.parametrize(
    ("asked", "headers", "begun"),
    [
        (GET, {}, b"3\r\none\r\n"),
        (GET, {"Content-Length": "10"}, b"one"),
        (b"GET / HTTP/1.0\r\n\r\n", {"Content-Length": "10"}, b"one"),
    ],
)
@pytest.mark.parametrize("trouble", [Trouble(502, "cut"), OSError("a bug")])
def test_a_body_that_breaks_off_is_never_ended(serve, caplog, asked, headers, begun, trouble):
    caplog.set_level(logging.CRITICAL, "llmproxy")
    client = serve(lambda request: Response(200, headers, Blocks(b"one", trouble=trouble)))()
    client.say(asked)
    client.head()
    assert client.stream.read() == begun


def test_a_body_without_length_that_breaks_off_ends_in_a_reset(serve):
    told_ = threading.Event()

    def words():
        yield b"one"
        told_.wait(LONG)
        raise Trouble(502, "cut")

    client = serve(lambda request: Response(200, {}, words()))()
    client.say(b"GET / HTTP/1.0\r\n\r\n")
    client.head()
    assert client.stream.read(3) == b"one"
    told_.set()
    with pytest.raises(ConnectionResetError):
        client.stream.read()


def test_all_that_came_before_a_cut_reaches_the_client(serve):
    """A reset would throw away what is still on its way."""
    client = serve(lambda request: Response(200, {}, Blocks(b"x" * 5_000_000, trouble=Trouble(502, "cut"))))()
    client.say(GET)
    client.head()
    time.sleep(0.05)
    assert len(client.stream.read()) > 5_000_000


def test_each_answer_says_who_asked_and_when(serve):
    client = serve()()
    headers = [client.say(GET).answer()[1] for _ in range(2)]
    assert headers[0]["x-request-id"] != headers[1]["x-request-id"]
    assert headers[0]["date"].endswith(" GMT")
    assert "server" not in headers[0]


@pytest.mark.parametrize(("given", "taken"), [(b"my-id_1.2", True), (b"x" * 65, False), (b"a b", False), (b"", False)])
def test_a_sane_id_of_the_clients_own_is_taken(serve, given, taken):
    client = serve(lambda request: Response(200, {"X-Request-Id": "upstream"}, request.id.encode()))()
    client.say(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: " + given + b"\r\n\r\n")
    _, headers, body = client.answer()
    assert headers["x-request-id"] == body.decode()
    assert (body == given) is taken


def test_a_bug_is_a_bare_500(serve, caplog):
    caplog.set_level(logging.CRITICAL, "llmproxy")
    client = serve(lambda request: 1 / 0)()
    for _ in range(2):
        status, headers, body = client.say(GET).answer()
        assert (status, json.loads(body)["error"]["message"]) == (500, "internal error")
        assert headers["x-request-id"]
        assert headers["vary"] == "Origin"


@pytest.mark.parametrize("line", [b"GET  / HTTP/1.1", b"CONNECT / HTTP/1.1", b"HEAD  / HTTP/1.1"])
def test_what_is_no_request_is_told_what_hangs_on_the_page_too(serve, line):
    assert b"\r\nVary: Origin\r\n" in serve()().say(line + b"\r\nHost: x\r\n\r\n").stream.read()


def test_a_connection_that_does_not_tell_where_it_came_to_is_taken(serve):
    class Lost(socket.socket):
        def getsockname(self):
            raise OSError("gone")

    with Lost() as sock:
        assert Handler(sock, ("192.0.2.1", 1), None).local == ""


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "\u20ac", "a\x00b", "a\nb"])
def test_a_header_that_cannot_be_sent_is_a_bug(serve, caplog, value):
    caplog.set_level(logging.CRITICAL, "llmproxy")
    client = serve(lambda request: Response(200, {"X-A": value}))()
    status, headers, _ = client.say(GET).answer()
    assert status == 500
    assert not {"x-a", "set-cookie"} & set(headers)


def test_a_bug_is_logged_with_the_requests_id(serve, caplog):
    client = serve(lambda request: {}["missing"])()
    client.say(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: id-1\r\n\r\n")).answer()
    assert [record.getMessage() for record in caplog.records] == ["id-1: failed"]
    assert "KeyError" in caplog.text


# clients that leave


def test_a_client_that_leaves_ends_what_is_done_for_it(serve):
    ended = threading.Event()
    begun = threading.Event()

    def respond(request):
        request.scope.add(ended.set)
        begun.set()
        request.scope.wait(None, LONG)
        return Response()

    client = serve(respond)()
    client.say(GET)
    assert begun.wait(LONG)
    left = time.monotonic()
    client.__exit__()
    assert ended.wait(LONG)
    assert time.monotonic() - left < 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_under_way_ends_the_body(serve, reset):
    closed = threading.Event()

    def words():
        try:
            while True:
                time.sleep(0.005)
                yield b"word "
        finally:
            closed.set()

    client = serve(lambda request: Response(200, {}, words()))()
    client.say(GET).head()
    if reset:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.__exit__()
    assert closed.wait(LONG)


def test_nothing_of_a_client_that_left_is_left(serve, caplog):
    open_ = serve()
    for data in (b"", b"GET", GET, GET[:-2] + b"Content-Length: 5\r\n\r\nhe", b"\x00"):
        client = open_()
        client.say(data)
        client.__exit__()
    assert until(lambda: not open_.server._open)
    assert until(lambda: open_.server._crew.busy == 0)
    assert caplog.records == []


def test_half_a_request_is_never_served(serve):
    served = []
    open_ = serve(lambda request: served.append(request.body()) or Response())
    for data in (GET[:-1], GET[:-2], b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell"):
        client = open_()
        client.say(data)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.ended()
    assert served == []
