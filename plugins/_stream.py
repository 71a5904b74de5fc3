"""A stream of parts on its way to a client: the first part, the whole answer, and what goes between. No I/O."""

from __future__ import annotations

import itertools
import json
import math
import time
from contextlib import closing
from typing import Callable, Generator, Iterable, NamedTuple

from providers import Parts, Trouble

from . import JSON, Response

#: written while the upstream is silent; an SSE comment, which OpenAI's clients pass over
KEEP_ALIVE = b": keep-alive\n\n"


class Begun(NamedTuple):
    """A stream whose status can be chosen: its first part (empty: the upstream is silent), and the rest."""

    first: JSON
    rest: Parts


def begun(parts: Parts, patience: float, clock: Callable[[], float] = time.monotonic) -> Begun:
    """Wait for the first part, so that trouble can still have a status; for `patience` seconds at most."""
    started = clock()
    try:
        for part in parts:
            if part or clock() - started >= patience:
                return Begun(part, parts)
    except BaseException:
        parts.close()
        raise
    return Begun({}, parts)


def whole(parts: Parts) -> JSON:
    """Give the answer of a call that does not stream."""
    answer: JSON = {}
    with closing(parts):
        for part in parts:
            answer = part or answer
    return answer


def event(document: JSON) -> bytes:
    """Write one event of a `text/event-stream`."""
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def sse(body: Iterable[bytes]) -> Response:
    """Answer with an event stream, which nobody on the way may hold back or keep."""
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(200, headers, body)


def events(
    stream: Begun,
    heartbeat: float,
    notes: JSON,
    *,
    with_usage: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[bytes, None, None]:
    """Write the parts as OpenAI's event stream: all that came together in one block, and life signs in a silence.

    Only an answer that reached its end says `[DONE]`; trouble under way is an event of its own. The usage
    goes into `notes`, and to the client if `with_usage`.
    """
    waiting = bytearray()
    said = clock() if stream.first else -math.inf  # the silence so far has been waited for
    with closing(stream.rest):
        try:
            for part in itertools.chain((stream.first,), stream.rest):
                if part:
                    usage = part.get("usage")
                    if usage:
                        notes["usage"] = usage
                    if with_usage or part.get("choices"):
                        waiting += event(part)
                elif waiting:
                    yield bytes(waiting)
                    waiting.clear()
                    said = clock()
                elif clock() - said >= heartbeat:
                    yield KEEP_ALIVE
                    said = clock()
                else:
                    yield b""
            waiting += b"data: [DONE]\n\n"
        except Trouble as trouble:
            notes["trouble"] = trouble.code or trouble.kind
            waiting += event(_told(trouble))
        yield bytes(waiting)


def _told(trouble: Trouble) -> JSON:
    """Word trouble in a stream: without the status, which has been sent long ago."""
    document = trouble.document()
    for name in ("provider_status", "retry_after"):
        document["error"].pop(name, None)
    return document
