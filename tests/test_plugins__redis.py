"""What is promised of `plugins/_redis.py`: beside a stand-in that speaks RESP, and a real one where it is installed."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from plugins import _redis
from plugins._buckets import Buckets, Budget
from plugins._redis import Place, RedisBuckets, StoreError
from scripted import closed_port

SECOND = 10**9
BUDGET = Budget(SECOND // 10, 3)  # a token each tenth of a second


class StandIn:
    """Speaks RESP on a real socket, and does by hand what the script does; `time` is its clock, in microseconds."""

    def __init__(self, password: str = "", port: int = 0) -> None:
        self.time = 10**15
        self.password = password
        self.full: Dict[bytes, int] = {}
        self.said: List[List[bytes]] = []
        self.answer: Callable[[List[bytes]], bytes] = self.obey
        self._open: List[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def connections(self) -> int:
        return len(self._open)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._open.append(self._server.accept()[0])
                self._threads.append(threading.Thread(target=self._serve, args=(self._open[-1],)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as file, contextlib.suppress(OSError):
            while line := file.readline():
                assert line[:1] == b"*", line
                words = []
                for _ in range(int(line[1:])):
                    length = file.readline()
                    assert length[:1] == b"$", length
                    words.append(file.read(int(length[1:]) + 2)[:-2])
                self.said.append(words)
                sock.sendall(self.answer(words))

    def obey(self, words: List[bytes]) -> bytes:
        command = words[0]
        if command == b"AUTH":
            good = words[-1].decode() == self.password
            return b"+OK\r\n" if good else b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        if command == b"SELECT":
            return b"+OK\r\n"
        if command == b"PING":
            return b"+PONG\r\n"
        assert (command, words[1]) == (b"EVAL", _redis.TAKE)
        count = int(words[2])
        keys, (interval, burst) = words[3 : 3 + count], map(int, words[3 + count :])
        most = interval * burst
        full = [min(max(self.time, self.full.get(key, 0)), self.time + most) for key in keys]
        missing = max(full) - self.time
        wait = missing + interval - most
        if wait <= 0:
            self.full.update(zip(keys, (at + interval for at in full)))
        return b"*2\r\n:%d\r\n:%d\r\n" % (wait, missing)

    def hang_up(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join()
        self.hang_up()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def stand_in() -> Iterator[Callable[..., StandIn]]:
    """Give a maker of stand-ins, closed at the end."""
    built: List[StandIn] = []

    def make(*args: Any, **more: Any) -> StandIn:
        built.append(StandIn(*args, **more))
        return built[-1]

    yield make
    for one in built:
        one.close()


@pytest.fixture
def buckets() -> Iterator[Callable[[str], RedisBuckets]]:
    """Give a maker of buckets in the Redis at a URL."""
    built: List[RedisBuckets] = []

    def make(url: str) -> RedisBuckets:
        built.append(RedisBuckets(Place.of(url)))
        return built[-1]

    yield make
    for one in built:
        one.close()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[str]:
    """Give the URL of a real Redis of our own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server here")
    port = closed_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "requirepass": "p w", "dir": tmp_path}
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.01)
    yield f"redis://:p%20w@127.0.0.1:{port}/3"
    process.terminate()
    process.wait(20)


def url_of(one: StandIn, login: str = "", path: str = "") -> str:
    return f"redis://{login}127.0.0.1:{one.port}{path}"


# where it is


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://h", Place("h", 6379, "", "", 0)),
        ("redis://h:1/", Place("h", 1, "", "", 0)),
        ("redis://:pw@h:1/2", Place("h", 1, "", "pw", 2)),
        ("redis://me:p%2Fw@[::1]:1/2", Place("::1", 1, "me", "p/w", 2)),
    ],
)
def test_a_place_is_read_from_its_url(url, place):
    assert Place.of(url) == place


@pytest.mark.parametrize(
    "url",
    [
        *("", "disk", "redis:", "redis://", "redis://h/-1", "rediss://:geheim@h", "http://:geheim@h"),
        *("redis://:geheim@h:x", "redis://:geheim@h:99999", "redis://:geheim@[h"),
        *("redis://:geheim@h/x", "redis://:geheim@h?db=1"),
    ],
)
def test_what_is_no_place_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="store must be memory or like redis://") as caught:
        Place.of(url)
    assert "geheim" not in str(caught.value)
    assert "geheim" not in str(Place.of("redis://geheim:geheim@h"))


# what is counted


def test_the_levels_are_those_of_the_buckets_in_memory(stand_in, buckets):
    one = stand_in()
    there, here = buckets(url_of(one)), Buckets(clock=lambda: one.time * 1000)
    for at in range(60):
        one.time += (0, 30_000, 100_000, 1, 250_000, 99_999)[at % 6] * (at % 7 != 3)
        keys = [["a"], ["b"], ["a", "b"], ["c"]][at % 4]
        assert there.take(keys, BUDGET) == here.take(keys, BUDGET), at
    assert {*one.full} == {b"llmproxy:a", b"llmproxy:b", b"llmproxy:c"}


def test_an_interval_of_no_whole_microseconds_is_rounded_so_that_nobody_gets_more(stand_in, buckets):
    one = stand_in()
    buckets(url_of(one)).take(["a"], Budget(1001, 2))
    buckets(url_of(one)).take(["\udc80"], Budget(1, 2))
    assert [words[4:] for words in one.said] == [[b"2", b"2"], [b"1", b"2"]]


def test_a_real_one_counts_as_memory_does(real, buckets):
    there, slow = buckets(real), Budget(3600 * SECOND, 3)
    assert [there.take(["a"], slow).remaining for _ in range(3)] == [2, 1, 0]
    refused = there.take(["b", "a"], slow)
    assert 3599 * SECOND < refused.wait <= 3600 * SECOND
    assert 3 * 3599 * SECOND < refused.full <= 3 * 3600 * SECOND
    assert there.take(["a", "b"], slow).wait > 3599 * SECOND
    assert there.take(["b"], slow)[:2] == (0, 2)  # the refusal took nothing from it
    cheap = Budget(SECOND // 100, 2)
    assert there.take(["a"], cheap).wait <= cheap.interval  # a larger bucket that was emptied is an empty one
    time.sleep(0.012)
    assert there.take(["a"], cheap).wait == 0


def test_waiting_as_long_as_a_real_one_says_is_enough_and_a_little_less_is_not(real, buckets):
    there, quick = buckets(real), Budget(SECOND // 5, 1)
    assert there.take(["a"], quick).wait == 0
    wait = there.take(["a"], quick).wait
    time.sleep(wait / SECOND - 0.05)
    again = there.take(["a"], quick).wait
    assert 0 < again < SECOND // 10
    time.sleep(again / SECOND)
    assert there.take(["a"], quick).wait == 0


def test_a_real_one_forgets_what_is_full_again(real, buckets):
    there = buckets(real)
    there.take(["a", "b"], Budget(SECOND // 20, 2))
    assert there._asked(b"DBSIZE") == 2
    assert 0 < there._asked(b"PTTL", "llmproxy:a") <= 50
    time.sleep(0.06)
    assert there._asked(b"EXISTS", "llmproxy:a", "llmproxy:b") == 0


def test_64_threads_of_two_proxies_have_the_burst_of_a_real_one_exactly(real, buckets):
    proxies, slow, passed = [buckets(real), buckets(real)], Budget(3600 * SECOND, 100), []
    start = threading.Barrier(64)

    def work(at: int) -> None:
        start.wait()
        passed.extend(proxies[at % 2].take(["a"], slow).wait == 0 for _ in range(5))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(passed), sum(passed)) == (320, 100)
    assert all(len(proxy._idle) <= _redis.MOST_IDLE for proxy in proxies)


# how it is asked


def test_it_comes_in_by_name_and_chooses_its_database(stand_in, buckets):
    one = stand_in("p w")
    buckets(url_of(one, "me:p%20w@", "/7")).ping()
    buckets(url_of(one, ":p%20w@")).ping()
    named, nameless = [[b"AUTH", b"me", b"p w"], [b"SELECT", b"7"], [b"PING"]], [[b"AUTH", b"p w"], [b"PING"]]
    assert one.said == named + nameless


def test_a_connection_serves_again_and_a_dead_one_is_replaced(stand_in, buckets):
    one = stand_in()
    there = buckets(url_of(one))
    for _ in range(3):
        there.take(["a"], BUDGET)
    assert one.connections == 1
    one.hang_up()
    assert there.take(["b"], BUDGET).wait == 0
    assert one.connections == 1


def test_what_is_closed_keeps_no_connection(stand_in, buckets):
    one = stand_in()
    there = buckets(url_of(one))
    there.ping()
    there.close()
    there.ping()  # a request that was under way at a reload
    assert there._idle == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "OOM command"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak as a Redis does"),
        (b"$-1\r\n", "does not speak as a Redis does"),
        (b":x\r\n", "invalid literal"),
        (b":1", "it hung up"),
        (b"", "it hung up"),
    ],
)
def test_a_store_that_does_not_count_is_an_error_whatever_it_says(stand_in, buckets, answer, told):
    one = stand_in()

    def say(_: List[bytes]) -> bytes:
        if not answer.endswith(b"\n"):
            one._open[-1].sendall(answer)
            one.hang_up()
        return answer

    one.answer = say
    with pytest.raises(StoreError, match=told):
        buckets(url_of(one)).take(["a"], BUDGET)


def test_a_silent_store_is_not_waited_for_long(stand_in, buckets, monkeypatch):
    monkeypatch.setattr(_redis, "PATIENCE", 0.1)
    one = stand_in()
    there = buckets(url_of(one))
    there.take(["a"], BUDGET)
    one.answer = lambda _: time.sleep(0.5) or b""
    begun = time.monotonic()
    with pytest.raises(StoreError, match="timed out"):
        there.take(["a"], BUDGET)
    assert time.monotonic() - begun < 0.4
    assert one.connections == 1  # it is not asked twice


def test_trouble_is_logged_once_and_so_is_its_end_and_never_the_password(stand_in, buckets, caplog):
    caplog.set_level(logging.INFO, "llmproxy")
    port = closed_port()
    there = buckets(f"redis://:geheim@127.0.0.1:{port}")
    for _ in range(3):
        with pytest.raises(StoreError) as caught:
            there.take(["a"], BUDGET)
        assert "geheim" not in str(caught.value)
    one = stand_in("another", port)
    with pytest.raises(StoreError, match="WRONGPASS"):
        there.take(["a"], BUDGET)
    one.password = "geheim"
    there.take(["a"], BUDGET)
    there.take(["a"], BUDGET)
    first, last = caplog.messages
    assert f"nobody is let in: 127.0.0.1 port {port}: Connection refused" in first
    assert last == f"rate limits are counted again at 127.0.0.1 port {port}"
    assert "geheim" not in caplog.text
