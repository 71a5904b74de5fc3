"""What Anthropic's clients ask, as a canonical chat. Pure.

A question is checked field by field in the client's own words. What only Anthropic understands stays in the pocket:
hints are told as lost where another answers, and what would be another question without it is a 400 there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from providers import Pocket
from providers._canonical import safe_id

from . import JSON
from ._dialect import Asked
from ._json import refuse, shown
from ._question import EFFORTS, checked
from ._rules import Rule, a_flag, a_list, a_text, an_object, each, filled, integer, number, one_of, record, variant
from ._state import opened

MESSAGES, COUNT = "/messages", "/messages/count_tokens"

#: a line of Claude Code's system prompt that differs from question to question: a local model's cache would never fit
_BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*(?:\n|\Z)")

ELSEWHERE = "only models of Anthropic's own take this"
LONGEST_USER = 64  # letters that other APIs take of a user's id

#: fields that make another question of it when they are dropped, unless they are empty
MUSTS = frozenset({"mcp_servers", "container", "thread"})
#: fields that clients send to any model, whether it can follow or not: an upstream that refuses one is asked without it
HABITS = ("reasoning_effort", "thinking_budget", "max_completion_tokens")

#: largest thinking.budget_tokens -> effort, for models that have no budgets
EFFORT_OF_BUDGET = ((2048, "low"), (10000, "medium"))
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
TIERS = {"auto": "auto", "standard_only": "default"}
UNTHINKING = ("disabled", "between_tools")
THINKING = ("enabled", "adaptive")


# what may be asked


def _text_or(rule: Rule) -> Rule:
    """Rule over a text, or over what `rule` says."""

    def either(value: Any, path: str) -> None:
        if not isinstance(value, str):
            if not isinstance(value, list):
                refuse(path, "must be a string or a list of blocks", "invalid_type")
            rule(value, path)

    return either


_SOURCE: Dict[str, Rule] = {
    "base64": record({"media_type": filled, "data": a_text}, ("media_type", "data")),
    "url": record({"url": filled}, ("url",)),
}
_text = record({"text": a_text}, ("text",))
_image = record({"source": variant(_SOURCE, other=an_object)}, ("source",))
#: the blocks that a user or a tool can show; one may hold others
SHOWN: Dict[str, Rule] = {"text": _text, "image": _image}
_shown_blocks = each(variant(SHOWN, other=an_object))
_DOCUMENT: Dict[str, Rule] = {
    **_SOURCE,
    "text": record({"data": a_text}, ("data",)),
    "content": record({"content": _text_or(_shown_blocks)}, ("content",)),
}
SHOWN["document"] = record(
    {"source": variant(_DOCUMENT, other=an_object), "title": a_text, "context": a_text, "citations": an_object},
    ("source",),
)
SHOWN["search_result"] = record({"source": a_text, "title": a_text, "content": _shown_blocks}, ("content",))
_tool_result = record(
    {"tool_use_id": filled, "content": _text_or(_shown_blocks), "is_error": a_flag},
    ("tool_use_id",),
)
#: role -> the blocks that can be translated; there may be others
BLOCKS: Dict[str, Dict[str, Rule]] = {
    "system": {"text": _text},
    "user": {**SHOWN, "tool_result": _tool_result},
    "assistant": {
        "text": _text,
        "thinking": record({"thinking": a_text, "signature": a_text}, ("thinking",)),
        "redacted_thinking": record({"data": a_text}, ("data",)),
        "tool_use": record({"id": filled, "name": filled, "input": an_object}, ("id", "name")),
    },
}


def _message(value: Any, path: str) -> None:
    record({"role": one_of(*BLOCKS)}, ("role", "content"))(value, path)
    _text_or(each(variant(BLOCKS[value["role"]], other=an_object)))(value["content"], f"{path}.content")


_custom = record({"name": filled, "description": a_text, "input_schema": an_object, "strict": a_flag}, ("name",))
_choice = record({"type": filled, "name": filled, "disable_parallel_tool_use": a_flag}, ("type",))
_format = variant({"json_schema": record({"schema": an_object}, ("schema",))}, other=an_object)
_thinking = record({"type": filled, "budget_tokens": integer(1), "display": a_text}, ("type",))

QUESTION: Dict[str, Rule] = {
    "model": filled,
    "messages": each(_message, least=1),
    "max_tokens": integer(0),
    "system": _text_or(each(variant(BLOCKS["system"], other=an_object))),
    "stream": a_flag,
    "stop_sequences": each(a_text),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": integer(0),
    "tools": each(variant({"custom": _custom}, "custom", an_object)),
    "tool_choice": _choice,
    "thinking": _thinking,
    "output_config": record({"effort": a_text, "format": _format}),
    "output_format": _format,
    "metadata": record({"user_id": a_text}),
    "service_tier": a_text,
    "mcp_servers": a_list,
}


# questions


class Lost:
    """What of a question only Anthropic understands: noted, for whoever else is to answer."""

    def __init__(self, pocket: Pocket) -> None:
        self.pocket = pocket

    def hint(self, field: str) -> None:
        """Note what an answer can do without."""
        self.pocket.losses[field] = ELSEWHERE

    def must(self, field: str) -> None:
        """Note what must not be dropped."""
        self.pocket.musts[field] = ELSEWHERE

    def rest(self, given: JSON, known: Iterable[str], path: str = "") -> None:
        """Note the fields that are not translated."""
        names = frozenset(known)
        for field, value in given.items():
            if value is not None and field not in names:
                self.hint(path + shown(field))


class Turned(NamedTuple):
    """A question translated, and of which of the client's messages each canonical one was made (-1: the system)."""

    asked: Asked
    origins: List[int]


def question(body: JSON, headers: Iterable[Tuple[str, str]], query: str, path: str) -> Turned:
    """Translate what is asked of `/v1/messages`, or of its `count_tokens`; raises Refusal for a field that is wrong."""
    required = ("model", "max_tokens", "messages") if path == MESSAGES else ("model", "messages")
    told = checked(body, QUESTION, required)
    pocket = Pocket(acceptable(body), headers, query, path)
    lost = Lost(pocket)
    lost.rest(told, [*QUESTION, *MUSTS])
    for field in MUSTS & told.keys():
        if told[field]:
            lost.must(field)
    messages, origins = _messages(told, lost)
    chat: JSON = {"model": told["model"], "messages": messages, "_hints": HABITS}
    for translate in (_sampling, _tools, _reasoning, _format_of, _hints):
        chat.update(translate(told, lost))
    return Turned(Asked(chat, pocket), origins)


def shows_thoughts(body: JSON) -> bool:
    """Tell whether a client wants to read what the model thinks."""
    thinking = body.get("thinking") or {}
    return thinking.get("type") in THINKING and thinking.get("display") != "omitted"


def _sampling(told: JSON, lost: Lost) -> JSON:
    chat = {field: told[field] for field in ("stream", "temperature", "top_p", "top_k") if field in told}
    if told.get("max_tokens") == 0:
        lost.must("max_tokens")  # it only fills the cache
    elif "max_tokens" in told:
        chat["max_completion_tokens"] = told["max_tokens"]
    if told.get("stop_sequences"):
        chat["stop"] = told["stop_sequences"]
    return chat


def _hints(told: JSON, lost: Lost) -> JSON:
    chat: JSON = {}
    metadata = told.get("metadata") or {}
    lost.rest(metadata, ("user_id",), "metadata.")
    if metadata.get("user_id"):
        chat["safety_identifier"] = _user(metadata["user_id"])
    if told.get("service_tier") in TIERS:
        chat["service_tier"] = TIERS[told["service_tier"]]
    elif "service_tier" in told:
        lost.hint("service_tier")
    return chat


def _user(id_: str) -> str:
    """Give a user's id as others take it: the same one for the same user."""
    return id_ if len(id_) <= LONGEST_USER else hashlib.blake2b(id_.encode(), digest_size=16).hexdigest()


def _reasoning(told: JSON, lost: Lost) -> JSON:
    """Translate `thinking` and the effort."""
    thinking, effort = told.get("thinking") or {}, (told.get("output_config") or {}).get("effort")
    kind, budget = thinking.get("type"), thinking.get("budget_tokens")
    lost.rest(thinking, ("type", "budget_tokens", "display"), "thinking.")
    if effort is not None and effort not in EFFORTS:
        lost.hint("output_config.effort")
        effort = None
    if kind in UNTHINKING:
        return {"reasoning_effort": "none"}
    if kind not in THINKING:
        if kind is not None:
            lost.hint("thinking")
        return {} if effort is None else {"reasoning_effort": effort}
    if kind == "enabled" and budget is not None:
        guess = next((word for most, word in EFFORT_OF_BUDGET if budget <= most), "high")
        return {"reasoning_effort": effort or guess, "thinking_budget": budget}
    return {"reasoning_effort": effort or "medium"}


def _format_of(told: JSON, lost: Lost) -> JSON:
    config = told.get("output_config") or {}
    lost.rest(config, ("effort", "format"), "output_config.")
    field = "output_config.format" if config.get("format") else "output_format"
    format_ = config.get("format") or told.get("output_format")
    if not format_:
        return {}
    if format_["type"] != "json_schema":
        lost.must(field)
        return {}
    schema = format_["schema"]
    described = {"name": "output", "schema": schema, **({"strict": True} if is_strict(schema) else {})}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def is_strict(schema: Any) -> bool:
    """Tell whether a schema keeps the rules of those that are enforced strictly everywhere.

    Each object names all that it may hold, and all of that is required.
    """
    left: List[Any] = [schema]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            named = one.get("properties")
            if isinstance(named, dict) or one.get("type") == "object":
                named = named if isinstance(named, dict) else {}
                required = one.get("required") if isinstance(one.get("required"), list) else []
                if one.get("additionalProperties") is not False or set(named) != set(map(str, required or ())):
                    return False
            left += one.values()
        elif isinstance(one, list):
            left += one
    return True


# tools


def _tools(told: JSON, lost: Lost) -> JSON:
    chat: JSON = {}
    tools = []
    for at, tool in enumerate(told.get("tools") or ()):
        if tool.get("type") in (None, "custom"):
            tools.append({"type": "function", "function": _function(tool, lost)})
        else:
            lost.must(f"tools[{at}].type")
    if tools:
        chat["tools"] = tools
    choice = told.get("tool_choice") or {}
    if choice.get("type") in CHOICES:
        chat["tool_choice"] = CHOICES[choice["type"]]
    elif choice.get("type") == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name") or ""}}
    elif choice:
        lost.hint("tool_choice")
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False
    return chat


def _function(tool: JSON, lost: Lost) -> JSON:
    lost.rest(tool, ("type", "name", "description", "input_schema", "strict"), "tools.")
    function: JSON = {"name": tool["name"]}
    if tool.get("description"):
        function["description"] = tool["description"]
    if tool.get("input_schema") is not None:
        function["parameters"] = tool["input_schema"]
    if tool.get("strict"):
        if is_strict(tool.get("input_schema")):
            function["strict"] = True
        else:
            lost.pocket.losses["tools.strict"] = "not all of the schema's properties are required"
    return function


# messages


def _messages(told: JSON, lost: Lost) -> Tuple[List[JSON], List[int]]:
    """Give the canonical messages, and the place of the client's message that each was made of."""
    messages = _system(told.get("system") or (), lost, "system")
    origins = [-1] * len(messages)
    for at, message in enumerate(told["messages"]):
        made = _turn(message, lost, f"messages[{at}].content")
        messages += made
        origins += [at] * len(made)
    return messages, origins


def _turn(message: JSON, lost: Lost, path: str) -> List[JSON]:
    lost.rest(message, ("role", "content"), "messages.")
    role, content = message["role"], message["content"]
    if role == "system":
        return _system(content, lost, path)
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    for block in content:
        if block.get("cache_control") is not None:
            lost.hint("cache_control")
    return [_assistant(content, lost)] if role == "assistant" else _user_turn(content, lost, path)


def _system(content: Any, lost: Lost, path: str) -> List[JSON]:
    """Give a system prompt without what changes in it from question to question and says nothing to the model."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = []
    for at, block in enumerate(blocks):
        if block["type"] == "text":
            texts.append(_BILLING.sub("", block["text"], 1) if _BILLING.match(block["text"]) else block["text"])
        else:
            lost.must(f"{path}[{at}].type")
        if block.get("cache_control") is not None:
            lost.hint("cache_control")
    said = [_text_part(text) for text in texts if text]
    return [{"role": "system", "content": _content(said)}] if said else []


def _content(parts: List[JSON]) -> Any:
    """Give parts as a content: one text as a string."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _text_part(text: str) -> JSON:
    return {"type": "text", "text": text}


def _assistant(content: List[JSON], lost: Lost) -> JSON:
    """Translate a turn of the model's; what only another upstream can take back is left out."""
    message: JSON = {"role": "assistant"}
    texts, thoughts, calls = [], [], []
    details: List[JSON] = []
    for block in content:
        kind = block["type"]
        if kind == "text":
            texts.append(_text_part(block["text"]))
        elif kind in ("thinking", "redacted_thinking"):
            thoughts.append(block["thinking"] if kind == "thinking" else "")
            details += opened(block.get("signature") or block.get("data")) or ()
        elif kind == "tool_use":
            calls.append(_call(block))
        else:
            lost.hint(shown(kind))
    message["content"] = _content([text for text in texts if text["text"]]) or ("" if not calls else None)
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    more = {"reasoning_details": details, "tool_calls": calls}
    return {**message, **{field: value for field, value in more.items() if value}}


def _call(block: JSON) -> JSON:
    arguments = json.dumps(block.get("input") or {}, separators=(",", ":"), ensure_ascii=False)
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _user_turn(content: List[JSON], lost: Lost, path: str) -> List[JSON]:
    """Give a message for each result, and one with the rest: pictures that are results stand there, by their names."""
    results: List[JSON] = []
    parts: List[JSON] = []
    rest: List[JSON] = []
    for at, block in enumerate(content):
        if block["type"] == "tool_result":
            result, pictures = _result(block, lost, f"{path}[{at}]")
            results.append(result)
            parts += pictures
        else:
            rest += _shown(block, lost, f"{path}[{at}]")
    parts += rest
    return results + ([{"role": "user", "content": _content(parts)}] if parts or not results else [])


def _result(block: JSON, lost: Lost, path: str) -> Tuple[JSON, List[JSON]]:
    """Give the message of a tool's result, and what of it can only be shown by the user."""
    lost.rest(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), "tool_result.")
    content = block.get("content") or ""
    if not isinstance(content, str):
        parts = [part for at, one in enumerate(content) for part in _shown(one, lost, f"{path}.content[{at}]")]
        pictures = [part for part in parts if part["type"] != "text"]
        content = _content([part for part in parts if part["type"] == "text"]) or ""
    else:
        pictures = []
    message = {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}
    if block.get("is_error"):
        message["is_error"] = True
    label = [_text_part(f"From the result of {block['tool_use_id']}:")] if pictures else []
    return message, label + pictures


def _shown(block: JSON, lost: Lost, path: str) -> List[JSON]:
    """Translate what a user shows."""
    translate = PARTS.get(block["type"])
    if translate is None:
        lost.must(f"{path}.type")
        return []
    if block.get("citations") and block["type"] != "text":
        lost.hint("citations")
    return translate(block, lost, path)


def _said(block: JSON, _: Lost, __: str) -> List[JSON]:
    return [_text_part(block["text"])] if block["text"] else []


def _picture(block: JSON, lost: Lost, path: str) -> List[JSON]:
    url = _url(block["source"])
    if url is None:
        lost.must(f"{path}.source.type")
        return []
    return [{"type": "image_url", "image_url": {"url": url}}]


def _url(source: JSON) -> Optional[str]:
    """Give the URL of a source; None for what only its own upstream can look up."""
    if source["type"] == "base64":
        return f"data:{source['media_type']};base64,{source['data']}"
    return str(source["url"]) if source["type"] == "url" else None


def _paper(block: JSON, lost: Lost, path: str) -> List[JSON]:
    source, title = block["source"], block.get("title")
    context = [_text_part(block["context"])] if block.get("context") else []
    if source["type"] == "text":
        data = base64.b64encode(source["data"].encode("utf-8", "surrogatepass")).decode()
        return [*context, _file(title or "document.txt", f"data:text/plain;base64,{data}")]
    if source["type"] == "content":
        blocks = source["content"]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
        parts = [part for at, one in enumerate(blocks) for part in _shown(one, lost, f"{path}.source.content[{at}]")]
        return [*context, *([_text_part(title)] if title else ()), *parts]
    url = _url(source)
    if url is None:
        lost.must(f"{path}.source.type")
        return []
    return [*context, _file(title or "document.pdf", url)]


def _file(name: str, url: str) -> JSON:
    return {"type": "file", "file": {"filename": name, "file_data": url}}


def _found(block: JSON, lost: Lost, path: str) -> List[JSON]:
    head = "\n".join(filter(None, (block.get("title"), block.get("source"))))
    parts = [part for at, one in enumerate(block["content"]) for part in _shown(one, lost, f"{path}.content[{at}]")]
    return [*([_text_part(head)] if head else ()), *parts]


PARTS: Mapping[str, Callable[[JSON, Lost, str], List[JSON]]] = {
    "text": _said,
    "image": _picture,
    "document": _paper,
    "search_result": _found,
}


# what Anthropic itself is asked


_ID = re.compile(r"[a-zA-Z0-9_-]+", re.ASCII)
#: type of block -> where it has the id of a call
IDS = {"tool_use": "id", "tool_result": "tool_use_id"}


def acceptable(body: JSON) -> JSON:
    """Give the body without what other providers left in the conversation: Anthropic would refuse it.

    That is thoughts which it has not signed, and ids of calls in letters that it does not take.
    """
    messages = [_acceptable(message) for message in body["messages"]]
    return {**body, "messages": [message for message in messages if message]}


def _acceptable(message: JSON) -> JSON:
    """Give a message as Anthropic takes it; nothing where there was nothing but foreign thoughts."""
    content = message["content"]
    if isinstance(content, str) or not any(_is_foreign(block) or _has_odd_id(block) for block in content):
        return message
    blocks = [_with_safe_id(block) for block in content if not _is_foreign(block)]
    return {**message, "content": blocks} if blocks else {}


def _is_foreign(block: JSON) -> bool:
    kind = block.get("type")
    if kind == "thinking":
        return not block.get("signature") or opened(block["signature"]) is not None
    return kind == "redacted_thinking" and opened(block.get("data")) is not None


def _has_odd_id(block: JSON) -> bool:
    field = IDS.get(str(block.get("type")))
    return field is not None and not _ID.fullmatch(str(block.get(field)))


def _with_safe_id(block: JSON) -> JSON:
    if not _has_odd_id(block):
        return block
    field = IDS[block["type"]]
    return {**block, field: safe_id(str(block[field]))}
