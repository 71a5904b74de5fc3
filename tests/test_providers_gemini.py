from __future__ import annotations

import json
from pathlib import Path

import pytest

from providers import PAUSE, Call, Scope, UpstreamError, _gemini_answer, _gemini_contents, _gemini_question
from providers.gemini import Gemini, embedding_requests, resource, without_key
from strict import gemini as strict
from upstream import Reply, json_reply

GOLDEN = Path(__file__).parent / "golden" / "gemini"
URL = "https://generativelanguage.googleapis.com/v1beta"
OPTIONS = {name: default[0] for name, default in Gemini.options.items()}
FLASH = "gemini-3.8-flash"


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


CONVERSATIONS = sorted(path.stem for path in GOLDEN.glob("*.json") if "asked" in golden(path.stem))


OPENED = []


@pytest.fixture(autouse=True)
def no_connection_left_behind():
    yield
    while OPENED:
        OPENED.pop().close()


def provider(**options):
    OPENED.append(Gemini("gemini", {**OPTIONS, "api_key": "k-1", "retries": 0, **options}))
    return OPENED[-1]


def parts_of(asked, chat):
    """Give what the provider passes on, without pauses."""
    return [part for part in asked.chat(Call(chat)) if part]


def question(chat, warn=None, **more):
    chat = {"model": FLASH, "messages": [{"role": "user", "content": "hi"}], **chat}
    return _gemini_question.question(chat, "gemini", warn or unexpected, **more)


def unexpected(field, reason):
    raise AssertionError(f"unexpected warning: {field}={reason}")


def contents(*messages, model=FLASH, warn=None, **more):
    return question({"messages": list(messages), "model": model}, warn, **more)["contents"]


def user(content):
    return {"role": "user", "content": content}


def calling(*ids, name="look", **more):
    calls = [{"id": id_, "type": "function", "function": {"name": name, "arguments": '{"n":1}'}} for id_ in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def result(id_, content="done", **more):
    return {"role": "tool", "tool_call_id": id_, "content": content, **more}


def signature(id_, signature="c2ln", provider="gemini", model=FLASH, index=0):
    told = {"type": "thought_signature", "tool_call_id": id_, "signature": signature}
    return {"provider": provider, "model": model, "index": index, **told}


def heard(*events, model=FLASH, name="gemini", note=unexpected, keep=lambda *_: None):
    parts = _gemini_answer.chunks((event for event in events), name, model, note, keep)
    return [part for part in parts if part]


def whole(*events, **more):
    return added_up(part for part in heard(*events, **more))


def added_up(parts):
    adding = _gemini_answer.whole(parts)
    while True:
        try:
            next(adding)
        except StopIteration as end:
            return end.value


def event(*parts, finish="", index=0, **more):
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": index}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [{**candidate, **more}]}


def text(words, **more):
    return {"text": words, **more}


# whole conversations


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_golden_conversation_stays_as_it_is(wire, name):
    told = golden(name)
    streams = told["asked"].get("stream")
    verb = "streamGenerateContent?alt=sse" if streams else "generateContent"
    body = {"body": told["came"].encode()} if streams else {"json": told["came"]}
    address = f"{URL}/models/{told['asked']['model']}:{verb}"
    wire.expect("POST", address, told["sent"], {"x-goog-api-key": "k-1"}, **body)
    call, passed = Call(told["asked"]), []
    try:
        passed.extend(part for part in provider().chat(call) if part)
    except UpstreamError as error:
        passed.append(error.document())
    assert [{**part, "created": 0} if "created" in part else part for part in passed] == told["passed"]
    assert call.scope.warnings == told.get("warnings", {})


@pytest.mark.parametrize(
    "ask",
    [
        {"messages": [user("two plain words")]},
        {"messages": [user('please call look {"n": 1.50} and call look {"größe":"✓"}')]},
        {"messages": [user("think of one")], "reasoning_effort": "low"},
        {"messages": [user('think and call look {"a": 1}')], "reasoning_effort": "high"},
        {"messages": [user("of some length")]},
        {"messages": [user("many of them")], "n": 3},
        {"messages": [user("be exact")], "logprobs": True, "top_logprobs": 1},
        {"messages": [user("this will go on for long")]},
        {"messages": [user("blocked")]},
        {"messages": [user("as json")], "response_format": {"type": "json_object"}},
    ],
)
def test_a_stream_adds_up_to_the_whole_answer(upstream, ask):
    asked = provider(base_url=upstream(strict.answer).url)
    chat = {"model": FLASH, "tools": [{"type": "function", "function": {"name": "look"}}], **ask}
    (one,) = parts_of(asked, chat)
    many = parts_of(asked, {**chat, "stream": True})
    assert all(part["object"] == "chat.completion.chunk" for part in many)
    assert summed(many) == {**one, "id": many[0]["id"], "created": many[0]["created"]}


def summed(chunks):
    """Add chunks up as a client would."""
    choices = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            index = choice["index"]
            made = choices.setdefault(
                index, {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
            )
            message = made["message"]
            for name in ("content", "reasoning_content"):
                if choice["delta"].get(name):
                    message[name] = (message.get(name) or "") + choice["delta"][name]
            for call in choice["delta"].get("tool_calls", ()):
                calls = message.setdefault("tool_calls", [])
                assert call["index"] == len(calls)
                calls.append({"id": call["id"], "type": call["type"], "function": call["function"]})
            if "reasoning_details" in choice["delta"]:
                message.setdefault("reasoning_details", []).extend(choice["delta"]["reasoning_details"])
            if "logprobs" in choice:
                made.setdefault("logprobs", {"content": []})["content"] += choice["logprobs"]["content"]
            made["finish_reason"] = choice["finish_reason"] or made["finish_reason"]
    head = {name: chunks[0][name] for name in ("id", "created", "model")}
    whole = {**head, "object": "chat.completion", "choices": [choices[index] for index in sorted(choices)]}
    return {**whole, "usage": chunks[-1]["usage"]}


@pytest.mark.parametrize("model", [FLASH, "gemini-3.1-pro", "gemini-2.5-flash", "gemini-2.0-flash"])
@pytest.mark.parametrize("forgets", ["nothing", "details", "extras"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_conversation_goes_on_whatever_the_client_forgets(upstream, model, forgets, stream):
    asked = provider(base_url=upstream(strict.answer).url)
    messages = [user('think: call look {"n": 1} call look {"n": 2}')]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    for step in ("a", "b"):
        chat = {"model": model, "messages": messages, "tools": tools, "stream": stream}
        parts = parts_of(asked, chat)
        answer = (summed(parts) if stream else parts[0])["choices"][0]
        assert answer["finish_reason"] == "tool_calls"
        message = answer["message"]
        if forgets == "details":
            message.pop("reasoning_details", None)
        elif forgets == "extras":  # a client of Google's own OpenAI dialect
            for detail in message.pop("reasoning_details", ()):
                (call,) = [call for call in message["tool_calls"] if call["id"] == detail["tool_call_id"]]
                call["extra_content"] = {"google": {"thought_signature": detail["signature"]}}
            asked.memory = type(asked.memory)()
        one, two = (call["id"] for call in message["tool_calls"])
        assert one != two
        messages += [message, result(two, f"{step}2"), result(one, f"{step}1")]
        final = parts_of(asked, {"model": model, "messages": messages, "tools": tools})[0]
        names = [f"{id_ if strict.generation(model) >= 3 else 'look'}" for id_ in (one, two)]
        assert final["choices"][0]["message"]["content"] == f"results: {names[0]}={step}1; {names[1]}={step}2"
        messages.append(user('now think again: call look {"n": 3} call look {"n": 4}'))


def test_a_signed_text_goes_back_signed(upstream):
    asked = provider(base_url=(up := upstream(strict.answer)).url)
    messages = [user("think of a number")]
    message = summed(parts_of(asked, {"model": FLASH, "messages": messages, "stream": True}))["choices"][0]["message"]
    (detail,) = message["reasoning_details"]
    assert (detail["tool_call_id"], detail["index"]) == (None, 0)
    parts_of(asked, {"model": FLASH, "messages": [*messages, message, user("and another")]})
    assert up.asked[-1].json["contents"][1]["parts"] == [
        {"text": "echo: think of a number", "thoughtSignature": detail["signature"]}
    ]


# what is asked: contents


def test_system_messages_at_the_start_are_the_instruction():
    body = question(
        {"messages": [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, user("c")]}
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]},
        "contents": [{"role": "user", "parts": [{"text": "c"}]}],
    }


def test_a_late_system_message_is_the_users_and_told_of():
    warned = {}
    sent = contents(user("a"), {"role": "system", "content": "b"}, warn=warned.__setitem__)
    assert sent == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]
    assert warned == {"messages": "a late system message was sent as the user's"}


@pytest.mark.parametrize("messages", [[{"role": "assistant", "content": "a"}], [{"role": "system", "content": "s"}]])
def test_the_user_speaks_first(messages):
    warned = {}
    sent = contents(*messages, warn=warned.__setitem__)
    assert sent[0] == {"role": "user", "parts": [{"text": "."}]}
    assert "messages" in warned


def test_neighbours_of_one_role_are_one_content_but_their_parts_stay_apart():
    sent = contents(user("a"), user("b"), {"role": "assistant", "content": "c"}, {"role": "assistant", "content": "d"})
    assert sent == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
    ]


def test_what_was_refused_goes_back_as_text():
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": "never"}
    assert contents(user("a"), refused)[1]["parts"] == [{"text": "no"}, {"text": "never"}]


def test_empty_texts_are_left_out():
    sent = contents(user("a"), {"role": "assistant", "content": ""}, user([{"type": "text", "text": ""}]), user("b"))
    assert sent == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]


def test_results_come_right_behind_their_calls_in_the_order_of_the_calls():
    details = [signature("x")]
    sent = contents(
        user("go"), calling("x", "y", reasoning_details=details), user("hurry"), result("y", "2"), result("x", "1")
    )
    assert sent[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "x", "name": "look", "response": {"output": "1"}}},
            {"functionResponse": {"id": "y", "name": "look", "response": {"output": "2"}}},
            {"text": "hurry"},
        ],
    }


def test_results_keep_their_order_where_ids_come_again_and_turns_are_joined():
    older = "gemini-2.0-flash"
    steps = [user("go"), calling("call_0", "call_1"), result("call_1", "b"), result("call_0", "a")]
    more = [
        calling("call_0", "call_1"),
        calling("call_2"),
        result("call_2", "e"),
        result("call_1", "d"),
        result("call_0", "c"),
    ]
    sent = contents(*steps, *more, model=older)
    told = [part["functionResponse"]["response"]["output"] for one in (sent[2], sent[4]) for part in one["parts"]]
    assert told == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("content", "more", "response"),
    [
        ("plain", {}, {"output": "plain"}),
        ('{"b": 1, "a": [2]}', {}, {"output": {"b": 1, "a": [2]}}),
        ("[1, 2]", {}, {"output": [1, 2]}),
        ("12345678901234567890", {}, {"output": "12345678901234567890"}),
        ('{"n": NaN}', {}, {"output": '{"n": NaN}'}),
        ("{no json", {}, {"output": "{no json"}),
        ("[" * 100000, {}, {"output": "[" * 100000}),
        ("", {}, {"output": ""}),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {}, {"output": "a\nb"}),
        ("gone wrong", {"is_error": True}, {"error": "gone wrong"}),
    ],
)
def test_a_result_is_an_object(content, more, response):
    sent = contents(user("go"), calling("x", reasoning_details=[signature("x")]), result("x", content, **more))
    assert sent[2]["parts"][0]["functionResponse"]["response"] == response


def test_a_picture_in_a_result_follows_it():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    sent = contents(user("go"), calling("x", reasoning_details=[signature("x")]), result("x", [picture]))
    assert [next(iter(part)) for part in sent[2]["parts"]] == ["functionResponse", "inlineData"]


def test_a_result_without_its_call_is_refused_by_its_path():
    with pytest.raises(UpstreamError, match="no tool call has the id 'z'") as caught:
        contents(user("go"), result("z"))
    assert (caught.value.status, caught.value.param) == (400, "messages[1].tool_call_id")


def test_the_old_way_to_call_functions_is_understood():
    sent = contents(
        user("go"),
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": ""}},
        {"role": "function", "name": "look", "content": "seen"},
        model="gemini-2.0-flash",
    )
    assert sent[1:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"output": "seen"}}}]},
    ]


@pytest.mark.parametrize("arguments", ["{", "[1]", '"text"'])
def test_arguments_that_are_no_object_are_refused(arguments):
    message = calling("x")
    message["tool_calls"][0]["function"]["arguments"] = arguments
    with pytest.raises(UpstreamError, match="no JSON object") as caught:
        contents(user("go"), message)
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_calls_of_custom_tools_are_refused():
    with pytest.raises(UpstreamError) as caught:
        contents(user("go"), {"role": "assistant", "tool_calls": [{"id": "x", "type": "custom", "custom": {}}]})
    assert caught.value.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ({"type": "image_url", "image_url": "data:image/jpg;base64,AAAA"}, ("inlineData", "image/jpeg", "AAAA")),
        ({"type": "image_url", "image_url": {"url": "http://x.test/a.webp"}}, ("fileData", "image/webp", None)),
        ({"type": "image_url", "image_url": {"url": "https://x.test/a?b=c.gif"}}, ("fileData", "image/jpeg", None)),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ("inlineData", "audio/wav", "AAAA"),
        ),
        (
            {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}},
            ("inlineData", "application/pdf", "AAAA"),
        ),
        ({"type": "file", "file": {"file_data": "AAAA", "filename": "a.csv"}}, ("inlineData", "text/plain", "AAAA")),
        ({"type": "file", "file": {"file_data": "https://x.test/a.mp4"}}, ("fileData", "video/mp4", None)),
        (
            {"type": "file", "file": {"file_data": "data:application/json;base64,AAAA"}},
            ("inlineData", "text/plain", "AAAA"),
        ),
    ],
)
def test_media_are_sent_inline_or_by_their_address(part, sent):
    kind, mime, data = sent
    ((content),) = contents(user([part]))
    (made,) = content["parts"]
    assert list(made) == [kind]
    assert made[kind]["mimeType"] == mime
    assert made[kind].get("data") == data


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "file", "file": {"file_id": "file-1"}}, "messages[0].content[0].file.file_id"),
        ({"type": "file", "file": {"filename": "a"}}, "messages[0].content[0].file.file_data"),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, "messages[0].content[0].image_url"),
        ({"type": "image_url", "image_url": "data:image/png,raw"}, "messages[0].content[0].image_url"),
        ({"type": "video_url", "video_url": "x"}, "messages[0].content[0].type"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_path(part, param):
    with pytest.raises(UpstreamError) as caught:
        contents(user([part]))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)


# what is asked: ids and signatures


def test_ids_are_sent_only_where_they_are_known():
    def ids(model, id_):
        message = calling(id_, reasoning_details=[signature(id_, model=model)])
        sent = contents(user("go"), message, result(id_), model=model)
        made = sent[1]["parts"][0]["functionCall"].get("id"), sent[2]["parts"][0]["functionResponse"].get("id")
        assert made[0] == made[1]
        return made[0]

    assert ids(FLASH, "call_1") == "call_1"
    assert ids("gemini-flash-latest", "toolu_1") == "toolu_1"
    assert ids("gemini-2.5-pro", "call_1") is None
    assert ids("gemini-2.5-pro", "its-own") == "its-own"
    unsigned = contents(user("go"), calling("toolu_1"), result("toolu_1"), model="gemini-2.5-pro")
    assert '"id"' not in json.dumps(unsigned)


def test_signatures_go_back_on_the_part_they_came_with():
    details = [signature("y", "eQ==", index=1), signature(None, "dA==", index=0)]
    sent = contents(user("go"), {**calling("x", "y", reasoning_details=details), "content": "well"})
    assert sent[1]["parts"] == [
        {"text": "well", "thoughtSignature": "dA=="},
        {"functionCall": {"id": "x", "name": "look", "args": {"n": 1}}},
        {"functionCall": {"id": "y", "name": "look", "args": {"n": 1}}, "thoughtSignature": "eQ=="},
    ]


def test_a_signed_part_is_never_joined_with_an_unsigned_one():
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    sent = contents(user("go"), {"role": "assistant", "content": texts, "reasoning_details": [signature(None)]})
    assert sent[1]["parts"] == [{"text": "a"}, {"text": "b", "thoughtSignature": "c2ln"}]
    sent = contents(user("go"), calling("x", reasoning_details=[signature("x"), signature(None, "dA==")]))
    assert sent[1]["parts"][1] == {"text": "", "thoughtSignature": "dA=="}


@pytest.mark.parametrize(
    "foreign", [signature("x", model="gemini-3.1-pro"), signature("x", provider="openai"), {"type": "thinking"}, "text"]
)
def test_foreign_signatures_are_left_out_and_the_dummy_takes_their_place(foreign):
    warned = {}
    sent = contents(user("go"), calling("x", "y", reasoning_details=[foreign]), warn=warned.__setitem__)
    signed = [part.get("thoughtSignature") for part in sent[1]["parts"]]
    assert signed == ["skip_thought_signature_validator", None]
    assert warned == {"messages": "tool calls without their thought signature"}


def test_every_step_gets_its_own_dummy_and_older_models_none():
    conversation = (user("go"), calling("x"), result("x"), calling("y"), result("y"))
    sent = contents(*conversation, warn=lambda *_: None)
    assert ["thoughtSignature" in content["parts"][0] for content in sent] == [False, True, False, True, False]
    assert "thoughtSignature" not in json.dumps(contents(*conversation, model="gemini-2.5-flash"))


def test_what_the_client_brings_is_believed_before_memory():
    remembered = [signature("x", "from memory")]
    brought = calling("x")
    brought["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "brought"}}

    def signed(message):
        return contents(user("go"), message, recall=lambda ids: remembered)[1]["parts"][0]["thoughtSignature"]

    assert signed(calling("x")) == "from memory"
    assert signed(brought) == "brought"
    assert signed({**brought, "reasoning_details": [signature("x", "detailed")]}) == "detailed"


def test_memory_of_another_model_is_not_used():
    warned = {}
    recall = lambda ids: [signature("x", model="gemini-3.1-pro")]  # noqa: E731
    sent = contents(user("go"), calling("x"), recall=recall, warn=warned.__setitem__)
    assert sent[1]["parts"][0]["thoughtSignature"] == _gemini_contents.DUMMY_SIGNATURE


# what is asked: tools, numbers, formats

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("a", "b")]


@pytest.mark.parametrize(
    ("choice", "names", "config"),
    [
        (None, "ab", None),
        ("auto", "ab", {"mode": "AUTO"}),
        ("none", "ab", {"mode": "NONE"}),
        ("required", "ab", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "b"}}, "ab", {"mode": "ANY", "allowedFunctionNames": ["b"]}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "b"}]},
            "b",
            {"mode": "AUTO"},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "a"}}]}},
            "ab",
            {"mode": "ANY", "allowedFunctionNames": ["a"]},
        ),
    ],
)
def test_every_tool_choice_has_its_mode(choice, names, config):
    body = question({"tools": TOOLS, "tool_choice": choice})
    assert "".join(one["name"] for one in body["tools"][0]["functionDeclarations"]) == names
    assert body.get("toolConfig") == (config and {"functionCallingConfig": config})


def test_a_tool_keeps_its_schema_as_it_is():
    schema = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/x"}},
        "$defs": {"x": {"type": ["string", "null"]}},
    }
    function = {"name": "a", "description": "d", "parameters": schema, "strict": True}
    body = question({"tools": [{"type": "function", "function": function}, {"function": {"name": "bare"}}]})
    declared = {"name": "a", "description": "d", "parametersJsonSchema": schema}
    assert body["tools"] == [{"functionDeclarations": [declared, {"name": "bare"}]}]


def test_a_choice_without_tools_is_not_sent():
    assert question({"tool_choice": "auto", "tools": [], "parallel_tool_calls": False}).keys() == {"contents"}


def test_a_choice_of_no_known_mode_is_refused():
    with pytest.raises(UpstreamError) as caught:
        question({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "maybe", "tools": []}})
    assert (caught.value.status, caught.value.param) == (400, "tool_choice")


def test_tools_of_other_kinds_are_refused():
    with pytest.raises(UpstreamError, match="custom") as caught:
        question({"tools": [{"type": "custom", "custom": {"name": "x"}}]})
    assert caught.value.param == "tools[0].type"


@pytest.mark.parametrize(
    ("chat", "config"),
    [
        ({"temperature": 0, "seed": 0}, {"temperature": 0, "seed": 0}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"maxOutputTokens": 7}),
        ({"n": 3}, {"candidateCount": 3}),
        ({"n": 1}, None),
        ({"stop": ["a", ""]}, {"stopSequences": ["a"]}),
        ({"logprobs": True, "top_logprobs": 2}, {"responseLogprobs": True, "logprobs": 2}),
        ({"logprobs": False, "top_logprobs": 2}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "array"}},
        ),
        ({"temperature": None, "stop": None, "n": None, "tools": None, "user": None, "store": False}, None),
    ],
)
def test_numbers_and_formats_have_their_places(chat, config):
    assert question(chat).get("generationConfig") == config


@pytest.mark.parametrize(
    ("chat", "config", "warning"),
    [
        ({"stop": list("abcdef")}, {"stopSequences": list("abcde")}, ("stop", "only the first 5 are supported")),
        ({"temperature": 2.5}, {"temperature": 2}, ("temperature", "clamped to 2")),
        ({"seed": 2**31 + 5}, {"seed": 5}, ("seed", "cut to 31 bits")),
        ({"user": "u"}, None, ("user", "not supported by gemini")),
        ({"logit_bias": {"1": 1}}, None, ("logit_bias", "not supported by gemini")),
        ({"made_up": 1}, None, ("made_up", "not supported by gemini")),
        ({"min_p": 0.1}, None, ("min_p", "not supported by gemini")),
        ({"service_tier": "scale"}, None, ("service_tier", "not supported by gemini")),
    ],
)
def test_what_is_dropped_or_cut_is_told(chat, config, warning):
    warned = {}
    assert question(chat, warned.__setitem__).get("generationConfig") == config
    assert warned == dict([warning])


def test_parallel_calls_cannot_be_forbidden():
    warned = {}
    question({"tools": TOOLS, "parallel_tool_calls": False}, warned.__setitem__)
    assert warned == {"parallel_tool_calls": "not supported by gemini"}


@pytest.mark.parametrize(("tier", "sent"), [("flex", "flex"), ("default", "standard"), ("auto", None)])
def test_service_tiers_have_names_of_their_own(tier, sent):
    assert question({"service_tier": tier}).get("serviceTier") == sent


@pytest.mark.parametrize(
    "chat",
    [{"audio": {"voice": "x"}}, {"prediction": {}}, {"web_search_options": {}}, {"modalities": ["text", "audio"]}],
)
def test_what_would_change_the_shape_of_the_answer_is_refused(chat):
    with pytest.raises(UpstreamError) as caught:
        question(chat)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", *chat)


def test_the_clients_own_options_win_and_no_pocket_is_sent():
    own = {"safetySettings": [{"category": "c"}], "generationConfig": {"topK": 3}}
    chat = {"temperature": 1, "top_k": 9, "_anthropic": {"x": 1}, "provider": "gemini", "type": "chat"}
    body = question({**chat, "provider_options": {"gemini": own, "ollama": {"x": 1}}})
    assert body["generationConfig"] == {"temperature": 1, "topK": 3}
    assert body.keys() == {"contents", "generationConfig", "safetySettings"}


# what is asked: thinking


@pytest.mark.parametrize(
    ("model", "chat", "config"),
    [
        (FLASH, {}, None),
        (FLASH, {"reasoning_effort": "minimal"}, {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
        (FLASH, {"reasoning_effort": "xhigh"}, {"includeThoughts": True, "thinkingLevel": "XHIGH"}),
        (FLASH, {"reasoning_effort": "max"}, {"includeThoughts": True, "thinkingLevel": "XHIGH"}),
        (FLASH, {"reasoning_effort": "low", "thinking_budget": 9}, {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("models/gemini-3.1-pro", {"reasoning_effort": "low"}, {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("gemini-flash-latest", {"reasoning_effort": "high"}, {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-2.5-flash", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-2.5-flash", {"reasoning_effort": "medium"}, {"includeThoughts": True, "thinkingBudget": 8192}),
        ("gemini-2.5-flash", {"reasoning_effort": "max"}, {"includeThoughts": True, "thinkingBudget": -1}),
        (
            "gemini-2.5-pro",
            {"reasoning_effort": "low", "thinking_budget": 300},
            {"includeThoughts": True, "thinkingBudget": 300},
        ),
        ("gemini-2.5-flash", {"thinking_budget": 0}, {"thinkingBudget": 0}),
        ("gemini-2.0-flash", {"reasoning_effort": "none"}, None),
    ],
)
def test_an_effort_is_a_level_or_a_budget_by_the_models_generation(model, chat, config):
    assert question({"model": model, **chat}).get("generationConfig", {}).get("thinkingConfig") == config


@pytest.mark.parametrize(
    ("model", "chat", "config", "warning"),
    [
        (
            FLASH,
            {"reasoning_effort": "none"},
            {"thinkingLevel": "MINIMAL"},
            ("reasoning_effort", "cannot be switched off: sent as minimal"),
        ),
        (
            FLASH,
            {"thinking_budget": 2048},
            {"includeThoughts": True, "thinkingLevel": "LOW"},
            ("thinking_budget", "sent as a thinking level"),
        ),
        (FLASH, {"thinking_budget": -1}, {"includeThoughts": True}, ("thinking_budget", "sent as a thinking level")),
        (FLASH, {"thinking_budget": 0}, {"thinkingLevel": "MINIMAL"}, ("thinking_budget", "sent as a thinking level")),
        (
            "gemini-2.5-pro",
            {"reasoning_effort": "none"},
            {"thinkingBudget": 128},
            ("reasoning_effort", "clamped to 128"),
        ),
        (
            "gemini-2.5-flash",
            {"thinking_budget": 99999},
            {"includeThoughts": True, "thinkingBudget": 24576},
            ("thinking_budget", "clamped to 24576"),
        ),
        ("gemini-2.0-flash", {"reasoning_effort": "low"}, None, ("reasoning_effort", "not supported by the model")),
        ("gemma-3-27b-it", {"thinking_budget": 5}, None, ("thinking_budget", "not supported by the model")),
    ],
)
def test_an_effort_the_model_cannot_make_is_told(model, chat, config, warning):
    warned = {}
    body = question({"model": model, **chat}, warned.__setitem__)
    assert body.get("generationConfig", {}).get("thinkingConfig") == config
    assert warned == dict([warning])


def test_a_level_the_model_lacks_gives_way_to_the_nearest(upstream):
    up = upstream(strict.answer)
    call = Call({"model": "gemini-3.1-pro", "messages": [user("hi")], "reasoning_effort": "xhigh", "stream": True})
    parts = [part for part in provider(base_url=up.url).chat(call) if part]
    assert parts[-2]["choices"][0]["finish_reason"] == "stop"
    levels = [asked.json["generationConfig"]["thinkingConfig"]["thinkingLevel"] for asked in up.asked]
    assert levels == ["XHIGH", "HIGH"]
    assert call.scope.warnings == {"reasoning_effort": "sent as high"}


# what is answered


WORDS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY RECITATION LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII MODEL_ARMOR "
    "IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION",
}
FAILURES = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE")


@pytest.mark.parametrize(("reason", "finish"), [(one, word) for word, many in WORDS.items() for one in many.split()])
def test_every_end_has_its_canonical_word(reason, finish):
    assert whole(event(text("a"), finish=reason))["choices"][0]["finish_reason"] == finish


def test_calls_that_are_cut_off_stay_cut_off():
    call = {"functionCall": {"name": "look", "args": {}}}
    assert whole(event(call, finish="STOP"))["choices"][0]["finish_reason"] == "tool_calls"
    assert whole(event(call, finish="MAX_TOKENS"))["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("reason", ["OTHER", "NO_IMAGE", "NEW_ONE", "MALFORMED_FUNCTION_CALL"])
def test_an_odd_end_of_a_text_is_told_as_stop_and_noted(reason):
    noted = {}
    assert whole(event(text("a"), finish=reason), note=noted.__setitem__)["choices"][0]["finish_reason"] == "stop"
    assert noted == {"finish_reason": f"{reason} is told as stop"}


def test_what_an_upstream_calls_its_end_cannot_break_a_header():
    noted = {}
    whole(event(text("a"), finish="A,b\r\nX: y"), note=noted.__setitem__)
    assert noted == {"finish_reason": "AX is told as stop"}


def test_an_odd_end_does_not_refuse_the_answer_to_a_strict_client(wire):
    wire.post(f"{URL}/models/{FLASH}:generateContent", json=event(text("a"), finish="OTHER"))
    call = Call({"model": FLASH, "messages": [user("hi")]}, strict=True)
    assert next(part for part in provider().chat(call) if part)["choices"][0]["finish_reason"] == "stop"
    assert call.scope.warnings == {"finish_reason": "OTHER is told as stop"}


@pytest.mark.parametrize("reason", [*FAILURES, "MALFORMED_RESPONSE"])
def test_an_answer_that_failed_without_a_word_is_an_error(reason):
    with pytest.raises(UpstreamError, match=f"{reason}: call[(]x") as caught:
        heard(event(finish=reason, finishMessage="call(x"))
    assert (caught.value.status, caught.value.code, caught.value.passing) == (502, "provider_error", True)


@pytest.mark.parametrize("events", [[], [PAUSE], [event(text("a"))], [{"usageMetadata": {"promptTokenCount": 1}}]])
def test_a_stream_without_an_end_is_broken(events):
    with pytest.raises(UpstreamError) as caught:
        heard(*events)
    assert (caught.value.status, caught.value.code, caught.value.provider) == (502, "stream_truncated", "gemini")


def test_pauses_pass_at_once_in_both_forms():
    events = [PAUSE, event(text("a")), PAUSE, event(finish="STOP")]
    parts = list(_gemini_answer.chunks((one for one in events), "gemini", FLASH, unexpected))
    assert [bool(part) for part in parts] == [False, True, True, False, True]
    adding = _gemini_answer.whole(part for part in parts)
    assert [next(adding), next(adding)] == [PAUSE, PAUSE]


def test_arguments_keep_their_order_and_their_letters():
    call = {"functionCall": {"name": "look", "args": {"z": "ä✓", "a": [1, 2.0]}}}
    (made,) = whole(event(call, {"functionCall": {"name": "none"}}, finish="STOP"))["choices"][0]["message"][
        "tool_calls"
    ][:1]
    assert made["function"]["arguments"] == '{"z":"ä✓","a":[1,2.0]}'


def test_missing_arguments_are_an_empty_object_and_missing_ids_are_made_up():
    bare = {"functionCall": {"name": "look"}}
    one, two = whole(event(bare, bare, finish="STOP"))["choices"][0]["message"]["tool_calls"]
    assert one["function"] == two["function"] == {"name": "look", "arguments": "{}"}
    assert one["id"].startswith("call_")
    assert one["id"] != two["id"]


def test_thoughts_and_texts_may_alternate():
    thought = {"thought": True}
    message = whole(event(text("a", **thought), text("b"), text("c", **thought), text("d"), finish="STOP"))["choices"][
        0
    ]["message"]
    assert message == {"role": "assistant", "content": "bd", "reasoning_content": "ac"}


def test_pictures_are_not_lost():
    message = whole(event({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, finish="STOP"))["choices"][0][
        "message"
    ]
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]


def test_candidates_of_a_stream_are_told_apart():
    parts = heard(
        event(text("a")),
        event(text("b"), index=1),
        event(finish="MAX_TOKENS", index=1),
        event(text("c"), finish="STOP"),
    )
    told = [(choice["index"], choice["delta"], choice["finish_reason"]) for part in parts for choice in part["choices"]]
    role = {"role": "assistant", "content": ""}
    assert told == [
        (0, role, None),
        (0, {"content": "a"}, None),
        (1, role, None),
        (1, {"content": "b"}, None),
        (0, {"content": "c"}, None),
        (0, {}, "stop"),
        (1, {}, "length"),
    ]


def test_logprobs_come_with_their_tokens():
    chosen = [{"token": "a✓", "tokenId": 1, "logProbability": -0.5}, {"token": "b"}]
    logprobs = {"chosenCandidates": chosen, "topCandidates": [{"candidates": chosen[:1]}]}
    told = whole(event(text("a✓b"), finish="STOP", logprobsResult=logprobs))["choices"][0]["logprobs"]["content"]
    first = {"token": "a✓", "logprob": -0.5, "bytes": [97, 226, 156, 147]}
    assert told == [
        {**first, "top_logprobs": [first]},
        {"token": "b", "logprob": 0.0, "bytes": [98], "top_logprobs": []},
    ]


def test_usage_counts_thoughts_and_hosted_tools():
    usage = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": "5",
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
    }
    assert _gemini_answer.usage_of(usage) == {
        "prompt_tokens": 15,
        "completion_tokens": 5,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_what_is_remembered_is_kept_before_the_end_is_told():
    kept = []
    call = {"functionCall": {"id": "x", "name": "look"}, "thoughtSignature": "c2ln"}
    parts = _gemini_answer.chunks(
        (one for one in [event(call, finish="STOP")]),
        "gemini",
        "models/" + FLASH,
        unexpected,
        lambda *told: kept.append(told),
    )
    while not next(parts)["choices"][0]["finish_reason"]:
        assert kept == []
    assert kept == [(["x"], [signature("x")])]


# answers of several requests


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_not_done_is_asked_on(upstream, stream):
    up = upstream(strict.answer)
    parts = parts_of(provider(base_url=up.url), {"model": FLASH, "messages": [user("go on, please")], "stream": stream})
    answer = summed(parts) if stream else parts[0]
    assert answer["choices"][0]["message"]["content"] == "echo: go on, please"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] == 6  # both requests had a price
    first, second = (asked.json for asked in up.asked)
    assert second == {**first, "continuationToken": "bW9yZQ=="}
    assert sum("role" in choice.get("delta", {}) for part in parts for choice in part["choices"]) == (
        1 if stream else 0
    )


def hops(token):
    """Ask a upstream that never comes to an end; gives what it was asked and how it answers."""
    asked = []

    def ask(given):
        asked.append(given)
        yield event(text("a"), finish="CONTINUATION", **({"continuationToken": token(len(asked))} if token else {}))

    return asked, ask


@pytest.mark.parametrize(("token", "requests"), [(lambda n: f"t{n}", 4), (lambda _: "same", 2), (None, 1)])
def test_asking_on_comes_to_an_end(token, requests):
    asked, ask = hops(token)
    answer = whole(*_gemini_answer.continued(ask, most=3))
    assert len(asked) == requests
    assert answer["choices"][0]["message"]["content"] == "a" * requests
    assert answer["choices"][0]["finish_reason"] == "length"


# trouble


def worded(name, status, headers=None):
    return _gemini_answer.worded("gemini", status, headers or {}, golden(name))


def test_a_bad_key_is_the_proxys_own_trouble():
    error = worded("error_400_key", 400)
    assert (error.status, error.code, error.kind) == (401, "provider_auth", "authentication_error")
    assert "the proxy's own key" in error.message


def test_a_rate_limit_tells_how_long_to_wait():
    error = worded("error_429", 429)
    assert (error.status, error.code, error.retry_after) == (429, "rate_limit_exceeded", 46.0)
    assert error.headers == {"Retry-After": "46"}


@pytest.mark.parametrize("violation", [{"quotaId": "GenerateRequestsPerDayPerProject"}, {"quotaValue": "0"}])
def test_a_spent_quota_is_nothing_to_wait_for(violation):
    body = golden("error_429")
    body["error"]["details"][0]["violations"] = [violation]
    error = _gemini_answer.worded("gemini", 429, {}, body)
    assert (error.status, error.code, error.passing, error.headers) == (429, "insufficient_quota", False, {})


def test_an_overload_may_pass():
    error = worded("error_503", 503, {"retry-after": "3"})
    assert (error.status, error.code, error.passing, error.retry_after) == (503, "provider_overloaded", True, 3.0)


@pytest.mark.parametrize(
    ("status", "body", "ours", "message"),
    [
        (500, "<html>secret</html>", 502, "gemini answered 500"),
        (404, {"error": {"message": "models/x is not found"}}, 404, "models/x is not found"),
        (400, [{"error": {"message": "listed"}}], 400, "listed"),
        (403, {"error": "a word"}, 403, "a word"),
        (504, None, 504, "gemini answered 504"),
        (400, {"error": {"message": "The input token count (9) exceeds the maximum"}}, 400, "The input token count"),
    ],
)
def test_every_refusal_has_words_but_no_bodies(status, body, ours, message):
    error = _gemini_answer.worded("gemini", status, {}, body)
    assert error.status == ours
    assert error.message.startswith(message)
    assert "secret" not in error.message
    assert (error.code == "context_length_exceeded") == ("token count" in message)


@pytest.mark.parametrize(
    "words",
    [
        "Consumer 'api_key:AQ.Ab8-secret' has been suspended",
        "at https://x/y?key=secret&a=b",
        "AIzaSyA-secret_secret1 bad",
    ],
)
def test_no_key_is_ever_told(words):
    error = _gemini_answer.worded("gemini", 403, {}, {"error": {"message": words}})
    assert "secret" not in error.message
    assert "***" in error.message


@pytest.mark.parametrize(("code", "status"), [(429, 429), ("503", 503), (None, 502), ("ABORTED", 502)])
def test_an_error_in_a_stream_is_raised_in_its_words(code, status):
    with pytest.raises(UpstreamError, match="stop it") as caught:
        heard(event(text("a")), {"error": {"code": code, "message": "stop it"}})
    assert (caught.value.status, caught.value.provider_status) == (status, None)


def test_without_a_key_nothing_is_sent(wire):
    locked = provider(api_key="")
    chat = {"model": FLASH, "messages": [user("hi")], "input": "hi"}
    for ask in (
        lambda: next(locked.chat(Call(chat))),
        lambda: locked.embed(Call(chat)),
        lambda: locked.count_tokens(Call(chat)),
        locked.models,
        lambda: locked.relay("GET", "/v1beta/models", [], b"", Scope()),
    ):
        with pytest.raises(UpstreamError, match=r"set GEMINI_API_KEY or \[providers\.gemini\] api_key") as caught:
            ask()
        assert (caught.value.status, caught.value.code, caught.value.provider) == (401, "provider_auth", "gemini")
    assert not locked.configured
    assert provider().configured
    assert provider(api_key="", base_url="http://127.0.0.1:9").configured


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_the_upstream_comes_before_any_part(upstream, stream):
    asked = provider(base_url=upstream(strict.answer).url)
    with pytest.raises(UpstreamError, match="You asked for it") as caught:
        parts_of(asked, {"model": FLASH, "messages": [user("error 429")], "stream": stream})
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "7"})


def test_a_stream_that_is_cut_is_told_as_such(upstream):
    parts = provider(base_url=upstream(strict.answer).url).chat(
        Call({"model": FLASH, "messages": [user("this one is cut off in the middle")], "stream": True})
    )
    passed = []
    with pytest.raises(UpstreamError) as caught:
        for part in parts:
            passed.append(part)  # noqa: PERF402  (those before the cut count)
    assert caught.value.code == "stream_truncated"
    assert {"content": "echo:"} in [part["choices"][0]["delta"] for part in passed if part]


@pytest.mark.parametrize("document", [b"[]", b"null", b"7"])
def test_an_answer_that_is_no_object_is_an_error(upstream, document):
    asked = provider(base_url=upstream(Reply(body=document)).url)
    for ask in (lambda: parts_of(asked, {"model": FLASH, "messages": [user("hi")]}), asked.models):
        with pytest.raises(UpstreamError) as caught:
            ask()
        assert (caught.value.status, caught.value.code) == (502, "provider_error")


# addresses, models, embeddings, the rest


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/v1beta/models/m:generateContent"),
        ({"api_version": "v1"}, "/v1/models/m:generateContent"),
        ({"base": "/v1"}, "/v1/models/m:generateContent"),
        ({"base": "/deep/v1beta/"}, "/deep/v1beta/models/m:generateContent"),
    ],
)
def test_the_version_at_the_end_of_the_address_may_be_left_out(upstream, options, path):
    up = upstream(lambda _: json_reply(event(text("a"), finish="STOP")))
    base = options.pop("base", "")
    parts_of(provider(base_url=up.url + base, **options), {"model": "models/m", "messages": [user("hi")]})
    assert up.asked[0].target == path
    assert up.asked[0].headers["x-goog-api-key"] == "k-1"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-x", "models/gemini-x"),
        ("models/gemini-x", "models/gemini-x"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("../files?x=1#", "models/..%2Ffiles%3Fx%3D1%23"),
    ],
)
def test_a_models_path_has_its_prefix_once_and_stays_a_path(model, path):
    assert resource(model) == path


def test_models_are_listed_to_the_last_page(wire):
    wire.get(f"{URL}/models?pageSize=1000", json=golden("models_page1"))
    wire.get(f"{URL}/models?pageSize=1000&pageToken=fxTokenAAA", json=golden("models_page2"))
    listed = provider().models()
    assert [model["id"] for model in listed] == ["gemini-3.8-flash", "gemini-3.1-pro", "gemini-embedding-2"]
    assert listed[0] == {"id": "gemini-3.8-flash", "object": "model", "created": 0, "owned_by": "google"}


def test_a_list_without_end_ends_and_models_that_only_paint_are_left_out(upstream):
    items = [{"name": "models/veo", "supportedGenerationMethods": ["predict"]}, {"name": "models/quiet"}]
    up = upstream(lambda _: json_reply({"models": items, "nextPageToken": "again"}))
    assert [model["id"] for model in provider(base_url=up.url).models()] == ["quiet", "quiet"]


def test_embeddings_are_split_and_keep_their_order(upstream):
    up = upstream(strict.answer)
    texts = [f"text {n}" for n in range(250)]
    chat = {"model": "gemini-embedding-2", "input": texts, "dimensions": 40, "input_type": "query", "user": "u"}
    call = Call({**chat, "encoding_format": "base64", "provider_options": {"gemini": {"title": "t"}}})
    answer = provider(base_url=up.url).embed(call)
    assert [item["embedding"] for item in answer["data"]] == [strict.vector(text, 40) for text in texts]
    assert [item["index"] for item in answer["data"]] == list(range(250))
    assert [len(asked.json["requests"]) for asked in up.asked] == [100, 100, 50]
    assert up.asked[0].json["requests"][0] == {
        "model": "models/gemini-embedding-2",
        "content": {"parts": [{"text": "text 0"}]},
        "outputDimensionality": 40,
        "taskType": "RETRIEVAL_QUERY",
        "title": "t",
    }
    assert (answer["model"], answer["object"]) == ("gemini/gemini-embedding-2", "list")
    assert answer["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert call.scope.warnings == {"user": "not supported by gemini", "usage": "not told by gemini"}


def test_a_single_text_is_embedded_and_its_tokens_are_counted(wire):
    wire.expect(
        "POST",
        f"{URL}/models/e:batchEmbedContents",
        {"requests": [{"model": "models/e", "content": {"parts": [{"text": "a"}]}}]},
        json={"embeddings": [{"values": [0.5]}], "usageMetadata": {"promptTokenCount": 4}},
    )
    answer = provider().embed(Call({"model": "models/e", "input": "a"}))
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_an_unknown_input_type_is_told():
    warned = {}
    (made,) = embedding_requests(["a"], {"model": "e", "input_type": "poem"}, warned.__setitem__)
    assert "taskType" not in made
    assert warned == {"input_type": "not supported by gemini"}


def test_token_ids_mean_nothing_here():
    with pytest.raises(UpstreamError, match="token ids"):
        provider().embed(Call({"model": "e", "input": [1, 2]}))


def test_too_few_vectors_are_an_error(wire):
    wire.post(f"{URL}/models/e:batchEmbedContents", json=golden("batch_embed_contents"))
    with pytest.raises(UpstreamError, match="2 vectors for 3 texts"):
        provider().embed(Call({"model": "e", "input": ["a", "b", "c"]}))


def test_tokens_are_counted_with_all_that_is_sent(upstream):
    up = upstream(strict.answer)
    chat = {"messages": [{"role": "system", "content": "be kind"}, user("how many words")], "tools": TOOLS}
    assert provider(base_url=up.url).count_tokens(Call({"model": FLASH, **chat})) == 5
    assert up.asked[0].json["generateContentRequest"]["model"] == f"models/{FLASH}"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1beta/models", "/v1beta/models"),
        ("/v1/models?key=secret", "/v1/models"),
        ("/v1/m:x?alt=sse&key=secret&a=%2f+&&b", "/v1/m:x?alt=sse&a=%2f+&&b"),
        ("/v1/m:x?key&%6bey=secret&monkey=1", "/v1/m:x?monkey=1"),
        ("/v1/m:x?", "/v1/m:x?"),
        ("/key=1?KEY=2", "/key=1?KEY=2"),
    ],
)
def test_a_clients_key_is_taken_out_of_the_address_and_nothing_else(path, sent):
    assert without_key(path) == sent


def test_a_relayed_request_bears_the_proxys_key_and_not_the_clients(upstream):
    up = upstream(Reply(418, {"X-Odd": "1"}, b"tea"))
    fields = [("X-Goog-Api-Key", "theirs"), ("X-Custom", "kept")]
    with provider(base_url=up.url + "/v1beta").relay(
        "POST", "/v1/x?key=theirs&a=b", fields, b"{ }", Scope()
    ) as exchange:
        body = b"".join(exchange.blocks())
    assert (exchange.status, body) == (418, b"tea")
    asked = up.asked[0]
    assert (asked.target, asked.body, asked.headers["x-custom"]) == ("/v1/x?a=b", b"{ }", "kept")
    assert asked.headers["x-goog-api-key"] == "k-1"
    unlocked = provider(base_url=up.url, api_key="")
    with unlocked.relay("GET", "/v1/x", fields, b"", Scope()) as exchange:
        list(exchange.blocks())
    assert "x-goog-api-key" not in up.asked[1].headers


def test_a_client_that_leaves_frees_the_upstream(upstream):
    up = upstream(Reply(200, {"Content-Type": "text/event-stream"}, [b'data: {"candidates":[{}]}\r\n\r\n', 30.0]))
    parts = provider(base_url=up.url).chat(Call({"model": FLASH, "messages": [user("hi")], "stream": True}))
    while not next(parts):
        pass
    parts.close()
    assert up.wait_closed()
