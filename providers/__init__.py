"""What a provider is: the contract of the ground floor, where everything an upstream meets lives.

A *chat* is an OpenAI chat-completions request as a plain dict, and a *part* is one
`chat.completion.chunk` or one whole `chat.completion`: a whole answer is a stream of one, so there
is one road for both. An **empty part** (`{}`) says only "nothing more right now": it is yielded each
time before the road waits for the upstream, and again every few seconds of its silence. Whoever
passes parts on passes it on too; whoever writes them uses it to flush, or to say that it is alive.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Generator,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
    Union,
)

JSON = Dict[str, Any]
Parts = Generator[JSON, None, None]
#: name -> (default, one sentence of help, then any of: an ENVIRONMENT_VARIABLE, another --flag)
Options = Mapping[str, Tuple[Any, ...]]

PAUSE: JSON = {}

#: status -> the `type` of an error, in OpenAI's words
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Trouble(Exception):  # noqa: N818  (it is the answer to a request as often as an error)
    """Why a request gets no answer, in the words its client is told.

    `status` is the HTTP status; `kind` the OpenAI error `type` (told by the status if empty), `code`
    a stable name for programs, `param` the path of the offending field (`messages[1].role`), `request` the id of the
    request as far as it is known.
    """

    request = ""

    def __init__(
        self,
        status: int,
        message: str,
        headers: Optional[Mapping[str, str]] = None,
        *,
        kind: str = "",
        code: Optional[str] = None,
        param: Optional[str] = None,
    ) -> None:
        super().__init__()
        self.status = status
        self.message = message
        self.headers: Dict[str, str] = dict(headers or {})
        self.kind = kind or ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        self.code = code
        self.param = param

    def __str__(self) -> str:
        return self.message

    def document(self) -> JSON:
        """Give the error object of OpenAI's manner: `{"error": {...}}`."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class UpstreamError(Trouble):
    """Trouble that began at the upstream, or on the way to it.

    `provider_status` is the status the upstream gave (None: it gave none), `retry_after` the seconds
    it asked us to wait. `passing` tells that the same question may succeed a moment later.
    """

    PASSING = frozenset({"rate_limit_exceeded", "provider_overloaded", "provider_error", "provider_unreachable"})

    def __init__(
        self,
        status: int,
        message: str,
        headers: Optional[Mapping[str, str]] = None,
        *,
        kind: str = "",
        code: Optional[str] = None,
        param: Optional[str] = None,
        provider: str = "",
        provider_status: Optional[int] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(status, message, headers, kind=kind, code=code, param=param)
        self.provider = provider
        self.provider_status = provider_status
        self.retry_after = retry_after
        self.passing = code in self.PASSING
        self.own: JSON = {}  # what the upstream said besides, by the name of its dialect

    def document(self) -> JSON:
        told = super().document()
        told["error"]["provider"] = self.provider or None
        if self.provider_status is not None:
            told["error"]["provider_status"] = self.provider_status
            told["error"]["retry_after"] = self.retry_after
        return told


class Gone(Exception):  # noqa: N818  (nobody is left to whom it would be an error)
    """The client left: there is nobody to answer, and what was opened for it is closed."""


class Pollable(Protocol):
    """What can be waited for: a socket, or an epoll object that stands for many."""

    def fileno(self) -> int: ...


class Allowed:
    """What a client may ask for: models that are in every one of these lists; with no list, all.

    A list holds names like `ollama/llama3.2`; one that ends in `*` stands for all that begin so. `all` tells that there
    is no list.
    """

    __slots__ = ("_lists", "all")

    def __init__(self, *lists: Iterable[str]) -> None:
        self._lists = [tuple(names) for names in lists]
        self.all = not lists

    def one(self, provider: str, model: str) -> bool:
        """Tell whether a model is allowed."""
        if not self._lists:
            return True
        full = f"{provider}/{model}"
        return all(any(name == full or _begins(name, full) for name in names) for names in self._lists)

    def whole(self, provider: str) -> bool:
        """Tell whether all of a provider is allowed, whatever its models are called."""
        if not self._lists:
            return True
        start = f"{provider}/"
        return all(any(_begins(name, start) for name in names) for names in self._lists)

    def part(self, provider: str) -> bool:
        """Tell whether anything of a provider can be allowed."""
        start = f"{provider}/"
        return all(any(name.startswith(start) or _begins(name, start) for name in names) for names in self._lists)


def _begins(name: str, text: str) -> bool:
    return name.endswith("*") and text.startswith(name[:-1])


class Wait(NamedTuple):
    """What a pause is for: until `sock` is ready (None: nothing can be), or until `deadline` (time.monotonic)."""

    sock: Optional[Pollable]
    deadline: float
    write: bool
    read: bool


class Aside(NamedTuple):
    """What a pause is for: what comes next blocks, so a thread of its own should go on with it.

    `brief`: it takes moments, so it may queue behind others that do. `stays`: all that follows may block as well.
    """

    brief: bool = False
    stays: bool = False


AT_LENGTH = Aside()
BRIEFLY = Aside(brief=True)
LARGE = 256 * 1024  # bytes that take so long to parse that others are not to wait for it
EVERYTHING = Allowed()


class Scope:
    """What was opened for one request: it closes with the request, or when its client leaves.

    `add` takes what closes a thing; `drop` forgets it again once it was closed in good order. Closing
    runs in the reverse order of opening, once, from whichever thread comes first. `left` tells whether the
    client left before the end. What its client may ask for goes with it: it is there wherever an upstream is asked.

    A request waits in `waiting` or `wait`, which watch the client's own socket as well. `waiting` is for generators:
    it pauses, and `pending` then says what for. Whoever drives the generator may see to that in its stead (`seen_to`),
    so that waiting needs no thread; a driver that knows nothing of it just goes on, and then the wait is made here.
    """

    def __init__(self, client: Optional[socket.socket] = None) -> None:
        self.client = client
        self.left = False
        self.allowed = EVERYTHING
        self.warnings: Dict[str, str] = {}
        self.pending: Union[Wait, Aside, None] = None
        self._ready = False
        self._lock = threading.Lock()
        self._closers: List[Callable[[], object]] = []
        self._closed = False

    def add(self, close: Callable[[], object]) -> None:
        """Have `close()` called at the end; at once if the end has passed already."""
        with self._lock:
            if not self._closed:
                self._closers.append(close)
                return
        close()

    def drop(self, close: Callable[[], object]) -> None:
        """Forget what `add` was told."""
        with self._lock:
            if close in self._closers:
                self._closers.remove(close)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            closers, self._closers = self._closers, []
        if len(closers) == 1:
            closers[0]()
        elif closers:
            with contextlib.ExitStack() as stack:  # the last first, and all of them even if one fails
                for close in closers:
                    stack.callback(close)

    def waiting(
        self, sock: Optional[Pollable], seconds: float, *, write: bool = False, read: bool = True
    ) -> Generator[JSON, None, bool]:
        """Pause until `sock` is ready; False when `seconds` have passed before. Raises Gone as `wait` does."""
        pending = self.pause_for(sock, seconds, write=write, read=read)
        yield PAUSE
        return self.resume(pending)

    def pause_for(self, sock: Optional[Pollable], seconds: float, *, write: bool = False, read: bool = True) -> Wait:
        """Say what the next pause is for; the generator that makes it asks `resume` after it. `waiting` is both."""
        self.pending = pending = Wait(sock, time.monotonic() + seconds, write, read)
        return pending

    def resume(self, pending: Wait) -> bool:
        """Tell whether it is ready, having waited if nobody else has."""
        if self.pending is not pending:
            return self._ready
        self.pending = None
        sock, deadline, write, read = pending
        return self.wait(sock, deadline - time.monotonic(), write=write, read=read)

    def aside(self, how: Aside = AT_LENGTH) -> Generator[JSON, None, None]:
        """Pause, to go on where it does no harm to block."""
        self.pending = how
        yield PAUSE
        self.pending = None

    def seen_to(self, *, ready: bool = True) -> None:
        """Tell the request, before it goes on, that what it paused for is there, or (not `ready`) that time is up."""
        self.pending, self._ready = None, ready

    def wait(self, sock: Optional[Pollable], seconds: float, *, write: bool = False, read: bool = True) -> bool:
        """Wait until `sock` is ready; False when `seconds` have passed before.

        With no socket this is a sleep. Raises Gone as soon as the client has left.
        """
        if self.client is None and sock is None:
            time.sleep(max(0.0, seconds))
            return False
        client = None if sock is self.client else self.client  # who is waited for is watched already
        ready = _ready(sock, client, max(0.0, seconds), write=write, read=read)
        if ready is None:
            self.client, self.left = None, True
            self.close()
            raise Gone
        return ready


def _ready(
    sock: Optional[Pollable], client: Optional[socket.socket], seconds: float, *, write: bool, read: bool
) -> Optional[bool]:
    """Tell whether `sock` became ready in time; None if the client left first."""
    deadline = time.monotonic() + seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        readable, client_stirred = _poll(sock, client, left, write=write, read=read)
        if client_stirred and client is not None:
            if _has_left(client):
                return None
            if not hasattr(select, "POLLRDHUP"):
                client = None  # it speaks before its turn: its leaving will be seen by writing to it
        if readable or time.monotonic() >= deadline:
            return readable


def _poll(
    sock: Optional[Pollable], client: Optional[socket.socket], seconds: float, *, write: bool, read: bool
) -> Tuple[bool, bool]:
    """Wait for either of the two; tells (sock is ready, client has something to say)."""
    ours, theirs = (-1 if one is None else one.fileno() for one in (sock, client))
    hung_up = sock is not None and ours < 0, client is not None and theirs < 0
    if any(hung_up):
        return hung_up  # by another thread: who uses it next will learn of it
    if not hasattr(select, "poll"):  # Windows
        return _select([ours] if read else [], [ours] if write else [], [theirs], seconds)
    poller = select.poll()
    if sock is not None:
        poller.register(ours, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
    if client is not None:
        poller.register(theirs, getattr(select, "POLLRDHUP", select.POLLIN))
    ready = {fd for fd, _ in poller.poll(seconds * 1000)}
    return ours in ready, theirs in ready


def _select(reads: List[int], writes: List[int], clients: List[int], seconds: float) -> Tuple[bool, bool]:
    """Do as `_poll` with what there is without poll; a -1 is no socket."""
    reads, writes, clients = ([fd for fd in fds if fd >= 0] for fds in (reads, writes, clients))
    if not reads and not writes and not clients:
        time.sleep(seconds)
        return False, False
    got, sent, _ = select.select(reads + clients, writes, [], seconds)
    return any(fd in got for fd in reads) or bool(sent), any(fd in got for fd in clients)


def _has_left(client: socket.socket) -> bool:
    """Tell whether the other end has closed; what it has still said does not hide it where the kernel tells."""
    if hasattr(select, "POLLRDHUP"):
        return True  # nothing else was asked about
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Pocket:
    """A question as its client wrote it, in a dialect that can say what the canonical form cannot.

    It stands in a chat beside the translation, as `_DIALECT`. A provider that `reads` the dialect sends `body`,
    with its own name for the model, in place of a translation of its own, and has each part of the answer bear, under
    the same name, the upstream's own words: the list of events it was made of, or the one document of a whole answer.
    `headers` and `query` go with the body, `path` says which of the dialect's questions it is. What other providers do
    not learn from the translation they tell of: `losses` are dropped (field -> why), `musts` make the question a 400.
    """

    __slots__ = ("body", "headers", "losses", "musts", "path", "query")

    def __init__(self, body: JSON, headers: Iterable[Tuple[str, str]] = (), query: str = "", path: str = "") -> None:
        self.body = body
        self.headers = list(headers)
        self.query = query
        self.path = path
        self.losses: Dict[str, str] = {}
        self.musts: Dict[str, str] = {}


class Call:
    """One question on its way down; frozen: to change it, make another with `asking`.

    `chat` is the canonical request, its `model` already the upstream's own name for it. `warn` says
    what had to be changed or dropped: it ends up in the response header `x-llmproxy-warnings`, or is
    a 400 when the client asked to be strict. `_hints` in the chat names the fields that its client sends to any model,
    whether it can follow or not: an upstream that refuses one is asked again without it.
    """

    __slots__ = ("chat", "id", "scope", "strict", "user")

    def __init__(
        self,
        chat: JSON,
        user: str = "",
        id: str = "",
        scope: Optional[Scope] = None,
        *,
        strict: bool = False,
    ) -> None:
        self.chat = chat
        self.user = user
        self.id = id
        self.scope = Scope() if scope is None else scope
        self.strict = strict

    @property
    def streams(self) -> bool:
        return bool(self.chat.get("stream"))

    @property
    def model(self) -> str:
        return str(self.chat.get("model") or "")

    def asking(self, **changes: Any) -> Call:
        """Give the same call with these fields of the chat changed; None removes a field.

        Where more than the model changes, the question is not any more what its client wrote: its pockets go.
        """
        chat = {**self.chat, **changes}
        same = True
        for name, value in changes.items():
            if value is None:
                del chat[name]
            same = same and (name == "model" or name.startswith("_"))
        if not same:
            chat = {name: value for name, value in chat.items() if not isinstance(value, Pocket)}
        return Call(chat, self.user, self.id, self.scope, strict=self.strict)

    def warn(self, field: str, reason: str) -> None:
        if self.strict:
            raise UpstreamError(400, f"{field}: {reason}", code="unsupported_parameter", param=field)
        self.scope.warnings[field] = reason


def chat_aside(chat: Callable[[Call], Parts], call: Call) -> Parts:
    """Have a chat answered by what may block at any time: in a thread from its first step to its last."""
    yield from call.scope.aside(Aside(stays=True))
    yield from chat(call)


Warn = Callable[[str, str], None]


class Provider:
    """Whatever can answer: one upstream, or all of them.

    A file in this folder holds one subclass. `configured` tells whether it makes sense to ask it (a
    key is there, or none is needed): unconfigured ones are left out of the list of all models. `blocks` tells
    whether `chat` and `relay` may block between their pauses, and so need a thread; what waits in `Scope.waiting`
    alone does not.
    """

    options: ClassVar[Options] = {}
    blocks = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "blocks" not in vars(cls) and not vars(cls).keys().isdisjoint(("chat", "relay")):
            cls.blocks = True  # what another says of its own is not said of this one

    reads: Tuple[str, ...] = ()  # the dialects whose pockets it understands
    configured = True

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name

    @property
    def names(self) -> Tuple[str, ...]:
        """Name the providers that can be asked here."""
        return (self.name,)

    def knows(self, model: str) -> bool:
        """Tell whether `model` (`provider/model`, or an alias) leads to a provider."""
        return model.partition("/")[0] == self.name

    def models(self) -> List[JSON]:
        """List what can be asked for, as OpenAI model objects with the upstream's own ids."""
        return []

    def survey(self, scope: Scope, provider: str = "") -> Tuple[List[JSON], Dict[str, str]]:
        """List what may be asked of one provider, with its own ids, or of all as `provider/model`.

        The second is what went wrong, by provider; with one provider asked for, that is raised.
        """
        return [{**model, "provider": self.name} for model in self.models()], {}

    def chat(self, call: Call) -> Parts:
        """Answer a chat; a generator: nothing is sent before the first `next()`."""
        raise UpstreamError(400, f"{self.name} has no chat", code="unsupported_operation", provider=self.name)
        yield {}

    def embed(self, call: Call) -> JSON:
        """Answer an OpenAI embeddings request (`input`, `model`, ...) with its list object, vectors as floats."""
        raise UpstreamError(400, f"{self.name} has no embeddings", code="unsupported_operation", provider=self.name)

    def embeds_at(self, model: str) -> str:
        """Name the `provider/model` that makes embeddings in this one's place; empty: itself."""
        return ""

    def describe(self, call: Call) -> JSON:
        """Tell of the one model a call names: its OpenAI model object, with `context_length` and `capabilities`
        (words of Ollama's: completion, tools, vision, thinking, embedding) where they are known.
        """
        for model in self.models():
            if model.get("id") == call.model:
                return model
        told = f"{self.name} has no model {call.model[:80]!r}"
        raise UpstreamError(404, told, code="model_not_found", param="model", provider=self.name)

    def count_tokens(self, call: Call) -> int:
        """Count the input tokens of a chat."""
        raise UpstreamError(501, f"{self.name} cannot count tokens", code="unsupported_operation", provider=self.name)

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        """Pass a request on untouched but for the key; gives an open `_transport.Exchange`.

        `path` begins with a slash and holds the query, both as the client sent them.
        """
        raise UpstreamError(404, f"{self.name} has no upstream to pass to", code="unsupported_operation")

    def close(self) -> None:
        """Let go of what is held open."""
