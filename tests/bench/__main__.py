"""Measures the proxy beside its upstream alone: start, memory, requests, streams; its reader of heads; and programs.

    python3 tests/bench [--json] [--seconds 1] [--only start,requests] [--processes 1,2] [-- options of llmproxy.py]
    python3 tests/bench --against HEAD~3      measures an earlier one too, turn by turn
    python3 tests/bench --peers               and what others run in its place, as far as it is installed
    python3 tests/bench --mixed 100000        and what so many good and bad requests leave behind
    python3 tests/bench --profile             only where its time goes

The standard library is enough; with a C compiler and wrk the upstream and the client are faster, and what was used is
told. The machine's other work shows in the figures: compare within one run. Nothing is judged here.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from bench import contestants, parts, profiles, report, soak  # noqa: E402
from bench.clients import Client, Row  # noqa: E402
from bench.machine import CORES, Program, Unusable, open_files, pinned, upstream  # noqa: E402

PARTS = "start,heads,requests,waits,streams,slow,idle,programs"
LOADS = {"requests": parts.requests, "waits": parts.waits, "streams": parts.streams}  # on programs that stay
OTHERS = {"slow": parts.slow, "idle": parts.idle, "start": parts.starts}  # on programs started for each figure


def options_of(arguments: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds each figure of load is measured")
    parser.add_argument("--only", default=PARTS, help=f"which parts, with commas between: {PARTS}")
    parser.add_argument("--processes", default="1", help="numbers of --workers to measure, with commas between")
    parser.add_argument("--mixed", type=int, default=0, metavar="N", help="ask N mixed requests; look at what is left")
    parser.add_argument("--against", default="", metavar="REV", help="measure the proxy of a git revision as well")
    parser.add_argument("--peers", nargs="?", const="all", default="", metavar="NAMES", help="measure others as well")
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PYTHON", help="the Python that has Flask etc."
    )
    parser.add_argument("--portkey", default="", metavar="FOLDER", help="where @portkey-ai/gateway is installed")
    parser.add_argument("--profile", action="store_true", help="tell where the proxy's time goes, and nothing else")
    parser.add_argument("--client", default="", choices=["wrk", "c", "python"], help="the client of whole answers")
    parser.add_argument("--turns", type=int, default=0, help="times each figure is taken in turn; else 1, or 2 against")
    parser.add_argument("--pin", action="store_true", help="a core of its own for what is measured: less noise")
    parser.add_argument("--upstream", default="c", choices=["c", "python"], help="the upstream, where both can be had")
    parser.add_argument("args", nargs="*", metavar="-- OPTIONS", help="options of llmproxy.py")
    return parser.parse_args(arguments)


@contextmanager
def tree(rev: str, folder: Path) -> Iterator[Path]:
    """Give a worktree of a revision, for the length of a `with`."""
    place = folder / "against"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(place), rev], check=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


def proxies(options: argparse.Namespace, against: List[Path]) -> List[contestants.Contestant]:
    """Give the proxies of this tree and of the one it is compared with, each with so many processes."""
    found = []
    for workers in map(int, options.processes.split(",")):
        more = f", {workers} workers" if workers > 1 else ""
        old = f"{options.against}{more}"
        found.append(contestants.ours(ROOT, f"llmproxy{more}", options.args, workers, old if against else ""))
        found += [contestants.ours(root, old, options.args, workers) for root in against]
    return found


def peers(options: argparse.Namespace, port: int) -> Tuple[List[contestants.Contestant], List[str]]:
    """Give the peers that are installed, and why the others are not measured."""
    found, skipped = [], []
    means = contestants.Means(options.peer_python, port, options.portkey)
    names = options.peers.lower().split(",") if options.peers else []
    for name, make in contestants.PEERS.items():
        if not any(one == "all" or one in name.lower() for one in names):
            continue
        try:
            found.append(make(means))
        except Unusable as error:
            skipped.append(f"{name}: {error}")
    return found, skipped


class Run:
    """One run: what was found so far, printed part by part unless JSON is wanted."""

    def __init__(self, options: argparse.Namespace, bench: parts.Bench) -> None:
        self.options = options
        self.bench = bench
        self.result: Row = {
            "machine": {"python": platform.python_version(), "cores": CORES, "system": platform.platform(terse=True)},
            "upstream": bench.upstream.told,
            "client": bench.client.told(bench.seconds),
            "streams_client": bench.client.streams_told,
            "skipped": [],
        }

    def begin(self) -> None:
        machine, result = self.result["machine"], self.result
        self.say(f"Python {machine['python']}, {machine['cores']} cores, {machine['system']}")
        self.say(f"upstream: {result['upstream']}; client: {result['client']}; of streams: {result['streams_client']}")
        if "wrk" in result["client"]:
            self.say("(wrk adds to its percentiles the requests it would have sent while one took long)")

    def say(self, words: str) -> None:
        if not self.options.json:
            print(words, flush=True)

    def skip(self, reasons: List[str]) -> None:
        self.result["skipped"] += reasons
        for reason in reasons:
            self.say(f"not measured: {reason}")

    def add(self, name: str, part: Row) -> None:
        if not self.options.json:
            report.part(name, part, self.options.against, "nginx")
            sys.stdout.flush()
        keys = report.TABLES[name][2]
        self.result[name] = {**part, "rows": report.compared(part["rows"], keys, "nginx")}

    def measure(self, only: List[str]) -> None:
        """Measure the parts."""
        ours = self.bench.contestants
        with ExitStack() as stack:
            running: List[Tuple[contestants.Contestant, Program]] = []
            if any(name in LOADS for name in only) or not all(one.ours for one in ours):
                running, skipped = parts.all_running(self.bench, stack)
                self.skip(skipped)
            for name, measured in LOADS.items():
                if name in only:
                    self.add(name, measured(self.bench, running))
            if any(name in LOADS for name in only):
                self.add("memory", {"rows": [parts.memory(one, program) for one, program in running]})
        if running:
            self.bench = self.bench._replace(contestants=[one for one, _ in running])
        for name, part in OTHERS.items():
            if name in only:
                self.add(name, part(self.bench))
        self.rest(only)

    def rest(self, only: List[str]) -> None:
        """Measure what only this tree has."""
        if "heads" in only:
            from bench.heads import heads

            self.add("heads", {"rows": heads(self.bench.seconds)})
        if "programs" in only:
            from bench.execute import programs

            self.add("programs", {"rows": programs(ROOT, self.options.args)})
        if self.options.mixed:
            for one in self.bench.contestants:
                if one.ours:
                    self.soak(one)

    def soak(self, one: contestants.Contestant) -> None:
        program = self.bench.start(one)
        try:
            part = soak.mixed(program, self.options.mixed)
        finally:
            program.stop()
        self.say(f"\n{one.name}:")
        before: Any = self.result.get("mixed", [])
        self.add("mixed", part)
        self.result["mixed"] = [*before, {"who": one.name, **part}]

    def profile(self) -> None:
        def sampled(file: str) -> contestants.Contestant:
            return contestants.ours(ROOT, "sampled", self.options.args, 1, "", file)

        self.result["profile"] = profiles.profiles(self.bench, sampled, self.bench.contestants[0])
        if not self.options.json:
            report.profile(self.result["profile"], profiles.TOP)


def main(arguments: List[str]) -> Dict[str, Any]:
    """Do what the command line asks for; gives what was found."""
    options = options_of(arguments)
    files, core = open_files(), pinned() if options.pin else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        up = stack.enter_context(upstream(folder, options.upstream == "c"))
        client = Client(folder, options.client)
        against = [stack.enter_context(tree(options.against, folder))] if options.against else []
        others, skipped = peers(options, up.port)
        all_ = [*proxies(options, against), *others]
        turns = options.turns or (2 if against else 1)
        bench = parts.Bench(folder, up, client, options.seconds, all_, turns, files, core)
        run = Run(options, bench)
        run.begin()
        run.skip(skipped)
        try:
            if options.profile:
                run.profile()
            else:
                run.measure(options.only.split(","))
        except Unusable as error:
            sys.exit(f"llmproxy.py: {error}")
    if options.json:
        print(json.dumps(run.result, indent=1))
    return run.result


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and so is what was started
    main(sys.argv[1:])
