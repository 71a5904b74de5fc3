"""What a real browser lets pages do to a house: ours may use it, no other can do more than knock.

These run when a Chromium or Chrome is on PATH. `evil.test` means this machine to that browser, as an
attacker's DNS could have it; nothing leaves the machine.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from typing import Any, Callable, Dict, Iterator, List, Set
from urllib.parse import unquote

import pytest

from plugins.auth import sign
from upstream import Asked, Reply, Upstream, json_reply

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on PATH: not tried with a real browser"),
    pytest.mark.outermost,
]

PATIENCE = 20.0  # seconds a browser may take for a page
SECRET = "only-for-this-test-only-for-this"
FLAGS = [
    *("--headless", "--no-sandbox", "--no-first-run", "--no-proxy-server", "--disable-gpu", "--disable-quic"),
    *("--disable-sync", "--disable-extensions", "--disable-breakpad", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update"),
]

# the pages

PAGE = """<!doctype html><meta charset="utf-8"><body><script type="module">
const STAGE = %s, GIVEN = %s;
const tell = (said) => fetch(STAGE + '/report', {method: 'POST', mode: 'no-cors', body: JSON.stringify(said)});
const play = async () => { %s };
tell(await play().catch((error) => String(error)));
</script>"""

OURS = """
const {house, token, chat} = GIVEN;
const ask = (path, body, more) => fetch(house + path, {
  method: 'POST', headers: {'Content-Type': 'application/json', ...more}, body: JSON.stringify(body)});
const known = {'Authorization': 'Bearer ' + token, 'X-Stainless-OS': 'Linux', 'x-llmproxy-strict': 'true'};
const pieces = async (response) => {
  const texts = [], reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) texts.push(piece.value);
  return texts;
};
const stranger = await ask('/llm', chat);
const whole = await ask('/llm', chat, known);
const nowhere = await fetch(house + '/nowhere', {method: 'DELETE', headers: known});
return {
  health: await (await fetch(house + '/health')).text(),
  stranger: [stranger.status, (await stranger.json()).error.code],
  whole: [whole.status, (await whole.json()).content, Boolean(whole.headers.get('x-request-id'))],
  nowhere: nowhere.status,
  stream: (await pieces(await ask('/llm', {...chat, stream: true}, known))).join(''),
  passed: await pieces(await ask('/ollama/api/chat', {}, known)),
};
"""

FOREIGN = """
const shown = (tag, set) => new Promise((done) => {
  const it = Object.assign(document.createElement(tag), set);
  it.onload = it.onerror = () => done('ended');
  setTimeout(done, 2000, 'never ended');
  document.body.append(it);
});
const form = (action, method, enctype) => {
  const name = 'frame' + Math.random(), it = document.createElement('form');
  it.append(Object.assign(document.createElement('input'), {name: '{"a', value: '":1}'}));
  document.body.append(it);
  const loaded = shown('iframe', {name});
  Object.assign(it, {action, method, enctype, target: name}).submit();
  return loaded;
};
const heard = (it) => new Promise((done) => {
  it.onopen = () => done('open');
  it.onerror = () => { it.close(); done('refused'); };
});
const old = (url) => new Promise((done) => {
  const it = new XMLHttpRequest();
  it.open('POST', url);
  it.withCredentials = true;
  it.onloadend = () => done(it.status ? 'open' : 'refused');
  it.send('{}');
});
const ping = (url) => {
  const it = Object.assign(document.createElement('a'), {href: '#x', ping: url});
  document.body.append(it);
  it.click();
};
const boxed = (url) => shown('iframe', {sandbox: 'allow-scripts',
  srcdoc: `<script>fetch("${url}", {method: "POST", mode: "no-cors", body: "{}"})</` + 'script>'});
const post = (body, more) => (url) => fetch(url, {method: 'POST', body, ...more});
const moved = (from, url) => from + '/moved?to=' + encodeURIComponent(url);
const far = {mode: 'no-cors'}, json = {headers: {'Content-Type': 'application/json'}};
const fields = new URLSearchParams({a: 'b'}), parts = new FormData();
parts.append('a', 'b');
const attacks = {
  'fetch-json': post('{}', json),
  'fetch-put': (url) => fetch(url, {method: 'PUT', body: '{}'}),
  'fetch-delete': (url) => fetch(url, {method: 'DELETE'}),
  'beacon-json': (url) => navigator.sendBeacon(url, new Blob(['{}'], {type: 'application/json'})),
  'fetch-text': post('{}'),
  'fetch-get': (url) => fetch(url),
  'far-text': post('{}', far),
  'far-fields': post(fields, far),
  'far-parts': post(parts, far),
  'far-nobody': post('{}', {...far, referrerPolicy: 'no-referrer'}),
  'far-get': (url) => fetch(url, far),
  'far-head': (url) => fetch(url, {method: 'HEAD', ...far}),
  'far-moved': (url) => fetch(moved('', url), {method: 'POST', body: '{}', ...far}),
  'far-laundered': (url) => fetch(moved(GIVEN.local, url), {method: 'POST', body: '{}', ...far}),
  'old': old,
  'beacon-text': (url) => navigator.sendBeacon(url, '{}'),
  'beacon-fields': (url) => navigator.sendBeacon(url, fields),
  'form-fields': (url) => form(url, 'POST', 'application/x-www-form-urlencoded'),
  'form-parts': (url) => form(url, 'POST', 'multipart/form-data'),
  'form-text': (url) => form(url, 'POST', 'text/plain'),
  'form-get': (url) => form(url, 'GET', ''),
  'form-laundered': (url) => form(moved(GIVEN.local, url), 'POST', 'text/plain'),
  'image': (src) => shown('img', {src}),
  'image-nobody': (src) => shown('img', {src, referrerPolicy: 'no-referrer'}),
  'image-laundered': (url) => shown('img', {src: moved(GIVEN.local, url)}),
  'script': (src) => shown('script', {src}),
  'module': (src) => shown('script', {type: 'module', src}),
  'style': (href) => shown('link', {rel: 'stylesheet', href}),
  'frame': (src) => shown('iframe', {src}),
  'object': (data) => shown('object', {data}),
  'video': (src) => shown('video', {src}),
  'ping': ping,
  'boxed': boxed,
  'socket': (url) => heard(new WebSocket(url.replace('http', 'ws'))),
  'events': (url) => heard(new EventSource(url)),
};
const read = (got) => got instanceof Response ? got.type : String(got);
const tried = async ([name, attack], url) => {
  try { return [name, read(await attack(url))]; } catch (error) { return [name, 'refused']; }
};
const health = await Promise.all(['cors', 'no-cors'].map((mode) =>
  tried(['', (url) => fetch(url, {mode})], GIVEN.health)));
const got = await Promise.all(GIVEN.prefixes.flatMap((prefix) =>
  Object.entries(attacks).map((attack) => tried(attack, prefix + attack[0]))));
return {health, got};
"""
NEED_LEAVE = {"fetch-json", "fetch-put", "fetch-delete", "beacon-json"}  # a browser asks first, by a preflight
KNOCK = {
    *("fetch-text", "far-text", "far-fields", "far-parts", "far-nobody", "far-get", "far-moved", "far-laundered"),
    *("old", "beacon-text", "beacon-fields", "form-fields", "form-parts", "form-text", "form-get", "form-laundered"),
    *("image", "image-nobody", "image-laundered", "script", "module", "frame", "ping", "boxed", "socket", "events"),
}

REBOUND = """
await fetch(STAGE + '/go');
const json = {'Content-Type': 'application/json'};
const ask = async (path, more) => (await fetch(path, more)).status;
const post = (path, body) => ask(path, {method: 'POST', headers: json, body: JSON.stringify(body)});
return [
  await ask('/'), await ask('/health'), await ask('/ollama/api/tags'), await ask('/llm', {method: 'OPTIONS'}),
  await post('/llm', GIVEN.chat), await post('/execute', {code: 'print(1)'}), await post('/ollama/api/generate', {}),
];
"""


class Stage:
    """Serves one page under whatever name the browser asks for, and hears what it reports."""

    def __init__(self, upstream: Callable[..., Upstream]) -> None:
        self.script = ""
        self.given: Any = None
        self.go = threading.Event()
        self.said: List[Any] = []
        self.server = upstream(self.answer)
        self.port = self.server.port

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/report":
            self.said.append(asked.json)
        if asked.path == "/moved":
            return Reply(307, {"Location": unquote(asked.target.partition("to=")[2])})
        if asked.path == "/go":
            self.go.wait(PATIENCE)
            return Reply(204, {"Access-Control-Allow-Origin": "*"})
        page = PAGE % (json.dumps(self.server.url), json.dumps(self.given), self.script)
        return Reply(200, {"Content-Type": "text/html"}, page.encode())

    def until_told(self) -> Any:
        """Give what the page reports, when it does."""
        assert self.server.until(lambda: self.said, PATIENCE), "the page said nothing"
        return self.said[0]


@pytest.fixture
def stage(upstream) -> Stage:
    return Stage(upstream)


@pytest.fixture
def browse(tmp_path) -> Callable[..., Any]:
    """Give what keeps a page open while a test looks on; `up` is the server that the page is on."""

    @contextlib.contextmanager
    def opened(url: str, up: Upstream) -> Iterator[None]:
        profile, log = tmp_path / "profile", tmp_path / "browser.log"
        where = ["--host-resolver-rules=MAP evil.test 127.0.0.1", f"--user-data-dir={profile}", url]
        with log.open("wb") as words:
            process = subprocess.Popen(
                [str(BROWSER), *FLAGS, *where], stdin=subprocess.DEVNULL, stdout=words, stderr=words
            )
        try:
            deadline = time.monotonic() + PATIENCE
            while not up.wait_asked(seconds=0.1):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.skip(f"{BROWSER} does not start here: {log.read_text('utf-8', 'replace')[-300:]}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(str(profile), ignore_errors=True)

    return opened


def requests(log: str) -> List[Dict[str, Any]]:
    """Give the lines of a house's log that tell of a request."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == "request"]


CHAT = {"provider": "echo", "model": "echo", "messages": [{"role": "user", "content": "hello from a page"}]}


def test_a_page_on_another_loopback_port_uses_the_house(house, upstream, stage, browse):
    theirs = [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*"), ("Vary", "Accept-Encoding")]
    up = upstream(Reply(200, theirs, [b"first", 0.3, b"last"]))
    one = house(
        f"[plugins.auth]\nenabled = yes\nsecret = {SECRET}\n[providers.ollama]\nbase_url = {up.url}\n"
        "[server]\nlog = json"
    )
    token = sign({"sub": "alice"}, SECRET.encode())
    stage.script, stage.given = OURS, {"house": one.url, "token": token, "chat": CHAT}
    with browse(f"http://localhost:{stage.port}/", stage.server):
        said = stage.until_told()
    stream = said.pop("stream")
    assert said == {
        "health": "ok",
        "stranger": [401, "no_token"],
        "whole": [200, "hello from a page", True],
        "nowhere": 404,
        "passed": ["first", "last"],
    }
    assert stream.count('"content":') >= 4 and stream.endswith("data: [DONE]\n\n")
    methods = Counter(line["method"] for line in requests(one.log))
    assert methods["OPTIONS"] >= 2  # it asked for leave


def test_a_foreign_page_can_do_no_more_than_knock(house, upstream, stage, browse):
    spared, reached = upstream(json_reply({})), upstream(json_reply({}))
    ini = "[providers.ollama]\nbase_url = {0}\n[providers.lmstudio]\nbase_url = {0}\n[server]\nlog = json\n"
    ini += "[plugins.execute]\nspares = 0\n"  # it is there to be attacked
    guarded = house(ini.format(spared.url))
    bare = house(ini.format(reached.url) + "[plugins.cors]\nenabled = no\n")
    at_all = ["/ollama/api/", "/v1/", "/llm?", "/execute?", "/"]
    stage.script = FOREIGN
    stage.given = {
        "local": f"http://localhost:{stage.port}",
        "health": guarded.url + "/health",
        "prefixes": [bare.url + at_all[0], *(guarded.url + prefix for prefix in at_all)],
    }

    def knocked(prefix: str) -> Set[str]:
        """Give the attacks that the guarded house has noticed below a path."""
        paths = [line["route"] for line in requests(guarded.log)]
        return {path[len(prefix) :] for path in paths if path.startswith(prefix)}

    def served() -> Set[str]:
        return {asked.path.rpartition("/")[2] for asked in reached.asked}

    with browse(f"http://evil.test:{stage.port}/", stage.server):
        said = stage.until_told()
        deadline = time.monotonic() + PATIENCE
        while not (served() >= KNOCK and all(knocked(p) >= KNOCK | NEED_LEAVE for p in ("/ollama/api/", "/v1/", "/"))):
            assert time.monotonic() < deadline, "not every attack came through"
            time.sleep(0.05)
    assert said["health"] == [["", "refused"], ["", "opaque"]]
    assert {what for _, what in said["got"]} <= {"refused", "opaque", "ended", "never ended", "true", "undefined"}
    assert not served() & NEED_LEAVE  # what would do harm there is what needs no leave
    assert spared.asked == []
    lines = [line for line in requests(guarded.log) if line["route"] != "/health"]
    assert {(line["status"], line["trouble"]) for line in lines} == {(403, "foreign_origin")}
    for path in ("/llm", "/execute"):
        assert sum(line["route"] == path for line in lines) >= len(KNOCK | NEED_LEAVE)


def test_a_page_whose_name_was_rebound_to_this_machine_is_refused(house, upstream, stage, browse):
    attacker, up = Stage(upstream), upstream(json_reply({}))
    attacker.server.url, attacker.script, attacker.given = stage.server.url, REBOUND, {"chat": CHAT}
    with browse(f"http://evil.test:{attacker.port}/", attacker.server):
        assert stage.server.wait_asked(seconds=PATIENCE)  # the page is there, and waits
        attacker.server.close()
        ini = f"[providers.ollama]\nbase_url = {up.url}\n[server]\nlog = json\n[plugins.execute]\nspares = 0\n"
        one = house(ini, args=["--port", str(attacker.port)])
        stage.go.set()
        assert stage.until_told() == [421] * 7
    assert {(line["status"], line["trouble"]) for line in requests(one.log)} == {(421, "foreign_host")}
    assert up.asked == []
