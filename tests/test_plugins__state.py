"""What is promised of `plugins/_state.py`: what was sealed is opened as it was, and nothing else is."""

from __future__ import annotations

import base64
import json
import zlib

import pytest

from plugins._state import LARGEST, PREFIX, opened, sealed

DETAILS = [
    {
        "provider": "p",
        "model": "m",
        "index": 0,
        "type": "thinking",
        "thinking": "Ω 🌧 >>>???~~~\x7f",
        "signature": "a/b+c=",
    },
    {"provider": "p", "model": "m", "index": 1, "type": "redacted_thinking", "data": "x" * 5000},
]


@pytest.mark.parametrize("details", [DETAILS, DETAILS[:1], [], [{}]])
def test_what_was_sealed_is_opened_as_it_was(details):
    assert opened(sealed(details)) == details


@pytest.mark.parametrize("at", range(40))
def test_it_survives_clients_that_decode_and_encode_it_their_own_way(at):
    text = sealed([{"signature": "".join(chr(33 + (at * 7 + n * 13) % 94) for n in range(at * 9))}])
    assert text.startswith(PREFIX)
    assert base64.urlsafe_b64encode(base64.b64decode(text, validate=True)).decode() == text
    assert base64.b64encode(base64.urlsafe_b64decode(text)).decode() == text


def forged(inner):
    packed = base64.urlsafe_b64encode(zlib.compress(inner))
    return base64.b64encode(b"llmproxy-1:" + packed).decode()


STRANGE = {
    "none": None,
    "no text": 5,
    "empty": "",
    "another's": "gAAAAABk" * 9,
    "the mark alone": PREFIX,
    "cut short": sealed(DETAILS)[:-8],
    "changed": sealed(DETAILS)[:-9] + "A" + sealed(DETAILS)[-8:],
    "not base64": PREFIX + "%%%%",
    "no list": forged(b'{"details": {"a": 1}}'),
    "no objects": forged(b'{"details": [1]}'),
    "half a letter": forged(b'{"details": [{"a": "\\ud83c"}]}'),
    "no JSON": forged(b"hello"),
    "deep": forged(b"[" * 100_000),
    "a bomb": forged(json.dumps({"details": [{"a": "x" * LARGEST}]}).encode()),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_ours_is_not_opened(name):
    assert opened(STRANGE[name]) is None
