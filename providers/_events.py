"""Event streams: blocks of bytes in, dicts out; no I/O.

The blocks are cut anywhere; an empty block is a pause and comes out as an empty dict (`PAUSE`).
"""

from __future__ import annotations

import codecs
from contextlib import contextmanager
from typing import Callable, Generator, Iterable, Iterator, List

from . import JSON, PAUSE, UpstreamError, _json

LARGEST = 64 * 1024 * 1024  # bytes of one event: a generated image travels in one


def parsed(data: str) -> JSON:
    """Read the JSON of one event."""
    try:
        event = _json.told(data)
    except ValueError:
        raise UpstreamError(502, "the upstream sent an event that is not JSON", code="provider_error") from None
    if isinstance(event, list) and len(event) == 1:  # Gemini wraps some errors so
        event = event[0]
    if not isinstance(event, dict):
        raise UpstreamError(502, "the upstream sent an event that is no object", code="provider_error")
    return event


def sse(blocks: Iterable[bytes], read: Callable[[str], JSON] = parsed) -> Generator[JSON, None, None]:
    """Read `text/event-stream` and give what `read` makes of each event's data, until `[DONE]` or the end.

    Line ends may be LF, CRLF or CR. Comments, ids and names of events are passed over: every
    provider that names its events repeats the name inside. A bare JSON object where an event should
    be is taken too: Gemini words an error in mid-stream so.
    """
    text = ""
    for piece in _text(blocks, ends="\r"):
        if not piece:
            yield PAUSE
            continue
        text += piece.replace("\r\n", "\n").replace("\r", "\n") if "\r" in piece else piece
        *events, text = text.split("\n\n")
        if len(text) > LARGEST:
            raise UpstreamError(502, "the upstream sent an endless event", code="provider_error")
        for event in events:
            data = _data(event)
            if data.startswith("[DONE]"):
                return
            if data:
                yield read(data)
    data = _data(text)
    if data and not data.startswith("[DONE]"):
        yield read(data)


def ndjson(blocks: Iterable[bytes]) -> Generator[JSON, None, None]:
    """Read one JSON object a line."""
    text = ""
    for piece in _text(blocks):
        if not piece:
            yield PAUSE
            continue
        *lines, text = (text + piece).split("\n")
        if len(text) > LARGEST:
            raise UpstreamError(502, "the upstream sent an endless line", code="provider_error")
        for line in lines:
            if line.strip():
                yield parsed(line)
    if text.strip():
        yield parsed(text)


@contextmanager
def handing_back(events: Generator[JSON, None, None]) -> Iterator[Generator[JSON, None, None]]:
    """Close events at the end; who stumbles over one of them in this block does so where it came from."""
    try:
        yield events
    except Exception as error:
        events.throw(error)
        raise
    finally:
        events.close()


def _text(blocks: Iterable[bytes], ends: str = "") -> Iterator[str]:
    """Decode UTF-8 over the borders of blocks; a piece never ends on one of `ends`, which may be half a line end.

    What stands before a letter that is none is given first: where a block was cut must not matter.
    """
    decode = codecs.getincrementaldecoder("utf-8")().decode
    held = ""
    try:
        for block in blocks:
            piece = held + decode(block) if block else ""
            if not piece:
                if not block:
                    yield ""
                continue
            held = piece[-1] if piece[-1] in ends else ""
            piece = piece[:-1] if held else piece
            if piece:
                yield piece
        decode(b"", True)  # a letter cut short is an error
    except UnicodeDecodeError as error:
        yield from filter(None, [held + error.object[: error.start].decode()])
        raise UpstreamError(502, "the upstream's stream is not UTF-8", code="provider_error") from None


def _data(event: str) -> str:
    """Give the data of one event, its lines joined."""
    line = event[event.find("\n") + 1 :] if event.startswith("event: ") else event
    if line.startswith("data: ") and "\n" not in line:  # nearly every event there is
        return line[6:].strip()
    found: List[str] = []
    bare: List[str] = []
    for line in event.split("\n"):
        if line.startswith("data:"):
            found.append(line[6:] if line.startswith("data: ") else line[5:])
        elif bare or line.lstrip().startswith("{"):
            bare.append(line)
    return "\n".join(found or bare).strip()
