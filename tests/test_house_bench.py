"""The benchmark measures what is there; how fast that is, no test says."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest

from upstream import Reply

BENCH = Path(__file__).parent / "bench"


def part(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_" + name, str(BENCH / f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench() -> ModuleType:
    return part("__main__")


@pytest.mark.parametrize(
    ("stream", "chunks"), [(False, 0), (True, 7)]
)  # a role, three words, the finish, usage, [DONE]
def test_every_answer_is_counted_once_and_whole(bench, monkeypatch, stream, chunks):
    monkeypatch.setattr(bench, "WARM_UP", 0.0)
    with bench.source() as port:
        seen = bench.loaded(port, bench.request("/v1/chat/completions", bench.chat(stream=stream)), 3, 0.1)
    assert seen["requests"] > 10
    assert seen["wrong"] == []
    assert seen["p99_ms"] >= seen["p50_ms"] > 0
    assert round(seen["chunks_per_s"] / seen["per_s"]) == chunks
    assert (seen["first_p50_ms"] is not None) == stream


def test_what_goes_wrong_is_told(bench, monkeypatch, upstream):
    monkeypatch.setattr(bench, "WARM_UP", 0.0)
    up = upstream(Reply(503, body=b"full"))
    seen = bench.loaded(up.port, bench.request("/", {}), 1, 0.1)
    assert "503" in seen["wrong"][0]


def test_both_readers_of_heads_are_measured_on_the_same(bench, monkeypatch):
    monkeypatch.setattr(bench, "HEADS", 1)
    rows = bench.heads(0.0)
    assert [row["what"] for row in rows] == ["a browser's", "an SDK's"]
    assert all(row["ratio"] > 0 and row["ours_us"] > 0 and row["theirs_us"] > 0 for row in rows)
    for head in (bench.BROWSER, bench.SDK):
        handler = bench.Reader.__new__(bench.Reader)
        handler.raw_requestline, _, rest = head.partition(b"\n")
        handler.rfile = io.BytesIO(rest)
        assert handler.parse_request()
        read = bench._http.request_head(head).fields.pairs
        assert (read, len(read)) == (handler.headers.items(), head.count(b"\r\n") - 2)


class Dripping:
    """A socket that gives one byte at a time."""

    def __init__(self, sock) -> None:
        self.sock = sock

    def recv(self, _: int) -> bytes:
        return self.sock.recv(1)


@pytest.mark.parametrize("made", ["whole", "stream"])
def test_an_answer_ends_where_it_ends_however_it_is_cut(upstream, made):
    load, source = part("load"), part("source")
    up = upstream(Reply(raw=source.whole() if made == "whole" else source.stream(3)))
    connection = load.Connection(load.Plan(up.port, "GET / HTTP/1.1\r\n\r\n", 1, 0, 0, 0))
    connection.ask()
    sock, connection.sock = connection.sock, Dripping(connection.sock)
    with sock:
        while not connection.heard_all():
            pass
        assert sock.recv(1) == b""  # nothing is left behind
    assert connection.events == (0 if made == "whole" else 7)
    assert bool(connection.first) == (made == "stream")
