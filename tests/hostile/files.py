"""Programs that read what is not theirs."""

# ruff: noqa: SIM115 - no examples to follow: they behave badly on purpose

import os
import sys

from hostile.table import attack
from hostile.tools import attempt, call, ctypes, each, first_of, libc, read, struct


@attack()
def reads_the_config(at):
    """Opens the proxy's config by its name."""
    return read(at.config)


@attack()
def reads_the_proxys_source(at):
    """Reads the proxy's own files, and the compiled ones."""
    return first_of(read, at.source, os.path.join(os.path.dirname(at.source), "plugins", "execute.py"))


@attack()
def reads_the_log(at):
    """Reads the proxy's log."""
    return read(at.log)


@attack()
def reads_the_systems_files(at):
    """Reads what every system has: users, hosts, the resolver's settings."""
    return first_of(read, "/etc/passwd", "/etc/shadow", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")


@attack()
def reads_the_keys_at_home(at):
    """Looks for keys where they are kept, in the home of the proxy and of whoever this seems to be."""
    homes = [at.home, os.path.expanduser("~"), "/root"]
    return first_of(read, *[os.path.join(home, name) for home in homes for name in (".ssh/id_rsa", ".netrc")])


@attack()
def lists_directories(at):
    """Lists the directories in which the proxy and others keep things."""
    planted = first_of(os.listdir, at.folder, at.home, "/proc", "/sys", "/home", "/var/log")
    return planted or "passwd" in (attempt(os.listdir, "/etc") or ())


@attack(rooted=True)
def learns_what_exists(at):
    """Asks about a file, without opening it."""
    return each(
        lambda: os.stat(at.config),
        lambda: os.lstat(at.canary),
        lambda: os.readlink(at.link),
        lambda: os.access(at.config, os.F_OK) or os.stat(at.config + " is not there"),
        lambda: os.chdir(at.folder),
        lambda: os.statvfs(at.folder),
    )


@attack()
def reads_by_the_kernels_own_calls(at):
    """Opens by open, openat and openat2, without Python."""
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
    path = at.config.encode()
    ways = [lambda: call("openat", -100, path, 0, 0), lambda: call("openat2", -100, path, how, 24)]
    if os.uname().machine == "x86_64":
        ways.append(lambda: call("open", path, 0, 0))
    got = [attempt(way) for way in ways]
    return [os.read(descriptor, 10000).decode() for descriptor in got if descriptor is not None]


@attack()
def reads_by_the_c_library(at):
    """Opens by fopen."""
    libc.fopen.restype = ctypes.c_void_p
    file = libc.fopen(at.config.encode(), b"r")
    line = ctypes.create_string_buffer(10000)
    return file and libc.fread(line, 1, 9999, ctypes.c_void_p(file)) and line.value.decode()


@attack()
def reads_through_a_symbolic_link(at):
    """Makes a link of its own to the config, and opens that."""
    os.symlink(at.config, at.mark)
    return read(at.mark)


@attack()
def reads_through_a_link_of_somebody(at):
    """Follows a link that is there already."""
    return read(at.link)


@attack()
def reads_through_a_hard_link(at):
    """Gives the config a second name in its own directory."""
    here = attempt(os.getcwd) or "/tmp"
    return first_of(lambda name: os.link(at.canary, name) or read(name), os.path.join(at.open, at.mark), here + "/x")


@attack()
def reads_through_a_bare_descriptor(at):
    """Takes a descriptor that grants nothing (O_PATH), and opens it again through /proc, or from its directory."""
    folder = os.open(at.folder, os.O_PATH | os.O_DIRECTORY)
    config = os.open(at.config, os.O_PATH)
    name = os.path.relpath(at.canary, at.folder)
    return attempt(read, f"/proc/self/fd/{config}") or os.read(os.open(name, os.O_RDONLY, dir_fd=folder), 1000).decode()


@attack(as_root=True)
def reads_by_a_file_handle(at):
    """Opens by a handle, as programs left containers once: a real one, or a guessed one of the root."""
    guessed = ctypes.create_string_buffer(struct.pack("Ii", 8, 1) + struct.pack("II", 2, 0) + bytes(128))
    real = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    anchor = os.open("/", os.O_RDONLY)
    name = at.config.encode()
    known = attempt(call, "name_to_handle_at", -100, name, real, ctypes.byref(mount), 0)
    handles = [guessed] if known is None else [real, guessed]
    return [attempt(call, "open_by_handle_at", anchor, handle, os.O_RDONLY) for handle in handles if anchor] != [None]


@attack()
def reads_through_proc(at):
    """Reaches the file through the root and the directory of a process, which /proc shows."""
    roots = ["/proc/self/root", "/proc/1/root", f"/proc/{at.pid}/root", f"/proc/{os.getppid()}/root"]
    return first_of(read, *[root + at.config for root in roots], f"/proc/{at.pid}/cwd/llmproxy.py")


@attack()
def reads_its_own_proc(at):
    """Reads what the system tells of it: mounts with the host's paths, mappings, the groups it is in."""
    return first_of(read, *["/proc/self/" + name for name in ("mountinfo", "maps", "environ", "cgroup", "stat")])


@attack()
def climbs_up(at):
    """Climbs to the root by .. and comes down to the config."""
    return read("../" * 40 + at.config.lstrip("/"))


@attack(as_root=True)
def climbs_out_of_a_root(at):
    """Leaves a changed root by changing it once more, and climbing from a directory above it."""
    os.mkdir(at.mark)
    os.chroot(at.mark)
    for _ in range(50):
        os.chdir("..")
    os.chroot(".")
    return read(at.config)


@attack()
def maps_a_file(at):
    """Maps the config into its memory."""
    import mmap

    descriptor = os.open(at.config, os.O_RDONLY)
    return mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ)[:].decode()


@attack()
def asks_through_a_ring(at):
    """Has the kernel open files by io_uring, which no filter of calls sees."""
    parameters = ctypes.create_string_buffer(120)
    return call("io_uring_setup", 4, parameters) and "a ring"


@attack()
def sends_a_file(at):
    """Has the kernel copy the config to its output."""
    descriptor = os.open(at.config, os.O_RDONLY)
    sys.stdout.flush()
    return os.sendfile(1, descriptor, 0, 10000)


@attack()
def imports_a_file_elsewhere(at):
    """Imports a module that is no part of the library."""
    sys.path.insert(0, at.folder)
    try:
        import planted
    except ImportError:
        return None
    return planted.KEY


@attack()
def loads_a_library_elsewhere(at):
    """Loads native code that is no part of the library."""
    return bool(ctypes.CDLL(at.native))


@attack(fails=True, told=False, ends=("ZeroDivisionError",))
def has_its_traceback_read_a_file(at):
    """Fails in a line that it says is the config's first, so that the traceback shows it."""
    exec(compile("1/0", at.config, "exec"))


@attack(told=False)
def has_a_warning_read_a_file(at):
    """Warns of a line of the config, and prints what other tools show of one."""
    import linecache
    import tokenize
    import warnings

    sys.stdout.write(linecache.getline(at.config, 2))
    warnings.warn_explicit("look", UserWarning, at.config, 2)
    sys.stdout.write(attempt(lambda: tokenize.open(at.config).read()) or "")


@attack()
def reads_installed_packages(at):
    """Looks for what was installed beside the library, where the proxy itself might live."""
    import sysconfig

    places = [sysconfig.get_path("purelib"), "/usr/lib/python3/dist-packages", *at.packages]
    return first_of(os.listdir, *places)


@attack(as_root=True)
def reads_devices(at):
    """Makes a device of its own for the disk, and opens memory and the kernel's log."""
    import stat

    def made():
        os.mknod(at.mark, stat.S_IFBLK | 0o600, os.makedev(254, 0))
        return os.open(at.mark, os.O_RDONLY)

    made = attempt(made)
    opened = first_of(lambda path: os.open(path, os.O_RDONLY), "/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda")
    attempt(os.unlink, at.mark)
    return made or opened


@attack()
def opens_the_config_as_a_database(at):
    """Has a library written in C open it: sqlite's own file layer, which asks no Python."""
    import sqlite3

    try:
        sqlite3.connect(at.config).execute("select * from sqlite_master")
    except sqlite3.DatabaseError as error:
        return "not a database" in str(error)
