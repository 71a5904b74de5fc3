"""Canonical answers, as Anthropic's clients hear them: messages, and streams of blocks one after another. Pure.

What a provider wants back with the results of its tools goes, sealed, where Anthropic has its own: into the signature
of a thought, or into a redacted one. It stands before the calls it belongs to, and a client that did not ask for
thoughts gets it only with calls: many read nothing but the first block of an answer.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional

from providers import Trouble, UpstreamError
from providers._json import written as in_json

from . import JSON, written
from ._state import sealed

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
#: our status -> the type of an error; others of the 400s are the client's fault, the rest the service's
ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
OVERLOADED = 529  # what Anthropic says for 503
THREAD = "thread"  # a conversation that the upstream remembers; told that there is none, clients go on without it
IMAGE = "[an image, which cannot be shown here]"
TOO_LONG = "prompt is too long"  # by these words clients know that they have to shorten a conversation


_NO_NAME = re.compile(r"[^\w.-]")
#: the names in an event that is a piece of text and nothing else, and in its delta
_PIECE, _OF_TEXT = ["type", "index", "delta"], ["type", "text"]


def spelled(event: JSON) -> bytes:
    """Write an event; a piece of text, which nearly every one is, as `written` would, but for the detours."""
    kind, delta = event.get("type"), event.get("delta")
    if kind == "content_block_delta" and type(delta) is dict and [*event] == _PIECE and [*delta] == _OF_TEXT:
        index, text = event["index"], delta["text"]
        if delta["type"] == "text_delta" and type(text) is str and type(index) is int:
            told = f'{{"type":"text_delta","text":{in_json(text)}}}'
            data = f'{{"type":"content_block_delta","index":{index},"delta":{told}}}'
            return f"event: content_block_delta\ndata: {data}\n\n".encode()
    return b"event: %s\ndata: %s\n\n" % (_NO_NAME.sub("", str(kind)).encode(), written(event))


# troubles


def status_of(trouble: Trouble) -> int:
    return OVERLOADED if trouble.status == 503 else trouble.status


def error_of(trouble: Trouble, id_: Optional[str] = None) -> JSON:
    """Word trouble."""
    kind = ERRORS.get(trouble.status, "invalid_request_error" if trouble.status < 500 else "api_error")
    message = trouble.message
    if trouble.param and trouble.param not in message:
        message = f"{trouble.param}: {message}"
    if trouble.code == "context_length_exceeded" and TOO_LONG not in message:
        message = f"{TOO_LONG}: {message}"
    error: JSON = {"type": kind, "message": message}
    details = details_of(trouble)
    if details:
        error["details"] = details
    return {"type": "error", "error": error, "request_id": id_}


def details_of(trouble: Trouble) -> JSON:
    """Give what clients go by: Anthropic's own details, or what they would be."""
    own = trouble.own.get("anthropic") if isinstance(trouble, UpstreamError) else None
    if own:
        return dict(own)
    if trouble.code == "insufficient_quota":
        return {"error_code": "enforced_spend_limit_reached"}
    if trouble.param == THREAD and trouble.code == "unsupported_parameter":
        return {"error_code": "thread_unsupported_request", "unsupported": [THREAD]}
    return {}


# ends


def usage_of(usage: JSON) -> JSON:
    """Translate usage: what was read from a cache or written to it does not count as input."""
    before, after = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached, wrote = int(before.get("cached_tokens") or 0), int(before.get("cache_write_tokens") or 0)
    told: JSON = {
        "input_tokens": max(0, int(usage.get("prompt_tokens") or 0) - cached - wrote),
        "cache_creation_input_tokens": wrote,
        "cache_read_input_tokens": cached,
        "output_tokens": int(usage.get("completion_tokens") or 0),
    }
    if after.get("reasoning_tokens") is not None:
        told["output_tokens_details"] = {"thinking_tokens": int(after["reasoning_tokens"])}
    return told


def end_of(choice: JSON, refusal: str) -> JSON:
    """Tell why an answer ended; `refusal` is what was said instead of one."""
    finish, stop = choice.get("finish_reason") or "stop", choice.get("stop_sequence")
    reason = "stop_sequence" if stop is not None and finish == "stop" else STOPS.get(finish, "end_turn")
    end: JSON = {"stop_reason": reason, "stop_sequence": stop if reason == "stop_sequence" else None}
    if reason == "refusal":
        end["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal or None}
    return end


def head_of(part: JSON) -> JSON:
    """Give what a message is before anything is said."""
    id_ = re.sub(r"[^\w-]", "_", str(part.get("id") or ""))
    return {
        "id": id_ if id_.startswith("msg_") else f"msg_{id_}",
        "type": "message",
        "role": "assistant",
        "model": part.get("model"),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_of({}),
    }


# whole answers


def answer(completion: JSON, *, shows: bool) -> JSON:
    """Word a whole answer; `shows` tells whether the client wants to read what the model thought."""
    choice = completion["choices"][0]
    said = choice["message"]
    end = end_of(choice, said.get("refusal") or "")
    text = (said.get("content") or "") + _unsayable(said)
    if end["stop_reason"] != "refusal":
        text = text or said.get("refusal") or ""
    blocks = [{"type": "text", "text": text}] if text else []
    calls = [_called(call) for call in said.get("tool_calls") or ()]
    details = said.get("reasoning_details") or []
    if shows and said.get("reasoning_content"):
        thought = {"type": "thinking", "thinking": said["reasoning_content"], "signature": sealed(details)}
        content = [thought, *blocks, *calls]
    else:
        state = [_hidden(details)] if details and (shows or calls) else []
        content = [*state, *blocks, *calls] if shows else [*blocks, *state, *calls]
    return {**head_of(completion), "content": content, **end, "usage": usage_of(completion.get("usage") or {})}


def _unsayable(said: JSON) -> str:
    """Say in words what Anthropic's answers have no block for."""
    return IMAGE * len(said.get("images") or ())


def _hidden(details: List[JSON]) -> JSON:
    return {"type": "redacted_thinking", "data": sealed(details)}


def _called(call: JSON) -> JSON:
    function = call.get("function") or {}
    input_ = arguments_of(str(function.get("arguments") or ""))
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": input_}


def arguments_of(text: str) -> JSON:
    """Read the arguments of a call; what is no object is shown as what it is."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"_raw": text}


# streams


BEGINNINGS: Dict[str, JSON] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class Block:
    """A block of a stream: what it begins with, and what of it has not been told yet."""

    def __init__(self, start: JSON, delta: str = "", field: str = "") -> None:
        self.start = start
        self.waiting: List[str] = []
        self.said = ""  # of a call: all so far, as long as it matters whether that is all
        self.details: List[JSON] = []
        self.told = False  # whether its beginning has been
        self.whole, self.judged = False, 0
        self._delta = {"type": delta}, field

    @property
    def kind(self) -> str:
        return str(self.start["type"])

    def add(self, fragment: str) -> None:
        self.waiting.append(fragment)
        if self.kind == "tool_use":
            self.said += fragment

    def is_whole(self) -> bool:
        """Tell whether nothing can follow that is its own; of a call: whether its arguments are complete."""
        if self.kind != "tool_use":
            return True
        if not self.whole and len(self.said) > self.judged:
            self.judged = len(self.said)
            self.whole = self.said.rstrip().endswith("}") and "_raw" not in arguments_of(self.said)
        return self.whole

    def news(self, index: int) -> Iterator[JSON]:
        """Tell what has not been told."""
        if not self.told:
            self.told = True
            start = {**self.start, "data": sealed(self.details)} if self.kind == "redacted_thinking" else self.start
            yield {"type": "content_block_start", "index": index, "content_block": start}
        base, field = self._delta
        for fragment in self.waiting:
            yield {"type": "content_block_delta", "index": index, "delta": {**base, field: fragment}}
        self.waiting.clear()

    def end(self, index: int) -> Iterator[JSON]:
        if self.kind == "thinking":
            signature = {"type": "signature_delta", "signature": sealed(self.details)}
            yield {"type": "content_block_delta", "index": index, "delta": signature}
        yield {"type": "content_block_stop", "index": index}


class Turn:
    """The blocks of an answer under way: the first of those that are left is told as it comes, the others wait.

    Nothing is told before it is known what comes next (another part, a pause, or the end): state that comes right
    behind a call belongs before it.
    """

    def __init__(self, *, shows: bool) -> None:
        self.shows = shows
        self.index = 0
        self.left: List[Block] = []
        self.calls: Dict[Any, Block] = {}
        self.held: List[JSON] = []  # state that goes with the next call

    def hear(self, delta: JSON) -> None:
        """Take in what a part says."""
        if delta.get("reasoning_content") and self.shows:
            self._grown("thinking").add(delta["reasoning_content"])
        text = (delta.get("content") or "") + _unsayable(delta)
        if text:
            self._grown("text").add(text)
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if delta.get("reasoning_details"):
            self._state(delta["reasoning_details"])

    def _grown(self, kind: str) -> Block:
        """Give the block that words of a kind go on with."""
        if not self.left or self.left[-1].kind != kind:
            self.left.append(Block({**BEGINNINGS[kind]}, f"{kind}_delta", kind))
        return self.left[-1]

    def _call(self, call: JSON) -> None:
        function, at = call.get("function") or {}, call.get("index")
        if at not in self.calls:
            start: JSON = {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {}}
            self.calls[at] = Block(start, "input_json_delta", "partial_json")
            self._let_go()
            self.left.append(self.calls[at])
        if function.get("arguments"):
            self.calls[at].add(function["arguments"])

    def _state(self, details: List[JSON]) -> None:
        """Put state where it belongs: into the thought that was just told, before its call, or by itself."""
        last = self.left[-1] if self.left else None
        if last is not None and last.kind == "thinking":
            last.details += details
        elif last is not None and last.kind == "tool_use" and not last.told:
            self._hide(details, len(self.left) - 1)
        elif self.shows or self.calls:
            self._hide(details, len(self.left))
        else:
            self.held += details

    def _hide(self, details: List[JSON], at: int) -> None:
        before = self.left[at - 1] if at else None
        if before is None or before.kind != "redacted_thinking" or before.told:
            before = Block({"type": "redacted_thinking", "data": ""})
            self.left.insert(at, before)
        before.details += details

    def _let_go(self) -> None:
        if self.held:
            held, self.held = self.held, []
            self._hide(held, len(self.left))

    def news(self, *, ends: bool = False) -> Iterator[JSON]:
        """Tell all that can be told now."""
        while self.left:
            block = self.left[0]
            yield from block.news(self.index)
            if not ends and (len(self.left) == 1 or not block.is_whole()):
                return
            yield from block.end(self.index)
            self.index += 1
            del self.left[0]


class End(NamedTuple):
    """What is known of an answer's end so far."""

    choice: JSON
    usage: JSON


def speak(parts: Iterable[JSON], *, shows: bool) -> Iterator[bytes]:
    """Say the parts of a stream; `shows` tells whether the client wants to read what the model thinks."""
    for event in events(parts, shows=shows):
        yield spelled(event) if event else b""


def events(parts: Iterable[JSON], *, shows: bool) -> Iterator[JSON]:
    """Give the events of a stream, an empty one for an empty part."""
    turn = Turn(shows=shows)
    try:
        yield from _told(turn, parts)
    except Trouble:
        yield from turn.news()  # what was heard before it is told
        raise


def _told(turn: Turn, parts: Iterable[JSON]) -> Iterator[JSON]:
    end, refusal, begun = End({}, {}), "", False
    for part in parts:
        if not part:
            yield from turn.news()
            yield {}
            continue
        if not begun:
            begun = True
            yield {"type": "message_start", "message": head_of(part)}
            yield {"type": "ping"}
        choice: JSON = next(iter(part.get("choices") or ()), {})
        delta = choice.get("delta") or {}
        if not delta.get("reasoning_details"):
            yield from turn.news()
        turn.hear(delta)
        refusal += delta.get("refusal") or ""
        end = End(choice if choice.get("finish_reason") else end.choice, part.get("usage") or end.usage)
    if begun:
        yield from _last(turn, end, refusal)


def _last(turn: Turn, end: End, refusal: str) -> Iterator[JSON]:
    """Give the events that an answer ends with."""
    why = end_of(end.choice, refusal)
    if refusal and why["stop_reason"] != "refusal":
        turn.hear({"content": refusal})
    yield from turn.news(ends=True)
    yield {"type": "message_delta", "delta": why, "usage": usage_of(end.usage)}
    yield {"type": "message_stop"}
