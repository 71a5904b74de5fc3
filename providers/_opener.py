"""urllib's part of the way to an upstream: which proxy and which scheme. What goes over the wire is `_transport`'s."""

from __future__ import annotations

import functools
import ipaddress
import urllib.request
from typing import Any, Callable, Mapping, Optional

from . import Scope, _http
from ._connection import Pool, Timeouts, host_port


class Question(urllib.request.Request):
    """One request as it goes on the wire: `fields` keep their order, spelling and repetitions."""

    def __init__(  # a request has this many parts
        self, method: str, url: str, fields: _http.Pairs, body: Optional[bytes], scope: Scope, timeouts: Timeouts
    ) -> None:
        self.__dict__.update(_taken_apart(url), _data=body)
        self.headers, self.unredirected_hdrs = {}, {}
        self.method = method
        self.body = body
        self.fields = fields
        self.scope = scope
        self.timeouts = timeouts
        self.netloc: str = self.host  # of the upstream, when `host` has become a proxy's

    @property
    def tunnels(self) -> bool:
        """Tell whether urllib's ProxyHandler chose a proxy that is to connect us through."""
        return bool(getattr(self, "_tunnel_host", None))

    def bytes(self) -> bytes:
        """Give the request as it is sent."""
        lines = [f"{self.method} {self.selector} HTTP/1.1", f"Host: {self.netloc}"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        if self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
        if self.headers and not self.tunnels and self.has_header("Proxy-authorization"):
            lines.append(f"Proxy-Authorization: {self.get_header('Proxy-authorization')}")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1") + (self.body or b"")


@functools.lru_cache(maxsize=256)
def _taken_apart(url: str) -> Mapping[str, Any]:
    """Give what urllib makes of an address; the same few are asked again and again."""
    return vars(urllib.request.Request(url))  # noqa: S310  (http and https alone get that far)


class _Http(urllib.request.BaseHandler):
    """urllib's way in: has http and https answered, by connections that are kept."""

    def __init__(self, answered: Callable[[Question, Pool], Any]) -> None:
        self.pool = Pool()
        self._answered = answered

    def http_open(self, question: Question) -> Any:
        return self._answered(question, self.pool)

    https_open = http_open

    def close(self) -> None:
        self.pool.close()


class _Proxies(urllib.request.ProxyHandler):
    """The environment's proxies; what runs on this machine is never asked for through one."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:  # urllib's names
        if is_loopback(host_port(req.host, 0)[0]):
            return None
        return super().proxy_open(req, proxy, type)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def director(answered: Callable[[Question, Pool], Any]) -> urllib.request.OpenerDirector:
    """Give what opens questions by having them `answered`. No redirects, no cookies: an answer is an answer."""
    director = urllib.request.OpenerDirector()
    if urllib.request.getproxies():
        director.add_handler(_Proxies())
    director.add_handler(_Http(answered))
    return director
