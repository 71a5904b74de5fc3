"""Measures POST /execute, from request to answer, beside what starting Python for the same program takes."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List

from .contestants import ours

TURNS = 20
CODE = "def add(a, b):\n    return a + b\n"
BODY = json.dumps({"code": CODE, "input": {"a": 1, "b": 2}})
WAYS = {
    "POST /execute, spares": "spares = 2",
    "POST /execute, template only": "spares = 0",
    "POST /execute, no template": "template = no",
}
INI = "[plugins.rate_limit]\nenabled = no\n[plugins.execute]\n"
Row = Dict[str, Any]


def programs(root: Path, args: List[str]) -> List[Row]:
    """Measure every way in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "add.py"
        file.write_text(f"{CODE}print(add(1, 2))\n", "utf-8")
        ways: Dict[str, Callable[[], None]] = {}
        missing = ""
        for number, (name, option) in enumerate(WAYS.items()):
            way = ours(root, name, args, ini=f"{INI}{option}\n")
            proxy = way.start(folder / str(number), 0)
            stack.callback(proxy.stop)
            connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
            stack.callback(connection.close)
            missing = asked(connection, "GET")["missing"] or ""
            if not missing:
                ways[name] = lambda connection=connection: answered(connection)
        for flags in ([], ["-I", "-S"], ["-I", "-S", "-B"]):
            command = [sys.executable, *flags, str(file)]
            told = f"subprocess.run([{', '.join(['python', *flags, 'file'])}])"
            ways[told] = lambda command=command: started(command)
        rows = timed(ways)
    return rows + [{"what": f"no program can be run here: {missing}"}] * bool(missing)


def timed(ways: Dict[str, Callable[[], None]]) -> List[Row]:
    millis: Dict[str, List[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 2):
        for name, act in ways.items():
            begun = time.perf_counter()
            act()
            if turn > 1:  # the first only warm the caches
                millis[name].append(1000 * (time.perf_counter() - begun))
    medians = {name: statistics.median(of) for name, of in millis.items()}
    bare = medians["subprocess.run([python, file])"]
    return [
        {
            "what": name,
            "median_ms": round(medians[name], 2),
            "best_ms": round(min(of), 2),
            "of_bare": round(medians[name] / bare, 2),
        }
        for name, of in millis.items()
    ]


def asked(connection: http.client.HTTPConnection, method: str) -> Any:
    body = BODY if method == "POST" else None
    connection.request(method, "/execute", body, {"Content-Type": "application/json"})
    return json.loads(connection.getresponse().read())


def answered(connection: http.client.HTTPConnection) -> None:
    answer = asked(connection, "POST")
    if answer.get("result") != 3:
        raise ValueError(f"add(1, 2) is answered {answer}")


def started(command: List[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=True)
    if done.stdout.strip() != b"3":
        raise ValueError(f"{command} says {done.stdout!r}")
