"""What tests are handed: stand-ins for the world outside, and whole houses brought up from ini text."""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

import pytest
import requests
import responses

from houses import ROOT, Answer, House, clean_environment
from plugins import Response
from providers import _connection, _http, _transport
from upstream import Asked, Reply, Upstream

__all__ = ["ROOT", "Answer", "House", "clean_environment"]  # tests take them from here


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Leave to other Pythons of the same run what is theirs: `run.py` says which marks."""
    for mark in os.environ.get("LLMPROXY_TESTS_LEAVE", "").split():
        skip = pytest.mark.skip(reason=f"tries the kernel or the wire: left to the {mark} Python of this run")
        for item in items:
            if item.get_closest_marker(mark):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """Every test leaves as many threads as it found."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2
    while left := [thread for thread in threading.enumerate() if thread not in before]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left behind: {left}")
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_address_remembered() -> None:
    """Tests say anew what a name means."""
    _connection._spelled_out.cache_clear()


def finished(waiting: Generator[Any, None, Any]) -> Any:
    """Run a generator that pauses to its end, and give what it returned."""
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            return end.value


def settled(response: Response) -> Response:
    """Wait for a response that may be late, and give it."""
    finished(response.awaited())
    return response


@pytest.fixture
def upstream() -> Iterator[Callable[[Union[Reply, Callable[[Asked], Reply]]], Upstream]]:
    """Give a maker of stand-ins on real sockets; they are closed at the end, and must have had no trouble."""
    opened: List[Upstream] = []

    def make(answer: Union[Reply, Callable[[Asked], Reply]]) -> Upstream:
        opened.append(Upstream(answer))
        return opened[-1]

    yield make
    for up in opened:
        up.close()
    assert [trouble for up in opened for trouble in up.troubles] == []


# the outside world, declared


class Wire(responses.RequestsMock):
    """The outside world as a test declares it: `wire.post(url, match=[...], json=...)`, as `responses` has it.

    Every stub must be asked, and nothing may be asked that was not declared: the test fails then, there
    or at its end, whatever the product made of it.
    """

    def __init__(self) -> None:
        super().__init__(assert_all_requests_are_fired=True)
        self.undeclared: List[str] = []

    def expect(
        self, method: str, url: str, sent: Any = None, headers: Optional[Mapping[str, str]] = None, **answer: Any
    ) -> responses.BaseResponse:
        """Declare a stub that wants exactly this JSON body and (at least) these headers."""
        match = list(answer.pop("match", ()))
        if sent is not None:
            match.append(responses.matchers.json_params_matcher(sent))
        if headers is not None:
            match.append(bearing(headers))
        return self.add(method, url, match=match, **answer)


def bearing(headers: Mapping[str, str]) -> Callable[[Any], Tuple[bool, str]]:
    """Match a request that bears these headers, names in any spelling."""

    def match(request: Any) -> Tuple[bool, str]:
        wrong = {name: request.headers.get(name) for name in headers if request.headers.get(name) != headers[name]}
        return not wrong, f"headers {wrong} are not {dict(headers)}"

    return match


class Answered:
    """What the transport's opener gives back: an answer whose body comes in small blocks, with pauses."""

    BLOCK = 61  # bytes: borders fall inside of lines, words and letters

    def __init__(self, response: requests.Response) -> None:
        self.status: int = response.status_code
        self.fields = _http.Fields(response.raw.headers.items())
        self.raw = response.raw

    def head(self) -> Iterator[Dict[str, Any]]:
        yield {}

    def at_once(self) -> None:
        return None

    def blocks(self) -> Iterator[bytes]:
        while block := self.raw.read(self.BLOCK, decode_content=False):
            yield b""
            yield block

    def close(self) -> None:
        self.raw.close()


class Undeclared(AssertionError):
    """The product asked for something no stub was declared for."""


class Passing(urllib.request.BaseHandler):
    """Passes the product's own urllib request on to requests, where `responses` answers it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.session = requests.Session()
        self.session.trust_env = False

    def http_open(self, question: Any) -> Answered:
        headers: Dict[str, str] = {}
        for name, value in question.fields:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        method = question.get_method()
        asked = requests.Request(method, question.full_url, headers=headers, data=question.data).prepare()
        try:
            return Answered(self.session.send(asked, stream=True, allow_redirects=False))
        except OSError as error:  # requests' own are among them
            if str(error).startswith("Connection refused by Responses"):
                self.wire.undeclared.append(str(error))
                raise Undeclared(str(error)) from None
            raise _connection.unreachable("the upstream", error) from error

    https_open = http_open


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Swap the transport's opener for one that asks what the test declares."""
    with Wire() as declared:
        passing = Passing(declared)
        opener = urllib.request.OpenerDirector()
        opener.add_handler(passing)
        monkeypatch.setattr(_transport, "opener", lambda *_args, **_more: opener)
        yield declared
        passing.session.close()
    assert not declared.undeclared, declared.undeclared[0]


# a whole house


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., House]]:
    """Give a maker of houses: `house(ini_text, env={}, args=[])`, or with another copy's `program`.

    They have no rate limit and no /execute unless `ini_text` speaks of it: tests ask more than one client
    should, and a sandbox takes a while to start. At the end each exits with 0 on SIGTERM, and no log holds a traceback.
    """
    built: List[House] = []

    def build(
        ini_text: str = "",
        env: Optional[Mapping[str, str]] = None,
        args: Iterable[str] = (),
        program: Path = ROOT / "llmproxy.py",
    ) -> House:
        for plugin in ("rate_limit", "execute"):
            if plugin not in ini_text and (ROOT / "plugins" / f"{plugin}.py").exists():
                ini_text += f"\n[plugins.{plugin}]\nenabled = no\n"
        built.append(House(tmp_path_factory.mktemp("house"), ini_text, env or {}, args, program))
        return built[-1]

    yield build
    codes = [one.stop() for one in built]
    for one, code in zip(built, codes):
        assert one.excused or code == 0, f"exit code {code}:\n{one.log}"
        assert one.excused or "Traceback" not in one.log, one.log
