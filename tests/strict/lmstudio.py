"""An LM Studio that takes only what its documentation names, in the shapes it names; OpenAI's stand-in does the rest.

It thinks aloud on `think` (in `reasoning` for models named gpt-oss, else in `reasoning_content`), numbers its calls,
spells the names of tools in its own way, and puts its errors as it likes: as a text, some with the status 200.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from strict import openai
from strict.openai import FLAG, OBJECT, TEXT, Refused, Said, between, by, demand, each, kind, one_of, record, typed
from upstream import Asked, Reply, json_reply

JSON = Dict[str, Any]
MODELS = ("qwen/qwen3-8b", "openai/gpt-oss-20b", "text-embedding-nomic-embed-text-v1.5")

TEXTS = openai.text_or(each(by("type", {"text": typed({"text": TEXT})})))
IMAGE = record({"url": openai.matching(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/]+=*")}, {"detail": TEXT})
PARTS = {"text": typed({"text": TEXT}), "image_url": typed({"image_url": IMAGE})}
CALL = typed({"id": TEXT, "function": record({"name": openai.NAME, "arguments": TEXT})})
MESSAGE = by(
    "role",
    {
        "system": record({"role": TEXT, "content": TEXTS}),
        "user": record({"role": TEXT, "content": openai.text_or(each(by("type", PARTS)))}),
        "assistant": record({"role": TEXT, "content": TEXTS}, {"tool_calls": each(CALL)}),
        "tool": record({"role": TEXT, "tool_call_id": TEXT, "content": TEXTS}),
    },
)
FUNCTION = record({"name": openai.NAME, "parameters": OBJECT}, {"description": TEXT, "strict": FLAG})
SCHEMA = record({"name": openai.NAME, "schema": OBJECT}, {"strict": FLAG, "description": TEXT})
CHAT = record(
    {"model": TEXT, "messages": each(MESSAGE)},
    {
        "draft_model": TEXT,
        "frequency_penalty": between(-2, 2),
        "logit_bias": OBJECT,
        "max_tokens": between(1, 10**6, int),
        "presence_penalty": between(-2, 2),
        "reasoning_effort": one_of("none minimal low medium high xhigh max"),
        "repeat_penalty": between(0, 10),
        "response_format": by("type", {"json_schema": typed({"json_schema": SCHEMA})}),
        "seed": kind(int),
        "stop": openai.text_or(each(TEXT)),
        "stream": FLAG,
        "stream_options": record({"include_usage": FLAG}),
        "temperature": between(0, 2),
        "tool_choice": openai.MODE,
        "tools": each(typed({"function": FUNCTION})),
        "top_k": kind(int),
        "top_p": between(0, 1),
        "ttl": kind(int),
    },
)
EMBEDDINGS = record(
    {"model": TEXT, "input": openai.text_or(each(TEXT, most=2048))},
    {"dimensions": kind(int), "encoding_format": one_of("float")},
)


def check_model(model: str) -> None:
    if model not in MODELS:
        raise Refused("No models loaded. Please load a model in the developer page.", "model", "model_not_found", 400)


def answer_chat(body: JSON) -> Reply:
    CHAT(body, "")
    check_model(body["model"])
    demand("stream_options" not in body or body.get("stream"), "only with stream", "stream_options")
    demand("tools" in body or "tool_choice" not in body, "only with tools", "tool_choice")
    openai.check_results(body["messages"])
    names = [tool["function"]["name"] for tool in body.get("tools", ())]
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    one = openai.said(body, body["messages"], names, schema)
    about = openai.last_asked(body["messages"])
    calls = one.calls or required(body, names)
    one = one._replace(thought=f"Thinking about: {about}" if openai.has("think", about) else "", calls=calls)
    return streamed(body, one) if body.get("stream") else json_reply(whole(body, one))


def required(body: JSON, names: List[str]) -> List[Tuple[str, str, str]]:
    must = body.get("tool_choice") == "required" and body["messages"][-1]["role"] == "user"
    return [("", names[0], "{}")] if must else []


def spelled(name: str) -> str:
    """Spell the name of a tool as some versions do."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", name).lower()


def call_of(at: int, call: Tuple[str, str, str]) -> JSON:
    return {"type": "function", "id": str(365174485 + at), "function": {"name": spelled(call[1]), "arguments": call[2]}}


def head(body: JSON, object_: str) -> JSON:
    model = body["model"]
    return {"id": "chatcmpl-lm", "object": object_, "created": openai.NOW, "model": model, "system_fingerprint": model}


def usage_of(one: Said) -> JSON:
    after = openai.words([one.text, [call[1:] for call in one.calls], one.thought])
    details = {"reasoning_tokens": openai.words(one.thought)}
    told = {"prompt_tokens": one.asked, "completion_tokens": after, "total_tokens": one.asked + after}
    return {**told, "completion_tokens_details": details}


def whole(body: JSON, one: Said) -> JSON:
    calls = [call_of(at, call) for at, call in enumerate(one.calls)]
    message: JSON = {"role": "assistant", "content": "" if calls else one.text, "tool_calls": calls}
    if one.thought:
        message[reasoning(body)] = one.thought
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish(one)}
    return {**head(body, "chat.completion"), "choices": [choice], "usage": usage_of(one), "stats": {}}


def reasoning(body: JSON) -> str:
    return "reasoning" if "gpt-oss" in body["model"] else "reasoning_content"


def finish(one: Said) -> str:
    return "tool_calls" if one.calls else one.finish


def streamed(body: JSON, one: Said) -> Reply:
    deltas: List[JSON] = [{reasoning(body): piece} for piece in openai.pieces(one.thought)]
    deltas += [{"content": piece} for piece in openai.pieces("" if one.calls else one.text)]
    for at, made in enumerate(one.calls):
        call = {**call_of(at, made), "index": at}
        deltas.append({"tool_calls": [{**call, "function": {**call["function"], "arguments": ""}}]})
        for piece in openai.pieces(made[2]):
            function = {"name": "", "arguments": piece}
            deltas.append({"tool_calls": [{"index": at, "type": "function", "function": function}]})
    deltas[0]["role"] = "assistant"
    choices: List[List[JSON]] = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": finish(one)}])
    chunks = [{**head(body, "chat.completion.chunk"), "choices": choice} for choice in choices]
    if "stream_options" in body:
        chunks.append({**head(body, "chat.completion.chunk"), "choices": [], "usage": usage_of(one)})
    return openai.events([f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"], one)


def answer_embeddings(body: JSON) -> Reply:
    EMBEDDINGS(body, "")
    check_model(body["model"])
    inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = [{"object": "embedding", "embedding": openai.vector(one), "index": at} for at, one in enumerate(inputs)]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return json_reply({"object": "list", "data": data, "model": body["model"], "usage": usage})


def answer_models(_: Any) -> Reply:
    items = [{"id": id_, "object": "model", "owned_by": "organization_owner"} for id_ in MODELS]
    return json_reply({"data": items, "object": "list"})


def answer_native_models(_: Any) -> Reply:
    items = []
    for key in MODELS:
        kind_ = "embedding" if "embed" in key else "llm"
        loaded = [] if kind_ == "embedding" else [{"id": key, "config": {"context_length": 8192}}]
        about = {"publisher": key.partition("/")[0], "loaded_instances": loaded, "max_context_length": 40960}
        items.append({"type": kind_, "key": key, **about})
    return json_reply({"models": items})


ROUTES: Mapping[Tuple[str, str], Callable[[Any], Reply]] = {
    ("POST", "/v1/chat/completions"): answer_chat,
    ("POST", "/v1/embeddings"): answer_embeddings,
    ("GET", "/v1/models"): answer_models,
    ("GET", "/api/v1/models"): answer_native_models,
}


def answer(asked: Asked, key: Optional[str] = None) -> Reply:
    """Answer a request; with a `key`, only to those who have it."""
    if key and asked.headers.get("authorization") != f"Bearer {key}":
        return json_reply({"error": {"message": "Invalid API token", "type": "invalid_request_error"}}, 401)
    route = ROUTES.get((asked.method, asked.path))
    if route is None:
        return json_reply({"error": f"Unexpected endpoint or method. ({asked.method} {asked.target})"})
    try:
        return route(asked.json)
    except Refused as refused:
        return json_reply({"error": refused.error}, refused.status)
    except openai.Failing as failing:
        return json_reply({"error": f"Told to answer {failing.status}."}, failing.status)
