"""The template process as its owner sees it, through the socket and the pipes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

import pytest

from plugins._sandbox import plan as plans
from plugins._sandbox import program

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has what holds a program"),
    pytest.mark.outermost,
]
READY = b"\x06"


class Ended(NamedTuple):
    """What came through the pipes of a child."""

    line: Dict[str, Any]
    result: bytes
    stdout: bytes
    stderr: bytes

    @property
    def value(self) -> Any:
        assert self.result.startswith(READY), self
        frame = json.loads(self.result[len(READY) :])
        assert frame["success"], frame
        return frame["result"]


@pytest.fixture(scope="module")
def plan() -> plans.Plan:
    """Give what can be had of all layers here."""
    template = program.Template(plans.Plan(), probe=True)
    template.await_ready()
    template.close()
    if not plans.level(template.plan.layers):
        pytest.skip(f"this kernel cannot hold a program: {template.layers}")
    return template.plan


@pytest.fixture
def template(plan: plans.Plan) -> Iterator[program.Template]:
    made = program.Template(plan, probe=False)
    made.await_ready()
    yield made
    made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a directory that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="llmproxy-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def asked(code: str, **more: Any) -> bytes:
    return json.dumps({"code": code, "input": {}, **more}).encode()


def finished(child: program.Child, seconds: float = 5.0) -> Ended:
    """Wait for the end of a child, and read its pipes."""
    line = b"\n"
    while line == b"\n":  # it is dead, and not all of it is gone
        assert program.readable(child.status, seconds), "the child does not end"
        line = os.read(child.status, 1 << 16)
    ends = [read_all(end) for end in (child.result, child.stdout, child.stderr)]
    child.close()
    return Ended(json.loads(line or b"{}"), *ends)


def read_all(end: int) -> bytes:
    blocks: List[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while block := os.read(end, 1 << 16):
            blocks.append(block)
    return b"".join(blocks)


def told(template: program.Template, request: bytes, number: int = 1) -> Ended:
    child = program.Child(template, number, number)
    os.write(child.request, request)
    child.hang_up(child.request)
    return finished(child)


def below(pid: int) -> List[int]:
    """Give the processes that a process has started and that still are there, at any depth."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def gone(pids: List[int], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while [pid for pid in pids if alive(pid)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_of(template: program.Template) -> int:
    return template._process.pid


def test_a_child_runs_one_program_and_its_end_is_told(template):
    ended = told(
        template, asked("import sys\ndef main():\n    print('out')\n    print('err', file=sys.stderr)\n    return 3")
    )
    assert ended.value == 3
    assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")
    assert ended.line["status"] == 0
    assert ended.line["stopped"] == ""
    assert 0 < ended.line["cpu"] < 5
    assert 1000 < ended.line["peak"] < 1 << 20


def test_the_exit_status_is_what_the_kernel_says(template):
    ended = told(template, asked("import os\nos._exit(9)"))
    assert os.WIFEXITED(ended.line["status"])
    assert os.WEXITSTATUS(ended.line["status"]) == 9
    assert ended.result == READY


def test_a_child_says_that_its_walls_are_up_before_it_is_asked_for_anything(template):
    child = program.Child(template, 1, 1)
    assert program.readable(child.result, 5)
    assert os.read(child.result, 99) == READY
    child.close()


def test_a_spare_that_is_not_needed_ends_when_its_request_is_closed(template):
    child = program.Child(template, 1, 1)
    child.hang_up(child.request)
    ended = finished(child)
    assert (ended.line["status"], ended.result) == (0, READY)


def test_a_child_has_its_five_descriptors_and_no_other(template):
    code = """
import os
def main():
    found = []
    for fd in range(1024):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return found
"""
    spare = program.Child(template, 7, 7)  # its pipes are none of the other's business
    assert set(told(template, asked(code)).value) <= {0, 1, 2, 3, 4}
    spare.close()


def test_a_child_that_was_warmed_up_is_as_new(template):
    code = """
import linecache, os, sys
def main():
    own = vars(sys.modules["__main__"]) is globals()
    return [own, "add" in globals(), sys.argv, linecache.getlines("<code>"), os.listdir(".")]
"""
    seen = []
    for warm in (False, True):
        child = program.Child(template, 1, 1, warm=warm)
        os.write(child.request, asked(code))
        child.hang_up(child.request)
        seen.append(finished(child).value)
    assert seen[0] == seen[1]
    assert seen[0][:2] == [True, False]


def test_stdin_is_empty(template):
    assert told(template, asked("import sys\ndef main():\n    return sys.stdin.read()")).value == ""


def test_nothing_of_the_proxys_environment_and_command_line_is_there(template, monkeypatch, plan):
    monkeypatch.setenv("PLANTED", "secret")
    own = program.Template(plan, probe=False)
    own.await_ready()
    seen = told(own, asked("import os, sys\ndef main():\n    return [dict(os.environ), sys.argv, sys.path]")).value
    own.close()
    assert "secret" not in json.dumps(seen)
    with contextlib.suppress(PermissionError):  # only root may look at all
        assert "PLANTED" not in Path(f"/proc/{pid_of(template)}/environ").read_text()
    assert not [path for path in seen[2] if Path(path, "_sandbox").exists() or Path(path, "plugins").exists()]


def test_a_child_is_killed_by_its_number(template):
    first, second = (program.Child(template, number, number) for number in (1, 2))
    for child in (first, second):
        os.write(child.request, asked("while True: pass"))
        child.hang_up(child.request)
    second.kill()
    assert finished(second).line["status"] == signal.SIGKILL
    assert not program.readable(first.status, 0.2)
    first.kill()
    assert finished(first).line["status"] == signal.SIGKILL


def test_an_order_to_kill_what_is_gone_does_nothing(template):
    told(template, asked("1"))
    template.order({"kill": 1})
    template.order({"kill": 12345})
    assert told(template, asked("def main(): return 1"), 2).value == 1


def test_everything_ends_with_the_socket(plan):
    template = program.Template(plan, probe=False)
    template.await_ready()
    children = [program.Child(template, number, number) for number in range(3)]
    os.write(children[0].request, asked("while True: pass"))
    children[0].hang_up(children[0].request)
    assert all(program.readable(child.result, 5) for child in children)
    family = below(os.getpid())
    assert len(family) >= 4
    template.close()
    assert not [pid for pid in family if alive(pid)]
    for child in children:
        child.close()


def test_its_children_die_with_it(plan):
    template = program.Template(plan, probe=False)
    template.await_ready()
    child = program.Child(template, 1, 1)
    os.write(child.request, asked("while True: pass"))
    assert program.readable(child.result, 5)
    family = below(os.getpid())
    os.kill(pid_of(template), signal.SIGKILL)
    assert gone(family)
    assert finished(child).line == {}, "a status that nobody told"
    template.close()


def test_a_hundred_children_leave_nothing_in_the_template(plan):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, before[1]))
    try:
        template = program.Template(plan, probe=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    template.await_ready()
    for number in range(100):
        assert told(template, asked("def main(): return 1"), number).value == 1
    assert len(below(pid_of(template))) <= 1, "but for the first process of a namespace"
    template.close()


def test_a_wall_that_cannot_be_put_up_is_told_and_nothing_runs(plan):
    template = program.Template(plan._replace(limits=plan.limits._replace(open_files=-5)), probe=False)
    template.await_ready()
    ended = told(template, asked("def main(): return 1"))
    template.close()
    assert os.WEXITSTATUS(ended.line["status"]) == 78
    assert ended.result == b""
    assert b"Error" in ended.stderr


def test_what_goes_wrong_at_the_start_is_said(plan):
    with pytest.raises(program.Unavailable, match=r"the template process failed: .*Error"):
        program.Template(plan._replace(layers=("nonsense",)), probe=True).await_ready()


def test_an_interrupt_from_a_terminal_does_not_end_it(template):
    os.kill(pid_of(template), signal.SIGINT)
    assert told(template, asked("def main(): return 1")).value == 1


def test_it_has_a_session_of_its_own_and_one_thread(template):
    assert os.getsid(pid_of(template)) == pid_of(template)
    assert os.listdir(f"/proc/{pid_of(template)}/task") == [str(pid_of(template))]


def test_a_datagram_that_brings_no_descriptors_leaves_it_alive_or_ended_but_never_open(plan):
    template = program.Template(plan, probe=False)
    template.await_ready()
    with contextlib.suppress(program.Lost):
        template.order({"prepare": 1, "slot": 1, "warm": False})
    template.close()
    assert not alive(pid_of(template))


def test_its_sockets_other_end_is_in_no_child(plan):
    """Or the end of the proxy would not be the end of all."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = program.started(theirs.fileno())
        theirs.close()
        ours.settimeout(20)
        ours.send(json.dumps({"plan": plans.to_json(plan), "probe": False}).encode())
        assert json.loads(ours.recv(1 << 16)) == {"ready": True}
    assert process.wait(5) == 0


@pytest.mark.parametrize("leaves", [0, 1, 200])
def test_a_directory_is_gone_before_the_end_is_told(plan, folder, leaves):
    layers = tuple(layer for layer in plan.layers if layer != "namespaces")
    if plans.level(layers) != "B":
        pytest.skip("this kernel has no Landlock: there is no private directory without namespaces")

    template = program.Template(plans.Plan(layers=layers, folder=str(folder)), probe=True)
    template.await_ready()
    code = f"""
import os
def main():
    for number in range({leaves}):
        os.mkdir(f"d{{number}}")
        with open(f"d{{number}}/f", "w") as file:
            file.write("x")
        os.symlink("/etc", f"d{{number}}/l")
    return os.getcwd()
"""
    ended = told(template, asked(code))
    left = list(folder.iterdir())
    template.close()
    assert Path(ended.value).parent == folder
    assert left == []


def test_a_template_that_was_killed_leaves_no_directory(plan, folder):
    layers = tuple(layer for layer in plan.layers if layer != "namespaces")
    if plans.level(layers) != "B":
        pytest.skip("this kernel has no Landlock: there is no private directory without namespaces")
    other = folder / "run-1-0"
    other.mkdir()
    template = program.Template(plans.Plan(layers=layers, folder=str(folder)), probe=True)
    template.await_ready()
    child = program.Child(template, 1, 1)
    code = "import os, time\nos.mkdir('d')\nopen('d/f', 'w').close()\nprint(1, flush=True)\ntime.sleep(60)"
    os.write(child.request, asked(code))
    child.hang_up(child.request)
    assert program.readable(child.stdout, 5)
    assert len(list(folder.iterdir())) == 2
    os.kill(pid_of(template), signal.SIGKILL)
    assert finished(child).line == {}
    template.close()
    assert list(folder.iterdir()) == [other]


def test_who_takes_too_much_of_the_disk_is_stopped_where_no_mount_holds_it(plan, folder):
    layers = tuple(layer for layer in plan.layers if layer != "namespaces")
    if plans.level(layers) != "B":
        pytest.skip("this kernel has no Landlock: there is no private directory without namespaces")
    limits = plan.limits._replace(disk=1 << 20, file_size=1 << 20)

    template = program.Template(plans.Plan(layers=layers, folder=str(folder), limits=limits), probe=True)
    template.await_ready()
    code = """
import time
for number in range(40):
    with open(f"f{number}", "wb") as file:
        file.write(b"x" * (1 << 16))
time.sleep(60)
"""
    ended = told(template, asked(code))
    template.close()
    assert (ended.line["status"], ended.line["stopped"]) == (signal.SIGKILL, "disk")
    assert list(folder.iterdir()) == []
