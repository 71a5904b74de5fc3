"""The contract of the ground floor: trouble, scopes, calls, and what a provider is when it says nothing."""

from __future__ import annotations

import select
import socket
import threading
import time

import pytest

from providers import Allowed, Call, Gone, Provider, Scope, Trouble, UpstreamError


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=["rdhup", "poll", "select"])
def kernel(request, monkeypatch):
    """What the system can tell of a socket: that its other end hung up, or only that it stirs."""
    if request.param != "rdhup":
        monkeypatch.delattr(select, "POLLRDHUP", raising=False)
    if request.param == "select":
        monkeypatch.delattr(select, "poll", raising=False)
    if request.param == "rdhup" and not hasattr(select, "POLLRDHUP"):
        pytest.skip("this system has no POLLRDHUP")
    return request.param


# trouble


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_the_status_tells_the_kind_of_trouble(status, kind):
    assert Trouble(status, "no").kind == kind


def test_trouble_is_told_in_openais_manner():
    trouble = Trouble(400, "no", {"A": "b"}, kind="odd", code="bad", param="messages[1].role")
    told = {"error": {"message": "no", "type": "odd", "param": "messages[1].role", "code": "bad"}}
    assert trouble.document() == told
    assert (str(trouble), trouble.headers) == ("no", {"A": "b"})


def test_trouble_of_an_upstream_names_it_and_what_it_said():
    told = UpstreamError(502, "no", provider="up").document()["error"]
    assert told["provider"] == "up"
    assert "provider_status" not in told
    told = UpstreamError(503, "no", provider="up", provider_status=529, retry_after=2.0).document()["error"]
    assert (told["provider_status"], told["retry_after"]) == (529, 2.0)


@pytest.mark.parametrize("code", sorted(UpstreamError.PASSING))
def test_some_trouble_passes(code):
    assert UpstreamError(502, "no", code=code).passing


@pytest.mark.parametrize("code", [None, "insufficient_quota", "provider_auth", "provider_timeout", "stream_truncated"])
def test_other_trouble_does_not(code):
    assert not UpstreamError(429, "no", code=code).passing


# scopes: closing


def test_a_scope_closes_in_reverse_order_and_once():
    closed = []
    scope = Scope()
    for name in "abc":
        scope.add(lambda name=name: closed.append(name))
    scope.close()
    scope.close()
    assert closed == ["c", "b", "a"]


def test_what_is_opened_too_late_is_closed_at_once():
    closed = []
    scope = Scope()
    scope.close()
    scope.add(lambda: closed.append(1))
    assert closed == [1]


def test_what_was_closed_in_good_order_is_forgotten():
    class Thing:
        closed = False

        def close(self) -> None:
            self.closed = True

    scope, one, other = Scope(), Thing(), Thing()
    scope.add(one.close)
    scope.add(other.close)
    scope.drop(one.close)
    scope.drop(one.close)  # twice does no harm
    scope.close()
    assert (one.closed, other.closed) == (False, True)


def test_one_that_cannot_close_does_not_keep_the_others_open():
    closed = []
    scope = Scope()
    scope.add(lambda: closed.append(1))
    scope.add(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scope.close()
    assert closed == [1]


# scopes: waiting


def test_a_scope_waits_for_a_socket(pair, kernel):
    ours, theirs = pair
    scope = Scope()
    assert not scope.wait(ours, 0.01)
    theirs.send(b"x")
    assert scope.wait(ours, 10)
    assert scope.wait(ours, 10, write=True, read=False)


def test_a_wait_ends_as_soon_as_there_is_something(pair, kernel):
    ours, theirs = pair
    sender = threading.Timer(0.05, theirs.send, (b"x",))
    sender.start()
    begun = time.monotonic()
    assert Scope().wait(ours, 30)
    assert time.monotonic() - begun < 10
    sender.join()


@pytest.mark.parametrize("client", [True, False])
def test_a_wait_for_nothing_is_a_sleep(pair, kernel, client):
    begun = time.monotonic()
    assert not Scope(pair[0] if client else None).wait(None, 0.05)
    assert time.monotonic() - begun >= 0.045
    assert not Scope().wait(None, -1)


def test_a_client_that_leaves_ends_the_wait_and_closes_what_was_opened(pair, kernel):
    client, its_end = pair
    sock, other = socket.socketpair()
    closed = []
    with sock, other:
        scope = Scope(client)
        scope.add(lambda: closed.append(1))
        leaving = threading.Timer(0.05, its_end.close)
        leaving.start()
        begun = time.monotonic()
        with pytest.raises(Gone):
            scope.wait(sock, 30)
        assert time.monotonic() - begun < 10
        assert closed == [1]
        assert scope.left
        assert not scope.wait(sock, 0.01)  # who tidies up may wait again
        leaving.join()


def test_a_client_that_is_reset_has_left(kernel):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        client, _ = listener.accept()
        with client:
            client.setblocking(False)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            theirs.close()
            with pytest.raises(Gone):
                Scope(client).wait(None, 30)


def test_a_client_that_speaks_before_its_turn_has_not_left(pair, kernel):
    client, its_end = pair
    client.setblocking(False)
    its_end.send(b"GET /next HTTP/1.1\r\n")
    scope = Scope(client)
    assert not scope.wait(None, 0.05)
    assert not scope.left
    if kernel == "rdhup":  # elsewhere its leaving is seen when it is written to
        its_end.close()
        with pytest.raises(Gone):
            scope.wait(None, 30)


def test_a_socket_hung_up_by_another_thread_is_not_waited_for(pair, kernel):
    ours, _ = pair
    ours.close()
    assert Scope().wait(ours, 30)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="select knows no more than 1024 descriptors")
def test_no_socket_is_too_new_to_be_waited_for():
    """Descriptors beyond 1024 are beyond select, and a busy proxy has them."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most < 1200:
        pytest.skip("too few descriptors here to see it")
    opened = [socket.socket() for _ in range(1100)]
    try:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            assert ours.fileno() > 1024
            assert Scope().wait(ours, 10)
    finally:
        for sock in opened:
            sock.close()


# calls


def test_a_call_is_asked_anew_with_changes():
    scope = Scope()
    call = Call({"model": "m", "stream": True, "top_k": 1}, "alice", "id", scope, strict=True)
    other = call.asking(model="n", top_k=None, seed=3)
    assert call.chat == {"model": "m", "stream": True, "top_k": 1}
    assert other.chat == {"model": "n", "stream": True, "seed": 3}
    assert (other.user, other.id, other.scope, other.strict) == ("alice", "id", scope, True)
    assert (call.model, call.streams) == ("m", True)
    assert (Call({}).model, Call({}).streams) == ("", False)


def test_a_warning_is_kept_in_the_scope():
    call = Call({})
    call.asking(model="m").warn("top_k", "not supported by up")
    assert call.scope.warnings == {"top_k": "not supported by up"}


def test_a_strict_client_gets_a_refusal_instead_of_a_warning():
    call = Call({}, strict=True)
    with pytest.raises(UpstreamError, match="top_k: no") as caught:
        call.warn("top_k", "no")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", "top_k")
    assert call.scope.warnings == {}


# what a client may ask for


@pytest.mark.parametrize(
    ("lists", "one", "whole", "part"),
    [
        ([], True, True, True),
        ([[]], False, False, False),
        ([["a/m"]], True, False, True),
        ([["a/m2", "a/"]], False, False, True),
        ([["a/n", "a/m*"]], True, False, True),
        ([["a/*"]], True, True, True),
        ([["*"]], True, True, True),
        ([["a*"]], True, True, True),
        ([["ab/*", "b/*", "A/*", "", "/*", "a", "*/m", "a/*m"]], False, False, True),
        ([["b/*"]], False, False, False),
        ([["a/*"], ["b/*"]], False, False, False),
        ([["a/*"], ["a/m"]], True, False, True),
        ([["a/*"], []], False, False, False),
    ],
)
def test_what_is_allowed_stands_in_every_list(lists, one, whole, part):
    allowed = Allowed(*lists)
    assert (allowed.one("a", "m"), allowed.whole("a"), allowed.part("a")) == (one, whole, part)


# a provider that overrides nothing


def test_a_bare_provider_says_what_it_has_not():
    bare = Provider("bare", {})
    assert (bare.names, bare.models(), bare.survey(Scope()), bare.embeds_at("m")) == (("bare",), [], ([], {}), "")
    assert bare.knows("bare/m")
    assert not bare.knows("other/m")
    for ask, status in [
        (lambda: next(bare.chat(Call({}))), 400),
        (lambda: bare.embed(Call({})), 400),
        (lambda: bare.count_tokens(Call({})), 501),
        (lambda: bare.relay("GET", "/", [], b"", Scope()), 404),
    ]:
        with pytest.raises(UpstreamError, match="bare") as caught:
            ask()
        assert (caught.value.status, caught.value.code) == (status, "unsupported_operation")
    bare.close()


def test_who_has_a_chat_of_its_own_may_block_unless_it_says_otherwise():
    class Prompt(Provider):
        blocks = False

    class Named(Prompt):
        """Asks as the other does."""

    class Slow(Prompt):
        def chat(self, call):
            yield {}

    assert (Provider.blocks, Prompt.blocks, Named.blocks, Slow.blocks) == (True, False, False, True)
