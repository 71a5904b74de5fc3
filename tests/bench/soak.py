"""Asks many mixed questions, good and bad, and looks at what they leave behind."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from .clients import Row, chat
from .machine import Program

CLIENTS = 8
WARM_UP = 10  # one in so many is asked before anything is looked at
REST = 2.0  # seconds between the last answer and the look at what is left


class Kind(NamedTuple):
    """One kind of question; `good` tells whether what came back is what it should be."""

    name: str
    path: str
    body: Any
    good: Callable[[int, bytes], bool]
    leaves: bool = False  # after the first bytes of the answer
    weight: float = 1.0  # how often, beside the others


def ok(status: int, data: bytes) -> bool:
    return status == 200 and b"word " in data


def whole(status: int, data: bytes) -> bool:
    return status == 200 and data.endswith(b"data: [DONE]\n\n")


def broken(status: int, data: bytes) -> bool:
    return status >= 500 or (status == 200 and b"[DONE]" not in data)


def refused(status: int, _: bytes) -> bool:
    return 400 <= status < 500


def failed(status: int, _: bytes) -> bool:
    return status >= 500


def begun(status: int, _: bytes) -> bool:
    return status == 200


OPENAI, ANTHROPIC = "/llm/v1/chat/completions", "anthropic/"
KINDS = [
    Kind("translated, same dialect", "/llm", chat("openai/bench"), ok),
    Kind("translated, another dialect", OPENAI, chat(f"{ANTHROPIC}bench"), ok),
    Kind("passed on", "/openai/v1/chat/completions", chat("bench"), ok),
    Kind("stream, same dialect", "/llm", chat("openai/bench-50", True), whole),
    Kind("stream, another dialect", OPENAI, chat(f"{ANTHROPIC}bench-50", True), whole),
    Kind("stream, passed on", "/openai/v1/chat/completions", chat("bench-50", True), whole),
    Kind("cancelled stream", OPENAI, chat(f"{ANTHROPIC}bench-slow-100-10", True), begun, True),
    Kind("cancelled stream, passed on", "/openai/v1/chat/completions", chat("bench-slow-100-10", True), begun, True),
    Kind("no such path", "/nowhere", {}, refused),
    Kind("a field that is wrong", "/llm", {**chat("openai/bench"), "messages": "none"}, refused),
    Kind("no such provider", "/llm", chat("nobody/bench"), refused),
    Kind("upstream 500", "/llm", chat("openai/bench-error-500"), failed, False, 0.1),  # asked again, with pauses
    Kind("upstream 400", OPENAI, chat(f"{ANTHROPIC}bench-error-400"), refused),
    Kind("upstream 500, passed on", "/openai/v1/chat/completions", chat("bench-error-500"), failed),
    Kind("upstream breaks off", OPENAI, chat(f"{ANTHROPIC}bench-break-3", True), broken),
]


class Asker(threading.Thread):
    """One client, with a connection of its own that is kept as long as it can be."""

    def __init__(self, port: int, plan: List[Kind]) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.plan = plan
        self.connection: Optional[http.client.HTTPConnection] = None
        self.wrong: Dict[str, int] = {}

    def run(self) -> None:
        for kind in self.plan:
            try:
                self.ask(kind)
            except (OSError, http.client.HTTPException) as error:
                self.blame(f"{kind.name}: {error!r}")
                self.leave()
        self.leave()

    def ask(self, kind: Kind) -> None:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps(kind.body, separators=(",", ":"))
        self.connection.request("POST", kind.path, body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        try:
            data = response.read(40) if kind.leaves else response.read()
        except http.client.IncompleteRead as error:
            data = error.partial
            self.leave()
        if kind.leaves or response.will_close:
            response.close()
            self.leave()
        if not kind.good(response.status, data):
            self.blame(f"{kind.name}: {response.status} {data[-100:].decode('utf-8', 'replace')}")

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def blame(self, reason: str) -> None:
        self.wrong[reason] = self.wrong.get(reason, 0) + 1


def mixed(program: Program, count: int, seed: int = 1) -> Row:
    """Ask so many questions after a tenth of them as a warm-up; gives what was there before, after, and went wrong."""
    chance = random.Random(seed)
    weights = [kind.weight for kind in KINDS]
    wrong = asked(program.port, chance.choices(KINDS, weights, k=max(count // WARM_UP, len(KINDS))))
    before = look(program)
    begun = time.monotonic()
    plan = chance.choices(KINDS, weights, k=count)
    for reason, times in asked(program.port, plan).items():
        wrong[reason] = wrong.get(reason, 0) + times
    took = time.monotonic() - begun
    after = look(program)
    rows = [
        {"what": name, "before": before[name], "after": after[name], "more": more(before[name], after[name])}
        for name in before
    ]
    kinds = {kind.name: plan.count(kind) for kind in KINDS}
    told = [f"{times}x {reason}" for reason, times in wrong.items()]
    return {"requests": count, "per_s": round(count / took), "kinds": kinds, "rows": rows, "wrong": told}


def asked(port: int, plan: List[Kind]) -> Dict[str, int]:
    """Ask all of it from several clients; gives what went wrong, how often."""
    clients = [Asker(port, plan[at::CLIENTS]) for at in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    wrong: Dict[str, int] = {}
    for client in clients:
        for reason, times in client.wrong.items():
            wrong[reason] = wrong.get(reason, 0) + times
    return wrong


def look(program: Program) -> Dict[str, Any]:
    """Look at what a program holds, once it is at rest."""
    time.sleep(REST)
    program.settle()
    return {"RSS, MiB": program.memory, "open files": program.files, "threads": program.threads}


def more(before: Any, after: Any) -> Any:
    return None if before is None or after is None else round(after - before, 1)
