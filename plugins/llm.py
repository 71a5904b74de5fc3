"""Serves POST /llm: chat, embeddings, model lists and token counts over every provider."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, ClassVar, Dict, Mapping

from providers import Options, Provider

from . import JSON, Handler, Plugin, Request, Response, Waiting, late
from ._json import parsed, refuse, shown
from ._question import CHAT, checked, unpocketed
from ._stream import begun, events, flowing, sse, told, whole
from ._vectors import embedded

KINDS = ["chat", "embeddings", "models", "count_tokens"]


class Llm(Plugin):
    options: ClassVar[Options] = {
        "heartbeat": (15.0, "Seconds of an upstream's silence after which a stream says `: keep-alive`."),
    }
    order = 60
    blocks = False

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.heartbeat = options["heartbeat"]
        self.others: Dict[str, Callable[[Request, JSON], Response]] = {
            "embeddings": self.embedded,
            "count_tokens": self.counted,
        }

    def routes(self) -> Mapping[str, Handler]:
        return {"POST /llm": self.answer}

    @late
    def answer(self, request: Request) -> Waiting[Response]:
        """Read what is asked, and have its kind answered."""
        question = unpocketed(flattened(parsed(request.json())))
        kind = question.pop("type", "chat")
        if kind not in KINDS:
            refuse("type", f"must be one of {', '.join(KINDS)}, not {shown(kind)!r}")
        provider = self.provider(question.pop("provider", None))
        if kind != "chat":  # what is no chat waits where it asks
            yield from request.scope.aside()
        if kind == "models":
            return self.listed(request, provider)
        question["model"] = self.model(question.get("model"), provider)
        request.notes["model"] = shown(question["model"], 120)
        response = (
            (yield from self.chatted(request, question)) if kind == "chat" else self.others[kind](request, question)
        )
        response.headers += request.warnings()
        return response

    def provider(self, name: Any) -> str:
        """Give the provider that was asked for, in our spelling; "" for none."""
        if name is None:
            return ""
        if not isinstance(name, str) or name.lower() not in self.upstream.names:
            refuse("provider", f"must be one of {', '.join(self.upstream.names)}, not {shown(name)!r}")
        return name.lower()

    def model(self, model: Any, provider: str) -> str:
        """Give the model as `provider/model` or as an alias; a provider's name already there is not doubled."""
        if model is None:
            refuse("model", "is required", "missing_required_parameter")
        if not isinstance(model, str):
            refuse("model", "must be a string", "invalid_type")
        if not model.strip():
            refuse("model", "must not be empty")
        if provider:
            return model if model.lower().startswith(provider + "/") else f"{provider}/{model}"
        if not self.upstream.knows(model):
            names = ", ".join(self.upstream.names)
            refuse(
                "provider",
                f"is required, or a model named provider/model (providers: {names})",
                "missing_required_parameter",
            )
        return model

    def chatted(self, request: Request, question: JSON) -> Waiting[Response]:
        call = request.call(checked(question, CHAT, ("messages",)))
        parts = self.upstream.chat(call)
        if call.streams:
            with_usage = (call.chat.get("stream_options") or {}).get("include_usage") is not False
            speak = partial(events, with_usage=with_usage)
            stream = yield from begun(parts, self.heartbeat)
            return sse(flowing(stream, speak, told, self.heartbeat, request.notes))
        answer = yield from whole(parts)
        request.notes["usage"] = answer.get("usage")
        answer["provider"] = provider_of(answer)
        answer["content"] = text_of(answer)
        return Response.of(answer)

    def embedded(self, request: Request, question: JSON) -> Response:
        answer = embedded(self.upstream, request, question)
        answer["provider"] = provider_of(answer)
        return Response.of(answer)

    def listed(self, request: Request, provider: str) -> Response:
        models, errors = self.upstream.survey(request.scope, provider)
        answer: JSON = {"object": "list", "data": models}
        if provider:
            answer["provider"] = provider
        if errors:
            answer["errors"] = errors
        return Response.of(answer)

    def counted(self, request: Request, question: JSON) -> Response:
        call = request.call(checked(question, CHAT, ("messages",)))
        tokens = self.upstream.count_tokens(call)
        return Response.of({"object": "response.input_tokens", "input_tokens": tokens, "model": call.model})


def flattened(document: JSON) -> JSON:
    """Put `options` and the top level into one, without nulls: a name in both must have one value."""
    options = document.pop("options", None)
    if options is None:
        options = {}
    if not isinstance(options, dict):
        refuse("options", "must be an object", "invalid_type")
    found = {name: value for name, value in options.items() if value is not None}
    for name, value in document.items():
        if value is not None and found.setdefault(name, value) != value:
            refuse(f"options.{shown(name)}", "stands at the top level as well, with another value")
    return found


def provider_of(answer: JSON) -> str:
    """Give the provider that an answer's `provider/model` names."""
    return str(answer.get("model") or "").partition("/")[0]


def text_of(answer: JSON) -> str:
    """Give the text of the first choice; "" when there is none."""
    for choice in answer.get("choices") or ():
        return str((choice.get("message") or {}).get("content") or "")
    return ""
