"""The table of hostile programs: what each tries, its text, and how its success would be seen.

A program is a function of what is there (`at`), written where it is to be read, and sent as text behind
`tools.py`. It gives what it got away with: anything true is harm. Most harm is seen from outside as well,
whatever a program says: a secret in the answer, a changed canary, a visit at a listener, a process or a
file that is left, a house that is slow or gone.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

Function = Callable[[Any], Any]
TOOLS = Path(__file__).with_name("tools.py").read_text("utf-8")
ENTRY = """

def main(at):
    return begun(at, {name})
"""


class Program(NamedTuple):
    """A hostile program, and what is to be known for judging it.

    slow: only the clock ends it. fails: it must not pass for a success. told: a true result is harm.
    as_root: without walls its harm is seen only as root. rooted: only a private root is promised to keep it
    from that: from seeing what exists, from having more disk than its share for a moment. only: the machine it
    is written for. then, beside: a second program, run after it or at the same time, to which the first one's
    traces must not show. ends: how it may end besides being refused. tame: why it harms nobody even without
    walls, when Python itself or this kernel sees to that.
    """

    name: str
    tries: str
    code: str
    room: str
    slow: bool = False
    fails: bool = False
    told: bool = True
    as_root: bool = False
    rooted: bool = False
    only: str = ""
    then: str = ""
    beside: str = ""
    ends: Tuple[str, ...] = ()
    tame: str = ""


PROGRAMS: Dict[str, Program] = {}


def text_of(function: Function) -> str:
    """Give a program's text: the tools, the function without its decorator, and the way in."""
    source = textwrap.dedent(inspect.getsource(function))
    body = source[re.search(r"^(async )?def ", source, re.MULTILINE).start() :]  # type: ignore[union-attr]
    return TOOLS + "\n\n" + body + ENTRY.format(name=function.__name__)


def attack(
    then: Optional[Function] = None, beside: Optional[Function] = None, **more: Any
) -> Callable[[Function], Function]:
    """Enter a function into the table under its name; its docstring says what it tries."""

    def enter(function: Function) -> Function:
        second = {"then": text_of(then) if then else "", "beside": text_of(beside) if beside else ""}
        tries = " ".join((function.__doc__ or "").split())
        room = function.__module__.rpartition(".")[2]
        PROGRAMS[function.__name__] = Program(function.__name__, tries, text_of(function), room, **second, **more)
        return function

    return enter


def text(name: str, tries: str, code: str, **more: Any) -> None:
    """Enter a program that is nothing but its text."""
    PROGRAMS[name] = Program(name, tries, code, "texts", **more)
