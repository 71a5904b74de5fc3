"""Pockets: questions and answers in their own dialect's words, beside the canonical ones. No I/O."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Optional

from . import JSON, PAUSE, Call, Parts, Pocket, Provider, UpstreamError
from ._events import handing_back


def pocket_of(call: Call, dialect: str) -> Optional[Pocket]:
    """Give what a client of this dialect wrote, if one did."""
    pocket = call.chat.get(f"_{dialect}")
    return pocket if isinstance(pocket, Pocket) else None


def for_provider(call: Call, provider: Provider, model: str) -> Call:
    """Give the call as a provider is to see it: its own name for the model, and no pocket it does not read.

    What is lost with the others is told; raises UpstreamError where it must not be lost.
    """
    changes: Dict[str, Any] = {"model": model}
    for name, pocket in call.chat.items():
        if isinstance(pocket, Pocket) and name[1:] not in provider.reads:
            changes[name] = None
            for field, why in pocket.musts.items():
                raise UpstreamError(
                    400, f"{field}: {why}", code="unsupported_parameter", param=field, provider=provider.name
                )
            for field, why in pocket.losses.items():
                call.warn(field, why)
    return call.asking(**changes)


def bearing(dialect: str, events: Parts, translate: Callable[[Parts], Iterable[JSON]]) -> Parts:
    """Translate a stream's events into parts that bear the events they were made of.

    An event that makes no part comes with the next one, or with an empty one of its own where the stream pauses or
    ends: nothing is held back, nothing is lost, and their order stays.
    """
    seen: List[JSON] = []
    pauses = False

    def noted() -> Parts:
        nonlocal pauses
        with handing_back(events):
            for event in events:
                pauses = not event
                if event:
                    seen.append(event)
                yield event

    def borne() -> JSON:
        held, seen[:] = seen[:], []
        return {f"_{dialect}": held} if held else {}

    for part in translate(noted()):
        told = {**part, **borne()}
        yield told
        if told and pauses:  # a pause is one for whoever comes after, too
            yield PAUSE
    if seen:
        yield borne()
