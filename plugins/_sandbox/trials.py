"""What of a plan holds on this machine: each layer is tried in a throw-away child."""

from __future__ import annotations

import functools
import os
import sys
from typing import Callable, Dict, Tuple

from . import filter as filters
from . import kernel, landlock, library, limits, steps
from .kernel import in_child
from .plan import LAYERS, Plan, decided


def available(plan: Plan) -> Dict[str, str]:
    """Give for each layer of the plan "" when it holds here, else why not: each is tried in a throw-away child."""
    if not sys.platform.startswith("linux"):
        return dict.fromkeys(LAYERS, f"it takes Linux, and this is {sys.platform}")
    out: Dict[str, str] = dict.fromkeys(LAYERS, "not wanted")
    for layer in sorted(plan.layers, key=_ORDER.index):
        held = tuple(one for one, why in out.items() if not why)
        out[layer] = _why_not(layer, plan._replace(layers=(*held, layer)))
    return out


_ORDER = ("namespaces", "identity", "privileges", "limits", "landlock", "seccomp")  # limits are tried with an identity


def _why_not(layer: str, plan: Plan) -> str:
    try:
        in_child(functools.partial(_TRIALS[layer], plan))
    except OSError as error:
        return _WORDS.get(layer, "{}").format(error)
    return ""


_WORDS = {
    "namespaces": "this kernel lets this user have no namespaces of its own ({})",
    "landlock": "this kernel has no Landlock, or it is switched off ({})",
}


def _try_namespaces(plan: Plan) -> bytes:
    """Enter as `enter` does, and be a run there with no other layer."""
    only = plan._replace(layers=("namespaces",), nofs=False)
    steps.enter_root(plan)
    kernel.unshare(kernel.NEWPID)

    def run() -> bytes:
        home = steps.into_private_root(only, None)
        os.close(os.open(f"{home}/made", os.O_CREAT | os.O_WRONLY, 0o600))
        return str(os.listdir("/")).encode()

    seen = in_child(run)
    if b"'proc'" in seen:
        raise OSError(f"the private root shows {seen.decode()}")
    return b""


def _try_user(plan: Plan) -> bytes:
    if not steps.facts().root:
        raise OSError("only root can give a user id of its own")
    if steps.in_user_namespace(plan):
        raise OSError("there is no other user id in a user namespace")
    steps.become(steps.user_of(plan, 0))
    return b""


def _try_limits(plan: Plan) -> bytes:
    if steps.user_of(plan, 0) is None and "namespaces" in plan.layers:
        kernel.unshare(kernel.NEWUSER)
    steps.become(steps.user_of(plan, 0))
    kernel.drop_capabilities()
    limits.check_threads()
    limits.impose(limits.numbers(plan.limits, 1, plan.limits.file_size))
    return b""


def _try_privileges(_plan: Plan) -> bytes:
    steps.give_up_privileges(os.getppid())
    return b""


def _try_landlock(_plan: Plan) -> bytes:
    kernel.prctl(kernel.NO_NEW_PRIVS, 1)
    landlock.restrict({})
    try:
        os.listdir("/")
    except PermissionError:
        return b""
    raise OSError("Landlock lets everything pass")


def _try_seccomp(_plan: Plan) -> bytes:
    machine = os.uname().machine
    if machine not in filters.MACHINES or sys.maxsize < 1 << 32:
        raise OSError(f"there is no filter for this machine ({machine}, {sys.maxsize.bit_length() + 1} bits)")
    kernel.prctl(kernel.NO_NEW_PRIVS, 1)
    kernel.install_filter(filters.program(machine, os.getpid(), "none"))
    try:
        os.listdir("/")
    except PermissionError:
        return b""
    raise OSError("seccomp lets everything pass")


_TRIALS: Dict[str, Callable[[Plan], bytes]] = {
    "namespaces": _try_namespaces,
    "identity": _try_user,
    "privileges": _try_privileges,
    "limits": _try_limits,
    "landlock": _try_landlock,
    "seccomp": _try_seccomp,
}


def ready(plan: Plan) -> Tuple[Plan, Dict[str, str]]:
    """Give the plan as it can be carried out here, and what `available` found.

    With level C it is one without files; `preload` is set where runs cannot reach the library.
    """
    layers = available(plan)
    if not sys.platform.startswith("linux"):
        return plan._replace(layers=()), layers
    plan = decided(plan, layers)._replace(library=steps.readable(plan))
    reached = plan.nofs or steps.works(functools.partial(_try_reach, plan))
    return decided(plan, layers, reached), layers


def _try_reach(plan: Plan) -> bytes:
    """Look at the library as a run will."""
    if "namespaces" in plan.layers:
        steps.enter_root(plan)
    steps.become(steps.user_of(plan, 0))
    for folder in library.folders():
        os.listdir(folder)
    os.close(os.open(os.__file__, os.O_RDONLY))
    return b""
