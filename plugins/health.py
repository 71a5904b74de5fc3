"""Serves GET /health: whether the proxy is up, without asking any upstream."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Mapping

from providers import Options, Provider

from . import VERSION, Handler, Plugin, Request, Response


class Health(Plugin):
    options: ClassVar[Options] = {}
    order = 60
    blocks = False
    public = True

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.started = time.monotonic()

    def routes(self) -> Mapping[str, Handler]:
        return {"GET /health": self.tell}

    def tell(self, request: Request) -> Response:
        if "application/json" in request.header("accept").lower():
            uptime = round(time.monotonic() - self.started, 3)
            return Response.of({"status": "ok", "version": VERSION, "uptime_s": uptime})
        return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, b"ok")
