"""Runs a program of Python and writes where its CPU time goes.

    python3 tests/bench/sampler.py FILE PROGRAM [ARGUMENTS]

A timer of CPU time interrupts the main thread every 2 ms. What ran since is told by the CPU clock of each thread, and
is charged to the function that this thread is in. A thread other than the main one is only seen where it lets go of the
interpreter, so its share is right, and the function roughly. The table is written as JSON at the end, for this process
only and not for those it forks.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Dict, Optional, Set, Tuple

DELAY, INTERVAL = 0.4, 0.002  # the start is left out
Place = Tuple[str, str]  # file, function


class Sampler:
    """Seconds of CPU by function: in itself, and with what it calls."""

    def __init__(self) -> None:
        self.samples = 0
        self.own: Dict[Place, float] = {}
        self.total: Dict[Place, float] = {}
        self.threads: Dict[str, float] = {}
        self.clocks: Dict[int, float] = {}

    def look(self, _: int, frame: Optional[FrameType]) -> None:
        self.samples += 1
        me = threading.get_ident()
        for thread, at in sys._current_frames().items():
            seconds = self.since(thread)
            if seconds > 0:
                self.charge(frame if thread == me else at, seconds)
                name = "main" if thread == me else "others"
                self.threads[name] = self.threads.get(name, 0.0) + seconds

    def since(self, thread: int) -> float:
        """Give the CPU seconds of a thread since it was looked at."""
        try:
            clock = time.clock_gettime(time.pthread_getcpuclockid(thread))
        except (OSError, AttributeError):  # it has just ended
            return 0.0
        before, self.clocks[thread] = self.clocks.get(thread, clock), clock
        return clock - before if clock >= before else clock  # another one has its name now

    def charge(self, frame: Optional[FrameType], seconds: float) -> None:
        seen: Set[Place] = set()
        while frame is not None:
            place = (frame.f_code.co_filename, frame.f_code.co_name)
            if not seen:
                self.own[place] = self.own.get(place, 0.0) + seconds
            if place not in seen:
                self.total[place] = self.total.get(place, 0.0) + seconds
            seen.add(place)
            frame = frame.f_back

    def written(self) -> Any:
        everything = sum(self.own.values()) or 1.0
        return {
            "samples": self.samples,
            "seconds": round(everything, 3),
            "threads": {name: round(seconds / everything, 3) for name, seconds in self.threads.items()},
            "own": told(self.own, everything),
            "total": told(self.total, everything),
        }


def told(seconds: Dict[Place, float], everything: float) -> Any:
    """Give the shares, the greatest first."""
    ranked = sorted(seconds.items(), key=lambda item: -item[1])
    return [
        {"where": f"{'/'.join(Path(file).parts[-2:])}:{name}", "share": round(spent / everything, 4)}
        for (file, name), spent in ranked[:60]
    ]


def main() -> None:
    file, program = sys.argv[1:3]
    sampler, pid = Sampler(), os.getpid()

    def write() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if os.getpid() == pid:
            Path(file).write_text(json.dumps(sampler.written()), "utf-8")

    sys.argv = sys.argv[2:]
    sys.path[0] = str(Path(program).resolve().parent)
    atexit.register(write)
    signal.signal(signal.SIGPROF, sampler.look)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, DELAY, INTERVAL)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGPROF, signal.SIG_IGN))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
