"""What Gemini answers, as canonical parts. Pure.

A whole answer is what its chunks add up to, so that there is one translation for both. An answer may
take several requests (`CONTINUATION`); whoever reads it sees one.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Mapping, Optional

from . import JSON, PAUSE, Parts, UpstreamError, _canonical
from ._events import handing_back
from ._gemini_contents import bare

Events = Generator[JSON, None, None]
Note = Callable[[str, str], None]
Keep = Callable[[Iterable[str], List[JSON]], object]

#: how often an answer is asked on before it counts as too long
CONTINUATIONS = 32

FINISH = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",  # one that cannot be followed
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
            "BLOCKED_PROMPT",  # our own word, see candidates_of
        ),
        "content_filter",
    ),
}
#: ends that are the upstream's failure when nothing was said before
FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    }
)


def continued(ask: Callable[[str], Events], most: int = CONTINUATIONS) -> Events:
    """Give the events of an answer over as many requests as it takes; each tells the usage of all so far.

    `ask(token)` gives the events of one request; the first token is empty.
    """
    token = ""
    spent: JSON = {}
    for left in range(most, -1, -1):
        asked, token, usage, ends = token, "", spent, False
        with handing_back(ask(asked)) as events:
            for event in events:
                token = _token(event) or token
                ends = ends or _finish(event) == "CONTINUATION"
                told = event.get("usageMetadata")
                if told:
                    usage = _sum(spent, told) if spent else told
                goes_on = ends and left > 0 and token not in ("", asked)
                yield _passed(event, usage, goes_on) if event else PAUSE
        if not ends or token in ("", asked):
            return
        spent = usage


def _first(event: JSON) -> JSON:
    return (event.get("candidates") or ({},))[0]


def _token(event: JSON) -> str:
    return str(_first(event).get("continuationToken") or "")


def _finish(event: JSON) -> str:
    return str(_first(event).get("finishReason") or "")


def _passed(event: JSON, usage: JSON, goes_on: bool) -> JSON:
    """Give an event with the usage so far, and without the end of a request that is none of the answer."""
    event = {**event, "usageMetadata": usage}
    if goes_on and _finish(event):
        first, *others = event["candidates"]
        event["candidates"] = [{**first, "finishReason": ""}, *others]
    return event


def _sum(one: JSON, other: JSON) -> JSON:
    """Add the counts of two usages up."""
    counts = [key for key in {**one, **other} if key.endswith("Count")]
    return {key: int(one.get(key) or 0) + int(other.get(key) or 0) for key in counts}


def candidates_of(event: JSON) -> List[JSON]:
    """Give the candidates of an event; a blocked prompt is one that ended at once."""
    if (event.get("promptFeedback") or {}).get("blockReason") and not event.get("candidates"):
        return [{"finishReason": "BLOCKED_PROMPT"}]
    return list(event.get("candidates") or ())


class Spoken:
    """What one candidate has said so far."""

    def __init__(self, index: int, name: str, model: str) -> None:
        self.index = index
        self.ids: List[str] = []
        self.details: List[JSON] = []
        self.logprobs: List[JSON] = []  # not yet passed on
        self.said = False
        self._owner = {"provider": name, "model": model}
        self._end = self._why = ""

    def deltas(self, candidate: JSON) -> Iterator[JSON]:
        """Give the deltas of what is new."""
        self._end = candidate.get("finishReason") or self._end
        self._why = candidate.get("finishMessage") or self._why
        if candidate.get("logprobsResult"):
            self.logprobs += logprobs_of(candidate["logprobsResult"])
        for part in (candidate.get("content") or {}).get("parts") or ():
            delta = self._delta(part)
            if delta:
                yield delta
            if part.get("thoughtSignature"):
                id_ = self.ids[-1] if "functionCall" in part else None
                yield {"reasoning_details": [self._detail(id_, part["thoughtSignature"])]}

    def _delta(self, part: JSON) -> JSON:
        if part.get("functionCall") is not None:
            self.said = True
            return {"tool_calls": [self._call(part["functionCall"])]}
        if part.get("thought"):
            return {"reasoning_content": _text(part)} if part.get("text") else {}
        if part.get("text"):
            self.said = True
            return {"content": _text(part)}
        if part.get("inlineData"):
            self.said = True
            url = f"data:{part['inlineData'].get('mimeType')};base64,{part['inlineData'].get('data')}"
            return {"images": [{"type": "image_url", "image_url": {"url": url}}]}
        return {}

    def _call(self, call: JSON) -> JSON:
        self.ids.append(str(call.get("id") or _canonical.new_call_id()))
        function = {"name": call.get("name") or "", "arguments": _canonical.dumped(call.get("args") or {})}
        return {"index": len(self.ids) - 1, "id": self.ids[-1], "type": "function", "function": function}

    def _detail(self, id_: Optional[str], signature: str) -> JSON:
        at = len(self.details)
        told = {"type": "thought_signature", "tool_call_id": id_, "signature": signature}
        self.details.append({**self._owner, "index": at, **told})
        return self.details[-1]

    def finish(self, note: Note) -> str:
        """Give the canonical reason why it ended; an end nobody understands is noted."""
        end = re.sub(r"[^A-Z_]", "", str(self._end))[:40]
        name = self._owner["provider"]
        if not end:
            raise _canonical.truncated(name)
        if end in FAILED and not self.said:
            raise _canonical.upstream_error(name, 502, f"{end}: {self._why or 'no usable answer'}", in_stream=True)
        if end not in FINISH:
            note("finish_reason", f"{end} is told as stop")
        reason = FINISH.get(end, "stop")
        return "tool_calls" if self.ids and reason == "stop" else reason


def _text(part: JSON) -> str:
    text = part["text"]
    if not isinstance(text, str):
        raise TypeError("a text that is none")
    return text


class Heard:
    """What was heard of one answer so far: its head, its speakers, its usage."""

    def __init__(self, name: str, model: str) -> None:
        self.name = name
        self.model = bare(model)
        self.head: Optional[_canonical.Chunks] = None
        self.speakers: Dict[int, Spoken] = {}
        self.usage: JSON = {}

    def more(self, event: JSON) -> Parts:
        """Give the chunks of one event."""
        if event.get("error"):
            raise trouble(self.name, event["error"])
        if self.head is None:
            version = bare(str(event.get("modelVersion") or self.model))
            self.head = _canonical.Chunks(str(event.get("responseId") or ""), f"{self.name}/{version}")
        if event.get("usageMetadata"):
            self.usage = usage_of(event["usageMetadata"])
        candidates = candidates_of(event)
        if not self.speakers:
            candidates.insert(0, {})  # the first speaks up as soon as anything is heard
        for candidate in candidates:
            index = int(candidate.get("index") or 0)
            if index not in self.speakers:
                self.speakers[index] = Spoken(index, self.name, self.model)
                yield self.head.delta({"role": "assistant", "content": ""}, None, index)
            speaker = self.speakers[index]
            for delta in speaker.deltas(candidate):
                yield _with_logprobs(self.head.delta(delta, None, index), speaker)

    def end(self, note: Note, keep: Keep) -> Parts:
        """Give the chunks that end the answer."""
        if self.head is None:
            raise _canonical.truncated(self.name)
        for index, speaker in sorted(self.speakers.items()):
            finish = speaker.finish(note)
            if speaker.ids and speaker.details:
                keep(speaker.ids, speaker.details)
            yield _with_logprobs(self.head.delta({}, finish, index), speaker)
        if self.usage:
            yield self.head.usage(self.usage)


def chunks(events: Events, name: str, model: str, note: Note, keep: Keep = lambda *_: None) -> Parts:
    """Translate the events of an answer into chunks.

    `note` is told of odd ends, `keep` the ids of a turn's tool calls and the details made with them.
    """
    heard = Heard(name, model)
    with handing_back(events):
        for event in events:
            if event:
                yield from heard.more(event)
            else:
                yield PAUSE
    yield from heard.end(note, keep)


def _with_logprobs(part: JSON, speaker: Spoken) -> JSON:
    if speaker.logprobs:
        part["choices"][0]["logprobs"] = {"content": speaker.logprobs}
        speaker.logprobs = []
    return part


def logprobs_of(result: JSON) -> List[JSON]:
    """Translate a `logprobsResult`: one entry a token, each with its rivals."""
    rivals = [top.get("candidates") or [] for top in result.get("topCandidates") or ()]
    chosen = result.get("chosenCandidates") or ()
    rivals += [[]] * (len(chosen) - len(rivals))
    return [{**_token_of(one), "top_logprobs": [_token_of(r) for r in top]} for one, top in zip(chosen, rivals)]


def _token_of(candidate: JSON) -> JSON:
    token = str(candidate.get("token") or "")
    return {"token": token, "logprob": candidate.get("logProbability") or 0.0, "bytes": list(token.encode())}


def usage_of(metadata: JSON) -> JSON:
    """Translate `usageMetadata`: thoughts are part of the answer, results of hosted tools part of the prompt."""

    def count(kind: str) -> int:
        return int(metadata.get(f"{kind}TokenCount") or 0)

    thoughts = count("thoughts")
    return _canonical.usage(
        count("prompt") + count("toolUsePrompt"),
        count("candidates") + thoughts,
        cached=count("cachedContent"),
        reasoning=thoughts if "thoughtsTokenCount" in metadata else None,
    )


def whole(parts: Parts) -> Generator[JSON, None, JSON]:
    """Add the chunks of an answer up to one `chat.completion`; pauses pass."""
    answer: JSON = {}
    choices: Dict[int, JSON] = {}
    with handing_back(parts):
        for part in parts:
            if not part:
                yield PAUSE
                continue
            answer = answer or {**part, "object": "chat.completion"}
            if part.get("usage"):
                answer["usage"] = part["usage"]
            for choice in part["choices"]:
                index = choice["index"]
                _add(
                    choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}}),
                    choice,
                )
    answer["choices"] = [choice for _, choice in sorted(choices.items())]
    return answer


def _add(choice: JSON, more: JSON) -> None:
    """Add one chunk's choice to the whole one."""
    for field, value in more["delta"].items():
        if field != "role":
            _append(choice["message"], field, value)
    if more["finish_reason"]:
        choice["finish_reason"] = more["finish_reason"]
    if more.get("logprobs"):
        choice.setdefault("logprobs", {"content": []})["content"].extend(more["logprobs"]["content"])


def _append(message: JSON, field: str, value: Any) -> None:
    if isinstance(value, list):
        items = [{k: v for k, v in item.items() if k != "index"} for item in value] if field == "tool_calls" else value
        message.setdefault(field, []).extend(items)
    elif value:
        message[field] = (message.get(field) or "") + value


# errors

_KEY = re.compile(r"AIza[\w-]{10,}|((?:api_key:|\bkey=))[^\s'\"&]+")


def worded(name: str, status: int, headers: Mapping[str, str], body: Any) -> UpstreamError:
    """Word a refusal: a bad key counts as 401 though Google says 400, a spent quota is nothing to wait for."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error = body.get("error") if isinstance(body, dict) else None
    return _worded(name, status, error, _canonical.retry_after(headers), in_stream=False)


def trouble(name: str, error: Any) -> UpstreamError:
    """Word an error that came in the place of an event."""
    code = str(error.get("code") or "") if isinstance(error, dict) else ""
    return _worded(name, int(code) if code.isdigit() else 500, error, None, in_stream=True)


def _worded(name: str, status: int, error: Any, wait: Optional[float], *, in_stream: bool) -> UpstreamError:
    error = error if isinstance(error, dict) else {"message": error if isinstance(error, str) else ""}
    details = [detail for detail in error.get("details") or () if isinstance(detail, dict)]
    bad_key = any(detail.get("reason") == "API_KEY_INVALID" for detail in details)
    waits = [seconds for seconds in map(_seconds, details) if seconds is not None]
    return _canonical.upstream_error(
        name,
        401 if bad_key else status,
        _KEY.sub(r"\1***", str(error.get("message") or "")),
        in_stream=in_stream,
        wait=waits[0] if waits else wait,
        code="insufficient_quota" if status == 429 and any(map(_is_spent, details)) else None,
    )


def _seconds(detail: JSON) -> Optional[float]:
    """Give the seconds of a RetryInfo (`"46s"`)."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", str(detail.get("retryDelay") or ""))
    return float(found.group(1)) if found else None


def _is_spent(detail: JSON) -> bool:
    """Tell whether a QuotaFailure is one that no wait mends: a day's quota, or one of nothing."""
    violations = [v for v in detail.get("violations") or () if isinstance(v, dict)]
    return any("PerDay" in str(v.get("quotaId")) or str(v.get("quotaValue")) == "0" for v in violations)
