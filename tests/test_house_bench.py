"""The benchmark measures what is there; how fast that is, no test says."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Iterator, List

import pytest

from bench import clients, contestants, heads, machine, parts, profiles, report, soak, source
from bench.clients import Client, Load, chat, posted
from bench.crowd import Crowd
from upstream import Reply

IN_C = shutil.which("cc") or shutil.which("gcc")
BOTH = [False, pytest.param(True, marks=pytest.mark.skipif(not IN_C, reason="there is no C compiler"))]
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
SHAPES = [(OPENAI, False), (ANTHROPIC, False), (OPENAI, True), (ANTHROPIC, True)]


pytestmark = pytest.mark.newest  # it brings up eight proxies, and as many upstreams


@pytest.fixture(scope="module", params=BOTH, ids=lambda in_c: "C upstream" if in_c else "Python upstream")
def up(request, tmp_path_factory) -> Iterator[machine.Upstream]:
    with machine.upstream(tmp_path_factory.mktemp("upstream"), request.param) as found:
        assert found.told.startswith("C" if request.param else "Python")
        yield found


@pytest.fixture(scope="module", params=BOTH, ids=lambda in_c: "C client" if in_c else "Python client")
def asker(request, tmp_path_factory) -> Client:
    found = Client(tmp_path_factory.mktemp("client"), "c" if request.param else "python")
    assert found.told(1.0).startswith("C" if request.param else "Python")
    return found


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr(clients, "WARM_UP", 0.02)


# the upstream and the client


@pytest.mark.parametrize(("path", "stream"), SHAPES)
def test_every_answer_is_counted_once_and_whole(up, asker, path, stream):
    seen = asker.loaded(Load(up.port, posted(path, chat("bench-7", stream)), 3, 0.1))
    assert seen["wrong"] == []
    assert seen["requests"] > 10
    assert seen["p99_ms"] >= seen["p50_ms"] > 0
    assert round(seen["words_per_s"] / seen["per_s"]) == (7 if stream else 0)
    assert (seen["first_p50_ms"] is not None) == stream


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_slow_streams_are_told_by_the_delay_of_each_word(up, asker, path):
    request = posted(path, chat("bench-slow-3-20", True))
    seen = asker.loaded(Load(up.port, request, 20, 10, 0.02, once=True))
    assert (seen["wrong"], seen["requests"], seen["all_words"]) == ([], 20, 60)
    assert seen["p50_ms"] >= 40 > seen["delay_p50_ms"] >= 0


def test_the_name_of_the_model_says_how_to_answer(up, asker):
    waited = asker.loaded(Load(up.port, posted(OPENAI, chat("bench-wait-30")), 2, 0.1))
    assert (waited["wrong"], waited["p50_ms"] >= 30) == ([], True)
    refused = asker.loaded(Load(up.port, posted(ANTHROPIC, chat("bench-error-529")), 2, 0.1))
    assert (refused["requests"], "529" in refused["wrong"][0]) == (0, True)
    broken = asker.loaded(Load(up.port, posted(OPENAI, chat("bench-break-3", True)), 1, 0.1))
    assert (broken["requests"], "broke off" in broken["wrong"][0]) == (0, True)
    assert b'"bench"' in machine.asked(up.port, clients.got("/v1/models"))


def test_what_goes_wrong_is_told(asker, upstream):
    seen = asker.loaded(Load(upstream(Reply(503, body=b"full")).port, posted("/", {}), 1, 0.1))
    assert (seen["requests"], seen["wrong"][0][-9:]) == (0, "503: full")


def test_a_stream_that_does_not_say_its_end_is_not_whole(asker, upstream):
    kind = {"Content-Type": "text/event-stream"}
    up = upstream(Reply(headers=kind, body=[b'data: {"content": "word "}\n\n']))
    seen = asker.loaded(Load(up.port, posted("/", {}), 1, 5.0, once=True))
    assert (seen["requests"], seen["all_words"], seen["wrong"]) == (0, 1, ["1x a stream is not whole"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_where_it_ends_however_it_is_cut(asker, upstream, stream):
    made = source.stream("openai", 2) if stream else source.document(200, {"content": "word"})
    up = upstream(Reply(raw=made, slow=1e-9))
    seen = asker.loaded(Load(up.port, posted("/", {}), 1, 5.0, once=True))
    assert (seen["requests"], seen["wrong"], seen["all_words"]) == (1, [], 2 if stream else 0)


@pytest.mark.skipif(not IN_C, reason="there is no C compiler")
def test_both_upstreams_say_the_same(tmp_path):
    said: List[list] = []
    for in_c in (False, True):
        with machine.upstream(tmp_path, in_c) as up:
            asked = [posted(path, chat("bench-2", stream), Connection="close") for path, stream in SHAPES]
            answers = [machine.asked(up.port, request).partition(b"\r\n\r\n")[2].decode() for request in asked]
        lines = [line.replace("data: ", "") for line in "\n".join(answers).splitlines()]
        said.append([json.loads(line) for line in lines if '":' in line])
    for one in said[0] + said[1]:
        one.pop("usage", None)
    assert said[0] == said[1]
    assert len(said[0]) == 2 + 5 + 7  # two whole answers, and the events of two streams


@pytest.mark.skipif(not shutil.which("wrk"), reason="there is no wrk")
def test_wrk_tells_what_it_asked_and_what_is_refused(tmp_path):
    with machine.upstream(tmp_path, False) as up:
        request = posted(OPENAI, chat("bench-error-503"))
        row = Client(tmp_path, "wrk").loaded(Load(up.port, request, 2, 1.0))
    assert (row["requests"], row["all_answers"] > 100, "503" in row["wrong"][-1]) == (0, True, True)


def test_a_crowd_is_answered_and_stays(up):
    with Crowd(up.port, posted(OPENAI, chat("bench")), 12) as crowd:
        assert (crowd.answered, crowd.open(), crowd.wrong) == (12, 12, [])


# the heads


def test_both_readers_of_heads_are_measured_on_the_same(monkeypatch):
    monkeypatch.setattr(heads, "HEADS", 1)
    rows = heads.heads(0.0)
    assert [row["what"] for row in rows] == ["a browser's", "an SDK's"]
    assert all(row["ratio"] > 0 and row["ours_us"] > 0 and row["theirs_us"] > 0 for row in rows)
    for head in (heads.BROWSER, heads.SDK):
        handler = heads.Reader.__new__(heads.Reader)
        handler.raw_requestline, _, rest = head.partition(b"\n")
        handler.rfile = io.BytesIO(rest)
        assert handler.parse_request()
        read = heads._http.request_head(head).fields.pairs
        assert (read, len(read)) == (handler.headers.items(), head.count(b"\r\n") - 2)


# a whole run


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    """Give the command, with so little to do that it is over soon."""
    small = {"CONNECTIONS": (2,), "STREAMS": (2,), "WORDS": 20, "SLOW_STREAMS": (5,), "SLOW_WORDS": 2}
    small.update(SLOW_GAP=20, SLOW_SPREAD=0.01, IDLE=20, MEANWHILE=2, STARTS=1, PEER_STARTS=1, WAIT=5, WAITING=3)
    monkeypatch.setattr(machine, "QUIET", 0.02)
    for name, value in small.items():
        monkeypatch.setattr(parts, name, value)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return importlib.import_module("bench.__main__")


def ran(bench: ModuleType, *arguments: str) -> dict:
    return bench.main(["--seconds", "0.05", *arguments])


def test_a_run_has_every_figure(bench, capsys):
    result = ran(bench, "--only", "start,heads,requests,waits,streams,slow,idle", "--peers", "nginx")
    told = capsys.readouterr().out
    for name, figure in {
        "start": "first_ms",
        "requests": "added_p50_ms",
        "waits": "share",
        "streams": "words_per_s",
        "slow": "delay_p99_ms",
        "idle": "still",
        "memory": "who",
        "heads": "ratio",
    }.items():
        rows = [row for row in result[name]["rows"] if row.get("who", "llmproxy") == "llmproxy"]
        assert rows, name
        assert [row[figure] for row in rows if row[figure] is None] == [], name
        assert [row.get("wrong", []) for row in rows if row.get("wrong")] == [], name
        assert report.TABLES[name][0] in told
    assert {row["complete"] for row in result["slow"]["rows"]} == {5}
    assert {row["road"] for row in result["requests"]["rows"]} == {"", *contestants.ROADS}
    beside = [row["peer_per_s"] for row in result["requests"]["rows"] if row["who"] == "nginx"]
    assert beside == ([] if result["skipped"] else [1.0])  # where there is nginx


def test_what_is_left_after_mixed_questions_is_told(bench, capsys, monkeypatch):
    monkeypatch.setattr(soak, "REST", 0.0)
    monkeypatch.setattr(soak, "KINDS", [kind for kind in soak.KINDS if kind.name != "upstream 500"])  # asked again
    result = ran(bench, "--only", "", "--mixed", "40", "--json")
    assert json.loads(capsys.readouterr().out) == result
    (seen,) = result["mixed"]
    assert (seen["requests"], seen["wrong"], sum(seen["kinds"].values())) == (40, [], 40)
    assert [row["what"] for row in seen["rows"]] == ["RSS, MiB", "open files", "threads"]


def test_a_peer_that_is_not_there_is_skipped_with_a_reason(bench, capsys):
    result = ran(bench, "--only", "", "--peers", "portkey", "--portkey", "/nowhere")
    assert len(result["skipped"]) == 1
    assert f"not measured: {result['skipped'][0]}" in capsys.readouterr().out


def test_rows_are_compared_with_the_same_of_the_other(capsys):
    rows = [
        {"who": "llmproxy", "road": "a", "connections": 1, "of": "old", "per_s": 30, "p99_ms": None},
        {"who": "old", "road": "a", "connections": 1, "per_s": 20, "p99_ms": 1.0},
        {"who": "nginx", "road": "b", "connections": 1, "per_s": 60, "p99_ms": 0.5},
    ]
    told = report.compared(rows, {"per_s": "rate", "p99_ms": "p99"}, "nginx")
    assert told[0] == {**rows[0], "of_per_s": 1.5, "peer_per_s": 0.5}
    report.part("waits", {"rows": rows}, "old", "nginx")
    assert "rate/old" in capsys.readouterr().out


def test_of_several_turns_the_median_counts():
    rows: List[dict] = [{"per_s": 1, "p": 0.5, "wrong": ["a"]}, {"per_s": 3, "p": 1.5, "wrong": []}]
    assert parts.middle(rows) == {"per_s": 2, "p": 1.0, "wrong": ["a"]}


def test_the_sampler_tells_where_the_time_goes(tmp_path):
    pytest.importorskip("resource", reason="needs POSIX")
    program = tmp_path / "program.py"
    code = "import time\n\ndef busy():\n    until = time.process_time() + 0.9\n    while time.process_time() < until:\n"
    program.write_text(f"{code}        pass\n\nif __name__ == '__main__':\n    busy()\n", "utf-8")
    file = tmp_path / "told"
    sampler = Path(profiles.__file__).parent / "sampler.py"
    subprocess.run([sys.executable, str(sampler), str(file), str(program)], check=True)
    told = json.loads(file.read_text("utf-8"))
    assert (told["samples"] > 20, told["own"][0]["where"].rpartition(":")[2]) == (True, "busy")


def test_system_calls_are_counted_each_time(tmp_path):
    file = tmp_path / "calls"
    file.write_text(
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.000300           1       300        20 recvfrom\n"
        " 40.00    0.000200           1       100           sendto\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000500           1       400        20 total\n"
    )
    assert profiles.counted(file, 100) == {"recvfrom": 3.0, "sendto": 1.0}


def test_a_connection_that_was_closed_while_it_was_kept_is_made_again(asker, upstream):
    up = upstream(Reply(raw=source.whole("openai")))
    seen = asker.loaded(Load(up.port, posted("/", {}), 1, 0.1))
    assert (seen["wrong"], seen["requests"] > 1, seen["made_again"] > 1) == ([], True, True)
