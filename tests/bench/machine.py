"""Programs under measure: started, waited for, watched through /proc, and ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Dict, Iterator, List, Optional

HERE = Path(__file__).resolve().parent
CORES = os.cpu_count() or 1
LOOPBACK = "127.0.0.1"
PATIENCE = 60.0  # seconds that a program may take to start
QUIET = 0.4  # seconds without work after which a start is over


class Unusable(Exception):
    """What cannot be measured here, and why in one line."""


class Program:
    """A running program that answers on a port of its own; made when it has answered `ready` for the first time."""

    def __init__(self, command: List[str], port: int, ready: bytes, folder: Path) -> None:
        """Start it. Raises Unusable when it ends, or does not answer 200 in time."""
        self.port = port
        self.log = folder / "log"
        begun = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(folder),
                cwd=str(folder),
                start_new_session=True,
            )
        try:
            self._wait_until(ready, begun + PATIENCE)
        except BaseException:
            self.stop()
            raise
        self.started = time.perf_counter() - begun
        self.idle: Optional[float] = None  # MiB at rest, when somebody looked

    def _wait_until(self, ready: bytes, deadline: float) -> None:
        heard = b""
        while not heard.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            if self.process.poll() is not None or time.perf_counter() > deadline:
                told = self.log.read_text("utf-8", "replace").strip() or heard.decode("utf-8", "replace")
                raise Unusable(f"it did not start: {' '.join(told[-300:].split())}")
            time.sleep(0.001)
            heard = asked(self.port, ready)

    @property
    def memory(self) -> Optional[float]:
        """Resident memory in MiB of it and its workers, without what they run beside; None where there is no /proc."""
        found = [re.search(r"VmRSS:\s*(\d+) kB", status_of(pid)) for pid in self._kin(True)]
        return round(sum(int(match.group(1)) for match in found if match) / 1024, 1) if any(found) else None

    @property
    def helpers(self) -> Optional[float]:
        """Resident memory in MiB of what it runs beside, such as processes that wait for programs to execute."""
        found = [re.search(r"VmRSS:\s*(\d+) kB", status_of(pid)) for pid in self._kin(False)]
        return round(sum(int(match.group(1)) for match in found if match) / 1024, 1) if self.memory else None

    def _kin(self, same: bool) -> List[int]:
        """Give it and those that came from it and have the same command line; or the others that came from it."""
        command = read(f"/proc/{self.process.pid}/cmdline")
        return [pid for pid in family(self.process.pid) if (read(f"/proc/{pid}/cmdline") == command) == same]

    @property
    def cpu(self) -> Optional[float]:
        """CPU seconds used so far by it and its children; None where there is no /proc."""
        ticks = [
            sum(map(int, stat.rpartition(")")[2].split()[11:13]))
            for stat in (read(f"/proc/{pid}/stat") for pid in family(self.process.pid))
            if stat
        ]
        return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None

    @property
    def threads(self) -> Optional[int]:
        found = [re.search(r"Threads:\s*(\d+)", status_of(pid)) for pid in family(self.process.pid)]
        return sum(int(match.group(1)) for match in found if match) if any(found) else None

    @property
    def files(self) -> Optional[int]:
        """Open files of it and its children; None where nobody may see them."""
        try:
            return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in family(self.process.pid))
        except OSError:
            return None

    def pin(self, core: int) -> None:
        """Keep it, with its threads and children, on one core."""
        for pid in family(self.process.pid):
            for task in tasks(pid):
                os.sched_setaffinity(task, {core})

    def settle(self, quiet: float = 0.05, most: float = 1.0) -> None:
        """Wait until it has had nothing to do for so many seconds."""
        until = time.perf_counter() + most
        before, now = None, self.cpu
        while before != now and time.perf_counter() < until:
            time.sleep(quiet)
            before, now = now, self.cpu

    def rest(self) -> None:
        """Wait until its start is over, with all it does in the background, and note the memory it has then."""
        self.settle(QUIET, 3.0)
        self.idle = self.memory

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with suppress(OSError, AttributeError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it left behind


def asked(port: int, request: bytes) -> bytes:
    """Give what is answered until the connection is closed; nothing when nobody is there."""
    try:
        with socket.create_connection((LOOPBACK, port), 10) as sock:
            sock.sendall(request)
            return b"".join(iter(lambda: sock.recv(65536), b""))
    except OSError:
        return b""


def family(pid: int) -> List[int]:
    """Give a process and all that come from it."""
    found = [pid]
    for one in found:
        for task in tasks(one):
            found += map(int, read(f"/proc/{one}/task/{task}/children").split())
    return found


def tasks(pid: int) -> List[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def pinned() -> Optional[int]:
    """Keep this process, and what it starts, off the last core; gives that core, or None where there is only one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, cores[:-1])
    return cores[-1]


def status_of(pid: int) -> str:
    return read(f"/proc/{pid}/status")


def read(file: str) -> str:
    try:
        return Path(file).read_text("utf-8", "replace")
    except OSError:
        return ""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def clean_environment(home: Path) -> Dict[str, str]:
    """Give an environment without the keys, proxies and settings of whoever measures."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home)}


def open_files() -> int:
    """Let this process, and what it starts, have as many files open as it may; gives how many that is."""
    try:
        import resource
    except ImportError:
        return 512
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 65536 if most == resource.RLIM_INFINITY else most
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted


def compiled(name: str, folder: Path) -> Optional[Path]:
    """Compile a C file of this folder; None where there is no compiler, or not the system it is written for."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler or not sys.platform.startswith("linux"):
        return None
    made = folder / name
    done = subprocess.run([compiler, "-O2", "-o", str(made), str(HERE / f"{name}.c")], capture_output=True, check=False)
    return made if done.returncode == 0 else None


@contextmanager
def upstream(folder: Path, in_c: bool = True) -> Iterator[Upstream]:
    """Bring up the upstream: the one in C where it can be compiled, else the one in Python."""
    made = compiled("upstream", folder) if in_c else None
    command = [str(made)] if made else [sys.executable, str(HERE / "source.py"), str(CORES)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Upstream(port, "C, one epoll loop" if made else f"Python, {CORES} selector loops")
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if made:
            process.kill()
        process.wait()


class Upstream:
    """What answers behind everything that is measured."""

    def __init__(self, port: int, told: str) -> None:
        self.port = port
        self.told = told
