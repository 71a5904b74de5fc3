"""A canonical chat, as Gemini wants to be asked: one request body. Pure."""

from __future__ import annotations

import re
from itertools import count
from typing import Any, NamedTuple, Optional

from . import JSON, UpstreamError, Warn, _canonical
from ._gemini_contents import Asked, Recall, bare, contents, generation

MOST_STOPS = 5


def question(chat: JSON, name: str, warn: Warn, recall: Recall = lambda _: []) -> JSON:
    """Translate a chat. `recall(ids)` gives the reasoning details once made with these tool calls."""
    for field in ("prediction", "audio", "web_search_options"):
        if chat.get(field) is not None:
            raise _canonical.unsupported(field, f"{field} is not supported by gemini")
    if set(chat.get("modalities") or ()) - {"text"}:
        raise _canonical.unsupported("modalities", "only text is supported by gemini")
    asked = Asked(name, bare(str(chat.get("model") or "")), warn, recall, count())
    system, messages = _canonical.leading_system(chat["messages"])
    instruction = [{"text": text} for text in (_canonical.text_of(m.get("content")) for m in system) if text]
    body: JSON = {"systemInstruction": {"parts": instruction}} if instruction else {}
    body["contents"] = contents(messages, len(system), asked)
    body.update(tools(chat, warn))
    config = generation_config(chat, asked.model, warn)
    if config:
        body["generationConfig"] = config
    tier = _service_tier(chat.get("service_tier"), warn)
    if tier:
        body["serviceTier"] = tier
    _canonical.warn_dropped({k: v for k, v in chat.items() if v != NEUTRAL.get(k)}, HANDLED, warn, "gemini")
    return _canonical.merged(body, _canonical.own_options(chat, "gemini"))


# tools

MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def tools(chat: JSON, warn: Warn) -> JSON:
    """Give `tools` and `toolConfig`; nothing when there is no tool to choose."""
    functions, choice = _canonical.functions_of(chat), _canonical.tool_choice(chat)
    if choice and choice.names is not None and choice.mode == "auto":  # only ANY takes names
        functions = [function for function in functions if function["name"] in choice.names]
    if not functions:
        return {}
    if chat.get("parallel_tool_calls") is False:
        warn("parallel_tool_calls", "not supported by gemini")
    body: JSON = {"tools": [{"functionDeclarations": [_declaration(function) for function in functions]}]}
    if choice:
        body["toolConfig"] = {"functionCallingConfig": _calling(choice)}
    return body


def _calling(choice: _canonical.Choice) -> JSON:
    if choice.mode not in MODES:
        raise _canonical.unsupported("tool_choice", f"tool_choice {choice.mode!r} is not supported by gemini")
    named = choice.mode == "required" and choice.names is not None
    return {"mode": MODES[choice.mode], **({"allowedFunctionNames": choice.names} if named else {})}


def _declaration(function: JSON) -> JSON:
    names = {"name": "name", "description": "description", "parameters": "parametersJsonSchema"}
    return {theirs: function[ours] for ours, theirs in names.items() if function.get(ours)}


# what is left: numbers and formats

#: fields that only change their names
CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
#: what says nothing, and needs no warning when it is dropped
NEUTRAL: JSON = {"store": False, "metadata": {}, "logit_bias": {}, "functions": []}
HANDLED = frozenset(
    {
        *CONFIG,
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "n",
        "logprobs",
        "top_logprobs",
        "response_format",
        "reasoning_effort",
        "thinking_budget",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "modalities",
        "service_tier",
        "provider",
        "provider_options",
        "type",
    }
)
TIERS = {"flex": "flex", "priority": "priority", "default": "standard", "standard": "standard", "auto": ""}


def _service_tier(tier: Any, warn: Warn) -> str:
    if tier is not None and tier not in TIERS:
        warn("service_tier", "not supported by gemini")
    return TIERS.get(tier, "")


def generation_config(chat: JSON, model: str, warn: Warn) -> JSON:
    """Give `generationConfig`."""
    config = {theirs: chat[ours] for ours, theirs in CONFIG.items() if chat.get(ours) is not None}
    _clamp(config, warn)
    cap = _canonical.max_tokens(chat)
    if cap is not None:
        config["maxOutputTokens"] = cap
    if (chat.get("n") or 1) > 1:
        config["candidateCount"] = chat["n"]
    stops = [stop for stop in _canonical.stops(chat) if stop]
    if len(stops) > MOST_STOPS:
        warn("stop", f"only the first {MOST_STOPS} are supported")
    if stops:
        config["stopSequences"] = stops[:MOST_STOPS]
    thoughts = thinking(chat, model, warn)
    if thoughts:
        config["thinkingConfig"] = thoughts
    return {**config, **_logprobs(chat), **_format(chat)}


def _clamp(config: JSON, warn: Warn) -> None:
    if config.get("temperature", 0) > 2:
        warn("temperature", "clamped to 2")
        config["temperature"] = 2
    if not -(2**31) <= config.get("seed", 0) < 2**31:
        warn("seed", "cut to 31 bits")
        config["seed"] %= 2**31


def _logprobs(chat: JSON) -> JSON:
    if not chat.get("logprobs"):
        return {}
    top = chat.get("top_logprobs")
    return {"responseLogprobs": True, **({"logprobs": top} if top else {})}


def _format(chat: JSON) -> JSON:
    if (chat.get("response_format") or {}).get("type") not in ("json_object", "json_schema"):
        return {}
    schema = _canonical.json_schema(chat)
    return {"responseMimeType": "application/json", **({} if schema is None else {"responseJsonSchema": schema})}


# thinking


class Effort(NamedTuple):
    """What an effort is called from Gemini 3 on, and what it was worth in tokens before."""

    level: str
    budget: int


EFFORTS = {
    "none": Effort("MINIMAL", 0),
    "minimal": Effort("MINIMAL", 512),
    "low": Effort("LOW", 1024),
    "medium": Effort("MEDIUM", 8192),
    "high": Effort("HIGH", 24576),
    "xhigh": Effort("XHIGH", 24576),
    "max": Effort("XHIGH", -1),
}
#: which level comes nearest, where a model lacks one
NEAREST = {"MINIMAL": "LOW", "MEDIUM": "HIGH", "XHIGH": "HIGH"}


def thinking(chat: JSON, model: str, warn: Warn) -> JSON:
    """Give `thinkingConfig`; thoughts are shown whenever reasoning was asked for."""
    effort, budget = chat.get("reasoning_effort"), chat.get("thinking_budget")
    if generation(model) >= 3 and effort is not None:
        budget = None  # levels are all it has: the effort says it better
    if effort is None and budget is None:
        return {}
    wanted = effort != "none" if budget is None else budget != 0
    if generation(model) < 2.5:
        if wanted:
            warn("reasoning_effort" if budget is None else "thinking_budget", "not supported by the model")
        return {}
    config = _level(effort, budget, warn) if generation(model) >= 3 else _budget(effort, budget, model, warn)
    return {"includeThoughts": True, **config} if wanted else config


def _level(effort: Optional[str], budget: Optional[int], warn: Warn) -> JSON:
    if budget is not None:
        warn("thinking_budget", "sent as a thinking level")
        if budget < 0:
            return {}
        limits = {"none": 0, "low": 2048, "medium": 10000}
        effort = next((word for word, most in limits.items() if budget <= most), "high")
    elif effort == "none":
        warn("reasoning_effort", "cannot be switched off: sent as minimal")
    return {"thinkingLevel": EFFORTS[str(effort)].level}


def _budget(effort: Optional[str], budget: Optional[int], model: str, warn: Warn) -> JSON:
    wanted = EFFORTS[str(effort)].budget if budget is None else budget
    least, most = (128, 32768) if "pro" in model else (0, 24576)
    given = wanted if wanted == -1 else max(least, min(most, wanted))
    if given != wanted:
        warn("reasoning_effort" if budget is None else "thinking_budget", f"clamped to {given}")
    return {"thinkingBudget": given}


def nearer(body: JSON, error: UpstreamError) -> Optional[JSON]:
    """Give the same question with a thinking level the model has, if it was refused for the level; else None."""
    config = (body.get("generationConfig") or {}).get("thinkingConfig") or {}
    level = NEAREST.get(str(config.get("thinkingLevel")))
    if level is None or error.provider_status != 400 or not re.search(r"thinking.?level", error.message, re.IGNORECASE):
        return None
    return _canonical.merged(body, {"generationConfig": {"thinkingConfig": {"thinkingLevel": level}}})
