"""What is promised of `plugins/anthropic_api.py`: Anthropic's clients find an Anthropic, whoever answers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from conftest import settled
from conversations import CONVERSATIONS, MODELS, TOOLS, message, result, user, wish
from dialects import own
from dialects.anthropic import Anthropic, added_up, events_of
from plugins import Request, written
from plugins._anthropic_answer import PING, answer, error_of, events, speak, spelled
from plugins._anthropic_question import COUNT, MESSAGES, question
from plugins._state import opened, sealed
from plugins.anthropic_api import AnthropicAPI, own_path, page_of
from plugins.auth import sign
from providers import PAUSE, Pocket, Provider, Trouble, UpstreamError, _canonical
from providers._http import Fields
from strict import anthropic as strict_anthropic
from strict import gemini as strict_gemini
from strict import lmstudio as strict_lmstudio
from strict import ollama as strict_ollama
from strict import openai as strict_openai
from upstream import Reply, json_reply
from witness import in_order, untold

GOLDEN = Path(__file__).parent / "golden" / "anthropic_api"
HELLO = {"role": "user", "content": "hi"}
ASKED = {"model": "up/m", "max_tokens": 9, "messages": [HELLO]}
DETAIL = {"provider": "up", "model": "m", "index": 0, "type": "reasoning_item", "encrypted_content": "e"}
USAGE = _canonical.usage(30, 5, cached=7, cache_write=3, reasoning=2)


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def every(kind):
    return pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob(f"{kind}_*.json")))


def unsealed(value):
    """Open all that is sealed: how it is packed may differ from machine to machine."""
    if isinstance(value, dict):
        return {name: unsealed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [unsealed(one) for one in value]
    details = opened(value)
    return value if details is None else {"sealed": details}


class Up(Provider):
    """Gives a script, and keeps what it was asked."""

    names = ("up",)

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

    def survey(self, scope, provider=""):
        return [{"id": f"up/{n}", "created": 86400, "context_length": 7} for n in range(45)], {"down": "no answer"}

    def describe(self, call):
        return {"id": call.model, "created": 0}


def ask(up, body, path="/messages", method="POST", headers=()):
    """Ask; gives the response, its body whole."""
    plugin = AnthropicAPI({"heartbeat": 15.0}, up)
    data = json.dumps(body).encode()
    fields = Fields([("content-type", "application/json"), *headers])
    request = Request(method, f"/llm/v1{path}", fields, read=data)
    request.id = "r1"
    route = f"{method} {request.path}"
    try:
        response = settled(plugin.routes().get(route, plugin.routes()["GET /llm/v1/models/*"])(request))
    except Trouble as trouble:
        trouble.request = request.id
        response = plugin.error(trouble)
    if not isinstance(response.body, bytes):
        response.body = b"".join(response.body)
    return response


def document(response):
    return response.status, json.loads(response.body)


def asked(**body):
    return question({**ASKED, **body}, [], "", MESSAGES).asked


def chat_of(**body):
    """Give the fields of a chat besides those that every one has."""
    usual = asked().chat
    return {name: value for name, value in asked(**body).chat.items() if usual.get(name) != value}


def message_of(content, role="user", **more):
    chat = asked(messages=[{"role": role, "content": content}], **more).chat
    return chat["messages"]


def text(words):
    return {"type": "text", "text": words}


def parts(*deltas, finish="stop", **end):
    make = _canonical.Chunks("c1", "up/m")
    made = [make.delta(delta) if delta else PAUSE for delta in deltas]
    last = make.delta({}, finish)
    last["choices"][0].update(end)
    return [make.role(), *made, last, make.usage(USAGE)]


def started(index, id_="a"):
    return {"tool_calls": [{"index": index, "id": id_, "type": "function", "function": {"name": "f", "arguments": ""}}]}


def going_on(index, words):
    return {"tool_calls": [{"index": index, "function": {"arguments": words}}]}


def blocks(*deltas, shows=True, **end):
    """Give the blocks that a stream adds up to; their order and their ends are looked at on the way."""
    return unsealed(added_up([one for one in events(parts(*deltas, **end), shows=shows) if one])["content"])


# questions


@every("question")
def test_a_golden_question_stays_as_it_is(name):
    told = golden(name)
    turned = question(told["asked"], [], "", MESSAGES)
    chat, pocket = turned.asked
    assert {**chat, "_hints": list(chat["_hints"])} == told["chat"]
    assert (turned.origins, pocket.losses, pocket.musts) == (told["origins"], told["losses"], told["musts"])
    assert pocket.body == told["asked"]


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        ({"stop_sequences": []}, {}),
        ({"top_k": 4, "stream": True, "temperature": None}, {"top_k": 4, "stream": True}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "between_tools"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "adaptive"}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            {"reasoning_effort": "low", "thinking_budget": 2048},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9000}},
            {"reasoning_effort": "medium", "thinking_budget": 9000},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9000}, "output_config": {"effort": "max"}},
            {"reasoning_effort": "max", "thinking_budget": 9000},
        ),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"tools": [{"name": "f"}]}, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ({"metadata": {"user_id": "u"}}, {"safety_identifier": "u"}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        (
            {"output_format": {"type": "json_schema", "schema": {"type": "string"}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": {"type": "string"}, "strict": True},
                }
            },
        ),
    ],
)
def test_a_field_is_translated(body, canonical):
    assert chat_of(**body) == canonical
    assert (asked(**body).pocket.losses, asked(**body).pocket.musts) == ({}, {})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"speed": "fast"}, "speed"),
        ({"cache_control": {"type": "ephemeral"}}, "cache_control"),
        ({"system": [{**text("x"), "cache_control": {"type": "ephemeral"}}]}, "cache_control"),
        ({"messages": [{"role": "user", "content": [{**text("x"), "cache_control": {}}]}]}, "cache_control"),
        ({"thinking": {"type": "sudden"}}, "thinking"),
        ({"thinking": {"type": "adaptive", "mood": "good"}}, "thinking.mood"),
        ({"output_config": {"effort": "ultra"}}, "output_config.effort"),
        ({"output_config": {"tone": "low"}}, "output_config.tone"),
        ({"tool_choice": {"type": "best"}}, "tool_choice"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"metadata": {"team": "a"}}, "metadata.team"),
        ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}, "tools.defer_loading"),
        ({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}]}]}, "server_tool_use"),
    ],
)
def test_a_hint_that_only_anthropic_takes_is_told_as_lost(body, field):
    assert list(asked(**body).pocket.losses) == [field]
    assert asked(**body).pocket.musts == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"container": {"id": "x"}}, "container"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"system": [{"type": "hologram"}]}, "system[0].type"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools[0].type"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format"),
        ({"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]}, "messages[0].content[0].type"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file"}}]}]},
            "messages[0].content[0].source.type",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "smell"}]}],
                    }
                ]
            },
            "messages[0].content[0].content[0].type",
        ),
    ],
)
def test_what_only_anthropic_can_do_must_not_be_dropped(body, field):
    assert list(asked(**body).pocket.musts) == [field]


@pytest.mark.parametrize("empty", [{"mcp_servers": []}, {"container": ""}, {"thread": None}])
def test_what_asks_for_nothing_loses_nothing(empty):
    assert (asked(**empty).pocket.losses, asked(**empty).pocket.musts) == ({}, {})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": None}, "model: is required"),
        ({"max_tokens": None}, "max_tokens: is required"),
        ({"max_tokens": "9"}, "max_tokens: must be an integer"),
        ({"messages": []}, "messages: must not be empty"),
        ({"messages": ["hi"]}, "messages[0]: must be an object"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role: must be one of system, user, assistant"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: is required"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content: must be a string or a list of blocks"),
        ({"messages": [HELLO, {"role": "user", "content": [{}]}]}, "messages[1].content[0].type: is required"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text: is required"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}]},
            "messages[0].content[0].source.url: is required",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": "{}"}]}
                ]
            },
            "messages[0].content[0].input: must be an object",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id: is required",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "search_result", "content": [{"type": "document"}]}]}]},
            "messages[0].content[0].content[0].source: is required",
        ),
        ({"system": 5}, "system: must be a string or a list of blocks"),
        ({"system": [{"type": "text", "text": 5}]}, "system[0].text: must be a string"),
        ({"tools": {}}, "tools: must be a list"),
        ({"tools": [{"name": ""}]}, "tools[0].name: must not be empty"),
        ({"tools": [{"name": "f", "input_schema": []}]}, "tools[0].input_schema: must be an object"),
        ({"tool_choice": "auto"}, "tool_choice: must be an object"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.function.name"),
        ({"thinking": {"type": "enabled", "budget_tokens": "x"}}, "thinking.budget_tokens: must be an integer"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema: is required"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id: must be a string"),
        ({"stop_sequences": "END"}, "stop_sequences: must be a list"),
        ({"stop_sequences": [1]}, "stop_sequences[0]: must be a string"),
        ({"temperature": 3}, "temperature: must be between 0 and 2"),
        ({"stream": "yes"}, "stream: must be true or false"),
    ],
)
def test_a_wrong_field_is_named_as_the_client_wrote_it(body, words):
    status, told = document(ask(Up(), {**ASKED, **body}))
    assert (status, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")
    assert told["error"]["message"].startswith(words)
    assert told["request_id"] == "r1"


LINE = "x-anthropic-billing-header: cc_version=2.1; cch=%s;"


@pytest.mark.parametrize("form", ["%s\nBe kind.", [LINE, "Be kind."], [LINE + "\nBe kind."]])
def test_the_line_that_differs_from_question_to_question_is_for_anthropic_only(form):
    def system(cch):
        if isinstance(form, str):
            return form % (LINE % cch)
        return [text(one % cch if "%" in one else one) for one in form]

    one, other = (asked(system=system(cch)) for cch in ("fa690", "0b1c2"))
    assert one.chat == {**other.chat}
    assert one.chat["messages"][0] == {"role": "system", "content": "Be kind."}
    assert "fa690" in json.dumps(one.pocket.body["system"])
    assert one.pocket.losses == {}


def test_a_line_like_it_that_the_user_speaks_of_stays():
    words = "What is\nx-anthropic-billing-header: cch=1; ?"
    assert asked(system=words).chat["messages"][0]["content"] == words


def test_a_long_name_of_a_user_becomes_a_short_one_and_stays_the_same():
    ids = [chat_of(metadata={"user_id": name * 70})["safety_identifier"] for name in "aab"]
    assert ids[0] == ids[1] != ids[2]
    assert all(len(id_) <= 64 for id_ in ids)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "required": [], "additionalProperties": False}, False),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [{"type": "object", "additionalProperties": False}]}, True),
        ({"properties": {"a": {}}, "required": 5, "additionalProperties": False}, False),
    ],
)
def test_a_schema_is_strict_only_where_everybody_would_take_it_so(schema, strict):
    tool = {"name": "f", "input_schema": schema, "strict": True}
    format_ = {"format": {"type": "json_schema", "schema": schema}}
    made = asked(tools=[tool], output_config=format_)
    assert ("strict" in made.chat["tools"][0]["function"]) == strict
    assert ("strict" in made.chat["response_format"]["json_schema"]) == strict
    assert list(made.pocket.losses) == ([] if strict else ["tools.strict"])


def test_thoughts_that_were_sealed_are_the_providers_own_again():
    content = [
        {"type": "thinking", "thinking": "hm", "signature": sealed([DETAIL])},
        {"type": "redacted_thinking", "data": sealed([{**DETAIL, "index": 1}])},
        text("So."),
    ]
    (told,) = message_of(content, "assistant")
    assert told["reasoning_details"] == [DETAIL, {**DETAIL, "index": 1}]
    assert told["reasoning_content"] == "hm"


def test_thoughts_of_others_are_not_shown_to_anthropic():
    foreign = [
        {"type": "thinking", "thinking": "hm", "signature": sealed([])},
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "redacted_thinking", "data": sealed([DETAIL])},
    ]
    mine = [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "redacted_thinking", "data": "ZGF0"}]
    said = {"role": "assistant", "content": [*foreign, *mine, text("So.")], "mark": 1}
    body = asked(messages=[HELLO, {"role": "assistant", "content": foreign}, HELLO, said]).pocket.body
    assert body["messages"] == [HELLO, HELLO, {**said, "content": [*mine, text("So.")]}]


def test_ids_of_calls_that_anthropic_would_refuse_are_spelled_otherwise_for_it():
    odd = {"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {}}
    plain = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    results = [{"type": "tool_result", "tool_use_id": id_} for id_ in ("functions.f:0", "toolu_1")]
    turns = [HELLO, {"role": "assistant", "content": [odd, plain]}, {"role": "user", "content": results}]
    made = asked(messages=turns)
    _, said, told = made.pocket.body["messages"]
    ids = [block["id"] for block in said["content"]]
    assert ids == [block["tool_use_id"] for block in told["content"]]
    assert (ids[1], "." in ids[0], ":" in ids[0]) == ("toolu_1", False, False)
    assert [call["id"] for call in made.chat["messages"][1]["tool_calls"]] == ["functions.f:0", "toolu_1"]


def test_a_hidden_thought_has_no_words_whatever_else_stands_in_it():
    odd = {"type": "redacted_thinking", "data": "ZGF0", "thinking": {"not": "words"}}
    turn = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm"}, odd, {"type": "text", "text": "a"}],
    }
    assert asked(messages=[turn]).chat["messages"][0]["reasoning_content"] == "hm"


def test_state_that_somebody_tampered_with_is_refused_and_no_bug():
    wrong = {"type": "redacted_thinking", "data": sealed([{**DETAIL, "index": "first"}])}
    body = {**ASKED, "system": "x", "messages": [HELLO, {"role": "assistant", "content": [wrong]}]}
    status, told = document(ask(Up(), body))
    assert (status, told["error"]["message"]) == (400, "messages[1]: must be an integer")


@pytest.mark.parametrize(
    ("canonical", "told"),
    [
        ("messages[0].content", "system"),
        ("messages[2].content[1].image_url.url", "messages[0]"),
        ("messages[9]", "messages[9]"),
        ("max_completion_tokens", "max_tokens"),
        ("temperature", "temperature"),
        ("", ""),
    ],
)
def test_a_canonical_path_becomes_the_clients(canonical, told):
    assert own_path(canonical, [-1, 0, 0, 1]) == told


def test_trouble_about_a_message_names_the_clients_own():
    refusal = UpstreamError(400, "messages[2].content[0].file: not here", param="messages[2].content[0].file")
    content = [{"type": "tool_result", "tool_use_id": "t"}, text("x")]
    body = {**ASKED, "system": "s", "messages": [{"role": "user", "content": content}]}
    assert document(ask(Up(refusal), body))[1]["error"]["message"] == "messages[0]: not here"


# answers


@every("answer")
def test_a_golden_answer_stays_as_it_is(name):
    told = golden(name)
    assert unsealed(answer(told["completion"], shows=told["shows"])) == told["told"]


@every("stream")
def test_a_golden_stream_stays_as_it_is(name):
    told = golden(name)
    assert unsealed(list(events(told["parts"], shows=told["shows"]))) == told["told"]


def completion(finish="stop", usage=None, **message):
    return _canonical.completion("x1", "up/m", {"content": None, **message}, finish, usage)


@pytest.mark.parametrize(
    ("finish", "more", "end"),
    [
        ("stop", {}, ("end_turn", None)),
        ("stop", {"stop_sequence": "END"}, ("stop_sequence", "END")),
        ("length", {"stop_sequence": "END"}, ("max_tokens", None)),
        ("tool_calls", {}, ("tool_use", None)),
        ("content_filter", {}, ("refusal", None)),
        ("what", {}, ("end_turn", None)),
    ],
)
def test_an_end_is_told_in_anthropics_words(finish, more, end):
    whole = completion(finish, content="x")
    whole["choices"][0].update(more)
    streamed = added_up(list(events(parts({"content": "x"}, finish=finish, **more), shows=False)))
    for told in (answer(whole, shows=False), streamed):
        assert (told["stop_reason"], told["stop_sequence"]) == end
        assert ("stop_details" in told) == (end[0] == "refusal")


def test_usage_tells_the_cache_apart():
    told = answer(completion(usage=USAGE, content="x"), shows=False)["usage"]
    assert told == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 7,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    assert added_up(list(events(parts(), shows=False)))["usage"] == told


@pytest.mark.parametrize(("finish", "text_", "why"), [("stop", "No.", None), ("content_filter", None, "No.")])
def test_a_refusal_in_words_is_said_and_one_in_place_of_an_answer_explained(finish, text_, why):
    streamed = added_up(list(events(parts({"refusal": "N"}, {"refusal": "o."}, finish=finish), shows=False)))
    for told in (answer(completion(finish, refusal="No."), shows=False), streamed):
        assert [block["text"] for block in told["content"]] == ([text_] if text_ else [])
        assert told.get("stop_details", {}).get("explanation") == why


def call(arguments):
    return {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [('{"a":1}', {"a": 1}), ("", {}), ('{"a":', {"_raw": '{"a":'}), ("[1]", {"_raw": "[1]"}), ("[" * 9999, None)],
)
def test_arguments_are_an_object_whatever_the_model_wrote(arguments, told):
    made = answer(completion("tool_calls", tool_calls=[call(arguments)]), shows=False)
    assert made["content"][0]["input"] == ({"_raw": arguments} if told is None else told)


def test_an_image_of_the_models_is_not_lost_in_silence():
    images = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    assert "image" in answer(completion(content="See:", images=images), shows=False)["content"][0]["text"]
    assert "image" in blocks({"content": "See:"}, {"images": images})[0]["text"]


def test_thoughts_are_shown_to_who_asked_for_them_only():
    said = {"reasoning_content": "hm", "content": "So."}
    deltas = [{"reasoning_content": "h"}, {"reasoning_content": "m"}, {"content": "So."}]
    thought = {"type": "thinking", "thinking": "hm", "signature": {"sealed": []}}
    for shows, content in ((True, [thought, text("So.")]), (False, [text("So.")])):
        assert unsealed(answer(completion(**said), shows=shows)["content"]) == content
        assert blocks(*deltas, shows=shows) == content


def test_state_travels_with_calls_also_where_nobody_asked_for_thoughts():
    hidden = {"type": "redacted_thinking", "data": {"sealed": [DETAIL]}}
    used = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    state, begin, arguments = {"reasoning_details": [DETAIL]}, started(0), going_on(0, "{}")
    for deltas in ((state, begin, arguments), (begin, state, arguments), (begin, state, PAUSE, arguments)):
        assert blocks({"content": "So."}, *deltas, shows=False) == [text("So."), hidden, used]
    whole = completion(content="So.", reasoning_details=[DETAIL], tool_calls=[call("{}")])
    assert [block["type"] for block in answer(whole, shows=False)["content"]] == [
        "text",
        "redacted_thinking",
        "tool_use",
    ]
    assert [block["type"] for block in answer(whole, shows=True)["content"]] == [
        "redacted_thinking",
        "text",
        "tool_use",
    ]


def test_who_reads_only_the_first_block_of_an_answer_finds_its_text():
    assert blocks({"reasoning_details": [DETAIL]}, {"content": "So."}, shows=False) == [text("So.")]
    assert answer(completion(content="So.", reasoning_details=[DETAIL]), shows=False)["content"] == [text("So.")]


def test_state_that_comes_late_stands_by_itself():
    late = {"reasoning_details": [DETAIL]}
    told = blocks({"reasoning_content": "hm"}, {"content": "So."}, late, PAUSE, {"reasoning_details": [DETAIL]})
    assert told == [
        {"type": "thinking", "thinking": "hm", "signature": {"sealed": []}},
        text("So."),
        {"type": "redacted_thinking", "data": {"sealed": [DETAIL]}},
        {"type": "redacted_thinking", "data": {"sealed": [DETAIL]}},
    ]


def test_state_that_comes_in_pieces_is_one():
    pieces = [{"reasoning_details": [{**DETAIL, "index": at}]} for at in range(2)]
    for deltas in ((*pieces, started(0)), (started(0), *pieces)):
        told = blocks(*deltas, going_on(0, "{}"))
        assert [block["type"] for block in told] == ["redacted_thinking", "tool_use"]
        assert [detail["index"] for detail in told[0]["data"]["sealed"]] == [0, 1]


def test_calls_that_come_at_the_same_time_are_told_one_after_the_other():
    told = blocks(
        {"content": "Go."},
        started(0, "a"),
        going_on(0, '{"x":'),
        started(1, "b"),
        going_on(1, '{"y":2'),
        PAUSE,
        going_on(0, "{}}"),
        {"content": "And."},
        PAUSE,
        going_on(1, "}"),
        finish="tool_calls",
    )
    assert told == [
        text("Go."),
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": {}}},
        {"type": "tool_use", "id": "b", "name": "f", "input": {"y": 2}},
        text("And."),
    ]


def test_a_call_is_told_as_it_comes():
    coming = events(parts(started(0), going_on(0, '{"a":'), PAUSE, going_on(0, "1}"), PAUSE), shows=False)
    seen = [one.get("delta", {}).get("partial_json", "") if one else "pause" for one in coming]
    assert [one for one in seen if one] == ['{"a":', "pause", "1}", "pause"]


def test_a_pause_sends_all_that_is_known():
    told = list(speak([PAUSE, *parts({"content": "a"}, PAUSE, {"content": "b"}, {"content": "c"})], shows=False))
    pauses = [at for at, one in enumerate(told) if not one]
    assert pauses[0] == 0
    assert b'"text":"a"' in b"".join(told[: pauses[1]])
    assert events_of(b"".join(told).decode())[-1] == {"type": "message_stop"}


def test_an_answer_of_nothing_is_a_good_one():
    assert added_up(list(events(parts(), shows=False)))["stop_reason"] == "end_turn"
    assert blocks() == []
    assert list(events([PAUSE], shows=False)) == [{}]


# trouble


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 401, "authentication_error"),
        (402, 402, "billing_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (405, 405, "invalid_request_error"),
        (409, 409, "conflict_error"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (502, 502, "api_error"),
        (503, 529, "overloaded_error"),
        (504, 504, "timeout_error"),
    ],
)
def test_trouble_has_anthropics_status_and_type(status, told, kind):
    response = ask(Up(Trouble(status, "no", {"Retry-After": "3"})), ASKED)
    assert document(response) == (
        told,
        {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "r1"},
    )
    assert dict(response.headers) == {"Retry-After": "3", "request-id": "r1", "Content-Type": "application/json"}


@pytest.mark.parametrize("words", ["too hot", "temperature: too hot"])
def test_trouble_names_its_field_once(words):
    trouble = Trouble(400, words, param="temperature")
    assert error_of(trouble)["error"]["message"] == "temperature: too hot"


def test_money_is_nothing_to_try_again():
    response = ask(Up(UpstreamError(429, "no", code="insufficient_quota")), ASKED)
    assert dict(response.headers)["x-should-retry"] == "false"
    assert document(response)[1]["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}


def test_a_conversation_that_is_too_long_is_told_in_the_words_clients_look_for():
    for message_, told in (("too many", "prompt is too long: too many"), ("prompt is too long", "prompt is too long")):
        assert error_of(UpstreamError(400, message_, code="context_length_exceeded"))["error"]["message"] == told


def test_details_of_anthropics_own_are_passed_on():
    trouble = UpstreamError(429, "no")
    trouble.own["anthropic"] = {"error_code": "rate_limited", "x": 1}
    assert error_of(trouble)["error"]["details"] == {"error_code": "rate_limited", "x": 1}


def test_a_client_that_wants_its_conversation_remembered_learns_that_it_is_not():
    details = error_of(UpstreamError(400, "no", code="unsupported_parameter", param="thread"))["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def test_trouble_under_way_is_an_event_and_the_end():
    said = parts({"content": "So"})[:-2]
    response = ask(Up(*said, UpstreamError(502, "cut", code="stream_truncated")), {**ASKED, "stream": True})
    assert (response.status, dict(response.headers)["request-id"]) == (200, "r1")
    told = events_of(response.body.decode())
    assert (told[-1]["error"], told[-1]["request_id"]) == ({"type": "api_error", "message": "cut"}, "r1")
    assert added_up(told)["_state"] == "inside"


def test_trouble_before_the_first_word_has_its_status():
    assert ask(Up(PAUSE, Trouble(503, "no")), {**ASKED, "stream": True}).status == 529


# what is served


def test_a_whole_answer_is_one_message():
    up = Up(PAUSE, completion(content="So."))
    status, told = document(ask(up, ASKED, headers=[("anthropic-beta", "b1,b2"), ("x-other", "y")]))
    assert (status, told["content"], told["id"], told["model"]) == (200, [text("So.")], "msg_x1", "up/m")
    pocket = up.asked[0]["_anthropic"]
    assert isinstance(pocket, Pocket)
    assert (pocket.body, pocket.headers, pocket.path) == (ASKED, [("anthropic-beta", "b1,b2")], MESSAGES)


def test_what_a_provider_of_the_same_dialect_says_is_passed_on_as_it_is():
    raw = {"id": "msg_1", "news": [1], "content": []}
    assert document(ask(Up({**completion(content="x"), "_anthropic": raw}), ASKED)) == (200, raw)
    own_events = [{"type": "message_start", "x": 1}, {"type": "new\nthing", "y": 2}]
    stream = ask(Up({"_anthropic": own_events}, PAUSE, {"choices": []}), {**ASKED, "stream": True})
    first, second = (json.dumps(one, separators=(",", ":")).encode() for one in own_events)
    assert stream.body == b"event: message_start\ndata: %s\n\nevent: newthing\ndata: %s\n\n" % (first, second)


def test_a_silence_is_broken_by_a_ping():
    plugin = AnthropicAPI({"heartbeat": 0.0}, Up(PAUSE, PAUSE, *parts({"content": "x"})))
    data = json.dumps({**ASKED, "stream": True}).encode()
    request = Request("POST", "/llm/v1/messages", Fields([("content-type", "application/json")]), read=data)
    body = b"".join(plugin.chatted(request).body)
    assert body.startswith(PING)
    assert events_of(body.decode())[-1] == {"type": "message_stop"}


def test_tokens_are_counted_or_guessed():
    class Counting(Up):
        def count_tokens(self, call):
            self.asked.append(call)
            return 42

    body = {"model": "up/m", "messages": [{"role": "user", "content": "x" * 40}]}
    counting = Counting()
    response = ask(counting, body, COUNT)
    assert document(response) == (200, {"input_tokens": 42})
    assert counting.asked[0].chat["_anthropic"].path == COUNT
    guess = ask(Up(), body, COUNT)
    assert document(guess)[1]["input_tokens"] > 10
    assert "input_tokens=estimated" in dict(guess.headers)["x-llmproxy-warnings"]


def test_models_are_listed_by_pages():
    status, page = document(ask(Up(), None, "/models", "GET"))
    assert (status, len(page["data"]), page["has_more"]) == (200, 20, True)
    assert (page["first_id"], page["last_id"]) == ("up/0", "up/19")
    assert page["data"][0] == {
        "type": "model",
        "id": "up/0",
        "display_name": "up/0",
        "created_at": "1970-01-02T00:00:00Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "max_input_tokens": 7,
        "max_tokens": None,
        "capabilities": None,
    }


LISTED = [{"id": name} for name in "abcdefg"]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("", "abcdefg", False),
        ("limit=3", "abc", True),
        ("limit=3&after_id=c", "def", True),
        ("limit=3&after_id=d", "efg", False),
        ("after_id=g", "", False),
        ("limit=2&before_id=d", "bc", True),
        ("before_id=c", "ab", False),
        ("before_id=a", "", False),
    ],
)
def test_a_page_is_the_one_that_was_asked_for(query, ids, more):
    page = page_of(LISTED, query)
    assert ("".join(model["id"] for model in page["data"]), page["has_more"]) == (ids, more)
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=%D9%A3", "after_id=z", "before_id=z"])
def test_a_page_that_cannot_be_is_refused(query):
    with pytest.raises(Trouble) as refused:
        page_of(LISTED, query)
    assert refused.value.status == 400


def test_one_model_is_told_of_under_the_name_it_was_asked_by():
    status, told = document(ask(Up(), None, "/models/up%2Fa%3Ab", "GET"))
    assert (status, told["id"], told["created_at"]) == (200, "up/a:b", "1970-01-01T00:00:00Z")


@pytest.mark.parametrize(("headers", "speaks"), [([("anthropic-version", "2023-06-01")], True), ([], False)])
def test_a_request_in_its_language_is_known(headers, speaks):
    request = Request("GET", "/llm/v1/models", Fields(headers))
    assert AnthropicAPI({"heartbeat": 15.0}, Up()).speaks(request) is speaks


# with real providers behind it

STAND_INS = {
    "openai": (strict_openai, "{}/v1", "responses_models = gpt-6"),
    "anthropic": (strict_anthropic, "{}", ""),
    "gemini": (strict_gemini, "{}", ""),
    "ollama": (strict_ollama, "{}", ""),
    "lmstudio": (strict_lmstudio, "{}/v1", ""),
}
KEYS = {"openai": "sk-house", "anthropic": "sk-ant-house", "gemini": "AIza-house"}


def ini_for(ups):
    sections = []
    for name, up in ups.items():
        _, url, more = STAND_INS[name]
        key = f"api_key = {KEYS[name]}\n" if name in KEYS else ""
        sections.append(f"[providers.{name}]\nbase_url = {url.format(up.url)}\n{key}{more}\nretries = 0\n")
    return "".join(sections)


@pytest.fixture
def behind(house, upstream):
    """Give the stand-ins of some providers, and houses before them."""

    def build(*names, houses=1):
        ups = {name: upstream(STAND_INS[name][0].answer) for name in names}
        return ups, [house(ini_for(ups)) for _ in range(houses)]

    return build


def test_anthropic_hears_its_own_clients_own_words_and_they_hear_its(behind):
    ups, (one,) = behind("anthropic")
    made = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-9", "content": [], "news": {"a": 1}}
    made.update(stop_reason="end_turn", stop_sequence=None, usage={"input_tokens": 1, "output_tokens": 2, "odd": 3})
    ups["anthropic"].answer = lambda _: json_reply(made)
    body = {
        **ASKED,
        "model": "anthropic/claude-9",
        "system": [text(LINE % "1"), {**text("Be."), "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "tools": [{"type": "web_search_20260318", "name": "web_search"}],
        "thinking": {"type": "sudden", "depth": 3},
        "messages": [{"role": "user", "content": [{"type": "hologram", "x": [1, None]}]}],
        "context_management": {"edits": []},
        "news": None,
        "max_tokens": 64000,
    }
    headers = {"anthropic-version": "2030-01-01", "anthropic-beta": "b1,b2", "x-api-key": "mine", "X-Stainless-OS": "x"}
    told = one.ask("POST", "/llm/v1/messages?beta=true", body, headers)
    assert (told.status, told.json) == (200, made)
    assert "x-llmproxy-warnings" not in told.headers
    (heard,) = ups["anthropic"].asked
    assert heard.target == "/v1/messages?beta=true"
    assert heard.json == {**body, "model": "claude-9"}
    assert (heard.headers["anthropic-version"], heard.headers["anthropic-beta"]) == ("2030-01-01", "b1,b2")
    assert heard.headers["x-api-key"] == "sk-ant-house"
    assert "mine" not in str(heard.fields)


def test_anthropics_stream_is_passed_on_event_by_event(behind):
    ups, (one,) = behind("anthropic")
    lines = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3}, "new": 1}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "hologram", "light": 1}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "light_delta", "light": 2}},
        {"type": "content_block_stop", "index": 0},
        {"type": "a_new_event", "x": "größe"},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    said = [f"event: {line['type']}\ndata: {json.dumps(line)}\n\n".encode() for line in lines]
    ups["anthropic"].answer = lambda _: Reply(200, {"Content-Type": "text/event-stream"}, said)
    told = one.ask("POST", "/llm/v1/messages", {**ASKED, "model": "anthropic/claude-9", "stream": True})
    assert events_of(told.text) == lines
    assert ups["anthropic"].asked[0].headers["anthropic-version"] == "2026-10-21", "what clients leave out is added"


def test_what_anthropic_counts_and_tells_of_a_model_is_passed_on(behind):
    ups, (one,) = behind("anthropic")
    client = Anthropic(one)
    model = "anthropic/claude-opus-5-5"
    count, warnings = client.count({"model": model, "messages": [user("Hello there.")]})
    assert (count > 0, warnings) == (True, "")
    assert ups["anthropic"].asked[0].target == "/v1/messages/count_tokens?beta=true"
    headers = {"anthropic-version": "2023-06-01", "Authorization": "Bearer x"}
    told = one.ask("GET", f"/llm/v1/models/{model.replace('/', '%2F')}", headers=headers).json
    assert told == {**strict_anthropic.item("claude-opus-5-5"), "id": model}
    missing = one.ask("GET", "/llm/v1/models/anthropic/claude-0", headers=headers)
    assert (missing.status, missing.json["error"]["type"]) == (404, "not_found_error")


def test_the_model_lists_of_three_dialects_share_a_path(behind):
    _, (one,) = behind("lmstudio")
    assert "first_id" in one.ask("GET", "/llm/v1/models", headers={"anthropic-version": "2023-06-01"}).json
    assert one.ask("GET", "/llm/v1/models").json["object"] == "list"


def test_claude_code_finds_somebody_here(behind):
    _, (one,) = behind()
    for path in ("/llm", "/llm/", "/llm/api/hello"):
        told = one.ask("HEAD", path)
        assert (told.status, told.body) == (200, b""), path


def test_claude_code_talks_to_a_model_that_does_not_think(behind):
    """It sends each model more than some can do: what is refused is left out, and told of."""
    ups, (one,) = behind("openai")
    asked_ = golden("question_claude_code")["asked"]
    body = {**asked_, "model": "openai/gpt-4o", "messages": [HELLO], "stream": False}
    told = one.ask("POST", "/llm/v1/messages?beta=true", body, {"anthropic-beta": "claude-code-20250219"})
    assert (told.status, told.json["content"]) == (200, [text("echo: hi")])
    warned = told.headers["x-llmproxy-warnings"]
    assert all(field in warned for field in ("reasoning_effort=refused", "cache_control=", "context_management="))
    sent = ups["openai"].asked[-1].body
    assert b"billing" not in sent
    assert b"anthropic-beta" not in str(ups["openai"].asked[-1].headers).encode()


def test_a_strict_client_is_told_instead(behind):
    ups, (one,) = behind("lmstudio")
    body = {**ASKED, "model": "lmstudio/qwen/qwen3-8b", "cache_control": {"type": "ephemeral"}}
    told = one.ask("POST", "/llm/v1/messages", body, {"x-llmproxy-strict": "true"})
    assert (told.status, "cache_control" in told.json["error"]["message"]) == (400, True)
    assert ups["lmstudio"].asked == []


def test_hosted_tools_are_refused_elsewhere(behind):
    _, (one,) = behind("lmstudio")
    body = {**ASKED, "model": "lmstudio/m", "tools": [{"type": "web_search_20260318", "name": "web_search"}]}
    told = one.ask("POST", "/llm/v1/messages", body)
    assert (told.status, told.json["error"]["message"].startswith("tools[0].type")) == (400, True)
    told = one.ask("POST", "/llm/v1/messages", {**ASKED, "model": "lmstudio/m", "thread": {"type": "create"}})
    assert told.json["error"]["details"]["error_code"] == "thread_unsupported_request"


REFUSED_HERE = {
    "haiku": ("system late", "system last", "effort low", "effort high"),
    "anthropic": ("system late", "effort none"),
}
#: what Anthropic's own clients would not ask of it, and is said elsewhere by other means
OTHERWISE = ("any JSON", "assistant first", "effort none")
CELLS = [
    (name, column)
    for name, one in CONVERSATIONS.items()
    for column in one.only
    if column not in one.refused
    and column not in ("echo", "voyage")
    and not (column in ("anthropic", "haiku") and name in (*OTHERWISE, *REFUSED_HERE[column]))
]


def test_every_conversation_is_led_with_every_provider(behind):
    ups, (one,) = behind(*STAND_INS)
    client = Anthropic(one)
    for name, column in CELLS:
        conversation = CONVERSATIONS[name]
        chat = conversation.asked(column)
        whole, streamed = (client.chat(chat, stream=stream) for stream in (False, True))
        where = (name, column, whole, streamed)
        body = [one for one in ups[MODELS[column].partition("/")[0]].asked if one.path != "/api/show"][-1].json
        assert (whole.status, streamed.status, streamed.ended) == (200, 200, True), where
        assert [call[1:] for call in whole.calls] == list(conversation.calls), where
        assert [call[1:] for call in streamed.calls] == list(conversation.calls), where
        assert (whole.text, whole.reasoning, whole.finish, whole.usage) == (
            streamed.text,
            streamed.reasoning,
            streamed.finish,
            streamed.usage,
        ), where
        assert (whole.finish, min(whole.usage) >= 0) == (conversation.finish, True), where
        assert all(words in whole.text for words in conversation.says), where
        lost = conversation.lost.get(column, ())
        assert [piece for piece in untold(chat, body) if piece not in lost] == [], where
        assert in_order(chat, body), where
        warned = [told.partition("=")[0].strip() for told in whole.warnings.split(",") if told]
        expected = conversation.warned.get(column)
        own_words = column in ("anthropic", "haiku")
        assert warned == ([expected] if expected and not own_words and name != "any JSON" else []), where


def test_what_no_provider_can_do_is_refused_in_anthropics_words(behind):
    _, (one,) = behind("ollama", "lmstudio")
    client = Anthropic(one)
    for name, column in (("picture for the blind", "ollama"), ("document", "ollama"), ("document", "lmstudio")):
        for stream in (False, True):
            told = client.chat(CONVERSATIONS[name].asked(column), stream=stream)
            assert (told.status, told.kind) == (400, "invalid_request_error"), told
            assert told.error.startswith("messages[0]" if name == "document" else ""), told


ROUNDS = [[("getWeather", {"city": "Bern"}), ("clock", {"zone": "UTC"})], [("ping", {})], [("clock", {"zone": "CET"})]]
WISHES = " then ".join("please think and redact and " + " and ".join(wish(*one) for one in calls) for calls in ROUNDS)
THINKERS = ("openai/gpt-6-sol", "anthropic/claude-opus-5-5", "gemini/gemini-3.8-flash", "ollama/qwen3:8b")


def test_rounds_of_tools_keep_their_state_though_nobody_remembers_it(behind):
    """Each round is asked in another house: what a provider wants back has been with the client meanwhile."""
    _, houses = behind(*STAND_INS, houses=2)
    for model, stream, effort in itertools.product(
        [*THINKERS, "lmstudio/qwen/qwen3-8b"], [False, True], [{}, {"reasoning_effort": "high"}]
    ):
        messages = [user(f"{stream} {effort} {WISHES}")]
        chat = {"model": model, **TOOLS, **effort, "messages": messages}
        for at, calls in enumerate([*ROUNDS, []]):
            said = Anthropic(houses[at % 2]).chat(chat, stream=stream)
            assert (said.status, said.error, said.ended) == (200, "", True), (chat, said)
            assert [one[1:] for one in said.calls] == calls, (chat, said)
            messages += [own(said), *(result(id_, f"it is {n}") for n, (id_, _, _) in enumerate(said.calls))]
        assert said.text.startswith("results: "), (chat, said)


def test_a_conversation_goes_on_with_another_model(behind):
    """What was thought at one place is nobody's business at another, and is in nobody's way."""
    _, (one,) = behind(*STAND_INS)
    client = Anthropic(one)
    for first in THINKERS:
        asked_ = {
            "model": first,
            **TOOLS,
            "reasoning_effort": "high",
            "messages": [user(f"please think and {wish('ping', {})}")],
        }
        said = client.chat(asked_)
        assert said.calls, said
        done = [*asked_["messages"], own(said), result(said.calls[0][0], "pong"), message("user", "Thanks.")]
        for second in (model for model in THINKERS if model != first):
            told = client.chat({"model": second, **TOOLS, "messages": done})
            assert told.status == 200, (first, second, told)


def test_an_alias_leads_where_its_clients_insist_on_a_name(house, upstream):
    up = upstream(strict_ollama.answer)
    one = house(f"[models]\nclaude-* = ollama/qwen3:8b\n[providers.ollama]\nbase_url = {up.url}\n")
    told = one.ask("POST", "/llm/v1/messages", {**ASKED, "model": "claude-sonnet-5-5"})
    assert (told.status, told.json["content"]) == (200, [text("echo: hi")])


def test_a_token_is_looked_for_where_anthropics_clients_put_their_key(house):
    secret = "0123456789abcdef0123456789abcdef"
    one = house(f"[plugins.auth]\nenabled = yes\nsecret = {secret}\n")
    for token, told in ((sign({"sub": "ada"}, secret.encode()), (200, None)), ("x", (401, "authentication_error"))):
        for headers in ({"x-api-key": token}, {"Authorization": f"Bearer {token}"}):
            heard = one.ask("POST", "/llm/v1/messages", {**ASKED, "model": "echo/echo"}, headers)
            assert (heard.status, heard.json.get("error", {}).get("type")) == told, heard.text


def test_a_piece_of_text_is_written_as_any_other_event():
    def delta(text, index=0, kind="text_delta", **more):
        return {"type": "content_block_delta", "index": index, "delta": {"type": kind, "text": text, **more}}

    texts = ["", "a", '"', "\\n", "\n", "\x00\x7f", "\xe9", "\u2028", "\ud800", "\U0001f600"]
    others = [
        *(delta("a", index) for index in (1, 127, -1, 10**30, True, 0.0, None, "0", [])),
        *(delta(text) for text in (None, 1, ["a"], {})),
        delta("a", kind="thinking_delta"),
        delta("a", more=None),
        {**delta("a"), "more": 1},
        {**delta("a"), "type": "content_block_start"},
        {"index": 0, **delta("a")},
        {**delta("a"), "delta": {"text": "a", "type": "text_delta"}},
        {**delta("a"), "delta": None},
        {**delta("a"), "delta": "text"},
    ]
    for event in [delta(text) for text in texts] + others:
        assert spelled(event) == b"event: %s\ndata: %s\n\n" % (event["type"].encode(), written(event))


def test_a_refusal_at_the_door_bears_the_requests_id_too(house):
    one = house(f"[plugins.auth]\nenabled = yes\nsecret = {'s' * 32}\n")
    told = one.ask("POST", "/llm/v1/messages", ASKED)
    assert told.status == 401
    assert told.json["request_id"] == told.headers["request-id"] == told.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "told"),
    [
        ("GET", "/llm/v1/messages/batches", {}, ["type", "error", "request_id"]),
        ("GET", "/llm/v1/files?beta=true", {"anthropic-version": "2023-06-01"}, ["type", "error", "request_id"]),
        ("GET", "/llm/v1beta/files", {}, ["code", "message", "status"]),
        ("POST", "/llm/v1beta/cachedContents", {}, ["code", "message", "status"]),
        ("GET", "/llm/v1/files", {"x-goog-api-key": "k"}, ["code", "message", "status"]),
        ("DELETE", "/llm/v1/files/x", {}, ["message", "type", "param", "code"]),
    ],
)
def test_what_is_not_there_is_told_in_the_clients_own_words(house, method, path, headers, told):
    answer = house("").ask(method, path, headers=headers)
    error = answer.json["error"]
    assert (answer.status, [*answer.json] if "request_id" in answer.json else [*error]) == (404, told)
    assert "there is no" in error["message"]
