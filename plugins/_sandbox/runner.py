"""The runner: runs the one program of a confined process, and says in one frame of JSON how that went.

It shares its process with the program, so nothing in here is a wall: whatever a program wants to say as its result, it
can say. What is done against meddling keeps programs right that only replace what they use themselves (`sys.stdout`,
`json.dumps`, a builtin). How long it took and what it printed is measured outside.

A request is `{"code": ..., "input": ..., "function": ..., "token": ...}`, of which all but the code may be missing; the
frame is `{"token", "success", "called", "result", "error", "error_type"}`. `called` tells that a function was called:
code without any is a script. The traceback of a failure goes to stderr, without the frames that are not the program's.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import importlib
import inspect
import io
import json
import linecache
import mmap
import os
import pkgutil
import sys
import traceback
import types
import warnings
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Iterator, List, NoReturn, Optional, Tuple

CODE = "<code>"  # the name of the program's file in tracebacks
MAIN = "__main__"
OUT_OF_MEMORY = 77  # the exit status when there is no memory left even to say so
RESERVE = 4 << 20  # bytes of address space that are kept back for saying that there are no more
MOST_WORDS = 4096  # letters of an error's message that are told
MOST_TRACEBACK = 1 << 16
RECURSION = 1000
NOT_THE_PROGRAMS = (os.path.dirname(os.__file__), os.path.dirname(os.path.abspath(__file__)), "<frozen ")
GUARDS = frozenset({"__name__ == '__main__'", "'__main__' == __name__"})
Program = Dict[str, Any]

# A program may replace a builtin: what is defined below looks them up in a copy, from which `mended` puts them back.
BUILTINS = dict(vars(builtins))
globals()["__builtins__"] = BUILTINS


class ResultNotSerializable(Exception):  # noqa: N818  (the name is what a client is told)
    """What a function gave back is no JSON."""

    __module__ = "builtins"  # a traceback names it without where it is from


class _Strict(json.JSONEncoder):
    def default(self, o: Any) -> NoReturn:
        raise TypeError(f"Object of type {type(o).__name__} is not JSON serializable")


def unique(pairs: List[Tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("two keys of a dict are the same when written as JSON")


_encode = _Strict(allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(object_pairs_hook=unique).decode


def run(request: bytes, say: Callable[[bytes], None], leave: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    """Run the program that is asked for, say the frame, and end the process: no thread and no `atexit` delays that."""
    reserve = mmap.mmap(-1, RESERVE)  # not touched, so it costs nothing
    program: Program = json.loads(request)
    _before = sys.stdin, sys.stdout, sys.stderr  # kept: their end would close the descriptors
    streams = attached()
    status = 1
    try:
        try:
            frame = framed(program, success=True, result=performed(program))
        except BaseException as error:  # noqa: BLE001  (whatever a program raises is how it failed)
            reserve.close()
            mended()
            frame = failed(program, error)
        flushed(*streams, sys.stdout, sys.stderr)
        say(frame)
        status = 0
    except MemoryError:
        status = OUT_OF_MEMORY
    finally:
        leave(status)


def warm() -> None:
    """Run a program of our own: what costs time only once is then done before a request comes, and nothing is left."""
    program: Program = {"code": "def main(a): return a", "input": {"a": [1]}}
    framed(program, success=True, result=performed(program))


def framed(program: Program, **told: Any) -> bytes:
    """Write the frame; raises ResultNotSerializable."""
    frame = {"success": False, "result": None, "error": "", "error_type": None, **told}
    frame.update(token=program.get("token"), called=bool(program.get("called")))
    try:
        return encoded(frame)
    except Exception:  # noqa: BLE001  (perhaps it is not the result, but what the encoder is made of)
        mended()
    try:
        return encoded(frame)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  (a subclass of dict does what it likes)
        raise ResultNotSerializable(words(error)) from None


def encoded(frame: Dict[str, Any]) -> bytes:
    text: str = _encode(frame)
    _decode(text)
    return text.encode("ascii")


def mended(deepen: Callable[[int], None] = sys.setrecursionlimit) -> None:
    """Put back what the rest of the library cannot do without."""
    vars(builtins).update(BUILTINS)
    deepen(RECURSION)


def attached() -> Tuple[io.TextIOWrapper, io.TextIOWrapper]:
    """Put new text streams on the descriptors 0 to 2; what is written is out at once, and no kill loses it."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="replace", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    out, err = (
        io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
        for fd in (1, 2)
    )
    sys.stdout = sys.__stdout__ = out  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = err  # type: ignore[misc]
    return out, err


def flushed(*streams: Any) -> None:
    """Flush what can be flushed; a program may have put anything there."""
    for stream in streams:
        with contextlib.suppress(Exception, SystemExit):
            stream.flush()


# what is run


def performed(program: Program) -> Any:
    """Run the code, and the function that is chosen; gives its result, made plain."""
    text: str = program["code"].removeprefix("\ufeff")
    linecache.cache[CODE] = (len(text), None, io.StringIO(text).readlines(), CODE)
    asked: Optional[str] = program.get("function")
    code, names = compiled(text, asked)
    module = types.ModuleType(MAIN)
    vars(module).update(__builtins__=builtins, tool=tool)
    sys.modules[MAIN] = module  # where dataclasses, enum and pickle look for what a program defines
    sys.argv = [CODE]
    try:
        exec(code, vars(module))  # noqa: S102  (this is what all the walls are for)
    except SystemExit as end:
        if asked or names[1:] or end.code not in (None, 0):
            raise
        return None  # a script, with no function in sight, that has done what it wanted
    function = chosen(vars(module), names)
    if function is None:
        if asked:
            raise NameError(f"the code has no function named {asked!r}")
        return None
    program["called"] = True
    arguments, named = arguments_of(function, program)
    return plain(function(*arguments, **named))


def tool(function: Any = None, *_: Any, **__: Any) -> Any:
    """Mark the function to be called: `@tool`, or `@tool(...)` with whatever is to be said of it."""
    return function if callable(function) else tool


def compiled(text: str, asked: Optional[str]) -> Tuple[types.CodeType, List[str]]:
    """Compile the code; gives also the names of functions that might be called, the first choice first.

    Where there is such a function, what stands under `if __name__ == "__main__":` is left out.
    """
    try:
        tree = ast.parse(text, CODE)
        defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        tools = [node.name for node in defined if any(map(is_tool, node.decorator_list))]
        names = [asked] if asked else ["main", *tools, *(node.name for node in defined)]
        if asked or defined:
            tree.body = [kept for node in tree.body for kept in unguarded(node)]
        return compile(tree, CODE, "exec", dont_inherit=True), names
    except SyntaxError as error:
        if error.text is None and error.lineno:
            error.text = linecache.getline(CODE, error.lineno)
        raise
    except ValueError as error:  # a NUL, of which later versions say it themselves
        raise SyntaxError(str(error)) from None


def is_tool(decorator: ast.expr) -> bool:
    named = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(named, "id", getattr(named, "attr", None)) == "tool"


def unguarded(node: ast.stmt) -> List[ast.stmt]:
    """Give what is left of a statement when the program is not run as a script."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and ast.unparse(node.test) in GUARDS:
        return node.orelse
    return [node]


def chosen(namespace: Dict[str, Any], names: List[str]) -> Optional[Callable[..., Any]]:
    """Give the first of these that is a function, or is called like one; a class is not."""
    for name in names:
        value = namespace.get(name)
        if callable(value) and not isinstance(value, type) and value is not tool:
            found: Callable[..., Any] = value
            return found
    return None


def arguments_of(function: Callable[..., Any], program: Program) -> Tuple[List[Any], Dict[str, Any]]:
    """Give what a function is called with: the input's values by name, or the input as the one argument.

    A list under the name of `*args` is spread. Whatever is missing, the call itself will say.
    """
    if "input" not in program:
        return [], {}
    given = program["input"]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # made in C, and says nothing of itself
        return ([], given) if isinstance(given, dict) else ([given], {})
    if isinstance(given, dict):
        return mapped(parameters, dict(given))
    takes = any(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL) for one in parameters)
    return ([given] if takes or given is not None else []), {}


def mapped(parameters: List[inspect.Parameter], given: Dict[str, Any]) -> Tuple[List[Any], Dict[str, Any]]:
    """Give each parameter its value by name; what is too much is dropped, unless there is a `**kwargs`."""
    arguments: List[Any] = []
    named: Dict[str, Any] = {}
    spread = any(one.kind is one.VAR_POSITIONAL and isinstance(given.get(one.name), list) for one in parameters)
    for one in parameters:
        if one.kind is one.VAR_KEYWORD:
            named.update(given)
        elif one.kind is one.VAR_POSITIONAL:
            arguments += given.pop(one.name) if spread else ()
        elif one.kind is one.POSITIONAL_ONLY or (spread and one.kind is one.POSITIONAL_OR_KEYWORD):
            arguments.append(by_position(one, given))
        elif one.name in given:
            named[one.name] = given.pop(one.name)
    return arguments, named


def by_position(parameter: inspect.Parameter, given: Dict[str, Any]) -> Any:
    """Take what goes to a parameter that is not told by its name."""
    if parameter.name not in given and parameter.default is parameter.empty:
        raise TypeError(f"missing a required argument: {parameter.name!r}")
    return given.pop(parameter.name, parameter.default)


def plain(result: Any) -> Any:
    """Wait for what has to be waited for, and make a list of a generator."""
    if isinstance(result, types.GeneratorType):
        return list(result)
    if isinstance(result, types.AsyncGeneratorType):
        return awaited(listed(result))
    if isinstance(result, types.CoroutineType) or hasattr(type(result), "__await__"):
        return plain(awaited(result))
    return result


async def listed(items: AsyncIterator[Any]) -> List[Any]:
    return [item async for item in items]


def awaited(result: Awaitable[Any]) -> Any:
    """Wait on a new loop. What else runs on it is not waited for, as `asyncio.run` would for threads."""

    async def wait() -> Any:
        return await result

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(wait())


# how it failed


def failed(program: Program, error: BaseException) -> bytes:
    """Write the traceback to stderr, and give the frame that tells of a failure."""
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)
    with contextlib.suppress(OSError):
        left = memoryview(shown(error).encode("utf-8", "backslashreplace"))
        while left:
            left = left[os.write(2, left) :]
    return framed(program, error=words(error), error_type=type(error).__name__[:MOST_WORDS])


def words(error: BaseException) -> str:
    """Give an error's message, or at least its kind."""
    try:
        return str(error)[:MOST_WORDS] or type(error).__name__
    except BaseException:  # noqa: BLE001  (its `__str__` is the program's)
        return f"<unprintable {type(error).__name__}>"


def shown(error: BaseException) -> str:
    """Give the traceback, without the frames of the library and ours."""
    try:
        report = traceback.TracebackException.from_exception(error)
        for one in related(report):
            one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(NOT_THE_PROGRAMS)]
        text = "".join(report.format())
    except BaseException:  # noqa: BLE001  (what is shown is the program's, and may be anything)
        text = f"{type(error).__name__}: {words(error)}\n"
    half = MOST_TRACEBACK // 2
    return text if len(text) <= MOST_TRACEBACK else f"{text[:half]}\n[...]\n{text[-half:]}"


def related(report: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Give a report, and those of what caused it."""
    left: List[Optional[traceback.TracebackException]] = [report]
    while left:
        one = left.pop()
        if one is not None:
            yield one
            left += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]


# what programs import

COMMON = """
    abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections.abc colorsys
    concurrent.futures.thread configparser contextlib contextvars copy csv ctypes dataclasses datetime decimal difflib
    email.message enum fnmatch fractions functools getpass glob graphlib gzip hashlib heapq hmac html.parser
    importlib.util inspect io ipaddress itertools json keyword locale logging lzma math numbers operator os pathlib
    pickle platform pprint queue random re reprlib secrets select shlex shutil signal socket sqlite3 ssl stat statistics
    string struct subprocess tempfile textwrap threading time timeit tokenize tomllib traceback types typing
    unicodedata unittest urllib.parse uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo
""".split()  # noqa: SIM905  (a list would be a page)
#: what opens windows, speaks, tests Python itself, or takes long and is of no use in here
NEVER = frozenset(
    {"antigravity", "curses", "ensurepip", "idlelib", "lib2to3", "pip", "pydoc_data", "readline", "rlcompleter"}
    | {"site-packages", "test", "this", "tkinter", "turtle", "turtledemo", "venv", "__phello__"}
)


def preload(everything: bool = False) -> None:
    """Import what programs will, once and before any walls: the usual, or whatever the library has."""
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # what `site` would have put there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in whole_library() if everything else COMMON:
            with contextlib.suppress(Exception, SystemExit):  # not every Python has all of them
                importlib.import_module(name)


def whole_library() -> Iterator[str]:
    """Name every module there is, and those inside of packages."""
    yield from sys.builtin_module_names
    left: List[Tuple[Optional[List[str]], str]] = [(None, "")]
    while left:
        path, prefix = left.pop()
        for module in pkgutil.iter_modules(path, prefix):
            parts = module.name.split(".")
            if NEVER.isdisjoint(parts) and not parts[-1].startswith(("__main__", "test", "_test")):
                yield module.name
                package = sys.modules.get(module.name)
                if package is not None and hasattr(package, "__path__"):
                    left.append((list(package.__path__), module.name + "."))
