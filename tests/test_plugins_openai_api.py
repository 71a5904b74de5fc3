"""What is promised of `plugins/openai_api.py`: OpenAI's clients find an OpenAI, whoever answers."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import pytest

from conftest import settled
from plugins import Request
from plugins._stream import KEEP_ALIVE
from plugins.openai_api import OpenAIAPI, speak
from providers import PAUSE, Provider, Trouble, UpstreamError
from providers._http import Fields
from upstream import Reply, json_reply

GOLDEN = Path(__file__).parent / "golden" / "openai"
USER = {"role": "user", "content": "hi"}
CHAT = {"model": "up/m", "messages": [USER]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
HEAD = {"id": "c", "created": 1, "model": "up/m"}
MODEL = {"id": "m", "object": "model", "created": 7, "owned_by": "us", "shutdown_date": None}


class Up(Provider):
    """Gives a script, and keeps what it was asked."""

    def __init__(self, *script):
        super().__init__("up", {})
        self.script = script
        self.asked = []

    def chat(self, call):
        self.asked.append(call.chat)
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            yield item

    def embed(self, call):
        self.asked.append(call.chat)
        call.warn("user", "not supported by up")
        given = call.chat["input"]
        many = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        data = [{"object": "embedding", "index": at, "embedding": [0.5, float(at)]} for at in range(len(many))]
        return {"object": "list", "data": data, "model": "up/m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    def survey(self, scope, provider=""):
        odd = {**MODEL, "id": "up/m", "provider": "up", "context_length": 9, "capabilities": ["vision"]}
        return [odd, {"id": "fast", "provider": "up"}], {"down": "no answer within 2 s"}

    def describe(self, call):
        if call.model != "up/a/m":
            raise UpstreamError(404, "none such", code="model_not_found", param="model", provider="up")
        return {**MODEL, "id": call.model, "provider": "up"}


def whole(message, finish="stop", **choice):
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}]
    return {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE}


def part(delta, finish=None, **choice):
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]
    return {**HEAD, "object": "chat.completion.chunk", "choices": choices}


LAST = {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}


def ask(up, route, body=None, target="", heartbeat=15.0, **headers):
    """Ask on a route; gives the response, and its JSON or its text."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    method, _, path = route.partition(" ")
    fields = Fields({"Content-Type": "application/json", **headers}.items())
    plugin = OpenAIAPI({"heartbeat": heartbeat}, up)
    try:
        response = settled(plugin.routes()[route](Request(method, target or path, fields, read=data)))
    except Trouble as trouble:
        response = plugin.error(trouble)
    if isinstance(response.body, bytes):
        return response, json.loads(response.body)
    return response, b"".join(response.body).decode()


def chatted(up, **body):
    return ask(up, "POST /llm/v1/chat/completions", {**CHAT, **body})


def streamed(*script, **body):
    text = chatted(Up(*script), stream=True, **body)[1]
    return [json.loads(one[6:]) if one != "data: [DONE]" else "[DONE]" for one in text.split("\n\n") if one]


# chat


def test_a_whole_answer_has_all_that_openai_always_says():
    _, told = chatted(Up(PAUSE, whole({"content": "x", "reasoning_content": "t", "reasoning_details": [{}]})))
    (choice,) = told["choices"]
    assert choice.keys() == {"index", "message", "finish_reason", "logprobs"}
    assert choice["message"] == {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "reasoning_content": "t",
        "reasoning_details": [{}],
    }
    assert (told["model"], told["usage"]) == ("up/m", USAGE)


def test_what_openai_says_itself_stays_and_what_it_never_says_goes():
    logprobs = {"content": [], "refusal": None}
    _, told = chatted(Up(whole({"refusal": "no"}, logprobs=logprobs, stop_sequence="x")))
    (choice,) = told["choices"]
    assert (choice["logprobs"], choice["message"]["refusal"]) == (logprobs, "no")
    assert "stop_sequence" not in choice
    chunk, _ = streamed(part({"content": "a"}, "stop", stop_sequence="x"))
    assert chunk["choices"] == [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]


def test_several_choices_are_all_told():
    both = whole({"content": "a"})
    both["choices"].append({**both["choices"][0], "index": 1})
    assert [choice["index"] for choice in chatted(Up(both), n=2)[1]["choices"]] == [0, 1]


PARTS = [part({"role": "assistant", "content": ""}), PAUSE, {**part({"content": "a"}), "usage": None}, part({}, "stop")]


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}])
def test_a_usage_that_was_not_asked_for_is_not_told(options):
    *chunks, done = streamed(*PARTS, LAST, **options)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {},
    ]
    assert not [chunk for chunk in chunks if "usage" in chunk]
    assert done == "[DONE]"


def test_a_usage_that_was_asked_for_is_the_last_chunk_and_null_in_all_others():
    *chunks, last, done = streamed(*PARTS, LAST, stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in chunks] == [None] * 3
    assert (last, done) == (LAST, "[DONE]")


def test_a_pause_is_passed_on_at_once():
    blocks = speak([PAUSE, part({"content": "a"}), PAUSE, PAUSE, part({}, "stop")], {})
    assert [bool(block) for block in blocks] == [False, True, False, False, True, True]


def test_a_stream_that_breaks_off_says_why_and_has_no_good_end():
    first, error = streamed(part({"content": "a"}), UpstreamError(502, "cut", code="stream_truncated", provider="up"))
    assert first["choices"]
    assert error["error"] == {
        "message": "cut",
        "type": "api_error",
        "param": None,
        "code": "stream_truncated",
        "provider": "up",
    }


def test_a_silence_has_comments_for_life_signs():
    response, text = ask(
        Up(PAUSE, PAUSE, part({"content": "a"}, "stop")),
        "POST /llm/v1/chat/completions",
        {**CHAT, "stream": True},
        heartbeat=0.0,
    )
    assert response.status == 200
    assert text.startswith(KEEP_ALIVE.decode())


def test_trouble_is_told_in_openais_shape_with_its_status():
    error = UpstreamError(429, "slow", {"Retry-After": "3"}, code="rate_limit_exceeded", provider="up")
    response, told = chatted(Up(error))
    assert (response.status, dict(response.headers)["Retry-After"]) == (429, "3")
    assert told["error"].keys() == {"message", "type", "param", "code", "provider"}
    assert chatted(Up(error), stream=True)[0].status == 429


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"messages": [{"role": "nobody"}]}, "messages[0].role"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"stream_options": 5}, "stream_options"),
        ({"n": 0}, "n"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_wrong_field_is_refused_by_its_name(body, param, stream):
    up = Up()
    response, told = chatted(up, stream=stream, **body)
    assert (response.status, told["error"]["param"], up.asked) == (400, param, [])


def test_what_nobody_here_knows_travels_on_and_what_is_ours_alone_cannot_be_sent():
    up = Up(whole({"content": "x"}))
    chatted(up, new={"a": 1}, _openai={"body": 1}, messages=[{**USER, "_gemini": 1, "new": 2}], temperature=None)
    asked = {name: value for name, value in up.asked[0].items() if not name.startswith("_")}
    assert asked == {"model": "up/m", "messages": [{**USER, "new": 2}], "new": {"a": 1}}
    assert up.asked[0]["_openai"].body["new"] == {"a": 1}, "a pocket of ours"


def test_a_body_that_is_not_said_to_be_json_is_refused():
    assert ask(Up(), "POST /llm/v1/chat/completions", CHAT, **{"Content-Type": "text/plain"})[0].status == 415


# embeddings


def embedded(up, **body):
    return ask(up, "POST /llm/v1/embeddings", {"model": "up/m", "input": ["a", "b"], **body})


def test_embeddings_are_numbers_or_packed_as_is_asked_and_in_order():
    response, floats = embedded(Up())
    _, packed = embedded(Up(), encoding_format="base64")
    assert floats["data"] == [
        {"object": "embedding", "index": 0, "embedding": [0.5, 0.0]},
        {"object": "embedding", "index": 1, "embedding": [0.5, 1.0]},
    ]
    assert floats.keys() == {"object", "data", "model", "usage"}
    vectors = [struct.unpack("<2f", base64.b64decode(item["embedding"])) for item in packed["data"]]
    assert vectors == [(0.5, 0.0), (0.5, 1.0)]
    assert dict(response.headers)["x-llmproxy-warnings"] == "user=not supported by up"


@pytest.mark.parametrize("given", ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_texts_and_token_ids_are_passed_on(given):
    up = Up()
    embedded(up, input=given, dimensions=2)
    assert up.asked == [{"model": "up/m", "input": given, "dimensions": 2}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"model": None}, "model"),
        ({"encoding_format": "x"}, "encoding_format"),
    ],
)
def test_a_wrong_field_of_embeddings_is_refused_by_its_name(body, param):
    response, told = embedded(Up(), **body)
    assert (response.status, told["error"]["param"]) == (400, param)


# models


def test_models_are_listed_as_openai_lists_them_and_whose_are_missing_is_told():
    response, told = ask(Up(), "GET /llm/v1/models")
    fast = {"id": "fast", "object": "model", "created": 0, "owned_by": "up"}
    assert told == {"object": "list", "data": [{**MODEL, "id": "up/m"}, fast]}
    assert dict(response.headers)["x-llmproxy-warnings"] == "down=no answer within 2 s"


def test_codex_finds_the_list_without_which_it_stops():
    _, told = ask(Up(), "GET /llm/v1/models", target="/llm/v1/models?client_version=0.151.0")
    assert (told["models"], told["data"][0]["id"]) == ([], "up/m")


@pytest.mark.parametrize("target", ["/llm/v1/models/up/a/m", "/v1/models/up%2Fa%2Fm"])
def test_a_model_is_described_whatever_stands_before_its_name(target):
    assert ask(Up(), "GET /llm/v1/models/*", target=target)[1] == {**MODEL, "id": "up/a/m"}


def test_a_model_that_is_not_there_is_not_found():
    response, told = ask(Up(), "GET /llm/v1/models/*", target="/llm/v1/models/none")
    assert (response.status, told["error"]["code"], told["error"]["param"]) == (404, "model_not_found", "model")


# OpenAI to OpenAI changes nothing


def through(house, upstream, reply):
    up = upstream(reply)
    return up, house(f"[providers.up]\ntype = openai\nbase_url = {up.url}/v1\napi_key = sk-1\n")


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def renamed(document):
    """Name the model as it is named here."""
    return {**document, "model": f"up/{document['model']}"}


@pytest.mark.parametrize("name", ["chat_plain", "chat_refusal", "chat_tools"])
def test_a_question_and_its_answer_pass_as_they_are(house, upstream, name):
    told = golden(name)
    up, one = through(house, upstream, json_reply(told["came"]))
    answer = one.ask("POST", "/llm/v1/chat/completions", renamed(told["asked"]))
    assert [asked.json for asked in up.asked] == [told["asked"]]
    assert answer.json == renamed(told["came"])
    assert "x-llmproxy-warnings" not in answer.headers


@pytest.mark.parametrize("name", ["stream_plain", "stream_tools"])
def test_a_stream_passes_as_it_is(house, upstream, name):
    told = golden(name)
    up, one = through(house, upstream, Reply(200, {"Content-Type": "text/event-stream"}, [told["came"].encode()]))
    question = {**told["asked"], "stream": True, "stream_options": {"include_usage": True}, "new": [1]}
    answer = one.ask("POST", "/llm/v1/chat/completions", renamed(question))
    assert [asked.json for asked in up.asked] == [question]
    chunks = [json.loads(line[6:]) for line in told["came"].splitlines() if line.startswith("data: {")]
    for chunk in chunks:
        chunk.pop("obfuscation", None)
        chunk.setdefault("usage", None)
    assert answer.events == [*map(renamed, chunks), "[DONE]"]


def test_a_full_question_passes_as_it_is(house, upstream):
    told = golden("request_full")
    up, one = through(
        house, upstream, json_reply({"error": {"message": "no", "type": "x", "param": None, "code": None}}, 400)
    )
    answer = one.ask("POST", "/llm/v1/chat/completions", renamed(told["asked"]))
    assert [asked.json for asked in up.asked] == [told["asked"]]
    assert (answer.status, answer.json["error"]["message"]) == (400, "no")
