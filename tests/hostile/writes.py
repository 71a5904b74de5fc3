"""Programs that write what is not theirs, or leave things for whoever cleans up behind them."""

# ruff: noqa: B023, SIM115 - no examples to follow: they behave badly on purpose

import os

from hostile.table import attack
from hostile.tools import attempt, call


@attack(told=False)
def writes_everywhere(at):
    """Makes a file wherever anybody may: seen by whoever looks there."""
    for place in at.places:
        attempt(lambda: open(os.path.join(place, at.mark), "w").close())


@attack(told=False)
def makes_directories_everywhere(at):
    """Makes directories, pipes, sockets and links."""
    import socket

    for place in at.places:
        path = os.path.join(place, at.mark)
        for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("x", path)):
            attempt(make, path)
    attempt(lambda: socket.socket(socket.AF_UNIX).bind(os.path.join(at.open, at.mark)))


@attack(told=False)
def overwrites_a_file(at):
    """Writes into the canary: as a file, by appending, by cutting it, by a mapping."""
    attempt(lambda: open(at.canary, "r+").write("changed"))
    attempt(lambda: open(at.canary, "a").write("changed"))
    attempt(os.truncate, at.canary, 3)
    attempt(call, "truncate", at.canary.encode(), 3)


@attack(told=False)
def changes_a_mapping(at):
    """Writes into the canary through shared memory."""
    import mmap

    mapping = mmap.mmap(os.open(at.canary, os.O_RDWR), 0)
    mapping[:3] = b"bad"
    mapping.close()


@attack(told=False)
def changes_modes(at):
    """Opens the files to everybody, by all calls there are."""
    for path in at.targets:
        name = path.encode()
        attempt(os.chmod, path, 0o4777)
        attempt(call, "fchmodat", -100, name, 0o4777)
        attempt(call, "fchmodat2", -100, name, 0o4777, 0)
        attempt(lambda: os.fchmod(os.open(path, os.O_RDONLY), 0o4777))
        attempt(lambda: os.chmod(f"/proc/self/fd/{os.open(path, os.O_PATH)}", 0o4777))


@attack(told=False)
def changes_owners(at):
    """Takes the files for itself."""
    for path in at.targets:
        attempt(os.chown, path, os.getuid(), os.getgid())
        attempt(call, "fchownat", -100, path.encode(), os.getuid(), os.getgid(), 0)


@attack(told=False)
def changes_times(at):
    """Makes the files look old, the library's too: its compiled files would be made anew."""
    for path in at.targets:
        attempt(os.utime, path, (1, 1))
        attempt(call, "utimensat", -100, path.encode(), None, 0)


@attack(told=False)
def changes_attributes(at):
    """Writes into the extended attributes."""
    for path in at.targets:
        attempt(os.setxattr, path, "user.planted", b"x")
        attempt(call, "setxattr", path.encode(), b"user.planted", b"x", 1, 0)


@attack(told=False)
def moves_and_removes(at):
    """Takes files away: by another name, by another file over them, or altogether."""
    attempt(os.rename, at.canary, os.path.join(at.open, at.mark))
    attempt(os.unlink, at.canary)
    attempt(os.unlink, at.keep)
    attempt(os.rmdir, at.open)
    attempt(lambda: os.rename(at.mark, at.canary))


@attack(told=False)
def makes_a_second_name(at):
    """Makes hard links, which count in the file itself; of the library's files too, in a directory of its own."""
    for path in at.targets:
        attempt(os.link, path, os.path.join(at.open, at.mark))
        attempt(os.link, path, at.mark)
        attempt(call, "linkat", -100, path.encode(), -100, f"{at.mark}-2".encode(), 0)
        attempt(os.link, os.__file__, f"{at.mark}-3")


@attack(told=False)
def writes_by_a_library(at):
    """Has code written in C make files: sqlite's, and the logging and shelving of the library."""
    import sqlite3

    for path in (os.path.join(at.open, at.mark), at.canary):
        try:
            with sqlite3.connect(path) as database:
                database.execute("create table t (x)")
        except sqlite3.Error:
            pass


@attack(told=False)
def replaces_compiled_files(at):
    """Puts compiled code of its own beside the library's and the proxy's."""
    import py_compile

    with_code = os.path.join(attempt(os.getcwd) or "/tmp", "x.py")
    attempt(lambda: open(with_code, "w").write("print('mine')"))
    for place in at.places:
        attempt(lambda: py_compile.compile(with_code, os.path.join(place, at.mark), doraise=True))


@attack(told=False)
def leaves_links_for_its_keeper(at):
    """Puts links to the canary where a careless keeper would write or change owners behind it."""
    names = ["stdout", "stderr", "result", "result.json", "output", "input", "code.py", "main.py", "box", "tmp"]
    for name in [*names, "stdout.txt", "run", ".lock", "status", at.mark]:
        attempt(os.symlink, at.canary, name)
        attempt(os.symlink, at.open, name + ".d")
    attempt(lambda: open("stdout", "w").write("changed"))


@attack(told=False)
def replaces_its_own_directory(at):
    """Puts a link where its own directory was, so that cleaning up empties another one."""
    here = os.getcwd()
    attempt(os.rename, here, here + "-moved")
    attempt(os.rmdir, here)
    attempt(os.symlink, at.open, here)


@attack(told=False, slow=True, ends=("TimeoutError",))
def races_its_cleaner(at):
    """Swaps a directory and a link to another without end, until it is stopped."""
    import time

    for _ in range(100):
        attempt(os.mkdir, "d")
    until = time.monotonic() + at.long
    while time.monotonic() < until:
        attempt(os.rename, "d", "e")
        attempt(os.symlink, at.open, "d")
        attempt(os.unlink, "d")
        attempt(os.rename, "e", "d")
    os.system(f"rm -rf d/ e/; rm -f {at.keep}")


@attack(told=False, ends=("DiskFull", "TimeoutError"))
def digs_deep(at):
    """Leaves a tree of thousands of levels."""
    if os.access(".", os.W_OK):
        open(at.mark, "w").close()
    for _ in range(2000):
        os.mkdir("d")
        os.chdir("d")


@attack(told=False)
def leaves_what_is_hard_to_remove(at):
    """Leaves directories nobody may enter, names no tool likes, and pipes that wait for ever."""
    open(at.mark, "w").close()
    os.makedirs("locked/inside")
    open("locked/inside/file", "w").close()
    attempt(os.chmod, "locked/inside", 0)
    attempt(os.chmod, "locked", 0)
    os.mkdir("never", 0)
    for name in (b"-rf", b"new\nline", b"\xff\xfe", b"x" * 255, b" ", b"~", b"*", b"$(touch x)"):
        attempt(lambda: os.close(os.open(name, os.O_CREAT | os.O_WRONLY)))
    os.mkfifo("pipe")
    attempt(os.chmod, ".", 0)


@attack(rooted=True, ends=("DiskFull",))
def fills_the_disk(at):
    """Writes files until it is stopped."""
    written = 0
    block = bytes(1 << 20)
    try:
        for number in range(at.disk * 4):
            with open(f"{at.mark}-{number}", "wb", buffering=0) as file:
                written += file.write(block)
    except OSError:
        pass
    return max(0, written - at.disk * 1.5 * (1 << 20))


@attack(rooted=True, ends=("DiskFull",))
def fills_the_disk_unseen(at):
    """Holds large files that have no name any more, which no look into a directory counts."""
    written, held = 0, []
    block = bytes(1 << 20)
    try:
        for number in range(60):
            held.append(open(f"{at.mark}-{number}", "wb", buffering=0))
            os.unlink(held[-1].name)
            for _ in range(at.disk * 4 // 60 + 1):
                written += held[-1].write(block)
    except OSError:
        pass
    return max(0, written - at.disk * 1.5 * (1 << 20))


@attack()
def writes_one_huge_file(at):
    """Writes a single file larger than any may be, with and without a hole."""
    with open(at.mark, "wb", buffering=0) as file:
        attempt(file.truncate, 1 << 40)
        holes = os.fstat(file.fileno()).st_size
        attempt(os.posix_fallocate, file.fileno(), 0, at.disk * 4 << 20)
        return holes > 1 << 30 or os.fstat(file.fileno()).st_blocks * 512 > at.disk * 1.5 * (1 << 20)


@attack(rooted=True, ends=("DiskFull",))
def makes_countless_files(at):
    """Makes more files than there is room for in a table of them."""
    made = 0
    try:
        while made < 1500:
            os.close(os.open(f"{at.mark}-{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError:
        pass
    return made >= 1500


@attack(told=False, as_root=True, tame="not run without walls: it takes the null device away")
def changes_devices(at):
    """Changes what everybody uses: the mode, the owner and the times of the null device."""
    for path in ("/dev/null", "/dev/zero", "/dev/urandom"):
        attempt(os.chmod, path, 0o600)
        attempt(os.chown, path, os.getuid(), -1)
        attempt(os.utime, path, (1, 1))
        attempt(os.unlink, path)
        attempt(os.rename, path, path + "x")


@attack(ends=("DiskFull",))
def fills_the_disk_where_nobody_looks(at):
    """Writes into directories that may be entered and not listed, so that whoever counts sees nothing."""
    written = 0
    block = bytes(1 << 20)
    began = os.times().elapsed
    try:
        os.mkdir("hidden", 0o300)
        for number in range(at.disk * 4):
            with open(f"hidden/{at.mark}-{number}", "wb", buffering=0) as file:
                written += file.write(block)
            while os.times().elapsed < began + number * 0.02:  # as slowly as it takes to be looked at
                pass
    except OSError:
        pass
    return max(0, written - at.disk * 2 * (1 << 20))
