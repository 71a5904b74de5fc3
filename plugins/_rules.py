"""Rules that a stranger's JSON keeps: each takes a value and its path, and refuses what is wrong. Pure."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional, Tuple

from ._json import refuse, shown

Rule = Callable[[Any, str], None]


def kind(kinds: Tuple[type, ...], words: str) -> Rule:
    def rule(value: Any, path: str) -> None:
        if type(value) not in kinds:  # what was parsed is of no kind but JSON's own, and true is no number
            refuse(path, f"must be {words}", "invalid_type")

    return rule


a_text = kind((str,), "a string")
a_flag = kind((bool,), "true or false")
an_object = kind((dict,), "an object")
a_list = kind((list,), "a list")
a_number = kind((int, float), "a number")
an_integer = kind((int,), "an integer")


def _between(kind: Rule, low: float, high: Optional[float] = None) -> Rule:
    bounds = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"

    def rule(value: Any, path: str) -> None:
        kind(value, path)
        if value < low or (high is not None and value > high):
            refuse(path, f"must be {bounds}")

    return rule


def number(low: float, high: Optional[float] = None) -> Rule:
    return _between(a_number, low, high)


def integer(low: int, high: Optional[int] = None) -> Rule:
    return _between(an_integer, low, high)


def one_of(*words: str) -> Rule:
    def rule(value: Any, path: str) -> None:
        a_text(value, path)
        if value not in words:
            refuse(path, f"must be one of {', '.join(words)}, not {shown(value)!r}")

    return rule


def each(rule: Rule, least: int = 0) -> Rule:
    def every(value: Any, path: str) -> None:
        a_list(value, path)
        if len(value) < least:
            refuse(path, "must not be empty")
        for at, item in enumerate(value):
            rule(item, f"{path}[{at}]")

    return every


def filled(value: Any, path: str) -> None:
    a_text(value, path)
    if not value.strip():
        refuse(path, "must not be empty")


def record(rules: Mapping[str, Rule], required: Tuple[str, ...] = ()) -> Rule:
    """Rule over an object: what is required is there, what has a rule keeps it, null is absent."""

    def rule(value: Any, path: str) -> None:
        an_object(value, path)
        for name in required:
            if value.get(name) is None:
                refuse(f"{path}.{name}", "is required", "missing_required_parameter")
        for name, item in value.items():
            if item is not None and name in rules:
                rules[name](item, f"{path}.{name}")

    return rule


def variant(kinds: Mapping[str, Rule], usual: str = "", other: Optional[Rule] = None) -> Rule:
    """Rule over an object whose `type` says which rule it keeps; without `other` there are no other types."""

    def rule(value: Any, path: str) -> None:
        an_object(value, path)
        kind = usual if value.get("type") is None else value["type"]
        if kind == "":
            refuse(f"{path}.type", "is required", "missing_required_parameter")
        a_text(kind, f"{path}.type")
        chosen = kinds.get(kind, other)
        if chosen is None:
            refuse(f"{path}.type", f"must be one of {', '.join(kinds)}, not {shown(kind)!r}")
        chosen(value, path)

    return rule


def each_value(rule: Rule) -> Rule:
    def every(value: Any, path: str) -> None:
        an_object(value, path)
        for name, item in value.items():
            if item is not None:
                rule(item, f"{path}.{shown(name)}")

    return every
