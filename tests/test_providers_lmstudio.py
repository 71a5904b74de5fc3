from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from providers import Call, Scope, UpstreamError
from providers.lmstudio import LMStudio, Spelling, native_model, question
from strict import lmstudio as strict
from strict.openai import folded, vector
from upstream import json_reply

GOLDEN = Path(__file__).parent / "golden" / "lmstudio"
URL = "http://127.0.0.1:1234/v1"
OPTIONS = {name: row[0] for name, row in LMStudio.options.items()}
QWEN, GPT_OSS = "qwen/qwen3-8b", "openai/gpt-oss-20b"
OPENED = []


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


CONVERSATIONS = sorted(path.stem for path in GOLDEN.glob("*.json") if "asked" in golden(path.stem))


@pytest.fixture(autouse=True)
def no_connection_left_behind():
    yield
    while OPENED:
        OPENED.pop().close()


def provider(**options):
    OPENED.append(LMStudio("lmstudio", {**OPTIONS, "retries": 0, **options}))
    return OPENED[-1]


def unexpected(field, reason):
    raise AssertionError(f"unexpected warning: {field}={reason}")


def user(content):
    return {"role": "user", "content": content}


def chat(*messages, model=QWEN, **fields):
    return {"model": model, "messages": list(messages) or [user("hi")], **fields}


def sent(asked, warn=unexpected):
    return question(asked, warn)


def parts_of(asked, chat):
    return [part for part in asked.chat(Call(chat)) if part]


def tool(name="look", **more):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}, **more}}


# whole conversations


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_golden_conversation_stays_as_it_is(wire, name):
    told = golden(name)
    body = {"body": told["came"].encode()} if isinstance(told["came"], str) else {"json": told["came"]}
    wire.expect("POST", URL + told["path"], told["sent"], status=told.get("status", 200), **body)
    call, passed = Call(told["asked"]), []
    try:
        passed.extend(part for part in provider().chat(call) if part)
    except UpstreamError as error:
        passed.append({**error.document(), "status": error.status})
    assert passed == told["passed"]
    assert call.scope.warnings == told.get("warnings", {})


ASKED = [
    chat(user("two plain words")),
    chat(user("think of one")),
    chat(user("think of one"), model=GPT_OSS),
    chat(user('please call look {"n": 1.50} and call look {"größe":"✓"}'), tools=[tool()]),
    chat(user('think and call getAll-of-it {"a": 1}'), tools=[tool("getAll-of-it")], model=GPT_OSS),
    chat(user("call look {}"), tools=[tool()]),
    chat(user("of some length")),
    chat(user("as json"), response_format={"type": "json_object"}),
    chat(user("choose"), tools=[tool("a"), tool("b-c")], tool_choice={"type": "function", "function": {"name": "b-c"}}),
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: f"{asked['model']}: {asked['messages'][0]['content']}")
def test_a_stream_says_what_the_whole_answer_says(upstream, asked):
    there = provider(base_url=upstream(strict.answer).url)
    whole = parts_of(there, asked)
    streamed = parts_of(there, {**asked, "stream": True})
    assert len(whole) == 1
    assert folded(streamed) == folded(whole)
    assert streamed[0]["choices"][0]["delta"]["role"] == "assistant"
    assert streamed[-1]["choices"] == []
    declared = [one["function"]["name"] for one in asked.get("tools", ())]
    calls = whole[0]["choices"][0]["message"].get("tool_calls", ())
    assert {call["function"]["name"] for call in calls} <= set(declared)


def test_a_conversation_with_tools_goes_on(upstream):
    there = provider(base_url=upstream(strict.answer).url)
    asked = user('think and call look {"a": 1} and call look {"b": 2}')
    (first,) = parts_of(there, chat(asked, tools=[tool()]))
    turn = first["choices"][0]["message"]
    assert turn["reasoning_content"]
    assert turn["content"] is None
    results = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"]} for call in turn["tool_calls"]]
    (second,) = parts_of(there, chat(asked, turn, *results, tools=[tool()]))
    assert second["choices"][0]["message"]["content"] == "results: 365174485=365174485; 365174486=365174486"


def test_a_stream_that_is_cut_is_no_answer(upstream):
    there = provider(base_url=upstream(strict.answer).url)
    with pytest.raises(UpstreamError) as caught:
        parts_of(there, chat(user("to be cut"), stream=True))
    assert (caught.value.code, caught.value.provider) == ("stream_truncated", "lmstudio")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("text", "status", "code"),
    [("error 400", 400, None), ("error 404", 404, "model_not_found"), ("error 500", 502, "provider_error")],
)
def test_trouble_keeps_its_words(upstream, text, status, code, streams):
    there = provider(base_url=upstream(strict.answer).url)
    with pytest.raises(UpstreamError, match=f"Told to answer {text[6:]}") as caught:
        parts_of(there, chat(user(text), stream=streams))
    assert (caught.value.status, caught.value.code) == (status, code)


def test_the_name_of_a_model_is_no_key(upstream):
    there = provider(base_url=upstream(json_reply({"error": "No model lm-studio-community/x found"}, 404)).url)
    with pytest.raises(UpstreamError, match="No model lm-studio-community/x found"):
        parts_of(there, chat())


@pytest.mark.parametrize("streams", [False, True])
def test_an_error_is_one_whatever_its_status(upstream, streams):
    there = provider(base_url=upstream(json_reply(golden("error_string")["came"])).url)
    with pytest.raises(UpstreamError, match="Unexpected endpoint") as caught:
        parts_of(there, chat(stream=streams))
    assert caught.value.status == 502


# where it is asked


def test_it_is_asked_on_this_machine_by_its_port(wire):
    wire.expect("POST", "http://127.0.0.1:4321/v1/chat/completions", chat(), json=golden("chat_plain")["came"])
    assert parts_of(provider(port=4321), chat()) == golden("chat_plain")["passed"]


def test_a_key_is_sent_where_one_is_wanted(upstream):
    up = upstream(partial(strict.answer, key="lm-1"))
    assert parts_of(provider(base_url=f"{up.url}/v1", api_key="lm-1"), chat())
    with pytest.raises(UpstreamError, match="Invalid API token") as caught:
        parts_of(provider(base_url=up.url), chat())
    assert (caught.value.status, caught.value.code) == (401, "provider_auth")
    assert "authorization" not in up.asked[-1].headers


def test_it_makes_sense_to_ask_without_a_key():
    assert provider().configured


def test_a_relayed_request_goes_below_the_root(upstream):
    up = upstream(json_reply({}))
    with provider(base_url=f"{up.url}/v1", api_key="lm-1").relay("GET", "/api/v0/x", [], b"", Scope()) as exchange:
        assert b"".join(exchange.blocks()) == b"{}"
    assert (up.asked[0].target, up.asked[0].headers["authorization"]) == ("/api/v0/x", "Bearer lm-1")


# what is asked


def test_documented_fields_go_out_as_they_came():
    fields = {
        "draft_model": "d",
        "frequency_penalty": 1,
        "logit_bias": {"1": 2},
        "presence_penalty": 1,
        "reasoning_effort": "low",
        "repeat_penalty": 1.1,
        "seed": 0,
        "stop": ["x"],
        "temperature": 0,
        "top_k": 5,
        "top_p": 0.5,
        "ttl": 60,
    }
    assert sent(chat(**fields)) == chat(**fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"stream": True, "stream_options": {"x": 1}}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False, "stream_options": {}}, {}),
        ({"n": 1, "modalities": ["text"], "logprobs": False, "parallel_tool_calls": True, "store": False}, {}),
        ({"response_format": {"type": "text"}, "_pocket": 1, "seed": None, "provider": "x", "type": "chat"}, {}),
        ({"provider_options": {"lmstudio": {"min_p": 0.1}, "ollama": {"x": 1}}}, {"min_p": 0.1}),
    ],
)
def test_a_field_has_its_place(fields, expected):
    assert sent(chat(**fields)) == chat(**expected)


@pytest.mark.parametrize(
    "fields",
    [{"logprobs": True}, {"parallel_tool_calls": False}, {"metadata": {"a": "b"}}, {"user": "u"}, {"unknown": 1}],
)
def test_what_is_not_documented_is_dropped_and_told_of(fields):
    warned = {}
    assert sent(chat(**fields), warned.__setitem__) == chat()
    assert warned == dict.fromkeys(fields, "not supported by lmstudio")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"messages": [user([{"type": "input_audio", "input_audio": {}}])]}, "messages[0].content[0].type"),
        ({"messages": [user([{"type": "file", "file": {"file_id": "1"}}])]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
    ],
)
def test_what_would_change_the_answer_is_refused(fields, param):
    with pytest.raises(UpstreamError) as caught:
        sent(chat(**fields))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)


def test_messages_are_what_lm_studio_knows():
    parts = [
        {"type": "text", "text": "a", "_pocket": 1, "prompt_cache_breakpoint": {}},
        {"type": "image_url", "image_url": "data:image/png;base64,AA=="},
        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,Z3LDvG4="}},
    ]
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": ""}}
    given = [
        {"role": "developer", "content": "brief", "name": "boss"},
        user(parts),
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "Yes.", "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "reasoning_content": "hm"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_details": []},
        {"role": "tool", "tool_call_id": "1", "content": "x", "is_error": True},
        {"role": "assistant", "tool_calls": [call]},
    ]
    assert sent(chat(*given))["messages"] == [
        {"role": "system", "content": "brief"},
        user(
            [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "text", "text": "grün"},
            ]
        ),
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": "Yes."},
        {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
        {"role": "assistant", "content": "", "tool_calls": [{**call, "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{**call, "function": {"name": "look", "arguments": "{}"}}]},
    ]


def test_any_json_is_asked_for_by_a_schema_of_any_object():
    json_schema = {"name": "output", "schema": {"type": "object"}}
    expected = {"type": "json_schema", "json_schema": json_schema}
    assert sent(chat(response_format={"type": "json_object"}))["response_format"] == expected
    assert sent(chat(response_format={"type": "json_schema", "json_schema": {}}))["response_format"] == expected
    mine = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}, "strict": True}}
    assert sent(chat(response_format=mine))["response_format"] == mine


def test_a_tool_without_parameters_takes_none():
    body = sent(chat(tools=[{"type": "function", "function": {"name": "look", "_pocket": 1}}]))
    assert body["tools"] == [tool()]


NAMED = {"type": "function", "function": {"name": "b"}}


@pytest.mark.parametrize(
    ("choice", "mode", "names", "warned"),
    [
        ("auto", "auto", ["a", "b"], {}),
        ("none", "none", ["a", "b"], {}),
        (NAMED, "required", ["b"], {"tool_choice": "sent as required with only that tool"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}, "auto", ["b"], {}),
    ],
)
def test_a_choice_of_tools_is_one_word_and_the_tools_it_leaves(choice, mode, names, warned):
    told = {}
    body = sent(chat(tools=[tool("a"), tool("b")], tool_choice=choice), told.__setitem__)
    assert (body["tool_choice"], [one["function"]["name"] for one in body["tools"]]) == (mode, names)
    assert told == warned


def test_a_choice_of_a_tool_that_is_not_there_is_refused():
    with pytest.raises(UpstreamError) as caught:
        sent(chat(tools=[tool("a")], tool_choice=NAMED), lambda *_: None)
    assert (caught.value.status, caught.value.param) == (400, "tool_choice")


@pytest.mark.parametrize(
    ("came", "name"),
    [
        ("getStockLevel", "getStockLevel"),
        ("get_stock_level", "getStockLevel"),
        ("Read-File", "read_file"),
        ("readfile", "read_file"),
        ("read-file", "read-file"),
        ("unheard_of", "unheard_of"),
    ],
)
def test_the_names_of_tools_are_spelled_as_they_were_declared(came, name):
    assert Spelling(chat(tools=[tool("getStockLevel"), tool("read_file"), tool("read-file")]))(came) == name


# embeddings and models


def test_embeddings_are_floats_and_texts(upstream):
    up = upstream(strict.answer)
    there = provider(base_url=up.url)
    call = Call({"model": strict.MODELS[2], "input": ["a", "b"], "encoding_format": "base64", "user": "u"})
    answer = there.embed(call)
    assert up.asked[0].json == {"model": strict.MODELS[2], "input": ["a", "b"], "encoding_format": "float"}
    assert [item["embedding"] for item in answer["data"]] == [vector("a"), vector("b")]
    assert answer["model"] == f"lmstudio/{strict.MODELS[2]}"
    assert call.scope.warnings == {"user": "not supported by lmstudio"}
    with pytest.raises(UpstreamError, match="token ids"):
        there.embed(Call({"model": "m", "input": [1, 2]}))


def test_the_answer_of_embeddings_is_passed_on(wire):
    wire.expect("POST", f"{URL}/embeddings", json=golden("embeddings"))
    answer = provider().embed(Call({"model": "m", "input": ["a", "b"]}))
    data = [{key: item[key] for key in ("object", "index", "embedding")} for item in golden("embeddings")["data"]]
    assert answer["data"] == data


def test_the_own_list_of_models_tells_more(wire):
    wire.expect("GET", "http://127.0.0.1:1234/api/v1/models", json=golden("native_models"))
    assert provider().models() == [
        {
            "id": "qwen/qwen3-8b",
            "object": "model",
            "created": 0,
            "owned_by": "qwen",
            "type": "llm",
            "context_length": 8192,
            "capabilities": golden("native_models")["models"][0]["capabilities"],
        },
        {
            "id": "text-embedding-nomic-embed-text-v1.5",
            "object": "model",
            "created": 0,
            "owned_by": "nomic-ai",
            "type": "embedding",
            "context_length": 2048,
        },
    ]


def test_a_model_without_particulars_is_one():
    assert native_model({"key": "m"}) == {"id": "m", "object": "model", "created": 0, "owned_by": "organization_owner"}


@pytest.mark.parametrize(
    "native",
    [
        {"json": {"error": "Unexpected endpoint or method. (GET /api/v1/models)"}},
        {"json": {"error": {"message": "no"}}, "status": 404},
        {"json": {}},
        {"json": []},
        {"body": "<html>", "status": 500},
    ],
)
def test_older_versions_have_openais_list_only(wire, native):
    wire.expect("GET", "http://127.0.0.1:1234/api/v1/models", **native)
    wire.expect("GET", f"{URL}/models", json=golden("models"))
    assert provider().models() == [{**item, "created": 0} for item in golden("models")["data"]]


def test_a_silent_machine_is_asked_once(wire):
    wire.get("http://127.0.0.1:1234/api/v1/models", body=ConnectionError("nobody there"))
    with pytest.raises(UpstreamError) as caught:
        provider(retries=2).models()
    assert caught.value.code == "provider_unreachable"


# the stand-in


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", chat(max_completion_tokens=1), "max_completion_tokens"),
        ("chat/completions", chat(parallel_tool_calls=True), "parallel_tool_calls"),
        ("chat/completions", chat(tools=[tool()], tool_choice={"type": "function"}), "tool_choice"),
        ("chat/completions", chat(response_format={"type": "json_object"}), "response_format.type"),
        ("chat/completions", chat({"role": "developer", "content": "x"}), "messages[0].role"),
        ("chat/completions", chat({**user("x"), "name": "ann"}), "messages[0].name"),
        ("embeddings", {"model": strict.MODELS[2], "input": "a", "encoding_format": "base64"}, "encoding_format"),
    ],
)
def test_the_stand_in_refuses_what_is_not_documented(path, body, param):
    reply = strict.answer(strict.Asked("POST", f"/v1/{path}", {}, json.dumps(body).encode()))
    assert reply.status == 400
    assert json.loads(reply.body)["error"]["param"] == param
