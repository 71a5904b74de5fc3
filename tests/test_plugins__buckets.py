"""What is promised of `plugins/_buckets.py`."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from conftest import ROOT, clean_environment
from plugins._buckets import WAYS, Buckets, Budget, Level

SECOND = 10**9
NEVER = 10**13  # nanoseconds to the next token: more than a test has
STATUS = Path("/proc/self/status")

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


class Clock:
    """A clock that is set by hand, in nanoseconds."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Have threads interrupt each other as often as can be."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def taken(buckets: Buckets, budget: Budget, times: int, *keys: str) -> int:
    """Ask for a token so many times; gives how often there was one."""
    return sum(not buckets.take(keys or ["alice"], budget).wait for _ in range(times))


def run(script: str) -> List[str]:
    """Run a script that forks, away from pytest's threads; gives the lines it prints."""
    command = [sys.executable, "-W", "error", "-c", script]
    env = clean_environment(ROOT / "tests")
    done = subprocess.run(command, cwd=str(ROOT), env=env, timeout=30, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().splitlines()


def test_a_quiet_bucket_holds_its_burst_and_no_token_more(clock):
    buckets = Buckets(clock=clock)
    assert taken(buckets, Budget(SECOND, 120), 500) == 120
    clock.now += 3600 * SECOND
    assert taken(buckets, Budget(SECOND, 120), 500) == 120


def test_the_level_tells_what_is_left_and_when_there_is_more(clock):
    buckets = Buckets(clock=clock)
    budget = Budget(10 * SECOND, 2)
    assert buckets.take(["a"], budget) == Level(0, 1, 10 * SECOND)
    clock.now += 3 * SECOND
    assert buckets.take(["a"], budget) == Level(0, 0, 17 * SECOND)
    assert buckets.take(["a"], budget) == Level(7 * SECOND, 0, 17 * SECOND)
    clock.now += 7 * SECOND - 1
    assert buckets.take(["a"], budget) == Level(1, 0, 10 * SECOND + 1)
    clock.now += 1
    assert buckets.take(["a"], budget) == Level(0, 0, 20 * SECOND)


@pytest.mark.parametrize("interval", [1, 97, SECOND // 7, 123_456_789, 60 * SECOND])
@pytest.mark.parametrize("began", [0, 10**17 + 1])
def test_a_burst_is_exact_at_any_rate_and_time(clock, interval, began):
    clock.now = began
    assert taken(Buckets(clock=clock), Budget(interval, 1000), 1500) == 1000


@pytest.mark.parametrize("per_minute", [7, 600, 997])
def test_a_minute_brings_a_minutes_tokens(clock, per_minute):
    buckets = Buckets(clock=clock)
    budget = Budget(round(60 * SECOND / per_minute), 50)
    taken(buckets, budget, 50)
    got = 0
    for _ in range(10_000):
        clock.now += 6 * SECOND // 1000
        got += taken(buckets, budget, 1)
    assert abs(got - per_minute) <= 1


def test_a_few_real_seconds_bring_what_is_due():
    """Between two refusals, when the bucket is as good as empty, comes what the time between them brings."""
    buckets = Buckets()
    budget = Budget(SECOND // 100, 100)

    def emptied() -> Tuple[int, float, float]:
        """Take what there is; gives how much, and between which times the refusal was."""
        got = 0
        while True:
            before = time.monotonic()
            if buckets.take(["alice"], budget).wait:
                return got, before, time.monotonic()
            got += 1

    _, earliest, latest = emptied()
    got, before, after = 0, 0.0, 0.0
    while before < latest + 1.2:
        time.sleep(0.002)
        more, before, after = emptied()
        got += more
    assert (before - latest) * 100 - 1 <= got <= (after - earliest) * 100 + 1


def test_a_refusal_costs_nothing(clock):
    buckets = Buckets(clock=clock)
    budget = Budget(SECOND, 1)
    taken(buckets, budget, 1)
    for _ in range(1000):
        assert buckets.take(["alice"], budget).wait == SECOND
    clock.now += SECOND
    assert taken(buckets, budget, 2) == 1


def test_keys_do_not_share(clock):
    buckets = Buckets(clock=clock)
    names = ["", "a", "A", "a\0", "ä", "a\u0308", "\ud800", "\udfff", "é" * 256, "é" * 255, "名前", "🙂", "a b"]
    budget = Budget(SECOND, 3)
    assert [taken(buckets, budget, 9, name) for name in names] == [3] * len(names)
    assert [taken(buckets, budget, 9, name) for name in names] == [0] * len(names)


def test_two_keys_pay_both_or_neither(clock):
    buckets = Buckets(clock=clock)
    budget = Budget(SECOND, 5)
    taken(buckets, budget, 3, "office")
    assert buckets.take(["alice", "office"], budget) == Level(0, 1, 4 * SECOND)
    assert taken(buckets, budget, 9, "alice", "office") == 1
    assert buckets.take(["alice", "office"], budget).wait == SECOND
    assert taken(buckets, budget, 9, "alice") == 3


def test_two_keys_of_one_set_pay_both_even_when_it_is_full(clock):
    buckets = Buckets(slots=WAYS, clock=clock)
    budget = Budget(SECOND, 5)
    for n in range(WAYS):
        taken(buckets, budget, 1, f"other {n}")
    clock.now += 2 * SECOND
    assert taken(buckets, budget, 9, "alice", "office") == 5
    assert taken(buckets, budget, 9, "alice") == taken(buckets, budget, 9, "office") == 0


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=forks)])
def test_a_burst_is_exact_under_64_threads(impatient, shared):
    buckets = Buckets()
    if shared:
        buckets._share()
    start = threading.Barrier(64)
    got = []

    def work() -> None:
        start.wait()
        got.append(taken(buckets, Budget(NEVER, 1000), 50))

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert buckets.shared == shared
    assert (len(got), sum(got)) == (64, 1000)


@pytest.mark.skipif(not STATUS.exists(), reason="the memory of a process cannot be read here")
def test_100_000_users_each_get_their_burst_within_30_mib():
    buckets = Buckets()
    budget = Budget(NEVER, 2)
    before = resident()
    assert all(taken(buckets, budget, 3, f"user {n}") == 2 for n in range(100_000))
    assert resident() - before < 30 * 2**20
    spent = sum(taken(buckets, budget, 1, f"user {n}") == 0 for n in range(0, 100_000, 10))
    assert spent >= 9_980  # 0.05 on average are forgotten of every thousand


def resident() -> int:
    gc.collect()
    return int(re.search(r"VmRSS:\s+(\d+) kB", STATUS.read_text("ascii")).group(1)) * 1024


def test_where_there_is_no_room_whoever_spent_least_is_forgotten(clock):
    buckets = Buckets(slots=WAYS, clock=clock)
    budget = Budget(SECOND, 100)
    for n in range(WAYS):
        taken(buckets, budget, n + 1, f"user {n}")
    assert taken(buckets, budget, 101, "new") == 100
    assert [buckets.take([f"user {n}"], budget).remaining for n in range(1, WAYS)] == [98 - n for n in range(1, WAYS)]
    assert buckets.take(["user 0"], budget).remaining == 99


def test_a_full_bucket_makes_room_for_a_new_one(clock):
    buckets = Buckets(slots=WAYS, clock=clock)
    budget = Budget(SECOND, 10)
    for n in range(WAYS):  # of the 16, the last 4 will not be full again
        taken(buckets, budget, 5, f"early {n}")
        clock.now += SECOND
    for n in range(WAYS - 4):
        taken(buckets, budget, 1, f"late {n}")
    assert [buckets.take([f"early {n}"], budget).remaining for n in range(WAYS - 4, WAYS)] == [8, 7, 6, 5]


def test_a_table_that_is_much_too_small_still_gives_everyone_their_burst(clock):
    buckets = Buckets(slots=4 * WAYS, clock=clock)
    assert all(taken(buckets, Budget(SECOND, 3), 5, f"user {n}") == 3 for n in range(10_000))


def test_buckets_that_nobody_needs_any_more_are_let_go_of():
    buckets = Buckets()
    gone = weakref.ref(buckets)
    del buckets
    gc.collect()
    assert gone() is None


FORKED = """
import os, signal, time
from plugins._buckets import Buckets, Budget

buckets = Buckets()
budget = Budget(10**13, 20_000)

def children(number, work):
    "Fork so many, have them begin as one; gives what they say."
    gate, opener = os.pipe()
    said, say = os.pipe()
    for _ in range(number):
        if not os.fork():
            signal.alarm(10)  # none is left behind, whatever goes wrong
            os.close(opener)
            os.read(gate, 1)
            os.write(say, b"%d\\n" % work())
            os._exit(0)
    os.close(opener)
    os.close(say)
    with open(said, "rb") as lines:
        return [int(line) for line in lines]
"""


@forks
def test_where_there_are_no_files_in_memory_one_is_made_that_leaves_no_trace(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    buckets = Buckets()
    buckets._share()
    assert taken(buckets, Budget(NEVER, 3), 5) == 3
    assert list(tmp_path.iterdir()) == []


@forks
def test_processes_are_exact_together():
    script = """
print(buckets.shared)
got = children(2, lambda: sum(not buckets.take(["alice"], budget).wait for _ in range(20_000)))
print(buckets.shared, len(got), sum(got), min(got) > 0)
"""
    assert run(FORKED + script) == ["False", "True 2 20000 True"]


@forks
def test_what_was_spent_before_a_fork_is_spent_after_it():
    script = """
budget = Budget(10**13, 10)
for _ in range(4):
    buckets.take(["alice"], budget)
print(children(1, lambda: buckets.take(["alice"], budget).remaining), buckets.take(["alice"], budget).remaining)
"""
    assert run(FORKED + script) == ["[5] 4"]


@forks
def test_a_fork_does_not_take_over_a_lock_that_a_thread_holds():
    script = """
import threading, warnings
warnings.simplefilter("ignore")  # forking with threads is what this is about
parent = os.getpid()
def clock():
    if os.getpid() == parent:
        time.sleep(0.001)  # so that the lock is held nearly always
    return time.monotonic_ns()
buckets = Buckets(clock=clock)
ended = threading.Event()
def work():
    while not ended.is_set():
        buckets.take(["bob"], budget)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
print(children(10, lambda: buckets.take(["alice"], budget).wait))
ended.set()
"""
    assert run(FORKED + script) == [str([0] * 10)]


@forks
def test_a_worker_that_dies_while_it_counts_holds_up_nobody():
    script = """
import threading
def clock():
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGSTOP)
    return time.monotonic_ns()
parent = os.getpid()
buckets = Buckets(clock=clock)
child = os.fork()
if not child:
    buckets.take(["alice"], budget)
os.waitpid(child, os.WUNTRACED)
waiting = threading.Thread(target=lambda: print(buckets.take(["alice"], budget).remaining, flush=True))
waiting.start()
waiting.join(0.3)
print("waits" if waiting.is_alive() else "does not wait", flush=True)
os.kill(child, signal.SIGKILL)
waiting.join(5)
"""
    assert run(FORKED + script) == ["waits", "19999"]
