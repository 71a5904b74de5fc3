"""Whatever bytes come, they are read in one way or refused: a short run of the fuzzer, and whether it would see."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import fuzz
import fuzz_house
from houses import ROOT
from plugins import _json, _stream, auth
from providers import _events, _http, _transport

pytestmark = pytest.mark.outermost

SEED = 42
INPUTS = {"heads.request": 1000, "sse.events": 400, "sse.lines": 400, "house.requests": 250, "house.answers": 150}


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_whatever_comes_is_read_in_one_way_or_refused(name):
    found = fuzz.tried(name, fuzz.TARGETS[name], SEED, range(INPUTS.get(name, 700)))
    assert found is None, str(found)


def lax(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


@pytest.mark.parametrize(
    ("name", "room", "broken", "by"),
    [
        ("heads.request", _http, "_FIELD", lax(rb"([!-9;-~]+)[ \t]*:([\t\x20-\x7e\x80-\xff]*)")),
        ("heads.request", _http, "_FIELD", lax(rb"([!-9;-~]+):([^\r\n]*)")),
        ("heads.request", _http, "_REQUEST_LINE", lax(rb"([A-Z]+)\s+(\S+)\s+HTTP/([0-9])\.([0-9])")),
        ("heads.request", _http, "_LENGTH", re.compile(r"[+-]?\d+")),
        ("heads.request", _http, "_length", lambda values: int(values[0]) if values[0].isdigit() else 0),
        ("heads.answer", _http, "_STATUS_LINE", lax(rb"HTTP/1\.([0-9]) +([1-5][0-9][0-9])(.*)")),
        ("heads.answer", _http, "_STATUS_LINE", lax(rb".?HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: ([ -~]*))?")),
        ("chunks", _http, "_CHUNK", lax(rb"(?:0x)?([0-9A-Fa-f]+)(;.*)?")),
        ("chunks", _http, "_CHUNK", lax(rb"\s*([0-9A-Fa-f]{1,15})\s*(;.*)?")),
        ("chunks", _http, "_has_lone_end", lambda data: False),
        ("jwt.token", auth, "_signature", lambda signed, secret: auth._encoded(b"")),
        ("jwt.claims", auth, "_check_header", lambda header: None),
        ("jwt.claims", auth, "_is_finite", lambda value: isinstance(value, (int, float))),
        ("sse.events", _events, "_text", lambda blocks, ends="", text=_events._text: text(blocks)),
        ("json", _json, "_SURROGATE", re.compile("[\ud800-\udbff]")),
        ("json", _json, "is_deep", lambda body: False),
        ("answers", _transport, "STUMBLES", ()),
        ("answers", _stream, "written", lambda document: json.dumps(document).encode()),
    ],
)
def test_a_reader_that_is_lax_is_found(monkeypatch, name, room, broken, by):
    monkeypatch.setattr(room, broken, by)
    assert fuzz.tried(name, fuzz.TARGETS[name], SEED, range(20_000)) is not None


@pytest.mark.parametrize(
    ("name", "file", "line", "broken"),
    [
        ("house.requests", "plugins/_client.py", "keep = (yield from body.skip()) and keep", "yield from body.skip()"),
        ("house.requests", "providers/_opener.py", 'lines.append(f"Content-Length: {len(self.body)}")', "pass"),
        ("house.answers", "providers/_transport.py", 'raise _http.BadMessage(f"{left} bytes are missing")', "return"),
    ],
)
def test_a_house_that_is_lax_is_found(monkeypatch, tmp_path, name, file, line, broken):
    for part in ("plugins", "providers"):
        shutil.copytree(str(ROOT / part), str(tmp_path / part), ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(str(ROOT / "llmproxy.py"), str(tmp_path))
    path = tmp_path / file
    text = path.read_text("utf-8")
    assert line in text
    path.write_text(text.replace(line, broken), "utf-8")
    monkeypatch.setattr(fuzz_house, "PROGRAM", tmp_path / "llmproxy.py")
    monkeypatch.setattr(fuzz_house, "PATIENCE", 1.0)
    assert fuzz.tried(name, fuzz.TARGETS[name], SEED, range(5_000)) is not None


def test_what_is_found_is_made_small_and_told_so_that_it_can_be_had_again():
    def check(data: bytes) -> None:
        assert b"\r\n\r\n" not in data or b"chunked" not in data

    target = fuzz.TARGETS["chunks"]._replace(opened=fuzz.pure(check))
    found = fuzz.tried("chunks", target, SEED, range(3000))
    assert sorted(found.data) == sorted(b"\r\n\r\nchunked")
    number = int(re.search(r"--only chunks --seed 42 --at (\d+)\n", str(found)).group(1))
    assert fuzz.tried("chunks", target, SEED, [number]).data == found.data
    assert fuzz.tried("chunks", target, SEED, range(number)) is None


def test_the_command_runs_what_it_is_asked_for(capsys):
    assert fuzz.main(["--inputs", "60", "--seed", "5", "--only", "jwt"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(\S+): (\d+) inputs", out, re.MULTILINE) == [("jwt.token", "30"), ("jwt.claims", "30")]
    with pytest.raises(SystemExit):
        fuzz.main(["--only", "nothing"])
