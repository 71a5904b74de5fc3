"""Lines of the log: one a record, its fields as words, numbers or JSON."""

from __future__ import annotations

import calendar
import json
import logging
import os

import pytest

from plugins._logging import Lines, Record, Stderr, nobody_reads

AT = calendar.timegm((2026, 11, 30, 14, 10, 0)) + 0.0625


def record(message="request", *args, level=logging.INFO, fields=None, exc_info=None):
    made = Record("llmproxy", level, "", 0, message, args, exc_info)
    made.created = AT
    if fields is not None:
        made.fields = fields
    return made


def line(*args, **more) -> str:
    return Lines(as_json=False).format(record(*args, **more))


def test_a_line_says_when_how_grave_and_what():
    assert line("%s is %d", "this", 3, level=logging.WARNING) == "2026-11-30T14:10:00.062Z WARNING this is 3"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("word", "word"),
        ("/a/*?b=c", "/a/*?b=c"),
        (3, "3"),
        (0.5, "0.5"),
        ("two words", '"two words"'),
        ("", '""'),
        ('quo"te', r'"quo\"te"'),
        ("line\nend", r'"line\nend"'),
        ("tab\t", r'"tab\t"'),
        ("\x7f", r'"\u007f"'),
        ("ümlaut", r'"\u00fcmlaut"'),
        (None, "None"),
        (True, "True"),
        (["a", 1], '["a", 1]'),
        (["a"], "['a']"),
        ("a=", '"a="'),
        (" ", '" "'),
        ("a= b", '"a= b"'),
        ("%s", "%s"),
        ({"k": "v"}, '{"k": "v"}'),
    ],
)
def test_a_field_is_a_word_or_json(value, written):
    told = line(fields={"a": 1, "b": value, "c": "d%s"})
    assert told == f"2026-11-30T14:10:00.062Z INFO    request a=1 b={written} c=d%s"


def test_a_message_stays_in_its_line():
    assert line("one\r\ntwo\x1b[2J").count("\n") == 0


def test_what_was_raised_is_told_below():
    try:
        raise ValueError("odd")
    except ValueError as error:
        told = line("failed", exc_info=(type(error), error, error.__traceback__))
    assert told.splitlines()[0].endswith(" failed")
    assert told.splitlines()[-1] == "ValueError: odd"


def test_as_json_all_of_it_is_one_object():
    told = json.loads(Lines(as_json=True).format(record("a\nb", fields={"status": 200, "user": "ä b"})))
    assert told == {
        "time": "2026-11-30T14:10:00.062Z", "level": "info", "message": "a b", "status": 200, "user": "ä b"
    }  # fmt: skip


def test_what_cannot_be_written_ends_nothing(monkeypatch, capsys):
    def full(descriptor, data):
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "write", full)
    handler = Stderr()
    handler.setFormatter(Lines(as_json=False))
    assert handler.handle(record())


def test_only_a_bin_is_read_by_nobody(tmp_path):
    with open(os.devnull, "w") as bin, open(tmp_path / "log", "w") as log:
        assert nobody_reads(bin.fileno())
        assert not nobody_reads(log.fileno())
    assert nobody_reads(999)
