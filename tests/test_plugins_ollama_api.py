"""What is promised of `plugins/ollama_api.py`: Ollama's clients find an Ollama, whoever answers."""

from __future__ import annotations

import base64
import json

import pytest

from conftest import settled
from plugins import Request
from plugins.ollama_api import OllamaApi
from providers import PAUSE, Call, Provider, Trouble, UpstreamError, _canonical
from providers._http import Fields
from strict import anthropic as strict_anthropic
from strict import ollama as strict_ollama

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
USER = {"role": "user", "content": "hi"}
WEATHER = {"name": "weather", "arguments": {"city": "Ulm"}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


class Up(Provider):
    """Gives a script, and keeps what it was asked."""

    names = ("up",)

    def __init__(self, *script, embeddings=None):
        super().__init__("up", {})
        self.script = script
        self.embeddings = embeddings
        self.asked = None

    def chat(self, call: Call):
        self.asked = call.chat
        for item in self.script:
            if isinstance(item, Exception):
                raise item
            yield item

    def embed(self, call):
        self.asked = call.chat
        return self.embeddings

    def models(self):
        return [{"id": "m", "object": "model", "created": 1, "context_length": 9, "capabilities": ["completion"]}]

    def survey(self, scope, provider=""):
        return [{**model, "id": f"up/{model['id']}"} for model in self.models()], {}

    def describe(self, call):
        return {**self.models()[0], "id": call.model}


def request(path, body, headers=()):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", path, Fields(headers), read=data)


def ask(up, path, body, headers=()):
    """Ask on a path; gives the status, and the document or the lines of a stream."""
    plugin = OllamaApi({"heartbeat": 15.0}, up)
    return through(plugin, path, body, headers)


def through(plugin, path, body, headers=()):
    route = f"POST /llm/api/{path}"
    try:
        response = settled(plugin.routes()[route](request(path, body, headers)))
    except Trouble as trouble:
        response = plugin.error(trouble)
    if isinstance(response.body, bytes):
        return response.status, json.loads(response.body)
    return response.status, [json.loads(line) for line in b"".join(response.body).splitlines()]


def translated(body, path="chat"):
    """Give the canonical chat of a question, and what is lost on the way."""
    up = Up(_canonical.completion("", "up/m", {"content": "x"}, "stop", USAGE))
    status, told = ask(up, path, {"model": "up/m", "stream": False, **body})
    assert status == 200, told
    pocket = up.asked["_ollama"]
    return {k: v for k, v in up.asked.items() if k not in ("_ollama", "model", "stream")}, pocket


@pytest.mark.parametrize(
    ("asked", "canonical"),
    [
        ({"messages": [USER]}, {"messages": [USER]}),
        ({"messages": [{"role": "USER", "content": "hi"}]}, {"messages": [USER]}),
        ({"messages": [USER], "think": True}, {"messages": [USER], "reasoning_effort": "medium"}),
        ({"messages": [USER], "think": False}, {"messages": [USER], "reasoning_effort": "none"}),
        ({"messages": [USER], "think": "high"}, {"messages": [USER], "reasoning_effort": "high"}),
        ({"messages": [USER], "format": "json"}, {"messages": [USER], "response_format": {"type": "json_object"}}),
        (
            {"messages": [USER], "options": {"temperature": 0.5, "stop": ["a"], "num_predict": 7, "seed": 1}},
            {"messages": [USER], "temperature": 0.5, "stop": ["a"], "max_completion_tokens": 7, "seed": 1},
        ),
        ({"messages": [USER], "options": {"num_predict": -1}}, {"messages": [USER]}),
        (
            {"messages": [{**USER, "images": [PNG]}]},
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "hi"},
                            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                        ],
                    }
                ]
            },
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": "a", "thinking": "t"}, USER], "logprobs": True},
            {
                "messages": [USER, {"role": "assistant", "content": "a", "reasoning_content": "t"}, USER],
                "logprobs": True,
            },
        ),
    ],
)
def test_a_question_is_put_into_canonical_words(asked, canonical):
    assert translated(asked)[0] == canonical


def test_a_schema_is_a_response_format():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    chat, _ = translated({"messages": [USER], "format": schema})
    assert chat["response_format"]["json_schema"]["schema"] == schema


def test_calls_without_ids_get_some_and_their_results_find_them():
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [{"function": WEATHER}, {"function": {"name": "clock", "arguments": {}}}]},
        {"role": "tool", "tool_name": "clock", "content": "noon"},
        {"role": "tool", "content": "rain"},
    ]
    chat, _ = translated({"messages": messages})
    calls = chat["messages"][1]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": "Ulm"}, {}]
    assert [m["tool_call_id"] for m in chat["messages"][2:]] == [calls[1]["id"], calls[0]["id"]]
    assert len({call["id"] for call in calls}) == 2


def test_a_result_that_only_says_its_call_is_given_its_tool_for_ollama_too():
    call = {"id": "c1", "function": WEATHER}
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "x"},
    ]
    _, pocket = translated({"messages": messages})
    assert pocket.body["messages"] == [*messages[:2], {**messages[2], "tool_name": "weather"}]


def test_the_ids_of_calls_are_remembered_for_clients_that_forget_them():
    call = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm","n":1}'}}
    up = Up(_canonical.completion("", "up/m", {"content": None, "tool_calls": [call]}, "tool_calls", USAGE))
    plugin = OllamaApi({"heartbeat": 15.0}, up)
    question = {"model": "up/m", "stream": False, "messages": [USER]}
    through(plugin, "chat", question)
    back = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "weather", "arguments": {"n": 1, "city": "Ulm"}}}],
    }
    result = {"role": "tool", "tool_name": "weather", "content": "rain"}
    through(plugin, "chat", {**question, "messages": [USER, back, result]})
    assert up.asked["messages"][1]["tool_calls"][0]["id"] == "toolu_1"
    through(plugin, "chat", {**question, "messages": [{**USER, "content": "another"}, back, result]})
    assert up.asked["messages"][1]["tool_calls"][0]["id"] != "toolu_1"


def test_what_only_ollama_knows_is_kept_for_it_and_told_to_others():
    asked = {"messages": [USER], "keep_alive": "5m", "new": 1, "options": {"num_ctx": 9, "top_p": 0.5}, "raw": False}
    _, pocket = translated(asked)
    assert pocket.body == {"model": "up/m", "stream": False, **asked}
    assert set(pocket.losses) == {"keep_alive", "new", "options.num_ctx", "raw"}
    assert pocket.musts == {}
    _, pocket = translated({"prompt": "x", "suffix": "y", "raw": True}, "generate")
    assert set(pocket.musts) == {"suffix", "raw"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [USER]}, "model"),
        ({"model": 1, "messages": [USER]}, "model"),
        ({"model": "up/m", "messages": {}}, "messages"),
        ({"model": "up/m", "messages": [1]}, "messages[0]"),
        ({"model": "up/m", "messages": [{"role": "nobody"}]}, "messages[0].role"),
        ({"model": "up/m", "messages": [{"role": "user", "content": [USER]}]}, "messages[0].content"),
        ({"model": "up/m", "messages": [{**USER, "images": [1]}]}, "messages[0].images[0]"),
        ({"model": "up/m", "messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        (
            {"model": "up/m", "messages": [{"role": "assistant", "tool_calls": [{}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"model": "up/m", "messages": [USER], "format": "xml"}, "format"),
        ({"model": "up/m", "messages": [USER], "think": "deeply"}, "think"),
        ({"model": "up/m", "messages": [USER], "stream": "yes"}, "stream"),
        ({"model": "up/m", "messages": [USER], "options": {"temperature": "hot"}}, "options.temperature"),
        ({"model": "up/m", "messages": [USER], "options": {"stop": ["a", 1]}}, "options.stop[1]"),
        ({"model": "up/m", "messages": [USER], "options": {"num_predict": "many"}}, "options.num_predict"),
        ({"model": "up/m", "messages": [USER], "options": {"num_predict": 1.5}}, "options.num_predict"),
        ({"model": "up/m", "messages": [USER], "logprobs": 1}, "logprobs"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(body, param):
    status, told = ask(Up(), "chat", body)
    assert (status, list(told)) == (400, ["error"])
    assert told["error"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("generate", {"prompt": 1}, "prompt"),
        ("generate", {"prompt": "x", "system": "s", "images": [PNG, 1]}, "images[1]"),
        ("generate", {"prompt": "x", "options": {"top_p": 2}}, "options.top_p"),
        ("embed", {"input": ["a", 1]}, "input[1]"),
        ("embeddings", {}, "prompt"),
    ],
)
def test_a_wrong_field_is_named_as_it_is_called_there(path, body, param):
    status, told = ask(Up(), path, {"model": "up/m", **body})
    assert (status, told["error"].startswith(f"{param}: ")) == (400, True), told


@pytest.mark.parametrize(
    ("canonical", "path", "own"),
    [
        ("messages[0].content[1].image_url", "chat", "messages[0].images"),
        ("messages[0].content[1].image_url", "generate", "images"),
        ("messages[0].content", "generate", "prompt"),
        ("tools[0].type", "chat", "tools[0].type"),
        ("response_format.json_schema", "chat", "format"),
    ],
)
def test_a_field_that_a_provider_cannot_take_is_named_too(canonical, path, own):
    up = Up(UpstreamError(400, "that cannot be", param=canonical))
    told = ask(up, path, {"model": "up/m", "messages": [USER], "prompt": "x"})
    assert told == (400, {"error": f"{own}: that cannot be"})


def test_whole_numbers_may_be_written_as_floats_and_an_answer_without_end_is_asked_for_by_none():
    chat = translated({"messages": [USER], "options": {"num_predict": 9.0, "top_k": 4.0, "temperature": None}})[0]
    assert (chat["max_completion_tokens"], chat["top_k"], "temperature" in chat) == (9, 4, False)
    for endless in (0, -1, -2):
        assert "max_completion_tokens" not in translated({"messages": [USER], "options": {"num_predict": endless}})[0]


def test_a_whole_answer_is_told_as_ollama_tells_it():
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
    message = {"content": "hello", "reasoning_content": "hm", "tool_calls": [call]}
    up = Up(_canonical.completion("", "up/m", message, "tool_calls", USAGE))
    status, told = ask(up, "chat", {"model": "up/m", "messages": [USER], "stream": False})
    assert status == 200
    assert told["message"] == {
        "role": "assistant",
        "content": "hello",
        "thinking": "hm",
        "tool_calls": [{"id": "c1", "function": {"index": 0, **WEATHER}}],
    }
    assert (told["model"], told["done"], told["done_reason"]) == ("up/m", True, "stop")
    assert (told["prompt_eval_count"], told["eval_count"]) == (3, 2)
    assert told["created_at"].endswith("Z")
    assert told["total_duration"] >= 0


def delta(finish=None, **said):
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def test_a_stream_is_a_line_for_each_word_with_calls_whole_and_what_it_cost_at_the_end():
    function = {"name": "weather", "arguments": '{"city"'}
    parts = [
        delta(role="assistant", content=""),
        PAUSE,
        delta(reasoning_content="hm"),
        delta(content="a"),
        delta(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": function}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ':"Ulm"}'}}]),
        delta("length"),
        {"choices": [], "usage": USAGE},
    ]
    status, lines = ask(Up(*parts), "chat", {"model": "up/m", "messages": [USER]})
    assert status == 200
    said = [{k: v for k, v in line["message"].items() if k != "role"} for line in lines]
    assert said == [
        {"content": "", "thinking": "hm"},
        {"content": "a"},
        {"content": "", "tool_calls": [{"id": "c1", "function": {"index": 0, **WEATHER}}]},
        {"content": ""},
    ]
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert (lines[-1]["done_reason"], lines[-1]["eval_count"]) == ("length", 2)


def test_a_generated_answer_stands_under_another_name():
    status, lines = ask(
        Up(delta(content="a"), delta("stop")), "generate", {"model": "up/m", "prompt": "x", "system": "s"}
    )
    assert (status, [line["response"] for line in lines]) == (200, ["a", ""])
    assert not any("message" in line for line in lines)


def test_trouble_is_one_sentence():
    body = {"model": "up/m", "messages": [USER]}
    assert ask(Up(UpstreamError(429, "slow down")), "chat", body) == (429, {"error": "slow down"})
    status, lines = ask(Up(delta(content="a"), PAUSE, UpstreamError(502, "cut")), "chat", body)
    assert (status, lines[-1]) == (200, {"error": "cut"})
    assert not any(line.get("done") for line in lines)


@pytest.mark.parametrize("arguments", ["{", "[1]", "[" * 5000, '{"x":NaN}'])
def test_a_call_that_was_cut_short_or_has_no_arguments_by_name_is_trouble(arguments):
    function = {"name": "f", "arguments": arguments}
    parts = delta(tool_calls=[{"index": 0, "id": "c", "function": function}]), delta("length")
    assert "no JSON" in ask(Up(*parts), "chat", {"model": "up/m", "messages": [USER]})[1][-1]["error"]


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), ("5m", "load"), (0, "unload")])
def test_a_question_without_words_is_answered_at_once(keep_alive, reason):
    up = Up(UpstreamError(400, "there are none", param="messages"))
    for path, body in (("chat", {"messages": []}), ("chat", {}), ("generate", {}), ("generate", {"prompt": ""})):
        status, told = ask(up, path, {"model": "up/m", "keep_alive": keep_alive, **body})
        assert (status, told["done"], told["done_reason"]) == (200, True, reason)


@pytest.mark.parametrize("texts", ["a", ["a", "b"]])
def test_texts_are_embedded(texts):
    count = len(texts)
    up = Up(embeddings=_canonical.vectors([[0.5, 1.0]] * count, "up/m", 4))
    status, told = ask(up, "embed", {"model": "up/m", "input": texts, "dimensions": 2, "truncate": True})
    assert status == 200
    assert told == {"model": "up/m", "embeddings": [[0.5, 1.0]] * count, "prompt_eval_count": 4}
    assert (up.asked["input"], up.asked["dimensions"]) == (texts, 2)
    assert up.asked["_ollama"].losses == {"truncate": "only for models of Ollama's own"}


def test_one_text_may_be_embedded_the_old_way():
    up = Up(embeddings=_canonical.vectors([[0.5]], "up/m", 4))
    assert ask(up, "embeddings", {"model": "up/m", "prompt": "a"}) == (200, {"embedding": [0.5]})


def test_no_text_has_no_vectors():
    assert ask(Up(), "embed", {"model": "up/m", "input": []}) == (200, {"model": "up/m", "embeddings": []})


def test_models_are_listed_and_shown():
    plugin = OllamaApi({"heartbeat": 15.0}, Up())
    (entry,) = json.loads(plugin.routes()["GET /llm/api/tags"](request("/", b"")).body)["models"]
    assert (entry["name"], entry["model"], len(entry["digest"]), entry["size"]) == ("up/m", "up/m", 64, 0)
    status, told = through(plugin, "show", {"model": "up/m"})
    assert (status, told["capabilities"]) == (200, ["completion"])
    assert told["model_info"] == {"general.architecture": "up", "up.context_length": 9}
    assert through(plugin, "show", {"name": "up/m"})[0] == 200
    assert through(plugin, "show", {"model": "nobody/m"})[0] == 404
    assert through(plugin, "show", {})[0] == 400


def test_a_program_need_not_say_that_it_sends_json_but_a_page_must():
    body = {"model": "up/m", "messages": [USER], "stream": False}
    completion = _canonical.completion("", "up/m", {"content": "x"}, "stop", USAGE)
    form = ("content-type", "application/x-www-form-urlencoded")
    assert ask(Up(completion), "chat", body, [form])[0] == 200
    for page in (("origin", "http://localhost"), ("sec-fetch-site", "cross-site")):
        assert ask(Up(completion), "chat", body, [form, page])[0] == 415


def test_its_clients_find_an_ollama(house, upstream):
    up = upstream(strict_ollama.answer)
    one = house(f"[providers.ollama]\nbase_url = {up.url}\n[models]\nfast = ollama/qwen3:8b\n")
    assert one.ask("GET", "/llm/").text == "Ollama is running"
    assert one.ask("HEAD", "/llm/").status == 200
    assert one.ask("GET", "/llm/api/version").json["version"]
    names = [entry["name"] for entry in one.ask("GET", "/llm/api/tags").json["models"]]
    assert {"ollama/qwen3:8b", "fast"} <= set(names)
    assert one.ask("POST", "/llm/api/pull", {"model": "x"}).status == 501
    assert one.ask("POST", "/llm/api/show", {"model": "fast"}).json["capabilities"] == [
        "completion",
        "tools",
        "thinking",
    ]
    own = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], "keep_alive": 5}
    lines = [json.loads(line) for line in one.ask("POST", "/llm/api/chat", own).body.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "echo: hi"
    assert lines[-1]["total_duration"] == 1874560334
    assert one.ask("POST", "/llm/api/chat", {"model": "fast", "messages": []}).json["done_reason"] == "load"


def test_another_provider_answers_an_ollama_client(house, upstream):
    up = upstream(strict_anthropic.answer)
    one = house(f"[providers.anthropic]\nbase_url = {up.url}\napi_key = sk-ant-test\n")
    chat = {"model": "anthropic/claude-haiku-4-5-20251001", "messages": [USER], "keep_alive": 5}
    answer = one.ask("POST", "/llm/api/chat", chat)
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "echo: hi"
    assert (answer.headers["content-type"], lines[-1]["done"]) == ("application/x-ndjson", True)
    assert "keep_alive=" in answer.headers["x-llmproxy-warnings"]
    refused = one.ask("POST", "/llm/api/generate", {"model": chat["model"], "prompt": "x", "suffix": "y"})
    assert (refused.status, "suffix" in refused.json["error"]) == (400, True)
