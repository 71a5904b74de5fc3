"""Programs that meet other processes, or become several. What they leave bears their name, and is looked for."""

# ruff: noqa: B023, SIM115 - no examples to follow: they behave badly on purpose

import os
import sys

from hostile.table import attack
from hostile.tools import attempt, call, ctypes, each, first_of, read, secrets_in, struct

# fmt: off


@attack()
def kills_the_proxy(at):
    """Kills the proxy by its number, by every call there is for it."""
    info = ctypes.create_string_buffer(128)
    ctypes.memmove(info, (ctypes.c_int * 3)(9, 0, -1), 12)  # the signal, no error, SI_QUEUE
    return each(
        lambda: os.kill(at.pid, 0), lambda: call("tkill", at.pid, 9), lambda: call("tgkill", at.pid, at.pid, 9),
        lambda: call("rt_sigqueueinfo", at.pid, 9, info), lambda: call("rt_tgsigqueueinfo", at.pid, at.pid, 9, info),
        lambda: os.kill(at.pid, 9), lambda: os.killpg(at.group, 9), lambda: os.kill(-at.group, 9),
    )


@attack()
def kills_everybody(at):
    """Kills all it may, itself excepted."""
    import signal

    return each(lambda: os.kill(-1, signal.SIGKILL))


@attack(told=False, fails=True, ends=("Crashed",))
def kills_its_parent(at):
    """Kills whoever started it, and its group."""
    import signal

    attempt(os.kill, os.getppid(), signal.SIGKILL)
    attempt(os.kill, os.getppid(), signal.SIGSTOP)
    attempt(os.killpg, 0, signal.SIGKILL)
    raise PermissionError("it lives")


@attack(told=False)
def has_the_kernel_kill(at):
    """Makes the proxy the owner of a pipe that signals, so that the kernel sends the signal."""
    import fcntl
    import socket

    for how in (8, 0x8901, 15):  # F_SETOWN, FIOSETOWN, F_SETOWN_EX
        one, other = socket.socketpair()
        attempt(fcntl.fcntl, one, 10, 9)  # F_SETSIG
        if how == 0x8901:
            attempt(fcntl.ioctl, one, how, struct.pack("i", at.pid))
        else:
            attempt(fcntl.fcntl, one, how, at.pid if how == 8 else struct.pack("ii", 1, at.pid))
        attempt(fcntl.fcntl, one, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        attempt(fcntl.ioctl, one, 0x5452, struct.pack("i", 1))  # FIOASYNC
        other.send(b"now")


@attack(told=False)
def has_a_file_signal(at):
    """Asks to be told of changes by signal (leases, notes), in the proxy's name."""
    import fcntl

    folder = attempt(os.open, at.open, os.O_RDONLY)
    if folder is not None:
        attempt(fcntl.fcntl, folder, 10, 9)
        attempt(fcntl.fcntl, folder, 8, at.pid)
        attempt(fcntl.fcntl, folder, 1026, 0x80000004)  # F_NOTIFY, of files made in it, for ever
    attempt(lambda: open(os.path.join(at.open, at.mark), "w").close())


@attack()
def traces_the_proxy(at):
    """Stops the proxy as a debugger does, and writes into it."""
    return each(lambda: call("ptrace", 0x4206, at.pid, 0, 0), lambda: call("ptrace", 16, at.pid, 0, 0),
                lambda: call("ptrace", 16, os.getppid(), 0, 0), lambda: call("ptrace", 0, 0, 0, 0))


@attack(as_root=True)
def reads_the_proxys_memory(at):
    """Reads the memory of the proxy and of its parent, by the call for it and by /proc."""
    here = ctypes.create_string_buffer(4096)
    local = (ctypes.c_uint64 * 2)(ctypes.addressof(here), 4096)

    def taken(pid):
        remote = (ctypes.c_uint64 * 2)(id(at) & ~4095, 4096)
        for base in (id(at) & ~4095, 0x400000, ctypes.addressof(here) & ~4095):
            remote[0] = base
            try:
                return call("process_vm_readv", pid, local, 1, remote, 1, 0)
            except OSError as error:
                if error.errno == 14:  # nothing is there, but we were let in
                    return 1
        return None

    memory = first_of(lambda pid: open(f"/proc/{pid}/mem", "rb"), at.pid, os.getppid())
    return bool(taken(at.pid) or taken(os.getppid()) or memory)


@attack()
def holds_the_proxy(at):
    """Takes a handle on the proxy, and by it signals it and takes its descriptors."""
    handle = call("pidfd_open", at.pid, 0)
    return each(lambda: call("pidfd_getfd", handle, 0, 0), lambda: call("pidfd_getfd", handle, 3, 0),
                lambda: call("pidfd_send_signal", handle, 9, None, 0)) or "a handle"


@attack(told=False)
def starves_the_proxy(at):
    """Takes processors, priority and limits away from the proxy and its parent."""
    for pid in (at.pid, os.getppid()):
        attempt(os.setpriority, os.PRIO_PROCESS, pid, 19)
        attempt(os.sched_setaffinity, pid, {0})
        attempt(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
        attempt(call, "prlimit64", pid, 7, (ctypes.c_uint64 * 2)(16, 16), None)
        attempt(call, "ioprio_set", 1, pid, 3 << 13)
        attempt(call, "migrate_pages", pid, 64, (ctypes.c_ulong * 1)(1), (ctypes.c_ulong * 1)(1))
        attempt(lambda: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"))
    attempt(call, "setpriority", 2, os.getuid(), 19)  # os.setpriority takes no number as large as these


@attack()
def reads_of_other_processes(at):
    """Reads environment, command line, memory map and open files of all it can see."""
    names = ("environ", "cmdline", "maps", "status", "fd", "cwd/llmproxy.py")
    pids = {at.pid, os.getppid(), 1, *(int(pid) for pid in attempt(os.listdir, "/proc") or () if pid.isdigit())}
    paths = [f"/proc/{pid}/{name}" for pid in pids - {os.getpid()} for name in names]
    files = [f"/proc/{at.pid}/fd/{descriptor}" for descriptor in range(12)]
    got = [attempt(os.listdir if path.endswith("/fd") else read, path) for path in [*paths, *files[3:]]
           if not path.endswith(("/fd/0", "/fd/1", "/fd/2"))]
    return secrets_in(repr(got)) or any(got)


@attack()
def starts_a_process(at):
    """Starts processes in every way there is."""
    import multiprocessing
    import subprocess

    def child(pid):
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)

    ways = [
        lambda: child(os.fork()), lambda: child(os.forkpty()[0]), lambda: child(call("clone", 17, 0, 0, 0, 0)),
        lambda: child(call("clone3", (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17, 0, 0, 0), 64)),
        lambda: os.waitpid(os.posix_spawn(sys.executable or "/bin/sh", ["x", "-c", ""], {}), 0),
        lambda: subprocess.run(["/bin/sh", "-c", "exit"], check=True),
        lambda: multiprocessing.get_context("fork").Process(target=print).start(),
    ]
    return each(*ways)


@attack()
def runs_a_command(at):
    """Runs commands, as most who break out do."""
    return os.popen("id; cat /etc/passwd").read() or os.system("exit 7") >> 8 == 7


@attack(told=False, fails=True)
def becomes_another_program(at):
    """Becomes another program, by its name or by a file that has none."""
    import shutil

    for path in (sys.executable, shutil.which("sh"), "/bin/sh", "/usr/bin/env", at.native):
        attempt(os.execv, path or "/bin/sh", [at.mark, "-c", f"import os; print(open({at.config!r}).read())"])
    raise PermissionError("it is what it was")


@attack(ends=("AttributeError",))
def runs_a_file_without_a_name(at):
    """Makes a file in memory, and runs it."""
    descriptor = call("memfd_create", b"x", 0)
    os.write(descriptor, b"#!/bin/sh\necho ran\n")
    os.environ.clear()
    if not os.fork():
        call("execveat", descriptor, b"", None, None, 0x1000)
        os._exit(1)
    return descriptor


@attack()
def multiplies(at):
    """Forks until it is stopped. Two hundred are proof enough."""
    import time

    born = 0
    for _ in range(200):
        if not os.fork():
            time.sleep(3)
            os._exit(0)
        born += 1
    return born


@attack(told=False)
def detaches(at):
    """Leaves a process behind in a session of its own, without a parent."""
    import time

    if not os.fork():
        attempt(os.setsid)
        if not os.fork():
            for descriptor in range(64):
                attempt(os.close, descriptor)
            time.sleep(20)
        os._exit(0)


@attack(told=False)
def leaves_a_command(at):
    """Leaves a command running that has nothing of its starter but the name."""
    import subprocess

    line = [sys.executable or "/usr/bin/python3", "-c", "import time; time.sleep(20)", at.mark]
    subprocess.Popen(line, start_new_session=True, stdin=-3, stdout=-3, stderr=-3)


@attack(told=False, ends=("RuntimeError",))
def leaves_a_thread(at):
    """Answers while a thread of it goes on."""
    import threading
    import time

    threading.Thread(target=time.sleep, args=(20,)).start()
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()


@attack(slow=True)
def stops_itself(at):
    """Stops, so that it neither runs nor ends: no limit of processor time ends it."""
    import signal

    helper = attempt(os.fork)
    if helper == 0:
        import time

        time.sleep(at.long)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)
    return "it went on"


@attack(slow=True)
def ignores_signals(at):
    """Ignores every signal that asks it to end, and burns on."""
    import signal
    import time

    for which in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        attempt(signal.signal, which, signal.SIG_IGN)
    until = time.monotonic() + at.long
    while time.monotonic() < until:
        pass
    return "it went on"


@attack(told=False)
def signals_its_neighbours(at):
    """Signals everything whose number is near its own."""
    import signal

    for pid in range(max(2, os.getpid() - 40), os.getpid() + 40):
        if pid != os.getpid():
            attempt(os.kill, pid, signal.SIGKILL)
