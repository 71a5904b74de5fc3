"""Heads, framing and chunks: what two readers could read in two ways is refused."""

from __future__ import annotations

import contextlib
import time

import pytest

from providers import _http
from providers._http import CHUNKED, UNTIL_CLOSE, BadMessage, Dechunker, Fields, head_end, request_head

HOST = b"Host: x\r\n"


def request(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> _http.RequestHead:
    return request_head(first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> _http.ResponseHead:
    return _http.response_head(first + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def refused(*lines: bytes, **more: bytes) -> int:
    with pytest.raises(BadMessage) as caught:
        request(*lines, **more)
    return caught.value.status


# where a head ends


def test_a_head_ends_behind_its_empty_line_wherever_it_was_cut():
    data = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nBODY"
    for at in range(len(data)):
        assert head_end(data[:at]) == (len(data) - 4 if at >= len(data) - 4 else 0)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: x\n\n",
        b"\nGET / HTTP/1.1\r\n",
        b"GET /\rHTTP/1.1",
        b"GET / HTTP/1.1\r\nA: b\rC: d",
        b"GET / HTTP/1.1\r\r\n",
    ],
)
def test_a_line_end_that_is_none_is_refused_before_the_head_is_there(data):
    with pytest.raises(BadMessage) as caught:
        head_end(data)
    assert caught.value.status == 400


def test_a_first_line_without_end_is_too_long():
    assert head_end(b"GET /" + b"a" * (_http.LONGEST_LINE - 5)) == 0
    with pytest.raises(BadMessage) as caught:
        head_end(b"GET /" + b"a" * _http.LONGEST_LINE)
    assert caught.value.status == 414


@pytest.mark.parametrize("cut", [0, 1, 2, 4, 10_000])
def test_how_long_a_first_line_may_be_does_not_depend_on_where_it_is_cut(cut):
    for length, good in ((_http.LONGEST_LINE, True), (_http.LONGEST_LINE + 1, False)):
        head = b"HTTP/1.1 200 ".ljust(length, b"a") + b"\r\n\r\n"
        with contextlib.nullcontext() if good else pytest.raises(BadMessage):
            head_end(head[: len(head) - cut])
            assert head_end(head) == len(head)


def test_a_head_without_end_is_too_large():
    line = b"A: " + b"b" * 995 + b"\r\n"
    assert head_end(b"GET / HTTP/1.1\r\n" + line * 60) == 0
    with pytest.raises(BadMessage) as caught:
        head_end(b"GET / HTTP/1.1\r\n" + line * 66)
    assert caught.value.status == 431


def test_a_head_is_too_large_whatever_is_behind_it():
    line = b"A: " + b"b" * 995 + b"\r\n"
    with pytest.raises(BadMessage) as caught:
        head_end(b"GET / HTTP/1.1\r\n" + line * 66 + b"\r\n\n")
    assert caught.value.status == 431


# requests


def test_a_request_is_read_as_it_was_sent():
    head = request(b"X-Odd:\t a  b \t", b"x-odd: \xff", b"Empty:", first=b"PATCH /a%2Fb?c=%zz&d=%00 HTTP/1.1")
    assert (head.method, head.target, head.minor) == ("PATCH", "/a%2Fb?c=%zz&d=%00", 1)
    assert head.fields.pairs == [("Host", "x"), ("X-Odd", "a  b"), ("x-odd", "\xff"), ("Empty", "")]
    assert head.fields.all("x-odd") == ["a  b", "\xff"]
    assert head.fields.get("x-odd") == "a  b"
    assert head.fields.get("none", "no") == "no"
    assert "empty" in head.fields
    assert head.fields.first() == {"host": "x", "x-odd": "a  b", "empty": ""}


@pytest.mark.parametrize(
    "first",
    [
        b"GET /",  # HTTP/0.9
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1.\xb2",
        b"GET /a b HTTP/1.1",
        b"GET /\xc3\xa4 HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET\xa0/ HTTP/1.1",
        b"\x16\x03\x01\x02 HTTP/1.1",  # a client that speaks TLS
        b"",
    ],
)
def test_a_request_line_that_is_none_is_refused(first):
    assert refused(first=first) == 400


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.1"])
def test_another_major_version_is_not_spoken(version):
    assert refused(first=b"GET / " + version) == 505


def test_a_later_minor_version_is_taken():
    assert request(first=b"GET / HTTP/1.7").minor == 7


def test_a_request_line_may_be_long_and_not_longer():
    assert request(first=b"GET /" + b"a" * (_http.LONGEST_LINE - 14) + b" HTTP/1.1").method == "GET"
    assert refused(first=b"GET /" + b"a" * (_http.LONGEST_LINE - 13) + b" HTTP/1.1") == 414


@pytest.mark.parametrize(
    "line",
    [
        b" folded: x",
        b"A: b\r\n c",
        b"A: b\r\n\tc",
        b"A : b",
        b"A\t: b",
        b": b",
        b"A",
        b"A b: c",
        b"A\xe4: c",
        b"A: \x00",
        b"A: b\x00c",
        b"A: \x0b",
        b"A: b\x1f",
        b"A: \x7f",
        b"A: b\rC: d",
        b"A: b\nC: d",
    ],
)
def test_a_field_that_is_none_is_refused(line):
    assert refused(line) == 400


def test_only_blanks_and_tabs_are_taken_off_a_value():
    assert request(b"A: \t\xa0b\x85 \t").fields.get("a") == "\xa0b\x85"


def test_fields_are_bounded_in_number_and_length():
    assert len(request(*[b"A: b"] * (_http.MOST_FIELDS - 1)).fields.pairs) == _http.MOST_FIELDS
    assert refused(*[b"A: b"] * _http.MOST_FIELDS) == 431
    assert request(b"A:" + b"b" * (_http.LONGEST_LINE - 2)).fields.get("a")
    assert refused(b"A:" + b"b" * (_http.LONGEST_LINE - 1)) == 431


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" b"])
def test_a_field_of_blanks_costs_no_time(blanks):
    begun = time.thread_time()
    for _ in range(3):
        assert refused(b"A:" + blanks * 8000 + b"\x00") == 400
    assert time.thread_time() - begun < 0.2  # a pattern that tries twice takes a second for each


@pytest.mark.parametrize(
    ("first", "host", "fine"),
    [
        (b"GET / HTTP/1.1", b"", False),
        (b"GET / HTTP/1.0", b"", True),
        (b"GET / HTTP/1.1", b"Host: x\r\nHost: x\r\n", False),
        (b"GET / HTTP/1.0", b"Host: x\r\nhost: y\r\n", False),
    ],
)
def test_a_request_has_exactly_one_host(first, host, fine):
    if fine:
        assert request(first=first, host=host)
    else:
        assert refused(first=first, host=host) == 400


# how long a body is


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length: 0012"], 12),
        ([b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"transfer-encoding:\tChUnKeD "], CHUNKED),
        ([b"Content_Length: 5", b"Transfer_Encoding: chunked"], 0),
    ],
)
def test_a_requests_length(lines, length):
    assert _http.request_length(request(*lines)) == length


@pytest.mark.parametrize(
    "value", [b"", b"+5", b"-5", b"-0", b"5_0", b"0x5", b"5 5", b"5,5", b"\xa05", b"\xb2", b"1e1", b"9" * 19]
)
def test_a_length_that_is_not_one_number_is_refused(value):
    with pytest.raises(BadMessage):
        _http.request_length(request(b"Content-Length: " + value))
    with pytest.raises(BadMessage):
        _http.response_length("GET", answer(b"Content-Length: " + value))


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Content-Length: 5", b"Content-Length: 5"], 400),
        ([b"Content-Length: 5", b"Content-Length: 6"], 400),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 501),
        ([b"Transfer-Encoding: chunked, chunked"], 501),
        ([b"Transfer-Encoding: gzip, chunked"], 501),
        ([b"Transfer-Encoding: chunked;q=1"], 501),
        ([b'Transfer-Encoding: "chunked"'], 501),
        ([b"Transfer-Encoding: identity"], 501),
        ([b"Transfer-Encoding: xchunked"], 501),
        ([b"Transfer-Encoding: chunked\x85"], 501),
        ([b"Transfer-Encoding:"], 501),
    ],
)
def test_a_body_that_could_end_in_two_places_is_refused(lines, status):
    with pytest.raises(BadMessage) as caught:
        _http.request_length(request(*lines))
    assert caught.value.status == status


def test_chunks_are_not_of_http_1_0():
    with pytest.raises(BadMessage) as caught:
        _http.request_length(request(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"))
    assert caught.value.status == 400


# answers


@pytest.mark.parametrize(
    ("first", "status", "reason", "minor"),
    [
        (b"HTTP/1.1 200 OK", 200, "OK", 1),
        (b"HTTP/1.0 404 Not\tFound \xe4", 404, "Not\tFound \xe4", 0),
        (b"HTTP/1.1 599", 599, "", 1),
        (b"HTTP/1.1 103 ", 103, "", 1),
    ],
)
def test_a_status_line(first, status, reason, minor):
    head = answer(b"A: b", first=first)
    assert (head.status, head.reason, head.minor, head.fields.get("a")) == (status, reason, minor, "b")


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 000 x",
        b"HTTP/1.1 600 x",
        b"HTTP/2 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 +20 OK",
        b"220 mail.test ESMTP",
    ],
)
def test_a_status_line_that_is_none_is_refused(first):
    with pytest.raises(BadMessage):
        answer(first=first)


@pytest.mark.parametrize("line", [b"A : b", b"A: b\r\n c", b"A: \x00", b"A", b"A: b\rC: d"])
def test_an_answers_field_that_is_none_is_refused(line):
    with pytest.raises(BadMessage):
        answer(line)


@pytest.mark.parametrize(
    ("method", "first", "lines", "length"),
    [
        ("GET", b"HTTP/1.1 200 OK", [b"Content-Length: 5"], 5),
        ("GET", b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], CHUNKED),
        ("GET", b"HTTP/1.1 200 OK", [], UNTIL_CLOSE),
        ("HEAD", b"HTTP/1.1 200 OK", [b"Content-Length: 5"], 0),
        ("HEAD", b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], 0),
        ("GET", b"HTTP/1.1 204 No", [b"Content-Length: 5"], 0),
        ("GET", b"HTTP/1.1 304 No", [b"Content-Length: 5"], 0),
    ],
)
def test_an_answers_length(method, first, lines, length):
    assert _http.response_length(method, answer(*lines, first=first)) == length


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: gzip"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Content-Length: 5"],
    ],
)
def test_an_answer_that_could_end_in_two_places_is_refused(lines):
    with pytest.raises(BadMessage):
        _http.response_length("GET", answer(*lines))


# connections


@pytest.mark.parametrize(
    ("minor", "lines", "open_"),
    [
        (1, [], True),
        (0, [], False),
        (0, ["keep-alive"], False),
        (1, ["Close"], False),
        (1, ["foo", "bar, \tCLOSE\t"], False),
        (1, ["closed, keep-alive"], True),
    ],
)
def test_who_keeps_a_connection_open(minor, lines, open_):
    assert _http.stays_open(minor, Fields(("Connection", line) for line in lines)) is open_


def test_fields_of_one_connection_do_not_travel_on():
    hop = [(name.title(), "x") for name in _http.HOP_BY_HOP if name != "connection"]
    kept = [("Set-Cookie", "a"), ("set-cookie", "b"), ("X", "y")]
    fields = Fields([("Connection", "x-mine, , Close"), ("X-MINE", "z"), *hop, *kept, ("Host", "h")])
    assert _http.end_to_end(fields, ("host",)) == kept


# chunks


WIRE = b"4;a=b\r\nwiki\r\n005 ; x\r\npedia\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
PAYLOAD = b"wikipedia0123456789"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_are_taken_apart_wherever_they_are_cut(size):
    dechunker = Dechunker()
    wire = WIRE + b"NEXT"
    out = [piece for at in range(0, len(wire), size) for piece in dechunker.feed(wire[at : at + size])]
    assert b"".join(out) == PAYLOAD
    assert dechunker.done
    assert dechunker.rest == b"NEXT"
    assert dechunker.declared == len(PAYLOAD)


def test_payload_comes_out_before_its_chunk_is_whole():
    dechunker = Dechunker()
    assert dechunker.feed(b"5\r\nab") == [b"ab"]
    assert dechunker.declared == 5
    assert dechunker.feed(b"cde") == [b"cde"]
    assert dechunker.feed(b"\r\n0\r\n") == []
    assert not dechunker.done  # the empty line behind the trailers is part of the body
    dechunker.feed(b"\r\n")
    assert dechunker.done


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"5\nhello\r\n",
        b"5\r\nhello\n0\r\n",
        b"5\rhello",
        b"+5\r\nhello\r\n",
        b"-5\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5_0\r\n",
        b"g\r\n",
        b"\xb2\r\n",
        b"5;a=\x00\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"F" * 16 + b"\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA\r\n\r\n",
        b"5;" + b"a" * _http.LONGEST_LINE + b"a",
    ],
)
def test_chunks_that_are_none_are_refused(wire):
    with pytest.raises(BadMessage):
        Dechunker().feed(wire)


@pytest.mark.parametrize("cut", [0, 1, 2, 10_000])
def test_how_long_the_line_of_a_chunk_may_be_does_not_depend_on_where_it_is_cut(cut):
    for length, good in ((_http.LONGEST_LINE, True), (_http.LONGEST_LINE + 1, False)):
        line = b"0;".ljust(length, b"a") + b"\r\n"
        with contextlib.nullcontext() if good else pytest.raises(BadMessage):
            dechunker = Dechunker()
            dechunker.feed(line[: len(line) - cut])
            dechunker.feed(line[len(line) - cut :])


@pytest.mark.parametrize("wire", [b"1;" + b"a" * 1000 + b"\r\nx\r\n", b"0\r\n" + b"A: b\r\n" * 20000])
def test_the_wrapping_of_a_chunked_body_is_bounded(wire):
    with pytest.raises(BadMessage, match="wrapping"):
        Dechunker().feed(wire * 80)


def test_small_chunks_cost_no_time():
    dechunker = Dechunker()
    begun = time.thread_time()
    assert len(dechunker.feed(b"1\r\nx\r\n" * 150_000)) == 150_000
    assert time.thread_time() - begun < 2  # moving what is left for each chunk takes ten times that


@pytest.mark.parametrize(
    "name", ["Authorization", "x-api-key", "X-Goog-Api-Key", "Cookie", "x-secret-thing", "My-Token"]
)
def test_lines_are_remembered_but_no_credentials(name):
    _http._known.clear()
    head = f"GET / HTTP/1.1\r\nHost: a\r\n{name}: sesame\r\nX-Long: {'x' * _http.USUAL}\r\n\r\n".encode()
    first, again = _http.request_head(head), _http.request_head(head)
    assert first.fields.pairs == again.fields.pairs
    assert again.fields.get(name.lower()) == "sesame"
    assert list(_http._known) == [b"Host: a"]


def test_what_is_remembered_is_bounded():
    for number in range(3 * _http.MOST_KNOWN):
        _http.request_head(b"GET / HTTP/1.1\r\nHost: a\r\nX-Number: %d\r\n\r\n" % number)
    assert len(_http._known) <= _http.MOST_KNOWN
