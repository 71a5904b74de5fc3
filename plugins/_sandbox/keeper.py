"""The keeper: the proxy's side of the sandbox, which has programs run and knows what can be promised here.

A thread of its own, the warden, starts template processes (a process dies with the thread that started it), attacks the
first one's child to learn what truly holds, and keeps a few spares: children prepared in advance, each for one program.
A template that died is replaced, and so is one that has served for long, for its children share one hash seed.

One lock guards what is counted and which template is in use; nobody waits for a process with it held.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import os
import select
import sys
import threading
import time
from typing import Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from providers import Scope

from . import plan as plans
from . import proof
from .program import BLOCK, GRACE, Child, Lost, Outcome, Run, Template, Unavailable, readable

__all__ = ["Keeper", "Outcome", "Report", "Unavailable"]
log = logging.getLogger("llmproxy")

YOUNG = 0.25  # a program whose template dies sooner than this is begun again: nothing it did can be seen anywhere
AGE = 500  # programs a template serves
PATIENCE = 1.0  # seconds between two attempts to start what fails
AFTER = 0.003  # seconds before spares are made up for: the answer of who took one goes out first
SLOTS = 4096  # identities of one process, taken in turn so that none is used again soon; other proxies have others
ENDING = "the proxy is ending"
LINUX = sys.platform.startswith("linux")


class Report(NamedTuple):
    """What holds here.

    `layers` tells of each layer why it does not hold, or nothing; `through` what got through in the trial, promised or
    not; `missing` why no program is run, or nothing.
    """

    layers: Dict[str, str]
    level: str
    through: Tuple[str, ...]
    missing: str


class Keeper:
    """Has programs run, each in a confined child of its own, and knows what that is worth here.

    `without` names layers that are not used, `require` layers without which nothing is run. `template` tells whether
    one template process serves many programs, `spares` how many children it has ready.
    """

    def __init__(
        self,
        limits: plans.Limits,
        *,
        without: Iterable[str] = (),
        require: Iterable[str] = (),
        template: bool = True,
        spares: int = 2,
    ) -> None:
        """Raises ValueError for a layer that there is not."""
        self._without, self._require = tuple(without), tuple(require)
        for name in (*self._without, *self._require):
            if name not in plans.LAYERS:
                raise ValueError(f"{name}: the layers are {', '.join(plans.LAYERS)}")
        self._limits = limits
        self._keeps, self._most_spares = template, spares if template else 0
        wanted = tuple(layer for layer in plans.LAYERS if layer not in self._without)
        self._plan = plans.Plan(layers=wanted, limits=limits)
        self._state = threading.Condition()
        self._numbers = itertools.count()
        self._thread: Optional[threading.Thread] = None
        self._ringer, self._bell = -1, -1
        elsewhere = Report({}, "", (), f"{sys.platform} has nothing that could hold a program")
        self._report: Optional[Report] = None if LINUX else elsewhere
        self._decided = self._closing = False
        self._template: Optional[Template] = None
        self._trouble = ""
        self._failed = self._started = -PATIENCE
        self._retired: List[Template] = []
        self._spares: Deque[Child] = collections.deque()
        self._running = self._waiting = 0

    # from any thread

    def start(self) -> None:
        """Begin, in the background; what follows a fork has to be a keeper of its own."""
        with self._state:
            if self._thread or self._closing or not LINUX:
                return
            self._plan = self._plan._replace(first_uid=self._plan.first_uid + SLOTS * (os.getpid() % 30_000))
            self._bell, self._ringer = os.pipe()
            for end in (self._bell, self._ringer):
                os.set_blocking(end, False)
            self._thread = threading.Thread(target=self._tend, name="sandbox", daemon=True)
            self._thread.start()

    def report(self) -> Report:
        """Tell what holds here; waits until that is known."""
        return self._known(Scope())

    def run(self, request: bytes, scope: Scope) -> Outcome:
        """Have a program run, and wait for its end.

        Raises Unavailable, and Gone when its client has left; the program is dead then, as it is in every other case.
        """
        missing = self._known(scope).missing
        if missing:
            self._ring()
            raise Unavailable(missing)
        began = time.monotonic()
        with contextlib.suppress(Lost):
            return self._run(request, scope)
        if time.monotonic() - began < YOUNG:
            with contextlib.suppress(Lost):
                return self._run(request, scope)
        raise Unavailable("the template process ended, and the program with it")

    def close(self) -> None:
        """Take no more programs; everything is gone when the last one has ended, at once if none runs."""
        with self._state:
            self._closing = True
            thread, busy = self._thread, self._running
            self._state.notify_all()
        self._ring()
        if thread and not busy:
            thread.join(GRACE)

    def _known(self, scope: Scope) -> Report:
        self.start()
        with self._state:
            while self._report is None and not self._closing:
                self._wait(scope)
            return self._report or Report({}, "", (), ENDING)

    def _wait(self, scope: Scope) -> None:
        """Wait for a change; the lock is held before and after. Raises Gone."""
        self._waiting += 1
        try:
            self._state.wait(PATIENCE / 20)
            if scope.client is not None:
                self._state.release()
                try:
                    scope.wait(None, 0)
                finally:
                    self._state.acquire()
        finally:
            self._waiting -= 1

    def _ring(self) -> None:
        """Have the warden look around."""
        with self._state:
            if self._ringer >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._ringer, b"!")

    def _run(self, request: bytes, scope: Scope) -> Outcome:
        with self._template_for(scope) as template:
            child = self._spare(template) or self._prepared(template)
            with contextlib.closing(child):
                return Run(child, request, self._limits).outcome(scope)

    @contextlib.contextmanager
    def _template_for(self, scope: Scope) -> Iterator[Template]:
        """Give a template that is counted as busy meanwhile; raises Unavailable."""
        template = self._common(scope) if self._keeps else self._own()
        try:
            yield template
        finally:
            if not self._keeps:
                template.close()
            with self._state:
                template.running -= 1
                self._running -= 1
            self._ring()

    def _common(self, scope: Scope) -> Template:
        asked = time.monotonic()
        with self._state:
            while not self._closing and (self._template is None or not self._template.alive()):
                if self._failed > asked:
                    raise Unavailable(self._trouble)
                self._ring()
                self._wait(scope)
            if self._template is None or self._closing:
                raise Unavailable(ENDING)
            return self._counted(self._template)

    def _own(self) -> Template:
        """Start a template for one program, in the thread that waits for it: it ends with that."""
        with self._state:
            if self._closing:
                raise Unavailable(ENDING)
        template = Template(self._plan, probe=False)
        template.await_ready()
        with self._state:
            return self._counted(template)

    def _counted(self, template: Template) -> Template:
        template.served += 1
        template.running += 1
        self._running += 1
        return template

    def _prepared(self, template: Template, *, warm: bool = False) -> Child:
        number = next(self._numbers)
        return Child(template, number, number % SLOTS, warm=warm)

    def _spare(self, template: Template) -> Optional[Child]:
        """Give a spare of this template that is alive."""
        while True:
            with self._state:
                if not self._spares or self._spares[0].template is not template:
                    return None
                child = self._spares.popleft()
            if not readable(child.status):
                return child
            child.close()

    # the warden's

    def _tend(self) -> None:
        try:
            while not self._done():
                self._look_around()
                self._await_bell()
        except Exception:
            log.exception("the sandbox's warden failed")
        finally:
            self._end()

    def _done(self) -> bool:
        with self._state:
            return self._closing and not self._running

    def _look_around(self) -> None:
        if not self._decided:
            self._decide()
        if self._decided and self._keeps and self._report and not self._report.missing:
            self._renew()
            self._refill()
        with self._state:
            ended = [template for template in self._retired if not template.running]
            self._retired = [template for template in self._retired if template.running]
        for template in ended:
            template.close()

    def _await_bell(self) -> None:
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        if self._template:
            poller.register(self._template.fileno(), select.POLLIN)
        poller.poll()
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell, BLOCK)

    def _decide(self) -> None:
        """Learn what holds here, by trying each layer and then by attacking what stands behind them all."""
        if time.monotonic() - self._failed < PATIENCE:
            return
        template = None
        try:
            self._started = time.monotonic()
            template = Template(self._plan, probe=True)
            report = self._judged(template)
            self._decided = True
        except (Unavailable, Lost) as error:
            self._failed = time.monotonic()
            report = Report({}, "", (), str(error) or "the template process ended")
        if template and (report.missing or not self._keeps):
            template.close()
            template = None
        with self._state:
            self._report, self._template = report, template
            self._state.notify_all()

    def _judged(self, template: Template) -> Report:
        off = dict.fromkeys(self._without, "switched off")
        layers = {name: off.get(name, template.layers[name]) for name in plans.LAYERS}
        self._plan = template.plan
        level = plans.level(self._plan.layers)
        needed = {*self._require, *(() if level else plans.NEEDED)}
        lacking = [f"{name} ({why})" for name, why in layers.items() if why and name in needed]
        if lacking:
            return Report(layers, level, (), "what is missing: " + "; ".join(lacking))
        template.await_ready()
        through = proof.attacked(lambda *what: self._tried(template, *what), self._limits)
        refuted = [name for name in through if name in proof.promised(level)]
        return Report(layers, level, through, "what does not hold: " + "; ".join(refuted) if refuted else "")

    def _tried(self, template: Template, request: bytes, limits: plans.Limits) -> Outcome:
        with contextlib.closing(self._prepared(template)) as child:
            return Run(child, request, limits).outcome(Scope())

    def _renew(self) -> None:
        """Put a new template in the place of one that died or has served for long."""
        template = self._template
        if template and not template.alive():
            log.warning("the template process of the sandbox ended: another takes its place")
            self._replace(None)
        now = time.monotonic()
        old = self._template and self._template.served >= AGE
        soon = now - self._started < PATIENCE and not self._waiting
        if (self._template and not old) or soon or now - self._failed < PATIENCE:
            return
        self._started = now
        try:
            template = Template(self._plan, probe=False)
            template.await_ready()
        except Unavailable as error:
            self._failed, self._trouble = time.monotonic(), str(error)
            log.warning("%s", error)
        else:
            self._replace(template)

    def _replace(self, template: Optional[Template]) -> None:
        with self._state:
            if self._template:
                self._retired.append(self._template)
            self._template = template
            spares, self._spares = self._spares, collections.deque()
            self._state.notify_all()
        for child in spares:
            child.close()  # it reads that no request comes, and ends

    def _refill(self) -> None:
        template = self._template
        if template and len(self._spares) < self._most_spares:
            time.sleep(AFTER)
        while template and len(self._spares) < self._most_spares and not self._closing:
            try:
                self._spares.append(self._prepared(template, warm=True))
            except Lost:
                return

    def _end(self) -> None:
        with self._state:
            self._closing = True
            bells, self._bell, self._ringer = (self._bell, self._ringer), -1, -1
            self._state.notify_all()
        self._replace(None)
        for template in self._retired:
            template.close()
        for end in bells:
            os.close(end)
