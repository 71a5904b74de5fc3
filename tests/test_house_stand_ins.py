"""The stand-ins themselves: what other tests rely on when they rely on them."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest
import requests

from providers import Scope, UpstreamError, _transport
from upstream import Asked, Reply, json_reply


def ask(up, method="GET", path="/", body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=10)
    connection.request(method, path, body, headers or {})
    return connection, connection.getresponse()


def test_a_request_is_recorded_as_it_was_sent(upstream):
    up = upstream(lambda asked: json_reply({"got": asked.json}))
    connection, response = ask(up, "POST", "/v1/x?a=%2F", b'{"n": 1}', {"X-Thing": "yes"})
    assert response.read() == b'{"got": {"n": 1}}'
    asked = up.asked[0]
    assert (asked.method, asked.target, asked.path, asked.json) == ("POST", "/v1/x?a=%2F", "/v1/x", {"n": 1})
    assert asked.headers["x-thing"] == "yes"
    assert ("X-Thing", "yes") in asked.fields
    connection.close()


def test_a_connection_serves_many_requests_also_with_chunked_bodies(upstream):
    up = upstream(lambda asked: Reply(body=[asked.body[:2], asked.body[2:]]))
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=10)
    for text in (b"first", b"second"):
        connection.request(
            "POST", "/", iter([text[:3], text[3:]]), {"Transfer-Encoding": "chunked"}, encode_chunked=True
        )
        assert connection.getresponse().read() == text
    assert (up.accepted, up.connections) == (1, 1)
    connection.close()
    assert up.until(lambda: up.connections == 0)
    assert up.gone == []  # it left in good order


def test_chunks_go_out_while_the_rest_is_still_thought_about(upstream):
    thought = threading.Event()

    def pieces():
        yield b"word"
        assert thought.wait(20)
        yield b"end"

    connection, response = ask(upstream(Reply(body=pieces())))
    assert response.read1(10) == b"word"
    thought.set()
    assert response.read() == b"end"
    connection.close()


@pytest.mark.parametrize("reply", [Reply(wait=30), Reply(body=[30.0]), Reply(slow=1.0)], ids=["silent", "idle", "slow"])
def test_a_client_that_leaves_is_seen_at_once(upstream, reply):
    up = upstream(reply)
    with socket.create_connection(("127.0.0.1", up.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert up.wait_asked()
    assert up.wait_closed(10)
    assert up.until(lambda: up.connections == 0)


@pytest.mark.parametrize("body", [b"half", [b"half"]], ids=["counted", "chunked"])
def test_a_cut_answer_ends_too_early(upstream, body):
    connection, response = ask(upstream(Reply(body=body, cut=True)))
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_a_status_of_nought_hangs_up(upstream):
    with pytest.raises(ConnectionError):
        ask(upstream(Reply(0)))


def test_a_slow_answer_comes_byte_by_byte(upstream):
    up = upstream(Reply(body=b"ok", slow=0.001))
    with socket.create_connection(("127.0.0.1", up.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        pieces = list(iter(lambda: client.recv(1000), b""))
    assert len(pieces) > 10
    assert b"".join(pieces).endswith(b"\r\n\r\nok")


def test_hanging_up_closes_what_is_kept_open(upstream):
    up = upstream(Reply())
    connection, response = ask(up)
    response.read()
    up.hang_up()
    assert connection.sock.recv(1) == b""
    connection.close()


def test_trouble_of_an_answer_is_kept(upstream):
    def answer(asked: Asked) -> Reply:
        raise AssertionError(asked.target)

    up = upstream(answer)
    connection, response = ask(up, path="/wrong")
    assert response.status == 500
    connection.close()
    assert "/wrong" in str(up.troubles.pop())


def exchange(wire, url, *, headers=(), body=None, retries=0):
    """Ask as a provider does."""
    name = "up"
    options = {"retries": retries, "connect_timeout": 5, "first_byte_timeout": 5, "idle_timeout": 5}
    door = _transport.Door(name, url, options, lambda status, *_: UpstreamError(status, "no"), headers=headers)
    return door.relay("POST", "/a", [], body, Scope())


def test_the_wire_answers_what_was_declared(wire):
    wire.expect("POST", "https://up.test/a", {"n": 1}, {"x-key": "k"}, json={"long": "w" * 100}, status=429)
    got = exchange(wire, "https://up.test", headers=[("X-Key", "k")], body=b'{"n": 1}')
    blocks = list(got.blocks())
    assert got.status == 429
    assert got.headers["content-type"] == "application/json"
    assert b"".join(blocks) == b'{"long": "' + b"w" * 100 + b'"}'
    assert blocks.count(b"") >= 2
    assert max(map(len, blocks)) < 64


@pytest.mark.parametrize(("key", "body"), [("k", b'{"n": 2}'), ("other", b'{"n": 1}')], ids=["body", "header"])
def test_the_wire_refuses_what_was_not_declared(wire, key, body):
    wire.expect("POST", "https://up.test/a", {"n": 1}, {"x-key": "k"}, json={})
    with pytest.raises(AssertionError, match="Connection refused"):
        list(exchange(wire, "https://up.test", headers=[("X-Key", key)], body=body).blocks())
    assert wire.undeclared.pop()
    with pytest.raises(AssertionError, match="Not all requests"):
        wire.stop()
    wire.reset()


def test_a_declared_fault_is_an_unreachable_upstream_to_the_product(wire):
    wire.post("https://up.test/a", body=requests.ConnectionError("no route"))
    with pytest.raises(UpstreamError, match="no route") as caught:
        list(exchange(wire, "https://up.test").blocks())
    assert (caught.value.status, caught.value.code) == (502, "provider_unreachable")
