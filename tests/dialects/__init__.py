"""Clients of each dialect, as small as can be: a canonical conversation in, what was said out.

They put the canonical words into their dialect by themselves, so that what the product makes of the dialect's words is
seen and not taken on trust. An assistant's turn of an earlier answer stands in a conversation as `own(said)`: it is
brought back exactly as this dialect's client would keep it.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

JSON = Dict[str, Any]


class Said(NamedTuple):
    """What an answer said, whatever the dialect."""

    status: int
    text: str = ""
    reasoning: str = ""
    calls: Tuple[Tuple[str, str, JSON], ...] = ()  # id, name, arguments
    finish: str = ""  # stop, length, tool_calls or content_filter
    usage: Tuple[int, int] = (0, 0)  # tokens asked and answered, thoughts among them
    warnings: str = ""
    error: str = ""  # its message
    kind: str = ""  # the dialect's own word for the kind of error
    turn: Any = None  # the assistant's turn as this dialect's client keeps it
    ended: bool = True  # whether a stream had the end that a good one has


def own(said: Said) -> JSON:
    """Give an earlier answer as a message of a conversation."""
    return {"role": "assistant", "_own": said}


def parts_of(content: Any) -> List[JSON]:
    """Give a message's content as parts."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def image_of(part: JSON) -> Tuple[str, str]:
    """Give the media type and the base64 of an `image_url` part."""
    match = re.fullmatch(r"data:([^;]+);base64,(.*)", part["image_url"]["url"], re.DOTALL)
    assert match, "conversations have their images with them"
    base64.b64decode(match[2], validate=True)
    return match[1], match[2]


def system_of(messages: List[JSON]) -> str:
    return "\n".join(str(message["content"]) for message in messages if message["role"] == "system")


def names_of(messages: List[JSON]) -> Dict[str, str]:
    """Map the id of each call to its tool's name."""
    told: Dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            told[call["id"]] = call["function"]["name"]
        if "_own" in message:
            told.update({id_: name for id_, name, _ in message["_own"].calls})
    return told


class Client:
    """What every client has: a house, and the key it shows."""

    name = ""  # of the dialect
    embeds = True
    lists = True

    def __init__(self, house: Any, headers: Optional[Mapping[str, str]] = None) -> None:
        self.house = house
        self.headers = dict(headers or {})

    def chat(self, chat: JSON, *, stream: bool = False) -> Said:
        """Ask a canonical chat: model, messages, tools, response_format, reasoning_effort..."""
        raise NotImplementedError

    def embed(self, model: str, texts: List[str]) -> List[List[float]]:
        """Give the vectors of texts; not asked of a client whose API has none."""
        raise NotImplementedError

    def models(self) -> List[str]:
        """List the models by the names they are asked for."""
        raise NotImplementedError
