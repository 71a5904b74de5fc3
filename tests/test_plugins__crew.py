"""The crew: as many threads as there have to be, and no more."""

from __future__ import annotations

import threading
import time

from plugins._crew import Crew
from talking import LONG, until


def test_a_crew_that_can_get_no_threads_says_so(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    crew = Crew(5)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert not crew.take(lambda: None)
    assert crew.busy == 0


def test_a_crew_is_as_large_as_it_has_to_be():
    done = threading.Semaphore(0)
    names = set()
    crew = Crew(2)
    crew.REST = 0.05

    def job():
        names.add(threading.current_thread().name)
        done.release()

    for _ in range(20):
        assert until(lambda: crew.take(job))
        assert done.acquire(timeout=LONG)
        assert until(lambda: crew.busy == 0)
    assert len(names) < 20  # they were used again
    assert until(lambda: crew._all == 0)


def test_what_is_brief_queues_where_there_are_a_few_hands_already():
    go_on, done = threading.Event(), []
    crew = Crew(50)
    crew.REST = 0.05
    for _ in range(crew.FEW + 20):
        assert crew.take(lambda: go_on.wait(LONG) and done.append(1), brief=True)
    assert crew._all == crew.FEW
    assert crew.late
    go_on.set()
    assert until(lambda: len(done) == crew.FEW + 20)
    assert until(lambda: crew._all == 0)


def test_what_takes_long_does_not_queue_behind_what_is_brief():
    go_on, done = threading.Event(), threading.Event()
    crew = Crew(50)
    crew.REST = 0.05
    for _ in range(crew.FEW + 1):
        crew.take(lambda: go_on.wait(LONG), brief=True)
    assert crew.take(done.set)
    assert done.wait(LONG)
    go_on.set()
    assert until(lambda: crew._all == 0)


def test_there_are_more_hands_when_what_was_to_be_brief_is_not():
    go_on, done = threading.Event(), threading.Event()
    crew = Crew(50)
    crew.REST = 0.05
    for _ in range(crew.FEW):
        crew.take(lambda: go_on.wait(LONG), brief=True)
    crew.take(done.set, brief=True)
    crew.tend()
    assert not done.is_set()  # a moment has not passed
    time.sleep(crew.MOMENT * 1.5)
    crew.tend()
    assert done.wait(LONG)
    go_on.set()
    assert until(lambda: crew._all == 0)


def test_a_full_crew_has_no_more_hands_however_long_it_takes():
    go_on = threading.Event()
    crew = Crew(1)
    crew.REST = 0.05
    crew.take(lambda: go_on.wait(LONG))
    assert crew.take(lambda: None, brief=True)
    assert not crew.take(lambda: None)
    time.sleep(crew.MOMENT * 1.5)
    crew.tend()
    assert crew._all == 1
    go_on.set()
    assert until(lambda: crew._all == 0)


def test_hands_are_used_again_however_fast_the_jobs_come():
    """Also where one that is done takes the job that another was woken for."""
    crew = Crew(100)
    crew.REST = 0.2
    done = threading.Semaphore(0)
    for _ in range(3000):
        assert crew.take(done.release)
        assert crew.take(done.release)
        crew.tend()
        for _ in range(2):
            assert done.acquire(timeout=LONG)
    assert crew._all < 10
    assert until(lambda: crew._all == 0)
