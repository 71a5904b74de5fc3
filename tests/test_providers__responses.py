from __future__ import annotations

import pytest

from providers import PAUSE, UpstreamError
from providers._responses import question
from providers._responses_answer import answer, chunks, remembering

SOL = "gpt-6-sol"
USER = {"role": "user", "content": "hi"}


def unexpected(field, reason):
    raise AssertionError(f"unexpected warning: {field}={reason}")


def sent(*messages, warn=unexpected, recall=lambda _: [], **fields):
    chat = {"model": SOL, "messages": list(messages) or [USER], **fields}
    return question(chat, "openai", warn, recall)


def items(*messages, **more):
    return sent(*messages, **more)["input"]


def detail(index, encrypted="e", **more):
    told = {"type": "reasoning_item", "id": f"rs_{index}", "encrypted_content": encrypted, "summary": []}
    return {"provider": "openai", "model": SOL, "index": index, **told, **more}


def call(id_="c1", arguments="{}", name="look"):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls, **more):
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def kinds(items):
    return [item.get("id") or item.get("call_id") or item["role"] for item in items]


# what is asked


def test_a_plain_question_is_stateless_and_wants_its_reasoning_sealed():
    assert sent() == {
        "model": SOL,
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "reasoning": {"summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    assert sent(store=True)["store"] is True


def test_leading_systems_are_the_instructions_and_later_ones_stay_in_their_place():
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    body = sent(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": parts},
        USER,
        {"role": "system", "content": "d"},
    )
    assert body["instructions"] == "a\n\nb\nc"
    assert body["input"][1] == {"type": "message", "role": "system", "content": "d"}
    alone = sent({"role": "system", "content": "a"})
    assert alone["input"] == [{"type": "message", "role": "system", "content": "a"}]
    assert "instructions" not in alone


def test_what_a_user_shows_is_put_in():
    breakpoint_ = {"mode": "explicit"}
    (item,) = items(
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "see", "prompt_cache_breakpoint": breakpoint_, "_pocket": 1},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                {"type": "image_url", "image_url": "data:image/png;base64,AA=="},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            ],
        }
    )
    assert item == {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "see", "prompt_cache_breakpoint": breakpoint_},
            {"type": "input_image", "detail": "low", "image_url": "https://x.test/a.png"},
            {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AA=="},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        ],
    }


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[1].content[0].type"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[1].role"),
    ],
)
def test_what_cannot_be_put_in_is_refused_by_its_path(message, param):
    with pytest.raises(UpstreamError) as caught:
        sent({"role": "system", "content": "a"}, message)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)


def test_a_turn_with_calls_and_their_results_becomes_items():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    assert items(
        USER,
        {**calling(call("c1", '{"a":1}'), call("c2", "")), "content": "Let me see."},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}],
        },
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "z"}, image], "is_error": True},
    )[1:] == [
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "x\ny"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "z"},
                {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AA=="},
            ],
        },
    ]


def test_custom_calls_keep_their_kind():
    custom = {"id": "c1", "type": "custom", "custom": {"name": "free", "input": "text"}}
    assert items(calling(custom), {"role": "tool", "tool_call_id": "c1", "content": "x"}) == [
        {"type": "custom_tool_call", "call_id": "c1", "name": "free", "input": "text"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "x"},
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "I will not."},
        {"content": [{"type": "refusal", "refusal": "I will not."}]},
        {"content": [{"type": "text", "text": "I will not."}], "refusal": None},
    ],
)
def test_a_refusal_is_something_said(message):
    assert items({"role": "assistant", **message}) == [
        {"type": "message", "role": "assistant", "content": "I will not."}
    ]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (calling(call("c1"), reasoning_details=[detail(0)]), ["rs_0", "c1"]),
        (calling(call("c1"), call("c2"), reasoning_details=[detail(2), detail(0)]), ["rs_0", "c1", "rs_2", "c2"]),
        (
            calling(call("c1"), reasoning_details=[detail(0), detail(2)], content="a"),
            ["rs_0", "assistant", "rs_2", "c1"],
        ),
        (calling(call("c1"), reasoning_details=[detail(0), detail(2)]), ["rs_0", "rs_2", "c1"]),
        ({"role": "assistant", "content": "a", "reasoning_details": [detail(0)]}, ["rs_0", "assistant"]),
        ({"role": "assistant", "content": None, "reasoning_details": [detail(0)]}, []),
        (calling(call("c1"), reasoning_details=[detail(0, encrypted=None)]), ["c1"]),
        (calling(call("c1"), reasoning_details=[detail(0, model="other")]), ["c1"]),
    ],
)
def test_reasoning_stands_before_what_it_led_to(turn, expected):
    assert kinds(items(turn)) == expected


def test_reasoning_goes_back_as_it_came():
    summary = [{"type": "summary_text", "text": "hm"}]
    assert items(calling(call(), reasoning_details=[detail(0, summary=summary)]))[0] == {
        "type": "reasoning",
        "id": "rs_0",
        "encrypted_content": "e",
        "summary": summary,
    }


def test_forgotten_reasoning_is_recalled_by_the_ids_of_the_calls():
    asked = []

    def recall(ids):
        asked.append(ids)
        return [detail(0), detail(1, model="other")]

    assert kinds(items(calling(call("c1"), call("c2")), recall=recall)) == ["rs_0", "c1", "c2"]
    assert kinds(items(calling(call("c1"), reasoning_details=[detail(5)]), recall=recall)) == ["rs_5", "c1"]
    assert kinds(items({"role": "assistant", "content": "a"}, recall=recall)) == ["assistant"]
    assert asked == [["c1", "c2"]]


def test_tools_are_flat_and_say_all_they_must():
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "d"}}
    tools = [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        },
        {"type": "function", "function": {"name": "g", "strict": None, "_pocket": 1}},
        {"type": "custom", "custom": {"name": "h", "format": grammar}},
        {"type": "web_search", "_pocket": 1},
    ]
    assert sent(tools=tools)["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        {"type": "function", "name": "g", "parameters": None, "strict": False},
        {"type": "custom", "name": "h", "format": {"type": "grammar", "syntax": "lark", "definition": "d"}},
        {"type": "web_search"},
    ]
    assert tools[2]["custom"]["format"] is grammar


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}),
        ({"type": "custom", "custom": {"name": "f"}}, {"type": "custom", "name": "f"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        ),
    ],
)
def test_a_choice_of_tools_is_flat(given, expected):
    assert sent(tool_choice=given)["tool_choice"] == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_output_tokens": 6}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low", "summary": "auto"}}),
        ({"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}}),
        ({"_unshown": True, "reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True},
                }
            },
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            {"text": {"format": {"type": "json_schema", "name": "output", "schema": {"type": "object"}}}},
        ),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        (
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            {"stream": True, "stream_options": {"include_obfuscation": False}},
        ),
        (
            {"logprobs": True, "top_logprobs": 2},
            {"top_logprobs": 2, "include": ["reasoning.encrypted_content", "message.output_text.logprobs"]},
        ),
        ({"temperature": 1, "top_p": 0.5, "user": "u", "metadata": {"_a": "b"}}, None),
        ({"parallel_tool_calls": False, "service_tier": "flex", "safety_identifier": "s", "something_new": [1]}, None),
        ({"n": 1, "modalities": ["text"], "presence_penalty": 0, "seed": None, "stop": [], "_pocket": 1}, {}),
    ],
)
def test_a_field_has_its_place(fields, expected):
    plain = sent()
    body = sent(**fields)
    assert {key: body[key] for key in body if body[key] != plain.get(key)} == (fields if expected is None else expected)


@pytest.mark.parametrize("field", ["stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "top_k"])
def test_what_responses_lack_is_dropped_and_told_of(field):
    warned = {}
    assert sent(warn=warned.__setitem__, **{field: 1}) == sent()
    assert warned == {field: "not supported by openai with a model that reasons"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("audio", {"voice": "a"}), ("modalities", ["text", "audio"]), ("prediction", {"type": "content"})],
)
def test_what_would_change_the_answer_is_refused(field, value):
    with pytest.raises(UpstreamError) as caught:
        sent(**{field: value})
    assert (caught.value.status, caught.value.param) == (400, field)


def test_options_of_ones_own_come_last():
    body = sent(reasoning_effort="low", provider_options={"openai": {"reasoning": {"summary": "detailed"}, "x": 1}})
    assert body["reasoning"] == {"effort": "low", "summary": "detailed"}
    assert body["x"] == 1


# what is answered


def response(*output, **more):
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    head = {"id": "resp_1", "created_at": 5.0, "model": SOL, "status": "completed", "error": None}
    return {**head, "output": list(output), "usage": usage, **more}


def spoken(*parts):
    return {"type": "message", "role": "assistant", "content": list(parts)}


def text(text_, **more):
    return {"type": "output_text", "text": text_, "annotations": [], **more}


def thought(*texts, id_="rs_1"):
    summary = [{"type": "summary_text", "text": one} for one in texts]
    return {"type": "reasoning", "id": id_, "summary": summary, "encrypted_content": "e"}


def called(id_="c1", arguments="{}"):
    return {"type": "function_call", "call_id": id_, "name": "look", "arguments": arguments}


def message(*output, **more):
    choice = answer(response(*output, **more), "openai", SOL)["choices"][0]
    return choice["message"], choice["finish_reason"]


def test_an_answer_bears_its_head_and_its_usage():
    more = {
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 0, **more}
    made = answer(response(spoken(text("a")), usage=usage), "openai", SOL)
    assert {key: made[key] for key in ("id", "created", "model", "object", "usage")} == {
        "id": "resp_1",
        "created": 5,
        "model": "openai/gpt-6-sol",
        "object": "chat.completion",
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }
    assert "usage" not in answer(response(usage=None), "openai", SOL)


def test_an_answer_that_tells_little_is_one():
    made = answer({"output": [spoken(text("a"))], "usage": {"output_tokens": 1, "input_tokens_details": {}}}, "up", "m")
    assert made["id"].startswith("chatcmpl-")
    assert made["created"] > 0
    assert made["model"] == "up/m"
    assert made["usage"] == {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}
    parts = list(chunks([event("output_text.delta"), event("completed", response={})], "up", "m"))
    assert len(parts) == 2
    assert parts[0]["id"].startswith("chatcmpl-")


def test_all_that_is_said_is_one_text():
    assert message(spoken(text("a"), text("b")), spoken(text("c"))) == ({"role": "assistant", "content": "abc"}, "stop")
    assert message()[0]["content"] is None


def test_reasoning_is_readable_and_kept():
    said, _ = message(thought("a", "b"), spoken(text("x")), thought("c", id_="rs_2"), called())
    assert said["reasoning_content"] == "a\n\nb\n\nc"
    assert [(one["index"], one["id"]) for one in said["reasoning_details"]] == [(0, "rs_1"), (2, "rs_2")]
    assert said["reasoning_details"][0] == detail(0, id="rs_1", summary=thought("a", "b")["summary"])
    refused = spoken({"type": "refusal", "refusal": "No."})
    said, _ = message(refused, thought("a"), called("c1"), thought("b", id_="rs_2"), called("c2"))
    assert [one["index"] for one in said["reasoning_details"]] == [1, 3]
    open_ = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert message(open_)[0]["reasoning_content"] == "hm"


def test_calls_of_both_kinds_are_calls():
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "free", "input": ""}
    said, finish = message(called("c1", ""), custom)
    assert said["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        {"id": "c2", "type": "custom", "custom": {"name": "free", "input": ""}},
    ]
    assert finish == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("steered", "length")],
)
def test_an_incomplete_answer_says_why_even_with_calls(reason, finish):
    incomplete = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    assert message(called(), **incomplete)[1] == finish


def test_a_refusal_is_no_text():
    said, finish = message(spoken({"type": "refusal", "refusal": "No."}))
    assert (said["content"], said["refusal"], finish) == (None, "No.", "stop")


def test_citations_count_from_the_start_of_all_that_is_said():
    cited = {"type": "url_citation", "start_index": 1, "end_index": 2, "url": "https://x.test", "title": "X"}
    said, _ = message(spoken(text("abc"), text("def", annotations=[cited])))
    place = {"start_index": 4, "end_index": 5, "url": "https://x.test", "title": "X"}
    assert said["annotations"] == [{"type": "url_citation", "url_citation": place}]


def test_logprobs_travel_along():
    prob = {"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}
    made = answer(response(spoken(text("a", logprobs=[prob]))), "openai", SOL)
    assert made["choices"][0]["logprobs"] == {"content": [prob], "refusal": None}
    assert made["choices"][0]["message"] == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"status": "failed", "error": {"code": "server_error", "message": "no"}}, 502),
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "no"}}, 429),
        ({"status": "failed"}, 502),
        ({"status": "cancelled"}, 502),
    ],
)
def test_a_response_that_failed_is_no_answer(more, status):
    with pytest.raises(UpstreamError) as caught:
        answer(response(**more), "openai", SOL)
    assert caught.value.status == status


# streams


def created():
    return {"type": "response.created", "response": response(status="in_progress", usage=None)}


def event(type_, **more):
    return {"type": f"response.{type_}", "output_index": 0, **more}


def heard(*events, end=None):
    end = end or event("completed", response=response())
    parts = list(chunks((one for one in (created(), *events, end)), "openai", SOL))
    return [part["choices"][0]["delta"] for part in parts[1:-2]], parts


def test_the_first_event_gives_the_role_and_the_last_the_rest():
    _, parts = heard(event("in_progress", response=response()))
    assert [part["choices"] for part in parts] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        [],
    ]
    assert parts[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert {(part["id"], part["created"], part["model"]) for part in parts} == {("resp_1", 5, "openai/gpt-6-sol")}


def test_pauses_are_passed_on():
    parts = list(chunks([PAUSE, created(), PAUSE, event("completed", response=response())], "openai", SOL))
    assert [bool(part) for part in parts] == [False, True, False, True, True]


def test_pieces_are_passed_on_each_under_its_name():
    deltas, _ = heard(
        event("reasoning_summary_text.delta", summary_index=0, delta="a"),
        event("reasoning_summary_text.delta", summary_index=0, delta="b"),
        event("reasoning_summary_text.delta", summary_index=1, delta="c"),
        event("reasoning_text.delta", output_index=1, content_index=0, delta="d"),
        event("output_text.delta", delta="e"),
        event("output_text.delta", delta=""),
        event("refusal.delta", delta="f"),
    )
    assert deltas == [
        {"reasoning_content": "a"},
        {"reasoning_content": "b"},
        {"reasoning_content": "\n\nc"},
        {"reasoning_content": "\n\nd"},
        {"content": "e"},
        {"refusal": "f"},
    ]


def test_calls_are_counted_without_what_stands_between_them():
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "free", "input": ""}
    deltas, parts = heard(
        event("output_item.added", output_index=1, item=called("c1", "")),
        event("output_item.added", output_index=3, item=custom),
        event("function_call_arguments.delta", output_index=1, delta='{"a":1}'),
        event("custom_tool_call_input.delta", output_index=3, delta="text"),
        event("function_call_arguments.delta", output_index=7, delta="nobody's"),
        event("output_item.done", output_index=1, item=called("c1", '{"a":1}')),
    )
    assert [delta["tool_calls"] for delta in deltas] == [
        [{"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}],
        [{"index": 1, "id": "c2", "type": "custom", "custom": {"name": "free", "input": ""}}],
        [{"index": 0, "function": {"arguments": '{"a":1}'}}],
        [{"index": 1, "custom": {"input": "text"}}],
    ]
    assert parts[-2]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(("whole", "fragment"), [("", "{}"), ('{"a":1}', '{"a":1}')])
def test_arguments_that_did_not_come_in_pieces_come_whole(whole, fragment):
    deltas, _ = heard(
        event("output_item.added", item=called("c1", "")), event("output_item.done", item=called("c1", whole))
    )
    assert deltas[1] == {"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]}


def test_each_piece_of_reasoning_is_kept_whole_when_it_ends():
    deltas, _ = heard(
        event("output_item.done", item=thought("a")),
        event("output_text.delta", delta="x"),
        event("output_item.added", output_index=2, item=called()),
        event("output_item.done", output_index=3, item=thought("b", id_="rs_2")),
    )
    assert deltas[0] == {"reasoning_details": [detail(0, id="rs_1", summary=thought("a")["summary"])]}
    assert deltas[3]["reasoning_details"][0]["index"] == 3


def test_citations_and_probabilities_are_streamed():
    cited = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "https://x.test", "title": "X"}
    prob = {"token": "a", "logprob": -1, "top_logprobs": []}
    deltas, parts = heard(
        event("output_text.delta", delta="abc", logprobs=[prob]),
        event("content_part.added", content_index=1),
        event("output_text.delta", delta="d", logprobs=[]),
        event("output_text.annotation.added", annotation=cited),
    )
    assert parts[1]["choices"][0]["logprobs"] == {"content": [prob], "refusal": None}
    assert "logprobs" not in parts[2]["choices"][0]
    assert deltas[2]["annotations"][0]["url_citation"]["start_index"] == 3


def test_an_incomplete_stream_says_why():
    incomplete = response(status="incomplete", incomplete_details={"reason": "content_filter"})
    _, parts = heard(end=event("incomplete", response=incomplete))
    assert parts[-2]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("events", [[], [created()], [created(), event("output_text.delta", delta="a")]])
def test_a_stream_without_an_end_is_truncated(events):
    with pytest.raises(UpstreamError) as caught:
        list(chunks(events, "openai", SOL))
    assert caught.value.code == "stream_truncated"


@pytest.mark.parametrize(
    "failure",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "no", "param": None},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "no"}},
        {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "no"}}},
        {"error": {"code": "rate_limit_exceeded", "message": "no"}},
    ],
)
def test_a_failure_in_a_stream_is_worded(failure):
    with pytest.raises(UpstreamError, match="no") as caught:
        list(chunks([created(), failure], "openai", SOL))
    assert (caught.value.status, caught.value.code, caught.value.provider) == (429, "rate_limit_exceeded", "openai")


# what clients forget


def test_reasoning_is_kept_before_the_end_is_told():
    kept = []
    parts = remembering(
        chunks(
            [
                created(),
                event("output_item.done", item=thought("a")),
                event("output_item.added", output_index=1, item=called("c1")),
                event("completed", response=response()),
            ],
            "openai",
            SOL,
        ),
        lambda ids, details: kept.append((list(ids), details)),
    )
    for part in parts:
        if part["choices"] and part["choices"][0]["finish_reason"]:
            break
    assert [(ids, [one["id"] for one in details]) for ids, details in kept] == [(["c1"], ["rs_1"])]
    parts.close()


def test_reasoning_of_a_whole_answer_is_kept():
    kept = []

    def parts():
        yield answer(response(thought("a"), called("c1"), called("c2")), "openai", SOL)

    list(remembering(parts(), lambda ids, details: kept.append((ids, details[0]["id"]))))
    assert kept == [(["c1", "c2"], "rs_1")]
