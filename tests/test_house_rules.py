"""The rules of the house that hold for every module, whoever adds it: read from the source alone."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest

import plugins
import providers

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("providers", "plugins")  # from the ground up
PERMITTED = {"llmproxy.py", "providers", "plugins", "tests", "config.example.ini", "README.md"}
NOT_OURS = {"__pycache__", "config.ini"}  # made by using it, and ignored

#: what is used in these rooms only; the kernel is `plugins._kernel` and the rooms it keeps apart
ROOMS = {
    "http.server": ["plugins._client", "plugins._server"],
    "socketserver": ["plugins._server"],
    "signal": ["plugins._kernel", "plugins._sandbox*"],
    "argparse": ["plugins._settings"],
    "importlib": ["llmproxy", "plugins._kernel", "plugins._sandbox*"],
    "os.environ": ["plugins._kernel", "plugins._sandbox*"],
    "os.getenv": ["plugins._kernel"],
    "os.putenv": ["plugins._kernel"],
    "urllib.request": ["providers._opener"],
    "http.client": [],
    "subprocess": ["plugins.execute*", "plugins._sandbox*"],
    "resource": ["plugins._kernel", "plugins.execute*", "plugins._sandbox*"],
}


def sources() -> Dict[str, Path]:
    """Give every module of the product by name; that of a floor, or of a suite of rooms, is named like it."""
    found = {"llmproxy": ROOT / "llmproxy.py"}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "")] = path
    return found


SOURCES = sources()
TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in SOURCES.items()}
MODULES = [name for name in SOURCES if "." in name and not name.partition(".")[2].startswith("_")]
SUITES = [name for name, path in SOURCES.items() if "." in name and path.name == "__init__.py"]
every_source = pytest.mark.parametrize("name", SOURCES)
every_module = pytest.mark.parametrize("name", MODULES)


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Give the full names of what a module imports; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = name.split(".") + ["__init__"] * (SOURCES.get(name, ROOT).name == "__init__.py")
            package = ".".join(inside[: -node.level]) if node.level else ""
            source = ".".join(filter(None, [package, node.module]))
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def is_standard(name: str) -> bool:
    top = name.partition(".")[0]
    names = getattr(sys, "stdlib_module_names", None)  # from 3.10 on
    if names is not None or top in sys.builtin_module_names:
        return top in (names or (top,))
    spec = importlib.util.find_spec(top)
    origin = str(spec.origin if spec else "")
    return origin == "frozen" or (origin.startswith(sysconfig.get_path("stdlib")) and "site-packages" not in origin)


def wrong_imports(name: str, tree: ast.Module) -> List[str]:
    """Give what a module imports that it may not."""
    own = name.partition(".")[0]
    below = {"providers": ["providers"], "plugins": ["plugins", "providers"], "llmproxy": ["plugins", "providers"]}[own]
    return [
        one
        for one in imports(name, tree)
        if not (one.split(".")[0] in below and (one not in MODULES or one == name)) and not is_standard(one)
    ]


@every_source
def test_imports_point_down_and_name_no_module_that_was_dropped_in(name):
    assert wrong_imports(name, TREES[name]) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("providers.x", "import plugins"),
        ("providers.x", "from plugins._server import Server"),
        ("plugins.x", "import llmproxy"),
        ("plugins.x", "from llmproxy import HERE"),
        ("plugins.x", "def f():\n    import requests"),
        *((one.split(".")[0] + ".x", f"from . import {one.split('.')[1]}") for one in MODULES),
        *((one.split(".")[0] + ".x", f"from .{one.split('.')[1]} import y") for one in MODULES),
        *(("llmproxy", f"import {one}") for one in MODULES),
    ],
)
def test_an_import_that_points_elsewhere_is_seen(name, line):
    assert wrong_imports(name, ast.parse(line))


def strays(name: str, tree: ast.Module) -> List[str]:
    """Give the tools a module uses outside of their rooms."""
    used = {one for node in ast.walk(tree) for one in names_of(node)} | set(imports(name, tree))
    return [
        tool
        for tool, rooms in ROOMS.items()
        if any(one == tool or one.startswith(tool + ".") for one in used)
        and not any(fnmatch.fnmatchcase(name, room) for room in rooms)
    ]


def names_of(node: ast.AST) -> Iterator[str]:
    """Give `os.environ` for a use of it."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield f"{node.value.id}.{node.attr}"


@every_source
def test_a_tool_stays_in_its_room(name):
    assert strays(name, TREES[name]) == []


@pytest.mark.parametrize(
    "line",
    [
        "import http.client",
        "from http import client",
        "from urllib.request import urlopen",
        "import os\nos.environ['A']",
    ],
)
def test_a_tool_outside_of_its_room_is_seen(line):
    assert strays("providers.x", ast.parse(line))


@every_source
def test_the_first_line_of_a_docstring_is_one_sentence(name):
    first = (ast.get_docstring(TREES[name]) or "").partition("\n")[0]
    assert first.endswith("."), "a module's ends up in config.example.ini, as a sentence"
    assert name not in MODULES or not re.search(r"[.!?] +[A-Z]", first)


@every_source
def test_nothing_prints_but_a_command(name):
    calls = [n for n in ast.walk(TREES[name]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    assert name == "plugins._kernel" or not [call.lineno for call in calls if call.func.id == "print"]


PROVIDERS = [name.partition(".")[2] for name in MODULES if name.startswith("providers.")]
#: module -> whom it may name besides itself: a default that the user can set, or the dialect a room belongs to
MAY_NAME = {"plugins.passthrough": {"lmstudio"}, "providers.anthropic": {"voyage"}, "providers._responses": {"openai"}}


@every_source
def test_no_dialect_names_a_provider_no_provider_another_and_the_kernel_none(name):
    """A dialect has the same name on both floors, and that is all that either knows of the other."""
    own = re.sub(r"_api$", "", name.rpartition(".")[2]).lstrip("_").partition("_")[0]
    said = {
        node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    named = {provider for provider in PROVIDERS if {provider, f"_{provider}"} & said}
    assert named - {own} - MAY_NAME.get(name, set()) == set()


def test_nothing_is_left_to_be_done():
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]))
    texts = [*ROOT.glob("*.*"), *(path for floor in (*FLOORS, "tests") for path in (ROOT / floor).rglob("*.py"))]
    assert [str(path) for path in texts if path.is_file() and marks.search(path.read_text("utf-8"))] == []


def test_the_top_level_holds_what_it_may():
    here = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert here - NOT_OURS == PERMITTED


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_holds_modules_only(floor):
    here = {path.name for path in (ROOT / floor).iterdir() if path.suffix != ".py"} - NOT_OURS
    assert here == {name.partition(".")[2] for name in SUITES if name.startswith(floor)}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_of_rooms_has_one_owner(suite):
    assert suite.partition(".")[2].startswith("_")
    rooms = [name for name in SOURCES if name.startswith(f"{suite}.")]
    users = {
        n
        for n, tree in TREES.items()
        if n not in (suite, *rooms) and any(i.startswith(suite) for i in imports(n, tree))
    }
    assert len(users) == 1, users


@every_module
def test_every_module_has_its_test(name):
    test = ROOT / "tests" / f"test_{name.replace('.', '_')}.py"
    assert test.exists(), test.name


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("test_p*.py")), ids=lambda path: path.stem)
def test_every_test_has_its_module(path):
    tests = ["test_" + name.replace(".", "_") for name in SOURCES]
    assert any(path.stem == test or path.stem.startswith(test + "_") for test in tests)


def contracted(name: str) -> Tuple[type, type]:
    """Give the one public class of a module and the contract it fulfils."""
    contract = {"providers": providers.Provider, "plugins": plugins.Plugin}[name.partition(".")[0]]
    module = importlib.import_module(name)
    mine = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, contract) and item.__module__ == name and item.__name__[0] != "_"
    ]
    assert len(mine) == 1, f"{name} holds {len(mine)} of them"
    return mine[0], contract


def departures(item: type, contract: type) -> List[str]:
    """Give the overrides that cannot be called as the contract's own can: what is added has a default."""
    out = []
    for name, ours in vars(contract).items():
        theirs = vars(item).get(name)
        if not inspect.isfunction(ours) or theirs is None:
            continue
        wanted = [(p.name, p.kind) for p in inspect.signature(ours).parameters.values()]
        given = list(inspect.signature(theirs).parameters.values()) if callable(theirs) else []
        more = given[len(wanted) :]
        same = [(p.name, p.kind) for p in given[: len(wanted)]] == wanted
        if not same or any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in more):
            out.append(name)
    return out


@every_module
def test_overrides_keep_their_signature(name):
    assert departures(*contracted(name)) == []


def test_an_override_that_departs_is_seen():
    class Departing(plugins.Plugin):
        def handle(self, request, then):
            return then(request)

        def chat(self, call, inner, clock=None):
            return inner(call)

    assert departures(Departing, plugins.Plugin) == ["handle"]
