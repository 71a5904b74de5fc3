"""What is promised of `providers/_memory.py`."""

from __future__ import annotations

import threading

from providers._memory import Remembered

DETAILS = [{"type": "thinking", "signature": "s"}]


def test_details_come_back_for_any_call_of_their_answer():
    memory = Remembered()
    memory.keep(["a", "b"], DETAILS)
    assert memory.recall(["b"]) == DETAILS
    assert memory.recall(["unknown", "a"]) == DETAILS


def test_what_was_never_kept_is_nothing():
    assert Remembered().recall(["a"]) == []
    assert Remembered().recall([]) == []


def test_an_answer_without_details_takes_no_place():
    memory = Remembered(size=1)
    memory.keep(["a"], DETAILS)
    memory.keep(["b"], [])
    assert memory.recall(["a"]) == DETAILS


def test_a_later_answer_with_the_same_id_replaces_the_earlier_one():
    memory = Remembered()
    memory.keep(["a"], DETAILS)
    memory.keep(["a"], [{"type": "thinking", "signature": "later"}])
    assert memory.recall(["a"])[0]["signature"] == "later"


def test_what_was_asked_for_longest_ago_is_forgotten_first():
    memory = Remembered(size=2)
    memory.keep(["a"], DETAILS)
    memory.keep(["b"], DETAILS)
    memory.recall(["a"])
    memory.keep(["c"], DETAILS)
    assert [bool(memory.recall([id_])) for id_ in "abc"] == [True, False, True]


def test_the_list_that_comes_back_may_be_changed():
    memory = Remembered()
    memory.keep(["a"], DETAILS)
    memory.recall(["a"]).clear()
    assert memory.recall(["a"]) == DETAILS


def test_many_threads_may_keep_and_recall_at_once():
    memory = Remembered(size=10)

    def work(name: str) -> None:
        for number in range(200):
            memory.keep([f"{name}{number}"], DETAILS)
            memory.recall([f"{name}{number - 5}"])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memory._kept) == 10
