"""Serves OpenAI's Chat Completions, embeddings and model lists at /llm/v1, over every provider.

The canonical form is this API's own, so there is little to translate. What is ours in it stays where an answer could
not go on without it (`reasoning_content`, `reasoning_details`); a usage that was not asked for is not told.
"""

from __future__ import annotations

import urllib.parse
from functools import partial
from typing import Iterable, Iterator, Mapping

from providers import Pocket, Trouble

from . import JSON, Handler, Request, Response, Waiting, aside, late
from ._dialect import Asked, Dialect, created
from ._json import parsed
from ._question import unpocketed
from ._stream import Chunks, told
from ._vectors import embedded

MODEL = ("id", "object", "created", "owned_by", "shutdown_date")


class OpenAIAPI(Dialect):
    dialect = "openai"
    blocks = False

    def routes(self) -> Mapping[str, Handler]:
        return {
            "POST /llm/v1/chat/completions": self.chatted,
            "POST /llm/v1/embeddings": self.embedded,
            "GET /llm/v1/models": self.listed,
            "GET /llm/v1/models/*": self.described,
            "* /llm/v1/*": self.nothing,
        }

    @late
    def chatted(self, request: Request) -> Waiting[Response]:
        body = unpocketed(parsed(request.json()))
        return self.converse(request, Asked(body, Pocket(body)), answer, partial(speak, asked=body))

    def failed(self, trouble: Trouble) -> bytes:
        return told(trouble)

    @aside
    def embedded(self, request: Request) -> Response:
        answered = embedded(self.upstream, request, unpocketed(parsed(request.json())))
        return Response.of(answered, headers=request.warnings())

    @aside
    def listed(self, request: Request) -> Response:
        """List all models; whose could not be had is told in the warnings."""
        models, errors = self.upstream.survey(request.scope)
        request.scope.warnings.update(errors)
        document: JSON = {"object": "list", "data": [listing(model) for model in models]}
        if "client_version" in urllib.parse.parse_qs(request.query):
            document["models"] = []  # Codex wants its own kind of list, or it stops; an empty one leaves it as it is
        return Response.of(document, headers=request.warnings())

    @aside
    def described(self, request: Request) -> Response:
        name = urllib.parse.unquote(request.path.partition("/models/")[2])
        return Response.of(listing(self.upstream.describe(request.call({"model": name}))))


def answer(completion: JSON) -> JSON:
    """Word a whole answer; what OpenAI always says is there, if only as null."""
    return {**completion, "choices": [_worded(choice) for choice in completion["choices"]]}


def _worded(choice: JSON) -> JSON:
    told = {"logprobs": None, **choice, "message": {"refusal": None, **choice["message"]}}
    told.pop("stop_sequence", None)
    return told


def speak(parts: Iterable[JSON], asked: JSON) -> Iterator[bytes]:
    """Speak the chunks; only an answer that reached its end says `[DONE]`."""
    with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
    chunks = Chunks()
    for part in parts:
        if not part:
            yield b""
        elif part.get("choices"):
            yield chunks.event(_chunk(part, with_usage=with_usage))
        elif with_usage:
            yield chunks.event(part)
    yield b"data: [DONE]\n\n"


def _chunk(part: JSON, *, with_usage: bool) -> JSON:
    """Give a chunk as a client awaits it: all bear a usage of null, or none bears any."""
    if with_usage or "usage" in part:
        part = {**part, "usage": None}
        if not with_usage:
            del part["usage"]
    for choice in part["choices"]:
        if "stop_sequence" in choice:
            return {**part, "choices": [_bare(choice) for choice in part["choices"]]}
    return part


def _bare(choice: JSON) -> JSON:
    return {name: value for name, value in choice.items() if name != "stop_sequence"}


def listing(model: JSON) -> JSON:
    """Give what OpenAI tells of a model."""
    told = {"object": "model", "owned_by": model.get("provider", ""), **model, "created": created(model)}
    return {name: told[name] for name in MODEL if name in told}
