"""Puts the layers of a plan around a process: what acts, in the order that matters.

The process that forks the runs (the template) is single-threaded, and does, in this order:

    plan, layers = walls.ready(plan)  # once: what holds here, and what that makes of the plan
    ...import what runs may need; the whole library if plan.preload...
    init = walls.enter(plan)          # once: namespaces and private root, or the fine list of Landlock
    directory = walls.private_directory(plan, slot)     # for each run
    ...fork...
    walls.confine(plan, slot, directory)     # in the child, when its descriptors are in their places

After `enter` only the paths of `plan.library` can be opened. The pid it gives is a child of the caller, the first
process of the namespace its later children are born in: when it ends (it does so only by force) nothing more can
be forked, so the caller has to end as well. When the caller ends the kernel kills it, and with it all that live
in its namespace.

Three things are settled here that are not to be seen elsewhere:

* All runs share one namespace of process ids, made once. One for each would cost a second fork and make the
  run its first process, on which signals fall differently; the filter lets a run name no process but itself.
* Where there is no other user id to be had, each run gets a user namespace of its own, for nothing but this: the
  kernel counts threads there by themselves, and not together with all others of the user.
* The filter comes last but for niceness. The parent is looked for after the signal of its death was asked for: it
  may have died before.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Dict, List, Optional

from . import filter as filters
from . import kernel, landlock, library, limits, steps
from .directory import make, remove, used
from .plan import Plan
from .trials import available, ready

__all__ = ["available", "close_others", "confine", "enter", "private_directory", "ready", "remove", "used"]


def enter(plan: Plan) -> Optional[int]:
    """Enter what all runs share; give the pid of the first process of their namespace, a child of the caller."""
    first = None
    _look_ahead(plan)
    if "limits" in plan.layers:
        _stand_back()
    if "namespaces" in plan.layers:
        steps.enter_root(plan)
        kernel.unshare(kernel.NEWPID)
        first = _first_process()
    elif "landlock" in plan.layers and not plan.nofs:
        kernel.prctl(kernel.NO_NEW_PRIVS, 1)
        granted = {entry: landlock.LOOK for path in steps.readable(plan) for entry in library.entries(path)}
        landlock.restrict({**granted, **_DEVICES, plan.folder: landlock.OWN})
    if "privileges" in plan.layers:
        kernel.prctl(kernel.DUMPABLE, 0)
    return first


def _look_ahead(plan: Plan) -> None:
    """Do what every run would have to do, or could not do any more."""
    steps.facts()
    library.load_late_ones()
    if "seccomp" in plan.layers:
        filters.program(os.uname().machine, 0, _files(plan))
    if "landlock" in plan.layers:
        landlock.version()


def _stand_back() -> None:
    """Let others go first: this process and its children are the kernel's choice when memory runs out.

    Many kernels share out the processor by sessions, and niceness then counts within one only. So all runs stay
    in one, that of this process, and have no more together than the proxy has.
    """
    with contextlib.suppress(PermissionError):  # it leads one already
        os.setsid()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def _first_process() -> int:
    """Fork the process that a namespace of process ids lives and dies with; it sleeps."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)
            os.write(theirs, b".")  # fails if the parent has died before it would have been noticed
            kernel.drop_capabilities()
            close_others(0)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    alive = os.read(ours, 1)
    os.close(ours)
    if not alive:
        raise OSError("the first process of the namespace died")
    return pid


def private_directory(plan: Plan, slot: int) -> Optional[str]:
    """Make a directory for a run that has no root of its own; None where it has, or shall not have a file."""
    if plan.nofs or "namespaces" in plan.layers or "landlock" not in plan.layers:
        return None
    return make(plan.folder, steps.user_of(plan, slot))


def confine(plan: Plan, slot: int, directory: Optional[str]) -> Optional[str]:
    """Confine the calling process, a fresh child of the one that entered, for good.

    Gives the directory that is its own, in which it stands; None without files. The descriptors are the
    caller's to have sorted before. Raises OSError: then nothing may be run.
    """
    parent = os.getppid()
    _begin_anew()
    user = steps.user_of(plan, slot)
    home = None if plan.nofs else directory
    if "namespaces" in plan.layers:
        home = steps.into_private_root(plan, user)
    if "limits" in plan.layers:
        steps.limit(plan, user)
    os.chdir(home or "/")
    os.umask(0o077)
    steps.become(user)
    if "privileges" in plan.layers:
        steps.give_up_privileges(parent)
    if "landlock" in plan.layers:
        landlock.restrict(_granted(plan, home))
    if "limits" in plan.layers:
        limits.leave_a_processor()
    if "seccomp" in plan.layers:
        kernel.install_filter(filters.program(os.uname().machine, os.getpid(), _files(plan)))
    if "limits" in plan.layers:
        limits.be_nice()  # so late because all before it takes longer after it
    return home


def _files(plan: Plan) -> str:
    return "none" if plan.nofs else "own" if "namespaces" in plan.layers else "listed"


def _begin_anew() -> None:
    """Take signals as a new process does."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


_DEVICES = {"/dev/null": landlock.READ | landlock.WRITE | landlock.TRUNCATE}


def _granted(plan: Plan, home: Optional[str]) -> Dict[str, int]:
    """Give what Landlock grants a run; without a private root it lies within what the template has granted itself."""
    if plan.nofs:
        return {}
    shown = ["/"] if "namespaces" in plan.layers else _shown(plan)
    return {**dict.fromkeys(shown, landlock.LOOK), **_DEVICES, **({home: landlock.OWN} if home else {})}


def _shown(plan: Plan) -> List[str]:
    out: List[str] = []
    for path in steps.readable(plan):  # what lies in the folder of private directories the template has all rights on
        out += library.entries(path) if path.startswith(plan.folder.rstrip("/") + "/") else [path]
    return out


def close_others(first: int) -> None:
    """Close all descriptors from `first` on."""
    try:
        kernel.call("close_range", first, 0xFFFFFFFF, 0)
    except OSError:  # older than Linux 5.9
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
