"""OpenAI, and whoever speaks like it: name another `type = openai` with its base_url.

What is asked here goes out as it came, and comes back so: nothing is translated that is OpenAI's own. Models that
think and call tools only do both on the Responses API, so those that are named in `responses_models` are asked there,
and so is any whose refusal says that it wants it. That API is known to be there only at OpenAI itself, or where
`responses_models` was set. There, too, goes whatever a client of that API asks, in the client's own words.
"""

from __future__ import annotations

import re
import urllib.parse
from functools import partial
from typing import Any, Callable, ClassVar, Iterable, List, Mapping, Tuple

from . import (
    JSON,
    Call,
    Options,
    Parts,
    Pocket,
    Provider,
    Scope,
    UpstreamError,
    Warn,
    _canonical,
    _events,
    _openai,
    _responses,
    _responses_answer,
    _transport,
)
from ._memory import Remembered
from ._pockets import bearing, pocket_of

BASE_URL = "https://api.openai.com/v1"
HOST = "api.openai.com"
MOST_INPUTS = 2048  # that are embedded by one request

#: models that think, from the first one on that no longer calls tools in Chat Completions
RESPONSES_MODELS = (
    *("gpt-5.4", "gpt-5.5", "gpt-5.6", "gpt-5.7", "gpt-5.8", "gpt-5.9"),
    *("gpt-6", "gpt-7", "gpt-8", "gpt-9"),
)

#: what models that think refuse, and an answer can do without
HINTS = frozenset(
    {"frequency_penalty", "logprobs", "presence_penalty", "seed", "stop", "temperature", "top_logprobs", "top_p"}
)

#: what a refusal calls a field of ours
REFUSED = {
    "reasoning": "reasoning_effort",
    "reasoning.effort": "reasoning_effort",
    "max_tokens": "max_completion_tokens",
    "max_output_tokens": "max_completion_tokens",
}
_UNRECOGNIZED = re.compile(r"Unrecognized request argument supplied: (\w+)")

Road = Callable[[Call], Parts]


def official(base_url: str) -> bool:
    """Tell whether an address is OpenAI's own."""
    host = urllib.parse.urlsplit(base_url.strip()).hostname or ""
    return host == HOST or host.endswith("." + HOST)


def wanted(chat: JSON, name: str, warn: Warn) -> JSON:
    """Give the fields that go out: all that are set and are not ours; those of ours that say something are told of."""
    ours = _canonical.EXTENSIONS - {"provider", "provider_options", "type"}
    for field in sorted(ours & chat.keys()):
        if chat[field] is not None:
            warn(field, f"not supported by {name}")
    return {
        key: value
        for key, value in _openai.outside_pockets(chat).items()
        if value is not None and key not in _canonical.EXTENSIONS
    }


def question(chat: JSON, name: str, warn: Warn, *, modern: bool) -> JSON:
    """Give the body that asks a chat; `modern` upstreams know a cap on tokens by its new name only."""
    body = wanted(chat, name, warn)
    body["messages"] = [_openai.message(message) for message in chat["messages"]]
    if body.get("tools"):
        body["tools"] = [_openai.tool(tool) for tool in body["tools"]]
    if modern and "max_tokens" in body:
        body.setdefault("max_completion_tokens", body["max_tokens"])
        del body["max_tokens"]
    options = body.pop("stream_options", {})
    if body.get("stream"):
        body["stream_options"] = {**options, "include_usage": True}
    return _canonical.merged(body, _canonical.own_options(chat, "openai"))


def thinks_aloud(chat: JSON, models: Tuple[str, ...]) -> bool:
    """Tell whether a chat is to be asked as a response: a model that thinks, with tools or thoughts to show."""
    effort = chat.get("reasoning_effort")
    thinks = str(chat.get("model") or "").startswith(models) and effort != "none"
    return thinks and bool(chat.get("tools") or effort) and not _responses.lacks(chat)


def by_habit(chat: JSON, error: UpstreamError) -> str:
    """Name the field that a model refused and that its client sends to any model; empty: it is no such field."""
    found = _UNRECOGNIZED.search(error.message)
    named = found.group(1) if found else REFUSED.get(str(error.param), "")
    return named if named in chat.get("_hints", ()) and chat.get(named) is not None else ""


def giving_way(chat: JSON, error: UpstreamError) -> JSON:
    """Give the changes that leave out what a model refused and an answer can do without; empty: there are none."""
    habit = by_habit(chat, error)
    if habit:
        return {habit: None}
    if error.code not in ("unsupported_value", "unsupported_parameter"):
        return {}
    if error.param in HINTS and chat.get(error.param) is not None:
        return {error.param: None}
    if error.param == "reasoning.summary" and not chat.get(_responses.UNSHOWN):
        return {_responses.UNSHOWN: True}
    return {}


def count_of(name: str, document: JSON) -> int:
    return int(_openai.object_of(document, name).get("input_tokens") or 0)


class OpenAI(Provider):
    """Asks Chat Completions, or the Responses API where a model needs it."""

    blocks = False
    options: ClassVar[Options] = {
        **_transport.OPTIONS,
        "base_url": (BASE_URL, "Where it lives; the version at the end may be left out.", "OPENAI_BASE_URL"),
        "api_key": ("", "Its key.", "OPENAI_API_KEY"),
        "organization": ("", "The organization that is billed, if the key has several."),
        "project": ("", "The project that is billed, if the key has several."),
        "responses_models": (
            RESPONSES_MODELS,
            "Beginnings of the names of models that take the Responses API for tools and reasoning.",
        ),
    }

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        key, url, models = options["api_key"], options["base_url"] or BASE_URL, tuple(options["responses_models"])
        self.official = official(url)
        self.configured = bool(key) or not self.official
        self.responses_models = models if self.official or models != RESPONSES_MODELS else ()
        self.reads = ("responses",) if self.official or self.responses_models else ()
        self.memory = Remembered()
        named = {"OpenAI-Organization": options["organization"], "OpenAI-Project": options["project"]}
        headers = [("Authorization", f"Bearer {key}")] if key else []
        headers += [(field, value) for field, value in named.items() if value]
        self._door = _transport.Door(name, url, options, partial(_openai.worded, name), headers=headers)

    @property
    def door(self) -> _transport.Door:
        """The way to the upstream; locked while there is no key."""
        if not self.configured:
            message = f"no API key for {self.name}: set OPENAI_API_KEY or [providers.{self.name}] api_key"
            raise UpstreamError(401, message, code="provider_auth", provider=self.name)
        return self._door

    def chat(self, call: Call) -> Parts:
        pocket = pocket_of(call, "responses")
        if pocket:
            yield from _responses_answer.remembering(self._passed(call, pocket), self.memory.keep)
            return
        road: Road = self._respond if thinks_aloud(call.chat, self.responses_models) else self._complete
        while True:
            try:
                yield from road(call)
            except UpstreamError as error:
                road, call = self._otherwise(error, road, call)
            else:
                return

    def _otherwise(self, error: UpstreamError, road: Road, call: Call) -> Tuple[Road, Call]:
        """Give the other road, or the call with less in hand, where a refusal says that it must be; else raise it."""
        if error.provider_status != 400:
            raise error
        changes = giving_way(call.chat, error)
        if changes:
            for field in changes:
                if call.chat.get(field) != "none":  # a model that cannot think does as it was asked
                    call.warn(str(error.param or field), f"refused by {call.model}")
            return road, call.asking(**changes)
        if self.responses_models and road == self._complete and error.param == "reasoning_effort":
            return self._respond, call
        raise error

    def _complete(self, call: Call) -> Parts:
        body = question(call.chat, self.name, call.warn, modern=self.official)
        with self.door.send("POST", "/chat/completions", call.scope, body) as exchange:
            if call.streams:
                yield from _openai.chunks(_openai.events(exchange.blocks()), self.name, call.model)
            else:
                yield _openai.answer((yield from exchange.document()), self.name, call.model)

    def _respond(self, call: Call) -> Parts:
        yield from _responses_answer.remembering(self._response(call), self.memory.keep)

    def _response(self, call: Call) -> Parts:
        body = _responses.question(call.chat, self.name, call.warn, self.memory.recall)
        with self.door.send("POST", "/responses", call.scope, body) as exchange:
            if call.streams:
                yield from _responses_answer.chunks(_events.sse(exchange.blocks()), self.name, call.model)
            else:
                yield _responses_answer.answer((yield from exchange.document()), self.name, call.model)

    def _passed(self, call: Call, pocket: Pocket) -> Parts:
        """Ask in the client's own words."""
        body = {**pocket.body, "model": call.model}
        with self.door.send("POST", "/responses", call.scope, body, pocket.headers) as exchange:
            if call.streams:
                translate = partial(_responses_answer.chunks, name=self.name, model=call.model)
                yield from bearing("responses", _events.sse(exchange.blocks()), translate)
            else:
                yield _responses_answer.own((yield from exchange.document()), self.name, call.model)

    def count_tokens(self, call: Call) -> int:
        pocket = pocket_of(call, "responses")
        if pocket:
            counted = {**pocket.body, "model": call.model}
        elif self.responses_models:
            body = _responses.question(call.chat, self.name, lambda *_: None, self.memory.recall)
            counted = {key: body[key] for key in _responses.COUNTED if key in body}
        else:
            return super().count_tokens(call)
        return self.door.ask("POST", "/responses/input_tokens", call.scope, partial(count_of, self.name), counted)

    def embed(self, call: Call) -> JSON:
        fields = _canonical.merged(wanted(call.chat, self.name, call.warn), _canonical.own_options(call.chat, "openai"))
        ask = partial(self.door.ask, "POST", "/embeddings", call.scope)
        return _openai.embeddings(_openai.embedding_questions(fields, MOST_INPUTS), ask, self.name)

    def models(self) -> List[JSON]:
        return self.door.ask("GET", "/models", Scope(), partial(_openai.models, name=self.name))

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        return self.door.relay(method, path, fields, body, scope)

    def close(self) -> None:
        self._door.close()
