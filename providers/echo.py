"""A model that repeats what it is told: needs no key and no network, and answers the first request of all.

It is deterministic and does what a test or a newcomer would want to see of a model: it streams word by
word, thinks when told to, calls the tools it is told to (`call NAME {"json": 1}`), fits a schema, stops
where it should, and makes vectors that are close for texts which share words. A word is a token.
"""

from __future__ import annotations

import hashlib
import math
import re
from itertools import islice
from typing import Any, Callable, ClassVar, Dict, Generator, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from . import JSON, Call, Options, Parts, Provider, Scope, _canonical, _json

MODEL = "echo"
EMBEDDING_MODEL = "echo-embedding"
MOST_DIMENSIONS = 8192
MOST_MENTIONS = 128  # of tools in one message
LONGEST_ARGUMENTS = 64 * 1024  # characters

#: heard, and without effect: nothing is left to chance here
SAMPLING = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repeat_penalty"}
)
ANSWERED = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n", "modalities"}
    | {"tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "thinking_budget"}
    | {"provider", "type", "provider_options"}
)
EMBEDDED = frozenset({"model", "input", "dimensions", "encoding_format", "input_type", "user", "provider", "type"})
REFUSED = ("audio", "prediction", "web_search_options")

_MENTION = re.compile(r"\bcall\s+([\w.:-]*[\w-])\s*")
_PIECE = re.compile(r"\s*\S+(?:\s+\Z)?|\s+\Z")
_WORD = re.compile(r"\w+")


class Said(NamedTuple):
    """What is answered; whole or streamed, it is the same."""

    reasoning: str
    text: str
    calls: List[JSON]
    finish: str
    stop: Optional[str]

    @property
    def tokens(self) -> int:
        spoken = [self.text, *(_spoken(call) for call in self.calls)]
        return words(self.reasoning) + sum(words(text) for text in spoken)


def said(chat: JSON) -> Said:
    """Answer a chat."""
    reasoning = f"The user said {words(told(chat))} words. I repeat them." if thinks(chat) else ""
    calls = calls_of(chat)
    text, stop = cut("" if calls else reply(chat), _canonical.stops(chat))
    most = _canonical.max_tokens(chat)
    if most is not None and words(reasoning) + words(text) > most:
        left = max(0, most - words(reasoning))
        return Said(first(reasoning, most), first(text, left), [], "length", None)
    return Said(reasoning, text, calls, "tool_calls" if calls else "stop", stop)


def thinks(chat: JSON) -> bool:
    return bool(chat.get("thinking_budget")) or chat.get("reasoning_effort", "none") != "none"


def reply(chat: JSON) -> str:
    """Give the text of the answer: what the format asks for, else the tools' results, else what the user said."""
    wanted = (chat.get("response_format") or {}).get("type", "text")
    if wanted != "text":
        return _canonical.dumped(instance(_canonical.json_schema(chat) or {"type": "object"}))
    return "\n".join(shown(message) for message in results(chat)) or told(chat)


def results(chat: JSON) -> List[JSON]:
    """Give the tool messages that the conversation ends with."""
    found: List[JSON] = []
    for message in reversed(chat.get("messages") or ()):
        if message.get("role") != "tool":
            break
        found.insert(0, message)
    return found


def told(chat: JSON) -> str:
    """Give what the user said last; where no user spoke, what was said last."""
    messages = chat.get("messages") or [{}]
    return shown(next((m for m in reversed(messages) if m.get("role") == "user"), messages[-1]))


def shown(message: JSON) -> str:
    """Give a message as text, what is no text by its name: `[image_url]`."""
    parts = _canonical.parts_of(message.get("content"))
    return "\n".join(part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in parts)


def cut(text: str, stops: List[str]) -> Tuple[str, Optional[str]]:
    """Cut a text before the first of the stop strings, and tell which it was."""
    at, stop = min(((text.find(stop), stop) for stop in stops if stop and stop in text), default=(len(text), None))
    return text[:at], stop


def pieces(text: str) -> List[str]:
    """Cut a text into words, each with the blanks before it; joined they are the text again."""
    return _PIECE.findall(text)


def first(text: str, most: int) -> str:
    return "".join(pieces(text)[:most])


def words(text: str) -> int:
    return len(text.split())


def prompt_tokens(chat: JSON) -> int:
    """Count the words of a chat, those of its calls and tools too."""
    messages = chat.get("messages") or ()
    texts = [shown(message) for message in messages]
    texts += [_spoken(call) for message in messages for call in message.get("tool_calls") or ()]
    texts += [_canonical.dumped(tool) for tool in chat.get("tools") or ()]
    return sum(words(text) for text in texts)


def _spoken(call: JSON) -> str:
    return f"{_canonical.name_of(call)} {call['function'].get('arguments') or ''}"


# tools


def calls_of(chat: JSON) -> List[JSON]:
    """Give the calls that the user or `tool_choice` tells to make; none once their results are there."""
    tools = {tool["name"]: tool for tool in _canonical.functions_of(chat)}
    choice = _canonical.tool_choice(chat) or _canonical.Choice("auto", None)
    if choice.names is not None:
        tools = {name: tool for name, tool in tools.items() if name in choice.names}
    if not tools or choice.mode == "none" or results(chat):
        return []
    text = told(chat)
    wanted = [(name, arguments) for name, arguments in islice(mentions(text), MOST_MENTIONS) if name in tools]
    if choice.mode == "required" and not wanted:
        wanted = [(next(iter(tools)), _object_at(text, text.find("{"))[0])]
    if chat.get("parallel_tool_calls") is False:
        del wanted[1:]
    return [_call(f"{len(chat['messages'])} {at}", tools[name], given) for at, (name, given) in enumerate(wanted)]


def mentions(text: str) -> Iterator[Tuple[str, Optional[JSON]]]:
    """Give each `call NAME` or `call NAME {json}` of a text, in order."""
    match = _MENTION.search(text)
    while match:
        arguments, end = _object_at(text, match.end())
        yield match.group(1), arguments
        match = _MENTION.search(text, max(end, match.end()))


def _object_at(text: str, at: int) -> Tuple[Optional[JSON], int]:
    """Read the JSON object that begins there, and tell where it ends; None when there is none, or too large a one."""
    ahead = text[at : at + LONGEST_ARGUMENTS] if at >= 0 else ""
    if not ahead.startswith("{") or _json.is_deep(ahead.encode("utf-8", "replace")):
        return None, at
    try:
        value, length = _json.DECODER.raw_decode(ahead)
    except ValueError:
        return None, at
    return value, at + length


def _call(place: str, tool: JSON, given: Optional[JSON]) -> JSON:
    """Call a tool with what is given, else with as little as it takes; `place` makes the id one of its own."""
    name = tool["name"]
    arguments = _canonical.dumped(instance(tool.get("parameters") or {"type": "object"}) if given is None else given)
    id_ = hashlib.sha256(f"{place} {name} {arguments}".encode("utf-8", "replace")).hexdigest()[:16]
    return {"id": f"call_{id_}", "type": "function", "function": {"name": name, "arguments": arguments}}


# values that fit a schema

_DEEPEST = 24
_MOST_STEPS = 2000
_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "a@example.com",
    "uri": "https://example.com",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "ipv4": "127.0.0.1",
}


_NUMBER = (int, float)
#: what a schema's words must be to be heeded: it comes from a stranger
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "enum", "prefixItems", "required"), list),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _NUMBER),
    **dict.fromkeys(("minItems", "minLength"), _NUMBER),
    **dict.fromkeys(("$ref", "format"), str),
    "properties": dict,
}


class Root(NamedTuple):
    """A whole schema, and the steps its instance may still take: one that holds itself twice would never end."""

    schema: Any
    steps: Iterator[int]


def instance(schema: Any) -> Any:
    """Give a small value that fits a JSON schema; patterns and conditions are not looked at."""
    return _instance(schema, Root(schema, iter(range(_MOST_STEPS))), 0)


def _instance(schema: Any, root: Root, depth: int) -> Any:
    schema = _resolved(schema, root, depth)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    if schema.get("enum"):
        return schema["enum"][0]
    make = _MAKERS.get(_kind(schema))
    return make(schema, root, depth + 1) if make and depth < _DEEPEST else None


def _kind(schema: JSON) -> str:
    kind = schema.get("type") or ("object" if "properties" in schema else "array" if "items" in schema else "string")
    return str(kind[0] if isinstance(kind, list) else kind)


def _resolved(schema: Any, root: Root, depth: int) -> JSON:
    """Follow references and put alternatives and conjunctions together to one plain schema."""
    found: JSON = {}
    if not isinstance(schema, dict) or depth > _DEEPEST or next(root.steps, None) is None:
        return found
    schema = {word: value for word, value in schema.items() if isinstance(value, _WORDS.get(word, object))}
    branches = [_pointed(schema["$ref"], root.schema)] if "$ref" in schema else []
    branches += schema.get("allOf") or []
    for name in ("anyOf", "oneOf"):
        branches += sorted(schema.get(name) or [], key=lambda one: one != {"type": "null"})[:1]
    for one in (*(_resolved(branch, root, depth + 1) for branch in branches), schema):
        required = dict.fromkeys(
            n for n in (*found.get("required", ()), *one.get("required", ())) if isinstance(n, str)
        )
        properties = {**found.get("properties", {}), **one.get("properties", {})}
        found = {**found, **one, "required": list(required), **({"properties": properties} if properties else {})}
    return found


def _pointed(pointer: str, root: Any) -> Any:
    """Follow a reference within the schema itself."""
    for name in pointer.lstrip("#").strip("/").split("/"):
        if name:
            root = root.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(root, dict) else None
    return root


def _an_object(schema: JSON, root: Root, depth: int) -> JSON:
    known = schema.get("properties") or {}
    return {name: _instance(known.get(name, {}), root, depth) for name in schema["required"]}


def _an_array(schema: JSON, root: Root, depth: int) -> List[Any]:
    least = min(int(schema.get("minItems") or 0), 100)
    kinds = [*(schema.get("prefixItems") or ()), *[schema.get("items") or {}] * least][:least]
    return [_instance(kind, root, depth) for kind in kinds]


def _a_string(schema: JSON, _root: Root, _depth: int) -> str:
    return _FORMATS.get(schema.get("format", ""), "").ljust(min(int(schema.get("minLength") or 0), 10_000), "x")


def _a_number(schema: JSON, _root: Root, _depth: int) -> float:
    """Give 0, or what is nearest to the bounds and fits."""
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    step = schema.get("multipleOf") or 1
    bounds = [bound for bound in (low, high, above, below) if math.isfinite(bound)]
    near = [math.floor(bound / step) * step for bound in bounds if math.isfinite(bound / step)]
    tries = [0, *(multiple + by for multiple in near for by in (0, step, -step)), *bounds, sum(bounds) / 2]
    return next((n for n in tries if low <= n <= high and above < n < below and math.isfinite(n)), 0)


_MAKERS: Dict[str, Callable[[JSON, Root, int], Any]] = {
    "object": _an_object,
    "array": _an_array,
    "string": _a_string,
    "integer": _a_number,
    "number": _a_number,
    "boolean": lambda *_: False,
}


# answers


def usage(chat: JSON, spoken: Said) -> JSON:
    reasoning = words(spoken.reasoning) * _choices(chat) if spoken.reasoning else None
    return _canonical.usage(prompt_tokens(chat), spoken.tokens * _choices(chat), reasoning=reasoning)


def _choices(chat: JSON) -> int:
    return chat.get("n") or 1


def answer(chat: JSON, spoken: Said, model: str) -> JSON:
    """Give the whole answer."""
    message: JSON = {"content": spoken.text or None}
    if spoken.reasoning:
        message["reasoning_content"] = spoken.reasoning
    if spoken.calls:
        message["tool_calls"] = spoken.calls
    whole = _canonical.completion("", model, message, spoken.finish, usage(chat, spoken))
    choice = _ended(whole["choices"][0], spoken)
    whole["choices"] = [{**choice, "index": at} for at in range(_choices(chat))]
    return whole


def chunks(chat: JSON, spoken: Said, model: str) -> Iterator[JSON]:
    """Give the same answer word by word."""
    made = _canonical.Chunks("", model)
    for at in range(_choices(chat)):
        yield made.delta({"role": "assistant", "content": ""}, index=at)
        for delta in _deltas(spoken):
            yield made.delta(delta, index=at)
        end = made.delta({}, spoken.finish, index=at)
        _ended(end["choices"][0], spoken)
        yield end
    yield made.usage(usage(chat, spoken))


def _ended(choice: JSON, spoken: Said) -> JSON:
    if spoken.stop is not None:
        choice["stop_sequence"] = spoken.stop
    return choice


def _deltas(spoken: Said) -> Iterator[JSON]:
    for word in pieces(spoken.reasoning):
        yield {"reasoning_content": word}
    for word in pieces(spoken.text):
        yield {"content": word}
    for at, call in enumerate(spoken.calls):
        arguments = call["function"]["arguments"]
        yield {"tool_calls": [{**call, "index": at, "function": {**call["function"], "arguments": ""}}]}
        for start in range(0, len(arguments), 16):
            yield {"tool_calls": [{"index": at, "function": {"arguments": arguments[start : start + 16]}}]}


# embeddings


def features(text: str) -> Iterator[Tuple[str, float]]:
    """Give what tells a text apart and how much: its words, pairs of them, and what these are made of."""
    found = _WORD.findall(text.casefold())
    for word in found:
        yield word, 1.0
        padded = f"<{word}>"
        for at in range(len(padded) - 2):
            yield "~" + padded[at : at + 3], 0.25
    for one, two in zip(found, found[1:]):
        yield f"{one} {two}", 0.5


def vector(text: str, dimensions: int) -> List[float]:
    """Hash a text into a vector of length 1, the same on every machine."""
    made = [0.0] * dimensions
    for feature, weight in features(text):
        digest = hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest()
        place = int.from_bytes(digest, "big")
        made[(place >> 1) % dimensions] += weight if place & 1 else -weight
    length = math.sqrt(math.fsum(x * x for x in made))  # not sum: its rounding is not the same in every Python
    return [x / length for x in made] if length else [1.0, *made[1:]]


class Echo(Provider):
    """The built-in model."""

    blocks = False
    options: ClassVar[Options] = {
        "delay": (0.0, "Seconds it takes to say a word."),
        "dimensions": (256, "Length of its vectors when the request does not say."),
    }

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        self.delay = float(options["delay"])
        self.dimensions = int(options["dimensions"])

    def models(self) -> List[JSON]:
        model = {"object": "model", "created": 0, "owned_by": self.name}
        return [
            {"id": MODEL, **model, "capabilities": ["completion", "tools", "thinking", "vision"]},
            {"id": EMBEDDING_MODEL, **model, "capabilities": ["embedding"]},
        ]

    def chat(self, call: Call) -> Parts:
        refuse(call.chat)
        _canonical.warn_dropped(call.chat, SAMPLING | ANSWERED, call.warn, self.name)
        spoken = said(call.chat)
        model = f"{self.name}/{call.model or MODEL}"
        if not call.streams:
            yield from pondered(self.delay * spoken.tokens, call.scope)
            yield answer(call.chat, spoken, model)
            return
        for part in chunks(call.chat, spoken, model):
            yield from pondered(self.delay, call.scope)
            yield part

    def embed(self, call: Call) -> JSON:
        _canonical.warn_dropped(call.chat, EMBEDDED, call.warn, self.name)
        dimensions = call.chat.get("dimensions") or self.dimensions
        if dimensions > MOST_DIMENSIONS:
            raise _canonical.unsupported("dimensions", f"dimensions: {self.name} makes at most {MOST_DIMENSIONS}")
        texts = _canonical.texts_of(call.chat)
        made = [vector(text, dimensions) for text in texts]
        return _canonical.vectors(made, f"{self.name}/{call.model or EMBEDDING_MODEL}", sum(map(words, texts)))

    def count_tokens(self, call: Call) -> int:
        return prompt_tokens(call.chat)


def refuse(chat: JSON) -> None:
    """Refuse what would have another shape than words."""
    for field in REFUSED:
        if chat.get(field):
            raise _canonical.unsupported(field, f"{field} is not supported by echo")
    if "audio" in (chat.get("modalities") or ()):
        raise _canonical.unsupported("modalities", "echo answers with text only")


def pondered(seconds: float, scope: Scope) -> Generator[JSON, None, None]:
    """Take so long, telling every second that we are alive."""
    while seconds > 0:
        yield from scope.waiting(None, min(1.0, seconds))
        seconds -= 1.0
