"""The Chat Completions wire, as OpenAI and those who imitate it speak it: messages, answers, errors. Pure.

What an upstream says that nobody here knows travels along. What its imitators spell otherwise is respelled:
`reasoning`, empty names, ids that are numbers, arguments that are objects, whatever is said twice in a stream.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Mapping, NamedTuple, Set

from . import JSON, PAUSE, Parts, UpstreamError, _canonical, _events, _json

#: what stands behind the events of a stream that said `[DONE]`
DONE: JSON = {"object": "done"}

Spell = Callable[[str], str]  # the name of a tool as a model wrote it -> as it was declared


# questions

#: what a message may carry that no upstream knows by this name
OURS = frozenset({"reasoning_content", "reasoning", "reasoning_details", "is_error"})


def outside_pockets(given: JSON) -> JSON:
    return {key: value for key, value in given.items() if not key.startswith("_")}


def message(given: JSON) -> JSON:
    """Give a message as it goes on the wire; keys that are not ours travel along."""
    sent = {key: value for key, value in given.items() if key not in OURS and not key.startswith("_")}
    if isinstance(sent.get("content"), list):
        sent["content"] = [_part(part) for part in sent["content"]]
    calls = sent.pop("tool_calls", None)
    if calls:
        sent["tool_calls"] = [_call(call) for call in calls]
    return sent


def _part(given: JSON) -> JSON:
    part = outside_pockets(given)
    if isinstance(part.get("image_url"), str):
        part["image_url"] = {"url": part["image_url"]}
    return part


def _call(given: JSON) -> JSON:
    call = outside_pockets(given)
    call.pop("extra_content", None)  # Google's
    function = call.get("function")
    if function:
        arguments = function.get("arguments") or "{}"
        text = arguments if isinstance(arguments, str) else _canonical.dumped(arguments)
        call["function"] = {**function, "arguments": text}
    return call


def tool(given: JSON) -> JSON:
    """Give a tool as it goes on the wire."""
    sent = outside_pockets(given)
    if isinstance(sent.get("function"), dict):
        sent["function"] = outside_pockets(sent["function"])
    return sent


# answers


def answer(document: Any, name: str, model: str, spell: Spell = str) -> JSON:
    """Pass a whole answer on."""
    choices = object_of(document, name).get("choices")
    if not choices:
        raise UpstreamError(502, f"{name}'s answer has no choices", code="provider_error", provider=name)
    for choice in choices:
        said = choice["message"] = {"role": "assistant", "content": None, **(choice.get("message") or {})}
        _respell_reasoning(said)
        calls = said.pop("tool_calls", None)
        if calls:
            said["tool_calls"] = calls
            said["content"] = said["content"] or None
            for call in calls:
                _name_call(call)
                _respell_call(call, spell)
        choice["finish_reason"] = _finish(choice.get("finish_reason") or "stop", bool(calls))
    head = {"id": _canonical.new_id(), "object": "chat.completion", "created": 0}
    return {**head, **document, "model": f"{name}/{document.get('model') or model}"}


def events(blocks: Iterable[bytes]) -> Generator[JSON, None, None]:
    """Read a stream; the last event is DONE if it said so, and did not just end."""
    tail = b""

    def watched() -> Iterator[bytes]:
        nonlocal tail
        for block in blocks:
            tail = (tail + block)[-64:]
            yield block

    yield from _events.sse(watched(), Alike().read)
    if re.search(rb"^data: ?\[DONE\]", tail, re.MULTILINE):
        yield DONE


#: values that no two readers of them can spoil for one another
_SIMPLE = (str, int, float, bool, type(None))
#: the names of the two, in the letters of a chunk; within a text the quotes would have a backslash before them
_NAMED = re.compile(r'"(content|obfuscation)"[ \t\r\n]*:[ \t\r\n]*')


class Alike:
    """Reads the chunks of one stream.

    Nearly every chunk differs from the one before in its text alone, and in the noise with which OpenAI hides how long
    the text is. Where all that stands around these two is, letter by letter, what stood there before, only they are
    read: what comes out is what reading all of it would have given.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most  # of frames to try: there are streams whose chunks are never alike
        self._around: List[str] = []  # what stands before each text, up to its quote and with it
        self._behind = ""
        self._event: JSON = {}
        self._choice: JSON = {}
        self._delta: JSON = {}

    def read(self, data: str) -> JSON:
        """Read one event."""
        texts, at = [], 0
        for before in self._around:
            if not data.startswith(before, at):
                return self._anew(data)
            try:
                text, at = _json.PLAIN.raw_decode(data, at + len(before) - 1)
            except ValueError:
                return self._anew(data)
            texts.append(text)
        if not texts or data[at:] != self._behind:
            return self._anew(data)
        event = {**self._event, "choices": [{**self._choice, "delta": {**self._delta, "content": texts[0]}}]}
        if len(texts) > 1:
            event["obfuscation"] = texts[1]
        return event

    def _anew(self, data: str) -> JSON:
        """Read all of an event, and remember what stands around its text, if it has one."""
        event = _events.parsed(data)
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if self._most and isinstance(choice, dict) and isinstance(delta, dict):
            self._frame(data, {**event, "choices": None}, {**choice, "delta": None}, {**delta})
        return event

    def _frame(self, data: str, event: JSON, choice: JSON, delta: JSON) -> None:
        """Remember what stands around the texts, if they are the only ones of their names, and nothing else varies."""
        texts = [("content", delta)] + ([("obfuscation", event)] if "obfuscation" in event else [])
        found = list(_NAMED.finditer(data))
        values = [value for one in (event, choice, delta) for value in one.values()]
        if [name for name, _ in texts] != [one.group(1) for one in found]:
            return
        if not all(isinstance(holder.get(name), str) for name, holder in texts):
            return
        if not all(isinstance(value, _SIMPLE) for value in values):
            return
        around, at = [], 0
        for one in found:
            around.append(data[at : one.end() + 1])
            _, at = _json.PLAIN.raw_decode(data, one.end())
        self._most -= 1
        if "\\" not in "".join([*around, data[at:]]):  # a name may be spelled with escapes, and then be twice the same
            self._event, self._choice, self._delta = event, choice, delta
            self._around, self._behind = around, data[at:]


class _Told:
    """What one choice of a stream has said so far: which keys of which call, and whether that was all."""

    def __init__(self) -> None:
        self.calls: Dict[int, Set[str]] = {}
        self.finished = False


def chunks(events: Iterable[JSON], name: str, model: str, spell: Spell = str) -> Parts:
    """Pass a stream on: what each chunk says once, then the usage in a chunk of its own."""
    told: Dict[int, _Told] = {}
    head = {"id": _canonical.new_id(), "object": "chat.completion.chunk", "created": int(time.time())}
    usage: JSON = {}
    event: JSON = PAUSE
    for event in events:
        if not event:
            yield PAUSE
            continue
        if event is DONE:
            break
        part = {**head, **object_of(event, name), "model": f"{name}/{event.get('model') or model}"}
        part.pop("obfuscation", None)
        choices = part.get("choices") or ()
        if part.get("usage"):
            usage = {**part, "choices": []}
            del part["usage"]
        part["choices"] = [choice for choice in choices if _says(choice, told, spell)]
        if part["choices"]:
            head = {key: part[key] for key in head}
            yield part
    if not told or not (event is DONE or all(choice.finished for choice in told.values())):
        raise _canonical.truncated(name)
    yield from _ends(told, {**head, "model": f"{name}/{model}"})
    if usage:
        yield usage


def _ends(told: Mapping[int, _Told], head: JSON) -> Parts:
    """End the choices of a stream that is over and did not end them itself."""
    for index, choice in told.items():
        if not choice.finished:
            finish = _finish("stop", bool(choice.calls))
            yield {**head, "choices": [{"index": index, "delta": {}, "finish_reason": finish}]}


def _says(choice: JSON, told: Dict[int, _Told], spell: Spell) -> bool:
    """Respell one choice of a chunk, in its place; tells whether it says anything."""
    index = choice.setdefault("index", 0)
    delta = choice["delta"] = choice.get("delta") or {}
    if index in told:
        delta.pop("role", None)
    else:
        delta["role"] = "assistant"
    so_far = told.setdefault(index, _Told())
    _respell_reasoning(delta)
    for at, call in enumerate(delta.get("tool_calls") or ()):
        _say_once(call, so_far.calls.setdefault(call.setdefault("index", at), set()), spell)
    finish = choice.setdefault("finish_reason", None)
    if finish:
        so_far.finished = True
        choice["finish_reason"] = _finish(finish, bool(so_far.calls))
    return bool(finish or choice.get("logprobs") or any(delta.values()))


def _say_once(call: JSON, told: Set[str], spell: Spell) -> None:
    """Leave of a call's fragment only what was not told before; the first one tells all there is to tell."""
    if not told:
        _name_call(call)
    _respell_call(call, spell)
    function = call.get("function") or {}
    for holder, key in ((call, "id"), (call, "type"), (function, "name")):
        if not holder.get(key) or key in told:
            holder.pop(key, None)
        else:
            told.add(key)


def _name_call(call: JSON) -> None:
    """Have a call bear an id, its result could not be told without one, and a type."""
    call["id"] = str(call.get("id") or _canonical.new_call_id())
    if "function" in call:
        call["type"] = "function"


def _respell_call(call: JSON, spell: Spell) -> None:
    function = call.get("function")
    if function:
        if function.get("name"):
            function["name"] = spell(function["name"])
        arguments = function.get("arguments") or ""
        function["arguments"] = arguments if isinstance(arguments, str) else _canonical.dumped(arguments)


def _respell_reasoning(said: JSON) -> None:
    """Call the reasoning by one name, if there is any."""
    other = said.pop("reasoning", None)
    reasoning = said.pop("reasoning_content", None) or other
    if reasoning:
        said["reasoning_content"] = reasoning


def _finish(reason: str, calls: bool) -> str:
    """Give the finish reason; a call that was forced may end with `stop`."""
    return "tool_calls" if calls and reason in ("stop", "function_call") else reason


def object_of(document: Any, name: str) -> JSON:
    """Give what an upstream said, when it is an object and tells no error."""
    if not isinstance(document, dict):
        raise UpstreamError(502, f"{name}'s answer is no object", code="provider_error", provider=name)
    if document.get("error"):
        raise reported(name, document)
    return document


# errors

#: `code` or `type` of an error -> the status that says the same, where it says more than the one that came
PLAIN_WORDS = {
    "invalid_api_key": 401,
    "insufficient_quota": 402,
    "credit_balance_exhausted": 402,
    "organization_spend_limit_exceeded": 402,
    "project_spend_limit_exceeded": 402,
    "organization_usage_limit_exceeded": 402,
    "billing_hard_limit_reached": 402,
    "slow_down": 503,
    "server_is_overloaded": 503,
}
#: the same where no status came with them
WORDS = {
    **PLAIN_WORDS,
    "invalid_request_error": 400,
    "invalid_request": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "overloaded_error": 503,
}
_MISTAKES = (400, 403, 404, 409, 413, 422)  # whose codes tell a client what to do otherwise
#: a key, or what is left of one; it looks for the stars once a word, for a message may hold all that a client sent
_KEY = re.compile(r"(?<![\w-])[\w-]*\*{3,}[\w*-]*|\b(?:sk|gsk|xai|csk)-[\w-]{6,}", re.ASCII)


def worded(name: str, status: int, headers: Mapping[str, str], body: Any) -> UpstreamError:
    """Word an answer of trouble."""
    error = _error_of(body if isinstance(body, dict) else {})
    trouble = _worded(name, _status(error, PLAIN_WORDS, status), error, wait=_canonical.retry_after(headers))
    trouble.provider_status = status
    return trouble


def reported(name: str, body: Any) -> UpstreamError:
    """Word trouble that is told within an answer."""
    error = _error_of(body)
    return _worded(name, _status(error, WORDS, 500), error, in_stream=True)


def _worded(name: str, status: int, error: JSON, **more: Any) -> UpstreamError:
    code, param = error.get("code"), error.get("param")
    if status == 402:
        code, more["wait"] = "insufficient_quota", None
    elif status not in _MISTAKES:
        code = None
    message = error.get("message") or error.get("detail") or ""
    return _canonical.upstream_error(
        name,
        status,
        _KEY.sub("[key]", message) if isinstance(message, str) else "",
        code=code if isinstance(code, str) else None,
        param=param if isinstance(param, str) else None,
        **more,
    )


def _status(error: JSON, words: Mapping[str, int], otherwise: int) -> int:
    for word in (error.get("code"), error.get("type")):
        if isinstance(word, str) and word in words:
            return words[word]
    return otherwise


def _error_of(body: Any) -> JSON:
    """Find the error in a body: an object or a text, alone or under `error`."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        return error
    return {"message": error} if isinstance(error, str) else {}


# embeddings and models


def embedding_questions(fields: JSON, most: int) -> Iterator[JSON]:
    """Give the bodies that ask for all embeddings, `most` of them at a time, as floats."""
    given = fields["input"]
    many = isinstance(given, list) and len(given) > most and not isinstance(given[0], int)
    for batch in _canonical.batches(given, most) if many else [given]:
        yield {**fields, "input": batch, "encoding_format": "float"}


class Embedded(NamedTuple):
    """What one answer holds."""

    vectors: List[List[float]]
    tokens: int
    model: str


def embeddings(
    questions: Iterable[JSON], ask: Callable[[Callable[[JSON], Embedded], JSON], Embedded], name: str
) -> JSON:
    """Ask the questions in turn, by `ask(translator of the answer, question)`, and put the answers together."""
    vectors: List[List[float]] = []
    tokens, model = 0, ""
    for body in questions:
        told = ask(partial(embedded, body, name), body)
        vectors += told.vectors
        tokens += told.tokens
        model = told.model
    return _canonical.vectors(vectors, f"{name}/{model}", tokens)


def embedded(question: JSON, name: str, document: JSON) -> Embedded:
    """Translate the answer to one question."""
    document = object_of(document, name)
    tokens = int((document.get("usage") or {}).get("prompt_tokens") or 0)
    return Embedded(
        _vectors(document, question["input"], name), tokens, str(document.get("model") or question["model"])
    )


def _vectors(document: JSON, asked: Any, name: str) -> List[List[float]]:
    count = len(asked) if isinstance(asked, list) and not isinstance(asked[0], int) else 1
    data = sorted(document.get("data") or (), key=lambda item: int(item.get("index") or 0))
    if len(data) != count:
        raise UpstreamError(
            502, f"{name} sent {len(data)} vectors for {count} inputs", code="provider_error", provider=name
        )
    return [_canonical.floats(item["embedding"]) for item in data]


def models(document: Any, name: str) -> List[JSON]:
    """Give the models of a list; some leave out when they were made, and by whom."""
    items = document if isinstance(document, list) else object_of(document, name).get("data")
    return [
        {**item, "object": "model", "created": item.get("created") or 0, "owned_by": item.get("owned_by") or name}
        for item in items or ()
        if isinstance(item, dict) and item.get("id")
    ]
