"""The clients of the benchmark behind one face: wrk, the one in C, the one in Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from .machine import CORES, HERE, compiled

Row = Dict[str, Any]
WARM_UP = 0.2  # seconds before anything counts


class Load(NamedTuple):
    """What to ask, from how many connections, for how long; with `once` each asks once, starting within `spread` s."""

    port: int
    request: bytes
    connections: int
    seconds: float
    spread: float = 0.0
    once: bool = False


class Client:
    """Keeps connections busy and tells what it saw; with wrk where whole answers are asked for a second or more."""

    def __init__(self, folder: Path, which: str = "") -> None:
        """Find what there is; `which` (wrk, c or python) wants just that one where it can be used."""
        self.folder = folder
        self.wrk = shutil.which("wrk") if which in ("", "wrk") else None
        self.made = compiled("client", folder) if which != "python" else None
        self.streams_told = "C, one epoll loop" if self.made else f"Python, up to {CORES} selector loops"

    def told(self, seconds: float) -> str:
        """Say what asks for whole answers that long."""
        return "wrk, one thread" if self.wrk and seconds >= 1 else self.streams_told

    def loaded(self, load: Load, watch: Optional[Callable[[], None]] = None) -> Row:
        """Give the row of figures of a load; `watch` is called now and then meanwhile."""
        if self.wrk and load.seconds >= 1 and not load.once and b'"stream":true' not in load.request:
            return self._by_wrk(self.wrk, load)
        seen = self._seen(load, 0.0 if load.once else WARM_UP, watch)
        return figures(load, seen)

    def _seen(self, load: Load, warm_up: float, watch: Optional[Callable[[], None]] = None) -> Row:
        """Give what the own clients print, all of them together."""
        program = [str(self.made)] if self.made else [sys.executable, str(HERE / "client.py")]
        processes = 1 if self.made else min(CORES, load.connections)
        shares = [load.connections // processes + (at < load.connections % processes) for at in range(processes)]
        file = self.folder / "request"
        file.write_bytes(load.request)
        clients = []
        for share in shares:
            told = [load.port, share, load.seconds, warm_up, load.spread, int(load.once)]
            with file.open("rb") as request:
                clients.append(
                    subprocess.Popen([*program, *map(str, told)], stdin=request, stdout=subprocess.PIPE, bufsize=-1)
                )
        if watch:
            # what they print comes at their end, when it does not fit into a pipe they wait there to be read
            until = time.monotonic() + load.seconds
            while any(client.poll() is None for client in clients) and time.monotonic() < until:
                watch()
                time.sleep(0.1)
        return together([json.loads(client.communicate()[0]) for client in clients])

    def _by_wrk(self, wrk: str, load: Load) -> Row:
        warm = self._seen(load._replace(seconds=0.0), WARM_UP)
        file = self.folder / "request"
        file.write_bytes(load.request)
        url = f"http://127.0.0.1:{load.port}/"
        told = ["-t1", f"-c{load.connections}", f"-d{round(load.seconds)}s", "--timeout", "30s"]
        command = [wrk, *told, "-s", str(HERE / "ask.lua"), url, "--", str(file)]
        done = subprocess.run(command, capture_output=True, check=True)
        seen = json.loads(done.stdout.splitlines()[-1])
        good = seen["requests"] - seen["wrong"]["status"]
        wrong = {what: times for what, times in seen["wrong"].items() if times}
        reasons = [f"{times}x {what} (wrk)" for what, times in wrong.items()]
        if wrong.get("status"):
            reasons += [f"{times}x {reason}" for reason, times in warm["wrong"].items()]
        return {
            "per_s": round(1e6 * good / seen["took"]),
            "p50_ms": seen["p50"] / 1000 if good else None,
            "p99_ms": seen["p99"] / 1000 if good else None,
            "requests": good,
            "all_answers": seen["requests"] + warm["all_answers"],
            "all_words": 0,
            "wrong": reasons,
        }


def together(seen: List[Row]) -> Row:
    """Make one of what several clients saw."""
    told: Row = {"elapsed": max(one["elapsed"] for one in seen), "wrong": {}}
    for name in ("times", "firsts", "delays"):
        told[name] = sorted(value for one in seen for value in one[name])
    for name in ("words", "all_words", "all_answers", "made_again"):
        told[name] = sum(one[name] for one in seen)
    for one in seen:
        for reason, times in one["wrong"].items():
            told["wrong"][reason] = told["wrong"].get(reason, 0) + times
    return told


def figures(load: Load, seen: Row) -> Row:
    """Give the figures of what was seen."""
    took = seen["elapsed"] or 1.0
    row: Row = {
        "per_s": round(len(seen["times"]) / took),
        "words_per_s": round(seen["words"] / took),
        "requests": len(seen["times"]),
        "all_answers": seen["all_answers"],
        "all_words": seen["all_words"],
        "made_again": seen["made_again"],
        "wrong": [f"{times}x {reason}" for reason, times in seen["wrong"].items()],
    }
    for name, values in (("", seen["times"]), ("first_", seen["firsts"]), ("delay_", seen["delays"])):
        for percent in (50, 99):
            row[f"{name}p{percent}_ms"] = quantile(values, percent)
    return row


def quantile(micros: List[int], percent: int) -> Optional[float]:
    """Give a quantile of sorted microseconds in milliseconds."""
    if not micros:
        return None
    return round(micros[min(len(micros) - 1, len(micros) * percent // 100)] / 1000, 3)


def chat(model: str, stream: bool = False, **more: Any) -> Row:
    """Give a chat of about a kilobyte."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant. " * 5},
        {"role": "user", "content": "Tell me about the weather in the mountains. " * 15},
    ]
    asked: Row = {"model": model, "messages": messages, "temperature": 0.5, **more}
    return {**asked, "stream": True} if stream else asked


def posted(path: str, body: Any, **headers: str) -> bytes:
    """Give a whole request."""
    data = json.dumps(body, separators=(",", ":"))
    fields = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Authorization": "Bearer none",
        **headers,
        "Content-Length": str(len(data)),
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", data]
    return "\r\n".join(lines).encode()


def got(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
