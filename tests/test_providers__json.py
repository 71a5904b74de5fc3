"""What is promised of `providers/_json.py`: only what can be passed on as JSON is read as JSON."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from conftest import ROOT
from providers._json import DECODER, DEEPEST, PLAIN, is_deep, loads, told, written


@pytest.mark.parametrize(
    "text", ["null", "[]", '{"a": [1, 2.5, "\\u00e9", true]}', '"\\ud800"', "1e308", "9" * 299, "-0"]
)
def test_json_is_read_as_everybody_reads_it(text):
    assert loads(text) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        "1 2",
        "\ud800",
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        "1e999",
        "[-1e400]",
        "9" * 300,
        "9" * 5000,
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "[" * 100_000,
    ],
)
def test_what_could_not_be_passed_on_as_json_is_refused(text):
    with pytest.raises(ValueError):
        loads(text)


def test_the_decoder_refuses_the_same_numbers_at_any_place():
    assert DECODER.raw_decode("call {1}", 6) == (1, 7)
    for text in ("NaN", "1e999", "9" * 300):
        with pytest.raises(ValueError, match="is not JSON"):
            DECODER.raw_decode("x" + text, 1)


def test_depth_is_accepted_up_to_the_limit():
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('{"a":[', "]}")):
        times = DEEPEST // len(closing)
        assert not is_deep((opening * times + "1" + closing * times).encode())
        assert is_deep((opening * times + "[]" + closing * times).encode())


def test_depth_is_told_as_a_reader_would_count_it():
    rng = random.Random(7)

    def made(depth):
        kind = rng.random()
        if not depth or kind < 0.2:
            return rng.choice([1, 'a[["{{\\', "\\", '"', "[]", '\\"[[[[', ""])
        if kind < 0.6:
            return [made(depth - 1) for _ in range(rng.randint(0, 3))]
        return {rng.choice('a["\\{'): made(depth - 1) for _ in range(rng.randint(0, 3))}

    def levels(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(levels, inner), default=0)

    seen = set()
    for _ in range(3000):
        document = {"a": made(rng.randint(1, 8))}
        fits = levels(document) <= 5
        seen.add(fits)
        assert is_deep(json.dumps(document).encode(), 5) != fits, document
    assert seen == {True, False}


@pytest.mark.parametrize("text", ["[" * 200, "]" * 10 + "[" * 300, '{"a":' * 200, "[{" * 100])
def test_brackets_without_partners_are_too_deep_if_they_are_many(text):
    assert is_deep(text.encode())


def test_a_thread_with_a_small_stack_survives_any_depth():
    program = (
        "import threading\n"
        "from providers._json import loads\n"
        "def ask():\n"
        "    for text in ('[' * 100000, '{\"a\":' * 100000, '[' * 128 + ']' * 128):\n"
        "        try: loads(text); told.append('read')\n"
        "        except ValueError: told.append('refused')\n"
        "told = []\n"
        "threading.stack_size(128 * 1024)\n"
        "thread = threading.Thread(target=ask); thread.start(); thread.join()\n"
        "print(*told)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=str(ROOT), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["refused", "refused", "read"]), done.stderr


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "NaN", '{"a": Infinity}', "{", ""])
def test_what_an_upstream_tells_is_json_or_a_value_error(text):
    with pytest.raises(ValueError):
        told(text)


def test_what_an_upstream_tells_may_be_long_and_wide():
    assert told("[" + "[0.5]," * 10_000 + "1]")[-1] == 1


@pytest.mark.parametrize("before", ["", " \t\r\n", "\xa0", "\ufeff", "x", ","])
@pytest.mark.parametrize("after", ["", " \t\r\n", "\xa0", "\x0b", "x", "]", "1", " {}"])
def test_a_text_is_one_value_with_blanks_around_it(before, after):
    for value in ("1", '"a"', "[1, 2]", '{"a": {}}', "null"):
        text = before + value + after
        try:
            expected = repr(PLAIN.decode(text))
        except ValueError:
            expected = None
        try:
            found = repr(told(text))
        except ValueError:
            found = None
        assert found == expected


def test_json_is_written_as_the_library_writes_it():
    document = {"a": [1, 2.5, 1e300, None, True, '\xe9\u2028\ud800\x00"'], "b": {}, "": [], "c": 10**30}
    assert written(document) == json.dumps(document, separators=(",", ":"))
    assert written("\xe9") == '"\\u00e9"'
    for number in ("inf", "-inf", "nan"):
        with pytest.raises(ValueError, match="JSON"):
            written([float(number)])
