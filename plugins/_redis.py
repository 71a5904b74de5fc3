"""Token buckets in a Redis that several proxies share; the same arithmetic as in memory, done by the server itself.

One script reads the server's clock, looks at the buckets of a request and takes a token from each or from none. It
runs alone there, so the count is exact whoever asks, and no clock of ours counts. A bucket is a key that holds the time
at which it is full again, and expires then, for a full bucket is the same as none. Times are whole microseconds since
1970: the server's language has no whole numbers beyond 2^53, and those last until 2255.

A connection serves one request at a time; those that are idle are kept for the next. They are opened when they are
first needed, so that no two workers have the same. Spoken is RESP 2, which every Redis since 2.0 understands; a script
that both looks at the clock and writes needs Redis 5.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import urllib.parse
from typing import Any, List, NamedTuple, Sequence

from ._buckets import Budget, Level

log = logging.getLogger("llmproxy")

PATIENCE = 2.0  # seconds to connect, and for each answer
MOST_IDLE = 16  # connections that are kept
PORT = 6379
PREFIX = "llmproxy:"
TAKE = b"""
local time = redis.call('TIME')
local now, interval, burst = time[1] * 1000000 + time[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local most, missing, full = interval * burst, 0, {}
local function put(key, at)
  redis.call('SET', key, string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000))
end
for i, key in ipairs(KEYS) do
  full[i] = math.max(now, tonumber(redis.call('GET', key) or 0))
  if full[i] > now + most then  -- the clock was put back, or the burst was larger
    full[i] = now + most
    put(key, full[i])
  end
  missing = math.max(missing, full[i] - now)
end
local wait = missing + interval - most
if wait <= 0 then
  for i, key in ipairs(KEYS) do put(key, full[i] + interval) end
end
return {wait, missing}
"""


class StoreError(Exception):
    """The store does not do what it is asked; says why, and nothing of its password."""


class Place(NamedTuple):
    """Where a Redis is, and how to come in."""

    host: str
    port: int
    user: str
    password: str
    database: int

    @classmethod
    def of(cls, url: str) -> Place:
        """Read `redis://[[user]:password@]host[:port][/database]`; raises a ValueError that does not repeat it."""
        try:
            parts = urllib.parse.urlsplit(url)
            user, password = (urllib.parse.unquote(text or "") for text in (parts.username, parts.password))
            place = cls(parts.hostname or "", parts.port or PORT, user, password, int(parts.path.strip("/") or 0))
        except ValueError:
            place = cls("", 0, "", "", 0)
        if not place.host or parts.scheme != "redis" or parts.query or parts.fragment or place.database < 0:
            raise ValueError("store must be memory or like redis://:password@localhost:6379/0")
        return place

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


class RedisBuckets:
    """The buckets of every key, as `Buckets` has them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._idle: List[_Connection] = []
        self._closed = False
        self._silent = False  # it was told that the store cannot be reached

    def take(self, keys: Sequence[str], budget: Budget) -> Level:
        """Take a token from each key's bucket, or none from any; raises StoreError when nobody counts."""
        interval = -(-budget.interval // 1000)
        names = [(PREFIX + key).encode("utf-8", "surrogatepass") for key in keys]
        wait, missing = self._asked(b"EVAL", TAKE, len(names), *names, interval, budget.burst)
        if wait > 0:
            return Level(wait * 1000, 0, missing * 1000)
        return Level(0, -wait // interval, (missing + interval) * 1000)

    def ping(self) -> None:
        """Raise StoreError when the store cannot be used."""
        self._asked(b"PING")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _asked(self, *words: Any) -> Any:
        try:
            answer = self._ask(words)
        except (OSError, ValueError) as error:
            told = StoreError(f"{self.place}: {getattr(error, 'strerror', None) or error}")
        except StoreError as error:
            told = StoreError(f"{self.place}: {error}")
        else:
            if self._silent:
                self._silent = False
                log.warning("rate limits are counted again at %s", self.place)
            return answer
        if not self._silent:
            self._silent = True
            log.error("rate limits cannot be counted, so nobody is let in: %s", told)
        raise told

    def _ask(self, words: Sequence[Any]) -> Any:
        """Ask on an idle connection, or on a new one: also when the idle one turns out to have been closed."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            with contextlib.suppress(ConnectionError):
                return self._ask_on(connection, words)
        return self._ask_on(_Connection(self.place), words)

    def _ask_on(self, connection: _Connection, words: Sequence[Any]) -> Any:
        try:
            answer = connection.ask(*words)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            keep = len(self._idle) < MOST_IDLE and not self._closed
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
        return answer


class _Connection:
    """A connection to a Redis; no good any more after an exception."""

    def __init__(self, place: Place) -> None:
        self._socket = socket.create_connection((place.host, place.port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        try:
            if place.password:
                self.ask(b"AUTH", *filter(None, [place.user]), place.password)
            if place.database:
                self.ask(b"SELECT", place.database)
        except BaseException:
            self.close()
            raise

    def ask(self, *words: Any) -> Any:
        """Say a command, and give what is answered; raises StoreError for a refusal, OSError for none."""
        said = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(said) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in said))
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline(1 << 16)
        kind, told = line[:1], line[1:-2]
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("it hung up")
        if kind == b":":
            return int(told)
        if kind == b"*":
            return [self._answer() for _ in range(int(told))]
        if kind == b"+":
            return told.decode("utf-8", "replace")
        raise StoreError(told.decode("utf-8", "replace")[:200] if kind == b"-" else "it does not speak as a Redis does")

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
