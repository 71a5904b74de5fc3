"""The attack finds what is open where nothing holds, and nothing that is promised where all does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from plugins._sandbox import plan as plans
from plugins._sandbox import program, proof
from plugins._sandbox.keeper import Keeper

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has what holds a program"),
    pytest.mark.outermost,
]
LIMITS = plans.Limits()
OUTSIDE = """
import json, sys
source, target = json.load(sys.stdin)
names = {"__name__": "attack"}
exec(source, names)
json.dump(names["attack"](**target), sys.stdout)
"""


def unconfined() -> list:
    """Attack with nothing in the way, in a process of its own."""
    with open(proof.__file__, encoding="utf-8") as file:
        source = file.read()
    with proof.targets(LIMITS.memory) as target:
        sent = json.dumps([source, target._asdict()]).encode()
        done = subprocess.run([sys.executable, "-I", "-c", OUTSIDE], input=sent, stdout=subprocess.PIPE, check=True)
        with open(target.file, "rb") as file:
            assert file.read() == b"llmproxy", "the attack does no harm"
        assert os.listdir(target.folder) == ["file"]
    return json.loads(done.stdout)


def test_where_nothing_holds_the_attack_gets_through():
    through = set(unconfined())
    assert through >= {
        "read a file",
        "read the accounts",
        "write to a file",
        "make a file",
        "rename a file",
        "list a directory",
        "see a file",
        "change the mode of a file",
        "see the environment of the proxy",
        "see the command line of the proxy",
        "see the processes",
        "signal the proxy",
        "connect to a port",
        "connect to a unix socket",
        "open a datagram socket",
        "open a netlink socket",
        "pair datagram sockets",
        "start a process",
        "become another program",
        "keep a file in memory",
        "take too much memory",
    }
    assert through <= set(proof.promised("A"))


def test_it_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    unconfined()
    assert (os.listdir(tmp_path), len(os.listdir("/proc/self/fd"))) == ([], before)


@pytest.mark.parametrize("without", [(), ("namespaces",), ("landlock",), ("namespaces", "landlock"), ("identity",)])
def test_where_a_level_is_said_to_hold_nothing_that_it_promises_gets_through(without):
    keeper = Keeper(LIMITS, without=without)
    report = keeper.report()
    keeper.close()
    if not report.level:
        pytest.skip(f"this kernel cannot hold a program without {without}: {report.missing}")
    assert report.missing == ""
    assert set(report.through) <= {"see a file"}
    assert ("see a file" in report.through) == (report.level == "B")


def test_only_at_the_middle_level_is_anything_excused():
    everything = set(proof.promised("A"))
    assert set(proof.promised("C")) == everything
    assert everything - set(proof.promised("B")) == {"see a file"}


def outcome(result: bytes = b"", stopped: str = "", seconds: float = 0.1) -> program.Outcome:
    return program.Outcome(result, b"", b"words", False, 0, 0.0, 0, stopped, seconds)


def frame(*through: str) -> bytes:
    return json.dumps({"success": True, "result": list(through)}).encode()


def test_what_got_through_is_told():
    outcomes = [outcome(frame("see a file")), outcome(stopped="timeout")]
    assert proof.attacked(lambda *_: outcomes.pop(0), LIMITS) == ("see a file",)


@pytest.mark.parametrize("endless", [outcome(), outcome(stopped="timeout", seconds=4.0)])
def test_a_program_that_could_not_be_stopped_is_told(endless):
    outcomes = [outcome(frame()), endless]
    assert proof.attacked(lambda *_: outcomes.pop(0), LIMITS) == ("go on for ever",)


@pytest.mark.parametrize("result", [b"", b"[]", b"{}", b'{"success": false, "result": []}', b'{"success": true}'])
def test_an_attack_that_did_not_run_is_no_proof(result):
    with pytest.raises(program.Unavailable, match="the trial program failed"):
        proof.attacked(lambda *_: outcome(result), LIMITS)
