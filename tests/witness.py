"""What can be seen of a conversation by who stands beside: whether all was told, and the answers are well formed.

It knows neither our translations nor the upstreams' words: whatever was said has to be somewhere in what was sent.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

from strict.openai import OBJECT, TEXT, Rule, by, each, fits, folded, kind, maybe, one_of, record, typed

JSON = Dict[str, Any]


# was all of it told?


def leaves(value: Any) -> Iterator[Any]:
    """Give all that a body holds, to any depth: objects, values, texts, and what is written in texts."""
    yield value
    if isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, str):
        yield from written(value)


def written(text: str) -> Iterator[Any]:
    """Give what a text spells besides itself: JSON, or bytes in base64."""
    if text[:1] in ("{", "["):
        try:
            yield from leaves(json.loads(text))
        except ValueError:
            return
    try:
        yield base64.b64decode(text.partition(";base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError):
        return


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are spelled the same: 1 is neither 1.0 nor true."""
    return type(one) is type(other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def holds(whole: Any, part: Any) -> bool:
    """Tell whether `part` is in `whole`: of an object some fields, of a list as many items."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and holds(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(holds, whole, part))
    return same(whole, part)


def says(leaf: Any, text: str) -> bool:
    return isinstance(leaf, str) and text in leaf


def shows(leaf: Any, data: bytes) -> bool:
    return leaf == data or (isinstance(leaf, str) and data in leaf.encode("utf-8", "surrogatepass"))


Piece = Tuple[Callable[[Any, Any], bool], Any]  # how it is recognized, and what it is


def pieces(chat: JSON) -> Iterator[Piece]:
    """Give everything that the upstream has to be told of."""
    for message in chat["messages"]:
        yield from said(message)
        for call in message.get("tool_calls", ()):
            yield same, call["function"]["name"]
            yield same, json.loads(call["function"]["arguments"])
        for detail in message.get("reasoning_details", ()):
            yield from ((same, detail[key]) for key in ("signature", "data", "encrypted_content") if detail.get(key))
    for tool in chat.get("tools", ()):
        for value in tool["function"].values():
            yield (holds if isinstance(value, dict) else same), value


def said(message: JSON) -> Iterator[Piece]:
    """Give the pieces of a message's content; what a tool says may come as the JSON that it is."""
    content = message.get("content") or []
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part["type"] == "text":
            spelled = message["role"] == "tool" and part["text"][:1] in ("{", "[")
            yield (same, json.loads(part["text"])) if spelled else (says, part["text"])
        else:
            url = part["image_url"]["url"] if part["type"] == "image_url" else part["file"]["file_data"]
            yield shows, base64.b64decode(url.partition(";base64,")[2], validate=True)


def untold(chat: JSON, body: JSON) -> List[Any]:
    """Give what of a question is not in the body that was sent."""
    sent = list(leaves(body))
    return [piece for match, piece in pieces(chat) if not any(match(leaf, piece) for leaf in sent)]


def in_order(chat: JSON, body: JSON) -> bool:
    """Tell whether what user and assistant said was sent in its order, and as theirs."""
    turns = body.get("messages") or body.get("contents") or body.get("input") or ()
    roles = {"model": "assistant"}
    told = iter([(roles.get(turn.get("role"), turn.get("role")), leaf) for turn in turns for leaf in leaves(turn)])
    spoken = [
        (message["role"], text)
        for message in chat["messages"]
        if message["role"] in ("user", "assistant")
        for match, text in said(message)
        if match is says
    ]
    held: List[Any] = []  # one text may hold two that were said
    for role, text in spoken:
        if not any(says(leaf, text) for leaf in held):
            held = [next((leaf for who, leaf in told if who == role and says(leaf, text)), None)]
    return held != [None]


# are the answers well formed?


def spells_json(value: Any) -> bool:
    return isinstance(value, str) and isinstance(json.loads(value), dict)


NUMBER = fits(lambda value: isinstance(value, int) and value >= 0, "a number")
ID = fits(lambda value: isinstance(value, str) and value, "an id")
FINISH = one_of("stop length tool_calls content_filter")
DETAIL = record(
    {"provider": ID, "model": ID, "index": NUMBER, "type": ID},
    dict.fromkeys(
        ("id", "tool_call_id", "thinking", "signature", "data", "encrypted_content", "summary", "after"),
        lambda *_: None,
    ),
)
USAGE = record(
    {"prompt_tokens": NUMBER, "completion_tokens": NUMBER, "total_tokens": NUMBER},
    {"prompt_tokens_details": OBJECT, "completion_tokens_details": OBJECT},
)
ARGUMENTS = fits(spells_json, "an object in JSON")
CALL = by("type", {"function": typed({"id": ID, "function": record({"name": ID, "arguments": ARGUMENTS})})})
SAID: Mapping[str, Rule] = {
    "refusal": maybe(TEXT),
    "annotations": kind(list),
    "reasoning_content": ID,
    "reasoning_details": each(DETAIL),
}
MESSAGE = record({"role": one_of("assistant"), "content": maybe(TEXT)}, {**SAID, "tool_calls": each(CALL)})
CHOICE: Mapping[str, Rule] = {"logprobs": maybe(OBJECT), "stop_sequence": TEXT}
HEAD: Mapping[str, Rule] = {"id": ID, "created": NUMBER, "model": ID}
ODD: Mapping[str, Rule] = {"service_tier": TEXT, "system_fingerprint": TEXT, "stats": OBJECT}
WHOLE = record(
    {
        **HEAD,
        "object": one_of("chat.completion"),
        "choices": each(record({"index": NUMBER, "message": MESSAGE, "finish_reason": FINISH}, CHOICE)),
        "usage": USAGE,
        "provider": ID,
        "content": TEXT,
    },
    ODD,
)
BEGUN = typed({"index": NUMBER, "id": ID, "function": record({"name": ID, "arguments": TEXT})})
GOING_ON = record({"index": NUMBER, "function": record({"arguments": ID})})


def _fragment(value: Any, at: str) -> None:
    (BEGUN if "id" in value else GOING_ON)(value, at)


DELTA = record({}, {**SAID, "role": one_of("assistant"), "content": maybe(TEXT), "tool_calls": each(_fragment)})
CHUNK = record(
    {
        **HEAD,
        "object": one_of("chat.completion.chunk"),
        "choices": each(record({"index": NUMBER, "delta": DELTA, "finish_reason": maybe(FINISH)}, CHOICE), least=0),
    },
    {**ODD, "usage": maybe(USAGE)},
)
ERROR = record(
    {
        "error": record(
            {"message": ID, "type": ID, "param": maybe(ID), "code": maybe(ID)},
            {"provider": maybe(ID), "provider_status": NUMBER, "retry_after": maybe(kind(int, float))},
        )
    }
)


def check_stream(events: List[Any]) -> List[JSON]:
    """Give the chunks of a stream that came to its end, each in its place."""
    *chunks, done = events
    assert done == "[DONE]"
    for chunk in chunks:
        CHUNK(chunk, "")
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    *told, usage = chunks
    assert usage["choices"] == []
    assert usage["usage"]
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in told)
    roles = [choice["delta"].get("role") for chunk in told for choice in chunk["choices"]]
    assert roles == ["assistant"] + [None] * (len(roles) - 1)
    finishes = [choice["finish_reason"] for chunk in told for choice in chunk["choices"]]
    assert finishes[-1]
    assert not any(finishes[:-1])
    return chunks


def bare(parts: List[JSON]) -> JSON:
    """Give what an answer says, whole or streamed: without its id and time, the calls' ids by their order.

    Arguments are what they spell: a model's own blanks pass in a stream, and are gone where it gives an object.
    """
    told = folded(parts)
    text = json.dumps({name: told[name] for name in ("model", "choices", "usage")})
    calls = [call for choice in told["choices"] for call in choice["message"].get("tool_calls", ())]
    for at, call in enumerate(calls):
        text = text.replace(json.dumps(call["id"]), f'"call {at}"')
        spelled = json.loads(call["function"]["arguments"])
        text = text.replace(json.dumps(call["function"]["arguments"]), json.dumps(spelled), 1)
    return dict(json.loads(text))
