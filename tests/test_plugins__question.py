"""What is promised of `plugins/_question.py`: every field is checked, and what is wrong is named by its path."""

from __future__ import annotations

import copy
import json
import random
import re

import pytest

from plugins import Refusal
from plugins._question import CHAT, EMBEDDINGS, MESSAGE, PARTS, ROLES, checked, unpocketed

PICTURE = "data:image/png;base64,AAAA"
DETAIL = {"provider": "p", "model": "m", "index": 0, "type": "thinking", "thinking": "t", "signature": "s"}
FULL = {
    "model": "echo/echo",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_data": "AAAA", "file_id": "f", "filename": "a.pdf"}},
                {"type": "image_url", "image_url": PICTURE},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "no"}],
            "refusal": "no",
            "reasoning_content": "hm",
            "reasoning": "hm",
            "reasoning_details": [{**DETAIL, "id": "i", "tool_call_id": "c", "data": "d", "encrypted_content": "e"}],
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "add", "arguments": "{}"},
                    "extra_content": {"google": {}},
                },
                {"id": "c2", "type": "custom", "custom": {"name": "x", "input": "y"}},
            ],
            "audio": {"id": "a"},
        },
        {"role": "tool", "content": "3", "tool_call_id": "c1", "is_error": False},
        {"role": "assistant", "content": "", "function_call": {"name": "add", "arguments": {"a": 1}}},
        {"role": "function", "name": "add", "content": "3"},
        {"role": "developer", "content": "Go on."},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "repeat_penalty": 1.1,
    "max_tokens": 10,
    "max_completion_tokens": 10,
    "n": 1,
    "seed": -7,
    "stop": ["a", "b"],
    "presence_penalty": -2,
    "frequency_penalty": 2,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 3,
    "tools": [
        {
            "type": "function",
            "function": {"name": "add", "description": "adds", "parameters": {"type": "object"}, "strict": True},
        },
        {"type": "custom", "custom": {"name": "x"}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"},
    },
    "reasoning_effort": "low",
    "thinking_budget": -1,
    "verbosity": "low",
    "modalities": ["text"],
    "audio": {"voice": "v"},
    "prediction": {"type": "content", "content": "x"},
    "service_tier": "auto",
    "store": False,
    "metadata": {"k": "v"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "p",
    "web_search_options": {},
    "functions": [{"name": "add"}],
    "provider_options": {"ollama": {"num_ctx": 1}},
}
EMBEDDED = {
    "model": "echo/echo-embedding",
    "input": ["a", "b"],
    "dimensions": 4,
    "encoding_format": "float",
    "input_type": "query",
    "user": "u",
    "provider_options": {"voyage": {"truncation": True}},
}

# one value of each JSON kind: what is not among a field's own is wrong for it
VALUES = {
    "text": "zzz",
    "empty": "",
    "blank": " \n",
    "flag": True,
    "off": False,
    "zero": 0,
    "integer": 2,
    "float": 1.5,
    "list": [],
    "object": {},
}
KINDS = {
    "string": {"text", "empty", "blank"},
    "filled": {"text"},
    "flag": {"flag", "off"},
    "object": {"object"},
    "list": {"list"},
    "number": {"zero", "integer", "float"},
    "integer": {"zero", "integer"},
    "positive": {"integer"},
    "word": set(),
    "nothing": set(),
}
FIELDS = {
    "model": "filled",
    "messages": "nothing",
    "messages[0]": "nothing",
    "messages[0].role": "word",
    "messages[0].content": "string list",
    "messages[0].name": "string",
    "messages[1].content": "string list",
    "messages[1].content[0]": "nothing",
    "messages[1].content[0].type": "word",
    "messages[1].content[0].text": "string",
    "messages[1].content[1].image_url": "filled",
    "messages[1].content[1].image_url.url": "filled",
    "messages[1].content[1].image_url.detail": "string",
    "messages[1].content[2].input_audio": "nothing",
    "messages[1].content[2].input_audio.data": "filled",
    "messages[1].content[2].input_audio.format": "filled",
    "messages[1].content[3].file": "object",
    "messages[1].content[3].file.file_data": "string",
    "messages[1].content[3].file.file_id": "string",
    "messages[1].content[3].file.filename": "string",
    "messages[1].content[4].image_url": "filled",
    "messages[2].content[0].refusal": "string",
    "messages[2].refusal": "string",
    "messages[2].reasoning_content": "string",
    "messages[2].reasoning": "string",
    "messages[2].reasoning_details": "list",
    "messages[2].reasoning_details[0]": "object",
    **{
        f"messages[2].reasoning_details[0].{name}": "string" for name in ("provider", "model", "type", "id", "thinking")
    },
    **{f"messages[2].reasoning_details[0].{name}": "string" for name in ("signature", "data", "encrypted_content")},
    "messages[2].reasoning_details[0].tool_call_id": "string",
    "messages[2].reasoning_details[0].index": "integer",
    "messages[2].tool_calls": "list",
    "messages[2].tool_calls[0]": "nothing",
    "messages[2].tool_calls[0].id": "string",
    "messages[2].tool_calls[0].type": "word",
    "messages[2].tool_calls[0].function": "nothing",
    "messages[2].tool_calls[0].function.name": "filled",
    "messages[2].tool_calls[0].function.arguments": "string object",
    "messages[2].tool_calls[0].extra_content": "object",
    "messages[2].tool_calls[1].custom": "object",
    "messages[2].audio": "object",
    "messages[3].content": "string list",
    "messages[3].tool_call_id": "filled",
    "messages[3].is_error": "flag",
    "messages[4].function_call": "nothing",
    "messages[4].function_call.name": "filled",
    "messages[4].function_call.arguments": "string object",
    "messages[5].name": "string",
    "stream": "flag",
    "stream_options": "object",
    "stream_options.include_usage": "flag",
    "temperature": "number",
    "top_p": "zero",
    "top_k": "integer",
    "min_p": "zero",
    "repeat_penalty": "number",
    "max_tokens": "positive",
    "max_completion_tokens": "positive",
    "n": "positive",
    "seed": "integer",
    "stop": "string list",
    "stop[1]": "string",
    "presence_penalty": "number",
    "frequency_penalty": "number",
    "logit_bias": "object",
    "logprobs": "flag",
    "top_logprobs": "integer",
    "tools": "list",
    "tools[0]": "nothing",
    "tools[0].type": "text blank",
    "tools[0].function": "nothing",
    "tools[0].function.name": "filled",
    "tools[0].function.description": "string",
    "tools[0].function.parameters": "object",
    "tools[0].function.strict": "flag",
    "tool_choice": "nothing",
    "tool_choice.type": "text blank",
    "tool_choice.function": "nothing",
    "tool_choice.function.name": "filled",
    "parallel_tool_calls": "flag",
    "response_format": "nothing",
    "response_format.type": "word",
    "response_format.json_schema": "object",
    "response_format.json_schema.name": "string",
    "response_format.json_schema.schema": "object",
    "response_format.json_schema.strict": "flag",
    "response_format.json_schema.description": "string",
    "reasoning_effort": "word",
    "thinking_budget": "integer",
    "verbosity": "word",
    "modalities": "list",
    "modalities[0]": "string",
    "audio": "object",
    "prediction": "object",
    "service_tier": "string",
    "store": "flag",
    "metadata": "object",
    "user": "string",
    "safety_identifier": "string",
    "prompt_cache_key": "string",
    "web_search_options": "object",
    "functions": "list",
    "functions[0]": "object",
    "provider_options": "object",
    "provider_options.ollama": "object",
}
EMBEDDING_FIELDS = {
    "model": "string",
    "input": "string",
    "input[1]": "string",
    "dimensions": "positive",
    "encoding_format": "word",
    "input_type": "word",
    "user": "string",
    "provider_options": "object",
    "provider_options.voyage": "object",
}
REQUIRED = [
    "messages",
    "messages[0].role",
    "messages[0].content",
    "messages[1].content",
    "messages[6].content",
    "messages[1].content[0].type",
    "messages[1].content[0].text",
    "messages[1].content[1].image_url",
    "messages[1].content[1].image_url.url",
    "messages[1].content[4].image_url",
    "messages[1].content[2].input_audio",
    "messages[1].content[2].input_audio.data",
    "messages[1].content[2].input_audio.format",
    "messages[1].content[3].file",
    "messages[2].content[0].refusal",
    "messages[2].tool_calls[0].function",
    "messages[2].tool_calls[0].function.name",
    "messages[2].tool_calls[1].custom",
    "messages[3].content",
    "messages[3].tool_call_id",
    "messages[4].function_call.name",
    "messages[5].name",
    "tools[0].function",
    "tools[0].function.name",
    "tool_choice.type",
    "tool_choice.function",
    "tool_choice.function.name",
    "response_format.type",
    "response_format.json_schema",
]
#: nulls that are no absence: there is no such thing as an absent item of a list
ITEMS = [path for path in FIELDS if path.endswith("]")]


def steps(path):
    found = []
    for name, number in re.findall(r"\.?([^.\[\]]+)|\[(\d+)\]", path):
        found.append(int(number) if number else name)
    return found


def put(document, path, value):
    """Give a copy of the document with this value at the path."""
    changed = copy.deepcopy(document)
    *way, last = steps(path)
    place = changed
    for step in way:
        place = place[step]
    place[last] = value
    return changed


def chat(question):
    return checked(question, CHAT, ("messages",))


def embeddings(question):
    return checked(question, EMBEDDINGS, ("input",))


def refusal(check, question):
    with pytest.raises(Refusal) as caught:
        check(question)
    assert caught.value.status == 400
    assert caught.value.kind == "invalid_request_error"
    return caught.value


def cases(fields, path):
    """Give the values to try at a path, and whether each is right there."""
    right = set().union(*(KINDS.get(kind, {kind}) for kind in fields[path].split()))
    return [(value, name in right) for name, value in VALUES.items()]


def test_a_question_that_says_everything_is_accepted_unchanged():
    assert chat(copy.deepcopy(FULL)) == FULL
    assert embeddings(copy.deepcopy(EMBEDDED)) == EMBEDDED


def test_every_rule_is_in_the_tables_of_this_test():
    assert set(CHAT) <= set(FIELDS)
    assert set(EMBEDDINGS) <= set(EMBEDDING_FIELDS)
    assert all(any(re.fullmatch(rf"messages\[\d\]\.{name}", path) for path in FIELDS) for name in MESSAGE)
    assert {
        part["type"] for message in FULL["messages"] for part in message.get("content", "") if part != str(part)
    } == {*PARTS}
    assert {message["role"] for message in FULL["messages"]} == set(ROLES)


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_takes_its_own_kind_and_no_other(path):
    for value, right in cases(FIELDS, path):
        question = put(FULL, path, value)
        if right:
            assert chat(question) == question
        else:
            param = refusal(chat, question).param
            assert param == path or (value == {} and param.startswith(path + "."))  # it lacks something, then


@pytest.mark.parametrize("path", EMBEDDING_FIELDS)
def test_a_field_of_embeddings_takes_its_own_kind_and_no_other(path):
    for value, right in cases(EMBEDDING_FIELDS, path):
        question = put(EMBEDDED, path, value)
        if right:
            assert embeddings(question) == question
        else:
            assert refusal(embeddings, question).param == path


@pytest.mark.parametrize("path", REQUIRED)
def test_what_is_required_is_missed_by_its_path_be_it_absent_or_null(path):
    question = put(FULL, path, None)
    assert refusal(chat, question).param == path
    *way, last = steps(path)
    place = question
    for step in way:
        place = place[step]
    del place[last]
    assert refusal(chat, question).param == path


@pytest.mark.parametrize("path", ITEMS)
def test_a_null_in_a_list_is_no_item(path):
    assert refusal(chat, put(FULL, path, None)).param == path


@pytest.mark.parametrize("path", sorted(set(FIELDS) - set(REQUIRED) - set(ITEMS)))
def test_any_other_null_is_absent(path):
    asked = chat(put(FULL, path, None))
    if path in CHAT:
        assert path not in asked


def test_input_is_required():
    for question in ({}, {"input": None}, {**EMBEDDED, "input": None}):
        refused = refusal(embeddings, question)
        assert (refused.param, refused.code) == ("input", "missing_required_parameter")


def test_the_codes_tell_missing_and_mistyped_and_impossible_apart():
    assert refusal(chat, {"model": "m"}).code == "missing_required_parameter"
    assert refusal(chat, {**FULL, "temperature": "1"}).code == "invalid_type"
    assert refusal(chat, {**FULL, "temperature": 3}).code == "invalid_value"


LIMITS = [
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("n", 1, 128),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("top_logprobs", 0, 20),
]


@pytest.mark.parametrize(("field", "low", "high"), LIMITS)
def test_a_number_keeps_its_bounds(field, low, high):
    for value in (low, high):
        chat({**FULL, field: value})
    for value in (low - 1, high + 1, -(10**298), 10**298):
        refused = refusal(chat, {**FULL, field: value})
        assert refused.param == field
        assert f"between {low} and {high}" in refused.message


@pytest.mark.parametrize(
    ("field", "low"),
    [("top_k", 0), ("repeat_penalty", 0), ("max_tokens", 1), ("max_completion_tokens", 1), ("thinking_budget", -1)],
)
def test_a_number_without_an_upper_bound_has_a_lower_one(field, low):
    chat({**FULL, field: 10**298})
    chat({**FULL, field: low})
    assert "at least" in refusal(chat, {**FULL, field: low - 1}).message


def test_a_boolean_is_no_number_and_a_number_no_boolean():
    for field in ("temperature", "n", "seed", "max_tokens", "top_k", "top_logprobs"):
        assert refusal(chat, {**FULL, field: True}).param == field
    for field in ("stream", "logprobs", "store"):
        assert refusal(chat, {**FULL, field: 1}).param == field


# messages


def asked(*messages, **more):
    return chat({"model": "m", "messages": list(messages), **more})


USER = {"role": "user", "content": "hi"}


def test_there_is_at_least_one_message():
    assert refusal(chat, {"messages": []}).param == "messages"


@pytest.mark.parametrize("role", ["User", "human", "", 1, None, [], {}])
def test_a_role_is_one_of_a_few(role):
    refused = refusal(chat, {"messages": [USER, {"role": role, "content": "x"}]})
    assert refused.param == "messages[1].role"
    assert "system" in refused.message


def test_an_assistant_may_say_nothing_only_if_it_did_something_else():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    for message in (
        {"content": ""},
        {"content": None, "tool_calls": [call]},
        {"function_call": {"name": "f", "arguments": ""}},
        {"refusal": "no"},
        {"audio": {"id": "a"}},
        {"content": None, "reasoning_content": "cut short"},
    ):
        asked(USER, {"role": "assistant", **message})
    for message in ({}, {"content": None}, {"tool_calls": None}, {"name": "x"}):
        assert refusal(chat, {"messages": [{"role": "assistant", **message}]}).param == "messages[0].content"


def test_a_call_without_a_type_is_one_of_a_function():
    asked(USER, {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]})
    refused = refusal(chat, {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]})
    assert refused.param == "messages[0].tool_calls[0].function"


@pytest.mark.parametrize("kind", ["input_text", "TEXT", "video_url", ""])
def test_a_part_of_an_unknown_type_is_refused_with_the_types_there_are(kind):
    refused = refusal(chat, {"messages": [{"role": "user", "content": [{"type": kind}]}]})
    assert refused.param == "messages[0].content[0].type"


# choices


@pytest.mark.parametrize(
    "choice",
    [
        "none",
        "auto",
        "required",
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "x"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
        },
    ],
)
def test_a_tool_choice_has_one_of_its_shapes(choice):
    asked(USER, tool_choice=choice)


@pytest.mark.parametrize(
    ("choice", "path"),
    [
        ("any", ""),
        ("", ""),
        ([], ""),
        ({}, ".type"),
        ({"type": "function"}, ".function"),
        ({"type": "function", "function": "f"}, ".function"),
        ({"type": "function", "function": {"name": " "}}, ".function.name"),
        ({"type": "custom", "function": "f"}, ".function"),
        ({"type": "allowed_tools"}, ".allowed_tools"),
        ({"type": "allowed_tools", "allowed_tools": "f"}, ".allowed_tools"),
        ({"type": "allowed_tools", "allowed_tools": {}}, ".allowed_tools.tools"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": {}}}, ".allowed_tools.tools"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": ["f"]}}, ".allowed_tools.tools[0]"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [], "mode": "none"}}, ".allowed_tools.mode"),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "function", "function": {}}]}},
            ".allowed_tools.tools[0].function.name",
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "custom", "function": 1}]}},
            ".allowed_tools.tools[0].function",
        ),
    ],
)
def test_any_other_tool_choice_is_refused(choice, path):
    assert refusal(chat, {"messages": [USER], "tool_choice": choice}).param == "tool_choice" + path


# embeddings


@pytest.mark.parametrize("given", ["", "text", ["a"], ["a", ""], [1, 2], [[1], [2, 3]], [0]])
def test_input_is_text_texts_or_token_ids(given):
    assert embeddings({"input": given}) == {"input": given}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ([], "input"),
        ({}, "input"),
        (1, "input"),
        (True, "input"),
        (["a", 1], "input[1]"),
        ([1, "a"], "input[1]"),
        ([True], "input[0]"),
        ([1, True], "input[1]"),
        ([1.0], "input[0]"),
        ([-1], "input[0]"),
        ([None], "input[0]"),
        ([{}], "input[0]"),
        ([[]], "input[0]"),
        ([[1], []], "input[1]"),
        ([[1], 2], "input[1]"),
        ([[1], ["a"]], "input[1][0]"),
        ([["a"]], "input[0][0]"),
        ([[[1]]], "input[0][0]"),
    ],
)
def test_any_other_input_is_refused_by_its_path(given, path):
    assert refusal(embeddings, {"input": given}).param == path


# what travels along


def test_fields_nobody_here_knows_travel_along_and_nulls_do_not():
    assert asked(USER, new_field=[{"x": None}], other=None) == {
        "model": "m",
        "messages": [USER],
        "new_field": [{"x": None}],
    }


def test_pockets_of_a_client_are_emptied_wherever_a_translator_would_look():
    question = {
        "_anthropic": 1,
        "messages": [{"role": "user", "_anthropic": "x", "content": [{"type": "text", "text": "a", "_x": 1}]}],
        "tools": [{"type": "function", "_anthropic": [], "function": {"name": "f", "parameters": {"_id": 1}}}],
        "metadata": {"_kept": "yes"},
        "input": [[1, 2], "a"],
    }
    assert unpocketed(question) == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"_id": 1}}}],
        "metadata": {"_kept": "yes"},
        "input": [[1, 2], "a"],
    }


def test_a_question_without_pockets_is_not_made_anew():
    question = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "metadata": {"_kept": "yes"},
    }
    assert unpocketed(question) is question


# anything at all


def anything(rng, depth=3):
    """Give any JSON value, many of its names being ours."""
    kind = rng.random()
    if not depth or kind < 0.4:
        return rng.choice([*VALUES.values(), None, -1, 10**30, "function", "user", "text", "auto", PICTURE])
    if kind < 0.6:
        return [anything(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    names = [*CHAT, *MESSAGE, *PARTS, "role", "type", "function", "name", "url", "x"]
    return {rng.choice(names): anything(rng, depth - 1) for _ in range(rng.randint(0, 4))}


def ways(value, way=()):
    """Give the way to each value of a document."""
    yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from ways(item, (*way, step))


def mutated(rng, document):
    """Give a copy of the document with some of its values replaced, doubled or taken out."""
    changed = copy.deepcopy(document)
    for _ in range(rng.randint(1, 4)):
        way = rng.choice([way for way in ways(changed) if way])
        place = changed
        for step in way[:-1]:
            place = place[step]
        if rng.random() < 0.2:
            del place[way[-1]]
        else:
            place[way[-1]] = anything(rng)
    return changed


@pytest.mark.parametrize(("check", "seed_document"), [(chat, FULL), (embeddings, EMBEDDED)])
def test_whatever_json_comes_it_is_accepted_or_refused_by_a_path_that_is_there(check, seed_document):
    rng = random.Random(3)
    told = set()
    for at in range(1500):
        question = mutated(rng, seed_document) if at % 3 else anything(rng)
        if not isinstance(question, dict):
            continue
        try:
            check(question)
            told.add("accepted")
        except Refusal as refused:
            assert refused.status == 400
            assert refused.param
            json.dumps(refused.document())
            told.add(refused.code)
    assert told == {"accepted", "invalid_type", "invalid_value", "missing_required_parameter"}


def test_the_same_mistakes_are_always_told_in_the_same_order():
    part = {"type": "input_audio", "input_audio": {}}
    refused = refusal(chat, {"messages": [{"role": "user", "content": [part]}, {"role": "tool"}]})
    assert refused.param == "messages[0].content[0].input_audio.data"
    assert refusal(chat, {"messages": [{"role": "tool"}]}).param == "messages[0].content"
