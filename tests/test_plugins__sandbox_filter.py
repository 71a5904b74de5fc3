"""The filter is run here, instruction by instruction, on calls that a program might make."""

from __future__ import annotations

import errno
import struct

import pytest

from plugins._sandbox import filter as filters
from plugins._sandbox.filter import ABSENT, ALLOW, DENIED, FILES, FORBIDDEN, IDLE, KILL, MACHINES, UNSUPPORTED

PID = 4321
BIG = 1 << 32
STRANGE = 0x40000003  # the architecture of a call from 32-bit code
every_machine = pytest.mark.parametrize("machine", MACHINES)
every_mode = pytest.mark.parametrize("files", FILES)


def run(program, arch, number, *arguments):
    """Be the kernel: give the answer of a program on one call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", program))
    at = register = 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        if operation == 0x20:
            assert constant % 4 == 0
            (register,) = struct.unpack_from("=I", data, constant)
        elif operation == 0x54:
            register &= constant
        elif operation == 0x05:
            at += constant
        elif operation in (0x15, 0x35):
            at += if_true if (register == constant if operation == 0x15 else register >= constant) else if_false
        else:
            assert operation == 0x06
            return constant


def answer(name, *arguments, machine="x86_64", files="own"):
    program = filters.program(machine, PID, files)
    return run(program, MACHINES[machine].arch, filters.number(machine, name), *arguments)


# the program


def holds(verdict, arguments):
    """Say what the tables say of a call."""
    if isinstance(verdict, int):
        return verdict
    for check in verdict.checks:
        value = arguments[check.argument]
        wanted = [PID if one == filters.OWN else one for one in check.values]
        if value & check.mask not in wanted or (check.whole and value >> 32):
            return holds(verdict.otherwise, arguments)
    return verdict.then


@every_machine
@every_mode
def test_the_program_answers_every_number_as_the_tables_say(machine, files):
    table = filters.verdicts(machine, files)
    program = filters.program(machine, PID, files)
    for number in range(700):
        for arguments in ([0] * 6, [1] * 6, [PID] * 6, [0x41, 15, 0x541B, 1, 0, 0], [BIG] * 6, [1, 1, BIG, 0, BIG, 0]):
            said = run(program, MACHINES[machine].arch, number, *arguments)
            assert said == holds(table.get(number, ABSENT), arguments), (number, arguments)


@every_machine
@every_mode
def test_the_program_is_one_the_kernel_takes(machine, files):
    code = list(struct.iter_unpack("=HBBI", filters.program(machine, PID, files)))
    assert len(code) <= 4096
    for at, (operation, if_true, if_false, constant) in enumerate(code):
        farthest = constant if operation == 0x05 else max(if_true, if_false)
        assert at + 1 + farthest < len(code) or operation in (0x20, 0x54, 0x06)
    assert code[-1][0] == 0x06


@every_machine
@every_mode
def test_a_call_from_another_architecture_kills(machine, files):
    program = filters.program(machine, PID, files)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[machine]
    for arch in (STRANGE, MACHINES[other].arch, 0):
        for number in (0, 1, 39, 60, 20):
            assert run(program, arch, number) == KILL


@every_mode
def test_a_call_with_32_bit_pointers_kills(files):
    program = filters.program("x86_64", PID, files)
    for number in (0, 1, 59, 520, 0x3FFFFFFF):
        assert run(program, MACHINES["x86_64"].arch, 0x40000000 + number) == KILL


@every_machine
def test_a_number_nobody_has_heard_of_does_not_exist(machine):
    program = filters.program(machine, PID, "own")
    for number in (470, 1000, 0x3FFFFFFF):
        assert run(program, MACHINES[machine].arch, number) == ABSENT


@every_machine
def test_numbers_are_given_once(machine):
    numbers = [filters.number(machine, name) for name in filters.NUMBERS]
    there = [number for number in numbers if number >= 0]
    assert len(there) == len(set(there))


def test_programs_for_two_processes_differ_in_the_pid_alone():
    one, other = (filters.program("x86_64", pid, "own") for pid in (7, 8))
    assert len(one) == len(other)
    assert {(a, b) for a, b in zip(one, other) if a != b} == {(7, 8)}


# the tables


LEADS_OUT = """
    fork vfork execve execveat ptrace process_vm_readv process_vm_writev pidfd_open pidfd_send_signal pidfd_getfd
    tkill rt_sigqueueinfo rt_tgsigqueueinfo connect bind listen accept accept4 setsockopt sendmsg sendmmsg
    memfd_create memfd_secret shmget msgget semget mq_open splice tee vmsplice unshare setns mount umount2 pivot_root
    chroot name_to_handle_at open_by_handle_at setuid setgid setresuid setgroups capset chown fchown fchownat
    sync syncfs inotify_init1 keyctl add_key request_key bpf perf_event_open userfaultfd seccomp setrlimit
    sethostname settimeofday reboot init_module
    """


@every_machine
@every_mode
def test_what_leads_out_is_forbidden_in_every_mode(machine, files):
    names = [name for name in LEADS_OUT.split() if filters.number(machine, name) >= 0]
    assert [name for name in names if answer(name, machine=machine, files=files) != FORBIDDEN] == []


@every_machine
@every_mode
@pytest.mark.parametrize("name", ["clone3", "openat2", "io_uring_setup", "landlock_create_ruleset"])
def test_what_hides_its_arguments_or_is_not_needed_does_not_exist(machine, files, name):
    assert answer(name, machine=machine, files=files) == ABSENT


THREAD = 0x3D0F00
CASES = [
    # processes and threads
    (("clone", THREAD), ALLOW),
    (("clone", THREAD | 0x400000), ALLOW),  # as musl has it
    (("clone", 17), FORBIDDEN),  # a fork
    (("clone", 0x4111), FORBIDDEN),  # a vfork
    (("clone", 0x100), FORBIDDEN),
    (("clone", THREAD ^ 0x10000), FORBIDDEN),  # shares all, and is a process of its own
    *((("clone", THREAD | new), FORBIDDEN) for new in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000)),
    *((("clone", THREAD | new), FORBIDDEN) for new in (0x20000000, 0x40000000, 0x2000, 0x80, 0x800000, 0x80000000)),
    (("kill", PID, 9), ALLOW),
    (("kill", PID + 1, 9), FORBIDDEN),
    (("kill", 0, 9), FORBIDDEN),
    (("kill", 1, 9), FORBIDDEN),
    (("kill", BIG - 1, 9), FORBIDDEN),  # -1: everybody
    (("kill", BIG - PID, 9), FORBIDDEN),  # the group
    (("kill", (1 << 64) - 1, 9), FORBIDDEN),
    (("tgkill", PID, 99, 9), ALLOW),
    (("tgkill", 99, 99, 9), FORBIDDEN),
    (("getpgid", 0), ALLOW),
    (("getpgid", 1), FORBIDDEN),
    (("getsid", 1), FORBIDDEN),
    (("sched_getaffinity", 0), ALLOW),
    (("sched_setaffinity", PID), FORBIDDEN),
    (("sched_setaffinity", 1), FORBIDDEN),
    (("setpriority", 0, 0), ALLOW),
    (("setpriority", 0, 1), FORBIDDEN),
    (("setpriority", 1, 0), FORBIDDEN),  # the group
    (("setpriority", 2, 0), FORBIDDEN),  # the user
    (("prlimit64", 0, 7, 0), ALLOW),
    (("prlimit64", PID, 7, 0), ALLOW),
    (("prlimit64", 0, 7, 0x1000), FORBIDDEN),
    (("prlimit64", 0, 7, BIG), FORBIDDEN),  # a pointer whose lower half is 0
    (("prlimit64", 1, 7, 0), FORBIDDEN),
    # the back doors of descriptors
    *((("fcntl", 3, command), ALLOW) for command in (0, 1, 2, 3, 4, 5, 36, 1030, 1032, 1034)),
    *((("fcntl", 3, command), IDLE) for command in (6, 7, 37, 38)),
    *((("fcntl", 3, command), FORBIDDEN) for command in (8, 9, 10, 11, 15, 16, 17, 1024, 1025, 1026, 1031, 1033)),
    (("ioctl", 3, 0x541B), ALLOW),
    *((("ioctl", 3, one), FORBIDDEN) for one in (0x8901, 0x8902, 0x5412, 0x5452, 0x541D, 0x40049409)),
    *((("ioctl", 3, one), FORBIDDEN) for one in (0x541C, 0x5420)),
    (("prctl", 15), ALLOW),
    *((("prctl", one), FORBIDDEN) for one in (1, 4, 8, 22, 23, 24, 35, 36, 38, 47, 59)),
    (("pipe2", 0x1000, 0x80800), ALLOW),
    (("pipe2", 0x1000, 0x80), FORBIDDEN),  # a pipe of notifications
    # sockets
    *((("socket", family, kind), DENIED) for family in (1, 2, 10, 16, 17, 40) for kind in (1, 2, 3)),
    (("socketpair", 1, 1), ALLOW),
    (("socketpair", 1, 1 | 0x80800), ALLOW),
    *((("socketpair", 1, kind), DENIED) for kind in (2, 3, 5, 2 | 0x80000)),
    *((("socketpair", family, 1), DENIED) for family in (2, 10, 16, 30)),
    (("sendto", 5, 0x1000, 1, 0, 0, 0), ALLOW),
    (("sendto", 5, 0x1000, 1, 0, 0x1000, 16), FORBIDDEN),
    (("sendto", 5, 0x1000, 1, 0, BIG, 16), FORBIDDEN),
    # memory
    (("mmap", 0, 4096, 3, 0x22), ALLOW),
    (("mmap", 0, 4096, 3, 0x40022), FORBIDDEN),
    (("personality", BIG - 1), ALLOW),
    (("personality", 0x0040000), FORBIDDEN),
    # files
    (("fallocate", 3, 0), ALLOW),
    (("fallocate", 3, 1), UNSUPPORTED),
    (("fallocate", 3, 3), UNSUPPORTED),
    (("setxattr",), UNSUPPORTED),
    (("getxattr",), UNSUPPORTED),
    (("flock", 3, 2), IDLE),
]


@every_machine
@pytest.mark.parametrize(
    ("call", "expected"), CASES, ids=lambda case: "-".join(map(str, case)) if isinstance(case, tuple) else ""
)
def test_a_call_is_judged_by_its_arguments(machine, call, expected):
    assert answer(*call, machine=machine) == expected


REACH = ["openat", "newfstatat", "statx", "readlinkat", "faccessat", "faccessat2", "getdents64", "chdir", "mkdirat",
         "unlinkat", "renameat2", "linkat", "symlinkat", "mknodat", "statfs", "sendfile", "ftruncate"]  # fmt: skip
OLD = ["open", "creat", "stat", "lstat", "access", "readlink", "mkdir", "unlink", "rename", "link", "symlink", "mknod"]
CHANGE = ["fchmod", "fchmodat", "fchmodat2", "utimensat", "truncate"]


@every_machine
@pytest.mark.parametrize("name", [*REACH, *CHANGE])
@pytest.mark.parametrize("flags", [0, 0x1000])
def test_without_files_no_call_that_takes_a_path_is_let_through_whatever_its_flags(machine, name, flags):
    call = (name, 3, 0x1000, 0x2000, flags, 0)
    assert answer(*call, machine=machine, files="none") == DENIED


@pytest.mark.parametrize("name", [*OLD, "chmod", "utime", "utimes", "futimesat"])
def test_nor_is_an_older_form_of_it(name):
    assert answer(name, 0x1000, 0, files="none") == DENIED
    assert filters.number("aarch64", name) == -1


@every_machine
@every_mode
@pytest.mark.parametrize("name", ["read", "write", "fstat", "lseek", "close", "dup", "getrandom", "futex", "epoll_ctl"])
def test_what_is_open_can_be_used_in_every_mode(machine, files, name):
    assert answer(name, machine=machine, files=files) == ALLOW


@every_machine
@pytest.mark.parametrize("name", REACH)
def test_files_can_be_reached_where_a_wall_stands_around_them(machine, name):
    assert [answer(name, machine=machine, files=files) for files in ("listed", "own")] == [ALLOW, ALLOW]


@every_machine
@pytest.mark.parametrize("name", CHANGE)
def test_modes_times_and_lengths_are_changed_only_where_all_that_can_be_is_ones_own(machine, name):
    assert [answer(name, machine=machine, files=files) for files in ("listed", "own")] == [FORBIDDEN, ALLOW]


def test_a_refusal_is_one_that_python_tells_as_such():
    assert FORBIDDEN & 0xFFFF == errno.EPERM
    assert DENIED & 0xFFFF == errno.EACCES
    assert ABSENT & 0xFFFF == errno.ENOSYS
