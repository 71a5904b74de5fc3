"""A stream of parts on its way to a client: the first part, the whole answer, and what goes between. No I/O."""

from __future__ import annotations

import itertools
import math
import time
from contextlib import closing
from typing import Callable, Generator, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from providers import Parts, Trouble
from providers._json import written as in_json

from . import JSON, Response, Waiting, written

#: written while the upstream is silent; an SSE comment, which OpenAI's clients pass over
KEEP_ALIVE = b": keep-alive\n\n"


class Begun(NamedTuple):
    """A stream whose status can be chosen: its first part (empty: the upstream is silent), and the rest."""

    first: JSON
    rest: Parts


def begun(parts: Parts, patience: float, clock: Callable[[], float] = time.monotonic) -> Waiting[Begun]:
    """Wait for the first part, so that trouble can still have a status; for `patience` seconds at most."""
    started = clock()
    try:
        for part in parts:
            if part or clock() - started >= patience:
                return Begun(part, parts)
            yield
    except BaseException:
        parts.close()
        raise
    return Begun({}, parts)


def whole(parts: Parts) -> Waiting[JSON]:
    """Give the answer of a call that does not stream."""
    answer: JSON = {}
    with closing(parts):
        for part in parts:
            if part:
                answer = part
            else:
                yield
    return answer


def event(document: JSON) -> bytes:
    """Write one event of a `text/event-stream`."""
    return b"data: " + written(document) + b"\n\n"


def sse(body: Iterable[bytes]) -> Response:
    """Answer with an event stream, which nobody on the way may hold back or keep."""
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(200, headers, body)


def flowing(  # what a dialect's stream is made of
    stream: Begun,
    speak: Callable[[Iterable[JSON]], Iterable[bytes]],
    failed: Callable[[Trouble], bytes],
    heartbeat: float,
    notes: JSON,
    *,
    life: bytes = KEEP_ALIVE,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[bytes, None, None]:
    """Write the parts in a dialect's words: what came together in few blocks, and life signs in a silence.

    The first block holds two parts, for the first says little more than whose turn it is, and each that follows on its
    heels four times as many: so the first words go out before the last are translated, and no part costs a write.
    `speak` puts parts into bytes and what ends a good answer behind them; an empty part has to come out of it as
    empty bytes. `failed` words trouble under way, which takes the place of a good end. The usage goes into `notes`.
    """
    waiting, parts, most = bytearray(), 0, 2
    said = clock() if stream.first else -math.inf  # the silence so far has been waited for
    with closing(stream.rest):
        try:
            for block in speak(_noted(itertools.chain((stream.first,), stream.rest), notes)):
                if block:
                    waiting += block
                    parts += 1
                    if parts < most:
                        continue
                    most *= 4
                if waiting:
                    yield bytes(waiting)
                    waiting.clear()
                    parts, said = 0, clock()
                elif life and clock() - said >= heartbeat:
                    yield life
                    said = clock()
                else:
                    yield b""
        except Trouble as trouble:
            notes["trouble"] = trouble.code or trouble.kind
            waiting += failed(trouble)
        if waiting:
            yield bytes(waiting)


def _noted(parts: Iterable[JSON], notes: JSON) -> Iterator[JSON]:
    for part in parts:
        usage = part.get("usage")
        if usage:
            notes["usage"] = usage
        yield part


class Chunks:
    """Writes the chunks of one stream as events.

    Nearly every chunk differs from the one before in its text alone. So what stands around a text is written once, and
    kept for as long as all of it stays as it is: by its names, their order, and values that are written alike if they
    are alike, which texts and nulls are, and integers among themselves.
    """

    def __init__(self) -> None:
        self._around: Tuple[JSON, JSON] = {}, {}  # the chunk and its choice that are the frame
        self._names: List[str] = []
        self._before, self._behind = "", ""

    def event(self, chunk: JSON) -> bytes:
        """Write one chunk, which may be any."""
        text = self._text_of(chunk)
        if text is None:
            return event(chunk)
        return f"{self._before}{in_json(text)}{self._behind}".encode()

    def _text_of(self, chunk: JSON) -> Optional[str]:
        """Give the text that is all there is to a chunk, with what stands around it at hand; None for another chunk."""
        choices = chunk.get("choices")
        choice = choices[0] if choices and len(choices) == 1 else None
        if type(choice) is not dict:
            return None
        delta = choice.get("delta")
        if type(delta) is not dict or len(delta) != 1:
            return None
        text = delta.get("content")
        if type(text) is not str or type(chunk.get("created")) is not int or type(choice.get("index")) is not int:
            return None
        outer, inner = self._around
        outer["choices"], inner["delta"] = choices, delta
        if chunk == outer and choice == inner and [*chunk, *choice] == self._names:
            return text
        return text if self._frame(chunk, choice) else None

    def _frame(self, chunk: JSON, choice: JSON) -> bool:
        """Write what stands around the text of a chunk; tells whether it can be kept."""
        values = {**chunk, **choice, "choices": None, "delta": None, "created": None, "index": None}.values()
        if choice["index"] or not all(value is None or type(value) is str for value in values):
            return False
        self._around, self._names = ({**chunk}, {**choice}), [*chunk, *choice]
        told = in_json({**chunk, "choices": [{**choice, "delta": {"content": ""}}]})
        before, mark, behind = told.partition('"delta":{"content":""')
        self._before, self._behind = f"data: {before}{mark[:-2]}", f"{behind}\n\n"
        return True


def events(parts: Iterable[JSON], *, with_usage: bool = True) -> Iterator[bytes]:
    """Speak as OpenAI: only an answer that reached its end says `[DONE]`; the usage is told if `with_usage`."""
    chunks = Chunks()
    for part in parts:
        if not part:
            yield b""
        elif with_usage or part.get("choices"):
            yield chunks.event(part)
    yield b"data: [DONE]\n\n"


def told(trouble: Trouble) -> bytes:
    """Word trouble in a stream as OpenAI: without the status, which has been sent long ago."""
    document = trouble.document()
    for name in ("provider_status", "retry_after"):
        document["error"].pop(name, None)
    return event(document)
