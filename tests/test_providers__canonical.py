"""What is promised of `providers/_canonical.py`."""

from __future__ import annotations

import json
import re
import time

import pytest

from providers import UpstreamError
from providers import _canonical as canonical

CALL = {"id": "a", "type": "function", "function": {"name": "stock", "arguments": '{"z": 1, "a": "ö"}'}}


# requests, taken apart


@pytest.mark.parametrize(
    ("chat", "most"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7),
        ({"max_completion_tokens": None, "max_tokens": 5}, 5),
        ({"max_completion_tokens": 0, "max_tokens": 5}, 0),
    ],
)
def test_the_most_tokens_have_a_new_name_and_an_old_one(chat, most):
    assert canonical.max_tokens(chat) == most


@pytest.mark.parametrize(
    ("stop", "strings"), [(None, []), ("END", ["END"]), ("", [""]), (["a", "b"], ["a", "b"]), ([], [])]
)
def test_stop_strings_are_a_list(stop, strings):
    assert canonical.stops({"stop": stop}) == strings
    assert canonical.stops({}) == []


def test_the_text_of_a_message_is_that_of_its_text_parts():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert canonical.text_of(parts) == "a\nb"
    assert canonical.text_of("a") == "a"
    assert canonical.text_of(None) == ""


def test_a_string_is_one_text_part_and_an_empty_one_is_none():
    assert canonical.parts_of("a") == [{"type": "text", "text": "a"}]
    assert canonical.parts_of("") == canonical.parts_of(None) == []
    parts = [{"type": "text", "text": ""}]
    assert canonical.parts_of(parts) == parts
    assert canonical.parts_of(parts) is not parts


def test_leading_system_messages_are_split_off():
    roles = ["system", "developer", "user", "system"]
    messages = [{"role": role} for role in roles]
    assert canonical.leading_system(messages) == (messages[:2], messages[2:])
    assert canonical.leading_system(messages[:2]) == (messages[:2], [])
    assert canonical.leading_system([]) == ([], [])
    assert canonical.leading_system(messages[2:]) == ([], messages[2:])


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("data:image/png;base64,AAAA", ("image/png", "AAAA")),
        ("data:IMAGE/PNG;base64,AAAA", ("image/png", "AAAA")),
        ("data:image/svg+xml;charset=utf-8;base64,AA==", ("image/svg+xml", "AA==")),
        ("data:;base64,AAAA", ("text/plain", "AAAA")),
        ("data:text/plain,hello", None),
        ("data:", None),
        ("https://example.com/a.png", None),
        ("", None),
    ],
)
def test_a_data_url_is_taken_apart(url, taken):
    assert canonical.media(url) == taken


def test_a_hostile_url_takes_no_time():
    begun = time.monotonic()
    for url in ("data:" + ";" * 200_000, "data:a/b" + ";base64" * 50_000, "data:a/b;" + "=" * 500_000):
        assert canonical.media(url) is None
    assert time.monotonic() - begun < 2


def test_base64_is_decoded_or_refused_by_its_path():
    assert canonical.decoded("aGk=", "x") == b"hi"
    for wrong in ("aGk", "a b=", "ä"):
        with pytest.raises(UpstreamError) as caught:
            canonical.decoded(wrong, "messages[0]")
        assert (caught.value.status, caught.value.param) == (400, "messages[0]")


def test_an_image_is_an_object_or_a_string():
    assert canonical.image_url({"image_url": {"url": "u"}}) == "u"
    assert canonical.image_url({"image_url": "u"}) == "u"
    assert canonical.image_url({}) == canonical.image_url({"image_url": {}}) == ""


def test_arguments_are_an_object_and_keep_their_order():
    assert list(canonical.arguments_of(CALL).items()) == [("z", 1), ("a", "ö")]
    for empty in ("", None, "{}", {}):
        assert canonical.arguments_of({"function": {"arguments": empty}}) == {}
    assert canonical.arguments_of({}) == {}


@pytest.mark.parametrize("arguments", ["[1]", "null", "1", "{", '"a"', "[" * 100_000, 3])
def test_arguments_that_are_no_object_are_refused_by_their_path(arguments):
    call = {"function": {"name": "stock", "arguments": arguments}}
    with pytest.raises(UpstreamError) as caught:
        canonical.arguments_of(call, "messages[2].tool_calls[0]")
    assert (caught.value.status, caught.value.code) == (400, "invalid_value")
    assert caught.value.param == "messages[2].tool_calls[0]"
    assert caught.value.message == "messages[2].tool_calls[0]: the arguments of 'stock' are no JSON object"


def test_a_call_has_the_name_of_its_function():
    assert canonical.name_of(CALL) == "stock"
    assert canonical.name_of({}) == canonical.name_of({"function": None}) == ""


def test_names_are_looked_up_by_the_ids_of_their_calls():
    other = {"id": "b", "function": {"name": "sites"}}
    messages = [{"role": "user"}, {"tool_calls": [CALL]}, {"tool_calls": None}, {"tool_calls": [other]}]
    assert canonical.names_by_id(messages) == {"a": "stock", "b": "sites"}


def test_an_id_that_is_not_safe_is_spelled_anew_and_always_alike():
    assert canonical.safe_id("call_1-A") == "call_1-A"
    for strange in ("a.b", "", "a" * 65, "größe", "a\n"):
        assert re.fullmatch("[A-Za-z0-9_-]{1,64}", canonical.safe_id(strange))
        assert canonical.safe_id(strange) == canonical.safe_id(strange)
    assert canonical.safe_id("a.b") != canonical.safe_id("a:b")


def test_tools_are_functions():
    function = {"name": "stock"}
    assert canonical.functions_of({"tools": [{"type": "function", "function": function}, {"function": function}]}) == (
        [function] * 2
    )
    assert canonical.functions_of({}) == []
    with pytest.raises(UpstreamError) as caught:
        canonical.functions_of({"tools": [{"type": "function", "function": function}, {"type": "custom"}]})
    assert caught.value.param == "tools[1].type"


NAMED = {"type": "function", "function": {"name": "stock"}}


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        (None, None),
        ("auto", ("auto", None)),
        ("none", ("none", None)),
        ("required", ("required", None)),
        (NAMED, ("required", ["stock"])),
        ({"type": "function", "name": "stock"}, ("required", ["stock"])),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}, ("required", ["stock"])),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [NAMED]}}, ("auto", ["stock"])),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "stock"}]}, ("auto", ["stock"])),
    ],
)
def test_a_tool_choice_has_one_shape(choice, read):
    assert canonical.tool_choice({"tool_choice": choice}) == read
    assert canonical.tool_choice({}) is None


def test_a_schema_is_found_where_one_is_asked_for():
    schema = {"type": "array"}
    asked = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert canonical.json_schema({"response_format": asked}) == schema
    assert canonical.json_schema({"response_format": {"type": "json_schema"}}) == {"type": "object"}
    assert canonical.json_schema({"response_format": {"type": "json_object"}}) is None
    assert canonical.json_schema({}) is None


def test_each_provider_finds_its_own_options_only():
    chat = {"provider_options": {"ollama": {"num_ctx": 1}, "gemini": 3}}
    assert canonical.own_options(chat, "ollama") == {"num_ctx": 1}
    assert (
        canonical.own_options(chat, "gemini")
        == canonical.own_options(chat, "x")
        == canonical.own_options({}, "x")
        == {}
    )


def test_what_is_merged_wins_field_by_field_and_changes_neither():
    body, more = {"a": {"x": 1, "y": [1]}, "b": 1}, {"a": {"y": [2], "z": {"q": 1}}, "c": 3, "b": {"n": 1}}
    before = json.dumps([body, more])
    assert canonical.merged(body, more) == {"a": {"x": 1, "y": [2], "z": {"q": 1}}, "b": {"n": 1}, "c": 3}
    assert json.dumps([body, more]) == before


def test_what_was_not_handled_is_told_but_for_pockets_and_what_is_not_set():
    told = []
    chat = {"model": "m", "z": 1, "a": False, "none": None, "_pocket": 1}
    canonical.warn_dropped(chat, {"model"}, lambda *what: told.append(what), "gemini")
    assert told == [("a", "not supported by gemini"), ("z", "not supported by gemini")]


def test_reasoning_goes_back_to_whom_it_came_from():
    def detail(provider, model, index=0, **more):
        return {"provider": provider, "model": model, "index": index, **more}

    details = [
        detail("gemini", "flash", 1),
        detail("gemini", "flash", 0),
        detail("gemini", "pro"),
        detail("anthropic", "flash"),
        {"provider": "gemini", "index": 2},
        "nonsense",
    ]
    assert canonical.details_for({"reasoning_details": details}, "gemini", "flash") == [
        details[1],
        details[0],
        details[4],
    ]
    assert canonical.details_for({}, "gemini", "flash") == []
    assert canonical.details_for({"reasoning_details": None}, "gemini", "flash") == []


# answers, put together


def test_a_whole_answer_is_an_openai_completion():
    answer = canonical.completion("x", "p/m", {"content": "hi"}, "stop", canonical.usage(1, 2), 77)
    assert answer == {
        "id": "x",
        "object": "chat.completion",
        "created": 77,
        "model": "p/m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def test_an_id_and_a_time_are_invented_where_there_are_none():
    answer = canonical.completion("", "p/m", {}, "stop", None)
    assert answer["id"].startswith("chatcmpl-")
    assert abs(answer["created"] - time.time()) < 5
    assert "usage" not in answer
    assert canonical.new_id() != canonical.new_id()


def test_all_chunks_of_an_answer_have_the_same_head():
    made = canonical.Chunks("", "p/m", 77)
    chunks = [made.role(), made.text("a"), made.delta({}, "stop"), made.usage(canonical.usage(1, 2))]
    heads = [{name: chunk[name] for name in ("id", "object", "created", "model")} for chunk in chunks]
    assert all(head == heads[0] for head in heads)
    assert heads[0]["object"] == "chat.completion.chunk"
    assert canonical.Chunks("x", "p/m").text("a")["id"] == "x"


@pytest.mark.parametrize(
    ("make", "delta"),
    [
        (lambda made: made.role(), {"role": "assistant", "content": ""}),
        (lambda made: made.text("a"), {"content": "a"}),
        (lambda made: made.reasoning("a"), {"reasoning_content": "a"}),
        (lambda made: made.detail({"d": 1}), {"reasoning_details": [{"d": 1}]}),
        (lambda made: made.arguments(1, '{"'), {"tool_calls": [{"index": 1, "function": {"arguments": '{"'}}]}),
        (
            lambda made: made.call(1, "i", "n"),
            {"tool_calls": [{"index": 1, "id": "i", "type": "function", "function": {"name": "n", "arguments": ""}}]},
        ),
    ],
)
def test_a_chunk_says_one_thing(make, delta):
    assert make(canonical.Chunks("", "p/m"))["choices"] == [{"index": 0, "delta": delta, "finish_reason": None}]


def test_the_end_and_the_usage_are_chunks_of_their_own():
    made = canonical.Chunks("", "p/m")
    assert made.delta({}, "length", index=2)["choices"] == [{"index": 2, "delta": {}, "finish_reason": "length"}]
    assert made.usage({"total_tokens": 1})["choices"] == []


def test_usage_tells_details_where_they_say_something():
    assert canonical.usage(10, 5) == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    told = canonical.usage(10, 5, cached=3, cache_write=2, reasoning=0)
    assert told["prompt_tokens_details"] == {"cached_tokens": 3, "cache_write_tokens": 2}
    assert told["completion_tokens_details"] == {"reasoning_tokens": 0}
    assert canonical.usage(10, 5, cached=3)["prompt_tokens_details"] == {"cached_tokens": 3, "cache_write_tokens": 0}


def test_arguments_are_dumped_as_a_model_writes_them():
    assert canonical.dumped({"z": "größe", "a": [1, 2.5]}) == '{"z":"größe","a":[1,2.5]}'


def test_vectors_are_openais_list():
    assert canonical.vectors([[1.0], [0.5]], "p/m", 7) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0]},
            {"object": "embedding", "index": 1, "embedding": [0.5]},
        ],
        "model": "p/m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_texts_are_a_list_and_token_ids_are_none():
    assert canonical.texts_of({"input": "a"}) == ["a"]
    assert canonical.texts_of({"input": ["a", ""]}) == ["a", ""]
    for ids in ([1, 2], [[1], [2]]):
        with pytest.raises(UpstreamError) as caught:
            canonical.texts_of({"input": ids})
        assert (caught.value.status, caught.value.param) == (400, "input")


def test_a_list_is_cut_into_batches():
    assert list(canonical.batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(canonical.batches([], 2)) == []


# errors


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
    ],
)
def test_how_long_to_wait_is_read(headers, seconds):
    assert canonical.retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "ours", "kind", "code", "passing"),
    [
        (400, 400, "invalid_request_error", None, False),
        (401, 401, "authentication_error", "provider_auth", False),
        (402, 429, "insufficient_quota", "insufficient_quota", False),
        (403, 403, "permission_error", None, False),
        (404, 404, "not_found_error", "model_not_found", False),
        (408, 504, "timeout_error", "provider_timeout", False),
        (413, 413, "invalid_request_error", "request_too_large", False),
        (418, 418, "invalid_request_error", None, False),
        (422, 400, "invalid_request_error", None, False),
        (429, 429, "rate_limit_error", "rate_limit_exceeded", True),
        (301, 502, "api_error", "provider_error", True),
        (500, 502, "api_error", "provider_error", True),
        (502, 502, "api_error", "provider_error", True),
        (503, 503, "overloaded_error", "provider_overloaded", True),
        (504, 504, "timeout_error", "provider_timeout", False),
        (529, 503, "overloaded_error", "provider_overloaded", True),
    ],
)
def test_a_status_has_its_class(status, ours, kind, code, passing):
    error = canonical.upstream_error("p", status, "no")
    assert (error.status, error.kind, error.code, error.passing) == (ours, kind, code, passing)
    assert (error.provider, error.provider_status) == ("p", status)
    assert "no" in error.message


def test_a_key_that_was_refused_is_said_to_be_ours():
    assert canonical.upstream_error("p", 401, "bad").message == "p refused the proxy's own key for it: bad"


def test_without_words_the_status_is_told():
    assert canonical.upstream_error("p", 500, "").message == "p answered 500"
    assert len(canonical.upstream_error("p", 500, "x" * 9999).message) == 2000


@pytest.mark.parametrize(("wait", "told"), [(0.2, "1"), (1.0, "1"), (1.2, "2"), (0.0, "1"), (60.0, "60")])
def test_a_wait_is_told_in_whole_seconds(wait, told):
    error = canonical.upstream_error("p", 429, "slow", wait=wait)
    assert error.headers == {"Retry-After": told}
    assert error.retry_after == wait


def test_only_who_may_come_again_is_told_when():
    assert canonical.upstream_error("p", 503, "busy", wait=3).headers == {"Retry-After": "3"}
    assert canonical.upstream_error("p", 400, "bad", wait=3).headers == {}
    assert canonical.upstream_error("p", 429, "slow").headers == {}


def test_an_empty_purse_is_not_refilled_by_waiting():
    error = canonical.upstream_error("p", 429, "no money", wait=3, code="insufficient_quota")
    assert (error.status, error.kind, error.headers, error.passing) == (429, "insufficient_quota", {}, False)
    assert canonical.upstream_error("p", 402, "no money", wait=3).headers == {}


@pytest.mark.parametrize(
    "message",
    ["prompt is too long: 3 > 2", "exceeds the context window", "The input token count (9) exceeds", "maximum context"],
)
def test_a_prompt_that_is_too_long_has_a_code_of_its_own(message):
    assert canonical.upstream_error("p", 400, message).code == "context_length_exceeded"
    assert canonical.upstream_error("p", 400, message, code="own").code == "own"
    assert canonical.upstream_error("p", 500, message).code == "provider_error"


def test_in_a_stream_no_status_was_given():
    error = canonical.upstream_error("p", 529, "busy", in_stream=True)
    assert (error.status, error.provider_status) == (503, None)
    assert "provider_status" not in error.document()["error"]


def test_what_is_known_better_is_told_instead():
    error = canonical.upstream_error("p", 400, "no", code="c", param="x", kind="k")
    assert (error.code, error.param, error.kind) == ("c", "x", "k")


def test_a_field_that_cannot_be_honoured_is_refused():
    error = canonical.unsupported("n", "no")
    assert (error.status, error.code, error.param, error.message) == (400, "unsupported_parameter", "n", "no")


def test_a_stream_that_broke_off_is_told():
    error = canonical.truncated("p")
    assert (error.status, error.code, error.provider) == (502, "stream_truncated", "p")
