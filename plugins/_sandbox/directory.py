"""The private directory of a run where it has no root of its own, looked at and removed from outside.

What is in it was made by a program that nobody vouches for, so no link in it is followed, no depth trusted.
"""

from __future__ import annotations

import os
from typing import Iterator, List, Optional

_BLOCK = 512  # of st_blocks
_INODE = 4096  # what a file takes at least, be it empty


def make(folder: str, uid: Optional[int]) -> str:
    """Make an empty one with a name that cannot be guessed, for its owner alone; the name tells who made it."""
    path = os.path.join(folder, f"{_prefix(os.getpid())}{os.urandom(12).hex()}")
    os.mkdir(path, 0o700)
    if uid is not None:
        os.chown(path, uid, uid, follow_symlinks=False)
    return path


def left_by(folder: str, maker: int) -> List[str]:
    """Give those that a process made and did not remove."""
    return [entry.path for entry in os.scandir(folder) if entry.name.startswith(_prefix(maker))]


def _prefix(maker: int) -> str:
    return f"run-{maker}-"


def used(path: str, most: int) -> int:
    """Give how many bytes the files take; looks no further than `most`.

    What cannot be looked at, because it is too deep or was closed to us, counts as more than that.
    """
    total = 0
    try:
        for entry in _walk(path):
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            total += _INODE + about.st_blocks * _BLOCK
            if total > most:
                break
    except OSError:
        return most + 1
    return total


def _walk(path: str) -> Iterator[os.DirEntry[str]]:
    waiting = [path]
    while waiting:
        try:
            inside = os.scandir(waiting.pop())
        except FileNotFoundError:
            continue
        with inside:
            for entry in inside:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def remove(path: str) -> None:
    """Remove it with all that is in it; the program that had it must be dead.

    Whatever lies deeper than two levels is first moved up, so it takes two descriptors for any depth.
    """
    top = _opened(path, None)
    try:
        while _emptied(top, top):
            pass
    finally:
        os.close(top)
    os.rmdir(path)


def _opened(path: str, beside: Optional[int]) -> int:
    os.chmod(path, 0o700, dir_fd=beside)  # the caller knows that it is no link, and nobody is there to change it
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=beside)


def _emptied(folder: int, top: int) -> bool:
    """Remove what is in a folder, or move what is a folder itself to the top; give whether there was anything."""
    found = False
    with os.scandir(folder) as inside:
        for entry in inside:
            found = True
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=folder)
            elif folder == top:
                _clear(entry.name, top)
            else:
                os.chmod(entry.name, 0o700, dir_fd=folder)
                os.rename(entry.name, os.urandom(12).hex(), src_dir_fd=folder, dst_dir_fd=top)
    return found


def _clear(name: str, top: int) -> None:
    folder = _opened(name, top)
    try:
        while _emptied(folder, top):
            pass
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
