"""What is promised of `providers/echo.py`."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from providers import Call, Gone, Scope, UpstreamError, echo
from providers.echo import Echo

ROOT = Path(__file__).resolve().parent.parent
SKU = {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}}, "required": ["sku"]}
TOOLS = [
    {"type": "function", "function": {"name": "stock", "parameters": SKU}},
    {"type": "function", "function": {"name": "sites"}},
]
PLAIN = {"messages": [{"role": "user", "content": "two lanterns  are\nleft "}]}


def provider(**options):
    return Echo("echo", {**{name: default[0] for name, default in Echo.options.items()}, **options})


def call(asked, scope=None, strict=False):
    chat = {"model": "echo", "messages": [{"role": "user", "content": asked}]} if isinstance(asked, str) else asked
    return Call({"model": "echo", **chat}, scope=scope, strict=strict)


def whole(asked, **more):
    (answer,) = [part for part in provider().chat(call({**call(asked).chat, **more})) if part]
    return answer


def choice(asked, **more):
    return whole(asked, **more)["choices"][0]


def text(asked, **more):
    return choice(asked, **more)["message"]["content"]


def called(asked, **more):
    calls = choice(asked, **{"tools": TOOLS, **more})["message"].get("tool_calls", [])
    return [(one["function"]["name"], json.loads(one["function"]["arguments"])) for one in calls]


def parts(asked, **more):
    return [part for part in provider().chat(call({**call(asked).chat, **more, "stream": True})) if part]


def folded(chunks):
    """Put the chunks of a stream together to the whole answer they stand for."""
    choices = {}
    for chunk in chunks:
        for one in chunk["choices"]:
            made = choices.setdefault(one["index"], {"index": one["index"], "message": {"content": None}})
            message, delta = made["message"], one["delta"]
            message.update((name, delta[name]) for name in ("role",) if name in delta)
            for name in ("content", "reasoning_content"):
                if delta.get(name):
                    message[name] = (message.get(name) or "") + delta[name]
            for fragment in delta.get("tool_calls", ()):
                calls = message.setdefault("tool_calls", [])
                if "id" in fragment:
                    assert fragment["index"] == len(calls)
                    calls.append({k: v for k, v in fragment.items() if k not in ("index", "function")})
                    calls[-1]["function"] = dict(fragment["function"])
                else:
                    calls[fragment["index"]]["function"]["arguments"] += fragment["function"]["arguments"]
            if one["finish_reason"]:
                made["finish_reason"] = one["finish_reason"]
            if "stop_sequence" in one:
                made["stop_sequence"] = one["stop_sequence"]
    return {"model": chunks[0]["model"], "choices": list(choices.values()), "usage": chunks[-1]["usage"]}


# text


def test_the_answer_is_what_the_user_said_last():
    assert text(PLAIN) == "two lanterns  are\nleft "
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    assert text({"messages": messages}) == "user"


def test_what_is_no_text_is_named():
    parts_ = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert text({"messages": [{"role": "user", "content": parts_}]}) == "see\n[image_url]"


def test_where_no_user_spoke_the_last_message_is_repeated():
    assert text({"messages": [{"role": "system", "content": "be brief"}]}) == "be brief"


def test_a_message_without_text_gets_an_answer_without_text():
    answer = whole("")
    assert answer["choices"][0]["message"]["content"] is None
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_an_answer_looks_like_a_completion():
    answer = whole("hi")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "echo/echo"
    assert answer["id"].startswith("chatcmpl-")
    assert whole("hi", model="")["model"] == "echo/echo"


def test_a_stream_goes_word_by_word_and_loses_no_blank():
    said = parts(PLAIN)
    words = [part["choices"][0]["delta"]["content"] for part in said[1:-2]]
    assert words == ["two", " lanterns", "  are", "\nleft "]
    assert said[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert said[-2]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert said[-1]["choices"] == []
    assert len({part["id"] for part in said}) == 1


CHATS = [
    {},
    {"n": 3},
    {"max_tokens": 2},
    {"max_completion_tokens": 0},
    {"stop": ["are", "zz"]},
    {"reasoning_effort": "low"},
    {"reasoning_effort": "low", "max_tokens": 3},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": SKU}}},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "messages": [{"role": "user", "content": 'call stock {"sku":"a long number"} and call sites'}]},
    {"tools": TOOLS, "reasoning_effort": "high", "tool_choice": "required", "n": 2},
    {"messages": [{"role": "user", "content": "  \n "}]},
    {"messages": [{"role": "user", "content": ""}]},
]


@pytest.mark.parametrize("chat", CHATS)
def test_the_stream_adds_up_to_the_whole_answer(chat):
    answer = whole({**PLAIN, **chat})
    expected = {name: answer[name] for name in ("model", "choices", "usage")}
    assert folded(parts({**PLAIN, **chat})) == expected


def test_several_choices_are_alike():
    choices = whole("hi", n=3)["choices"]
    assert [one["index"] for one in choices] == [0, 1, 2]
    assert {one["message"]["content"] for one in choices} == {"hi"}
    assert whole("hi", n=3)["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}


def test_an_answer_ends_at_the_most_tokens():
    cut = choice("one two three", max_tokens=2)
    assert (cut["message"]["content"], cut["finish_reason"]) == ("one two", "length")
    assert choice("one two three", max_tokens=3)["finish_reason"] == "stop"
    assert choice("one two three", max_tokens=9, max_completion_tokens=1)["message"]["content"] == "one"


def test_an_answer_ends_before_the_first_stop_string_and_says_which():
    cut = choice("one two three", stop=["three", "two", ""])
    assert cut["message"]["content"] == "one "
    assert (cut["finish_reason"], cut["stop_sequence"]) == ("stop", "two")
    assert "stop_sequence" not in choice("one", stop="two")
    assert "stop_sequence" not in choice("one two", stop="two", max_tokens=0)


def test_it_thinks_when_told_to():
    message = choice("one two", reasoning_effort="low")["message"]
    assert message["reasoning_content"] == "The user said 2 words. I repeat them."
    assert message["content"] == "one two"
    assert "reasoning_content" not in choice("one", reasoning_effort="none")["message"]
    assert "reasoning_content" in choice("one", thinking_budget=1024)["message"]


def test_thinking_is_counted():
    usage = whole("one two", reasoning_effort="low")["usage"]
    assert usage["completion_tokens"] == 10
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 8}


def test_the_same_question_gets_the_same_answer():
    asked = {"tools": TOOLS, "tool_choice": "required"}
    assert whole("hi", **asked)["choices"] == whole("hi", **asked)["choices"]


# tools


def test_a_mentioned_tool_is_called():
    assert called('please call stock {"sku": "LN"}') == [("stock", {"sku": "LN"})]
    assert called("call sites.") == [("sites", {})]


def test_several_mentions_are_parallel_calls_with_ids_of_their_own():
    asked = 'call sites and call stock {"sku":"a"}, then call stock {"sku":"a"}'
    assert called(asked) == [("sites", {}), ("stock", {"sku": "a"}), ("stock", {"sku": "a"})]
    answered = choice(asked, tools=TOOLS)
    assert len({one["id"] for one in answered["message"]["tool_calls"]}) == 3
    assert answered["finish_reason"] == "tool_calls"
    assert answered["message"]["content"] is None


def test_one_call_only_when_parallel_ones_are_not_wanted():
    assert called("call sites call sites", parallel_tool_calls=False) == [("sites", {})]


@pytest.mark.parametrize("asked", ["call nobody", "recall stock", "hello", "call"])
def test_a_tool_that_is_not_mentioned_is_not_called(asked):
    assert called(asked) == []
    assert text(asked, tools=TOOLS) == asked


def test_what_is_no_json_leaves_the_least_arguments():
    assert called('call stock {"sku": ') == [("stock", {"sku": ""})]
    assert called("call stock") == [("stock", {"sku": ""})]


@pytest.mark.parametrize("arguments", ['{"sku": NaN}', '{"sku": 1e999}', '{"sku": ' + "[" * 200 + "]" * 200 + "}"])
def test_what_nobody_else_could_read_is_no_json(arguments):
    assert called(f"call stock {arguments}") == [("stock", {"sku": ""})]


def test_long_arguments_are_read_and_very_long_ones_are_not():
    long = {"sku": "x" * 60_000}
    assert called(f"call stock {json.dumps(long)} call sites") == [("stock", long), ("sites", {})]
    assert called(f"call stock {json.dumps({'sku': 'x' * 70_000})}") == [("stock", {"sku": ""})]


def test_there_is_an_end_to_the_calls():
    assert len(called("call sites " * 1000)) == 128


def test_no_depth_of_a_message_ends_the_process():
    program = """
import threading
from providers.echo import calls_of
tools = [{"function": {"name": "stock"}}]
def call():
    for text in ('{"a":' + "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000):
        messages = [{"role": "user", "content": "call stock " + text}]
        (one,) = calls_of({"messages": messages, "tools": tools})
        assert one["function"]["arguments"] == "{}"
threading.stack_size(128 * 1024)
thread = threading.Thread(target=call)
thread.start()
thread.join()
print("ended well")
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"ended well\n")


def test_a_mention_within_arguments_is_none():
    assert called('call stock {"sku": "call sites"}') == [("stock", {"sku": "call sites"})]


@pytest.mark.parametrize(
    ("wanted", "calls"),
    [
        ("required", [("stock", {"sku": ""})]),
        ({"type": "function", "function": {"name": "sites"}}, [("sites", {})]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOLS[1]]}}, [("sites", {})]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOLS[1]]}}, []),
        ("auto", []),
        ("none", []),
    ],
)
def test_the_choice_of_a_tool_is_followed(wanted, calls):
    assert called("hello", tool_choice=wanted) == calls


def test_a_tool_the_choice_excludes_is_not_called():
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOLS[1]]}}
    assert called("call stock", tool_choice=allowed) == []
    assert called("call stock", tool_choice="none") == []


def test_a_forced_call_takes_the_json_of_the_message():
    assert called('look up {"sku": "LN", "n": 2}', tool_choice="required") == [("stock", {"sku": "LN", "n": 2})]


def test_the_results_of_tools_are_the_answer():
    first = choice("call stock call sites", tools=TOOLS)["message"]
    results = [
        {"role": "tool", "tool_call_id": one["id"], "content": f"result {at}"}
        for at, one in enumerate(first["tool_calls"])
    ]
    messages = [{"role": "user", "content": "call stock call sites"}, first, *results]
    answered = choice({"messages": messages}, tools=TOOLS, tool_choice="required")
    assert answered["message"] == {"role": "assistant", "content": "result 0\nresult 1"}
    messages += [answered["message"], {"role": "user", "content": "thanks"}]
    assert text({"messages": messages}, tools=TOOLS) == "thanks"


def test_a_tool_of_another_kind_is_refused():
    with pytest.raises(UpstreamError) as caught:
        choice("hi", tools=[{"type": "custom", "custom": {"name": "x"}}])
    assert caught.value.param == "tools[0].type"


# formats


def formatted(schema):
    return json.loads(text("hi", response_format={"type": "json_schema", "json_schema": {"schema": schema}}))


def test_a_json_object_is_an_object():
    assert text("hi", response_format={"type": "json_object"}) == "{}"
    assert text("hi", response_format={"type": "text"}) == "hi"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (SKU, {"sku": ""}),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 3}, 3),
        ({"default": [1]}, [1]),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": ["string", "null"]}, ""),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "minimum": 4, "multipleOf": 5}, 5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["", ""]),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 2}, [1, 2]),
        ({"properties": {"a": {"type": "integer"}}, "required": ["a", "b"]}, {"a": 0, "b": ""}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, 0),
        ({"allOf": [{"required": ["a"], "properties": {"a": {"const": 1}}}, {"required": ["b"]}]}, {"a": 1, "b": ""}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": "there"}}}, "there"),
        ({"$ref": "#/$defs/gone"}, ""),
    ],
)
def test_an_answer_fits_its_schema(schema, value):
    assert formatted(schema) == value


def test_a_schema_that_holds_itself_comes_to_an_end():
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert isinstance(formatted(node), dict)
    assert formatted({"$ref": "#"}) == ""
    for twice in (
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}], "required": ["x"]},
        {"type": "array", "minItems": 100, "items": {"$ref": "#"}},
    ):
        begun = time.monotonic()
        formatted(twice)
        assert time.monotonic() - begun < 2
    listed = {**node, "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    assert formatted(listed) == {"next": None}


# what is dropped, refused, counted


def test_sampling_needs_no_warning_and_the_unknown_gets_one():
    scope = Scope()
    list(provider().chat(call({**PLAIN, "temperature": 0.7, "seed": 1, "logit_bias": {"1": 1}, "_pocket": 1}, scope)))
    assert scope.warnings == {"logit_bias": "not supported by echo"}


def test_what_is_heard_needs_no_warning():
    heard = {name: {} for name in ("stream_options", "provider_options", "response_format")}
    heard.update(dict.fromkeys(("max_tokens", "max_completion_tokens", "thinking_budget", "n", "top_k", "min_p"), 1))
    heard.update(dict.fromkeys(("top_p", "presence_penalty", "frequency_penalty", "repeat_penalty"), 1.0))
    heard.update(provider="echo", type="chat", stop="x", modalities=["text"], tools=TOOLS, stream=False)
    heard.update(tool_choice="auto", parallel_tool_calls=True, reasoning_effort="low")
    scope = Scope()
    list(provider().chat(call({**PLAIN, **heard}, scope)))
    assert scope.warnings == {}


def test_in_strict_mode_a_warning_is_a_refusal():
    with pytest.raises(UpstreamError, match="logit_bias") as caught:
        next(provider().chat(call({**PLAIN, "logit_bias": {"1": 1}}, strict=True)))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "field", [{"audio": {"voice": "x"}}, {"modalities": ["text", "audio"]}, {"web_search_options": {"a": 1}}]
)
def test_an_answer_of_another_shape_is_refused(field):
    with pytest.raises(UpstreamError) as caught:
        whole("hi", **field)
    assert (caught.value.status, caught.value.param) == (400, *field)


def test_tokens_are_counted_as_usage_counts_them():
    chat = {
        "tools": TOOLS,
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": "u"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "stock"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "ok then"},
        ],
    }
    counted = provider().count_tokens(call(chat))
    assert counted == whole(chat)["usage"]["prompt_tokens"] == 2 + 3 + 1 + 2 + 2


# time


def test_a_word_takes_its_time_and_the_stream_says_so():
    slow = provider(delay=0.02)
    begun = time.monotonic()
    said = list(slow.chat(call({**PLAIN, "stream": True})))
    assert time.monotonic() - begun >= 0.02 * 4
    assert said[0] == {}
    assert [bool(part) for part in said].count(False) == 7
    begun = time.monotonic()
    assert [bool(part) for part in slow.chat(call("one two three"))] == [False, True]
    assert time.monotonic() - begun >= 0.02 * 3


def test_a_long_silence_shows_signs_of_life():
    scope = Scope()
    waited = []
    scope.wait = lambda _sock, seconds, **_: waited.append(round(seconds, 2))
    assert list(echo.pondered(2.5, scope)) == [{}, {}, {}]
    assert waited == [1.0, 1.0, 0.5]


def test_a_client_that_leaves_ends_it():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parts_ = provider(delay=60).chat(call({**PLAIN, "stream": True}, Scope(ours)))
        assert next(parts_) == {}
        theirs.close()
        begun = time.monotonic()
        with pytest.raises(Gone):
            next(parts_)
        assert time.monotonic() - begun < 1


# models, embeddings


def test_it_lists_a_model_for_each_of_its_uses():
    model = {"object": "model", "created": 0, "owned_by": "echo"}
    assert provider().models() == [
        {"id": "echo", **model, "capabilities": ["completion", "tools", "thinking", "vision"]},
        {"id": "echo-embedding", **model, "capabilities": ["embedding"]},
    ]


def embedded(input_, model="echo-embedding", **more):
    return provider().embed(Call({"model": model, "input": input_, **more}))


def vectors(*texts, **more):
    return [item["embedding"] for item in embedded(list(texts), **more)["data"]]


def cosine(one, other):
    return sum(x * y for x, y in zip(one, other))


def test_vectors_keep_their_order_and_tell_the_usage():
    answer = embedded(["a lantern", "rope"])
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["model"] == "echo/echo-embedding"
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert answer["data"][1]["embedding"] == vectors("rope")[0] == embedded("rope")["data"][0]["embedding"]


@pytest.mark.parametrize("text_", ["lantern", "", "   ", "?!", "größe ✓", "a a"])
@pytest.mark.parametrize("dimensions", [1, 3, 256, 1000])
def test_every_vector_has_the_length_of_one(text_, dimensions):
    (vector,) = vectors(text_, dimensions=dimensions)
    assert len(vector) == dimensions
    assert math.isclose(cosine(vector, vector), 1)


def test_the_length_of_a_vector_is_an_option():
    assert len(vectors("a")[0]) == 256
    answer = provider(dimensions=16).embed(Call({"input": "a"}))
    assert len(answer["data"][0]["embedding"]) == 16
    assert answer["model"] == "echo/echo-embedding"


def test_too_long_a_vector_is_refused():
    with pytest.raises(UpstreamError) as caught:
        vectors("a", dimensions=10**9)
    assert (caught.value.status, caught.value.param) == (400, "dimensions")


def test_texts_that_share_words_are_closer():
    one, near, nearer, far = vectors(
        "two lanterns on the shelf", "one lantern on a shelf", "two lanterns on the Shelf!", "quick brown foxes jump"
    )
    assert cosine(one, nearer) > cosine(one, near) > cosine(one, far) + 0.2


def test_token_ids_mean_nothing_here():
    with pytest.raises(UpstreamError) as caught:
        embedded([[1, 2]])
    assert caught.value.param == "input"


def test_an_unknown_field_of_an_embedding_gets_a_warning():
    heard = {
        "model": "echo-embedding",
        "dimensions": 3,
        "input_type": "query",
        "provider": "echo",
        "type": "embeddings",
    }
    asked = Call({"input": "a", "encoding_format": "float", "user": "u", "other": 1, **heard})
    provider().embed(asked)
    assert asked.scope.warnings == {"other": "not supported by echo"}


def test_a_vector_is_the_same_in_every_process():
    program = "from providers.echo import vector; print(repr(vector('two lanterns, größe', 8)))"
    told = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {repr(echo.vector("two lanterns, größe", 8)).encode() + b"\n"}
    assert echo.vector("two lanterns, größe", 8) == FIXED


FIXED = [
    -0.17407765595569785,
    -0.5222329678670935,
    -0.17407765595569785,
    -0.3481553119113957,
    0.3481553119113957,
    0.3481553119113957,
    -0.17407765595569785,
    -0.5222329678670935,
]
