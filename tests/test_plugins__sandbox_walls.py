"""The walls on this machine's own kernel: as whoever runs the tests and as an ordinary user, and with layers left out.

Each setup is brought up once, in a process as the product starts it, and a program tries everything in one confined
child of it; the tests look at what came of each try.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from plugins._sandbox import directory, kernel, library, steps
from plugins._sandbox import filter as filters
from plugins._sandbox.plan import LAYERS, Plan

pytestmark = pytest.mark.outermost

if not sys.platform.startswith("linux"):
    pytest.skip("the walls are Linux's", allow_module_level=True)

HERE = Path(library.__file__).parent
STRANGER = 64_999  # a user id that nobody has
SYSTEM_PYTHON = "/usr/bin/python3"  # which everybody can reach

#: what the process does: it says what it found, then what each child printed
DRIVER = """
import json, os, sys
told = json.loads(sys.argv[1])
sys.path.insert(0, told["folder"])
from _sandbox import filter as filters, kernel, landlock, plan as plans, walls
del sys.path[0]
for name in told["preload"]:
    try:
        __import__(name)
    except ImportError:
        pass
def out(document):
    os.write(1, json.dumps(document).encode() + b"\\n")
if told["lacking"]:
    kernel.install_filter(bytes.fromhex(told["lacking"]))
wanted = plans.Plan(layers=tuple(told["layers"]), nofs=told["nofs"], folder=told["runs"])
plan, layers = walls.ready(wanted._replace(limits=wanted.limits._replace(**told["limits"])))
out({"layers": layers, "held": plan.layers, "level": plans.level(plan.layers), "preload": plan.preload,
     "nofs": plan.nofs})
init = walls.enter(plan)
for slot in range(told["times"]):
    directory = walls.private_directory(plan, slot)
    neighbour = walls.private_directory(plan, 1000 + slot)
    told["neighbour"] = neighbour or told["runs"]
    pid = os.fork()
    if pid == 0:
        try:
            walls.close_others(3)
            home = walls.confine(plan, slot, directory)
            exec(told["program"], {"told": told, "home": home, "out": out, "kernel": kernel, "number": filters.number})
        except BaseException as error:
            import traceback
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    out({"status": status, "left": directory and sorted(os.listdir(directory)),
         "used": directory and walls.used(directory, 1 << 30)})
    if directory:
        walls.remove(directory)
        walls.remove(neighbour)
if init:
    os.kill(init, 9)
    os.waitpid(init, 0)
"""

#: a program that tries things, given as `tries`, and says of each how it ended
TRIES = """
import os, sys, socket, subprocess, fcntl, ctypes, resource, signal, time, threading, mmap, errno
secret, machine = told["secret"], os.uname().machine
call, buffer = kernel.call, ctypes.create_string_buffer(4096)
def raw(name, *arguments):
    return call(name, *arguments)
ended = {}
for name, code in told["tries"].items():
    try:
        exec(code, globals())
        ended[name] = ""
    except BaseException as error:
        ended[name] = f"{type(error).__name__}: {error}"
out(ended)
"""

#: what may not go through at any level; each raises when it is refused
ATTACKS = {
    "fork": "os.fork() or os._exit(0)",
    "exec": "os.execv('/bin/true', ['true'])",
    "subprocess": "subprocess.run(['/bin/true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "a process that shares memory": "raw('clone', 0x111, 0, 0, 0, 0) or os._exit(0)",
    "clone3": "raw('clone3', buffer, 64)",
    "tcp": "socket.socket()",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "ipv6": "socket.socket(socket.AF_INET6)",
    "unix": "socket.socket(socket.AF_UNIX)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock": "socket.socket(40, socket.SOCK_STREAM)",
    "a pair of datagrams": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "descriptors through a socket": "socket.socketpair()[0].sendmsg([b'x'], [(1, 1, b'\\0\\0\\0\\0')])",
    "a signal to the parent": "os.kill(os.getppid(), 0)",
    "a signal to all": "os.kill(-1, 0)",
    "a signal to the proxy": "os.kill(told['pid'], 0)",
    "a signal to a thread of the proxy": "raw('tkill', told['pid'], 0)",
    "a signal by descriptor": "fcntl.fcntl(1, 8, told['pid'])",
    "a signal by an ioctl": "fcntl.ioctl(1, 0x8901, told['pid'].to_bytes(4, 'little'))",
    "to read a file": "open(secret).read()",
    "to write a file": "open(secret, 'a').write('x')",
    "to remove a file": "os.unlink(secret)",
    "to change its mode": "os.chmod(secret, 0o777)",
    "to change its times": "os.utime(secret)",
    "to cut it": "os.truncate(secret, 0)",
    "to change its owner": "os.chown(secret, os.getuid(), os.getgid())",
    "to name it otherwise": "os.link(secret, 'mine'); open('mine').read()",
    "to follow a link to it": "os.symlink(secret, 'there'); open('there').read()",
    "to move it": "os.rename(secret, secret + '2')",
    "to write beside it": "open(secret + '3', 'w').write('x')",
    "to look at a neighbour's files": "os.listdir(told['neighbour'])",
    "to write among a neighbour's": "open(told['neighbour'] + '/x', 'w')",
    "to remove a neighbour's": "os.rmdir(told['neighbour'])",
    "to see all neighbours": "os.listdir(told['runs'])",
    "to list its folder": "os.listdir(os.path.dirname(secret))",
    "to write into the library": "open(os.path.join(os.path.dirname(os.__file__), 'mine.py'), 'w')",
    "to change the library's mode": "os.chmod(os.__file__, 0o666)",
    "to change the library's times": "os.utime(os.__file__)",
    "to read the accounts": "open('/etc/passwd').read()",
    "its environment": "open('/proc/self/environ', 'rb').read()",
    "the proxy's environment": "open(f\"/proc/{told['pid']}/environ\", 'rb').read()",
    "the proxy's command line": "open(f\"/proc/{told['pid']}/cmdline\", 'rb').read()",
    "the proxy's memory": "open(f\"/proc/{told['pid']}/mem\", 'rb')",
    "where the proxy stands": "os.readlink(f\"/proc/{told['pid']}/cwd\")",
    "where the parent stands": "os.readlink(f'/proc/{os.getppid()}/cwd')",
    "the parent's environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "the parent's descriptors": "os.readlink(f'/proc/{os.getppid()}/fd/0')",
    "to signal the parent's thread": "raw('tgkill', os.getppid(), os.getppid(), 0)",
    "the list of processes": "os.listdir('/proc')",
    "to read memory": "raw('process_vm_readv', told['pid'], buffer, 1, buffer, 1, 0)",
    "to trace": "raw('ptrace', 16, told['pid'], 0, 0)",
    "to hold a process": "raw('pidfd_open', told['pid'], 0)",
    "memory that no limit counts": "raw('memfd_create', b'x', 0)",
    "shared memory": "raw('shmget', 0, 4096, 0o1600)",
    "more memory": "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "more files": "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))",
    "priority": "os.setpriority(os.PRIO_PROCESS, 0, -5)",
    "another user": "os.setuid(0)",
    "another group": "os.setgroups([0])",
    "a user namespace": "kernel.unshare(0x10000000)",
    "a mount": "kernel.mount('tmpfs', '/', 'tmpfs', 0)",
    "a new root": "os.chroot('/')",
    "capabilities": "raw('capset', buffer, buffer)",
    "a key": "raw('keyctl', 0, -3 & 0xffffffff, 0)",
    "bpf": "raw('bpf', 0, buffer, 64)",
    "perf": "raw('perf_event_open', buffer, 0, -1, -1, 0)",
    "io_uring": "raw('io_uring_setup', 4, buffer)",
    "userfaultfd": "raw('userfaultfd', 1)",
    "watching files": "raw('inotify_init1', 0)",
    "a handle of a file": "raw('name_to_handle_at', -100, b'/', buffer, buffer, 0)",
    "openat2": "raw('openat2', -100, b'/', buffer, 24)",
    "another filter": "kernel.install_filter(b'\\x06\\0\\0\\0\\0\\0\\xff\\x7f')",
    "to be traced": "kernel.prctl(4, 1)",
    "to outlive its parent": "kernel.prctl(1, 0)",
    "affinity of the proxy": "os.sched_setaffinity(told['pid'], {0})",
    "to look for the proxy": "os.getpgid(told['pid'])",
    "room past the end of a file": "raw('fallocate', os.open('sparse', os.O_RDWR | os.O_CREAT), 1, 0, 1 << 20)",
    "a device": "os.mknod('device', 0o20600, os.makedev(1, 3)); open('device', 'rb').read(1)",
    "a file larger than allowed": "f = open('large', 'wb'); f.write(bytes(told['limits']['file_size'] + 1)); f.flush()",
    "memory": "bytearray(told['limits']['memory'])",
    "memory of its own making": "mmap.mmap(-1, told['limits']['memory'])",
    "many descriptors": "[os.dup(1) for _ in range(65)]",
    "locked pages": "raw('mlock', buffer, 4096)" if "mlock" in filters.NUMBERS else "raise OSError",
}
#: what goes through where a private root is missing, and is told so
TOLD = {"metadata": "os.stat(secret)", "metadata by descriptor": "os.fstat(os.open(secret, os.O_PATH))"}
METADATA = {**TOLD, "metadata by an empty path": "raw('newfstatat', -100, os.fsencode(secret), buffer, 0x1000)"}

#: what has to go on working
WORK = {
    "threads": "found = []; ts = [threading.Thread(target=found.append, args=(i,)) for i in range(8)];"
    "[t.start() for t in ts]; [t.join() for t in ts]; assert sorted(found) == list(range(8))",
    "a pool": "import concurrent.futures as f; assert list(f.ThreadPoolExecutor(3).map(abs, [-1, 2])) == [1, 2]",
    "asyncio": "import asyncio\nasync def two():\n await asyncio.sleep(0.001); return 2\n"
    "async def four():\n return sum(await asyncio.gather(two(), two())) + await asyncio.to_thread(int)\n"
    "assert asyncio.run(four()) == 4",
    "streams between two ends": "import asyncio\nasync def talk():\n a, b = socket.socketpair()\n"
    " r, x = await asyncio.open_connection(sock=a); y, w = await asyncio.open_connection(sock=b)\n"
    " w.write(b'hello\\n'); line = await r.readline(); w.close(); return line\n"
    "assert asyncio.run(talk()) == b'hello\\n'",
    "no subprocess, said plainly": "try:\n subprocess.run([sys.executable])\nexcept PermissionError:\n pass\n"
    "else:\n raise AssertionError",
    "no subprocess from asyncio either": "import asyncio\nasync def go():\n"
    " await asyncio.create_subprocess_exec('true')\ntry:\n asyncio.run(go())\nexcept PermissionError:\n pass\n"
    "else:\n raise AssertionError",
    "no socket, said plainly": "try:\n socket.create_connection(('127.0.0.1', 9), 1)\nexcept PermissionError:\n pass\n"
    "else:\n raise AssertionError",
    "a database in memory": "import sqlite3; c = sqlite3.connect(':memory:'); c.execute('create table t (a)')",
    "signals to itself": "seen = []; signal.signal(signal.SIGUSR1, lambda *_: seen.append(1));"
    "os.kill(os.getpid(), signal.SIGUSR1); assert seen",
    "alarms": "seen = []; signal.signal(signal.SIGALRM, lambda *_: seen.append(1));"
    "signal.setitimer(signal.ITIMER_REAL, 0.001); time.sleep(0.02); assert seen",
    "raising a signal": "seen = []; signal.signal(signal.SIGUSR2, lambda *_: seen.append(1));"
    "signal.raise_signal(signal.SIGUSR2); assert seen",
    "time": "import datetime; time.sleep(0.001); time.monotonic(); time.strftime('%c'); datetime.datetime.now()",
    "chance": "import random, secrets, uuid; random.random(); secrets.token_hex(); uuid.uuid4(); os.urandom(8)",
    "numbers": "import decimal, fractions, statistics; assert decimal.Decimal('0.1') * 3 == decimal.Decimal('0.3')",
    "hashes": "import hashlib; assert hashlib.sha256(b'').hexdigest()[:4] == 'e3b0'; hashlib.scrypt",
    "compression": "import zlib, bz2, lzma; assert lzma.decompress(lzma.compress(b'x')) == b'x'",
    "text": "import re, unicodedata, json, csv, string; assert unicodedata.name('a'); 'x'.encode('idna')",
    "a descriptor as a file": "f = os.fdopen(os.dup(2), 'w'); print(end='', file=f, flush=True)",
    "foreign functions": "assert ctypes.CDLL(None).getpid() == os.getpid()",
    "anonymous memory": "m = mmap.mmap(-1, 4096); m[0] = 1",
    "limits can be read": "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)",
    "pipes": "import select; r, w = os.pipe(); os.write(w, b'x'); assert select.select([r], [], [], 1)[0] == [r]",
    "the machine": "import platform; platform.platform(); os.cpu_count(); os.sched_getaffinity(0); os.nice(1)",
    "multiprocessing can be imported": "import multiprocessing, multiprocessing.pool",
    "tls can be imported": "import ssl; ssl.create_default_context()",
    "threads that end by force": "import _thread; _thread.start_new_thread(_thread.exit, ()); time.sleep(0.01)",
    "threads that the C library ends": "import _thread; leave = ctypes.CDLL(None).pthread_exit;"
    "_thread.start_new_thread(leave, (None,)); time.sleep(0.02)",
    "a module that is not there": "try:\n import nowhere\nexcept ModuleNotFoundError:\n pass",
    "an account that is not there": "os.path.expanduser('~'); import getpass",
}
FILES = {
    "a file": "open('a', 'w').write('b'); assert open('a').read() == 'b'; os.unlink('a')",
    "it stands in its own directory": "assert os.getcwd() == home and os.access(home, os.W_OK)",
    "no other may look into it": "assert os.stat(home).st_mode & 0o077 == 0",
    "/dev/null": "open('/dev/null', 'w').write('x')",
    "folders": "os.makedirs('x/y/z'); os.rename('x/y', 'q'); os.rmdir('q/z'); os.symlink('q', 'w'); os.unlink('w')",
    "temporary files": "import tempfile; tempfile.tempdir = home\nwith tempfile.TemporaryDirectory() as d:\n"
    " open(d + '/x', 'w').close()\nwith tempfile.TemporaryFile() as t:\n t.write(b'x')\ntempfile.NamedTemporaryFile()",
    "a database": "import sqlite3; c = sqlite3.connect('db'); c.execute('create table t (a)');"
    "c.execute('insert into t values (1)'); c.commit(); c.execute('pragma journal_mode=wal'); c.close()",
    "archives": "import zipfile; z = zipfile.ZipFile('z.zip', 'w'); z.writestr('a', 'b'); z.close();"
    "zipfile.ZipFile('z.zip').extractall('out')",
    "copies of contents": "import shutil; open('c', 'w').write('d'); shutil.copyfile('c', 'e'); shutil.rmtree('out')",
    "locks": "f = open('l', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); fcntl.flock(f, fcntl.LOCK_EX)",
    "time zones": "import zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin')",
    "a module for the first time": "import turtledemo" if False else "import xml.dom.minidom, colorsys, this",
    "the source of the library": "import inspect, json; assert inspect.getsource(json.dumps)",
}
CHANGES = {
    "copies": "import shutil; open('m', 'w').write('d'); shutil.copy2('m', 'n')",
    "modes": "open('o', 'w').close(); os.chmod('o', 0o400); os.utime('o'); os.truncate('m', 0)",
}
PRELOAD = (
    "os sys socket subprocess fcntl ctypes resource signal time threading mmap errno concurrent.futures.thread asyncio "
    "sqlite3 datetime random secrets uuid decimal fractions statistics hashlib zlib bz2 lzma re unicodedata json csv "
    "string select platform multiprocessing.pool ssl tempfile zipfile shutil encodings.idna getpass traceback inspect "
    "zoneinfo locale _strptime encodings.cp437"
)

#: the layers left out, and whether files are
SETUPS = {
    "all layers": ((), False),
    "no landlock": (("landlock",), False),
    "no namespaces": (("namespaces",), False),
    "neither": (("namespaces", "landlock"), False),
    "no files": ((), True),
    "no files, no namespaces": (("namespaces",), True),
}
LEVELS = {"all layers": "A", "no landlock": "A", "no namespaces": "B", "neither": "C", "no files": "A"}
LEVELS["no files, no namespaces"] = "B"
LIMITS = {"memory": 384 << 20, "file_size": 1 << 20, "disk": 8 << 20}
USERS = ("me", "a stranger")
every_user = pytest.mark.parametrize("user", USERS)
every_setup = pytest.mark.parametrize("setup", SETUPS)


@functools.lru_cache(maxsize=1)
def folder():
    """Give a place that everybody can read, with the package and a secret in it."""
    place = Path(tempfile.mkdtemp(prefix="walls-"))
    shutil.copytree(HERE, place / "_sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "secret").write_text("secret")
    for path in [place, *place.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (place / "runs").mkdir()
    (place / "runs").chmod(0o1777)
    return place


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    yield
    assert os.listdir(folder() / "runs") == []
    assert (folder() / "secret").read_text() == "secret"
    shutil.rmtree(folder())


def driven(user, layers, program, nofs=False, tries=None, times=1, lacking=b"", **limits):
    """Bring walls up, and run a program within; give all that was said."""
    told = {
        "folder": str(folder()),
        "runs": str(folder() / "runs"),
        "secret": str(folder() / "secret"),
        "layers": layers,
        "nofs": nofs,
        "preload": PRELOAD.split(),
        "limits": {**LIMITS, **limits},
        "program": program,
        "tries": tries,
        "times": times,
        "pid": os.getpid(),
        "lacking": lacking.hex(),
    }
    command, identity = [sys.executable], {} if os.getuid() else {"extra_groups": [STRANGER]}
    if user == "a stranger":
        if os.getuid():
            pytest.skip("not started as root: there is no other user to be")
        if not os.path.exists(SYSTEM_PYTHON):
            pytest.skip(f"no {SYSTEM_PYTHON} that an ordinary user could reach")
        command, identity = [SYSTEM_PYTHON], {"user": STRANGER, "group": STRANGER, "extra_groups": []}
    done = subprocess.run(
        [*command, "-I", "-S", "-B", "-X", "utf8", "-c", DRIVER, json.dumps(told)],
        capture_output=True,
        cwd="/",
        env={"MALLOC_ARENA_MAX": "1"},
        timeout=60,
        start_new_session=True,
        check=False,
        **identity,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@functools.cache
def tried(user, setup):
    without, nofs = SETUPS[setup]
    tries = {**WORK, **FILES, **CHANGES, **METADATA, **ATTACKS}
    layers = [layer for layer in LAYERS if layer not in without]
    (found, *said), errors = driven(user, layers, TRIES, nofs=nofs, tries=tries)
    why = {layer: found["layers"][layer] for layer in layers if found["layers"][layer] and layer != "identity"}
    if why:
        pytest.skip(f"not to be had here: {why}")
    assert len(said) == 2, errors
    return found, said[0], said[1]


def through(ended, attacks):
    """Give which attacks went through."""
    return [name for name in attacks if not ended[name]]


def failed(ended, work):
    return {name: ended[name] for name in work if ended[name]}


@every_user
@every_setup
def test_the_level_is_the_one_that_the_layers_give(user, setup):
    found, _, _ = tried(user, setup)
    assert found["level"] == LEVELS[setup]
    assert found["nofs"] == (SETUPS[setup][1] or setup == "neither")


@every_user
@every_setup
def test_nothing_gets_through(user, setup):
    _, ended, _ = tried(user, setup)
    assert through(ended, ATTACKS) == []


@every_user
@every_setup
def test_what_is_told_of_a_file_is_seen_at_the_level_that_says_so_and_at_no_other(user, setup):
    found, ended, _ = tried(user, setup)
    seen = set(through(ended, METADATA))
    assert seen == (set(METADATA) if found["level"] == "B" and not found["nofs"] else set())


@every_user
@every_setup
def test_python_goes_on_working(user, setup):
    _, ended, _ = tried(user, setup)
    assert failed(ended, WORK) == {}


@every_user
@pytest.mark.parametrize("setup", ["all layers", "no landlock", "no namespaces"])
def test_files_of_its_own_work(user, setup):
    found, ended, _ = tried(user, setup)
    unreachable = ("a module for the first time", "the source of the library") if found["preload"] else ()
    assert failed(ended, [name for name in FILES if name not in unreachable]) == {}


@every_user
@pytest.mark.parametrize("setup", ["all layers", "no landlock"])
def test_in_its_own_root_it_may_change_modes_and_times(user, setup):
    _, ended, _ = tried(user, setup)
    assert failed(ended, CHANGES) == {}


@every_user
@every_setup
def test_the_run_ends_as_it_wants_to(user, setup):
    _, _, end = tried(user, setup)
    assert end["status"] == 0


def test_root_gives_runs_a_user_of_their_own_and_knows_whether_that_one_can_read_the_library():
    found, _, _ = tried("me", "no namespaces")
    if os.getuid():
        pytest.skip("not started as root: there is no other user id to be had")
    homes = [Path(folder) for folder in library.folders()]
    closed = any(not parent.stat().st_mode & 0o001 for home in homes for parent in [home, *home.parents])
    assert found["preload"] == closed


COUNT = """
import os
out({"uid": os.getuid(), "pid": os.getpid(), "files": os.listdir("."), "groups": os.getgroups(),
     "host": os.uname().nodename, "nice": os.nice(0), "mask": os.umask(0), "fds": [n for n in range(256) if is_open(n)],
     "root": os.listdir("/") if told["layers"] else []})
open("left", "w").write("x" * 9000)
"""
COUNT = "def is_open(n):\n try:\n  os.fstat(n)\n except OSError:\n  return False\n return True\nimport os\n" + COUNT


@every_user
def test_one_run_finds_nothing_of_another(user):
    (_, *said), errors = driven(user, list(LAYERS), COUNT, times=3)
    runs = said[::2]
    assert len(runs) == 3, errors
    assert [run["files"] for run in runs] == [[], [], []]
    assert [run["groups"] for run in runs] == [[], [], []] or user == "a stranger"
    assert {run["host"] for run in runs} == {"localhost"}
    assert {run["nice"] for run in runs} == {10}
    assert {run["mask"] for run in runs} == {0o077}
    assert all(run["fds"] == [0, 1, 2] for run in runs)
    assert all(run["pid"] < 20 for run in runs)
    assert all("proc" not in run["root"] and "home" not in run["root"] for run in runs)
    if user == "me" and not os.getuid():
        assert len({run["uid"] for run in runs}) == 3
        assert min(run["uid"] for run in runs) > 65_536


@every_user
def test_without_a_private_root_a_directory_is_made_and_removed_again(user):
    layers = [one for one in LAYERS if one != "namespaces"]
    (_, *said), errors = driven(user, layers, COUNT.replace('os.listdir("/")', "0"), times=2)
    assert [run["files"] for run in said[::2]] == [[], []], errors
    assert [end["left"] for end in said[1::2]] == [["left"], ["left"]]
    assert all(end["used"] >= 9000 for end in said[1::2])


THREADS = """
import threading, time
threading.stack_size(65536)
n = 0
stop = threading.Event()
try:
    while n < 400:
        threading.Thread(target=stop.wait, daemon=True).start()
        n += 1
except RuntimeError:
    pass
out({"threads": n})
"""


@every_user
@pytest.mark.parametrize("without", [(), ("namespaces",), ("landlock",)])
def test_threads_are_counted_by_run(user, without):
    layers = [layer for layer in LAYERS if layer not in without]
    (_, *said), errors = driven(user, layers, THREADS, times=3, processes=20)
    counts = [said[0]["threads"], said[2]["threads"], said[4]["threads"]]
    if user == "me" or not without or without == ("landlock",):
        assert counts == [19] * 3, errors
    else:  # a user's threads are counted together: the bound is a loose one
        assert all(19 <= count < 100 for count in counts)


def test_root_without_another_user_id_cannot_bound_threads_and_says_so():
    if os.getuid():
        pytest.skip("not started as root")
    (found, *_), _ = driven("me", [one for one in LAYERS if one != "identity"], "", times=0)
    assert "does not count the threads" in found["layers"]["limits"]
    assert found["level"] == ""


def test_another_user_id_is_not_for_everybody():
    (found, *_), _ = driven("a stranger", list(LAYERS), "", times=0)
    assert "only root" in found["layers"]["identity"]


@pytest.mark.parametrize("missing", ["seccomp", "limits", "privileges"])
def test_a_plan_that_lacks_what_is_needed_is_of_no_level(missing):
    (found, *_), _ = driven("me", [one for one in LAYERS if one != missing], "", times=0)
    assert (found["layers"][missing], found["level"]) == ("not wanted", "")


FILL = """
import os
written = 0
try:
    for n in range(200):
        with open(f"f{n}", "wb", 0) as file:
            while True:
                written += file.write(b"x" * 65536)
except OSError as error:
    pass
for n in range(1, 200):
    try:
        with open(f"f{n}", "wb", 0) as file:
            while True:
                written += file.write(b"x" * 65536)
    except OSError as error:
        if error.errno == 28:
            break
inodes = 0
try:
    while inodes < 5000:
        os.mkdir(f"d{inodes}")
        inodes += 1
except OSError:
    pass
out({"written": written, "inodes": inodes})
"""


@every_user
def test_the_disk_is_bounded_by_the_mount(user):
    (_, said, _), errors = driven(user, list(LAYERS), FILL)
    assert said["written"] <= LIMITS["disk"], errors
    assert said["inodes"] < 1024


def test_code_for_another_architecture_kills():
    if os.uname().machine != "x86_64":
        pytest.skip("this machine has no other architecture inside")
    code = """
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=7)
memory.write(bytes.fromhex("b814000000cd80c3"))  # getpid by the gate for 32-bit code
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
out({"got": "through"})
"""
    (_, *said), _ = driven("me", list(LAYERS), code)
    assert [line["status"] & 0x7F for line in said] == [31]


def test_processor_time_is_bounded():
    (_, *said), _ = driven("me", list(LAYERS), "while True: pass", cpu=1)
    assert [line["status"] & 0x7F for line in said] == [9]


@pytest.mark.parametrize("without", [(), ("namespaces",)])
def test_all_that_runs_ends_with_its_parent_and_nothing_else_holds_its_descriptors(without):
    code = "import os, time; out({'held': 1}); time.sleep(60)"
    driver = DRIVER.replace("for slot in range", "out({'first': init, 'me': os.getpid()})\nfor slot in range")
    layers = [layer for layer in LAYERS if layer not in without]
    told = {"folder": str(folder()), "runs": str(folder() / "runs"), "layers": layers, "nofs": False, "preload": []}
    told.update(limits=LIMITS, program=code, times=1, lacking="")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", driver, json.dumps(told)], stdout=subprocess.PIPE, cwd="/"
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = json.loads(process.stdout.readline())["first"]
        assert json.loads(process.stdout.readline()) == {"held": 1}
        until = time.monotonic() + 5
        while first and os.listdir(f"/proc/{first}/fd") and time.monotonic() < until:
            time.sleep(0.01)
        assert first is None or os.listdir(f"/proc/{first}/fd") == []
        process.kill()
        killed = time.monotonic()
        assert process.stdout.read() == b""  # which ends when the last one that holds the pipe is gone
        assert time.monotonic() - killed < 30
    until = time.monotonic() + 5
    while first and os.path.exists(f"/proc/{first}/fd") and time.monotonic() < until:
        time.sleep(0.01)
    assert not (first and os.path.exists(f"/proc/{first}"))
    for made in (folder() / "runs").iterdir():
        directory.remove(str(made))  # as whoever starts the parent has to


# kernels that lack something


def kernel_without(**calls):
    """Give a filter that makes calls fail, as a kernel or a container would."""
    code = [(0x20, 0, 0, 0)]
    for name, refusal in calls.items():
        code += [(0x15, 0, 1, filters.number(os.uname().machine, name)), (6, 0, 0, refusal)]
    return b"".join(struct.pack("=HBBI", *one) for one in [*code, (6, 0, 0, filters.ALLOW)])


PLAIN = "out({'home': home}); open('/etc/passwd')"
LACKING = {
    "close_range": ({"close_range": filters.ABSENT}, "A", "", ""),
    "the newer way to a filter": ({"seccomp": filters.ABSENT}, "A", "", ""),
    "namespaces": ({"unshare": filters.FORBIDDEN}, "B", "namespaces", "lets this user have no namespaces"),
    "mounts": ({"mount": filters.DENIED}, "B", "namespaces", "lets this user have no namespaces"),
    "Landlock": ({"landlock_create_ruleset": filters.ABSENT}, "A", "landlock", "no Landlock, or it is switched off"),
    "both": (
        {"unshare": filters.FORBIDDEN, "landlock_create_ruleset": filters.UNSUPPORTED},
        "C",
        "landlock",
        "no Landlock, or it is switched off",
    ),
    "user ids": ({"setresuid": filters.FORBIDDEN}, "", "identity", "Operation not permitted"),
}


@pytest.mark.parametrize("lack", LACKING)
def test_what_a_kernel_lacks_is_said_and_the_rest_still_holds(lack):
    if os.getuid():
        pytest.skip("not started as root: a filter cannot be had before privileges are given up")
    calls, level, layer, words = LACKING[lack]
    (found, *said), errors = driven("me", list(LAYERS), PLAIN, times=bool(level), lacking=kernel_without(**calls))
    assert found["level"] == level
    assert not layer or words in found["layers"][layer]
    if level:
        assert bool(said[0]["home"]) == (level != "C")
        assert "Error" in errors
        assert "passwd" in errors


def test_a_library_that_lies_where_private_files_go_is_not_covered_by_them():
    assert steps.home_of(Plan(library=("/usr/lib/python3",))) == "/tmp"
    assert steps.home_of(Plan(library=("/usr/lib/python3", "/tmp/python/lib"))) == "/var/tmp"


# what is done outside


def test_a_directory_is_for_its_owner_alone_and_has_a_name_nobody_guesses(tmp_path):
    one, other = (directory.make(str(tmp_path), None) for _ in range(2))
    assert one != other
    assert os.stat(one).st_mode & 0o7777 == 0o700
    directory.remove(one)
    directory.remove(other)
    assert os.listdir(tmp_path) == []


def test_a_directory_is_removed_whatever_was_made_in_it(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    made = Path(directory.make(str(tmp_path), None))
    (made / "link").symlink_to(outside)
    (made / "broken").symlink_to("nowhere")
    os.mkfifo(made / "fifo")
    (made / "closed").mkdir()
    (made / "closed" / "inside").mkdir()
    (made / "closed" / "inside" / "file").write_text("x")
    (made / "closed" / "inside" / "link").symlink_to(outside)
    (made / "closed" / "inside").chmod(0)
    (made / "closed").chmod(0)
    made.chmod(0)
    directory.remove(str(made))
    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o755


def test_an_ordinary_user_can_remove_what_was_closed():
    if os.getuid():
        pytest.skip("not started as root: the test above was this")

    def removed():
        os.setgid(STRANGER)
        os.setuid(STRANGER)
        made = Path(directory.make(str(folder() / "runs"), None))
        (made / "closed" / "inside").mkdir(parents=True)
        (made / "closed" / "inside" / "file").touch()
        for path in (made / "closed" / "inside", made / "closed", made):
            path.chmod(0)
        directory.remove(str(made))
        return str(made.exists()).encode()

    assert kernel.in_child(removed) == b"False"


def test_a_directory_is_removed_however_deep_it_is(tmp_path):
    made = directory.make(str(tmp_path), None)
    before = os.getcwd()
    try:
        os.chdir(made)
        for _ in range(700):
            os.mkdir("d" * 20)
            os.chdir("d" * 20)
    finally:
        os.chdir(before)
    assert directory.used(made, 1 << 30) > 1 << 30  # it cannot be looked at: as good as full
    directory.remove(made)
    assert os.listdir(tmp_path) == []


def test_what_a_directory_takes_is_counted_without_following_links(tmp_path):
    made = Path(directory.make(str(tmp_path), None))
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    (made / "link").symlink_to(tmp_path / "large")
    (made / "folder").mkdir()
    (made / "folder" / "file").write_bytes(bytes(100_000))
    assert 100_000 <= directory.used(str(made), 1 << 30) < 200_000
    assert directory.used(str(made), 5000) > 5000
    directory.remove(str(made))


def test_the_library_is_listed_without_what_was_installed_beside_it():
    entries = [entry for path in library.folders() for entry in library.entries(path)]
    names = {os.path.basename(entry) for entry in entries}
    assert {"json", "os.py"} <= names
    assert names.isdisjoint(library.HIDDEN)
    assert all(os.path.realpath(entry).startswith(os.path.realpath(library.folders()[0])) for entry in entries)


def test_the_paths_to_be_readable_are_all_there_and_none_is_a_whole_system():
    paths = library.paths()
    assert all(os.path.exists(path) for path in paths)
    assert any("libc" in os.path.basename(path) for path in paths)
    assert {"/dev/null", "/dev/urandom"} <= set(paths)
    assert not {"/", "/usr", "/usr/lib", "/lib", "/etc", "/dev", "/proc"} & set(paths)


def test_two_processes_that_give_user_ids_never_give_the_same(monkeypatch):
    plan = Plan()

    def ids(pid, *ranges):
        monkeypatch.setattr(steps, "facts", lambda: steps.Facts(pid, root=True, ids=ranges, mounts=True))
        return [steps.user_of(plan, slot) for slot in (0, 1, 1023)]

    everything = (0, (1 << 32) - 1)
    assert ids(5, everything) == [2_000_005_120, 2_000_005_121, 2_000_006_143]
    assert ids(6, everything)[0] > ids(5, everything)[-1]
    assert ids(139_999, everything)[-1] < 1 << 31
    few = ids(7, (0, 1000), (1000, 64_536))
    assert few[0] > 60_000
    assert few[-1] < 65_534
    assert steps.user_of(plan._replace(layers=("seccomp",)), 3) is None


LARGE = """
import os
file = os.open("large", os.O_WRONLY | os.O_CREAT)
size = 0
try:
    while True:
        size += os.write(file, bytes(1 << 16))
except OSError:
    out({"size": size})
"""


@every_user
def test_where_no_mount_bounds_the_disk_a_file_may_be_a_small_part_of_it(user):
    layers = [layer for layer in LAYERS if layer != "namespaces"]
    (_, said, _), _ = driven(user, layers, LARGE, file_size=1 << 30)
    assert said == {"size": LIMITS["disk"] // 8}


OWNED = """
import os
try:
    open(os.__file__, "a")
except OSError as error:
    out({"errno": error.errno})
"""


def test_whoever_owns_the_library_cannot_write_to_it_from_the_private_root():
    if os.stat(os.__file__).st_uid != os.getuid():
        pytest.skip("the library is somebody else's: permissions alone would refuse it")
    layers = [layer for layer in LAYERS if layer not in ("landlock", "identity")]
    (_, said, _), _ = driven("me", layers, OWNED)
    assert said == {"errno": errno.EROFS}
