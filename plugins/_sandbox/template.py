"""The template: a clean process that forks one confined child for each program.

It is an interpreter of its own, never a fork of the proxy: no secret, no thread, no network has ever been in it. It
forks, kills, waits and tells how each child ended; it reads nothing that a program wrote. Its owner talks to it in
datagrams of JSON over one socket, and when that is closed everything ends:

    -> {"plan": {...}, "probe": true}    once; with `probe`, what of it can be had here is found out
    <- {"plan": {...}, "layers": {...}}  only then: the plan as it can be carried out, and why a layer does not hold
    <- {"ready": true}                   or {"error": "what went wrong"}, and the end
    -> {"prepare": 7, "slot": 2, "warm": true}  with five pipe ends: request, stdout, stderr, result, status
    -> {"kill": 7}

A child puts its walls up, writes READY as the first byte of its result, and then reads its request: what is not
preceded by READY was not written by a program. The line `{"status": ..., "cpu": ..., "peak": ..., "stopped": ""}`
comes through the status pipe when the child is gone, and its directory with it; where that takes a while, an empty line
tells before that it is dead. A status pipe that ends without a line tells that the template is gone.
"""

from __future__ import annotations

import array
import contextlib
import ctypes  # noqa: F401  (of what the walls import when they act, this and `resource` cannot be found any more then)
import fcntl
import gc
import json
import os
import resource  # noqa: F401
import select
import signal
import socket
import sys
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from . import plan as plans
from . import runner, walls

READY = b"\x06"
SETUP_FAILED = 78  # the exit status of a child whose walls could not be put up: the reason is on its stderr
OUT_OF_MEMORY = 77  # of one that had no memory left to say so
FAILED = 70
DATAGRAM = 1 << 16
PIPES = 5
STDOUT, STDERR, REQUEST, RESULT = 1, 2, 3, 4  # where a child finds its pipes
ABOVE = 64  # no number that a child's pipes have
BLOCK = 1 << 16
LOOK = 0.1  # seconds between two looks at what the children have in their directories


class Child:
    """What the template knows of a child: `number` is its owner's name for it, `line` how it ended."""

    def __init__(self, number: int, status: int) -> None:
        self.number = number
        self.status = status  # the pipe end
        self.directory: Optional[str] = None  # one that has to be removed
        self.stopped = ""  # why it was killed from here
        self.line: Dict[str, Any] = {}

    def mourn(self) -> None:
        """Tell that it is dead, though not all of it is gone."""
        with contextlib.suppress(OSError):
            os.write(self.status, b"\n")

    def report(self) -> None:
        """Tell how it ended, through a pipe that always has room: nothing to speak of was written to it before."""
        with contextlib.suppress(OSError):  # its owner does not care any more
            os.write(self.status, told({**self.line, "stopped": self.stopped}))
        os.close(self.status)


class Template:
    """Serves its owner until that closes the socket, or until no child can be born any more."""

    def __init__(self, control: socket.socket, plan: plans.Plan) -> None:
        self._control = control
        self._plan = plan
        self._children: Dict[int, Child] = {}  # by pid
        self._cleaned: Dict[int, Child] = {}  # by the pid of what removes the directory
        self._init = walls.enter(plan)

    def serve(self) -> None:
        bell, ringer = os.pipe()
        for end in (bell, ringer):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(bell, select.POLLIN)
        poller.register(self._control, select.POLLIN)
        fertile = listening = True
        while fertile and listening:
            watched = [child for child in self._children.values() if child.directory]
            ready = [fd for fd, _ in poller.poll(LOOK * 1000 if watched else None)]
            if bell in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(bell, BLOCK)
                fertile = self._reap()
            if self._control.fileno() in ready:
                listening = self._listen()
            if not ready:
                self._look()

    def end(self) -> None:
        """Kill every child, and wait until nothing is left of any."""
        signal.set_wakeup_fd(-1)
        for pid in [*self._children, *filter(None, [self._init])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._children or self._cleaned:
            self._note(*os.wait4(-1, 0))

    def _listen(self) -> bool:
        """Do as one datagram says; False when there is nobody any more to say anything."""
        datagram, ends = received(self._control)
        if not datagram:
            return False
        order = json.loads(datagram)
        if "prepare" in order:
            self._prepare(Child(order["prepare"], ends.pop()), order, ends)
        for pid, child in self._children.items():
            if child.number == order.get("kill"):
                os.kill(pid, signal.SIGKILL)
        return True

    def _prepare(self, child: Child, order: Dict[str, Any], ends: List[int]) -> None:
        try:
            child.directory = walls.private_directory(self._plan, order["slot"])
            pid = os.fork()
        except OSError as error:
            child.line = {"error": f"a child cannot be made: {error}"}
            self._conclude(child)
        else:
            if pid == 0:
                become(self._plan, order["slot"], child.directory, ends, warm=order["warm"])
            self._children[pid] = child
        for end in ends:
            os.close(end)

    def _reap(self) -> bool:
        """Take note of what has ended; False when that makes an end of all."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return True
            if pid == self._init:
                self._init = None
                return False
            self._note(pid, status, usage)

    def _note(self, pid: int, status: int, usage: Any) -> None:
        if pid in self._cleaned:
            self._cleaned.pop(pid).report()
        elif pid in self._children:
            child = self._children.pop(pid)
            child.line = {"status": status, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss}
            self._conclude(child)

    def _conclude(self, child: Child) -> None:
        """Have a child's directory removed, then tell how it ended."""
        if child.directory is None or removed_empty(child.directory):
            child.report()
            return
        child.mourn()
        try:  # by a process of its own: what a program has piled up can take long, and others are waiting
            pid = os.fork()
        except OSError:
            walls.remove(child.directory)
            child.report()
            return
        if pid == 0:
            clean(child.directory)
        self._cleaned[pid] = child

    def _look(self) -> None:
        """Kill children that take up more of the disk than they may, where no mount holds them."""
        for pid, child in self._children.items():
            most = self._plan.limits.disk
            if child.directory and not child.stopped and walls.used(child.directory, most) > most:
                child.stopped = "disk"
                os.kill(pid, signal.SIGKILL)


def told(document: Dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def removed_empty(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except OSError:
        return False
    return True


def clean(directory: str) -> NoReturn:
    """Be the process that removes a directory."""
    try:
        signal.set_wakeup_fd(-1)
        os.nice(10)
        walls.remove(directory)
    finally:
        os._exit(0)


def received(control: socket.socket) -> Tuple[bytes, List[int]]:
    """Take one datagram and the descriptors that came with it; nothing when the other end is closed."""
    ends = array.array("i")
    try:
        datagram, more, _, _ = control.recvmsg(DATAGRAM, socket.CMSG_SPACE(PIPES * ends.itemsize))
    except ConnectionError:
        return b"", []
    for level, kind, data in more:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            ends.frombytes(data[: len(data) - len(data) % ends.itemsize])
    return datagram, list(ends)


# in the child


def become(plan: plans.Plan, slot: int, directory: Optional[str], ends: List[int], *, warm: bool) -> NoReturn:
    """Be the child: put the walls up, and run the one program that is asked for."""
    status = SETUP_FAILED
    try:
        confined(plan, slot, directory, ends)
        if warm:
            warm_up()
        os.write(RESULT, READY)
        status = FAILED
        request = read_all(REQUEST)
        if request:  # else there is none: a spare that was not needed
            runner.run(request, say)
        status = 0
    except MemoryError:
        status = OUT_OF_MEMORY
    finally:  # nothing of a child may go back to where it was forked
        os._exit(status)


def confined(plan: plans.Plan, slot: int, directory: Optional[str], ends: List[int]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        settle(ends)
        walls.confine(plan, slot, directory)
    except BaseException as error:
        os.write(STDERR, f"{type(error).__name__}: {error}"[:1000].encode("utf-8", "replace"))
        raise


def warm_up() -> None:
    """Go once through what every program goes through, while nobody waits: memory of a fork is slow the first time."""
    program = {"code": "def add(a, b): return a + b", "input": {"a": 1, "b": 2}}
    with contextlib.suppress(Exception):
        runner.framed(program, success=True, result=runner.performed(program))


def settle(ends: List[int]) -> None:
    """Put the pipes where a child finds them, and leave no other descriptor open; 0 is the template's /dev/null."""
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, ABOVE) for end in ends]
    for end, place in zip(high, (REQUEST, STDOUT, STDERR, RESULT)):
        os.dup2(end, place, inheritable=place in (STDOUT, STDERR))
    walls.close_others(RESULT + 1)


def read_all(end: int) -> bytes:
    blocks = []
    while block := os.read(end, BLOCK):
        blocks.append(block)
    os.close(end)
    return b"".join(blocks)


def say(frame: bytes) -> None:
    """Write a result."""
    left = memoryview(frame)
    while left:
        left = left[os.write(RESULT, left) :]


# the process itself


def main(fd: int) -> None:
    """Serve the socket `fd` until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    try:
        template = Template(control, introduced(control))
        control.send(told({"ready": True}))
    except Exception as error:  # noqa: BLE001  (its owner will say it)
        with contextlib.suppress(OSError):
            control.send(told({"error": f"{type(error).__name__}: {error}"[:1000]}))
        sys.exit(1)
    try:
        template.serve()
    finally:
        template.end()


def introduced(control: socket.socket) -> plans.Plan:
    """Learn the plan, find out what can be had of it, and import what children will need."""
    order = json.loads(control.recv(DATAGRAM))
    plan = plans.from_json(order["plan"])
    runner.preload(everything=plan.preload)
    if order["probe"]:
        plan, layers = walls.ready(plan)
        control.send(told({"plan": plans.to_json(plan), "layers": layers}))
        if plan.preload:
            runner.preload(everything=True)
    gc.collect()
    gc.freeze()
    return plan
