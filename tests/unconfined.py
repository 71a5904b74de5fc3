"""A stand-in for the keeper: programs run by the real runner, in a plain process without any wall."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from typing import List

from conftest import ROOT
from plugins._sandbox import plan as plans
from plugins._sandbox.keeper import Outcome, Report, Unavailable
from providers import Scope

PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from _sandbox import runner
sys.path.pop(0)
import os, resource
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
del runner.COMMON[:]
runner.preload()
with os.fdopen({request}, "rb") as file:
    request = file.read()
os.open(os.devnull, os.O_RDONLY)
os.dup2({result}, 4)
def say(frame):
    while frame:
        frame = frame[os.write(4, frame):]
runner.run(request, say)
"""
HELD = Report(dict.fromkeys(plans.LAYERS, ""), "A", (), "")


class Unconfined:
    """Runs what it is asked to; `report` is what it says of itself."""

    def __init__(self, limits: plans.Limits, report: Report = HELD, python: str = sys.executable) -> None:
        self.limits = limits
        self.python = python
        self.told = report
        self.asked: List[bytes] = []
        self.started = self.closed = False

    def start(self) -> None:
        self.started = True

    def close(self) -> None:
        self.closed = True

    def report(self) -> Report:
        return self.told

    def run(self, request: bytes, scope: Scope) -> Outcome:
        if self.told.missing:
            raise Unavailable(self.told.missing)
        self.asked.append(request)
        began = time.monotonic()
        with tempfile.TemporaryFile() as requests, tempfile.TemporaryFile() as results:
            requests.write(request)
            requests.seek(0)
            places = {"request": requests.fileno(), "result": results.fileno()}
            program = PROGRAM.format(folder=str(ROOT / "plugins"), memory=self.limits.memory, **places)
            process = subprocess.Popen(
                [self.python, "-I", "-S", "-B", "-X", "utf8", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=tuple(places.values()),
            )
            stopped = ""
            try:
                stdout, stderr = process.communicate(timeout=self.limits.timeout)
            except subprocess.TimeoutExpired:
                stopped = "timeout"
                process.kill()
                stdout, stderr = process.communicate()
            results.seek(0)
            frame = results.read(self.limits.result + 1)
        most = self.limits.output
        if len(frame) > self.limits.result:
            stopped = "result"
        cut = len(stdout) > most or len(stderr) > most
        code = process.returncode
        status = -code if code < 0 else code << 8
        seconds = time.monotonic() - began
        return Outcome(frame, stdout[:most], stderr[:most], cut, status, 0.0, 0, stopped, seconds)
