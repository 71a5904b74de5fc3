from __future__ import annotations

import json
from pathlib import Path

import pytest

from providers import (
    PAUSE,
    Call,
    Pocket,
    Scope,
    UpstreamError,
    _anthropic_answer,
    _anthropic_models,
    _anthropic_question,
)
from providers._anthropic_models import Catalogue, listed, named, version_of
from providers._anthropic_question import NEW, OLD, Manner, closed
from providers._memory import Remembered
from providers.anthropic import Anthropic
from strict import anthropic as strict
from upstream import Asked, Reply

GOLDEN = Path(__file__).parent / "golden" / "anthropic"
URL = "https://api.anthropic.com/v1"
OPTIONS = {name: default[0] for name, default in Anthropic.options.items()}
OPUS, SONNET, HAIKU = "claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-4-5-20251001"
PLAIN = Manner()
MIDDLE = "claude-sonnet-4-6"  # adaptive, and takes budgets and sampling too


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


CONVERSATIONS = sorted(path.stem for path in GOLDEN.glob("*.json") if "asked" in golden(path.stem))
OPENED = []


@pytest.fixture(autouse=True)
def no_connection_left_behind():
    yield
    while OPENED:
        OPENED.pop().close()


def provider(name="anthropic", **options):
    OPENED.append(Anthropic(name, {**OPTIONS, "api_key": "sk-key", "retries": 0, **options}))
    return OPENED[-1]


def parts_of(asked, chat):
    """Give what the provider passes on, without pauses."""
    return [part for part in asked.chat(Call(chat)) if part]


def unexpected(field, reason):
    raise AssertionError(f"unexpected warning: {field}={reason}")


def question(chat, warned=None, recall=lambda _: [], manner=PLAIN, name="anthropic"):
    """Translate, with whatever warnings put into the dict `warned`."""
    chat = {"model": OPUS, "messages": [user("hi")], **chat}
    warn = unexpected if warned is None else warned.__setitem__
    return _anthropic_question.question(chat, name, named(chat["model"]), manner, warn, recall)


def turns(*messages, **more):
    model = more.pop("model", OPUS)
    return question({"messages": list(messages), "model": model, "tools": [tool("look")]}, **more)["messages"]


def user(content):
    return {"role": "user", "content": content}


def said(content, **more):
    return {"role": "assistant", "content": content, **more}


def calling(*ids, content=None, **more):
    calls = [{"id": id_, "type": "function", "function": {"name": "look", "arguments": '{"n":1}'}} for id_ in ids]
    return said(content, tool_calls=calls, **more)


def result(id_, content="done", **more):
    return {"role": "tool", "tool_call_id": id_, "content": content, **more}


def tool(name, **more):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}, **more}}


def thought(text="hm", provider="anthropic", model=OPUS, index=0, signature="c2ln", **more):
    tags = {"provider": provider, "model": model, "index": index}
    return {**tags, "type": "thinking", "thinking": text, "signature": signature, **more}


def answer(message, note=unexpected, keep=lambda *_: None, model=OPUS):
    return _anthropic_answer.answer(message, "anthropic", model, keep, note)


def chunks(*events, note=unexpected, keep=lambda *_: None):
    return [part for part in _anthropic_answer.chunks(events, "anthropic", OPUS, keep, note) if part]


def added_up(parts):
    """Give the whole answer that chunks add up to."""
    message, calls, end = {"role": "assistant", "content": ""}, {}, {}
    for choice in (choice for part in parts for choice in part["choices"]):
        delta = {field: value for field, value in choice["delta"].items() if field not in ("role", "tool_calls")}
        for field, value in delta.items():
            message[field] = message.get(field, type(value)()) + value
        for call in choice["delta"].get("tool_calls", ()):
            if "id" in call:
                calls[call["index"]] = {"id": call["id"], "type": call["type"], "function": dict(call["function"])}
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        end = {field: value for field, value in choice.items() if field != "delta"}
    message.update({"tool_calls": list(calls.values())} if calls else {}, content=message["content"] or None)
    told = {"id": parts[0]["id"], "model": parts[0]["model"], "usage": parts[-1]["usage"]}
    return {**told, "choices": [{**end, "message": message}]}


def heard(asked, chat):
    """Give the message of an answer, streamed or whole."""
    parts = parts_of(asked, chat)
    return (added_up(parts) if chat.get("stream") else parts[0])["choices"][0]["message"]


def comparable(whole):
    """Leave out of a whole answer what is free: its time, and how its arguments are spelled."""
    whole = {
        field: value for field, value in json.loads(json.dumps(whole)).items() if field not in ("created", "object")
    }
    for call in whole["choices"][0]["message"].get("tool_calls", ()):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return whole


# whole conversations


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_golden_conversation_stays_as_it_is(wire, name):
    told = golden(name)
    body = {"body": told["came"].encode()} if told["asked"].get("stream") else {"json": told["came"]}
    if "reasoning_effort" in told["asked"]:
        wire.expect("GET", f"{URL}/models", json={**golden("models_page1"), "has_more": False})
    wire.expect(
        "POST", f"{URL}/messages", told["sent"], {"x-api-key": "sk-key", "anthropic-version": "2026-10-21"}, **body
    )
    call, passed, error = Call(told["asked"]), [], None
    try:
        passed.extend(part for part in provider().chat(call) if part)
    except UpstreamError as caught:
        error = caught.document()["error"]
    assert [{k: v for k, v in part.items() if k != "created"} for part in passed] == told["passed"]
    assert error == told.get("error")
    assert call.scope.warnings == told.get("warned", {})


WORDS = (
    "hello — größe",
    "think of it",
    'think redact call look {"n": [1, {"m": "ü"}]} and call list {}',
    "length",
    "refuse",
    "one END two",
)


@pytest.mark.parametrize("model", [OPUS, SONNET, "claude-opus-4-8", MIDDLE, HAIKU])
@pytest.mark.parametrize("words", WORDS)
def test_a_streamed_answer_adds_up_to_the_whole_one(upstream, model, words):
    up = upstream(strict.answer)
    asked = provider(base_url=up.url)
    chat = {"model": model, "messages": [user(words)], "tools": [tool("look"), tool("list")], "stop": "END"}
    chat.update(reasoning_effort="medium", max_tokens=1000)
    (whole,) = parts_of(asked, chat)
    assert comparable(added_up(parts_of(asked, {**chat, "stream": True}))) == comparable(whole)
    (long,) = parts_of(asked, {**chat, "max_tokens": 30000})
    assert [one.json.get("stream") for one in up.asked if one.body] == [None, True, True]  # long: only on the way
    assert comparable(long) == comparable(whole)


@pytest.mark.parametrize("streams", [False, True])
def test_thinking_goes_and_comes_back_through_rounds_of_tools(upstream, streams):
    asked = provider(base_url=upstream(strict.answer).url)
    messages = [user('think redact call look {"n": 1} and call look {"n": 2}')]
    chat = {"model": OPUS, "messages": messages, "tools": [tool("look")], "reasoning_effort": "high"}
    message = heard(asked, {**chat, "stream": streams})
    assert message["reasoning_content"].startswith("Thinking about")
    assert [detail["type"] for detail in message["reasoning_details"]] == ["thinking", "redacted_thinking"]
    one, two = (call["id"] for call in message["tool_calls"])
    asked.memory = Remembered()  # what the client brings is enough
    more = {**chat, "messages": [*messages, message, result(two, "b"), result(one, "a")]}
    assert heard(asked, more)["content"] == f"results: {two}=b; {one}=a"


@pytest.mark.parametrize("streams", [False, True])
def test_thinking_that_the_client_dropped_is_remembered_by_its_calls(upstream, streams):
    asked = provider(base_url=upstream(strict.answer).url)
    messages = [user('think call look {"n": 1}')]
    chat = {"model": OPUS, "messages": messages, "tools": [tool("look")], "reasoning_effort": "high"}
    message = heard(asked, {**chat, "stream": streams})
    bare = {"role": "assistant", "content": message["content"], "tool_calls": message["tool_calls"]}
    more = {**chat, "messages": [*messages, bare, result(bare["tool_calls"][0]["id"])]}
    assert heard(asked, more)["content"].startswith("results: ")
    with pytest.raises(UpstreamError, match="Expected `thinking`"):  # one that remembers nothing is refused
        heard(provider(base_url=asked._door.root), more)


def test_a_thought_that_the_client_changed_is_the_upstreams_to_refuse(upstream):
    asked = provider(base_url=upstream(strict.answer).url)
    chat = {"model": OPUS, "messages": [user("think")], "reasoning_effort": "high"}
    (part,) = parts_of(asked, chat)
    message = part["choices"][0]["message"]
    message["reasoning_details"][0]["thinking"] = "other"
    with pytest.raises(UpstreamError, match="signature"):
        parts_of(asked, {**chat, "messages": [user("think"), message, user("go on")]})


def test_a_long_conversation_with_everything_in_it_is_taken(upstream):
    png, pdf = "data:image/png;base64,iVBORw0KGgo=", "data:application/pdf;base64,JVBERi0="
    messages = [
        {"role": "system", "content": "One."},
        {"role": "developer", "content": "Two."},
        said("Hello!"),
        user([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": png}}]),
        {"role": "system", "content": "Three."},
        calling("a.b", "c d", content="Looking."),
        result("c d"),
        user("meanwhile"),
        result("a.b", "bad", is_error=True),
        {"role": "system", "content": "Four."},
        user([{"type": "file", "file": {"filename": "l.pdf", "file_data": pdf}}]),
        user("and?"),
    ]
    call = Call({"model": OPUS, "messages": messages, "tools": [tool("look")]})
    asked = provider(base_url=upstream(strict.answer).url)
    parts = [part for part in asked.chat(call) if part]
    assert parts[0]["choices"][0]["message"]["content"].startswith("results: call_")
    assert set(call.scope.warnings) == {"messages", "messages[9].role"}


def test_a_cut_stream_is_said_to_be_cut(upstream):
    asked = provider(base_url=upstream(strict.answer).url)
    with pytest.raises(UpstreamError) as caught:
        parts_of(asked, {"model": OPUS, "messages": [user("cut one two three")], "stream": True})
    assert caught.value.code == "stream_truncated"


def test_a_client_that_leaves_frees_the_upstream(upstream):
    start = b'data: {"type":"message_start","message":{"id":"m"}}\n\n'
    up = upstream(Reply(200, {}, [start, 30.0]))
    parts = provider(base_url=up.url).chat(Call({"model": OPUS, "messages": [user("hi")], "stream": True}))
    assert next(part for part in parts if part)["id"] == "m"
    parts.close()
    assert up.wait_closed(1.0)


DATA_URL = {"type": "url", "url": "data:image/png;base64,AA=="}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": ""}
F = [{"name": "f", "input_schema": {"type": "object"}}]
OPEN = {"format": {"type": "json_schema", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"seed": 1}, "seed: Extra inputs"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 10**6}, "max_tokens: "),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role: Input should be one of"),
        ({"messages": [user("a"), user("b")]}, "alternate"),
        ({"messages": [said("a"), user("b")]}, "first message"),
        ({"messages": [user("a"), said("b")]}, "prefill"),
        ({"messages": [user(" ")]}, "String should match"),
        ({"messages": [user([{"type": "image", "source": DATA_URL}])]}, "String should match"),
        ({"messages": [user([RESULT])], "tools": F}, "unexpected `tool_use_id`"),
        ({"messages": [user([RESULT])]}, "must define tools"),
        ({"temperature": 1}, "temperature: Extra inputs"),
        ({"stop_sequences": "END"}, "valid list"),
        ({"thinking": {"type": "disabled"}}, "thinking.type"),
        ({"tools": F, "tool_choice": {"type": "any"}}, "forced"),
        ({"tool_choice": {"type": "auto"}}, "while providing tools"),
        ({"output_config": OPEN}, "additionalProperties"),
    ],
)
def test_the_stand_in_is_strict(wrong, why):
    body = {"model": OPUS, "max_tokens": 9, "messages": [user("hi")], **wrong}
    body = {field: value for field, value in body.items() if value is not None}
    headers = {"x-api-key": "k", "anthropic-version": NEW, "content-type": "application/json"}
    reply = strict.answer(Asked("POST", "/v1/messages", headers, json.dumps(body).encode()))
    assert reply.status == 400
    assert why in json.loads(reply.body)["error"]["message"]


@pytest.mark.parametrize("lacking", ["x-api-key", "anthropic-version"])
def test_the_stand_in_looks_at_headers(lacking):
    headers = {"x-api-key": "k", "anthropic-version": NEW, "content-type": "application/json"}
    del headers[lacking]
    assert strict.answer(Asked("GET", "/v1/models", headers)).status in (400, 401)


def test_silence_in_a_stream_is_passed_on(upstream):
    events = [b'data: {"type":"message_start","message":{"id":"m"}}\n\n', 0.05, b'data: {"type":"message_stop"}\n\n']
    asked = provider(base_url=upstream(Reply(200, {}, events)).url)
    parts = list(asked.chat(Call({"model": OPUS, "messages": [user("hi")], "stream": True})))
    assert PAUSE in parts[parts.index(next(part for part in parts if part)) :]


# the system prompt and the turns


def test_leading_system_messages_become_one_prompt():
    sent = question(
        {"messages": [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}, user("hi")]}
    )
    assert sent["system"] == "A\n\nB"
    assert sent["messages"] == [user("hi")]


def test_a_system_prompt_that_says_what_to_cache_stays_in_blocks():
    cached = {"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}
    sent = question(
        {"messages": [{"role": "system", "content": [cached]}, {"role": "system", "content": "B"}, user("hi")]}
    )
    assert sent["system"] == [cached, {"type": "text", "text": "B"}]


def test_a_later_system_message_stays_one_where_it_may():
    late = {"role": "system", "content": "be brief"}
    assert turns(user("hi"), late) == [user("hi"), late]
    assert turns(user("hi"), late, said("ok"), user("go")) == [user("hi"), late, said("ok"), user("go")]
    assert turns(calling("a"), result("a"), late, warned={})[-1] == late


def test_a_later_system_message_is_a_user_text_where_it_may_not_be_one():
    late, tagged = {"role": "system", "content": "be brief"}, "<system>\nbe brief\n</system>"
    warned = {}
    texts = [{"type": "text", "text": text} for text in ("hi", tagged, "go")]
    assert turns(user("hi"), late, user("go"), warned=warned) == [{"role": "user", "content": texts}]
    assert warned == {"messages[1].role": "sent as a user text"}
    assert turns(user("hi"), late, model=MIDDLE, warned={})[0]["content"][1]["text"] == tagged
    assert turns(user("hi"), said("ok"), late, warned={})[-1] == user(tagged)


def test_messages_of_one_role_become_one_turn():
    (turn,) = turns(user("a"), user("b"))
    assert [block["text"] for block in turn["content"]] == ["a", "b"]
    assert [turn["role"] for turn in turns(user("a"), said("b"), said("c"), user("d"))] == ["user", "assistant", "user"]


def test_results_come_first_in_the_one_turn_behind_their_calls():
    (_, _, turn) = turns(user("go"), calling("a", "b"), result("a"), user("meanwhile"), result("b", is_error=True))
    assert turn["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "done"},
        {"type": "tool_result", "tool_use_id": "b", "content": "done", "is_error": True},
        {"type": "text", "text": "meanwhile"},
    ]


def test_an_id_of_another_upstream_is_spelled_safely_on_both_sides():
    (_, call, answered) = turns(user("go"), calling("functions.look:0"), result("functions.look:0"))
    id_ = call["content"][0]["id"]
    assert id_ == answered["content"][0]["tool_use_id"]
    assert id_.replace("_", "").isalnum()


def test_arguments_go_as_an_object_and_nothing_as_an_empty_one():
    call = calling("a", "b")
    call["tool_calls"][1]["function"]["arguments"] = ""
    blocks = turns(user("go"), call, result("a"), result("b"))[1]["content"]
    assert [block["input"] for block in blocks] == [{"n": 1}, {}]


def test_arguments_that_are_no_object_are_refused_by_their_place():
    call = calling("a")
    call["tool_calls"][0]["function"]["arguments"] = "[1"
    with pytest.raises(UpstreamError) as caught:
        turns(user("go"), call, result("a"))
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_blank_texts_are_left_out():
    parts = [{"type": "text", "text": ""}, {"type": "text", "text": " \n"}, {"type": "text", "text": "hi"}]
    assert turns(user(parts), said(""), user("there"))[0]["content"] == [
        {"type": "text", "text": "hi"},
        {"type": "text", "text": "there"},
    ]
    assert turns(user("go"), calling("a", content=""), result("a"))[1]["content"][0]["type"] == "tool_use"


@pytest.mark.parametrize("messages", [[said("hello"), user("hi")], [user("")], [{"role": "system", "content": "S"}]])
def test_a_conversation_without_a_user_at_its_beginning_is_given_one(messages):
    warned = {}
    assert question({"messages": messages}, warned)["messages"][0] == user(".")
    assert warned == {"messages": "a user message was put first"}


def test_an_assistant_message_at_the_end_is_gone_on_with_by_old_models_only():
    assert turns(user("hi"), said("It is \n"), model=HAIKU)[-1] == said("It is")
    with pytest.raises(UpstreamError) as caught:
        turns(user("hi"), said("It is"))
    assert (caught.value.status, caught.value.param) == (400, "messages[1]")
    warned = {}
    assert turns(user("hi"), said(""), warned=warned) == [user("hi")]
    assert "messages[1]" in warned


def test_a_role_that_does_not_exist_here_is_refused():
    with pytest.raises(UpstreamError) as caught:
        turns(user("hi"), {"role": "function", "name": "f", "content": "x"})
    assert caught.value.param == "messages[1].role"


# parts


def block(part, **more):
    return turns(user([part]), **more)[0]["content"][0]


def image(url):
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def file(data, **more):
    return {"type": "file", "file": {"file_data": data, **more}}


@pytest.mark.parametrize(
    ("part", "source"),
    [
        (image("data:image/png;base64,iVBO"), {"type": "base64", "media_type": "image/png", "data": "iVBO"}),
        (image("data:image/jpg;base64,iVBO"), {"type": "base64", "media_type": "image/jpeg", "data": "iVBO"}),
        (image("https://x.test/a.png"), {"type": "url", "url": "https://x.test/a.png"}),
        (file("data:image/gif;base64,R0lG"), {"type": "base64", "media_type": "image/gif", "data": "R0lG"}),
    ],
)
def test_an_image_goes_as_its_bytes_or_its_address(part, source):
    assert block(part) == {"type": "image", "source": source}


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (
            "data:application/pdf;base64,JVBERi0=",
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        ),
        ("JVBERi0=", {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}),
        ("data:text/markdown;base64,Z3LDtsOfZQ==", {"type": "text", "media_type": "text/plain", "data": "größe"}),
        ("https://x.test/a.pdf", {"type": "url", "url": "https://x.test/a.pdf"}),
    ],
)
def test_a_file_goes_as_a_document(data, source):
    assert block(file(data, filename="a")) == {"type": "document", "source": source, "title": "a"}


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (image("data:image/tiff;base64,SUkq"), "messages[0].content[0].image_url.url"),
        (image("file:///etc/passwd"), "messages[0].content[0].image_url.url"),
        (file("", file_id="file-1"), "messages[0].content[0].file"),
        (file("data:video/mp4;base64,AAAA"), "messages[0].content[0].file.file_data"),
        (file("data:text/plain;base64,%%%"), "messages[0].content[0].file.file_data"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "messages[0].content[0].type"),
    ],
)
def test_a_part_that_cannot_be_sent_is_refused_by_its_place(part, param):
    with pytest.raises(UpstreamError) as caught:
        block(part)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)


def test_what_is_to_be_cached_is_told():
    mark = {"type": "ephemeral"}
    assert block({"type": "text", "text": "a", "cache_control": mark}) == {
        "type": "text",
        "text": "a",
        "cache_control": mark,
    }
    assert question({"tools": [{**tool("f"), "cache_control": mark}]})["tools"][0]["cache_control"] == mark


# reasoning details


def test_thinking_stands_first_in_the_turn_it_came_from():
    redacted = {"provider": "anthropic", "model": OPUS, "index": 1, "type": "redacted_thinking", "data": "cg=="}
    blocks = turns(user("go"), calling("a", content="So.", reasoning_details=[redacted, thought()]), result("a"))[1][
        "content"
    ]
    assert blocks[:2] == [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "cg=="},
    ]
    assert [block["type"] for block in blocks[2:]] == ["text", "tool_use"]


def test_what_stood_between_texts_and_calls_comes_back_there():
    came = [
        {"type": "thinking", "thinking": "", "signature": "MQ=="},
        {"type": "text", "text": "größe"},
        {"type": "text", "text": "!"},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"q": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
        {"type": "text", "text": "Found."},
        {"type": "thinking", "thinking": "note", "signature": "Mg=="},
        {"type": "tool_use", "id": "a", "name": "look", "input": {"n": 1}},
        {"type": "thinking", "thinking": "", "signature": "Mw=="},
        {"type": "tool_use", "id": "b", "name": "look", "input": {"n": 1}},
    ]
    message = answer({"content": came, "stop_reason": "tool_use"})["choices"][0]["message"]
    through_a_client = json.loads(json.dumps(message))
    blocks = turns(user("go"), through_a_client, result("a"), result("b"))[1]["content"]
    assert blocks == [came[0], {"type": "text", "text": "größe!"}, *came[3:]]


@pytest.mark.parametrize(
    "detail",
    [
        thought(provider="gemini"),
        thought(model=SONNET),
        thought(signature=""),
        {**thought(), "type": "citations", "citations": []},
        "nonsense",
    ],
)
def test_what_another_made_is_left_out(detail):
    assert turns(user("go"), said("So.", reasoning_details=[detail]), user("on"))[1] == said("So.")


@pytest.mark.parametrize("place", ["x", [1], [-5, -5], [99, 99], ["a", "b"], {}])
def test_a_place_that_a_client_made_up_breaks_nothing(place):
    blocks = turns(user("go"), calling("a", content="So.", reasoning_details=[thought(after=place)]), result("a"))[1]
    assert sorted(block["type"] for block in blocks["content"]) in (
        ["text", "thinking", "tool_use"],
        ["text", "tool_use"],
    )


def test_a_thought_that_led_to_nothing_is_left_out():
    assert turns(user("go"), said(None, reasoning_details=[thought()]), user("on"))[0]["content"][1]["text"] == "on"


def test_readable_reasoning_alone_is_not_sent():
    assert turns(user("go"), said("So.", reasoning_content="hm"), user("on"))[1] == said("So.")


def test_remembered_thinking_of_another_model_is_left_out():
    recall = lambda ids: [thought(model=SONNET)] if list(ids) == ["a"] else []  # noqa: E731
    assert turns(user("go"), calling("a"), result("a"), recall=recall)[1]["content"][0]["type"] == "tool_use"


def test_a_client_may_speak_the_upstreams_own_words():
    own = [{"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]}]
    assert turns({"role": "user", "content": "x", "_anthropic": {"content": own}})[0]["content"] == own
    pocket = {"cache_control": {"type": "ephemeral"}, "thinking": {"type": "adaptive", "display": "omitted"}}
    options = {"anthropic": {"thinking": {"type": "disabled"}, "speed": "fast"}, "gemini": {"x": 1}}
    sent = question({"_anthropic": pocket, "provider_options": options, "reasoning_effort": "low"})
    assert sent["cache_control"] == {"type": "ephemeral"}
    assert sent["thinking"] == {"type": "disabled"}
    assert sent["speed"] == "fast"
    assert not any(field.startswith("_") for field in sent)


# plain fields


def test_max_tokens_is_always_sent():
    assert question({})["max_tokens"] == 16384
    assert question({}, manner=Manner(max_tokens=5))["max_tokens"] == 5
    assert question({"max_tokens": 7})["max_tokens"] == 7
    assert question({"max_tokens": 7, "max_completion_tokens": 8})["max_tokens"] == 8


def test_max_tokens_stays_within_what_a_model_can():
    assert question({"model": "claude-3-haiku-20240307"})["max_tokens"] == 4096
    assert question({"model": "claude-3-5-sonnet-20241022"})["max_tokens"] == 8192
    warned = {}
    assert question({"model": "claude-3-opus-20240229", "max_tokens": 9000}, warned)["max_tokens"] == 4096
    assert warned == {"max_tokens": "clamped to 4096"}


def test_stop_strings_go_as_a_list_without_blanks():
    assert question({"stop": "END"})["stop_sequences"] == ["END"]
    warned = {}
    assert question({"stop": ["", "\n", "END"]}, warned)["stop_sequences"] == ["END"]
    assert set(warned) == {"stop"}
    assert "stop_sequences" not in question({"stop": None})


def test_who_asks_is_told_as_an_opaque_id():
    assert question({"user": "u"})["metadata"] == {"user_id": "u"}
    assert question({"user": "u", "safety_identifier": "s"})["metadata"] == {"user_id": "s"}


def test_a_service_tier_goes_by_its_name_here():
    assert question({"service_tier": "auto"})["service_tier"] == "auto"
    assert question({"service_tier": "default"})["service_tier"] == "standard_only"
    warned = {}
    assert "service_tier" not in question({"service_tier": "flex"}, warned)
    assert set(warned) == {"service_tier"}


@pytest.mark.parametrize(
    "field",
    [
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "verbosity",
        "metadata",
        "store",
        "min_p",
        "repeat_penalty",
        "of_tomorrow",
    ],
)
def test_a_hint_that_cannot_be_followed_is_dropped_and_told(field):
    warned = {}
    assert field not in question({field: {"metadata": {"a": "b"}, "logit_bias": {"1": 1}}.get(field, 1)}, warned)
    assert warned == {field: "not supported by anthropic"}


def test_what_asks_for_nothing_is_dropped_without_a_word():
    silent = {"n": 1, "logprobs": False, "store": False, "presence_penalty": 0, "stream_options": {}, "seed": None}
    assert question({**silent, "modalities": ["text"], "provider": "anthropic", "type": "chat"}) == question({})


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "x"}},
        {"prediction": {}},
        {"web_search_options": {}},
        {"functions": []},
    ],
)
def test_what_would_change_the_answer_is_refused(more):
    with pytest.raises(UpstreamError) as caught:
        question(more)
    assert (caught.value.status, caught.value.param) == (400, next(iter(more)))


# sampling and the version of the API


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
def test_sampling_is_for_old_models_and_takes_the_old_version(field):
    sent = question({"model": HAIKU, field: 0.5})
    assert sent[field] == 0.5
    assert _anthropic_question.version_for(sent, "auto") == OLD
    warned = {}
    sent = question({"model": "claude-opus-4-7", field: 0.5}, warned)
    assert field not in sent
    assert warned == {field: "not supported by this model"}
    assert _anthropic_question.version_for(sent, "auto") == NEW


def test_a_forced_version_holds():
    warned = {}
    assert "temperature" not in question({"model": HAIKU, "temperature": 0}, warned, manner=Manner(NEW))
    assert set(warned) == {"temperature"}
    assert _anthropic_question.version_for({"temperature": 0}, NEW) == NEW
    assert _anthropic_question.version_for({}, OLD) == OLD


def test_a_temperature_above_one_is_clamped():
    warned = {}
    assert question({"model": HAIKU, "temperature": 1.5}, warned)["temperature"] == 1
    assert warned == {"temperature": "clamped to 1"}


def test_a_top_p_that_says_nothing_does_not_stand_beside_a_temperature():
    sent = question({"model": HAIKU, "temperature": 0.5, "top_p": 1})
    assert (sent["temperature"], "top_p" in sent) == (0.5, False)


def test_sampling_gives_way_to_thinking():
    warned = {}
    assert "temperature" not in question({"model": MIDDLE, "temperature": 0.5, "reasoning_effort": "low"}, warned)
    assert warned == {"temperature": "not together with thinking"}


# reasoning


def reasoning(model, warned=None, **fields):
    sent = question({"model": model, **fields}, warned)
    return sent.get("thinking"), sent.get("output_config", {}).get("effort")


SHOWN = {"type": "adaptive", "display": "summarized"}


def test_nothing_asked_is_nothing_sent():
    assert reasoning(OPUS) == (None, None)


@pytest.mark.parametrize(
    ("effort", "sent"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "xhigh"), ("max", "max")],
)
def test_effort_is_told_to_models_that_choose_their_depth(effort, sent):
    assert reasoning(OPUS, reasoning_effort=effort) == (SHOWN, sent)


def test_an_effort_that_a_model_lacks_is_the_next_lower_one():
    warned = {}
    assert reasoning(MIDDLE, warned, reasoning_effort="xhigh") == (SHOWN, "high")
    assert warned == {"reasoning_effort": "sent as high"}


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 1024), ("low", 1024), ("medium", 8192), ("high", 16384), ("xhigh", 24576), ("max", 32000)],
)
def test_effort_is_a_budget_on_top_for_models_that_have_budgets(effort, budget):
    sent = question({"model": HAIKU, "reasoning_effort": effort, "max_tokens": 1000})
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert sent["max_tokens"] == 1000 + budget


def test_a_budget_beats_effort_where_there_are_budgets():
    for model in (HAIKU, MIDDLE):
        thinking, effort = reasoning(model, thinking_budget=2000, reasoning_effort="high")
        assert (thinking, effort) == ({"type": "enabled", "budget_tokens": 2000}, None)
    warned = {}
    assert reasoning(OPUS, warned, thinking_budget=2000, reasoning_effort="high") == (SHOWN, "high")
    assert set(warned) == {"thinking_budget"}


@pytest.mark.parametrize(("budget", "effort"), [(2048, "low"), (10000, "medium"), (10001, "high")])
def test_a_budget_is_an_effort_where_there_are_none(budget, effort):
    warned = {}
    assert reasoning(OPUS, warned, thinking_budget=budget) == (SHOWN, effort)
    assert warned == {"thinking_budget": f"sent as effort {effort}"}


def test_a_budget_that_is_left_to_the_model_names_none():
    assert reasoning(OPUS, thinking_budget=-1) == (SHOWN, None)
    assert reasoning(HAIKU, thinking_budget=-1) == ({"type": "enabled", "budget_tokens": 8192}, None)


def test_a_budget_stays_within_bounds():
    warned = {}
    assert reasoning(HAIKU, warned, thinking_budget=5)[0]["budget_tokens"] == 1024
    assert warned == {"thinking_budget": "clamped to 1024"}
    sent = question({"model": "claude-opus-4-1-20250805", "reasoning_effort": "max"})
    assert (sent["max_tokens"], sent["thinking"]["budget_tokens"]) == (32000, 32000 - 16384)


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-opus-5", ({"type": "disabled"}, None)),
        (HAIKU, ({"type": "disabled"}, None)),
        (SONNET, ({"type": "between_tools"}, None)),
        ("claude-3-haiku-20240307", (None, None)),
    ],
)
def test_no_reasoning_is_none(model, sent):
    assert reasoning(model, reasoning_effort="none") == sent
    assert reasoning(model, thinking_budget=0) == sent


def test_a_model_that_always_thinks_thinks_least():
    warned = {}
    assert reasoning(OPUS, warned, reasoning_effort="none") == (None, "low")
    assert set(warned) == {"reasoning_effort"}


def test_a_model_that_cannot_think_is_not_asked_to():
    warned = {}
    assert reasoning("claude-3-haiku-20240307", warned, reasoning_effort="low") == (None, None)
    assert warned == {"reasoning_effort": "not supported by this model"}


def test_an_effort_nobody_knows_is_refused():
    with pytest.raises(UpstreamError) as caught:
        reasoning(OPUS, reasoning_effort="enormous")
    assert caught.value.param == "reasoning_effort"


def test_a_round_of_tools_whose_thinking_is_lost_goes_on_without():
    chat = {"model": HAIKU, "reasoning_effort": "low", "tools": [tool("look")]}
    lost = [user("go"), calling("a"), result("a"), calling("b"), result("b")]
    warned = {}
    assert "thinking" not in question({**chat, "messages": lost}, warned)
    assert set(warned) == {"reasoning_effort"}
    kept = [user("go"), calling("a", reasoning_details=[thought(model=HAIKU)]), *lost[2:]]
    assert question({**chat, "messages": kept})["thinking"]["type"] == "enabled"
    assert question({**chat, "messages": [*lost, said("done"), user("more")]})["thinking"]["type"] == "enabled"


# tools


def test_a_tool_keeps_its_words_and_gets_a_schema():
    bare = {"type": "function", "function": {"name": "now"}}
    sent = question({"tools": [tool("f", description="d", strict=None), bare]})
    schema = {"type": "object", "properties": {}}
    assert sent["tools"] == [
        {"name": "f", "description": "d", "input_schema": schema},
        {"name": "now", "input_schema": schema},
    ]
    assert "tool_choice" not in sent


def test_a_strict_tool_takes_what_it_names_and_nothing_else():
    parameters = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
    (sent,) = question({"tools": [tool("f", strict=True, parameters=parameters)]})["tools"]
    assert sent["strict"] is True
    assert sent["input_schema"] == closed(parameters)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_a_choice_of_tool_goes_by_its_name_here(choice, sent):
    assert question({"tools": [tool("f")], "tool_choice": choice})["tool_choice"] == sent


def test_allowed_tools_are_the_ones_that_are_sent():
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": n}} for n in "fg"]}
    chat = {
        "tools": [tool("f"), tool("g"), tool("h")],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed},
    }
    sent = question(chat)
    assert [one["name"] for one in sent["tools"]] == ["f", "g"]
    assert sent["tool_choice"] == {"type": "any"}


def test_where_no_tool_is_allowed_none_is_sent():
    nothing = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    assert not {"tools", "tool_choice"} & question({"tools": [tool("f")], "tool_choice": nothing}).keys()


def test_one_call_at_a_time_is_part_of_the_choice():
    sent = question({"tools": [tool("f")], "parallel_tool_calls": False})
    assert sent["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    sent = question({"tools": [tool("f")], "parallel_tool_calls": False, "tool_choice": "none"})
    assert sent["tool_choice"] == {"type": "none"}


def test_a_choice_without_tools_is_none():
    assert question({"tool_choice": "auto", "parallel_tool_calls": False}).keys() == {"model", "max_tokens", "messages"}


def test_a_model_that_cannot_be_forced_is_left_to_choose_where_that_is_wanted():
    chat = {"tools": [tool("f")], "tool_choice": "required"}
    assert question(chat)["tool_choice"] == {"type": "any"}  # the upstream's own refusal is the answer
    warned, manner = {}, Manner(tool_choice_fallback="auto")
    assert question(chat, warned, manner=manner)["tool_choice"] == {"type": "auto"}
    assert warned == {"tool_choice": "sent as auto"}
    assert question({**chat, "model": "claude-opus-4-8"}, manner=manner)["tool_choice"] == {"type": "any"}
    thinking = {**chat, "model": MIDDLE, "reasoning_effort": "low"}
    assert question(thinking, {}, manner=manner)["tool_choice"] == {"type": "auto"}


def test_a_conversation_with_calls_declares_their_tools_even_when_none_are_left():
    sent = question({"messages": [user("go"), calling("a"), result("a")]})
    assert sent["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    assert sent["tool_choice"] == {"type": "none"}


def test_tools_of_another_kind_are_refused():
    with pytest.raises(UpstreamError) as caught:
        question({"tools": [{"type": "custom", "custom": {"name": "x"}}]})
    assert caught.value.param == "tools[0].type"


# the format of the answer


def test_a_schema_is_closed_in_all_its_objects_and_nowhere_else():
    given = {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["object"]},
            "properties": {"anyOf": [{"type": ["object", "null"]}, {"$ref": "#/$defs/d"}]},
            "list": {"type": "array", "items": {"properties": {}}},
        },
        "additionalProperties": {"type": "string"},
        "$defs": {"d": {"type": "object", "default": {"type": "object"}}},
    }
    made = closed(given)
    assert made["additionalProperties"] is False
    assert made["properties"]["type"] == {"type": "string", "enum": ["object"]}
    assert made["properties"]["properties"]["anyOf"][0]["additionalProperties"] is False
    assert made["properties"]["list"]["items"]["additionalProperties"] is False
    assert made["$defs"]["d"] == {"type": "object", "default": {"type": "object"}, "additionalProperties": False}
    assert given["additionalProperties"] == {"type": "string"}
    assert closed(True) is True


def test_a_schema_for_the_answer_goes_without_its_name():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    format_ = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    sent = question({"response_format": format_, "reasoning_effort": "low"})["output_config"]
    assert sent == {"format": {"type": "json_schema", "schema": closed(schema)}, "effort": "low"}


def test_any_json_object_is_asked_for_in_words():
    warned = {}
    messages = [{"role": "system", "content": "S"}, user("hi")]
    sent = question({"messages": messages, "response_format": {"type": "json_object"}}, warned)
    assert sent["system"].startswith("S\n\n")
    assert "JSON" in sent["system"]
    assert warned == {"response_format": "emulated by an instruction"}
    assert "system" not in question({"response_format": {"type": "text"}})


# what is answered


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("of_tomorrow", "stop"),
        (None, "stop"),
    ],
)
def test_an_answer_ends_for_a_reason_that_is_known(reason, finish):
    assert answer({"content": [], "stop_reason": reason})["choices"][0]["finish_reason"] == finish


def test_a_paused_turn_is_noted():
    noted = {}
    assert answer({"stop_reason": "pause_turn"}, noted.__setitem__)["choices"][0]["finish_reason"] == "stop"
    assert set(noted) == {"finish_reason"}


def test_a_refusal_is_said_in_the_models_words_or_in_ours():
    details = {"type": "refusal", "category": "cyber", "explanation": "Not this."}
    told = answer({"content": [], "stop_reason": "refusal", "stop_details": details})["choices"][0]
    assert (told["message"]["refusal"], told["message"]["content"]) == ("Not this.", None)
    parts = chunks(
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "message_delta", "delta": {"stop_reason": "refusal"}},
        {"type": "message_stop"},
    )
    assert parts[1]["choices"][0]["delta"] == {"refusal": _anthropic_answer.REFUSED}
    assert parts[2]["choices"][0]["finish_reason"] == "content_filter"


def test_the_prompt_holds_what_the_cache_gave_and_took():
    told = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 300,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert answer({"usage": told})["usage"] == {
        "prompt_tokens": 321,
        "completion_tokens": 5,
        "total_tokens": 326,
        "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


def stream(*block_events, **delta):
    return [
        {
            "type": "message_start",
            "message": {"id": "m", "model": OPUS, "usage": {"input_tokens": 3, "output_tokens": 1}},
        },
        *block_events,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", **delta}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]


def test_usage_in_a_stream_is_what_was_told_last():
    assert chunks(*stream())[-1]["usage"]["total_tokens"] == 12


def test_events_and_deltas_nobody_knows_are_passed_over():
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}
    odd = {"type": "content_block_delta", "index": 0, "delta": {"type": "odd_delta", "odd": "x"}}
    lost = {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "x"}}
    parts = chunks(*stream(start, odd, lost, {"type": "odd"}, {"type": "content_block_stop", "index": 0}))
    assert [part["choices"][0]["delta"] for part in parts[:-2]] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi"},
    ]


def test_citations_are_kept_apart_from_the_words():
    cited = {"type": "text", "text": "Hi", "citations": [{"type": "page_location"}]}
    whole = answer({"content": [cited]})["choices"][0]["message"]
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "", "citations": []}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "citations_delta", "citation": cited["citations"][0]},
        },
        {"type": "content_block_stop", "index": 0},
    ]
    assert added_up(chunks(*stream(*events)))["choices"][0]["message"] == whole
    assert whole["reasoning_details"][0]["citations"] == cited["citations"]


def test_the_work_of_hosted_tools_is_passed_on_whole():
    start = {"type": "server_tool_use", "id": "s", "name": "w", "input": {}}
    events = [
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"q":'}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '"x"}'}},
        {"type": "content_block_stop", "index": 0},
    ]
    _, part, _, _ = chunks(*stream(*events))
    tags = {"provider": "anthropic", "model": OPUS, "index": 0}
    block = {"type": "server_tool_use", "id": "s", "name": "w", "input": {"q": "x"}}
    assert part["choices"][0]["delta"] == {"reasoning_details": [{**tags, **block}]}


@pytest.mark.parametrize(("cut", "arguments"), [('{"n": 1', "{}"), ("[1]", "{}"), ('{"n": 1}', '{"n":1}')])
def test_arguments_that_were_cut_off_do_not_break_an_answer_that_is_put_together(upstream, cut, arguments):
    start = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": cut}
    events = stream(
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        stop_reason="max_tokens",
    )
    asked = provider(base_url=upstream(Reply(200, {}, [f"data: {json.dumps(one)}\n\n".encode() for one in events])).url)
    (part,) = parts_of(asked, {"model": OPUS, "messages": [user("hi")], "max_tokens": 99999})
    (choice,) = part["choices"]
    assert (choice["finish_reason"], choice["message"]["tool_calls"][0]["function"]["arguments"]) == (
        "length",
        arguments,
    )


def test_a_long_answer_that_breaks_off_is_truncated(upstream):
    asked = provider(base_url=upstream(Reply(200, {}, [b'data: {"type":"ping"}\n\n'])).url)
    with pytest.raises(UpstreamError) as caught:
        parts_of(asked, {"model": OPUS, "messages": [user("hi")], "max_tokens": 99999})
    assert caught.value.code == "stream_truncated"


def test_a_stream_without_an_end_is_truncated():
    with pytest.raises(UpstreamError) as caught:
        chunks(*stream()[:-1])
    assert (caught.value.status, caught.value.code) == (502, "stream_truncated")


def test_an_error_in_a_stream_is_worded_by_its_type():
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    with pytest.raises(UpstreamError) as caught:
        chunks(*stream()[:1], error)
    assert (caught.value.status, caught.value.code, caught.value.provider_status) == (429, "rate_limit_exceeded", None)


# errors


def worded(status, body=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _anthropic_answer.worded("anthropic", status, named, body if body is not None else error_body("no"))


def error_body(message, **more):
    return {"type": "error", "error": {"type": "some_error", "message": message, **more}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "ours", "kind", "code"),
    [
        (400, 400, "invalid_request_error", None),
        (401, 401, "authentication_error", "provider_auth"),
        (402, 429, "insufficient_quota", "insufficient_quota"),
        (403, 403, "permission_error", None),
        (404, 404, "not_found_error", "model_not_found"),
        (408, 504, "timeout_error", "provider_timeout"),
        (409, 409, "invalid_request_error", None),
        (413, 413, "invalid_request_error", "request_too_large"),
        (429, 429, "rate_limit_error", "rate_limit_exceeded"),
        (500, 502, "api_error", "provider_error"),
        (504, 504, "timeout_error", "provider_timeout"),
        (529, 503, "overloaded_error", "provider_overloaded"),
    ],
)
def test_a_refusal_keeps_its_meaning_and_its_words(status, ours, kind, code):
    error = worded(status)
    assert (error.status, error.kind, error.code, error.provider_status) == (ours, kind, code, status)
    assert error.message.endswith("no")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, golden("error_429_spend")),
        (429, error_body("x", details={"error_code": "contract_spend_limit_reached"})),
        (400, error_body("Your credit balance is too low to access the API.")),
        (400, error_body("You have reached your specified API usage limits.")),
    ],
)
def test_trouble_with_money_is_not_asked_about_again(status, body):
    error = worded(status, body)
    assert (error.status, error.code, error.passing, error.headers) == (429, "insufficient_quota", False, {})


def test_a_rate_limit_says_when_to_come_back():
    error = worded(429, golden("error_429"), retry_after="17")
    assert (error.code, error.headers["Retry-After"], error.retry_after) == ("rate_limit_exceeded", "17", 17)


def test_a_limit_that_says_when_it_ends_is_not_about_money():
    assert worded(429, error_body("the usage limits of this minute"), retry_after="9").code == "rate_limit_exceeded"


def test_a_prompt_that_is_too_long_is_named():
    assert worded(400, error_body("prompt is too long: 9 tokens > 8 maximum")).code == "context_length_exceeded"


@pytest.mark.parametrize(
    "body", ["<html>", "", None, [], {"error": "text"}, {"error": None}, {"error": {"message": 5}}]
)
def test_an_error_in_no_known_shape_is_still_one(body):
    assert worded(500, body).status == 502


# models and what they can do


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("claude-opus-5-5", (5, 5)),
        ("claude-fable-5-1", (5, 1)),
        ("claude-sonnet-5", (5, 0)),
        ("claude-opus-4-20250514", (4, 0)),
        ("claude-opus-4-1-20250805", (4, 1)),
        ("claude-3-5-sonnet-20241022", (3, 5)),
        ("claude-3-opus-latest", (3, 0)),
        ("claude-2.1", (2, 1)),
        ("claude-mythos-preview", (99, 0)),
        ("glm-4.6", (99, 0)),
    ],
)
def test_a_name_tells_the_version(name, version):
    assert version_of(name) == version


@pytest.mark.parametrize(
    ("name", "thinking"),
    [
        ("claude-3-opus-20240229", ""),
        ("claude-3-7-sonnet-20250219", "enabled disabled"),
        ("claude-opus-4-5", "enabled disabled"),
        ("claude-opus-4-6", "adaptive enabled disabled"),
        ("claude-opus-4-8", "adaptive disabled"),
        ("claude-sonnet-5", "adaptive disabled"),
        ("claude-opus-5-5", "adaptive"),
        ("claude-fable-5-1", "adaptive"),
        ("claude-sonnet-5-5", "adaptive between_tools"),
        ("claude-haiku-5-5", "adaptive disabled"),
        ("claude-of-tomorrow", "adaptive"),
    ],
)
def test_a_name_tells_how_a_model_thinks(name, thinking):
    assert named(name).thinking == frozenset(thinking.split())


def test_the_list_tells_more_than_a_name():
    told = {"thinking": {"types": {"enabled": {"supported": True}, "disabled": {"supported": False}}}}
    model = listed({"id": OPUS, "max_tokens": 5, "capabilities": {**told, "effort": {"low": {"supported": True}}}})
    assert (model.thinking, model.efforts, model.most) == ({"enabled"}, ("low",), 5)
    assert listed({"id": OPUS}) == named(OPUS)
    assert listed({"id": "claude-x", "capabilities": told}).samples


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_the_list_is_asked_for_once_an_hour_and_when_it_matters():
    asked, clock = [], Clock()
    page = {"data": [{"id": HAIKU, "max_tokens": 5}]}
    catalogue = Catalogue(lambda scope, told: asked.append(scope) or [told(page)], clock)
    assert catalogue.find(HAIKU, Scope(), matters=False).most is None
    assert asked == []
    for name in (HAIKU, "claude-haiku-4-5", "claude-haiku-4-5-latest"):
        assert catalogue.find(name, Scope(), matters=True).most == 5
    assert catalogue.find("claude-other-5", Scope(), matters=True) == named("claude-other-5")
    assert len(asked) == 1
    clock.now += _anthropic_models.HOUR
    catalogue.find(HAIKU, Scope(), matters=True)
    assert len(asked) == 2


def test_while_there_is_no_list_names_have_to_do():
    asked, clock = [], Clock()

    def ask(scope, told):
        asked.append(scope)
        raise UpstreamError(502, "down")

    catalogue = Catalogue(ask, clock)
    for _ in range(2):
        assert catalogue.find(OPUS, Scope(), matters=True) == named(OPUS)
    assert len(asked) == 1
    clock.now += _anthropic_models.MINUTE
    catalogue.find(OPUS, Scope(), matters=True)
    assert len(asked) == 2


# the provider


def test_the_list_of_models_is_read_to_its_end(wire):
    headers = {"x-api-key": "sk-key", "anthropic-version": NEW}
    wire.expect("GET", f"{URL}/models?limit=1000", headers=headers, json=golden("models_page1"))
    second = {**golden("models_page2"), "has_more": True}  # says so for ever
    wire.expect("GET", f"{URL}/models?limit=1000&after_id=claude-sonnet-5-5", json=second)
    retired = {"data": [{"id": "claude-1", "lifecycle": "retired"}], "has_more": True, "last_id": HAIKU}
    wire.expect("GET", f"{URL}/models?limit=1000&after_id={HAIKU}", json=retired)
    models = provider().models()
    assert [model["id"] for model in models] == [OPUS, SONNET, HAIKU]
    told = {"context_length": 1000000, "capabilities": ["completion", "tools", "vision", "thinking"]}
    assert models[0] == {"id": OPUS, "object": "model", "created": 1790035200, "owned_by": "anthropic", **told}


def test_a_time_nobody_can_read_is_nought():
    assert _anthropic_models.model_of({"id": "m", "created_at": "soon"})["created"] == 0
    assert _anthropic_models.model_of({"id": "m"})["created"] == 0


def test_tokens_are_counted_for_the_same_question(upstream):
    up = upstream(strict.answer)
    call = Call({"model": OPUS, "messages": [user("one two")], "max_tokens": 9, "stop": "x", "user": "u"})
    assert provider(base_url=up.url).count_tokens(call) == 5
    assert up.asked[0].json == {"model": OPUS, "messages": [user("one two")]}
    assert up.asked[0].headers["anthropic-version"] == NEW


def test_the_version_goes_with_the_question(upstream):
    up = upstream(strict.answer)
    asked = provider(base_url=up.url)
    parts_of(asked, {"model": HAIKU, "messages": [user("hi")], "temperature": 0.2})
    parts_of(asked, {"model": HAIKU, "messages": [user("hi")]})
    parts_of(provider(base_url=up.url, version=OLD), {"model": OPUS, "messages": [user("hi")]})
    assert [one.headers["anthropic-version"] for one in up.asked] == [OLD, NEW, OLD]


def test_the_list_is_asked_for_when_reasoning_is(upstream):
    up = upstream(strict.answer)
    asked = provider(base_url=up.url + "/v1/")
    for _ in range(2):
        parts_of(asked, {"model": MIDDLE, "messages": [user("hi")], "reasoning_effort": "max", "max_tokens": 99999})
    assert [one.path for one in up.asked] == ["/v1/models", "/v1/models", "/v1/messages", "/v1/messages"]
    assert up.asked[-1].json["max_tokens"] == 64000
    assert up.asked[-1].json["output_config"] == {"effort": "high"}


def test_a_question_survives_a_list_that_cannot_be_had(upstream):
    up = upstream(lambda asked: Reply(404) if asked.path == "/v1/models" else strict.answer(asked))
    chat = {"model": OPUS, "messages": [user("think")], "reasoning_effort": "low"}
    assert parts_of(provider(base_url=up.url), chat)[0]["choices"][0]["message"]["reasoning_content"]


def test_strict_callers_are_refused_before_anything_is_sent():
    with pytest.raises(UpstreamError) as caught:
        list(provider().chat(Call({"model": OPUS, "messages": [user("hi")], "seed": 1}, strict=True)))
    assert (caught.value.status, caught.value.param) == (400, "seed")


@pytest.mark.parametrize(
    "ask",
    [
        lambda asked: list(asked.chat(Call({"model": OPUS, "messages": [user("hi")]}))),
        lambda asked: asked.count_tokens(Call({"model": OPUS, "messages": [user("hi")]})),
        lambda asked: asked.models(),
        lambda asked: asked.relay("GET", "/v1/models", [], b"", Scope()),
    ],
)
def test_without_a_key_nothing_is_sent(wire, ask):
    asked = provider("claude", api_key="")
    assert not asked.configured
    with pytest.raises(UpstreamError) as caught:
        ask(asked)
    assert (caught.value.status, caught.value.code, caught.value.provider) == (401, "provider_auth", "claude")
    assert caught.value.message == "no API key for claude: set ANTHROPIC_API_KEY or [providers.claude] api_key"


def test_another_address_needs_no_key(upstream):
    up = upstream(lambda asked: Reply(200, {}, b'{"content":[]}'))
    asked = provider(api_key="", base_url=up.url)
    assert asked.configured
    parts_of(asked, {"model": OPUS, "messages": [user("hi")]})
    assert "x-api-key" not in up.asked[0].headers


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null"])
def test_an_answer_that_is_no_object_is_trouble(upstream, body):
    asked = provider(base_url=upstream(Reply(200, {}, body)).url)
    with pytest.raises(UpstreamError) as caught:
        parts_of(asked, {"model": OPUS, "messages": [user("hi")]})
    assert (caught.value.status, caught.value.code) == (502, "provider_error")


@pytest.mark.parametrize(
    ("option", "model", "place"),
    [
        ("voyage", "claude-opus-5-5", "voyage/"),
        ("voyage", "voyage-4", "voyage/voyage-4"),
        ("ollama/nomic-embed-text", "claude-opus-5-5", "ollama/nomic-embed-text"),
        ("", "claude-opus-5-5", ""),
    ],
)
def test_embeddings_are_made_elsewhere(option, model, place):
    assert provider(embeddings=option).embeds_at(model) == place


@pytest.mark.parametrize("wrong", [{"version": "2024-01-01"}, {"tool_choice_fallback": "any"}, {"base_url": "nowhere"}])
def test_an_option_that_means_nothing_stops_the_start(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        provider(**wrong)


def test_a_relayed_request_has_our_key_in_place_of_the_clients(upstream):
    up = upstream(strict.answer)
    fields = [("Authorization", "Bearer mine"), ("X-Api-Key", "mine"), ("anthropic-version", OLD), ("X-Other", "1")]
    with provider(base_url=up.url).relay("GET", "/v1/models?limit=1", fields, b"", Scope()) as exchange:
        assert b"claude-opus-5-5" in b"".join(exchange.blocks())
    asked = up.asked[0]
    assert asked.target == "/v1/models?limit=1"
    assert (asked.headers["x-api-key"], asked.headers["x-other"]) == ("sk-key", "1")
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    ("words", "code"), [("error 429 spend", "insufficient_quota"), ("error 529", "provider_overloaded")]
)
def test_trouble_before_the_first_word_has_a_status(upstream, words, code):
    asked = provider(base_url=upstream(strict.answer).url)
    for streams in (False, True):
        with pytest.raises(UpstreamError) as caught:
            parts_of(asked, {"model": OPUS, "messages": [user(words)], "stream": streams})
        assert (caught.value.code, caught.value.provider) == (code, "anthropic")


# in a client's own words


def own_words(call_path="/messages", query="beta=true", headers=(("anthropic-beta", "b1"),), **body):
    """Give the call of a client of Anthropic's, which also says what the canonical form has no words for."""
    written = {"model": "anthropic/m", "max_tokens": 5, "messages": [user("hi")], "news": [1, None], **body}
    chat = {"model": OPUS, "messages": [user("hi")], **({"stream": True} if body.get("stream") else {})}
    return written, Call({**chat, "_anthropic": Pocket(written, headers, query, call_path)})


def test_a_clients_own_words_are_sent_and_anthropics_come_with_the_answer(wire):
    body, call = own_words(max_tokens=64000)
    came = {**golden("message_thinking")["came"], "news": {"a": 1}}
    headers = {"anthropic-beta": "b1", "anthropic-version": NEW, "x-api-key": "sk-key"}
    wire.expect("POST", f"{URL}/messages?beta=true", {**body, "model": OPUS}, headers, json=came)
    (whole,) = [part for part in provider().chat(call) if part]
    assert whole["_anthropic"] == came
    assert whole["choices"][0]["message"]["content"] == "Two."
    assert call.scope.warnings == {}


def test_a_clients_own_version_is_asked_for(wire):
    body, call = own_words(headers=(("Anthropic-Version", "2030-01-01"),), query="", temperature=0.5)
    headers = {"anthropic-version": "2030-01-01"}
    wire.expect("POST", f"{URL}/messages", {**body, "model": OPUS}, headers, json=golden("message_plain")["came"])
    assert len([part for part in provider(version=OLD).chat(call) if part]) == 1


def test_each_event_comes_with_the_part_it_made(wire):
    body, call = own_words(stream=True, query="")
    came = golden("stream_tools")["came"]
    wire.expect("POST", f"{URL}/messages", {**body, "model": OPUS}, body=came.encode())
    parts = [part for part in provider().chat(call) if part]
    events = [json.loads(line[6:]) for line in came.splitlines() if line.startswith("data: ")]
    assert [event for part in parts for event in part.get("_anthropic", ())] == events
    plain = [{k: v for k, v in part.items() if k != "_anthropic"} for part in parts if part.get("choices")]
    assert added_up([*plain, parts[-1]])["choices"][0]["finish_reason"] == "tool_calls"


def test_thoughts_of_a_client_of_its_own_are_remembered_too():
    asked = provider()
    kept = []
    asked.memory.keep = lambda ids, details: kept.append((list(ids), details))
    _, call = own_words()
    asked._door.send = lambda *_: Document(golden("message_tools")["came"])
    assert [part for part in asked.chat(call) if part]
    assert kept == [(["toolu_fxA1", "toolu_fxA2"], [])]


class Document:
    """Stands in for an exchange that gives one document."""

    def __init__(self, document):
        self._document = document

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def document(self):
        yield PAUSE
        return self._document


def test_a_clients_own_words_are_counted(wire):
    body, call = own_words("/messages/count_tokens")
    wire.expect("POST", f"{URL}/messages/count_tokens?beta=true", {**body, "model": OPUS}, json={"input_tokens": 7})
    assert provider().count_tokens(call) == 7


@pytest.mark.parametrize("pocket", [None, Pocket({})])
def test_one_model_is_described(wire, pocket):
    (item, *_) = golden("models_page1")["data"]
    wire.expect("GET", f"{URL}/models/{OPUS}", json=item)
    told = provider().describe(Call({"model": OPUS, **({"_anthropic": pocket} if pocket else {})}))
    assert (told["id"], told["context_length"], told.get("_anthropic")) == (OPUS, 1000000, item if pocket else None)


def test_the_details_of_an_error_are_kept_for_clients_of_its_own():
    error = _anthropic_answer.worded("a", 429, {}, golden("error_429_spend"))
    assert error.own == {"anthropic": {"error_code": "enforced_spend_limit_reached"}}
    assert _anthropic_answer.worded("a", 429, {}, golden("error_429")).own == {}
