"""A Responses question as a canonical chat. Pure: dicts in, dicts out, or a Refusal by the client's own path.

The items of one turn of the model's (what it thought, said and called) make one message. `recall` finds an item by
the id it was once sent with, for clients that only name what they take to be kept here. Reasoning comes back sealed;
what another sealed is nobody's business but its own, and goes no further than to OpenAI.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence

from providers import Pocket

from . import JSON
from ._json import refuse, shown
from ._question import EFFORTS
from ._responses_tools import ONLY_OPENAI, Tools, of, text
from ._state import opened

Recall = Callable[[str], Optional[JSON]]

#: field -> its canonical name
SAME = {
    **{
        name: name
        for name in (
            *("metadata", "model", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier"),
            *("stream", "temperature", "top_logprobs", "top_p", "user"),
        )
    },
    "max_output_tokens": "max_completion_tokens",
}
TRANSLATED = {*SAME, "include", "input", "instructions", "reasoning", "text", "tool_choice", "tools"}
#: fields that say nothing about the answer; nothing is kept here, whatever `store` says
IDLE = {"generate", "store", "stream_options"}
NOT_KEPT = "nothing is kept here: send what was said itself, with store: false"
#: fields without which the answer would be to another question -> why they are refused
MUSTS = {
    "background": ONLY_OPENAI,
    "conversation": NOT_KEPT,
    "previous_response_id": NOT_KEPT,
    "prompt": ONLY_OPENAI,
}
#: field -> the value that says no more than leaving it out
NEUTRAL = {"background": False, "truncation": "disabled"}
FORMATS = ("text", "json_object", "json_schema")
VERBOSITIES = ("low", "medium", "high")
#: canonical field -> what its client calls it
FIELDS = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "tool_choice.allowed_tools": "tool_choice",
    "tool_choice.function": "tool_choice",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "logprobs": "include",
}
_OF_TOOL = re.compile(r"tools\[([0-9]{1,5})\]\.function")
#: items that tell of what OpenAI did itself; what came of it was said as well
RECORDS = frozenset(
    {
        *("code_interpreter_call", "file_search_call", "image_generation_call", "mcp_call", "mcp_list_tools"),
        *("tool_search_call", "tool_search_output", "web_search_call"),
    }
)


class Question(NamedTuple):
    """A question translated."""

    chat: JSON
    pocket: Pocket
    places: List[str]  # of each message: where it stood
    tools: Tools


def question(body: JSON, recall: Recall = lambda _: None, path: str = "/responses") -> Question:
    """Translate a question; its numbers and words are checked in the canonical form."""
    pocket = Pocket(body, path=path)
    for name, value in body.items():
        if value not in (None, NEUTRAL.get(name)) and name not in TRANSLATED | IDLE:
            told = pocket.musts if name in MUSTS else pocket.losses
            told[shown(name)] = MUSTS.get(name, ONLY_OPENAI)
    tools = Tools(pocket)
    if body.get("tools") is not None:
        tools.add(body["tools"], "tools")
    dialogue = _Dialogue(pocket, tools, recall)
    if of(body.get("instructions") or "", (str,), "instructions"):
        dialogue.tell({"role": "system", "content": body["instructions"]}, "instructions")
    dialogue.read(body.get("input"))
    chat = {canonical: body[name] for name, canonical in SAME.items() if body.get(name) is not None}
    chat.update(_shape(body, pocket))
    chat.update(tools.told(body.get("tool_choice")))
    if not tools.functions:
        chat.pop("parallel_tool_calls", None)
    chat["messages"] = dialogue.ended()
    return Question(chat, pocket, dialogue.places, tools)


def _shape(body: JSON, pocket: Pocket) -> JSON:
    """Give what shapes the answer."""
    reasoning, spoken = (of(body.get(name) or {}, (dict,), name) for name in ("reasoning", "text"))
    format_ = of(spoken.get("format") or {}, (dict,), "text.format")
    included = of(body.get("include") or [], (list,), "include")
    shape: JSON = {
        "reasoning_effort": _known(reasoning.get("effort"), EFFORTS, "reasoning.effort", pocket),
        "verbosity": _known(spoken.get("verbosity"), VERBOSITIES, "text.verbosity", pocket),
    }
    kind = _known(format_.get("type"), FORMATS, "text.format.type", pocket)
    if kind == "json_schema":
        schema = {name: value for name, value in format_.items() if name != "type" and value is not None}
        shape["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind:
        shape["response_format"] = {"type": kind}
    if "message.output_text.logprobs" in included or body.get("top_logprobs"):
        shape["logprobs"] = True
    return {name: value for name, value in shape.items() if value is not None}


def _known(word: Any, words: Iterable[str], path: str, pocket: Pocket) -> Optional[str]:
    """Give a word that is known here; any other is for OpenAI to know."""
    if word is None or word in words:
        return None if word is None else str(word)
    pocket.musts[path] = f"must be one of {', '.join(words)}, not {shown(word)!r}"
    return None


def placed(param: str, places: List[str], tools: Sequence[str] = ()) -> str:
    """Give a canonical field's path as its client knows it, by where the messages and the tools stood."""
    tool = _OF_TOOL.match(param)
    if tool and int(tool[1]) < len(tools):
        return tools[int(tool[1])] + param[tool.end() :]
    if param.startswith("messages["):
        at, _, rest = param[len("messages[") :].partition("]")
        place = places[int(at)] if at.isdigit() and int(at) < len(places) else "input"
        return place + rest if rest == ".role" else place
    if param == "messages":
        return "input"
    for name, own in FIELDS.items():
        if param == name or param.startswith((f"{name}.", f"{name}[")):
            return own + param[len(name) :]
    return param


class _Dialogue:
    """The messages so far, and the turn of the model's that is being put together."""

    def __init__(self, pocket: Pocket, tools: Tools, recall: Recall) -> None:
        self.pocket = pocket
        self.tools = tools
        self.recall = recall
        self.messages: List[JSON] = []
        self.places: List[str] = []
        self._turn: JSON = {}  # the last message, while it is the model's
        self._shown: List[JSON] = []  # pictures that came of tools, and where they came from
        self._shown_at = ""

    def tell(self, message: JSON, path: str) -> None:
        """Add a message; pictures that tools gave come before it, unless it is a tool's as well."""
        if self._shown and message["role"] != "tool":
            pictures, self._shown = self._shown, []
            self.tell({"role": "user", "content": pictures}, self._shown_at)
        self.messages.append(message)
        self.places.append(path)
        self._turn = message if message["role"] == "assistant" else {}

    def turn(self, path: str) -> JSON:
        """Give the model's turn that is under way, or begin one."""
        if not self._turn:
            self.tell({"role": "assistant"}, path)
        return self._turn

    def read(self, given: Any) -> None:
        """Read the input; what goes on to OpenAI itself is without what only we can open."""
        if isinstance(given, str):
            self.tell({"role": "user", "content": given}, "input")
        elif given is not None or not self.pocket.musts:
            items = [self._found(item) for item in of(given, (str, list), "input")]
            for at, item in enumerate(items):
                self.item(item, f"input[{at}]")
            ours = [item for item in items if opened(item.get("encrypted_content")) is None]
            if ours != given:
                self.pocket.body = {**self.pocket.body, "input": ours}

    def _found(self, item: Any) -> Any:
        """Give an item that is only named, where it is known."""
        named = isinstance(item, dict) and (item.get("type") or "item_reference") == "item_reference"
        return (self.recall(str(item.get("id"))) or item) if named and not item.get("role") else item

    def item(self, item: Any, path: str) -> None:
        kind = of(item, (dict,), path).get("type") or ("message" if item.get("role") else "item_reference")
        read = ITEMS.get(of(kind, (str,), f"{path}.type"))
        if read:
            read(self, item, path)
        elif kind in RECORDS:
            self.pocket.losses[path] = f"{kind} is {ONLY_OPENAI}"
        else:
            self.pocket.musts[path] = NOT_KEPT if kind == "item_reference" else f"{shown(kind)} is {ONLY_OPENAI}"

    def message(self, item: JSON, path: str) -> None:
        role = item.get("role")
        parts = self.parts(item.get("content"), f"{path}.content")
        if role != "assistant":
            plain = isinstance(item.get("content"), str)
            self.tell({"role": role, "content": item["content"] if plain else parts}, path)
            return
        turn = self.turn(path)
        turn["content"] = turn.get("content", []) + [part for part in parts if part["type"] == "text"]
        refused = [part["refusal"] for part in parts if part["type"] == "refusal"]
        if refused:
            turn["refusal"] = "\n".join(refused)

    def parts(self, content: Any, path: str) -> List[JSON]:
        """Give the parts of a content; a text is one."""
        if isinstance(content, str):
            return [{"type": "text", "text": content}] if content else []
        told = []
        for at, part in enumerate(of(content, (str, list), path)):
            place = f"{path}[{at}]"
            kind = text(of(part, (dict,), place), "type", place)
            if _known(kind, PARTS, f"{place}.type", self.pocket):
                told.append(PARTS[kind](self, part, place))
        return told

    def image(self, part: JSON, path: str) -> JSON:
        if part.get("image_url") is None:
            text(part, "file_id", path)
            self.pocket.musts[f"{path}.file_id"] = f"a file's id is {ONLY_OPENAI}"
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part.get("image_url") or "file:", **detail}}

    def file(self, part: JSON, path: str) -> JSON:
        if part.get("file_data") is None:
            named = "file_url" if part.get("file_url") else "file_id"
            text(part, named, path)
            self.pocket.musts[f"{path}.{named}"] = f"a file's {named[5:]} is {ONLY_OPENAI}"
        return {"type": "file", "file": {name: part[name] for name in ("file_data", "filename") if part.get(name)}}

    def reasoning(self, item: JSON, path: str) -> None:
        turn = self.turn(path)
        details = opened(item.get("encrypted_content"))
        if details:
            turn["reasoning_details"] = turn.get("reasoning_details", []) + details
        told = [
            text(of(part, (dict,), f"{path}.{name}[{at}]"), "text", f"{path}.{name}[{at}]")
            for name in ("summary", "content")
            for at, part in enumerate(of(item.get(name) or [], (list,), f"{path}.{name}"))
        ]
        if told:
            turn["reasoning_content"] = "\n\n".join(filter(None, [turn.get("reasoning_content"), *told]))

    def call(self, item: JSON, path: str) -> None:
        turn = self.turn(path)
        turn["tool_calls"] = [*turn.get("tool_calls", ()), self.tools.call(item, path)]

    def output(self, item: JSON, path: str) -> None:
        """Add what a tool gave; pictures among it come in a message of their own, behind all that tools gave."""
        id_ = text(item, "call_id", path)
        parts = self.parts(item.get("output"), f"{path}.output")
        texts = [part["text"] for part in parts if part["type"] == "text"]
        pictures = [part for part in parts if part["type"] != "text"]
        if pictures:
            label = {"type": "text", "text": f"This came of the tool call {id_}:"}
            self._shown += [label, *pictures]
            self._shown_at = path
        self.tell({"role": "tool", "tool_call_id": id_, "content": "\n".join(texts)}, path)

    def more_tools(self, item: JSON, path: str) -> None:
        self.tools.add(item.get("tools"), f"{path}.tools")

    def ended(self) -> List[JSON]:
        """Give the messages; only a question that is OpenAI's alone may have none."""
        if self._shown:
            pictures, self._shown = self._shown, []
            self.tell({"role": "user", "content": pictures}, self._shown_at)
        told = [(_settled(message), path) for message, path in zip(self.messages, self.places)]
        told = [(message, path) for message, path in told if message]
        if not told and not self.pocket.musts:
            refuse("input", "must not be empty")
        self.places = [path for _, path in told] or ["input"]
        return [message for message, _ in told] or [{"role": "user", "content": ""}]


def _settled(message: JSON) -> JSON:
    """Give a message as it is sent: an only text of the model's as such. One of which nothing can be told is none."""
    if message["role"] != "assistant":
        return message
    content = message.get("content") or None
    said = {**message, "content": content[0]["text"] if content and len(content) == 1 else content}
    return said if any(said.get(name) for name in ("content", "tool_calls", "refusal", "reasoning_content")) else {}


ITEMS: Mapping[str, Callable[[_Dialogue, JSON, str], None]] = {
    "message": _Dialogue.message,
    "reasoning": _Dialogue.reasoning,
    "function_call": _Dialogue.call,
    "custom_tool_call": _Dialogue.call,
    "function_call_output": _Dialogue.output,
    "custom_tool_call_output": _Dialogue.output,
    "additional_tools": _Dialogue.more_tools,
}


def _text(_: _Dialogue, part: JSON, path: str) -> JSON:
    return {"type": "text", "text": text(part, "text", path)}


PARTS: Dict[str, Callable[[_Dialogue, JSON, str], JSON]] = {
    **dict.fromkeys(("input_text", "output_text", "text", "summary_text", "reasoning_text"), _text),
    "input_image": _Dialogue.image,
    "input_file": _Dialogue.file,
    "input_audio": lambda _, part, path: {"type": "input_audio", "input_audio": part.get("input_audio")},
    "refusal": lambda _, part, path: {"type": "refusal", "refusal": text(part, "refusal", path)},
}
