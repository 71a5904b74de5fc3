"""Threads for what may block: a bounded number of them, there when they are needed."""

from __future__ import annotations

import collections
import threading
import time
from typing import Callable, Deque, Optional


class Crew:
    """A bounded number of threads, there when they are needed and gone when they were not for a while."""

    REST = 30.0  # seconds without work after which a thread goes
    FEW = 4  # threads for what takes moments; more only when it takes longer
    MOMENT = 0.02  # seconds

    def __init__(self, most: int) -> None:
        self._most = most
        self._stirred = threading.Condition()  # SimpleQueue's timeout can fail to end when there are two who wait
        self._jobs: Deque[Callable[[], None]] = collections.deque()
        self._waiting = (
            0  # hands without a job; each of those that wait in `_jobs` is for one of them, if there are any
        )
        self._all = 0
        self._since = 0.0  # when jobs began to wait for a hand, or the last hand came

    @property
    def busy(self) -> int:
        with self._stirred:
            return self._all - self._waiting + len(self._jobs)

    @property
    def late(self) -> bool:
        """Tell whether jobs wait that there are no hands for."""
        return len(self._jobs) > self._waiting

    def take(self, job: Callable[[], None], *, brief: bool = False) -> bool:
        """Have a job done; False when every hand is full. A brief one queues where there are a few hands already."""
        with self._stirred:
            if self._waiting > len(self._jobs):
                self._jobs.append(job)
                self._stirred.notify()
                return True
            if brief and self._all >= min(self.FEW, self._most):
                self._since = self._since if self.late else time.monotonic()
                self._jobs.append(job)
                return True
            if self._all >= self._most:
                return False
        return self._grow(job)

    def tend(self) -> None:
        """Have one hand more when jobs wait for longer than a moment."""
        if self.late and time.monotonic() - self._since > self.MOMENT:
            with self._stirred:
                job = self._jobs.popleft() if self.late and self._all < self._most else None
            if job and not self._grow(job):
                with self._stirred:
                    self._jobs.appendleft(job)

    def _grow(self, job: Callable[[], None]) -> bool:
        with self._stirred:
            self._since = time.monotonic()
            self._all += 1
        try:
            threading.Thread(target=self._work, args=(job,), daemon=True).start()
        except RuntimeError:  # the system has no more threads for us
            with self._stirred:
                self._all -= 1
            return False
        return True

    def _work(self, job: Optional[Callable[[], None]]) -> None:
        while job is not None:
            job()
            job = self._next()

    def _next(self) -> Optional[Callable[[], None]]:
        """Wait for a job; None when there was none for long enough."""
        with self._stirred:
            self._waiting += 1
            found = self._stirred.wait_for(lambda: self._jobs, self.REST)
            self._waiting -= 1
            if found:
                return self._jobs.popleft()
            self._all -= 1
            return None
