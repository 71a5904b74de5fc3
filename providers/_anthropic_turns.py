"""A canonical conversation as Anthropic's turns and blocks. Pure.

Rules of the upstream that shape this: turns alternate, and the first is the user's; all results of one
turn's tool calls stand first in the next user turn; texts are not blank; a `tool_use` has an id of
letters, digits, `_` and `-`; thinking comes back unchanged and at its old place, or not at all.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Tuple

from . import JSON, Warn
from ._anthropic_models import Model
from ._canonical import (
    arguments_of,
    decoded,
    details_for,
    image_url,
    leading_system,
    media,
    name_of,
    parts_of,
    safe_id,
    text_of,
    unsupported,
)

Recall = Callable[[Iterable[str]], List[JSON]]

IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
THINKING = frozenset({"thinking", "redacted_thinking"})

#: what a reasoning detail has besides the upstream's own block
TAGS = frozenset({"provider", "model", "index", "after"})

#: what has to stand where a conversation has no user at its beginning
NOBODY: JSON = {"role": "user", "content": "."}


def system_of(messages: List[JSON], more: str = "") -> JSON:
    """Give the `system` field of the messages a conversation begins with; blocks where they say what to cache."""
    messages = leading_system(messages)[0] + ([{"content": more}] if more else [])
    parts = [part for message in messages for part in parts_of(message.get("content"))]
    if any(part.get("cache_control") for part in parts):
        blocks = [block for part in parts for block in _text(part, "")]
        return {"system": blocks} if blocks else {}
    texts = [text_of(message.get("content")) for message in messages]
    system = "\n\n".join(text for text in texts if text.strip())
    return {"system": system} if system else {}


def turns_of(messages: List[JSON], name: str, asked: str, model: Model, warn: Warn, recall: Recall) -> List[JSON]:
    """Give the `messages` field: all that follows the leading system messages, as alternating turns.

    `name` is the provider's, `asked` the model's; `recall` gives the reasoning details of tool calls
    whose message has come back without them.
    """
    leading, rest = leading_system(messages)
    first = len(leading)
    turns: List[JSON] = []
    for at, message in enumerate(rest):
        path = f"messages[{first + at}]"
        role, blocks = _turn(message, path, name, asked, recall)
        if role == "system" and not (model.heeds_system_turns and _may_be_system(turns, rest[at:])):
            role, blocks = "user", _in_tags(blocks)
            warn(f"{path}.role", "sent as a user text")
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return [_finished(turn) for turn in _with_ends(turns, f"messages[{len(messages) - 1}]", rest, asked, model, warn)]


def _turn(message: JSON, path: str, name: str, asked: str, recall: Recall) -> Tuple[str, List[JSON]]:
    """Give the role and the blocks of one message."""
    role = ROLES.get(str(message.get("role")))
    if role is None:
        raise unsupported(f"{path}.role", f"messages of role {message.get('role')!r} are not supported here")
    pocket = message.get("_anthropic")
    if isinstance(pocket, dict) and pocket.get("content"):
        return role, list(pocket["content"])
    if role == "assistant":
        return role, _assistant(message, path, _details(message, name, asked, recall))
    if message["role"] == "tool":
        return role, [_result(message, path)]
    return role, _blocks(message.get("content"), path)


ROLES = {"user": "user", "tool": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def _may_be_system(turns: List[JSON], rest: List[JSON]) -> bool:
    """Tell whether a system turn may stand here: behind the user, with the assistant or nobody after it."""
    after = next((m["role"] for m in rest if m["role"] not in ("system", "developer")), "assistant")
    return bool(turns) and turns[-1]["role"] != "assistant" and after == "assistant"


def _in_tags(blocks: List[JSON]) -> List[JSON]:
    return [{**block, "text": f"<system>\n{block['text']}\n</system>"} for block in blocks if block["type"] == "text"]


def _with_ends(turns: List[JSON], last: str, rest: List[JSON], asked: str, model: Model, warn: Warn) -> List[JSON]:
    """See to it that the user begins, and that nobody is to be continued who cannot be."""
    if turns and turns[-1]["role"] == "assistant":
        if not model.continues:
            raise unsupported(last, f"{asked} does not go on with an assistant message: let a user message stand last")
        _trim(turns[-1]["content"])
    elif rest and rest[-1].get("role") == "assistant":
        warn(last, "dropped: it is empty")
    if not turns or turns[0]["role"] != "user":
        warn("messages", "a user message was put first")
        return [NOBODY, *turns]
    return turns


def _trim(blocks: List[JSON]) -> None:
    """Take the blanks off the end of a text that is to be continued."""
    if blocks[-1]["type"] == "text":
        blocks[-1] = {**blocks[-1], "text": blocks[-1]["text"].rstrip()}


_TEXT_ALONE = {"type", "text"}  # keys


def _finished(turn: JSON) -> JSON:
    """Put results first, and say a text that is alone as a string."""
    content = turn["content"]
    if isinstance(content, str):
        return turn
    if len(content) == 1:
        return {**turn, "content": content[0]["text"]} if content[0].keys() == _TEXT_ALONE else turn
    return {**turn, "content": sorted(content, key=lambda block: block["type"] != "tool_result")}


# the assistant


def _details(message: JSON, name: str, asked: str, recall: Recall) -> List[JSON]:
    """Give the details that belong into this turn: those it brings, else those of its calls."""
    details = details_for(message, name, asked)
    if not details and message.get("tool_calls"):
        recalled = recall(str(call.get("id") or "") for call in message["tool_calls"])
        details = details_for({"reasoning_details": recalled}, name, asked)
    return [d for d in details if d.get("type") not in (None, "citations") and d.get("signature") != ""]


def _assistant(message: JSON, path: str, details: List[JSON]) -> List[JSON]:
    """Give the blocks of an assistant's message, the details at their old places among texts and calls."""
    calls = [_call(call, f"{path}.tool_calls[{at}]") for at, call in enumerate(message.get("tool_calls") or ())]
    content = message.get("content")
    if not details:
        return _blocks(content, path) + calls
    text, blocks, said, called = text_of(content), [], 0, 0
    for detail in details:
        letters, before = _place(detail)
        blocks += _blocks(text[said:letters], path) + calls[called:before]
        said, called = max(said, letters), max(called, before)
        blocks.append({key: value for key, value in detail.items() if key not in TAGS})
    blocks += _blocks(text[said:], path) + calls[called:]
    while blocks and blocks[-1].get("type") in THINKING:  # a thought that led to nothing
        blocks.pop()
    return blocks


def _place(detail: JSON) -> Tuple[int, int]:
    """Tell how many letters and how many calls stand before a detail; it has been in a client's hands."""
    place = detail.get("after")
    if isinstance(place, list) and len(place) == 2 and all(isinstance(number, int) for number in place):
        return max(0, place[0]), max(0, place[1])
    return 0, 0


def _call(call: JSON, path: str) -> JSON:
    arguments = arguments_of(call, f"{path}.function.arguments")
    return {"type": "tool_use", "id": safe_id(str(call.get("id") or "")), "name": name_of(call), "input": arguments}


def _result(message: JSON, path: str) -> JSON:
    content = message.get("content")
    told = content if isinstance(content, str) else _blocks(content, path)
    result = {"type": "tool_result", "tool_use_id": safe_id(str(message.get("tool_call_id") or "")), "content": told}
    return {**result, "is_error": True} if message.get("is_error") else result


def lacks_thinking(turns: List[JSON]) -> bool:
    """Tell whether the turns end in rounds of tools that the assistant entered without a thought."""
    rounds = []
    for results, calls in zip(turns[::-2], turns[-2::-2]):
        if _first_type(results) != "tool_result":
            break
        rounds.append(_first_type(calls) in THINKING)
    return bool(rounds) and not any(rounds)


def _first_type(turn: JSON) -> str:
    return "text" if isinstance(turn["content"], str) else str(turn["content"][0].get("type"))


# parts


def _blocks(content: Any, path: str) -> List[JSON]:
    """Translate the parts of a content."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    blocks: List[JSON] = []
    for at, part in enumerate(content or ()):
        here = f"{path}.content[{at}]"
        translate = PARTS.get(str(part.get("type")))
        if translate is None:
            raise unsupported(f"{here}.type", f"parts of type {part.get('type')!r} are not supported here")
        blocks += translate(part, here)
    return blocks


def _text(part: JSON, _: str) -> List[JSON]:
    text = str(part.get("text") or part.get("refusal") or "")
    return [_kept(part, {"type": "text", "text": text})] if text.strip() else []


def _image(part: JSON, path: str) -> List[JSON]:
    return [_kept(part, {"type": "image", "source": _image_source(image_url(part), f"{path}.image_url.url")})]


def _image_source(url: str, path: str) -> JSON:
    data = media(url)
    if data is None:
        return _by_url(url, path)
    mime = data.mime.replace("image/jpg", "image/jpeg")
    if mime not in IMAGES:
        raise unsupported(path, f"{path}: images of type {mime} are not supported here")
    return {"type": "base64", "media_type": mime, "data": data.data}


def _by_url(url: str, path: str) -> JSON:
    if not url.lower().startswith(("http://", "https://")):
        raise unsupported(path, f"{path} must be an http(s) URL or a base64 data URL")
    return {"type": "url", "url": url}


def _file(part: JSON, path: str) -> List[JSON]:
    file = part.get("file") or {}
    given, title = str(file.get("file_data") or ""), file.get("filename")
    if not given:
        raise unsupported(f"{path}.file", "only files that come as file_data are supported here")
    source = _document_source(given, f"{path}.file.file_data")
    if source.get("media_type") in IMAGES:
        return [_kept(part, {"type": "image", "source": source})]
    titled = {"title": title} if title else {}
    return [_kept(part, {"type": "document", "source": source, **titled})]


def _document_source(given: str, path: str) -> JSON:
    data = media("data:application/pdf;base64," + given if given.startswith("JVBERi") else given)
    if data is None:
        return _by_url(given, path)
    if data.mime == "application/pdf":
        return {"type": "base64", "media_type": data.mime, "data": data.data}
    if data.mime.startswith("text/") or data.mime == "application/json":
        text = decoded(data.data, path).decode("utf-8", "replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    return _image_source(given, path)


def _kept(part: JSON, block: JSON) -> JSON:
    """Keep what only this upstream understands."""
    return {**block, "cache_control": part["cache_control"]} if part.get("cache_control") else block


PARTS: Dict[str, Callable[[JSON, str], List[JSON]]] = {
    "text": _text,
    "refusal": _text,
    "image_url": _image,
    "file": _file,
}
