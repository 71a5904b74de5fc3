"""JSON in texts that models and strangers wrote: read only if it can be passed on as JSON. No I/O.

What reads and what writes is made once: the library's own `loads` and `dumps` make a reader or a writer of the
settings they are given each time they are called.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Callable, NoReturn

DEEPEST = 128
LONGEST_INTEGER = 300  # digits

BLANKS = " \t\n\r"  # between the tokens of JSON

_STRING = re.compile(rb'"[^"]*"')  # of JSON without its escapes
_SQUARE = bytes.maketrans(b"{}", b"[]")
_TEXT = bytes(set(range(256)) - set(b'[]{}"'))
_LETTERS = bytes(set(_TEXT) - set(b"\\/bfnrtu"))  # which no backslash can stand before


def is_deep(data: bytes, deepest: int = DEEPEST) -> bool:
    """Tell whether brackets nest too deep, or too many have no partner.

    Ask before parsing: the parser is recursive, and on a thread with a small stack it would end the
    process. This goes level by level from the inside, so that the work is done by C on all of it.
    """
    if data.count(b"[") + data.count(b"{") <= deepest:
        return False
    marks = data.translate(None, _LETTERS)  # looking for two letters takes as long as there is text
    marks = marks.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_SQUARE, _TEXT).replace(b'""', b"")
    brackets = _STRING.sub(b"", marks)  # all square: which is whose partner is for the parser to say
    for _ in range(deepest):
        outer = brackets.replace(b"[]", b"")
        if len(outer) == len(brackets):
            return len(outer) > deepest
        brackets = outer
    return bool(brackets)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _constant(text)


def _integer(text: str) -> int:
    return int(text) if len(text) < LONGEST_INTEGER else _constant("so long a number")


#: for what it finds at some place of a text (`raw_decode`): nothing is known of its depth
DECODER = json.JSONDecoder(parse_constant=_constant, parse_float=_number, parse_int=_integer)


#: for what an upstream sends: its numbers are taken at their word, for there may be a million of them
PLAIN = json.JSONDecoder(parse_constant=_constant)


#: nothing here goes in a circle, and looking whether it does costs as much as writing it
_WRITER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
written: Callable[[Any], str] = _WRITER.encode  # in ASCII; ValueError for a number that no JSON can hold


def loads(text: str) -> Any:
    """Parse a text; ValueError for what is no JSON, or JSON that nobody else could be expected to read."""
    return _read(text, DECODER)


def told(text: str) -> Any:
    """Parse what an upstream sent; ValueError for what is no JSON, or nested too deep."""
    return _read(text, PLAIN)


def _read(text: str, decoder: json.JSONDecoder) -> Any:
    if len(text) > DEEPEST:  # else there is no room for more brackets
        _check_depth(text)
    text = text.strip(BLANKS)
    value, end = decoder.raw_decode(text)
    if end < len(text):
        raise ValueError("there is more than one value")
    return value


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") > DEEPEST and is_deep(text.encode("utf-8", "surrogatepass")):
        raise ValueError(f"nested deeper than {DEEPEST} levels")
