"""LM Studio on this machine, or wherever it is served; asked like OpenAI, with what its documentation names.

The names of tools may come back in another spelling than they were declared in, so they are matched without regard
to case and separators.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar, Iterable, List, Mapping, Optional, Tuple

from . import JSON, Call, Options, Parts, Provider, Scope, UpstreamError, Warn, _canonical, _openai, _transport

#: fields that go out as they came
SAME = (
    "draft_model",
    "frequency_penalty",
    "logit_bias",
    "model",
    "presence_penalty",
    "reasoning_effort",
    "repeat_penalty",
    "seed",
    "stop",
    "temperature",
    "top_k",
    "top_p",
    "ttl",
)
TRANSLATED = {
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "n",
    "modalities",
    "provider",
    "provider_options",
    "response_format",
    "stream",
    "stream_options",
    "tool_choice",
    "tools",
    "type",
}
#: what changes the shape of an answer
REFUSED = ("audio", "prediction", "web_search_options")
#: what says nothing, and needs no warning when it is dropped
NEUTRAL: JSON = {"logprobs": False, "store": False, "metadata": {}, "parallel_tool_calls": True}

MOST_INPUTS = 2048  # that are embedded by one request


def question(chat: JSON, warn: Warn) -> JSON:
    """Translate a chat."""
    _refuse(chat)
    _canonical.warn_dropped(
        {key: value for key, value in chat.items() if value != NEUTRAL.get(key)}, {*SAME, *TRANSLATED}, warn, "lmstudio"
    )
    body = {key: chat[key] for key in SAME if chat.get(key) is not None}
    body["messages"] = [_message(message, at) for at, message in enumerate(chat["messages"])]
    body.update(_tools(chat, warn))
    cap = _canonical.max_tokens(chat)
    if cap is not None:
        body["max_tokens"] = cap
    format_ = _format(chat)
    if format_:
        body["response_format"] = format_
    if chat.get("stream"):
        body.update(stream=True, stream_options={"include_usage": True})
    return _canonical.merged(body, _canonical.own_options(chat, "lmstudio"))


def _refuse(chat: JSON) -> None:
    for field in REFUSED:
        if chat.get(field) is not None:
            raise _canonical.unsupported(field, f"{field} is not supported by lmstudio")
    if (chat.get("n") or 1) > 1:
        raise _canonical.unsupported("n", "n above 1 is not supported by lmstudio")
    if set(chat.get("modalities") or ()) - {"text"}:
        raise _canonical.unsupported("modalities", "only text is supported by lmstudio")


def _format(chat: JSON) -> Optional[JSON]:
    """Give the format; `json_object` is refused by many versions, a schema of any object is not."""
    format_ = chat.get("response_format") or {}
    if format_.get("type") == "json_object":
        return {"type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}}}
    schema = _canonical.json_schema(chat)
    if schema is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "output", **format_["json_schema"], "schema": schema}}


def _tools(chat: JSON, warn: Warn) -> JSON:
    """Give the tools that may be called, and whether one must be."""
    functions = _canonical.functions_of(chat)
    if not functions:
        return {}
    choice = _canonical.tool_choice(chat)
    if choice and choice.names is not None:
        functions = [function for function in functions if function["name"] in choice.names]
        if not functions:
            raise UpstreamError(
                400, "tool_choice names no tool that is there", code="invalid_value", param="tool_choice"
            )
        if chat["tool_choice"].get("type") == "function":
            warn("tool_choice", "sent as required with only that tool")
    nothing = {"type": "object", "properties": {}}
    tools = [
        {"type": "function", "function": {"parameters": nothing, **_openai.outside_pockets(function)}}
        for function in functions
    ]
    return {"tools": tools, "tool_choice": choice.mode} if choice else {"tools": tools}


def _message(given: JSON, at: int) -> JSON:
    sent = _openai.message(given)
    sent.pop("name", None)
    role, refusal = sent.get("role"), sent.pop("refusal", None)
    if role == "function":
        raise _canonical.unsupported(
            f"messages[{at}].role", "messages of the role function are not supported by lmstudio"
        )
    if role == "developer":
        sent["role"] = "system"
    content = sent.get("content")
    if isinstance(content, list):
        sent["content"] = [_part(part, f"messages[{at}].content[{n}]") for n, part in enumerate(content)]
    elif not content:
        sent["content"] = refusal or ""  # null is refused, beside tool calls too
    return sent


def _part(part: JSON, path: str) -> JSON:
    """Translate a part; a text in a file is as good as a text."""
    kind = part.get("type")
    if kind in ("text", "refusal"):
        return {"type": "text", "text": part[kind]}
    if kind == "image_url":
        return {"type": kind, "image_url": part[kind]}
    file = _canonical.media(str((part.get("file") or {}).get("file_data") or ""))
    if kind == "file" and file and file.mime.startswith("text/"):
        text = _canonical.decoded(file.data, f"{path}.file.file_data").decode("utf-8", "replace")
        return {"type": "text", "text": text}
    raise _canonical.unsupported(f"{path}.type", f"{kind} is not supported by lmstudio")


class Spelling:
    """The names of the tools that were declared, by what is left of them without case and separators."""

    def __init__(self, chat: JSON) -> None:
        names = [_canonical.name_of(tool) for tool in chat.get("tools") or ()]
        self._names = {_letters(name): name for name in reversed(names)}
        self._names.update(zip(names, names))

    def __call__(self, name: str) -> str:
        return self._names.get(name) or self._names.get(_letters(name), name)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def embedding_fields(chat: JSON, warn: Warn) -> JSON:
    """Give the fields that ask for embeddings."""
    handled = ("model", "input", "dimensions", "encoding_format", "provider", "provider_options", "type")
    _canonical.warn_dropped(chat, handled, warn, "lmstudio")
    fields = {"model": chat.get("model"), "input": _canonical.texts_of(chat), "dimensions": chat.get("dimensions")}
    told = {key: value for key, value in fields.items() if value is not None}
    return _canonical.merged(told, _canonical.own_options(chat, "lmstudio"))


def native_models(name: str, document: JSON) -> List[JSON]:
    """Translate LM Studio's own list."""
    return [native_model(item) for item in _openai.object_of(document, name)["models"] if item.get("key")]


def native_model(item: JSON) -> JSON:
    """Translate an entry of LM Studio's own list; the context is the loaded one, else the longest there can be."""
    loaded = [one.get("config") or {} for one in item.get("loaded_instances") or ()]
    lengths = [config["context_length"] for config in loaded if config.get("context_length")]
    told = {
        "id": item.get("key"),
        "object": "model",
        "created": 0,
        "owned_by": item.get("publisher") or "organization_owner",
        "type": item.get("type"),
        "context_length": max(lengths, default=item.get("max_context_length")),
        "capabilities": item.get("capabilities"),
    }
    return {key: value for key, value in told.items() if value is not None}


class LMStudio(Provider):
    """Asks `/v1`, and for its models LM Studio's own API."""

    blocks = False
    options: ClassVar[Options] = {
        **_transport.OPTIONS,
        "port": (1234, "The port of this machine where it listens."),
        "base_url": ("", "Where it lives, if it is not this machine.", "LMSTUDIO_BASE_URL"),
        "api_key": ("", "Its key, if it wants one.", "LMSTUDIO_API_KEY"),
    }

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        url, key = options["base_url"] or f"http://127.0.0.1:{options['port']}", options["api_key"]
        headers = [("Authorization", f"Bearer {key}")] if key else []
        worded = partial(_openai.worded, name)
        self.door = _transport.Door(name, url, options, worded, headers=headers)
        self.native = _transport.Door(
            name, self.door.root, {**options, "retries": 0}, worded, version="/api/v1", headers=headers
        )

    def chat(self, call: Call) -> Parts:
        spell = Spelling(call.chat)
        with self.door.send("POST", "/chat/completions", call.scope, question(call.chat, call.warn)) as exchange:
            if call.streams:
                yield from _openai.chunks(_openai.events(exchange.blocks()), self.name, call.model, spell)
            else:
                yield _openai.answer((yield from exchange.document()), self.name, call.model, spell)

    def embed(self, call: Call) -> JSON:
        ask = partial(self.door.ask, "POST", "/embeddings", call.scope)
        questions = _openai.embedding_questions(embedding_fields(call.chat, call.warn), MOST_INPUTS)
        return _openai.embeddings(questions, ask, self.name)

    def models(self) -> List[JSON]:
        """List the models of its own list, which tells more; older versions have only OpenAI's."""
        try:
            return self.native.ask("GET", "/models", Scope(), partial(native_models, self.name))
        except UpstreamError as error:
            if error.code == "provider_unreachable":
                raise
            return self.door.ask("GET", "/models", Scope(), partial(_openai.models, name=self.name))

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        return self.door.relay(method, path, fields, body, scope)

    def close(self) -> None:
        self.door.close()
        self.native.close()
