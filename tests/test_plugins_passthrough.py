"""The pass-through, between a client's real socket and an upstream's: nothing added, nothing lost, nothing leaked."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time

import pytest

from plugins import Request, late, passthrough
from plugins._server import Server
from plugins._settings import SERVER
from plugins.passthrough import Passthrough
from providers import Provider, Trouble, _http
from providers._all import Everything
from providers._canonical import upstream_error
from providers._transport import Door
from scripted import RESET, Scripted, closed_port, read_head
from upstream import Reply, json_reply

LONG = 20.0  # seconds nobody is to wait for
OK = b"HTTP/1.1 200 OK\r\n"


class Relaying(Provider):
    """An upstream that can only be passed on to."""

    def __init__(self, name: str, url: str, key: str = "", **options: float) -> None:
        super().__init__(name, {})
        timeouts = {"connect_timeout": LONG, "first_byte_timeout": LONG, "idle_timeout": LONG, "retries": 2}
        headers = [("Authorization", f"Bearer {key}")] if key else []
        self.door = Door(name, url, {**timeouts, **options}, lambda s, *_: upstream_error(name, s, ""), headers=headers)

    def relay(self, method, path, fields, body, scope):
        return self.door.relay(method, path, fields, body, scope)

    def close(self) -> None:
        self.door.close()


def plugin(*providers: Provider, v1: str = "lmstudio") -> Passthrough:
    return Passthrough({"v1": v1}, Everything(providers, {}))


@pytest.fixture
def passing():
    """Give a maker of proxies that pass /up/ on to an address: it gives the port clients ask."""
    with contextlib.ExitStack() as opened:

        def make(url: str, key: str = "", **options: float) -> int:
            provider = Relaying("up", url, key, **options)
            relay = plugin(provider)

            @late
            def respond(request: Request):
                yield from request.arriving()
                try:
                    return (yield from relay.passed(request).awaited())
                except Trouble as trouble:
                    return relay.error(trouble)

            limits = {**{name: row[0] for name, row in SERVER.items()}, "drain": LONG}
            server = Server(("127.0.0.1", 0), limits, respond)
            server._crew.REST = 0.01
            loop = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            loop.start()
            for close in (provider.close, server.server_close, lambda: loop.join(LONG), server.drain):
                opened.callback(close)
            return server.server_port

        yield make


class Got:
    """What a client got of one answer, to the last byte; a body that was cut short is told from a whole one."""

    def __init__(self, port: int, method: str, target: str, fields=(), body: bytes = b"", chunked: bool = False):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", "proxy.test")
        for name, value in fields:
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter([body[:3], body[3:]]), encode_chunked=True)
        else:
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
        response = connection.getresponse()
        self.status = response.status
        self.fields = response.getheaders()
        self.headers = {name.lower(): value for name, value in self.fields}
        self.whole = True
        try:
            self.body = response.read()
        except http.client.IncompleteRead as error:
            self.body, self.whole = error.partial, False
        except ConnectionError:
            self.body, self.whole = b"", False
        connection.close()

    @property
    def error(self):
        return json.loads(self.body)["error"]


# on the way out


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/api/generate",
        "/a%2Fb%20c+d",
        "//a//b",
        "/a?",
        "/a?b=%zz&b=/../&c=%00#x"[:-2],
        '/%E4?\x7e{}|^`"<>',
        "/a;b?c",
    ],
)
def test_a_target_is_passed_on_to_the_byte(passing, upstream, target):
    up = upstream(Reply())
    assert Got(passing(up.url), "GET", "/up" + target).status == 200
    assert up.asked[0].target == target


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "X-ODD!", "get"])
def test_any_method_is_passed_on(passing, upstream, method):
    up = upstream(Reply(body=b"hi"))
    assert Got(passing(up.url), method, "/up/a", body=b"x").body == b"hi"
    assert up.asked[0].method == method


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_passed_on_to_the_byte(passing, upstream, chunked):
    body = bytes(range(256)) * 5000
    up = upstream(lambda asked: Reply(body=asked.body))
    assert Got(passing(up.url), "POST", "/up/a", body=body, chunked=chunked).body == body
    assert up.asked[0].body == body
    assert up.asked[0].headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in up.asked[0].headers


def test_fields_are_passed_on_in_order_and_number(passing, upstream):
    up = upstream(Reply())
    fields = [
        ("x-B", "1"),
        ("X-a", ""),
        ("x-B", "2, 3"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip"),
        ("X-U", "\xe4"),
    ]
    Got(passing(up.url), "GET", "/up/a", [*fields, ("User-Agent", "me"), ("Content-Type", "a/b")])
    host = ("Host", up.url[7:])
    assert up.asked[0].fields == (host, *fields, ("User-Agent", "me"), ("Content-Type", "a/b"))


def test_fields_of_the_clients_connection_stay_here(passing, upstream):
    up = upstream(Reply())
    hop = [(name, "x") for name in _http.HOP_BY_HOP - {"connection", "transfer-encoding", "expect"}]
    Got(passing(up.url), "GET", "/up/a", [*hop, ("Connection", "X-Mine, Content-Type"), ("X-Mine", "x"), ("X", "y")])
    assert set(up.asked[0].headers) == {"host", "x"}


@pytest.mark.parametrize("name", [*passthrough.CREDENTIALS, "Authorization", "X-Api-Key"])
@pytest.mark.parametrize("key", ["", "ours"])
def test_a_clients_credentials_stay_here(passing, upstream, name, key):
    up = upstream(Reply())
    Got(passing(up.url, key), "GET", "/up/a", [(name, "Bearer theirs"), (name, "again")])
    asked = up.asked[0]
    assert "theirs" not in str(asked)
    assert asked.headers.get("authorization") == (f"Bearer {key}" if key else None)


def test_a_connection_cannot_name_what_the_message_needs(passing, upstream):
    up = upstream(Reply())
    named = ("Connection", "Host, Content-Length, Authorization")
    Got(passing(up.url, "ours"), "POST", "/up/a", [named], b"body")
    assert up.asked[0].body == b"body"
    assert up.asked[0].headers["authorization"] == "Bearer ours"
    assert up.asked[0].headers["host"] == up.url[7:]


# on the way back


def test_an_answer_is_passed_on_as_it_came(passing, upstream):
    fields = [
        ("x-B", "1"),
        ("Set-Cookie", "a=b"),
        ("X-a", ""),
        ("set-cookie", "c=d"),
        ("X-U", "\xe4"),
        ("Date", "then"),
    ]
    up = upstream(Reply(299, [*fields, ("Server", "them"), ("X-Request-Id", "theirs")], b"\x00\xff"))
    got = Got(passing(up.url), "GET", "/up/a")
    assert (got.status, got.body) == (299, b"\x00\xff")
    assert got.fields[:-1] == [*fields, ("Server", "them"), ("Content-Length", "2")]
    assert got.fields[-1][0] == "x-request-id"
    assert got.fields[-1][1] != "theirs"


@pytest.mark.parametrize("status", [201, 301, 307, 400, 401, 404, 429, 500, 503])
def test_every_status_is_the_upstreams_own(passing, upstream, status):
    up = upstream(Reply(status, {"Location": "/else", "Retry-After": "0"}, b"words"))
    got = Got(passing(up.url), "POST", "/up/a", body=b"x")
    assert (got.status, got.body, got.headers["location"]) == (status, b"words", "/else")
    assert len(up.asked) == 1


def test_compressed_bytes_are_left_alone(passing, upstream):
    packed = gzip.compress(b"words" * 1000)
    for body in (packed, [packed[:10], packed[10:]]):
        up = upstream(Reply(200, {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}, body))
        got = Got(passing(up.url), "GET", "/up/a", [("Accept-Encoding", "gzip")])
        assert (got.body, got.headers["content-encoding"]) == (packed, "gzip")


def test_fields_of_the_upstreams_connection_and_its_word_to_browsers_stay_behind(passing, upstream):
    ours = [("Connection", "X-Mine"), ("Keep-Alive", "timeout=5"), ("X-Mine", "x"), ("Trailer", "X-T")]
    cors = [("Access-Control-Allow-Origin", "*"), ("access-control-expose-headers", "*")]
    up = upstream(Reply(200, [*ours, *cors, ("X", "y")], [b"body"]))
    got = Got(passing(up.url), "GET", "/up/a")
    assert set(got.headers) == {"x", "date", "x-request-id", "transfer-encoding"}
    assert got.body == b"body"


def test_a_length_the_connection_names_is_made_good(passing, upstream):
    up = upstream(Reply(200, {"Connection": "Content-Length"}, b"body"))
    got = Got(passing(up.url), "GET", "/up/a")
    assert (got.body, got.whole, got.headers["content-length"]) == (b"body", True, "4")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_an_answer_without_body_has_none(passing, upstream, method, status):
    up = upstream(Reply(status, {"ETag": "x"}, b"" if status != 200 else b"0123456789"))
    port = passing(up.url)
    with socket.create_connection(("127.0.0.1", port), LONG) as client:
        for _ in range(2):
            client.sendall(f"{method} /up/a HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = read_head(client).decode()
            assert head.startswith(f"HTTP/1.1 {status} ")
            assert "transfer-encoding" not in head.lower()
            assert ("Content-Length: 10" in head) == (method == "HEAD")
    assert up.accepted == 1


def test_a_204_says_no_length_even_if_the_upstream_does(passing, upstream):
    up = upstream(Reply(raw=b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nX-Kept: 1\r\n\r\n"))
    got = Got(passing(up.url), "GET", "/up/a")
    assert (got.status, got.body) == (204, b"")
    assert (got.headers.get("content-length"), got.headers.get("x-kept")) == (None, "1")


def test_what_comes_before_the_answer_is_not_passed_on(passing, upstream):
    up = upstream(Reply(raw=b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK + b"\r\nhi"))
    got = Got(passing(up.url), "GET", "/up/a")
    assert (got.status, got.body, "link" in got.headers) == (200, b"hi", False)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"0123456789"),
        Reply(body=[b"01234", b"56789"]),
        Reply(raw=OK + b"\r\n0123456789"),
        Reply(raw=b"HTTP/1.0 200 OK\r\n\r\n0123456789"),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_whole_body_looks_whole_however_it_came(passing, upstream, reply, version):
    port = passing(upstream(reply).url)
    with socket.create_connection(("127.0.0.1", port), LONG) as client:
        client.sendall(f"GET /up/a HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.read() == b"0123456789"
        assert client.recv(1) == b""
        response.close()


def breaks_off(framing: bytes):
    """Give a script: some of a body, and then the end; a reset where only that is none."""

    def script(peer):
        read_head(peer)
        peer.sendall(OK + framing + b"\r\n" + (b"5\r\nhello\r\n" if b"chunked" in framing else b"hello"))
        if not framing:
            time.sleep(0.05)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    return script


@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_body_that_was_cut_never_looks_whole(passing, framing, version):
    with Scripted(breaks_off(framing)) as up, socket.create_connection(("127.0.0.1", passing(up.url)), LONG) as client:
        client.sendall(f"GET /up/a HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        response = http.client.HTTPResponse(client)
        response.begin()
        if framing.startswith(b"Content-Length"):
            assert response.length == 10
            assert response.read1(100) + response.read1(100) == b"hello"  # read1 tells of no cut
        else:
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                response.read()
        response.close()


@pytest.mark.parametrize("raw", [b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5;\x00\r\nhello"])
def test_a_body_that_breaks_off_before_its_first_byte_is_a_502(passing, upstream, raw):
    got = Got(passing(upstream(Reply(raw=OK + raw)).url), "GET", "/up/a")
    if got.status == 200:  # its end came a moment after its head, too late for another status
        assert (got.body, got.whole) == (b"", False)
    else:
        assert (got.status, got.error["code"], got.whole) == (502, "stream_truncated", True)


# trouble


def test_an_upstream_that_is_not_there_is_a_502(passing):
    got = Got(passing(f"http://127.0.0.1:{closed_port()}"), "GET", "/up/a")
    assert (got.status, got.error["code"], got.error["provider"]) == (502, "provider_unreachable", "up")


@pytest.mark.parametrize(
    "raw", [b"SSH-2.0-OpenSSH\r\n\r\n", OK + b"A: \x00\r\n\r\n", OK + b"Content-Length: x\r\n\r\n"]
)
def test_an_upstream_that_speaks_no_http_is_a_502(passing, upstream, raw):
    got = Got(passing(upstream(Reply(raw=raw)).url), "GET", "/up/a")
    assert (got.status, got.error["code"]) == (502, "provider_error")


def test_two_lengths_of_an_answer_are_a_502(passing, upstream):
    raw = OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert Got(passing(upstream(Reply(raw=raw)).url), "GET", "/up/a").status == 502


def test_a_silent_upstream_is_a_504(passing, upstream):
    got = Got(passing(upstream(Reply(wait=LONG)).url, first_byte_timeout=0.1), "GET", "/up/a")
    assert (got.status, got.error["code"]) == (504, "provider_timeout")


def test_an_upstream_that_falls_silent_is_cut(passing, upstream):
    got = Got(passing(upstream(Reply(body=[b"hello", LONG])).url, idle_timeout=0.1), "GET", "/up/a")
    assert (got.status, got.body, got.whole) == (200, b"hello", False)


def test_an_early_refusal_of_the_body_is_passed_on(passing):
    def script(peer):
        read_head(peer)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        answered.wait(LONG)

    answered = threading.Event()
    with Scripted(script) as up:
        got = Got(passing(up.url), "POST", "/up/a", body=b"x" * 12_000_000)
        answered.set()
        assert (got.status, got.body) == (413, b"much")


# clients that leave, clients that are slow


@pytest.mark.parametrize(
    "reply", [Reply(wait=LONG), Reply(body=[b"word", LONG]), Reply(200, {"Content-Length": "9"}, [b"whole", LONG])]
)
def test_a_client_that_leaves_frees_the_upstream_within_a_second(passing, upstream, reply):
    up = upstream(reply)
    with socket.create_connection(("127.0.0.1", passing(up.url)), LONG) as client:
        client.sendall(b"POST /up/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert up.wait_asked()
        if not reply.wait:
            assert client.recv(100)
    left = time.monotonic()
    assert up.wait_closed(5)
    assert up.gone[0] - left < 1


def test_a_client_that_leaves_in_a_stream_of_words_frees_the_upstream(passing, upstream):
    def words():
        while True:
            yield b"word "
            yield 0.005

    up = upstream(lambda _: Reply(body=words()))
    with socket.create_connection(("127.0.0.1", passing(up.url)), LONG) as client:
        client.sendall(b"GET /up/a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100)
    left = time.monotonic()
    assert up.wait_closed(5)
    assert up.gone[0] - left < 1


def test_a_slow_client_slows_the_upstream_and_fills_no_memory(passing, upstream):
    said = []

    def flood():
        for _ in range(1000):
            said.append(1)
            yield b"x" * 100_000

    up = upstream(lambda _: Reply(body=flood()))
    with socket.create_connection(("127.0.0.1", passing(up.url)), LONG) as client:
        client.sendall(b"GET /up/a HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while before != len(said):
            before = len(said)
            time.sleep(0.1)
        assert 0 < len(said) < 500  # what kernels hold, and not what there is


def test_connections_to_the_upstream_are_used_again(passing, upstream):
    up = upstream(lambda asked: Reply(body=[asked.body]))
    port = passing(up.url)
    for n in range(5):
        assert Got(port, "POST", "/up/a", body=b"%d" % n).body == b"%d" % n
    assert up.accepted == 1


def test_words_pass_while_the_upstream_still_thinks(passing, upstream, capsys):
    """Print how much later than the upstream says a word a client of the proxy hears it."""
    said = []

    def words():
        for _ in range(8):
            yield 0.1
            said.append(time.monotonic())
            yield b"word "

    up = upstream(lambda _: Reply(body=words()))
    heard = []
    with socket.create_connection(("127.0.0.1", passing(up.url)), LONG) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"GET /up/a HTTP/1.1\r\nHost: x\r\n\r\n")
        read_head(client)
        while len(heard) < 8:
            data = client.recv(1000)
            if b"word" not in data:
                break
            heard.append(time.monotonic())
    lags = sorted(later - earlier for later, earlier in zip(heard, said))
    with capsys.disabled():
        print(f"\nthe pass-through's median lag: {lags[len(lags) // 2] * 1e6:.0f} us", end=" ")
    assert len(heard) > 4  # they did not come all together


# routes


def test_every_provider_has_a_path_of_its_name():
    relay = plugin(Relaying("ollama", "http://h"), Relaying("groq-2.x", "http://h"))
    assert set(relay.routes()) == {"* /ollama/*", "* /groq-2.x/*"}


def test_v1_is_lm_studios_or_anothers(upstream):
    up = upstream(lambda asked: json_reply(asked.target))
    providers = [Relaying("lmstudio", up.url + "/v1"), Relaying("other", up.url + "/base")]
    for v1, target in (("lmstudio", "/v1/models?a=%2F"), ("other", "/base/v1/models?a=%2F")):
        relay = plugin(*providers, v1=v1)
        answer = relay.routes()["* /v1/*"](Request("GET", "/v1/models?a=%2F", _http.Fields([])))
        assert json.loads(answer.body) == target
    for provider in providers:
        provider.close()


def test_v1_of_nobody_is_refused_by_name():
    with pytest.raises(ValueError, match="no provider 'nobody'; there are unified, ollama"):
        plugin(Relaying("ollama", "http://h"), v1="nobody")


def test_what_a_browser_says_of_its_page_stays_here(house, upstream):
    up = upstream(Reply(200, {}, b"{}"))
    page = {"Origin": "http://localhost:5173", "Referer": "http://localhost:5173/chat", "Sec-Fetch-Site": "same-site"}
    proxy = house(f"[providers.ollama]\nbase_url = {up.url}")
    assert proxy.ask("GET", "/ollama/api/tags", headers={**page, "X-Mine": "1"}).status == 200
    assert up.asked[0].headers["x-mine"] == "1"
    assert not {name.lower() for name in page} & up.asked[0].headers.keys()
