"""The steps that put single layers around the calling process, and who it is for its runs.

Which of them are taken, and in what order, is for `walls` to say; what they need to know of the machine is found
out before anything is entered, because afterwards it cannot be.
"""

from __future__ import annotations

import functools
import os
import signal
from typing import Callable, NamedTuple, Optional, Tuple

from . import kernel, library, limits, root
from .kernel import in_child
from .plan import Plan

_HOMES = ("/tmp", "/var/tmp", "/home/run")  # noqa: S108 - in the private root, where it is the run's alone
_SLOTS = 1024
_ROOMS = 140_000  # for as many processes with slots; a user id has 31 bits that everybody understands
_FEW_ROOMS = 4
_FILES_AT_ONCE = 8  # where no mount bounds the disk, a file may be this part of it


class Facts(NamedTuple):
    """What is found out once about this machine, before anything is entered."""

    pid: int  # of this process: another proxy, or another process of this one, has runs with other user ids
    root: bool  # this process can give user ids
    ids: Tuple[Tuple[int, int], ...]  # the user ids there are: (first, how many)
    mounts: bool  # this process can mount without a user namespace of its own


@functools.lru_cache(maxsize=1)
def facts() -> Facts:
    """Give what was found out, the first time this is called, by a process with all its rights."""
    try:
        with open("/proc/self/uid_map") as ids:
            ranges = tuple((int(first), int(count)) for first, _, count in map(str.split, ids))
    except FileNotFoundError:  # a kernel without user namespaces
        ranges = ((0, 1 << 32),)
    return Facts(os.getpid(), works(_try_identity), ranges, works(_try_mounts))


def _try_identity() -> bytes:
    os.setgroups([])
    return b""


def _try_mounts() -> bytes:
    kernel.unshare(kernel.NEWNS)
    return b""


def works(what: Callable[[], bytes]) -> bool:
    """Tell whether something can be done, from a throw-away child that has done it."""
    try:
        in_child(what)
    except OSError:
        return False
    return True


def readable(plan: Plan) -> Tuple[str, ...]:
    return plan.library or library.paths()


def home_of(plan: Plan) -> str:
    """Give where a run's own files are in the private root: where they cover nothing of the library."""
    return next(path for path in _HOMES if not any(one.startswith(f"{path}/") for one in readable(plan)))


def user_of(plan: Plan, slot: int) -> Optional[int]:
    """Give the user id of a slot; None where runs keep the caller's."""
    if "identity" not in plan.layers:
        return None
    first, rooms = plan.first_uid, _ROOMS
    if not any(low <= first and first + rooms * _SLOTS <= low + count for low, count in facts().ids):
        low, count = max(facts().ids, key=lambda span: span[1])
        rooms = _FEW_ROOMS  # in a container with few ids: the highest but those that have names there
        first = low + count - (rooms + 1) * _SLOTS
    return first + facts().pid % rooms * _SLOTS + slot


def in_user_namespace(plan: Plan) -> bool:
    return "namespaces" in plan.layers and not facts().mounts


def enter_root(plan: Plan) -> None:
    root.enter(readable(plan), home_of(plan), in_user_namespace(plan))


def into_private_root(plan: Plan, user: Optional[int]) -> Optional[str]:
    """Put a run's own files into the root that was entered, and count its threads by themselves; give where."""
    home = None
    if not plan.nofs:
        owner, group = (os.getuid(), os.getgid()) if user is None else (user, user)
        home = home_of(plan)
        root.private(home, plan.limits.disk, owner, group)
    if user is None:
        kernel.unshare(kernel.NEWUSER)
    return home


def limit(plan: Plan, user: Optional[int]) -> None:
    threads, file_size = plan.limits.processes, plan.limits.file_size
    if "namespaces" not in plan.layers:
        file_size = min(file_size, max(1, plan.limits.disk // _FILES_AT_ONCE))
        if user is None:
            threads = limits.counted_together(threads)
    limits.impose(limits.numbers(plan.limits, threads, file_size))


def become(user: Optional[int]) -> None:
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def give_up_privileges(parent: int) -> None:
    kernel.drop_capabilities()
    kernel.prctl(kernel.NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.DUMPABLE, 0)
    kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)  # a change of user before this would have cleared it
    if os.getppid() != parent:
        raise OSError("the parent has died")
