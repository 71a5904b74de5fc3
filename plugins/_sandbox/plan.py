"""What is to be put around a run: the layers, the limits, the paths; and in words what that promises.

Pure data, that travels as JSON between the proxy and the process it starts.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Tuple

JSON = Dict[str, Any]
MIB = 1 << 20

#: layer -> what it is
LAYERS: Dict[str, str] = {
    "limits": "limits of memory, processor time, threads, open files and file size, and a low priority",
    "privileges": "no capability, none to be gained, closed to other processes, dead with its parent",
    "identity": "a user id of its own for each run at a time; only root can give one",
    "namespaces": "a read-only root of its own with nothing but Python's library, a small private tmpfs, "
    "and no network, no foreign process and no host name in sight",
    "landlock": "files by list, no TCP, no signal and no abstract socket that leads outside",
    "seccomp": "only the system calls that Python needs: no socket, no new process, no program, no tracing",
}
#: there is no run without these: the rest cannot be promised when one is missing
NEEDED = ("limits", "privileges", "seccomp")


class Limits(NamedTuple):
    """What a run may use: seconds, bytes and numbers."""

    timeout: float = 10.0  # of the wall's clock
    cpu: int = 10  # seconds, of all threads together
    memory: int = 256 * MIB  # of address space
    processes: int = 32  # threads: it can start no process at all
    file_size: int = 16 * MIB
    disk: int = 16 * MIB  # all files together
    open_files: int = 64
    output: int = MIB  # kept of stdout and of stderr each
    result: int = 4 * MIB


class Plan(NamedTuple):
    """What is to be put around runs.

    Made by the proxy with the layers that are wanted; what `decided` gives back holds those that are to be had.
    """

    layers: Tuple[str, ...] = tuple(LAYERS)
    limits: Limits = Limits()
    library: Tuple[str, ...] = ()  # paths that may be read; found out where they are needed when empty
    nofs: bool = False  # no file can be opened, so there is no private directory
    folder: str = "/tmp"  # noqa: S108 - where private directories are made, 0700, when there is no private root
    first_uid: int = 2_000_000_000  # the first of those that runs may have, where there are that many
    preload: bool = False  # the library cannot be reached from inside: import the whole of it beforehand


def level(layers: Iterable[str]) -> str:
    """Give how much these layers promise: A, B, C, or "" when it is too little to run anything."""
    held = set(layers)
    if not held.issuperset(NEEDED):
        return ""
    return "A" if "namespaces" in held else "B" if "landlock" in held else "C"


def decided(plan: Plan, holds: Mapping[str, str], reachable: bool = True) -> Plan:
    """Give the plan with the layers that hold here, as `walls.available` found them.

    `reachable` tells whether the library can be read from inside. At level C no file can be opened.
    """
    layers = tuple(layer for layer in plan.layers if not holds[layer])
    nofs = plan.nofs or level(layers) == "C"
    return plan._replace(layers=layers, nofs=nofs, preload=nofs or plan.preload or not reachable)


_ALWAYS = (
    "No socket of any kind can be opened, no process or program started, no other process seen, signalled or traced.",
    "Nothing of the proxy can be reached: not its memory, environment, command line, descriptors or files.",
    "No privilege can be gained, and nothing is left when the answer is sent.",
    "Time, processor time, memory, threads, output and result are bounded.",
)
_PROMISES: Dict[str, Tuple[str, ...]] = {
    "": (),
    "A": (
        "No file of this machine can be read or written, or even be seen, but Python's own library.",
        "What a run writes, it writes to a small file system of its own in memory.",
        *_ALWAYS,
    ),
    "B": (
        "No file of this machine can be read but Python's own library, and none written outside of the run's own "
        "directory.",
        *_ALWAYS,
    ),
    "C": ("No file can be opened at all, or even be seen.", *_ALWAYS),
}


def promises(level: str) -> List[str]:
    """Give what a level promises, in sentences."""
    return list(_PROMISES[level])


#: (layers that are missing, layers that are there) -> what is therefore not promised
_LACKS: Tuple[Tuple[Tuple[str, ...], Tuple[str, ...], str], ...] = (
    (("seccomp",), (), "Without seccomp nothing is run: sockets, new processes and the whole kernel would be open."),
    (("limits",), (), "Without limits nothing is run: one run could take all memory and time."),
    (("privileges",), (), "Without giving up privileges nothing is run: the other layers could be taken off again."),
    (
        ("namespaces",),
        ("landlock",),
        "That a file or a process exists, a file's size and times, and this machine's name can be seen.",
    ),
    (("namespaces",), ("landlock",), "The disk is bounded by looking at it now and then, and not by a mount."),
    (("namespaces", "landlock"), (), "A run has no file at all, not even a private one."),
    (("namespaces", "landlock"), (), "This machine's name can be seen."),
    (("landlock",), ("namespaces",), "Files are held by the private root alone, with no second wall behind it."),
    (
        ("identity",),
        (),
        "Runs have the user id of the proxy: they are kept from each other and from its files by the other layers.",
    ),
    (
        ("identity", "namespaces"),
        (),
        "Threads are counted together with all others of the same user, so their bound is a loose one.",
    ),
)


def lacks(layers: Iterable[str]) -> List[str]:
    """Give what is not promised with no more than these layers, in sentences."""
    held = set(layers)
    return [words for missing, there, words in _LACKS if held.isdisjoint(missing) and held.issuperset(there)]


def to_json(plan: Plan) -> JSON:
    """Give a plan as JSON."""
    return {**plan._asdict(), "limits": plan.limits._asdict()}


def from_json(document: JSON) -> Plan:
    """Give the plan that `to_json` was given."""
    fields = {**document, "limits": Limits(**document["limits"])}
    return Plan(**{**fields, **{name: tuple(fields[name]) for name in ("layers", "library")}})
