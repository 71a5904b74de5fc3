"""What a plugin is: the contract of the upper floor, where everything a client meets lives."""

from __future__ import annotations

import functools
import itertools
import re
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Generator,
    Iterable,
    List,
    Mapping,
    Optional,
    Tuple,
    TypeVar,
    Union,
    cast,
)

from providers import LARGE, Aside, Call, Gone, Options, Parts, Provider, Scope, Trouble, UpstreamError
from providers._http import Fields
from providers._json import written as in_json

VERSION = "0.1.0"
JSON = Dict[str, Any]
T = TypeVar("T")
Waiting = Generator[Any, None, T]  # whatever it yields, it is a pause: see `Scope.waiting`
_UNFIT = re.compile(r"[^\x20-\x7e]|,")  # for a member of a comma list in a header
MOST_WARNINGS = 32  # told in one header
Headers = Union[Mapping[str, str], Iterable[Tuple[str, str]]]


class Request:
    """What a client asks, as HTTP; `path` and `query` are as they were sent, nothing decoded.

    `body()` reads the body when it is first called, within the server's limits, or raises Refusal; `arriving` does so
    in pauses, and the house has it done before a handler that must not block is called.
    Plugins write what they learn: `user`, and what the log line is to tell in `notes`.
    """

    user = ""
    id = ""
    public = False  # whether its route is there for everybody
    key_headers: Tuple[str, ...] = ()  # where its route's dialect puts its key

    def __init__(
        self,
        method: str,
        target: str,
        fields: Fields,
        address: str = "",
        read: Union[bytes, Callable[[], Waiting[bytes]]] = b"",
        scope: Optional[Scope] = None,
        local: str = "",
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.target = target
        self.fields = fields
        self.address = address
        self.local = local  # the address of ours that the client reached
        self.scope = Scope() if scope is None else scope
        self.notes: JSON = {}
        self._read = read

    @property
    def is_light(self) -> bool:
        """Tell whether the whole body has come, and takes no time to be parsed."""
        return isinstance(self._read, bytes) and len(self._read) <= LARGE

    def body(self) -> bytes:
        """Give the whole body."""
        for _ in () if isinstance(self._read, bytes) else self.arriving():
            pass
        return cast(bytes, self._read)

    def arriving(self) -> Waiting[None]:
        """Read the whole body; yields at each pause."""
        if not isinstance(self._read, bytes):
            self._read = yield from self._read()

    def json(self) -> bytes:
        """Give the body of a request that says it is JSON; a browser needs leave to send that to a stranger."""
        if self.header("content-type").partition(";")[0].strip(" \t").lower() != "application/json":
            raise Refusal(415, "the body must be JSON: Content-Type: application/json", code="unsupported_media_type")
        if self.header("content-encoding").lower() not in ("", "identity"):
            raise Refusal(415, "the body must not be compressed", code="unsupported_media_type")
        return self.body()

    def header(self, name: str) -> str:
        """Give the first value of a header by its lower-case name; "" when it is not there."""
        return self.fields.get(name)

    def warnings(self) -> List[Tuple[str, str]]:
        """Give the header that tells what was changed or dropped on the way, if anything was."""
        warnings = itertools.islice(self.scope.warnings.items(), MOST_WARNINGS)
        told = ", ".join(f"{_plain(field, 60)}={_plain(why, 200)}" for field, why in warnings)
        return [("x-llmproxy-warnings", told)] if told else []

    def call(self, chat: JSON) -> Call:
        """Make the question on its way down that this request asks."""
        strict = self.header("x-llmproxy-strict").lower() == "true"
        return Call(chat, self.user, self.id, self.scope, strict=strict)


def _plain(text: str, most: int) -> str:
    """Spell a text, which may be a stranger's, so that it can stand in a header's comma list."""
    return _UNFIT.sub("?", text[:most])


def written(document: Any) -> bytes:
    """Write JSON. Escaped throughout: half a surrogate pair from a model must not break it.

    Raises UpstreamError for a number that no JSON can hold, which only an upstream can have told us.
    """
    try:
        return in_json(document).encode()
    except ValueError:
        raise UpstreamError(502, "the upstream told a number that is too large", code="provider_error") from None


class Response:
    """What a client is told: `body` is bytes, or an iterable of bytes to be sent as they come.

    An empty block of an iterable body is a pause: what came before is sent at once. An exception from
    it cuts the connection, so that a body which broke off never looks whole.

    A response may be *late*: what it is will be known when a generator that pauses where it waits has returned. So
    no handler keeps anybody waiting. Who looks at one before that waits for it there and then; `then` does not look.
    """

    is_late = False  # whether it is not known yet

    def __init__(self, status: int = 200, headers: Headers = (), body: Union[bytes, Iterable[bytes]] = b"") -> None:
        self.status = status
        self.headers: List[Tuple[str, str]] = list(headers.items() if hasattr(headers, "items") else headers)
        self.body = body

    @staticmethod
    def late(work: Waiting[Response]) -> Response:
        """Promise what `work` returns."""
        return _Late(work)

    @staticmethod
    def aside(scope: Scope, make: Callable[[], Response], *, stays: bool = False) -> Response:
        """Promise what `make` gives, and call it where it does no harm to block."""

        def made() -> Waiting[Response]:
            yield from scope.aside(Aside(stays=stays))
            return make()

        return _Late(made())

    @classmethod
    def of(cls, document: Any, status: int = 200, headers: Headers = ()) -> Response:
        """Make an answer of JSON."""
        response = cls(status, headers, written(document))
        response.headers.append(("Content-Type", "application/json"))
        return response

    def then(self, change: Callable[[Response], None]) -> Response:
        """Have this changed once it is known, by what does not fail."""
        change(self)
        return self

    def rescued(self, rescue: Callable[[Exception, Request], Response], request: Request) -> Response:
        """Have another take the place of a late one that turns out to be an exception; the first who says so is asked.

        What it gives is changed as the other would have been.
        """
        return self

    def awaited(self) -> Waiting[Response]:
        """Give this once it is known; yields at each pause."""
        yield from ()
        return self


class _Late(Response):
    """A response that is not known yet; it becomes a plain one when it is."""

    is_late = True

    def __init__(self, work: Waiting[Response]) -> None:
        self._work = work
        self._changes: List[Callable[[Response], None]] = []
        self._rescue: Optional[Callable[[Exception, Request], Response]] = None

    def then(self, change: Callable[[Response], None]) -> Response:
        self._changes.append(change)
        return self

    def rescued(self, rescue: Callable[[Exception, Request], Response], request: Request) -> Response:
        if self._rescue is None:
            self._rescue, self._request = rescue, request
        return self

    def awaited(self) -> Waiting[Response]:
        try:
            found = yield from self._work
            if found.is_late:
                yield from found.awaited()
        except Exception as error:
            if self._rescue is None or isinstance(error, Gone):
                raise
            found = self._rescue(error, self._request)
        self.status, self.headers, self.body = found.status, found.headers, found.body
        self.__class__ = Response  # type: ignore[assignment]
        for change in self._changes:
            change(self)
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in ("status", "headers", "body"):
            raise AttributeError(name)
        for _ in self.awaited():
            pass
        return vars(self)[name]


def late(handler: Callable[..., Waiting[Response]]) -> Callable[..., Response]:
    """Make a handler of a generator function that pauses wherever it waits."""

    @functools.wraps(handler)
    def promised(*args: Any, **more: Any) -> Response:
        return Response.late(handler(*args, **more))

    return promised


def aside(handler: Callable[..., Response]) -> Callable[..., Response]:
    """Have a plugin's method that blocks called where that does no harm; its first argument is the request."""

    @functools.wraps(handler)
    def promised(self: Plugin, request: Request, *args: Any) -> Response:
        return Response.aside(request.scope, functools.partial(handler, self, request, *args))

    return promised


class Refusal(Trouble):
    """We say no: `Refusal(429, "slow down", {"Retry-After": "3"})`."""


#: what `doctor` tells: is it good (None: it is merely not there), what was looked at, the remedy
Finding = Tuple[Optional[bool], str, str]
#: name -> what runs it, given the plugin's options and the rest of the command line; gives the exit code
Commands = Mapping[str, Callable[[Mapping[str, Any], List[str]], int]]
Handler = Callable[[Request], Response]
Chat = Callable[[Call], Parts]


class Plugin:
    """One thing clients meet. Override what you need; the rest is not in the way.

    `order` says how far out it stands: 0-19 watch, 20-39 guard, 40-59 shape, 60-99 serve. `upstream`
    has a provider's face: one, or all of them. A file in this folder holds one subclass.

    `blocks` tells whether what it does may block (sleep, read a file, look at what `inner` gives): then a thread does
    it. Without that it must come back at once, from a handler with a late response.
    """

    options: ClassVar[Options] = {}
    commands: ClassVar[Commands] = {}  # what `llmproxy.py NAME` does, whether the plugin is enabled or not
    order = 50
    blocks = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "blocks" not in vars(cls):
            cls.blocks = True  # what another says of itself is not said of this one

    authenticates = False  # whether it asks every client who it is
    public = False  # whether its routes are there for everybody, token or none
    key_headers: Tuple[str, ...] = ()  # where its dialect's clients put their key, in lower case

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        self.upstream = upstream

    def routes(self) -> Mapping[str, Handler]:
        """Give what is served: `{"POST /llm": self.answer}`; `/ollama/*` is all below, method `*` any."""
        return {}

    def speaks(self, request: Request) -> bool:
        """Tell whether a request is in one's own language, on a route that others serve too; one may take the rest."""
        return True

    def aliases(self) -> Mapping[str, str]:
        """Give paths below which is served what is served below others: `{"/v1": "/llm/v1"}`."""
        return {}

    def handle(self, request: Request, inner: Handler) -> Response:
        """Stand around every request: call `inner`, or answer yourself."""
        return inner(request)

    def chat(self, call: Call, inner: Chat) -> Parts:
        """Stand around every chat with a model."""
        return inner(call)

    def error(self, trouble: Trouble) -> Response:
        """Tell trouble on one's own routes in the words of one's clients; OpenAI's by default."""
        return Response.of(trouble.document(), trouble.status, trouble.headers)

    def follow(self, before: Plugin) -> None:
        """Take over from the same plugin of the version before, which a reload puts aside."""

    def start(self, *, guarded: bool) -> None:
        """Begin what needs a thread or a process; called once in each process that serves, never by other commands.

        `guarded` tells that only those can ask who are on this machine or whom something asks who they are.
        """

    def checks(self) -> Iterable[Finding]:
        """Look at what this needs here, for `doctor`."""
        return ()

    def close(self) -> None:
        """Let go of what is held open."""
