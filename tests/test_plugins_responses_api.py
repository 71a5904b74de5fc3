"""What is promised of `plugins/responses_api.py`: clients of the Responses API find one, whoever answers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from conftest import settled
from plugins import Refusal, Request
from plugins._responses_answer import Voice
from plugins._responses_question import placed, question
from plugins._responses_tools import Tool
from plugins._state import opened, sealed
from plugins._stream import KEEP_ALIVE
from plugins.responses_api import ResponsesAPI
from providers import PAUSE, Provider, Trouble, UpstreamError
from providers._http import Fields
from strict import anthropic as strict_anthropic
from strict import openai as strict_openai

GOLDEN = Path(__file__).parent / "golden" / "responses_api"
NOW = 1795000309.5
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
HEAD = {"id": "c", "created": 1, "model": "up/m"}
ASKED = {"model": "up/m", "input": "hi"}
TOOL = {"type": "function", "name": "f"}
SPACE = {"type": "namespace", "name": "n"}
STATE = [{"provider": "up", "model": "m", "index": 0, "type": "thinking", "thinking": "t", "signature": "s"}]


def golden(kind):
    return sorted(path.stem for path in GOLDEN.glob(f"{kind}_*.json"))


def read(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def counter():
    """Give ids that are counted."""
    counts = {}

    def new(kind):
        counts[kind] = counts.get(kind, 0) + 1
        return f"{kind}_{counts[kind]}"

    return new


def plain(told):
    """Give a document with its seals broken."""
    if isinstance(told, dict):
        return {key: opened(one) if key == "encrypted_content" else plain(one) for key, one in told.items()}
    return [plain(one) for one in told] if isinstance(told, list) else told


def events(blocks):
    """Give the events of a stream, each with its name before it."""
    told = []
    for event in filter(None, (event for block in blocks for event in block.decode().split("\n\n"))):
        name, data = event.split("\ndata: ")
        told.append(json.loads(data))
        assert name == f"event: {told[-1]['type']}"
    return told


# questions


@pytest.mark.parametrize("name", golden("question"))
def test_a_golden_question_stays_as_it_is(name):
    told = read(name)
    asked = question(told["asked"])
    assert asked.chat == told["chat"]
    assert asked.places == told["places"]
    assert (asked.pocket.losses, asked.pocket.musts) == (told["losses"], told["musts"])
    assert told["asked"] == read(name)["asked"], "what the client wrote is not touched"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].file_id"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": 5}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": [5]}]}, "input[0].summary[0]"),
        ({"instructions": ["x"]}, "instructions"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "n"}]}, "tools[0].tools"),
        ({"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"reasoning": "low"}, "reasoning"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"include": "x"}, "include"),
    ],
)
def test_what_is_wrong_is_refused_by_its_path(body, param):
    with pytest.raises(Refusal) as caught:
        question({**ASKED, **body})
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": None}, "model"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": [{"role": "user", "content": "a"}, {"role": "critic", "content": "x"}]}, "input[1].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": 5}]}]}, "input[0]"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": 5}}}, "text.format.schema"),
        ({"tools": [{"type": "function", "name": "f", "parameters": 5}]}, "tools[0].parameters"),
        ({"tools": [{"type": "web_search"}, {**SPACE, "tools": [{**TOOL, "strict": 1}]}]}, "tools[1].tools[0].strict"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "no", "tools": []}}, "tool_choice.mode"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": " "}}, "tool_choice.name"),
    ],
)
def test_what_is_found_wrong_later_is_named_as_its_client_knows_it(body, param):
    up = Up()
    response, told = ask(up, {**ASKED, **body})
    assert (response.status, told["error"]["param"], up.asked) == (400, param, [])
    assert told["error"]["message"].startswith(f"{param}: ")


def test_canonical_paths_have_a_place_in_what_the_client_wrote():
    places = ["instructions", "input[3]"]
    assert placed("messages[1].content[0].image_url.url", places) == "input[3]"
    assert placed("messages[1].role", places) == "input[3].role"
    assert {placed(param, places) for param in ("messages", "messages[7]", "messages[x]")} == {"input"}
    assert placed("reasoning_effort", places) == "reasoning.effort"
    assert placed("tools[0].type", places) == "tools[0].type"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"reasoning": {"effort": "frantic"}}, "reasoning.effort"),
        ({"text": {"verbosity": "chatty"}}, "text.verbosity"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_smell"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "dream"}]}, "input[0]"),
        ({"tools": [{"type": "telescope"}, {"type": "function", "name": "f"}]}, "tools[0]"),
    ],
)
def test_what_only_openai_may_know_is_left_to_it_and_refused_for_all_others(body, field):
    asked = question({**ASKED, **body})
    assert list(asked.pocket.musts) == [field]
    assert asked.pocket.body == {**ASKED, **body}


def test_what_an_agent_only_offers_is_dropped_and_what_is_asked_for_is_not():
    function, search = {"type": "function", "name": "f"}, {"type": "web_search"}
    offered = question({**ASKED, "tools": [function, search]}).pocket
    assert (list(offered.losses), offered.musts) == (["tools[1]"], {})
    alone = question({**ASKED, "tools": [search]}).pocket
    assert (alone.losses, list(alone.musts)) == ({}, ["tools[0]"])
    required = question({**ASKED, "tools": [search], "tool_choice": "required"})
    assert (list(required.pocket.musts), "tool_choice" in required.chat) == (["tools[0]"], False)
    forced = question({**ASKED, "tools": [function, search], "tool_choice": search}).pocket
    assert list(forced.musts) == ["tool_choice"]


@pytest.mark.parametrize("body", [{"top_logprobs": 2}, {"include": ["message.output_text.logprobs"]}])
def test_the_probability_of_tokens_is_told_whichever_way_it_is_asked_for(body):
    assert question({**ASKED, **body}).chat["logprobs"] is True
    assert "logprobs" not in question({**ASKED, "include": ["reasoning.encrypted_content"]}).chat


def test_a_schema_is_told_without_its_nulls():
    format_ = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "description": None, "strict": None}
    told = question({**ASKED, "text": {"format": format_}}).chat["response_format"]
    assert told == {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}


def test_what_says_no_more_than_leaving_it_out_is_no_loss():
    idle = {"background": None, "truncation": "disabled", "store": True, "conversation": None, "new": None}
    pocket = question({**ASKED, **idle}).pocket
    assert (pocket.losses, pocket.musts) == ({}, {})


def test_a_choice_without_tools_is_none():
    chat = question({**ASKED, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True}).chat
    assert chat.keys() == {"model", "messages"}


def test_what_was_said_here_is_found_by_its_id_and_sent_on_as_itself():
    items = {
        "rs_1": {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed(STATE)},
        "fc_1": {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
    }
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    named = [{"type": "item_reference", "id": "rs_1"}, {"id": "fc_1"}, output]
    asked = question({**ASKED, "input": named}, items.get)
    assert asked.pocket.musts == {}
    assert asked.chat["messages"][0]["reasoning_details"] == STATE
    assert asked.chat["messages"][0]["tool_calls"][0]["id"] == "c"
    assert asked.pocket.body["input"] == [items["fc_1"], output], "our seal is no seal of OpenAI's"


def test_what_a_client_tells_itself_is_taken_as_it_tells_it():
    kept = {"type": "message", "role": "assistant", "content": "as it was"}
    items = [
        {"type": "message", "role": "user", "id": "m", "content": "a"},
        {"role": "user", "id": "m", "content": "b"},
    ]
    asked = question({**ASKED, "input": items}, lambda _: kept)
    assert [message["content"] for message in asked.chat["messages"]] == ["a", "b"]


def test_the_reasoning_of_another_is_for_itself_only():
    foreign = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "gAAAA"}
    asked = question({**ASKED, "input": [{"role": "user", "content": "a"}, foreign, {"role": "user", "content": "b"}]})
    assert [message["role"] for message in asked.chat["messages"]] == ["user", "user"]
    assert foreign in asked.pocket.body["input"]


def test_a_long_name_in_a_namespace_is_cut_and_still_its_own():
    tools = [
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f" * 70 + end} for end in "ab"]}
    ]
    names = [tool["function"]["name"] for tool in question({**ASKED, "tools": tools}).chat["tools"]]
    assert len(set(names)) == 2
    assert all(len(name) <= 64 for name in names)


@pytest.mark.parametrize("format_", [{}, {"format": {"type": "text"}}, {"format": None}])
def test_a_custom_tool_without_a_grammar_is_described_as_it_is(format_):
    tools = [{"type": "custom", "name": "c", "description": "Does it.", **format_}]
    (tool,) = question({**ASKED, "tools": tools}).chat["tools"]
    assert tool["function"]["description"] == "Does it."


# answers


@pytest.mark.parametrize("name", golden("answer"))
def test_a_golden_answer_stays_as_it_is(name):
    told = read(name)
    tools = {flat: Tool(*tool) for flat, tool in told["tools"].items()}
    kept = []
    voice = Voice(told["asked"], tools, kept.extend, counter(), lambda: NOW)
    said = events(voice.speak(copy.deepcopy(told["parts"])))
    assert plain(said) == told["events"]
    assert kept == said[-1]["response"]["output"]
    whole = Voice(told["asked"], tools, new=counter(), clock=lambda: NOW).answer(copy.deepcopy(told["completion"]))
    assert plain(whole) == told["response"]


@pytest.mark.parametrize("name", golden("answer"))
def test_a_pause_is_passed_on_at_once(name):
    parts = read(name)["parts"]
    blocks = Voice({}, {}).speak(part for one in parts for part in (one, PAUSE))
    assert list(blocks).count(b"") >= len(parts)


def test_a_response_repeats_what_was_asked():
    asked = {
        "instructions": "Be brief.",
        "text": {"format": {"type": "json_object"}, "verbosity": None},
        "reasoning": {"effort": "low"},
        "temperature": 0,
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": None}],
    }
    told = Voice({**ASKED, **asked}, {}, clock=lambda: NOW).answer({**whole({"content": "x"}), "service_tier": "flex"})
    assert {name: told[name] for name in asked} == {
        **asked,
        "text": {"format": {"type": "json_object"}, "verbosity": "medium"},
        "reasoning": {"effort": "low", "summary": None},
    }
    assert (told["service_tier"], told["created_at"], told["completed_at"]) == ("flex", 1, int(NOW))


def test_what_was_complete_before_an_answer_broke_off_is_told():
    voice = Voice(ASKED, {})
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    for _ in voice.speak([part({"content": "a"}), part({"tool_calls": [call]})]):
        if voice.output.items():
            break
    _, event = events([voice.failed(Trouble(502, "x"))])
    assert [item["type"] for item in event["response"]["output"]] == ["message"]


def test_what_comes_for_a_call_that_is_over_is_not_told():
    def call(at, arguments, **more):
        return part({"tool_calls": [{"index": at, "function": {"arguments": arguments, **more}, "id": f"c{at}"}]})

    parts = [
        call(0, "{}", name="f"),
        call(1, '{"a":', name="g"),
        call(0, "late"),
        call(1, "1}"),
        part({}, "tool_calls"),
    ]
    said = events(Voice(ASKED, {}).speak(parts))
    assert [item["arguments"] for item in said[-1]["response"]["output"]] == ["{}", '{"a":1}']
    assert "late" not in json.dumps(said)


def test_every_id_is_its_own():
    voices = [Voice(ASKED, {}).answer(whole({"content": "x"})) for _ in range(2)]
    ids = {one for told in voices for one in (told["id"], told["output"][0]["id"])}
    assert len(ids) == 4


def test_a_custom_tools_input_survives_arguments_that_are_no_json():
    for arguments, told in (
        ('{"input": "a"}', "a"),
        ("plain", "plain"),
        ('"x"', "x"),
        ('{"a": 1}', '{"a": 1}'),
        ("", ""),
    ):
        function = {"name": "f", "arguments": arguments}
        answer = Voice({}, {"f": Tool("f", "", True)}).answer(
            whole({"tool_calls": [{"id": "c", "function": function}]})
        )
        assert (answer["output"][0]["input"], answer["output"][0]["call_id"]) == (told, "c")


def test_an_answer_that_breaks_off_is_a_failed_response():
    voice = Voice(ASKED, {}, new=counter(), clock=lambda: NOW)
    before = events(voice.speak([part({"role": "assistant", "content": ""}), part({"content": "a"})]))[:-4]
    voice = Voice(ASKED, {}, new=counter(), clock=lambda: NOW)

    def broken():
        yield part({"role": "assistant", "content": ""})
        yield part({"content": "a"})
        raise UpstreamError(429, "too many", code="rate_limit_exceeded")

    said = []
    with pytest.raises(UpstreamError) as caught:
        said.extend(voice.speak(broken()))
    error, last = events([voice.failed(caught.value)])
    assert events(said) == before
    words = {"code": "rate_limit_exceeded", "message": "too many", "param": None}
    nested = {"type": "rate_limit_error", **words}
    assert error == {"type": "error", **words, "error": nested, "sequence_number": len(before)}
    assert (last["type"], last["sequence_number"]) == ("response.failed", len(before) + 1)
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "rate_limit_exceeded", "message": "too many"}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("context_length_exceeded", "context_length_exceeded"),
        ("insufficient_quota", "insufficient_quota"),
        ("provider_overloaded", "server_is_overloaded"),
        ("stream_truncated", "server_error"),
        (None, "server_error"),
    ],
)
def test_trouble_under_way_has_the_codes_that_clients_know(code, told):
    voice = Voice(ASKED, {})
    next(voice.speak([part({"content": "a"})]))
    error, event = events([voice.failed(Trouble(502, "x", code=code))])
    assert error["code"] == code
    assert event["response"]["error"]["code"] == told


def test_trouble_before_the_response_has_begun_is_an_error_of_its_own():
    (event,) = events([Voice(ASKED, {}).failed(Trouble(502, "x", code="c"))])
    words = {"code": "c", "message": "x", "param": None}
    assert event == {"type": "error", **words, "error": {"type": "api_error", **words}, "sequence_number": 0}


# served


class Up(Provider):
    """Gives a script, and keeps what it was asked."""

    def __init__(self, *script, tokens=None):
        super().__init__("up", {})
        self.script = script
        self.tokens = tokens
        self.asked = []

    def chat(self, call):
        self.asked.append(call.chat)
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            yield item

    def count_tokens(self, call):
        self.asked.append(call.chat)
        return super().count_tokens(call) if self.tokens is None else self.tokens


def whole(message, finish="stop"):
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}]
    return {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE}


def part(delta, finish=None):
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {**HEAD, "object": "chat.completion.chunk", "choices": choices}


def through(plugin, body, route="POST /llm/v1/responses", target="", user="", **headers):
    data = json.dumps(body).encode()
    method, _, path = route.partition(" ")
    fields = Fields({"Content-Type": "application/json", **headers}.items())
    request = Request(method, target or path, fields, read=data)
    request.user = user
    try:
        response = settled(plugin.routes()[route](request))
    except Trouble as trouble:
        response = plugin.error(trouble)
    if isinstance(response.body, bytes):
        return response, json.loads(response.body)
    return response, b"".join(response.body).decode()


def ask(up, body, route="POST /llm/v1/responses", heartbeat=15.0, **more):
    return through(ResponsesAPI({"heartbeat": heartbeat}, up), body, route, **more)


def streamed(*script, **body):
    response, text = ask(Up(*script), {**ASKED, "stream": True, **body})
    assert dict(response.headers)["Content-Type"] == "text/event-stream"
    assert "[DONE]" not in text
    return events(text.encode().split(b"\n\n"))


def test_a_question_is_answered_whole():
    response, told = ask(Up(PAUSE, whole({"content": "x"})), {**ASKED, "metadata": {"a": "b"}})
    assert response.status == 200
    assert (told["object"], told["status"], told["model"]) == ("response", "completed", "up/m")
    assert told["output"][0]["content"][0]["text"] == "x"
    assert told["metadata"] == {"a": "b"}


def test_a_question_is_answered_as_a_stream():
    said = streamed(
        PAUSE, part({"content": "a"}), PAUSE, part({"content": "b"}, "stop"), {**HEAD, "choices": [], "usage": USAGE}
    )
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    assert [event["delta"] for event in said if event["type"] == "response.output_text.delta"] == ["a", "b"]
    assert said[-1]["response"]["usage"]["total_tokens"] == 5


def test_a_stream_that_breaks_off_ends_with_a_failed_response():
    said = streamed(part({"content": "a"}), UpstreamError(502, "cut", code="stream_truncated"))
    assert [event["type"] for event in said][-2:] == ["error", "response.failed"]
    assert "response.completed" not in [event["type"] for event in said]


def test_trouble_before_the_first_part_has_its_status():
    for stream in (True, False):
        response, told = ask(Up(UpstreamError(503, "busy", code="provider_overloaded")), {**ASKED, "stream": stream})
        assert (response.status, told["error"]["type"]) == (503, "overloaded_error")


def test_a_silence_has_comments_for_life_signs():
    script = PAUSE, PAUSE, part({"content": "a"}, "stop")
    assert ask(Up(*script), {**ASKED, "stream": True}, heartbeat=0.0)[1].startswith(KEEP_ALIVE.decode())


def test_an_upstream_of_its_own_is_passed_on_with_its_own_numbers_to_the_last():
    begun = {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_9", "status": "in_progress"}}
    odd = {"type": "response.new", "sequence_number": 4, "obfuscation": "x"}
    said = streamed({**part({"content": "a"}), "_responses": [begun, odd]}, PAUSE, UpstreamError(502, "cut"))
    assert said[:2] == [begun, odd]
    assert [(event["type"], event["sequence_number"]) for event in said[2:]] == [("error", 5), ("response.failed", 6)]
    assert said[3]["response"] == {
        "id": "resp_9",
        "status": "failed",
        "error": {"code": "server_error", "message": "cut"},
        "output": [],
    }
    own = {**whole({"content": "x"}), "_responses": {"object": "response", "id": "resp_9"}}
    assert ask(Up(own), ASKED)[1] == {"object": "response", "id": "resp_9"}


def test_the_clients_words_go_with_the_question_and_some_of_its_headers():
    up = Up(whole({"content": "x"}))
    ask(up, {**ASKED, "new": 1}, **{"OpenAI-Beta": "b=v1", "Authorization": "Bearer x"})
    pocket = up.asked[0]["_responses"]
    assert pocket.body == {**ASKED, "new": 1}
    assert pocket.headers == [("openai-beta", "b=v1")]
    assert list(pocket.losses) == ["new"]
    assert up.asked[0]["_hints"] == ("reasoning_effort",), "which agents send to any model"


def test_custom_tools_and_namespaces_come_back_as_what_they_were():
    tools = [
        {"type": "custom", "name": "patch"},
        {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "read"}]},
    ]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "patch", "arguments": '{"input": "x"}'}},
        {"id": "c2", "type": "function", "function": {"name": "ns__read", "arguments": "{}"}},
    ]
    _, told = ask(Up(whole({"tool_calls": calls}, "tool_calls")), {**ASKED, "tools": tools})
    assert [item["type"] for item in told["output"]] == ["custom_tool_call", "function_call"]
    assert [(item["name"], item.get("namespace")) for item in told["output"]] == [("patch", None), ("read", "ns")]


def test_a_client_may_go_on_by_naming_what_was_said_but_not_what_was_said_to_another():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    up = Up(whole({"reasoning_content": "t", "reasoning_details": STATE, "tool_calls": [call]}, "tool_calls"))
    plugin = ResponsesAPI({"heartbeat": 15.0}, up)
    _, told = through(plugin, ASKED, user="ann")
    named = [{"type": "item_reference", "id": item["id"]} for item in told["output"]]
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    through(plugin, {**ASKED, "input": [*named, output]}, user="ann")
    assert up.asked[-1]["messages"][0]["reasoning_details"] == STATE
    assert up.asked[-1]["_responses"].musts == {}
    renewed = ResponsesAPI({"heartbeat": 15.0}, up)
    renewed.follow(plugin)
    through(renewed, {**ASKED, "input": [*named, output]}, user="ann")
    assert up.asked[-1]["_responses"].musts == {}, "a reload forgets nothing"
    through(plugin, {**ASKED, "input": [*named, output]}, user="bob")
    assert list(up.asked[-1]["_responses"].musts) == ["input[0]", "input[1]"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_question_that_only_warms_up_is_answered_with_nothing_and_nobody_is_asked(stream):
    up = Up()
    body = {"model": "up/m", "instructions": "x", "input": [], "generate": False, "stream": stream}
    response, told = ask(up, body)
    told = events(told.encode().split(b"\n\n"))[-1]["response"] if stream else told
    assert (response.status, up.asked) == (200, [])
    assert (told["status"], told["output"], told["usage"]["total_tokens"]) == ("completed", [], 0)


def test_tokens_are_counted_or_estimated_and_that_is_told():
    route = "POST /llm/v1/responses/input_tokens"
    response, told = ask(Up(tokens=7), ASKED, route)
    assert told == {"object": "response.input_tokens", "input_tokens": 7}
    assert "x-llmproxy-warnings" not in dict(response.headers)
    response, told = ask(Up(), ASKED, route)
    assert told["input_tokens"] > 0
    assert "input_tokens=" in dict(response.headers)["x-llmproxy-warnings"]
    assert ask(Up(), {"model": "up/m"}, route)[1]["error"]["param"] == "input"
    assert ask(Up(), {**ASKED, "max_output_tokens": 0}, route)[1]["error"]["param"] == "max_output_tokens"


@pytest.mark.parametrize("target", ["resp_1", "resp_1/cancel", "resp_1/input_items"])
def test_what_was_answered_before_is_not_kept(target):
    route = "* /llm/v1/responses/*"
    response, told = ask(Up(), None, route, target=f"/llm/v1/responses/{target}")
    assert (response.status, told["error"]["type"]) == (404, "invalid_request_error")
    assert "nothing is kept here" in told["error"]["message"]


def test_who_wants_a_socket_is_told_to_do_without():
    route = "GET /llm/v1/responses"
    assert ask(Up(), None, route, Upgrade="websocket")[0].status == 426
    response, _ = ask(Up(), None, route)
    assert (response.status, dict(response.headers)["Allow"]) == (405, "OPTIONS, POST")


# with real providers behind it

SOL = "openai/gpt-6-sol"
CLAUDE = "anthropic/claude-haiku-4-5-20251001"
CLOCK = {"type": "object", "properties": {"zone": {"type": "string"}}}
TOOLS = [{"type": "function", "name": "clock", "description": "c", "parameters": CLOCK, "strict": None}]


def openai(house, upstream):
    up = upstream(strict_openai.answer)
    return up, house(f"[providers.openai]\nbase_url = {up.url}\napi_key = sk-test\nresponses_models = gpt-6\n")


def sent_events(answer):
    return events(block for block in answer.body.split(b"\n\n") if block)


def test_openai_hears_its_clients_own_words_and_answers_in_its_own(house, upstream):
    up, one = openai(house, upstream)
    body = {
        "input": [{"role": "user", "content": "please think"}],
        "store": False,
        "reasoning": {"effort": "low", "summary": "detailed"},
        "text": {"verbosity": "low"},
        "max_output_tokens": 99,
    }
    answer = one.ask("POST", "/llm/v1/responses", {"model": SOL, **body})
    assert [asked.json for asked in up.asked] == [{"model": "gpt-6-sol", **body}]
    assert answer.json == json.loads(strict_openai.answer(up.asked[0]).body)
    assert "x-llmproxy-warnings" not in answer.headers
    streamed = {"model": SOL, **body, "stream": True, "stream_options": {"include_obfuscation": False}}
    answer = one.ask("POST", "/llm/v1/responses", streamed)
    assert up.asked[1].json == {**streamed, "model": "gpt-6-sol"}
    came = b"".join(strict_openai.answer(up.asked[1]).body).split(b"\n\n")
    assert sent_events(answer) == events(came)


def test_openai_says_itself_what_it_does_not_take(house, upstream):
    up, one = openai(house, upstream)
    for field in ({"previous_response_id": "resp_1"}, {"frobnicate": 1}):
        answer = one.ask("POST", "/llm/v1/responses", {"model": SOL, "input": "x", "store": False, **field})
        assert (answer.status, answer.json["error"]["code"]) == (400, "unknown_parameter")
    assert len(up.asked) == 2


def test_openai_counts_the_clients_own_words(house, upstream):
    up, one = openai(house, upstream)
    body = {"input": "one two three", "instructions": "four"}
    answer = one.ask("POST", "/llm/v1/responses/input_tokens", {"model": SOL, **body})
    assert answer.json == {"object": "response.input_tokens", "input_tokens": 4}
    assert up.asked[0].json == {"model": "gpt-6-sol", **body}


@pytest.mark.parametrize("stream", [True, False])
def test_reasoning_comes_back_sealed_where_nobody_remembers_it(house, upstream, stream):
    """The second question is put to another house, as to another worker of one."""
    up = upstream(strict_anthropic.answer)
    ini = f"[providers.anthropic]\nbase_url = {up.url}\napi_key = sk-ant-test\n"
    wish = 'please think and call clock {"zone": "UTC"} then think and call clock {"zone": "CET"}'
    body = {"model": CLAUDE, "tools": TOOLS, "reasoning": {"effort": "low"}, "stream": stream}
    items = [{"role": "user", "content": wish}]
    for zone in ("UTC", "CET"):
        answer = house(ini).ask("POST", "/llm/v1/responses", {**body, "input": items})
        told = sent_events(answer)[-1]["response"] if stream else answer.json
        *_, call = told["output"]
        assert json.loads(call["arguments"]) == {"zone": zone}
        items += [*told["output"], {"type": "function_call_output", "call_id": call["call_id"], "output": "noon"}]
    answer = house(ini).ask("POST", "/llm/v1/responses", {**body, "input": items})
    said = sent_events(answer)[-1]["response"] if stream else answer.json
    assert "noon" in said["output"][-1]["content"][0]["text"]


def test_what_another_cannot_do_is_refused_or_told(house, upstream):
    up = upstream(strict_anthropic.answer)
    one = house(f"[providers.anthropic]\nbase_url = {up.url}\napi_key = sk-ant-test\n")
    answer = one.ask("POST", "/llm/v1/responses", {"model": CLAUDE, "input": "x", "client_metadata": {"a": "b"}})
    assert answer.status == 200
    assert "client_metadata=" in answer.headers["x-llmproxy-warnings"]
    for field in ({"previous_response_id": "resp_1"}, {"background": True}, {"tools": [{"type": "web_search"}]}):
        answer = one.ask("POST", "/llm/v1/responses", {"model": CLAUDE, "input": "x", **field})
        assert (answer.status, answer.json["error"]["code"]) == (400, "unsupported_parameter")
        assert answer.json["error"]["param"].startswith(next(iter(field)))
    assert len(up.asked) == 1
