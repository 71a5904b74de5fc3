"""The door to the network, on real sockets: what goes out, what comes back, and all that can go wrong between."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
import time

import pytest

from providers import Gone, Scope, UpstreamError, _canonical, _connection, _opener, _transport
from providers._transport import Door, addresses, pause_before
from scripted import RESET, Scripted, certificate, closed_port, read_exactly, read_head, server_context
from upstream import Reply, json_reply

LONG = 30.0  # seconds nobody is to wait for
QUICK = {"connect_timeout": LONG, "first_byte_timeout": LONG, "idle_timeout": LONG, "retries": 0}
OK = b"HTTP/1.1 200 OK\r\n"


class Hasty(Scope):
    """A scope in which pauses before asking again take no time; `waits` tells how long they would have been."""

    def __init__(self, client=None) -> None:
        super().__init__(client)
        self.waits = []

    def wait(self, sock, seconds, **more):
        if sock is None:
            self.waits.append(seconds)
            return False
        return super().wait(sock, seconds, **more)


def worded(status, headers, body):
    told = body.get("error") if isinstance(body, dict) else body
    return _canonical.upstream_error("up", status, str(told), wait=_canonical.retry_after(headers))


@pytest.fixture
def door(monkeypatch):
    """Give a maker of doors; no proxy of the environment is on their way."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with contextlib.ExitStack() as opened:

        def make(url, headers=(), version="/v1", **options):
            made = Door("up", url, {**QUICK, **options}, worded, version=version, headers=headers)
            opened.callback(made.close)
            return made

        yield make


def finished(waiting):
    """Run a generator to its end and give what it returned."""
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            return end.value


def relayed(door, method="GET", path="/", fields=(), body=b"", scope=None):
    """Relay a request: (status, fields, body)."""
    with door.relay(method, path, fields, body, scope or Scope()) as exchange:
        text = b"".join(exchange.blocks())
        return exchange.status, exchange.fields, text


def refused(door, scope=None, **more):
    """Ask, and give the trouble."""
    with pytest.raises(UpstreamError) as caught:
        door.ask("POST", "/chat", scope or Hasty(), dict, {"a": 1}, **more)
    return caught.value


# addresses


@pytest.mark.parametrize(
    ("base_url", "root", "base"),
    [
        ("http://h", "http://h", "http://h/v1"),
        ("http://h/", "http://h", "http://h/v1"),
        (" http://h:1234/v1/ ", "http://h:1234", "http://h:1234/v1"),
        ("HTTPS://h/openai/v1", "https://h/openai", "https://h/openai/v1"),
        ("https://h/v1beta", "https://h", "https://h/v1beta"),
        ("https://h/v1beta2", "https://h", "https://h/v1beta2"),
        ("https://h/vault", "https://h/vault", "https://h/vault/v1"),
        ("http://[::1]:80/a%20b", "http://[::1]:80/a%20b", "http://[::1]:80/a%20b/v1"),
    ],
)
def test_a_base_url_may_end_in_its_version(base_url, root, base):
    assert addresses(base_url, "/v1") == (root, base)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "h:1234",
        "ftp://h",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://u:p@h",
        "http://h?x",
        "http://h#x",
        "http://h/a b",
        "http://h\r\nX: y",
        "http://h o",
        "http://[::1",
        "http://h:port",
        "http://h:99999",
    ],
)
def test_a_base_url_that_is_none_is_refused(base_url):
    with pytest.raises(ValueError, match=r"base_url|[Pp]ort"):
        addresses(base_url, "/v1")


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "k\xe4y", "a\x00"])
def test_a_key_that_no_header_may_hold_is_refused_without_being_told(door, value):
    with pytest.raises(ValueError, match="Authorization") as caught:
        door("http://h", [("Authorization", f"Bearer {value}")])
    assert value not in str(caught.value)


# what goes out


def test_a_question_goes_out_as_it_is_told(door, upstream):
    up = upstream(json_reply({"n": 2}))
    asking = door(up.url, [("X-Key", "k"), ("anthropic-VERSION", "1")])
    with asking.send("POST", "/chat/completions?x=%2F", Scope(), {"text": "\xe4\ud800"}, [("X-More", "m")]) as exchange:
        assert finished(exchange.document()) == {"n": 2}
    asked = up.asked[0]
    assert (asked.method, asked.target) == ("POST", "/v1/chat/completions?x=%2F")
    assert asked.body == b'{"text":"\\u00e4\\ud800"}'
    assert asked.fields == (
        ("Host", f"127.0.0.1:{up.port}"),
        ("User-Agent", "llmproxy"),
        ("X-Key", "k"),
        ("anthropic-VERSION", "1"),
        ("Accept-Encoding", "identity"),
        ("X-More", "m"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(asked.body))),
    )


def test_a_question_without_body_has_no_length(door, upstream):
    up = upstream(json_reply({}))
    assert door(up.url).ask("GET", "/models", Scope(), dict) == {}
    assert "content-length" not in up.asked[0].headers
    assert "content-type" not in up.asked[0].headers


def test_a_relayed_request_goes_out_as_it_came(door, upstream):
    up = upstream(Reply())
    fields = [("x-B", "1"), ("X-a", "2"), ("x-B", "\xe4"), ("x-key", "theirs"), ("User-Agent", "them")]
    relayed(door(up.url + "/v1", [("X-Key", "ours")]), "PROPFIND", "//a/%2e%2E%zz;p?q=%00+&q", fields, b"\x00\xff")
    asked = up.asked[0]
    assert (asked.method, asked.target, asked.body) == ("PROPFIND", "//a/%2e%2E%zz;p?q=%00+&q", b"\x00\xff")
    passed = asked.fields[1:]
    assert passed[:4] == (("x-B", "1"), ("X-a", "2"), ("x-B", "\xe4"), ("User-Agent", "them"))
    assert passed[4:] == (("X-Key", "ours"), ("Content-Length", "2"))


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("GET", b"", None), ("DELETE", b"", None), ("POST", b"", "0"), ("PUT", b"", "0"), ("GET", b"x", "1")],
)
def test_a_relayed_request_says_how_long_it_is(door, upstream, method, body, length):
    up = upstream(Reply())
    relayed(door(up.url), method, "/", (), body)
    assert up.asked[0].headers.get("content-length") == length


def test_nothing_is_sent_before_it_is_waited_for(door, upstream):
    up = upstream(json_reply({}))
    exchange = door(up.url).send("GET", "/models", Scope())
    time.sleep(0.02)
    assert up.accepted == 0
    exchange.close()


# what comes back


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"0123456789"),
        Reply(body=[b"0123", b"", b"456", b"789"]),
        Reply(raw=OK + b"\r\n0123456789"),
        Reply(raw=b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n0123456789"),
        Reply(raw=OK + b"Transfer-Encoding: Chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\n"),
        Reply(raw=b"HTTP/1.1 200\r\nContent-Length:10\r\n\r\n0123456789surplus"),
        Reply(body=b"0123456789", slow=0.001),
        Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n", slow=0.001),
    ],
)
def test_a_body_is_read_however_it_is_framed(door, upstream, reply):
    status, _, body = relayed(door(upstream(reply).url))
    assert (status, body) == (200, b"0123456789")


def test_a_body_comes_as_it_comes(door, upstream):
    up = upstream(Reply(body=[b"one", LONG, b"two"]))
    with door(up.url).relay("GET", "/", (), b"", Scope()) as exchange:
        blocks = (block for block in exchange.blocks() if block)
        assert next(blocks) == b"one"
    assert up.wait_closed(5)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body_is_not_waited_for(door, upstream, status):
    up = upstream(Reply(status, {"ETag": "x"}))
    asking = door(up.url)
    for _ in range(2):
        assert relayed(asking)[::2] == (status, b"")
    assert up.accepted == 1


def test_the_answer_to_head_has_no_body(door, upstream):
    up = upstream(Reply(body=b"0123456789"))
    asking = door(up.url)
    for _ in range(2):
        status, fields, body = relayed(asking, "HEAD")
        assert (status, fields.get("content-length"), body) == (200, "10", b"")
    assert up.accepted == 1


def test_what_comes_before_the_answer_is_passed_over(door, upstream):
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Go\r\n\r\n"
    for slow in (0.0, 0.0005):
        up = upstream(Reply(raw=early + OK + b"Content-Length: 2\r\n\r\nhi", slow=slow))
        status, fields, body = relayed(door(up.url))
        assert (status, body, "link" in fields) == (200, b"hi", False)


@pytest.mark.parametrize(
    "early",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * (_transport.MOST_INTERIM + 1),
    ],
    ids=["another protocol", "no end"],
)
def test_what_comes_before_the_answer_may_not_take_its_place(door, upstream, early):
    trouble = refused(door(upstream(Reply(raw=early + OK + b"Content-Length: 2\r\n\r\n{}")).url))
    assert (trouble.status, trouble.code) == (502, "provider_error")
    assert "does not speak HTTP" in trouble.message


def test_a_redirect_is_not_followed(door, upstream):
    other = upstream(json_reply({}))
    up = upstream(Reply(307, {"Location": other.url + "/v1/chat"}, b"moved"))
    asking = door(up.url, [("Authorization", "Bearer secret-key")])
    status, fields, body = relayed(asking)
    assert (status, fields.get("location"), body) == (307, other.url + "/v1/chat", b"moved")
    trouble = refused(asking)
    assert (trouble.status, trouble.provider_status) == (502, 307)
    assert other.accepted == 0


def test_no_cookie_is_kept(door, upstream):
    up = upstream(Reply(200, {"Set-Cookie": "a=b"}, b"{}"))
    asking = door(up.url)
    relayed(asking)
    relayed(asking)
    assert "cookie" not in up.asked[1].headers


def test_a_pause_is_passed_on_for_each_wait(door, upstream):
    up = upstream(Reply(200, {}, [0.05, b'{"a"', 0.05, b": 1}"], wait=0.05))
    with door(up.url).send("GET", "/x", Scope()) as exchange:
        reading = exchange.document()
        parts = []
        with pytest.raises(StopIteration) as end:
            while True:
                parts.append(next(reading))
    assert end.value.value == {"a": 1}
    assert len(parts) >= 3
    assert not any(parts)


# connections kept


def test_a_connection_is_used_again(door, upstream):
    up = upstream(lambda asked: Reply(body=[asked.body]) if asked.target == "/chunked" else Reply(body=asked.body))
    asking = door(up.url)
    for path in ("/chunked", "/counted", "/chunked"):
        assert relayed(asking, "POST", path, (), path.encode())[2] == path.encode()
    assert up.accepted == 1
    asking.close()
    assert up.until(lambda: up.connections == 0)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {"Connection": "keep-alive, CLOSE"}, b"x"),
        Reply(raw=b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        Reply(raw=OK + b"Content-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n"),
        Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nHTTP/1.1"),
    ],
)
def test_a_connection_that_is_out_of_step_is_not_used_again(door, upstream, reply):
    up = upstream(reply)
    asking = door(up.url)
    assert relayed(asking)[2] == relayed(asking)[2] == b"x"
    assert up.accepted == 2


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1\r\n\r\nx", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"]
)
def test_a_second_answer_nobody_asked_for_ends_the_connection(door, framing):
    def script(peer):
        while read_head(peer):
            peer.sendall(OK + framing + OK + b"Content-Length: 6\r\n\r\npoison")

    with Scripted(script) as up:
        asking = door(up.url)
        assert relayed(asking)[2] == relayed(asking)[2] == b"x"
        assert up.accepted == 2


def test_an_answer_not_read_to_its_end_closes_its_connection(door, upstream):
    up = upstream(Reply(body=b"x" * 3_000_000))
    asking = door(up.url)
    with asking.relay("GET", "/", (), b"", Scope()) as exchange:
        assert next(block for block in exchange.blocks() if block)
    assert up.until(lambda: up.connections == 0)
    assert len(relayed(asking)[2]) == 3_000_000
    assert up.accepted == 2


def test_the_end_of_the_scope_ends_what_is_under_way(door, upstream):
    up = upstream(Reply(body=[b"x", LONG]))
    scope = Scope()
    with door(up.url).relay("GET", "/", (), b"", scope) as exchange:
        finished(exchange.head())
        scope.close()
        assert up.wait_closed(5)
        with pytest.raises(UpstreamError, match="broke off"):
            list(exchange.blocks())


def quits_the_second_time(last_words=b"", reset=False):
    """Give a script: one good answer for each connection, then the next request is left without one."""

    def script(peer):
        read_head(peer)
        peer.sendall(OK + b"Content-Length: 1\r\n\r\nx")
        read_head(peer)
        peer.sendall(last_words)
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    return script


@pytest.mark.parametrize("reset", [False, True])
def test_a_kept_connection_that_died_is_replaced_once_and_silently(door, reset):
    with Scripted(quits_the_second_time(reset=reset)) as up:
        asking = door(up.url)
        for _ in range(4):
            assert relayed(asking)[2] == b"x"
        assert up.accepted == 4


def test_a_kept_connection_is_not_replaced_when_an_answer_had_begun(door):
    with Scripted(quits_the_second_time(b"HTTP/1.1 2")) as up:
        asking = door(up.url, retries=2)
        relayed(asking)
        trouble = refused(asking)
        assert (trouble.status, trouble.code) == (502, "stream_truncated")
        assert up.accepted == 1


def test_a_new_connection_that_dies_is_not_replaced(door):
    with Scripted(read_head) as up:
        with pytest.raises(UpstreamError, match="up: the upstream did not answer") as caught:
            relayed(door(up.url))
        assert (caught.value.status, caught.value.code) == (502, "provider_unreachable")
        assert up.accepted == 1


def test_a_kept_connection_that_died_is_replaced_only_by_one_that_can_be_had(door, upstream):
    up = upstream(Reply(body=b"x"))
    asking = door(up.url)
    relayed(asking)
    up.close()
    with pytest.raises(UpstreamError, match="cannot connect"):
        relayed(asking)


# trouble


def test_an_upstream_that_is_not_there_is_unreachable(door):
    port = closed_port()
    trouble = refused(door(f"http://127.0.0.1:{port}", retries=0))
    assert (trouble.status, trouble.code, trouble.provider) == (502, "provider_unreachable", "up")
    assert trouble.message == f"up: cannot connect to 127.0.0.1:{port}: Connection refused"


@pytest.mark.parametrize(
    "garbage",
    [
        b"220 mail.test ESMTP\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        OK + b"Content-Length: -1\r\n\r\nx",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b"A: b\rSet-Cookie: c\r\n\r\n",
        OK + b"A: \x00\r\n\r\n",
        OK + b"A : b\r\n\r\n",
        OK + b"A: " + b"b" * 70_000,
        b"x" * 70_000,
    ],
)
def test_a_head_that_is_none_is_told_at_once_and_not_asked_for_again(door, upstream, garbage):
    up = upstream(Reply(raw=garbage))
    asking = door(up.url, retries=2)
    trouble = refused(asking)
    assert (trouble.status, trouble.code) == (502, "provider_error")
    assert "does not speak HTTP" in trouble.message
    assert up.accepted == 1
    with pytest.raises(UpstreamError, match="does not speak HTTP"):
        finished(asking.relay("GET", "/", (), b"", Scope()).head())


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\nContent-", OK[:-2]])
def test_a_head_that_breaks_off_is_not_asked_for_again(door, upstream, begun):
    up = upstream(Reply(raw=begun))
    trouble = refused(door(up.url, retries=2))
    assert (trouble.status, trouble.code, up.accepted) == (502, "stream_truncated", 1)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"0123456789", cut=True),
        Reply(body=[b"01234", b"56789"], cut=True),
        Reply(raw=OK + b"Content-Length: 1000\r\n\r\n"),
        Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\nA\r\n01234"),
        Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n"),
        Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\nzz\r\n"),
        Reply(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n0123456789\r\n0\r\n\r\n"),
    ],
)
def test_a_body_that_breaks_off_never_looks_whole(door, upstream, reply):
    up = upstream(reply)
    trouble = refused(door(up.url, retries=2))
    assert (trouble.status, trouble.code, trouble.provider) == (502, "stream_truncated", "up")
    assert "broke off" in trouble.message
    assert up.accepted == 1


def test_a_reset_is_no_end_of_a_body_without_length(door):
    def script(peer):
        read_head(peer)
        peer.sendall(OK + b"\r\n0123456789")
        heard.wait(LONG)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    heard = threading.Event()
    with Scripted(script) as up, door(up.url).relay("GET", "/", (), b"", Scope()) as exchange:
        blocks = (block for block in exchange.blocks() if block)
        assert next(blocks) == b"0123456789"
        heard.set()
        with pytest.raises(UpstreamError, match="broke off"):
            next(blocks)


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff", b'{"a":', b"[" * 100_000])
def test_an_answer_that_is_no_json_is_the_upstreams_fault(door, upstream, body):
    trouble = refused(door(upstream(Reply(body=body)).url))
    assert (trouble.status, trouble.code) == (502, "provider_error")
    assert "not JSON" in trouble.message


def test_an_answer_has_a_largest_size(door, upstream, monkeypatch):
    monkeypatch.setattr(_transport, "LARGEST_DOCUMENT", 1000)
    trouble = refused(door(upstream(Reply(body=b" " * 1001 + b"{}")).url))
    assert "too large" in trouble.message


def test_trouble_is_worded_by_its_provider(door, upstream):
    up = upstream(json_reply({"error": "no such model"}, 404))
    trouble = refused(door(up.url))
    assert (trouble.status, trouble.message, trouble.provider_status) == (404, "no such model", 404)


def stumbling(error):
    def told(_):
        raise error

    return told


@pytest.mark.parametrize("stumble", [KeyError("secret"), TypeError(), AttributeError(), ValueError(), OverflowError()])
def test_a_translator_that_stumbles_over_an_answer_is_the_upstreams_fault(door, upstream, stumble, caplog):
    with pytest.raises(UpstreamError, match="up: the upstream's answer is not of the shape") as caught:
        door(upstream(json_reply({})).url).ask("GET", "/models", Scope(), stumbling(stumble))
    assert (caught.value.status, caught.value.code, caught.value.provider) == (502, "provider_error", "up")
    (line,) = caplog.messages
    assert re.fullmatch(rf"up: .* test_providers__transport.py:[0-9]+: {type(stumble).__name__}", line)


@pytest.mark.parametrize(("reply", "kind"), [(json_reply({}), UpstreamError), (Reply(wait=LONG), KeyError)])
def test_who_stumbles_before_the_head_has_come_has_a_bug(door, upstream, reply, kind):
    with pytest.raises(kind), door(upstream(reply).url).send("POST", "/chat", Scope(), {}) as exchange:
        head = exchange.head()
        next(head) if reply.wait else list(head)
        raise KeyError


def test_who_stumbles_over_the_words_of_a_refusal_stumbles_over_an_answer(upstream):
    up = upstream(json_reply({"error": 5}, 400))
    asking = Door("up", up.url, QUICK, lambda status, headers, body: body["error"]["message"])
    assert "shape" in refused(asking).message
    asking.close()


@pytest.mark.parametrize("trouble", [RuntimeError, AssertionError, UpstreamError(401, "x"), Gone, KeyboardInterrupt])
def test_other_trouble_stays_what_it_is(door, upstream, trouble):
    kind = trouble if isinstance(trouble, type) else type(trouble)
    with pytest.raises(kind) as caught:
        door(upstream(json_reply({})).url).ask("GET", "/models", Scope(), stumbling(trouble))
    assert getattr(caught.value, "status", 401) == 401


def test_who_stumbles_over_a_relayed_answer_has_a_bug(door, upstream):
    with pytest.raises(TypeError), door(upstream(json_reply({})).url).relay("GET", "/", (), b"", Scope()) as exchange:
        list(exchange.head())
        raise TypeError


def test_a_question_that_cannot_be_written_is_a_bug(door, upstream):
    up = upstream(json_reply({}))
    with pytest.raises(TypeError):
        door(up.url).ask("POST", "/chat", Scope(), dict, {"a": object()})
    assert up.asked == []


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(418, body=b"I am a teapot"), "I am a teapot"),
        (Reply(418, body=[b"I am", b" half"], cut=True), "I am half"),
        (Reply(418, body=b"caf\xe9"), "caf\ufffd"),
        (Reply(418, body=[b"x" * 50_000, b"y" * 50_000, b"z" * 50_000]), "x" * 2000),
    ],
)
def test_words_that_are_no_json_are_told_as_they_are(door, upstream, reply, words):
    assert refused(door(upstream(reply).url)).message == words


def test_an_endless_error_is_not_read_to_its_end(door, upstream):
    def endless():
        while True:
            yield b"x" * 10_000

    up = upstream(Reply(500, body=endless()))
    assert refused(door(up.url)).provider_status == 500
    assert up.wait_closed(5)


@pytest.mark.parametrize("key", ["secret-key-1", "sk-a.b*c(d"])
def test_a_key_is_not_told_though_the_upstream_repeats_it(door, upstream, key):
    up = upstream(json_reply({"error": f"bad key {key}!"}, 401))
    assert refused(door(up.url, [("Authorization", f"Bearer {key}")])).message.endswith("bad key ***!")


def test_an_early_refusal_is_heard_while_the_body_is_still_sent(door):
    def script(peer):
        read_head(peer)
        read_exactly(peer, 1000)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        answered.wait(LONG)

    answered = threading.Event()
    with Scripted(script) as up:
        asking = door(up.url)
        begun = time.monotonic()
        for _ in range(2):
            status, _, body = relayed(asking, "POST", "/", (), b"x" * 12_000_000)
            assert (status, body) == (413, b"much")
        assert time.monotonic() - begun < LONG / 2
        assert up.accepted == 2  # a connection that has not heard all is out of step
        answered.set()


# time


def test_a_silent_upstream_is_given_up_before_the_first_byte(door, upstream):
    up = upstream(Reply(wait=LONG))
    begun = time.monotonic()
    trouble = refused(door(up.url, first_byte_timeout=0.1, retries=2))
    assert (trouble.status, trouble.code) == (504, "provider_timeout")
    assert time.monotonic() - begun < 10
    assert up.wait_closed(5)
    assert len(up.asked) == 1


def test_a_silent_upstream_is_given_up_within_its_answer(door, upstream):
    up = upstream(Reply(body=[b"{", LONG]))
    begun = time.monotonic()
    trouble = refused(door(up.url, idle_timeout=0.1))
    assert (trouble.status, trouble.code) == (504, "provider_timeout")
    assert trouble.message == "up: the upstream said nothing for 0.1 s"
    assert time.monotonic() - begun < 10
    assert up.wait_closed(5)


def test_an_answer_that_goes_on_is_not_given_up(door, upstream):
    up = upstream(Reply(body=[b'{"a": [', *[0.1, b"1,"] * 10, b"2]}"]))
    assert len(door(up.url, idle_timeout=0.8).ask("GET", "/", Scope(), dict)["a"]) == 11


def test_a_connection_that_takes_too_long_is_given_up(door, monkeypatch):
    seen = []
    monkeypatch.setattr(_transport, "connected", lambda host, port, scope, deadline: seen.append(deadline) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        door("http://h", connect_timeout=7).ask("GET", "/", Scope(), dict)
    assert 5 < seen[0] - time.monotonic() <= 7


# asking again


def failing(times, *replies):
    """Answer with these, one after the other, then well."""
    waiting = list(replies * times)
    return lambda asked: waiting.pop(0) if waiting else json_reply({"well": 1})


@pytest.mark.parametrize(
    "reply", [Reply(500, body=b"{}"), Reply(502), Reply(503, {"Retry-After": "1"}), Reply(529, body=b"busy"), Reply(0)]
)
def test_a_failure_that_passes_is_asked_again(door, upstream, reply):
    up = upstream(failing(2, reply))
    scope = Hasty()
    assert door(up.url, retries=2).ask("POST", "/chat", scope, dict, {"a": 1}) == {"well": 1}
    assert [asked.body for asked in up.asked] == [b'{"a":1}'] * 3
    assert len(scope.waits) == 2


def test_it_is_asked_again_only_so_often(door, upstream):
    up = upstream(failing(9, Reply(500, body=b'{"error": "broken"}')))
    trouble = refused(door(up.url, retries=2))
    assert (trouble.status, trouble.message, len(up.asked)) == (502, "broken", 3)


def test_a_rate_limit_is_asked_again_once_when_the_wait_is_short(door, upstream):
    up = upstream(failing(9, Reply(429, {"Retry-After": "2"}, b"slow")))
    scope = Hasty()
    trouble = refused(door(up.url, retries=5), scope)
    assert (trouble.status, trouble.retry_after, len(up.asked)) == (429, 2.0, 2)
    assert scope.waits == [pytest.approx(2.0, abs=0.1)]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 422, 504])
def test_a_failure_that_does_not_pass_is_not_asked_again(door, upstream, status):
    up = upstream(Reply(status, body=b"no"))
    refused(door(up.url, retries=2))
    assert len(up.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_the_clients_to_wait(door, upstream, status):
    up = upstream(Reply(status, {"Retry-After": "6"}, b"later"))
    trouble = refused(door(up.url, retries=2))
    assert (trouble.headers["Retry-After"], len(up.asked)) == ("6", 1)


def test_money_is_never_asked_for_again(door, upstream):
    up = upstream(Reply(429, body=b"you exceeded your current quota"))
    asking = door(up.url, retries=2)
    asking._worded = lambda *_: _canonical.upstream_error("up", 429, "broke", code="insufficient_quota")
    assert refused(asking).code == "insufficient_quota"
    assert len(up.asked) == 1


def test_a_list_is_not_asked_for_again(door, upstream):
    """It is wanted often, and at once; an upstream that is not there would make each one wait."""
    up = upstream(failing(1, Reply(500, body=b"{}")))
    with pytest.raises(UpstreamError):
        door(up.url, retries=2).ask("GET", "/models", Hasty(), dict)
    assert len(up.asked) == 1


def test_a_relayed_request_is_never_asked_again(door, upstream):
    up = upstream(Reply(503, body=b"busy"))
    assert relayed(door(up.url, retries=2))[0] == 503
    assert len(up.asked) == 1


def test_an_upstream_that_comes_back_is_asked_again(door):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # and refuses, as long as it does not listen
        peers = []

        def serve():
            peers.append(listener.accept()[0])
            read_head(peers[0])
            read_exactly(peers[0], 2)
            peers[0].sendall(OK + b"Content-Length: 2\r\n\r\n{}")

        serving = threading.Thread(target=serve, daemon=True)

        class Repairing(Hasty):
            def wait(self, sock, seconds, **more):
                if sock is None:
                    listener.listen()
                    serving.start()
                return super().wait(sock, seconds, **more)

        asking = door(f"http://127.0.0.1:{listener.getsockname()[1]}", retries=1)
        assert asking.ask("POST", "/x", Repairing(), dict, {}) == {}
        serving.join(LONG)
        peers[0].close()


@pytest.mark.parametrize(
    ("tries", "chance", "seconds"), [(0, 0, 0.15), (0, 255, 0.45), (1, 0, 0.3), (1, 255, 0.9), (2, 255, 1.8)]
)
def test_the_pauses_grow_and_are_never_the_same(tries, chance, seconds):
    error = UpstreamError(502, "no", code="provider_error")
    assert pause_before(tries, error, 3, lambda _: bytes([chance])) == pytest.approx(seconds)


def test_a_pause_is_at_least_what_the_upstream_asks_for():
    error = UpstreamError(503, "no", code="provider_overloaded", retry_after=4.5)
    assert pause_before(0, error, 1) == 4.5
    assert pause_before(1, error, 1) is None


# a client that leaves


@pytest.mark.parametrize("reply", [Reply(wait=LONG), Reply(body=[LONG]), Reply(body=[b"[", *[0.01, b"1,"] * 3000])])
def test_a_client_that_leaves_ends_the_question(door, upstream, reply):
    up = upstream(reply)
    ours, theirs = socket.socketpair()
    with ours:
        leaver = threading.Thread(target=lambda: up.wait_asked() and (time.sleep(0.05), theirs.close()))
        leaver.start()
        scope = Scope(ours)
        with pytest.raises(Gone):
            door(up.url, retries=2).ask("POST", "/x", scope, dict, {})
        left = time.monotonic()
        assert up.wait_closed(5)
        assert up.gone[0] - left < 1
        assert scope.left
        assert len(up.asked) == 1
        leaver.join()


def test_a_client_that_leaves_between_two_attempts_ends_the_question(door, upstream):
    up = upstream(Reply(503, {"Retry-After": "5"}, b"busy"))
    ours, theirs = socket.socketpair()
    with ours:
        threading.Timer(0.05, theirs.close).start()
        begun = time.monotonic()
        with pytest.raises(Gone):
            door(up.url, retries=2).ask("POST", "/x", Scope(ours), dict, {})
        assert time.monotonic() - begun < 4


# the environment's proxies


class Proxy(Scripted):
    """A proxy on the way out: it answers `GET http://...` itself, and connects through what asks for a CONNECT."""

    def __init__(self, refusal: bytes = b"") -> None:
        super().__init__(self.run)
        self.heads = []
        self.refusal = refusal

    def run(self, client) -> None:
        head = read_head(client)
        self.heads.append(head.decode())
        if not head.startswith(b"CONNECT"):
            client.sendall(OK + b'Content-Length: 13\r\n\r\n{"via":"here"}'[:-1])
            return
        if self.refusal:
            client.sendall(self.refusal)
            return
        host, _, port = head.split()[1].decode().partition(":")
        with socket.create_connection((host, int(port)), LONG) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: me\r\n\r\n")
            back = threading.Thread(target=self.pump, args=(server, client), daemon=True)
            back.start()
            self.pump(client, server)
            back.join(LONG)

    @staticmethod
    def pump(source, sink) -> None:
        with contextlib.suppress(OSError):
            for block in iter(lambda: source.recv(65536), b""):
                sink.sendall(block)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def test_http_goes_through_the_environments_proxy(door, monkeypatch):
    with Proxy() as proxy:
        asking = door("http://h")  # made before there was one
        monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        asking = door("http://up.test:8080", [("X-Key", "k")])
        assert relayed(asking, "GET", "/a%2Fb?c")[2] == b'{"via":"here"'
        login = base64.b64encode(b"user:p@ss").decode()
        assert proxy.heads[0].split("\r\n") == [
            "GET http://up.test:8080/a%2Fb?c HTTP/1.1",
            "Host: up.test:8080",
            "X-Key: k",
            f"Proxy-Authorization: Basic {login}",
            "",
            "",
        ]


def test_this_machine_is_never_asked_for_through_a_proxy(door, upstream, monkeypatch):
    up = upstream(json_reply({"here": 1}))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    for host in ("127.0.0.1", "localhost"):
        assert door(f"http://{host}:{up.port}").ask("GET", "/x", Scope(), dict) == {"here": 1}


def test_no_proxy_is_obeyed(door, monkeypatch):
    with Scripted(lambda peer: read_head(peer) and peer.sendall(OK + b"Content-Length: 2\r\n\r\nhi")) as up:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
        monkeypatch.setenv("no_proxy", "up.test,other.test")
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", up.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        assert relayed(door("http://up.test"))[2] == b"hi"
        with pytest.raises(UpstreamError, match="cannot connect"):
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(*found[0][:4], ("127.0.0.1", closed_port()))])
            relayed(door("http://third.test"))


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    made = certificate(tmp_path_factory.mktemp("tls"))
    return made or pytest.skip("no openssl command here to make a certificate with")


@pytest.fixture
def tls(pem, monkeypatch):
    """Trust the certificate; gives the server's side."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    _connection.tls.cache_clear()
    yield server_context(pem)
    _connection.tls.cache_clear()


def secret_answers(peer):
    while True:
        head = read_head(peer)
        if not head:
            return
        peer.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for word in json.dumps({"asked": head.split()[1].decode()}).split():
            time.sleep(0.01)
            peer.sendall(b"%x\r\n%s\r\n" % (len(word), word.encode()))
        peer.sendall(b"0\r\n\r\n")


def test_https_keeps_its_connections_too(door, tls):
    with Scripted(secret_answers, tls) as up:
        asking = door(up.url)
        for path in ("/a", "/b"):
            assert asking.ask("GET", path, Scope(), dict) == {"asked": f"/v1{path}"}
        assert up.accepted == 1


def test_an_unknown_root_is_told_with_its_remedy_and_not_asked_again(door, pem, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    _connection.tls.cache_clear()
    with Scripted(secret_answers, server_context(pem)) as up:
        trouble = refused(door(up.url, retries=2))
        assert trouble.code == "provider_tls"
        assert "[server] ca_file" in trouble.message
        assert up.accepted == 1
    _connection.tls.cache_clear()


@pytest.fixture
def elsewhere(monkeypatch):
    """Make this machine look like another one, so that it is asked for through a proxy."""
    monkeypatch.setattr(_opener, "is_loopback", lambda _: False)


def test_https_is_tunnelled_through_the_environments_proxy(door, tls, monkeypatch, elsewhere):
    with Scripted(secret_answers, tls) as up, Proxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        asking = door(up.url.replace("127.0.0.1", "localhost"), [("X-Key", "k")])
        for path in ("/a", "/b"):
            assert asking.ask("GET", path, Scope(), dict) == {"asked": f"/v1{path}"}
        assert (up.accepted, proxy.accepted) == (1, 1)
        assert proxy.heads[0].split("\r\n") == [
            f"CONNECT localhost:{up.port} HTTP/1.1",
            f"Host: localhost:{up.port}",
            "Proxy-Authorization: Basic " + base64.b64encode(b"user:pass").decode(),
            "",
            "",
        ]
        asking.close()


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (b"HTTP/1.1 407 Who Are You\r\nContent-Length: 5\r\n\r\nlogin", "refused the tunnel: 407 Who Are You"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n<html>", "refused the tunnel: 403 Forbidden"),
        (b"SSH-2.0\r\n\r\n", "the proxy: the status line is malformed"),
        (b"", "the proxy: closed the connection"),
    ],
)
def test_a_proxy_that_refuses_is_told_from_the_upstream(door, monkeypatch, elsewhere, refusal, words):
    with Proxy(refusal or b"\0") as proxy:
        if not refusal:
            proxy.script = read_head
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        trouble = refused(door("https://up.test"))
        assert (trouble.status, trouble.code) == (502, "provider_unreachable")
        assert words in trouble.message


# the stubs are honest


def test_the_stubbed_door_and_the_real_one_give_the_same(door, upstream, request):
    up = upstream(lambda asked: json_reply({"said": asked.json, "key": asked.headers["x-key"]}, 429))
    real = door(up.url, [("X-Key", "k")])
    wire = request.getfixturevalue("wire")
    said = {"said": {"a": 1}, "key": "k"}
    wire.expect("POST", "https://up.test/v1/chat", {"a": 1}, {"x-key": "k"}, json=said, status=429)
    for asking in (real, door("https://up.test", [("X-Key", "k")])):
        with asking.relay("POST", "/v1/chat", (), b'{"a": 1}', Scope()) as exchange:
            body = b"".join(exchange.blocks())
        assert (exchange.status, exchange.headers["content-type"], json.loads(body)) == (429, "application/json", said)


# time matters


def test_words_pass_while_the_upstream_still_thinks(door, upstream, capsys):
    """Print how much later than the upstream says a word it is heard here."""
    said = []

    def words():
        for _ in range(20):
            yield 0.01
            said.append(time.monotonic())
            yield b"word "

    up = upstream(lambda _: Reply(body=words()))
    with door(up.url).relay("GET", "/", (), b"", Scope()) as exchange:
        heard = [time.monotonic() for block in exchange.blocks() if block]
    lags = sorted(later - earlier for later, earlier in zip(heard, said))
    with capsys.disabled():
        print(f"\nthe transport's median lag: {lags[len(lags) // 2] * 1e6:.0f} us", end=" ")
    assert len(heard) > 10  # they did not all come together


@pytest.mark.parametrize("body", [b"[1]", b"null", b'"text"', b"[" * 100_000, b'{"a": NaN}', b"{", b"\xff"])
def test_an_answer_that_is_no_json_object_is_the_upstreams_fault(upstream, door, body):
    up = upstream(Reply(200, {"Content-Type": "application/json"}, body))
    with pytest.raises(UpstreamError) as caught:
        door(up.url, retries=0).ask("GET", "/models", Scope(), dict)
    assert (caught.value.status, caught.value.code) == (502, "provider_error")


def test_a_version_in_the_middle_of_an_address_is_its_own():
    assert addresses("https://up.test/v1beta/openai/", "/v1") == ("https://up.test", "https://up.test/v1beta/openai")
    assert addresses("https://up.test/api/paas/v4", "/v1") == (
        "https://up.test/api/paas",
        "https://up.test/api/paas/v4",
    )


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(ValueError) as caught:
        addresses("http://alice:hunter2@up.test", "/v1")
    assert "hunter2" not in str(caught.value)
