"""A canonical chat, as OpenAI's Responses API wants to be asked: one request body. Pure.

It is asked without its own memory (`store: false`), so its reasoning goes out encrypted in `reasoning_details` and
comes back before what it led to. `index` of such a detail is its place in the turn: what is spoken counts as one
item, wherever it was said, and so does each call.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from . import JSON, Warn, _canonical
from ._openai import outside_pockets

Recall = Callable[[Iterable[str]], List[JSON]]

#: own pocket: there are organizations that may not see summaries of reasoning
UNSHOWN = "_unshown"

#: kinds of calls: the type of their item -> their type in a chat, and what they carry
CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}

#: what only Chat Completions can do, and no answer can do without
ONLY_CHAT = ("audio", "prediction", "web_search_options", "functions")
#: what an answer can do without
LACKING = _canonical.EXTENSIONS - {"provider", "provider_options", "type"} | {
    "frequency_penalty",
    "logit_bias",
    "presence_penalty",
    "seed",
    "stop",
}
TRANSLATED = {
    "function_call",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "modalities",
    "n",
    "provider",
    "provider_options",
    "reasoning_effort",
    "response_format",
    "stream_options",
    "tool_choice",
    "tools",
    "type",
    "verbosity",
}
#: what is sent to have the tokens counted
COUNTED = ("input", "instructions", "model", "parallel_tool_calls", "reasoning", "text", "tool_choice", "tools")


def lacks(chat: JSON) -> str:
    """Name the first field that makes a chat one that only Chat Completions can answer; empty if there is none."""
    wanted = [field for field in ONLY_CHAT if chat.get(field)]
    wanted += ["n"] if (chat.get("n") or 1) > 1 else []
    wanted += ["modalities"] if set(chat.get("modalities") or ()) - {"text"} else []
    return next(iter(wanted), "")


def question(chat: JSON, name: str, warn: Warn, recall: Recall = lambda _: []) -> JSON:
    """Translate a chat. `recall(ids)` gives the reasoning details once made with these tool calls."""
    lacking = lacks(chat)
    if lacking:
        raise _canonical.unsupported(lacking, f"{lacking} is not supported by {name} with a model that reasons")
    for field in sorted(LACKING):
        if chat.get(field):
            warn(field, f"not supported by {name} with a model that reasons")
    known = TRANSLATED | LACKING | {*ONLY_CHAT, UNSHOWN}
    body = {key: value for key, value in outside_pockets(chat).items() if key not in known and value is not None}
    body.update(_dialogue(chat, name, recall))
    body.update(_tools(chat))
    body.update(_shape(chat))
    body["store"] = bool(chat.get("store"))
    body["include"] = ["reasoning.encrypted_content"]
    if chat.get("logprobs"):
        body["include"].append("message.output_text.logprobs")
    return _canonical.merged(body, _canonical.own_options(chat, "openai"))


def _shape(chat: JSON) -> JSON:
    """Give what shapes the answer: its length, its format, how much is thought about it."""
    effort = chat.get("reasoning_effort")
    shown = effort != "none" and not chat.get(UNSHOWN)
    obfuscates = (chat.get("stream_options") or {}).get("include_obfuscation")
    shape = {
        "max_output_tokens": _canonical.max_tokens(chat),
        "reasoning": _without_nulls({"effort": effort, "summary": "auto" if shown else None}),
        "text": _without_nulls({"format": _format(chat), "verbosity": chat.get("verbosity")}),
        "stream_options": _without_nulls({"include_obfuscation": obfuscates}),
    }
    return {key: value for key, value in shape.items() if value}


def _format(chat: JSON) -> Optional[JSON]:
    format_ = chat.get("response_format") or {}
    if format_.get("type") == "json_schema":
        described = format_.get("json_schema") or {}
        return {"name": "output", **described, "type": "json_schema", "schema": _canonical.json_schema(chat)}
    return format_ if format_.get("type") == "json_object" else None


def _tools(chat: JSON) -> JSON:
    told = {key: chat[key] for key in ("tools", "tool_choice") if chat.get(key)}
    if "tools" in told:
        told["tools"] = [_tool(tool) for tool in told["tools"]]
    if isinstance(told.get("tool_choice"), dict):
        told["tool_choice"] = _choice(told["tool_choice"])
    return told


def _tool(given: JSON) -> JSON:
    """Flatten a tool; one of a kind that is not known here is OpenAI's own."""
    kind = given.get("type", "function")
    told = outside_pockets(given.get(kind) or {})
    if kind == "function":
        return {"type": kind, "parameters": None, "strict": False, **_without_nulls(told)}
    if kind == "custom":
        format_ = told.get("format") or {}
        if "grammar" in format_:
            told["format"] = {"type": "grammar", **format_["grammar"]}
        return {"type": kind, **told}
    return outside_pockets(given)


def _choice(choice: JSON) -> JSON:
    kind = str(choice.get("type"))
    if kind == "allowed_tools":
        allowed = choice.get(kind) or choice
        return {"type": kind, "mode": allowed.get("mode"), "tools": [_choice(t) for t in allowed.get("tools") or ()]}
    return {"type": kind, "name": choice[kind]["name"]} if isinstance(choice.get(kind), dict) else choice


def _without_nulls(given: JSON) -> JSON:
    return {key: value for key, value in given.items() if value is not None}


# messages


class Asked(NamedTuple):
    """Whom the messages are for, and what of them has to be looked up elsewhere."""

    name: str
    model: str
    recall: Recall
    custom: Tuple[str, ...]  # ids of the calls of custom tools


def _dialogue(chat: JSON, name: str, recall: Recall) -> JSON:
    """Give `instructions` and `input`."""
    messages = chat["messages"]
    system, rest = _canonical.leading_system(messages)
    if not rest:  # there has to be an input
        system, rest = [], system
    calls = (call for message in rest for call in message.get("tool_calls") or ())
    custom = tuple(call["id"] for call in calls if call.get("type") == "custom")
    asked = Asked(name, str(chat.get("model") or ""), recall, custom)
    items = [item for at, message in enumerate(rest, len(system)) for item in _items(message, at, asked)]
    told: JSON = {"input": items}
    if system:
        told["instructions"] = "\n\n".join(_canonical.text_of(message.get("content")) for message in system)
    return told


def _items(message: JSON, at: int, asked: Asked) -> List[JSON]:
    role, content = message.get("role"), message.get("content")
    path = f"messages[{at}]"
    if role == "assistant":
        return _turn(message, asked)
    if role == "tool":
        id_ = message.get("tool_call_id")
        kind = "custom_tool_call_output" if id_ in asked.custom else "function_call_output"
        return [{"type": kind, "call_id": id_, "output": _content(content, path, joined=True)}]
    if role == "function":
        raise _canonical.unsupported(f"{path}.role", f"messages of the role function are not supported by {asked.name}")
    return [{"type": "message", "role": role, "content": _content(content, path)}]


def _turn(message: JSON, asked: Asked) -> List[JSON]:
    """Give the items of an assistant's turn, each piece of reasoning before what it led to."""
    calls = message.get("tool_calls") or []
    text = _spoken(message)
    items: List[JSON] = [{"type": "message", "role": "assistant", "content": text}] if text else []
    items += [_call(call) for call in calls]
    details = _canonical.details_for(message, asked.name, asked.model)
    if calls and not details:
        recalled = asked.recall([str(call.get("id")) for call in calls])
        details = _canonical.details_for({"reasoning_details": recalled}, asked.name, asked.model)
    for detail in details:
        if items and detail.get("encrypted_content"):  # what led to nothing is refused
            items.insert(min(detail.get("index") or 0, len(items) - 1), _thought(detail))
    return items


def _spoken(message: JSON) -> str:
    content = message.get("content")
    refused = [part.get("refusal") for part in _canonical.parts_of(content) if part.get("type") == "refusal"]
    return _canonical.text_of(content) or "\n".join(filter(None, [*refused, message.get("refusal")]))


def _call(call: JSON) -> JSON:
    kind = call.get("type") or "function"
    of = {theirs: (item, what) for item, (theirs, what) in CALLS.items()}
    item, what = of.get(kind, of["function"])
    told = call.get(kind) or {}
    text = told.get(what) or ("{}" if kind == "function" else "")
    text = text if isinstance(text, str) else _canonical.dumped(text)
    return {"type": item, "call_id": call.get("id"), "name": told.get("name"), what: text}


def _thought(detail: JSON) -> JSON:
    told = {key: detail.get(key) for key in ("id", "encrypted_content")}
    return {"type": "reasoning", **told, "summary": detail.get("summary") or []}


def _content(content: Any, path: str, *, joined: bool = False) -> Any:
    """Give a content: text as a string (if `joined`, its parts too), else a list of parts."""
    if isinstance(content, str):
        return content
    parts = _canonical.parts_of(content)
    if joined and all(part.get("type") == "text" for part in parts):
        return _canonical.text_of(parts)
    return [_part(part, f"{path}.content[{at}]") for at, part in enumerate(parts)]


def _part(part: JSON, path: str) -> JSON:
    kind = part.get("type")
    if kind not in PARTS:
        raise _canonical.unsupported(f"{path}.type", f"{kind} is not supported by a model that reasons")
    told = PARTS[kind](part)
    if part.get("prompt_cache_breakpoint"):
        told["prompt_cache_breakpoint"] = part["prompt_cache_breakpoint"]
    return told


def _image(part: JSON) -> JSON:
    image = part.get("image_url")
    detail = image.get("detail") if isinstance(image, dict) else None
    return {"type": "input_image", "detail": detail or "auto", "image_url": _canonical.image_url(part)}


PARTS: Mapping[Any, Callable[[JSON], JSON]] = {
    "text": lambda part: {"type": "input_text", "text": part.get("text") or ""},
    "image_url": _image,
    "file": lambda part: {"type": "input_file", **_without_nulls(part.get("file") or {})},
}
