"""Says which web pages may ask: loopback ones and desktop apps; refuses the others before anything is read.

A page on any site can send requests to this machine, and without a preflight too (forms, images, text/plain).
So a foreign Origin is refused by name, and so is a foreign Host: a name that an attacker's DNS has just made
to mean this machine is a page's own origin, and its Host is then the only thing that tells.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, ClassVar, List, Mapping, Optional

from providers import Options, Provider

from . import Handler, Plugin, Refusal, Request, Response

_OURS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?"
    r"|(?:app|file|tauri|vscode-webview)://[A-Za-z0-9._-]*",
    re.IGNORECASE | re.ASCII,
)
_LOOPBACK_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
ALLOWED = ("content-type", "authorization")  # by name: `*` would not cover the second
MOST_ASKED = 64  # headers a preflight may ask for; SDKs in a browser ask for a dozen
EXPOSED = "x-request-id, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, x-llmproxy-warnings"


class Cors(Plugin):
    options: ClassVar[Options] = {
        "origins": ((), "More origins that may ask, like https://chat.example.com."),
        "hosts": ((), "More names this proxy is known by on this machine, like proxy.example.com."),
    }
    order = 10

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.origins = frozenset(origin.lower().rstrip("/") for origin in options["origins"])
        self.hosts = frozenset(host.lower() for host in options["hosts"])
        if "*" in self.origins:
            raise ValueError("origins: name them one by one; * would let every page on the web ask")

    def handle(self, request: Request, inner: Handler) -> Response:
        self.check_host(request)
        origin = self.check_origin(request)
        if request.method == "OPTIONS" and origin and "access-control-request-method" in request.fields:
            return preflight(request, origin)
        response = inner(request)
        response.headers.append(("Vary", "Origin"))
        if origin:
            response.headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", EXPOSED)]
        return response

    def check_host(self, request: Request) -> None:
        """Refuse a name that is not ours, on an address that only this machine can reach."""
        host = request.header("host")
        if not is_loopback(request.local) or _LOOPBACK_HOST.fullmatch(host):
            return
        if re.sub(r":[0-9]{1,5}$", "", host.lower()) not in self.hosts:
            raise Refusal(
                421, "this is not the host you are looking for: see [plugins.cors] hosts", code="foreign_host"
            )

    def check_origin(self, request: Request) -> Optional[str]:
        """Give the origin if it may ask, None if a client without one asks; refuse all others.

        What is public is served to anybody, but no foreign page can read it.
        """
        lines = request.fields.all("origin")
        if not lines:
            if request.header("sec-fetch-site") == "cross-site" and not request.public:
                raise foreign()
            return None
        if len(lines) == 1 and (_OURS.fullmatch(lines[0]) or lines[0].lower() in self.origins):
            return lines[0]
        if request.public and request.method in ("GET", "HEAD"):
            return None
        raise foreign()


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach an address; one that is not known is taken as such."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def foreign() -> Refusal:
    told = "this page may not ask here: see [plugins.cors] origins"
    return Refusal(403, told, {"Vary": "Origin"}, code="foreign_origin")


def preflight(request: Request, origin: str) -> Response:
    """Grant what an allowed page asks leave for; never forwarded, and no token is needed."""
    asked: List[str] = [name.strip(" \t") for name in request.header("access-control-request-headers").split(",")]
    granted = [*ALLOWED, *(n.lower() for n in asked[:MOST_ASKED] if _HEADER.fullmatch(n) and n.lower() not in ALLOWED)]
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": ", ".join(granted),
        "Access-Control-Max-Age": "86400",
        "Vary": "Origin, Access-Control-Request-Headers",
    }
    if request.header("access-control-request-private-network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return Response(204, headers)
