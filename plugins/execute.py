"""Serves POST /execute: runs Python from strangers where it can reach nothing; GET /execute tells what holds it there.

The walls are in the rooms of `_sandbox`; here is what a client meets. A program shares its process with whatever tells
its result, so a result is read as any stranger's JSON is. Time, output and the way it ended are measured from outside.

The keeper starts its processes when it is first asked: they take more memory than the whole proxy, and most proxies are
never asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Iterable, Mapping, Optional, Tuple

from providers import Options, Provider
from providers._json import DEEPEST, PLAIN, is_deep

from . import JSON, Finding, Handler, Plugin, Refusal, Request, Response
from ._json import parsed, refuse, shown
from ._sandbox import plan as plans

if TYPE_CHECKING:
    from ._sandbox.keeper import Keeper, Outcome, Report

KNOWN = ("code", "input", "function")
#: option -> the least and the most it may be
BOUNDS: Mapping[str, Tuple[float, float]] = {
    "timeout": (0.01, 86400),
    "cpu": (1, 86400),
    "memory": (64, 1 << 20),
    "processes": (1, 4096),
    "file_size": (1, 1 << 20),
    "disk": (1, 1 << 20),
    "output": (0.001, 3),  # each byte may be six in the answer, which holds three of them
    "concurrency": (1, 1024),
    "spares": (0, 64),
}
LONGEST_INTEGER = 4000  # digits of a result's number
LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{%d}" % (LONGEST_INTEGER + 1))
LONGISH_NUMBER = re.compile(rb"[0-9]{300,}")
MOST_DIGITS = 100_000  # in all such numbers: one takes the square of its length to be read and to be written
MOST_VALUES = 100_000  # in a result: nobody else is served while it is read
STRING = re.compile(rb'"[^"]*"')  # of JSON without its escapes
MOST_WORDS = 4096
OUT_OF_MEMORY = 77  # the exit status of a program that had no memory left even to say so
KILL, CPU = 9, 24
SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", KILL: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
FRAME = frozenset({"token", "success", "called", "result", "error", "error_type"})
NOT_STARTED = "POST /execute is switched off: others can reach this proxy, and nothing asks who they are"


class Execute(Plugin):
    options: ClassVar[Options] = {
        "timeout": (10.0, "Seconds a program may take."),
        "cpu": (10, "Seconds of processor time it may use, all its threads together."),
        "memory": (256, "MiB of memory it may use."),
        "processes": (32, "Threads it may have; other processes it cannot start."),
        "file_size": (16, "MiB that a file of its own may have."),
        "disk": (16, "MiB that all its files may have together."),
        "output": (1.0, "MiB that are kept of its stdout, and of its stderr."),
        "concurrency": (8, "Programs that run at the same time, in each worker; one more is told 429."),
        "allow_open": (False, "Run programs even for strangers, where others can reach the proxy without auth."),
        "require": ((), f"Layers without which nothing is run: {', '.join(plans.LAYERS)}. By default those that hold."),
        "without": ((), "Layers not to use."),
        "template": (
            True,
            "Keep one process from which every program is forked, instead of starting Python each time.",
        ),
        "spares": (2, "Processes that are made ready before they are needed, each for one program."),
    }
    order = 60

    def __init__(
        self,
        options: Mapping[str, Any],
        upstream: Provider,
        keeper: Optional[Callable[[plans.Limits], Keeper]] = None,
    ) -> None:
        super().__init__(options, upstream)
        check(options)
        self.limits = limits_of(options)
        self.keeper: Optional[Keeper] = None
        self._told = {name: options[name] for name in BOUNDS}
        self._allow_open = options["allow_open"]
        self._walls = {name: options[name] for name in ("without", "require", "template", "spares")}
        self._new = keeper or self._kept
        self._free = threading.BoundedSemaphore(options["concurrency"])

    def _kept(self, limits: plans.Limits) -> Keeper:
        from ._sandbox.keeper import Keeper

        return Keeper(limits, **self._walls)

    def routes(self) -> Mapping[str, Handler]:
        return {"POST /execute": self.run, "GET /execute": self.tell}

    def start(self, *, guarded: bool) -> None:
        if guarded or self._allow_open:
            self.keeper = self._new(self.limits)

    def close(self) -> None:
        if self.keeper:
            self.keeper.close()

    def run(self, request: Request) -> Response:
        """Run a program, and answer when nothing of it is left."""
        if self.keeper is None:
            raise Refusal(403, f"{NOT_STARTED} ([plugins.execute] allow_open)", code="execute_off")
        program = question(request)
        if not self._free.acquire(blocking=False):
            message = f"{self._told['concurrency']} programs are running already"
            raise Refusal(429, message, {"Retry-After": "1"}, code="too_many_programs")
        try:
            envelope = self.answer(self.keeper, program, request)
        finally:
            self._free.release()
        return Response.of(envelope, 200, request.warnings())

    def answer(self, keeper: Keeper, program: JSON, request: Request) -> JSON:
        from ._sandbox.keeper import Unavailable

        token = secrets.token_hex(16)
        try:
            outcome = keeper.run(json.dumps({**program, "token": token}).encode(), request.scope)
        except Unavailable as missing:
            raise Refusal(
                503, f"no program can be run here: {missing}", {"Retry-After": "5"}, code="sandbox_unavailable"
            ) from None
        return verdict(outcome, token, self.limits)

    def tell(self, request: Request) -> Response:
        """Tell which layers hold here, and what is promised therefore."""
        from ._sandbox.keeper import Report

        report = self.keeper.report() if self.keeper else Report({}, "", (), NOT_STARTED)
        return Response.of({**honest(report), "limits": self._told})

    def checks(self) -> Iterable[Finding]:
        with contextlib.closing(self._new(self.limits)) as keeper:
            report = keeper.report()
        return findings(report, asked=bool(self._walls["require"]))


# what is set


def check(options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that makes no sense."""
    for name, (least, most) in BOUNDS.items():
        if not least <= options[name] <= most:
            raise ValueError(f"{name} must be between {least:g} and {most:g}, not {options[name]:g}")
    for name in ("require", "without"):
        for layer in options[name]:
            if layer not in plans.LAYERS:
                raise ValueError(f"{name}: there is no layer {layer!r}, only {', '.join(plans.LAYERS)}")


def limits_of(options: Mapping[str, Any]) -> plans.Limits:
    sizes = {name: int(options[name] * plans.MIB) for name in ("memory", "file_size", "disk", "output")}
    return plans.Limits(**sizes, **{name: options[name] for name in ("timeout", "cpu", "processes")})


# what is asked


def question(request: Request) -> JSON:
    """Give the program that is asked for: its code, and if they are there its input and the name of its function."""
    body = parsed(request.json())
    call = request.call({})
    for name in body:
        if name not in KNOWN:
            call.warn(shown(name), "not a field of /execute")
    code, function = body.get("code"), body.get("function")
    if code is None:
        refuse("code", "is required", "missing_required_parameter")
    for name, value in (("code", code), ("function", function)):
        if not isinstance(value, str) and value is not None:
            refuse(name, "must be a string", "invalid_type")
        if isinstance(value, str) and not value.strip():
            refuse(name, "must not be empty")
    return {name: body[name] for name in KNOWN if name in body}


# what is answered


def verdict(outcome: Outcome, token: str, limits: plans.Limits) -> JSON:
    """Give the answer to a program that has ended, however it did."""
    stdout = outcome.stdout.decode("utf-8", "replace")
    told = ended(outcome, limits) or heard(outcome.result, token)
    script, spoken = told.pop("script"), told.pop("spoken", "")
    return {
        "success": told["error_type"] is None,
        "output": stdout if script else spoken,
        **told,
        "stdout": stdout,
        "stderr": outcome.stderr.decode("utf-8", "replace"),
        "truncated": outcome.truncated,
        "duration_ms": round(1000 * outcome.seconds, 3),
    }


def failure(kind: str, error: str, *, script: bool = False) -> JSON:
    return {"result": None, "error": error[:MOST_WORDS], "error_type": kind[:MOST_WORDS], "script": script}


def ended(outcome: Outcome, limits: plans.Limits) -> Optional[JSON]:
    """Tell of a program that was stopped, or ended before it had a result."""
    stopped = {
        "timeout": ("TimeoutError", f"the program took longer than {limits.timeout:g} s"),
        "output": ("OutputTooLarge", "the program wrote far more than is kept of its output"),
        "result": ("ResultTooLarge", f"the result is larger than {limits.result} bytes"),
        "disk": ("DiskFull", f"the program's files took more than {limits.disk // plans.MIB} MiB"),
    }
    if outcome.stopped:
        return failure(*stopped[outcome.stopped])
    if os.WIFSIGNALED(outcome.status):
        return killed(os.WTERMSIG(outcome.status), outcome.cpu, limits)
    status = os.WEXITSTATUS(outcome.status)
    if status == OUT_OF_MEMORY:
        return failure("MemoryError", f"the program used more than {limits.memory // plans.MIB} MiB")
    if status or not outcome.result:
        return failure("SystemExit", f"the program ended itself, with exit status {status}")
    return None


def killed(number: int, cpu: float, limits: plans.Limits) -> JSON:
    if number == CPU or (number == KILL and cpu > limits.cpu * 0.9):
        return failure("TimeoutError", f"the program used more than {limits.cpu} s of processor time")
    return failure("Crashed", f"the program was ended by {SIGNALS.get(number, f'signal {number}')}")


class _TooLongError(ValueError):
    pass


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise _TooLongError
    return int(text)


def has_much(frame: bytes, count: Callable[[bytes], int], most: int) -> bool:
    """Tell whether there is too much of something outside of JSON's strings. Every step is quick, whatever it is."""
    if count(frame) <= most:
        return False
    bare = frame.replace(b"\\\\", b"").replace(b'\\"', b"")
    return bare.count(b'"') > 5 * MOST_VALUES or count(STRING.sub(b"", bare)) > most


def marks_in(data: bytes) -> int:
    return sum(map(data.count, (b",", b"[", b"{")))


def long_digits_in(data: bytes) -> int:
    return sum(map(len, LONGISH_NUMBER.findall(data)))


def heard(frame: bytes, token: str) -> JSON:
    """Read what a program says its result is: exactly one frame with its token, or it is none."""
    if has_much(frame, marks_in, MOST_VALUES):
        return failure("ResultTooLarge", f"the result has more than {MOST_VALUES} values")
    if has_much(frame, long_digits_in, MOST_DIGITS):
        return failure("ResultTooLarge", f"the long numbers of the result have more than {MOST_DIGITS} digits")
    if is_deep(frame):
        return failure("ResultNotSerializable", f"the result is nested deeper than {DEEPEST - 1} levels")
    decoder = json.JSONDecoder(parse_int=_integer) if LONG_NUMBER.search(frame) else PLAIN
    try:
        told = decoder.decode(frame.decode("ascii"))
        if not is_frame(told, token):
            return failure("ProtocolError", "the program wrote where only its result is written")
        if not told["success"]:
            return failure(told["error_type"], told["error"], script=not told["called"])
        spoken = said(told["result"])
    except _TooLongError:
        return failure("ResultNotSerializable", f"a number of the result has more than {LONGEST_INTEGER} digits")
    except ValueError:
        return failure("ProtocolError", "what the program wrote is no result")
    script = not told["called"]
    return {"result": told["result"], "error": "", "error_type": None, "script": script, "spoken": spoken}


def is_frame(told: Any, token: str) -> bool:
    """Tell whether this is what the runner says, and says of this program."""
    if not isinstance(told, dict) or told.keys() != FRAME or told["token"] != token:
        return False
    if not isinstance(told["success"], bool) or not isinstance(told["called"], bool):
        return False
    if told["success"]:
        return told["error_type"] is None and (told["called"] or told["result"] is None)
    return isinstance(told["error"], str) and isinstance(told["error_type"], str) and told["error_type"] != ""


def said(result: Any) -> str:
    """Give a result as text; raises ValueError for what is too large a number."""
    if result is None or isinstance(result, str):
        return result or ""
    return json.dumps(result, ensure_ascii=False, allow_nan=False)


# what holds here


def honest(report: Report) -> JSON:
    """Tell what a report means: what is promised here, and what is not."""
    held = [name for name, why in report.layers.items() if not why]
    layers = {
        name: {"in_force": name in held, "what": what, "why_not": report.layers.get(name, report.missing) or None}
        for name, what in plans.LAYERS.items()
    }
    return {
        "available": not report.missing,
        "missing": report.missing or None,
        "level": report.level or None,
        "layers": layers,
        "promised": [] if report.missing else plans.promises(report.level),
        "not_promised": plans.lacks(held),
        "got_through": list(report.through),
    }


def findings(report: Report, *, asked: bool) -> Iterable[Finding]:
    """Tell the same to `doctor`; a lack is a fault only where something was required."""
    for name in plans.LAYERS:
        why = report.layers.get(name, report.missing)
        yield (None if why else True), f"sandbox layer {name}", why
    what = f"POST /execute, level {report.level}" if report.level else "POST /execute"
    broken = False if asked else None
    yield (broken if report.missing else True), what, report.missing
