"""The limits of one process, set so that they cannot be raised again."""

from __future__ import annotations

import _thread
import os
from typing import Dict

from .plan import Limits

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

NICE = 10
_STACK = 8 << 20
_SIGNALS = 128  # queued
_OTHERS = 64  # threads the rest of this user may start while a run goes on, where they are counted together


def numbers(limits: Limits, threads: int, file_size: int) -> Dict[str, int]:
    """Give each limit by its name in `resource`."""
    return {
        "AS": limits.memory,
        "CPU": limits.cpu,
        "NPROC": threads,
        "FSIZE": file_size,
        "NOFILE": limits.open_files,
        "STACK": _STACK,
        "SIGPENDING": _SIGNALS,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
        "NICE": 0,
        "RTPRIO": 0,
    }


def impose(wanted: Dict[str, int]) -> None:
    """Set limits, soft and hard; one that is already lower stays."""
    for name, number in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            least = number if hard == resource.RLIM_INFINITY else min(number, hard)
            resource.setrlimit(kind, (least, least))


def leave_a_processor() -> None:
    """Keep off one processor of this machine, for good once the filter is up: others are quick there.

    Niceness alone does not see to that: a dozen threads that pass one lock around can keep everybody else of their
    processor waiting for seconds.
    """
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[1:] or processors)


def be_nice() -> None:
    os.nice(max(0, NICE - os.nice(0)))


def counted_together(threads: int) -> int:
    """Give the limit that leaves room for `threads` where all of this user's are counted."""
    return running() + threads + _OTHERS


def running() -> int:
    """Give about how many threads this user has, by trying which limit lets one more start."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    low, high = 0, 1 << 22 if before[1] == resource.RLIM_INFINITY else before[1]
    try:
        while high - low > 1:
            middle = (low + high) // 2
            resource.setrlimit(resource.RLIMIT_NPROC, (middle, before[1]))
            low, high = (low, middle) if can_start_a_thread() else (middle, high)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)
    return low


def can_start_a_thread() -> bool:
    done = _thread.allocate_lock()
    done.acquire()
    try:
        _thread.start_new_thread(done.release, ())
    except RuntimeError:
        return False
    done.acquire()
    return True


def check_threads() -> None:
    """Raise OSError if this process may start threads in spite of its limit; it can start none afterwards."""
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    if can_start_a_thread():
        raise OSError("the kernel does not count the threads of this user: as root it takes a user id of its own")
