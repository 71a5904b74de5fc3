"""Whatever JSON a stranger sends to POST /llm, whoever is to answer: an answer, or a 4xx that names the field."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any, ClassVar, List

import pytest

from conftest import settled
from plugins import Request
from plugins.llm import Llm
from providers import Trouble, UpstreamError, _transport
from providers._all import Everything
from providers._http import Fields
from test_house_rules import MODULES, contracted

NAMES = [name.partition(".")[2] for name in MODULES if name.startswith("providers.")]
#: models that are asked in different ways; of other providers any name will do
MODELS = {
    "anthropic": ["claude-3-5-haiku", "claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-5-5"],
    "gemini": ["gemini-1.5-flash", "models/gemini-2.5-pro", "gemini-3-pro"],
    "openai": ["gpt-4o", "gpt-5.4"],
}
ASKED = [f"{name}/{model}" for name in NAMES for model in MODELS.get(name, ["m"])]
PICTURE = "data:image/png;base64,AAAA"


class OutOfReach:
    """An opener behind which nobody is: whoever asks has sent JSON that anybody can read."""

    bodies: ClassVar[List[Any]] = []  # of all questions

    def open(self, question):
        if question.body is not None:
            body = json.loads(question.body.decode("utf-8"), parse_constant=pytest.fail, parse_float=finite)
            self.bodies.append(body)
        raise UpstreamError(418, "out of reach", code="out_of_reach")


def finite(text):
    assert math.isfinite(float(text)), text
    return float(text)


@pytest.fixture
def ask(monkeypatch):
    """Give who asks POST /llm, and tells the status and the code of the answer."""
    monkeypatch.setattr(_transport, "opener", OutOfReach)
    monkeypatch.setattr(OutOfReach, "bodies", [])
    providers = []
    for name in NAMES:
        kind, _ = contracted(f"providers.{name}")
        options = {option: row[0] for option, row in kind.options.items()}
        providers.append(kind(name, {**options, **({"api_key": "key"} if "api_key" in options else {})}))
    every = Everything(providers, {"alias": [ASKED[0], ASKED[-1]]})
    plugin = Llm({"heartbeat": 15.0}, every)

    def asked(document, strict=False):
        body = json.dumps(document).encode()
        headers = [("Content-Type", "application/json"), ("x-llmproxy-strict", str(strict).lower())]
        request = Request("POST", "/llm", Fields(headers), read=body)
        try:
            response = settled(plugin.answer(request))
            told = b"".join([response.body] if isinstance(response.body, bytes) else response.body)
            assert b"NaN" not in told
            status, code, headers = response.status, None, response.headers
        except Trouble as trouble:
            json.dumps(trouble.document())
            status, code, headers = trouble.status, trouble.code, request.warnings()
            assert 400 <= status < 500 or code == "unsupported_operation", trouble.message
            assert status != 400 or trouble.param or code == "unsupported_operation", trouble.message
        for _, value in headers:
            assert value.isascii()
            assert value.isprintable()
            assert len(value) < 10_000
        return status, code

    yield asked
    every.close()


def conversation(model):
    """Give a question that uses what most providers have."""
    own, _, bare = model.partition("/")
    tags = {"provider": own, "model": bare, "index": 0}
    details = [
        {**tags, "type": "thinking", "thinking": "t", "signature": "c2ln"},
        {**tags, "type": "redacted_thinking", "data": "ZGF0YQ=="},
        {**tags, "type": "thought_signature", "tool_call_id": "c1", "signature": "c2ln"},
        {**tags, "type": "reasoning_item", "id": "r", "encrypted_content": "e", "summary": []},
    ]
    calls = [{"id": f"c{at}", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}} for at in (1, 2)]
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 2}, "b": {"anyOf": [{"type": "null"}, {"type": "string"}]}},
        "required": ["a"],
    }
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Look."}, {"type": "text", "text": 'call add {"a":1}'}],
            },
            {
                "role": "assistant",
                "content": "So.",
                "reasoning_content": "t",
                "reasoning_details": details,
                "tool_calls": calls,
            },
            {"role": "tool", "tool_call_id": "c1", "content": '{"x":1}', "is_error": True},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "3"}]},
            {"role": "assistant", "content": "Well."},
            {"role": "developer", "content": "Go on."},
            {"role": "user", "content": 'call add {"a":2}'},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": schema, "strict": True}}],
        "max_tokens": 100,
    }


def nested(levels):
    return '{"a":' + "[" * levels + "]" * levels + "}"


# what has gone wrong once


WORDS = [
    nested(60),
    *(nested(levels) for levels in range(140, 1000, 53)),
    nested(100_000),
    '{"a":NaN}',
    '{"a":-Infinity}',
    '{"a":1e999}',
    '{"a":' + "9" * 5000 + "}",
    '{"a":"\\ud800"}',
    "[1]",
    "{",
    "",
]


@pytest.mark.parametrize("model", ASKED)
def test_json_in_a_text_is_sent_on_as_json_or_refused(ask, model):
    for word in WORDS:
        for path in (
            ("messages", 2, "tool_calls", 0, "function", "arguments"),
            ("messages", 3, "content"),
            ("messages", 7, "content"),
        ):
            document = conversation(model)
            put(document, path, f"call add {word}" if path == ("messages", 7, "content") else word)
            ask(document)


@pytest.mark.parametrize("model", ASKED)
def test_a_number_of_a_million_digits_costs_no_time(ask, model):
    document = conversation(model)
    put(document, ("messages", 2, "tool_calls", 0, "function", "arguments"), '{"a":' + "9" * 1_000_000 + "}")
    put(document, ("messages", 7, "content"), 'call add {"a":' + "9" * 1_000_000 + "}")
    ask(document)


@pytest.mark.parametrize("model", ASKED)
@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"provider_options": {"anthropic": own, "gemini": own, "ollama": own, "openai": own, "lmstudio": own}}
            for own in ({"max_tokens": None, "messages": None, "tools": None}, {"max_tokens": "x", "options": 5})
        ),
        {"provider_options": dict.fromkeys(NAMES, 5)},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": "add"}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [1]}}},
        {"tool_choice": {"type": "function"}},
        {"tool_choice": {"type": "custom", "function": "add"}},
        {"_anthropic": 5, "_unshown": [], "_": {}},
        {"metadata": {"user_id": {}}},
        {"a\r\nb: c": 1, "\u00e9" * 5000: 2},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": None}}},
        {"n": 128, "stream": True},
        {"stop": ["", " ", "a"] * 9},
        {"functions": [{}], "function_call": {}},
    ],
    ids=range(14),
)
def test_no_field_breaks_a_translator(ask, model, changes):
    ask({**conversation(model), **changes})


@pytest.mark.parametrize("model", ASKED)
def test_whether_an_answer_is_streamed_is_not_for_provider_options_to_say(ask, model):
    bodies = []
    for options in ({}, {"stream": True}, {"stream": False}):
        ask({**conversation(model), "provider_options": dict.fromkeys(NAMES, options)})
        bodies.append(OutOfReach.bodies[-1:])
    assert bodies == bodies[:1] * 3


@pytest.mark.parametrize("model", ASKED)
@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [{}]},
        {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}, "function": "f"}]},
        {"role": "assistant", "content": "a", "reasoning_details": [{}, {"index": "x"}]},
        {"role": "assistant", "content": "a", "reasoning_details": [{"provider": "anthropic", "model": "m"}]},
        {"role": "assistant", "content": "a", "_anthropic": "x"},
        {"role": "assistant", "reasoning_content": "only"},
        {"role": "assistant", "content": []},
        {"role": "assistant", "audio": {}},
        {"role": "function", "name": "add"},
        {"role": "tool", "tool_call_id": "unknown", "content": []},
        {"role": "user", "content": []},
        {"role": "user", "content": [{"type": "file", "file": {}}]},
    ],
    ids=range(12),
)
def test_no_message_breaks_a_translator(ask, model, message):
    for at in (0, 2, 8):
        document = conversation(model)
        document["messages"].insert(at, message)
        ask(document)
    ask({"model": model, "messages": [message]})


# anything at all

#: strange values, to stand anywhere
ODD = [
    *(None, True, False, 0, 1, -1, 1.5, 10**290, "", " ", "zzz", "\x00", [], {}, [[]], [{}], [None], {"a": None}),
    *("data:image/png;base64,!", "data:;base64,", "data:text/plain,hi", "http://x/y.png", "file:///x", PICTURE),
    *("text", "user", "assistant", "system", "tool", "function", "none", "auto", "required", "low", "max", "c1"),
    *("thinking", "redacted_thinking", "thought_signature", "reasoning_item", "flex", "json_object", *NAMES),
    *('{"a":NaN}', nested(500), "[1]", "{", "call add", 'call add {"a":1}', "\ud83d\ude00"),
    *({"type": ["object", 1]}, {"type": {}}, {"type": 5}, {"properties": []}, {"required": "x"}, {"required": [1]}),
    *({"$ref": "#"}, {"$ref": 5}, {"$ref": "#/a/b"}, {"anyOf": {}}, {"allOf": [1]}, {"oneOf": [{"$ref": "#"}]}),
    *({"enum": {}}, {"enum": []}, {"items": [1]}, {"type": "array", "minItems": "x"}, {"prefixItems": 5}),
    *({"type": "string", "minLength": []}, {"type": "string", "format": {}}, {"type": "number", "minimum": "x"}),
    *({"type": "number", "minimum": 10**290, "multipleOf": 1e-300}, {"type": "number", "multipleOf": 0, "maximum": -1}),
    *({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, {"properties": {"a": 5}, "required": ["a"]}),
]
#: fields to be set, some of them to what few providers take
MORE = {
    "stream": [True, False],
    "type": ["chat", "embeddings", "count_tokens", "models"],
    "input": ["x", ["a", "b"], [1, 2], [[1]], [""]],
    "encoding_format": ["base64"],
    "dimensions": [1, 10**9],
    "response_format": [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}}},
    ],
    "tool_choice": ["none", "required", {"type": "function", "function": {"name": "add"}}],
    "reasoning_effort": ["none", "minimal", "low", "xhigh", "max"],
    "thinking_budget": [-1, 0, 5, 10**200],
    "max_completion_tokens": [1, 10**200],
    "temperature": [0, 1.5],
    "top_p": [0, 1],
    "top_k": [0, 5],
    "n": [1, 2],
    "seed": [5, -(10**200)],
    "stop": ["x", ["a", "", " "], []],
    "logprobs": [True],
    "top_logprobs": [3],
    "modalities": [["text"], ["audio"]],
    "metadata": [{"user_id": 5}],
    "user": ["u"],
    "service_tier": ["auto", "zzz"],
    "parallel_tool_calls": [False],
    "audio": [{}],
    "zzz": [{}],
}


def put(document, path, value):
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


def ways(value, way=()):
    """Give the way to each value of a document."""
    if way:
        yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from ways(item, (*way, step))


def strange(rng, document):
    """Change a question at a few places: to something odd, to nothing, or to the same thing twice."""
    for field in rng.sample(sorted(MORE), rng.choice([0, 1, 2, 3])):
        document[field] = copy.deepcopy(rng.choice(MORE[field]))
    for _ in range(rng.choice([0, 1, 1, 2])):
        *way, last = rng.choice(list(ways(document)))
        place = document
        for step in way:
            place = place[step]
        kind = rng.random()
        if kind < 0.15:
            del place[last]
        elif kind < 0.3 and isinstance(place, list):
            place.insert(last, copy.deepcopy(rng.choice(place)))
        else:  # most often of the same kind, which gets further
            alike = [odd for odd in ODD if type(odd) is type(place[last])]
            place[last] = copy.deepcopy(rng.choice(alike if alike and kind < 0.8 else ODD))
    return document


#: words of a schema, and what may stand behind one
SCHEMA = ("type", "properties", "required", "items", "prefixItems", "enum", "const", "$ref", "$defs", "allOf", "anyOf")
SCHEMA += ("oneOf", "not", "format", "minItems", "minLength", "minimum", "maximum", "exclusiveMinimum", "multipleOf")
KINDS = ("object", "array", "string", "number", "integer", "boolean", "null", "zzz")


def schema(rng, depth=3):
    """Give something that may be a schema."""
    if not depth or rng.random() < 0.3:
        return rng.choice([{"type": rng.choice(KINDS)}, {}, {"type": "array", "minItems": 2}, rng.choice(ODD)])
    made = {}
    for word in ["type", *rng.sample(SCHEMA, 3)]:
        inner = [schema(rng, depth - 1), [schema(rng, depth - 1)], {"a": schema(rng, depth - 1)}]
        made[word] = rng.choice([*inner, ["a", 1], "#", "#/properties/a", 1e308, 10**300, *KINDS[:3], rng.choice(ODD)])
    return made


@pytest.mark.parametrize("model", ASKED)
def test_no_schema_breaks_a_translator(ask, model):
    rng = random.Random(model)
    for _ in range(60):
        format_ = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema(rng), "strict": True}}
        ask({**conversation(model), "response_format": format_})
        document = conversation(model)
        put(document, ("tools", 0, "function", "parameters"), schema(rng))
        put(document, ("messages", 7, "content"), "call add")
        ask(document)


@pytest.mark.parametrize("model", ASKED)
def test_whatever_comes_is_answered_or_refused(ask, model):
    rng = random.Random(model)
    told = {ask(strange(rng, conversation(model)), strict=rng.random() < 0.1)[1] for _ in range(150)}
    assert {"invalid_type"} < told
