"""Programs, and what POST /execute promises of each: the table that is run bare and behind the real walls."""

from __future__ import annotations

import json
import sys
import textwrap
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

NOTHING = object()


class Case(NamedTuple):
    """A program, and what its answer has to hold; `stderr` and `error` are found in the answer's own."""

    promise: str
    code: str
    input: Any = NOTHING
    function: Any = NOTHING
    expected: Mapping[str, Any] = MappingProxyType({})
    error: str = ""
    stderr: Tuple[str, ...] = ()
    absent: Tuple[str, ...] = ()  # from stderr

    @property
    def body(self) -> Dict[str, Any]:
        given = {"input": self.input, "function": self.function}
        asked = {name: value for name, value in given.items() if value is not NOTHING}
        return {"code": textwrap.dedent(self.code), **asked}


def gives(promise: str, code: str, result: Any, **more: Any) -> Case:
    """A case whose function succeeds."""
    expected = {"success": True, "result": result, "error": "", "error_type": None, **more.pop("expected", {})}
    return Case(promise, code, expected=expected, **more)


def prints(promise: str, code: str, output: str, **more: Any) -> Case:
    """A case that is a script, and succeeds."""
    expected = {"success": True, "result": None, "output": output, "stdout": output, "error_type": None}
    return Case(promise, code, expected={**expected, **more.pop("expected", {})}, **more)


def fails(promise: str, code: str, kind: str, error: str = "", **more: Any) -> Case:
    expected = {"success": False, "result": None, "error_type": kind, **more.pop("expected", {})}
    return Case(promise, code, expected=expected, error=error, **more)


ADD = "def add(a, b):\n    return a + b"
AB = {"a": 1, "b": 2}
NO_JSON = "ResultNotSerializable"

CASES: List[Case] = [
    # which function
    gives("the only function is called", ADD, 3, input=AB, expected={"output": "3", "stdout": "", "stderr": ""}),
    gives("the named one", "def one(): return 1\ndef two(): return 2", 2, function="two"),
    gives("the named one beats main", "def main(): return 1\ndef other(): return 2", 2, function="other"),
    gives("else main", "def first(): return 1\ndef main(): return 2", 2),
    gives("main beats a tool", "@tool\ndef t(): return 1\ndef main(): return 2", 2),
    gives("else the tool", "def first(): return 1\n@tool\ndef second(): return 2", 2),
    gives("a tool with words", "def a(): return 1\n@tool('name', strict=True)\ndef b(): return 2", 2),
    gives("a tool of its own making", "def tool(f): return f\n@tool\ndef b(): return 2", 2),
    gives(
        "a tool under another decorator",
        "import functools\ndef a(): return 1\n@functools.lru_cache()\n@tool\ndef b(): return 2",
        2,
    ),
    gives("else the first", "def first(): return 1\ndef second(): return 2", 1),
    gives("null names none", "def first(): return 1", 1, function=None),
    gives("a class is no function", "class main:\n    pass\ndef f(): return 1", 1),
    gives(
        "a method is none",
        "class A:\n    def m(self): return 1\n    @tool\n    def t(self): return 2\ndef f(): return 3",
        3,
    ),
    gives("an inner function is none", "def outer():\n    def inner(): return 1\n    return 2", 2),
    gives("an imported one is not the first", "from os.path import join\ndef f(): return 1", 1),
    gives("a lambda named main", "main = lambda: 4", 4),
    gives("a callable that is named", "import functools\nf = functools.partial(max, 1)", 5, input=5, function="f"),
    gives(
        "a wrapped function keeps its signature",
        """
        import functools
        def twice(f):
            @functools.wraps(f)
            def inner(*args, **kwargs):
                return 2 * f(*args, **kwargs)
            return inner
        @twice
        def main(a, b=1):
            return a + b
        """,
        8,
        input={"a": 3, "c": 1},
    ),
    gives(
        "async", "import asyncio\nasync def main(a):\n    await asyncio.sleep(0.01)\n    return a", 1, input={"a": 1}
    ),
    gives("asyncio.run inside", "import asyncio\nasync def f(): return 1\ndef main(): return asyncio.run(f())", 1),
    fails("an unknown name", ADD, "NameError", "'nope'", function="nope"),
    fails("a name that is a class", "class A: pass", "NameError", function="A"),
    fails("the decorator that is there", "a = 1", "NameError", function="tool"),
    fails("a name that is no function", "a = 1", "NameError", function="a"),
    # what it is called with
    gives("what is too much is dropped", ADD, 3, input={**AB, "c": 3}),
    gives("unless there is room for it", "def f(a, **more): return more", {"b": 2}, input=AB),
    gives("defaults", "def f(a, b=5): return a + b", 6, input={"a": 1}),
    gives("only by name", "def f(*, a): return a", 1, input={"a": 1}),
    gives("only by position", "def f(a, b=7, /, c=1): return [a, b, c]", [1, 7, 3], input={"a": 1, "c": 3}),
    gives("a list for *args", "def f(a, *args): return [a, args]", [1, [2, 3]], input={"a": 1, "args": [2, 3]}),
    gives("nothing for *args", "def f(a, *args): return [a, args]", [1, []], input={"a": 1}),
    gives("a list is one argument", "def f(items): return sum(items)", 6, input=[1, 2, 3]),
    gives("a text is one", "def f(text): return text.upper()", "ABC", input="abc", expected={"output": "ABC"}),
    gives("a number is one", "def f(n): return n + 1", 2, input=1),
    gives("false is one", "def f(x): return x is False", True, input=False),
    gives("null is one", "def f(x=1): return x is None", True, input=None),
    gives("null is none where there is no room", "def f(): return 1", 1, input=None),
    gives("one of *args", "def f(*args): return args", [[1, 2]], input=[1, 2]),
    gives("no input", "def f(a=1): return a", 1),
    gives("an empty one", "def f(a=1): return a", 1, input={}),
    fails("a missing argument", ADD, "TypeError", "'b'", input={"a": 1}, stderr=("TypeError: ",), absent=("runner",)),
    fails("a missing one without input", ADD, "TypeError", "'a' and 'b'"),
    fails("a missing one by position", "def f(a, b, /): return a", "TypeError", "'a'", input={"b": 1}),
    # what it gives
    gives("nothing", "def f(): pass", None, expected={"output": ""}),
    gives("a text as itself", "def f(): return 'a \"b\" \\u00e9'", 'a "b" é', expected={"output": 'a "b" é'}),
    gives(
        "all else as JSON",
        "def f(): return {'a': [1, 2.5, True, None, 'é']}",
        {"a": [1, 2.5, True, None, "é"]},
        expected={"output": '{"a": [1, 2.5, true, null, "é"]}'},
    ),
    gives("true", "def f(): return True", True, expected={"output": "true"}),
    gives("a tuple", "def f(): return (1, (2,))", [1, [2]]),
    gives("a generator", "def f(n):\n    for i in range(n): yield i", [0, 1, 2], input=3),
    gives("an async generator", "async def f():\n    yield 1\n    yield 2", [1, 2]),
    gives("a coroutine from a plain function", "async def g(): return 1\ndef main(): return g()", 1),
    gives(
        "what can be awaited",
        "class A:\n    def __await__(self):\n        return 1\n        yield\ndef f(): return A()",
        1,
    ),
    gives("keys as JSON writes them", "def f(): return {1: 2, None: 3, True: 4}", {"1": 4, "null": 3}),
    gives(
        "a subclass as what it is",
        """
        import collections, enum
        class N(int):
            def __repr__(self): return 'evil'
            __str__ = __repr__
        class S(str):
            def __repr__(self): return 'evil'
        class E(enum.IntEnum):
            a = 3
        P = collections.namedtuple('P', 'x y')
        def main(): return [N(1), S('s'), E.a, P(1, 2), collections.OrderedDict(a=1), collections.Counter('aa')]
        """,
        [1, "s", 3, [1, 2], {"a": 1}, {"a": 2}],
    ),
    gives("half a surrogate pair", "def f(): return '\\ud800'", "\ud800", expected={"output": "\ud800"}),
    gives("a large number", "def f(): return 10 ** 3000", 10**3000),
    fails("two keys that become one", "def f(): return {1: 2, '1': 3}", NO_JSON),
    fails("a set", "def f(): return {1}", NO_JSON, "set"),
    fails("a set inside", "def f(): return {'a': [{1}]}", NO_JSON),
    fails("not a number", "def f(): return float('nan')", NO_JSON),
    fails("infinity", "def f(): return [float('-inf')]", NO_JSON),
    fails("bytes", "def f(): return b'a'", NO_JSON, "bytes"),
    fails("a complex number", "def f(): return 1j", NO_JSON),
    fails("an object", "class A:\n    def __repr__(self): 1 / 0\ndef f(): return A()", NO_JSON, "A"),
    fails("a tuple as key", "def f(): return {(1, 2): 3}", NO_JSON),
    fails("a circle", "def f():\n    a = []\n    a.append(a)\n    return a", NO_JSON),
    gives(
        "deep",
        "def f():\n    a = []\n    for _ in range(100): a = [a]\n    return a",
        json.loads("[" * 101 + "]" * 101),
    ),
    fails("too deep", "def f():\n    a = []\n    for _ in range(200): a = [a]\n    return a", NO_JSON, "deep"),
    fails("far too deep", "def f():\n    a = []\n    for _ in range(100000): a = [a]\n    return a", NO_JSON),
    fails(
        "too long a number",
        "import sys\ndef f():\n    getattr(sys, 'set_int_max_str_digits', int)(0)\n    return 10 ** 5000",
        NO_JSON,
        "digits",
    ),
    fails("an iterator that is no generator", "def f(): return map(str, [1])", NO_JSON),
    fails("a generator of sets", "def f(): yield {1}", NO_JSON),
    fails("too large a result", "def f(): return 'a' * (5 << 20)", "ResultTooLarge"),
    # scripts
    prints("a script's output is what it prints", "print('a')\nprint('b', end='')", "a\nb"),
    prints("nothing at all", "# nothing", ""),
    prints("input is not for scripts", "print('input' in globals(), callable(input))", "False True\n", input={"a": 1}),
    prints("a script is main", "if __name__ == '__main__':\n    print('yes')", "yes\n"),
    gives(
        "where there is a function that part is left out",
        """
        def main(): return __name__
        if __name__ == '__main__':
            main(1, 2, 3)
        else:
            other = 1
        """,
        "__main__",
        expected={"stdout": ""},
    ),
    prints("what is not ASCII", "print('é€😀')", "é€😀\n"),
    prints("half a surrogate pair, printed", "print('\\ud800')", "\\ud800\n"),
    prints("bytes", "import sys\nsys.stdout.buffer.write(b'\\xff!')", "\ufffd!"),
    prints("a byte order mark", "\ufeffprint(1)", "1\n"),
    prints("line ends of all kinds", "print(1)\r\nprint(2)\rprint(3)", "1\n2\n3\n"),
    prints("a script may end itself well", "import sys\nprint(1)\nsys.exit()\nprint(2)", "1\n"),
    prints("exit is there", "print(1)\nexit(0)", "1\n"),
    fails(
        "or badly", "import sys\nprint(1)\nsys.exit(3)", "SystemExit", "3", expected={"stdout": "1\n", "output": "1\n"}
    ),
    fails("with words", "exit('no luck')", "SystemExit", "no luck", stderr=("no luck",)),
    # what it prints
    gives(
        "print goes to stdout", "def f():\n    print('hi')\n    return 1", 1, expected={"stdout": "hi\n", "output": "1"}
    ),
    gives("and to stderr", "import sys\ndef f():\n    print('hi', file=sys.stderr)", None, expected={"stderr": "hi\n"}),
    gives("warnings to stderr", "import warnings\ndef f(): warnings.warn('mind')", None, stderr=("UserWarning: mind",)),
    gives("without a line end", "import sys\ndef f(): return sys.stdout.write('x')", 1, expected={"stdout": "x"}),
    gives(
        "too much of it is cut",
        "def f(): print('a' * 3000000)",
        None,
        expected={"stdout": "a" * (1 << 20), "truncated": True},
    ),
    fails("nothing is read", "def f(): return input('? ')", "EOFError", expected={"stdout": "? "}),
    fails(
        "what was printed before a time-out is kept",
        "def f():\n    print('begun', end='')\n    while True: pass",
        "TimeoutError",
        "1 s",
        expected={"stdout": "begun"},
    ),
    fails("a sleep times out", "import time\ntime.sleep(60)", "TimeoutError"),
    # how it fails
    fails(
        "a traceback of its own lines",
        """\
        def main():
            return helper(0)

        def helper(n):
            return 1 / n
        """,
        "ZeroDivisionError",
        "division by zero",
        stderr=('File "<code>", line 2, in main', 'File "<code>", line 5, in helper', "return 1 / n"),
        absent=("runner",),
    ),
    fails(
        "and not of the library's",
        "import json\ndef f(): json.loads('x')",
        "JSONDecodeError",
        stderr=('"<code>", line 2',),
        absent=("decoder.py", "__init__.py", "runner"),
    ),
    fails(
        "its causes too",
        """\
        import json
        def main():
            try: json.loads('x')
            except ValueError as error: raise KeyError('k') from error
        """,
        "KeyError",
        stderr=("JSONDecodeError", "line 3", "direct cause", "KeyError: 'k'"),
        absent=("runner", "decoder.py"),
    ),
    fails("at the top", "x = 1\nx.y", "AttributeError", stderr=('File "<code>", line 2, in <module>',)),
    fails("syntax, with its line", "x = 1\ny = = 2", "SyntaxError", "line 2", stderr=("line 2", "y = = 2")),
    fails("syntax found late", "x = 1\nreturn 2", "SyntaxError", "line 2", stderr=("line 2", "return 2")),
    fails("indentation", "def f():\nreturn 1", "IndentationError", "line 2"),
    fails("a NUL", "x = '\0'", "SyntaxError"),
    fails("nothing but brackets", "(" * 5000, "SyntaxError"),
    fails("an import of what is not there", "import numpy", "ModuleNotFoundError", "numpy"),
    fails(
        "an error of its own",
        "class Mine(Exception): pass\ndef f(): raise Mine('so')",
        "Mine",
        "so",
        stderr=("Mine: so",),
    ),
    fails("one without words", "def f(): raise ValueError", "ValueError", "ValueError"),
    fails(
        "one that cannot be said", "class E(Exception):\n    def __str__(self): raise SystemExit\ndef f(): raise E", "E"
    ),
    fails("one that says too much", "def f(): raise ValueError('x' * 10_000_000)", "ValueError", "xxx"),
    fails("no Exception at all", "class E(BaseException): pass\ndef f(): raise E('b')", "E", "b"),
    fails("an interrupt", "def f(): raise KeyboardInterrupt", "KeyboardInterrupt"),
    fails("sys.exit", "import sys\ndef f(): sys.exit(0)", "SystemExit", expected={"output": ""}),
    fails("sys.exit on the way to the function", "import sys\nsys.exit()\ndef f(): return 1", "SystemExit"),
    fails("os._exit", "import os\ndef f():\n    print('x')\n    os._exit(0)", "SystemExit", expected={"stdout": "x\n"}),
    fails("os._exit with a status", "import os\ndef f(): os._exit(3)", "SystemExit", "3"),
    fails("endless recursion", "def f(): return f()", "RecursionError"),
    fails("memory", "def f(): return len(bytearray(1 << 40))", "MemoryError"),
    fails("memory, bit by bit", "x = []\nwhile True: x.append('a' * 10000 + str(len(x)))", "MemoryError"),
    fails(
        "memory, to the last piece",
        "def f():\n    x = None\n    while True:\n        x = (x,)",
        "MemoryError",
        stderr=("line 4, in f", "MemoryError"),
    ),
    fails("a crash", "import ctypes\ndef f(): ctypes.string_at(0)", "Crashed", "SIGSEGV"),
    fails(
        "a group of errors",
        """
        import json, sys
        if sys.version_info < (3, 11): 1 / 0
        try: json.loads('x')
        except ValueError as e: found = e
        raise eval('ExceptionGroup')('g', [found])
        """,
        "ZeroDivisionError" if sys.version_info < (3, 11) else "ExceptionGroup",
        absent=("decoder.py",),
    ),
    fails(
        "in a task",
        "import asyncio\nasync def g(): 1 / 0\nasync def main(): await asyncio.gather(g())",
        "ZeroDivisionError",
        absent=("tasks.py", "runners.py", "base_events.py"),
    ),
    # what it may do to itself
    gives(
        "a thread left behind is not waited for",
        """
        import threading, time
        def main():
            threading.Thread(target=time.sleep, args=(60,)).start()
            return 1
        """,
        1,
    ),
    gives(
        "nor is one of asyncio's",
        """
        import asyncio, time
        async def main():
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
            return 1
        """,
        1,
    ),
    gives("atexit is not waited for", "import atexit, time\natexit.register(time.sleep, 60)\ndef f(): return 1", 1),
    gives(
        "from __future__",
        "'''Words.'''\nfrom __future__ import annotations\ndef f(a: Nothing): return f.__annotations__['a']",
        "Nothing",
        input={"a": 1},
    ),
    gives("and none of ours", "def f(a: int): return f.__annotations__['a'] is int", True, input={"a": 1}),
    gives(
        "dataclasses",
        """
        from __future__ import annotations
        import dataclasses
        @dataclasses.dataclass
        class P:
            x: int
            y: dataclasses.InitVar[int] = 2
        def main(): return dataclasses.asdict(P(1))
        """,
        {"x": 1},
    ),
    gives("pickle", "import pickle\nclass A: x = 1\ndef f(): return pickle.loads(pickle.dumps(A())).x", 1),
    gives(
        "its own source", "import inspect\ndef f(): return inspect.getsource(f)", "def f(): return inspect.getsource(f)"
    ),
    gives(
        "another stdout", "import io, sys\ndef f():\n    sys.stdout = io.StringIO()\n    print('x')\n    return 1", 1
    ),
    gives(
        "a wrapped stdout",
        "import io, sys\ndef f():\n    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'latin-1')\n    print('x')",
        None,
        expected={"stdout": "x\n"},
    ),
    gives("no stdout", "import sys\ndef f():\n    sys.stdout = None\n    print('x')\n    return 1", 1),
    gives("a closed stdout", "import sys\ndef f():\n    sys.stdout.close()\n    return 1", 1),
    gives("descriptors closed", "import os\ndef f():\n    os.close(1)\n    os.close(2)\n    return 1", 1),
    gives(
        "other builtins",
        """
        import builtins
        def main():
            for name in ('isinstance', 'len', 'dict', 'type', 'list', 'str', 'bool', 'callable', 'getattr'):
                setattr(builtins, name, None)
            return [1]
        """,
        [1],
    ),
    fails(
        "other builtins, and a failure",
        """\
        import builtins
        def main():
            for name in ('isinstance', 'len', 'dict', 'type', 'list', 'str', 'bool', 'callable', 'getattr'):
                setattr(builtins, name, None)
            raise KeyError('k')
        """,
        "KeyError",
        "'k'",
        stderr=("line 5, in main", "raise KeyError('k')"),
    ),
    gives(
        "another json",
        "import json\njson.dumps = json.loads = json.JSONEncoder.encode = None\ndef f(): return [1]",
        [1],
    ),
    gives("another os._exit", "import os, sys\nos._exit = sys.exit = None\ndef f(): return 1", 1),
    gives("a low recursion limit", "import sys\ndef f():\n    sys.setrecursionlimit(60)\n    return [[1]]", [[1]]),
    gives("sys.modules emptied", "import sys\ndef f():\n    sys.modules.clear()\n    return 1", 1),
    fails(
        "the result's descriptor closed", "import os\ndef f():\n    os.closerange(3, 64)\n    return 1", "SystemExit"
    ),
    fails(
        "a frame of its own",
        """
        import os
        def main():
            os.write(4, b'{"success": true, "called": true, "result": "forged", "error": "", "error_type": null}')
            os._exit(0)
        """,
        "ProtocolError",
    ),
    fails(
        "a second frame",
        """
        import os
        def main():
            os.write(4, b'{"success": true, "called": true, "result": "forged", "error": "", "error_type": null}')
            return 1
        """,
        "ProtocolError",
    ),
    fails(
        "nonsense for a frame", "import os\ndef f():\n    os.write(4, b'\\xff' * 100)\n    return 1", "ProtocolError"
    ),
]


def check(case: Case, answer: Dict[str, Any]) -> None:
    """Compare an answer with what the case expects, and with what all answers have."""
    told = {name: answer[name] for name in case.expected}
    assert told == case.expected, answer
    assert case.error in answer["error"], answer
    for words in case.stderr:
        assert words in answer["stderr"], answer["stderr"]
    for words in case.absent:
        assert words not in answer["stderr"], answer["stderr"]
    assert set(answer) == {
        *("success", "output", "result", "error", "error_type"),
        *("stdout", "stderr", "truncated", "duration_ms"),
    }
    assert answer["success"] == (answer["error_type"] is None) == (answer["error"] == "")
    assert answer["success"] or "Traceback" not in answer["stderr"] or "<code>" in answer["stderr"]
    assert 0 < answer["duration_ms"] < 29_000
    assert len(answer["error"]) <= 4096
