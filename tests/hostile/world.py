"""What stands around hostile programs: planted secrets and canaries, listeners, and somebody who looks.

The harm a program does is judged from outside: `World.harm` tells what was seen since the last look.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import stat
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 16 << 20  # bytes an answer may have that was cut to what a program may print
ABSENT = ("absent",)


def look_at(path: Path) -> Tuple[Any, ...]:
    """Give all that can be seen of a file: whose it is, when it was changed, what hangs on it."""
    try:
        it = path.lstat()
    except OSError:
        return ABSENT
    named = sorted(os.listdir(path)) if stat.S_ISDIR(it.st_mode) else []
    hung = sorted(os.listxattr(path, follow_symlinks=False)) if hasattr(os, "listxattr") else []
    return (
        it.st_mode,
        it.st_uid,
        it.st_gid,
        it.st_nlink,
        it.st_size,
        it.st_mtime_ns,
        it.st_ctime_ns,
        named,
        hung,
    )


def processes_called(mark: str) -> List[int]:
    """Give the processes whose name or command line holds the mark that every hostile program bears."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            told = text_of(f"/proc/{pid}/stat") + text_of(f"/proc/{pid}/cmdline")
            if mark in told and ") Z " not in told:
                found.append(int(pid))
    return found


def text_of(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 14).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def shared_memory_of(key: int) -> bool:
    """Tell whether there is a segment, a queue or a set of semaphores of this key, or of the one they agree on."""
    tables = "".join(text_of(f"/proc/sysvipc/{kind}") for kind in ("shm", "msg", "sem"))
    return bool(re.search(rf"^\s*({key}|{0x5A17})\s", tables, re.MULTILINE))


def condition_of(pid: int) -> Tuple[Any, ...]:
    """Give what one process can do to another: its state, priority, processors, limits and tracer."""
    folder = Path(f"/proc/{pid}")
    try:
        status = folder.joinpath("status").read_text("utf-8")
        traced = re.findall(r"^(?:TracerPid|Cpus_allowed):.*$", status, re.MULTILINE)
        stopped = re.search(r"^State:\s+[tTZX]", status, re.MULTILINE)
        nice = folder.joinpath("stat").read_text("utf-8").rpartition(")")[2].split()[16]
        score = folder.joinpath("oom_score_adj").read_text("ascii")
        return (bool(stopped), traced, nice, score, folder.joinpath("limits").read_text("ascii"))
    except OSError:
        return ABSENT


class World:
    """A folder anybody may enter, with a copy of the project, secrets, canaries and listeners.

    It belongs to the user the house runs as: nothing but the walls is in the way of a program that has
    that user's rights, and what everybody may read and write shows what holds a user without any.
    """

    def __init__(self, folder: Path, uid: int, library: Path = Path(os.__file__)) -> None:
        self.folder = folder
        self.uid = uid
        self.library = library.parent
        self.secrets = {
            place: f"PLANTED-{secrets.token_hex(8)}"
            for place in ("config", "environment", "command line", "token", "key file", "canary", "module", "log")
        }
        self._plant()
        self.sources = sorted((folder / "house").rglob("*.py"))
        self._listen()
        self.watched = {"pid": 0}
        self.port = 0
        self.seen = self._snapshot()

    def _plant(self) -> None:
        here = self.folder
        here.mkdir(mode=0o755, exist_ok=True)
        shutil.copytree(ROOT, here / "house", ignore=shutil.ignore_patterns("tests", ".*", "__pycache__", "config.ini"))
        for name in ("home/.ssh", "open", "tmp", "packages"):
            (here / name).mkdir(parents=True)
        texts = {
            "config.ini": "",
            "canary": f"a canary with {self.secrets['canary']}\n",
            "home/.ssh/id_rsa": f"-----BEGIN KEY-----\n{self.secrets['key file']}\n",
            "planted.py": f"KEY = {self.secrets['module']!r}\n",
            "open/keep": "keep this\n",
            "packages/installed.py": "",
            "log": f"{self.secrets['log']}\n",
        }
        for name, words in texts.items():
            (here / name).write_text(words, "utf-8")
        for library in sorted((self.library / "lib-dynload").glob("*.so"))[:1]:
            shutil.copy(library, here / "native.so")
        (here / "link").symlink_to(here / "canary")
        for path in [here, *here.rglob("*")]:
            if os.getuid() == 0:
                os.chown(path, self.uid, self.uid, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(0o755 if path in (here, here / "native.so") else 0o777 if path.is_dir() else 0o666)

    def _listen(self) -> None:
        """Open listeners of every kind; nobody waits at them: who came is seen afterwards."""
        here = self.folder
        self.name = f"planted-{secrets.token_hex(8)}"
        self.names = {"unix": str(here / "stream.sock"), "dgram": str(here / "dgram.sock")}
        self.abstract = {"abstract": f"{self.name}-stream", "abstract_dgram": f"{self.name}-dgram"}
        kinds: Dict[str, Tuple[int, int, Any]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, self.names["unix"]),
            "dgram": (socket.AF_UNIX, socket.SOCK_DGRAM, self.names["dgram"]),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.abstract["abstract"]),
            "abstract_dgram": (socket.AF_UNIX, socket.SOCK_DGRAM, "\0" + self.abstract["abstract_dgram"]),
        }
        self.listeners: Dict[str, socket.socket] = {}
        for kind, (family, form, address) in kinds.items():
            with contextlib.suppress(OSError):  # a machine without IPv6
                listener = socket.socket(family, form)
                self.listeners[kind] = listener
                listener.bind(address)
                listener.setblocking(False)
                if form == socket.SOCK_STREAM:
                    listener.listen(64)
        for path in self.names.values():
            os.chmod(path, 0o777)

    def told(self, mark: str) -> Dict[str, Any]:
        """Give what a program is told: where everything is that it is to harm."""
        here = self.folder
        ports = {kind: self.listeners[kind].getsockname()[1] for kind in ("tcp", "udp")}
        tcp6 = self.listeners.get("tcp6")
        pid = self.watched["pid"]
        return {
            "mark": mark,
            "name": self.name,
            "pid": pid,
            "group": os.getpgid(pid) if pid and condition_of(pid) != ABSENT else 0,
            "port": self.port,
            **ports,
            **self.names,
            **self.abstract,
            "tcp6": tcp6.getsockname()[1] if tcp6 and tcp6.getsockname() else 0,
            "config": str(here / "config.ini"),
            "source": str(here / "house" / "llmproxy.py"),
            "log": str(here / "log"),
            "home": str(here / "home"),
            "folder": str(here),
            "canary": str(here / "canary"),
            "link": str(here / "link"),
            "open": str(here / "open"),
            "keep": str(here / "open" / "keep"),
            "native": str(here / "native.so"),
            "temporary": str(here / "tmp"),
            "packages": [str(here / "packages")],
            "places": [str(place) for place in self.places()],
            "targets": [
                str(here / "config.ini"),
                str(here / "canary"),
                str(self.library / "os.py"),
                str(here / "open"),
            ],
            "memory": 256,
            "disk": 16,
            "processes": 32,
            "files": 64,
        }

    def places(self) -> List[Path]:
        """Give the places where programs try to leave something, and where it is looked for."""
        here = self.folder
        own = [here, here / "open", here / "home", here / "house", here / "house" / "plugins", here / "packages"]

        return [
            *own,
            self.library,
            self.library / "__pycache__",
            Path("/tmp"),
            Path("/var/tmp"),
            Path("/dev/shm"),
            Path("/"),
        ]

    def environment(self) -> Dict[str, str]:
        """Give the environment the house is started in."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), "PYTHONUTF8": "1"}
        return {**kept, **own, "PYTHONUNBUFFERED": "1", "OPENAI_API_KEY": self.secrets["environment"]}

    def _watched_paths(self) -> Iterator[Path]:
        here = self.folder
        yield from (here / name for name in ("config.ini", "canary", "planted.py", "native.so", "link", "packages"))
        yield from (here / name for name in ("open", "open/keep", "home", "home/.ssh", "home/.ssh/id_rsa"))
        yield from self.sources
        yield self.library / "os.py"

    def _snapshot(self) -> Dict[str, Any]:
        seen = {str(path): look_at(path) for path in self._watched_paths()}
        seen["/dev/null"] = look_at(Path("/dev/null"))[:3]
        if self.watched["pid"]:
            seen["the proxy"] = condition_of(self.watched["pid"])
        return seen

    def watch(self, pid: int, port: int) -> None:
        """Watch a process from now on: the proxy, or who stands for it."""
        self.watched, self.port = {"pid": pid}, port
        self.seen = self._snapshot()

    def harm(self, marks: Sequence[str], answer: bytes) -> List[str]:
        """Tell what harm is seen that was not there at the last look; `marks` are of the programs since then."""
        before, self.seen = self.seen, self._snapshot()
        changed = [path for path in {**before, **self.seen} if before.get(path) != self.seen.get(path)]
        told = {place: secret.encode() in answer for place, secret in self.secrets.items()}
        return [
            *(f"{path} changed: {before.get(path)} is {self.seen.get(path)}" for path in changed),
            *(f"the secret of the {place} is in the answer" for place, is_told in told.items() if is_told),
            *(f"somebody came to the {kind} listener" for kind in self.listeners if self._visited(kind)),
            *(f"{path} was left" for place in self.places() for path in self._left(place, marks)),
            *(f"shared memory of {mark} was left" for mark in marks if shared_memory_of(int(mark[1:], 16))),
            *(f"an answer of {len(answer)} bytes" for _ in [0] if len(answer) > LARGEST * len(marks)),
        ]

    def _left(self, place: Path, marks: Sequence[str]) -> List[Path]:
        """Give what programs left at a place, and remove it."""
        found: List[Path] = []
        with contextlib.suppress(OSError):
            found = [place / name for name in os.listdir(place) if any(mark in name for mark in (*marks, self.name))]
        for path in found:
            with contextlib.suppress(OSError):
                path.unlink()
        return [path for path in found if path != self.folder]

    def _visited(self, kind: str) -> bool:
        listener = self.listeners[kind]
        visited = False
        with contextlib.suppress(OSError):
            while True:
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(100)
                visited = True
        return visited

    def close(self) -> None:
        for listener in self.listeners.values():
            listener.close()
