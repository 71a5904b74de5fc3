"""Passes /ollama/*, /lmstudio/*, /v1/* and every provider's own name on to its server, untouched but for the key."""

from __future__ import annotations

from contextlib import closing
from typing import Any, ClassVar, Dict, Generator, List, Mapping, Tuple

from providers import Options, Provider
from providers._http import end_to_end, of_one_connection

from . import Handler, Plugin, Request, Response, Waiting, late

#: what a client's own credentials are sent in: they are for us, and never travel on
CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie")
#: what a browser says of the page that asks: that is judged here, and an upstream would refuse pages we allow
PAGE = ("origin", "referer", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user")
UNIFIED = "unified"
#: what is said anew for the upstream's connection
REFRAMED = ("host", "content-length")
OURS = (*CREDENTIALS, *PAGE, *REFRAMED)


class Passthrough(Plugin):
    options: ClassVar[Options] = {
        "v1": ("lmstudio", "The provider whose /v1 is served at /v1, or unified: what is served at /llm/v1."),
    }
    order = 70
    blocks = False

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.v1 = options["v1"]
        if self.v1 not in (*upstream.names, UNIFIED, self.options["v1"][0]):
            raise ValueError(f"v1: no provider {self.v1!r}; there are {UNIFIED}, {', '.join(upstream.names)}")

    def routes(self) -> Mapping[str, Handler]:
        routes: Dict[str, Handler] = {f"* /{name}/*": self.passed for name in self.upstream.names}
        if self.v1 in self.upstream.names:
            routes["* /v1/*"] = self.passed_to_v1
        return routes

    def aliases(self) -> Mapping[str, str]:
        return {"/v1": "/llm/v1"} if self.v1 == UNIFIED else {}

    def passed(self, request: Request) -> Response:
        return self.relayed(request, request.target)

    def passed_to_v1(self, request: Request) -> Response:
        return self.relayed(request, f"/{self.v1}{request.target}")

    @late
    def relayed(self, request: Request, target: str) -> Waiting[Response]:
        """Send the request on and give the answer as it comes, whatever its status.

        One that breaks off before a byte of its body has come can still be told as trouble.
        """
        fields = end_to_end(request.fields, OURS)
        exchange = self.upstream.relay(request.method, target, fields, request.body(), request.scope)
        try:
            yield from exchange.head()
            whole = exchange.at_once()
            if whole is not None:
                return Response(exchange.status, told_of(exchange), whole)
            blocks = exchange.blocks()
            first = next(blocks, b"")
        except BaseException:
            exchange.close()
            raise
        return Response(exchange.status, told_of(exchange), flowing(exchange, first, blocks))


def told_of(exchange: Any) -> List[Tuple[str, str]]:
    """Give an answer's fields, but not what it says to browsers about other sites: whom we serve is ours to say."""
    own = of_one_connection(exchange.fields, ("content-length",) if exchange.status == 204 else ())  # it has no body
    return [
        (name, value)
        for name, value, lower in exchange.fields.lines
        if lower not in own and not lower.startswith("access-control-")
    ]


def flowing(exchange: Any, first: bytes, blocks: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    with closing(exchange), closing(blocks):
        yield first
        yield from blocks
