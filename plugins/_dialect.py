"""What the dialects have in common: a client's own words in, a canonical call on the way, its own words back."""

from __future__ import annotations

import itertools
import logging
import os
import traceback
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, ClassVar, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from providers import Call, Options, Pocket, Provider, Trouble, UpstreamError, _json
from providers._transport import STUMBLES

from . import JSON, Plugin, Refusal, Request, Response, Waiting
from ._json import shown
from ._question import CHAT, checked
from ._stream import KEEP_ALIVE, begun, flowing, sse, whole

log = logging.getLogger("llmproxy")


class Asked(NamedTuple):
    """A question translated: the canonical chat (its model as the client named it), and the client's own words."""

    chat: JSON
    pocket: Pocket


class Dialect(Plugin):
    """Serves an API's clients over all providers; a subclass says how its questions, answers and streams read.

    A provider of the same dialect is asked in the client's own words and its answer is passed on in its own:
    nothing is lost between the two. All others are asked, and answer, by the canonical form.
    """

    dialect: ClassVar[str] = ""  # the name of its pockets
    options: ClassVar[Options] = {
        "heartbeat": (15.0, "Seconds of an upstream's silence after which a stream says that it is alive."),
    }
    order = 60
    life = KEEP_ALIVE  # what a stream says in a silence; empty where clients would break on it

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.heartbeat = options["heartbeat"]

    # what a subclass says

    def spelled(self, event: JSON) -> bytes:
        """Write an upstream's own event as it goes over the wire."""
        raise NotImplementedError

    def failed(self, trouble: Trouble) -> bytes:
        """Write trouble under way."""
        raise NotImplementedError

    def streamed(self, body: Iterable[bytes]) -> Response:
        """Give the response that a stream comes in."""
        return sse(body)

    # what all share

    def nothing(self, request: Request) -> Response:
        """Say in the dialect's words that nothing is at a path below its own."""
        raise Refusal(404, "there is nothing at this path", code="not_found")

    def call(self, request: Request, asked: Asked) -> Call:
        """Make the call that a question asks; raises Refusal for a field that is wrong."""
        chat = checked(asked.chat, CHAT, ("model", "messages"))
        request.notes["model"] = shown(chat["model"], 120)
        return request.call({**chat, f"_{self.dialect}": asked.pocket})

    def converse(
        self,
        request: Request,
        asked: Asked,
        answer: Callable[[JSON], JSON],
        speak: Callable[[Iterable[JSON]], Iterator[bytes]],
        *,
        spelled: Optional[Callable[[JSON], bytes]] = None,
        failed: Optional[Callable[[Trouble], bytes]] = None,
    ) -> Waiting[Response]:
        """Have a chat answered: `answer` words a whole `chat.completion`, `speak` the parts of a stream.

        `speak` gives empty bytes for an empty part, and what ends a good stream at the end. `spelled` and `failed`
        stand in for the dialect's own where they have to know how far this stream has come.
        """
        call = self.call(request, asked)
        parts = self.upstream.chat(call)
        if call.streams:
            stream = yield from begun(parts, self.heartbeat)
            in_words = partial(self._spoken, speak, spelled or self.spelled)
            body = flowing(stream, in_words, failed or self.failed, self.heartbeat, request.notes, life=self.life)
            response = self.streamed(body)
        else:
            completion = yield from whole(parts)
            request.notes["usage"] = completion.get("usage")
            own = completion.get(f"_{self.dialect}")
            try:
                response = Response.of(answer(completion) if own is None else own)
            except STUMBLES as error:
                raise stumbled(error) from error
        response.headers += request.warnings()
        return response

    def _spoken(
        self,
        speak: Callable[[Iterable[JSON]], Iterator[bytes]],
        spelled: Callable[[JSON], bytes],
        parts: Iterable[JSON],
    ) -> Iterator[bytes]:
        """Pass an upstream of one's own dialect on in its own words; speak for any other."""
        coming = iter(parts)
        for part in coming:
            if part:
                words = partial(self._echoed, spelled) if f"_{self.dialect}" in part else speak
                try:
                    yield from words(itertools.chain((part,), coming))
                except STUMBLES as error:
                    raise stumbled(error) from error
            else:
                yield b""

    def _echoed(self, spelled: Callable[[JSON], bytes], parts: Iterable[JSON]) -> Iterator[bytes]:
        for part in parts:
            if not part:
                yield b""
            for event in part.get(f"_{self.dialect}") or ():
                yield spelled(event)

    def counted(self, call: Call) -> Tuple[int, bool]:
        """Count the input tokens of a chat; the second tells that they are an estimate."""
        try:
            return self.upstream.count_tokens(call), False
        except UpstreamError as error:
            if error.status != 501:
                raise
        call.scope.warnings["input_tokens"] = "estimated: the provider cannot count"
        return estimated(call.chat), True


def created(model: JSON) -> int:
    """Give when a model was made, in seconds; 0 where that is not known."""
    when = model.get("created")
    return int(when) if isinstance(when, (int, float)) and 0 <= when < LAST_SECOND else 0


def gather(calls: Dict[int, JSON], fragments: Iterable[JSON]) -> None:
    """Put the fragments of calls to those before, by their index, for clients that want calls whole."""
    for fragment in fragments:
        call = calls.setdefault(fragment["index"], {"id": "", "function": {"name": "", "arguments": ""}})
        call["id"] = call["id"] or fragment.get("id") or ""
        for name, text in (fragment.get("function") or {}).items():
            call["function"][name] += text or ""


def arguments_of(function: JSON) -> JSON:
    """Give the arguments of a call as an object, for clients that take nothing else; none at all are an empty one."""
    try:
        told = _json.loads(function.get("arguments") or "{}")
    except ValueError:
        told = ""
    if not isinstance(told, (dict, type(None))):
        why = f"the arguments of a call of {function['name']} are no JSON object"
        raise UpstreamError(502, why, code="provider_error")
    return told or {}


def stumbled(error: Exception) -> UpstreamError:
    """Take it for the upstream's trouble that a translator stumbles over its answer, as the ground floor does."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}: {type(error).__name__}"  # not what it read
    log.warning("an answer of no known shape: %s", where)
    return UpstreamError(502, "the upstream's answer is not of the shape it should have", code="provider_error")


@contextmanager
def naming(own: Callable[[str], str]) -> Iterator[None]:
    """Have trouble name its field as the client wrote it; `own` gives a path in the dialect's words."""
    try:
        yield
    except Trouble as trouble:
        canonical = trouble.param or ""
        trouble.param = own(canonical) if canonical else None
        if canonical and trouble.message.startswith(canonical):
            trouble.message = f"{trouble.param}{trouble.message[len(canonical) :]}"
        raise


def with_field(trouble: Trouble) -> str:
    """Give the message of trouble for a dialect that has no other place to name the field."""
    named = not trouble.param or trouble.param in trouble.message
    return trouble.message if named else f"{trouble.param}: {trouble.message}"


LAST_SECOND = 1 << 37  # that calendars know
LETTERS_A_TOKEN = 4
TOKENS_A_PICTURE = 1000


def estimated(chat: JSON) -> int:
    """Guess the tokens of a chat: a token for four letters, a thousand for a picture."""
    letters, pictures = 0, 0
    left: List[Any] = [chat.get("messages"), chat.get("tools")]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            pictures += "image_url" in item
            left += [value for name, value in item.items() if name != "image_url"]
        elif isinstance(item, list):
            left += item
        elif isinstance(item, str):
            letters += len(item)
    return -(-letters // LETTERS_A_TOKEN) + pictures * TOKENS_A_PICTURE
