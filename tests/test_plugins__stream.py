"""What is promised of `plugins/_stream.py`: the status before the first byte, the first words soon, and few blocks."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import pytest

from conftest import finished
from plugins import Response
from plugins._stream import KEEP_ALIVE, Chunks, begun, event, events, flowing, sse, whole
from plugins._stream import told as in_words
from providers import PAUSE, Gone, Trouble, UpstreamError

HEARTBEAT = 15.0
DONE = b"data: [DONE]\n\n"


def part(text, **more):
    return {"id": "c", "model": "p/m", "choices": [{"index": 0, "delta": {"content": text}}], **more}


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
LAST = {"id": "c", "model": "p/m", "choices": [], "usage": USAGE}
BROKEN = UpstreamError(
    529, "Overloaded", code="provider_overloaded", provider="p", provider_status=529, retry_after=7.0
)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Script:
    """A provider's parts by a script: a number lets time pass, an exception is raised. Knows how it ended."""

    def __init__(self, *items, clock=None):
        self.items = items
        self.clock = clock or Clock()
        self.asked = 0
        self.closed = False

    def parts(self):
        try:
            for item in self.items:
                self.asked += 1
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, float):
                    self.clock.now += item
                    yield PAUSE
                else:
                    yield item
        finally:
            self.closed = True


def written(*items, notes=None, **options):
    """Give the blocks of a script, and the script."""
    script = Script(*items)
    stream = finished(begun(script.parts(), HEARTBEAT, script.clock))
    speak = partial(events, **options)
    blocks = list(flowing(stream, speak, in_words, HEARTBEAT, {} if notes is None else notes, clock=script.clock))
    assert script.closed
    return blocks


def told(block):
    return [json.loads(line[6:]) for line in block.decode().split("\n") if line.startswith("data: {")]


# the first part


def test_nothing_is_asked_before_it_must_be():
    script = Script(part("a"), part("b"))
    parts = script.parts()
    assert script.asked == 0
    first, rest = finished(begun(parts, HEARTBEAT, script.clock))
    assert (first, script.asked) == (part("a"), 1)
    assert list(rest) == [part("b")]


def test_pauses_before_the_first_part_are_waited_through():
    script = Script(PAUSE, 5.0, 5.0, part("a"))
    assert finished(begun(script.parts(), HEARTBEAT, script.clock)).first == part("a")


def test_a_silence_longer_than_the_patience_begins_the_stream():
    script = Script(PAUSE, 5.0, 5.0, 5.0, 5.0, part("a"))
    first, rest = finished(begun(script.parts(), HEARTBEAT, script.clock))
    assert (first, script.asked) == ({}, 4)
    assert list(rest) == [PAUSE, part("a")]


@pytest.mark.parametrize("trouble", [Trouble(400, "no"), BROKEN, Gone(), ValueError("a bug")])
def test_trouble_before_the_first_part_is_raised_and_everything_closed(trouble):
    script = Script(PAUSE, trouble)
    with pytest.raises(type(trouble)) as caught:
        finished(begun(script.parts(), HEARTBEAT, script.clock))
    assert caught.value is trouble
    assert script.closed


def test_a_clock_that_breaks_leaves_nothing_open():
    script = Script(PAUSE, part("a"))
    parts, ticks = script.parts(), iter([0.0])
    with pytest.raises(RuntimeError):
        finished(begun(parts, HEARTBEAT, lambda: next(ticks)))
    assert script.closed


def test_an_answer_without_a_part_is_an_empty_stream():
    assert b"".join(written()).endswith(DONE)
    assert b"".join(written(PAUSE)).endswith(DONE)


# the blocks


def test_what_came_together_is_one_block():
    blocks = written(part("a"), PAUSE, part("b"), PAUSE, PAUSE, part("c"), part("d"), part("e"))
    assert blocks == [
        event(part("a")),
        event(part("b")),
        b"",
        event(part("c")) + event(part("d")),
        event(part("e")) + DONE,
    ]


def test_the_first_words_do_not_wait_for_the_last():
    """However many come together, and they are few blocks all the same."""
    script = Script(*map(part, "a" * 1000))
    stream = flowing(finished(begun(script.parts(), HEARTBEAT)), events, in_words, HEARTBEAT, {})
    blocks, asked = [], []
    for block in stream:
        blocks.append(len(told(block)))
        asked.append(script.asked)
    assert blocks == [2, 8, 32, 128, 512, 318]
    assert asked[:2] == [2, 10]


def test_an_event_is_one_line_of_json_in_ascii():
    document = {"text": "\xe9\n\u2028\ud800", "b": 1}
    assert event(document) == b'data: {"text":"\\u00e9\\n\\u2028\\ud800","b":1}\n\n'


def test_a_stream_ends_with_done():
    assert written(part("a"))[-1].endswith(DONE)


# life signs


def test_a_silence_is_filled_with_a_life_sign_each_heartbeat():
    blocks = written(part("a"), PAUSE, *[5.0] * 7, part("b"))
    assert blocks == [
        event(part("a")),
        b"",
        b"",
        KEEP_ALIVE,
        b"",
        b"",
        KEEP_ALIVE,
        b"",
        event(part("b")) + DONE,
    ]


def test_the_silence_is_counted_from_what_was_said_last():
    blocks = written(part("a"), 10.0, part("b"), 10.0, 10.0, 10.0)
    assert [block == KEEP_ALIVE for block in blocks] == [False, False, False, True, False]


def test_an_upstream_silent_from_the_start_has_a_life_sign_at_once():
    blocks = written(PAUSE, 15.0, 14.0, 1.0, part("a"))
    assert blocks == [KEEP_ALIVE, b"", KEEP_ALIVE, event(part("a")) + DONE]


def test_a_life_sign_is_a_comment_that_clients_pass_over():
    assert KEEP_ALIVE.startswith(b":")
    assert KEEP_ALIVE.endswith(b"\n\n")


def test_a_dialect_without_life_signs_is_silent():
    script = Script(PAUSE, 20.0, 20.0, part("a"))
    stream = finished(begun(script.parts(), HEARTBEAT, script.clock))
    blocks = list(flowing(stream, events, in_words, HEARTBEAT, {}, life=b"", clock=script.clock))
    assert blocks == [b"", b"", event(part("a")) + DONE]


# trouble under way


def test_trouble_after_the_first_part_is_an_event_and_no_done():
    notes = {}
    blocks = written(part("a"), PAUSE, part("b"), BROKEN, notes=notes)
    error = {
        "message": "Overloaded",
        "type": BROKEN.kind,
        "param": None,
        "code": "provider_overloaded",
        "provider": "p",
    }
    assert blocks == [event(part("a")), event(part("b")) + event({"error": error})]
    assert notes["trouble"] == "provider_overloaded"


def test_trouble_is_worded_as_the_canonical_form_has_it():
    golden = Path(__file__).parent / "golden" / "canonical" / "stream_error_midway.sse"
    overloaded = UpstreamError(503, "Overloaded", code="provider_overloaded", provider="anthropic", provider_status=529)
    blocks = written(part("a"), overloaded)
    assert told(blocks[-1])[-1] == told(golden.read_bytes())[-1]


def test_trouble_after_a_long_silence_is_an_event_too():
    blocks = written(15.0, Trouble(400, "no"))
    assert b"[DONE]" not in b"".join(blocks)
    assert told(blocks[-1]) == [Trouble(400, "no").document()]


@pytest.mark.parametrize("bug", [ValueError("a bug"), Gone()])
def test_anything_else_breaks_the_stream_off_and_closes_everything(bug):
    script = Script(part("a"), PAUSE, bug)
    stream = flowing(finished(begun(script.parts(), HEARTBEAT)), events, in_words, HEARTBEAT, {})
    assert next(stream) == event(part("a"))
    with pytest.raises(type(bug)):
        next(stream)
    assert script.closed


def test_a_client_that_leaves_closes_the_parts():
    script = Script(part("a"), PAUSE, part("b"))
    parts = script.parts()
    stream = flowing(finished(begun(parts, HEARTBEAT)), events, in_words, HEARTBEAT, {})
    next(stream)
    assert not script.closed
    stream.close()
    assert script.closed
    assert script.asked == 2


def test_a_number_that_no_json_can_hold_is_trouble_and_never_told():
    blocks = written(part("a"), PAUSE, part("b", logprob=float("-inf")))
    assert told(blocks[-1])[0]["error"]["code"] == "provider_error"
    assert b"[DONE]" not in b"".join(blocks)
    with pytest.raises(UpstreamError, match="too large") as caught:
        Response.of({"embedding": [float("inf")]})
    assert caught.value.status == 502


# usage


def test_the_usage_is_noted_and_told():
    notes = {}
    blocks = written(part("a"), LAST, notes=notes)
    assert notes["usage"] == USAGE
    assert blocks == [event(part("a")) + event(LAST), DONE]


def test_a_client_that_wants_no_usage_gets_none_of_it():
    notes = {}
    blocks = written(part("a"), LAST, notes=notes, with_usage=False)
    assert notes["usage"] == USAGE
    assert blocks == [event(part("a")) + DONE]


def test_a_pause_behind_a_part_that_is_not_told_is_an_empty_block():
    assert written(part("a"), PAUSE, LAST, PAUSE, part("b"), with_usage=False) == [
        event(part("a")),
        b"",
        event(part("b")) + DONE,
    ]


# the frame that is kept

TEXTS = ["", "a", " b", '"', "\\", "\n", "\x00\x7f", "\xe9", "\u2028", "\ud800", "\U0001f600", '"delta":{"content":""']
ALIKE = [0, False, 0.0, -0.0, 1, True, 1.0, None, "", "x", [], {}]  # what equals its neighbour and is written otherwise


def varied(rng, chunk):
    """Change something about a chunk that is not its text, or its text as well."""
    choice = chunk["choices"][0]
    delta = choice["delta"]
    outer, inner = {**chunk}, {**choice}
    if rng.random() < 0.1:
        outer[rng.choice(["id", "created", "model", "usage", "system_fingerprint", "delta"])] = rng.choice(ALIKE)
    if rng.random() < 0.1:
        inner[rng.choice(["index", "finish_reason", "logprobs", "choices", "created"])] = rng.choice(ALIKE)
    if rng.random() < 0.1:
        outer = dict(rng.sample(list(outer.items()), len(outer)))
    if rng.random() < 0.1:
        inner = dict(rng.sample(list(inner.items()), len(inner)))
    if rng.random() < 0.1:
        outer.pop(rng.choice(["id", "created", "model", "usage"]), None)
    if rng.random() < 0.1:
        delta = rng.choice([{}, None, {"content": None}, {"content": 1}, {"role": "assistant", "content": "a"}, "text"])
    return {**outer, "choices": [{**inner, "delta": delta}] * rng.choice([1] * 9 + [0, 2])}


def test_chunks_are_written_as_events_are_whatever_came_before_them():
    rng = random.Random(17)
    kept = 0
    for _ in range(300):
        first = {**part("a", created=1, usage=None), "choices": [{"index": 0, "delta": {}, "finish_reason": None}]}
        chunks, chunk = Chunks(), first
        for _ in range(20):
            chunk = rng.choice([first, chunk]) if chunk["choices"] else first
            said = {**chunk["choices"][0], "delta": {"content": rng.choice(TEXTS)}}
            chunk = varied(rng, {**chunk, "choices": [said]})
            before = json.dumps(chunk)
            assert chunks.event(chunk) == event(chunk)
            assert json.dumps(chunk) == before
            kept += bool(chunks._around[0])
    assert kept > 3000


# whole answers


def test_a_whole_answer_is_the_last_part_that_is_none_of_the_pauses():
    script = Script(PAUSE, PAUSE, part("a"), PAUSE)
    assert finished(whole(script.parts())) == part("a")
    assert script.closed


def test_trouble_in_a_whole_answer_is_raised_and_everything_closed():
    script = Script(PAUSE, BROKEN)
    with pytest.raises(UpstreamError):
        finished(whole(script.parts()))
    assert script.closed


def test_an_event_stream_is_kept_by_nobody_on_the_way():
    response = sse([b"x"])
    headers = dict(response.headers)
    assert response.status == 200
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-cache"
    assert list(response.body) == [b"x"]
