"""Programs that want to harm, sent to a whole house over HTTP, and what is seen of them from outside.

The programs are in `hostile/`, each a row of a table; `hostile/unwalled.py` shows that each does harm where
nothing holds it. Here each is sent to houses of several kinds: run by root and by an ordinary user, starting
programs in every way there is, and with each layer of the sandbox taken away. It must have done no harm, or
must not have been run at all.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import symtable
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import pytest

from conftest import Answer, House
from hostile import PROGRAMS, Program, table
from hostile.world import World, processes_called, text_of

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds programs"),
    pytest.mark.newest,
]

LAYERS = ("limits", "privileges", "identity", "namespaces", "landlock", "seccomp")
ORDINARY = 1_999_000_000  # a user who owns nothing else
MOMENT = 0.15  # seconds that two programs are there together
TIMEOUT = 1.5  # seconds a program may take where the clock is tried
LONG = 5.0  # seconds it would like to take
PROMPT = 8.0  # seconds after which an answer is late, on a machine that is busy with other tests
LONG_TESTS = bool(os.environ.get("LLMPROXY_LONG"))  # what is tried once before a release, and not each time
RUNS = 1000 if LONG_TESTS else 200
KIB = 1024

INI = """
[server]
max_connections = 500
[providers.planted]
type = openai
base_url = http://127.0.0.1:9
api_key = {secret}
[providers.ollama]
enabled = no
[providers.lmstudio]
enabled = no
[plugins.rate_limit]
enabled = no
[plugins.execute]
enabled = yes
{options}
"""


# houses


class Cell(NamedTuple):
    """A kind of house: who runs it, and with what options of the sandbox."""

    user: str
    options: Tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return ", ".join([self.user, *self.options])

    @property
    def without(self) -> str:
        return next((option.rpartition(" ")[2] for option in self.options if option.startswith("without")), "")


USERS = ("root", "ordinary")
WHOLE = [Cell(user) for user in USERS]
SHORT = [Cell(user, (f"timeout = {TIMEOUT:g}", "concurrency = 24")) for user in USERS]
STARTS = [Cell("root", ("spares = 0",)), Cell("ordinary", ("spares = 0",)), Cell("ordinary", ("template = no",))]
if LONG_TESTS:
    STARTS.append(Cell("root", ("template = no",)))
LESS = [
    Cell(user, (f"without = {layer}",))
    for layer in LAYERS
    for user in USERS
    if LONG_TESTS or (user, layer) not in {("ordinary", "identity"), ("root", "limits"), ("root", "privileges")}
]
TWO_LESS = [Cell(user, ("without = namespaces, landlock",)) for user in USERS]

#: enough to see that a way of starting holds like the others
FEW = [
    "reads_the_config", "lists_directories", "reads_by_the_kernels_own_calls", "writes_everywhere", "changes_modes",
    "connects_by_tcp", "readdresses_a_pair", "opens_a_socket_of_any_family", "kills_the_proxy", "has_the_kernel_kill",
    "reads_of_other_processes", "starts_a_process", "detaches", "uses_inherited_descriptors", "searches_its_memory",
    "has_or_takes_capabilities", "makes_namespaces", "reaches_the_kernel", "takes_memory", "starts_threads",
    "digs_deep", "leaves_what_is_hard_to_remove", "says_two_frames", "exits_well", "changes_modules", "leaves_files",
    "floods_its_output", "leaves_a_thread",
]  # fmt: skip


class Walled(House):
    """A house in a world of planted things, run as a user of the tests' choice."""

    def __init__(self, world: World, python: str, uid: int, options: Tuple[str, ...], args: Tuple[str, ...]) -> None:
        self.world = world
        self.config = world.folder / "config.ini"
        self._log = world.folder / "log"
        words = INI.format(secret=world.secrets["config"], options="\n".join(options))
        self.config.write_text(words, "utf-8")
        program = world.folder / "house" / "llmproxy.py"
        command = [python, "-W", "error", str(program), "--config", str(self.config), "--port", "0", *args]
        command += ["--gemini-api-key", world.secrets["command line"], "--jwt-secret", world.secrets["token"] * 2]
        other = {"user": uid, "group": uid, "extra_groups": []} if uid != os.getuid() else {}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=str(world.folder), env=world.environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, **other,
            )  # fmt: skip
        self.directories: Set[str] = set()  # that were seen to be a program's
        self.url, self.port = self._listening()
        self.report = self.ask("GET", "/execute").json
        self.idle = self.at_rest()
        world.watch(self.process.pid, self.port)

    def processes(self) -> Set[int]:
        """Give every process that this one has started, and that they have."""
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                told = text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
                if told[0] != "Z":
                    parents[int(pid)] = int(told[1])
        found: Set[int] = set()
        rest = {self.process.pid}
        while rest:
            rest = {pid for pid, parent in parents.items() if parent in rest} - found
            found |= rest
        for pid in found:
            with contextlib.suppress(OSError):
                where = os.readlink(f"/proc/{pid}/cwd")
                self.directories |= {where} if "/run-" in where else set()
        return found

    def at_rest(self) -> int:
        """Give how many processes there are when nothing happens; new spares take a while to be born."""
        seen = [0]
        while len(set(seen[-6:])) > 1 or len(seen) < 7:
            seen.append(len(self.processes()))
            time.sleep(0.015)
        return seen[-1]

    def settle(self, most: int, seconds: float = 3.0) -> int:
        """Wait until no more than so many processes are there; gives how many there are."""
        deadline = time.monotonic() + seconds
        while len(self.processes()) > most and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(self.processes())

    def run(self, code: str, given: Optional[Dict[str, Any]] = None, timeout: float = 60.0) -> Answer:
        """Have a program run."""
        asked = {"code": code} if given is None else {"code": code, "input": given}
        return self.ask("POST", "/execute", asked, timeout=timeout)

    def attack(self, text: str, mark: str) -> Tuple[Answer, float]:
        """Have a hostile program run; gives the seconds it took, too."""
        began = time.monotonic()
        answer = self.run(text, {"at": {**self.world.told(mark), "long": LONG, "moment": MOMENT}})
        return answer, time.monotonic() - began


def reachable(uid: int) -> Tuple[str, Path]:
    """Find an interpreter that this user can run, and its library; this one if that is possible."""
    own = Path(sys.executable).resolve()
    for python in [str(own), *(f"/usr/{place}bin/python3" for place in ("", "local/"))]:
        other = {"user": uid, "group": uid, "extra_groups": []} if uid != os.getuid() else {}
        told = "import os, sys; assert sys.version_info >= (3, 9); print(os.__file__)"
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [python, "-I", "-c", told], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False, **other
            )
            if done.returncode == 0:
                return python, Path(os.fsdecode(done.stdout.strip()))
    pytest.skip(f"no Python here that the ordinary user {uid} can run: {own} is closed to others")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Walled]]:
    """Give a maker of houses; each stands in a world of its own, below a folder that others may enter."""
    made: List[Walled] = []

    def make(user: str = "root", options: Tuple[str, ...] = (), args: Tuple[str, ...] = ()) -> Walled:
        if user == "root" and os.getuid() != 0:
            pytest.skip("the tests are not run by root: no house of root's")
        uid = os.getuid() if user == "root" or os.getuid() != 0 else ORDINARY
        python, library = reachable(uid)
        world = World(Path(tempfile.mkdtemp(prefix="house-", dir="/tmp")), uid, library)
        made.append(Walled(world, python, uid, options, args))
        return made[-1]

    yield make
    for house in made:
        close(house)


def close(house: Walled) -> None:
    """Stop a house, and see that nothing of it is left."""
    if house.world.folder.exists():
        running = house.processes()
        code = house.stop()
        left = [pid for pid in running if gone_within(pid, 2.0) is False]
        log = house.log
        directories = [*os.listdir(house.world.folder / "tmp"), *filter(os.path.exists, house.directories)]
        house.world.close()
        shutil.rmtree(house.world.folder)
        assert left == [], "processes outlived the house"
        assert directories == [], "directories outlived the house"
        log = "\n".join(line for line in log.splitlines() if " INFO " not in line)
        assert code in (0, -signal.SIGKILL), log
        assert "Traceback" not in log, log


def gone_within(pid: int, seconds: float) -> bool:
    """Tell whether a process is gone by then."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, build: Callable[..., Walled]) -> Iterator[Walled]:
    """Give the house of a cell; it is there for all tests that want this one."""
    built = build(request.param.user, request.param.options)
    yield built
    close(built)


def at_houses(cells: List[Cell]) -> Any:
    return pytest.mark.parametrize("house", cells, ids=lambda cell: cell.name, indirect=True)


# judging


#: what an answer holds, and of what kind
FIELDS: Dict[str, Any] = {
    "success": bool, "output": str, "result": object, "error": str, "error_type": (str, type(None)), "stdout": str,
    "stderr": str, "truncated": bool, "duration_ms": (int, float),
}  # fmt: skip
REFUSALS = {error.__name__ for error in (OSError, *OSError.__subclasses__())} - {"TimeoutError"}


def no_such_number(text: str) -> Any:
    raise AssertionError(f"{text} is no JSON")


def misshapen(answer: Answer, seconds: float) -> List[str]:
    """Tell what is wrong with the envelope, whatever a program did to it."""
    if answer.status != 200:
        return [f"status {answer.status}: {answer.body[:300]!r}"]
    told = json.loads(answer.body, parse_constant=no_such_number)
    if set(told) != set(FIELDS):
        return [f"the fields are {sorted(told)}"]
    found = [f"{name} is {told[name]!r:.100}" for name, kind in FIELDS.items() if not isinstance(told[name], kind)]
    if not 0 <= told["duration_ms"] <= seconds * 1000 + 5:
        found.append(f"it says {told['duration_ms']} ms, and took {seconds * 1000} ms")
    if (told["error_type"] is None) != told["success"]:
        found.append(f"success is {told['success']}, and error_type {told['error_type']!r}")
    if "forged" in (told["stdout"], told["stderr"], told["output"]):
        found.append("what was measured is forged")
    return found


def verdict(program: Program, house: Walled, answer: Answer, seconds: float) -> List[str]:
    """Tell what a program got away with, by its own words and by how it ended."""
    found = misshapen(answer, seconds)
    if found:
        return found
    told = answer.json
    error = told["error_type"] or ""
    rooted = program.rooted and house.report["level"] == "B"  # the house says itself that this is not promised then
    if program.told and not rooted and told["success"] and told["result"]:
        found.append(f"it says {str(told['result'])[:300]}")
    if program.fails and told["success"]:
        found.append("it passes for a success")
    if program.slow and error not in ("TimeoutError", *program.ends):
        found.append(f"it was not stopped by the clock: {error} {told['error'][:300]}")
    if not program.slow and error and error not in REFUSALS | set(program.ends):
        found.append(f"it ended by itself, not by being refused: {error} {told['error'][:200]} {told['stderr'][-500:]}")
    clocked = program.slow or "TimeoutError" in program.ends
    if seconds > (house.report["limits"]["timeout"] + 3 if clocked else PROMPT):
        found.append(f"the answer took {seconds:.1f} s")
    return found


def health(house: Walled) -> float:
    """Ask how the house is; gives the seconds it took."""
    began = time.perf_counter()
    assert house.ask("GET", "/health").status == 200
    return time.perf_counter() - began


def refused(house: Walled, layer: str) -> bool:
    """Tell whether nothing is run there, which must be said with the name of what is missing."""
    answer = house.run("def main(): return 1")
    if answer.status == 200:
        return False
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (503, "sandbox_unavailable"), answer.text
    assert layer in error["message"] or layer == "identity", answer.text  # root has no limit of threads without it
    return True


def held(house: Walled, program: Program) -> List[str]:
    """Have a program run, its second one too, and tell all harm that is seen."""
    mark = new_mark()
    found, body = met(house, program, mark)
    found += house.world.harm([mark], body)
    assert health(house) < 1.0
    return found


def all_held(house: Walled, names: List[str], at_once: int = 4) -> Dict[str, List[str]]:
    """Have programs run, some at a time, and tell all harm that is seen."""
    marks = {name: new_mark() for name in names}
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:  # of 8 places; some take two
        runs = {name: pool.submit(met, house, PROGRAMS[name], marks[name]) for name in names}
        found = {name: run.result()[0] for name, run in runs.items()}
    bodies = b"".join(run.result()[1] for run in runs.values())
    found["one of them"] = house.world.harm(list(marks.values()), bodies)
    assert health(house) < 1.0
    return {name: told for name, told in found.items() if told}


def new_mark() -> str:
    return "h" + secrets.token_hex(3)


def met(house: Walled, program: Program, mark: str) -> Tuple[List[str], bytes]:
    """Have a program run, its second one too; tell how it went, as far as it alone is concerned, and its answer."""
    if program.beside:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(house.attack, program.code, mark)
            time.sleep(0.03)
            found = second(house, program.beside)
            answer, seconds = first.result()
    else:
        answer, seconds = house.attack(program.code, mark)
        found = []
    found += [f"process {pid} is left" for pid in processes_called(mark)]
    found += verdict(program, house, answer, seconds)
    for _ in range(3 if program.then else 0):  # there may be spares that were born before
        found += second(house, program.then)
    return found, answer.body


def second(house: Walled, code: str) -> List[str]:
    """Have the second program run, which is no hostile one: it must do well, and find nothing."""
    answer, seconds = house.attack(code, new_mark())
    told = misshapen(answer, seconds)
    if not told and not answer.json["success"]:
        told = [f"the second one failed: {answer.json['error']} {answer.json['stderr'][-300:]}"]
    if not told and answer.json["result"]:
        told = [f"the second one says {answer.json['result']}"]
    return told


def runs_here(program: Program) -> bool:
    return program.only in ("", os.uname().machine)


QUICK = [name for name, program in PROGRAMS.items() if not program.slow and runs_here(program)]
WALLED = [name for name in QUICK if PROGRAMS[name].room not in ("channel", "resources", "escapes", "texts")]
SLOW = [name for name, program in PROGRAMS.items() if program.slow and runs_here(program)]


# the programs


@at_houses(WHOLE[:1])
@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_program_does_no_harm(house, name):
    assert held(house, PROGRAMS[name]) == []


@at_houses(WHOLE[1:])
def test_hostile_programs_do_no_harm_all_together(house):
    assert all_held(house, QUICK) == {}


@at_houses(STARTS)
def test_no_way_of_starting_is_weaker(house):
    assert all_held(house, FEW) == {}


@at_houses(LESS)
def test_with_a_layer_less_it_holds_or_nothing_is_run(house, request):
    layer = request.node.callspec.params["house"].without
    if not refused(house, layer):
        assert all_held(house, WALLED) == {}


@at_houses(TWO_LESS)
def test_with_no_wall_around_files_there_are_none(house):
    if not refused(house, "namespaces"):
        assert house.report["level"] == "C"
        assert all_held(house, WALLED) == {}


@at_houses(SHORT)
def test_what_only_the_clock_ends_is_gone_when_the_answer_is_there(house):
    assert all_held(house, SLOW, 20) == {}


# what is left, and how others fare


@at_houses(WHOLE)
def test_many_runs_leave_nothing(house):
    """Nor do they make the proxy grow."""
    code = "import os\ndef main(n):\n    print(n)\n    return n + 1"

    def run(n: int) -> None:
        assert house.run(code, {"n": n}).json["result"] == n + 1

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{house.process.pid}/fd"))

    def resident() -> int:
        pages = text_of(f"/proc/{house.process.pid}/statm").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") // KIB

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(100)))
        house.at_rest()
        opened, size = descriptors(), resident()
        list(pool.map(run, range(RUNS)))
    assert house.settle(house.idle) <= house.idle
    grown = resident() - size
    print(f"{RUNS} runs: the proxy grew by {grown} KiB, from {size}; descriptors {opened}, then {descriptors()}")
    assert descriptors() <= opened
    assert grown < 2 * KIB
    assert len(list(filter(os.path.exists, house.directories))) <= house.idle


@at_houses(WHOLE[:1])
def test_many_at_once_are_answered_or_told_to_wait(house):
    def run(n: int) -> Answer:
        return house.run("import time\ndef main(n):\n    time.sleep(0.02)\n    return n * n", {"n": n})

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(run, range(64)))
    good = [n for n, answer in enumerate(answers) if answer.status == 200]
    assert [answers[n].json["result"] for n in good] == [n * n for n in good]
    assert len(good) >= 8
    for answer in answers:
        if answer.status != 200:
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json["error"]["code"]


#: kept up by eight at once while others ask
BURDENS = ["burns_every_processor", "burns_the_processor", "multiplies", "floods_its_output"]
TALKERS = ["gives_many_long_numbers", "fills_the_disk"]


def busy(house: Walled, name: str, until: float) -> int:
    """Have a program run again and again; gives how often."""
    for done in itertools.count():
        if time.monotonic() > until:
            return done
        assert house.attack(PROGRAMS[name].code, new_mark())[0].status == 200
    raise AssertionError


@at_houses(SHORT)
@pytest.mark.parametrize("names", [BURDENS, TALKERS], ids=["burning", "talking"])
def test_others_are_served_while_programs_burn(house, names):
    """With nothing else on two processors p99 is below 20 ms; `-s` shows it."""
    times: List[float] = []
    until = time.monotonic() + (5 if LONG_TESTS else 1.5)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(busy, house, names[n % len(names)], until) for n in range(8)]
        time.sleep(0.2)
        while time.monotonic() < until:
            times.append(health(house) * 1000)
            time.sleep(0.005)
        done = sum(run.result() for run in runs)
    times.sort()
    p99 = times[math.ceil(len(times) * 0.99) - 1]
    print(f"/health beside {done} programs: median {times[len(times) // 2]:.1f} ms, p99 {p99:.1f} ms, of {len(times)}")
    assert p99 < 250
    house.world.harm([], b"")


SLEEPS = "import time\n" + table.TOOLS + "\ndef main(at):\n    return begun(at, lambda at: time.sleep(30))\n"


def hung_up(house: Walled, code: str, mark: str) -> socket.socket:
    """Have a program run, wait until it does, and give the connection to be cut."""
    body = json.dumps({"code": code, "input": {"at": {"mark": mark}}})
    connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=10)
    connection.request("POST", "/execute", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 5
    while not processes_called(mark):
        assert time.monotonic() < deadline, "the program does not run"
        time.sleep(0.005)
    return connection.sock


@at_houses([*WHOLE, *STARTS])
def test_a_client_that_leaves_kills_its_program(house):
    mark = new_mark()
    hung_up(house, SLEEPS, mark).close()
    deadline = time.monotonic() + 1
    while processes_called(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_called(mark) == []
    assert house.settle(house.idle) <= house.idle


@pytest.mark.parametrize(
    "cell", [*WHOLE, STARTS[2], Cell("ordinary", ("without = namespaces",))], ids=lambda cell: cell.name
)
def test_a_proxy_that_is_killed_leaves_nothing_behind(build, cell):
    house = build(cell.user, cell.options)
    if refused(house, "namespaces"):
        pytest.skip("nothing runs here without namespaces")
    mark = new_mark()
    with contextlib.closing(hung_up(house, SLEEPS, mark)):
        running = house.processes() | set(processes_called(mark))
        assert running
        house.process.kill()
        house.process.wait()
        assert [pid for pid in running if not gone_within(pid, 2.0)] == []
        deadline = time.monotonic() + 5
        while any(map(os.path.exists, house.directories)) and time.monotonic() < deadline:
            time.sleep(0.02)
    close(house)


@at_houses([*WHOLE, Cell("ordinary", ("without = namespaces",))])
def test_a_template_that_dies_is_replaced_and_leaves_nothing(house):
    died, directories = house.processes(), set(house.directories)
    for pid in died:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    answers = [house.run("def main(): return 1").json for _ in range(4)]
    assert [answer.get("result") or answer["error"]["code"] for answer in answers[:1]] in ([1], ["sandbox_unavailable"])
    assert [answer.get("result") for answer in answers[1:]] == [1, 1, 1]
    deadline = time.monotonic() + 5
    while any(map(os.path.exists, directories)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path for path in directories if os.path.exists(path)] == []


def test_workers_run_programs_too(build):
    house = build("root" if os.getuid() == 0 else "ordinary", args=("--workers", "2"))
    assert [house.run("def main(): return 1").json["result"] for _ in range(8)] == [1] * 8
    assert held(house, PROGRAMS["reads_the_config"]) == []
    assert held(house, PROGRAMS["uses_inherited_descriptors"]) == []
    close(house)


# what it says of itself


@at_houses([*WHOLE, *LESS])
def test_the_house_says_which_layers_hold(house, request):
    layer = request.node.callspec.params["house"].without
    told = house.report["layers"]
    assert list(told) == list(LAYERS)
    assert not layer or (not told[layer]["in_force"] and told[layer]["why_not"])
    assert house.report["available"] is not refused(house, layer)
    assert house.report["available"] or layer in house.report["missing"] or layer == "identity"


@pytest.mark.parametrize("layer", ["namespaces", "landlock"])
def test_less_than_what_is_required_runs_nothing(build, layer):
    house = build("ordinary", (f"without = {layer}", f"require = {layer}"))
    assert refused(house, layer)
    close(house)


# the table itself


def test_the_table_is_long_and_says_what_each_program_tries():
    assert len(PROGRAMS) >= 60
    assert [name for name, program in PROGRAMS.items() if not program.tries.endswith((".", ")."))] == []
    assert [name for name in FEW if name not in PROGRAMS] == []


def written(program: Program) -> List[str]:
    return [code for code in (program.code, program.then, program.beside) if code.startswith(table.TOOLS)]


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if written(program)])
def test_a_program_is_whole(name):
    """It is sent as text: a name that only its room knows would end it, and that would look like being held."""
    known = set(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__) | {"__file__"}
    for code in written(PROGRAMS[name]):
        compile(code, name, "exec")
        assert names_missing(symtable.symtable(code, name, "exec"), known) == set()


def names_missing(scope: symtable.SymbolTable, known: Set[str]) -> Set[str]:
    """Give the names that are used and that nobody gives a value."""
    top = known | {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    top |= {child.get_name() for child in scope.get_children()}
    missing = set()
    rest = list(scope.get_children())
    while rest:
        inner = rest.pop()
        rest += inner.get_children()
        missing |= {one.get_name() for one in inner.get_symbols() if one.is_global() and one.is_referenced()} - top
    return missing
