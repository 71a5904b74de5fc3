"""Programs that leave something for the next one, or meet another that runs at the same time.

The second program tells what it found. Two programs of one author may always agree beforehand; what is
tried here is to tell one another something, or to hurt a stranger.
"""

# ruff: noqa: B023, SIM115 - no examples to follow: they behave badly on purpose

import os
import sys

from hostile.table import attack
from hostile.tools import attempt, call, each, read, struct

# fmt: off

BROKEN = ("TypeError", "ResultNotSerializable", "ProtocolError", "SystemExit")


def finds_changed_modules(at):
    """Looks for what the first changed in Python itself."""
    import builtins
    import json

    return [name for name, there in {
        "builtins": hasattr(builtins, "hostile"), "json": json.dumps(1) != "1", "os": hasattr(os, "hostile"),
        "modules": "hostile_module" in sys.modules, "path": "/hostile" in sys.path, "environ": "HOSTILE" in os.environ,
        "len": len([]) != 0, "type": "hostile" in vars(sys.modules["types"]),
    }.items() if there]


@attack(then=finds_changed_modules, told=False, ends=BROKEN)
def changes_modules(at):
    """Changes Python itself, for whoever comes next."""
    import builtins
    import json
    import types

    builtins.hostile = os.hostile = types.hostile = 1
    sys.modules["hostile_module"] = sys
    sys.path.insert(0, "/hostile")
    os.environ["HOSTILE"] = "1"
    json.dumps = lambda *_, **__: '"forged"'
    builtins.len = lambda _: 7


def finds_files(at):
    """Looks for the first one's files."""
    import tempfile

    places = [".", attempt(tempfile.gettempdir) or "", "/tmp", "/var/tmp", "/dev/shm", at.open]
    return [place for place in places if at.name in (attempt(os.listdir, place) or ())]


@attack(then=finds_files, told=False)
def leaves_files(at):
    """Leaves files wherever it may."""
    import tempfile

    for place in (".", attempt(tempfile.gettempdir) or "", "/tmp", "/var/tmp", "/dev/shm", at.open):
        attempt(lambda: open(os.path.join(place, at.name), "w").close())


def finds_shared_memory(at):
    """Looks for segments, queues, semaphores and keys by their name."""
    return each(lambda: call("shmget", 0x5A17, 0, 0), lambda: call("msgget", 0x5A17, 0),
                lambda: call("semget", 0x5A17, 0, 0), lambda: call("mq_open", b"hostile", 0, 0, None),
                lambda: call("request_key", b"user", b"hostile", None, -4))


@attack(then=finds_shared_memory, told=False)
def leaves_shared_memory(at):
    """Leaves segments, queues, semaphores and keys."""
    each(lambda: call("shmget", 0x5A17, 4096, 0o1666), lambda: call("msgget", 0x5A17, 0o1666),
         lambda: call("semget", 0x5A17, 1, 0o1666), lambda: call("mq_open", b"hostile", 0o102, 0o666, None),
         lambda: call("add_key", b"user", b"hostile", b"x", 1, -4))


def finds_a_thread(at):
    """Looks for threads and processes that are not its own."""
    import threading

    return threading.active_count() > 1 or [
        pid for pid in attempt(os.listdir, "/proc") or () if pid.isdigit() and int(pid) != os.getpid()]


@attack(then=finds_a_thread, told=False, ends=("RuntimeError",))
def leaves_something_running(at):
    """Leaves a thread and a timer that outlive its answer."""
    import signal
    import threading
    import time

    threading.Thread(target=time.sleep, args=(15,), daemon=True).start()
    attempt(signal.setitimer, signal.ITIMER_REAL, 15)


def meets_by_a_name(at):
    """Looks for the first one on its abstract name, its path and its files, while that one waits."""
    import socket
    import time

    for _ in range(int(at.moment * 100)):
        time.sleep(0.01)
        for name in ("\0" + at.name, "/tmp/" + at.name, at.name, os.path.join(at.open, at.name)):
            if attempt(lambda: socket.socket(socket.AF_UNIX).connect(name) or True):
                return name
            if not name.startswith("\0") and os.path.exists(name):
                return name
    return None


@attack(beside=meets_by_a_name, told=False)
def waits_at_a_name(at):
    """Waits for the other on abstract and other names."""
    import socket
    import time

    held = []
    for name in ("\0" + at.name, "/tmp/" + at.name, at.name, os.path.join(at.open, at.name)):
        held.append(attempt(socket.socket, socket.AF_UNIX))
        attempt(lambda: held[-1].bind(name) or held[-1].listen()) if held[-1] else None
        if not name.startswith("\0"):
            held.append(attempt(open, name, "w"))
    time.sleep(at.moment * 1.2)


def sees_a_lock(at):
    """Looks whether somebody holds a lock on a file that all can read."""
    import fcntl
    import time

    for _ in range(int(at.moment * 100)):
        time.sleep(0.01)
        for path in (os.__file__, "/dev/null", at.canary, "/"):
            file = attempt(os.open, path, os.O_RDONLY)
            if file is None:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return path
            except OSError:
                pass
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
            for get in (fcntl.F_GETLK, 36):
                told = attempt(fcntl.fcntl, file, get, asked)
                if told and struct.unpack("hhqqi4x", told)[0] != fcntl.F_UNLCK:
                    return path
            os.close(file)
    return None


@attack(beside=sees_a_lock, told=False)
def holds_a_lock(at):
    """Locks files that all can read, the library's: a sign to others, and a trap for who waits for the lock."""
    import fcntl
    import time

    for path in (os.__file__, "/dev/null", at.canary, "/"):
        file = attempt(os.open, path, os.O_RDONLY)
        if file is not None:
            attempt(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            attempt(fcntl.fcntl, file, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 1, 0))
            attempt(fcntl.fcntl, file, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 2, 1, 0))
    time.sleep(at.moment * 1.2)


def works_in_peace(at):
    """Works for a while. Who is stopped, killed or robbed of its files did not work in peace."""
    import time

    nice = os.getpriority(os.PRIO_PROCESS, 0)
    processors = os.sched_getaffinity(0)
    attempt(lambda: open("mine", "w").write("mine"))
    began = time.monotonic()
    for _ in range(int(at.moment * 100)):
        time.sleep(0.01)
    changed = os.getpriority(os.PRIO_PROCESS, 0) != nice or os.sched_getaffinity(0) != processors
    robbed = attempt(read, "mine") not in ("mine", None)
    print("in peace")
    return changed or robbed or time.monotonic() - began > 3


@attack(beside=works_in_peace, told=False)
def disturbs_its_neighbour(at):
    """Kills, stops, traces and renices whatever is near."""
    import signal
    import time

    for _ in range(int(at.moment * 20)):
        for pid in range(max(2, os.getpid() - 30), os.getpid() + 30):
            if pid not in (os.getpid(), os.getppid()):
                attempt(call, "kill", pid, 19)
                attempt(call, "tgkill", pid, pid, 9)
                attempt(os.setpriority, os.PRIO_PROCESS, pid, 19)
                attempt(os.sched_setaffinity, pid, {0})
                attempt(call, "ptrace", 16, pid, 0, 0)
        attempt(os.kill, -1, signal.SIGKILL)
        time.sleep(0.05)


def finds_the_others_directory(at):
    """Looks for the directory of the other, beside its own."""
    import time

    for _ in range(int(at.moment * 100)):
        time.sleep(0.01)
        for place in ("..", at.temporary, "/tmp", "/var/tmp", "/dev/shm"):
            for name in attempt(os.listdir, place) or ():
                inside = attempt(os.listdir, os.path.join(place, name))
                if inside and "private" in inside:
                    return os.path.join(place, name)
    return None


@attack(beside=finds_the_others_directory, told=False)
def has_a_directory(at):
    """Keeps something in its own directory, and lets everybody in."""
    import time

    attempt(os.chmod, ".", 0o777)
    attempt(lambda: open("private", "w").write("private"))
    time.sleep(at.moment * 1.2)


def stays_within_its_share(at):
    """Takes a little of everything, which must be there for it still."""
    import tempfile
    import threading

    file = attempt(tempfile.TemporaryFile)
    if file:
        file.write(bytes(1 << 20))
    threads = [threading.Thread(target=len, args=("",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    bytearray(32 << 20)
    return [thread for thread in threads if thread.join(2)]


@attack(beside=stays_within_its_share, told=False, ends=("RuntimeError", "MemoryError"))
def takes_all_there_is(at):
    """Takes all threads, descriptors, files and memory it can get."""
    import threading
    import time

    held = []
    try:
        for number in range(200):
            threading.Thread(target=time.sleep, args=(at.moment * 2,), daemon=True).start()
            held.append(os.open(f"x{number}", os.O_CREAT | os.O_RDWR))
            os.write(held[-1], bytes(1 << 18))
    except (OSError, RuntimeError, MemoryError):
        pass
    time.sleep(at.moment * 1.5)
