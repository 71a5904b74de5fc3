"""What Anthropic answers, as canonical parts. Pure.

What a turn holds besides texts and calls (thinking, redacted thinking, the work of hosted tools) goes
into `reasoning_details`: the block as it came, tagged with its provider and model, and, where it does
not stand first, with `after`: how many letters of text and how many calls stand before it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Generator, Iterable, List, Mapping, Optional

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
    for event in whole_blocks(events, provider):
        kind = event.get("type")
        if not event:
            yield PAUSE
        elif kind == "message_start":
            message = event.get("message") or {}
            make = Chunks(str(message.get("id") or ""), f"{provider}/{message.get('model') or model}")
            end["usage"].update(message.get("usage") or {})
            yield make.role()
        elif kind == "message_delta":
            end.update(event.get("delta") or {})
            end["usage"].update(event.get("usage") or {})
        elif kind == "message_stop":
            tally.keep(keep)
            yield from _last(make, end, note)
            return
        else:
            yield from _of_block(make, tally, event)
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


def _of_block(make: Chunks, tally: Tally, event: JSON) -> Parts:
    """Give the chunks of what begins, goes on, or ends inside of a block."""
    block, fragment = event["block"], event.get("fragment")
    if event["type"] == "content_block_start":
        if block.get("type") == "tool_use":
            yield make.call(len(tally.calls), str(block.get("id")), str(block.get("name")))
    elif event["type"] == "content_block_stop":
        yield from _of_whole_block(make, tally, block, event["said"])
    elif fragment and block.get("type") == "text":
        yield make.text(fragment)
    elif fragment and block.get("type") == "thinking":
        yield make.reasoning(fragment)
    elif fragment and block.get("type") == "tool_use":
        yield make.arguments(len(tally.calls), fragment)


def _of_whole_block(make: Chunks, tally: Tally, block: JSON, said: bool) -> Parts:
    if block.get("type") == "text":
        tally.text.append(block["text"])
        if block.get("citations"):
            yield make.detail(tally.detail({"type": "citations", "citations": block["citations"]}))
    elif block.get("type") == "tool_use":
        if not said:
            yield make.arguments(len(tally.calls), _canonical.dumped(block.get("input") or {}))
        tally.call(block)
    else:
        yield make.detail(tally.detail(block))


# events, read


#: type of delta -> (its field, the block's field it goes on with, whether it is told as it comes)
DELTAS = {
    "text_delta": ("text", "text", True),
    "thinking_delta": ("thinking", "thinking", True),
    "signature_delta": ("signature", "signature", False),
    "input_json_delta": ("partial_json", "", True),
}


def whole_blocks(events: Iterable[JSON], provider: str) -> Generator[JSON, None, None]:
    """Pass events on, each of a block with the `block` as it is by then, and what it adds as `fragment`.

    The end of a block tells whether anything was `said` of it before. Pings and unknown events are
    pauses; an error raises. Events of blocks that never began are none.
    """
    blocks: Dict[Any, _Growing] = {}
    for event in events:
        kind = event.get("type")
        if kind == "error":
            raise error_of(provider, event)
        if kind == "content_block_start":
            growing = blocks[event.get("index")] = _Growing(event.get("content_block") or {})
            yield {"type": kind, "block": growing.block}
            if growing.ahead:
                yield {"type": "content_block_delta", "block": growing.block, "fragment": growing.ahead}
        elif kind in ("content_block_delta", "content_block_stop") and event.get("index") in blocks:
            yield blocks[event["index"]].after(event)
        else:
            yield event if kind in ("message_start", "message_delta", "message_stop") else PAUSE


class _Growing:
    """A block under way."""

    def __init__(self, start: JSON) -> None:
        self.block = dict(start)
        self.ahead = str(start.get(str(start.get("type"))) or "")  # a text or a thought may begin with words
        self._json: List[str] = []
        self._said = bool(self.ahead)

    def after(self, event: JSON) -> JSON:
        if event["type"] == "content_block_stop":
            if self._json:
                self.block["input"] = _parsed("".join(self._json))
            return {"type": event["type"], "block": self.block, "said": self._said}
        delta = event.get("delta") or {}
        if delta.get("type") == "citations_delta":
            self.block["citations"] = [*(self.block.get("citations") or ()), delta.get("citation")]
        field, grows, told = DELTAS.get(str(delta.get("type")), ("", "", False))
        fragment = str(delta.get(field) or "")
        if grows:
            self.block[grows] = str(self.block.get(grows) or "") + fragment
        elif fragment:
            self._json.append(fragment)
        self._said = self._said or bool(fragment and told)
        return {"type": event["type"], "block": self.block, "fragment": fragment if told else ""}


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
    for event in whole_blocks(events, provider):
        kind = event.get("type")
        if kind == "message_start":
            message = dict(event.get("message") or {})
        elif kind == "content_block_stop":
            content.append(event["block"])
        elif kind == "message_delta":
            usage = {**(message.get("usage") or {}), **(event.get("usage") or {})}
            message = {**message, **(event.get("delta") or {}), "usage": usage}
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
