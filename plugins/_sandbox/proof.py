"""The proof: a program that tries what no program may, run in the sandbox before anybody else's is.

This file is itself the program: it is sent as it stands, to call `attack` in there. So it imports nothing of ours, and
at the top only what every child has. Nothing it tries does harm where it succeeds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Tuple

if TYPE_CHECKING:
    from .plan import Limits
    from .program import Outcome

JSON = Dict[str, Any]
REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
PTRACE_SEIZE = 0x4206  # does not stop whom it attaches to
CLONE_NEWUSER = 0x10000000


class Target(NamedTuple):
    """What is there to be attacked, outside."""

    file: str  # all the world may read and write it
    folder: str
    port: int  # of a listener on 127.0.0.1
    name: str  # of an abstract Unix socket that listens
    pid: int  # the proxy
    memory: int  # bytes a program may have


# what is tried: each returns when it got through, and raises what Python has for a refusal when it did not


def read_a_file(target: Target) -> None:
    with open(target.file, "rb") as file:
        file.read(1)


def read_the_accounts(_: Target) -> None:
    with open("/etc/passwd", "rb") as file:
        file.read(1)


def write_to_a_file(target: Target) -> None:
    with open(target.file, "ab"):
        pass


def make_a_file(target: Target) -> None:
    made = os.path.join(target.folder, "made")
    os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(made)


def rename_a_file(target: Target) -> None:
    os.rename(target.file, target.file + ".moved")
    os.rename(target.file + ".moved", target.file)


def list_a_directory(target: Target) -> None:
    os.listdir(target.folder)


def see_a_file(target: Target) -> None:
    os.stat(target.file)


def change_the_mode_of_a_file(target: Target) -> None:
    os.chmod(target.file, 0o666)  # noqa: S103


def see_the_environment_of_the_proxy(target: Target) -> None:
    with open(f"/proc/{target.pid}/environ", "rb") as file:
        file.read(1)


def see_the_command_line_of_the_proxy(target: Target) -> None:
    with open(f"/proc/{target.pid}/cmdline", "rb") as file:
        file.read(1)


def see_the_processes(_: Target) -> None:
    os.listdir("/proc")


def trace_the_proxy(target: Target) -> None:
    called("ptrace", PTRACE_SEIZE, target.pid, 0, 0)


def read_the_memory_of_the_proxy(target: Target) -> None:
    here = ctypes.create_string_buffer(16)
    block = (ctypes.c_size_t * 2)(ctypes.addressof(here), 16)  # any address: what is told apart is the refusal
    called("process_vm_readv", target.pid, ctypes.byref(block), 1, ctypes.byref(block), 1, 0)


def signal_the_proxy(target: Target) -> None:
    os.kill(target.pid, 0)


def signal_everybody(_: Target) -> None:
    os.kill(-1, 0)


def connect_to_a_port(target: Target) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        sock.connect(("127.0.0.1", target.port))


def connect_to_a_unix_socket(target: Target) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect("\0" + target.name)


def open_a_datagram_socket(_: Target) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


def open_a_netlink_socket(_: Target) -> None:
    socket.socket(getattr(socket, "AF_NETLINK", 16), socket.SOCK_RAW).close()


def open_a_vsock_socket(_: Target) -> None:
    socket.socket(getattr(socket, "AF_VSOCK", 40), socket.SOCK_STREAM).close()


def pair_datagram_sockets(_: Target) -> None:
    for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
        sock.close()


def start_a_process(_: Target) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def become_another_program(_: Target) -> None:
    try:
        os.execve("/nothing", ["nothing"], {})  # noqa: S606  (a program that is not there tells who said no)
    except FileNotFoundError:
        return


def become_root(_: Target) -> None:
    called("setresuid", 0, 0, 0)


def make_a_user_namespace(_: Target) -> None:
    called("unshare", CLONE_NEWUSER)


def keep_a_file_in_memory(_: Target) -> None:
    os.close(os.memfd_create("proof"))


def take_too_much_memory(target: Target) -> None:
    mmap.mmap(-1, target.memory + (1 << 20)).close()


def raise_a_limit(_: Target) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 16, 1 << 16))


def find_a_descriptor(_: Target) -> None:
    """Look for one that nobody gave it: it has 0 to 4."""
    for fd in range(5, 256):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            return
    raise OSError(errno.EBADF, "none")


def called(name: str, *arguments: Any) -> None:
    """Call a function of libc; raises OSError when it was refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        if name != "process_vm_readv" or number in REFUSED or number == errno.ESRCH:
            raise OSError(number, os.strerror(number))


TRIED: Tuple[Callable[[Target], None], ...] = (
    read_a_file,
    read_the_accounts,
    write_to_a_file,
    make_a_file,
    rename_a_file,
    list_a_directory,
    see_a_file,
    change_the_mode_of_a_file,
    see_the_environment_of_the_proxy,
    see_the_command_line_of_the_proxy,
    see_the_processes,
    trace_the_proxy,
    read_the_memory_of_the_proxy,
    signal_the_proxy,
    signal_everybody,
    connect_to_a_port,
    connect_to_a_unix_socket,
    open_a_datagram_socket,
    open_a_netlink_socket,
    open_a_vsock_socket,
    pair_datagram_sockets,
    start_a_process,
    become_another_program,
    become_root,
    make_a_user_namespace,
    keep_a_file_in_memory,
    take_too_much_memory,
    raise_a_limit,
    find_a_descriptor,
)


def named(attempt: Callable[[Target], None]) -> str:
    return attempt.__name__.replace("_", " ")


def attack(**target: Any) -> List[str]:
    """Try it all; gives what got through."""
    through = []
    for attempt in TRIED:
        try:
            attempt(Target(**target))
        except (OSError, MemoryError, ValueError):
            continue
        through.append(named(attempt))
    return through


# outside

ENDLESS = "while True: pass"
NOT_KILLED = "go on for ever"
BRIEF = 0.1  # seconds it is given
#: what a level does not promise to keep out
EXCUSED: Mapping[str, Tuple[Callable[[Target], None], ...]] = {"B": (see_a_file,)}


def promised(level: str) -> Tuple[str, ...]:
    """Name what must not get through at a level."""
    return (*(named(one) for one in TRIED if one not in EXCUSED.get(level, ())), NOT_KILLED)


def request(code: str, target: JSON, function: str = "") -> bytes:
    return json.dumps({"code": code, "input": target, "function": function or None}).encode()


def attacked(tried: Callable[[bytes, Limits], Outcome], limits: Limits) -> Tuple[str, ...]:
    """Have the attack tried in a child, and one that does not end; gives what got through.

    Raises Unavailable when no program runs at all.
    """
    from .program import Unavailable

    own = Path(__file__).read_text("utf-8")
    with targets(limits.memory) as target:
        outcome = tried(request(own, target._asdict(), "attack"), limits._replace(timeout=max(limits.timeout, 10.0)))
    try:
        told = json.loads(outcome.result)
        through = tuple(map(str, told["result"])) if told["success"] else None
    except (ValueError, KeyError, TypeError):
        through = None
    if through is None:
        words = (outcome.result or outcome.stderr)[-500:].decode("utf-8", "replace")
        raise Unavailable(f"the trial program failed: {words or outcome.status}")
    endless = tried(request(ENDLESS, {}), limits._replace(timeout=BRIEF))
    killed = endless.stopped == "timeout" and endless.seconds < BRIEF * 10
    return through if killed else (*through, NOT_KILLED)


@contextlib.contextmanager
def targets(memory: int) -> Iterator[Target]:
    """Set up what is to be attacked."""
    name = f"llmproxy-{os.getpid()}-{os.urandom(8).hex()}"
    with tempfile.TemporaryDirectory(prefix="llmproxy-") as folder, contextlib.ExitStack() as stack:
        file = Path(folder, "file")
        file.write_bytes(b"llmproxy")
        file.chmod(0o666)
        Path(folder).chmod(0o777)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        unix.bind("\0" + name)
        unix.listen(1)
        yield Target(str(file), folder, tcp.getsockname()[1], name, os.getpid(), memory)
