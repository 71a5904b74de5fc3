"""A root directory of a run's own: a read-only tmpfs with the library bound into it, and nothing else.

There is no /proc and no /sys in it. All is done in namespaces of the calling process; what is half entered cannot
be left, so it is tried in a throw-away child first.
"""

from __future__ import annotations

import os
from typing import Iterable

from . import kernel
from .library import HIDDEN

_STAGE = "/proc"  # every Linux has it, and nothing of a library lies in it: the new root is put up there
_TO_KEEP = kernel.NO_SETUID | kernel.NO_DEVICES | kernel.NO_EXEC  # where set, an ordinary user may not unset them
_SAFE = kernel.NO_SETUID | kernel.NO_DEVICES
_ENTRIES = 4096


def enter(library: Iterable[str], home: str, user_namespace: bool) -> None:
    """Move this process into namespaces with nothing in them; `home` is where `private` can be called for."""
    uid, gid = os.getuid(), os.getgid()
    mine = kernel.NEWUSER if user_namespace else 0
    kernel.unshare(mine | kernel.NEWNS | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS)
    if user_namespace:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            _write(f"/proc/self/{name}", text)
    kernel.set_host_name("localhost")
    mask = os.umask(0o022)
    _stage(library, home)
    os.umask(mask)
    os.chdir(_STAGE)
    kernel.call("pivot_root", b".", b".")
    kernel.unmount(".", kernel.DETACH)
    os.chdir("/")
    kernel.mount(None, "/", None, kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY | _SAFE)


def _write(path: str, text: str) -> None:
    place = os.open(path, os.O_WRONLY)
    try:
        os.write(place, text.encode())
    finally:
        os.close(place)


def _stage(library: Iterable[str], home: str) -> None:
    kernel.mount(None, "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("tmpfs", _STAGE, "tmpfs", _SAFE, f"size=4m,nr_inodes={_ENTRIES},mode=0755")
    for path in library:
        _bind(path, _STAGE + path)
    os.makedirs(_STAGE + home, exist_ok=True)


def _bind(path: str, target: str) -> None:
    """Show a path at the same place in the new root, read-only; of a folder not what is hidden."""
    folder = os.path.isdir(path)
    os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
    if not folder:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(path, target, None, kernel.BIND)
    flags = os.statvfs(target).f_flag & _TO_KEEP | kernel.NO_SETUID
    if not path.startswith("/dev/"):
        flags |= kernel.NO_DEVICES
    kernel.mount(None, target, None, kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY | flags)
    for name in HIDDEN if folder else ():
        covered = os.path.join(target, name)
        if os.path.isdir(covered) and not os.path.islink(covered):
            kernel.mount("tmpfs", covered, "tmpfs", kernel.READ_ONLY | _SAFE, "size=4k,nr_inodes=2,mode=0755")


def private(home: str, size: int, uid: int, gid: int) -> None:
    """Put an empty file system of `size` bytes at `home`, that only this process sees."""
    kernel.unshare(kernel.NEWNS)
    options = f"size={size},nr_inodes={_ENTRIES // 4},mode=0700,uid={uid},gid={gid}"
    kernel.mount("tmpfs", home, "tmpfs", _SAFE | kernel.NO_EXEC, options)
