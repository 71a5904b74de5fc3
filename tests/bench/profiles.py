"""Where the proxy's time goes: by function, by what the kernel and the interpreter do, and by system calls."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

from .clients import Load, Row
from .contestants import Contestant
from .machine import Unusable
from .parts import ROADS, Bench, Runner, on

CONNECTIONS = 64
SECONDS = 2.0
TOP = 20


def profiles(bench: Bench, sampled: Callable[[str], Contestant], plain: Contestant) -> List[Row]:
    """Give for each road, whole and streamed: the functions, what perf sees, and the system calls of a request."""
    rows = []
    for road in ROADS:
        for stream in (False, True):
            told: Row = {"road": road, "stream": stream, **by_function(bench, sampled, road, stream)}
            program = bench.start(plain)
            try:
                runner = on(plain, road, program)
                told["perf"] = by_symbol(bench, runner, stream)
                told["calls"] = by_call(bench, runner, stream)
            finally:
                program.stop()
            rows.append(told)
    return rows


def load(runner: Runner, stream: bool, seconds: float = SECONDS) -> Load:
    return Load(runner.port, runner.way.request("bench-200" if stream else "bench", stream), CONNECTIONS, seconds)


def by_function(bench: Bench, sampled: Callable[[str], Contestant], road: str, stream: bool) -> Row:
    """Run the proxy under the sampler."""
    file = bench.folder / "samples"
    contestant = sampled(str(file))
    program = bench.start(contestant)
    try:
        row = bench.client.loaded(load(on(contestant, road, program), stream))
    finally:
        program.stop()
    if not file.exists():
        raise Unusable("the sampler wrote nothing: the program did not end by itself")
    return {
        "per_s": row["words_per_s"] if stream else row["per_s"],
        "wrong": row["wrong"],
        **json.loads(file.read_text()),
    }


def beside(bench: Bench, runner: Runner, stream: bool, command: List[str]) -> Optional[Row]:
    """Load someone while a tool looks at it; gives the row, or None when the tool cannot."""
    tool = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    if tool.poll() is not None:
        return None
    try:
        return bench.client.loaded(load(runner, stream, SECONDS / 2))
    finally:
        tool.send_signal(signal.SIGINT)
        tool.wait(30)


def by_symbol(bench: Bench, runner: Runner, stream: bool) -> List[Row]:
    """Give what perf sees: shares of the kernel, the interpreter, and so on, and of single functions of theirs."""
    perf = shutil.which("perf")
    if not perf or not runner.program:
        return []
    file = bench.folder / "perf.data"
    pid = str(runner.program.process.pid)
    if beside(bench, runner, stream, [perf, "record", "-q", "-e", "cpu-clock", "-o", str(file), "-p", pid]) is None:
        return []
    rows: List[Row] = []
    for keys, most in (("dso", 5), ("dso,symbol", 12)):
        told = [perf, "report", "--stdio", "-q", "-i", str(file), "--sort", keys, "--percent-limit", "0.5"]
        done = subprocess.run(told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        found = re.findall(r"^\s*([\d.]+)%\s+(.*?)\s*$", done.stdout.decode("utf-8", "replace"), re.MULTILINE)
        rows += [{"where": re.sub(r"\s+", " ", name), "share": float(share) / 100} for share, name in found[:most]]
    return rows


def by_call(bench: Bench, runner: Runner, stream: bool) -> Dict[str, float]:
    """Give the system calls of a request (or of a word), as strace counts them; nothing where it is not or may not."""
    strace = shutil.which("strace")
    if not strace or not runner.program:
        return {}
    file = bench.folder / "calls"
    command = [strace, "-f", "-c", "-o", str(file), "-p", str(runner.program.process.pid)]
    row = beside(bench, runner, stream, command)
    return counted(file, row["all_words" if stream else "all_answers"]) if row else {}


def counted(file: Path, times: int) -> Dict[str, float]:
    """Read what strace wrote: calls by name, each time."""
    found = {}
    for line in file.read_text("utf-8", "replace").splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0].replace(".", "").isdigit() and fields[-1] != "total" and times:
            found[fields[-1]] = round(int(fields[3]) / times, 2)
    return {name: each for name, each in sorted(found.items(), key=lambda item: -item[1]) if each >= 0.01}
