"""Programs that want to be more than they are, or reach parts of the kernel no program of theirs needs."""

import os

from hostile.table import attack
from hostile.tools import attempt, call, ctypes, each, libc, number, struct

# fmt: off


@attack()
def runs_a_setuid_program(at):
    """Runs a program that runs as root whoever starts it."""
    import subprocess

    for name in ("su", "mount", "passwd", "ping", "sudo", "chsh"):
        for folder in ("/usr/bin", "/bin"):
            try:
                subprocess.run([f"{folder}/{name}", "--version"], capture_output=True, timeout=3, check=False)
            except (OSError, subprocess.SubprocessError):
                continue
            return name
    return None


@attack(as_root=True)
def has_or_takes_capabilities(at):
    """Looks whether it has any capability, and takes all it can."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    known = attempt(call, "capget", header, data)
    has = known == 0 and any(data[n] for n in (0, 1, 3, 4))
    everything = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF, 0xFFFFFFFF, 0, 0x1FF, 0x1FF, 0])
    return has or attempt(call, "capset", header, everything) == 0 or libc.prctl(47, 2, 21, 0, 0) == 0


@attack(as_root=True)
def becomes_somebody_else(at):
    """Takes another user's or group's number."""
    return each(lambda: os.setgroups([12]), lambda: os.setresgid(12, 12, 12), lambda: os.setresuid(0, 1, 12),
                lambda: os.setresuid(12, 12, 12), lambda: call("setresuid", 0, 0, 0) or os.getuid() or os.setuid(1))


@attack()
def makes_namespaces(at):
    """Makes a namespace of its own, in which it would be root, and looks into others."""
    flags = (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000, 0x2000000)
    acts = [lambda flag=flag: call("unshare", 0x10000000 | flag) for flag in flags]
    acts += [lambda: call("clone", 0x10000000 | 0x10000 | 0x900, 0, 0, 0, 0)]
    acts += [lambda name=name: call("setns", os.open(f"/proc/1/ns/{name}", 0), 0) for name in ("net", "mnt", "user")]
    return each(*acts)


@attack(as_root=True)
def mounts(at):
    """Mounts something, or makes what is mounted writable; by the old calls and the new ones."""
    here = attempt(os.getcwd) or "/tmp"
    target = os.path.join(here, at.mark).encode()
    attempt(os.mkdir, target)

    def undone(*args):
        call("mount", *args)
        attempt(call, "umount2", args[1], 2)

    done = each(
        lambda: undone(b"x", target, b"tmpfs", 0, None), lambda: undone(b"/", target, None, 4096, None),
        lambda: undone(b"proc", target, b"proc", 0, None),
        lambda: os.close(call("fsopen", b"tmpfs", 0)), lambda: os.close(call("open_tree", -100, b"/", 1)),
        lambda: call("mount", None, b"/dev", None, 32 | 4096, None), lambda: call("umount2", here.encode(), 2),
    )
    attempt(os.rmdir, target)
    return done


@attack(as_root=True)
def changes_the_machine(at):
    """Sets the machine's name and clock, to what they are: nobody is hurt if it works."""
    import socket
    import time

    name = socket.gethostname().encode()
    return each(lambda: call("sethostname", name, len(name)), lambda: call("setdomainname", b"(none)", 6),
                lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))


@attack()
def keeps_keys(at):
    """Keeps something in the kernel's key rings, where the next one finds it."""
    return each(lambda: call("add_key", b"user", at.mark.encode(), b"x", 1, -3),
                lambda: call("keyctl", 0, -4, 0), lambda: call("request_key", b"user", at.mark.encode(), None, -4))


@attack()
def raises_its_limits(at):
    """Raises whatever limit it was given."""
    import resource

    most = resource.RLIM_INFINITY

    def above(which):
        soft, hard = resource.getrlimit(which)
        more = most if hard == most else hard + 1
        try:
            resource.setrlimit(which, (soft, more))
        except ValueError as error:
            raise PermissionError from error
        if hard == most:
            raise PermissionError("it had no limit")

    bounded = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE,
               resource.RLIMIT_NPROC, resource.RLIMIT_CORE, resource.RLIMIT_STACK, resource.RLIMIT_MEMLOCK)
    free = [which for which in bounded if which != resource.RLIMIT_STACK and resource.getrlimit(which)[1] == most]
    return free + each(*[lambda which=which: above(which) for which in bounded])


@attack(as_root=True)
def raises_its_priority(at):
    """Asks to be served before everybody else."""
    return each(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
                lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
                lambda: call("ioprio_set", 1, 0, 1 << 13))


@attack()
def locks_memory(at):
    """Keeps memory from ever being moved away, more than its share."""
    import mmap

    memory = mmap.mmap(-1, 16 << 20)
    where = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc.mlock(where, 1 << 20) == 0


@attack(told=True)
def drops_its_guard(at):
    """Takes back what it was bound by: may it gain privileges, is it traceable, does a filter stand."""
    return [name for name, args in {
        "traceable": (4, 1, 0, 0, 0), "any tracer": (0x59616D61, -1, 0, 0, 0), "no death signal": (1, 0, 0, 0, 0),
        "keep capabilities": (8, 1, 0, 0, 0), "subreaper": (36, 1, 0, 0, 0), "memory map": (35, 1, 0, 0, 0),
        "no filter": (22, 0, 0, 0, 0),
    }.items() if libc.prctl(*[ctypes.c_long(arg) for arg in args]) == 0] + [
        "may gain" for _ in [0] if libc.prctl(39, 0, 0, 0, 0) == 0]


@attack()
def changes_its_personality(at):
    """Becomes an easier prey for itself: addresses that can be foretold, memory that can be run."""
    return each(lambda: call("personality", 0x0040000), lambda: call("personality", 0x0400000))


@attack()
def reaches_the_kernel(at):
    """Calls what no Python program needs with senseless arguments: a refusal must come before they are looked at."""
    names = [
        "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
        "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "keyctl", "add_key", "request_key", "mount",
        "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick",
        "mount_setattr", "setns", "open_by_handle_at", "name_to_handle_at", "init_module", "finit_module",
        "delete_module", "kexec_load", "swapon", "swapoff", "acct", "quotactl", "syslog", "fanotify_init",
        "memfd_secret", "memfd_create", "shmget", "msgget", "semget", "mq_open", "vmsplice", "tee",
        "move_pages", "migrate_pages", "mbind", "set_mempolicy", "pidfd_open", "pidfd_getfd",
        "pidfd_send_signal", "process_madvise", "process_mrelease", "modify_ldt", "iopl", "ioperm",
        "clock_adjtime", "settimeofday", "sethostname", "setdomainname", "sched_setattr", "seccomp",
        "statmount", "listmount", "execveat", "lookup_dcookie", "setxattrat", "inotify_add_watch",
        "lsm_list_modules", "connect", "io_setup", "remap_file_pages", "futex_waitv", "mincore", "sendto",
        "clone3", "unshare",
    ]
    reached = []
    for name in names:
        if number(name) is not None:
            try:
                call(name, -1, -1, -1, -1, -1, -1)
            except OSError as error:
                if error.errno in (1, 13, 38):  # EPERM, EACCES, ENOSYS
                    continue
            reached.append(name)
    return reached


@attack()
def watches_files(at):
    """Has itself told of what others do with files, the library's too."""
    watch = call("inotify_init1", 0)
    return each(lambda: call("inotify_add_watch", watch, os.__file__.encode(), 0xFFF),
                lambda: call("inotify_add_watch", watch, b"/", 0xFFF)) or "a watch"


@attack()
def installs_a_listener(at):
    """Puts a filter of its own in place that has somebody else answer its calls."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(struct.pack("=H6xQ", 1, ctypes.addressof(code)))
    libc.prctl(38, 1, 0, 0, 0)
    return call("seccomp", 1, 8, program)
