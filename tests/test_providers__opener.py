"""urllib's part: whom it asks through a proxy, and that a question goes out as it was told."""

from __future__ import annotations

import pytest

from providers import Scope, _opener
from providers._connection import Timeouts
from providers._opener import Question, director

TIMES = Timeouts(1.0, 1.0, 1.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "a.localhost"])
def test_this_machine_has_many_names(host):
    assert _opener.is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.test", "127.0.0.1.test", "", "0.0.0.0"])
def test_another_machine_is_another(host):
    assert not _opener.is_loopback(host)


def test_a_question_is_written_as_it_was_told():
    fields = [("X-b", "1"), ("x-B", "2")]
    question = Question("PUT", "http://h:1/a%2Fb?c=%20", fields, b"body", Scope(), TIMES)
    assert (
        question.bytes()
        == b"PUT /a%2Fb?c=%20 HTTP/1.1\r\nHost: h:1\r\nX-b: 1\r\nx-B: 2\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert (question.get_method(), question.full_url, question.data) == ("PUT", "http://h:1/a%2Fb?c=%20", b"body")


def test_two_questions_of_one_address_have_nothing_in_common():
    one, two = (Question("GET", "http://h/", [], None, Scope(), TIMES) for _ in range(2))
    one.add_header("Proxy-authorization", "Basic x")
    one.set_proxy("proxy:1", "http")
    assert b"Proxy-Authorization" not in two.bytes()
    assert (one.host, two.host, one.netloc) == ("proxy:1", "h", "h")


def test_there_is_no_proxy_where_the_environment_names_none(monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", dict)
    assert len(director(lambda question, pool: None).handlers) == 1
