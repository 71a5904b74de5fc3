"""The files that Python needs of a machine, and nothing beside them.

The folder of the library often holds what is no part of it: installed packages, and with them this proxy. Those
are HIDDEN. The shared objects are listed one by one, under the names the loader asks for: a folder of them can be
a whole system's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from typing import Iterator, List, Set, Tuple

from .kernel import in_child

HIDDEN = ("site-packages", "dist-packages", "test", "tests")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_OTHERS = ("/etc/ld.so.cache", "/usr/share/zoneinfo", *_DEVICES)


def folders() -> List[str]:
    """Give the folders (or archives) of the library itself."""
    home = os.path.dirname(os.__file__)
    beside = [path for path in sys.path if os.path.basename(path) == "lib-dynload" and not _within(path, home)]
    return [path for path in (home, *beside) if os.path.exists(path)]


def _within(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


@functools.lru_cache(maxsize=1)
def paths() -> Tuple[str, ...]:
    """Give all that is to be readable; asks a child what the extension modules load."""
    listed = folders()
    objects = [path for path in shared_objects() if not any(_within(path, folder) for folder in listed)]
    return tuple(listed + objects + [path for path in _OTHERS if os.path.exists(path)])


def shared_objects() -> List[str]:
    """Give what the loader has opened for this process, or would for any extension module of the library."""
    return sorted(path for path in in_child(_loaded).decode("utf-8", "surrogateescape").split("\n") if path)


def _loaded() -> bytes:
    """Load every extension module, without running it, and list what the process has now."""
    load_late_ones()
    for path in _extensions():
        with contextlib.suppress(OSError):  # it misses something here, so nobody can import it
            ctypes.CDLL(path)
    found: Set[bytes] = set()

    class Info(ctypes.Structure):
        _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))

    def note(info: ctypes._Pointer[Info], _size: int, _data: object) -> int:
        found.add(info.contents.name)
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)
    ctypes.CDLL(None).dl_iterate_phdr(kind(note), None)
    return b"\n".join(path for path in found if path.startswith(b"/"))


def load_late_ones() -> None:
    """Load what a C library opens by itself in the midst of a run: this one when a thread ends."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")


def _extensions() -> Iterator[str]:
    for path in sys.path:
        if os.path.basename(path) == "lib-dynload" and os.path.isdir(path):
            yield from (entry.path for entry in os.scandir(path) if entry.name.endswith(".so"))


def entries(path: str) -> Iterator[str]:
    """Give what is to be granted for a path of `paths`: a folder that hides something is taken entry by entry."""
    if not (os.path.isdir(path) and any(os.path.lexists(os.path.join(path, name)) for name in HIDDEN)):
        yield path
        return
    for entry in os.scandir(path):
        if entry.name not in HIDDEN and not (entry.is_symlink() and not _within(entry.path, path)):
            yield entry.path
