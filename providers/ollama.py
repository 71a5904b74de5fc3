"""Models that Ollama runs, on this machine, on another or in its cloud; over its native API.

Ollama ignores what it does not know, so a field in the wrong place does nothing and says nothing:
sampling goes into `options`, arguments are objects, and `stream` is always said, for it is on by default.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import threading
import time
from functools import partial
from typing import Any, Callable, ClassVar, Dict, Generator, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from . import (
    JSON,
    PAUSE,
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
    _transport,
)
from ._pockets import bearing, pocket_of

#: canonical field -> key of `options`; what is not OpenAI's has Ollama's own name
SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "num_ctx": "num_ctx",
}
THINK = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
#: what `provider_options` may set beside `options`; all else it says goes there
BESIDE = frozenset(
    {"format", "keep_alive", "logprobs", "messages", "model", "options", "shift", "think", "tools", "top_logprobs"}
    | {"truncate", "dimensions"}
)
ANSWERED = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n", "modalities"}
    | {"tools", "tool_choice", "response_format", "reasoning_effort", "logprobs", "top_logprobs"}
    | {"provider", "type", "provider_options", *SAMPLING}
)
EMBEDDED = frozenset({"model", "input", "dimensions", "encoding_format", "provider", "type", "provider_options"})
REFUSED = ("audio", "prediction", "web_search_options")

_PLAIN_TEXT = re.compile(r"text/.*|application/(json|xml|yaml|x-yaml|toml|javascript|x-ndjson)|.*\+(json|xml)")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?")
_LACKS = re.compile(r"does not support (\w+)")
_LACKING = {"tools": "tools", "thinking": "reasoning_effort", "vision": "messages"}


# questions


def question(chat: JSON, warn: Warn, standing: JSON, thinks: bool = True) -> JSON:
    """Translate a chat. `standing` is what the config says on every question, `thinks` whether the model can."""
    _refuse(chat)
    _warn(chat, warn)
    own = _canonical.own_options(chat, "ollama")
    body: JSON = {"model": chat.get("model"), "messages": messages(chat.get("messages") or [])}
    body.update(_tools(chat, warn), **_format(chat))
    body.update((name, chat[name]) for name in ("logprobs", "top_logprobs") if chat.get(name) is not None)
    effort = chat.get("reasoning_effort")
    if effort and (thinks or effort == "none"):
        body["think"] = THINK.get(effort, effort)
    elif effort:
        warn("reasoning_effort", "this model does not think")
    body = with_options(_canonical.merged(standing, {**body, "options": _sampling(chat)}), own)
    return {**body, "stream": bool(chat.get("stream"))}


def with_options(body: JSON, own: JSON) -> JSON:
    """Merge in what `provider_options` says, each name where Ollama looks for it; leave out what is empty."""
    loose = {name: value for name, value in own.items() if name not in BESIDE and name != "stream"}
    beside = {name: value for name, value in own.items() if name in BESIDE}
    body = _canonical.merged(_canonical.merged(body, {"options": loose}), beside)
    return {name: value for name, value in body.items() if value or name != "options"}


def _refuse(chat: JSON) -> None:
    """Refuse what would give an answer of another shape."""
    for field in REFUSED:
        if chat.get(field):
            raise _canonical.unsupported(field, f"{field} is not supported by ollama")
    if "audio" in (chat.get("modalities") or ()):
        raise _canonical.unsupported("modalities", "ollama answers with text only")
    if (chat.get("n") or 1) > 1:
        raise _canonical.unsupported("n", "ollama gives one choice only: n must be 1")


def _warn(chat: JSON, warn: Warn) -> None:
    known = ANSWERED if chat.get("parallel_tool_calls") is False else ANSWERED | {"parallel_tool_calls"}
    _canonical.warn_dropped(chat, known, warn, "ollama")


def _sampling(chat: JSON) -> JSON:
    options = {SAMPLING[name]: chat[name] for name in SAMPLING if chat.get(name) is not None}
    if _canonical.max_tokens(chat) is not None:
        options["num_predict"] = _canonical.max_tokens(chat)
    if _canonical.stops(chat):
        options["stop"] = _canonical.stops(chat)
    return options


def _format(chat: JSON) -> JSON:
    wanted = (chat.get("response_format") or {}).get("type", "text")
    return {} if wanted == "text" else {"format": _canonical.json_schema(chat) or "json"}


def _tools(chat: JSON, warn: Warn) -> JSON:
    """Give the tools the model is to know. There is no `tool_choice`: whom it excludes is not told of them."""
    functions = _canonical.functions_of(chat)
    choice = _canonical.tool_choice(chat)
    if any(function.get("strict") for function in functions):
        warn("tools.strict", "not supported by ollama")
    if choice and choice.mode == "required":
        warn("tool_choice", "ollama cannot force a call")
    if choice and choice.names is not None:
        functions = [function for function in functions if function["name"] in choice.names]
        if not functions and choice.mode != "none":
            raise _canonical.unsupported("tool_choice", f"no tool is named {' or '.join(choice.names)!r}")
    if not functions or (choice and choice.mode == "none"):
        return {}
    return {"tools": [_tool(function) for function in functions]}


def _tool(function: JSON) -> JSON:
    told = {name: function[name] for name in ("name", "description") if function.get(name) is not None}
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return {"type": "function", "function": {**told, "parameters": parameters}}


def messages(asked: List[JSON]) -> List[JSON]:
    """Translate the messages of a chat: their content is one text, with the images beside it."""
    names = _canonical.names_by_id(asked)
    return [_message(message, f"messages[{at}]", names) for at, message in enumerate(asked)]


def _message(message: JSON, path: str, names: Mapping[str, str]) -> JSON:
    parts = _canonical.parts_of(message.get("content"))
    pieces = [piece(part, f"{path}.content[{at}]") for at, part in enumerate(parts)]
    told = {
        "role": ROLES.get(message["role"], message["role"]),
        "content": "\n".join(text for text, _ in pieces if text is not None) or message.get("refusal") or "",
        "images": [image for _, image in pieces if image is not None],
        "thinking": message.get("reasoning_content") or message.get("reasoning"),
        "tool_calls": [
            _call(call, at, f"{path}.tool_calls[{at}]") for at, call in enumerate(message.get("tool_calls") or ())
        ],
    }
    if told["role"] == "tool":
        told["tool_call_id"] = message.get("tool_call_id")
        told["tool_name"] = names.get(message.get("tool_call_id") or "") or message.get("name")
    return {name: value for name, value in told.items() if value or name == "content"}


ROLES = {"developer": "system", "function": "tool"}


def _call(call: JSON, at: int, path: str) -> JSON:
    arguments = _canonical.arguments_of(call, f"{path}.function.arguments")
    told = {"function": {"index": at, "name": _canonical.name_of(call), "arguments": arguments}}
    return {"id": call["id"], **told} if call.get("id") else told


class Piece(NamedTuple):
    """What a part of a message is to Ollama: text, or a bare base64 image (sound goes the same way)."""

    text: Optional[str]
    image: Optional[str]


def piece(part: JSON, path: str) -> Piece:
    """Translate one part of a message's content."""
    return PIECES[part["type"]](part, path)


def _image(part: JSON, path: str) -> Piece:
    media = _canonical.media(_canonical.image_url(part))
    if media is None:
        raise _canonical.unsupported(f"{path}.image_url", "ollama fetches no images: send it as a base64 data: URL")
    return Piece(None, media.data)


def _file(part: JSON, path: str) -> Piece:
    """Take a file that is text, or an image; Ollama reads no other."""
    media = _canonical.media(str(part["file"].get("file_data") or ""))
    if media is None:
        raise _canonical.unsupported(f"{path}.file", "ollama keeps no files: send file_data as a base64 data: URL")
    if media.mime.startswith("image/"):
        return Piece(None, media.data)
    if not _PLAIN_TEXT.fullmatch(media.mime):
        raise _canonical.unsupported(f"{path}.file", f"ollama reads no files of type {media.mime}")
    try:
        return Piece(_canonical.decoded(media.data, f"{path}.file").decode("utf-8"), None)
    except UnicodeDecodeError:
        raise _canonical.unsupported(f"{path}.file", f"{path}.file is not UTF-8") from None


PIECES: Dict[str, Callable[[JSON, str], Piece]] = {
    "text": lambda part, _: Piece(part["text"], None),
    "refusal": lambda part, _: Piece(part["refusal"], None),
    "image_url": _image,
    "input_audio": lambda part, _: Piece(None, part["input_audio"]["data"]),
    "file": _file,
}


def embedding_question(chat: JSON, warn: Warn, standing: JSON) -> JSON:
    """Translate an embeddings request."""
    _canonical.warn_dropped(chat, EMBEDDED, warn, "ollama")
    body = {**standing, "model": chat.get("model"), "input": _canonical.texts_of(chat)}
    if chat.get("dimensions") is not None:
        body["dimensions"] = chat["dimensions"]
    return with_options(body, _canonical.own_options(chat, "ollama"))


# answers


def answer(body: JSON, name: str, model: str) -> JSON:
    """Translate a whole answer."""
    if body.get("error"):
        raise worded(name, 500, {}, body, in_stream=True)
    said = body.get("message") or {}
    message: JSON = {"content": said.get("content") or None}
    if said.get("thinking"):
        message["reasoning_content"] = said["thinking"]
    calls = calls_of(said)
    if calls:
        message["tool_calls"] = calls
    model = f"{name}/{body.get('model') or model}"
    whole = _canonical.completion("", model, message, finish(body, calls), usage(body), stamp(body.get("created_at")))
    if body.get("logprobs"):
        whole["choices"][0]["logprobs"] = logprobs(body["logprobs"])
    return whole


def chunks(events: Iterable[JSON], name: str, model: str) -> Parts:
    """Translate a stream. Each call comes whole; the number Ollama gives it may begin anew on each line."""
    made: Optional[_canonical.Chunks] = None
    calls: List[JSON] = []
    unsaid: List[JSON] = []  # the logprobs of what was no text
    for event in events:
        if not event:
            yield PAUSE
            continue
        if event.get("error"):
            raise worded(name, 500, {}, event, in_stream=True)
        if made is None:
            made = _canonical.Chunks("", f"{name}/{event.get('model') or model}", stamp(event.get("created_at")))
            yield made.role()
        unsaid += event.get("logprobs") or ()
        for delta in _deltas(event.get("message") or {}, calls):
            yield _with_logprobs(made.delta(delta), unsaid)
        if event.get("done"):
            yield _with_logprobs(made.delta({}, finish(event, calls)), unsaid)
            yield made.usage(usage(event))
            return
    raise _canonical.truncated(name)


def _deltas(message: JSON, calls: List[JSON]) -> Iterable[JSON]:
    """Give what one line says, in order; the calls it makes are put to those before."""
    if message.get("thinking"):
        yield {"reasoning_content": message["thinking"]}
    if message.get("content"):
        yield {"content": message["content"]}
    for call in calls_of(message):
        yield {"tool_calls": [{"index": len(calls), **call}]}
        calls.append(call)


def _with_logprobs(chunk: JSON, unsaid: List[JSON]) -> JSON:
    if unsaid:
        chunk["choices"][0]["logprobs"] = logprobs(unsaid)
        unsaid.clear()
    return chunk


def calls_of(message: JSON) -> List[JSON]:
    """Translate the calls of an answer; some templates give them no ids."""
    calls = []
    for call in message.get("tool_calls") or ():
        arguments = _canonical.dumped((call.get("function") or {}).get("arguments") or {})
        function = {"name": _canonical.name_of(call), "arguments": arguments}
        calls.append({"id": call.get("id") or _canonical.new_call_id(), "type": "function", "function": function})
    return calls


def finish(body: JSON, calls: List[JSON]) -> str:
    if body.get("done_reason") == "length":
        return "length"
    return "tool_calls" if calls else "stop"


def usage(body: JSON) -> JSON:
    return _canonical.usage(body.get("prompt_eval_count") or 0, body.get("eval_count") or 0)


def logprobs(entries: Iterable[JSON]) -> JSON:
    content = [{"bytes": None, **entry, "top_logprobs": _filled(entry.get("top_logprobs"))} for entry in entries]
    return {"content": content, "refusal": None}


def _filled(entries: Optional[List[JSON]]) -> List[JSON]:
    return [{"bytes": None, **entry} for entry in entries or ()]


def stamp(written: Any) -> int:
    """Give the seconds since 1970 of a time as Ollama writes it, with more digits than Python reads; 0: unknown."""
    match = _STAMP.fullmatch(str(written))
    if match is None:
        return 0
    zone = "+00:00" if match[2] in (None, "Z") else match[2]
    try:
        return max(0, int(datetime.datetime.fromisoformat(match[1] + zone).timestamp()))
    except (ValueError, OverflowError):
        return 0


def embedded(question: JSON, name: str, body: JSON) -> JSON:
    """Translate the answer to an embeddings request."""
    vectors, expected = [_canonical.floats(told) for told in body.get("embeddings") or ()], len(question["input"])
    if len(vectors) != expected:
        told = f"{name} gave {len(vectors)} vectors for {expected} texts"
        raise UpstreamError(502, told, code="provider_error", provider=name)
    tokens = int(body.get("prompt_eval_count") or 0)
    return _canonical.vectors(vectors, f"{name}/{body.get('model') or question['model']}", tokens)


class Abilities(NamedTuple):
    """What a model can do, in Ollama's words (None: not told), and the tokens it can see at once (0: not told)."""

    words: Optional[List[str]]
    context: int


def abilities(body: JSON) -> Abilities:
    """Read `/api/show`."""
    words, info = body.get("capabilities"), body.get("model_info") or {}
    lengths = [int(value) for name, value in info.items() if name.endswith(".context_length")]
    return Abilities(words if words is None else list(map(str, words)), max(lengths, default=0))


def loaded(model: str, body: JSON) -> int:
    """Give the tokens of context that a model is loaded with, as `/api/ps` tells; 0: it is not."""
    names = (model, f"{model}:latest")
    return max(
        (int(m.get("context_length") or 0) for m in body.get("models") or () if m.get("model") in names), default=0
    )


def models_of(name: str, body: JSON) -> List[JSON]:
    """Translate `/api/tags`."""
    return [model_of(item, name) for item in body.get("models") or ()]


def described(name: str, model: str, body: JSON) -> JSON:
    """Translate `/api/show`."""
    able = abilities(body)
    item = {"model": model, "capabilities": able.words, "details": {"context_length": able.context or None}}
    return model_of({**item, "modified_at": body.get("modified_at")}, name)


def model_of(item: JSON, name: str) -> JSON:
    told = {
        "id": item.get("model") or item.get("name"),
        "object": "model",
        "created": stamp(item.get("modified_at")),
        "owned_by": name,
        "capabilities": item.get("capabilities"),
        "context_length": (item.get("details") or {}).get("context_length"),
    }
    return {field: value for field, value in told.items() if value is not None}


def worded(name: str, status: int, headers: Mapping[str, str], body: Any, *, in_stream: bool = False) -> UpstreamError:
    """Word a refusal, `{"error": "text"}`; what else it may hold (`signin_url`) is between Ollama and its owner."""
    error = body.get("error") if isinstance(body, dict) else None
    message = str(error.get("message") or "") if isinstance(error, dict) else str(error or "")
    lacks = _LACKS.search(message) if status == 400 else None
    return _canonical.upstream_error(
        name,
        status,
        message,
        in_stream=in_stream,
        wait=_canonical.retry_after(headers),
        code="unsupported_parameter" if lacks else None,
        param=_LACKING.get(lacks.group(1)) if lacks else None,
    )


# options

LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  (nothing listens there)


def address(given: str, port: int) -> str:
    """Give the base URL that `given` means, in all the forms `OLLAMA_HOST` may have; raises ValueError for others.

    An address to listen on (`0.0.0.0`, `:11434`) is one to reach it at on this machine. The path an
    API of Ollama's begins with (`/v1`, `/api`) is not needed.
    """
    scheme, mark, place = given.strip().strip("\"'").rpartition("://")
    if not mark and place.rstrip("/") == "ollama.com":
        scheme, mark = "https", "://"
    place, _, path = place.partition("/")
    path = re.sub(r"/(v1|api)$", "", f"/{path}".rstrip("/"))
    host, own = _host_port(place)
    if not own and not mark:
        own = str(port)
    if own and not (own.isdigit() and int(own) < 65536):
        raise ValueError(f"base_url: {own!r} is no port")
    return f"{scheme or 'http'}://{LOOPBACK.get(host, host)}{own and ':'}{own}{path}"


def _host_port(place: str) -> Tuple[str, str]:
    """Split `host:port`; an IPv6 address gets the brackets it may lack."""
    if place.count(":") > 1:
        with contextlib.suppress(ValueError):
            return f"[{ipaddress.IPv6Address(place.strip('[]'))}]", ""
    host, colon, port = place.rpartition(":")
    return (host, port) if colon else (place, "")


def duration(given: str) -> Any:
    """Give `keep_alive` as Ollama wants it: a bare number of seconds is a number."""
    return int(given) if re.fullmatch(r"-?\d+", given) else given


class Known:
    """What each model can do, as far as it was asked in the last minutes."""

    def __init__(self, seconds: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: Dict[str, Tuple[float, Abilities]] = {}

    def learn(self, model: str, able: Abilities) -> None:
        with self._lock:
            now = self._clock()
            self._known = {m: known for m, known in self._known.items() if now - known[0] < self._seconds}
            self._known[model] = now, able

    def of(self, model: str) -> Optional[Abilities]:
        """Give what a model can do; None when it has to be asked for."""
        with self._lock:
            since, able = self._known.get(model, (0.0, None))
            return able if self._clock() - since < self._seconds else None


# how much a model sees

USUAL_CONTEXT = 4096  # tokens that a server with little memory gives a model, unless it is told
ANSWER = 1024  # tokens to leave for an answer without a cap
LETTERS_A_TOKEN = 3  # in most texts there are four; what is cut is worse than what is not needed
TOKENS_AN_IMAGE = 1000


def needed(body: JSON) -> Tuple[int, int]:
    """Guess the tokens of a question, and of the question with its answer."""
    letters, images, left = 0, 0, [body.get(name) for name in ("messages", "tools", "prompt", "system", "images")]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            images += len(item.get("images") or ())
            left += [value for name, value in item.items() if name != "images"]
        elif isinstance(item, list):
            left += item
        elif isinstance(item, str):
            letters += len(item)
    asked = letters // LETTERS_A_TOKEN + images * TOKENS_AN_IMAGE
    most = _set(body).get("num_predict")
    return asked, asked + (most if isinstance(most, int) and most > 0 else ANSWER)


def _set(body: JSON) -> JSON:
    options = body.get("options")  # `provider_options` may have put anything there
    return options if isinstance(options, dict) else {}


def wide_enough(tokens: int, most: int) -> int:
    """Give a context for so many tokens: in steps of doubling, for each new one loads the model again."""
    return min(1 << (tokens - 1).bit_length(), most)


def as_chat(body: JSON) -> JSON:
    """Give an answer of `/api/generate` the shape that one of `/api/chat` has."""
    if "response" not in body:
        return body
    said = {name: body[name] for name in ("thinking", "tool_calls") if name in body}
    return {**body, "message": {"role": "assistant", "content": body["response"], **said}}


class Ollama(Provider):
    """Asks `/api/chat` (or `/api/generate`), `/api/embed` and `/api/tags`; of a model's abilities, `/api/show`."""

    blocks = False
    reads = ("ollama",)
    options: ClassVar[Options] = {
        **_transport.OPTIONS,
        "port": (11434, "Where it listens on this machine, if base_url does not say."),
        "base_url": ("", "Where it lives, in any form OLLAMA_HOST may have.", "OLLAMA_BASE_URL", "OLLAMA_HOST"),
        "api_key": ("", "The key for Ollama's cloud.", "OLLAMA_API_KEY"),
        "keep_alive": ("", "How long a model stays loaded after its answer, like 10m or -1 for ever."),
        "num_ctx": (0, "Tokens of context to load a model with, 0 for its own default."),
    }

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        headers = [("Authorization", f"Bearer {options['api_key']}")] if options["api_key"] else []
        base_url = address(options["base_url"], options["port"])
        self.door = _transport.Door(name, base_url, options, partial(worded, name), version="", headers=headers)
        self.standing: JSON = {"keep_alive": duration(options["keep_alive"])} if options["keep_alive"] else {}
        self.context: JSON = {"options": {"num_ctx": options["num_ctx"]}} if options["num_ctx"] else {}
        self.known = Known()

    def models(self) -> List[JSON]:
        return self.door.ask("GET", "/api/tags", Scope(), partial(models_of, self.name))

    def chat(self, call: Call) -> Parts:
        pocket = pocket_of(call, "ollama")
        if pocket:
            yield from self._as_written(call, pocket)
            return
        thinks = yield from self._thinks(call)
        body = question(call.chat, call.warn, {**self.standing, **self.context}, thinks)
        body = yield from self._fitting(call, body)
        with self.door.send("POST", "/api/chat", call.scope, body) as exchange:
            if call.streams:
                yield from chunks(_events.ndjson(exchange.blocks()), self.name, call.model)
            else:
                yield answer((yield from exchange.document()), self.name, call.model)

    def _as_written(self, call: Call, pocket: Pocket) -> Parts:
        """Ask in the words of a client of Ollama's, and bear the answer in Ollama's."""
        body = _canonical.merged({**self.standing, **self.context}, pocket.body)
        body = yield from self._fitting(call, {**body, "model": call.model, "stream": call.streams})
        with self.door.send("POST", pocket.path, call.scope, body) as exchange:
            if call.streams:
                yield from bearing("ollama", _events.ndjson(exchange.blocks()), partial(self._heard, call.model))
            else:
                document = yield from exchange.document()
                yield {**answer(as_chat(document), self.name, call.model), "_ollama": document}

    def _heard(self, model: str, events: Iterable[JSON]) -> Parts:
        return chunks(map(as_chat, events), self.name, model)

    def _fitting(self, call: Call, body: JSON) -> Generator[JSON, None, JSON]:
        """Give the question room for its length: Ollama would cut off its beginning and say nothing."""
        asked, with_answer = needed(body)
        if with_answer <= USUAL_CONTEXT or "num_ctx" in _set(body):
            return body
        able = yield from self._abilities(call)
        if not able.context:
            return body
        if asked > able.context:
            call.warn("messages", f"about {asked} tokens where the model sees {able.context}: the oldest are cut")
        if (yield from self._loaded(call)) >= min(with_answer, able.context):
            return body
        return _canonical.merged(body, {"options": {"num_ctx": wide_enough(with_answer, able.context)}})

    def _loaded(self, call: Call) -> Generator[JSON, None, int]:
        try:
            with self.door.send("GET", "/api/ps", call.scope) as exchange:
                return loaded(call.model, (yield from exchange.document()))
        except UpstreamError:
            return 0

    def _abilities(self, call: Call) -> Generator[JSON, None, Abilities]:
        """Ask what a model can do, unless that was done a moment ago; who does not say knows nothing."""
        known = self.known.of(call.model)
        if known is None:
            try:
                with self.door.send("POST", "/api/show", call.scope, {"model": call.model}) as exchange:
                    known = abilities((yield from exchange.document()))
            except UpstreamError:
                return Abilities(None, 0)
            self.known.learn(call.model, known)
        return known

    def _thinks(self, call: Call) -> Generator[JSON, None, bool]:
        """Tell whether the model can think as asked; when that is not known, it is for the model to say."""
        if call.chat.get("reasoning_effort") in (None, "none"):
            return True
        words = (yield from self._abilities(call)).words
        return words is None or "thinking" in words

    def describe(self, call: Call) -> JSON:
        pocket = pocket_of(call, "ollama")
        body = {**(pocket.body if pocket else {}), "model": call.model}

        def told(document: JSON) -> JSON:
            made = described(self.name, call.model, document)
            return {**made, "_ollama": document} if pocket else made

        return self.door.ask("POST", "/api/show", call.scope, told, body)

    def embed(self, call: Call) -> JSON:
        body = embedding_question(call.chat, call.warn, self.standing)
        pocket = pocket_of(call, "ollama")
        if pocket:
            body = {**pocket.body, "model": call.model, "input": body["input"]}
            body.pop("prompt", None)

        def told(document: JSON) -> JSON:
            made = embedded(body, self.name, document)
            return {**made, "_ollama": document} if pocket else made

        return self.door.ask("POST", "/api/embed", call.scope, told, body)

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        return self.door.relay(method, path, fields, body, scope)

    def close(self) -> None:
        self.door.close()
