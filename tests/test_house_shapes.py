"""Whatever JSON an upstream answers in the place of what it should, its client is told a 502 that names it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from conftest import ROOT, Answer, House
from upstream import Reply, Upstream, json_reply

NAMES = ("anthropic", "gemini", "lmstudio", "ollama", "openai", "voyage")
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
INPUT = {"type": "embeddings", "input": ["a", "b"]}
COUNT = {**CHAT, "type": "count_tokens"}
STREAM = {**CHAT, "stream": True}
LIST = {"type": "models"}

#: (provider, question) -> documents it might answer with, each wrong somewhere
WRONG: Dict[Tuple[str, str], List[Any]] = {
    ("anthropic", "chat"): [{"content": 5}, {"content": ["x"]}, {"content": [], "usage": "x"}],
    ("anthropic", "models"): [{"data": 5}, {"data": ["x"]}],
    ("anthropic", "count"): [{"input_tokens": "many"}, {"input_tokens": [5]}],
    ("gemini", "chat"): [
        {"candidates": 5},
        {"candidates": ["x"]},
        {"candidates": [{"content": {"parts": [5]}}]},
        {"candidates": [{"content": {"parts": [{"text": 5}, {"text": "a"}]}, "finishReason": "STOP"}]},
        {"candidates": [{"index": "first"}]},
        {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": "x"}},
    ],
    ("gemini", "embeddings"): [{"embeddings": 5}, {"embeddings": [{}, {}]}, {"embeddings": [{"values": "ab"}] * 2}],
    ("gemini", "models"): [{"models": 5}, {"models": ["x"]}],
    ("gemini", "count"): [{"totalTokens": "many"}],
    ("lmstudio", "chat"): [{"choices": 5}, {"choices": ["x"]}, {"choices": [{"message": {"tool_calls": 5}}]}],
    ("lmstudio", "embeddings"): [{"data": 5}, {"data": ["x", "y"]}, {"data": [{"embedding": 5}] * 2}],
    ("lmstudio", "models"): [{"models": ["x"], "data": 5}],
    ("ollama", "chat"): [{"message": 5}, {"message": {"tool_calls": ["x"]}}, {"message": {}, "eval_count": "x"}],
    ("ollama", "embeddings"): [{"embeddings": 5}, {"embeddings": [["x"], []]}, {"embeddings": [10**400, 1]}],
    ("ollama", "models"): [{"models": 5}, {"models": ["x"]}],
    ("openai", "chat"): [{"choices": 5}, {"choices": ["x"]}, {"choices": [{"message": "x"}]}],
    ("openai", "embeddings"): [{"data": 5}, {"data": [{}, {}]}, {"data": [{"embedding": [10**400]}] * 2}],
    ("openai", "models"): [{"data": 5}],
    ("openai", "count"): [{"input_tokens": "many"}],
    ("voyage", "embeddings"): [{"data": 5}, {"data": [{}, {}]}, {"data": [{"embedding": [None]}] * 2}],
}
#: provider -> an event that makes a part, and events that are wrong behind it
EVENTS: Dict[str, Tuple[Any, List[Any]]] = {
    "anthropic": (
        {"type": "message_start", "message": {"id": "x"}},
        [{"type": "message_start", "message": 5}, {"type": "content_block_start", "index": 0, "content_block": 5}],
    ),
    "gemini": (
        {"candidates": [{"content": {"parts": [{"text": "a"}]}}]},
        [{"candidates": 5}, {"usageMetadata": 5}, {"candidates": [{"content": {"parts": ["x"]}}]}],
    ),
    "lmstudio": ({"choices": [{"delta": {"content": "a"}}]}, [{"choices": ["x"]}, {"choices": [{"index": []}]}]),
    "ollama": ({"message": {"content": "a"}}, [{"message": 5}, {"message": {"tool_calls": ["x"]}}]),
    "openai": ({"choices": [{"delta": {"content": "a"}}]}, [{"choices": ["x"]}, {"choices": [{"delta": [5]}]}]),
}
QUESTIONS = {"chat": CHAT, "embeddings": INPUT, "models": LIST, "count": COUNT}


INI = "\n".join(f"[providers.{name}]\nbase_url = {{url}}\napi_key = key\nretries = 0" for name in NAMES)
INI = INI.replace("[providers.openai]", "[providers.openai]\nresponses_models = r")
INI += "\n[models]\neither = openai/m, echo/echo\n[plugins.rate_limit]\nenabled = no\n[plugins.execute]\nenabled = no\n"


class World:
    """A house in front of one upstream that is every provider, and answers whatever it is told to."""

    def __init__(self, folder: Path) -> None:
        self.reply = Reply()
        self.up = Upstream(lambda _: self.reply)
        self.house = House(folder, INI.format(url=self.up.url), {}, (), ROOT / "llmproxy.py")

    def answers(self, reply: Reply, question: Any, model: str) -> Answer:
        self.reply = reply
        provider = model.partition("/")[0]
        where = {"provider": provider} if question.get("type") == "models" else {"model": model}
        return self.house.ask("POST", "/llm", {**question, **where})


@pytest.fixture(scope="module", autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """The world lives from test to test."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("house"))
    yield made
    code = made.house.stop()
    made.up.close()
    assert (code, made.up.troubles) == (0, [])
    assert "Traceback" not in made.house.log, made.house.log


def told(answer: Answer, name: str) -> None:
    """Check that it is the upstream's trouble, and names it."""
    error = answer.json["error"]
    assert (answer.status, error["code"], error["provider"]) == (502, "provider_error", name)
    assert error["message"].startswith(name)


@pytest.mark.parametrize(("name", "kind"), WRONG)
def test_an_answer_of_another_shape_is_a_502_that_names_its_provider(world: World, name: str, kind: str) -> None:
    for wrong in WRONG[name, kind]:
        told(world.answers(json_reply(wrong), QUESTIONS[kind], f"{name}/m"), name)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_of_another_shape_is_trouble_too_at_the_start_of_a_stream_and_in_its_midst(
    world: World, name: str
) -> None:
    good, wrongs = EVENTS[name]
    for wrong in wrongs:
        for events in ((wrong,), (good, wrong)):
            answer = world.answers(stream(name, *events), STREAM, f"{name}/m")
            if answer.status == 200:  # something was told before
                error = answer.events[-1]["error"]
                assert (error["code"], error["provider"]) == ("provider_error", name)
            else:
                told(answer, name)
                assert events == (wrong,)


def stream(name: str, *events: Any) -> Reply:
    form = "%s\n" if name == "ollama" else "data: %s\n\n"
    return Reply(200, {"Content-Type": "text/event-stream"}, "".join(form % json.dumps(one) for one in events).encode())


@pytest.mark.parametrize("wrong", [{"output": 5}, {"output": ["x"]}, {"output": [], "usage": 5}])
def test_a_response_of_another_shape_is_no_other(world: World, wrong: Any) -> None:
    chat = {**CHAT, "reasoning_effort": "low"}
    told(world.answers(json_reply(wrong), chat, "openai/r"), "openai")


def test_another_model_answers_for_one_whose_answer_is_of_another_shape(world: World) -> None:
    answer = world.answers(json_reply({"choices": 5}), CHAT, "either")
    assert (answer.status, answer.json["provider"]) == (200, "echo")


def test_what_is_passed_on_is_passed_on_in_any_shape(world: World) -> None:
    world.reply = json_reply({"models": 5})
    answer = world.house.ask("GET", "/ollama/api/tags")
    assert (answer.status, answer.json) == (200, {"models": 5})
