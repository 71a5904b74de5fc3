"""Canonical questions, checked field by field before anybody is asked. Pure: dicts in, or a Refusal.

Each field has one rule in a table; a rule takes the value and its path and refuses what is wrong.
Fields without a rule travel along unchecked: their upstream knows them, or is told of them in a warning.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from . import JSON
from ._json import refuse, shown

Rule = Callable[[Any, str], None]


def _kind(kinds: Tuple[type, ...], words: str) -> Rule:
    def rule(value: Any, path: str) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            refuse(path, f"must be {words}", "invalid_type")

    return rule


_text = _kind((str,), "a string")
_flag = _kind((bool,), "true or false")
_object = _kind((dict,), "an object")
_array = _kind((list,), "a list")
_number_kind = _kind((int, float), "a number")
_integer_kind = _kind((int,), "an integer")


def _between(kind: Rule, low: float, high: Optional[float] = None) -> Rule:
    bounds = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"

    def rule(value: Any, path: str) -> None:
        kind(value, path)
        if value < low or (high is not None and value > high):
            refuse(path, f"must be {bounds}")

    return rule


def _number(low: float, high: Optional[float] = None) -> Rule:
    return _between(_number_kind, low, high)


def _integer(low: int, high: Optional[int] = None) -> Rule:
    return _between(_integer_kind, low, high)


def _one_of(*words: str) -> Rule:
    def rule(value: Any, path: str) -> None:
        _text(value, path)
        if value not in words:
            refuse(path, f"must be one of {', '.join(words)}, not {shown(value)!r}")

    return rule


def _each(rule: Rule, least: int = 0) -> Rule:
    def every(value: Any, path: str) -> None:
        _array(value, path)
        if len(value) < least:
            refuse(path, "must not be empty")
        for at, item in enumerate(value):
            rule(item, f"{path}[{at}]")

    return every


def _filled(value: Any, path: str) -> None:
    _text(value, path)
    if not value.strip():
        refuse(path, "must not be empty")


def _record(rules: Mapping[str, Rule], required: Tuple[str, ...] = ()) -> Rule:
    """Rule over an object: what is required is there, what has a rule keeps it, null is absent."""

    def rule(value: Any, path: str) -> None:
        _object(value, path)
        for name in required:
            if value.get(name) is None:
                refuse(f"{path}.{name}", "is required", "missing_required_parameter")
        for name, check in rules.items():
            if value.get(name) is not None:
                check(value[name], f"{path}.{name}")

    return rule


def _variant(kinds: Mapping[str, Rule], usual: str = "", other: Optional[Rule] = None) -> Rule:
    """Rule over an object whose `type` says which rule it keeps; without `other` there are no other types."""

    def rule(value: Any, path: str) -> None:
        _object(value, path)
        kind = usual if value.get("type") is None else value["type"]
        if kind == "":
            refuse(f"{path}.type", "is required", "missing_required_parameter")
        _text(kind, f"{path}.type")
        chosen = kinds.get(kind, other)
        if chosen is None:
            refuse(f"{path}.type", f"must be one of {', '.join(kinds)}, not {shown(kind)!r}")
        chosen(value, path)

    return rule


def _each_value(rule: Rule) -> Rule:
    def every(value: Any, path: str) -> None:
        _object(value, path)
        for name, item in value.items():
            if item is not None:
                rule(item, f"{path}.{shown(name)}")

    return every


def _stop(value: Any, path: str) -> None:
    if isinstance(value, list):
        _each(_text)(value, path)
    elif not isinstance(value, str):
        refuse(path, "must be a string or a list of strings", "invalid_type")


def _image(value: Any, path: str) -> None:
    if isinstance(value, dict):
        _record({"url": _filled, "detail": _text}, ("url",))(value, path)
    else:
        _filled(value, path)


def _arguments(value: Any, path: str) -> None:
    if not isinstance(value, dict):  # an object is what some clients send; it is taken as what it says
        _text(value, path)


_function_call = _record({"name": _filled, "arguments": _arguments}, ("name",))
_CALLED: Dict[str, Rule] = {"id": _text, "function": _function_call, "custom": _object, "extra_content": _object}
_tool_call = _variant(
    {"function": _record(_CALLED, ("function",)), "custom": _record(_CALLED, ("custom",))}, "function"
)
_detail = _record(
    {
        **dict.fromkeys(("provider", "model", "type", "id", "tool_call_id"), _text),
        **dict.fromkeys(("thinking", "signature", "data", "encrypted_content"), _text),
        "index": _integer(0),
    }
)

PARTS: Dict[str, Rule] = {
    "text": _record({"text": _text}, ("text",)),
    "image_url": _record({"image_url": _image}, ("image_url",)),
    "input_audio": _record(
        {"input_audio": _record({"data": _filled, "format": _filled}, ("data", "format"))}, ("input_audio",)
    ),
    "file": _record({"file": _record({"file_data": _text, "file_id": _text, "filename": _text})}, ("file",)),
    "refusal": _record({"refusal": _text}, ("refusal",)),
}


_parts = _each(_variant(PARTS))


def _content(value: Any, path: str) -> None:
    if isinstance(value, list):
        _parts(value, path)
    elif not isinstance(value, str):
        refuse(path, "must be a string or a list of parts", "invalid_type")


ROLES: Dict[str, Tuple[str, ...]] = {  # role -> what its messages must have
    "system": ("content",),
    "developer": ("content",),
    "user": ("content",),
    "assistant": (),
    "tool": ("content", "tool_call_id"),
    "function": ("name",),
}
#: one of them an assistant's message has; with reasoning alone ends an answer that was cut short
SAID = ("content", "tool_calls", "function_call", "refusal", "audio", "reasoning_content", "reasoning")
MESSAGE: Dict[str, Rule] = {
    "content": _content,
    "name": _text,
    "tool_calls": _each(_tool_call),
    "tool_call_id": _filled,
    "refusal": _text,
    "reasoning_content": _text,
    "reasoning": _text,
    "reasoning_details": _each(_detail),
    "is_error": _flag,
    "function_call": _function_call,
    "audio": _object,
}


def _message(value: Any, path: str) -> None:
    _object(value, path)
    role = value.get("role")
    required = ROLES.get(role) if isinstance(role, str) else None
    if required is None:
        refuse(f"{path}.role", f"must be one of {', '.join(ROLES)}, not {shown(role)!r}")
    _record(MESSAGE, required)(value, path)
    if role == "assistant" and all(value.get(name) is None for name in SAID):
        refuse(f"{path}.content", "an assistant message has content or tool calls", "missing_required_parameter")


_function = _record({"name": _filled, "description": _text, "parameters": _object, "strict": _flag}, ("name",))
_tool = _variant({"function": _record({"function": _function}, ("function",))}, "function", _object)
_NAMED: Dict[str, Rule] = {"function": _record({"name": _filled}, ("name",))}
_named = _variant({"function": _record(_NAMED, ("function",))}, "", _record(_NAMED))
_allowed = _record({"mode": _one_of("auto", "required"), "tools": _each(_named)}, ("tools",))
_chosen = _variant({"allowed_tools": _record({"allowed_tools": _allowed}, ("allowed_tools",))}, "", _named)


def _tool_choice(value: Any, path: str) -> None:
    rule = _chosen if isinstance(value, dict) else _one_of("none", "auto", "required")
    rule(value, path)


_schema = _record({"name": _text, "schema": _object, "strict": _flag, "description": _text})
_response_format = _variant(
    {
        "text": _object,
        "json_object": _object,
        "json_schema": _record({"json_schema": _schema}, ("json_schema",)),
    }
)

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

CHAT: Dict[str, Rule] = {
    "model": _filled,
    "messages": _each(_message, least=1),
    "stream": _flag,
    "stream_options": _record({"include_usage": _flag}),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _integer(0),
    "min_p": _number(0, 1),
    "repeat_penalty": _number(0),
    "max_tokens": _integer(1),
    "max_completion_tokens": _integer(1),
    "n": _integer(1, 128),
    "seed": _integer_kind,
    "stop": _stop,
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "logit_bias": _object,
    "logprobs": _flag,
    "top_logprobs": _integer(0, 20),
    "tools": _each(_tool),
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _flag,
    "response_format": _response_format,
    "reasoning_effort": _one_of(*EFFORTS),
    "thinking_budget": _integer(-1),
    "verbosity": _one_of("low", "medium", "high"),
    "modalities": _each(_text),
    "audio": _object,
    "prediction": _object,
    "service_tier": _text,
    "store": _flag,
    "metadata": _object,
    "user": _text,
    "safety_identifier": _text,
    "prompt_cache_key": _text,
    "web_search_options": _object,
    "functions": _each(_object),
    "provider_options": _each_value(_object),
}


def _input(value: Any, path: str) -> None:
    if isinstance(value, str):
        return
    _array(value, path)
    if not value:
        refuse(path, "must not be empty")
    if isinstance(value[0], str):
        _each(_text)(value, path)
    elif isinstance(value[0], list):
        _each(_each(_integer(0), least=1))(value, path)
    elif isinstance(value[0], int):
        _each(_integer(0))(value, path)
    else:
        refuse(f"{path}[0]", "must be a string, or token ids", "invalid_type")


EMBEDDINGS: Dict[str, Rule] = {
    "model": _text,
    "input": _input,
    "dimensions": _integer(1),
    "encoding_format": _one_of("float", "base64"),
    "input_type": _one_of("query", "document"),
    "user": _text,
    "provider_options": _each_value(_object),
}


def unpocketed(question: JSON) -> JSON:
    """Leave out the pockets of a question in canonical words, of its messages, parts, tools and calls.

    What stands in them our own rooms have put there, and read it unchecked.
    """
    return {name: _unpocketed(value) for name, value in question.items() if not name.startswith("_")}


def _unpocketed(value: Any) -> Any:
    """Go on in the objects of a list; what a field holds as an object has names of the client's own."""
    if not isinstance(value, list):
        return value
    return [unpocketed(item) if isinstance(item, dict) else item for item in value]


def checked(question: JSON, rules: Mapping[str, Rule], required: Tuple[str, ...]) -> JSON:
    """Give the question without its nulls, every field checked; raises Refusal for the first that is wrong."""
    for name in required:
        if question.get(name) is None:
            refuse(name, "is required", "missing_required_parameter")
    for name, rule in rules.items():
        value = question.get(name)
        if value is not None:
            rule(value, name)
    return {name: value for name, value in question.items() if value is not None}
