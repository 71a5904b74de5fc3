"""The canonical form, taken apart and put together: what every translator on this floor needs. Pure.

Extension keys of a request that no upstream knows by these names are listed in `EXTENSIONS`; a key
that begins with `_` is a pocket (what one dialect can say and the canonical form cannot) and is
never sent to an upstream of another dialect.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import time
from array import array
from typing import Any, Container, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from . import JSON, UpstreamError, Warn, _json

#: fields that are ours, not OpenAI's
EXTENSIONS = frozenset(
    {"min_p", "provider_options", "repeat_penalty", "thinking_budget", "top_k", "provider", "type", "input_type"}
)

_DATA_URL = re.compile(r"data:([A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+)?((?:;[^;,]*)*?)(;base64)?,", re.ASCII)
_SECONDS = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


# requests, taken apart


def unsupported(param: str, message: str) -> UpstreamError:
    """Give the refusal of a field that the upstream cannot honour and that changes the answer."""
    return UpstreamError(400, message, code="unsupported_parameter", param=param)


def max_tokens(chat: JSON) -> Optional[int]:
    """Give the cap on the answer's tokens, by its new name or its old one."""
    cap = chat.get("max_completion_tokens")
    return chat.get("max_tokens") if cap is None else cap


def stops(chat: JSON) -> List[str]:
    """Give the stop strings as a list; empty when there are none."""
    stop = chat.get("stop")
    return [stop] if isinstance(stop, str) else list(stop or ())


def text_of(content: Any) -> str:
    """Give the text of a message's content, its text parts joined with a newline."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text") or "") for part in content or () if part.get("type") == "text")


def parts_of(content: Any) -> List[JSON]:
    """Give a message's content as a list of parts, a string as one text part; empty strings as none."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or ())


def leading_system(messages: List[JSON]) -> Tuple[List[JSON], List[JSON]]:
    """Split messages into the system (or developer) messages they begin with, and the rest."""
    for at, message in enumerate(messages):
        if message.get("role") not in ("system", "developer"):
            return messages[:at], messages[at:]
    return messages, []


class Media(NamedTuple):
    """A data URL taken apart."""

    mime: str
    data: str  # base64, as it came


def media(url: str) -> Optional[Media]:
    """Take a base64 data URL apart; None for any other URL."""
    match = _DATA_URL.match(url)
    if not match or not match.group(3):
        return None
    return Media((match.group(1) or "text/plain").lower(), url[match.end() :])


def decoded(data: str, param: str) -> bytes:
    """Decode base64 that a client sent, or refuse it by its path."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise unsupported(param, f"{param} is not valid base64") from None


def image_url(part: JSON) -> str:
    """Give the URL of an `image_url` part, which may be a string or an object."""
    image = part.get("image_url")
    return str(image.get("url") or "") if isinstance(image, dict) else str(image or "")


def arguments_of(call: JSON, param: str = "tool_calls") -> JSON:
    """Give a tool call's arguments as an object; refuse what is none, for there is nothing to send then."""
    text = (call.get("function") or {}).get("arguments")
    if isinstance(text, dict):
        return text
    try:
        arguments = _json.loads(str(text or "{}"))
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise UpstreamError(
            400, f"{param}: the arguments of {name_of(call)!r} are no JSON object", code="invalid_value", param=param
        )
    return arguments


def name_of(call: JSON) -> str:
    """Give the name of a called function."""
    return str((call.get("function") or {}).get("name") or "")


def names_by_id(messages: Iterable[JSON]) -> Dict[str, str]:
    """Map the id of each tool call to the name of its tool: some upstreams want it with the result."""
    names: Dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[str(call.get("id") or "")] = name_of(call)
    return names


def safe_id(id_: str) -> str:
    """Spell a tool call's id with letters, digits, `_` and `-` only; the same id gives the same spelling."""
    if _SAFE_ID.fullmatch(id_):
        return id_
    return "call_" + hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def functions_of(chat: JSON) -> List[JSON]:
    """Give the `function` objects of the tools; refuse tools of other kinds."""
    found = []
    for at, tool in enumerate(chat.get("tools") or ()):
        if tool.get("type", "function") != "function":
            raise unsupported(f"tools[{at}].type", f"tools of type {tool.get('type')!r} are not supported here")
        found.append(tool["function"])
    return found


class Choice(NamedTuple):
    """A `tool_choice` in one shape: mode `auto`, `none` or `required`, and the only names allowed (None: all)."""

    mode: str
    names: Optional[List[str]]


def tool_choice(chat: JSON) -> Optional[Choice]:
    """Read `tool_choice`; None when the client did not choose."""
    choice = chat.get("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, str):
        return Choice(choice, None)
    if choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools") or choice
        names = [name_of(tool) or str(tool.get("name") or "") for tool in allowed.get("tools") or ()]
        return Choice(str(allowed.get("mode") or "auto"), names)
    return Choice("required", [name_of(choice) or str(choice.get("name") or "")])


def json_schema(chat: JSON) -> Optional[JSON]:
    """Give the schema a `response_format` of type `json_schema` asks for."""
    format_ = chat.get("response_format") or {}
    if format_.get("type") != "json_schema":
        return None
    schema = (format_.get("json_schema") or {}).get("schema")
    return schema if isinstance(schema, dict) else {"type": "object"}


def own_options(chat: JSON, provider: str) -> JSON:
    """Give what `provider_options` says to this dialect: merged into the upstream's body last."""
    options = (chat.get("provider_options") or {}).get(provider)
    if not isinstance(options, dict):
        return {}
    return {name: value for name, value in options.items() if name != "stream"}  # what comes back is read as asked


def merged(body: JSON, more: JSON) -> JSON:
    """Merge one object into another, nested objects field by field; the second wins."""
    out = dict(body)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def warn_dropped(chat: JSON, handled: Container[str], warn: Warn, provider: str) -> None:
    """Tell of every field that is set and that the translation did not handle."""
    for field in sorted([field for field in chat if field not in handled]):
        if chat[field] is not None and not field.startswith("_"):
            warn(field, f"not supported by {provider}")


# reasoning state


def details_for(message: JSON, provider: str, model: str) -> List[JSON]:
    """Give the reasoning details of a message that this provider's model made itself, in order."""
    mine = [
        d
        for d in message.get("reasoning_details") or ()
        if isinstance(d, dict) and d.get("provider") == provider and d.get("model") in (model, None)
    ]
    return sorted(mine, key=lambda d: d.get("index") or 0)


# answers, put together


def new_call_id() -> str:
    """Give an id for a tool call that came without one."""
    return "call_" + os.urandom(12).hex()


def new_id() -> str:
    return "chatcmpl-" + os.urandom(12).hex()


def completion(id_: str, model: str, message: JSON, finish: str, usage: Optional[JSON], created: int = 0) -> JSON:
    """Put a whole answer of one choice together. `model` is `provider/model`."""
    answer = {
        "id": id_ or new_id(),
        "object": "chat.completion",
        "created": created or int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
    }
    if usage:
        answer["usage"] = usage
    return answer


class Chunks:
    """Makes the chunks of one streamed answer, all with the same id, time and model (`provider/model`)."""

    def __init__(self, id_: str, model: str, created: int = 0) -> None:
        self._head = {
            "id": id_ or new_id(),
            "object": "chat.completion.chunk",
            "created": created or int(time.time()),
            "model": model,
        }

    def delta(self, delta: JSON, finish: Optional[str] = None, index: int = 0) -> JSON:
        return {**self._head, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    def role(self) -> JSON:
        return self.delta({"role": "assistant", "content": ""})

    def text(self, text: str) -> JSON:
        return {**self._head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}

    def reasoning(self, text: str) -> JSON:
        return self.delta({"reasoning_content": text})

    def detail(self, detail: JSON) -> JSON:
        return self.delta({"reasoning_details": [detail]})

    def call(self, index: int, id_: str, name: str, arguments: str = "") -> JSON:
        function = {"name": name, "arguments": arguments}
        return self.delta({"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]})

    def arguments(self, index: int, fragment: str) -> JSON:
        return self.delta({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]})

    def usage(self, usage: JSON) -> JSON:
        return {**self._head, "choices": [], "usage": usage}


def usage(prompt: int, answer: int, *, cached: int = 0, cache_write: int = 0, reasoning: Optional[int] = None) -> JSON:
    """Put a usage object together; the total is always the sum, details are there when they say something."""
    told: JSON = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    if cached or cache_write:
        told["prompt_tokens_details"] = {"cached_tokens": cached, "cache_write_tokens": cache_write}
    if reasoning is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return told


_SPELLED_OUT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


def dumped(value: Any) -> str:
    """Dump arguments as a model would have written them: key order kept, no blanks, letters unescaped."""
    return _SPELLED_OUT.encode(value)


def floats(told: Any) -> List[float]:
    """Give a vector; TypeError for what is no list of numbers, OverflowError for numbers that no float can be."""
    if not isinstance(told, list):
        raise TypeError("a vector is a list")
    return array("d", told).tolist()


def vectors(vectors_: Iterable[List[float]], model: str, tokens: int) -> JSON:
    """Put an embeddings list together. `model` is `provider/model`."""
    data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors_)]
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def texts_of(chat: JSON) -> List[str]:
    """Give the texts of an embeddings request; refuse token ids, which mean nothing outside OpenAI."""
    given = chat.get("input")
    texts = [given] if isinstance(given, str) else list(given or ())
    if not all(isinstance(text, str) for text in texts):
        raise unsupported("input", "input must be a string or a list of strings: token ids are OpenAI's own")
    return texts


def batches(items: List[Any], size: int) -> Iterator[List[Any]]:
    """Cut a list into lists of at most `size`."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


# errors


def retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """Give the seconds an upstream asks to wait (`retry-after-ms`, else `retry-after`); None if it does not say."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        if _SECONDS.fullmatch(headers.get(name, "")):  # no date: nobody sends one here; and not for ever
            return max(0.0, float(headers[name]) / unit)
    return None


#: upstream status -> our status, type, code; what is not listed passes with its own status
CLASSES: Mapping[int, Tuple[int, str, Optional[str]]] = {
    400: (400, "invalid_request_error", None),
    401: (401, "authentication_error", "provider_auth"),
    402: (429, "insufficient_quota", "insufficient_quota"),
    403: (403, "permission_error", None),
    404: (404, "not_found_error", "model_not_found"),
    408: (504, "timeout_error", "provider_timeout"),
    413: (413, "invalid_request_error", "request_too_large"),
    422: (400, "invalid_request_error", None),
    429: (429, "rate_limit_error", "rate_limit_exceeded"),
    503: (503, "overloaded_error", "provider_overloaded"),
    504: (504, "timeout_error", "provider_timeout"),
    529: (503, "overloaded_error", "provider_overloaded"),
}
_TOO_LONG = re.compile(
    r"prompt is too long|context.{0,20}(length|window|size)|input token count.*exceeds|maximum context"
)


def upstream_error(
    provider: str,
    status: int,
    message: str,
    *,
    in_stream: bool = False,
    wait: Optional[float] = None,
    code: Optional[str] = None,
    param: Optional[str] = None,
    kind: str = "",
) -> UpstreamError:
    """Word an upstream's refusal; `code` and `kind` override what its status tells.

    Statuses of the 500s that are not listed are the provider's bug (502), redirects too. In a stream
    `status` is only what its kind of error would have had.
    """
    fallback = (status, "invalid_request_error", None) if 400 <= status < 500 else (502, "api_error", "provider_error")
    ours, kind_, code_ = CLASSES.get(status, fallback)
    message = message[:2000] or f"{provider} answered {status}"  # it may be all that a client sent
    if ours == 400 and code is None and _TOO_LONG.search(message):
        code = "context_length_exceeded"
    code = code or code_
    if ours == 401:
        message = f"{provider} refused the proxy's own key for it: {message}"
    if code == "insufficient_quota":
        ours, kind, wait = 429, "insufficient_quota", None
    headers = {} if wait is None or ours not in (429, 503) else {"Retry-After": str(max(1, -int(-wait // 1)))}
    return UpstreamError(
        ours,
        message[:2000],
        headers,
        kind=kind or kind_,
        code=code,
        param=param,
        provider=provider,
        provider_status=None if in_stream else status,
        retry_after=wait,
    )


def truncated(provider: str) -> UpstreamError:
    """Give the trouble of a stream that ended before its answer did."""
    return UpstreamError(502, f"{provider}'s stream broke off", code="stream_truncated", provider=provider)
