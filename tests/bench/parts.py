"""The parts of the benchmark: each brings up what it measures, measures it turn by turn, and gives rows of figures."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .clients import Client, Load, Row
from .contestants import ALONE, OTHER, PASSED, ROADS, Contestant, Road
from .crowd import Crowd
from .machine import Program, Unusable, Upstream, asked

CONNECTIONS = (1, 16, 64, 256)
NOISE_CONNECTIONS = 64
WAIT, WAITING = 50, 64  # ms that the upstream takes, and connections meanwhile
STREAMS = (1, 100)
WORDS = 200  # in a stream that is measured for its chunks
SLOW_STREAMS = (500, 1000)
SLOW_WORDS, SLOW_GAP, SLOW_SPREAD = 5, 1000, 1.0  # words, ms between them, s in which the streams begin
IDLE, MEANWHILE = 5000, 16  # connections that are idle, and those that are not
STARTS, PEER_STARTS = 9, 3
DIRECT = Road("/v1/chat/completions")


class Bench(NamedTuple):
    """What a part is handed."""

    folder: Path
    upstream: Upstream
    client: Client
    seconds: float
    contestants: List[Contestant]
    turns: int = 1
    files: int = 1024  # that a process may have open
    core: Optional[int] = None  # that programs are kept on
    numbers: Iterator[int] = itertools.count()

    def start(self, contestant: Contestant) -> Program:
        """Start one in a folder of its own. Raises Unusable."""
        program = contestant.start(self.folder / str(next(self.numbers)), self.upstream.port)
        if self.core is not None:
            program.pin(self.core)
        return program


class Runner(NamedTuple):
    """Someone on a road: a contestant that runs, or nobody, which is the upstream alone."""

    name: str
    road: str
    port: int
    way: Road
    program: Optional[Program] = None
    of: str = ""

    @property
    def label(self) -> Row:
        return {"who": self.name, "road": self.road, **({"of": self.of} if self.of else {})}


def on(contestant: Contestant, road: str, program: Program) -> Runner:
    return Runner(contestant.name, road, program.port, contestant.roads[road], program, contestant.of)


def direct(bench: Bench) -> Runner:
    return Runner(ALONE, "", bench.upstream.port, DIRECT)


def in_turn(turns: int, runners: List[Runner], measure: Callable[[Runner], Row]) -> List[Row]:
    """Measure one after the other, as often as there are turns; gives a row for each."""
    rows: List[List[Row]] = [[] for _ in runners]
    for _ in range(turns):
        for runner, seen in zip(runners, rows):
            seen.append(measure(runner))
    return [{**runner.label, **middle(seen)} for runner, seen in zip(runners, rows)]


def middle(rows: List[Row]) -> Row:
    """Make one row of several of the same: the median of each figure, and all that went wrong."""
    row: Row = {}
    for key, value in rows[0].items():
        values = [one[key] for one in rows if one.get(key) is not None]
        if isinstance(value, list):
            row[key] = [item for one in rows for item in one[key]]
        elif values and isinstance(values[0], (int, float)):
            found = statistics.median(values)
            row[key] = round(found) if all(isinstance(one, int) for one in values) else round(found, 3)
        else:
            row[key] = value
    return row


class Noise:
    """What the machine did beside: the upstream alone, measured again and again."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.rates: List[int] = []

    def listen(self) -> None:
        request, seconds = DIRECT.request(), min(0.4, self.bench.seconds)
        load = Load(self.bench.upstream.port, request, NOISE_CONNECTIONS, seconds)
        self.rates.append(self.bench.client.loaded(load)["per_s"])

    def told(self) -> Row:
        self.listen()
        return {"min": min(self.rates), "median": round(statistics.median(self.rates)), "max": max(self.rates)}


# whole answers


def loaded(bench: Bench, runner: Runner, load: Load, count: str = "all_answers") -> Row:
    """Load someone; gives the figures, with the CPU time for each answer (or word)."""
    if runner.program:
        runner.program.settle()
    before = runner.program.cpu if runner.program else None
    row = bench.client.loaded(load)
    after = runner.program.cpu if runner.program else None
    if before is not None and after is not None and row[count]:
        row["cpu_us"] = round(1e6 * (after - before) / row[count], 2)
    return row


def whole(bench: Bench, model: str, connections: int) -> Callable[[Runner], Row]:
    """Give what measures whole answers."""

    def measure(runner: Runner) -> Row:
        load = Load(runner.port, runner.way.request(model), connections, bench.seconds)
        return {"connections": connections, **loaded(bench, runner, load)}

    return measure


def roads(running: List[Tuple[Contestant, Program]]) -> List[List[Runner]]:
    """Give who is on each road."""
    return [[on(one, road, program) for one, program in running if road in one.roads] for road in ROADS]


def requests(bench: Bench, running: List[Tuple[Contestant, Program]]) -> Row:
    """Measure requests with more and more connections."""
    noise, rows = Noise(bench), []
    noise.listen()
    for n in CONNECTIONS:
        alone = in_turn(1, [direct(bench)], whole(bench, "bench", n))[0]
        rows.append(alone)
        for runners in roads(running):
            rows += [added(row, alone, "p50_ms") for row in in_turn(bench.turns, runners, whole(bench, "bench", n))]
        if n == CONNECTIONS[0]:
            noise.listen()
    return {"noise": noise.told(), "rows": rows}


def added(row: Row, alone: Row, key: str) -> Row:
    """Add what it is more than the upstream alone."""
    if row.get(key) is None or alone.get(key) is None:
        return row
    return {**row, f"added_{key}": round(row[key] - alone[key], 3)}


def waits(bench: Bench, running: List[Tuple[Contestant, Program]]) -> Row:
    """Measure requests whose answers the upstream takes its time for."""
    noise = Noise(bench)
    noise.listen()
    measure = whole(bench, f"bench-wait-{WAIT}", WAITING)
    alone = in_turn(1, [direct(bench)], measure)[0]
    rows = [alone]
    noise.listen()
    for runners in roads(running):
        for row in in_turn(bench.turns, runners, measure):
            share = round(row["per_s"] / alone["per_s"], 3) if alone["per_s"] else None
            rows.append({**row, "share": share})
    return {"noise": noise.told(), "rows": rows}


# streams


def streams(bench: Bench, running: List[Tuple[Contestant, Program]]) -> Row:
    """Measure the first word of short streams, and the chunks of long ones."""
    noise, rows = Noise(bench), []
    for n in STREAMS:
        noise.listen()
        measure = streamed(bench, n)
        alone = in_turn(1, [direct(bench)], measure)[0]
        rows.append(alone)
        for runners in roads(running):
            rows += [added(row, alone, "first_p50_ms") for row in in_turn(bench.turns, runners, measure)]
    return {"noise": noise.told(), "rows": rows}


def streamed(bench: Bench, connections: int) -> Callable[[Runner], Row]:
    def measure(runner: Runner) -> Row:
        short = Load(runner.port, runner.way.request("bench", True), connections, bench.seconds / 2)
        long = Load(runner.port, runner.way.request(f"bench-{WORDS}", True), connections, bench.seconds)
        first, all_ = loaded(bench, runner, short), loaded(bench, runner, long, "all_words")
        told = {name: first[name] for name in ("first_p50_ms", "first_p99_ms")}
        return {"connections": connections, **all_, **told, "wrong": first["wrong"] + all_["wrong"]}

    return measure


def slow(bench: Bench) -> Row:
    """Measure many streams that take long; each time in a program that has just been started."""
    rows = []
    for n in SLOW_STREAMS:
        if n == SLOW_STREAMS[-1]:
            rows += in_turn(1, [direct(bench)], lambda runner, n=n: dripped(bench, runner, n))  # type: ignore[misc]
        for road in ROADS:
            if road in (OTHER, PASSED) or not any(OTHER in one.roads for one in bench.contestants):
                rows += fresh(bench, road, lambda runner, n=n: dripped(bench, runner, n))  # type: ignore[misc]
    return {"rows": rows}


def fresh(bench: Bench, road: str, measure: Callable[[Runner], Row]) -> List[Row]:
    """Measure everyone on a road, each in a program of its own that was asked once."""

    def started(runner: Runner) -> Row:
        program = bench.start(by_name[runner.name])
        try:
            program.rest()
            bench.client.loaded(Load(program.port, runner.way.request(), 1, 0.05))
            return measure(runner._replace(port=program.port, program=program))
        finally:
            program.stop()

    there = [one for one in bench.contestants if road in one.roads]
    by_name = {one.name: one for one in there}
    return in_turn(bench.turns, [Runner(one.name, road, 0, one.roads[road], None, one.of) for one in there], started)


def dripped(bench: Bench, runner: Runner, connections: int) -> Row:
    """Open slow streams, and look at the memory while they last."""
    model = f"bench-slow-{SLOW_WORDS}-{SLOW_GAP}"
    limit = SLOW_SPREAD + 3 * SLOW_WORDS * SLOW_GAP / 1000 + 5
    load = Load(runner.port, runner.way.request(model, True), connections, limit, SLOW_SPREAD, once=True)
    before = runner.program.memory if runner.program else None
    seen = [before or 0.0]
    cpu = runner.program.cpu if runner.program else None
    row = bench.client.loaded(load, lambda: seen.append((runner.program and runner.program.memory) or 0.0))
    after = runner.program.cpu if runner.program else None
    if before is not None:
        row["stream_kib"] = round(1024 * (max(seen) - before) / connections, 1)
    if cpu is not None and after is not None and row["all_words"]:
        row["cpu_us"] = round(1e6 * (after - cpu) / row["all_words"], 1)
    return {"connections": connections, **row, "complete": row["requests"]}


# connections that say nothing


def idle(bench: Bench) -> Row:
    """Measure what idle connections cost, and what others notice of them."""
    wanted = min(IDLE, bench.files - 300)
    rows = in_turn(1, [direct(bench)], whole(bench, "bench", MEANWHILE))
    for road in ROADS:
        there = [one for one in bench.contestants if next(iter(one.roads)) == road]
        rows += fresh(bench._replace(contestants=there), road, lambda runner: crowded(bench, runner, wanted))
    return {"rows": rows}


def crowded(bench: Bench, runner: Runner, wanted: int) -> Row:
    assert runner.program is not None
    runner.program.settle()
    before = runner.program.memory
    with ExitStack() as stack:
        crowd = stack.enter_context(Crowd(runner.port, runner.way.request(), wanted))
        runner.program.settle()
        memory = runner.program.memory
        row = loaded(bench, runner, Load(runner.port, runner.way.request(), MEANWHILE, bench.seconds))
        still = crowd.open()
    each = round(1024 * (memory - before) / crowd.answered, 1) if memory and before and crowd.answered else None
    told = {"connections": wanted, "answered": crowd.answered, "still": still, "rss_mib": memory, "each_kib": each}
    return {**row, **told, "wrong": row["wrong"] + crowd.wrong}


# starts


def starts(bench: Bench) -> Row:
    """Measure the start to the first answer, beside what Python itself takes; all in turn."""
    rows = bare_starts() if any(one.ours for one in bench.contestants) else []
    ours = [one for one in bench.contestants if one.ours]
    rows += start_rows(bench, ours, STARTS, True)
    rows += start_rows(bench, [one for one in bench.contestants if not one.ours], PEER_STARTS, False)
    return {"rows": rows}


def bare_starts() -> List[Row]:
    seconds: Dict[str, List[float]] = {"pass": [], "import http.server": []}
    for turn, (code, took) in itertools.product(range(STARTS + 1), seconds.items()):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        took += [1000 * (time.perf_counter() - begun)] if turn else []  # the first turn only warms the caches
    return [{"who": f"python -c '{code}'", "start_ms": round(statistics.median(s), 1)} for code, s in seconds.items()]


def start_rows(bench: Bench, contestants: List[Contestant], times: int, warm_up: bool) -> List[Row]:
    runners = [
        Runner(one.name, next(iter(one.roads)), 0, next(iter(one.roads.values())), None, one.of) for one in contestants
    ]
    by_name = {one.name: one for one in contestants}

    def measure(runner: Runner) -> Row:
        program = bench.start(by_name[runner.name])
        try:
            idle = program.memory
            begun = time.perf_counter()
            answer = asked(program.port, runner.way.once())
            took = program.started + time.perf_counter() - begun
            told = {"start_ms": round(1000 * program.started, 1), "first_ms": round(1000 * took, 1)}
            wrong = [] if b" 200 " in answer[:16] else [answer[:200].decode("latin-1")]
            return {**told, "idle_mib": idle, "wrong": wrong}
        finally:
            program.stop()

    if warm_up and times > 1:
        in_turn(1, runners, measure)
    rows = in_turn(times, runners, measure)
    return [{name: value for name, value in row.items() if name != "road"} for row in rows]


def memory(one: Contestant, program: Program) -> Row:
    """Give the memory of a program that was loaded."""
    told = {"idle_mib": program.idle, "loaded_mib": program.memory, "helpers_mib": program.helpers}
    return {"who": one.name, "of": one.of, **told}


def all_running(bench: Bench, stack: ExitStack) -> Tuple[List[Tuple[Contestant, Program]], List[str]]:
    """Start all contestants; gives those that run, and why the others do not. Raises Unusable for one of ours."""
    running, skipped = [], []
    for one in bench.contestants:
        try:
            program = bench.start(one)
        except Unusable as error:
            if one.ours:
                raise
            skipped.append(f"{one.name}: {error}")
            continue
        stack.callback(program.stop)
        program.rest()
        running.append((one, program))
    return running, skipped
