"""What tests are handed: stand-ins for the world outside, and whole houses brought up from ini text."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

import pytest
import requests
import responses

from providers import _connection, _http, _transport
from upstream import Asked, Reply, Upstream

ROOT = Path(__file__).resolve().parent.parent


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

    def head(self) -> Iterator[None]:
        yield

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


class Answer(NamedTuple):
    """A whole answer of the house."""

    status: int
    headers: Dict[str, str]  # lower-case names
    body: bytes
    fields: Tuple[Tuple[str, str], ...]

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> List[Any]:
        """The data of an event stream: JSON where it is JSON, text (`[DONE]`) where not."""
        data = re.findall(r"^data: ?(.*?)\r?$", self.text, re.MULTILINE)
        return [json.loads(one) if one.startswith(("{", "[{")) else one for one in data]


class House:
    """A proxy running as a process of its own. `excused` lets it log a traceback, or end by another code than 0."""

    START = 30.0  # seconds a start may take on a machine that is busy with other tests
    LISTENING = re.compile(r"^llmproxy \S+ listening on (http://\S+:(\d+))", re.MULTILINE)

    def __init__(self, folder: Path, ini_text: str, env: Mapping[str, str], args: Iterable[str], program: Path) -> None:
        self.excused = False
        self.config = folder / "config.ini"
        self.config.write_text(ini_text, "utf-8")
        self._log = folder / "log"
        command = [sys.executable, "-W", "error", str(program), "--config", str(self.config), *args]
        if "--port" not in command:
            command += ["--port", "0"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**clean_environment(folder), **env}
            )
        self.url, self.port = self._listening()

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def wait_log(self, pattern: str, seconds: float = 5.0) -> bool:
        """Wait until the log has a match of `pattern`."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.log):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Union[Mapping[str, str], None] = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Ask on a connection of its own; a body that is neither bytes nor None goes as JSON."""
        response = self.open(method, path, body, headers, timeout)
        with response:
            fields = tuple(response.getheaders())
            return Answer(response.status, {k.lower(): v for k, v in fields}, response.read(), fields)

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Union[Mapping[str, str], None] = None,
        timeout: float = 30.0,
    ) -> http.client.HTTPResponse:
        """Ask, and give the answer to be read as it comes; closing it hangs up."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {**sent, "Connection": "close"})
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Ask it to end, wait, and give its exit code; killed when it does not end in time."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _listening(self) -> Tuple[str, int]:
        deadline = time.monotonic() + self.START
        while time.monotonic() < deadline:
            found = self.LISTENING.search(self.log)
            if found:
                return found.group(1), int(found.group(2))
            if self.process.poll() is not None:
                pytest.fail(f"the house ended with {self.process.returncode} instead of starting:\n{self.log}")
            time.sleep(0.01)
        self.process.kill()
        self.process.wait()
        pytest.fail(f"the house does not listen:\n{self.log}")


def clean_environment(home: Path) -> Dict[str, str]:
    """Give an environment without keys, proxies and settings of whoever runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


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
