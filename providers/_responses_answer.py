"""What OpenAI's Responses API answers, whole or streamed, as canonical parts. Pure."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional

from . import JSON, PAUSE, Parts, _canonical
from ._events import handing_back
from ._openai import object_of, reported
from ._responses import CALLS

Keep = Callable[[Iterable[str], List[JSON]], None]

#: what stands between one piece of reasoning and the next
BETWEEN = "\n\n"

REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


def finish_of(response: JSON, calls: bool) -> str:
    """Give the finish reason; what is incomplete for reasons of its own has come to the end of some length."""
    if response.get("status") == "incomplete":
        return REASONS.get(str((response.get("incomplete_details") or {}).get("reason")), "length")
    return "tool_calls" if calls else "stop"


def usage_of(response: JSON) -> JSON:
    """Translate the usage; empty when there is none."""
    told = response.get("usage")
    if not told:
        return {}
    before, after = told.get("input_tokens_details") or {}, told.get("output_tokens_details") or {}
    return _canonical.usage(
        told.get("input_tokens") or 0,
        told.get("output_tokens") or 0,
        cached=before.get("cached_tokens") or 0,
        cache_write=before.get("cache_write_tokens") or 0,
        reasoning=after.get("reasoning_tokens"),
    )


def answer(document: Any, name: str, model: str) -> JSON:
    """Translate a whole response."""
    response = object_of(document, name)
    if response.get("status") in ("failed", "cancelled"):
        raise reported(name, {"message": f"the response was {response['status']}"})
    message = message_of(response.get("output") or (), name, model)
    logprobs = message.pop("logprobs", None)
    made = _canonical.completion(
        str(response.get("id") or ""),
        f"{name}/{response.get('model') or model}",
        message,
        finish_of(response, "tool_calls" in message),
        usage_of(response),
        int(response.get("created_at") or 0),
    )
    if logprobs:
        made["choices"][0]["logprobs"] = {"content": logprobs, "refusal": None}
    return made


def own(document: Any, name: str, model: str) -> JSON:
    """Translate a whole response that goes on in its own words, too; of its failure these tell."""
    if not isinstance(document, dict) or document.get("object") != "response":
        return answer(document, name, model)
    ended = "incomplete" if document.get("status") == "incomplete" else "completed"
    return {**answer({**document, "error": None, "status": ended}, name, model), "_responses": document}


class _Turn:
    """How far a turn has come: what tells an item's place in it."""

    def __init__(self, name: str, model: str) -> None:
        self.of = {"provider": name, "model": model}
        self.letters = 0
        self.spoken = False
        self.calls = 0
        self.details = 0

    def detail(self, item: JSON) -> JSON:
        """Give the reasoning detail of an item that has just ended."""
        index = self.details + self.calls + self.spoken
        self.details += 1
        told = {key: item.get(key) for key in ("id", "encrypted_content")}
        return {**self.of, "index": index, "type": "reasoning_item", **told, "summary": item.get("summary") or []}

    def speak(self, text: str) -> None:
        self.letters += len(text)
        self.spoken = True


def message_of(output: Iterable[JSON], name: str, model: str) -> JSON:
    """Put the message together from the items of an output; `logprobs` are in it too."""
    turn = _Turn(name, model)
    said: Dict[str, List[Any]] = {key: [] for key in _WHOLE}
    for item in output:
        kind = item.get("type")
        if kind == "message":
            for part in item.get("content") or ():
                _hear(part, turn, said)
        elif kind == "reasoning":
            said["reasoning_content"] += [part["text"] for part in item.get("summary") or item.get("content") or ()]
            said["reasoning_details"].append(turn.detail(item))
        elif kind in CALLS:
            turn.calls += 1
            said["tool_calls"].append(call_of(item))
    whole = {key: join(said[key]) for key, join in _WHOLE.items() if said[key]}
    return {"content": None, **whole}


#: what a message is made of, and how it is put together from its pieces
_WHOLE: Mapping[str, Callable[[List[Any]], Any]] = {
    "content": "".join,
    "refusal": "".join,
    "annotations": list,
    "logprobs": list,
    "reasoning_content": BETWEEN.join,
    "reasoning_details": list,
    "tool_calls": list,
}


def _hear(part: JSON, turn: _Turn, said: Mapping[str, List[Any]]) -> None:
    said["annotations"] += [annotation_of(one, turn.letters) for one in part.get("annotations") or ()]
    said["logprobs"] += part.get("logprobs") or ()
    if part.get("text"):
        turn.speak(part["text"])
        said["content"].append(part["text"])
    if part.get("refusal"):
        turn.spoken = True
        said["refusal"].append(part["refusal"])


def call_of(item: JSON) -> JSON:
    kind, what = CALLS[item["type"]]
    text = item.get(what) or ("{}" if kind == "function" else "")
    return {"id": item.get("call_id"), "type": kind, kind: {"name": item.get("name"), what: text}}


def annotation_of(annotation: JSON, before: int) -> JSON:
    """Translate a citation; its places count from the start of all the text, `before` which there was some."""
    told = {key: value for key, value in annotation.items() if key != "type"}
    for place in ("start_index", "end_index"):
        if isinstance(told.get(place), int):
            told[place] += before
    kind = str(annotation.get("type"))
    return {"type": kind, kind: told}


#: events that bring a piece of a message -> the key of the delta it is passed on under
PIECES = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "reasoning_content",
    "response.reasoning_text.delta": "reasoning_content",
}
ARGUMENTS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")
FAILURES = ("response.failed", "error")
ENDS = ("response.completed", "response.incomplete")


def chunks(events: Iterable[JSON], name: str, model: str) -> Parts:
    """Translate a stream; what it says after its end is not waited for."""
    stream: Optional[_Stream] = None
    for event in events:
        kind = event.get("type")
        if not event:
            yield PAUSE
            continue
        response = event.get("response") or {}
        if kind in FAILURES or event.get("error"):
            raise reported(name, response.get("error") or event)
        if stream is None:
            stream = _Stream(response, name, model)
            yield stream.chunk.role()
        if kind in ENDS:
            yield stream.chunk.delta({}, finish_of(response, bool(stream.calls)))
            usage = usage_of(response)
            if usage:
                yield stream.chunk.usage(usage)
            return
        part = stream.part(event)
        if part:
            yield part
    raise _canonical.truncated(name)


class _Stream:
    """The chunks of one streamed response, and what has to be remembered from one event to the next."""

    def __init__(self, response: JSON, name: str, model: str) -> None:
        named = f"{name}/{response.get('model') or model}"
        self.chunk = _canonical.Chunks(str(response.get("id") or ""), named, int(response.get("created_at") or 0))
        self.calls: Dict[Any, _Call] = {}  # by their places among all items
        self._turn = _Turn(name, model)
        self._before = 0  # letters said before the present part
        self._thought: List[Any] = []  # where the last piece of reasoning belongs

    def part(self, event: JSON) -> Optional[JSON]:
        """Give the chunk for an event; None when there is nothing to be told."""
        kind = str(event.get("type"))
        if kind in PIECES:
            return self._piece(PIECES[kind], event)
        if kind in ARGUMENTS:
            return self._arguments(event.get("output_index"), event.get("delta") or "")
        handle = _HANDLERS.get(kind)
        return handle(self, event) if handle else None

    def _piece(self, key: str, event: JSON) -> Optional[JSON]:
        text = event.get("delta") or ""
        if not text:
            return None
        if key == "reasoning_content":
            text = self._parted(event) + text
        elif key == "content":
            self._turn.speak(text)
        self._turn.spoken = self._turn.spoken or key == "refusal"
        part = self.chunk.delta({key: text})
        if event.get("logprobs"):
            part["choices"][0]["logprobs"] = {"content": event["logprobs"], "refusal": None}
        return part

    def _parted(self, event: JSON) -> str:
        """Give what parts this piece of reasoning from the one before it."""
        before = self._thought
        self._thought = [event.get(key) for key in ("output_index", "summary_index", "content_index")]
        return "" if before in ([], self._thought) else BETWEEN

    def item_added(self, event: JSON) -> Optional[JSON]:
        item = event.get("item") or {}
        if item.get("type") not in CALLS:
            return None
        call = self.calls[event.get("output_index")] = _Call(self._turn.calls, *CALLS[item["type"]])
        self._turn.calls += 1
        begun = {"name": item.get("name"), call.what: ""}
        told = {"index": call.at, "id": item.get("call_id"), "type": call.kind, call.kind: begun}
        return self.chunk.delta({"tool_calls": [told]})

    def _arguments(self, place: Any, fragment: str) -> Optional[JSON]:
        call = self.calls.get(place)
        if call is None or not fragment:
            return None
        self.calls[place] = call._replace(begun=True)
        return self.chunk.delta({"tool_calls": [{"index": call.at, call.kind: {call.what: fragment}}]})

    def item_done(self, event: JSON) -> Optional[JSON]:
        item, place = event.get("item") or {}, event.get("output_index")
        if item.get("type") == "reasoning":
            return self.chunk.detail(self._turn.detail(item))
        if place in self.calls and not self.calls[place].begun:
            call = self.calls[place]
            return self._arguments(place, call_of(item)[call.kind][call.what])
        return None

    def part_added(self, event: JSON) -> None:
        self._before = self._turn.letters

    def annotation(self, event: JSON) -> JSON:
        return self.chunk.delta({"annotations": [annotation_of(event.get("annotation") or {}, self._before)]})


class _Call(NamedTuple):
    """A call under way: its place among the calls, and whether anything was told of what it carries."""

    at: int
    kind: str
    what: str
    begun: bool = False


_HANDLERS: Mapping[str, Callable[[_Stream, JSON], Optional[JSON]]] = {
    "response.output_item.added": _Stream.item_added,
    "response.output_item.done": _Stream.item_done,
    "response.content_part.added": _Stream.part_added,
    "response.output_text.annotation.added": _Stream.annotation,
}


def remembering(parts: Parts, keep: Keep) -> Parts:
    """Pass parts on; before the end is told, have the reasoning kept for the calls it led to."""
    ids: List[str] = []
    details: List[JSON] = []
    with handing_back(parts):
        for part in parts:
            for choice in part.get("choices") or ():
                said = choice.get("delta") or choice.get("message") or {}
                details += said.get("reasoning_details") or ()
                ids += [call["id"] for call in said.get("tool_calls") or () if call.get("id")]
                if choice.get("finish_reason"):
                    keep(ids, details)
            yield part
