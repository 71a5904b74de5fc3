"""What is promised of `plugins/llm.py`: POST /llm, as a client sees it."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from conftest import settled
from plugins import Refusal, Request
from plugins.llm import Llm
from providers import PAUSE, Provider, Scope, Trouble, UpstreamError
from providers._all import Everything
from providers._http import Fields

USER = {"role": "user", "content": "hi"}
CHAT = {"model": "p/m", "messages": [USER]}
USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


class Hand(Provider):
    """A provider made by hand: it remembers what it was asked, and says what it is told to."""

    def __init__(self, name="p", parts=None, deputy="", models=(), configured=True):
        super().__init__(name, {})
        self.parts = parts
        self.deputy = deputy
        self.listed = models
        self.configured = configured
        self.asked = []
        self.vectors = None
        self.open = 0

    def chat(self, call):
        self.asked.append(call)
        if "seed" in call.chat:
            call.warn("seed", "not supported by p")
        self.open += 1
        try:
            for part in self.said(call) if self.parts is None else self.parts:
                if isinstance(part, BaseException):
                    raise part
                yield part
        finally:
            self.open -= 1

    def said(self, call):
        head = {"id": "c", "created": 1, "model": f"{self.name}/{call.model}"}
        if not call.streams:
            choices = [
                {"index": at, "message": {"role": "assistant", "content": f"hello {at}"}, "finish_reason": "stop"}
                for at in range(call.chat.get("n", 1))
            ]
            yield {**head, "object": "chat.completion", "choices": choices, "usage": USAGE}
            return
        head["object"] = "chat.completion.chunk"
        for delta, finish in (({"role": "assistant", "content": ""}, None), ({"content": "hello"}, None), ({}, "stop")):
            yield PAUSE
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        yield {**head, "choices": [], "usage": USAGE}

    def embed(self, call):
        self.asked.append(call)
        given = call.chat["input"]
        vectors = self.vectors or [[0.5, -1.0]] * (len(given) if isinstance(given, list) else 1)
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        return {"object": "list", "data": data, "model": f"{self.name}/{call.model}", "usage": {"prompt_tokens": 1}}

    def count_tokens(self, call):
        self.asked.append(call)
        return 42

    def embeds_at(self, model):
        return self.deputy

    def models(self):
        for item in self.listed:
            if isinstance(item, BaseException):
                raise item
        return [{"id": name, "object": "model"} for name in self.listed]


def request(document, headers=None, **more):
    body = document if isinstance(document, bytes) else json.dumps({**document, **more}).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    return Request("POST", "/llm", Fields(sent.items()), read=body, scope=Scope())


def plugin(*providers, aliases=None):
    return Llm({"heartbeat": 15.0}, Everything(providers or [Hand()], aliases or {}))


def answer(document, *providers, aliases=None, **more):
    """Give the JSON of a good answer."""
    response = plugin(*providers, aliases=aliases).answer(request(document, **more))
    assert response.status == 200
    assert dict(response.headers)["Content-Type"] == "application/json"
    return json.loads(response.body)


def refused(document, *providers, headers=None, **more):
    with pytest.raises(Trouble) as caught:
        settled(plugin(*providers).answer(request(document, headers, **more)))
    return caught.value


def streamed(document, *providers, **more):
    """Give the events of a stream, `[DONE]` as text, and the response."""
    response = settled(plugin(*providers).answer(request(document, stream=True, **more)))
    assert dict(response.headers)["Content-Type"] == "text/event-stream"
    lines = b"".join(response.body).decode().split("\n\n")
    data = [line[len("data: ") :] for line in lines if line.startswith("data: ")]
    return [json.loads(one) if one != "[DONE]" else one for one in data], response


def test_it_is_served_at_one_path():
    assert list(plugin().routes()) == ["POST /llm"]


# chat


def test_a_whole_answer_is_an_openai_completion_with_its_provider_and_its_text():
    told = answer(CHAT)
    assert told["object"] == "chat.completion"
    assert told["choices"][0]["message"] == {"role": "assistant", "content": "hello 0"}
    assert (told["model"], told["provider"], told["content"], told["usage"]) == ("p/m", "p", "hello 0", USAGE)


def test_chat_is_what_is_meant_when_nothing_is_said():
    for kind in ("chat", None):
        assert answer(CHAT, type=kind)["content"] == "hello 0"
    assert answer(CHAT, stream=False)["content"] == "hello 0"
    assert answer(CHAT, stream=None)["content"] == "hello 0"


def test_the_upstream_is_asked_without_what_is_only_for_us():
    hand = Hand()
    answer(CHAT, hand, type="chat", provider="p", options={"temperature": 1, "top_p": None}, user=None, zzz=1)
    assert hand.asked[0].chat == {"model": "m", "messages": [USER], "temperature": 1, "zzz": 1}


@pytest.mark.parametrize(
    "message",
    [
        {
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"content": None, "refusal": "no"},
        {"content": ""},
        {},
    ],
)
def test_the_text_is_empty_when_there_is_none(message):
    said = {"model": "p/m", "choices": [{"index": 0, "message": {"role": "assistant", **message}}]}
    assert answer(CHAT, Hand(parts=[said]))["content"] == ""


def test_of_several_choices_the_text_is_the_first_ones():
    told = answer(CHAT, n=3)
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2]
    assert told["content"] == "hello 0"


def test_a_streamed_answer_is_chunks_then_usage_then_done():
    events, response = streamed(CHAT)
    assert response.status == 200
    assert events[-1] == "[DONE]"
    assert [event["object"] for event in events[:-1]] == ["chat.completion.chunk"] * 4
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert (events[-2]["choices"], events[-2]["usage"]) == ([], USAGE)


def test_usage_is_told_unless_it_is_not_wanted():
    for options, wanted in (({}, True), ({"include_usage": True}, True), ({"include_usage": False}, False)):
        events, _ = streamed(CHAT, stream_options=options)
        assert ("usage" in events[-2]) == wanted


def test_the_first_part_is_waited_for_before_a_status_is_told():
    overloaded = UpstreamError(503, "busy", {"Retry-After": "7"}, code="provider_overloaded", provider="p")
    for streams in (True, False):
        hand = Hand(parts=[PAUSE, overloaded])
        trouble = refused(CHAT, hand, stream=streams)
        assert trouble is overloaded
        assert hand.open == 0


def test_trouble_after_the_first_part_is_told_in_the_stream():
    hand = Hand(parts=[{"choices": [{"delta": {"content": "a"}}]}, UpstreamError(502, "gone", provider="p")])
    events, response = streamed(CHAT, hand)
    assert response.status == 200
    assert events[-1]["error"]["message"] == "gone"
    assert "[DONE]" not in events
    assert hand.open == 0


def test_what_was_used_is_noted_for_the_log():
    for streams in (True, False):
        asked = request(CHAT, stream=streams)
        response = settled(plugin().answer(asked))
        if streams:
            b"".join(response.body)
        assert (asked.notes["usage"], asked.notes["model"]) == (USAGE, "p/m")


def test_a_strangers_model_name_is_noted_short_and_in_one_line():
    asked = request({**CHAT, "model": "p/x\n\x1b\u2028" + "y" * 1000})
    settled(plugin().answer(asked))
    assert asked.notes["model"].startswith("p/x\\n\\x1b\\u2028y")
    assert len(asked.notes["model"]) < 150
    assert asked.notes["model"].isascii()


# options


def test_options_and_the_top_level_are_one_space():
    document = {"options": {**CHAT, "temperature": 0.5}, "max_tokens": 7}
    hand = Hand()
    answer(document, hand)
    assert hand.asked[0].chat == {"model": "m", "messages": [USER], "temperature": 0.5, "max_tokens": 7}
    assert answer({"options": {**CHAT, "type": "embeddings", "provider": "P", "input": "x"}})["object"] == "list"


def test_the_same_value_in_both_is_no_conflict():
    hand = Hand()
    answer(CHAT, hand, temperature=0.5, options={"temperature": 0.5, "messages": [USER]})
    assert hand.asked[0].chat["temperature"] == 0.5


@pytest.mark.parametrize(
    ("top", "options", "param"),
    [
        ({"temperature": 0.5}, {"temperature": 0.7}, "options.temperature"),
        ({"model": "p/m"}, {"model": "p/n"}, "options.model"),
        ({"type": "chat"}, {"type": "models"}, "options.type"),
        ({"stop": ["a"]}, {"stop": "a"}, "options.stop"),
        ({"zzz": 1}, {"zzz": 2}, "options.zzz"),
    ],
)
def test_two_values_for_one_name_are_refused(top, options, param):
    trouble = refused({**CHAT, **top, "options": options})
    assert (trouble.status, trouble.param) == (400, param)


@pytest.mark.parametrize(("top", "inner"), [(None, 0.5), (0.5, None)])
def test_a_null_in_one_place_leaves_the_other_to_say(top, inner):
    hand = Hand()
    answer(CHAT, hand, temperature=top, options={"temperature": inner})
    assert hand.asked[0].chat["temperature"] == 0.5


def test_no_options_are_fine_and_options_are_an_object():
    for options in (None, {}):
        answer(CHAT, options=options)
    for options in ([], "x", 0, False, True):
        assert refused(CHAT, options=options).param == "options"


# provider and model


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("p", "m"),
        ("P", "m"),
        (None, "p/m"),
        (None, "P/m"),
        ("p", "p/m"),
        ("P", "p/m"),
        ("p", "P/m"),
        (None, "fast"),
    ],
)
def test_a_provider_is_found_in_any_spelling_with_or_without_the_models_prefix(provider, model):
    hand = Hand()
    assert answer(CHAT, hand, Hand("q"), aliases={"fast": ["p/m"]}, provider=provider, model=model)["provider"] == "p"
    assert hand.asked[0].model == "m"


def test_a_slash_in_a_model_is_its_own_when_the_provider_is_told():
    hand = Hand()
    answer(CHAT, hand, Hand("q"), provider="p", model="q/m")
    assert hand.asked[0].model == "q/m"
    answer(CHAT, hand, aliases={"fast": ["q/x"]}, provider="p", model="fast")
    assert hand.asked[1].model == "fast"


@pytest.mark.parametrize("provider", ["", "nobody", " p", "p/", 1, True, [], {}, ["p"]])
def test_an_unknown_provider_is_refused_with_those_there_are(provider):
    trouble = refused(CHAT, Hand(), Hand("q"), provider=provider)
    assert (trouble.status, trouble.param) == (400, "provider")
    assert "p, q" in trouble.message


def test_a_model_without_a_provider_is_asked_for_one():
    trouble = refused(CHAT, Hand(), Hand("q"), model="gpt-4o")
    assert (trouble.status, trouble.param, trouble.code) == (400, "provider", "missing_required_parameter")
    assert "p, q" in trouble.message


@pytest.mark.parametrize("model", [None, "", "  ", 1, True, [], {}, ["p/m"]])
def test_a_model_is_a_text_with_something_in_it(model):
    for provider in (None, "p"):
        trouble = refused(CHAT, provider=provider, model=model)
        assert (trouble.status, trouble.param) == (400, "model")


@pytest.mark.parametrize(("provider", "model"), [(None, "p"), (None, "p/"), ("p", "p/"), ("p", "P/ "), (None, "p/ ")])
def test_a_provider_alone_is_no_model(provider, model):
    hand = Hand()
    trouble = refused(CHAT, hand, provider=provider, model=model)
    assert (trouble.status, trouble.param) == (404, "model")
    assert hand.asked == []


@pytest.mark.parametrize("kind", ["Chat", "embedding", "", 0, False, [], {}, ["chat"]])
def test_an_unknown_type_is_refused_with_those_there_are(kind):
    trouble = refused(CHAT, type=kind)
    assert (trouble.status, trouble.param) == (400, "type")
    assert "chat, embeddings, models, count_tokens" in trouble.message


def test_an_alias_falls_back_and_tells():
    first, second = Hand("p", parts=[UpstreamError(503, "busy")]), Hand("q")
    response = plugin(first, second, aliases={"fast": ["p/a", "q/b"]}).answer(request(CHAT, model="fast"))
    assert json.loads(response.body)["provider"] == "q"
    assert dict(response.headers)["x-llmproxy-warnings"] == "model=p/a failed: q/b was asked"


def test_a_single_provider_will_do_as_upstream():
    response = Llm({"heartbeat": 15.0}, Hand()).answer(request(CHAT))
    assert json.loads(response.body)["content"] == "hello 0"


# what is wrong with a request


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Type": ""}, {"Content-Encoding": "gzip"}]
)
def test_a_body_that_does_not_say_it_is_json_is_not_read(headers):
    asked = request(CHAT, headers)
    asked._read = pytest.fail
    with pytest.raises(Refusal) as caught:
        settled(plugin().answer(asked))
    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"])
def test_json_may_be_said_in_any_spelling(kind):
    assert plugin().answer(request(CHAT, {"Content-Type": kind})).status == 200


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [USER, {"role": "x"}]}, "messages[1].role"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"options": {"n": True}}, "n"),
        ({"type": "embeddings"}, "input"),
        ({"type": "embeddings", "input": [1, "a"]}, "input[1]"),
        ({"type": "embeddings", "input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"type": "count_tokens", "messages": "x"}, "messages"),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(more, param):
    hand = Hand()
    trouble = refused(CHAT, hand, **more)
    assert (trouble.status, trouble.kind, trouble.param) == (400, "invalid_request_error", param)
    assert hand.asked == []


def test_broken_json_is_a_400():
    for body in (b"", b"{", b"[]", b"[" * 100_000, b"\xff", b'{"model": NaN}'):
        assert refused(body).status == 400


def test_pockets_of_a_client_are_not_passed_on():
    hand = Hand()
    answer({**CHAT, "messages": [{**USER, "_anthropic": 1}]}, hand, _anthropic={"x": 1})
    assert hand.asked[0].chat == {"model": "m", "messages": [USER]}


# warnings


def test_what_was_changed_is_told_in_a_header():
    for streams in (True, False):
        response = plugin().answer(request(CHAT, stream=streams, seed=1))
        assert dict(response.headers)["x-llmproxy-warnings"] == "seed=not supported by p"


def test_without_a_change_there_is_no_such_header():
    assert "x-llmproxy-warnings" not in dict(plugin().answer(request(CHAT)).headers)


def test_who_is_strict_gets_a_400_for_each():
    for value in ("true", "TRUE"):
        trouble = refused(CHAT, headers={"X-LLMProxy-Strict": value}, seed=1)
        assert (trouble.status, trouble.param, trouble.code) == (400, "seed", "unsupported_parameter")
    assert plugin().answer(request(CHAT, {"x-llmproxy-strict": "false"}, seed=1)).status == 200
    assert plugin().answer(request(CHAT, {"x-llmproxy-strict": "true"})).status == 200


def test_a_strangers_names_do_not_break_the_header():
    asked = request(CHAT)
    for name in ["a\r\nSet-Cookie: b=c", "\xe9,\u2028", "x" * 100_000, *map(str, range(10_000))]:
        asked.scope.warnings[name] = "not supported,\r\nby p" + "!" * 10_000
    response = settled(plugin().answer(asked))
    told = dict(response.headers)["x-llmproxy-warnings"]
    assert told.startswith("a??Set-Cookie: b=c=not supported???by p!")
    assert told.isascii()
    assert told.isprintable()
    assert len(told) < 10_000


# embeddings


def test_embeddings_are_openais_list_with_its_provider():
    told = answer({"type": "embeddings", "model": "p/e", "input": ["a", "b"]})
    assert told == {
        "object": "list",
        "data": [{"object": "embedding", "index": at, "embedding": [0.5, -1.0]} for at in (0, 1)],
        "model": "p/e",
        "provider": "p",
        "usage": {"prompt_tokens": 1},
    }


@pytest.mark.parametrize("given", ["text", ["a"], [1, 2, 3], [[1], [2, 3]]])
def test_input_reaches_the_provider_as_it_came(given):
    hand = Hand()
    answer({"type": "embeddings", "provider": "p", "model": "e", "options": {"input": given, "dimensions": 2}}, hand)
    assert hand.asked[0].chat == {"model": "e", "input": given, "dimensions": 2}


def test_vectors_are_packed_here_whoever_made_them():
    for wanted in ("base64", "float"):
        hand = Hand()
        told = answer({"type": "embeddings", "model": "p/e", "input": "a", "encoding_format": wanted}, hand)
        vector = told["data"][0]["embedding"]
        if wanted == "base64":
            vector = list(struct.unpack("<2f", base64.b64decode(vector)))
        assert vector == [0.5, -1.0]
        assert "encoding_format" not in hand.asked[0].chat


@pytest.mark.parametrize("vector", [[None], ["x"], [1e300]])
def test_a_vector_that_is_none_is_the_upstreams_fault(vector):
    hand = Hand()
    hand.vectors = [vector]
    trouble = refused({"type": "embeddings", "model": "p/e", "input": "a", "encoding_format": "base64"}, hand)
    assert (trouble.status, trouble.code) == (502, "provider_error")


def test_embeddings_another_makes_name_their_maker():
    anthropic, voyage = Hand("anthropic", deputy="voyage/"), Hand("voyage")
    asked = request({"type": "embeddings", "provider": "Anthropic", "model": "claude-x", "input": "a"})
    response = plugin(anthropic, voyage).answer(asked)
    assert json.loads(response.body)["provider"] == "voyage"
    assert "anthropic has no embeddings" in dict(response.headers)["x-llmproxy-warnings"]


def test_embeddings_nobody_can_make_say_exactly_this():
    providers = (Hand("anthropic", deputy="voyage/"), Hand("voyage", configured=False))
    trouble = refused({"type": "embeddings", "provider": "anthropic", "model": "claude-x", "input": "a"}, *providers)
    assert (trouble.status, trouble.param) == (400, "provider")
    assert "anthropic has no embeddings endpoint" in trouble.message


# models


def test_all_models_bear_their_providers_names():
    told = answer({"type": "models"}, Hand("p", models=["x"]), Hand("q", models=["y/z"]))
    assert told["object"] == "list"
    assert [(model["id"], model["provider"]) for model in told["data"]] == [("p/x", "p"), ("q/y/z", "q")]
    assert "errors" not in told


def test_one_providers_models_have_their_own_names():
    told = answer({"type": "models", "provider": "Q"}, Hand("p", models=["x"]), Hand("q", models=["y/z"]))
    assert [model["id"] for model in told["data"]] == ["y/z"]
    assert told["provider"] == "q"


def test_who_failed_is_told_beside_the_others_models():
    told = answer({"type": "models"}, Hand("p", models=["x"]), Hand("q", models=[UpstreamError(502, "no way")]))
    assert [model["id"] for model in told["data"]] == ["p/x"]
    assert told["errors"] == {"q": "no way"}


def test_trouble_of_the_one_asked_for_is_the_answer():
    assert refused({"type": "models", "provider": "q"}, Hand("q", models=[UpstreamError(502, "no way")])).status == 502


def test_models_need_no_model():
    assert answer({"type": "models", "model": None})["data"] == []


# counts


def test_tokens_are_counted_by_the_provider():
    hand = Hand()
    told = answer(CHAT, hand, type="count_tokens", max_tokens=5)
    assert told == {"object": "response.input_tokens", "input_tokens": 42, "model": "p/m"}
    assert hand.asked[0].chat == {"model": "m", "messages": [USER], "max_tokens": 5}


def test_who_cannot_count_says_so():
    class Mute(Provider):
        pass

    trouble = refused({**CHAT, "model": "mute/m"}, Mute("mute", {}), type="count_tokens")
    assert (trouble.status, trouble.code) == (501, "unsupported_operation")
