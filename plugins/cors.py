"""Says which web pages may ask: loopback ones and desktop apps; refuses the others before anything is read.

A page on any site can send requests to this machine, and without a preflight too (forms, images, text/plain).
So a foreign Origin is refused by name, and so is a foreign Host: a name that an attacker's DNS has just made
to mean this machine is a page's own origin, and its Host is then the only thing that tells.

Browsers name the Origin of whatever is not GET or HEAD, and of what a script wants to read. The rest (images,
links, frames) has none, but says `Sec-Fetch-Site` to an address of this machine, which no page can change.
"""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar, List, Mapping, Optional, Tuple

from providers import Options, Provider

from . import Handler, Plugin, Refusal, Request, Response
from ._addresses import is_loopback

#: spelled as browsers do: whatever differs is no browser's
_OURS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?"
    r"|(?:app|file|tauri|vscode-webview)://[A-Za-z0-9._-]*",
    re.ASCII,
)
_LOOPBACK_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
_PORT = re.compile(r":[0-9]{1,5}\Z", re.ASCII)
_HEADER = re.compile(r"[a-z0-9!#$%&'+.^_`|~-]{1,64}", re.ASCII)  # a token, but not `*`
_AN_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:\[\]-]*)/?", re.ASCII)
_A_HOST = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)

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
    blocks = False

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.origins = frozenset(name for text in options["origins"] for name in spellings(text))
        self.hosts = frozenset(known_host(text) for text in options["hosts"])
        self.is_ours = functools.lru_cache(maxsize=256)(self._is_ours)  # most clients name the same few

    def handle(self, request: Request, inner: Handler) -> Response:
        self.check_host(request)
        origin = self.check_origin(request)
        if origin and request.method == "OPTIONS" and "access-control-request-method" in request.fields:
            return preflight(request, origin)

        def tell(response: Response) -> None:
            response.headers = told(response.headers, origin)

        return inner(request).then(tell)

    def check_host(self, request: Request) -> None:
        """Refuse a name that is not ours, on an address that only this machine can reach."""
        if not self.is_ours(request.local, request.header("host")):
            raise refused(421, "this is not the host you are looking for: see [plugins.cors] hosts", "foreign_host")

    def _is_ours(self, local: str, host: str) -> bool:
        host = host.lower()
        if is_loopback(local) is False or _LOOPBACK_HOST.fullmatch(host):  # one not known is taken as such
            return True
        return not self.hosts.isdisjoint([host, _PORT.sub("", host)])

    def check_origin(self, request: Request) -> Optional[str]:
        """Give the origin if it may ask, None if a client without one asks; refuse all others.

        What is public is served to anybody, but no foreign page can read it.
        """
        origins = request.fields.all("origin")
        if len(origins) == 1 and (_OURS.fullmatch(origins[0]) or origins[0] in self.origins):
            return origins[0]
        harmless = request.public and request.method in ("GET", "HEAD") and len(origins) < 2
        if (origins or request.header("sec-fetch-site") == "cross-site") and not harmless:
            raise refused(403, "this page may not ask here: see [plugins.cors] origins", "foreign_origin")
        return None


def spellings(text: str) -> List[str]:
    """Give how a configured origin may be spelled: browsers lower the case of some, but not of an app's."""
    origin = _AN_ORIGIN.fullmatch(text)
    if not origin:
        raise ValueError(f"origins: name them one by one, like https://chat.example.com, not {text!r}")
    return [origin.group(1), origin.group(1).lower()]


def known_host(text: str) -> str:
    if not _A_HOST.fullmatch(text.lower()):
        raise ValueError(f"hosts: name them one by one, like proxy.example.com, not {text!r}")
    return text.lower()


def refused(status: int, message: str, code: str) -> Refusal:
    return Refusal(status, message, {"Vary": "Origin"}, code=code)


def told(headers: List[Tuple[str, str]], origin: Optional[str]) -> List[Tuple[str, str]]:
    """Give an answer's headers with what a browser is to know; what others said of it is ours to say."""
    kept, varies = [], []
    for name, value in headers:
        lower = name.lower()
        if lower == "vary":
            varies += [item.strip() for item in value.split(",")]
        elif not lower.startswith("access-control-"):
            kept.append((name, value))
    kept.append(("Vary", ", ".join([*(item for item in varies if item.lower() not in ("", "origin")), "Origin"])))
    if origin:
        kept += [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", EXPOSED)]
    return kept


def preflight(request: Request, origin: str) -> Response:
    """Grant what an allowed page asks leave for; never forwarded, and no token is needed."""
    asked = request.fields.listed("access-control-request-headers")[:MOST_ASKED]
    granted = dict.fromkeys([*ALLOWED, *filter(_HEADER.fullmatch, asked)])
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
