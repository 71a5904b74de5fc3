"""The system calls a run may make, as tables, and the BPF program that holds it to them.

A list of what is allowed: whatever is not named here does not exist (ENOSYS, on which C libraries fall back to
something older). What people try on purpose is refused with a code that Python makes a PermissionError of.
Four rules carry the rest:

* No fork, no exec: a run is one process, so its pid is all there is to kill, and nothing can outlive it. A
  clone must bear exactly the flags of a new thread; `clone3` hides its flags behind a pointer and is absent.
* No socket but a connected pair of streams, which asyncio wakes itself with. A pair of datagram sockets could
  be sent elsewhere; `sendmsg` could carry descriptors, which live on in there uncounted.
* Signals to oneself alone, and none by the back door: F_SETOWN and FIOSETOWN name a receiver too.
* What Landlock does not see (modes, owners, times, truncation) is refused wherever files of others are in reach.

A filter sees numbers, never what a pointer points to. That is why without files `newfstatat` is refused whole:
AT_EMPTY_PATH allows an empty path, and does not ask for one.
"""

from __future__ import annotations

import errno
import functools
import struct
from typing import Dict, List, NamedTuple, Tuple, Union

#: what of the file system a run may reach: nothing; what is listed, some of it not its own; or what it may
#: change at all is its own (a private root)
FILES = ("none", "listed", "own")


class Machine(NamedTuple):
    """What differs from one processor to another."""

    arch: int  # AUDIT_ARCH
    column: int  # of NUMBERS
    end: int  # from this number on calls are of another convention


MACHINES = {"x86_64": Machine(0xC000003E, 0, 0x40000000), "aarch64": Machine(0xC00000B7, 1, 1 << 32)}

# what a filter answers
ALLOW = 0x7FFF0000
KILL = 0x80000000


def refused(code: int) -> int:
    """Give the answer that makes a call fail with this code; with 0 it seems to succeed, and does nothing."""
    return 0x00050000 | code


ABSENT = refused(errno.ENOSYS)
DENIED = refused(errno.EACCES)
FORBIDDEN = refused(errno.EPERM)
UNSUPPORTED = refused(errno.ENOTSUP)
IDLE = refused(0)

OWN = -1  # stands for the pid of the run


class Check(NamedTuple):
    """That an argument, cut to `mask`, is one of `values`. `whole`: the upper half is looked at, and must be 0."""

    argument: int
    values: Tuple[int, ...]
    mask: int = 0xFFFFFFFF
    whole: bool = False


class Rule(NamedTuple):
    """Answers `then` to a call whose checks all hold, and `otherwise`, which may be a rule again, if one does not."""

    otherwise: Verdict
    checks: Tuple[Check, ...]
    then: int = ALLOW


Verdict = Union[int, Rule]


def names(text: str, verdict: Verdict) -> Dict[str, Verdict]:
    return dict.fromkeys(text.split(), verdict)


SELF = (0, OWN)
THREAD = 0x003D0F00  # VM FS FILES SIGHAND THREAD SYSVSEM SETTLS PARENT_SETTID CHILD_CLEARTID, what libcs ask for
DETACHED = 0x00400000  # without meaning for long, and still set by one of them
MAP_HUGETLB = 0x40000
CLOEXEC_NONBLOCK = 0x80800

#: whatever the mode
RULES: Dict[str, Verdict] = {
    **names(
        """
        read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek fstat fsync fdatasync
        close close_range dup dup2 dup3 pipe
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
        eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime
        recvfrom recvmsg shutdown getsockopt getsockname getpeername
        brk munmap mprotect mremap madvise msync
        futex set_robust_list set_tid_address rseq sched_yield sched_get_priority_max sched_get_priority_min
        rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
        pause alarm setitimer getitimer restart_syscall
        getpid gettid getppid getpgrp getuid geteuid getgid getegid getgroups getresuid getresgid
        clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage getrlimit
        getrandom uname sysinfo getcpu umask getcwd wait4 waitid exit exit_group
        """,
        ALLOW,
    ),
    **names(
        """
        fork vfork execve execveat ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd pidfd_open
        pidfd_send_signal tkill rt_sigqueueinfo rt_tgsigqueueinfo setsid setpgid
        connect bind listen accept accept4 setsockopt sendmsg sendmmsg recvmmsg
        memfd_create memfd_secret shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl
        mq_open mq_unlink splice tee vmsplice
        unshare setns mount umount2 pivot_root chroot name_to_handle_at open_by_handle_at
        setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset
        chown fchown lchown fchownat sync syncfs inotify_init inotify_init1 inotify_add_watch fanotify_init
        keyctl add_key request_key bpf perf_event_open userfaultfd seccomp
        sched_setscheduler sched_setparam sched_setaffinity ioprio_set setrlimit
        sethostname setdomainname settimeofday clock_settime adjtimex syslog acct reboot swapon swapoff
        init_module finit_module delete_module kexec_load quotactl ioperm iopl
        """,
        FORBIDDEN,
    ),
    **names(
        """
        getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr
        removexattr lremovexattr fremovexattr
        """,
        UNSUPPORTED,  # which those who copy files take for an answer
    ),
    "flock": IDLE,  # nobody else has the run's files open; on the library's a lock could be felt outside
    "socket": DENIED,
    "socketpair": Rule(DENIED, (Check(0, (1,)), Check(1, (1,), mask=0xF))),  # AF_UNIX, SOCK_STREAM
    "sendto": Rule(FORBIDDEN, (Check(4, (0,), whole=True),)),  # to the one it is connected to
    "clone": Rule(FORBIDDEN, (Check(0, (THREAD,), mask=0xFFFFFFFF ^ DETACHED),)),
    "kill": Rule(FORBIDDEN, (Check(0, (OWN,)),)),
    "tgkill": Rule(FORBIDDEN, (Check(0, (OWN,)),)),
    "mmap": Rule(FORBIDDEN, (Check(3, (0,), mask=MAP_HUGETLB),)),  # these pages are the machine's few
    "pipe2": Rule(FORBIDDEN, (Check(1, (0,), mask=0xFFFFFFFF ^ CLOEXEC_NONBLOCK),)),
    # duplicates, flags, size and seals; not F_SETOWN 8, F_SETSIG 10, F_SETOWN_EX 15, F_SETLEASE, F_NOTIFY; locks: IDLE
    "fcntl": Rule(
        Rule(FORBIDDEN, (Check(1, (6, 7, 37, 38)),), then=IDLE), (Check(1, (*range(6), 36, 1030, 1032, 1034)),)
    ),
    # FIONREAD FIONBIO FIOCLEX FIONCLEX TCGETS TCGETS2 TIOCGWINSZ
    "ioctl": Rule(FORBIDDEN, (Check(1, (0x541B, 0x5421, 0x5451, 0x5450, 0x5401, 0x802C542A, 0x5413)),)),
    "prctl": Rule(FORBIDDEN, (Check(0, (15, 16, 0x53564D41)),)),  # the names of threads and of memory
    "prlimit64": Rule(FORBIDDEN, (Check(0, SELF), Check(2, (0,), whole=True))),  # look, and not set
    "getpriority": Rule(FORBIDDEN, (Check(0, (0,)), Check(1, SELF))),
    "setpriority": Rule(FORBIDDEN, (Check(0, (0,)), Check(1, SELF))),
    **names(
        "sched_getaffinity sched_getscheduler sched_getparam getpgid getsid",
        Rule(FORBIDDEN, (Check(0, SELF),)),
    ),
    "personality": Rule(FORBIDDEN, (Check(0, (0xFFFFFFFF,)),)),
}

_REACH = """
    open openat creat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs fstatfs
    getdents getdents64 chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
    link linkat symlink symlinkat mknod mknodat ftruncate sendfile fallocate
"""
_CHANGE = "chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat truncate"

#: what depends on the files in reach
MODES: Dict[str, Dict[str, Verdict]] = {
    "none": {**names(_REACH, DENIED), **names(_CHANGE, DENIED)},
    "listed": {**names(_REACH, ALLOW), **names(_CHANGE, FORBIDDEN)},
    "own": {**names(_REACH, ALLOW), **names(_CHANGE, ALLOW)},
}
for _mode in ("listed", "own"):  # no room beyond the end of a file, which no limit of its size would see
    MODES[_mode]["fallocate"] = Rule(UNSUPPORTED, (Check(1, (0,)),))

#: name, number on x86_64, number on aarch64; the second has never had the older of two that do the same
_NUMBERS = """
read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62, mmap 9 222,
mprotect 10 226, munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
ioctl 16 29, pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, access 21 -, pipe 22 -, select 23 -,
sched_yield 24 124, mremap 25 216, msync 26 227, madvise 28 233, shmget 29 194, shmat 30 196, shmctl 31 195,
dup 32 23, dup2 33 -, pause 34 -, nanosleep 35 101, getitimer 36 102, alarm 37 -, setitimer 38 103, getpid 39 172,
sendfile 40 71, socket 41 198, connect 42 203, accept 43 202, sendto 44 206, recvfrom 45 207, sendmsg 46 211,
recvmsg 47 212, shutdown 48 210, bind 49 200, listen 50 201, getsockname 51 204, getpeername 52 205,
socketpair 53 199, setsockopt 54 208, getsockopt 55 209, clone 56 220, fork 57 -, vfork 58 -, execve 59 221,
exit 60 93, wait4 61 260, kill 62 129, uname 63 160, semget 64 190, semop 65 193, semctl 66 191, shmdt 67 197,
msgget 68 186, msgsnd 69 189, msgrcv 70 188, msgctl 71 187, fcntl 72 25, flock 73 32, fsync 74 82, fdatasync 75 83,
truncate 76 45, ftruncate 77 46, getdents 78 -, getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, mkdir 83 -,
rmdir 84 -, creat 85 -, link 86 -, unlink 87 -, symlink 88 -, readlink 89 -, chmod 90 -, fchmod 91 52, chown 92 -,
fchown 93 55, lchown 94 -, umask 95 166, gettimeofday 96 169, getrlimit 97 163, getrusage 98 165, sysinfo 99 179,
times 100 153, ptrace 101 117, getuid 102 174, syslog 103 116, getgid 104 176, setuid 105 146, setgid 106 144,
geteuid 107 175, getegid 108 177, setpgid 109 154, getppid 110 173, getpgrp 111 -, setsid 112 157, setreuid 113 145,
setregid 114 143, getgroups 115 158, setgroups 116 159, setresuid 117 147, getresuid 118 148, setresgid 119 149,
getresgid 120 150, getpgid 121 155, setfsuid 122 151, setfsgid 123 152, getsid 124 156, capset 126 91,
rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigqueueinfo 129 138, rt_sigsuspend 130 133, sigaltstack 131 132,
utime 132 -, mknod 133 -, personality 135 92, statfs 137 43, fstatfs 138 44, getpriority 140 141,
setpriority 141 140, sched_setparam 142 118, sched_getparam 143 121, sched_setscheduler 144 119,
sched_getscheduler 145 120, sched_get_priority_max 146 125, sched_get_priority_min 147 126, pivot_root 155 41,
prctl 157 167, adjtimex 159 171, setrlimit 160 164, chroot 161 51, sync 162 81, acct 163 89, settimeofday 164 170,
mount 165 40, umount2 166 39, swapon 167 224, swapoff 168 225, reboot 169 142, sethostname 170 161,
setdomainname 171 162, iopl 172 -, ioperm 173 -, init_module 175 105, delete_module 176 106, quotactl 179 60,
gettid 186 178, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10,
listxattr 194 11, llistxattr 195 12, flistxattr 196 13, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16,
tkill 200 130, time 201 -, futex 202 98, sched_setaffinity 203 122, sched_getaffinity 204 123, epoll_create 213 -,
getdents64 217 61, set_tid_address 218 96, restart_syscall 219 128, clock_settime 227 112, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, exit_group 231 94, epoll_wait 232 -, epoll_ctl 233 21, tgkill 234 131,
utimes 235 -, mq_open 240 180, mq_unlink 241 181, kexec_load 246 104, waitid 247 95, add_key 248 217,
request_key 249 218, keyctl 250 219, ioprio_set 251 30, inotify_init 253 -, inotify_add_watch 254 27, openat 257 56,
mkdirat 258 34, mknodat 259 33, fchownat 260 54, futimesat 261 -, newfstatat 262 79, unlinkat 263 35,
renameat 264 38, linkat 265 37, symlinkat 266 36, readlinkat 267 78, fchmodat 268 53, faccessat 269 48,
pselect6 270 72, ppoll 271 73, unshare 272 97, set_robust_list 273 99, splice 275 76, tee 276 77, vmsplice 278 75,
utimensat 280 88, epoll_pwait 281 22, timerfd_create 283 85, eventfd 284 -, fallocate 285 47, timerfd_settime 286 86,
timerfd_gettime 287 87, accept4 288 242, eventfd2 290 19, epoll_create1 291 20, dup3 292 24, pipe2 293 59,
inotify_init1 294 26, preadv 295 69, pwritev 296 70, rt_tgsigqueueinfo 297 240, perf_event_open 298 241,
recvmmsg 299 243, fanotify_init 300 262, prlimit64 302 261, name_to_handle_at 303 264, open_by_handle_at 304 265,
syncfs 306 267, sendmmsg 307 269, setns 308 268, getcpu 309 168, process_vm_readv 310 270, process_vm_writev 311 271,
kcmp 312 272, finit_module 313 273, renameat2 316 276, seccomp 317 277, getrandom 318 278, memfd_create 319 279,
bpf 321 280, execveat 322 281, userfaultfd 323 282, preadv2 327 286, pwritev2 328 287,
statx 332 291, rseq 334 293, pidfd_send_signal 424 424, io_uring_setup 425 425, pidfd_open 434 434, clone3 435 435,
close_range 436 436, openat2 437 437, pidfd_getfd 438 438, faccessat2 439 439, landlock_create_ruleset 444 444,
landlock_add_rule 445 445, landlock_restrict_self 446 446, memfd_secret 447 447, fchmodat2 452 452
"""


def _numbers() -> Dict[str, Tuple[int, ...]]:
    entries = (entry.split() for line in _NUMBERS.splitlines() for entry in line.split(",") if entry.strip())
    return {name: tuple(-1 if number == "-" else int(number) for number in columns) for name, *columns in entries}


NUMBERS = _numbers()


def number(machine: str, name: str) -> int:
    """Give the number of a call; -1 where this machine does not have it."""
    return NUMBERS[name][MACHINES[machine].column]


# the program

Instruction = Tuple[int, int, int, int]  # code, how far to jump if true, if false, constant
Code = Tuple[Instruction, ...]

_LOAD, _AND, _EQUAL, _FROM, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # where they stand in what a filter is shown


def _answer(value: int) -> Code:
    return ((_RETURN, 0, 0, value),)


def _code(verdict: Verdict) -> Code:
    """Give the instructions for one call; all its ways end in an answer."""
    if isinstance(verdict, int):
        return _answer(verdict)
    checks = (_checked(check, _code(verdict.otherwise)) for check in verdict.checks)
    return (*(instruction for code in checks for instruction in code), *_answer(verdict.then))


def _checked(check: Check, otherwise: Code) -> List[Instruction]:
    """Give the instructions that go on behind themselves if the check holds, and answer if it does not."""
    place = _ARGUMENTS + 8 * check.argument  # the lower half comes first
    out: List[Instruction] = []
    if check.whole:
        out += [(_LOAD, 0, 0, place + 4), (_EQUAL, len(otherwise), 0, 0), *otherwise]
    out.append((_LOAD, 0, 0, place))
    if check.mask != 0xFFFFFFFF:
        out.append((_AND, 0, 0, check.mask))
    out += [(_EQUAL, len(check.values) - at - 1 + len(otherwise), 0, value) for at, value in enumerate(check.values)]
    return [*out, *otherwise]


def _tree(spans: List[Tuple[int, Code]]) -> Code:
    """Give the instructions that find the span a number is in: [(first number, what to do)], by halves.

    A jump is of 255 instructions at most: packing a longer one fails, and half of the tables is far from it.
    """
    if len(spans) == 1:
        return spans[0][1]
    half = len(spans) // 2
    below, above = _tree(spans[:half]), _tree(spans[half:])
    first = spans[half][0]
    return ((_FROM, len(below), 0, first), *below, *above)


def verdicts(machine: str, files: str) -> Dict[int, Verdict]:
    """Give the verdict on each call by its number; on those that are not there it is ABSENT."""
    rules = {**RULES, **MODES[files]}
    numbered = {number(machine, name): verdict for name, verdict in rules.items()}
    return {nr: verdict for nr, verdict in numbered.items() if nr >= 0}


def _spans(machine: str, files: str) -> List[Tuple[int, Code]]:
    """Give the whole range of numbers in spans with one answer each."""
    coded = {nr: _code(verdict) for nr, verdict in verdicts(machine, files).items()}
    spans: List[Tuple[int, Code]] = []
    for nr in range(max(coded) + 2):
        code = coded.get(nr, _answer(ABSENT))
        if not spans or spans[-1][1] != code:
            spans.append((nr, code))
    if MACHINES[machine].end < 1 << 32:
        spans.append((MACHINES[machine].end, _answer(KILL)))
    return spans


@functools.cache
def _assembled(machine: str, files: str) -> Tuple[bytes, Tuple[int, ...]]:
    """Give the program without a pid, and where the pid belongs."""
    code = (
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, MACHINES[machine].arch),
        *_answer(KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_tree(_spans(machine, files)),
    )
    places = tuple(8 * at + 4 for at, instruction in enumerate(code) if instruction[3] == OWN)
    return b"".join(struct.pack("=HBBI", *one[:3], one[3] & 0xFFFFFFFF) for one in code), places


def program(machine: str, pid: int, files: str) -> bytes:
    """Give the filter for the process `pid`; `machine` is one of MACHINES, `files` one of FILES."""
    code, places = _assembled(machine, files)
    out = bytearray(code)
    for place in places:
        struct.pack_into("=I", out, place, pid)
    return bytes(out)
