"""Token buckets for any number of keys, in a fixed piece of memory that threads and worker processes share.

A bucket is one number: the time at which it is full again. A token taken puts that time off by `interval`,
and may be taken as long as the bucket is no more than `burst` of them from full; they come back by the clock
alone. So a bucket that is full is the same as none. Times are whole nanoseconds: whether the last token of a
burst is there must not hang on how sums of floats are rounded.

The memory is a table of 16-byte slots, in sets of 16 (16 tags, then their 16 times). A key has its place in
one set only, so a request costs a look at 256 bytes, however many keys there are. A tag is Python's own keyed
hash (SipHash), of a secret of this start and the key: nobody can choose names that meet in one set, and its 64
bits do not meet by chance. hashlib's would have every house load OpenSSL, and take seven times as long. A new
key takes the place of the bucket nearest to full; nearly always that one is full. Where all 16 are in use it
is forgotten, which gives its owner some tokens too early, and refuses nobody for want of room; whoever has
spent the most is forgotten last. Of the 2^18 slots (4 MiB, of which the system gives what is used) 100,000
keys that are all busy at once overfill 3 of the 16,384 sets, and about 5 of the keys are forgotten.

The memory is anonymous and shared, and made before the kernel forks its workers, so that they all have the
same; the monotonic clock is the system's, so they agree on the time. Threads exclude each other by a lock,
processes by a lock on a file without a name: unlike a semaphore, it is given back by the system when a worker
dies. It costs two system calls, so it is left out until this process is first forked. A worker that dies
between its two writes leaves the new tag with the time of the one before, which is nearer to full: no harm.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
import weakref
from typing import Callable, NamedTuple, Sequence, Tuple

try:
    import fcntl
except ImportError:  # Windows, where nothing forks
    fcntl = None  # type: ignore[assignment]

WAYS = 16
_SET = struct.Struct(f"{WAYS}Q{WAYS}q")
_TAG = struct.Struct("Q")
_TIME = struct.Struct("q")
_TO_TIME = WAYS * _TAG.size  # from a slot's tag


class Budget(NamedTuple):
    """What every key may spend: `burst` tokens at once, and one more each `interval` nanoseconds."""

    interval: int
    burst: int


class Level(NamedTuple):
    """How full a bucket is: `wait` nanoseconds to its next token if there was none, and `full` to its last."""

    wait: int
    remaining: int
    full: int


class Buckets:
    """The buckets of every key. `slots` is a multiple of 16; `clock` gives nanoseconds, from 0 on."""

    def __init__(self, slots: int = 1 << 18, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._sets = slots // WAYS
        self._memory = mmap.mmap(-1, self._sets * _SET.size)
        self._secret = os.urandom(16)
        self._clock = clock
        self._lock = threading.Lock()
        self._file = -1  # what other processes lock, if there are any
        if fcntl is not None:
            os.register_at_fork(before=_weakly(self._share), after_in_child=_weakly(self._renew))

    @property
    def shared(self) -> bool:
        """Whether other processes may have these buckets, too."""
        return self._file >= 0

    def take(self, keys: Sequence[str], budget: Budget) -> Level:
        """Take a token from each key's bucket, or none from any; gives the level of the emptiest."""
        tags = [self._tag(key) for key in keys]
        with self._lock:
            if not self.shared:
                return self._take(tags, budget)
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                return self._take(tags, budget)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _tag(self, key: str) -> int:
        data = key.encode("utf-8", "surrogatepass")  # half a surrogate pair can stand in JSON, and so in a user's name
        return hash(self._secret + data) % (1 << 64)

    def _take(self, tags: Sequence[int], budget: Budget) -> Level:
        now = self._clock()
        most = budget.interval * budget.burst
        missing = max(0, *(self._find(tag)[1] - now for tag in tags))
        wait = missing + budget.interval - most
        if wait > 0:
            return Level(wait, 0, missing)
        for tag in tags:
            place, full = self._find(tag)  # again: the tag before may have taken the place
            _TAG.pack_into(self._memory, place, tag)
            _TIME.pack_into(self._memory, place + _TO_TIME, max(full, now) + budget.interval)
        return Level(0, -wait // budget.interval, missing + budget.interval)

    def _find(self, tag: int) -> Tuple[int, int]:
        """Give the place of a tag's bucket and when it is full; one that is not there gets the fullest one's place."""
        start = tag % self._sets * _SET.size
        slots = _SET.unpack_from(self._memory, start)
        tags, times = slots[:WAYS], slots[WAYS:]
        if tag in tags:
            at = tags.index(tag)
            return start + at * _TAG.size, times[at]
        return start + times.index(min(times)) * _TAG.size, 0

    def _share(self) -> None:
        """Have the file locked from now on: called before each fork, while no thread is at the table."""
        with self._lock:
            if not self.shared:
                self._file = _nameless_file()
                weakref.finalize(self, os.close, self._file)

    def _renew(self) -> None:
        """Drop a lock that a thread held which was not forked along."""
        self._lock = threading.Lock()


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Call a method for as long as its object lives: what is registered at fork is never taken off again."""
    living = weakref.WeakMethod(method)

    def call() -> None:
        found = living()
        if found is not None:
            found()

    return call


def _nameless_file() -> int:
    """Open a file that nobody else can open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("llmproxy-buckets")
    import tempfile

    file, path = tempfile.mkstemp()
    os.unlink(path)
    return file
