"""The keeper: programs go in, outcomes come out, and nothing is left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from plugins._sandbox import keeper as keepers
from plugins._sandbox import plan as plans
from plugins._sandbox import program, proof
from plugins._sandbox.keeper import Keeper, Unavailable
from providers import Gone, Scope
from test_plugins__sandbox_template import alive, below, gone

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has what holds a program"),
    pytest.mark.outermost,
]
ADD = "def add(a, b):\n    return a + b"
ENDLESS = "while True: pass"
BRIEF = plans.Limits(timeout=5.0)
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def level() -> str:
    made = Keeper(plans.Limits())
    report = made.report()
    made.close()
    if not report.level:
        pytest.skip(f"this kernel cannot hold a program: {report.missing}")
    return report.level


@pytest.fixture
def keeper(level: str) -> Iterator[Callable[..., Keeper]]:
    """Give a maker of keepers; at the end nothing of theirs is left."""
    made: List[Keeper] = []
    before = open_files(), below(os.getpid())

    def make(limits: plans.Limits = BRIEF, **options: Any) -> Keeper:
        made.append(Keeper(limits, **options))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert (open_files(), below(os.getpid())) == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def asked(code: str, value: Any = None, function: str = "") -> bytes:
    return json.dumps({"code": code, "input": value, "function": function or None}).encode()


def result(outcome: keepers.Outcome) -> Any:
    frame: Dict[str, Any] = json.loads(outcome.result)
    assert frame["success"], frame
    return frame["result"]


def added(keeper: Keeper, a: int = 1, b: int = 2) -> Any:
    return result(keeper.run(asked(ADD, {"a": a, "b": b}), Scope()))


def idle(keeper: Keeper) -> None:
    """Wait until its spares are there."""
    deadline = time.monotonic() + 5
    while len(keeper._spares) < keeper._most_spares or not all(program.readable(c.result) for c in [*keeper._spares]):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """Give the proxy's end of a connection; its `peer` is the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


ways = pytest.mark.parametrize("options", [{}, {"spares": 0}, {"template": False}], ids=["spares", "template", "none"])


@ways
def test_a_program_is_run_whatever_way_it_is_started(keeper, options):
    one = keeper(**options)
    assert [added(one, n, 1) for n in range(4)] == [1, 2, 3, 4]


def test_outcomes_are_measured_from_outside(keeper):
    code = """
import sys, time
def main():
    print("a")
    print("b", file=sys.stderr)
    time.sleep(0.2)
    sum(range(10**6))
"""
    outcome = keeper().run(asked(code), Scope())
    assert (outcome.stdout, outcome.stderr, outcome.truncated) == (b"a\n", b"b\n", False)
    assert (outcome.status, outcome.stopped) == (0, "")
    assert 0.2 <= outcome.seconds < 2
    assert 0.005 < outcome.cpu < 2
    assert 5_000 < outcome.peak < 500_000


def test_the_limits_are_those_that_were_given(keeper):
    one = keeper(plans.Limits(timeout=5.0, cpu=7, memory=200 << 20, open_files=40))
    code = """
import resource
def main():
    return [resource.getrlimit(kind) for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NOFILE)]
"""
    assert result(one.run(asked(code), Scope())) == [[7, 7], [200 << 20, 200 << 20], [40, 40]]


@pytest.mark.skipif(PROCESSORS < 2, reason="this machine has one processor: nothing to keep off")
def test_one_processor_is_kept_for_everybody_else(keeper):
    code = """
import os, threading
def main():
    own = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, range(64))
    except OSError:
        pass
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(sorted(os.sched_getaffinity(0))))
    thread.start()
    thread.join()
    return [own, sorted(os.sched_getaffinity(0)), seen]
"""
    ours = sorted(os.sched_getaffinity(0))
    assert result(keeper().run(asked(code), Scope())) == [ours[1:]] * 3


def test_no_program_sees_what_another_left(keeper):
    one = keeper()
    code = """
import builtins
def main():
    builtins.seen = getattr(builtins, "seen", 0) + 1
    return builtins.seen
"""
    assert [result(one.run(asked(code), Scope())) for _ in range(5)] == [1] * 5


def test_a_request_larger_than_a_pipe_arrives(keeper):
    text = "x" * (3 << 20)
    outcome = keeper().run(asked("def main(text):\n    return len(text)", {"text": text}), Scope())
    assert result(outcome) == len(text)


def test_a_program_that_does_not_read_its_request_to_the_end_is_no_trouble(keeper):
    one = keeper(plans.Limits(timeout=5.0, memory=128 << 20))
    outcome = one.run(b" " * (200 << 20), Scope())
    assert outcome.status != 0
    assert added(one) == 3


def test_output_beyond_the_limit_is_dropped_and_the_program_goes_on(keeper):
    one = keeper(plans.Limits(timeout=5.0, output=1000))
    outcome = one.run(asked("def main():\n    print('x' * 3_000_000)\n    return 1"), Scope())
    assert (outcome.stdout, outcome.truncated, result(outcome)) == (b"x" * 1000, True, 1)


@pytest.mark.parametrize("block", [1, 10, 1 << 16])
def test_a_flood_is_cut_and_does_not_burn_the_proxy(keeper, block):
    one = keeper(plans.Limits(timeout=1.0, output=1000))
    one.report()
    idle(one)
    before = time.process_time()
    outcome = one.run(asked(f"import os\nwhile True: os.write(1, b'x' * {block})"), Scope())
    assert time.process_time() - before < 0.1
    assert outcome.stdout == b"x" * 1000
    assert outcome.truncated
    assert outcome.stopped in ("timeout", "output")
    assert outcome.seconds < 2


def test_a_flood_without_end_is_stopped_before_its_time(keeper, monkeypatch):
    monkeypatch.setattr(program, "MOST_DRAINED", 4 << 20)
    outcome = keeper().run(asked("import os\nwhile True: os.write(2, b'x' * 65536)"), Scope())
    assert (outcome.stopped, outcome.status, outcome.truncated) == ("output", signal.SIGKILL, True)


def test_a_result_that_is_too_large_is_stopped(keeper):
    one = keeper(plans.Limits(timeout=5.0, result=1000))
    outcome = one.run(asked("def main():\n    return 'x' * 5000"), Scope())
    assert outcome.stopped == "result"
    outcome = one.run(asked("import os\nwhile True: os.write(4, b'x' * 65536)"), Scope())
    assert (outcome.stopped, outcome.status) == ("result", signal.SIGKILL)
    assert result(one.run(asked("def main():\n    return 'x' * 500"), Scope())) == "x" * 500


def test_what_is_written_past_the_result_is_seen_as_it_is(keeper):
    outcome = keeper().run(asked("import os\nos.write(4, b'one')\nos.write(4, b'two')\nos._exit(0)"), Scope())
    assert outcome.result == b"onetwo"


@ways
def test_a_program_without_end_is_killed_in_time_and_keeps_what_it_said(keeper, options):
    one = keeper(plans.Limits(timeout=0.3), **options)
    outcome = one.run(asked("print('so far', flush=True)\nwhile True: pass"), Scope())
    assert (outcome.stopped, outcome.status, outcome.stdout) == ("timeout", signal.SIGKILL, b"so far\n")
    assert 0.3 <= outcome.seconds < 1.0


def test_a_program_that_sleeps_and_ignores_every_signal_is_killed_in_time(keeper):
    code = """
import contextlib, signal, time
for number in range(1, 65):
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_IGN)
time.sleep(99)
"""
    outcome = keeper(plans.Limits(timeout=0.3)).run(asked(code), Scope())
    assert (outcome.stopped, outcome.status) == ("timeout", signal.SIGKILL)


def processor_time(pid: int) -> int:
    """Give the ticks that a process has worked."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


@ways
def test_a_client_that_leaves_kills_its_program(keeper, client, options):
    ours, theirs = client
    one = keeper(plans.Limits(timeout=20.0), **options)
    one.report()
    threading.Timer(0.5, theirs.close).start()
    began = time.monotonic()
    with pytest.raises(Gone):
        one.run(asked(ENDLESS), Scope(ours))
    assert 0.3 < time.monotonic() - began < 3
    idle(one)
    before = [processor_time(pid) for pid in below(os.getpid())]
    time.sleep(0.2)
    assert [processor_time(pid) for pid in below(os.getpid())] == before, "something is still at work"


def test_a_client_that_leaves_while_the_template_starts_is_gone_at_once(keeper, client):
    ours, theirs = client
    theirs.close()
    with pytest.raises(Gone):
        keeper().run(asked(ENDLESS), Scope(ours))


def test_a_killed_template_is_replaced_and_its_spares_are_thrown_away(keeper):
    one = keeper()
    for _ in range(3):
        assert added(one) == 3
        idle(one)
        family = below(os.getpid())
        os.kill(one._template._process.pid, signal.SIGKILL)
        assert added(one) == 3
        assert gone(family)


def test_a_spare_that_has_died_is_not_used(keeper):
    one = keeper()
    one.report()
    idle(one)
    for pid in below(one._template._process.pid):
        if os.getpriority(os.PRIO_PROCESS, pid) > 0:  # it has put its walls up
            os.kill(pid, signal.SIGKILL)
    while not all(program.readable(child.status) for child in one._spares):
        time.sleep(0.005)
    assert added(one) == 3


def test_walls_that_cannot_be_put_up_any_more_are_said(keeper):
    one = keeper()
    one.report()
    one._plan = one._plan._replace(limits=one._plan.limits._replace(open_files=-5))
    os.kill(one._template._process.pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match=r"the walls cannot be put up: .*Error"):
        added(one)


def test_a_run_whose_template_is_killed_fails_and_the_next_one_works(keeper):
    one = keeper()
    one.report()
    threading.Timer(0.6, lambda: os.kill(one._template._process.pid, signal.SIGKILL)).start()
    family: List[int] = []
    threading.Timer(0.4, lambda: family.extend(below(os.getpid()))).start()
    with pytest.raises(Unavailable, match="the template process ended, and the program with it"):
        one.run(asked(ENDLESS), Scope())
    assert family
    assert gone(family)
    assert added(one) == 3


def test_a_template_that_has_served_for_long_is_replaced(keeper, monkeypatch):
    monkeypatch.setattr(keepers, "AGE", 3)
    one = keeper()
    pids = set()
    deadline = time.monotonic() + 10
    while len(pids) < 3 and time.monotonic() < deadline:
        assert added(one) == 3
        pids.add(one._template._process.pid)
    assert len(pids) == 3
    deadline = time.monotonic() + 2
    while len([pid for pid in pids if alive(pid)]) > 1:
        assert time.monotonic() < deadline, "the old ones are still there"
        time.sleep(0.01)


def test_hash_seeds_differ_between_templates(keeper):
    one = keeper(template=False)
    assert len({result(one.run(asked("def main(): return hash('x')"), Scope())) for _ in range(3)}) == 3


def test_programs_run_side_by_side(keeper):
    one = keeper()
    one.report()
    outcomes: List[Any] = []
    code = "import time\ndef main(n):\n    time.sleep(0.3)\n    return n"
    threads = [
        threading.Thread(target=lambda n=n: outcomes.append(result(one.run(asked(code, {"n": n}), Scope()))))
        for n in range(8)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == list(range(8))
    assert time.monotonic() - began < 2


def test_many_runs_leave_nothing_behind(keeper):
    one = keeper()
    for _ in range(20):
        added(one)
    idle(one)
    before = open_files(), len(below(os.getpid()))
    size = resident()
    for _ in range(100):
        added(one)
    idle(one)
    assert (open_files(), len(below(os.getpid()))) == before
    assert resident() - size < 2048


def resident() -> int:
    """Give the KiB of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def test_a_closed_keeper_takes_no_more_programs(keeper):
    one = keeper()
    one.report()
    one.close()
    with pytest.raises(Unavailable, match="the proxy is ending"):
        added(one)


def test_closing_lets_what_runs_end_and_does_not_wait_for_it(keeper):
    one = keeper()
    one.report()
    outcomes: List[Any] = []
    code = "import time\ndef main():\n    time.sleep(0.6)\n    return 1"
    thread = threading.Thread(target=lambda: outcomes.append(result(one.run(asked(code), Scope()))))
    thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    one.close()
    assert time.monotonic() - began < 0.2
    thread.join()
    assert outcomes == [1]


def test_one_that_was_never_started_is_closed():
    Keeper(plans.Limits()).close()


def test_one_that_has_only_begun_is_closed(keeper):
    keeper().close()


# what holds


def test_the_report_tells_of_every_layer(keeper, level):
    report = keeper().report()
    assert list(report.layers) == list(plans.LAYERS)
    assert (report.level, report.missing) == (level, "")
    assert set(report.through).isdisjoint(proof.promised(level))


@pytest.mark.parametrize("layer", plans.LAYERS)
def test_without_a_layer_it_either_holds_or_refuses(keeper, layer):
    one = keeper(without=[layer])
    report = one.report()
    assert report.layers[layer] == "switched off"
    if report.missing:
        with pytest.raises(Unavailable, match=f"what is missing: .*({layer}|user id of its own)"):
            added(one)
    else:
        assert set(report.through).isdisjoint(proof.promised(report.level))
        assert added(one) == 3


def test_a_required_layer_that_is_not_there_stops_it(keeper):
    one = keeper(without=["landlock"], require=["seccomp", "landlock"])
    with pytest.raises(Unavailable, match=r"what is missing: landlock \(switched off\)$"):
        added(one)
    assert below(os.getpid()) == []


def test_a_layer_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="seccom: the layers are limits, "):
        Keeper(plans.Limits(), require=["seccom"])


def test_what_the_attack_refutes_is_not_served(keeper, monkeypatch):
    monkeypatch.setattr(plans, "level", lambda layers: "A")  # which it is not, without
    monkeypatch.setattr(plans, "NEEDED", ())
    one = keeper(without=["seccomp"])
    with pytest.raises(Unavailable, match=r"what does not hold: .*netlink"):
        added(one)
    assert below(os.getpid()) == []


def test_elsewhere_nothing_is_run_and_nothing_started(monkeypatch):
    monkeypatch.setattr(keepers, "LINUX", False)
    one = Keeper(plans.Limits())
    one.start()
    with pytest.raises(Unavailable, match="has nothing that could hold a program"):
        added(one)
    one.close()


def test_a_template_that_cannot_be_started_is_said_and_tried_again(keeper, monkeypatch):
    monkeypatch.setattr(program, "PROGRAM", "import sys; sys.exit(3)")
    one = keeper()
    with pytest.raises(Unavailable, match="the template process failed"):
        added(one)
    monkeypatch.undo()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert added(one) == 3
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            break


OWNER = """
import json, os, sys, threading, time
sys.path[:0] = [{root!r}, {tests!r}]
from plugins._sandbox.keeper import Keeper
from plugins._sandbox.plan import Limits
from providers import Scope
from test_plugins__sandbox_template import below
keeper = Keeper(Limits(timeout=60.0))
keeper.report()
request = json.dumps({{"code": "while True: pass", "input": None}}).encode()
threading.Thread(target=keeper.run, args=(request, Scope())).start()
time.sleep(0.5)
print(json.dumps(below(os.getpid())), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_proxy(level, number):
    code = OWNER.format(root=str(ROOT), tests=str(ROOT / "tests"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        try:
            family = json.loads(owner.stdout.readline())
        finally:
            owner.send_signal(number)
    assert len(family) >= 2
    assert gone(family)
