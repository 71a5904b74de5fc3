"""Programs that take more than their share. Each stops by itself a little beyond what it may have."""

# ruff: noqa: SIM115 - no examples to follow: they behave badly on purpose

import os
import sys

from hostile.table import attack, text
from hostile.tools import attempt, call, each, libc

# fmt: off

#: how a compiler, and whoever waits for it, gives up
REFUSED = (
    "SyntaxError", "IndentationError", "NameError", "UnicodeEncodeError", "MemoryError", "RecursionError",
    "OverflowError", "ValueError", "ResultNotSerializable", "ResultTooLarge", "Crashed", "TimeoutError",
)


@attack(slow=True)
def burns_the_processor(at):
    """Counts without end."""
    import time

    until = time.monotonic() + at.long
    while time.monotonic() < until:
        pass
    return "it went on"


@attack(slow=True, ends=("RuntimeError",))
def burns_every_processor(at):
    """Burns in threads that hold no lock."""
    import hashlib
    import threading
    import time

    until = time.monotonic() + at.long

    def burn():
        while time.monotonic() < until:
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 100000)

    for _ in range(4):
        threading.Thread(target=burn).start()
    burn()
    return "it went on"


@attack(slow=True)
def sleeps(at):
    """Sleeps, which costs no processor time."""
    import time

    time.sleep(at.long)
    return "it slept"


@attack(slow=True)
def waits_for_ever(at):
    """Waits in the kernel, for a lock that nobody gives back and for a pipe that nobody writes."""
    import select
    import threading

    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=at.long / 2)
    select.select([os.pipe()[0]], [], [], at.long / 2)
    return "it waited"


@attack(slow=True)
def matches_for_ever(at):
    """Burns inside of one call that never looks at signals."""
    import re

    re.match("(a|a)*b", "a" * 27)
    return "it went on"


@attack(slow=True, told=False, ends=("RuntimeError",))
def catches_its_end(at):
    """Catches everything that could end it, and begins again."""
    import signal
    import time

    until = time.monotonic() + at.long

    def again(*_):
        while time.monotonic() < until:
            try:
                time.sleep(0.01)
                raise SystemExit
            except BaseException:
                pass

    attempt(signal.signal, signal.SIGXCPU, again)
    attempt(signal.signal, signal.SIGTERM, again)
    attempt(signal.signal, signal.SIGALRM, again)
    again()
    open(at.canary, "w").write("it went on")


@attack(ends=("MemoryError",))
def takes_memory(at):
    """Takes memory for bytes."""
    held = []
    while len(held) < at.memory * 2:
        held.append(bytearray(b"x") * (1 << 20))
    return len(held)


@attack(ends=("MemoryError", "OverflowError"))
def takes_memory_at_once(at):
    """Asks for more than any machine has, and for a list that grows."""
    held = []
    for size in (1 << 62, 1 << 45, at.memory << 21):
        try:
            held.append(bytearray(size))
        except MemoryError:
            continue
    return len(held)


@attack(ends=("Crashed",))
def maps_memory(at):
    """Takes memory by mapping it, its own and to be shared."""
    import mmap

    held = []
    try:
        while len(held) < at.memory * 2 // 16:
            held.append(mmap.mmap(-1, 16 << 20, (mmap.MAP_SHARED, mmap.MAP_PRIVATE)[len(held) % 2]))
            held[-1].write(b"x" * (16 << 20))
    except (OSError, MemoryError):
        return None
    return len(held)


@attack()
def takes_memory_files(at):
    """Keeps memory in files without a name, which no limit of a process counts."""
    held, block = 0, bytes(1 << 20)
    for number in range(40):
        descriptor = call("memfd_create", b"x%d" % number, 0)
        for _ in range(at.memory * 2 // 40):
            held += attempt(os.write, descriptor, block) or 0
    return held > at.memory << 20 or "a file"


@attack()
def takes_shared_memory(at):
    """Takes memory segments and queues that outlive it."""
    key = int(at.mark[1:], 16)
    done = each(lambda: call("shmget", key, 64 << 20, 0o1666), lambda: call("msgget", key, 0o1666),
                lambda: call("semget", key, 8, 0o1666),
                lambda: call("mq_open", at.mark.encode(), os.O_CREAT | os.O_RDWR, 0o666, None),
                lambda: os.open(f"/dev/shm/{at.mark}", os.O_CREAT | os.O_RDWR))
    libc.mq_unlink(b"/" + at.mark.encode())
    return done


@attack()
def fills_pipes(at):
    """Keeps data in pipes and pairs of sockets, made as large as they go."""
    import fcntl
    import socket

    held, ends = 0, []
    try:
        for number in range(60):
            if number % 2:
                pair = os.pipe()
                attempt(fcntl.fcntl, pair[1], 1031, 1 << 20)
                os.set_blocking(pair[1], False)
                held += attempt(os.write, pair[1], bytes(1 << 20)) or 0
            else:
                pair = socket.socketpair()
                attempt(pair[0].setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                pair[0].setblocking(False)
                held += attempt(pair[0].send, bytes(1 << 20)) or 0
            ends.append(pair)
    except OSError:
        pass
    return held if held > 12 << 20 else None


@attack()
def hides_descriptors_in_flight(at):
    """Sends full pipes through a socket and closes them here, so that no limit of descriptors counts them."""
    import array
    import socket

    sent, pairs = 0, []
    try:
        for _ in range(8):
            one, other = socket.socketpair()
            one.setblocking(False)
            pairs.append((one, other))
            for _ in range(40):
                out, into = os.pipe()
                os.set_blocking(into, False)
                attempt(os.write, into, bytes(65536))
                one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [out, into]))])
                os.close(out)
                os.close(into)
                sent += 2
    except OSError:
        pass
    return sent if sent > 4 * at.files else None


@attack(ends=("RuntimeError", "MemoryError"))
def starts_threads(at):
    """Starts threads until it is stopped."""
    import threading

    go, started = threading.Event(), 0
    try:
        for _ in range(300):
            threading.Thread(target=go.wait, args=(3,), daemon=True).start()
            started += 1
    except (RuntimeError, MemoryError):
        pass
    go.set()
    return started if started > 3 * at.processes else None


@attack()
def opens_countless_descriptors(at):
    """Copies a descriptor until it is stopped."""
    held = 0
    try:
        for _ in range(900):
            os.dup(1)
            held += 1
    except OSError:
        pass
    return held if held > 2 * at.files else None


@attack(told=False, ends=("OutputTooLarge",))
def floods_its_output(at):
    """Prints without end, on both streams."""
    for _ in range(40):
        sys.stdout.write("\x00" * (1 << 20))
        sys.stderr.write("\x00" * (1 << 20))


@attack(told=False, ends=("OutputTooLarge",))
def floods_its_descriptors(at):
    """Writes half a gigabyte to its descriptors, around Python."""
    for _ in range(512):
        for descriptor in (1, 2):
            os.write(descriptor, b"\xff" * (1 << 20))


@attack(told=False, ends=("ValueError", "ResultNotSerializable"), tame="it hurts itself")
def closes_its_output(at):
    """Closes its streams and their descriptors, and prints."""
    for descriptor in (0, 1, 2, 3):
        attempt(os.close, descriptor)
    sys.stdout = sys.stderr = None
    attempt(print, "x")


@attack(slow=True, fails=True, ends=("MemoryError", "ResultNotSerializable", "ResultTooLarge", "ValueError"))
def gives_a_giant(at):
    """Gives more than an answer may hold."""
    return "\x00" * (48 << 20)


@attack(fails=True, told=False, ends=REFUSED)
def gives_what_is_too_deep(at):
    """Gives lists in lists, and one that holds itself."""
    deep = []
    for _ in range(100000):
        deep = [deep]
    return deep


@attack(told=False, ends=("ResultNotSerializable", "ResultTooLarge"), tame="what is slow is to read it many times")
def gives_many_long_numbers(at):
    """Gives numbers that are just short enough, and many of them: who reads them has no time for anybody else."""
    return [10**3998 + n for n in range(1000)]


@attack(slow=True, fails=True, told=False, ends=("ResultNotSerializable", "ResultTooLarge"))
def gives_a_number_of_a_million_digits(at):
    """Gives a number that takes minutes to write or to read."""
    getattr(sys, "set_int_max_str_digits", int)(0)
    return 10 ** 300000


@attack(slow=True, told=False, ends=("RecursionError", "Crashed", "MemoryError"), fails=True)
def calls_itself(at):
    """Calls itself for ever, with the limit of that taken away."""
    sys.setrecursionlimit(1 << 30)

    def again():
        return again()

    return again()


def bomb(name, tries, code, **more):
    text("compiles_" + name, tries, code, told=False, **more)


DEEP = {"ends": REFUSED, "tame": "the compiler itself gives up"}

bomb("parentheses", "Nests parentheses.", "x = " + "(" * 20000 + ")" * 20000, **DEEP)
bomb("brackets", "Nests lists below what the reader refuses.", "x = " + "[" * 190 + "]" * 190, **DEEP)
bomb("signs", "Puts signs before signs.", "x = " + "-" * 300000 + "1", **DEEP)
bomb("powers", "Has the compiler fold a power of a power.", "x = lambda: 9**9**9**9", **DEEP)
bomb("shifts", "Has the compiler fold what is large.", "x = lambda: ((1 << 100000) << 100000) * 'x' * 10**9", **DEEP)
bomb("attributes", "Takes attributes of attributes.", "x = lambda: a" + ".a" * 20000, **DEEP)
bomb("calls", "Calls what was called.", "x = lambda: a" + "()" * 20000, **DEEP)
bomb("lambdas", "Nests functions.", "x = " + "lambda: " * 5000 + "1", **DEEP)
bomb("sums", "Adds up a long sum.", "x = lambda: " + "a + " * 20000 + "a", **DEEP)
bomb("comparisons", "Compares a chain.", "x = lambda: " + "a < " * 10000 + "a", **DEEP)
bomb("indents", "Indents line by line.", "".join(" " * n + "if 1:\n" for n in range(1500)), **DEEP)
bomb("else_ifs", "Goes on with elif.", "if 0: pass\n" + "elif 0: pass\n" * 20000, **DEEP)
bomb("a_long_number", "Writes a number of a million digits.", "x = " + "9" * 1000000, **DEEP)
bomb("formats", "Nests formatted texts.", "x = " + "f'{" * 150 + "1" + "}'" * 150, **DEEP)
bomb("many_names", "Makes thousands of functions.", "def f(): pass\n" * 3000, **DEEP)
bomb("zeros", "Holds zero bytes and a byte order mark.", "\ufeffx = 1\x00\nimport os", **DEEP)
bomb("an_encoding", "Declares an encoding of its own.",
     "# -*- coding: unicode_escape -*-\nx = 1 \\u000aopen('/etc/passwd')", **DEEP)
