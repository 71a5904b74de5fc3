"""Options of every module: declared are those that are read, and the example is what the modules print."""

from __future__ import annotations

import ast
import difflib
import re
import subprocess
import sys
from typing import Any, Dict, Iterator, Set

import pytest

from conftest import ROOT, clean_environment
from plugins import _settings
from providers import Provider
from providers._all import Everything
from test_house_rules import MODULES, TREES, contracted, every_module

GIVEN = {"enabled"}  # to every module, and read by the kernel
KERNEL = ("plugins._kernel", "plugins._client", "plugins._logging", "plugins._server", "plugins._settings")


class Recorded(Dict[str, Any]):
    """Options at their defaults that remember which of them were read."""

    def __init__(self, table: Any) -> None:
        super().__init__({name: row[0] for name, row in table.items()})
        self.read: Set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        self.read.update(self.keys())
        return super().__iter__()


def named(tree: ast.AST) -> Set[str]:
    """Give every name that stands in `options[...]` or `options.get(...)`, whoever's options these are."""
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_options(node.value):
            out |= strings(node.slice)
        elif is_get(node):
            out |= strings(node.args[0])
    return out


def is_get(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and is_options(node.func.value)
    )


def is_options(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "of"  # settings.of("server")
    name = getattr(node, "attr", None) or getattr(node, "id", "")
    return name.endswith(("options", "limits"))


def strings(node: ast.AST) -> Set[str]:
    if isinstance(node, ast.JoinedStr):
        return set()  # told by whoever reads it
    found = [n for n in ast.walk(node) if not isinstance(n, ast.Compare)]
    return {n.value for n in found if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def recorded(name: str) -> Recorded:
    """Bring a module up at its defaults, and give what it read."""
    item, contract = contracted(name)
    options = Recorded(item.options)  # type: ignore[attr-defined]
    upstream = Everything([Provider("neighbour", {})], {})
    try:
        made = item("itself", options) if contract is Provider else item(options, upstream)
        made.close()
    except ValueError:
        pass  # it cannot be without a value that nobody has by default
    return options


@every_module
def test_every_option_that_is_declared_is_read(name):
    options = recorded(name)
    assert set(options.keys()) - options.read - named(TREES[name]) - GIVEN == set()


@every_module
def test_every_option_that_is_read_is_declared(name):
    options = recorded(name)
    classes = [node for node in TREES[name].body if isinstance(node, ast.ClassDef)]  # a wire may have options, too
    read = options.read.union(*(named(one) for one in classes))
    assert read - set(options.keys()) == set()


def test_every_option_of_the_kernel_is_read_there():
    read = set().union(*(named(TREES[name]) for name in KERNEL))
    assert set(_settings.SERVER) - read == set()


@pytest.mark.parametrize("name", ["server", *MODULES])
def test_an_option_has_a_default_a_sentence_of_help_and_names(name):
    table = _settings.SERVER if name == "server" else contracted(name)[0].options  # type: ignore[attr-defined]
    for option, (default, help_, *more) in table.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", option)
        assert isinstance(default, (bool, int, float, str, tuple, list))
        assert help_.endswith(".")
        assert "\n" not in help_
        assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*|--[a-z][a-z0-9-]*", word) for word in more)


def printed(tmp_path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "llmproxy.py"), "config"],
        capture_output=True,
        check=True,
        cwd=str(tmp_path),
        env=clean_environment(tmp_path),
        timeout=60,
    )
    return done.stdout.decode("utf-8")


def test_the_example_is_what_the_modules_print(tmp_path):
    example = (ROOT / "config.example.ini").read_text("utf-8")
    changes = difflib.unified_diff(example.splitlines(), printed(tmp_path).splitlines(), "committed", "printed", n=0)
    told = "\n".join(list(changes)[:20])
    assert not told, "write it anew: python3 llmproxy.py config > config.example.ini"


def test_the_example_brings_the_house_up(house):
    assert house((ROOT / "config.example.ini").read_text("utf-8")).ask("GET", "/health").text == "ok"


def test_the_example_with_every_default_spelled_out_brings_the_house_up(house):
    """A default that could not be written into the file would be one that nobody can go back to."""
    example = (ROOT / "config.example.ini").read_text("utf-8")
    own = example.partition("\n# Another upstream of a known type")[0]
    spelled = re.sub(r"^#(\w+ =)", r"\1", own, flags=re.MULTILINE)
    assert house(spelled).ask("GET", "/health").text == "ok"
