"""The loop: who waits costs no thread, who may block does not hold up the others, and all come to an end."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

import pytest

from plugins import Response, _client, _server, late
from plugins._server import Server
from plugins._settings import SERVER
from providers import BRIEFLY, Aside
from talking import GET, LONG, Client, in_loop, in_thread, serve, told, until

__all__ = ["serve"]


# full houses


def test_one_connection_too_many_is_told_so(serve):
    open_ = serve(max_connections=3)
    clients = [open_() for _ in range(3)]
    for client in clients:
        client.say(GET).json()
    for _ in range(5):
        surplus = open_().say(GET)
        status, headers, body = surplus.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["error"]["code"] == "overloaded"
        assert surplus.ended()
        surplus.__exit__()
    clients[0].say(GET).json()
    clients.pop().__exit__()
    assert until(lambda: len(open_.server._open) < 3)
    open_().say(GET).json()


def test_far_too_many_connections_are_closed_without_a_word(serve, monkeypatch):
    monkeypatch.setattr(_server, "SPARE", 2)
    monkeypatch.setattr(_client, "FAREWELL", LONG)
    open_ = serve(max_connections=1)
    open_().say(GET).json()
    for _ in range(2):
        assert open_().answer()[0] == 503
    assert open_().ended()


def test_one_request_too_many_is_told_so(serve):
    held = threading.Event()
    open_ = serve(lambda request: held.wait(LONG) and told(request), threads=2, how=in_thread)
    clients = [open_().say(GET) for _ in range(2)]
    assert until(lambda: open_.server._crew.busy == 2)
    surplus = open_().say(GET)
    assert surplus.answer()[0] == 503
    assert surplus.ended()
    held.set()
    assert [client.json()["target"] for client in clients] == ["/a", "/a"]
    assert until(lambda: open_.server._crew.busy == 0)
    open_().say(GET).json()


def test_the_silent_do_not_keep_the_others_waiting(serve):
    open_ = serve(threads=2)
    for data in [b"", b"GET / HTTP/1.1\r\nHost:"] * 100:
        open_().say(data)
    begun = time.monotonic()
    assert open_().say(GET).json()["target"] == "/a"
    assert time.monotonic() - begun < 5
    assert open_.server._crew.busy <= 2


def test_a_loop_that_stumbles_goes_on(serve, caplog):
    open_ = serve()
    open_.server.on_tick = lambda: 1 / 0
    assert until(lambda: "ZeroDivisionError" in caplog.text)
    open_.server.on_tick = lambda: None
    open_().say(GET).json()


# the end


def test_a_drain_lets_open_answers_finish(serve):
    go_on = threading.Event()

    def words():
        yield b"one"
        go_on.wait(LONG)
        yield b"two"

    open_ = serve(lambda request: Response(200, {}, words()) if request.path == "/a" else told(request), how=in_thread)
    idle, busy = open_(), open_()
    idle.say(GET.replace(b"/a", b"/b")).json()
    busy.say(GET)
    assert busy.head()[0] == 200
    open_.server.drain()
    assert idle.ended()
    assert open_.thread.is_alive()
    go_on.set()
    assert busy.stream.read() == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    open_.thread.join(LONG)
    assert not open_.thread.is_alive()
    with pytest.raises(ConnectionError):
        open_()


def test_a_drain_ends_with_the_last_answer():
    """Not at the loop's next tick, which is far off here."""
    held, begun = threading.Event(), threading.Event()
    options = {name: row[0] for name, row in SERVER.items()}
    server = Server(("127.0.0.1", 0), options, lambda _: begun.set() or (held.wait(LONG) and Response()))
    server._crew.REST = 0.01
    loop = threading.Thread(target=server.serve_forever, args=(60.0,), daemon=True)
    loop.start()
    with Client(server.server_port) as client:
        client.say(GET)
        assert begun.wait(LONG)
        server.drain()
        held.set()
        assert client.answer()[1]["connection"] == "close"
    loop.join(LONG)
    assert not loop.is_alive()
    server.server_close()


def test_what_is_in_a_hurry_does_not_wait_for_the_next_tick():
    server = Server(("127.0.0.1", 0), {name: row[0] for name, row in SERVER.items()}, told)
    ticked = threading.Event()
    server.on_tick = ticked.set
    server.bells()  # they are there before the first signal can be
    loop = threading.Thread(target=server.serve_forever, args=(60.0,), daemon=True)
    loop.start()
    server.hurry()
    assert ticked.wait(LONG)
    server.drain()
    loop.join(LONG)
    server.server_close()


def test_a_drain_does_not_wait_for_ever(serve):
    held = threading.Event()
    open_ = serve(lambda request: held.wait(LONG) and Response(), drain=0.1, how=in_thread)
    open_().say(GET)
    assert until(lambda: open_.server._crew.busy == 1)
    open_.server.drain()
    open_.thread.join(LONG)
    assert not open_.thread.is_alive()
    held.set()
    assert until(lambda: open_.server._crew.busy == 0)


def test_a_drain_before_the_start_ends_it_at_once():
    server = Server(("127.0.0.1", 0), {name: row[0] for name, row in SERVER.items()}, told)
    server.drain()
    server.serve_forever()
    server.server_close()


def test_an_address_may_be_of_the_newer_kind():
    try:
        server = Server(("::1", 0), {name: row[0] for name, row in SERVER.items()}, told)
    except OSError:
        pytest.skip("no IPv6 here")
    assert server.server_port
    server.server_close()


# the loop


def threads():
    return threading.active_count()


def test_who_waits_costs_no_thread(serve):
    """Fifty requests wait, each for a socket of its own, and no thread is there but those of the test."""
    ends = [socket.socketpair() for _ in range(50)]

    @late
    def waits(request):
        ours = ends[int(request.path[1:])][0]
        assert (yield from request.scope.waiting(ours, LONG))
        return Response(200, {}, ours.recv(10))

    open_ = serve(waits, how=lambda respond: respond)
    before = threads()
    clients = [open_().say(GET.replace(b"/a", b"/%d" % n)) for n in range(50)]
    assert until(lambda: sum(handler.watched is not None for handler in open_.server._all_open()) == 50)
    assert threads() == before
    for n in reversed(range(50)):
        ends[n][1].send(b"%d" % n)
        assert clients[n].answer()[2] == b"%d" % n
    for pair in ends:
        for end in pair:
            end.close()


def test_a_wait_ends_when_its_time_is_up(serve):
    ours, theirs = socket.socketpair()

    @late
    def waits(request):
        began = time.monotonic()
        ready = yield from request.scope.waiting(ours, 0.2)
        return Response.of([ready, 0.15 < time.monotonic() - began < LONG])

    with ours, theirs:
        assert serve(waits, how=lambda respond: respond)().say(GET).json() == [False, True]


def test_a_sleep_is_a_wait_for_nothing(serve):
    @late
    def sleeps(request):
        yield from request.scope.waiting(None, 0.05)
        return Response.of("awake")

    assert serve(sleeps, how=lambda respond: respond)().say(GET).json() == "awake"


def test_a_client_that_leaves_ends_what_waits_for_it(serve):
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    @late
    def waits(request):
        request.scope.add(ended.set)
        yield from request.scope.waiting(ours, LONG)

    with ours, theirs:
        client = serve(waits, how=lambda respond: respond)().say(GET)
        time.sleep(0.05)
        client.__exit__()
        assert ended.wait(LONG)


def test_what_says_that_it_may_block_holds_up_nobody(serve):
    go_on, where = threading.Event(), []

    @late
    def blocks(request):
        if request.path == "/slow":
            yield from request.scope.aside()
            where.append(threading.current_thread())
            assert go_on.wait(LONG)
            yield from request.scope.waiting(None, 0.01)
            where.append(threading.current_thread())
        return Response.of(request.path)

    open_ = serve(blocks, how=lambda respond: respond)
    slow = open_().say(GET.replace(b"/a", b"/slow"))
    assert until(lambda: where)
    for _ in range(3):
        assert open_().say(GET).json() == "/a"
    go_on.set()
    assert slow.json() == "/slow"
    assert where[0] is not open_.thread
    assert where[1] is open_.thread  # once it waits like the others, it is with the others again


def test_what_may_block_to_its_end_stays_in_its_thread(serve):
    where = []

    @late
    def blocks(request):
        yield from request.scope.aside(Aside(stays=True))
        for _ in range(3):
            yield from request.scope.waiting(None, 0.01)
            where.append(threading.current_thread())
        return Response.of("done")

    open_ = serve(blocks, how=lambda respond: respond)
    assert open_().say(GET).json() == "done"
    assert len(set(where)) == 1
    assert where[0] is not open_.thread


def test_a_crowd_of_brief_things_needs_few_threads(serve):
    most = []

    @late
    def brief(request):
        yield from request.scope.aside(BRIEFLY)
        most.append(threads())
        return Response.of("done")

    open_ = serve(brief, how=lambda respond: respond)
    open_.server._crew.MOMENT = LONG  # however busy this machine is
    before = threads()
    clients = [open_().say(GET) for _ in range(60)]
    assert [client.json() for client in clients] == ["done"] * 60
    assert max(most) <= before + _server.Crew.FEW


def test_a_body_without_end_lets_others_have_their_turn(serve):
    """A body that never pauses, and a client that takes it as fast as it comes."""

    def endless():
        while True:
            yield b"x" * 65536

    open_ = serve(lambda request: Response(200, {}, endless() if request.path == "/a" else b"quick"), how=in_loop)
    greedy = open_().say(GET)
    stop = threading.Event()

    def take():
        while not stop.is_set():
            greedy.sock.recv(1 << 20)

    taking = threading.Thread(target=take)
    taking.start()
    try:
        for _ in range(10):
            assert open_().say(GET.replace(b"/a", b"/b")).answer()[2] == b"quick"
    finally:
        stop.set()
        taking.join()


def test_a_client_that_takes_nothing_holds_up_nobody(serve):
    open_ = serve(lambda request: Response(200, {}, b"x" * 20_000_000), how=in_loop)
    lazy = open_().say(GET)
    time.sleep(0.05)
    with open_() as client:
        client.say(GET)
        assert len(client.answer()[2]) == 20_000_000
    assert len(lazy.answer()[2]) == 20_000_000


def test_what_a_client_says_ahead_is_kept_for_later_but_not_without_end(serve, monkeypatch):
    monkeypatch.setattr(_server, "MOST_AHEAD", 1000)
    ours, theirs = socket.socketpair()

    @late
    def waits(request):
        if request.path == "/a":
            yield from request.scope.waiting(ours, LONG)
        return Response.of(request.path)

    with ours, theirs:
        open_ = serve(waits, how=lambda respond: respond)
        client = open_().say(GET)
        for n in range(300):
            client.say(GET.replace(b"/a", b"/%d" % n))
        assert until(lambda: any(len(handler.ahead) > 1000 for handler in open_.server._all_open()))
        theirs.send(b"!")
        assert [client.json() for _ in range(301)] == ["/a", *(f"/{n}" for n in range(300))]


def test_a_socket_that_stirs_while_nobody_waits_for_it_is_let_be(serve):
    """It lies idle, or whoever has it is busy: the loop must not be told of it again and again."""
    ours, theirs = socket.socketpair()

    @late
    def waits(request):
        yield from request.scope.waiting(ours, LONG)
        return Response.of(ours.recv(1).decode())

    with ours, theirs:
        open_ = serve(waits, how=lambda respond: respond)
        client = open_().say(GET)
        theirs.send(b"12")
        assert client.json() == "1"
        assert until(lambda: ours.fileno() not in open_.server._watched)
        assert client.say(GET).json() == "2"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_who_cannot_be_taken_now_is_taken_later_and_the_others_go_on(serve, caplog):
    """With no descriptors left, the loop does not turn about the one connection it cannot take."""
    import resource

    open_ = serve(how=in_loop)
    first = open_()
    first.say(GET).json()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.socket()
    with socket.socket() as probe:
        free = probe.fileno()  # all below are taken
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        waiting.connect(("127.0.0.1", open_.server.server_port))
        assert until(lambda: "cannot accept" in caplog.text)
        assert first.say(GET).json()["target"] == "/a"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    waiting.settimeout(LONG)
    with waiting:
        waiting.sendall(GET)
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    assert caplog.text.count("cannot accept") < 100


def test_what_cannot_be_waited_for_ends_its_request_and_no_other(serve, tmp_path, caplog):
    """The selector takes no plain file."""
    (tmp_path / "file").write_text("x")

    @late
    def waits(request):
        if request.path == "/a":
            with (tmp_path / "file").open() as file:
                yield from request.scope.waiting(file, LONG)
        return Response.of(request.path)

    open_ = serve(waits, how=lambda respond: respond)
    assert open_().say(GET).ended()
    assert "a connection failed" in caplog.text
    assert open_().say(GET.replace(b"/a", b"/b")).json() == "/b"
    assert until(lambda: len(open_.server._open) <= 1)


def test_who_has_a_turn_to_come_gets_one_and_not_two(serve):
    """More of a client comes when its next request was found and before its turn: what that waits for counts."""
    slept = []

    @late
    def sleeps(request):
        slept.append((yield from request.scope.waiting(None, 0.1)))
        return Response.of(request.path)

    open_ = serve(sleeps, how=lambda respond: respond)
    with open_() as client:
        client.say(GET).json()
        server = open_.server
        real = server._queue

        def queue(one):
            real(one)
            client.say(GET)  # it is there when the loop is told of the socket again, in the same round or the next
            time.sleep(0.01)
            server._stirred(one, _server.READ)

        server._queue = queue
        client.say(GET + GET)
        for _ in range(3):
            client.json()
    assert slept
    assert not any(slept)  # a sleep that ended early would have been told that something was ready


def test_a_client_that_left_before_its_turn_is_not_answered(serve):
    asked = []
    open_ = serve(lambda request: asked.append(request.path) or told(request), how=in_loop)
    server = open_.server
    real = server._queue

    def queue(one):
        real(one)
        server._leave(one)

    client = open_()
    client.say(GET).json()
    server._queue = queue
    client.say(GET + GET.replace(b"/a", b"/never"))
    assert client.json()["target"] == "/a"
    assert client.ended()
    open_().say(GET).json()
    assert "/never" not in asked
