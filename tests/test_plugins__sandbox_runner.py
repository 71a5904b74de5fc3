"""The runner's own parts, and what it says to whoever started it; what a client sees is told with POST /execute."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import textwrap
from typing import Any, Dict, List

import pytest

from conftest import ROOT
from plugins._sandbox import plan as plans
from plugins._sandbox import runner
from plugins._sandbox.keeper import Outcome
from providers import Scope
from unconfined import Unconfined


def run(code: str, **more: Any) -> Outcome:
    return Unconfined(plans.Limits()).run(json.dumps({"code": textwrap.dedent(code), **more}).encode(), Scope())


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run something with the runner at hand, as the template does."""
    begun = f"import sys; sys.path.insert(0, {str(ROOT / 'plugins')!r}); from _sandbox import runner; sys.path.pop(0)\n"
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", begun + textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)


# the frame


def test_a_frame_is_one_line_of_ascii_with_the_token_of_its_request():
    done = run("def f(): return 'é\\n'", token="t")
    assert done.result == (
        b'{"success":true,"result":"\\u00e9\\n","error":"","error_type":null,"token":"t","called":true}'
    )
    assert done.status == 0


def test_a_request_without_a_token_is_answered_without():
    assert json.loads(run("1").result)["token"] is None


@pytest.mark.parametrize(
    ("code", "called"),
    [
        ("def f(): pass", True),
        ("def f(): 1 / 0", True),
        ("def f(): return {1}", True),
        ("1", False),
        ("1 / 0", False),
        ("1 / 0\ndef f(): pass", False),
        ("(", False),
    ],
)
def test_a_frame_tells_whether_a_function_was_called(code, called):
    assert json.loads(run(code).result)["called"] is called


def test_what_is_too_large_for_a_pipe_is_said_whole():
    assert len(json.loads(run("def f(n): return 'a' * n", input=300_000).result)["result"]) == 300_000


def test_no_memory_left_even_to_say_so_has_a_status_of_its_own():
    done = python("""
        def say(frame): raise MemoryError
        runner.run(b'{"code": "1"}', say)
        """)
    assert done.returncode == runner.OUT_OF_MEMORY


def test_a_result_that_nobody_takes_is_a_failure():
    done = python("""
        def say(frame): raise OSError
        runner.run(b'{"code": "1"}', say)
        """)
    assert done.returncode == 1


def test_the_traceback_of_a_failure_has_a_bound():
    told = run("def f(): raise ValueError('a' * 1_000_000 + 'end')").stderr.decode()
    assert told.startswith('Traceback (most recent call last):\n  File "<code>", line 1, in f\n')
    assert told.endswith("aend\n")
    assert len(told) < runner.MOST_TRACEBACK + 100


def test_recursion_is_told_in_few_lines():
    told = run("def f(n=0): return f(n + 1)").stderr.decode()
    assert "[Previous line repeated" in told
    assert len(told) < 2000


def test_a_failure_that_cannot_be_shown_is_named():
    code = """
        class E(Exception):
            @property
            def __cause__(self): raise RuntimeError
            def __str__(self): raise RuntimeError
        def f(): raise E
        """
    done = run(code)
    assert json.loads(done.result)["error_type"] == "E"
    assert b"E" in done.stderr


def test_every_line_is_out_when_a_program_is_killed():
    done = run("import os\nprint('a', end='')\nos.kill(os.getpid(), 9)")
    assert (done.stdout, done.status) == (b"a", 9)


def test_a_warm_runner_runs_a_program_as_a_cold_one_does():
    done = python("""
        import json, os
        runner.warm()
        program = {"code": "import sys\\ndef f(n): return [n, sys.argv, __name__]", "input": 2}
        runner.run(json.dumps(program).encode(), lambda frame: os.write(1, frame))
        """)
    assert done.stderr == ""
    assert json.loads(done.stdout)["result"] == [2, ["<code>"], "__main__"]


# what is called


def names(code: str, asked: Any = None) -> List[str]:
    return runner.compiled(code, asked)[1]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", ["main"]),
        ("def a(): pass\nasync def b(): pass", ["main", "a", "b"]),
        ("def a(): pass\n@tool\ndef b(): pass", ["main", "b", "a", "b"]),
        ("@x.tool('b')\ndef b(): pass\n@tool\ndef c(): pass", ["main", "b", "c", "b", "c"]),
        ("@tools\ndef b(): pass\n@y[0]\ndef c(): pass", ["main", "b", "c"]),
        ("class A:\n    @tool\n    def b(self): pass", ["main"]),
        ("if True:\n    def a(): pass", ["main"]),
    ],
)
def test_the_names_of_functions_come_in_the_order_of_choice(code, expected):
    assert names(code) == expected


def test_the_one_that_is_asked_for_is_the_only_choice():
    assert names("def a(): pass", "b") == ["b"]


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("if __name__ == '__main__': a", ""),
        ('if "__main__" == __name__: a', ""),
        ("if __name__ == '__main__': a\nelse: b", "b"),
        ("if __name__ == '__main__': a\nelif c: b", "if c:\n    b"),
        ("if __name__ != '__main__': a", "if __name__ != '__main__':\n    a"),
        ("if a: b", "if a:\n    b"),
        ("a", "a"),
    ],
)
def test_only_the_part_for_a_script_is_left_out(statement, left):
    assert ast.unparse(runner.unguarded(ast.parse(statement).body[0])) == left if left else True
    assert bool(runner.unguarded(ast.parse(statement).body[0])) == bool(left)


def f_plain(a, b=2): ...
def f_more(a, **more): ...
def f_position(a, b=2, /, c=3): ...
def f_names(*, a, b=1): ...
def f_spread(a, b=2, *rest, c=3, **more): ...


@pytest.mark.parametrize(
    ("function", "given", "arguments", "named"),
    [
        (f_plain, {"b": 1, "a": 2, "c": 3}, [], {"a": 2, "b": 1}),
        (f_plain, {}, [], {}),
        (f_more, {"a": 1, "b": 2, "more": 3}, [], {"a": 1, "b": 2, "more": 3}),
        (f_position, {"a": 1, "c": 4}, [1, 2], {"c": 4}),
        (f_names, {"a": 1}, [], {"a": 1}),
        (f_spread, {"a": 1, "rest": [5, 6], "c": 7, "d": 8}, [1, 2, 5, 6], {"c": 7, "d": 8}),
        (f_spread, {"a": 1, "rest": 5}, [], {"a": 1, "rest": 5}),
        (f_plain, [1, 2], [[1, 2]], {}),
        (f_plain, None, [None], {}),
        (f_names, None, [], {}),
        (f_names, 1, [1], {}),
        (dict, {"a": 1}, [], {"a": 1}),
        (dict, [["a", 1]], [[["a", 1]]], {}),
    ],
)
def test_an_input_becomes_arguments(function, given, arguments, named):
    assert runner.arguments_of(function, {"input": given}) == (arguments, named)


def test_without_input_there_are_no_arguments():
    assert runner.arguments_of(f_plain, {}) == ([], {})


def test_what_is_missing_by_position_is_told_by_its_name():
    with pytest.raises(TypeError, match="'a'"):
        runner.mapped(list(inspect.signature(f_position).parameters.values()), {"b": 1})


# what is there


def test_the_usual_modules_are_there_before_they_are_asked_for():
    done = python("""
        runner.preload()
        print(len([name for name in runner.COMMON if name in sys.modules]), len(runner.COMMON), exit is sys.exit)
        print(sorted({"this", "antigravity", "tkinter"} & set(sys.modules)))
        """)
    there, known, has_exit = done.stdout.splitlines()[0].split()
    assert int(there) >= int(known) - 4, done.stdout  # an old or lean Python has not all of them
    assert (has_exit, done.stdout.splitlines()[1], done.stderr) == ("True", "[]", "")


def test_the_whole_library_can_be_there():
    done = python("""
        runner.preload(everything=True)
        import threading
        print(len(sys.modules), threading.active_count(), {"encodings.latin_1", "xml.sax.saxutils"} <= set(sys.modules))
        print(sorted({"this", "antigravity", "tkinter", "test", "idlelib", "pip"} & set(sys.modules)))
        """)
    assert done.stderr == ""
    many, threads, inside = done.stdout.splitlines()[0].split()
    assert int(many) > 300
    assert (threads, inside) == ("1", "True")
    assert done.stdout.splitlines()[1] == "[]"


def test_the_runner_needs_nothing_of_ours():
    tree = ast.parse((ROOT / "plugins" / "_sandbox" / "runner.py").read_text("utf-8"))
    imported: Dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported[str(node.module)] = node.lineno
        elif isinstance(node, ast.Import):
            imported.update({alias.name: node.lineno for alias in node.names})
    assert not {name.split(".")[0] for name in imported} & {"plugins", "providers", "llmproxy"}
