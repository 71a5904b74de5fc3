"""What Anthropic answers, as canonical parts. Pure.

What a turn holds besides texts and calls (thinking, redacted thinking, the work of hosted tools) goes
into `reasoning_details`: the block as it came, tagged with its provider and model, and, where it does
not stand first, with `after`: how many letters of text and how many calls stand before it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Mapping, Optional, Tuple

from . import JSON, PAUSE, Parts, UpstreamError, _canonical
from ._canonical import Chunks

Keep = Callable[[Iterable[str], List[JSON]], object]
Note = Callable[[str, str], object]

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
REFUSED = "The model declined to answer."

#: error type -> the status it has where it is not told in a stream
STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_MONEY_CODE = re.compile(r"spend_limit|billing|credit")
_MONEY = re.compile(r"spend(ing)? limit|usage limits|credit balance")


class Tally:
    """What of a turn has been said so far: tells each further block its place."""

    def __init__(self, provider: str, model: str) -> None:
        self.text: List[str] = []
        self.calls: List[JSON] = []
        self.details: List[JSON] = []
        self._tags = {"provider": provider, "model": model}

    def detail(self, block: JSON) -> JSON:
        """Tag a block that is to come back unchanged."""
        place = [sum(map(len, self.text)), len(self.calls)]
        detail = {**self._tags, "index": len(self.details), **block, **({"after": place} if any(place) else {})}
        self.details.append(detail)
        return detail

    def call(self, block: JSON) -> JSON:
        """Give the canonical call of a `tool_use`."""
        function = {"name": block.get("name"), "arguments": _canonical.dumped(block.get("input") or {})}
        self.calls.append({"id": block.get("id"), "type": "function", "function": function})
        return self.calls[-1]

    def keep(self, keep: Keep) -> None:
        keep([str(call["id"]) for call in self.calls], self.details)


def answer(message: JSON, provider: str, model: str, keep: Keep, note: Note) -> JSON:
    """Translate a whole answer; `model` is the one that was asked, `keep` remembers details by their calls."""
    tally = Tally(provider, model)
    for block in message.get("content") or ():
        if block.get("type") == "text":
            tally.text.append(str(block.get("text") or ""))
            if block.get("citations"):
                tally.detail({"type": "citations", "citations": block["citations"]})
        elif block.get("type") == "tool_use":
            tally.call(block)
        else:
            tally.detail(block)
    tally.keep(keep)
    told: JSON = {"content": "".join(tally.text) or None}
    reasoning = "".join(str(d.get("thinking") or "") for d in tally.details if d["type"] == "thinking")
    more = {"reasoning_content": reasoning, "reasoning_details": tally.details, "tool_calls": tally.calls}
    told.update({field: value for field, value in more.items() if value})
    if message.get("stop_reason") == "refusal":
        told["refusal"] = refusal_of(message)
    name = f"{provider}/{message.get('model') or model}"
    finish, usage = finish_of(message, note), usage_of(message.get("usage") or {})
    whole = _canonical.completion(str(message.get("id") or ""), name, told, finish, usage)
    if message.get("stop_sequence") is not None:
        whole["choices"][0]["stop_sequence"] = message["stop_sequence"]
    return whole


def chunks(events: Iterable[JSON], provider: str, model: str, keep: Keep, note: Note) -> Parts:
    """Translate the events of a streamed answer."""
    tally, make = Tally(provider, model), Chunks("", f"{provider}/{model}")
    end: JSON = {"usage": {}}
    for kind, told, fragment in heard(events, provider):
        translate = OF_BLOCK.get(kind)
        if translate:
            part = translate(make, tally, told, fragment)
            if part:
                yield part
        elif not kind:
            yield PAUSE
        elif kind == "message_start":
            message = told.get("message") or {}
            make = Chunks(str(message.get("id") or ""), f"{provider}/{message.get('model') or model}")
            end["usage"].update(message.get("usage") or {})
            yield make.role()
        elif kind == "message_delta":
            end.update(told.get("delta") or {})
            end["usage"].update(told.get("usage") or {})
        elif kind == "message_stop":
            tally.keep(keep)
            yield from _last(make, end, note)
            return
    raise _canonical.truncated(provider)


def _last(make: Chunks, end: JSON, note: Note) -> Parts:
    """Give the chunks an answer ends with."""
    if end.get("stop_reason") == "refusal":
        yield make.delta({"refusal": refusal_of(end)})
    finish = make.delta({}, finish_of(end, note))
    if end.get("stop_sequence") is not None:
        finish["choices"][0]["stop_sequence"] = end["stop_sequence"]
    yield finish
    yield make.usage(usage_of(end["usage"]))


def _begun(make: Chunks, tally: Tally, block: JSON, _: str) -> JSON:
    """Give the chunk of what begins; empty where there is nothing to tell."""
    if block.get("type") != "tool_use":
        return {}
    return make.call(len(tally.calls), str(block.get("id")), str(block.get("name")))


def _goes_on(make: Chunks, tally: Tally, block: JSON, fragment: str) -> JSON:
    """Give the chunk of what a block goes on with."""
    if not fragment:
        return {}
    if block["type"] == "text":
        return make.text(fragment)
    return make.reasoning(fragment) if block["type"] == "thinking" else make.arguments(len(tally.calls), fragment)


def _ended(make: Chunks, tally: Tally, block: JSON, said: str) -> JSON:
    """Give the chunk of what is known at the end of a block."""
    if block.get("type") == "text":
        tally.text.append(block["text"])
        if block.get("citations"):
            return make.detail(tally.detail({"type": "citations", "citations": block["citations"]}))
        return {}
    if block.get("type") != "tool_use":
        return make.detail(tally.detail(block))
    told = {} if said else make.arguments(len(tally.calls), _canonical.dumped(block.get("input") or {}))
    tally.call(block)
    return told


OF_BLOCK: Mapping[str, Callable[[Chunks, Tally, JSON, str], JSON]] = {
    "content_block_start": _begun,
    "content_block_delta": _goes_on,
    "content_block_stop": _ended,
}


# events, read


#: type of delta -> (its field, the block's field it goes on with, whether it is told as it comes)
DELTAS = {
    "text_delta": ("text", "text", True),
    "thinking_delta": ("thinking", "thinking", True),
    "signature_delta": ("signature", "signature", False),
    "input_json_delta": ("partial_json", "", True),
}
#: the blocks that are told as they come
TOLD = frozenset({"text", "thinking", "tool_use"})


#: what an event says: its kind (empty: it is a pause); of a block the block, of a message the event; and what a
#: `content_block_delta` adds that is told as it comes; for a `content_block_stop`, whether anything was told before
Heard = Tuple[str, JSON, str]

_NOTHING: Heard = ("", {}, "")


def heard(events: Iterable[JSON], provider: str) -> Iterator[Heard]:
    """Read events; pings and unknown ones are pauses, an error raises, those of blocks that never began are none."""
    blocks: Dict[Any, _Growing] = {}
    for event in events:
        kind = event.get("type")
        if kind == "content_block_delta" and event.get("index") in blocks:
            growing = blocks[event["index"]]
            yield kind, growing.block, growing.after(event.get("delta") or {})
        elif kind == "content_block_start":
            growing = blocks[event.get("index")] = _Growing(event.get("content_block") or {})
            yield kind, growing.block, ""
            if growing.ahead:
                yield "content_block_delta", growing.block, growing.ahead
        elif kind == "content_block_stop" and event.get("index") in blocks:
            growing = blocks[event["index"]]
            yield kind, growing.whole(), "said" if growing.said else ""
        elif kind == "error":
            raise error_of(provider, event)
        else:
            yield (kind, event, "") if kind in ("message_start", "message_delta", "message_stop") else _NOTHING


class _Growing:
    """A block under way."""

    def __init__(self, start: JSON) -> None:
        kind = str(start.get("type"))
        self.block = dict(start)
        self.is_told = kind in TOLD
        self.ahead = str(start.get(kind) or "") if self.is_told else ""  # a text or a thought may begin with words
        self.said = bool(self.ahead)
        self._json: List[str] = []
        self._grown: Dict[str, List[str]] = {}

    def after(self, delta: JSON) -> str:
        """Go on with a delta; gives what of it is told as it comes."""
        kind = str(delta.get("type"))
        if kind == "citations_delta":
            self.block["citations"] = [*(self.block.get("citations") or ()), delta.get("citation")]
        field, grows, told = DELTAS.get(kind, ("", "", False))
        fragment = str(delta.get(field) or "")
        if grows in self._grown:
            self._grown[grows].append(fragment)
        elif grows:
            self.block[grows] = str(self.block.get(grows) or "")
            self._grown[grows] = [self.block[grows], fragment]
        elif fragment:
            self._json.append(fragment)
        if not (fragment and told and self.is_told):
            return ""
        self.said = True
        return fragment

    def whole(self) -> JSON:
        """Give the block at its end."""
        if self._json:
            self.block["input"] = _parsed("".join(self._json))
        for field, fragments in self._grown.items():
            self.block[field] = "".join(fragments)
        return self.block


def _parsed(text: str) -> JSON:
    """Read a call's input; one that was cut off is read as far as our own books go: as empty."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def gathered(events: Iterable[JSON], provider: str) -> Generator[JSON, None, JSON]:
    """Put a streamed answer together to the message it would have been; yields PAUSE at each pause."""
    message: JSON = {}
    content: List[JSON] = []
    for kind, told, _ in heard(events, provider):
        if kind == "message_start":
            message = dict(told.get("message") or {})
        elif kind == "content_block_stop":
            content.append(told)
        elif kind == "message_delta":
            usage = {**(message.get("usage") or {}), **(told.get("usage") or {})}
            message = {**message, **(told.get("delta") or {}), "usage": usage}
        elif kind == "message_stop":
            return {**message, "content": content}
        else:
            yield PAUSE
    raise _canonical.truncated(provider)


# ends


def finish_of(message: JSON, note: Note) -> str:
    """Give the finish reason; one that the canonical form cannot say is noted."""
    reason = str(message.get("stop_reason") or "end_turn")
    if reason == "pause_turn":
        note("finish_reason", "the turn is paused: send it back to have it go on")
    return FINISH.get(reason, "stop")


def refusal_of(message: JSON) -> str:
    return str((message.get("stop_details") or {}).get("explanation") or REFUSED)


def usage_of(told: JSON) -> JSON:
    """Translate usage: what was read from the cache or written to it is part of the prompt."""
    cached, written = int(told.get("cache_read_input_tokens") or 0), int(told.get("cache_creation_input_tokens") or 0)
    prompt = int(told.get("input_tokens") or 0) + cached + written
    thought = (told.get("output_tokens_details") or {}).get("thinking_tokens")
    return _canonical.usage(
        prompt, int(told.get("output_tokens") or 0), cached=cached, cache_write=written, reasoning=thought
    )


# errors


def worded(provider: str, status: int, headers: Mapping[str, str], body: Any) -> UpstreamError:
    """Word an answer of trouble."""
    return _error(provider, status, body, _canonical.retry_after(headers), in_stream=False)


def error_of(provider: str, event: JSON) -> UpstreamError:
    """Word the trouble a stream ends with."""
    told = event.get("error")
    kind = str(told.get("type")) if isinstance(told, dict) else ""
    return _error(provider, STATUS.get(kind, 500), event, None, in_stream=True)


def _error(provider: str, status: int, body: Any, wait: Optional[float], *, in_stream: bool) -> UpstreamError:
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {}
    message = str(error.get("message") or "")
    details = error.get("details")
    named = str(details.get("error_code") or "") if isinstance(details, dict) else ""
    says = status == 400 or (status == 429 and wait is None)  # what passes is told when it will
    money = status == 402 or _MONEY_CODE.search(named) or (says and _MONEY.search(message.lower()))
    code = "insufficient_quota" if money else None
    trouble = _canonical.upstream_error(provider, status, message, in_stream=in_stream, wait=wait, code=code)
    if isinstance(details, dict):
        trouble.own["anthropic"] = details
    return trouble
