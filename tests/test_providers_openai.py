from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from providers import PAUSE, Call, Pocket, Scope, UpstreamError, _events, _openai
from providers.openai import RESPONSES_MODELS, OpenAI, giving_way, official, question, thinks_aloud
from strict import openai as strict
from strict.openai import folded
from upstream import Reply, json_reply

GOLDEN = Path(__file__).parent / "golden" / "openai"
URL = "https://api.openai.com/v1"
OPTIONS = {name: row[0] for name, row in OpenAI.options.items()}
LUNA, SOL = "gpt-6-luna", "gpt-6-sol"
OPENED = []


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


CONVERSATIONS = sorted(path.stem for path in GOLDEN.glob("*.json") if "asked" in golden(path.stem))


@pytest.fixture(autouse=True)
def no_connection_left_behind():
    yield
    while OPENED:
        OPENED.pop().close()


def provider(name="openai", **options):
    OPENED.append(OpenAI(name, {**OPTIONS, "api_key": "sk-1", "retries": 0, **options}))
    return OPENED[-1]


def unexpected(field, reason):
    raise AssertionError(f"unexpected warning: {field}={reason}")


def user(content):
    return {"role": "user", "content": content}


def chat(*messages, model="gpt-4o", **fields):
    return {"model": model, "messages": list(messages) or [user("hi")], **fields}


def sent(asked, warn=unexpected, modern=True):
    return question(asked, "openai", warn, modern=modern)


def parts_of(asked, chat):
    return [part for part in asked.chat(chat if isinstance(chat, Call) else Call(chat)) if part]


def tool(name="look", **more):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}, **more}}


def told(content):
    answer = {"id": "c-1", "created": 1, "model": "gpt-4o", "object": "chat.completion"}
    return {**answer, "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


# whole conversations


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_golden_conversation_stays_as_it_is(wire, name):
    told = golden(name)
    body = {"body": told["came"].encode()} if isinstance(told["came"], str) else {"json": told["came"]}
    wire.expect(
        "POST",
        URL + told["path"],
        told["sent"],
        {"Authorization": "Bearer sk-1"},
        status=told.get("status", 200),
        adding_headers=told.get("headers"),
        **body,
    )
    call, passed = Call(told["asked"]), []
    try:
        passed.extend(part for part in provider().chat(call) if part)
    except UpstreamError as error:
        headers = {"headers": error.headers} if error.headers else {}
        passed.append({**error.document(), "status": error.status, **headers})
    assert passed == told["passed"]
    assert call.scope.warnings == told.get("warnings", {})


ASKED = [
    chat(user("two plain words")),
    chat(user('please call look {"n": 1.50} and call look {"größe":"✓"}'), tools=[tool()]),
    chat(user("call look {}"), tools=[tool()]),
    chat(user("of some length")),
    chat(user("refuse this")),
    chat(user("many of them"), n=3),
    chat(user("be exact"), logprobs=True),
    chat(user("think of one"), model=SOL, reasoning_effort="low"),
    chat(user('think and call look {"a": 1} and call look {}'), model=SOL, tools=[tool()]),
    chat(user("refuse to think"), model=SOL, reasoning_effort="low"),
    chat(user("some length to think of"), model=SOL, reasoning_effort="high"),
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked["messages"][0]["content"])
def test_a_stream_says_what_the_whole_answer_says(upstream, asked):
    up = upstream(strict.answer)
    there = provider(base_url=up.url, responses_models=("gpt-6",))
    whole = parts_of(there, asked)
    streamed = parts_of(there, {**asked, "stream": True})
    assert len(whole) == 1
    assert len(streamed) > 3
    assert {part["object"] for part in streamed} == {"chat.completion.chunk"}
    assert folded(streamed) == folded(whole)
    assert streamed[-1]["choices"] == []
    assert streamed[-1]["usage"] == whole[0]["usage"]


def test_a_conversation_with_tools_goes_on(upstream):
    there = provider(base_url=upstream(strict.answer).url)
    asked = user('call look {"a": 1} and call look {"b": 2}')
    (first,) = parts_of(there, chat(asked, tools=[tool()]))
    turn = first["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"r{at}"} for at, call in enumerate(turn["tool_calls"])
    ]
    (second,) = parts_of(there, chat(asked, turn, *results, tools=[tool()]))
    ids = [call["id"] for call in turn["tool_calls"]]
    assert second["choices"][0]["message"]["content"] == f"results: {ids[0]}=r0; {ids[1]}=r1"


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("client", ["keeps all", "drops what it does not know"])
def test_reasoning_comes_back_to_the_calls_it_led_to(upstream, client, streams):
    there = provider(base_url=upstream(strict.answer).url, responses_models=("gpt-6",))
    asked = user('think and call look {"a": 1}')
    first = folded(parts_of(there, chat(asked, model=SOL, tools=[tool()], stream=streams)))
    turn = first["choices"][0]["message"]
    assert turn["reasoning_details"][0]["encrypted_content"]
    assert turn["reasoning_content"].endswith("\n\nDone.")
    if client != "keeps all":
        turn = {key: turn[key] for key in ("role", "tool_calls")}
    result = {"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"], "content": "seen"}
    (second,) = parts_of(there, chat(asked, turn, result, model=SOL, tools=[tool()]))
    assert second["choices"][0]["message"]["content"].endswith("=seen")


def test_reasoning_of_another_provider_or_model_is_not_sent(upstream):
    up = upstream(strict.answer)
    there = provider(base_url=up.url, responses_models=("gpt-6",))
    detail = {"type": "reasoning_item", "id": "rs_1", "encrypted_content": "x", "summary": [], "index": 0}
    turn = {
        "role": "assistant",
        "content": "Well.",
        "reasoning_details": [
            {**detail, "provider": "elsewhere", "model": SOL},
            {**detail, "provider": "openai", "model": "gpt-6-other"},
        ],
    }
    parts_of(there, chat(user("hi"), turn, user("go on"), model=SOL, reasoning_effort="low"))
    assert [item["type"] for item in up.asked[-1].json["input"]] == ["message"] * 3


def test_broken_reasoning_is_refused_by_the_upstream_and_told(upstream):
    there = provider(base_url=upstream(strict.answer).url, responses_models=("gpt-6",))
    asked = user("call look {} and think")
    (first,) = parts_of(there, chat(asked, model=SOL, tools=[tool()]))
    turn = first["choices"][0]["message"]
    turn["reasoning_details"][0]["encrypted_content"] += "x"
    result = {"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"], "content": "seen"}
    with pytest.raises(UpstreamError, match="could not be verified") as caught:
        parts_of(there, chat(asked, turn, result, model=SOL, tools=[tool()]))
    assert caught.value.status == 400


@pytest.mark.parametrize("asked", [chat(user("to be cut")), chat(user("to be cut"), model=SOL, reasoning_effort="low")])
def test_a_stream_that_is_cut_is_no_answer(upstream, asked):
    there = provider(base_url=upstream(strict.answer).url, responses_models=("gpt-6",))
    heard = []
    with pytest.raises(UpstreamError) as caught:
        heard.extend(part for part in there.chat(Call({**asked, "stream": True})) if part)
    assert heard[0]["choices"][0]["delta"]["role"] == "assistant"
    assert caught.value.code == "stream_truncated"
    assert caught.value.provider == "openai"


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (400, 400, None),
        (401, 401, "provider_auth"),
        (402, 429, "insufficient_quota"),
        (403, 403, None),
        (404, 404, "model_not_found"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_exceeded"),
        (500, 502, "provider_error"),
        (503, 503, "provider_overloaded"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_trouble_upstream_keeps_its_kind(upstream, status, ours, code, streams):
    there = provider(base_url=upstream(strict.answer).url)
    with pytest.raises(UpstreamError, match=f"Told to answer {status}") as caught:
        parts_of(there, chat(user(f"error {status}"), stream=streams))
    assert (caught.value.status, caught.value.code) == (ours, code)
    assert caught.value.headers == ({"Retry-After": "7"} if status == 429 else {})


# what is asked

FULL = {
    **golden("request_full")["asked"],
    "temperature": 0.5,
    "logit_bias": {"50256": -100},
    "metadata": {"_of": "mine", "type": "x"},
    "service_tier": "flex",
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "store": True,
    "something_new": {"_as": "yet", "unknown": None},
}


def test_openai_to_openai_changes_nothing():
    before = json.dumps(FULL)
    assert sent(FULL) == json.loads(before)
    assert json.dumps(FULL) == before


def test_a_stream_is_asked_with_its_usage_and_a_whole_answer_without_options():
    assert sent(chat(stream=True))["stream_options"] == {"include_usage": True}
    options = {"include_usage": False, "include_obfuscation": False}
    assert sent(chat(stream=True, stream_options=options))["stream_options"] == {**options, "include_usage": True}
    assert "stream_options" not in sent(chat(stream=False, stream_options=options))


def test_what_is_ours_is_not_sent_and_told_of():
    ours = {"top_k": 1, "min_p": 0.1, "thinking_budget": 100, "repeat_penalty": 1.1, "input_type": "query"}
    warned = {}
    asked = chat(**ours, provider="openai", type="chat", _pocket=1, provider_options={"gemini": {"x": 1}}, user=None)
    assert sent(asked, warned.__setitem__) == chat()
    assert warned == dict.fromkeys(ours, "not supported by openai")


def test_messages_leave_what_is_ours_at_home():
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "look", "arguments": ""},
        "extra_content": {"google": 1},
    }
    given = [
        {"role": "assistant", "content": [{"type": "text", "text": "a", "_anthropic": 1}], "reasoning_content": "hm"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_details": [{}], "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "1", "content": "x", "is_error": True, "_pocket": 1},
        {"role": "assistant", "content": "b", "tool_calls": [], "refusal": None, "annotations": []},
        user([{"type": "image_url", "image_url": "https://x.test/a.png"}]),
    ]
    plain = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert sent(chat(*given))["messages"] == [
        {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "tool_calls": [plain]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "assistant", "content": "b", "refusal": None, "annotations": []},
        user([{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]),
    ]
    assert call["function"]["arguments"] == ""


def test_tools_leave_their_pockets_at_home():
    inner = {**tool(_pocket=1), "_pocket": 1}
    assert sent(chat(tools=[inner, {"type": "custom", "custom": {"name": "_x"}}]))["tools"] == [
        tool(),
        {"type": "custom", "custom": {"name": "_x"}},
    ]


def test_arguments_are_a_string_whatever_the_client_sent():
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": {"b": 1, "a": "ß"}}}
    body = sent(chat({"role": "assistant", "tool_calls": [call]}))
    assert body["messages"][0]["tool_calls"][0]["function"]["arguments"] == '{"b":1,"a":"ß"}'


@pytest.mark.parametrize(
    ("given", "modern", "old"),
    [
        ({"max_tokens": 5}, {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        (
            {"max_tokens": 4, "max_completion_tokens": 5},
            {"max_completion_tokens": 5},
            {"max_tokens": 4, "max_completion_tokens": 5},
        ),
    ],
)
def test_a_cap_has_the_name_its_upstream_knows(given, modern, old):
    assert sent(chat(**given)) == chat(**modern)
    assert sent(chat(**given), modern=False) == chat(**old)


def test_options_of_ones_own_come_last():
    asked = chat(temperature=1, provider_options={"openai": {"temperature": 0, "web_search_options": {"a": 1}}})
    assert sent(asked) == chat(temperature=0, web_search_options={"a": 1})


# where it is asked


@pytest.mark.parametrize(
    ("asked", "aloud"),
    [
        (chat(model=SOL), False),
        (chat(model=SOL, tools=[tool()]), True),
        (chat(model=SOL, reasoning_effort="low"), True),
        (chat(model=SOL, tools=[tool()], reasoning_effort="none"), False),
        (chat(model=SOL, tools=[tool()], n=2), False),
        (chat(model=SOL, tools=[tool()], modalities=["text", "audio"]), False),
        (chat(model="gpt-5.4-mini", tools=[tool()]), True),
        (chat(model="gpt-5-mini", tools=[tool()]), False),
        (chat(model="gpt-4o", tools=[tool()]), False),
    ],
)
def test_models_that_think_are_asked_for_responses(asked, aloud):
    assert thinks_aloud(asked, RESPONSES_MODELS) is aloud
    assert not thinks_aloud(asked, ())


@pytest.mark.parametrize(
    ("url", "is_"),
    [
        (URL, True),
        ("https://api.openai.com", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://api.openai.com.evil.test", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_openai_is_known_by_its_address(url, is_):
    assert official(url) is is_
    assert bool(provider(base_url=url).responses_models) is is_


def test_a_refusal_that_wants_responses_gets_them(wire):
    wire.expect("POST", f"{URL}/chat/completions", json=golden("error_400"), status=400)
    wire.expect("POST", f"{URL}/responses", golden("responses_tools")["sent"], json=golden("responses_tools")["came"])
    there = provider(responses_models=("none",))
    assert parts_of(there, golden("responses_tools")["asked"]) == golden("responses_tools")["passed"]


def test_the_second_road_is_open_where_it_was_built_only(wire):
    wire.expect("POST", "https://up.test/v1/chat/completions", json=golden("error_400"), status=400)
    with pytest.raises(UpstreamError, match="Function tools with reasoning_effort"):
        parts_of(provider(base_url="https://up.test"), chat(model=SOL, tools=[tool()]))


def test_what_a_model_refuses_and_an_answer_can_do_without_gives_way(upstream):
    up = upstream(strict.answer)
    call = Call(chat(model=LUNA, temperature=0.5, stop=["."], max_completion_tokens=5))
    (answer,) = parts_of(provider(base_url=up.url), call)
    assert answer["choices"][0]["message"]["content"] == "echo: hi"
    assert up.asked[-1].json == chat(model=LUNA, max_completion_tokens=5)
    assert call.scope.warnings == {"temperature": "refused by gpt-6-luna", "stop": "refused by gpt-6-luna"}
    with pytest.raises(UpstreamError, match="temperature: refused") as caught:
        parts_of(provider(base_url=up.url), Call(chat(model=LUNA, temperature=0.5), strict=True))
    assert caught.value.status == 400


def test_an_organization_that_may_not_see_summaries_gets_answers_all_the_same(wire):
    def refuse(param):
        error = {"message": "Not verified.", "type": "invalid_request_error", "code": "unsupported_value"}
        return {"error": {**error, "param": param}}

    asked = golden("responses_plain")
    body = {**asked["sent"], "reasoning": {"effort": "low"}}
    wire.expect("POST", f"{URL}/responses", asked["sent"], json=refuse("reasoning.summary"), status=400)
    wire.expect("POST", f"{URL}/responses", body, json=asked["came"])
    assert parts_of(provider(), asked["asked"]) == asked["passed"]


@pytest.mark.parametrize(
    ("param", "code", "fields", "changes"),
    [
        ("temperature", "unsupported_value", {"temperature": 0.1}, {"temperature": None}),
        ("temperature", "unsupported_value", {}, {}),
        ("temperature", "invalid_type", {"temperature": 0.1}, {}),
        ("messages", "unsupported_value", {}, {}),
        ("reasoning.summary", "unsupported_value", {}, {"_unshown": True}),
        ("reasoning.summary", "unsupported_value", {"_unshown": True}, {}),
        (None, "unsupported_value", {}, {}),
    ],
)
def test_only_hints_give_way(param, code, fields, changes):
    assert giving_way(chat(**fields), UpstreamError(400, "no", code=code, param=param)) == changes


@pytest.mark.parametrize(
    ("message", "param", "field"),
    [
        ("Unrecognized request argument supplied: reasoning_effort", None, "reasoning_effort"),
        ("Unsupported parameter: 'reasoning.effort'", "reasoning.effort", "reasoning_effort"),
        ("max_tokens is too large: 32000", "max_tokens", "max_completion_tokens"),
        ("no", "max_output_tokens", "max_completion_tokens"),
        ("Unrecognized request argument supplied: frobnicate", None, ""),
        ("no", "reasoning_effort", ""),  # a model that takes it elsewhere
    ],
)
def test_what_a_client_sends_to_any_model_gives_way(message, param, field):
    asked = chat(reasoning_effort="high", max_completion_tokens=32000)
    error = UpstreamError(400, message, code="invalid_value", param=param)
    assert giving_way(asked, error) == {}
    habits = {**asked, "_hints": ("reasoning_effort", "max_completion_tokens")}
    assert giving_way(habits, error) == ({field: None} if field else {})


@pytest.mark.parametrize(("effort", "warned"), [("high", ["reasoning_effort"]), ("none", [])])
def test_a_model_that_cannot_think_is_asked_without(wire, effort, warned):
    told = {"error": {"message": "Unrecognized request argument supplied: reasoning_effort", "param": None}}
    sent = {"model": "gpt-4o", "messages": [user("hi")]}
    url = "https://api.openai.com/v1/chat/completions"
    wire.expect("POST", url, {**sent, "reasoning_effort": effort}, status=400, json=told)
    wire.expect("POST", url, sent, json=golden("chat_plain")["came"])
    call = Call({**sent, "reasoning_effort": effort, "_hints": ("reasoning_effort",)})
    assert [part for part in provider().chat(call) if part]
    assert list(call.scope.warnings) == warned


def test_without_a_key_openai_is_not_asked(wire):
    there = provider(api_key="")
    assert not there.configured
    for ask in (
        lambda: parts_of(there, chat()),
        there.models,
        lambda: there.embed(Call({"model": "m", "input": "x"})),
        lambda: there.count_tokens(Call(chat())),
        lambda: there.relay("GET", "/v1/models", [], b"", Scope()),
    ):
        with pytest.raises(UpstreamError, match="no API key for openai: set OPENAI_API_KEY or") as caught:
            ask()
        assert (caught.value.status, caught.value.code, caught.value.provider) == (401, "provider_auth", "openai")


def test_another_upstream_is_the_same_under_its_own_name(upstream):
    def answer(asked):
        assert asked.path == "/openai/v1/chat/completions"
        assert "authorization" not in asked.headers
        return json_reply(told("hello"))

    up = upstream(answer)
    there = provider("groq", base_url=f"{up.url}/openai", api_key="")
    assert there.configured
    (answer,) = parts_of(there, chat(max_tokens=3))
    assert answer["model"] == "groq/gpt-4o"
    assert up.asked[0].json == chat(max_tokens=3)


def test_who_pays_is_told(upstream):
    up = upstream(json_reply(told("hi")))
    parts_of(provider(base_url=up.url, organization="org-1", project="p-1"), chat())
    assert up.asked[0].headers["openai-organization"] == "org-1"
    assert up.asked[0].headers["openai-project"] == "p-1"
    assert up.asked[0].headers["authorization"] == "Bearer sk-1"


def test_a_relayed_request_gets_our_key(upstream):
    up = upstream(json_reply({}))
    fields = [("Authorization", "Bearer theirs"), ("X-Mine", "1")]
    with provider(base_url=up.url).relay("POST", "/v1/files?a=1", fields, b"{ }", Scope()) as exchange:
        assert b"".join(exchange.blocks()) == b"{}"
    asked = up.asked[0]
    assert (asked.target, asked.body, asked.headers["authorization"]) == ("/v1/files?a=1", b"{ }", "Bearer sk-1")


# what is passed on


def chunk(delta=None, finish=None, index=0, **more):
    choices = [{"index": index, "delta": delta or {}, "finish_reason": finish, **more}]
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}


def heard(*events, spell=str):
    return [part for part in _openai.chunks((event for event in events), "openai", "m", spell) if part]


def test_pauses_are_passed_on():
    parts = list(_openai.chunks([PAUSE, chunk({"content": "a"}), PAUSE, chunk({}, "stop")], "openai", "m"))
    assert [bool(part) for part in parts] == [False, True, False, True]


def test_a_chunk_travels_whole_but_for_its_padding():
    given = {**chunk({"role": "assistant", "content": "a", "audio": {"id": "x"}}), "service_tier": "flex", "new": [1]}
    (first, _) = heard({**given, "obfuscation": "abc"}, chunk({}, "stop"))
    assert first == {**given, "model": "openai/m"}


def test_chunks_that_say_nothing_are_passed_over():
    filtered = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}
    parts = heard(filtered, chunk({"content": "a"}), chunk({"content": ""}), chunk({}), chunk({}, "stop"))
    assert [part["choices"][0]["delta"] for part in parts] == [{"role": "assistant", "content": "a"}, {}]


def test_a_role_is_told_once_and_by_all():
    parts = heard(
        chunk({"content": "a"}),
        chunk({"role": "assistant", "content": "b"}),
        chunk({"content": "c"}, index=1),
        chunk({}, "stop"),
        chunk({}, "stop", index=1),
    )
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert deltas[:3] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {"role": "assistant", "content": "c"},
    ]


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_has_one_name(key):
    first, _ = heard(chunk({"role": "assistant", key: "hm", "content": None}), chunk({}, "stop"))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None, "reasoning_content": "hm"}
    both = heard(chunk({"reasoning": "a", "reasoning_content": "a"}), chunk({}, "stop"))
    assert both[0]["choices"][0]["delta"] == {"role": "assistant", "reasoning_content": "a"}


def test_a_call_is_told_once():
    def piece(**more):
        return chunk({"tool_calls": [more]})

    parts = heard(
        piece(index=0, id=7, type="function", function={"name": "look", "arguments": ""}),
        piece(index=0, id="7", type="function", function={"name": "", "arguments": '{"a"'}),
        piece(index=0, id=None, function={"name": "look", "arguments": ":1}"}),
        piece(index=1, id="8", function={"name": "look", "arguments": {"b": 2}}),
        piece(index=2, id="9", type="custom", custom={"name": "free", "input": ""}),
        piece(index=2, custom={"input": "text"}),
        chunk({}, "stop"),
    )
    calls = [part["choices"][0]["delta"].get("tool_calls") for part in parts]
    assert calls == [
        [{"index": 0, "id": "7", "type": "function", "function": {"name": "look", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"a"'}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
        [{"index": 1, "id": "8", "type": "function", "function": {"name": "look", "arguments": '{"b":2}'}}],
        [{"index": 2, "id": "9", "type": "custom", "custom": {"name": "free", "input": ""}}],
        [{"index": 2, "custom": {"input": "text"}}],
        None,
    ]
    assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_without_an_id_gets_one():
    given = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
    first, _ = heard(chunk({"tool_calls": [given]}), chunk({}, "tool_calls"))
    assert first["choices"][0]["delta"]["tool_calls"][0]["id"].startswith("call_")


def test_usage_comes_last_and_alone():
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    parts = heard({**chunk({"content": "a"}), "usage": {"prompt_tokens": 1}}, {**chunk({}, "stop"), "usage": usage})
    assert [part.get("usage") for part in parts] == [None, None, usage]
    assert parts[-1] == {**chunk(), "model": "openai/m", "choices": [], "usage": usage}


def test_calls_that_were_cut_off_stay_so():
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a'}}
    assert heard(chunk({"tool_calls": [call]}), chunk({}, "length"))[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "events", [[], [chunk({"content": "a"})], [chunk({}, "stop"), chunk({"content": "b"}, index=1)]]
)
def test_a_stream_without_an_end_is_truncated(events):
    with pytest.raises(UpstreamError) as caught:
        heard(*events)
    assert caught.value.code == "stream_truncated"


def sse(*events, end=b"data: [DONE]\n\n"):
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + end


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_a_stream_that_says_it_is_done_is_no_truncated_one(step):
    data = sse(chunk({"content": "[DONE]"}))
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    first, last = heard(*_openai.events(blocks))
    assert first["choices"][0]["delta"]["content"] == "[DONE]"
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert last["id"] == first["id"] == "c-1"
    with pytest.raises(UpstreamError, match="broke off"):
        heard(*_openai.events([sse(chunk({"content": "[DONE]"}), end=b"")]))
    with pytest.raises(UpstreamError, match="broke off"):
        heard(*_openai.events([sse()]))


def outcome(read, data):
    """Give what a text is read as, names in order and kinds of numbers and all; or the trouble with it."""
    try:
        return repr(read(data))
    except UpstreamError as error:
        return error.message


#: what may happen to the letters of a chunk: most of it spoils them, or says the same by other letters
SPOILED = [
    ('"content"', '"c\\u006fntent"'),
    ('"content":', '"content" :'),
    ('"content":', '"content":  '),
    ('"content":', '"content":"x","content":'),
    ('"delta":{"content"', '"content":"x","delta":{"c\\u006fntent"'),
    ('"content":"', '"content":"\\'),
    ('"content":"', '"content":["'),
    ('"finish', '"content":"x","finish'),
    ('"finish', '"c\\u006fntent":"x","finish'),
    ('"usage"', '"content":"x","usage"'),
    ('"usage":null', '"usage":{}'),
    ('"usage":null', '"usage":[]'),
    ('"index":0', '"index":false'),
    ('"index":0', '"index":0.0'),
    ('"created":1', '"created":2'),
    ('"obfuscation"', '"obfuscati\\u006fn"'),
    ("{", "{ "),
    ("}}", "}"),
    ("}", "}}"),
    ("null", "nul"),
    ('"}', "}"),
    (',"', ',"obfuscation":"x","'),
    ('":"', '":{"a":"'),
]


def test_chunks_are_read_as_events_are_whatever_came_before_them():
    rng = random.Random(19)
    texts = [
        '""',
        '"a"',
        '" \\n\\"\\\\"',
        '"\xe9\\ud83d\\ude00\\ud800"',
        '"\\"content\\":\\"x"',
        "null",
        "1",
        '"a',
        '"\t"',
        "[[",
        "{}",
    ]
    kept = 0
    for _ in range(400):
        alike = _openai.Alike()
        noise, spoiled = rng.random() < 0.5, rng.sample(SPOILED, rng.choice([0, 0, 1, 2, 3]))
        for _ in range(12):
            text = rng.choice(texts[:5]) if rng.random() < 0.9 else rng.choice(texts)
            choice = f'{{"index":0,"delta":{{"content":{text}}},"finish_reason":null}}'
            data = f'{{"id":"c","created":1,"choices":[{choice}],"usage":null'
            data += f',"obfuscation":"{"x" * rng.randrange(9)}"}}' if noise else "}"
            for old, new in spoiled + rng.sample(SPOILED, rng.choice([0] * 8 + [1, 2])):
                data = data.replace(old, new, 1)
            assert outcome(alike.read, data) == outcome(_events.parsed, data)
            kept += data.startswith(alike._around[0]) if alike._around else 0
    assert kept > 1000


@pytest.mark.parametrize("more", [{"obfuscation": "x"}, {"usage": {"a": 1}}, {"new": [1]}])
def test_what_becomes_of_one_chunk_does_not_show_in_the_next(more):
    alike = _openai.Alike()
    data = json.dumps({**chunk({"role": "assistant", "content": "a"}), **more}, separators=(",", ":"))
    for _ in range(3):
        event = alike.read(data)
        assert json.dumps(event, separators=(",", ":")) == data
        choices = event.pop("choices")
        for one in (choices[0]["delta"], choices[0], choices, *event.values(), event):
            if isinstance(one, (dict, list)):
                one.clear()


def test_a_stream_whose_chunks_are_never_alike_is_not_compared_for_ever():
    alike = _openai.Alike(most=3)
    for at in range(9):
        data = json.dumps({**chunk({"content": "a"}), "created": at})
        assert alike.read(data) == json.loads(data)
    assert '"created": 2' in alike._around[0]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"message": "no", "type": "server_error", "param": None, "code": None}, 502, "provider_error"),
        ({"message": "no", "type": "invalid_request_error", "code": "unsupported_value"}, 400, "unsupported_value"),
        ({"message": "no", "code": "rate_limit_exceeded"}, 429, "rate_limit_exceeded"),
        ({"message": "no", "code": "server_is_overloaded"}, 503, "provider_overloaded"),
        ({"message": "no", "type": "insufficient_quota", "code": 429}, 429, "insufficient_quota"),
        ("no", 502, "provider_error"),
    ],
)
def test_an_error_in_a_stream_is_worded(error, status, code):
    with pytest.raises(UpstreamError, match="no") as caught:
        heard(chunk({"content": "a"}), {"error": error})
    assert (caught.value.status, caught.value.code, caught.value.provider_status) == (status, code, None)


def test_a_whole_answer_travels_whole():
    given = golden("chat_plain")["came"]
    given["choices"][0]["message"].update(audio={"id": "a"}, annotations=[{"type": "url_citation"}])
    given.update(new=1)
    model = given["model"]
    assert _openai.answer(json.loads(json.dumps(given)), "openai", "m") == {**given, "model": f"openai/{model}"}


def test_a_forced_call_that_ends_with_stop_is_a_call():
    given = golden("chat_tools")["came"]
    given["choices"][0]["finish_reason"] = "stop"
    assert _openai.answer(given, "openai", "m")["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("document", [[], {}, {"choices": []}, {"choices": None}, "text"])
def test_an_answer_without_choices_is_the_upstreams_fault(document):
    with pytest.raises(UpstreamError) as caught:
        _openai.answer(document, "openai", "m")
    assert (caught.value.status, caught.value.code) == (502, "provider_error")


# errors


@pytest.mark.parametrize(
    ("status", "headers", "error", "expected"),
    [
        (429, {"retry-after": "3"}, {"code": "slow_down"}, (503, "provider_overloaded", {"Retry-After": "3"})),
        (503, {}, {"code": "server_is_overloaded"}, (503, "provider_overloaded", {})),
        (429, {"retry-after": "3"}, {"type": "insufficient_quota"}, (429, "insufficient_quota", {})),
        (429, {"retry-after": "3"}, {"code": "project_spend_limit_exceeded"}, (429, "insufficient_quota", {})),
        (429, {"retry-after-ms": "1500"}, {"type": "tokens"}, (429, "rate_limit_exceeded", {"Retry-After": "2"})),
        (400, {}, {"code": "context_length_exceeded"}, (400, "context_length_exceeded", {})),
        (400, {}, {"code": "invalid_api_key"}, (401, "provider_auth", {})),
        (400, {}, {"code": 400}, (400, None, {})),
        (409, {}, {}, (409, None, {})),
        (500, {}, {"code": "whatever"}, (502, "provider_error", {})),
    ],
)
def test_an_error_is_worded_by_what_it_says(status, headers, error, expected):
    told = _openai.worded("openai", status, headers, {"error": {"message": "no", **error}})
    assert (told.status, told.code, told.headers) == expected
    assert told.provider_status == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no", "param": "x"}}, "no"),
        ({"error": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"detail": [{"input": "secret"}]}, "up answered 400"),
        ("<html>secret</html>", "up answered 400"),
        (None, "up answered 400"),
    ],
)
def test_an_error_is_found_where_it_is_told_and_nothing_else_is(body, message):
    assert _openai.worded("up", 400, {}, body).message == message


def test_no_key_is_told_to_anybody():
    told = "Incorrect API key provided: sk-proj-abcdef123456. Or sk-ab***********wxyz."
    message = _openai.worded("openai", 401, {}, {"error": {"message": told}}).message
    assert message == "openai refused the proxy's own key for it: Incorrect API key provided: [key]. Or [key]."


def test_a_long_message_is_looked_through_for_keys_in_no_time():
    began = time.monotonic()
    told = _openai.worded("openai", 400, {}, {"error": {"message": "a" * 300_000}})
    assert (told.message, time.monotonic() - began < 5) == ("a" * 2000, True)


# embeddings, models, tokens


def embedded(upstream, given, **fields):
    up = upstream(strict.answer)
    call = Call({"model": "text-embedding-3-small", "input": given, **fields})
    return provider(base_url=up.url).embed(call), up.asked


def test_embeddings_are_asked_for_as_floats(upstream):
    answer, asked = embedded(upstream, ["one", "two words"], encoding_format="base64", dimensions=4)
    body = {"model": "text-embedding-3-small", "input": ["one", "two words"], "dimensions": 4}
    assert asked[0].json == {**body, "encoding_format": "float"}
    assert [item["embedding"] for item in answer["data"]] == [strict.vector("one"), strict.vector("two words")]
    assert answer["model"] == "openai/text-embedding-3-small"
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize("given", ["one", [1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_openais_own(upstream, given):
    answer, asked = embedded(upstream, given)
    assert asked[0].json["input"] == given
    assert len(answer["data"]) == (2 if given == [[1, 2], [3]] else 1)


def test_more_inputs_than_one_request_takes_are_split_and_keep_their_order(upstream):
    texts = [f"t{at}" for at in range(2049)]
    answer, asked = embedded(upstream, texts)
    assert [len(one.json["input"]) for one in asked] == [2048, 1]
    assert [item["index"] for item in answer["data"]] == list(range(2049))
    assert answer["data"][-1]["embedding"] == strict.vector("t2048")
    assert answer["usage"]["total_tokens"] == 2049


def test_vectors_are_put_in_order_and_counted(upstream):
    came = golden("embeddings_float")
    came["data"].reverse()
    up = upstream(lambda asked: json_reply(came))
    there = provider(base_url=up.url)
    answer = there.embed(Call({"model": "m", "input": ["a", "b"]}))
    assert [item["embedding"][0] for item in answer["data"]] == [0.5, -0.5]
    assert answer["model"] == "openai/text-embedding-3-small"
    with pytest.raises(UpstreamError, match="2 vectors for 3 inputs"):
        there.embed(Call({"model": "m", "input": ["a", "b", "c"]}))


def test_models_are_listed_as_they_are(upstream):
    there = provider(base_url=upstream(json_reply(golden("models"))).url)
    assert there.models() == golden("models")["data"]


@pytest.mark.parametrize("listed", [{"data": [{"id": "a"}, {}]}, [{"id": "a", "created": None}]])
def test_models_are_filled_up_where_little_is_told_of_them(listed):
    assert _openai.models(listed, "groq") == [{"id": "a", "object": "model", "created": 0, "owned_by": "groq"}]


def test_tokens_are_counted_where_responses_are(upstream):
    up = upstream(strict.answer)
    there = provider(base_url=up.url, responses_models=("gpt-6",))
    asked = chat(
        {"role": "system", "content": "be brief"}, user("three more words"), model=SOL, stop=["x"], stream=True
    )
    assert there.count_tokens(Call(asked, strict=True)) == 2 + 3 + len(["message", "user"])
    with pytest.raises(UpstreamError) as caught:
        provider(base_url=up.url).count_tokens(Call(asked))
    assert caught.value.status == 501


# a client of the Responses API, in its own words

OWN = [name for name in CONVERSATIONS if name.startswith("responses_")]


def in_own_words(body, model=SOL, path="/responses", headers=()):
    """Give the question of a client of the Responses API; its translation says nothing of what is in the pocket."""
    pocket = Pocket(body, headers, path=path)
    return Call({"model": model, "messages": [user("x")], "stream": body.get("stream", False), "_responses": pocket})


@pytest.mark.parametrize("name", OWN)
def test_what_a_response_says_comes_with_its_translation(wire, name):
    told = golden(name)
    streams = isinstance(told["came"], str)
    came = {"body": told["came"].encode()} if streams else {"json": told["came"]}
    body = {"model": "client's", "input": "x", "new": {"a": 1}, "stream": streams}
    model = told["asked"]["model"]
    wire.expect("POST", f"{URL}/responses", {**body, "model": model}, {"OpenAI-Beta": "b"}, **came)
    parts = []
    try:
        parts.extend(provider().chat(in_own_words(body, model, headers=[("OpenAI-Beta", "b")])))
    except UpstreamError as error:
        assert "error" in told["passed"][-1], error
    if streams:
        said = [event for part in parts for event in part.get("_responses", ())]
        events = [json.loads(line[6:]) for line in told["came"].splitlines() if line.startswith("data: ")]
        failed = events[-1]["type"] not in ("response.completed", "response.incomplete")
        assert said == (events[:-1] if failed else events), "a failure is raised, to be worded at the end"
    else:
        assert [part["_responses"] for part in parts if part] == [told["came"]]
    translated = [{key: one for key, one in part.items() if key != "_responses"} for part in parts]
    assert [part for part in translated if part] == [part for part in told["passed"] if "error" not in part]


def test_a_whole_response_that_failed_tells_of_it_itself(upstream):
    failed = {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "x"}, "output": []}
    there = provider(base_url=upstream(json_reply(failed)).url, responses_models=("gpt-6",))
    (part,) = parts_of(there, in_own_words({"input": "x"}))
    assert part["_responses"] == failed


def test_a_refusal_of_ones_own_words_is_not_asked_again(upstream):
    error = {"message": "no", "type": "invalid_request_error", "param": "temperature", "code": "unsupported_value"}
    up = upstream(json_reply({"error": error}, 400))
    there = provider(base_url=up.url, responses_models=("gpt-6",))
    with pytest.raises(UpstreamError) as caught:
        parts_of(there, in_own_words({"input": "x", "temperature": 1}))
    assert (caught.value.status, caught.value.param, len(up.asked)) == (400, "temperature", 1)


def test_its_reasoning_is_remembered_for_clients_that_forget(upstream):
    up = upstream(strict.answer)
    there = provider(base_url=up.url, responses_models=("gpt-6",))
    body = {
        "input": 'think and call look {"a": 1}',
        "tools": [{"type": "function", "name": "look", "parameters": None}],
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    (part,) = parts_of(there, in_own_words(body))
    said = {**part["choices"][0]["message"], "reasoning_details": []}
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "x"}
    parts_of(there, chat(user(body["input"]), said, result, model=SOL, tools=[tool()]))
    assert [item.get("type") for item in up.asked[1].json["input"]][1:3] == ["reasoning", "function_call"]


def test_its_tokens_are_counted(upstream):
    up = upstream(strict.answer)
    there = provider(base_url=up.url, responses_models=("gpt-6",))
    assert there.count_tokens(in_own_words({"input": "three more words"}, path="/responses/input_tokens")) == 3
    assert up.asked[0].json == {"model": SOL, "input": "three more words"}


def test_its_words_are_read_only_where_that_api_is_known_to_be():
    assert provider().reads == ("responses",)
    assert provider(base_url="https://other.test", responses_models=("m",)).reads == ("responses",)
    assert provider(base_url="https://other.test").reads == ()


# the stand-in

LONELY = {"type": "reasoning", "id": "1", "summary": []}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", chat(unknown=1), "unknown"),
        ("chat/completions", chat(temperature=3), "temperature"),
        ("chat/completions", chat(top_k=3), "top_k"),
        ("chat/completions", chat(n=True), "n"),
        ("chat/completions", {"model": "gpt-4o"}, "messages"),
        ("chat/completions", chat(stream_options={"include_usage": True}), "stream_options"),
        ("chat/completions", chat({**user("hi"), "_pocket": 1}), "messages[0]._pocket"),
        ("chat/completions", chat({"role": "tool", "tool_call_id": "1", "content": "x"}), "messages[0].role"),
        ("chat/completions", chat({"role": "assistant", "content": None}), "messages[0].content"),
        ("chat/completions", chat({"role": "assistant", "content": "a", "tool_calls": []}), "messages[0].tool_calls"),
        ("chat/completions", chat(model=SOL, max_tokens=1), "max_tokens"),
        ("chat/completions", chat(model=SOL, tools=[tool()]), "reasoning_effort"),
        ("chat/completions", chat(model="other"), "model"),
        ("responses", {"model": SOL, "input": "hi", "store": True}, "store"),
        ("responses", {"model": SOL, "input": "hi", "store": False, "stop": []}, "stop"),
        ("responses", {"model": SOL, "input": [LONELY], "store": False}, "input[0]"),
        ("embeddings", {"model": "text-embedding-3-small", "input": []}, "input"),
        ("embeddings", {"model": "text-embedding-3-small", "input": ["a", 1]}, "input[1]"),
    ],
)
def test_the_stand_in_refuses_what_openai_does(path, body, param):
    headers = {"authorization": "Bearer sk-1", "content-type": "application/json"}
    reply = strict.answer(strict.Asked("POST", f"/v1/{path}", headers, json.dumps(body).encode()))
    assert reply.status in (400, 404)
    assert json.loads(reply.body)["error"]["param"] == param
    assert isinstance(reply, Reply)
    assert strict.answer(strict.Asked("POST", f"/v1/{path}", {}, b"{}")).status == 401
