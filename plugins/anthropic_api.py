"""Serves Anthropic's Messages API at /llm/v1, over every provider: messages, token counts and model lists.

Its clients are told what Anthropic would tell them, by its statuses and types of errors. Anthropic itself is asked in
the client's own words, with its betas and its version of the API. The translations are next door, in
`_anthropic_question` and `_anthropic_answer`.
"""

from __future__ import annotations

import datetime
import re
import urllib.parse
from contextlib import contextmanager
from functools import partial
from typing import Dict, Iterator, List, Mapping, Sequence

from providers import Pocket, Trouble

from . import JSON, Handler, Request, Response, Waiting, aside, late
from ._anthropic_answer import PING, answer, error_of, speak, spelled, status_of
from ._anthropic_question import COUNT, MESSAGES, Turned, question, shows_thoughts
from ._dialect import Dialect, created
from ._json import parsed, refuse, shown

PAGE, LARGEST_PAGE = 20, 1000  # models

ID = "request-id"  # where Anthropic tells the id of a request
#: headers that go with a question to Anthropic; what else begins so is about the client's own key
PASSED = ("anthropic-beta", "anthropic-version")

#: canonical field -> what clients call it here
NAMES = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "reasoning_effort": "output_config.effort",
    "thinking_budget": "thinking.budget_tokens",
    "response_format": "output_config.format",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "safety_identifier": "metadata.user_id",
}
_OF_MESSAGE = re.compile(r"messages\[(\d+)\][\w.\[\]]*")


class AnthropicAPI(Dialect):
    dialect = "anthropic"
    blocks = False
    key_headers = ("x-api-key",)
    life = PING

    def routes(self) -> Mapping[str, Handler]:
        routes: Dict[str, Handler] = {
            "POST /llm/v1/messages": self.chatted,
            "POST /llm/v1/messages/count_tokens": self.tokens,
            "GET /llm/v1/models": self.listed,
            "GET /llm/v1/models/*": self.described,
            "* /llm/v1/*": self.nothing,
            "* /llm/v1/messages/*": self.nothing,
            "HEAD /llm": greeted,
            "GET /llm/api/hello": greeted,
        }
        return {route: partial(identified, handler) for route, handler in routes.items()}

    def speaks(self, request: Request) -> bool:
        return bool(request.header("anthropic-version"))

    @late
    def chatted(self, request: Request) -> Waiting[Response]:
        body = parsed(request.json())
        turned = asked(request, body, MESSAGES)
        shows = shows_thoughts(body)
        with in_own_words(turned.origins):
            spoken = partial(answer, shows=shows), partial(speak, shows=shows)
            failed = partial(broken_off, request.id)
            return (yield from self.converse(request, turned.asked, *spoken, failed=failed))

    @aside
    def tokens(self, request: Request) -> Response:
        """Count the tokens of a question; where nobody can, the number is a guess, and the warnings say so."""
        turned = asked(request, parsed(request.json()), COUNT)
        with in_own_words(turned.origins):
            count, _ = self.counted(self.call(request, turned.asked))
        return Response.of({"input_tokens": count}, headers=request.warnings())

    @aside
    def listed(self, request: Request) -> Response:
        """List all models by pages; whose could not be had is told in the warnings."""
        models, errors = self.upstream.survey(request.scope)
        request.scope.warnings.update(errors)
        return Response.of(page_of([listing(model) for model in models], request.query), headers=request.warnings())

    @aside
    def described(self, request: Request) -> Response:
        name = urllib.parse.unquote(request.path.partition("/models/")[2])
        model = self.upstream.describe(request.call({"model": name, "_anthropic": Pocket({})}))
        return Response.of({**listing(model), **model.get("_anthropic", {}), "id": name})

    def spelled(self, event: JSON) -> bytes:
        return spelled(event)

    def error(self, trouble: Trouble) -> Response:
        headers = {**trouble.headers, **({ID: trouble.request} if trouble.request else {})}
        if trouble.code == "insufficient_quota":
            headers["x-should-retry"] = "false"
        return Response.of(error_of(trouble, trouble.request or None), status_of(trouble), headers)


def greeted(_: Request) -> Response:
    """Tell Claude Code that somebody is here, which it asks before anything else."""
    return Response.of({"message": "hello"})


def identified(handler: Handler, request: Request) -> Response:
    """Tell every answer's id where Anthropic's clients look for it; trouble tells it already."""

    def tell(response: Response) -> None:
        response.headers = [*(pair for pair in response.headers if pair[0] != ID), (ID, request.id)]

    return handler(request).then(tell)


def broken_off(id_: str, trouble: Trouble) -> bytes:
    """Write trouble under way."""
    return spelled(error_of(trouble, id_))


def asked(request: Request, body: JSON, path: str) -> Turned:
    headers = [(name, request.header(name)) for name in PASSED if request.header(name)]
    return question(body, headers, request.query, path)


@contextmanager
def in_own_words(origins: Sequence[int]) -> Iterator[None]:
    """Have trouble name its field as the client wrote it; `origins` tells of which message each canonical one is."""
    try:
        yield
    except Trouble as trouble:
        canonical = trouble.param or ""
        own = own_path(canonical, origins)
        if own != canonical:
            trouble.param, trouble.message = own, trouble.message.replace(canonical, own)
        raise


def own_path(canonical: str, origins: Sequence[int]) -> str:
    """Give a field's path in the client's words; of a message no more than which of them it is."""
    found = _OF_MESSAGE.fullmatch(canonical)
    if not found or int(found.group(1)) >= len(origins):
        return NAMES.get(canonical, canonical)
    at = origins[int(found.group(1))]
    return "system" if at < 0 else f"messages[{at}]"


# models


def listing(model: JSON) -> JSON:
    """Give what Anthropic tells of a model, as far as it is known."""
    made = datetime.datetime.fromtimestamp(created(model), datetime.timezone.utc)
    return {
        "type": "model",
        "id": model["id"],
        "display_name": model["id"],
        "created_at": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "max_input_tokens": model.get("context_length"),
        "max_tokens": None,
        "capabilities": None,
    }


def page_of(models: List[JSON], query: str) -> JSON:
    """Give the page of a list that a query asks for."""
    fields = {name: values[-1] for name, values in urllib.parse.parse_qs(query).items()}
    limit = fields.get("limit", str(PAGE))
    if not re.fullmatch("[0-9]{1,4}", limit, re.ASCII) or not 1 <= int(limit) <= LARGEST_PAGE:
        refuse("limit", f"must be between 1 and {LARGEST_PAGE}, not {shown(limit)!r}")
    ids = [model["id"] for model in models]
    for name in ("after_id", "before_id"):
        if name in fields and fields[name] not in ids:
            refuse(name, f"there is no model {shown(fields[name])!r}")
    first = ids.index(fields["after_id"]) + 1 if "after_id" in fields else 0
    last = ids.index(fields["before_id"]) if "before_id" in fields else len(models)
    if "before_id" in fields and "after_id" not in fields:
        first = max(0, last - int(limit))
        more = first > 0
    else:
        more = last - first > int(limit)
        last = min(last, first + int(limit))
    data = models[first:last]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": more, "first_id": ends[0], "last_id": ends[1]}
