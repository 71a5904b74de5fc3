"""Answers of upstreams whose JSON is of another shape than was promised, read by each provider's translators."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, NamedTuple, Sequence, Tuple, Type

from plugins import Request
from plugins.llm import Llm
from providers import Provider, Trouble, _http, _transport
from providers._all import Everything
from providers.anthropic import Anthropic
from providers.gemini import Gemini
from providers.lmstudio import LMStudio
from providers.ollama import Ollama
from providers.openai import OpenAI
from providers.voyage import Voyage

GOLDEN = Path(__file__).resolve().parent / "golden"
KINDS: Sequence[Type[Provider]] = (Anthropic, Gemini, LMStudio, Ollama, OpenAI, Voyage)
NAMES = [kind.__name__.lower() for kind in KINDS]
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
#: what is asked where no golden conversation tells, and what might be an answer to it
OTHERS: Sequence[Tuple[str, Any]] = (
    ("models", {"data": [{"id": "m", "created": 1}], "models": [{"key": "m", "name": "m", "details": {}}]}),
    ("count_tokens", {"input_tokens": 5, "totalTokens": 5}),
    ("embeddings", {"data": [{"index": 0, "embedding": [0.5, 1]}], "usage": {"total_tokens": 1, "prompt_tokens": 1}}),
    ("embeddings", {"embeddings": [{"values": [0.5]}], "usageMetadata": {"promptTokenCount": 1}}),
    ("embeddings", {"embeddings": [[0.5]], "prompt_eval_count": 1}),
)
#: what stands where something else should; the last ones no JSON can tell again
ODD: Sequence[Any] = (None, True, False, 0, -1, 1.5, "", "x", "1e400", [], {}, [[]], [None], [5], {"a": None}, [{}])
ODD += (-(10**30), 10**400, 1e308, "\ud800", float("inf"), float("nan"))


class Conversation(NamedTuple):
    """What is asked, and what comes: the status and the body."""

    asked: Dict[str, Any]
    status: int
    came: bytes


def conversations() -> Iterator[Tuple[str, Conversation]]:
    """Give the golden conversations, the golden errors as answers to a plain question, and what is no chat."""
    for name in NAMES:
        for path in sorted((GOLDEN / name).glob("*.json")):
            told = json.loads(path.read_text("utf-8"))
            code = re.match(r"error_([0-9]{3})", path.stem)
            if "came" in told and "messages" in told.get("asked", ()):
                yield f"{name}/{path.stem}", Conversation(told["asked"], told.get("status", 200), body_of(told["came"]))
            elif code:
                yield f"{name}/{path.stem}", Conversation(CHAT, int(code[1]), body_of(told))
        for at, (kind, came) in enumerate(OTHERS):
            yield f"{name}/{kind}/{at}", Conversation({"type": kind, "input": "a", **CHAT}, 200, body_of(came))


def body_of(came: Any) -> bytes:
    if isinstance(came, list):
        came = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in came)
    return (came if isinstance(came, str) else json.dumps(came)).encode()


CONVERSATIONS = dict(conversations())
SEEDS = tuple(title.encode() + b"\n" + told.came for title, told in CONVERSATIONS.items())


def misshapen(rng: random.Random, seeds: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    """Give a seed with a few values of its JSON gone, or replaced by something odd."""
    lines = rng.choice(seeds).split(b"\n")
    documents = [at for at, line in enumerate(lines) if re.match(rb"(data: )?\{.*\}$", line)]
    for at in rng.sample(documents, min(len(documents), rng.choice((1, 1, 1, 2)))):
        start = lines[at].index(b"{")
        document = json.loads(lines[at][start:])
        for _again in range(rng.choice((1, 1, 2))):
            found = list(places(document))
            if found:
                holder, key = rng.choice(found)
                holder[key] = copy.deepcopy(rng.choice(ODD))
                if rng.random() < 0.15:
                    del holder[key]
        lines[at] = lines[at][:start] + json.dumps(document).replace("Infinity", "1e999").encode()
    return b"\n".join(lines)


def places(value: Any) -> Iterator[Tuple[Any, Any]]:
    """Give where each value of a document stands: what holds it, and under which key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places(item)


@contextlib.contextmanager
def told() -> Iterator[Callable[[bytes], None]]:
    """Give what has an answer told by POST /llm, in the place of whatever its provider asks."""
    answer: Any = SimpleNamespace(fields=_http.Fields(()), head=lambda: iter(()), close=lambda: None)
    answer.open = lambda question: answer
    answer.blocks = lambda: iter([answer.body])
    real, _transport.opener = _transport.opener, lambda: answer
    try:
        llm = Llm({"heartbeat": 15.0}, Everything(map(made, KINDS), {}))
    finally:
        _transport.opener = real

    def tell(data: bytes) -> None:
        title, _, answer.body = data.partition(b"\n")
        known = CONVERSATIONS.get(title.decode("latin-1"))
        if known is not None:
            answer.status = known.status
            ask(llm, {"model": "m", **known.asked, "provider": title.decode().partition("/")[0]})

    yield tell


def made(kind: Type[Provider]) -> Provider:
    options = {name: row[0] for name, row in kind.options.items()}
    return kind(kind.__name__.lower(), {**options, "api_key": "key", "retries": 0})


def ask(llm: Llm, question: Dict[str, Any]) -> None:
    """Have a question answered; whatever comes of it is JSON, or trouble in words."""
    body = json.dumps(question).encode()
    request = Request("POST", "/llm", _http.Fields([("Content-Type", "application/json")]), read=body)
    try:
        response = llm.answer(request)
        text = b"".join([response.body] if isinstance(response.body, bytes) else response.body)
    except Trouble as trouble:
        text = json.dumps(trouble.document(), allow_nan=False).encode()
    for line in re.findall(rb"^(?:data: )?(\{.*)$", text, re.MULTILINE):
        json.loads(line, parse_constant=unspeakable)


def unspeakable(text: str) -> None:
    raise AssertionError(f"the client was told {text}")
