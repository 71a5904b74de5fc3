"""Whatever a client of a dialect asks, it is answered in its own words: good questions with odd things put into them.

An input is told by its number alone. Half of them are streamed; the upstreams are strict stand-ins, without sockets.
"""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple
from urllib.parse import urlsplit

import pytest

import strict.anthropic
import strict.gemini
from conftest import settled
from conversations import PNG, TOOLS, image, message, result, user
from dialects.anthropic import Anthropic as AnthropicClient
from dialects.gemini import Gemini as GeminiClient
from dialects.ollama import Ollama as OllamaClient
from dialects.openai import OpenAI as OpenAIClient
from dialects.responses import Responses as ResponsesClient
from fuzz_answers import made, places
from plugins import Request
from plugins._state import sealed
from plugins.anthropic_api import AnthropicAPI
from plugins.gemini_api import GeminiApi
from plugins.ollama_api import OllamaApi
from plugins.openai_api import OpenAIAPI
from plugins.responses_api import ResponsesAPI
from providers import Trouble, _http, _transport
from providers._all import Everything
from providers.anthropic import Anthropic
from providers.echo import Echo
from providers.gemini import Gemini
from upstream import Asked, Reply

INPUTS = 700  # of each dialect
MODELS = ("echo/echo", "anthropic/claude-haiku-4-5-20251001", "gemini/gemini-2.5-flash")
STATE = {"provider": "anthropic", "model": MODELS[1][10:], "index": "x", "type": 5, "thinking": None, "signature": []}
DEEP = json.loads("[" * 60 + "]" * 60)
ODD: Tuple[Any, ...] = (None, True, 0, -1, 1.5, 2**63, 10**299, "", " ", "x", "a" * 9000, "9" * 5000, "\x00")
ODD += ([], {}, [[]], [None], [{}], ["a"], [5], {"type": "x"}, {"type": 5}, {"a": None}, DEEP, "data:,x", "user")
ODD += ("tool", "assistant", "tool_use", "thinking", "reasoning", "image", "ANY", "low")
ODD += (sealed([{}]), sealed([STATE]), sealed([])[:-2])


# questions


class Overheard(Exception):
    pass


class Listening:
    """Stands in a house's place, to hear what a client would ask it."""

    def ask(self, *asked: Any) -> None:
        raise Overheard(*asked)


class Question(NamedTuple):
    path: str
    body: Dict[str, Any]
    headers: Dict[str, str]


CLOCK = {"name": "clock", "arguments": '{"zone":"CET"}'}
CALLS = [{"id": f"c{n}", "type": "function", "function": CLOCK} for n in (1, 2)]
MESSAGES = [message("system", "Be brief."), user("Look.", image("image/png", PNG)), user("What time is it?")]
TURNS = [message("assistant", "", tool_calls=CALLS), result("c1", "one"), result("c2", "two"), user("think")]
CHAT = {"messages": [*MESSAGES, *TURNS], **TOOLS, "temperature": 0.5, "max_tokens": 900, "stop": ["HALT"]}


def overheard(client: Any, model: str, *, stream: bool) -> Question:
    """Give a rich question as a client of the dialect asks it."""
    with pytest.raises(Overheard) as heard:
        client(Listening()).chat({**CHAT, "model": model}, stream=stream)
    _, path, body, *headers = heard.value.args
    if client is GeminiClient:  # to which older models of Google's give no ids
        body = json.loads(re.sub(r'"id": "c[12]", ', "", json.dumps(body)))
    return Question(path, body, dict(headers[0] or {}) if headers else {})


def others(model: str) -> Dict[str, List[Question]]:
    """Give what else may be asked: embeddings, counts, one model."""
    content = {"parts": [{"text": "a"}]}
    entries = [{"content": content, "taskType": "RETRIEVAL_QUERY"}, {"content": content, "outputDimensionality": 256}]
    counted = {"generateContentRequest": {"contents": [{"role": "user", **content}]}}
    return {
        "openai": [Question("/llm/v1/embeddings", {"model": model, "input": ["a"], "dimensions": 256}, {})],
        "responses": [Question("/llm/v1/responses/input_tokens", {"model": model, "input": "a"}, {})],
        "anthropic": [Question("/llm/v1/messages/count_tokens", {"model": model, "messages": [user("a")]}, {})],
        "gemini": [
            Question(f"/llm/v1beta/models/{model}:batchEmbedContents", {"requests": entries}, {}),
            Question(f"/llm/v1beta/models/{model}:countTokens", counted, {}),
        ],
        "ollama": [
            Question("/llm/api/generate", {"model": model, "prompt": "a", "system": "b", "options": {"top_k": 1}}, {}),
            Question("/llm/api/embed", {"model": model, "input": ["a"]}, {}),
            Question("/llm/api/show", {"model": model}, {}),
        ],
    }


def mutated(rng: random.Random, body: Dict[str, Any]) -> Dict[str, Any]:
    """Give a body with a few values odd, gone, doubled or in each other's place."""
    body = copy.deepcopy(body)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = list(places(body))
        if not found:
            break
        holder, key = rng.choice(found)
        way = rng.random()
        if way < 0.7:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        elif way < 0.85:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(found)[0]) if way < 0.93 else [holder[key]] * 2
    return body


# upstreams


class Upstreams:
    """Answers what is asked of a stand-in, which may refuse what is too odd for it; `refused` tells that one did."""

    def __init__(self) -> None:
        self.refused = False

    def open(self, question: Any) -> Came:
        url = urlsplit(question.full_url)
        fields = {name.lower(): value for name, value in question.fields}
        target = url.path + (f"?{url.query}" if url.query else "")
        stand_in: Any = strict.anthropic if url.hostname == "api.anthropic.com" else strict.gemini
        try:
            reply = stand_in.answer(Asked(question.get_method(), target, fields, question.data or b""))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            reply = Reply(400, body=b"{}")
        self.refused = reply.status >= 400
        return Came(reply)


class Came:
    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.fields = _http.Fields(list(dict(reply.headers).items()))
        self._body: Any = [reply.body] if isinstance(reply.body, bytes) else reply.body

    def head(self) -> Iterator[None]:
        return iter(())

    def at_once(self) -> None:
        return None

    def blocks(self) -> Iterator[bytes]:
        for block in self._body:
            yield from (b"", block) if isinstance(block, bytes) else ()

    def close(self) -> None:
        pass


# answers


def error_of(dialect: str, told: Any) -> Tuple[str, str]:
    """Give an error's message and the field it names, from the dialect's own shape."""
    if dialect == "ollama":
        assert list(told) == ["error"]
        message = told["error"]
    else:
        message = told["error"]["message"]
    wanted = {"anthropic": {"type", "message"}, "gemini": {"code", "message", "status"}, "ollama": set()}
    assert wanted.get(dialect, {"message", "type", "param", "code"}) <= set(told["error"])
    assert dialect != "anthropic" or told["type"] == "error"
    named = re.match(r"([A-Za-z][\w.\[\]]*): ", message)
    return message, named[1] if named else ""


def leads_somewhere(path: str, body: Any) -> bool:
    """Tell whether a field's path is one of this body's: all of it but the last step is there."""
    *steps, _ = re.findall(r"[^.\[\]]+|(?<=\[)\d+(?=\])", path)
    for step in steps:
        try:
            body = body[int(step)] if isinstance(body, list) else body[step]
        except (LookupError, TypeError, ValueError):
            return False
    return True


#: what a stream ends with, good or not
ENDS = {
    "openai": rb'data: (\[DONE\]|\{"error".*)\n\n',
    "responses": rb"event: (response\.(completed|incomplete|failed)|error)\n.*\n\n",
    "anthropic": rb"event: (message_stop|error)\n.*\n\n",
    "gemini": rb'data: .*("finishReason"|"error"|"blockReason").*\r\n\r\n',
    "ollama": rb'\{.*("done":true|"error").*\n',
}
DIALECTS: Dict[str, Tuple[Any, Any]] = {
    "openai": (OpenAIClient, OpenAIAPI),
    "responses": (ResponsesClient, ResponsesAPI),
    "anthropic": (AnthropicClient, AnthropicAPI),
    "gemini": (GeminiClient, GeminiApi),
    "ollama": (OllamaClient, OllamaApi),
}


class World:
    """A dialect before the built-in model and two stand-ins."""

    def __init__(self, dialect: str, upstreams: Upstreams) -> None:
        self.dialect = dialect
        self.client, plugin = DIALECTS[dialect]
        self.upstreams = upstreams
        self.plugin = plugin({"heartbeat": 15.0}, Everything([made(kind) for kind in (Echo, Anthropic, Gemini)], {}))
        self.routes = self.plugin.routes()

    def ask(self, question: Question) -> Tuple[int, bytes, bool]:
        """Give the status, the body, and whether it is a stream."""
        data = json.dumps(question.body).encode()
        fields = _http.Fields([("Content-Type", "application/json"), *question.headers.items()])
        request = Request("POST", question.path, fields, read=data)
        route = next(f"POST {one}" for one in (request.path, "/llm/v1beta/models/*") if f"POST {one}" in self.routes)
        self.upstreams.refused = False
        try:
            response = settled(self.routes[route](request))
        except Trouble as trouble:
            response = self.plugin.error(trouble)
        whole = isinstance(response.body, bytes)
        return response.status, response.body if whole else b"".join(response.body), not whole

    def check(self, number: int) -> None:
        rng = random.Random(f"{self.dialect} {number}")
        model = rng.choice(MODELS)
        if rng.random() < 0.75:
            question = overheard(self.client, model, stream=rng.random() < 0.5)
        else:
            question = rng.choice(others(model)[self.dialect])
        question = question._replace(body=mutated(rng, question.body))
        status, body, streams = self.ask(question)
        if status == 200:
            assert not streams or re.search(ENDS[self.dialect] + rb"\Z", body), (question, body[-500:])
            assert streams or json.loads(body)
        else:
            text, path = error_of(self.dialect, json.loads(body))
            if not self.upstreams.refused:
                assert status < 500 or status == 501, (question, status, text)
                assert status != 400 or leads_somewhere(path or "x", question.body), (question, text)


@pytest.fixture
def worlds(monkeypatch):
    upstreams = Upstreams()
    monkeypatch.setattr(_transport, "opener", lambda: upstreams)
    return lambda dialect: World(dialect, upstreams)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_whatever_is_asked_is_answered_in_the_dialects_own_words(worlds, caplog, dialect):
    world = worlds(dialect)
    for number in range(INPUTS):
        world.check(number)
    assert not [record for record in caplog.records if record.exc_info or "no known shape" in record.msg]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_the_questions_are_good_before_anything_odd_is_put_into_them(worlds, dialect, stream):
    world = worlds(dialect)
    for model in MODELS:
        status, body, _ = world.ask(overheard(world.client, model, stream=stream))
        assert status == 200, body


def test_a_field_that_is_named_in_other_words_would_be_seen(worlds, monkeypatch):
    world = worlds("gemini")
    monkeypatch.setattr("plugins.gemini_api.own_path", lambda places, path, **_: path)
    with pytest.raises(AssertionError):
        for number in range(5 * INPUTS):
            world.check(number)


def test_a_translator_that_stumbles_would_be_seen(worlds, monkeypatch):
    world = worlds("ollama")
    monkeypatch.setattr("plugins.ollama_api.fields", lambda body, kinds, path="": body)
    with pytest.raises(_transport.STUMBLES):
        for number in range(5 * INPUTS):
            world.check(number)
