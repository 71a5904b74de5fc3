"""What is promised of `providers/_events.py`."""

from __future__ import annotations

import pytest

from providers import PAUSE, UpstreamError, _events
from providers._events import handing_back, ndjson, sse

STREAM = """data: {"a": "größe ✓ 灯 😀"}

: a comment

event: named
id: 1
data: {"b": 2}

data:{"c":3}

data: [DONE]

"""
READ = [{"a": "größe ✓ 灯 😀"}, {"b": 2}, {"c": 3}]
LINES = '{"a": "größe ✓ 灯 😀"}\n\n{"b": 2}\r\n  {"c":3} '


def cut(text, size):
    data = text.encode()
    return [data[at : at + size] for at in range(0, len(data), size)]


def read(reader, *blocks):
    return list(reader(iter(block if isinstance(block, bytes) else block.encode() for block in blocks)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_an_event_stream_may_be_cut_anywhere_and_end_its_lines_as_it_likes(end, size):
    assert read(sse, *cut(STREAM.replace("\n", end), size)) == READ


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_lines_of_json_may_be_cut_anywhere(size):
    assert read(ndjson, *cut(LINES, size)) == READ


@pytest.mark.parametrize("reader", [sse, ndjson])
def test_an_empty_block_is_a_pause_and_nothing_else_is(reader):
    assert read(reader, b"") == [PAUSE]
    assert read(reader, b"", b"data: " * (reader is sse) + b'{"a":1}\n\n', b"", b"") == [PAUSE, {"a": 1}, PAUSE, PAUSE]
    assert read(reader) == []
    assert read(reader, b"\n\n") == []


def test_a_pause_in_the_midst_of_a_letter_loses_nothing():
    letter = '{"a":"灯"}\n'.encode()
    assert read(ndjson, letter[:7], b"", letter[7:]) == [PAUSE, {"a": "灯"}]


def test_a_pause_between_two_halves_of_a_line_end_makes_no_event():
    assert read(sse, b'data: {"a":1}\r', b"", b'\ndata: \r\n\r\ndata: {"b":2}\r\n\r', b"", b"\n") == [
        PAUSE,
        {"a": 1},
        PAUSE,
        {"b": 2},
    ]


def test_done_is_the_end_whatever_follows():
    assert read(sse, 'data: {"a":1}\n\ndata: [DONE]\n\ndata: {"b":2}\n\n') == [{"a": 1}]


@pytest.mark.parametrize("last", ["", "data: [DONE]", "data: [DONE]\n", ": bye"])
def test_an_end_without_a_blank_line_is_an_end(last):
    assert read(sse, 'data: {"a":1}\n\n' + last) == [{"a": 1}]


def test_the_last_event_may_lack_its_blank_line():
    assert read(sse, 'data: {"a":1}\n\ndata: {"b":2}') == [{"a": 1}, {"b": 2}]


def test_data_of_several_lines_is_one_event():
    assert read(sse, 'data: {"a":\ndata: 1}\n\n') == [{"a": 1}]


def test_fields_that_only_look_like_data_are_passed_over():
    assert read(sse, 'database: {"a":1}\nretry: 3\n\n\n\n\n') == []


def test_a_bare_object_where_an_event_should_be_is_taken():
    assert read(sse, 'data: {"a":1}\n\n{\n  "error": {\n    "code": 503\n  }\n}\n') == [
        {"a": 1},
        {"error": {"code": 503}},
    ]


def test_an_error_in_a_list_of_one_is_taken_out():
    assert read(sse, 'data: [{"error": 1}]\n\n') == [{"error": 1}]


@pytest.mark.parametrize("data", ["nonsense", "[1, 2]", "3", '{"a":', "[" * 100_000])
@pytest.mark.parametrize("reader", [sse, ndjson])
def test_what_is_no_object_is_the_upstreams_fault(reader, data):
    with pytest.raises(UpstreamError) as caught:
        read(reader, ("data: " if reader is sse else "") + data + "\n\n")
    assert (caught.value.status, caught.value.code) == (502, "provider_error")


@pytest.mark.parametrize("reader", [sse, ndjson])
@pytest.mark.parametrize("data", [b'data: {"a":"\xff"}\n\n', b'data: {"a":"\xe7\x81'])
def test_what_is_not_utf8_is_the_upstreams_fault(reader, data):
    with pytest.raises(UpstreamError, match="not UTF-8") as caught:
        read(reader, data)
    assert (caught.value.status, caught.value.code) == (502, "provider_error")


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_what_came_before_a_letter_that_is_none_is_given_wherever_it_is_cut(size):
    data = b'data: {"a":1}\r\rdata: [DONE]\n\n\xff'
    for reader, told in ((sse, data[:15]), (ndjson, b'{"a":1}\n')):
        wire = told + b"\xff"
        events = reader(iter([wire[at : at + size] for at in range(0, len(wire), size)]))
        assert next(events) == {"a": 1}
        with pytest.raises(UpstreamError, match="not UTF-8"):
            next(events)
    assert list(sse(iter([data[at : at + size] for at in range(0, len(data), size)]))) == [{"a": 1}]


@pytest.mark.parametrize("reader", [sse, ndjson])
def test_an_endless_event_is_given_up(reader, monkeypatch):
    monkeypatch.setattr(_events, "LARGEST", 100)
    with pytest.raises(UpstreamError, match="endless") as caught:
        read(reader, *[b"data: 123456789"] * 20)
    assert (caught.value.status, caught.value.code) == (502, "provider_error")


def test_an_event_is_given_before_the_next_block_is_waited_for():
    waited = []

    def blocks():
        yield b'data: {"a":1}\n\n'
        waited.append(True)
        yield b'data: {"b":2}\n\n'

    events = sse(blocks())
    assert next(events) == {"a": 1}
    assert waited == []


def test_blocks_are_not_read_beyond_the_end():
    blocks = iter([b"data: [DONE]\n\n", b"more"])
    assert list(sse(blocks)) == []
    assert next(blocks) == b"more"


def test_who_stumbles_over_an_event_stumbles_where_it_came_from():
    def source():
        try:
            yield {"a": 1}
        except KeyError as error:
            raise UpstreamError(502, "shape") from error
        finally:
            closed.append(True)

    def passing():
        with handing_back(source()) as events:
            yield from ({"b": event["a"]} for event in events)

    closed = []
    with pytest.raises(UpstreamError, match="shape"), handing_back(passing()) as events:
        for event in events:
            event["a"]
    assert closed == [True]


def test_trouble_with_events_is_not_handed_back_to_who_made_it():
    def source():
        yield {}
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), handing_back(source()) as events:
        list(events)


def test_events_are_closed_by_who_leaves_them():
    events = (event for event in ({}, {}))
    with handing_back(events):
        next(events)
    assert list(events) == []
