"""Connections to upstreams, on real sockets: made, secured, spoken through, waited on, kept."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time

import pytest

from providers import Aside, Gone, Scope, UpstreamError, _connection
from providers._connection import Connection, Pool, connected, secure
from scripted import RESET, Scripted, certificate, closed_port, read_exactly, read_head, server_context

LONG = 30.0  # seconds nobody is to wait for
BIG = b"x" * 8_000_000  # more than a kernel holds for a connection


def finished(waiting):
    """Run a wait to its end: (what it gave, how often it paused)."""
    pauses = 0
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


def dialled(port, seconds=LONG, scope=None, host="127.0.0.1"):
    return finished(connected(host, port, scope or Scope(), time.monotonic() + seconds))[0]


def shaken(connection, host, seconds=LONG):
    """Put TLS on a connection, or close it."""
    try:
        finished(secure(connection, host, Scope(), time.monotonic() + seconds))
    except BaseException:
        connection.hang_up()
        raise


@contextlib.contextmanager
def talking_to(script, context=None):
    """Give a connection to a peer that runs a script."""
    with Scripted(script, context) as up:
        connection = dialled(up.port)
        if context:
            shaken(connection, "localhost")
        try:
            yield connection
        finally:
            connection.hang_up()


@pytest.fixture
def deaf():
    """A port that is there and takes nobody in, as behind a firewall that drops what it does not like."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(listener.getsockname()) == 0:
                pytest.skip("this system takes in more connections than it was told to")
        yield listener.getsockname()[1]


def addresses(monkeypatch, *ports):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)


# connecting


def test_a_refused_connection_says_where_and_why():
    port = closed_port()
    with pytest.raises(UpstreamError, match=f"cannot connect to 127.0.0.1:{port}: Connection refused") as caught:
        dialled(port)
    assert (caught.value.status, caught.value.code) == (502, "provider_unreachable")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_a_name_that_does_not_resolve_says_so(host):
    with pytest.raises(UpstreamError, match=f"cannot resolve {host}"):
        dialled(80, host=host)


def test_a_connection_that_takes_too_long_is_given_up(deaf):
    begun = time.monotonic()
    with pytest.raises(UpstreamError, match="timed out"):
        dialled(deaf, seconds=0.2)
    assert 0.15 < time.monotonic() - begun < 5


def test_a_client_that_leaves_ends_the_connecting(deaf):
    ours, theirs = socket.socketpair()
    theirs.close()
    begun = time.monotonic()
    with ours, pytest.raises(Gone):
        dialled(deaf, scope=Scope(ours))
    assert time.monotonic() - begun < 5


def test_the_next_address_is_tried_when_one_refuses(monkeypatch):
    with Scripted(lambda connection: connection.recv(1)) as up:
        addresses(monkeypatch, closed_port(), up.port)
        dialled(0).hang_up()


def test_the_next_address_is_tried_when_one_is_deaf(monkeypatch, deaf):
    with Scripted(lambda connection: connection.recv(1)) as up:
        addresses(monkeypatch, deaf, up.port)
        dialled(0, seconds=1).hang_up()


def test_each_address_has_its_share_of_the_time(monkeypatch):
    shares = []
    addresses(monkeypatch, 1, 2, 3)

    def silent(*given):
        shares.append(given[-1])
        yield from ()
        return errno.ETIMEDOUT

    monkeypatch.setattr(_connection, "_connect", silent)
    with pytest.raises(UpstreamError):
        dialled(0, seconds=30)
    assert shares == [pytest.approx(share, abs=3) for share in (10, 15, 30)]


def test_an_address_of_a_family_that_is_not_there_is_passed_over(monkeypatch):
    with Scripted(lambda connection: connection.recv(1)) as up:
        addresses(monkeypatch, up.port)
        there = socket.getaddrinfo()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(12345, socket.SOCK_STREAM, 0, "", ("x", 1)), *there])
        dialled(0).hang_up()
        _connection._spelled_out.cache_clear()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(12345, socket.SOCK_STREAM, 0, "", ("x", 1))])
        with pytest.raises(UpstreamError, match="cannot connect"):
            dialled(0)


# speaking


def test_all_is_said_however_much_it_is():
    heard = []
    with talking_to(lambda peer: heard.append(read_exactly(peer, len(BIG)))) as connection:
        assert finished(connection.send(BIG, Scope(), LONG))[0]
        assert finished(connection.receive(Scope(), LONG))[0] == b""
    assert heard == [BIG]


def test_an_answer_while_we_speak_ends_our_speech_and_is_kept():
    def script(peer):
        read_exactly(peer, 100)
        peer.sendall(b"HTTP/1.1 413 Too Much\r\n\r\n")
        peer.recv(1, socket.MSG_PEEK)
        held.wait(LONG)

    held = threading.Event()
    with talking_to(script) as connection:
        begun = time.monotonic()
        assert not finished(connection.send(BIG, Scope(), LONG))[0]
        assert finished(connection.receive(Scope(), LONG))[0].startswith(b"HTTP/1.1 413")
        assert time.monotonic() - begun < LONG / 2  # and not when the peer lost its patience
        held.set()


def test_a_go_on_while_we_speak_is_no_answer():
    def script(peer):
        read_exactly(peer, 100)
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.1)
        heard.append(len(read_exactly(peer, len(BIG) - 100)))
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    heard = []
    with talking_to(script) as connection:
        assert finished(connection.send(BIG, Scope(), LONG))[0]
        said = b""
        while not said.endswith(b"200 OK\r\n\r\n"):
            said += finished(connection.receive(Scope(), LONG))[0]
        assert said.startswith(b"HTTP/1.1 100")
    assert heard == [len(BIG) - 100]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_leaves_while_we_speak_ends_our_speech(how):
    def script(peer):
        read_exactly(peer, 100)
        if how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with talking_to(script) as connection:
        assert not finished(connection.send(BIG, Scope(), LONG))[0]


def test_a_peer_that_does_not_listen_is_given_up():
    held = threading.Event()
    with talking_to(lambda _: held.wait(LONG)) as connection:
        with pytest.raises(UpstreamError, match="does not take the request") as caught:
            finished(connection.send(BIG, Scope(), 0.1))
        assert (caught.value.status, caught.value.code) == (504, "provider_timeout")
        held.set()


def test_a_client_that_leaves_ends_our_speech():
    ours, theirs = socket.socketpair()
    held = threading.Event()
    with talking_to(lambda _: held.wait(LONG)) as connection, ours:
        threading.Timer(0.05, theirs.close).start()
        with pytest.raises(Gone):
            finished(connection.send(BIG, Scope(ours), LONG))
        held.set()


# listening


def test_what_is_there_is_given_without_a_pause():
    with talking_to(lambda peer: (peer.sendall(b"word"), peer.recv(1))) as connection:
        assert Scope().wait(connection.sock, LONG)
        assert finished(connection.receive(Scope(), LONG)) == (b"word", 0)


def test_a_pause_is_told_before_each_wait(monkeypatch):
    monkeypatch.setattr(_connection, "TICK", 0.02)
    with talking_to(lambda peer: (time.sleep(0.2), peer.sendall(b"word"), peer.recv(1))) as connection:
        said, pauses = finished(connection.receive(Scope(), LONG))
        assert said == b"word"
        assert 2 <= pauses <= 12


def test_a_silent_peer_is_given_up():
    with talking_to(lambda peer: peer.recv(1)) as connection:
        begun = time.monotonic()
        with pytest.raises(UpstreamError, match=r"said nothing for 0\.1 s") as caught:
            finished(connection.receive(Scope(), 0.1))
        assert (caught.value.status, caught.value.code) == (504, "provider_timeout")
        assert time.monotonic() - begun < 5


def test_hanging_up_ends_a_wait_in_another_thread():
    with talking_to(lambda peer: peer.recv(1)) as connection:
        threading.Timer(0.05, connection.hang_up).start()
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            assert finished(connection.receive(Scope(), LONG))[0] == b""
        assert time.monotonic() - begun < 10


# TLS


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    made = certificate(tmp_path_factory.mktemp("tls"))
    return made or pytest.skip("no openssl command here to make a certificate with")


@pytest.fixture
def trusting(pem, monkeypatch):
    """Trust the certificate, as SSL_CERT_FILE tells; gives the server's side."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    _connection.tls.cache_clear()
    yield server_context(pem)
    _connection.tls.cache_clear()


def test_words_go_both_ways_over_tls(trusting):
    with talking_to(lambda peer: peer.sendall(read_head(peer).upper()), trusting) as connection:
        assert connection.sock.selected_alpn_protocol() in (None, "http/1.1")
        assert finished(connection.send(b"word\r\n\r\n", Scope(), LONG))[0]
        assert finished(connection.receive(Scope(), LONG))[0] == b"WORD\r\n\r\n"


def test_all_is_said_over_tls_though_it_has_words_of_its_own(trusting):
    """A server's session tickets make the socket readable before it has heard us."""

    def script(peer):
        for _ in range(20):
            heard.append(len(read_exactly(peer, 100_000)))
            time.sleep(0.002)
        heard.append(len(read_exactly(peer, len(BIG))))
        peer.sendall(b"done")

    heard = []
    with talking_to(script, trusting) as connection:
        assert finished(connection.send(BIG + b"x" * 2_000_000, Scope(), LONG))[0]
        assert finished(connection.receive(Scope(), LONG))[0] == b"done"
    assert sum(heard) == len(BIG) + 2_000_000


def test_an_answer_while_we_speak_is_kept_over_tls(trusting):
    def script(peer):
        read_exactly(peer, 100)
        peer.sendall(b"HTTP/1.1 413 Too Much\r\n\r\n")
        held.wait(LONG)

    held = threading.Event()
    with talking_to(script, trusting) as connection:
        begun = time.monotonic()
        assert not finished(connection.send(BIG, Scope(), LONG))[0]
        assert finished(connection.receive(Scope(), LONG))[0].startswith(b"HTTP/1.1 413")
        assert time.monotonic() - begun < LONG / 2  # and not when the peer lost its patience
        held.set()


def test_an_unknown_root_is_refused_with_its_remedy(pem, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    _connection.tls.cache_clear()
    with pytest.raises(UpstreamError, match="localhost is not who it says") as caught:  # noqa: SIM117
        with talking_to(lambda peer: peer.recv(1), server_context(pem)):
            pass
    assert "[server] ca_file" in caught.value.message
    assert (caught.value.status, caught.value.code, caught.value.passing) == (502, "provider_tls", False)
    _connection.tls.cache_clear()


def test_another_name_than_the_certificates_is_refused(trusting):
    with Scripted(lambda peer: peer.recv(1), trusting) as up:
        connection = dialled(up.port)
        with pytest.raises(UpstreamError, match=r"up\.test is not who it says"):
            shaken(connection, "up.test")


def test_a_peer_that_speaks_no_tls_is_told_so():
    with Scripted(lambda peer: peer.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")) as up:
        with pytest.raises(UpstreamError, match="no TLS with up") as caught:
            shaken(dialled(up.port), "up")
        assert caught.value.code == "provider_tls"


def test_a_peer_that_says_nothing_is_given_up():
    with Scripted(lambda peer: peer.recv(1000) and peer.recv(1)) as up:
        with pytest.raises(UpstreamError, match="timed out") as caught:
            shaken(dialled(up.port), "up", 0.1)
        assert caught.value.code == "provider_unreachable"


def test_a_python_without_ssl_says_so(monkeypatch):
    monkeypatch.setattr(_connection, "ssl", None)
    _connection.tls.cache_clear()
    with socket.socket() as sock, pytest.raises(UpstreamError, match="no ssl module"):
        shaken(Connection(sock), "up")


def test_there_is_one_context_and_it_checks():
    assert _connection.tls() is _connection.tls()
    assert _connection.tls().verify_mode == ssl.CERT_REQUIRED
    assert _connection.tls().check_hostname


# keeping


class Pair:
    """A connection with its other end in hand."""

    def __init__(self) -> None:
        ours, self.end = socket.socketpair()
        ours.setblocking(False)
        self.connection = Connection(ours)

    @property
    def open(self) -> bool:
        return self.connection.sock.fileno() >= 0

    def close(self) -> None:
        self.connection.hang_up()
        self.end.close()


@pytest.fixture
def pairs():
    made = [Pair() for _ in range(3)]
    yield made
    for pair in made:
        pair.close()


KEY = ("http", "up", "up")


def test_the_last_connection_kept_is_the_first_taken(pairs):
    pool = Pool()
    for pair in pairs:
        pool.give(KEY, pair.connection)
    assert pool.take(("https", "up", "up")) is None
    assert [pool.take(KEY) for _ in range(4)] == [pair.connection for pair in pairs[::-1]] + [None]


def test_a_connection_with_something_to_read_is_thrown_away(pairs):
    pool = Pool()
    for pair in pairs:
        pool.give(KEY, pair.connection)
    pairs[2].end.send(b"surplus")
    pairs[1].end.close()
    assert pool.take(KEY) is pairs[0].connection
    assert [pair.open for pair in pairs] == [True, False, False]


def test_an_old_connection_is_thrown_away(pairs, monkeypatch):
    pool = Pool()
    pool.give(KEY, pairs[0].connection)
    monkeypatch.setattr(_connection, "KEPT_FOR", 0)
    assert pool.take(KEY) is None
    assert not pairs[0].open


def test_no_more_than_so_many_are_kept(pairs, monkeypatch):
    monkeypatch.setattr(_connection, "MOST_KEPT", 2)
    pool = Pool()
    for pair in pairs:
        pool.give(KEY, pair.connection)
    assert [pair.open for pair in pairs] == [False, True, True]


def test_a_closed_pool_keeps_nothing(pairs):
    pool = Pool()
    pool.give(KEY, pairs[0].connection)
    pool.close()
    pool.give(KEY, pairs[1].connection)  # an answer that ended later
    assert [pair.open for pair in pairs] == [False, False, True]


def test_where_there_is_no_poll_select_tells_what_is_fresh(pairs, monkeypatch):
    monkeypatch.delattr(_connection.select, "poll", raising=False)
    pool = Pool()
    pool.give(KEY, pairs[0].connection)
    assert pool.take(KEY) is pairs[0].connection
    pool.give(KEY, pairs[0].connection)
    pairs[0].end.close()
    assert pool.take(KEY) is None


def test_an_address_in_numbers_is_connected_to_without_a_thread():
    """A crowd of new connections must not queue for one; a name, whose look-up blocks, has to."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        port = listener.getsockname()[1]
        for host, aside in (("127.0.0.1", False), ("localhost", True)):
            scope, seen = Scope(), []
            connecting = connected(host, port, scope, time.monotonic() + LONG)
            with pytest.raises(StopIteration) as end:
                while True:
                    next(connecting)
                    seen.append(isinstance(scope.pending, Aside))
            end.value.value.hang_up()
            assert any(seen) is aside
