"""Measures the proxy beside its upstream alone: start, memory, requests, streams; its reader of heads; and programs.

    python3 tests/bench [--json] [--seconds 1.5] [--only start,programs] [-- options of llmproxy.py]

Only the standard library; takes less than a minute. The machine's other work shows in the figures: compare
within one run. Nothing is judged here.
"""

from __future__ import annotations

import argparse
import http.server
import io
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORES = os.cpu_count() or 1
STARTS = 9
REQUEST_CONNECTIONS = (1, 16, 64)
STREAM_CONNECTIONS = (1, 50)
SHORT, LONG = 3, 200  # words in a stream
PROVIDER = "openai"  # the one that is measured
WARM_UP = 0.3  # seconds before anything counts
PARTS = "start,heads,requests,streams,programs"

HEADS = 200  # read at a time, by each reader in turn
sys.path.insert(0, str(ROOT))

from plugins import _server  # noqa: E402
from providers import _http  # noqa: E402

#: a page's `fetch` in Chromium, and a call of the `openai` package, as they send them
BROWSER = b"".join(
    line + b"\r\n"
    for line in (
        b"POST /llm HTTP/1.1",
        b"Host: 127.0.0.1:3500",
        b"Connection: keep-alive",
        b"Content-Length: 1423",
        b'sec-ch-ua-platform: "Linux"',
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 "
        b"Safari/537.36",
        b'sec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8"',
        b"Content-Type: application/json",
        b"sec-ch-ua-mobile: ?0",
        b"Accept: */*",
        b"Origin: http://localhost:5173",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Mode: cors",
        b"Sec-Fetch-Dest: empty",
        b"Referer: http://localhost:5173/",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Accept-Language: en-US,en;q=0.9",
        b"",
    )
)
SDK = b"".join(
    line + b"\r\n"
    for line in (
        b"POST /llm/v1/chat/completions HTTP/1.1",
        b"Host: 127.0.0.1:3500",
        b"Accept-Encoding: gzip, deflate",
        b"Connection: keep-alive",
        b"Accept: application/json",
        b"Content-Type: application/json",
        b"User-Agent: OpenAI/Python 2.3.0",
        b"X-Stainless-Lang: python",
        b"X-Stainless-Package-Version: 2.3.0",
        b"X-Stainless-OS: Linux",
        b"X-Stainless-Arch: x64",
        b"X-Stainless-Runtime: CPython",
        b"X-Stainless-Runtime-Version: 3.11.7",
        b"Authorization: Bearer none",
        b"X-Stainless-Async: false",
        b"x-stainless-retry-count: 0",
        b"x-stainless-read-timeout: 600",
        b"Content-Length: 1423",
        b"",
    )
)

Row = Dict[str, Any]


# what is measured


class Proxy:
    """A proxy of this tree on a port of its own."""

    def __init__(self, folder: Path, ini: str, args: List[str]) -> None:
        config = folder / "config.ini"
        config.write_text(ini, "utf-8")
        self.port = free_port()
        command = [sys.executable, str(ROOT / "llmproxy.py"), "--config", str(config), "--port", str(self.port), *args]
        self.log = folder / "log"
        begun = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(folder)
            )
        self._wait_until_ok()
        self.started = time.perf_counter() - begun

    def _wait_until_ok(self) -> None:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                    sock.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    if b"".join(iter(lambda: sock.recv(4096), b"")).endswith(b"ok"):
                        return
            except OSError:
                pass
            if self.process.poll() is not None:
                sys.exit(f"llmproxy.py did not start:\n{self.log.read_text('utf-8', 'replace')}")
            time.sleep(0.001)

    @property
    def memory(self) -> Optional[float]:
        """Resident memory in MiB of it and its workers; None where there is no /proc."""
        found = [re.search(r"VmRSS:\s*(\d+) kB", text) for text in map(status_of, family(self.process.pid))]
        return round(sum(int(match.group(1)) for match in found if match) / 1024, 1) if any(found) else None

    @property
    def cpu(self) -> Optional[float]:
        """CPU seconds used so far by it and its workers; None where there is no /proc."""
        try:
            stats = [Path(f"/proc/{pid}/stat").read_text("ascii", "replace") for pid in family(self.process.pid)]
        except OSError:
            return None
        ticks = [sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def family(pid: int) -> List[int]:
    """Give a process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def status_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return ""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def clean_environment(home: Path) -> Dict[str, str]:
    """Give an environment without the keys, proxies and settings of whoever measures."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home)}


@contextmanager
def source() -> Iterator[int]:
    """Bring up the upstream; gives its port."""
    process = subprocess.Popen([sys.executable, str(HERE / "source.py")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def settings(port: int) -> str:
    """Give the settings that lead to the upstream, with no guard that counts requests."""
    ini = f"[providers.{PROVIDER}]\nbase_url = http://127.0.0.1:{port}\napi_key = bench\n"
    if (ROOT / "plugins" / "rate_limit.py").exists():
        ini += "[plugins.rate_limit]\nenabled = no\n"
    return ini


def chat(stream: bool = False, words: int = SHORT, **more: str) -> Dict[str, Any]:
    """Give a chat of about a kilobyte."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant. " * 5},
        {"role": "user", "content": "Tell me about the weather in the mountains. " * 15},
    ]
    asked: Dict[str, Any] = {**more, "model": f"bench-{words}", "messages": messages, "temperature": 0.5}
    return {**asked, "stream": True, "stream_options": {"include_usage": True}} if stream else asked


def request(path: str, body: Dict[str, Any]) -> str:
    """Give a whole request."""
    data = json.dumps(body, separators=(",", ":"))
    fields = ["Host: 127.0.0.1", "Content-Type: application/json", "Authorization: Bearer none"]
    return "\r\n".join([f"POST {path} HTTP/1.1", *fields, f"Content-Length: {len(data)}", "", data])


def loaded(port: int, asked: str, connections: int, seconds: float) -> Row:
    """Keep so many connections busy, from as many processes as there are cores for it."""
    processes = min(CORES, connections)
    start = time.time() + 0.3
    clients = []
    for at in range(processes):
        share = connections // processes + (at < connections % processes)
        plan = {"port": port, "request": asked, "connections": share, "start": start, "seconds": seconds}
        client = subprocess.Popen(
            [sys.executable, str(HERE / "load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        clients.append((client, json.dumps({**plan, "warm_up": WARM_UP}).encode()))
    for client, plan_ in clients:
        assert client.stdin is not None
        client.stdin.write(plan_)
        client.stdin.close()
        client.stdin = None
    seen = [json.loads(client.communicate()[0]) for client, _ in clients]
    took = max(one["elapsed"] for one in seen)
    times, firsts = ([1000 * t for one in seen for t in one[of]] for of in ("seconds", "first"))
    wrong = [f"{times}x {reason}" for one in seen for reason, times in one["wrong"].items()]
    return {
        "connections": connections,
        "per_s": round(len(times) / took),
        "chunks_per_s": round(sum(one["events"] for one in seen) / took),
        "p50_ms": quantile(times, 50),
        "p99_ms": quantile(times, 99),
        "first_p50_ms": quantile(firsts, 50),
        "first_p99_ms": quantile(firsts, 99),
        "requests": len(times),
        "wrong": wrong,
    }


def quantile(values: List[float], percent: int) -> Optional[float]:
    if not values:
        return None
    return round(sorted(values)[min(len(values) - 1, len(values) * percent // 100)], 3)


# the parts


def starts(args: List[str]) -> List[Row]:
    """Measure the start to the first `ok`, beside what Python itself takes; the three in turn."""
    seconds: Dict[str, List[float]] = {"python -c pass": [], "python -c 'import http.server'": [], "llmproxy.py": []}
    memory = None
    for turn in range(STARTS + 1):
        for name, code in zip(seconds, ("pass", "import http.server", "")):
            if code:
                begun = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True)
                took = time.perf_counter() - begun
            else:
                with tempfile.TemporaryDirectory() as folder:
                    proxy = Proxy(Path(folder), "", args)
                    took, memory = proxy.started, proxy.memory
                    proxy.stop()
            if turn:  # the first turn only warms the caches
                seconds[name].append(1000 * took)
    return [
        {"what": name, "median_ms": round(statistics.median(of), 1), "idle_mib": memory if "llm" in name else None}
        for name, of in seconds.items()
    ]


def heads(seconds: float) -> List[Row]:
    """Measure what reading a request's head takes, by our strict reader and as http.server does it, in turn."""
    readers = {"llmproxy.py": read_by_us, "http.server": read_by_http_server}
    rows = []
    for what, head in (("a browser's", BROWSER), ("an SDK's", SDK)):
        micros: Dict[str, List[float]] = {name: [] for name in readers}
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or not micros["http.server"]:
            for name, read in readers.items():
                begun = time.perf_counter()
                for _ in range(HEADS):
                    read(head)
                micros[name].append(1e6 * (time.perf_counter() - begun) / HEADS)
        ours, theirs = (statistics.median(micros[name]) for name in readers)
        row = {"what": what, "fields": head.count(b"\r\n") - 2, "bytes": len(head)}
        rows.append({**row, "ours_us": round(ours, 1), "theirs_us": round(theirs, 1), "ratio": round(theirs / ours, 1)})
    return rows


def read_by_us(data: bytes) -> None:
    """Read a head as our server does: find its end, take it apart, check its target, its framing and its end."""
    head = _http.request_head(data[: _http.head_end(data)])
    _server._addressed(head)
    _http.request_length(head)
    _http.stays_open(head.minor, head.fields)


def read_by_http_server(data: bytes) -> None:
    """Read a head as `http.server` does before it calls a handler's method."""
    handler = Reader.__new__(Reader)  # without a socket
    handler.rfile = io.BytesIO(data)
    handler.raw_requestline = handler.rfile.readline(65537)
    if not handler.parse_request():
        raise ValueError("http.server refuses the head")


class Reader(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"


def roads(proxy: Proxy, port: int, **more: Any) -> Iterator[Any]:
    """Give the three roads of a chat: (name, port, request)."""
    yield "upstream alone", port, request("/v1/chat/completions", chat(**more))
    yield "POST /llm, translated", proxy.port, request("/llm", chat(**more, provider=PROVIDER))
    yield f"/{PROVIDER}, passed through", proxy.port, request(f"/{PROVIDER}/v1/chat/completions", chat(**more))


def measured(proxy: Proxy, port: int, connections: int, seconds: float, **more: Any) -> List[Row]:
    """Measure the three roads with so many connections."""
    rows = []
    for what, at, asked in roads(proxy, port, **more):
        before = proxy.cpu
        row = loaded(at, asked, connections, seconds)
        after = proxy.cpu
        if at == proxy.port and before is not None and after is not None and row["requests"]:
            share = seconds / (seconds + WARM_UP)  # of the time that counted
            row["cpu_us"] = round(1e6 * (after - before) * share / row["requests"])
        rows.append({"what": what, **row})
    return rows


def requests(proxy: Proxy, port: int, seconds: float) -> List[Row]:
    return [row for n in REQUEST_CONNECTIONS for row in measured(proxy, port, n, seconds)]


def streams(proxy: Proxy, port: int, seconds: float) -> List[Row]:
    """Measure the first word of short streams, and the chunks of long ones."""
    rows = []
    for n in STREAM_CONNECTIONS:
        short = measured(proxy, port, n, seconds / 2, stream=True, words=SHORT)
        long = measured(proxy, port, n, seconds, stream=True, words=LONG)
        for first, all_ in zip(short, long):
            told = {name: first[name] for name in ("first_p50_ms", "first_p99_ms")}
            rows.append({**all_, **told, "wrong": first["wrong"] + all_["wrong"]})
    return rows


# the report


def table(title: str, columns: Dict[str, str], rows: List[Row]) -> None:
    """Print rows under headings; `columns` maps a key of a row to its heading."""
    cells = [list(columns.values()), *([said(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        print(
            "  "
            + "  ".join(cell.ljust(w) if not at else cell.rjust(w) for at, (cell, w) in enumerate(zip(line, widths)))
        )
    for row in rows:
        for reason in row.get("wrong", ()):
            print(f"  went wrong ({row['what']}, {row['connections']}): {reason.strip()[:400]}")


def said(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def report(result: Row) -> None:
    machine = result["machine"]
    print(f"Python {machine['python']}, {machine['cores']} cores, {machine['system']}")
    if "start" in result:
        columns = {"what": "start to the first ok", "median_ms": "median ms", "idle_mib": "idle MiB"}
        table(f"Start ({STARTS} times, in turn)", columns, result["start"])
    if "heads" in result:
        columns = {"what": "head of a request", "fields": "fields", "bytes": "bytes", "ours_us": "strict, us"}
        table(
            "Reading heads (one thread)", {**columns, "theirs_us": "http.server, us", "ratio": "ratio"}, result["heads"]
        )
    if "requests" in result:
        columns = {"what": "1 KB chat", "connections": "conn", "per_s": "req/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
        table("Requests", {**columns, "cpu_us": "proxy CPU us/req"}, result["requests"])
        bottleneck(result["requests"])
    if "streams" in result:
        columns = {"what": "stream", "connections": "streams", "first_p50_ms": "first word p50 ms"}
        columns.update(first_p99_ms="p99 ms", chunks_per_s="chunks/s")
        table(f"Streams (first word of {SHORT}; chunks of {LONG})", columns, result["streams"])
    if "programs" in result:
        columns = {"what": "add(1, 2)", "median_ms": "median ms", "best_ms": "best ms", "of_bare": "of bare Python"}
        table("Programs (request to answer, in turn)", columns, result["programs"])
    if result.get("loaded_mib"):
        print(f"\nmemory after all that: {result['loaded_mib']} MiB")


def bottleneck(rows: List[Row]) -> None:
    """Say by how much the upstream (with the client) could have done more than was asked of it."""
    of = {(row["what"], row["connections"]): row["per_s"] for row in rows}
    most = max(n for _, n in of)
    alone = of["upstream alone", most]
    fastest = max(rate for (what, n), rate in of.items() if n == most and what != "upstream alone")
    told = f"{alone / fastest:.1f} times what it was asked here" if fastest else "nothing came through"
    print(f"  the upstream (a process with one selector loop) did {alone:,}/s alone at {most} connections: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--seconds", type=float, default=1.2, help="seconds each figure of load is measured")
    parser.add_argument("--only", default=PARTS, help="which parts, with commas between")
    parser.add_argument("args", nargs="*", metavar="-- OPTIONS", help="options of llmproxy.py")
    options = parser.parse_args()
    machine = {"python": platform.python_version(), "cores": CORES, "system": platform.platform(terse=True)}
    result: Row = {"machine": machine}
    only = options.only.split(",")
    if "start" in only:
        result["start"] = starts(options.args)
    if "heads" in only:
        result["heads"] = heads(options.seconds)
    if "requests" in only or "streams" in only:
        with source() as port, tempfile.TemporaryDirectory() as folder:
            proxy = Proxy(Path(folder), settings(port), options.args)
            try:
                for name, part in (("requests", requests), ("streams", streams)):
                    if name in only:
                        result[name] = part(proxy, port, options.seconds)
                result["loaded_mib"] = proxy.memory
            finally:
                proxy.stop()
    if "programs" in only:
        from execute import programs

        result["programs"] = programs(lambda folder, ini: Proxy(folder, ini, options.args))
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        report(result)


if __name__ == "__main__":
    main()
