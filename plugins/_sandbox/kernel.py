"""The system calls that Python has no name for; what is refused raises OSError."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from typing import Any, Callable, NoReturn, Optional, Union

from .filter import number

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
PDEATHSIG, DUMPABLE, NO_NEW_PRIVS, SECCOMP = 1, 4, 38, 22  # of prctl
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2  # of umount2
_CAPABILITY_VERSION = 0x20080522


@functools.lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(value: int, what: str) -> int:
    if value == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return value


def call(name: str, *arguments: Union[int, bytes, Any]) -> int:
    """Make a system call by name; an argument is a number, bytes, or a buffer of ctypes."""
    machine = os.uname().machine
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _done(_libc().syscall(ctypes.c_long(number(machine, name)), *words), name)


def prctl(option: int, value: int) -> None:
    _done(_libc().prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))), f"prctl {option}")


def unshare(flags: int) -> None:
    _done(_libc().unshare(flags), "unshare")


def mount(source: Optional[str], target: str, kind: Optional[str], flags: int, options: str = "") -> None:
    words = [None if one is None else os.fsencode(one) for one in (source, target, kind)]
    _done(_libc().mount(*words, ctypes.c_ulong(flags), os.fsencode(options)), f"mount {target}")


def unmount(target: str, flags: int) -> None:
    _done(_libc().umount2(os.fsencode(target), flags), f"umount {target}")


def set_host_name(name: str) -> None:
    _done(_libc().sethostname(name.encode(), ctypes.c_size_t(len(name))), "sethostname")


def drop_capabilities() -> None:
    """Give up all capabilities."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    call("capset", header, ctypes.create_string_buffer(24))


def install_filter(program: bytes) -> None:
    """Hold this process to a BPF program for good; it must not be able to gain privileges any more."""
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    try:
        call("seccomp", 1, 0, filter_)
    except OSError:  # the older way in; if it was refused for another reason, this is too
        _done(_libc().prctl(SECCOMP, ctypes.c_ulong(2), filter_, ctypes.c_ulong(0), ctypes.c_ulong(0)), "seccomp")


def in_child(ask: Callable[[], bytes]) -> bytes:
    """Give what `ask` gives in a throw-away child of this single-threaded process; an OSError of it is ours."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(theirs, ask)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    if not told.startswith(_GOOD):
        raise OSError(told.decode("utf-8", "replace") or "the child that tried it died")
    return told[len(_GOOD) :]


def worded(error: BaseException) -> str:
    """Give an error in words, without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return f"{error}" or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


_GOOD = b"+"


def _answer(pipe: int, ask: Callable[[], bytes]) -> NoReturn:
    try:
        told = _GOOD + ask()
    except BaseException as error:  # noqa: BLE001  (whatever it was, the one who asked has to be told)
        told = worded(error).encode("utf-8", "replace")
    try:
        while told:
            told = told[os.write(pipe, told) :]
    finally:
        os._exit(0)
