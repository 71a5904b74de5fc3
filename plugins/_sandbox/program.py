"""One program, seen from outside: its child's pipes, what is kept of its outputs, and how it ended.

Nothing of a program's is believed: time, exit status and output are measured here, and its result is bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Set, Tuple

from providers import Scope

from . import directory
from . import plan as plans

START = 30.0  # seconds a template may take to be ready
GRACE = 5.0  # seconds a killed child may take to be dead
REMOVAL = 120.0  # seconds that the removal of all it has piled up may take then
DYING = 0.1  # seconds in which children of a dead template are dead too: the kernel has killed them already
BLOCK = 1 << 16
MOST_BLOCKS = 16  # of one output at a time
PAUSE = 0.01  # seconds between two looks at the outputs
F_SETPIPE_SZ, WIDE = 1031, 1 << 20
MOST_DRAINED = 64 << 20  # bytes of output after which a program is stopped: what is too much is read only to be dropped
READY = b"\x06"  # what a child says when its walls are up
#: nothing of ours, and one memory arena: a limit on address space has no room for one per thread
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
PROGRAM = (
    "import sys; sys.path.insert(0, {folder!r}); from _sandbox.template import main; sys.path.pop(0);"
    " sys.path_importer_cache.pop({folder!r}, None); main({fd})"
)


class Unavailable(Exception):  # noqa: N818  (an answer, not an error of ours)
    """No program can be run here: the message says what is missing."""


class Lost(Exception):  # noqa: N818
    """The template died, and its children with it."""


class Outcome(NamedTuple):
    """How a program ended, as measured from outside.

    `status` is a wait status; `stopped` says why it was killed: "", "timeout", "output", "result" or "disk". `cpu` is
    in seconds, `peak` in KiB.
    """

    result: bytes
    stdout: bytes
    stderr: bytes
    truncated: bool
    status: int
    cpu: float
    peak: int
    stopped: str
    seconds: float


class Template:
    """One template process. `running` counts the programs it runs; a retired one ends with the last of them."""

    def __init__(self, plan: plans.Plan, *, probe: bool) -> None:
        """Start it; raises Unavailable, also when it does not become ready."""
        self.served = self.running = 0
        self.plan = plan  # as it can be carried out
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START)
        try:
            with theirs:
                self._process = started(theirs.fileno())
            with self._ended_if_failed():
                self._send({"plan": plans.to_json(plan), "probe": probe})
                found = self._hear() if probe else {}
            self.plan = plans.from_json(found["plan"]) if found else plan
            self.layers: Dict[str, str] = found.get("layers", {})  # why one does not hold
        except OSError as error:
            self._control.close()
            raise Unavailable(f"the template process cannot be started: {error}") from error

    def await_ready(self) -> None:
        with self._ended_if_failed():
            self._hear()
            self._control.settimeout(GRACE)

    @contextlib.contextmanager
    def _ended_if_failed(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Give what becomes readable when the process has died."""
        return self._control.fileno()

    def alive(self) -> bool:
        return self.fileno() >= 0 and not readable(self.fileno())

    def order(self, order: Dict[str, Any], ends: Tuple[int, ...] = ()) -> None:
        """Say something to the process; raises Lost."""
        try:
            self._send(order, ends)
        except OSError as error:
            raise Lost from error

    def kill(self) -> None:
        """End the process and all its children at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """Have it kill what it still has, wait until it is gone, and remove what it left if it was killed itself."""
        self._control.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if plans.level(self.plan.layers) == "B":
            self._clear()

    def _clear(self) -> None:
        left = directory.left_by(self.plan.folder, self._process.pid)
        if left:
            time.sleep(DYING)
        for path in left:
            with contextlib.suppress(OSError):
                directory.remove(path)

    def _send(self, order: Dict[str, Any], ends: Tuple[int, ...] = ()) -> None:
        datagram = json.dumps(order).encode()
        if ends:
            socket.send_fds(self._control, [datagram], ends)
        else:
            self._control.send(datagram)

    def _hear(self) -> Dict[str, Any]:
        try:
            told = json.loads(self._control.recv(BLOCK) or b"{}")
        except OSError:
            told = {}
        if not told or "error" in told:
            raise Unavailable(f"the template process failed: {told.get('error', 'it ended, or hangs')}")
        return dict(told)


def started(fd: int) -> subprocess.Popen[bytes]:
    """Start an interpreter that knows nothing of us but the socket `fd`."""
    program = PROGRAM.format(folder=str(Path(__file__).absolute().parent.parent), fd=fd)
    return subprocess.Popen(  # noqa: S603
        [sys.executable or "python3", "-I", "-S", "-B", "-X", "utf8", "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(fd,),
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )


def readable(fd: int, seconds: float = 0.0) -> bool:
    """Tell whether there is something to read, or the other end is closed."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


class Child:
    """A confined process that waits for its one request, seen from outside."""

    def __init__(self, template: Template, number: int, slot: int, *, warm: bool = False) -> None:
        self.template = template
        self._number = number
        theirs, self.request = os.pipe()
        self._open, ends = [self.request], [theirs]
        try:
            for _ in range(4):
                ours, theirs = os.pipe()
                self._open.append(ours)
                ends.append(theirs)
            self.stdout, self.stderr, self.result, self.status = self._open[1:]
            for end in self._open:
                os.set_blocking(end, False)
            template.order({"prepare": number, "slot": slot, "warm": warm}, tuple(ends))
        except BaseException:
            self.close()
            raise
        finally:
            for end in ends:
                os.close(end)

    def kill(self) -> None:
        with contextlib.suppress(Lost):
            self.template.order({"kill": self._number})

    def hang_up(self, end: int) -> None:
        if end in self._open:
            self._open.remove(end)
            os.close(end)

    def close(self) -> None:
        for end in list(self._open):
            self.hang_up(end)


class Output:
    """One of a program's outputs: what is kept of it, and how much there was."""

    def __init__(self, end: int, most: int) -> None:
        self.end = end
        self.kept = bytearray()
        self.total = 0
        self.open = True
        self._most = most
        self._wide = False

    @property
    def truncated(self) -> bool:
        return self.total > self._most

    def read(self) -> bool:
        """Take what is there, within reason; False when there was nothing."""
        before = self.total
        for _ in range(MOST_BLOCKS):
            try:
                block = os.read(self.end, BLOCK)
            except BlockingIOError:
                break
            if not block:
                self.open = False
                break
            self.total += len(block)
            self.kept += block[: max(0, self._most - len(self.kept))]
        if self.total - before >= BLOCK and not self._wide:
            self._wide = True
            widen(self.end)
        return self.total > before


def widen(end: int) -> None:
    """Have a pipe hold more: who writes much is not to wait for every look."""
    import fcntl

    with contextlib.suppress(OSError):  # more than this user may have in all
        fcntl.fcntl(end, F_SETPIPE_SZ, WIDE)


class Run:
    """One program from its request to its end."""

    def __init__(self, child: Child, request: bytes, limits: plans.Limits) -> None:
        self._child = child
        self._request = memoryview(request)
        self._timeout = limits.timeout
        self.stdout = Output(child.stdout, limits.output)
        self.stderr = Output(child.stderr, limits.output)
        self.result = Output(child.result, limits.result + len(READY))
        self._outputs = (self.stdout, self.stderr, self.result)
        self._ended: Dict[str, Any] = {}
        self._dead = False  # it has ended, and its directory is being removed

    def outcome(self, scope: Scope) -> Outcome:
        """Have it run to its end, of which the template tells; raises Lost, Unavailable, and Gone once it is dead."""
        began = time.monotonic()
        with contextlib.closing(select.epoll()) as poller:
            try:
                stopped = self._listen(poller, scope, began + self._timeout)
            except BaseException:
                self._kill()
                raise
        if stopped:
            self._kill()
        for output in self._outputs:  # what it said last
            output.read()
        return self._concluded(stopped, time.monotonic() - began)

    def _listen(self, poller: select.epoll, scope: Scope, deadline: float) -> str:
        """Listen until the program is gone, or tell why it has to be stopped.

        Outputs are looked at no more often than every PAUSE: a program that is done sooner costs one awakening, and one
        that writes byte by byte, or all it can, cannot keep us busy.
        """
        armed = False
        poller.register(self._child.status, select.EPOLLIN)
        poller.register(self._child.request, select.EPOLLOUT)
        for output in self._outputs:
            poller.register(output.end, select.EPOLLONESHOT)
        self._feed()
        while not self._ended:
            left = REMOVAL if self._dead else deadline - time.monotonic()
            stopped = self._too_much() or ("" if left > 0 else "timeout")
            if stopped:
                return stopped
            scope.wait(poller, left if armed else min(left, PAUSE))
            stirred = self._heard({end for end, _ in poller.poll(0)})
            if armed:
                armed = not stirred
            elif not sum(output.read() for output in self._outputs if output.open):
                armed = True
                for output in self._outputs:
                    if output.open:
                        poller.modify(output.end, select.EPOLLIN | select.EPOLLONESHOT)
        return ""

    def _heard(self, ends: Set[int]) -> bool:
        """Do what these pipes are ready for; tells whether any of them is an output."""
        if self._child.status in ends:
            self._learn()
        if self._child.request in ends:
            self._feed()
        return any(output.end in ends for output in self._outputs)

    def _feed(self) -> None:
        """Write what there is room for; at the end, or when nobody reads, hang up."""
        try:
            while self._request:
                self._request = self._request[os.write(self._child.request, self._request[:BLOCK]) :]
        except BlockingIOError:
            return
        except OSError:
            self._request = self._request[:0]
        self._child.hang_up(self._child.request)

    def _learn(self) -> None:
        told = os.read(self._child.status, BLOCK)
        if not told:
            raise Lost
        self._dead = True
        self._ended = json.loads(told.strip() or b"{}")

    def _kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._child.kill()
        while not self._ended:
            if not readable(self._child.status, REMOVAL if self._dead else GRACE):
                self._child.template.kill()  # it does not do as it is told
                raise Lost
            self._learn()

    def _too_much(self) -> str:
        if self.result.truncated:
            return "result"
        return "output" if self.stdout.total + self.stderr.total > MOST_DRAINED else ""

    def _concluded(self, stopped: str, seconds: float) -> Outcome:
        if "error" in self._ended:
            raise Unavailable(self._ended["error"])
        stopped = stopped or self._ended["stopped"] or self._too_much()
        if not stopped and not self.result.kept.startswith(READY):
            words = bytes(self.stderr.kept).decode("utf-8", "replace") or f"wait status {self._ended['status']}"
            raise Unavailable(f"the walls cannot be put up: {words}")
        return Outcome(
            bytes(self.result.kept[len(READY) :]),
            bytes(self.stdout.kept),
            bytes(self.stderr.kept),
            self.stdout.truncated or self.stderr.truncated,
            self._ended["status"],
            self._ended["cpu"],
            self._ended["peak"],
            stopped,
            seconds,
        )
