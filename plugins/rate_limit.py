"""Limits how often each user, or else each client address, may ask.

Every answer on a limited route tells how its bucket stands, in the manner of the IETF's draft on RateLimit
fields: `RateLimit-Limit` is what a full bucket holds, `RateLimit-Remaining` how many requests would be
answered now, `RateLimit-Reset` the seconds until the bucket is full. A refusal costs nothing, and its
`Retry-After` is true: after that many seconds a request is answered, and a second earlier it is not.
"""

from __future__ import annotations

import time
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Mapping, Sequence, Union

from providers import Options, Provider

from . import Finding, Handler, Plugin, Refusal, Request, Response
from ._addresses import neighbourhood
from ._buckets import Buckets, Budget, Level
from ._redis import Place, RedisBuckets, StoreError

SECOND = 10**9  # in nanoseconds
LONGEST = 100 * 365 * 86400 * SECOND  # that a bucket may take to be full


class RateLimit(Plugin):
    options: ClassVar[Options] = {
        "rate": (600.0, "Requests a minute, on average."),
        "burst": (120, "Requests that may come at once after a quiet time."),
        "by": (
            "user",
            "Who is counted: user (the token's sub, else the address), ip, or both: each has to have some left.",
        ),
        "execute_rate": (60.0, "Requests a minute to /execute, which are counted apart from all others."),
        "execute_burst": (20, "Requests to /execute that may come at once."),
        "store": (
            "memory",
            "Where it is counted: memory, which workers share, or redis://:password@host:6379/0, which proxies share.",
        ),
    }
    order = 30

    def __init__(
        self, options: Mapping[str, Any], upstream: Provider, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        super().__init__(options, upstream)
        self.by = one_of("by", options["by"], ["user", "ip", "both"])
        self.budgets = {
            "execute": budget("execute_", options["execute_rate"], options["execute_burst"]),
            "all": budget("", options["rate"], options["burst"]),
        }
        self.store = None if options["store"] == "memory" else RedisBuckets(Place.of(options["store"]))
        self.blocks = self.store is not None
        self.buckets: Union[Buckets, RedisBuckets] = self.store or Buckets(clock=clock)

    def handle(self, request: Request, inner: Handler) -> Response:
        if request.public or request.method == "OPTIONS":
            return inner(request)
        what = "execute" if f"{request.path}/".startswith("/execute/") else "all"
        try:
            level = self.buckets.take(self.keys(request, what), self.budgets[what])
        except StoreError:
            message = "requests cannot be counted now, so none is let in: try again later"
            raise Refusal(503, message, {"Retry-After": "1"}, code="rate_limit_unavailable") from None
        told = headers(self.budgets[what], level)
        if level.wait:
            seconds = whole_seconds(level.wait)
            message = f"too many requests: try again in {seconds} s"
            raise Refusal(429, message, {**told, "Retry-After": str(seconds)}, code="rate_limit_exceeded")

        def tell(response: Response) -> None:
            theirs = [pair for pair in response.headers if not pair[0].lower().startswith("ratelimit")]
            response.headers = [*theirs, *told.items()]

        return inner(request).then(tell)

    def follow(self, before: Plugin) -> None:
        if not self.store and not getattr(before, "store", None):
            self.buckets = getattr(before, "buckets", self.buckets)

    def checks(self) -> Iterator[Finding]:
        if self.store:
            try:
                self.store.ping()
            except StoreError as error:
                yield False, f"rate limits at {error}", "see [plugins.rate_limit] store"
            else:
                yield True, f"rate limits at {self.store.place}", ""

    def close(self) -> None:
        if self.store:
            self.store.close()

    def keys(self, request: Request, what: str) -> List[str]:
        """Name the buckets that a request is paid from."""
        address = f"{what} address {neighbourhood(request.address)}"
        if self.by == "ip" or not request.user:
            return [address]
        user = f"{what} user {request.user}"
        return [user] if self.by == "user" else [user, address]


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """Give a value that has to be one of a few; raises the ValueError that names them."""
    if value not in known:
        raise ValueError(f"{option} must be {' or '.join(known)}, not {value!r}")
    return value


def budget(prefix: str, rate: float, burst: int) -> Budget:
    """Give what a rate (a minute) and a burst allow; raises ValueError for what is no limit."""
    if not 0 < rate < 60 * SECOND:  # nan is not, either
        raise ValueError(f"{prefix}rate must be a number above 0, not {rate:g}; enabled = no takes the limit away")
    if burst < 1:
        raise ValueError(f"{prefix}burst must be at least 1, not {burst}")
    if burst / rate * 60 * SECOND > LONGEST:
        raise ValueError(f"{prefix}burst = {burst} would take more than 100 years to come back")
    return Budget(round(60 * SECOND / rate), burst)


def headers(limit: Budget, level: Level) -> Dict[str, str]:
    """Tell a client where it stands."""
    return {
        "RateLimit-Limit": str(limit.burst),
        "RateLimit-Remaining": str(level.remaining),
        "RateLimit-Reset": str(whole_seconds(level.full)),
    }


def whole_seconds(nanoseconds: int) -> int:
    """Round up."""
    return -(-nanoseconds // SECOND)
