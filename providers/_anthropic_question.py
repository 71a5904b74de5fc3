"""A canonical chat as a body for `/v1/messages`. Pure.

Which fields a model takes differs from model to model, and some refuse the whole request for one field
too many; so what is not certain to be taken is dropped, with a warning.
"""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Optional

from . import JSON, Warn, _canonical
from ._anthropic_models import EFFORTS, Model
from ._anthropic_turns import Recall, lacks_thinking, system_of, turns_of

OLD, NEW = "2023-06-01", "2026-10-21"  # the versions of the API

SAMPLING = ("temperature", "top_p", "top_k")
REASONING = ("reasoning_effort", "thinking_budget")

#: reasoning_effort -> budget_tokens, for models that have budgets
BUDGETS = {
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 16384,
    "xhigh": 24576,
    "max": 32000,
}
SMALLEST_BUDGET = 1024

#: largest thinking_budget -> effort, for models that have none
EFFORT_OF_BUDGET = ((2048, "low"), (10000, "medium"))

TIERS = {"auto": "auto", "default": "standard_only"}
CHOICES = {"auto": "auto", "none": "none", "required": "any"}

#: fields that change what an answer is, and the values at which they do not
NOT_SERVED: Mapping[str, Any] = {
    "n": 1,
    "modalities": ["text"],
    "audio": None,
    "prediction": None,
    "web_search_options": None,
    "functions": None,
    "function_call": None,
}
#: hints that are dropped without a word at these values: they ask for what happens anyway
IDLE: Mapping[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "store": False,
    "logit_bias": {},
    "metadata": {},
    "parallel_tool_calls": True,
}
HANDLED = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop"),
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "user", "safety_identifier"),
        *("service_tier", "provider", "type", "provider_options", *SAMPLING, *REASONING, *NOT_SERVED),
    }
)
#: what a request to count tokens has in common with one that is to be answered
COUNTED = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed"}
)

JSON_ONLY = "Answer with one valid JSON object and nothing else: no words around it and no code fence."


class Manner(NamedTuple):
    """How whoever runs the proxy wants to ask."""

    version: str = "auto"
    max_tokens: int = 16384
    tool_choice_fallback: str = ""


def question(chat: JSON, name: str, model: Model, manner: Manner, warn: Warn, recall: Recall) -> JSON:
    """Translate a chat; `model` says what its model can do, `recall` gives reasoning details by tool calls."""
    for field in () if chat.keys().isdisjoint(NOT_SERVED) else NOT_SERVED:
        if field in chat and chat[field] not in (None, NOT_SERVED[field]):
            raise _canonical.unsupported(field, f"{field} is not supported by anthropic")
    said = {field: value for field, value in chat.items() if value != IDLE.get(field)}
    _canonical.warn_dropped(said, HANDLED, warn, "anthropic")
    messages: List[JSON] = chat["messages"]
    turns = turns_of(messages, name, chat["model"], model, warn, recall)
    thinking = _thinking(chat, model, turns, warn)
    body: JSON = {
        "model": chat["model"],
        "max_tokens": _max_tokens(chat, model, manner, warn),
        **system_of(messages, _instruction(chat, warn)),
        "messages": turns,
        **_tools(chat, model, manner, "thinking" in thinking, warn),
        **_sampling(chat, model, manner, "thinking" in thinking, warn),
        **_hints(chat, warn),
        **_canonical.merged(_format(chat), thinking),
    }
    body = _with_budget(body, model)
    for own in (chat.get("_anthropic"), _canonical.own_options(chat, "anthropic")):
        if own:
            body = _overruled(body, own)
    return body


def version_for(body: JSON, version: str) -> str:
    """Choose the version of the API: sampling fields are known to the old one only."""
    if version != "auto":
        return version
    return OLD if any(field in body for field in SAMPLING) else NEW


def counted(body: JSON) -> JSON:
    """Give what of a body is sent to have its tokens counted."""
    return {field: value for field, value in body.items() if field in COUNTED}


def _overruled(body: JSON, own: JSON) -> JSON:
    """Merge what a client says in the upstream's own words; a variant (`type`) is replaced, not mixed."""
    variants = {"thinking", "tool_choice"} & own.keys()
    return _canonical.merged({field: value for field, value in body.items() if field not in variants}, own)


def _hints(chat: JSON, warn: Warn) -> JSON:
    """Translate the fields that stand by themselves."""
    fields: JSON = {}
    stops = _canonical.stops(chat)
    said = [stop for stop in stops if stop.strip()]
    if len(said) < len(stops):
        warn("stop", "blank strings dropped")
    if said:
        fields["stop_sequences"] = said
    user = chat.get("safety_identifier") or chat.get("user")
    if user:
        fields["metadata"] = {"user_id": str(user)}
    tier = chat.get("service_tier")
    if tier in TIERS:
        fields["service_tier"] = TIERS[tier]
    elif tier is not None:
        warn("service_tier", "not supported by anthropic")
    return fields


def _max_tokens(chat: JSON, model: Model, manner: Manner, warn: Warn) -> int:
    asked = _canonical.max_tokens(chat)
    cap = manner.max_tokens if asked is None else asked
    if model.most is None or cap <= model.most:
        return cap
    if asked is not None:
        field = "max_tokens" if chat.get("max_completion_tokens") is None else "max_completion_tokens"
        warn(field, f"clamped to {model.most}")
    return model.most


def _sampling(chat: JSON, model: Model, manner: Manner, thinks: bool, warn: Warn) -> JSON:
    asked = {field: chat[field] for field in SAMPLING if chat.get(field) is not None}
    reason = _no_sampling(model, manner, thinks)
    if reason:
        for field in asked:
            warn(field, reason)
        return {}
    if asked.get("temperature", 0) > 1:
        warn("temperature", "clamped to 1")
        asked["temperature"] = 1
    if "temperature" in asked and asked.get("top_p") == 1:
        del asked["top_p"]  # it says nothing, and some models refuse to be told both
    return asked


def _no_sampling(model: Model, manner: Manner, thinks: bool) -> str:
    """Say why sampling cannot be steered; empty if it can."""
    if not model.samples:
        return "not supported by this model"
    if manner.version == NEW:
        return f"not supported by version {NEW}"
    return "not together with thinking" if thinks else ""


# reasoning


def _thinking(chat: JSON, model: Model, turns: List[JSON], warn: Warn) -> JSON:
    """Give `thinking` and the effort of `output_config`; nothing where nothing was asked."""
    effort, budget = chat.get("reasoning_effort"), chat.get("thinking_budget")
    if effort is None and budget is None:
        return {}
    if effort is not None and effort != "none" and effort not in BUDGETS:
        raise _canonical.unsupported("reasoning_effort", f"reasoning_effort {effort!r} is not known to anthropic")
    if budget == 0 or (budget is None and effort == "none"):
        return _without_thinking(chat, model, warn)
    if "enabled" in model.thinking and (budget is not None or "adaptive" not in model.thinking):
        return _budgeted(effort, budget, turns, warn)
    if "adaptive" in model.thinking:
        return _adaptive(effort, budget, model, warn)
    for field in REASONING:
        if chat.get(field) is not None:
            warn(field, "not supported by this model")
    return {}


def _without_thinking(chat: JSON, model: Model, warn: Warn) -> JSON:
    for off in ("disabled", "between_tools"):
        if off in model.thinking:
            return {"thinking": {"type": off}}
    if not model.efforts:
        return {}
    field = "reasoning_effort" if chat.get("thinking_budget") is None else "thinking_budget"
    warn(field, f"this model always thinks: sent as {model.efforts[0]}")
    return {"output_config": {"effort": model.efforts[0]}}


def _budgeted(effort: Optional[str], budget: Optional[int], turns: List[JSON], warn: Warn) -> JSON:
    if lacks_thinking(turns):  # refused, where the client has lost the thoughts and so have we
        warn("reasoning_effort" if budget is None else "thinking_budget", "off until the tools are done")
        return {}
    tokens = BUDGETS.get(effort or "medium", BUDGETS["medium"]) if budget is None or budget < 0 else budget
    if tokens < SMALLEST_BUDGET:
        warn("thinking_budget", f"clamped to {SMALLEST_BUDGET}")
        tokens = SMALLEST_BUDGET
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


def _adaptive(effort: Optional[str], budget: Optional[int], model: Model, warn: Warn) -> JSON:
    thinking: JSON = {"thinking": {"type": "adaptive", "display": "summarized"}}
    if effort in (None, "none") and budget is not None and budget > 0:
        effort = next((word for most, word in EFFORT_OF_BUDGET if budget <= most), "high")
        warn("thinking_budget", f"sent as effort {effort}")
    elif budget is not None and budget > 0:
        warn("thinking_budget", "not supported by this model")
    if effort in (None, "none") or not model.efforts:
        return thinking
    wanted = "low" if effort == "minimal" else str(effort)
    nearest = [word for word in model.efforts if EFFORTS.index(word) <= EFFORTS.index(wanted)]
    sent = nearest[-1] if nearest else model.efforts[0]
    if sent != wanted:
        warn("reasoning_effort", f"sent as {sent}")
    return {**thinking, "output_config": {"effort": sent}}


def _with_budget(body: JSON, model: Model) -> JSON:
    """Put the thinking on top of the answer's own tokens, as far as the model goes."""
    thinking, cap = body.get("thinking") or {}, body["max_tokens"]
    if "budget_tokens" not in thinking:
        return body
    total = cap + thinking["budget_tokens"]
    total = total if model.most is None else min(total, model.most)
    budget = max(SMALLEST_BUDGET, total - cap)
    return {**body, "max_tokens": total, "thinking": {**thinking, "budget_tokens": budget}}


# tools


def _tools(chat: JSON, model: Model, manner: Manner, thinks: bool, warn: Warn) -> JSON:
    if not chat.get("tools"):
        return _tools_of_old(chat["messages"])
    _canonical.functions_of(chat)  # refuses tools of other kinds
    tools = [_tool(tool) for tool in chat["tools"]]
    choice = _canonical.tool_choice(chat)
    free = model.can_be_forced and not (thinks and model.samples)
    if choice and choice.mode == "required" and manner.tool_choice_fallback == "auto" and not free:
        warn("tool_choice", "sent as auto")
        choice = _canonical.Choice("auto", None)
    told = _choice(choice)
    if choice and choice.names is not None and told["type"] != "tool":
        tools = [tool for tool in tools if tool["name"] in choice.names]
    if chat.get("parallel_tool_calls") is False and told.get("type") != "none":
        told = {"type": "auto", **told, "disable_parallel_tool_use": True}
    if not tools:
        return {}
    return {"tools": tools, "tool_choice": told} if told else {"tools": tools}


def _choice(choice: Optional[_canonical.Choice]) -> JSON:
    if choice is None:
        return {}
    if choice.mode == "required" and choice.names is not None and len(choice.names) == 1:
        return {"type": "tool", "name": choice.names[0]}
    return {"type": CHOICES.get(choice.mode, "auto")}


def _tool(tool: JSON) -> JSON:
    function = tool["function"]
    schema = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    told: JSON = {"name": function.get("name")}
    if function.get("description"):
        told["description"] = function["description"]
    told["input_schema"] = closed(schema) if function.get("strict") else schema
    if function.get("strict"):
        told["strict"] = True
    if tool.get("cache_control"):
        told["cache_control"] = tool["cache_control"]
    return {**told, **(tool.get("_anthropic") or {})}


def _tools_of_old(messages: List[JSON]) -> JSON:
    """Declare, not to be called, the tools that a conversation used: it is refused without them."""
    names = dict.fromkeys(_canonical.names_by_id(messages).values())
    if not names:
        return {}
    tools = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in names]
    return {"tools": tools, "tool_choice": {"type": "none"}}


# the format of the answer


def _instruction(chat: JSON, warn: Warn) -> str:
    """Give the words that stand for a response format which the upstream does not have."""
    if (chat.get("response_format") or {}).get("type") != "json_object":
        return ""
    warn("response_format", "emulated by an instruction")
    return JSON_ONLY


def _format(chat: JSON) -> JSON:
    schema = _canonical.json_schema(chat)
    return {} if schema is None else {"output_config": {"format": {"type": "json_schema", "schema": closed(schema)}}}


#: where a schema holds schemas: one or a list of them, or an object of them by name
_INNER = frozenset(
    (
        *("items", "prefixItems", "additionalItems", "contains", "propertyNames"),
        *("anyOf", "oneOf", "allOf", "not", "if", "then", "else"),
    )
)
_BY_NAME = frozenset(("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"))


def closed(schema: Any) -> Any:
    """Give a schema (or a list of them) none of whose objects may have a property it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _closed_at(key, value) for key, value in schema.items()}
    kinds = out.get("type")
    if kinds == "object" or (isinstance(kinds, list) and "object" in kinds) or "properties" in out:
        out["additionalProperties"] = False
    return out


def _closed_at(key: str, value: Any) -> Any:
    if key in _BY_NAME and isinstance(value, dict):
        return {name: closed(one) for name, one in value.items()}
    return closed(value) if key in _INNER else value
