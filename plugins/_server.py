"""Sockets to clients: connections taken, waited for, and answered by whatever `respond` is.

A request is answered by a generator, `Handler.answer`, which pauses where it waits (`Scope.waiting`). One loop, the
server's own, has all of them go on in turn and waits for all at once: so whoever waits costs a socket and no thread,
and no lock is handed from thread to thread on the way of a request. Only what says that it may block is set aside: a
thread of the crew goes on with it, up to its next pause, or to its end where all of it may block.

After every response a connection is either in step (its request has been read to the end) or closed.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Set, Tuple

from providers import Aside, Gone, Wait

from . import Handler as Respond
from . import Refusal
from ._addresses import networks
from ._client import BLOCK, FAREWELL, IDLE, NEVER, Handler
from ._crew import Crew

log = logging.getLogger("llmproxy")

MOST_AHEAD = 256 * 1024  # bytes a client may send ahead while its request is answered
ACCEPTED = 64  # connections in one turn
DRAIN_TICK = 0.05  # seconds between two looks at whether the last answer has ended
SPARE = 128  # connections over the limit that are told so; more are closed without a word

SLOW = Refusal(408, "the request comes too slowly", code="request_timeout")
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_POLL = getattr(selectors, "PollSelector", selectors.SelectSelector)


def full() -> Refusal:
    return Refusal(503, "the proxy is full", {"Retry-After": "1"}, code="overloaded")


class Watched:
    """A socket to somewhere else in the loop's selector, and whose request waits for it just now."""

    __slots__ = ("events", "handler", "sock")

    def __init__(self, sock: Any, events: int) -> None:
        self.sock = sock
        self.events = events
        self.handler: Optional[Handler] = None


class Server(ThreadingHTTPServer):
    """Listens, keeps connections, and has requests answered by `respond`, which must not block (`Response.late`).

    `limits` are the kernel's own options. Threads come from a crew that is bounded, not from the mix-in, which is not.

    The sockets to upstreams stay in the selector from one wait to the next, where the kernel forgets what is closed:
    to put them in and take them out again would cost more than all else that is done for a wait.
    """

    request_queue_size = 1024
    allow_reuse_address = os.name == "posix"  # elsewhere it would let a second server steal the port
    daemon_threads = True

    def __init__(self, address: Tuple[str, int], limits: Mapping[str, Any], respond: Respond) -> None:
        self.limits = limits
        self.trusted = networks(limits["trusted_proxies"])
        self.respond = respond
        self.draining = False
        self.on_tick: Callable[[], None] = lambda: None  # called about once a second, in the loop
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._hurries = self._ended = self._deaf = False
        self._drain_until = 0.0
        self._lock = threading.Lock()
        self._open: Set[Handler] = set()
        self._ready: Deque[Handler] = collections.deque()  # whose turn it is
        self._returned: Deque[Tuple[Handler, Optional[bool]]] = collections.deque()  # by the crew
        self._timers: List[Tuple[float, int, Handler]] = []  # what is due before the next tick
        self._numbers = itertools.count()
        self._tick = 1.0
        self._watched: Dict[int, Watched] = {}  # by descriptor
        self._crew = Crew(limits["threads"])
        self._bells: Tuple[socket.socket, ...] = ()
        self._dated: Tuple[int, str] = (0, "")
        super().__init__(address, Handler)

    def server_close(self) -> None:
        super().server_close()
        for end in self._bells:
            end.close()

    def server_bind(self) -> None:
        """Bind, without HTTPServer's question to the DNS for our own name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    # the loop

    def serve_forever(self, poll_interval: float = 1.0) -> None:
        """Run the loop until drained."""
        self.socket.setblocking(False)
        self._tick = poll_interval
        woken = self.bells()[0]
        with selectors.DefaultSelector() as self._selector:
            self._lasting = not isinstance(self._selector, (selectors.SelectSelector, _POLL))
            self._selector.register(self.socket, READ, self._accept)
            self._selector.register(woken, READ, self._take_back)
            ticked = time.monotonic()
            while not self._drained():
                for key, events in self._selector.select(self._until_next()):
                    try:  # as `_safely` does
                        key.data(events)
                    except Exception:
                        log.exception("the loop stumbled")
                for _ in range(len(self._ready)):
                    _safely(self._take_turn, self._ready.popleft())
                self._crew.tend()
                now = time.monotonic()
                while self._timers and self._timers[0][0] <= now:
                    _safely(self._ring_for, *heapq.heappop(self._timers))
                if self._hurries or now - ticked >= poll_interval:
                    self._hurries = False
                    ticked = now
                    _safely(self._look_ahead)
                    _safely(self.on_tick)
            self._end()

    def _until_next(self) -> float:
        """Give how long there will be nothing to do unless something stirs."""
        if self._ready:
            return 0.0
        longest = min(self._tick, DRAIN_TICK) if self.draining else self._tick
        if self._crew.late:
            longest = min(longest, self._crew.MOMENT)
        if self._timers:
            longest = min(longest, max(0.0, self._timers[0][0] - time.monotonic()))
        return longest

    def bells(self) -> Tuple[socket.socket, ...]:
        """Give both ends of what wakes the loop, the one to write to last; made after a fork, for no two share them."""
        if not self._bells:
            self._bells = socket.socketpair()
            for end in self._bells:
                end.setblocking(False)
        return self._bells

    def hurry(self) -> None:
        """Have `on_tick` called now; safe in a signal handler."""
        self._hurries = True
        self._ring()

    def drain(self) -> None:
        """Take no more connections, and end when the open answers have; safe in a signal handler."""
        self.draining = True
        self._drain_until = time.monotonic() + self.limits["drain"]
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it rings already, or the loop has ended
            if self._bells:
                self._bells[1].send(b"!")

    def _drained(self) -> bool:
        if not self.draining:
            return False
        if self.socket.fileno() >= 0:
            if not self._deaf:
                self._selector.unregister(self.socket)
            self.socket.close()
        self._take_back()
        busy = False
        for handler in self._all_open():
            if handler.work is None:
                self._close(handler)
            else:
                busy = True
        return not busy or time.monotonic() >= self._drain_until

    def _end(self) -> None:
        """Close what is open; what a thread goes on with is closed by that thread."""
        with self._lock:
            self._ended = True
        self._take_back()
        for handler in self._all_open():
            if not handler.apart:
                self._leave(handler)

    def _all_open(self) -> List[Handler]:
        with self._lock:
            return list(self._open)

    # time

    def _due(self, handler: Handler, deadline: float) -> None:
        """Give up waiting at `deadline`. What is far off is looked at again with each tick: most of it never comes."""
        handler.deadline = deadline
        if deadline - time.monotonic() < self._tick:
            heapq.heappush(self._timers, (deadline, next(self._numbers), handler))

    def _look_ahead(self) -> None:
        """Set the timers of what is due before the next tick, and listen again if we could not."""
        if self._deaf and not self.draining:
            self._selector.register(self.socket, READ, self._accept)
            self._deaf = False
        soon = time.monotonic() + 2 * self._tick
        for handler in self._all_open():
            if handler.deadline < soon:
                heapq.heappush(self._timers, (handler.deadline, next(self._numbers), handler))

    def _ring_for(self, deadline: float, _: int, handler: Handler) -> None:
        """Give up on what has not come, unless it has."""
        if handler.deadline != deadline:
            return
        handler.deadline = NEVER
        if handler.work is not None:
            self._go_on(handler, ready=False)
        elif handler.ahead and not handler.leaving:
            self._turn_away(handler, SLOW)
        else:
            self._close(handler)

    # connections

    def _accept(self, _: int = 0) -> None:
        """Take what has come; where there are other workers, one at a time, so that each has its share."""
        for _ in range(ACCEPTED if self.limits["workers"] == 1 else 1):
            try:
                sock, address = self.socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors left: by the next tick there may be
                log.warning("cannot accept: %s", error)
                self._selector.unregister(self.socket)
                self._deaf = True
                return
            sock.setblocking(False)
            handler = Handler(sock, address, self)
            try:
                self._admit(handler)
            except Exception:
                log.exception("a connection failed")
                handler.close()

    def _admit(self, handler: Handler) -> None:
        """Count a new connection, and wait for what it asks if there is room."""
        with self._lock:
            over = len(self._open) - self.limits["max_connections"]
            self._open.add(handler)
        if over >= SPARE:
            self._close(handler)
        elif over >= 0:
            self._turn_away(handler, full())
        else:
            with contextlib.suppress(OSError):  # it has left already
                handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stand(handler)

    def _stand(self, handler: Handler) -> None:
        """Wait for a connection to ask something."""
        self._hear(handler, READ)
        self._due(handler, time.monotonic() + self.limits["head_timeout" if handler.ahead else "idle_timeout"])

    def _hear(self, handler: Handler, events: int) -> None:
        """Have the selector tell these events of a client's socket."""
        if events == handler.events:
            return
        if not handler.events:
            self._forget_descriptor(handler.connection.fileno())
            self._selector.register(handler.connection, events, partial(self._stirred, handler))
        elif events:
            self._selector.modify(handler.connection, events, partial(self._stirred, handler))
        else:
            self._selector.unregister(handler.connection)
        handler.events = events

    def _stirred(self, handler: Handler, events: int) -> None:
        """Take in what a client's socket has to tell."""
        if handler.apart:  # since we were told of it
            return
        pending = handler.scope.pending
        if type(pending) is Wait and pending.sock is handler.connection and events & (WRITE if pending.write else READ):
            self._go_on(handler)
            return
        had = bool(handler.ahead)
        try:
            handler.collect()
        except Gone:
            self._leave(handler)
        else:
            self._heard(handler, had=had)

    def _heard(self, handler: Handler, *, had: bool) -> None:
        """See to what a client has said: a request, more of one, the next one already, or what nobody wants."""
        if handler.leaving:
            handler.ahead = b""
        elif handler.work is not None or handler.queued:
            if len(handler.ahead) > MOST_AHEAD:
                self._hear(handler, handler.events & ~READ)
        elif handler.ripe():
            self._begin(handler)
        elif not had:
            self._due(handler, min(handler.deadline, time.monotonic() + self.limits["head_timeout"]))

    def _leave(self, handler: Handler) -> None:
        """End what is done for a client that has left."""
        if handler.work is not None:
            handler.scope.left = True
            handler.scope.client = None
            handler.scope.close()
            try:
                handler.work.close()
            except Exception:
                log.exception("a connection failed")
        self._close(handler)

    def _turn_away(self, handler: Handler, refusal: Refusal) -> None:
        """Tell a client why it is not served, without waiting for it."""
        with contextlib.suppress(OSError):  # what does not go out at once does not go out
            handler.connection.send(handler.last_words(refusal))
        self._see_off(handler)

    def _see_off(self, handler: Handler) -> None:
        """Let a client read our last words: closing over unread input would destroy them on their way."""
        handler.hush()
        handler.ahead, handler.leaving = b"", True
        self._hear(handler, READ)
        self._due(handler, time.monotonic() + FAREWELL)

    def _close(self, handler: Handler) -> None:
        self._unwatch(handler)
        if handler.events:
            self._hear(handler, 0)
        handler.work, handler.deadline, handler.queued = None, NEVER, False
        handler.close()

    def forget(self, handler: Handler) -> None:
        """Count a connection as closed."""
        with self._lock:
            self._open.discard(handler)

    # requests

    def _begin(self, handler: Handler) -> None:
        handler.work = handler.answer()
        self._go_on(handler)

    def _queue(self, handler: Handler) -> None:
        """Let a request go on, or the next one of a connection begin, when all others have had their turn."""
        handler.queued = True
        self._ready.append(handler)

    def _take_turn(self, handler: Handler) -> None:
        if not handler.queued:  # it was closed since
            return
        handler.queued = False
        if handler.work is None:
            self._begin(handler)
        else:
            self._go_on(handler)

    def _go_on(self, handler: Handler, *, ready: bool = True, step: Optional[Callable[[], object]] = None) -> None:
        """Have a request go on to its next pause, by this step if not by its own."""
        if handler.watched is not None:
            self._unwatch(handler)
        handler.deadline = NEVER
        handler.scope.seen_to(ready=ready)
        try:
            try:
                step() if step else next(handler.work)  # type: ignore[arg-type]
            except StopIteration as end:
                self._answered(handler, keep=end.value)
            else:
                self._see_to(handler)
        except Gone:
            self._close(handler)
        except Exception:
            log.exception("a connection failed")
            self._leave(handler)

    def _answered(self, handler: Handler, *, keep: bool) -> None:
        handler.work, handler.scope = None, IDLE
        if handler.cut:
            self._close(handler)
        elif not keep:
            self._see_off(handler)
        elif handler.ahead and handler.ripe():
            self._queue(handler)
        else:
            self._stand(handler)

    def _see_to(self, handler: Handler) -> None:
        """Wait for what a request has paused for."""
        pending = handler.scope.pending
        if isinstance(pending, Aside):
            self._set_aside(handler, pending)
            return
        own = pending is not None and pending.sock is handler.connection
        ahead = len(handler.ahead) > MOST_AHEAD
        self._hear(handler, (0 if ahead and not own else READ) | (WRITE if own and pending and pending.write else 0))
        if pending is None:
            self._queue(handler)
            return
        self._due(handler, pending.deadline)
        if not own and pending.sock is not None:
            self._watch(handler, pending)

    def _set_aside(self, handler: Handler, how: Aside) -> None:
        """Have a thread go on with a request; meanwhile its client's socket is watched by whoever waits there."""
        self._hear(handler, 0)
        handler.apart = True
        if not self._crew.take(partial(self._work_on, handler), brief=how.brief):
            handler.apart = False
            work = handler.work
            self._go_on(handler, step=lambda: work and work.throw(full()))

    def _work_on(self, handler: Handler) -> None:
        """Go on with a request in a thread, while it may block."""
        stays, outcome, work = False, None, handler.work
        try:
            while work is not None:
                pending = handler.scope.pending
                if isinstance(pending, Aside):
                    stays = stays or pending.stays
                    handler.scope.seen_to()
                elif pending and not stays:
                    break
                next(work)
        except StopIteration as end:
            outcome = bool(end.value)
        except Gone:
            handler.cut, outcome = True, False
        except Exception:
            log.exception("a connection failed")
            handler.cut, outcome = True, False
        with self._lock:
            ended = self._ended
            self._returned.append((handler, outcome))
        if ended:  # there is nobody to take it back
            handler.close()
        self._ring()

    def _take_back(self, _: int = 0) -> None:
        """Take requests back from the crew."""
        with contextlib.suppress(BlockingIOError):
            while self._bells[0].recv(BLOCK):
                pass
        while self._returned:
            handler, outcome = self._returned.popleft()
            handler.apart = False
            try:
                if outcome is None:
                    self._see_to(handler)
                else:
                    self._answered(handler, keep=outcome)
            except Exception:
                log.exception("a connection failed")
                self._leave(handler)

    # sockets to elsewhere

    def _watch(self, handler: Handler, wait: Wait) -> None:
        """Have a request go on when another socket is ready."""
        events = (READ if wait.read else 0) | (WRITE if wait.write else 0)
        sock: Any = wait.sock
        descriptor = sock.fileno()
        if descriptor < 0:  # it was closed: whoever uses it next will learn of it
            self._queue(handler)
            return
        watched = self._watched.get(descriptor)
        if watched is None or watched.sock is not sock:
            self._forget_descriptor(descriptor)
            watched = self._watched[descriptor] = Watched(sock, events)
            self._selector.register(sock, events, partial(self._told, watched))
            with contextlib.suppress(AttributeError):  # a bare socket cannot be told
                sock.watched = True
        elif watched.events != events:
            self._selector.modify(sock, events, partial(self._told, watched))
            watched.events = events
        watched.handler, handler.watched = handler, watched

    def _told(self, watched: Watched, _: int) -> None:
        handler = watched.handler
        if handler is None:  # it lies idle, or is not listened to now: it would tell so again and again
            self._forget_descriptor(watched.sock.fileno(), watched)
        else:
            self._go_on(handler)

    def _unwatch(self, handler: Handler) -> None:
        watched = handler.watched
        if watched is not None:
            watched.handler = handler.watched = None
            if not self._lasting:
                self._forget_descriptor(watched.sock.fileno(), watched)

    def _forget_descriptor(self, descriptor: int, known: Optional[Watched] = None) -> None:
        """Take a socket out of the selector; also one that has been closed, when its descriptor comes anew."""
        watched = self._watched.pop(descriptor, None) or known
        if watched is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(watched.sock)
            with contextlib.suppress(AttributeError):
                watched.sock.watched = False

    def date(self) -> str:
        """Give the time as a Date header has it; made once a second."""
        now = int(time.time())
        if self._dated[0] != now:
            from email.utils import formatdate

            self._dated = (now, formatdate(now, usegmt=True))
        return self._dated[1]


def _safely(do: Callable[..., None], *args: Any) -> None:
    """Do a part of the loop's work: what goes wrong with one connection is not the end of all."""
    try:
        do(*args)
    except Exception:
        log.exception("the loop stumbled")
