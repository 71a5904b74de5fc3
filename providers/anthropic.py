"""Anthropic's Claude models, over the Messages API.

The translations are next door: what is asked in `_anthropic_question` and `_anthropic_turns`, what is
answered in `_anthropic_answer`, what each model can do in `_anthropic_models`. A model wants its thoughts
back together with the results of its tools, and most clients do not bring them; so they are remembered
here by tool call, a bounded number of them.
"""

from __future__ import annotations

import urllib.parse
from functools import partial
from typing import Any, Callable, ClassVar, Iterable, Iterator, List, Mapping, Tuple, TypeVar

from . import JSON, Call, Options, Parts, Pocket, Provider, Scope, UpstreamError, _events, _transport
from ._anthropic_answer import answer, chunks, gathered, worded
from ._anthropic_models import Catalogue, model_of, models_of, named
from ._anthropic_question import NEW, OLD, REASONING, SAMPLING, Manner, counted, question, version_for
from ._memory import Remembered
from ._pockets import bearing, pocket_of

T = TypeVar("T")

BASE_URL = "https://api.anthropic.com"

#: with more max_tokens than this an answer may take minutes: it is streamed, lest the line goes dead meanwhile
LONG = 21333

PATIENCE = 10.0  # seconds to wait for the list of models


class Anthropic(Provider):
    """Asks `/v1/messages` and its neighbours."""

    blocks = False
    reads = ("anthropic",)
    options: ClassVar[Options] = {
        **_transport.OPTIONS,
        "base_url": (BASE_URL, "Where it lives; the version at the end may be left out.", "ANTHROPIC_BASE_URL"),
        "api_key": ("", "Its key.", "ANTHROPIC_API_KEY"),
        "version": ("auto", f"The version of the API: {OLD}, {NEW}, or auto: the old one only where it is needed."),
        "embeddings": ("voyage", "Who makes embeddings, since Anthropic does not: a provider, or provider/model."),
        "max_tokens": (16384, "The most tokens an answer may have where the client does not say."),
        "tool_choice_fallback": ("", "auto: let models choose that refuse to be forced to use a tool."),
    }

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        key, url = options["api_key"], options["base_url"]
        if options["version"] not in ("auto", OLD, NEW):
            raise ValueError(f"version must be auto, {OLD} or {NEW}, not {options['version']!r}")
        if options["tool_choice_fallback"] not in ("", "auto"):
            raise ValueError(f"tool_choice_fallback must be empty or auto, not {options['tool_choice_fallback']!r}")
        self.configured = bool(key) or not url.startswith(BASE_URL)
        self.manner = Manner(options["version"], options["max_tokens"], options["tool_choice_fallback"])
        self.memory = Remembered()
        self.catalogue = Catalogue(self._listed)
        self._embeddings = options["embeddings"]
        door = partial(_transport.Door, name, url, worded=partial(worded, name))
        headers = [("x-api-key", key)] if key else []
        self._door = door(options, headers=headers)
        hurried = {**options, "first_byte_timeout": min(PATIENCE, options["first_byte_timeout"])}
        self._list_door = door(hurried, headers=headers)

    def _unlocked(self, door: _transport.Door) -> _transport.Door:
        """Give a door to the upstream; there is none without a key."""
        if not self.configured:
            message = f"no API key for {self.name}: set ANTHROPIC_API_KEY or [providers.{self.name}] api_key"
            raise UpstreamError(401, message, code="provider_auth", provider=self.name)
        return door

    def chat(self, call: Call) -> Parts:
        pocket = pocket_of(call, "anthropic")
        if pocket:
            yield from self._as_written(call, pocket)
            return
        if self.catalogue.is_old() and _depends(call.chat):
            yield from call.scope.aside()
        door, body = self._unlocked(self._door), self._question(call)
        if call.streams or _is_long(body):
            body["stream"] = True
        told = call.scope.warnings.__setitem__  # an odd end is no reason to refuse what was answered
        with door.send("POST", "/messages", call.scope, body, self._version(body)) as exchange:
            if call.streams:
                events = _events.sse(exchange.blocks())
                yield from chunks(events, self.name, call.model, self.memory.keep, told)
                return
            if body.get("stream"):
                message = yield from gathered(_events.sse(exchange.blocks()), self.name)
            else:
                message = yield from exchange.document()
            yield answer(message, self.name, call.model, self.memory.keep, told)

    def _as_written(self, call: Call, pocket: Pocket) -> Parts:
        """Ask in the words of a client of Anthropic's, and bear the answer in Anthropic's."""
        told = call.scope.warnings.__setitem__
        path, body, headers = self._written(call, pocket)
        with self._unlocked(self._door).send("POST", path, call.scope, body, headers) as exchange:
            if call.streams:
                tell = partial(chunks, provider=self.name, model=call.model, keep=self.memory.keep, note=told)
                yield from bearing("anthropic", _events.sse(exchange.blocks()), tell)
            else:
                message = yield from exchange.document()
                made = answer(message, self.name, call.model, self.memory.keep, told)
                yield {**made, "_anthropic": message}

    def _written(self, call: Call, pocket: Pocket) -> Tuple[str, JSON, List[Tuple[str, str]]]:
        """Give where a client's own words go, the words, and the headers with them."""
        body = {**pocket.body, "model": call.model}
        path = f"{pocket.path}?{pocket.query}" if pocket.query else pocket.path
        versioned = any(name.lower() == "anthropic-version" for name, _ in pocket.headers)
        return path, body, pocket.headers if versioned else [*pocket.headers, *self._version(body)]

    def _question(self, call: Call) -> JSON:
        model = self.catalogue.find(call.model, call.scope, matters=_depends(call.chat))
        return question(call.chat, self.name, model, self.manner, call.warn, self.memory.recall)

    def _version(self, body: JSON) -> List[Tuple[str, str]]:
        return [("anthropic-version", version_for(body, self.manner.version))]

    def embeds_at(self, model: str) -> str:
        if not self._embeddings or "/" in self._embeddings:
            return str(self._embeddings)
        return f"{self._embeddings}/{'' if model.startswith('claude-') else model}"

    def count_tokens(self, call: Call) -> int:
        door, pocket = self._unlocked(self._door), pocket_of(call, "anthropic")
        if pocket:
            path, body, headers = self._written(call, pocket)
        else:
            body = counted(self._question(call))
            path, headers = "/messages/count_tokens", self._version(body)
        return door.ask("POST", path, call.scope, count_of, body, headers)

    def models(self) -> List[JSON]:
        return [model for models in self._listed(Scope(), models_of) for model in models]

    def describe(self, call: Call) -> JSON:
        def told(item: JSON) -> JSON:
            return {**model_of(item), **({"_anthropic": item} if pocket_of(call, "anthropic") else {})}

        path = f"/models/{urllib.parse.quote(call.model, safe='')}"
        return self._unlocked(self._list_door).ask("GET", path, call.scope, told, headers=self._version({}))

    def _listed(self, scope: Scope, told: Callable[[JSON], T]) -> Iterator[T]:
        """Give what `told` makes of each page of the list; a page that comes again ends it too."""

        def page_of(page: JSON) -> Tuple[T, str]:
            return told(page), str(page.get("last_id") or "") if page.get("has_more") else ""

        door, after, seen = self._unlocked(self._list_door), "", set()
        while after not in seen:
            seen.add(after)
            more = f"&after_id={urllib.parse.quote(after, safe='')}" if after else ""
            page, after = door.ask("GET", f"/models?limit=1000{more}", scope, page_of, headers=self._version({}))
            yield page

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        passed = [(name, value) for name, value in fields if name.lower() not in ("x-api-key", "authorization")]
        return self._unlocked(self._door).relay(method, path, passed, body, scope)

    def close(self) -> None:
        self._door.close()
        self._list_door.close()


def count_of(counts: JSON) -> int:
    return int(counts.get("input_tokens") or 0)


def _is_long(body: JSON) -> bool:
    most = body.get("max_tokens")  # `provider_options` may have put anything there
    return isinstance(most, int) and most > LONG


def _depends(chat: JSON) -> bool:
    """Tell whether the question depends on more than the model's name tells."""
    if not chat.keys().isdisjoint(REASONING):
        return True
    return not chat.keys().isdisjoint(SAMPLING) and named(str(chat.get("model"))).version > (9, 0)
