"""Serves Gemini's API below /llm/v1beta (and /llm/v1) over every provider: content, embeddings, counts and models.

Its clients break on comments and on ends that are marked, so a stream has neither; and what a thought was signed with
comes back on the part it went out with, so other providers' state travels there too.
"""

from __future__ import annotations

import re
import urllib.parse
from contextlib import closing
from functools import partial
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Mapping, NamedTuple, cast

from providers import Pocket, Trouble, _canonical

from . import JSON, Handler, Refusal, Request, Response, Waiting, aside, late, written
from ._dialect import Dialect, arguments_of, gather, naming, with_field
from ._gemini_question import embedding, own_path, question, read, shows_thoughts
from ._json import parsed, refuse, shown
from ._question import EMBEDDINGS, checked
from ._state import sealed

FINISH = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}  # all else is STOP
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
METHODS = ("generateContent", "countTokens", "embedContent")
END = b"\r\n\r\n"
USUAL_PAGE, LARGEST_PAGE = 50, 1000


# answers


def answer(completion: JSON, *, thoughts: bool) -> JSON:
    """Word a whole answer."""
    candidates = []
    for choice in completion["choices"]:
        message, said = choice["message"], []
        if thoughts and message.get("reasoning_content"):
            said.append({"text": message["reasoning_content"], "thought": True})
        text = message.get("content") or message.get("refusal")
        if text:
            said.append({"text": text})
        said += [inline(image) for image in message.get("images") or ()]
        said += calls_with_state(message.get("tool_calls") or [], message.get("reasoning_details") or [])
        candidates.append(candidate(choice.get("index") or 0, said, choice.get("finish_reason") or "stop"))
    return {**head(completion), "candidates": candidates, **usage(completion.get("usage"))}


def head(part: JSON) -> JSON:
    return {"modelVersion": str(part.get("model") or ""), "responseId": str(part.get("id") or "")}


def candidate(index: int, parts: List[JSON], finish: str = "") -> JSON:
    told: JSON = {"content": {"role": "model", "parts": parts}, "index": index}
    return {**told, "finishReason": FINISH.get(finish, "STOP")} if finish else told


def calls_with_state(calls: List[JSON], details: List[JSON]) -> List[JSON]:
    """Give the parts of a turn's calls; what the provider has to hear again with their results is on the first."""
    parts: List[JSON] = [{"functionCall": called(call)} for call in calls]
    if parts and details:
        parts[0]["thoughtSignature"] = sealed(details)
    return parts


def called(call: JSON) -> JSON:
    function = call["function"]
    told = {"name": function["name"], "args": arguments_of(function)}
    return {**({"id": call["id"]} if call.get("id") else {}), **told}


def inline(image: JSON) -> JSON:
    url = _canonical.image_url(image)
    media = _canonical.media(url)
    if media is None:
        return {"fileData": {"mimeType": "image/png", "fileUri": url}}
    return {"inlineData": {"mimeType": media.mime, "data": media.data}}


def usage(spent: Any) -> JSON:
    """Word the usage: thoughts are counted beside the answer here."""
    if not spent:
        return {}
    thought = (spent.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    cached = (spent.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    told = {
        "promptTokenCount": spent.get("prompt_tokens") or 0,
        "candidatesTokenCount": max(0, (spent.get("completion_tokens") or 0) - thought),
        "totalTokenCount": spent.get("total_tokens") or 0,
        **({"thoughtsTokenCount": thought} if thought else {}),
        **({"cachedContentTokenCount": cached} if cached else {}),
    }
    return {"usageMetadata": told}


class Turn:
    """What one choice of a stream has said that cannot be told yet: its calls, their state, its end."""

    def __init__(self) -> None:
        self.calls: Dict[int, JSON] = {}
        self.details: List[JSON] = []
        self.finish = "stop"

    def parts(self, delta: JSON, *, thoughts: bool) -> List[JSON]:
        """Give what a delta says that can be told at once."""
        self.details += delta.get("reasoning_details") or ()
        gather(self.calls, delta.get("tool_calls") or ())
        said: List[JSON] = []
        if thoughts and delta.get("reasoning_content"):
            said.append({"text": delta["reasoning_content"], "thought": True})
        text = delta.get("content") or delta.get("refusal")
        if text:
            said.append({"text": text})
        return said + [inline(image) for image in delta.get("images") or ()]

    def rest(self) -> List[JSON]:
        """Give what is told at the end."""
        return calls_with_state([self.calls[index] for index in sorted(self.calls)], self.details)


def speak(parts: Iterable[JSON], *, thoughts: bool) -> Iterator[bytes]:
    """Say the parts of a stream; calls are said whole, with the end and what it cost."""
    turns: Dict[int, Turn] = {}
    spent, told = None, {}
    for part in parts:
        if not part:
            yield b""
            continue
        told, spent = head(part), part.get("usage") or spent
        for choice in part.get("choices") or ():
            index = choice.get("index") or 0
            turn = turns.setdefault(index, Turn())
            turn.finish = choice.get("finish_reason") or turn.finish
            said = turn.parts(choice["delta"], thoughts=thoughts)
            if said:
                yield event({"candidates": [candidate(index, said)], **told})
    ends = [candidate(index, turn.rest() or [{"text": ""}], turn.finish) for index, turn in sorted(turns.items())]
    yield event({"candidates": ends, **told, **usage(spent)})


def event(document: JSON) -> bytes:
    return b"data: " + written(document) + END


def as_array(blocks: Generator[bytes, None, None]) -> Iterator[bytes]:
    """Write a stream as the JSON array that clients get who did not ask for events."""
    begun = False
    with closing(blocks):
        for block in blocks:
            items = [item[len(b"data: ") :] for item in block.split(END) if item]
            if items:
                yield (b",\r\n" if begun else b"[") + b",\r\n".join(items)
                begun = True
            else:
                yield b""
    yield b"]" if begun else b"[]"


# models


def model_of(model: JSON) -> JSON:
    can = model.get("capabilities")
    embeds = can is not None and "embedding" in can and "completion" not in can
    told = {
        "name": f"models/{model['id']}",
        "displayName": str(model["id"]),
        "version": "",
        "supportedGenerationMethods": ["embedContent"] if embeds else list(METHODS),
    }
    return {**told, **({"inputTokenLimit": model["context_length"]} if model.get("context_length") else {})}


BETA = "v1beta"  # the version of the API that clients ask by default


class Verb(NamedTuple):
    """What is asked of which model."""

    model: str
    name: str


def verb_of(path: str) -> Verb:
    """Read the end of a path, `.../models/{model}:{verb}`; slashes of the model may be written `%2F`.

    Some clients (Vercel's AI SDK) take a model with a slash for one of another collection, and leave `models/` out.
    """
    end = path.partition("/models/")[2] or path.partition(f"/{BETA}/")[2]
    model, _, name = urllib.parse.unquote(end).rpartition(":")
    while model.startswith("models/"):
        model = model[len("models/") :]
    return Verb(model, name)


class GeminiApi(Dialect):
    """Answers Google's clients."""

    dialect = "gemini"
    blocks = False
    life = b""
    key_headers = ("x-goog-api-key",)

    def routes(self) -> Mapping[str, Handler]:
        routes: Dict[str, Handler] = {}
        for version in (BETA, "v1"):
            routes[f"POST /llm/{version}/models/*"] = self.asked
            routes[f"GET /llm/{version}/models"] = self.listed
            routes[f"GET /llm/{version}/models/*"] = self.described
            routes[f"* /llm/{version}/*"] = self.nothing
        routes[f"POST /llm/{BETA}/*"] = self.asked
        return routes

    def speaks(self, request: Request) -> bool:
        names = [pair.partition("=")[0] for pair in request.query.split("&")]
        return "key" in names or any(request.header(f"x-goog-api-{name}") for name in ("key", "client"))

    def error(self, trouble: Trouble) -> Response:
        return Response.of(worded(trouble), trouble.status, trouble.headers)

    def failed(self, trouble: Trouble) -> bytes:
        return event(worded(trouble))

    def spelled(self, told: JSON) -> bytes:
        return event(told)

    def asked(self, request: Request) -> Response:
        model, name = verb_of(request.path)
        verbs: Dict[str, Callable[[Request, str], Response]] = {
            "generateContent": self.answered,
            "streamGenerateContent": self.streaming,
            "countTokens": self.counts,
            "embedContent": self.embedded,
            "batchEmbedContents": self.embedded_many,
        }
        if name not in verbs:
            raise Refusal(404, f"there is no method {shown(name)!r} here", code="not_found")
        return verbs[name](request, model)

    @late
    def answered(self, request: Request, model: str) -> Waiting[Response]:
        return self._conversed(request, model, stream=False)

    @late
    def streaming(self, request: Request, model: str) -> Waiting[Response]:
        response = yield from self._conversed(request, model, stream=True)
        if "alt=sse" not in request.query.split("&"):
            response.body = as_array(cast(Generator[bytes, None, None], response.body))
            response.headers = [("Content-Type", "application/json"), *response.headers[1:]]
        return response

    def _conversed(self, request: Request, model: str, *, stream: bool) -> Waiting[Response]:
        body = parsed(request.json())
        turned, thoughts = question(body, model, stream=stream), shows_thoughts(body)
        with naming(partial(own_path, turned.places)):
            spoken = partial(answer, thoughts=thoughts), partial(speak, thoughts=thoughts)
            return (yield from self.converse(request, turned.asked, *spoken))

    @aside
    def counts(self, request: Request, model: str) -> Response:
        body = parsed(request.json())
        told = read(body, {"generateContentRequest": (dict,)}, "").fields.get("generateContentRequest", body)
        with naming(lambda path: path if told is body or path == "model" else f"generateContentRequest.{path}"):
            turned = question(told, model, stream=False)
            with naming(partial(own_path, turned.places)):
                tokens, _ = self.counted(self.call(request, turned.asked))
        return Response.of({"totalTokens": tokens}, headers=request.warnings())

    @aside
    def embedded(self, request: Request, model: str) -> Response:
        found = self._vectors(request, model, [parsed(request.json())], "")
        return Response.of({"embedding": {"values": found[0]}}, headers=request.warnings())

    @aside
    def embedded_many(self, request: Request, model: str) -> Response:
        entries = read(parsed(request.json()), {"requests": (list,)}, "").fields.get("requests")
        if not entries:
            refuse("requests", "is required", "missing_required_parameter")
        found = self._vectors(request, model, entries, "requests")
        document = {"embeddings": [{"values": values} for values in found]}
        return Response.of(document, headers=request.warnings())

    def _vectors(self, request: Request, model: str, entries: List[Any], path: str) -> List[Any]:
        """Have entries embedded, their vectors in order; those that differ in how are asked for apart."""
        request.notes["model"] = shown(model, 120)
        pocket = Pocket({"requests": entries}, path="batchEmbedContents")
        asked = [embedding(one, f"{path}[{at}]" if path else "", pocket) for at, one in enumerate(entries)]
        vectors: List[Any] = [None] * len(asked)
        for how in sorted({one.how for one in asked}, key=str):
            places = [at for at, one in enumerate(asked) if one.how == how]
            chat = {"model": model, "input": [asked[at].text for at in places], **dict(how)}
            some = Pocket({"requests": [entries[at] for at in places]}, path="batchEmbedContents")
            some.losses, some.musts = pocket.losses, pocket.musts
            with naming(partial(own_path, {}, below=f"{path}[{places[0]}]." if path else "")):
                chat = {**checked(chat, EMBEDDINGS, ("model", "input")), "_gemini": some}
                found = self.upstream.embed(request.call(chat))
            request.notes["usage"] = found.get("usage")
            for at, item in zip(places, found["data"]):
                vectors[at] = item["embedding"]
        return vectors

    @aside
    def listed(self, request: Request) -> Response:
        """List the models page by page; a token is where the next page begins."""
        models = [model_of(model) for model in self.upstream.survey(request.scope)[0]]
        query = dict(urllib.parse.parse_qsl(request.query))
        start, size = number(query, "pageToken", 0), min(number(query, "pageSize", USUAL_PAGE), LARGEST_PAGE)
        page: JSON = {"models": models[start : start + (size or USUAL_PAGE)]}
        if start + len(page["models"]) < len(models):
            page["nextPageToken"] = str(start + len(page["models"]))
        return Response.of(page)

    @aside
    def described(self, request: Request) -> Response:
        name = verb_of(f"{request.path}:").model
        return Response.of(model_of(self.upstream.describe(request.call({"model": name}))))


def number(query: Mapping[str, str], name: str, usual: int) -> int:
    text = query.get(name, str(usual))
    if not re.fullmatch(r"[0-9]{1,6}", text):
        refuse(name, "must be a number")
    return int(text)


def worded(trouble: Trouble) -> JSON:
    """Word trouble as Google does; how long to wait is one of the details."""
    status = STATUSES.get(trouble.status, "INTERNAL")
    error: JSON = {"code": trouble.status, "message": with_field(trouble), "status": status}
    wait = next((value for name, value in trouble.headers.items() if name.lower() == "retry-after"), None)
    if wait:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait}s"}]
    return {"error": error}
