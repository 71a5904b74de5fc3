"""Logs one line per request, when it has ended: never a key, a token or a prompt."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import ClassVar

from providers import Options

from . import JSON, Handler, Plugin, Request, Response
from ._logging import tell

log = logging.getLogger("llmproxy.access")

TOKENS = (("tokens_in", "prompt_tokens"), ("tokens_out", "completion_tokens"))
LEFT = 499  # in place of a status: the client did not wait for the end
#: headers whose values are nobody's business
SECRET = ("authorization", "cookie", "key", "secret", "token")


class AccessLog(Plugin):
    options: ClassVar[Options] = {}
    order = 0
    blocks = False

    def handle(self, request: Request, inner: Handler) -> Response:
        if not log.isEnabledFor(logging.INFO):
            return inner(request)
        begun = time.monotonic()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("request headers", extra={"fields": {"id": request.id, "headers": masked(request)}})
        request.scope.add(partial(write, request, begun))

        def note(response: Response) -> None:
            request.notes["status"] = response.status

        return inner(request).then(note)


def write(request: Request, begun: float) -> None:
    """Log a request."""
    tell(log, "request", line(request, begun, time.monotonic()))


def line(request: Request, begun: float, now: float) -> JSON:
    """Say of a request what its owner may read over somebody's shoulder."""
    notes = request.notes
    told = {
        "id": request.id,
        "user": request.user or request.address,
        "method": request.method,
        "route": notes.get("route") or request.path,
    }
    if "model" in notes:
        told["model"] = notes["model"]
    if request.scope.left or "status" in notes:
        told["status"] = LEFT if request.scope.left else notes["status"]
    if "first_byte" in notes:
        told["first_ms"] = _ms(notes["first_byte"] - begun)
    told["ms"] = _ms(now - begun)
    usage = notes.get("usage")
    if usage:
        for name, field in TOKENS:
            if usage.get(field) is not None:
                told[name] = usage[field]
    if "trouble" in notes:
        told["trouble"] = notes["trouble"]
    return told


def _ms(seconds: float) -> float:
    return int(seconds * 10_000 + 0.5) / 10


def masked(request: Request) -> JSON:
    """Give the headers with their secrets masked."""
    return {
        name: "***" if any(word in name.lower() for word in SECRET) else value for name, value in request.fields.pairs
    }
