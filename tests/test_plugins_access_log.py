"""The access log: one line for each request, with what its owner may read over somebody's shoulder."""

from __future__ import annotations

import json
import logging
import socket

import pytest

from plugins import Request, Response
from plugins.access_log import AccessLog, line, masked
from providers import Gone, Provider, Scope
from providers._http import Fields


@pytest.fixture
def plugin(caplog):
    caplog.set_level(logging.INFO, "llmproxy.access")
    return AccessLog({}, Provider("up", {}))


def asking(*fields, client=None, **more) -> Request:
    request = Request("POST", "/llm?key=secret", Fields(fields), "127.0.0.1", scope=Scope(client))
    request.id = "id-1"
    for name, value in more.items():
        setattr(request, name, value)
    return request


def lines(caplog):
    return [record.fields for record in caplog.records if record.getMessage() == "request"]


def test_a_request_is_one_line_when_it_has_ended(plugin, caplog):
    request = asking(user="alice")

    def inner(request: Request) -> Response:
        request.notes.update(route="/llm", model="up/m", usage={"prompt_tokens": 3, "completion_tokens": 4})
        return Response(201)

    plugin.handle(request, inner)
    assert lines(caplog) == []  # its body is still to be sent
    request.notes["first_byte"] = 1e12
    request.scope.close()
    (told,) = lines(caplog)
    assert told.pop("ms") >= 0
    assert told.pop("first_ms") > 0
    assert told == {
        "id": "id-1",
        "user": "alice",
        "method": "POST",
        "route": "/llm",
        "model": "up/m",
        "status": 201,
        "tokens_in": 3,
        "tokens_out": 4,
    }


def test_a_stranger_is_an_address_and_a_path_without_route_has_no_query(plugin, caplog):
    request = asking()
    plugin.handle(request, lambda request: Response(404))
    request.scope.close()
    told = lines(caplog)[0]
    assert (told["user"], told["route"], told["status"]) == ("127.0.0.1", "/llm", 404)
    assert "secret" not in str(told)
    assert not {"model", "tokens_in", "trouble", "first_ms"} & set(told)


def test_trouble_is_named(plugin, caplog):
    request = asking()
    request.notes["trouble"] = "stream_truncated"
    plugin.handle(request, lambda request: Response(200))
    request.scope.close()
    assert lines(caplog)[0]["trouble"] == "stream_truncated"


def test_a_client_that_left_is_told_from_one_that_was_answered(plugin, caplog):
    ours, theirs = socket.socketpair()
    theirs.close()
    request = asking(client=ours)

    def inner(request: Request) -> Response:
        request.scope.wait(None, 30)
        return Response(200)

    with ours, pytest.raises(Gone):
        plugin.handle(request, inner)
    assert [told["status"] for told in lines(caplog)] == [499]
    request.scope.close()
    assert len(lines(caplog)) == 1


def test_a_client_that_left_in_a_stream_is_no_success(plugin, caplog):
    ours, theirs = socket.socketpair()
    request = asking(client=ours)
    plugin.handle(request, lambda request: Response(200))
    theirs.close()
    with ours, pytest.raises(Gone):
        request.scope.wait(None, 30)
    assert [told["status"] for told in lines(caplog)] == [499]


def test_nothing_is_logged_where_nobody_listens(caplog):
    caplog.set_level(logging.WARNING, "llmproxy.access")
    request = asking()
    AccessLog({}, Provider("up", {})).handle(request, lambda request: Response(200))
    request.scope.close()
    assert caplog.records == []


SECRETS = {
    "Authorization": "Bearer abc",
    "proxy-authorization": "Basic abc",
    "Cookie": "abc",
    "X-API-Key": "abc",
    "x-goog-api-key": "abc",
    "X-Auth-Token": "abc",
    "Client-Secret": "abc",
}


def test_headers_are_shown_for_debugging_with_their_secrets_masked(caplog):
    caplog.set_level(logging.DEBUG, "llmproxy.access")
    request = asking(*SECRETS.items(), ("User-Agent", "me"))
    AccessLog({}, Provider("up", {})).handle(request, lambda request: Response(200))
    told = caplog.records[0].fields
    assert told["id"] == "id-1"
    assert told["headers"] == {**dict.fromkeys(SECRETS, "***"), "User-Agent": "me"}
    assert "abc" not in json.dumps(told)
    request.scope.close()


def test_headers_are_not_shown_otherwise(plugin, caplog):
    request = asking(("User-Agent", "me"))
    plugin.handle(request, lambda request: Response(200))
    request.scope.close()
    assert "me" not in [str(value) for record in caplog.records for value in record.fields.values()]
    assert masked(request) == {"User-Agent": "me"}


def test_a_line_can_be_json():
    request = asking()
    request.notes.update(status=200, first_byte=2.0004)
    told = line(request, 1.0, 3.0)
    assert json.loads(json.dumps(told)) == told
    assert (told["first_ms"], told["ms"]) == (1000.4, 2000.0)
