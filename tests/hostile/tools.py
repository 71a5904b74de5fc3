# ruff: noqa: F401 - what is imported here the programs use
# What stands before every hostile program. It must work on 3.9, and without any file to read.
import ctypes
import os
import re
import struct
import sys
import types

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
MACHINE = os.uname().machine
NUMBERS = {  # name: x86_64, aarch64
    "socket": (41, 198), "connect": (42, 203), "sendto": (44, 206), "open": (2, None), "openat": (257, 56),
    "openat2": (437, 437), "memfd_create": (319, 279), "memfd_secret": (447, 447), "clone": (56, 220),
    "clone3": (435, 435), "vfork": (58, None), "execveat": (322, 281), "ptrace": (101, 117), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "prlimit64": (302, 261), "ioprio_set": (251, 30),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "kcmp": (312, 272), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "capget": (125, 90), "capset": (126, 91),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "unshare": (272, 97),
    "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457),
    "listmount": (458, 458), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "personality": (135, 92),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116),
    "fanotify_init": (300, 262), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "semget": (64, 190), "mq_open": (240, 180), "vmsplice": (278, 75), "splice": (275, 76), "tee": (276, 77),
    "copy_file_range": (326, 285), "mbind": (237, 235), "set_mempolicy": (238, 237), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "setdomainname": (171, 162),
    "seccomp": (317, 277), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "fchownat": (260, 54),
    "utimensat": (280, 88), "setxattr": (188, 5), "setxattrat": (463, 463), "truncate": (76, 45), "linkat": (265, 37),
    "io_setup": (206, 0), "remap_file_pages": (216, 234), "futex_waitv": (449, 449), "mincore": (27, 232),
    "futex": (202, 98), "lookup_dcookie": (212, 18), "vhangup": (153, 58), "cachestat": (451, 451),
    "lsm_list_modules": (461, 461),
    "mlockall": (151, 230), "readahead": (187, 213),
}  # fmt: skip


def begun(at, program):
    """Run a program under the name it is looked for by."""
    at = types.SimpleNamespace(**at)
    libc.prctl(15, at.mark.encode(), 0, 0, 0)
    return program(at)


def number(name):
    return NUMBERS[name][MACHINE == "aarch64"]


def call(name, *args):
    """Ask the kernel itself, around everything that is Python's."""
    which = number(name) if isinstance(name, str) else name
    plain = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    got = libc.syscall(ctypes.c_long(which), *plain)
    if got == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return got


def attempt(act, *args, **more):
    """Give what an attempt gives, None when it is refused."""
    try:
        return act(*args, **more)
    except OSError:
        return None


def each(*acts):
    """Attempt each, and give the numbers of those that were not refused."""
    done = []
    for position, act in enumerate(acts):
        try:
            act()
        except OSError:
            continue
        done.append(position)
    return done


def read(path):
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


def first_of(act, *things):
    """Give the first true thing that an attempt gives."""
    for thing in things:
        got = attempt(act, thing)
        if got:
            return got
    return None


def secrets_in(data):
    """Give the planted secrets in what was found; the pattern does not match itself."""
    if isinstance(data, str):
        data = data.encode("utf-8", "replace")
    return sorted({found.decode() for found in re.findall(rb"PLANTED-[0-9a-f]{16}", data)})
