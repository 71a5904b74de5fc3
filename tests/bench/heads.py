"""Measures what reading a request's head takes, by our strict reader and as http.server does it."""

from __future__ import annotations

import http.server
import io
import statistics
import sys
import time
from typing import Any, Dict, List

from .machine import HERE

sys.path.insert(0, str(HERE.parent.parent))

from plugins import _client
from providers import _http

Row = Dict[str, Any]
HEADS = 200  # read at a time, by each reader in turn

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
    _client._addressed(head)
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
