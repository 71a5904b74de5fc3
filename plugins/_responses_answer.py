"""A canonical answer, whole or in parts, as a response: its items, and the events that tell of them. No I/O.

A whole answer is said as a stream of one, of which only the end is told: so both are alike. Items come one after
another; only calls of tools may be under way side by side, for an upstream may mix them.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional

from providers import Trouble

from . import JSON, written
from ._responses_tools import Tool
from ._state import sealed

Keep = Callable[[List[JSON]], None]

#: finish reason -> why an answer is not complete
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
#: our code of trouble -> what clients of this API know it by; any other is the server's
ERRORS = {
    "context_length_exceeded": "context_length_exceeded",
    "insufficient_quota": "insufficient_quota",
    "provider_overloaded": "server_is_overloaded",
    "rate_limit_exceeded": "rate_limit_exceeded",
}
#: what every response says, unless its question said otherwise
ECHOED: JSON = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "user": None,
}


def new_id(kind: str) -> str:
    return f"{kind}_{os.urandom(16).hex()}"


class Voice:
    """Words one answer to one question; `keep` is given its items at the end."""

    def __init__(
        self,
        asked: JSON,
        tools: Mapping[str, Tool],
        keep: Keep = lambda _: None,
        new: Callable[[str], str] = new_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.asked = asked
        self.keep = keep
        self.clock = clock
        self.output = Output(tools, new)
        self.response: JSON = {}  # as it was told last
        self._id = new("resp")
        self._number = 0

    def answer(self, completion: JSON) -> JSON:
        """Word a whole answer."""
        choice = completion["choices"][0]
        for _ in self.output.hear(choice["message"], choice.get("logprobs")):
            pass
        for _ in self.output.end(choice.get("finish_reason")):
            pass
        return self._ended(completion, choice.get("finish_reason"), completion.get("usage"))

    def speak(self, parts: Iterable[JSON]) -> Iterator[bytes]:
        """Speak the parts of a stream."""
        finish, usage, part = None, None, {}
        for part in parts:
            if not part:
                yield b""
                continue
            if not self.response:
                self.response = self._document(part, "in_progress")
                yield self.event({"type": "response.created", "response": self.response})
                yield self.event({"type": "response.in_progress", "response": self.response})
            usage = part.get("usage") or usage
            for choice in part.get("choices") or ():
                finish = choice.get("finish_reason") or finish
                yield from map(self.event, self.output.hear(choice.get("delta") or {}, choice.get("logprobs")))
        yield from map(self.event, self.output.end(finish))
        told = self._ended(self.response, finish, usage)
        yield self.event({"type": f"response.{told['status']}", "response": told})

    def event(self, event: JSON) -> bytes:
        """Write an event of ours, with its number."""
        numbered = {**event, "sequence_number": self._number}
        return self.spelled(numbered)

    def spelled(self, event: JSON) -> bytes:
        """Write an event that has its number; what it tells of the response is remembered."""
        number = event.get("sequence_number")
        self._number = number + 1 if isinstance(number, int) else self._number
        self.response = event.get("response") or self.response
        return b"event: " + str(event.get("type")).encode() + b"\ndata: " + written(event) + b"\n\n"

    def failed(self, trouble: Trouble) -> bytes:
        """Write that the answer broke off; of the response as well, if it had begun.

        Some clients go by the one event, some by the other. OpenAI's SDKs raise for an `error` with another in it, as
        its servers send it; its schema has the words beside that.
        """
        words = {"code": trouble.code, "message": trouble.message, "param": trouble.param}
        said = self.event({"type": "error", **words, "error": {"type": trouble.kind, **words}})
        if not self.response:
            return said
        error = {"code": ERRORS.get(str(trouble.code), "server_error"), "message": trouble.message}
        output = self.output.items() or self.response.get("output") or []
        told = {**self.response, "status": "failed", "error": error, "output": output}
        return said + self.event({"type": "response.failed", "response": told})

    def _ended(self, head: JSON, finish: Optional[str], usage: Optional[JSON]) -> JSON:
        """Give the response at its end."""
        why = INCOMPLETE.get(str(finish))
        told = self._document(head, "incomplete" if why else "completed")
        told["output"] = self.output.items()
        told["usage"] = usage_of(usage or {})
        if why:
            told["incomplete_details"] = {"reason": why}
        else:
            told["completed_at"] = int(self.clock())
        self.keep(told["output"])
        return told

    def _document(self, head: JSON, status: str) -> JSON:
        asked = {
            name: self.asked[name] if self.asked.get(name) is not None else usual for name, usual in ECHOED.items()
        }
        return {
            "id": self._id,
            "object": "response",
            "created_at": int(head.get("created") or head.get("created_at") or self.clock()),
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": head.get("model"),
            "output": [],
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None, **(self.asked.get("reasoning") or {})},
            "service_tier": head.get("service_tier") or "default",
            "text": {"format": {"type": "text"}, "verbosity": "medium", **_set(self.asked.get("text") or {})},
            "truncation": "disabled",
            "usage": None,
            **asked,
        }


def _set(given: JSON) -> JSON:
    return {name: value for name, value in given.items() if value is not None}


def usage_of(usage: JSON) -> JSON:
    """Give the usage as this API tells it: all of it, what is not known as 0."""
    before, after = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "input_tokens_details": {
            "cached_tokens": before.get("cached_tokens") or 0,
            "cache_write_tokens": before.get("cache_write_tokens") or 0,
        },
        "output_tokens": usage.get("completion_tokens") or 0,
        "output_tokens_details": {"reasoning_tokens": after.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or 0,
    }


class Output:
    """The items of an answer, and the events that tell how they grow (without their numbers)."""

    def __init__(self, tools: Mapping[str, Tool], new: Callable[[str], str]) -> None:
        self.tools = tools
        self.new = new
        self._items: List[Item] = []
        self._open: Optional[Item] = None  # the one that is spoken or thought
        self._calls: Dict[int, Call] = {}  # those under way, by their place among the calls
        self._late: List[JSON] = []  # details of reasoning that is over

    def items(self) -> List[JSON]:
        """Give what is complete, in order."""
        return [item.told for item in self._items if item.told]

    def hear(self, delta: JSON, logprobs: Any = None) -> Iterator[JSON]:
        """Tell of what a delta, or a whole message, says."""
        if delta.get("reasoning_content"):
            reasoning = yield from self._at(Reasoning)
            yield from reasoning.say(delta["reasoning_content"])
        if delta.get("reasoning_details"):
            yield from self._detail(delta["reasoning_details"])
        for kind, key in (("output_text", "content"), ("refusal", "refusal")):
            if delta.get(key):
                message = yield from self._at(Message)
                yield from message.say(kind, delta[key], (logprobs or {}).get("content") or [])
        if isinstance(self._open, Message):
            for annotation in delta.get("annotations") or ():
                yield from self._open.annotate(annotation)
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def end(self, finish: Optional[str]) -> Iterator[JSON]:
        """Tell the end of all that is under way."""
        yield from self._close("incomplete" if finish in INCOMPLETE else "completed")
        if self._late:
            reasoning = yield from self._at(Reasoning)
            reasoning.details += self._late
            yield from self._close()

    def _begin(self, item: Item) -> Iterator[JSON]:
        item.place = {"item_id": item.id, "output_index": len(self._items)}
        self._items.append(item)
        yield {"type": "response.output_item.added", "output_index": len(self._items) - 1, "item": item.begun()}

    def _at(self, kind: Any) -> Any:
        """Give the item of this kind that is under way; if it is another, that ends and one begins."""
        if type(self._open) is not kind:
            yield from self._close()
            item = kind(self.new(kind.prefix))
            yield from self._begin(item)
            self._open = item
        return self._open

    def _detail(self, details: List[JSON]) -> Iterator[JSON]:
        if isinstance(self._open, Reasoning) or not self._items:
            reasoning = yield from self._at(Reasoning)
            reasoning.details += details
        else:
            self._late += details

    def _call(self, fragment: JSON) -> Iterator[JSON]:
        function = fragment.get("function") or {}
        at = fragment.get("index", len(self._calls))
        call = self._calls.get(at)
        if call is None:
            yield from self._close(keep=[one for one in self._calls.values() if not one.is_whole()])
            name = str(function.get("name") or "")
            call = Call.of(self.new, self.tools.get(name, Tool(name)), str(fragment.get("id") or self.new("call")))
            self._calls[at] = call
            yield from self._begin(call)
        yield from call.say(function.get("arguments") or "")

    def _close(self, status: str = "completed", keep: Iterable[Item] = ()) -> Iterator[JSON]:
        """End what is under way, but for these calls."""
        for item in [self._open, *self._calls.values()]:
            if item and item not in keep and not item.told:
                yield from item.ended()
                item.told = item.whole(status)
                at = item.place["output_index"]
                yield {"type": "response.output_item.done", "output_index": at, "item": item.told}
        self._open = None


class Item:
    """One item of an output."""

    prefix = ""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.place: JSON = {}
        self.told: JSON = {}  # as it is at its end

    def begun(self) -> JSON:
        """Give the item as it begins."""
        return self.whole("in_progress")

    def whole(self, status: str) -> JSON:
        """Give all that there is of it so far; each kind of item says what that is."""
        raise NotImplementedError

    def ended(self) -> Iterator[JSON]:
        """Tell that its pieces are complete."""
        yield from ()


class Reasoning(Item):
    """What was thought, as one summary; the provider's own state of it is sealed."""

    prefix = "rs"

    def __init__(self, id_: str) -> None:
        super().__init__(id_)
        self.pieces: List[str] = []
        self.details: List[JSON] = []

    def whole(self, status: str) -> JSON:
        text = "".join(self.pieces)
        sealed_ = {"encrypted_content": sealed(self.details)} if self.details else {}
        return {
            "id": self.id,
            "type": "reasoning",
            "summary": [_summary(text)] if text else [],
            **sealed_,
            "status": status,
        }

    def say(self, text: str) -> Iterator[JSON]:
        here = {**self.place, "summary_index": 0}
        if not self.pieces:
            yield {"type": "response.reasoning_summary_part.added", **here, "part": _summary("")}
        self.pieces.append(text)
        yield {"type": "response.reasoning_summary_text.delta", **here, "delta": text}

    def ended(self) -> Iterator[JSON]:
        here, text = {**self.place, "summary_index": 0}, "".join(self.pieces)
        if text:
            yield {"type": "response.reasoning_summary_text.done", **here, "text": text}
            yield {"type": "response.reasoning_summary_part.done", **here, "part": _summary(text)}


def _summary(text: str) -> JSON:
    return {"type": "summary_text", "text": text}


class Message(Item):
    """What was said."""

    prefix = "msg"

    def __init__(self, id_: str) -> None:
        super().__init__(id_)
        self.parts: List[JSON] = []
        self._pieces: List[str] = []  # of the last part
        self._spelled: List[JSON] = []  # its logprobs, as deltas tell them

    def whole(self, status: str) -> JSON:
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": list(self.parts)}

    @property
    def _here(self) -> JSON:
        return {**self.place, "content_index": len(self.parts) - 1}

    def say(self, kind: str, text: str, logprobs: List[JSON]) -> Iterator[JSON]:
        if not self.parts or self.parts[-1]["type"] != kind:
            yield from self.ended()
            self.parts.append(_part(kind, ""))
            self._pieces, self._spelled = [], []
            yield {"type": "response.content_part.added", **self._here, "part": _part(kind, "")}
        self._pieces.append(text)
        told: JSON = {"type": f"response.{kind}.delta", **self._here, "delta": text}
        if kind == "output_text":
            told["logprobs"] = [_probable(one) for one in logprobs]
            self._spelled += told["logprobs"]
            self.parts[-1]["logprobs"] += [_spelled(one) for one in logprobs]
        yield told

    def annotate(self, annotation: JSON) -> Iterator[JSON]:
        if self.parts and self.parts[-1]["type"] == "output_text":
            kind = str(annotation.get("type"))
            told = {"type": kind, **(annotation.get(kind) or {})}
            self.parts[-1]["annotations"].append(told)
            at = len(self.parts[-1]["annotations"]) - 1
            event = {"type": "response.output_text.annotation.added", **self._here}
            yield {**event, "annotation_index": at, "annotation": told}

    def ended(self) -> Iterator[JSON]:
        if not self.parts:
            return
        part, text = self.parts[-1], "".join(self._pieces)
        key, more = ("text", {"logprobs": self._spelled}) if part["type"] == "output_text" else ("refusal", {})
        part[key] = text
        yield {"type": f"response.{part['type']}.done", **self._here, key: text, **more}
        yield {"type": "response.content_part.done", **self._here, "part": part}


def _part(kind: str, text: str) -> JSON:
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    return {"type": kind, "annotations": [], "logprobs": [], "text": text}


def _probable(one: JSON) -> JSON:
    """Give a token's logprob as a delta tells it."""
    others = [{"token": top.get("token"), "logprob": top.get("logprob")} for top in one.get("top_logprobs") or ()]
    return {"token": one.get("token"), "logprob": one.get("logprob"), "top_logprobs": others}


def _spelled(one: JSON) -> JSON:
    """Give a token's logprob as an item tells it: with its bytes."""
    others = [_with_bytes(top) for top in one.get("top_logprobs") or ()]
    return {**_with_bytes(one), "top_logprobs": others}


def _with_bytes(one: JSON) -> JSON:
    token = str(one.get("token") or "")
    spelled = one.get("bytes")
    told = list(token.encode("utf-8", "replace")) if spelled is None else spelled
    return {"token": token, "bytes": told, "logprob": one.get("logprob")}


class Call(Item):
    """A call of a function."""

    prefix = "fc"

    def __init__(self, id_: str, tool: Tool, call_id: str) -> None:
        super().__init__(id_)
        self.tool = tool
        self.call_id = call_id
        self.pieces: List[str] = []

    @classmethod
    def of(cls, new: Callable[[str], str], tool: Tool, call_id: str) -> Call:
        kind = CustomCall if tool.custom else cls
        return kind(new(kind.prefix), tool, call_id)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def is_whole(self) -> bool:
        """Tell whether nothing more can come that would make sense."""
        try:
            json.loads(self.arguments)
        except (ValueError, RecursionError):
            return False
        return True

    def _head(self, type_: str) -> JSON:
        namespace = {"namespace": self.tool.namespace} if self.tool.namespace else {}
        return {"id": self.id, "type": type_, "call_id": self.call_id, "name": self.tool.name, **namespace}

    def whole(self, status: str) -> JSON:
        return {**self._head("function_call"), "arguments": self.arguments, "status": status}

    def say(self, text: str) -> Iterator[JSON]:
        if text and not self.told:
            self.pieces.append(text)
            yield {"type": "response.function_call_arguments.delta", **self.place, "delta": text}

    def ended(self) -> Iterator[JSON]:
        if not self.pieces:
            yield from self.say("{}")
        yield {"type": "response.function_call_arguments.done", **self.place, "arguments": self.arguments}


class CustomCall(Call):
    """A call of a custom tool, whose input is the one argument of the function it was told as."""

    prefix = "ctc"

    @property
    def input(self) -> str:
        try:
            said = json.loads(self.arguments or '""')
        except (ValueError, RecursionError):
            return self.arguments
        said = said.get("input", said) if isinstance(said, dict) else said
        return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)

    def whole(self, status: str) -> JSON:
        return {**self._head("custom_tool_call"), "input": "" if status == "in_progress" else self.input}

    def say(self, text: str) -> Iterator[JSON]:
        """Wait for all of it: pieces of JSON are no pieces of the text in it."""
        self.pieces.append(text)
        yield from ()

    def ended(self) -> Iterator[JSON]:
        yield {"type": "response.custom_tool_call_input.delta", **self.place, "delta": self.input}
        yield {"type": "response.custom_tool_call_input.done", **self.place, "input": self.input}
