"""What is promised of `plugins/gemini_api.py`: Google's clients find a Gemini, whoever answers."""

from __future__ import annotations

import base64
import json

import pytest

from conftest import settled
from plugins import Request
from plugins._state import sealed
from plugins.gemini_api import GeminiApi, as_array, verb_of
from providers import PAUSE, Provider, Trouble, UpstreamError, _canonical
from providers._http import Fields
from strict import anthropic as strict_anthropic
from strict import gemini as strict_gemini

PIXEL = base64.b64encode(bytes([0xFB, 0xFF, 0xFE, 1])).decode()
USER = {"role": "user", "parts": [{"text": "hi"}]}
SAID = {"role": "user", "content": "hi"}
USAGE = _canonical.usage(3, 5, cached=1, reasoning=2)
DETAIL = {"provider": "up", "model": "m", "index": 0, "type": "thinking", "thinking": "hm", "signature": "s"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
DECLARED = {"name": "weather"}
SECOND = "tools[1].functionDeclarations[1]"
LEVEL = "generationConfig.thinkingConfig.thinkingLevel"
CALLED = {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Ulm"}}}


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

    def embed(self, call):
        self.asked.append(call.chat)
        return _canonical.vectors([[float(len(text))] for text in call.chat["input"]], "up/m", 0)

    def survey(self, scope, provider=""):
        return [{"id": f"up/{n}", "context_length": n} for n in range(3)], {}

    def describe(self, call):
        return {"id": call.model, "capabilities": ["embedding"]}


def ask(up, target, body=None, method="POST", headers=()):
    """Ask; gives the status, and the document, or the body of a stream."""
    plugin = GeminiApi({"heartbeat": 15.0}, up)
    data = json.dumps(body).encode()
    fields = Fields([("content-type", "application/json"), *headers])
    request = Request(method, f"/llm/v1beta/models{target}", fields, read=data)
    route = f"{method} /llm/v1beta/models" + ("/*" if request.path != "/llm/v1beta/models" else "")
    try:
        response = settled(plugin.routes()[route](request))
    except Trouble as trouble:
        response = plugin.error(trouble)
    if isinstance(response.body, bytes):
        return response.status, json.loads(response.body)
    return response.status, b"".join(response.body)


def events(body):
    assert body.endswith(b"\r\n\r\n")
    items = body.split(b"\r\n\r\n")[:-1]
    assert all(item.startswith(b"data: ") for item in items)
    return [json.loads(item[6:]) for item in items]


def translated(**body):
    """Give the canonical chat of a question, and its pocket."""
    up = Up(_canonical.completion("", "up/m", {"content": "x"}, "stop", USAGE))
    status, told = ask(up, "/up/m:generateContent", {"contents": [USER], **body})
    assert status == 200, told
    chat = up.asked[0]
    assert (chat["model"], chat["stream"]) == ("up/m", False)
    return {k: v for k, v in chat.items() if k not in ("_gemini", "model", "stream")}, chat["_gemini"]


def configured(**config):
    chat, pocket = translated(generationConfig=config)
    return {k: v for k, v in chat.items() if k != "messages"}, pocket


# questions


@pytest.mark.parametrize(
    ("config", "canonical"),
    [
        ({"temperature": 0.5, "topP": 0.5, "topK": 40.0}, {"temperature": 0.5, "top_p": 0.5, "top_k": 40}),
        ({"top_p": 0.5, "max_output_tokens": 9}, {"top_p": 0.5, "max_completion_tokens": 9}),
        ({"stopSequences": ["a"], "seed": 1, "candidateCount": 1}, {"stop": ["a"], "seed": 1, "n": 1}),
        ({"responseLogprobs": True, "logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"responseMimeType": "application/json"}, {"response_format": {"type": "json_object"}}),
        ({"responseMimeType": "text/plain"}, {}),
        ({"thinkingConfig": {"thinkingLevel": "HIGH"}}, {"reasoning_effort": "high"}),
        ({"thinking_config": {"thinking_level": "LOW", "include_thoughts": True}}, {"reasoning_effort": "low"}),
        ({"thinkingConfig": {"thinkingBudget": 0}}, {"reasoning_effort": "none"}),
        ({"thinkingConfig": {"thinkingBudget": -1}}, {}),
        ({"thinkingConfig": {"thinkingBudget": 512}}, {"thinking_budget": 512}),
    ],
)
def test_the_settings_are_put_into_canonical_words(config, canonical):
    assert configured(**config)[0] == canonical


@pytest.mark.parametrize(
    "schema",
    [
        {
            "responseSchema": {
                "type": "OBJECT",
                "properties": {
                    "n": {"type": "INTEGER", "nullable": True},
                    "type": {"type": "ARRAY", "items": {"anyOf": [{"type": "STRING"}]}, "minItems": "2"},
                },
                "propertyOrdering": ["n"],
            }
        },
        {
            "response_json_schema": {
                "type": "object",
                "properties": {
                    "n": {"type": ["integer", "null"]},
                    "type": {"type": "array", "items": {"anyOf": [{"type": "string"}]}, "minItems": 2},
                },
            }
        },
    ],
)
def test_a_schema_of_either_kind_is_json_schema(schema):
    told = configured(responseMimeType="application/json", **schema)[0]["response_format"]
    assert told["json_schema"]["schema"] == {
        "type": "object",
        "properties": {
            "n": {"type": ["integer", "null"]},
            "type": {"type": "array", "items": {"anyOf": [{"type": "string"}]}, "minItems": 2},
        },
    }


def test_a_conversation_is_put_into_messages():
    contents = [
        {"parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": "-__-AQ"}}]},
        {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "one "}, {"text": "two"}]},
        {"role": "user", "parts": [{"inline_data": {"mime_type": "application/pdf", "data": PIXEL}}]},
        {"role": "user", "parts": [{"inlineData": {"mimeType": "audio/mp3", "data": PIXEL}}]},
        {"role": "user", "parts": [{"fileData": {"mimeType": "image/png", "fileUri": "https://a.test/b.png"}}]},
    ]
    chat, pocket = translated(contents=contents, system_instruction={"parts": [{"text": "be"}, {"text": "kind"}]})
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    assert chat["messages"] == [
        {"role": "system", "content": "be\nkind"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": "one two", "reasoning_content": "hm"},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PIXEL}"}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": PIXEL, "format": "mp3"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}]},
    ]
    assert (pocket.losses, pocket.musts) == ({}, {})


def test_calls_and_results_find_each_other_with_ids_and_without():
    def result(name, value, **more):
        return {"functionResponse": {"name": name, "response": value, **more}}

    contents = [
        USER,
        {"role": "model", "parts": [CALLED, {"functionCall": {"name": "clock"}}, {"functionCall": {"name": "clock"}}]},
        {
            "role": "user",
            "parts": [
                result("clock", {"output": "noon"}),
                result("weather", {"result": {"rain": 1}}, id="c1"),
                result("clock", {"error": "broken"}, id="an id of its own"),
                {"text": "and?"},
            ],
        },
    ]
    messages = translated(contents=contents)[0]["messages"]
    calls = messages[1]["tool_calls"]
    assert calls[0] == CALL
    assert [call["function"]["arguments"] for call in calls[1:]] == ["{}", "{}"]
    assert messages[2:] == [
        {"role": "tool", "tool_call_id": calls[1]["id"], "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": '{"rain": 1}'},
        {"role": "tool", "tool_call_id": calls[2]["id"], "content": "broken", "is_error": True},
        {"role": "user", "content": "and?"},
    ]


def test_a_turn_that_a_client_took_apart_is_one_again():
    thought = {"text": "hm", "thought": True}
    contents = [
        USER,
        *({"role": "model", "parts": [part]} for part in (thought, {"text": "a"}, {"text": "b"}, CALLED, CALLED)),
    ]
    result = {"functionResponse": {"name": "weather", "response": {}}}
    chat, _ = translated(contents=[*contents, {"role": "user", "parts": [result, result]}])
    assert [message["role"] for message in chat["messages"]] == ["user", "assistant", "tool", "tool"]
    assert chat["messages"][1] == {
        "role": "assistant",
        "content": "ab",
        "reasoning_content": "hm",
        "tool_calls": [CALL, CALL],
    }


def test_state_that_went_out_with_a_call_comes_back_and_is_kept_from_gemini():
    part = {**CALLED, "thoughtSignature": sealed([DETAIL])}
    result = {"functionResponse": {"id": "c1", "name": "weather", "response": {"a": 1}}}
    contents = [USER, {"role": "model", "parts": [part]}, {"role": "user", "parts": [result]}]
    chat, pocket = translated(contents=contents)
    assert chat["messages"][1]["reasoning_details"] == [DETAIL]
    sent = pocket.body["contents"][1]["parts"][0]
    assert sent == {**CALLED, "thoughtSignature": "skip_thought_signature_validator"}


def test_tools_are_functions_and_a_choice_of_them():
    declared = [
        {"name": "a", "description": "A", "parametersJsonSchema": {"type": "object"}},
        {"name": "b", "parameters": {"type": "OBJECT"}},
    ]
    chat, _ = translated(tools=[{"functionDeclarations": declared}])
    assert [tool["function"] for tool in chat["tools"]] == [
        {"name": "a", "description": "A", "parameters": {"type": "object"}},
        {"name": "b", "parameters": {"type": "object"}},
    ]
    assert "tool_choice" not in chat

    def chosen(**calling):
        tools = [{"function_declarations": declared}]
        return translated(tools=tools, toolConfig={"functionCallingConfig": calling})[0]["tool_choice"]

    assert chosen(mode="AUTO") == "auto"
    assert chosen(mode="NONE") == "none"
    assert chosen(mode="ANY") == "required"
    assert chosen(mode="ANY", allowedFunctionNames=["a"]) == {"type": "function", "function": {"name": "a"}}
    assert chosen(mode="ANY", allowed_function_names=["a", "b"])["allowed_tools"]["mode"] == "required"


def test_what_only_gemini_knows_is_kept_for_it_and_told_to_others():
    body = {"safetySettings": [], "labels": {}, "tools": [{"googleSearch": {}}], "cachedContent": "c"}
    video = {"fileData": {"mimeType": "video/mp4", "fileUri": "https://a.test/v"}, "videoMetadata": {}}
    _, pocket = translated(contents=[{"parts": [{"text": "x"}, video]}], **body, generationConfig={"speechConfig": {}})
    assert pocket.body["safetySettings"] == []
    named = {
        "safetySettings",
        "labels",
        "cachedContent",
        "generationConfig.speechConfig",
        "contents[0].parts[1].videoMetadata",
    }
    assert set(pocket.losses) == named
    assert set(pocket.musts) == {"tools[0].googleSearch", "contents[0].parts[1].fileData"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "contents"),
        ({"contents": {}}, "contents"),
        ({"contents": [1]}, "contents[0]"),
        ({"contents": [{"role": "assistant", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 1}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png"}}]}]}, "contents[0].parts[0].inlineData"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "x"}}]}]}, "contents[0].parts[0].functionResponse"),
        ({"contents": [USER], "generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"contents": [USER], "generationConfig": {"topK": 1.5}}, "generationConfig.topK"),
        ({"contents": [USER], "generation_config": {"stop_sequences": ["a", 1]}}, "generationConfig.stopSequences[1]"),
        ({"contents": [USER], "generationConfig": {"thinkingConfig": {"thinkingLevel": "all"}}}, LEVEL),
        ({"contents": [USER], "tools": [{}, {"functionDeclarations": [DECLARED, {}]}]}, f"{SECOND}.name"),
        ({"contents": [USER, {"role": "model", "parts": [{"functionCall": {"name": " "}}]}]}, "contents[1]"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(body, param):
    status, told = ask(Up(), "/up/m:generateContent", body)
    assert (status, told["error"]["code"], told["error"]["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert told["error"]["message"].startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"contents": [{"role": "nobody"}]}, "generateContentRequest.contents[0].role"),
        ({"contents": [USER], "generationConfig": {"topK": -1}}, "generateContentRequest.generationConfig.topK"),
    ],
)
def test_a_wrong_field_is_named_where_it_stands(body, param):
    status, told = ask(Up(), "/up/m:countTokens", {"generateContentRequest": body})
    assert (status, told["error"]["message"].partition(": ")[0]) == (400, param)


def test_a_wrong_field_of_one_of_many_embeddings_is_named():
    entry = {"content": {"parts": [{"text": "a"}]}}
    body = {"requests": [entry, {**entry, "outputDimensionality": 0}]}
    status, told = ask(Up(), "/up/m:batchEmbedContents", body)
    assert (status, told["error"]["message"].partition(": ")[0]) == (400, "requests[1].outputDimensionality")
    assert "outputDimensionality: must" in ask(Up(), "/up/m:embedContent", body["requests"][1])[1]["error"]["message"]


@pytest.mark.parametrize(
    ("canonical", "own"),
    [
        ("messages[0].content", "systemInstruction"),
        ("messages[1].content[1].image_url.url", "contents[0]"),
        ("messages[9].content", "contents"),
        ("tools[0].function.parameters", "tools[0].functionDeclarations[0].parameters"),
        ("tools[0]", "tools[0].functionDeclarations[0]"),
        ("tool_choice.function.name", "toolConfig.functionCallingConfig"),
        ("n", "generationConfig.candidateCount"),
    ],
)
def test_a_field_that_a_provider_cannot_take_is_named_too(canonical, own):
    body = {"systemInstruction": "s", "contents": [USER], "tools": [{"functionDeclarations": [DECLARED]}]}
    for message in ("that cannot be", f"{canonical}: that cannot be"):
        told = ask(Up(UpstreamError(400, message, param=canonical)), "/up/m:generateContent", body)[1]
        assert told["error"]["message"] == f"{own}: that cannot be"


def test_what_only_our_reader_takes_is_put_into_geminis_own_words():
    assert translated(systemInstruction="s")[1].body["systemInstruction"] == {"parts": [{"text": "s"}]}
    assert translated(serviceTier="STANDARD")[0]["service_tier"] == "default"


def test_a_number_too_long_to_be_one_is_left_for_others_to_refuse():
    schema = {"type": "STRING", "minLength": "9" * 5000, "maxLength": "20"}
    declared = [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]
    told = translated(tools=declared)[0]["tools"][0]["function"]["parameters"]
    assert told == {"type": "string", "minLength": "9" * 5000, "maxLength": 20}


# answers


def answered(message, finish="stop", **config):
    up = Up(_canonical.completion("id", "up/m", message, finish, USAGE))
    status, told = ask(up, "/up/m:generateContent", {"contents": [USER], "generationConfig": config})
    assert status == 200
    return told


@pytest.mark.parametrize("arguments", ["[1]", "5", '"x"', "{", "[" * 5000, '{"x":NaN}'])
def test_arguments_that_are_no_object_are_the_upstreams_trouble(arguments):
    odd = {**CALL, "function": {"name": "weather", "arguments": arguments}}
    up = Up(_canonical.completion("id", "up/m", {"content": None, "tool_calls": [odd]}, "tool_calls", USAGE))
    status, told = ask(up, "/up/m:generateContent", {"contents": [USER]})
    assert (status, "no JSON object" in told["error"]["message"]) == (502, True)


@pytest.mark.parametrize("spent", [{"prompt_tokens": 3}, {"total_tokens": None, "completion_tokens_details": None}])
def test_what_an_upstream_does_not_count_is_nought(spent):
    up = Up(_canonical.completion("id", "up/m", {"content": "x"}, "stop", spent))
    told = ask(up, "/up/m:generateContent", {"contents": [USER]})[1]["usageMetadata"]
    assert (told["promptTokenCount"], told["totalTokenCount"]) == (spent.get("prompt_tokens", 0), 0)


def test_a_whole_answer_is_told_as_gemini_tells_it():
    message = {"content": "hello", "reasoning_content": "hm", "tool_calls": [CALL], "reasoning_details": [DETAIL]}
    told = answered(message, "tool_calls", thinkingConfig={"includeThoughts": True})
    (candidate,) = told["candidates"]
    assert candidate == {
        "content": {
            "role": "model",
            "parts": [
                {"text": "hm", "thought": True},
                {"text": "hello"},
                {**CALLED, "thoughtSignature": sealed([DETAIL])},
            ],
        },
        "index": 0,
        "finishReason": "STOP",
    }
    assert told["usageMetadata"] == {
        "promptTokenCount": 3,
        "candidatesTokenCount": 3,
        "totalTokenCount": 8,
        "thoughtsTokenCount": 2,
        "cachedContentTokenCount": 1,
    }
    assert (told["modelVersion"], told["responseId"]) == ("up/m", "id")


def test_thoughts_are_shown_only_to_those_who_ask_for_them():
    told = answered({"content": "hello", "reasoning_content": "hm"}, "length")
    assert told["candidates"][0]["content"]["parts"] == [{"text": "hello"}]
    assert told["candidates"][0]["finishReason"] == "MAX_TOKENS"


def delta(finish=None, **said):
    return {"id": "id", "model": "up/m", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


STREAM = [
    delta(role="assistant", content=""),
    PAUSE,
    delta(content="a"),
    delta(reasoning_details=[DETAIL]),
    delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"city"'}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": ':"Ulm"}'}}]),
    delta("tool_calls"),
    {"id": "id", "model": "up/m", "choices": [], "usage": USAGE},
]


def test_a_stream_tells_words_at_once_and_calls_whole_with_the_end():
    status, body = ask(Up(*STREAM), "/up/m:streamGenerateContent?alt=sse", {"contents": [USER]})
    assert status == 200
    first, last = events(body)
    assert first["candidates"][0]["content"]["parts"] == [{"text": "a"}]
    assert "finishReason" not in first["candidates"][0]
    assert last["candidates"][0]["content"]["parts"] == [{**CALLED, "thoughtSignature": sealed([DETAIL])}]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"]["totalTokenCount"] == 8


def test_a_stream_that_is_no_event_stream_is_an_array():
    status, body = ask(Up(*STREAM), "/up/m:streamGenerateContent", {"contents": [USER]})
    assert status == 200
    assert json.loads(body) == events(ask(Up(*STREAM), "/up/m:streamGenerateContent?alt=sse", {"contents": [USER]})[1])
    assert json.loads(b"".join(as_array(block for block in (b"", b"")))) == []


def test_trouble_has_googles_shape_and_status():
    body = {"contents": [USER]}
    status, told = ask(Up(UpstreamError(429, "slow down", {"Retry-After": "3"})), "/up/m:generateContent", body)
    assert (status, told["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert told["error"]["details"][0]["retryDelay"] == "3s"
    broken = delta(content="a"), PAUSE, UpstreamError(502, "cut")
    status, told = ask(Up(*broken), "/up/m:streamGenerateContent?alt=sse", body)
    assert events(told)[-1] == {"error": {"code": 502, "message": "cut", "status": "UNAVAILABLE"}}
    assert not any(c.get("finishReason") for e in events(told) for c in e.get("candidates", ()))
    array = json.loads(ask(Up(*broken), "/up/m:streamGenerateContent", body)[1])
    assert array[-1]["error"]["message"] == "cut"
    assert ask(Up(), "/up/m:predict", body)[0] == 404


# counts, embeddings, models


def test_tokens_are_counted_or_estimated():
    assert ask(Up(), "/up/m:countTokens", {"contents": [USER]}) == (200, {"totalTokens": 2})
    whole = {"generateContentRequest": {"model": "models/up/m", "contents": [USER]}}
    assert ask(Up(), "/up/m:countTokens", whole) == (200, {"totalTokens": 2})


def test_texts_are_embedded_in_their_order_however_they_differ():
    def entry(text, **more):
        return {"model": "models/up/m", "content": {"parts": [{"text": text}]}, **more}

    up = Up()
    entries = [
        entry("a"),
        entry("bb", taskType="RETRIEVAL_QUERY"),
        entry("ccc"),
        entry("dddd", output_dimensionality=2),
    ]
    status, told = ask(up, "/up/m:batchEmbedContents", {"requests": entries})
    assert (status, told) == (
        200,
        {"embeddings": [{"values": [1.0]}, {"values": [2.0]}, {"values": [3.0]}, {"values": [4.0]}]},
    )
    how = [{k: v for k, v in chat.items() if k not in ("_gemini", "model")} for chat in up.asked]
    assert sorted(how, key=str) == [
        {"input": ["a", "ccc"]},
        {"input": ["bb"], "input_type": "query"},
        {"input": ["dddd"], "dimensions": 2},
    ]
    assert ask(Up(), "/up/m:embedContent", entry("aa")) == (200, {"embedding": {"values": [2.0]}})
    assert ask(Up(), "/up/m:batchEmbedContents", {})[0] == 400


def test_models_are_listed_page_by_page():
    status, page = ask(Up(), "?pageSize=2", method="GET")
    assert (status, [model["name"] for model in page["models"]]) == (200, ["models/up/0", "models/up/1"])
    _, rest = ask(Up(), f"?pageSize=2&pageToken={page['nextPageToken']}", method="GET")
    assert [model["inputTokenLimit"] for model in rest["models"]] == [2]
    assert "nextPageToken" not in rest
    assert ask(Up(), "?pageSize=x", method="GET")[0] == 400
    assert ask(Up(), "/up%2Fe", method="GET")[1]["supportedGenerationMethods"] == ["embedContent"]


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/llm/v1beta/models/gemini/gemini-2.5-pro:generateContent", ("gemini/gemini-2.5-pro", "generateContent")),
        ("/v1/models/ollama%2Fqwen3:8b:countTokens", ("ollama/qwen3:8b", "countTokens")),
        ("/llm/v1/models/models/a/b:x", ("a/b", "x")),
        ("/llm/v1beta/openai/gpt-4o:generateContent", ("openai/gpt-4o", "generateContent")),
    ],
)
def test_the_model_and_the_method_stand_in_the_path(path, verb):
    assert verb_of(path) == verb


@pytest.mark.parametrize(
    ("target", "header", "speaks"),
    [
        ("/", ("x-goog-api-key", "k"), True),
        ("/", ("x-goog-api-client", "c"), True),
        ("/?a=1&key=k", None, True),
        ("/?keys=k", None, False),
    ],
)
def test_a_request_in_its_language_is_known(target, header, speaks):
    request = Request("GET", target, Fields([header] if header else []))
    assert GeminiApi({"heartbeat": 15.0}, Up()).speaks(request) is speaks


# with real providers behind it

GEMINI = "gemini/gemini-3.8-flash"


def gemini(house, upstream):
    up = upstream(strict_gemini.answer)
    return up, house(f"[providers.gemini]\nbase_url = {up.url}\napi_key = AIzaTest\n")


def test_gemini_hears_its_own_clients_own_words(house, upstream):
    up, one = gemini(house, upstream)
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    body = {"contents": [USER], "safetySettings": safety, "generationConfig": {"topK": 3}}
    whole = one.ask("POST", f"/llm/v1beta/models/{GEMINI}:generateContent", body, {"x-goog-api-key": "mine"})
    assert whole.json["candidates"][0]["content"]["parts"][0]["text"] == "echo: hi"
    assert "x-llmproxy-warnings" not in whole.headers
    assert [asked.json for asked in up.asked] == [body]
    assert "mine" not in str(up.asked[0].fields)
    stream = one.ask("POST", f"/llm/v1/models/{GEMINI}:streamGenerateContent?alt=sse", body)
    said = [e["candidates"][0]["content"]["parts"] for e in events(stream.body) if e.get("candidates")]
    assert "".join(part.get("text", "") for parts in said for part in parts) == "echo: hi"
    assert one.ask("POST", f"/llm/v1beta/models/{GEMINI}:countTokens", body).json["totalTokens"] > 0
    listed = one.ask("GET", "/llm/v1beta/models", headers={"x-goog-api-key": "mine"}).json["models"]
    assert f"models/{GEMINI}" in [model["name"] for model in listed]


def test_another_provider_answers_a_gemini_client(house, upstream):
    up = upstream(strict_anthropic.answer)
    one = house(f"[providers.anthropic]\nbase_url = {up.url}\napi_key = sk-ant-test\n")
    path = "/llm/v1beta/models/anthropic/claude-haiku-4-5-20251001"
    answer = one.ask("POST", f"{path}:generateContent", {"contents": [USER], "safetySettings": []})
    assert answer.json["candidates"][0]["content"]["parts"] == [{"text": "echo: hi"}]
    assert "safetySettings=" in answer.headers["x-llmproxy-warnings"]
    refused = one.ask("POST", f"{path}:generateContent", {"contents": [USER], "tools": [{"googleSearch": {}}]})
    assert (refused.status, "googleSearch" in refused.json["error"]["message"]) == (400, True)
    bare = one.ask("POST", f"{path.replace('models/', '')}:streamGenerateContent?alt=sse", {"contents": [USER]})
    assert "echo: hi" in "".join(e["candidates"][0]["content"]["parts"][0]["text"] for e in events(bare.body)[:-1])
