"""A whole proxy as a process of its own, for tests and for all else that wants one; of the standard library alone."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Tuple, Union

ROOT = Path(__file__).resolve().parent.parent


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
                raise AssertionError(f"the house ended with {self.process.returncode} instead of starting:\n{self.log}")
            time.sleep(0.01)
        self.process.kill()
        self.process.wait()
        raise AssertionError(f"the house does not listen:\n{self.log}")


def clean_environment(home: Path) -> Dict[str, str]:
    """Give an environment without keys, proxies and settings of whoever runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
