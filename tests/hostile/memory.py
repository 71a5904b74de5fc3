"""Programs that look for secrets in what they were born with: environment, descriptors, memory, objects."""

# ruff: noqa: B023, SIM105 - no examples to follow: they behave badly on purpose

import os
import sys

from hostile.table import attack
from hostile.tools import attempt, ctypes, libc, read, secrets_in

# fmt: off


@attack()
def reads_its_environment(at):
    """Looks through the environment, Python's and the process's own."""
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    own = []
    while environ and environ[len(own)]:
        own.append(environ[len(own)])
    return secrets_in(repr(dict(os.environ)) + repr(own) + str(attempt(read, "/proc/self/environ")))


@attack()
def reads_its_command_line(at):
    """Looks at how it, and what it was born from, were started."""
    told = [attempt(read, f"/proc/{pid}/cmdline") for pid in ("self", at.pid, os.getppid())]
    return secrets_in(repr([sys.argv, getattr(sys, "orig_argv", ""), told]))


@attack()
def uses_inherited_descriptors(at):
    """Looks for descriptors that it should not have: a socket, a file, a directory, or any beyond its own five."""
    import stat

    odd = []
    for descriptor in range(1024):
        status = attempt(os.fstat, descriptor)
        kind = status and stat.S_IFMT(status.st_mode)
        if status and (descriptor > 4 or kind not in (stat.S_IFIFO, stat.S_IFCHR)):
            odd.append((descriptor, oct(status.st_mode), str(attempt(os.pread, descriptor, 10000, 0))))
    return odd


@attack(ends=("AttributeError",))
def climbs_from_inherited_descriptors(at):
    """Opens the config from every descriptor that is a directory, and talks on every one that is a socket."""
    import socket

    for descriptor in range(64):
        got = attempt(os.open, "../" * 40 + at.config.lstrip("/"), os.O_RDONLY, dir_fd=descriptor)
        if got is not None:
            return os.read(got, 10000).decode()
        if attempt(lambda: socket.socket(fileno=os.dup(descriptor)).getsockname()) is not None:
            return "a socket"
    return None


@attack()
def searches_its_memory(at):
    """Looks at every page around what it knows an address of: a pipe tells what can be read without a crash."""
    out, into = os.pipe()
    libc.write.restype = ctypes.c_ssize_t
    found = set()
    stack = ctypes.c_void_p.in_dll(libc, "environ").value or 0
    library = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    near = {id(at), id([]), id(sys), id("".join(["x"] * 5000)), id(bytes(1 << 18)), stack, library, library + (1 << 21)}
    ranges = sorted((address - (8 << 20) & ~4095, address + (8 << 20)) for address in near if address)
    end = 0
    for low, high in ranges:
        at_page = max(low, end)
        end = max(high, end)
        before = b""
        while at_page < end:
            done = libc.write(into, ctypes.c_void_p(at_page), 32768)
            if done <= 0:
                at_page, before = at_page + 4096, b""
                continue
            block = os.read(out, 65536)
            found.update(secrets_in(before + block))
            before, at_page = block[-32:], at_page + done
    return sorted(found)


@attack()
def searches_its_objects(at):
    """Looks through every object Python knows of, and every frame above it."""
    import gc

    seen, rest, texts = set(), [*gc.get_objects(), *sys._current_frames().values()], []
    while rest and len(seen) < 300000:
        one = rest.pop()
        if id(one) not in seen:
            seen.add(id(one))
            if isinstance(one, (str, bytes, bytearray)):
                texts.append(one if isinstance(one, str) else bytes(one).decode("latin-1"))
            else:
                rest.extend(gc.get_referents(one))
    return secrets_in("\n".join(texts))


@attack()
def searches_the_modules(at):
    """Looks for modules, classes and values of the proxy in what was loaded before it."""
    ours = [name for name in sys.modules if name.split(".")[0] in ("providers", "plugins", "llmproxy")]
    return ours + secrets_in(repr([vars(module) for module in list(sys.modules.values()) if module]))


@attack()
def finds_the_way_to_the_proxy(at):
    """Looks whether the proxy's own folder is searched for modules."""
    return [path for path in sys.path if path and os.path.dirname(at.source).startswith(path.rstrip("/"))]


@attack(told=False, fails=True, ends=("Crashed",))
def leaves_a_core(at):
    """Crashes, so that its memory is written down."""
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
    except (OSError, ValueError):
        pass
    libc.prctl(4, 1, 0, 0, 0)
    ctypes.string_at(8)
