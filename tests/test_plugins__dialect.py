"""What is promised of `plugins/_dialect.py`, seen with a dialect of a few words."""

from __future__ import annotations

import json

import pytest

from conftest import finished
from plugins import Refusal, Request
from plugins._dialect import Asked, Dialect, created, estimated, naming, with_field
from providers import PAUSE, Pocket, Provider, UpstreamError, _canonical
from providers._http import Fields

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


class Tongue(Dialect):
    dialect = "tongue"
    life = b"alive\n"

    def say(self, body, heartbeat=15.0):
        self.heartbeat = heartbeat
        request = Request("POST", "/say", Fields(()))
        chat = {name: value for name, value in body.items() if name != "new"}
        asked = Asked(chat, Pocket(body))
        return finished(self.converse(request, asked, self.answer, self.speak)), request

    def answer(self, completion):
        return {"said": completion["choices"][0]["message"]["content"]}

    def speak(self, parts):
        for part in parts:
            yield b"" if not part else part["choices"][0]["delta"]["content"].encode() + b"\n"
        yield b"end\n"

    def spelled(self, event):
        return json.dumps(event).encode() + b"\n"

    def failed(self, trouble):
        return f"trouble: {trouble}\n".encode()


class Up(Provider):
    """A provider that gives a script, and keeps what it was asked."""

    def __init__(self, *script, tokens=None):
        super().__init__("up", {})
        self.script = script
        self.tokens = tokens
        self.asked = None

    def chat(self, call):
        self.asked = call
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            yield item

    def count_tokens(self, call):
        return super().count_tokens(call) if self.tokens is None else self.tokens


CHAT = {"model": "up/m", "messages": [{"role": "user", "content": "hi"}]}


def part(text, **more):
    return {"choices": [{"index": 0, "delta": {"content": text}}], **more}


def said(*script, **body):
    up = Up(*script)
    response, request = Tongue({"heartbeat": 15.0}, up).say({**CHAT, **body})
    content = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    return content.decode(), response, request, up.asked


def test_a_whole_answer_is_worded_by_the_dialect():
    completion = _canonical.completion("id", "up/m", {"content": "hello"}, "stop", USAGE)
    text, response, request, asked = said(PAUSE, completion)
    assert (json.loads(text), response.status) == ({"said": "hello"}, 200)
    assert request.notes == {"model": "up/m", "usage": USAGE}
    assert asked.chat["messages"] == CHAT["messages"]


def test_a_stream_is_spoken_by_the_dialect():
    text, response, request, _ = said(PAUSE, part("a"), PAUSE, part("b", usage=USAGE), stream=True)
    assert text == "a\nb\nend\n"
    assert dict(response.headers)["Content-Type"] == "text/event-stream"
    assert request.notes["usage"] == USAGE


def test_an_upstream_of_the_same_dialect_is_passed_on_in_its_own_words():
    completion = {**_canonical.completion("id", "up/m", {"content": "x"}, "stop", USAGE), "_tongue": {"own": "words"}}
    assert json.loads(said(completion)[0]) == {"own": "words"}
    parts = part("a", _tongue=[{"n": 1}, {"n": 2}]), PAUSE, {"_tongue": [{"n": 3}]}, part("not said")
    assert said(PAUSE, *parts, stream=True)[0] == '{"n": 1}\n{"n": 2}\n{"n": 3}\n'


def test_the_clients_own_words_travel_with_the_call():
    *_, asked = said(part("a"), stream=True, new="field")
    assert asked.chat["_tongue"].body == {**CHAT, "stream": True, "new": "field"}
    assert "new" not in asked.chat


def test_trouble_under_way_is_worded_by_the_dialect_and_has_no_good_end():
    text = said(part("a"), PAUSE, UpstreamError(502, "cut"), stream=True)[0]
    assert text == "a\ntrouble: cut\n"


def test_trouble_before_the_first_part_is_raised_while_a_status_can_be_chosen():
    with pytest.raises(UpstreamError):
        said(PAUSE, UpstreamError(502, "down"), stream=True)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_a_translator_stumbles_over_is_the_upstreams_trouble(caplog, stream):
    odd = {"choices": [{"index": 0, "delta": {"content": 5}}]} if stream else {"choices": [{"message": None}]}
    if stream:
        assert (
            said(part("a"), odd, stream=True)[0]
            == "a\ntrouble: the upstream's answer is not of the shape it should have\n"
        )
    else:
        with pytest.raises(UpstreamError, match="not of the shape") as caught:
            said(odd)
        assert (caught.value.status, caught.value.code) == (502, "provider_error")
    assert "test_plugins__dialect.py" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(("when", "seconds"), [(5, 5), (5.5, 5), (None, 0), ("x", 0), (-1, 0), (10**30, 0), ([], 0)])
def test_a_model_was_made_at_a_time_that_calendars_know(when, seconds):
    assert created({"created": when}) == seconds


def test_trouble_names_a_field_as_its_client_does():
    for message in ("n: too many", "too many"):
        trouble = Refusal(400, message, param="n")
        with pytest.raises(Refusal), naming({"n": "config.count"}.get):
            raise trouble
        assert (trouble.param, with_field(trouble)) == ("config.count", "config.count: too many")
    assert with_field(Refusal(404, "no such model", param="model")) == "no such model"
    with pytest.raises(Refusal), naming({}.get):
        raise Refusal(400, "no field is named")


def test_a_silence_has_the_dialects_life_sign():
    up = Up(PAUSE, PAUSE, part("a"))
    response, _ = Tongue({"heartbeat": 15.0}, up).say({**CHAT, "stream": True}, heartbeat=0.0)
    assert b"".join(response.body) == b"alive\nalive\na\nend\n"


def test_a_wrong_field_is_refused_by_name():
    with pytest.raises(Refusal) as caught:
        said(messages=[{"role": "nobody"}])
    assert caught.value.param == "messages[0].role"


def test_tokens_are_counted_where_they_can_be_and_else_estimated_and_marked():
    def counted(up):
        dialect = Tongue({"heartbeat": 15.0}, up)
        call = dialect.call(Request("POST", "/say", Fields(())), Asked(CHAT, Pocket(CHAT)))
        return dialect.counted(call), call.scope.warnings

    assert counted(Up(tokens=7)) == ((7, False), {})
    (tokens, marked), warnings = counted(Up())
    assert (tokens > 0, marked, list(warnings)) == (True, True, ["input_tokens"])


def test_an_estimate_counts_letters_and_pictures():
    text = {"messages": [{"role": "user", "content": "x" * 400}]}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
    seen = {"messages": [{"role": "user", "content": [picture]}]}
    assert 100 <= estimated(text) <= 110
    assert 1000 <= estimated(seen) <= 1010
    assert estimated({**text, "tools": [{"function": {"description": "y" * 400}}]}) >= 200
