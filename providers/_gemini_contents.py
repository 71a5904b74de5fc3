"""A conversation, as Gemini wants to be told it: messages in, contents out. Pure.

A part is what it is called (there are no `type` fields), a thought signature goes back on the part it
came with, so parts are never joined; and the results of a turn's calls stand together right behind
them, in the order of the calls, because that order is all an older model knows them by.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from . import JSON, UpstreamError, Warn, _canonical, _json

Recall = Callable[[Iterable[str]], List[JSON]]

#: Google's own word for "these calls were not made by this model"
DUMMY_SIGNATURE = "skip_thought_signature_validator"
NEWEST = 99.0

_GENERATION = re.compile(r"gemini-(\d+(?:\.\d+)?)")


def bare(model: str) -> str:
    """Give a model's id without the `models/` that may stand before it."""
    return model.removeprefix("models/")


def generation(model: str) -> float:
    """Tell a model's generation by its name (`gemini-2.5-pro`: 2.5); 0 when the name does not tell."""
    found = _GENERATION.search(model)
    if found:
        return float(found.group(1))
    return NEWEST if "gemini" in model and model.endswith("-latest") else 0.0


class Asked(NamedTuple):
    """Who is asked, and whom to tell what cannot be said there."""

    name: str
    model: str
    warn: Warn
    recall: Recall
    orders: Iterator[int]  # one for each tool call of the conversation

    @property
    def signs(self) -> bool:
        """Tell whether the model makes ids and wants its signatures back."""
        return generation(self.model) >= 3


class Called(NamedTuple):
    """A tool call that its result has to find again."""

    name: str
    id: str  # as it was sent; empty: it was sent without
    order: int


#: results stand before whatever else is in their content
BEHIND = 1 << 30
Ordered = List[Tuple[int, JSON]]


def contents(messages: List[JSON], first: int, asked: Asked) -> List[JSON]:
    """Translate the messages behind the leading system ones; `first` is the number of the first."""
    turns: List[Tuple[str, Ordered]] = []
    called: Dict[str, Called] = {}
    for at, message in enumerate(messages, first):
        role, parts = TURNS[message["role"]](message, f"messages[{at}]", called, asked)
        if parts and turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        elif parts:
            turns.append((role, parts))
    if not turns or turns[0][0] != "user":
        asked.warn("messages", "a user turn was put first")
        turns.insert(0, ("user", [(0, {"text": "."})]))
    return [{"role": role, "parts": [part for _, part in sorted(parts, key=_place)]} for role, parts in turns]


def _place(ordered: Tuple[int, JSON]) -> int:
    return ordered[0]


def _user(message: JSON, path: str, _: Mapping[str, Called], __: Asked) -> Tuple[str, Ordered]:
    return "user", [(BEHIND, part) for part in parts(message.get("content"), path)]


def _late_system(message: JSON, path: str, _: Mapping[str, Called], asked: Asked) -> Tuple[str, Ordered]:
    asked.warn("messages", "a late system message was sent as the user's")
    return _user(message, path, {}, asked)


def _model(message: JSON, path: str, called: Dict[str, Called], asked: Asked) -> Tuple[str, Ordered]:
    """Translate an assistant's message, each signature on its part; its calls are noted in `called`."""
    said = parts(message.get("content"), path) + ([{"text": message["refusal"]}] if message.get("refusal") else [])
    calls = list(message.get("tool_calls") or ())
    if message.get("function_call"):
        calls.append({"function": message["function_call"]})
    signatures = _signatures(message, calls, asked)
    with_ids = asked.signs or any(id_ and not id_.startswith("call_") for id_ in signatures)
    for at, call in enumerate(calls):
        id_ = str(call.get("id") or "")
        name = _called_name(call, f"{path}.tool_calls[{at}]")
        sent = id_ if with_ids and (asked.signs or not id_.startswith("call_")) else ""
        called[id_ or name] = Called(name, sent, next(asked.orders))
        arguments = _canonical.arguments_of(call, f"{path}.tool_calls[{at}].function.arguments")
        part: JSON = {"functionCall": {**({"id": sent} if sent else {}), "name": name, "args": arguments}}
        said.append(_signed(part, signatures.get(id_) if id_ else None))
    if signatures.get(""):
        _sign_text(said, signatures[""])
    if asked.signs:
        _sign_calls(said, asked.warn)
    return "model", [(0, part) for part in said]


def _called_name(call: JSON, path: str) -> str:
    if call.get("type", "function") != "function" or not _canonical.name_of(call):
        raise _canonical.unsupported(f"{path}.type", "only calls of functions are supported by gemini")
    return _canonical.name_of(call)


def _signed(part: JSON, signature: Optional[str]) -> JSON:
    return {**part, "thoughtSignature": signature} if signature else part


def _sign_text(said: List[JSON], signature: str) -> None:
    """Put the signature on the last text; it came on an empty one when there is none."""
    for at in reversed(range(len(said))):
        if "text" in said[at]:
            said[at] = _signed(said[at], signature)
            return
    said.append(_signed({"text": ""}, signature))


def _sign_calls(said: List[JSON], warn: Warn) -> None:
    """Have the first call of a step signed: without any signature the step would be refused."""
    calls = [at for at, part in enumerate(said) if "functionCall" in part]
    if calls and not any("thoughtSignature" in said[at] for at in calls):
        warn("messages", "tool calls without their thought signature")
        said[calls[0]] = _signed(said[calls[0]], DUMMY_SIGNATURE)


def _signatures(message: JSON, calls: List[JSON], asked: Asked) -> Dict[str, str]:
    """Map the id of each signed call to its signature, "" to that of the text.

    The details come first, then what Google's own OpenAI dialect puts beside a call, then memory.
    """
    found = _detailed(_canonical.details_for(message, asked.name, asked.model))
    for call in calls:
        google = (call.get("extra_content") or {}).get("google")
        signature = google.get("thought_signature") if isinstance(google, dict) else None
        if isinstance(signature, str):
            found.setdefault(str(call.get("id") or ""), signature)
    if found or not calls:
        return found
    recalled = asked.recall([str(call.get("id") or "") for call in calls])
    return _detailed(_canonical.details_for({"reasoning_details": recalled}, asked.name, asked.model))


def _detailed(details: Iterable[JSON]) -> Dict[str, str]:
    signed = (d for d in details if d.get("type") == "thought_signature" and isinstance(d.get("signature"), str))
    return {str(d.get("tool_call_id") or ""): d["signature"] for d in signed}


def _result(message: JSON, path: str, called: Mapping[str, Called], _: Asked) -> Tuple[str, Ordered]:
    """Translate a tool's result; pictures in it follow it."""
    id_ = str(message.get("tool_call_id") or message.get("name") or "")
    call = called.get(id_)
    if call is None:
        field = f"{path}.tool_call_id"
        raise UpstreamError(400, f"{field}: no tool call has the id {id_!r}", code="invalid_value", param=field)
    content = message.get("content")
    told = {"error" if message.get("is_error") else "output": _value(_canonical.text_of(content))}
    response = {**({"id": call.id} if call.id else {}), "name": call.name, "response": told}
    shown = [part for part in parts(content, path) if "text" not in part]
    return "user", [(call.order, {"functionResponse": response}), *((BEHIND, part) for part in shown)]


def _value(text: str) -> Any:
    """Give the object or list that a result spells; any other text stays text, so that no digit of a number is lost."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return _json.loads(text)
    except ValueError:
        return text


TURNS: Mapping[str, Callable[[JSON, str, Dict[str, Called], Asked], Tuple[str, Ordered]]] = {
    "user": _user,
    "system": _late_system,
    "developer": _late_system,
    "assistant": _model,
    "tool": _result,
    "function": _result,
}


# parts of a message

_KINDS = {
    "image": "png jpeg webp heic heif gif",
    "audio": "wav mp3 flac ogg aac",
    "video": "mp4 mpeg webm",
    "text": "csv html",
}
#: a name's ending -> what it holds: the upstream wants to be told
ENDINGS = {
    **{ending: f"{kind}/{ending}" for kind, endings in _KINDS.items() for ending in endings.split()},
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/plain",
    "mov": "video/quicktime",
}
#: types it knows by another name
RENAMED = {"image/jpg": "image/jpeg", "application/json": "text/plain", "application/xml": "text/plain"}


def parts(content: Any, path: str) -> List[JSON]:
    """Translate the parts of a content; empty texts are left out."""
    made = []
    for at, part in enumerate(_canonical.parts_of(content)):
        where = f"{path}.content[{at}]" if not isinstance(content, str) else f"{path}.content"
        translate = PARTS.get(str(part.get("type")))
        if translate is None:
            raise _canonical.unsupported(f"{where}.type", f"parts of type {part.get('type')!r} are not supported here")
        made.append(translate(part, where))
    return [part for part in made if part != {"text": ""}]


def _text(part: JSON, _: str) -> JSON:
    return {"text": str(part.get("text") or "")}


def _refusal(part: JSON, _: str) -> JSON:
    return {"text": str(part.get("refusal") or "")}


def _image(part: JSON, path: str) -> JSON:
    return _at(_canonical.image_url(part), f"{path}.image_url", "image/jpeg")


def _audio(part: JSON, _: str) -> JSON:
    audio = part["input_audio"]
    return _inline(f"audio/{audio['format']}", audio["data"])


def _file(part: JSON, path: str) -> JSON:
    file = part["file"]
    data = file.get("file_data")
    if not data:
        field = "file_id" if file.get("file_id") else "file_data"
        raise _canonical.unsupported(f"{path}.file.{field}", "a file is sent to gemini as file_data only")
    kind = _ending(str(file.get("filename") or ""), "application/pdf")
    if re.match(r"data:|https?://", data):
        return _at(data, f"{path}.file.file_data", kind)
    return _inline(kind, data)


def _at(url: str, path: str, default: str) -> JSON:
    """Give what is at a URL: a data URL's own bytes, or the address for the upstream to fetch."""
    media = _canonical.media(url)
    if media:
        return _inline(media.mime, media.data)
    if not re.match(r"https?://", url):
        raise _canonical.unsupported(path, f"{path} must be a base64 data URL or an http URL")
    return {"fileData": {"mimeType": _ending(re.split(r"[?#]", url)[0], default), "fileUri": url}}


def _ending(name: str, default: str) -> str:
    return ENDINGS.get(name.rpartition(".")[2].lower(), default)


def _inline(mime: str, data: str) -> JSON:
    mime = RENAMED.get(mime, "text/plain" if mime.startswith("text/") else mime)
    return {"inlineData": {"mimeType": mime, "data": data}}


PARTS: Mapping[str, Callable[[JSON, str], JSON]] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
}
