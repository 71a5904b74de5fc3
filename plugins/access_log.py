"""Logs one line per request, when it has ended: never a key, a token or a prompt."""

from __future__ import annotations

import logging
import time
from typing import ClassVar

from providers import Options

from . import JSON, Handler, Plugin, Request, Response

log = logging.getLogger("llmproxy.access")

LEFT = 499  # in place of a status: the client did not wait for the end
#: headers whose values are nobody's business
SECRET = ("authorization", "cookie", "key", "secret", "token")


class AccessLog(Plugin):
    options: ClassVar[Options] = {}
    order = 0

    def handle(self, request: Request, inner: Handler) -> Response:
        if not log.isEnabledFor(logging.INFO):
            return inner(request)
        begun = time.monotonic()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("request headers", extra={"fields": {"id": request.id, "headers": masked(request)}})
        request.scope.add(lambda: log.info("request", extra={"fields": line(request, begun, time.monotonic())}))
        response = inner(request)
        request.notes["status"] = response.status
        return response


def line(request: Request, begun: float, now: float) -> JSON:
    """Say of a request what its owner may read over somebody's shoulder."""
    notes = request.notes
    usage = notes.get("usage") or {}
    told = {
        "id": request.id,
        "user": request.user or request.address,
        "method": request.method,
        "route": notes.get("route") or request.path,
        "model": notes.get("model"),
        "status": LEFT if request.scope.left else notes.get("status"),
        "first_ms": _ms(notes["first_byte"] - begun) if "first_byte" in notes else None,
        "ms": _ms(now - begun),
        "tokens_in": usage.get("prompt_tokens"),
        "tokens_out": usage.get("completion_tokens"),
        "trouble": notes.get("trouble"),
    }
    return {name: value for name, value in told.items() if value is not None}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def masked(request: Request) -> JSON:
    """Give the headers with their secrets masked."""
    return {
        name: "***" if any(word in name.lower() for word in SECRET) else value for name, value in request.fields.pairs
    }
