"""One program as it is watched: what comes through its pipes, whatever is at their other ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Dict, Iterator, List

import pytest

from plugins._sandbox import plan as plans
from plugins._sandbox import program
from plugins._sandbox.program import READY, Child, Lost, Output, Run, Unavailable
from providers import Gone, Scope

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has what holds a program"),
    pytest.mark.outermost,
]
LIMITS = plans.Limits(timeout=0.5, output=10, result=20)
ENDED = {"status": 0, "cpu": 0.5, "peak": 1000, "stopped": ""}


class Scripted:
    """Stands in for a template: it has the other ends of a child's pipes, and does as the test says."""

    def __init__(self) -> None:
        self.orders: List[Dict[str, Any]] = []
        self.killed = False
        self.open: Dict[str, int] = {}
        self.obeys = True

    def order(self, order: Dict[str, Any], ends: Any = ()) -> None:
        self.orders.append(order)
        for name, end in zip(("request", "stdout", "stderr", "result", "status"), ends):
            self.open[name] = os.dup(end)
        if "kill" in order and not self.open:
            raise Lost
        if "kill" in order and self.obeys:
            self.end(status=signal.SIGKILL)

    def say(self, name: str, words: bytes) -> None:
        os.write(self.open[name], words)

    def end(self, **told: Any) -> None:
        self.say("status", json.dumps({**ENDED, **told}).encode() + b"\n")
        self.close()

    def kill(self) -> None:
        self.killed = True
        self.close()

    def close(self) -> None:
        while self.open:
            os.close(self.open.popitem()[1])


@pytest.fixture
def template() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


@pytest.fixture
def child(template: Scripted) -> Iterator[Child]:
    made = Child(template, 7, 2)
    yield made
    made.close()


def test_a_child_is_asked_for_with_the_ends_of_five_pipes(template, child):
    assert template.orders == [{"prepare": 7, "slot": 2, "warm": False}]
    assert len(template.open) == 5


def test_a_child_that_cannot_be_asked_for_leaves_no_pipe(template):
    def lost(_order: Any, _ends: Any) -> None:
        raise Lost

    template.order = lost
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Lost):
        Child(template, 1, 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_said_before_the_end_is_all_there(template, child):
    template.say("result", READY + b"three")
    template.say("stdout", b"out")
    template.say("stderr", b"err")
    template.end()
    outcome = Run(child, b"request", LIMITS).outcome(Scope())
    assert (outcome.result, outcome.stdout, outcome.stderr, outcome.truncated) == (b"three", b"out", b"err", False)
    assert (outcome.status, outcome.cpu, outcome.peak, outcome.stopped) == (0, 0.5, 1000, "")


def test_what_is_said_last_is_heard_though_its_end_is_told_at_the_same_time(template, child):
    """The outputs are looked at no more once the end is known, so what they hold then is taken at last."""
    run = Run(child, b"", LIMITS)
    template.say("result", READY)

    def listen(_poller: Any, _scope: Any, _deadline: float) -> str:
        template.say("stdout", b"last")
        template.end()
        run._learn()
        return ""

    run._listen = listen
    assert run.outcome(Scope()).stdout == b"last"


def test_a_request_is_written_as_it_is_read_and_then_ended(template, child):
    request = os.urandom(300_000)
    got = bytearray()

    def read() -> None:
        while block := os.read(template.open["request"], 5000):
            got.extend(block)
        template.say("result", READY)
        template.end()

    reader = threading.Thread(target=read)
    reader.start()
    Run(child, request, plans.Limits(timeout=5.0)).outcome(Scope())
    reader.join()
    assert got == request


def test_more_than_is_kept_is_dropped_and_that_is_told(template, child):
    template.say("result", READY)
    template.say("stderr", b"x" * 11)
    template.end()
    outcome = Run(child, b"", LIMITS).outcome(Scope())
    assert (outcome.stderr, outcome.truncated) == (b"x" * 10, True)


@pytest.mark.parametrize(("length", "stopped"), [(20, ""), (21, "result")])
def test_a_result_has_its_most_also_when_all_has_ended(template, child, length, stopped):
    template.say("result", READY + b"x" * length)
    template.end()
    assert Run(child, b"", LIMITS).outcome(Scope()).stopped == stopped


def test_why_the_template_stopped_it_is_told(template, child):
    template.say("result", READY)
    template.end(status=signal.SIGKILL, stopped="disk")
    assert Run(child, b"", LIMITS).outcome(Scope()).stopped == "disk"


def test_a_program_that_takes_too_long_is_killed_and_waited_for(template, child):
    template.say("result", READY)
    began = time.monotonic()
    outcome = Run(child, b"", LIMITS).outcome(Scope())
    assert 0.5 <= time.monotonic() - began < 2
    assert template.orders[1:] == [{"kill": 7}]
    assert (outcome.stopped, outcome.status) == ("timeout", signal.SIGKILL)


def test_a_template_that_does_not_kill_is_killed_itself(template, child, monkeypatch):
    monkeypatch.setattr(program, "GRACE", 0.1)
    template.obeys = False
    with pytest.raises(Lost):
        Run(child, b"", LIMITS).outcome(Scope())
    assert template.killed


@pytest.mark.parametrize("told", ["at death", "before the time is up"])
def test_a_dead_program_may_take_long_to_be_gone(template, child, monkeypatch, told):
    """What it has piled up is being removed: that is no reason to kill its neighbours."""
    monkeypatch.setattr(program, "GRACE", 0.05)
    template.obeys = False
    template.say("result", READY)
    begun = time.monotonic()
    first, last = (0.52, 0.9) if told == "at death" else (0.2, 0.9)
    words = [threading.Timer(first, template.say, ("status", b"\n")), threading.Timer(last, template.end)]
    for word in words:
        word.start()
    outcome = Run(child, b"", LIMITS).outcome(Scope())
    assert (outcome.stopped, template.killed) == ("timeout" if told == "at death" else "", False)
    assert time.monotonic() - begun >= 0.9
    for word in words:
        word.join()


def test_an_end_that_nobody_tells_of_is_that_of_the_template(template, child):
    template.close()
    with pytest.raises(Lost):
        Run(child, b"", LIMITS).outcome(Scope())


def test_a_client_that_leaves_has_it_killed(template, child):
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(Gone):
            Run(child, b"", LIMITS).outcome(Scope(ours))
    assert template.orders[1:] == [{"kill": 7}]


def test_what_ends_before_its_walls_are_up_is_no_outcome(template, child):
    template.say("stderr", b"OSError")
    template.end(status=78 << 8)
    with pytest.raises(Unavailable, match=r"^the walls cannot be put up: OSError$"):
        Run(child, b"", LIMITS).outcome(Scope())


def test_a_child_that_could_not_be_made_is_no_outcome(template, child):
    template.end(error="a child cannot be made: no memory")
    with pytest.raises(Unavailable, match="a child cannot be made: no memory"):
        Run(child, b"", LIMITS).outcome(Scope())


def test_an_output_is_read_in_small_steps_and_counted_in_full():
    end, other = os.pipe()
    os.set_blocking(end, False)
    output = Output(end, 3)
    assert not output.read()
    assert output.open
    os.write(other, b"abcde")
    assert output.read()
    assert (bytes(output.kept), output.total, output.truncated) == (b"abc", 5, True)
    os.close(other)
    assert not output.read()
    assert not output.open
    os.close(end)
