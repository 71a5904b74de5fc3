"""Google's Gemini models, over the Developer API.

The translations are next door: `_gemini_question` (with `_gemini_contents`) and `_gemini_answer`. A
model refuses to go on with tool calls whose thought signatures are missing, and most clients do not
bring them back; so a bounded number of them is remembered here, by tool call.
"""

from __future__ import annotations

import urllib.parse
from functools import partial
from typing import Any, ClassVar, Iterable, List, Mapping, Tuple

from . import JSON, Call, Options, Parts, Pocket, Provider, Scope, UpstreamError, _canonical, _events, _transport
from ._gemini_answer import Events, chunks, continued, whole, worded
from ._gemini_contents import bare
from ._gemini_question import nearer, question
from ._memory import Remembered
from ._pockets import bearing, pocket_of

BASE_URL = "https://generativelanguage.googleapis.com"
BATCH = 100  # texts that are embedded by one request

#: canonical `input_type` -> taskType
TASKS = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "similarity": "SEMANTIC_SIMILARITY",
}


def resource(model: str) -> str:
    """Give the path of a model: `models/ID`, or a tuned one's own; safe to be put into a URL."""
    folder, name = ("tunedModels", model[12:]) if model.startswith("tunedModels/") else ("models", bare(model))
    return f"{folder}/{urllib.parse.quote(name, safe='')}"


def embedding_requests(texts: Iterable[str], chat: JSON, warn: Any) -> List[JSON]:
    """Give one entry of a `batchEmbedContents` for each text."""
    _canonical.warn_dropped(
        chat,
        {"model", "input", "dimensions", "input_type", "encoding_format", "provider", "provider_options", "type"},
        warn,
        "gemini",
    )
    shape: JSON = {"model": resource(str(chat.get("model") or ""))}
    if chat.get("dimensions") is not None:
        shape["outputDimensionality"] = chat["dimensions"]
    task = chat.get("input_type")
    if task in TASKS:
        shape["taskType"] = TASKS[task]
    elif task is not None:
        warn("input_type", "not supported by gemini")
    shape = _canonical.merged(shape, _canonical.own_options(chat, "gemini"))
    return [{**shape, "content": {"parts": [{"text": text}]}} for text in texts]


def embedded(expected: int, name: str, answer: JSON) -> Tuple[List[List[float]], int]:
    """Give the vectors of one answer, and the tokens they took."""
    vectors = [_canonical.floats(vector["values"]) for vector in answer.get("embeddings") or ()]
    if len(vectors) != expected:
        told = f"{name} sent {len(vectors)} vectors for {expected} texts"
        raise UpstreamError(502, told, code="provider_error", provider=name)
    return vectors, int((answer.get("usageMetadata") or {}).get("promptTokenCount") or 0)


def count_of(answer: JSON) -> int:
    return int(answer.get("totalTokens") or 0)


def models_of(page: JSON) -> Tuple[List[JSON], str]:
    """Translate a page of the models list; gives the token of the next one too."""
    return [model_of(item) for item in page.get("models") or () if answers(item)], str(page.get("nextPageToken") or "")


def model_of(item: JSON) -> JSON:
    return {"id": bare(str(item.get("name") or "")), "object": "model", "created": 0, "owned_by": "google"}


def answers(item: JSON) -> bool:
    """Tell whether a model chats or embeds; one that does not say what it does is given the benefit."""
    methods = item.get("supportedGenerationMethods")
    return methods is None or not {"generateContent", "embedContent", "batchEmbedContents"}.isdisjoint(methods)


def without_key(path: str) -> str:
    """Take the `key` out of a path's query; nothing else is touched."""
    path, mark, query = path.partition("?")
    fields = query.split("&")
    kept = [field for field in fields if urllib.parse.unquote_plus(field.partition("=")[0]) != "key"]
    return path + mark + "&".join(kept) if kept or not mark else path


def _named(body: JSON, model: str) -> JSON:
    """Give a client's own body with our name for the model, where it says one besides the path."""
    return {**body, "model": resource(model)} if "model" in body else body


class Gemini(Provider):
    """Asks `generateContent` and its neighbours."""

    blocks = False
    reads = ("gemini",)

    options: ClassVar[Options] = {
        **_transport.OPTIONS,
        "base_url": (BASE_URL, "Where it lives; the version at the end may be left out.", "GEMINI_BASE_URL"),
        "api_version": ("v1beta", "The version of the API, where the base URL names none."),
        "api_key": ("", "Its key.", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
    }

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        key, url = options["api_key"], options["base_url"]
        self.configured = bool(key) or not url.startswith(BASE_URL)
        self.memory = Remembered()
        self._door = _transport.Door(
            name,
            url,
            options,
            partial(worded, name),
            version="/" + options["api_version"].strip("/"),
            headers=[("x-goog-api-key", key)] if key else [],
        )

    @property
    def door(self) -> _transport.Door:
        """The way to the upstream; locked while there is no key."""
        if not self.configured:
            message = f"no API key for {self.name}: set GEMINI_API_KEY or [providers.{self.name}] api_key"
            raise UpstreamError(401, message, code="provider_auth", provider=self.name)
        return self._door

    def chat(self, call: Call) -> Parts:
        pocket = pocket_of(call, "gemini")
        if pocket:
            yield from self._as_written(call, pocket)
            return
        body = question(call.chat, self.name, call.warn, self.memory.recall)
        told = call.scope.warnings.__setitem__  # an odd end is no reason to refuse what was answered
        parts = chunks(continued(partial(self._asked, call, body)), self.name, call.model, told, self.memory.keep)
        if call.streams:
            yield from parts
        else:
            yield (yield from whole(parts))

    def _as_written(self, call: Call, pocket: Pocket) -> Parts:
        """Ask in the words of a client of Gemini's, and bear the answer in Gemini's; such a one asks on by itself."""
        told = call.scope.warnings.__setitem__
        events = self._answered(call, _named(pocket.body, call.model), "")
        parts = bearing("gemini", events, lambda seen: chunks(seen, self.name, call.model, told, self.memory.keep))
        if call.streams:
            yield from parts
        else:
            answer = yield from whole(parts)
            yield {**answer, "_gemini": answer["_gemini"][0]}

    def _asked(self, call: Call, body: JSON, token: str) -> Events:
        """Ask once; and once more where only the thinking level was refused."""
        try:
            yield from self._answered(call, body, token)
        except UpstreamError as error:
            again = nearer(body, error)
            if again is None:
                raise
            level = again["generationConfig"]["thinkingConfig"]["thinkingLevel"]
            call.warn("reasoning_effort", f"sent as {level.lower()}")
            yield from self._answered(call, again, token)

    def _answered(self, call: Call, body: JSON, token: str) -> Events:
        body = {**body, "continuationToken": token} if token else body
        verb = "streamGenerateContent?alt=sse" if call.streams else "generateContent"
        with self.door.send("POST", f"/{resource(call.model)}:{verb}", call.scope, body) as exchange:
            if call.streams:
                yield from _events.sse(exchange.blocks())
            else:
                yield (yield from exchange.document())

    def embed(self, call: Call) -> JSON:
        model, made, tokens = resource(call.model), [], 0
        for batch in _canonical.batches(self._entries(call), BATCH):
            told, asked = partial(embedded, len(batch), self.name), {"requests": batch}
            vectors, spent = self.door.ask("POST", f"/{model}:batchEmbedContents", call.scope, told, asked)
            made += vectors
            tokens += spent
        if not tokens:
            call.scope.warnings["usage"] = "not told by gemini"
        return _canonical.vectors(made, f"{self.name}/{bare(call.model)}", tokens)

    def _entries(self, call: Call) -> List[JSON]:
        pocket = pocket_of(call, "gemini")
        if pocket:
            return [{**entry, "model": resource(call.model)} for entry in pocket.body["requests"]]
        return embedding_requests(_canonical.texts_of(call.chat), call.chat, call.warn)

    def models(self) -> List[JSON]:
        """List the models of all pages; a token that comes again ends the list too."""
        token, seen, models = "", set(), []
        while token not in seen:
            seen.add(token)
            more = f"&pageToken={urllib.parse.quote(token, safe='')}" if token else ""
            page, token = self.door.ask("GET", f"/models?pageSize=1000{more}", Scope(), models_of)
            models += page
        return models

    def count_tokens(self, call: Call) -> int:
        model, pocket = resource(call.model), pocket_of(call, "gemini")
        asked = pocket.body if pocket else question(call.chat, self.name, call.warn, self.memory.recall)
        body = {"generateContentRequest": {**asked, "model": model}}
        return self.door.ask("POST", f"/{model}:countTokens", call.scope, count_of, body)

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        passed = [(name, value) for name, value in fields if name.lower() != "x-goog-api-key"]
        return self.door.relay(method, without_key(path), passed, body, scope)

    def close(self) -> None:
        self._door.close()
