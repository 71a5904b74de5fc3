"""Serves OpenAI's Responses API at /llm/v1/responses, over every provider.

OpenAI's own is asked in the client's words and answers in its own. Nothing is kept here but, for a while and for
clients that go on by naming them, the items that were said last.
"""

from __future__ import annotations

from functools import partial
from typing import Any, List, Mapping, Optional

from providers import Provider, Trouble
from providers._memory import Remembered

from . import JSON, Handler, Plugin, Refusal, Request, Response, Waiting, aside, late
from ._dialect import Asked, Dialect
from ._json import parsed
from ._responses_answer import Voice
from ._responses_question import Question, placed, question
from ._stream import sse

SENT_ON = ("openai-beta",)  # headers that go on with a question in OpenAI's own words
MOST_ITEMS = 4000
HABITS = ("reasoning_effort",)  # what agents send to any model that they are set to


class ResponsesAPI(Dialect):
    dialect = "responses"
    blocks = False

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.said = Remembered(MOST_ITEMS)

    def routes(self) -> Mapping[str, Handler]:
        return {
            "POST /llm/v1/responses": self.created,
            "GET /llm/v1/responses": self.upgraded,
            "POST /llm/v1/responses/input_tokens": self.count,
            "* /llm/v1/responses/*": self.stored,
        }

    def follow(self, before: Plugin) -> None:
        self.said = getattr(before, "said", self.said)

    @late
    def created(self, request: Request) -> Waiting[Response]:
        body = parsed(request.json())
        asked = self.asked(request, body, "/responses")
        voice = Voice(body, asked.tools.known, partial(self.keep, request.user))
        try:
            if body.get("generate") is False:
                return self.warmed(request, asked, voice)
            return (
                yield from self.converse(
                    request,
                    Asked(asked.chat, asked.pocket),
                    voice.answer,
                    voice.speak,
                    spelled=voice.spelled,
                    failed=voice.failed,
                )
            )
        except Trouble as trouble:
            raise replaced(trouble, asked) from None

    def warmed(self, request: Request, asked: Question, voice: Voice) -> Response:
        """Answer a question that only warms a cache up, with nothing: nobody is asked."""
        call = self.call(request, Asked(asked.chat, asked.pocket))
        told = {"model": call.model, "choices": [{"message": {}, "delta": {}, "finish_reason": "stop"}]}
        return sse(voice.speak([told])) if call.streams else Response.of(voice.answer(told))

    @aside
    def count(self, request: Request) -> Response:
        asked = self.asked(request, parsed(request.json()), "/responses/input_tokens")
        try:
            tokens, _ = self.counted(self.call(request, Asked(asked.chat, asked.pocket)))
        except Trouble as trouble:
            raise replaced(trouble, asked) from None
        return Response.of({"object": "response.input_tokens", "input_tokens": tokens}, headers=request.warnings())

    def stored(self, request: Request) -> Response:
        told = "nothing is kept here: send what was said before with each question, and store: false"
        raise Refusal(404, told, kind="invalid_request_error", code="not_found")

    def upgraded(self, request: Request) -> Response:
        """Tell a client that wants a socket to do without, in the way that has it do so at once."""
        if request.header("upgrade").lower() == "websocket":
            raise Refusal(426, "there are no WebSockets here: POST it", {"Upgrade": "HTTP/1.1"})
        raise Refusal(405, "this path takes OPTIONS, POST", {"Allow": "OPTIONS, POST"}, code="method_not_allowed")

    def asked(self, request: Request, body: JSON, path: str) -> Question:
        asked = question(body, partial(self.recall, request.user), path)
        asked.pocket.headers = [(name, request.header(name)) for name in SENT_ON if request.header(name)]
        asked.chat["_hints"] = HABITS
        return asked

    def keep(self, user: str, items: List[JSON]) -> None:
        for item in items:
            self.said.keep([f"{user}/{item['id']}"], [item])

    def recall(self, user: str, id_: str) -> Optional[JSON]:
        return next(iter(self.said.recall([f"{user}/{id_}"])), None)


def replaced(trouble: Trouble, asked: Question) -> Trouble:
    """Name a field as its client does."""
    param = trouble.param
    if param:
        trouble.param = placed(param, asked.places, asked.tools.places)
        trouble.message = trouble.message.replace(param, trouble.param)
    return trouble
