"""What is promised of `providers/ollama.py`."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from providers import PAUSE, Call, Pocket, Scope, UpstreamError, _events, ollama
from providers.ollama import Abilities, Known, Ollama, address
from strict import ollama as strict
from upstream import Reply, json_reply

GOLDEN = Path(__file__).parent / "golden" / "ollama"
URL = "http://127.0.0.1:11434"
QWEN = "qwen3:8b"
SKU = {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}
TOOLS = [
    {"type": "function", "function": {"name": "stock", "description": "Units", "parameters": SKU}},
    {"type": "function", "function": {"name": "sites"}},
]


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


CONVERSATIONS = sorted(path.stem for path in GOLDEN.glob("chat_*.json"))
OPENED = []


@pytest.fixture(autouse=True)
def no_connection_left_behind():
    yield
    while OPENED:
        OPENED.pop().close()


def provider(base_url="", **options):
    defaults = {name: default[0] for name, default in Ollama.options.items()}
    OPENED.append(Ollama("ollama", {**defaults, "retries": 0, "base_url": base_url, **options}))
    return OPENED[-1]


def unexpected(field, reason):
    raise AssertionError(f"unexpected warning: {field}={reason}")


def question(warn=unexpected, standing=None, thinks=True, **chat):
    asked = {"model": QWEN, "messages": [{"role": "user", "content": "hi"}], **chat}
    return ollama.question(asked, warn, standing or {}, thinks)


def warned(**chat):
    """Give the body and the warnings it cost."""
    warnings = {}
    return question(warnings.__setitem__, **chat), warnings


def message(content, role="user", **more):
    """Give what one message of this content becomes."""
    (told,) = question(messages=[{"role": role, "content": content, **more}])["messages"]
    return told


def refused(param, **chat):
    with pytest.raises(UpstreamError) as caught:
        question(**chat)
    assert (caught.value.status, caught.value.param) == (400, param)
    return caught.value.message


def parts_of(asked, scope=None, **chat):
    """Give what the provider passes on, without pauses."""
    chat = {"model": QWEN, "messages": [{"role": "user", "content": "hi"}], **chat}
    return [part for part in asked.chat(Call(chat, scope=scope)) if part]


def folded(chunks):
    """Put the chunks of a stream together to the choice and the usage of a whole answer."""
    message_, choice, calls, probable = {"content": None}, {"index": 0}, [], []
    for chunk in chunks:
        for one in chunk["choices"]:
            delta = one["delta"]
            message_["role"] = delta.get("role") or message_["role"]
            for name in ("content", "reasoning_content"):
                if delta.get(name):
                    message_[name] = (message_.get(name) or "") + delta[name]
            for call in delta.get("tool_calls", ()):
                assert call["index"] == len(calls)
                calls.append({name: value for name, value in call.items() if name != "index"})
            probable += one.get("logprobs", {}).get("content", [])
            choice["finish_reason"] = one["finish_reason"]
    if calls:
        message_["tool_calls"] = calls
    if probable:
        choice["logprobs"] = {"content": probable, "refusal": None}
    return {**choice, "message": message_}, chunks[-1]["usage"]


# golden conversations


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_golden_question_becomes_what_was_sent(name):
    conversation = golden(name)
    assert ollama.question(conversation["asked"], unexpected, {}) == conversation["sent"]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_golden_answer_becomes_what_was_passed_on(wire, name):
    conversation = golden(name)
    came = conversation["came"]
    body = "".join(f"{line}\n" for line in came) if isinstance(came, list) else json.dumps(came)
    if conversation["asked"].get("reasoning_effort"):
        wire.expect("POST", f"{URL}/api/show", sent={"model": QWEN}, json=golden("show"))
    wire.expect("POST", f"{URL}/api/chat", sent=conversation["sent"], body=body.encode())
    said, trouble = [], None
    try:
        for part in provider().chat(Call(conversation["asked"])):
            said += [part] if part else []
    except UpstreamError as error:
        trouble = error.document()["error"]
    assert len({part.pop("id") for part in said}) == 1
    assert said == conversation["passed"]
    assert trouble == conversation.get("error")


def test_a_pause_is_passed_on_at_once():
    lines = golden("chat_stream_plain")["came"]
    blocks = iter([b"", lines[0].encode() + b"\n", b"", "\n".join(lines[1:]).encode()])
    kinds = [bool(part) for part in ollama.chunks(_events.ndjson(blocks), "ollama", QWEN)]
    assert kinds == [False, True, True, False, True, True, True, True]


# questions: messages


def test_stream_is_always_said():
    assert question()["stream"] is False
    assert question(stream=True)["stream"] is True
    assert question(stream=True, provider_options={"ollama": {"stream": False}}) == {**question(), "stream": True}


def test_the_parts_of_a_message_are_one_text_with_its_images_beside_it():
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "and"},
        {"type": "image_url", "image_url": "data:image/jpeg;base64,BBBB"},
    ]
    assert message(parts) == {"role": "user", "content": "see\nand", "images": ["AAAA", "BBBB"]}


def test_content_is_a_string_in_every_role():
    assert message("") == {"role": "user", "content": ""}
    assert message([]) == {"role": "user", "content": ""}
    assert message(None, "assistant", refusal="no")["content"] == "no"
    assert message([{"type": "refusal", "refusal": "no"}], "assistant")["content"] == "no"


def test_a_developer_is_the_system():
    assert message("be brief", "developer") == {"role": "system", "content": "be brief"}


def test_a_name_is_dropped():
    assert message("hi", name="ann") == {"role": "user", "content": "hi"}


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/png,abc", ""])
def test_an_image_elsewhere_is_refused(url):
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}]
    refused("messages[0].content[1].image_url", messages=[{"role": "user", "content": content}])


def test_sound_goes_where_images_go():
    assert message([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])["images"] == ["AAAA"]


def test_a_text_file_is_put_into_the_text():
    parts = [
        {"type": "text", "text": "read"},
        {
            "type": "file",
            "file": {"filename": "a.txt", "file_data": "data:text/plain;charset=utf-8;base64,Z3LDtsOfZQ=="},
        },
        {"type": "file", "file": {"file_data": "data:application/json;base64,e30="}},
    ]
    assert message(parts) == {"role": "user", "content": "read\ngröße\n{}"}


def test_a_file_that_is_an_image_is_one():
    assert message([{"type": "file", "file": {"file_data": "data:image/png;base64,AAAA"}}])["images"] == ["AAAA"]


@pytest.mark.parametrize(
    "file",
    [
        {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
        {"file_id": "file-1"},
        {"file_data": "AAAA"},
        {"file_data": "data:text/plain;base64,!!"},
        {"file_data": "data:text/plain;base64,/w=="},
    ],
)
def test_another_file_is_refused(file):
    refused("messages[0].content[0].file", messages=[{"role": "user", "content": [{"type": "file", "file": file}]}])


def calling(*calls, **more):
    made = [{"id": id_, "type": "function", "function": {"name": n, "arguments": a}} for id_, n, a in calls]
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def test_arguments_are_objects_and_keep_their_order():
    (told,) = question(messages=[calling(("a", "stock", '{"z": 1, "a": [2]}'), ("", "sites", ""))])["messages"]
    assert told["content"] == ""
    assert told["tool_calls"] == [
        {"id": "a", "function": {"index": 0, "name": "stock", "arguments": {"z": 1, "a": [2]}}},
        {"function": {"index": 1, "name": "sites", "arguments": {}}},
    ]
    assert list(told["tool_calls"][0]["function"]["arguments"]) == ["z", "a"]


@pytest.mark.parametrize("arguments", ["[1]", '{"a":', "null"])
def test_arguments_that_are_no_object_are_refused(arguments):
    messages = [{"role": "user", "content": "hi"}, calling(("a", "stock", arguments))]
    refused("messages[1].tool_calls[0].function.arguments", messages=messages)


def test_a_result_names_its_tool():
    result = {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}], "is_error": True}
    told = question(messages=[calling(("a", "stock", ""), ("b", "sites", "")), result])["messages"][1]
    assert told == {"role": "tool", "content": "2", "tool_call_id": "b", "tool_name": "sites"}


def test_a_result_of_a_forgotten_call_goes_without_the_name():
    assert message("2", "tool", tool_call_id="b") == {"role": "tool", "content": "2", "tool_call_id": "b"}


def test_reasoning_comes_back_as_thinking():
    assert message("so", "assistant", reasoning_content="hm")["thinking"] == "hm"
    assert message("so", "assistant", reasoning="hm")["thinking"] == "hm"
    assert "thinking" not in message("so", "assistant", reasoning_details=[{"provider": "x"}])


# questions: fields


def test_sampling_goes_into_the_options():
    sampling = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "typical_p": 0.9,
        "seed": 0,
        "presence_penalty": -1,
        "frequency_penalty": 1,
        "repeat_penalty": 1.1,
        "repeat_last_n": 32,
        "num_ctx": 4096,
    }
    body = question(**sampling, max_tokens=5, stop="END")
    assert body["options"] == {**sampling, "num_predict": 5, "stop": ["END"]}
    assert body.keys() == {"model", "messages", "stream", "options"}


def test_the_new_name_of_the_most_tokens_wins():
    assert question(max_tokens=5, max_completion_tokens=7)["options"] == {"num_predict": 7}


def test_what_is_not_said_is_not_sent():
    body = question(stop=[], temperature=None, n=1, modalities=["text"], response_format={"type": "text"})
    assert body.keys() == {"model", "messages", "stream"}


def test_a_format_is_json_or_a_schema():
    assert question(response_format={"type": "json_object"})["format"] == "json"
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SKU}}
    assert question(response_format=wanted)["format"] == SKU


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        ("none", False),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "max"),
        ("max", "max"),
    ],
)
def test_an_effort_is_a_way_to_think(effort, think):
    assert question(reasoning_effort=effort)["think"] == think


def test_a_model_that_does_not_think_is_not_told_to():
    body, warnings = warned(reasoning_effort="high", thinks=False)
    assert "think" not in body
    assert warnings == {"reasoning_effort": "this model does not think"}
    assert question(reasoning_effort="none", thinks=False)["think"] is False


def test_tools_are_told_with_their_parameters():
    assert question(tools=TOOLS)["tools"] == [
        TOOLS[0],
        {"type": "function", "function": {"name": "sites", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert (
        question(tools=TOOLS, tool_choice="auto", parallel_tool_calls=True)["tools"] == question(tools=TOOLS)["tools"]
    )


def names(body):
    return [tool["function"]["name"] for tool in body.get("tools", ())]


def test_no_tools_are_told_where_none_is_to_be_called():
    assert "tools" not in question(tools=TOOLS, tool_choice="none")
    assert "tools" not in question(tools=[])


def test_a_call_cannot_be_forced():
    body, warnings = warned(tools=TOOLS, tool_choice="required")
    assert names(body) == ["stock", "sites"]
    assert warnings == {"tool_choice": "ollama cannot force a call"}


def test_of_a_named_tool_only_that_is_told():
    body, warnings = warned(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "sites"}})
    assert names(body) == ["sites"]
    assert list(warnings) == ["tool_choice"]


def test_only_allowed_tools_are_told():
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOLS[1]]}}
    assert names(question(tools=TOOLS, tool_choice=allowed)) == ["sites"]


def test_a_named_tool_that_is_not_there_is_refused():
    refused(
        "tool_choice", tools=TOOLS, warn=lambda *_: None, tool_choice={"type": "function", "function": {"name": "x"}}
    )


def test_a_tool_of_another_kind_is_refused():
    refused("tools[0].type", tools=[{"type": "custom", "custom": {"name": "x"}}])


@pytest.mark.parametrize(
    "field",
    [
        {"n": 2},
        {"audio": {"voice": "x"}},
        {"modalities": ["text", "audio"]},
        {"prediction": {"type": "content"}},
        {"web_search_options": {"a": 1}},
    ],
)
def test_an_answer_of_another_shape_is_refused(field):
    refused(*field, **field)


def test_what_is_dropped_is_told():
    strict_tool = {"type": "function", "function": {"name": "a", "strict": True}}
    body, warnings = warned(
        tools=[strict_tool], parallel_tool_calls=False, logit_bias={"1": 1}, user="u", verbosity="low", strange=1, _x=1
    )
    assert warnings == dict.fromkeys(
        ("tools.strict", "parallel_tool_calls", "logit_bias", "user", "verbosity", "strange"), "not supported by ollama"
    )
    assert body.keys() == {"model", "messages", "tools", "stream"}


def test_ollamas_own_options_go_where_it_looks_for_them_and_win():
    own = {"num_ctx": 8192, "temperature": 0.1, "keep_alive": "10m", "options": {"num_gpu": 1}, "think": True}
    body = question(
        temperature=0.9,
        top_k=3,
        standing={"keep_alive": 5, "options": {"num_ctx": 1024, "num_thread": 2}},
        provider_options={"ollama": own, "gemini": {"x": 1}},
    )
    assert body["options"] == {"num_thread": 2, "temperature": 0.1, "top_k": 3, "num_ctx": 8192, "num_gpu": 1}
    assert (body["keep_alive"], body["think"]) == ("10m", True)


# answers


def line(**said):
    return {
        "model": QWEN,
        "created_at": "2026-11-20T10:00:00Z",
        "message": {"role": "assistant", **said},
        "done": False,
    }


END = {**line(content=""), "done": True, "done_reason": "stop", "eval_count": 3}


def test_calls_are_numbered_through_whatever_their_lines_say():
    call = {"function": {"index": 0, "name": "stock", "arguments": {"z": "größe", "a": 1.50}}}
    said = list(ollama.chunks([line(tool_calls=[call]), line(tool_calls=[call, call]), END], "ollama", QWEN))
    calls = [one for part in said[1:-2] for one in part["choices"][0]["delta"]["tool_calls"]]
    assert [one["index"] for one in calls] == [0, 1, 2]
    assert {one["function"]["arguments"] for one in calls} == {'{"z":"größe","a":1.5}'}
    assert said[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_without_an_id_gets_one():
    calls = ollama.calls_of({"tool_calls": [{"function": {"name": "a"}}, {"id": "", "function": {"name": "a"}}]})
    assert len({call["id"] for call in calls}) == 2
    assert all(call["id"].startswith("call_") and call["function"]["arguments"] == "{}" for call in calls)


def test_calls_that_were_cut_are_no_tool_calls():
    call = {"function": {"name": "stock", "arguments": {}}}
    body = {**line(content="", tool_calls=[call]), "done": True, "done_reason": "length"}
    assert ollama.answer(body, "ollama", QWEN)["choices"][0]["finish_reason"] == "length"


def test_thinking_comes_before_the_content_of_its_line():
    said = list(ollama.chunks([line(thinking="hm", content="so"), END], "ollama", QWEN))
    assert [part["choices"][0]["delta"] for part in said[1:3]] == [{"reasoning_content": "hm"}, {"content": "so"}]


def test_the_last_line_may_hold_text():
    said = list(ollama.chunks([{**END, "message": {"content": "so"}}], "ollama", QWEN))
    assert said[1]["choices"][0]["delta"] == {"content": "so"}
    assert said[-1]["usage"]["completion_tokens"] == 3


def test_an_end_without_a_reason_is_a_stop():
    assert (
        ollama.answer({"message": {"content": "a"}, "done": True}, "o", QWEN)["choices"][0]["finish_reason"] == "stop"
    )


def test_an_answer_names_the_model_that_gave_it():
    assert ollama.answer({**END, "model": "other"}, "o", QWEN)["model"] == "o/other"
    assert ollama.answer({"message": {}, "done": True}, "o", QWEN)["model"] == f"o/{QWEN}"
    assert next(ollama.chunks([{**END, "model": ""}], "o", QWEN))["model"] == f"o/{QWEN}"


def test_counts_that_are_left_out_are_none():
    assert ollama.answer(golden("chat_load")["came"], "o", QWEN)["usage"]["total_tokens"] == 0


def test_logprobs_are_openais():
    entry = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -3.0}]}
    told = ollama.answer({**END, "message": {"content": "a"}, "logprobs": [entry]}, "o", QWEN)["choices"][0]["logprobs"]
    filled = {**entry, "top_logprobs": [{"token": "b", "logprob": -3.0, "bytes": None}]}
    assert told == {"content": [filled], "refusal": None}


def test_logprobs_of_what_is_no_text_wait_for_the_next_part():
    entry = {"token": "a", "logprob": -0.1}
    lines = [{**line(content=""), "logprobs": [entry]}, {**line(content="a"), "logprobs": [entry]}, END]
    said = list(ollama.chunks(lines, "ollama", QWEN))
    assert [len((part["choices"] or [{}])[0].get("logprobs", {}).get("content", ())) for part in said] == [0, 2, 0, 0]


@pytest.mark.parametrize("events", [[], [line(content="a")], [{}]])
def test_a_stream_that_ends_before_its_end_is_broken(events):
    with pytest.raises(UpstreamError) as caught:
        list(ollama.chunks(events, "ollama", QWEN))
    assert caught.value.code == "stream_truncated"


def test_trouble_in_the_stream_before_its_first_word_begins_no_answer():
    with pytest.raises(UpstreamError, match="no memory") as caught:
        next(ollama.chunks([{"error": "no memory"}], "ollama", QWEN))
    assert (caught.value.status, caught.value.provider_status) == (502, None)


def test_trouble_in_a_whole_answer_is_trouble():
    with pytest.raises(UpstreamError, match="no memory"):
        ollama.answer({"error": "no memory"}, "ollama", QWEN)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T00:01:00.123456789Z", 60),
        ("1970-01-01T02:01:00.1+02:00", 60),
        ("0001-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00+01:00", 0),
        ("2026-13-01T00:00:00Z", 0),
        ("soon", 0),
        (None, 0),
    ],
)
def test_a_time_is_read_as_ollama_writes_it(written, seconds):
    assert ollama.stamp(written) == seconds


# errors


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, golden("error_404"), (404, "model_not_found", None, "model 'nope:1b' not found")),
        (400, golden("error_400_thinking"), (400, "unsupported_parameter", "reasoning_effort", None)),
        (400, {"error": '"x" does not support tools'}, (400, "unsupported_parameter", "tools", None)),
        (400, {"error": '"x" does not support vision'}, (400, "unsupported_parameter", "messages", None)),
        (400, {"error": "invalid option"}, (400, None, None, "invalid option")),
        (429, {"error": "slow down"}, (429, "rate_limit_exceeded", None, "slow down")),
        (500, {"error": "runner"}, (502, "provider_error", None, "runner")),
        (503, {"error": "server busy"}, (503, "provider_overloaded", None, "server busy")),
        (502, "<html>", (502, "provider_error", None, "ollama answered 502")),
        (500, {"error": {"message": "odd"}}, (502, "provider_error", None, "odd")),
    ],
)
def test_a_refusal_keeps_its_status_and_its_words(wire, status, body, expected):
    wire.post(f"{URL}/api/chat", body=json.dumps(body) if isinstance(body, dict) else body, status=status)
    with pytest.raises(UpstreamError) as caught:
        parts_of(provider())
    error = caught.value
    assert (error.status, error.code, error.param, expected[3] and error.message) == expected
    assert (error.provider, error.provider_status) == ("ollama", status)


def test_the_address_to_sign_in_at_is_not_told(wire):
    wire.post(f"{URL}/api/chat", json=golden("error_401_cloud"), status=401)
    with pytest.raises(UpstreamError, match="unauthorized") as caught:
        parts_of(provider())
    assert caught.value.code == "provider_auth"
    assert "ollama.com" not in caught.value.message


# thinking, asked about


def test_a_model_is_asked_about_thinking_once(wire):
    wire.expect("POST", f"{URL}/api/show", sent={"model": QWEN}, json={"capabilities": ["completion"]})
    wire.expect("POST", f"{URL}/api/chat", sent=question(), json=golden("chat_plain")["came"])
    one, scope = provider(), Scope()
    parts_of(one, scope, reasoning_effort="low")
    assert scope.warnings == {"reasoning_effort": "this model does not think"}
    parts_of(one, reasoning_effort="high")
    assert [call.request.url for call in wire.calls] == [f"{URL}/api/show", *[f"{URL}/api/chat"] * 2]


@pytest.mark.parametrize("effort", [{}, {"reasoning_effort": "none"}])
def test_where_nobody_wants_thinking_nobody_asks_about_it(wire, effort):
    wire.expect("POST", f"{URL}/api/chat", sent=question(**effort), json=golden("chat_plain")["came"])
    parts_of(provider(), **effort)


@pytest.mark.parametrize("shown", [{"json": {"details": {}}}, {"json": {"error": "no"}, "status": 500}])
def test_where_it_is_not_known_the_model_has_to_say_whether_it_thinks(wire, shown):
    wire.post(f"{URL}/api/show", **shown)
    wire.expect("POST", f"{URL}/api/chat", sent=question(reasoning_effort="low"), json=golden("chat_plain")["came"])
    parts_of(provider(), reasoning_effort="low")


def test_what_a_model_can_do_is_forgotten_after_a_while():
    now = [100.0]
    known, thinker, other = Known(60, lambda: now[0]), Abilities(["thinking"], 4096), Abilities([], 0)
    assert known.of(QWEN) is None
    known.learn(QWEN, thinker)
    now[0] += 59
    known.learn("other", other)
    assert (known.of(QWEN), known.of("other")) == (thinker, other)
    now[0] += 2
    assert (known.of(QWEN), known.of("other")) == (None, other)


# room for long questions

LONG = [{"role": "user", "content": "x" * 3 * 10_000}]
SHOWN = {"capabilities": ["completion"], "model_info": {"qwen3.context_length": 40960, "qwen3.block_count": 36}}


def asked_with(wire, shown=SHOWN, ps=None, scope=None, messages=LONG, **more):
    """Give the body that was sent, of a question of about 10,000 tokens."""
    wire.post(f"{URL}/api/show", json=shown)
    if ps is not None:
        wire.get(f"{URL}/api/ps", json=ps)
    wire.post(f"{URL}/api/chat", json=golden("chat_plain")["came"])
    list(provider().chat(Call({"model": QWEN, "messages": messages, **more}, scope=scope)))
    return json.loads(wire.calls[-1].request.body)


def test_a_long_question_gets_room_in_steps_of_doubling(wire):
    assert asked_with(wire, ps={"models": []})["options"] == {"num_ctx": 16384}


def test_room_is_made_for_the_answer_too_but_no_more_than_the_model_sees(wire):
    options = asked_with(wire, ps={"models": []}, max_tokens=30_000)["options"]
    assert options == {"num_predict": 30_000, "num_ctx": 40960}


def test_a_model_that_is_loaded_with_room_enough_is_not_loaded_again(wire):
    assert "options" not in asked_with(wire, ps={"models": [{"model": QWEN, "context_length": 12_000}]})


def test_a_model_that_is_loaded_with_too_little_room_is(wire):
    loaded = {"models": [{"model": QWEN, "context_length": 4096}, {"model": "other", "context_length": 65536}]}
    assert asked_with(wire, ps=loaded)["options"] == {"num_ctx": 16384}


def test_what_the_model_cannot_see_is_told_of(wire):
    scope = Scope()
    asked_with(wire, ps={"models": []}, scope=scope, messages=[{"role": "user", "content": "x" * 3 * 50_000}])
    assert scope.warnings == {"messages": "about 50001 tokens where the model sees 40960: the oldest are cut"}


def test_where_nothing_is_known_nothing_is_changed(wire):
    assert "options" not in asked_with(wire, shown={"details": {}})


@pytest.mark.parametrize("chat", [{"messages": [{"role": "user", "content": "short"}]}, {"num_ctx": 8192}])
def test_a_short_question_or_a_room_that_was_chosen_is_left_alone(wire, chat):
    wire.post(f"{URL}/api/chat", json=golden("chat_plain")["came"])
    parts_of(provider(), **{"messages": LONG, **chat})
    assert len(wire.calls) == 1


# in the words of its own clients


def written(body, path="/api/chat", streams=False):
    call = {"model": QWEN, "messages": [], "stream": streams, "_ollama": Pocket(body, path=path)}
    return Call(call)


def test_a_clients_own_words_are_sent_as_they_are_but_for_the_model(wire):
    body = {
        "model": "ollama/x",
        "messages": [{"role": "user", "content": "hi", "new": 1}],
        "keep_alive": 0,
        "shift": False,
    }
    sent = {**body, "model": QWEN, "stream": False}
    came = golden("chat_plain")["came"]
    wire.expect("POST", f"{URL}/api/chat", sent=sent, json=came)
    (part,) = [part for part in provider().chat(written(body)) if part]
    assert part["_ollama"] == came
    assert part["choices"][0]["message"]["content"]


def test_a_stream_bears_each_line(wire):
    lines = [
        {"model": QWEN, "response": "a", "done": False},
        {"response": "", "done": True, "context": [1], "eval_count": 2},
    ]
    wire.post(f"{URL}/api/generate", body="".join(json.dumps(one) + "\n" for one in lines))
    parts = list(provider().chat(written({"prompt": "x", "raw": True}, "/api/generate", streams=True)))
    assert [event for part in parts for event in part.get("_ollama", ())] == lines
    assert "".join(part["choices"][0]["delta"].get("content") or "" for part in parts if part.get("choices")) == "a"
    assert parts[-1]["usage"]["completion_tokens"] == 2


def test_a_model_is_described_as_far_as_it_is_known(wire):
    wire.post(f"{URL}/api/show", json={**SHOWN, "license": "MIT"})
    told = provider().describe(Call({"model": QWEN}))
    assert (told["id"], told["context_length"], told["capabilities"]) == (QWEN, 40960, ["completion"])
    assert "_ollama" not in told
    assert provider().describe(written({"verbose": True}, "/api/show"))["_ollama"]["license"] == "MIT"


# models, embeddings


def test_the_models_are_those_that_are_installed(wire):
    wire.get(f"{URL}/api/tags", json=golden("tags"))
    qwen, gemma = provider().models()
    assert qwen == {
        "id": QWEN,
        "object": "model",
        "created": 1793520000,
        "owned_by": "ollama",
        "capabilities": ["completion", "tools", "thinking"],
        "context_length": 40960,
    }
    assert gemma["id"] == "embeddinggemma:latest"


def test_an_old_server_lists_its_models_too(wire):
    wire.get(f"{URL}/api/tags", json={"models": [{"name": "a", "modified_at": "?"}]})
    assert provider().models() == [{"id": "a", "object": "model", "created": 0, "owned_by": "ollama"}]


def embedded(asked, **more):
    call = Call({"model": "embeddinggemma", "input": ["lantern", "rope"], **more})
    return asked.embed(call), call.scope.warnings


def test_all_texts_are_embedded_at_once(wire):
    sent = {"model": "embeddinggemma", "input": ["lantern", "rope"], "dimensions": 4, "keep_alive": -1}
    wire.expect("POST", f"{URL}/api/embed", sent=sent, json=golden("embed"))
    answer, warnings = embedded(provider(keep_alive="-1"), dimensions=4, encoding_format="float", user="u")
    assert answer["object"] == "list"
    assert answer["model"] == "ollama/embeddinggemma"
    assert [item["embedding"] for item in answer["data"]] == golden("embed")["embeddings"]
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert warnings == {"user": "not supported by ollama"}


def test_one_text_is_a_list_of_one(wire):
    sent = {"model": "embeddinggemma", "input": ["rope"], "truncate": False, "options": {"num_ctx": 8}}
    wire.expect("POST", f"{URL}/api/embed", sent=sent, json={"embeddings": [[1.0]]})
    answer, _ = embedded(provider(), input="rope", provider_options={"ollama": {"truncate": False, "num_ctx": 8}})
    assert answer["data"] == [{"object": "embedding", "index": 0, "embedding": [1.0]}]


def test_a_vector_too_few_is_trouble(wire):
    wire.post(f"{URL}/api/embed", json={"embeddings": [[1.0]]})
    with pytest.raises(UpstreamError, match="1 vectors for 2 texts") as caught:
        embedded(provider())
    assert (caught.value.status, caught.value.provider) == (502, "ollama")


def test_token_ids_mean_nothing_here():
    with pytest.raises(UpstreamError) as caught:
        embedded(provider(), input=[[1, 2]])
    assert caught.value.param == "input"


# options


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", URL),
        ("0.0.0.0", URL),
        ("0.0.0.0:11434", URL),
        (":11434", URL),
        (":8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("box/", "http://box:11434"),
        ("box:8080", "http://box:8080"),
        ("box:", "http://box:11434"),
        ("http://box:8080", "http://box:8080"),
        ("http://box:8080/", "http://box:8080"),
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://box", "http://box"),
        ("https://box", "https://box"),
        ("https://box:443/ollama/", "https://box:443/ollama"),
        ("http://box:8080/v1", "http://box:8080"),
        ("http://box:8080/api/", "http://box:8080"),
        ("http://box:8080/ollama/v1", "http://box:8080/ollama"),
        ("http://box:8080/happi", "http://box:8080/happi"),
        ("ollama.com", "https://ollama.com"),
        ("https://ollama.com", "https://ollama.com"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[::]", "http://[::1]:11434"),
        ("[::]:8080", "http://[::1]:8080"),
        ("::", "http://[::1]:11434"),
        (' "box:8080" ', "http://box:8080"),
        ("'box'", "http://box:11434"),
    ],
)
def test_an_address_may_have_all_forms_of_ollama_host(given, meant):
    assert address(given, 11434) == meant


def test_the_port_is_that_of_an_address_without_one():
    assert address("", 8080) == "http://127.0.0.1:8080"
    assert address("box", 8080) == "http://box:8080"
    assert address("box:1", 8080) == "http://box:1"


@pytest.mark.parametrize("given", ["box:http", "box:99999", "ftp://box", "http://user:word@box"])
def test_an_address_that_is_none_stops_the_start(given):
    with pytest.raises(ValueError, match="base_url"):
        Ollama("ollama", {**{n: d[0] for n, d in Ollama.options.items()}, "base_url": given})


def test_the_options_go_with_every_chat(wire):
    sent = {**question(), "keep_alive": 300, "options": {"num_ctx": 4096}}
    headers = {"Authorization": "Bearer k-1"}
    wire.expect("POST", "https://ollama.com/api/chat", sent=sent, headers=headers, json=golden("chat_plain")["came"])
    parts_of(provider("ollama.com", api_key="k-1", keep_alive="300", num_ctx=4096))


def test_what_keep_alive_says_is_a_duration_or_a_number_of_seconds():
    assert [ollama.duration(given) for given in ("10m", "0", "-1", "-1m")] == ["10m", 0, -1, "-1m"]


def test_without_a_key_none_is_sent(wire):
    wire.get(f"{URL}/api/tags", json=golden("tags"))
    provider().models()
    assert "Authorization" not in wire.calls[0].request.headers


# the whole road, to a severe Ollama


@pytest.fixture
def server(upstream):
    return upstream(strict.answer)


ROADS = [
    {},
    {"messages": [{"role": "user", "content": "please think about größe"}], "reasoning_effort": "high"},
    {"messages": [{"role": "user", "content": 'call stock {"sku":"a"} and call sites'}], "tools": TOOLS},
    {"messages": [{"role": "user", "content": "some length"}]},
    {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 2},
    {"messages": [{"role": "user", "content": "one two three"}], "stop": "two"},
    {"messages": [{"role": "user", "content": "one two"}], "logprobs": True, "top_logprobs": 2},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": SKU}}},
    {"temperature": 0.1, "seed": 3, "top_k": 5, "reasoning_effort": "none"},
]


@pytest.mark.parametrize("chat", ROADS)
def test_the_stream_adds_up_to_the_whole_answer(server, chat):
    (answer,) = parts_of(provider(server.url), **chat)
    chunks = parts_of(provider(server.url), **chat, stream=True)
    assert folded(chunks) == (answer["choices"][0], answer["usage"])
    assert {chunk["model"] for chunk in chunks} == {answer["model"]} == {"ollama/qwen3:8b"}


def test_a_conversation_with_tools_comes_to_its_end(server):
    messages = [{"role": "user", "content": 'call stock {"sku":"a"} and call sites'}]
    (first,) = parts_of(provider(server.url), messages=messages, tools=TOOLS)
    said = first["choices"][0]["message"]
    assert [json.loads(call["function"]["arguments"]) for call in said["tool_calls"]] == [{"sku": "a"}, {}]
    ids = [call["id"] for call in said["tool_calls"]]
    messages += [said, *({"role": "tool", "tool_call_id": id_, "content": f"of {id_}"} for id_ in ids)]
    (second,) = parts_of(provider(server.url), messages=messages, tools=TOOLS)
    expected = f"results: {ids[0]}=of {ids[0]}; {ids[1]}=of {ids[1]}"
    assert second["choices"][0]["message"]["content"] == expected
    assert second["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_is_cut_is_trouble(server, stream):
    with pytest.raises(UpstreamError) as caught:
        parts_of(provider(server.url), messages=[{"role": "user", "content": "cut it"}], stream=stream)
    assert caught.value.code == "stream_truncated"


def test_a_status_is_known_before_the_first_part(server):
    with pytest.raises(UpstreamError, match="told to fail") as caught:
        parts_of(provider(server.url), messages=[{"role": "user", "content": "error 503"}], stream=True)
    assert (caught.value.status, caught.value.code) == (503, "provider_overloaded")


def test_embeddings_and_models_come_from_there_too(server):
    answer, _ = embedded(provider(server.url), dimensions=3)
    assert [len(item["embedding"]) for item in answer["data"]] == [3, 3]
    assert QWEN in [model["id"] for model in provider(server.url).models()]


def test_a_relay_passes_what_was_sent(upstream):
    server = upstream(lambda asked: json_reply({"path": asked.target, "body": asked.body.decode()}, 418))
    relayed = provider(server.url + "/v1").relay("POST", "/api/pull?a=b", [("X-Own", "1")], b'{"x": 1}', Scope())
    with relayed as exchange:
        body = b"".join(exchange.blocks())
    assert exchange.status == 418
    assert json.loads(body) == {"path": "/api/pull?a=b", "body": '{"x": 1}'}
    assert server.asked[0].headers["x-own"] == "1"


def test_words_pass_while_the_model_still_thinks(upstream):
    heard = threading.Event()

    def body():
        yield json.dumps(line(content="a")).encode() + b"\n"
        heard.wait(5)
        yield json.dumps(END).encode() + b"\n"

    server = upstream(lambda _: Reply(200, {}, body()))
    parts = provider(server.url).chat(Call({"model": QWEN, "messages": [], "stream": True}))
    said = (part for part in parts if part)
    assert next(said)["choices"][0]["delta"]["role"] == "assistant"
    assert next(said)["choices"][0]["delta"] == {"content": "a"}
    assert next(parts) == PAUSE
    assert not heard.is_set()
    heard.set()
    assert len(list(said)) == 2
