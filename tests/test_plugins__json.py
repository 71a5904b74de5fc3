"""What is promised of `plugins/_json.py`: whatever a stranger sends is an object, or a 400 that names the fault."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT
from plugins import Refusal
from plugins._json import _READER, _Hooks, _loaded, parsed, refuse, shown
from providers._json import DEEPEST

VECTORS = Path(__file__).parent / "vectors" / "jsontestsuite.zip"


def suite():
    with zipfile.ZipFile(VECTORS) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())}


def refused(body):
    """Give the refusal of a body."""
    with pytest.raises(Refusal) as caught:
        parsed(body)
    assert caught.value.status == 400
    caught.value.message.encode("ascii")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    return caught.value


def outcome(body):
    """Give what a body is read as; None where it is refused."""
    try:
        return parsed(body)
    except Refusal as refusal:
        assert refusal.status == 400
        return None


# the public vectors


def wrapped(document):
    """Put a vector into an object: its own encoding is kept."""
    return b'{"value":' + document + b"}"


def lenient(body):
    """Read a body as the standard library does."""
    return json.loads(body.decode("utf-8-sig"))


SUITE = suite()
#: a name given twice with two values: allowed by the grammar, and refused here
CONFLICT = "y_object_duplicated_key.json"


def test_the_vectors_are_all_there():
    assert len(SUITE) == 318
    assert {name[:2] for name in SUITE} == {"y_", "n_", "i_"}


@pytest.mark.parametrize("name", [name for name in SUITE if name.startswith("y_")])
def test_what_is_json_is_accepted(name):
    body = SUITE[name]
    if name == CONFLICT:
        assert refused(body).param == "a"
        return
    value = lenient(body)
    assert parsed(wrapped(body)) == {"value": value}
    if isinstance(value, dict):
        assert parsed(body) == value
    else:
        assert "not an object" in refused(body).message


@pytest.mark.parametrize("name", [name for name in SUITE if name.startswith("n_")])
def test_what_is_no_json_is_refused(name):
    refused(SUITE[name])
    refused(wrapped(SUITE[name]))


@pytest.mark.parametrize("name", [name for name in SUITE if name.startswith("i_")])
def test_what_may_be_read_either_way_is_read_or_refused_and_never_breaks(name):
    for body in (SUITE[name], wrapped(SUITE[name]), b"[" + SUITE[name] + b"]"):
        document = outcome(body)
        assert document is None or json.loads(json.dumps(document)) == document


# what is no object


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true", b"NaN", b" [1] "])
def test_json_that_is_no_object_is_refused(body):
    refusal = refused(body)
    assert (refusal.code, refusal.param) == ("invalid_json", None)


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"{]", b"{}{}", b"{'a': 1}", b'{"a": 1,}', b"\x00", b"{\xff}"])
def test_what_is_no_json_at_all_says_so(body):
    assert refused(body).code == "invalid_json"


def test_an_empty_body_is_told_what_to_send():
    assert "send a JSON object" in refused(b"").message


def test_an_empty_object_is_an_object():
    assert parsed(b"{}") == {}
    assert parsed(b" \r\n\t{ } ") == {}


# encodings


def test_a_byte_order_mark_is_passed_over_as_windows_tools_write_one():
    assert parsed(b"\xef\xbb\xbf" + b'{"a": "\xc3\xa9"}') == {"a": "\xe9"}
    refused(b"\xef\xbb\xbf")
    refused(b"\xef\xbb\xbf\xef\xbb\xbf{}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_other_encodings_than_utf_8_are_refused(encoding):
    assert refused('{"a": "x"}'.encode(encoding)).code == "invalid_json"


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", "\xe9".encode("latin-1")]
)
def test_bytes_that_are_not_utf_8_are_refused(raw):
    assert "UTF-8" in refused(b'{"a": "' + raw + b'"}').message


# numbers


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1.5e999", "9" * 300, "-" + "9" * 5000, "9" * 99999]
)
def test_a_number_nobody_can_hold_is_refused_by_its_path(number):
    for template, path in (
        ('{"temperature": %s}', "temperature"),
        ('{"messages": [1, {"content": [%s]}]}', "messages[1].content[0]"),
        ('{"a": {"b": {"c": %s}}, "d": 1}', "a.b.c"),
    ):
        refusal = refused((template % number).encode())
        assert refusal.param == path
        assert refusal.message.startswith(path + ": ")


@pytest.mark.parametrize("number", ["0", "-0", "1e-400", "1e308", "9" * 299, "0.1", "1E+2", "12345678901234567890"])
def test_every_other_number_is_kept(number):
    assert parsed(b'{"a": %s}' % number.encode()) == {"a": json.loads(number)}


# names given twice


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('{"model": "a", "model": "b"}', "model"),
        ('{"a": {"x": 1, "x": 2}}', "a.x"),
        ('{"a": [{}, {"x": [1], "x": [2]}]}', "a[1].x"),
        ('{"a": {"b": 1}, "a": {"b": 2}}', "a"),
        ('{"a": 1, "a": 2, "a": 1}', "a"),
        ('{"a": null, "a": 1}', "a"),
        ('{"a": [NaN], "a": [NaN]}', "a"),
    ],
)
def test_a_name_given_twice_with_two_values_is_refused_by_its_path(body, path):
    assert refused(body.encode()).param == path


def test_a_name_given_twice_with_the_same_value_is_one_name():
    assert parsed(b'{"a": {"b": [1]}, "c": 2, "a": {"b": [1]}}') == {"a": {"b": [1]}, "c": 2}


# halves of surrogate pairs


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "x\\udc00\\ud83d", "\\ud83d\\u0041", "\\ud83dx\\ude00"])
def test_half_of_a_surrogate_pair_is_refused_by_its_path(half):
    body = '{"messages": [{"content": "fine \\ud83d\\ude00"}, {"content": [{"text": "HALF"}]}]}'
    assert refused(body.replace("HALF", half).encode()).param == "messages[1].content[0].text"


def test_half_of_a_surrogate_pair_in_a_name_is_refused_by_what_holds_it():
    assert refused(b'{"a": [{"\\ud800": 1}]}').param == "a[0]"
    assert refused(b'{"\\ud800": 1}').param is None


def test_whole_pairs_are_letters_and_an_escaped_backslash_is_none():
    assert parsed(b'{"a": "\\ud83d\\ude00", "\\uD83D\\uDE00": "\\\\ud800"}') == {
        "a": "\U0001f600",
        "\U0001f600": "\\ud800",
    }


# depth


def nested(levels, opening=b"[", closing=b"]"):
    return b'{"a":' + opening * (levels - 1) + closing * (levels - 1) + b"}"


def test_nesting_is_accepted_up_to_the_limit_and_no_further():
    parsed(nested(DEEPEST))
    assert "deeper than" in refused(nested(DEEPEST + 1)).message
    parsed(b'{"a":[' * (DEEPEST // 2) + b"]}" * (DEEPEST // 2))
    refused(b'{"a":[' * (DEEPEST // 2) + b"{}" + b"]}" * (DEEPEST // 2))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000,
    ],
    ids=["lists left open", "objects left open", "lists", "objects", "both"],
)
def test_a_hundred_thousand_brackets_are_refused(body):
    assert "deeper than" in refused(body).message


def test_brackets_in_texts_do_not_nest():
    text = '[{"\\' * 1000
    assert parsed(json.dumps({"a": [text, {text: text}]}).encode()) == {"a": [text, {text: text}]}


def test_many_brackets_side_by_side_are_not_deep():
    document = {"a": [[], {}, [[{"b": "]"}]]] * 1000}
    assert parsed(json.dumps(document).encode()) == document


def test_a_thread_with_a_small_stack_survives_any_depth():
    program = (
        "import sys, threading\n"
        "from plugins import Refusal\n"
        "from plugins._json import parsed\n"
        "def ask():\n"
        "    for body in (b'[' * 100000, b'{\"a\":' * 100000, b'{\"a\":' + b'[' * 127 + b']' * 127 + b'}'):\n"
        "        try: parsed(body); told.append('read')\n"
        "        except Refusal: told.append('refused')\n"
        "told = []\n"
        "threading.stack_size(128 * 1024)\n"
        "thread = threading.Thread(target=ask); thread.start(); thread.join()\n"
        "print(*told)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=str(ROOT), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["refused", "refused", "read"]), done.stderr


# anything at all


def test_whatever_bytes_come_the_answer_is_an_object_or_a_refusal():
    rng = random.Random(11)
    seeds = [body for body in SUITE.values() if len(body) < 200]
    for _ in range(4000):
        body = bytearray(wrapped(rng.choice(seeds)) if rng.random() < 0.7 else rng.choice(seeds))
        for _ in range(rng.randint(0, 4)):
            at = rng.randrange(len(body) + 1)
            body[at : at + rng.randint(0, 2)] = rng.choice(
                [
                    b'"',
                    b"\\",
                    b"\\ud800",
                    b"[",
                    b"]",
                    b"{",
                    b"}",
                    b",",
                    b":",
                    b"1e999",
                    b"NaN",
                    b"\xff",
                    b"\x00",
                    b'"a":1',
                ]
            )
        document = outcome(bytes(body))
        if document is not None:
            json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8")


def test_what_is_read_at_once_is_what_reading_with_care_would_give_and_find_nothing_wrong_with():
    rng, read = random.Random(12), 0
    seeds = [
        *SUITE.values(),
        b'{"a":1,"b":[1.5,"x"],"a":1}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 300 + b"}",
    ]
    for _ in range(4000):
        body = bytearray(rng.choice(seeds)[:200])
        for _ in range(rng.randint(0, 2)):
            body[(at := rng.randrange(len(body) + 1)) : at + rng.randint(0, 2)] = rng.choice(
                [b'"a":1,', b"1e999", b"]", b"x"]
            )
        text, hooks = body.decode("utf-8", "replace"), _Hooks()
        try:
            found = _READER.decode(text)
        except (ValueError, RecursionError):
            continue
        assert repr(_loaded(text, hooks)) == repr(found)
        assert hooks == []
        read += 1
    assert read > 500


def test_what_is_read_is_what_the_standard_library_reads():
    rng = random.Random(13)

    def made(depth):
        if not depth or rng.random() < 0.3:
            return rng.choice([None, True, False, 0, -1, 1.5, 1e300, "", "\xe9", "\U0001f600", 'q"\\', 10**25])
        if rng.random() < 0.5:
            return [made(depth - 1) for _ in range(rng.randint(0, 4))]
        return {rng.choice("abcde") * rng.randint(1, 3): made(depth - 1) for _ in range(rng.randint(0, 4))}

    for _ in range(500):
        document = {"a": made(5)}
        for ascii_only in (True, False):
            assert parsed(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


# words


def test_a_refusal_names_the_field_and_bears_its_path():
    with pytest.raises(Refusal) as caught:
        refuse("messages[1].role", "must be a word")
    assert caught.value.document() == {
        "error": {
            "message": "messages[1].role: must be a word",
            "type": "invalid_request_error",
            "param": "messages[1].role",
            "code": "invalid_value",
        }
    }


@pytest.mark.parametrize("text", ["x" * 1000, "a\r\nb\x00\u2028\ud800", "\U0001f600" * 90, ["x"], None, {"a": 1}])
def test_what_a_stranger_sent_is_quoted_short_and_in_one_line(text):
    quoted = shown(text)
    assert quoted.isascii()
    assert len(quoted) < 70
    assert not set(quoted) & set("\r\n")


def test_a_name_in_a_path_is_quoted_short():
    refusal = refused(json.dumps({"a": {"n\n\xe9" * 500: "X"}}).replace('"X"', "NaN").encode())
    assert refusal.param.startswith("a.n\\n\\xe9")
    assert len(refusal.param) < 80
