"""JSON from strangers: parsed strictly, and what is wrong named by its path. No I/O.

Stricter than `json.loads`: no NaN, no number that overflows, no name given twice with two values, no
half of a surrogate pair, no nesting deeper than the walks after it could follow. What one reader, made once, does not
take as it stands is read a second time, to learn where it is wrong; nearly nothing ever is.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Iterable, List, NamedTuple, NoReturn, Optional, Tuple

from providers._json import DECODER, DEEPEST, LONGEST_INTEGER, is_deep

from . import JSON, Refusal

_MARK = b"\xef\xbb\xbf"  # of the byte order, as Windows tools write it
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_SPELLED = re.compile(rb"\\u[dD]")


class _Bad:
    """Stands in a parsed document where something is wrong, until its path is known."""

    def __init__(self, why: str) -> None:
        self.why = why


def refuse(param: str, why: str, code: str = "invalid_value") -> NoReturn:
    """Refuse a field by its path."""
    raise Refusal(400, f"{param}: {why}" if param else why, code=code, param=param or None)


class _Hooks(List[_Bad]):
    """What `json.loads` calls back; lists the bad values it met."""

    def bad(self, why: str) -> _Bad:
        self.append(_Bad(why))
        return self[-1]

    def unique(self, pairs: List[Tuple[str, Any]]) -> JSON:
        found = dict(pairs)
        if len(found) < len(pairs):
            for name, value in pairs:
                if found[name] != value:
                    found[name] = self.bad("given twice, with different values")
        return found

    def number(self, text: str) -> Any:
        value = float(text)
        return value if math.isfinite(value) else self.bad("the number is too large")

    def integer(self, text: str) -> Any:
        return int(text) if len(text) < LONGEST_INTEGER else self.bad("the number is too large")

    def constant(self, name: str) -> _Bad:
        return self.bad(f"{name} is not JSON")


def _plain(pairs: List[Tuple[str, Any]]) -> JSON:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


#: gives what `_Hooks` would find nothing wrong with, and most of what is right; raises ValueError for the rest
_READER = json.JSONDecoder(
    object_pairs_hook=_plain,
    parse_constant=DECODER.parse_constant,
    parse_float=DECODER.parse_float,
    parse_int=DECODER.parse_int,
)


def parsed(body: bytes) -> JSON:
    """Parse the body of a request: one JSON object, or a 400 that names what is wrong with it."""
    if not body:
        refuse("", "the body is empty: send a JSON object", "invalid_json")
    if is_deep(body):
        refuse("", f"the body is nested deeper than {DEEPEST} levels", "invalid_json")
    text, hooks = _decoded(body), _Hooks()
    try:
        document = _READER.decode(text)
    except ValueError:
        document = _loaded(text, hooks)
    if not isinstance(document, dict):
        refuse("", "the body is JSON, but not an object", "invalid_json")
    if hooks or _may_hold_surrogates(body):
        wrong = _wrong(document)
        if wrong:
            refuse(wrong.path.lstrip("."), wrong.why)
    return document


def _decoded(body: bytes) -> str:
    try:
        return body.removeprefix(_MARK).decode()
    except UnicodeDecodeError:
        refuse("", "the body is not UTF-8", "invalid_json")


def _loaded(text: str, hooks: _Hooks) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=hooks.unique,
            parse_constant=hooks.constant,
            parse_float=hooks.number,
            parse_int=hooks.integer,
        )
    except ValueError as error:
        refuse("", f"the body is not JSON: {error}", "invalid_json")


def _may_hold_surrogates(body: bytes) -> bool:
    return b"\\u" in body and _SURROGATE_SPELLED.search(body) is not None


class _Wrong(NamedTuple):
    """A value that is refused: the way to it (`.messages[1].content`), and why."""

    path: str
    why: str


def _wrong(value: Any) -> Optional[_Wrong]:
    """Find the first value that is wrong. Recursive: what was parsed is not deep."""
    if isinstance(value, _Bad):
        return _Wrong("", value.why)
    if isinstance(value, str):
        return _Wrong("", "half of a surrogate pair") if _SURROGATE.search(value) else None
    if isinstance(value, dict):
        return _wrong_in(value.items(), ".{}")
    return _wrong_in(enumerate(value), "[{}]") if isinstance(value, list) else None


def _wrong_in(items: Iterable[Tuple[Any, Any]], step: str) -> Optional[_Wrong]:
    for name, item in items:
        if isinstance(name, str) and _SURROGATE.search(name):
            return _Wrong("", "a name holds half of a surrogate pair")
        found = _wrong(item)
        if found:
            return _Wrong(step.format(shown(name)) + found.path, found.why)
    return None


def shown(text: object, most: int = 60) -> str:
    """Quote what a stranger sent in a message: short, and in one line of ASCII."""
    plain = str(text)[: most + 1]
    if "\\" in plain or not (plain.isascii() and plain.isprintable()):
        plain = plain.encode("unicode_escape").decode()
    return plain if len(plain) <= most else plain[:most] + "..."
