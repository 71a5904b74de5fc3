"""Landlock: a list of what a process may do with files, TCP, and processes outside.

Layers intersect, and nothing can be taken back out of a hierarchy that was granted. It does not see what is
told of a file (existence, size, times) nor modes and owners: the filter of system calls does.
"""

from __future__ import annotations

import functools
import os
import stat
import struct
from typing import Mapping

from . import kernel

EXECUTE, WRITE, READ, LIST = 1, 2, 4, 8
TRUNCATE, IOCTL = 1 << 14, 1 << 15
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_FIFO, _MAKE_SYM, _REFER = (
    1 << bit for bit in (4, 5, 7, 8, 10, 12, 13)
)

LOOK = READ | LIST
OWN = LOOK | WRITE | TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_FIFO | _MAKE_SYM | _REFER

_OF_FILES = EXECUTE | WRITE | READ | TRUNCATE | IOCTL  # what can be said of one that is no directory
_BITS = (0, 13, 14, 15, 15, 16)  # rights on files that the versions know
_BENEATH = 1  # the type of a rule
_BIND_AND_CONNECT = 3
_SOCKETS_AND_SIGNALS = 3
_ASK = 1


@functools.lru_cache(maxsize=1)
def version() -> int:
    """Give the version of Landlock's interface; raises OSError where there is none."""
    return kernel.call("landlock_create_ruleset", 0, 0, _ASK)


def restrict(granted: Mapping[str, int]) -> None:
    """Allow this process the rights granted on each path and what is beneath it, and nothing else outside.

    TCP, signals and abstract sockets are refused as far as the version knows of them. A path that is not there
    is passed over.
    """
    known = (1 << _BITS[min(version(), len(_BITS) - 1)]) - 1
    net = _BIND_AND_CONNECT if version() >= 4 else 0
    scoped = _SOCKETS_AND_SIGNALS if version() >= 6 else 0
    size = 24 if scoped else 16 if net else 8
    rules = kernel.call("landlock_create_ruleset", struct.pack("=QQQ", known, net, scoped), size, 0)
    try:
        for path, rights in granted.items():
            _add(rules, path, rights & known)
        kernel.call("landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)


def _add(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # gone, or out of reach: then there is nothing to allow
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        kernel.call("landlock_add_rule", rules, _BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)
