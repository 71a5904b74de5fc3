"""Canonical questions, checked field by field before anybody is asked. Pure: dicts in, or a Refusal.

Each field has one rule in a table; a rule takes the value and its path and refuses what is wrong.
Fields without a rule travel along unchecked: their upstream knows them, or is told of them in a warning.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

from . import JSON
from ._json import refuse, shown
from ._rules import (
    Rule,
    a_flag,
    a_list,
    a_text,
    an_integer,
    an_object,
    each,
    each_value,
    filled,
    integer,
    number,
    one_of,
    record,
    variant,
)


def _stop(value: Any, path: str) -> None:
    if isinstance(value, list):
        each(a_text)(value, path)
    elif not isinstance(value, str):
        refuse(path, "must be a string or a list of strings", "invalid_type")


def _image(value: Any, path: str) -> None:
    if isinstance(value, dict):
        record({"url": filled, "detail": a_text}, ("url",))(value, path)
    else:
        filled(value, path)


def _arguments(value: Any, path: str) -> None:
    if not isinstance(value, dict):  # an object is what some clients send; it is taken as what it says
        a_text(value, path)


_function_call = record({"name": filled, "arguments": _arguments}, ("name",))
_CALLED: Dict[str, Rule] = {"id": a_text, "function": _function_call, "custom": an_object, "extra_content": an_object}
_tool_call = variant({"function": record(_CALLED, ("function",)), "custom": record(_CALLED, ("custom",))}, "function")
_detail = record(
    {
        **dict.fromkeys(("provider", "model", "type", "id", "tool_call_id"), a_text),
        **dict.fromkeys(("thinking", "signature", "data", "encrypted_content"), a_text),
        "index": integer(0),
    }
)

PARTS: Dict[str, Rule] = {
    "text": record({"text": a_text}, ("text",)),
    "image_url": record({"image_url": _image}, ("image_url",)),
    "input_audio": record(
        {"input_audio": record({"data": filled, "format": filled}, ("data", "format"))}, ("input_audio",)
    ),
    "file": record({"file": record({"file_data": a_text, "file_id": a_text, "filename": a_text})}, ("file",)),
    "refusal": record({"refusal": a_text}, ("refusal",)),
}


_parts = each(variant(PARTS))


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
    "name": a_text,
    "tool_calls": each(_tool_call),
    "tool_call_id": filled,
    "refusal": a_text,
    "reasoning_content": a_text,
    "reasoning": a_text,
    "reasoning_details": each(_detail),
    "is_error": a_flag,
    "function_call": _function_call,
    "audio": an_object,
}


_OF_ROLE = {role: record(MESSAGE, required) for role, required in ROLES.items()}


def _message(value: Any, path: str) -> None:
    an_object(value, path)
    role = value.get("role")
    rule = _OF_ROLE.get(role) if isinstance(role, str) else None
    if rule is None:
        refuse(f"{path}.role", f"must be one of {', '.join(ROLES)}, not {shown(role)!r}")
    rule(value, path)
    if role == "assistant" and all(value.get(name) is None for name in SAID):
        refuse(f"{path}.content", "an assistant message has content or tool calls", "missing_required_parameter")


_function = record({"name": filled, "description": a_text, "parameters": an_object, "strict": a_flag}, ("name",))
_tool = variant({"function": record({"function": _function}, ("function",))}, "function", an_object)
_NAMED: Dict[str, Rule] = {"function": record({"name": filled}, ("name",))}
_named = variant({"function": record(_NAMED, ("function",))}, "", record(_NAMED))
_allowed = record({"mode": one_of("auto", "required"), "tools": each(_named)}, ("tools",))
_chosen = variant({"allowed_tools": record({"allowed_tools": _allowed}, ("allowed_tools",))}, "", _named)


def _tool_choice(value: Any, path: str) -> None:
    rule = _chosen if isinstance(value, dict) else one_of("none", "auto", "required")
    rule(value, path)


_schema = record({"name": a_text, "schema": an_object, "strict": a_flag, "description": a_text})
_response_format = variant(
    {
        "text": an_object,
        "json_object": an_object,
        "json_schema": record({"json_schema": _schema}, ("json_schema",)),
    }
)

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

CHAT: Dict[str, Rule] = {
    "model": filled,
    "messages": each(_message, least=1),
    "stream": a_flag,
    "stream_options": record({"include_usage": a_flag}),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": integer(0),
    "min_p": number(0, 1),
    "repeat_penalty": number(0),
    "max_tokens": integer(1),
    "max_completion_tokens": integer(1),
    "n": integer(1, 128),
    "seed": an_integer,
    "stop": _stop,
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "logit_bias": an_object,
    "logprobs": a_flag,
    "top_logprobs": integer(0, 20),
    "tools": each(_tool),
    "tool_choice": _tool_choice,
    "parallel_tool_calls": a_flag,
    "response_format": _response_format,
    "reasoning_effort": one_of(*EFFORTS),
    "thinking_budget": integer(-1),
    "verbosity": one_of("low", "medium", "high"),
    "modalities": each(a_text),
    "audio": an_object,
    "prediction": an_object,
    "service_tier": a_text,
    "store": a_flag,
    "metadata": an_object,
    "user": a_text,
    "safety_identifier": a_text,
    "prompt_cache_key": a_text,
    "web_search_options": an_object,
    "functions": each(an_object),
    "provider_options": each_value(an_object),
}


def _input(value: Any, path: str) -> None:
    if isinstance(value, str):
        return
    a_list(value, path)
    if not value:
        refuse(path, "must not be empty")
    if isinstance(value[0], str):
        each(a_text)(value, path)
    elif isinstance(value[0], list):
        each(each(integer(0), least=1))(value, path)
    elif isinstance(value[0], int):
        each(integer(0))(value, path)
    else:
        refuse(f"{path}[0]", "must be a string, or token ids", "invalid_type")


EMBEDDINGS: Dict[str, Rule] = {
    "model": a_text,
    "input": _input,
    "dimensions": integer(1),
    "encoding_format": one_of("float", "base64"),
    "input_type": one_of("query", "document"),
    "user": a_text,
    "provider_options": each_value(an_object),
}


def unpocketed(question: JSON) -> JSON:
    """Leave out the pockets of a question in canonical words, of its messages, parts, tools and calls.

    What stands in them our own rooms have put there, and read it unchecked.
    """
    return _unpocketed(question) if _has_pockets(question) else question


def _has_pockets(question: JSON) -> bool:
    for name, value in question.items():
        if name.startswith("_"):
            return True
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict) and _has_pockets(item):
                    return True
    return False


def _unpocketed(question: JSON) -> JSON:
    """Go on in the objects of a list; what a field holds as an object has names of the client's own."""
    kept = {name: inner for name, inner in question.items() if not name.startswith("_")}
    for name, inner in kept.items():
        if isinstance(inner, list):
            kept[name] = [_unpocketed(item) if isinstance(item, dict) else item for item in inner]
    return kept


def checked(question: JSON, rules: Mapping[str, Rule], required: Tuple[str, ...]) -> JSON:
    """Give the question without its nulls, every field checked; raises Refusal for the first that is wrong."""
    for name in required:
        if question.get(name) is None:
            refuse(name, "is required", "missing_required_parameter")
    given = {name: value for name, value in question.items() if value is not None}
    for name, value in given.items():
        if name in rules:
            rules[name](value, name)
    return given
