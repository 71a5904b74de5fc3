"""Shows that the programs have teeth: runs each without any wall, and tells where no harm was seen.

    python tests/hostile/unwalled.py [name ...]

It harms this machine as little as it can: in a session and with a user of its own, as root only where the
table says that its harm shows to root alone. Needs root; not part of the tests. Do not run it where you
keep anything.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hostile import PROGRAMS, Program
from hostile.world import World, processes_called

UID = 1_999_000_001
PYTHON = "/usr/bin/python3"
LONG = 3.0
NAIVE = """

if __name__ == "__main__":
    import json
    import os
    settings = {{"key": os.environ.get("OPENAI_API_KEY")}}
    with open({at!r}) as file:
        given = json.load(file)
    try:
        told = {{"success": True, "result": main(given)}}
    except Exception as error:
        import traceback
        traceback.print_exc()
        told = {{"success": False, "error": repr(error)}}
    os.write(4, json.dumps(told, default=repr).encode() + b"\\n")
"""
BEGIN = """
import os, resource, runpy
os.dup2({into}, 4)
os.close({into})
if {crowded}:
    resource.setrlimit(resource.RLIMIT_NPROC, (150, 150))
runpy.run_path({script!r}, None, "__main__")
"""
CLEAN = """
import os, shutil, sys
for name in os.listdir(sys.argv[1]):
    path = os.path.join(sys.argv[1], name)
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
"""


class Ran(NamedTuple):
    """What a careless keeper has of a program: its word, all it said, the seconds, the status, how cleaning up went."""

    document: Any
    said: bytes
    seconds: float
    status: int
    cleaned: bool
    more: bool

    @property
    def words(self) -> str:
        return self.said[-300:].decode("utf-8", "replace")


def ran(program: Program, text: str, world: World, at: Dict[str, Any], uid: int) -> Ran:
    """Run a program as a careless keeper would."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        here = Path(tempfile.mkdtemp(dir=str(world.folder / "tmp")))
        for path in (folder, here):
            path.chmod(0o777)
            os.chown(path, uid, uid)
        folder.joinpath("input.json").write_text(json.dumps(at), "utf-8")
        script = folder / "program.py"
        script.write_bytes((text + NAIVE.format(at=str(folder / "input.json"))).encode("utf-8", "surrogatepass"))
        out, into = os.pipe()
        inherited = [os.open(world.folder / name, os.O_RDONLY) for name in ("config.ini", "open")]
        own = {"user": uid, "group": uid, "extra_groups": [], "stdin": subprocess.DEVNULL}
        began = time.monotonic()
        with folder.joinpath("out").open("wb") as output:
            process = subprocess.Popen(
                [PYTHON, "-c", BEGIN.format(into=into, script=str(script), crowded=bool(program.beside))],
                **own, cwd=str(here), env={**world.environment(), "PYTHONPATH": str(world.folder / "house")},
                stdout=output, stderr=output, pass_fds=(into, *inherited), start_new_session=True,
            )  # fmt: skip
        for descriptor in (into, *inherited):
            os.close(descriptor)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LONG * 2)
        seconds = time.monotonic() - began
        os.set_blocking(out, False)
        told = b""
        with contextlib.suppress(OSError):
            while more := os.read(out, 1 << 20):
                told += more
        os.close(out)
        process.kill()
        process.wait()
        said = folder.joinpath("out").read_bytes()
        with contextlib.suppress(OSError):
            here.joinpath("stdout.txt").write_bytes(said)  # as Judge0 did
        cleaning = subprocess.run([PYTHON, "-c", CLEAN, str(here)], **own, check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", str(here)], check=False, stderr=subprocess.DEVNULL)
        return Ran(
            read(told),
            told + said,
            seconds,
            process.returncode,
            cleaning.returncode == 0,
            bool(told.partition(b"\n")[2]),
        )


def read(told: bytes) -> Any:
    """Read what a program answered as a careless keeper would: the first line is as good as any."""
    try:
        return json.loads(told.split(b"\n")[0])
    except (ValueError, RecursionError):
        return None


def harm_of(program: Program, folder: Path) -> Tuple[List[str], str]:
    """Run one program in a world of its own; gives the harm that is seen, and its last words."""
    uid = 0 if program.as_root else UID
    world = World(folder, uid)
    (folder / "config.ini").write_text(f"api_key = {world.secrets['config']}\n", "utf-8")
    victim = subprocess.Popen(
        [PYTHON, "-c", "import time; time.sleep(60)", world.secrets["command line"]], env=world.environment(),
        user=uid, group=uid, extra_groups=[], cwd=str(folder), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    mark = "h" + secrets.token_hex(3)
    try:
        time.sleep(0.05)
        world.watch(victim.pid, world.listeners["tcp"].getsockname()[1])
        at = {**world.told(mark), "long": LONG, "moment": 0.8, "memory": 48, "disk": 2, "port": world.port}
        if program.beside:
            return side_by_side(program, world, at, uid)
        done = ran(program, program.code, world, at, uid)
        time.sleep(0.1)
        harm = world.harm([mark], done.said) + judged(program, done)
        harm += [f"process {pid} is left" for pid in processes_called(mark)]
        if program.then and not harm:
            both = program.code.replace("def main(at)", "def first(at)") + program.then
            both = both.replace("def main(at):\n", "def main(at):\n    first(at)\n")
            done = ran(program, both, world, at, uid)
            harm += judged(program._replace(told=True), done)
        return harm, done.words
    finally:
        for pid in processes_called(mark):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for kind in "mqs":
            for key in (int(mark[1:], 16), 0x5A17):
                subprocess.run(["ipcrm", f"-{kind.upper()}", str(key)], check=False, stderr=subprocess.DEVNULL)
        victim.kill()
        victim.wait()
        world.close()


def judged(program: Program, done: Ran) -> List[str]:
    """Tell what a careless keeper would have made of it."""
    document = done.document if isinstance(done.document, dict) else {}
    return [
        words
        for words, seen in {
            "there is no answer": not document,
            "there are two answers": done.more,
            "it said what its keeper should have measured": document.get("stdout") == "forged",
            f"it says {str(document.get('result'))[:100]}": program.told and document.get("result"),
            "it passes for a success": program.fails and not program.told and document.get("success"),
            f"it took {done.seconds:.1f} s": done.seconds > LONG * 0.9,
            f"had it been its reader, the reader were dead by signal {-done.status}": done.status < 0,
            "its directory cannot be removed": not done.cleaned,
        }.items()
        if seen
    ]


def side_by_side(program: Program, world: World, at: Dict[str, Any], uid: int) -> Tuple[List[str], str]:
    """Run both of two programs at the same time, and judge what the second one met."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(ran, program, program.code, world, at, uid)
        time.sleep(0.25)
        second = ran(program, program.beside, world, {**at, "mark": "h000001"}, uid)
        first.result()
    harm = judged(program._replace(told=True), second)
    if not (second.document or {}).get("success"):
        harm.append("the other failed")
    return harm, second.words


def main(names: List[str]) -> int:
    toothless = 0
    for program in PROGRAMS.values():
        if (names and program.name not in names) or program.tame.startswith("not run"):
            continue
        folder = tempfile.mkdtemp(prefix="hostile-")
        try:
            os.chmod(folder, 0o755)
            harm, words = harm_of(program, Path(folder, "world"))
        finally:
            subprocess.run(["rm", "-rf", folder], check=False)
        good = bool(harm) or bool(program.tame)
        toothless += not good
        print("ok  " if good else "NONE", program.name, "|", "; ".join(harm)[:150] or program.tame)
        if not good or names:
            print("     ", words)
    return toothless


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
