"""The command, as a process of its own: how it starts, what it says, how it changes and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from conftest import ROOT, clean_environment
from plugins import VERSION
from scripted import Scripted, certificate, closed_port, read_head, server_context
from upstream import Reply, json_reply

LONG = 30.0  # seconds nobody is to wait for
pytestmark = pytest.mark.outermost
POSIX = pytest.mark.skipif(os.name != "posix", reason="there are no such signals here")

WHO = '''"""Tells which process answers, and what it was told."""

import os

from . import Call, Parts, Provider, _canonical, _word

WORD = _word.WORD


class Who(Provider):
    options = {"word": ("default", "What it says.", "WHO_WORD")}

    def __init__(self, name, options):
        super().__init__(name, options)
        self.word = options["word"]

    def models(self):
        return [{"id": "who", "object": "model", "created": 0, "owned_by": "who"}]

    def chat(self, call: Call) -> Parts:
        from ._word import WORD as LATE

        text = f"{os.getpid()} {self.word} {WORD} {LATE}"
        yield _canonical.completion("", f"{self.name}/who", {"content": text}, "stop", None)
'''


@pytest.fixture
def copy(tmp_path):
    """A copy of the program, to be changed; gives its folder."""
    folder = tmp_path / "copy"
    for name in ("providers", "plugins"):
        shutil.copytree(str(ROOT / name), str(folder / name))
    shutil.copy2(str(ROOT / "llmproxy.py"), str(folder))
    return folder


@pytest.fixture
def who(copy):
    """A copy with a provider dropped in that tells who answers."""
    (copy / "providers" / "_word.py").write_text('"""A word."""\n\nWORD = "first"\n')
    (copy / "providers" / "who.py").write_text(WHO)
    return copy


@pytest.fixture
def run(tmp_path):
    """Give what runs the command to its end: (exit code, what it said)."""

    def command(*args, ini="", env=None, program=ROOT / "llmproxy.py"):
        config = tmp_path / "run.ini"
        config.write_text(ini, "utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", str(program), "--config", str(config), *args],
            env={**clean_environment(tmp_path), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LONG,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    return command


def asked_who(house, **more):
    """Ask the dropped-in provider: (the process that answered, its words)."""
    chat = {"model": "who/who", "messages": [{"role": "user", "content": "who?"}], **more}
    answer = house.ask("POST", "/llm", chat)
    assert answer.status == 200, answer.body
    pid, _, words = answer.json["content"].partition(" ")
    return int(pid), words


def until(true, seconds=LONG):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def chunk(delta, finish=None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def talking(*pieces) -> Reply:
    """Answer a chat with a stream of these words; a number is a silence."""
    words = [piece if isinstance(piece, float) else chunk({"content": piece}) for piece in pieces]
    end = [chunk({}, "stop"), b"data: [DONE]\n\n"]
    return Reply(200, {"Content-Type": "text/event-stream"}, [chunk({"role": "assistant"}), *words, *end])


def openai_at(up) -> str:
    return f"[providers.openai]\nbase_url = {up.url}\napi_key = sk-test\n"


CHAT = {"model": "openai/m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}


# a start that fails is one line


@pytest.mark.parametrize(
    ("args", "ini", "words"),
    [
        (["--prot", "1"], "", "unknown option --prot; did you mean --port?"),
        (["--ollama-prot=1"], "", "unknown option --ollama-prot; did you mean --ollama-port?"),
        (["doctr"], "", "'doctr'; did you mean doctor?"),
        (["--port", "many"], "", "--port must be a whole number, not 'many'"),
        (["--port", "70000"], "", "cannot listen on 127.0.0.1 port 70000"),
        (["--host", "no-such-host.invalid"], "", "no-such-host.invalid"),
        (["--config", "/no/such/file"], "", "/no/such/file"),
        ([], "[sever]\n", "unknown section [sever]; did you mean server?"),
        ([], "[plugins.helth]\n", "unknown section [plugins.helth]; did you mean plugins.health?"),
        ([], "[providers.olama]\n", "unknown section [providers.olama]; did you mean ollama?"),
        ([], "[providers.x]\ntype = opnai\n", "[providers.x] type: unknown 'opnai'; did you mean openai?"),
        ([], "[server]\nprot = 1\n", "[server] unknown option 'prot'; did you mean port?"),
        ([], "[server]\nca_file = ${NOWHERE}\n", "the environment has no NOWHERE"),
        ([], "[server]\nca_file = /no/such.pem\n", "cannot read /no/such.pem"),
        ([], "[models]\nfast = olama/x\n", "[models] fast: 'olama/x' is no provider/model of this proxy; did you mean"),
        ([], "[providers.ollama]\nbase_url = ftp://x\n", "[providers.ollama] base_url must be like"),
        ([], "[providers.openai]\napi_key = a\u20acb\n", "[providers.openai] "),
        (["--enable-auth"], "", "[plugins.auth]"),
    ],
)
def test_what_is_wrong_with_the_settings_is_one_line(run, args, ini, words):
    code, said = run(*args, ini=ini)
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith("llmproxy: ")
    assert words in said


def test_a_busy_port_says_so(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = run("--port", str(port))
    assert (code, said) == (2, f"llmproxy: cannot listen on 127.0.0.1 port {port}: Address already in use\n")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_an_address_that_others_can_reach_needs_somebody_who_asks(run, host):
    code, said = run("--host", host, "--port", "0")
    assert (code, said.count("\n")) == (2, 1)
    assert "--enable-auth" in said
    assert "--allow-open" in said


def test_an_address_that_others_can_reach_may_be_meant(house):
    one = house(args=["--host", "0.0.0.0", "--allow-open"])
    assert one.ask("GET", "/health").status in (200, 403, 421)
    secret = "a secret that is longer than thirty-two bytes"
    house(args=["--host", "0.0.0.0", "--enable-auth", "--jwt-secret", secret])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import os\n\n\ndef broken(:\n", 4, "invalid syntax"),
        ("import os\n\nos.nothing\n", 3, "AttributeError"),
        ("x = 1\nimport requestz\n", 2, "ModuleNotFoundError: No module named 'requestz'"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", 5, "ZeroDivisionError"),
        ("raise ValueError('two\\nlines')\n", 1, "ValueError: two lines"),
        ("x = 1\n", 1, "holds 0 Providers, not one"),
        (
            "from . import Provider\nclass A(Provider):\n    pass\nclass B(Provider):\n    pass\n",
            1,
            "holds 2 Providers, not one",
        ),
        (
            "from . import Provider\nclass A(Provider):\n    def __init__(self, *_):\n        {}['x']\n",
            4,
            "KeyError: 'x'",
        ),
    ],
)
def test_a_broken_provider_stops_the_start_with_its_name_and_line(run, copy, text, line, words):
    path = copy / "providers" / "broken.py"
    path.write_text(text)
    code, said = run("--port", "0", program=copy / "llmproxy.py")
    assert (code, said.count("\n")) == (2, 1), said
    assert f"{path}:{line}: " in said
    assert words in said


def test_a_plugin_that_serves_what_another_serves_stops_the_start(run, copy):
    shutil.copy2(str(copy / "plugins" / "health.py"), str(copy / "plugins" / "health2.py"))
    code, said = run("--port", "0", program=copy / "llmproxy.py")
    assert (code, said) == (2, "llmproxy: GET /health is served twice: plugins.health2 is the second\n")


# what it says of itself


def test_its_version(run):
    assert run("--version") == (0, f"llmproxy {VERSION}\n")


def test_its_help_names_every_option(run):
    code, said = run("--help")
    assert code == 0
    for flag in ("--port", "--ollama-port", "--openai-api-key", "--jwt-secret", "--enable-auth", "--config"):
        assert re.search(rf"{flag}\b", said)
    assert "3500" in said
    assert "OPENAI_API_KEY" in said


def test_its_example_config_is_always_the_same(run):
    first = run("config", env={"PYTHONHASHSEED": "1"})
    keys = {"PYTHONHASHSEED": "2", "OPENAI_API_KEY": "sk-secret"}
    assert run("config", "--port", "1", ini="[providers.x]\ntype = echo\n", env=keys) == first
    assert first[0] == 0
    assert "\n[server]\n" in first[1]
    assert "#port = 3500\n" in first[1]


def test_a_dropped_in_provider_is_there_everywhere(run, house, who):
    program = who / "llmproxy.py"
    assert "[providers.who]\n# Tells which process answers" in run("config", program=program)[1]
    assert "--who-word" in run("--help", program=program)[1]
    one = house(program=program)
    assert asked_who(one) == (one.process.pid, "default first first")
    models = one.ask("POST", "/llm", {"type": "models", "provider": "who"}).json
    assert [model["id"] for model in models["data"]] == ["who"]


def test_a_section_makes_another_upstream_of_a_known_type(house, upstream):
    up = upstream(lambda asked: json_reply({"object": "list", "data": [{"id": "m", "object": "model"}]}))
    one = house(f"[providers.groq]\ntype = openai\nbase_url = {up.url}/openai/v1\napi_key = ${{KEY}}\n", {"KEY": "gsk"})
    assert one.ask("GET", "/groq/v1/models?a=%2F").status == 200
    assert one.ask("POST", "/llm", {"type": "models", "provider": "groq"}).json["data"][0]["id"] == "m"
    assert [asked.target for asked in up.asked] == ["/openai/v1/models?a=%2F", "/openai/v1/models"]
    assert {asked.headers["authorization"] for asked in up.asked} == {"Bearer gsk"}


def test_a_disabled_module_is_not_there(house):
    one = house("[providers.echo]\nenabled = no\n[plugins.health]\nenabled = no\n")
    assert one.ask("GET", "/health").status == 404
    assert one.ask("POST", "/llm", {**CHAT, "model": "echo/echo"}).status in (400, 404)


def test_the_doctor_finds_nothing_wrong_where_nothing_was_asked_for(run):
    code, said = run("doctor")
    assert code == 0, said
    assert f"ok    Python {sys.version.split()[0]}" in said
    assert "ok    echo" in said
    assert "FAIL" not in said


def test_the_doctor_tells_what_was_asked_for_and_is_broken(run, upstream):
    up = upstream(lambda asked: json_reply({"error": {"message": "bad key"}}, 401))
    code, said = run("doctor", ini=openai_at(up), env={"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{closed_port()}"})
    assert code == 1
    assert "FAIL  openai: " in said
    assert "bad key" in said
    assert "FAIL  anthropic: " in said
    assert "sk-test" not in said


def test_the_doctor_knows_the_roots_that_were_named(run, tmp_path):
    empty = tmp_path / "roots.pem"
    empty.write_text("")
    env = {"SSL_CERT_DIR": str(tmp_path)}
    assert "0 root certificates" in run("doctor", ini=f"[server]\nca_file = {empty}\n", env=env)[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process may hold is looked at in /proc")
def test_as_many_connections_as_are_promised_can_be_held(house):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        one = house("[server]\nmax_connections = 300\n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{one.process.pid}/limits").read_text()
    assert int(re.search(r"Max open files +(\d+)", limits).group(1)) == min(2 * 300 + 256, hard)


# where settings come from


def test_the_command_line_beats_the_environment_which_beats_the_file(house, upstream):
    ups = {name: upstream(json_reply({})) for name in ("file", "environment", "command line")}
    ini = f"[providers.ollama]\nbase_url = {ups['file'].url}\n"
    env = {"OLLAMA_BASE_URL": ups["environment"].url}
    args = ["--ollama-base-url", ups["command line"].url]
    for where, given in (("file", ({}, [])), ("environment", (env, [])), ("command line", (env, args))):
        house(ini, *given).ask("GET", "/ollama/api/tags")
        assert [name for name, up in ups.items() if up.asked] == [where]
        ups.pop(where)


def test_the_config_beside_the_program_is_found(house, who):
    (who / "config.ini").write_text("[providers.who]\nword = beside\n")
    one = house(program=who / "llmproxy.py")
    assert asked_who(one)[1] == "default first first"  # another was named
    command = [sys.executable, str(who / "llmproxy.py"), "config"]
    env = clean_environment(who)
    broken = "[providers.who]\nwrod = x\n"
    (who / "config.ini").write_text(broken)
    done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=LONG)
    assert (done.returncode, b"did you mean word?" in done.stderr) == (2, True)
    (who / "other.ini").write_text("")
    env["LLMPROXY_CONFIG"] = str(who / "other.ini")
    assert subprocess.run(command, env=env, capture_output=True, check=False, timeout=LONG).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process list is looked at in /proc")
def test_secrets_disappear_from_the_process_list(house, upstream):
    up = upstream(json_reply({}))
    secrets = ["sk-one-secret", "s3cr3t/with+odd=signs-and-more-than-32-bytes", "geheim-\u00e4"]
    args = ["--openai-api-key", secrets[0], f"--jwt-secret={secrets[1]}", "--openai-base-url", up.url]
    one = house(args=args)
    line = Path(f"/proc/{one.process.pid}/cmdline").read_bytes()
    assert not [secret for secret in secrets if secret.encode() in line]
    assert b"--openai-api-key" in line
    assert b"*" * len(secrets[0]) in line
    one.ask("GET", "/openai/v1/models")
    assert up.asked[0].headers["authorization"] == f"Bearer {secrets[0]}"
    assert secrets[0] not in one.log


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the environment is looked at in /proc")
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can look at it")
def test_secrets_disappear_from_the_environment_that_others_see(house, upstream):
    up = upstream(json_reply({}))
    ini = f"[providers.own]\ntype = openai\nbase_url = {up.url}\napi_key = ${{ODD}}\n"
    secrets = {
        "OPENAI_API_KEY": "sk-one",
        "ODD": "sk-two",
        "AWS_SECRET_ID": "sk-three",
        "X_PROXY": "http://u:sk-four@h",
    }
    one = house(ini, env={**secrets, "OPENAI_BASE_URL": up.url, "PLAIN": "sk-onetwo"})
    seen = Path(f"/proc/{one.process.pid}/environ").read_bytes().decode().split("\0")
    assert not [entry for entry in seen if entry.partition("=")[2] in secrets.values()]
    hidden = [f"{name}={'*' * len(secret)}" for name, secret in secrets.items()]
    assert {*hidden, "PLAIN=sk-onetwo", f"OPENAI_BASE_URL={up.url}"} <= set(seen)
    one.process.send_signal(signal.SIGHUP)  # what is brought up anew knows them still
    assert one.wait_log("a new version answers")
    for name in ("openai", "own"):
        one.ask("GET", f"/{name}/v1/models")
    assert [asked.headers["authorization"] for asked in up.asked] == ["Bearer sk-one", "Bearer sk-two"]


SPY = """
import os, sys
for pid in sys.argv[1:]:
    for name in ("environ", "mem", "maps", "fd/0"):
        try:
            open(f"/proc/{pid}/{name}", "rb").read(64) if name != "fd/0" else os.readlink(f"/proc/{pid}/{name}")
        except PermissionError:
            print(pid, name, "denied")
        except OSError as error:
            print(pid, name, error)
        else:
            print(pid, name, "seen")
"""


def ordinary():
    """Give a Python that an ordinary user can run, and what makes a process such a user's."""
    if os.geteuid() != 0:
        return sys.executable, {}
    user = {"user": 65534, "group": 65534, "extra_groups": []}
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 9))"]
        with contextlib.suppress(OSError):
            if subprocess.run(command, **user, cwd="/", stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return python, user
    pytest.skip("there is no Python that an ordinary user can run")


@pytest.fixture
def public_copy():
    """A copy of the program that everybody can read; gives its folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("providers", "plugins"):
            shutil.copytree(str(ROOT / name), f"{folder}/{name}", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(str(ROOT / "llmproxy.py"), folder)
        yield Path(folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no such protection here")
@pytest.mark.parametrize("workers", [1, 2])
def test_another_program_of_the_same_user_cannot_look_into_it(public_copy, tmp_path, workers):
    python, user = ordinary()
    started = {"env": {**clean_environment(Path("/")), "OPENAI_API_KEY": "sk-one"}, "cwd": "/", **user}
    command = [python, "-B", str(public_copy / "llmproxy.py"), "--port", "0", "--workers", str(workers)]
    with (tmp_path / "log").open("wb") as log:
        processes = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **started)]
    processes.append(subprocess.Popen(["sleep", str(LONG)], **started))  # what does not protect itself, to compare
    try:
        said = (tmp_path / "log").read_text
        assert until(lambda: "listening on" in said()), said()
        port = int(re.search(r"listening on http://\S+:(\d+)", said()).group(1))
        one, other = (process.pid for process in processes)
        family = [one, *map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())]
        assert until(lambda: http_status(port) == 200)
        spying = [python, "-c", SPY, *map(str, [*family, other])]
        seen = subprocess.run(spying, **started, stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(LONG) for process in processes]
    assert len(family) == (workers + 1 if workers > 1 else 1)
    assert {f"{other} environ seen", f"{other} fd/0 seen"} <= set(seen), seen
    wanted = [f"{pid} {name} denied" for pid in family for name in ("environ", "mem", "maps", "fd/0")]
    assert [line for line in seen if not line.startswith(f"{other} ")] == wanted
    assert (codes[0], "Traceback" in said()) == (0, False)


def http_status(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    chat = {"model": "echo/echo", "messages": [{"role": "user", "content": "hi"}]}
    connection.request("POST", "/llm", json.dumps(chat), {"Content-Type": "application/json"})
    with contextlib.closing(connection):
        return connection.getresponse().status


@pytest.mark.skipif(os.name != "posix", reason="there are no such modes here")
@pytest.mark.parametrize(
    ("mode", "line", "warned"),
    [
        (0o644, "api_key = sk-in-the-file", True),
        (0o640, "api_key = sk-in-the-file", True),
        (0o604, "base_url = http://me:pass@127.0.0.1:1", True),
        (0o600, "api_key = sk-in-the-file", False),
        (0o644, "api_key = ${KEPT_ELSEWHERE}", False),
        (0o644, "enabled = yes", False),
    ],
)
def test_a_config_with_secrets_that_others_can_read_is_told_of(house, run, tmp_path, mode, line, warned):
    config = tmp_path / "mine.ini"
    config.write_text(f"[providers.openai]\n{line}\nenabled = no\n".replace("enabled = yes\nenabled = no", ""))
    config.chmod(mode)
    env = {"KEPT_ELSEWHERE": "sk-elsewhere", "LLMPROXY_CONFIG": str(config)}
    words = f"{config} holds a secret and others can read it: chmod 600 {config}"
    one = house(env=env, args=["--config", str(config), "--workers", "2"])
    assert one.log.count(words) == warned
    assert "sk-in-the-file" not in one.log
    assert (words in run("doctor", "--config", str(config), env=env)[1]) == warned


def test_this_machine_is_not_asked_for_through_the_environments_proxy(house, upstream):
    up = upstream(json_reply({"here": 1}))
    proxy = f"http://127.0.0.1:{closed_port()}"
    env = {"HTTP_PROXY": proxy, "http_proxy": proxy, "HTTPS_PROXY": proxy, "https_proxy": proxy}
    one = house(f"[providers.ollama]\nbase_url = {up.url.replace('127.0.0.1', 'localhost')}\n", env)
    assert one.ask("GET", "/ollama/api/tags").json == {"here": 1}


def test_a_root_certificate_of_ones_own_can_be_named(house, tmp_path):
    pem = certificate(tmp_path)
    if pem is None:
        pytest.skip("no openssl command here to make a certificate with")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with Scripted(lambda peer: read_head(peer) and peer.sendall(answer), server_context(pem)) as up:
        ini = f"[providers.ollama]\nbase_url = {up.url}\n"
        refused = house(ini).ask("GET", "/ollama/api/tags")
        assert (refused.status, refused.json["error"]["code"]) == (502, "provider_tls")
        assert "[server] ca_file" in refused.json["error"]["message"]
        assert house(f"{ini}[server]\nca_file = {pem}\n").ask("GET", "/ollama/api/tags").json == {}


# the house as a whole


def test_known_paths_say_what_they_take(house):
    one = house()
    for method, path, status, allow in [
        ("GET", "/health", 200, None),
        ("HEAD", "/health", 200, None),
        ("POST", "/health", 405, "GET, HEAD, OPTIONS"),
        ("BREW", "/health", 405, "GET, HEAD, OPTIONS"),
        ("GET", "/llm", 405, "HEAD, OPTIONS, POST"),
        ("OPTIONS", "/llm", 204, "HEAD, OPTIONS, POST"),
        ("OPTIONS", "/ollama/api/tags", 204, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        ("OPTIONS", "/nowhere", 404, None),
        ("GET", "/nowhere", 404, None),
        ("GET", "/health/", 404, None),
        ("GET", "//health", 404, None),
        ("GET", "/ollama", 404, None),
        ("GET", "/ollamax/api", 404, None),
        ("GET", "/%6flama/api", 404, None),
    ]:
        answer = one.ask(method, path)
        assert (answer.status, answer.headers.get("allow")) == (status, allow), (method, path)
        assert answer.headers["x-request-id"]
        if status >= 400:
            assert answer.json["error"]["type"]
    assert one.ask("HEAD", "/health").headers["content-length"] == "2"
    assert one.ask("HEAD", "/health").body == b""


def test_a_bug_of_a_plugin_is_a_bare_500_and_logged_with_its_id(house, copy):
    (copy / "plugins" / "buggy.py").write_text(
        '"""Fails."""\n\nfrom . import Plugin\n\n\nclass Buggy(Plugin):\n    def routes(self):\n'
        "        return {'GET /buggy': lambda request: {}['a secret']}\n"
    )
    one = house(program=copy / "llmproxy.py")
    one.excused = True
    answer = one.ask("GET", "/buggy", headers={"x-request-id": "id-1"})
    error = {"message": "internal error", "type": "api_error", "param": None, "code": "internal_error"}
    assert (answer.status, answer.json) == (500, {"error": error})
    assert one.wait_log(r"id=id-1 .*status=500 .*trouble=internal_error")
    assert re.search(r"ERROR +id-1: failed\nTraceback", one.log)
    assert one.ask("GET", "/health").status == 200


TONGUE = '''"""Speaks to those who ask for it."""

from . import Plugin, Response


class Tongue(Plugin):
    {speaks}
    def error(self, trouble):
        return Response(trouble.status, (), b"{name}: " + trouble.message.encode())

    def routes(self):
        return {{"GET /llm/v1/tongue": lambda request: Response(200, (), b"{name}"), "GET /llm/v1/below/*": {{}}.get}}
'''
SPEAKS = "def speaks(self, request):\n        return request.header('tongue') == '{}'\n"


def test_a_route_can_be_shared_by_those_who_know_their_own_language(house, run, copy):
    for name in ("a", "b", "z"):
        speaks = SPEAKS.format(name) if name != "b" else ""
        (copy / "plugins" / f"{name}.py").write_text(TONGUE.format(name=name, speaks=speaks))
    one = house("[plugins.passthrough]\nv1 = unified\n", program=copy / "llmproxy.py")
    one.excused = True
    for path in ("/llm/v1/tongue", "/v1/tongue"):
        for asked, answered in (("a", "a"), ("z", "z"), ("b", "b"), ("", "b")):
            assert one.ask("GET", path, headers={"tongue": asked}).text == answered
    assert one.ask("GET", "/v1/below/x", headers={"tongue": "z"}).text == "z: internal error"
    assert one.ask("POST", "/v1/tongue").headers["allow"] == "GET, HEAD, OPTIONS"
    (copy / "plugins" / "c.py").write_text(TONGUE.format(name="c", speaks=""))
    code, words = run(program=copy / "llmproxy.py")
    assert (code, "served twice: plugins.c is the second" in words) == (2, True)


STARTER = '''"""Tells when it was started, and finds something."""

import os

from . import Plugin, Response


class Starter(Plugin):
    started = "never"

    def start(self, *, guarded):
        self.started = f"{os.getpid()} {guarded}"

    def routes(self):
        return {"GET /starter": lambda request: Response.of(self.started)}

    def checks(self):
        return [(False, "the moon", "wait for it")]
'''


def test_a_plugin_is_started_in_each_process_that_serves_and_told_who_can_ask(house, run, copy):
    (copy / "plugins" / "starter.py").write_text(STARTER)
    one = house(program=copy / "llmproxy.py")
    assert one.ask("GET", "/starter").json == f"{one.process.pid} True"
    one.process.send_signal(signal.SIGHUP)
    assert one.wait_log("a new version answers", LONG)
    assert one.ask("GET", "/starter").json == f"{one.process.pid} True"
    two = house(args=["--workers", "2", "--host", "0.0.0.0", "--allow-open"], program=copy / "llmproxy.py")
    worker, guarded = two.ask("GET", "/starter").json.split()
    assert (int(worker) != two.process.pid, guarded) == (True, "False")
    code, said = run("doctor", program=copy / "llmproxy.py")
    assert (code, "FAIL  the moon: wait for it" in said) == (1, True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_upstream_within_a_second(house, upstream, stream):
    silent = Reply(wait=LONG)
    up = upstream(lambda asked: talking("word", LONG) if asked.json["messages"][0]["content"] == "talk" else silent)
    one = house(openai_at(up))
    for content in ("talk", "think") if stream else ("think",):
        chat = {**CHAT, "stream": stream, "messages": [{"role": "user", "content": content}]}
        body = json.dumps(chat).encode()
        times = len(up.gone) + 1
        with socket.create_connection(("127.0.0.1", one.port), LONG) as client:
            head = "POST /llm HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert up.wait_asked(times)
            if content == "talk":
                assert client.recv(1000)
        left = time.monotonic()
        assert up.wait_closed(5, times)
        assert up.gone[-1] - left < 1
    assert one.wait_log("status=499")
    assert one.ask("GET", "/health").status == 200


def test_words_pass_while_the_upstream_still_thinks(house, upstream, capsys):
    """Print how much later than the upstream says a word a client of /llm hears it."""
    said = []

    def words():
        yield chunk({"role": "assistant"})
        for _ in range(7):
            yield 0.1
            said.append(time.monotonic())
            yield chunk({"content": "word "})
        yield chunk({}, "stop")
        yield b"data: [DONE]\n\n"

    up = upstream(lambda asked: Reply(200, {"Content-Type": "text/event-stream"}, words()))
    with house(openai_at(up)).open("POST", "/llm", STREAM) as response:
        heard = [time.monotonic() for line in response if b'"word "' in line]
    lags = sorted(later - earlier for later, earlier in zip(heard, said))
    with capsys.disabled():
        print(f"\nthe median lag of /llm: {lags[len(lags) // 2] * 1e6:.0f} us", end=" ")
    assert (len(said), len(heard)) == (7, 7)
    assert heard[0] < said[-1]  # they did not all come together


def test_a_connection_is_kept_between_requests_of_all_kinds(house, upstream):
    one = house(openai_at(upstream(lambda asked: talking("a", "b") if asked.body else json_reply({}, 404))))
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=LONG)
    connection.connect()
    sock = connection.sock
    body = json.dumps(STREAM).encode()
    for method, path, sent, status in [
        ("GET", "/health", None, 200),
        ("POST", "/llm", body, 200),
        ("POST", "/llm", b"{", 400),
        ("GET", "/openai/v1/x", None, 404),
        ("POST", "/nowhere", body, 404),
        ("HEAD", "/health", None, 200),
    ]:
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert connection.sock is sock
    connection.close()


# the log


def test_the_log_has_a_line_for_each_request(house):
    one = house()
    chat = {"model": "echo/echo", "messages": [{"role": "user", "content": "a prompt of mine"}]}
    one.ask("POST", "/llm?key=s3cret", chat, {"x-request-id": "id-1", "Authorization": "Bearer t0ken"})
    assert one.wait_log(r"INFO +request id=id-1 user=127.0.0.1 method=POST route=/llm model=echo/echo status=200 ")
    assert re.search(r"tokens_in=\d+ tokens_out=\d+", one.log)
    assert not re.search("prompt of mine|t0ken|s3cret", one.log)


def test_the_log_tells_where_one_knocked_who_was_not_let_in(house):
    one = house("[providers.ollama]\nbase_url = http://127.0.0.1:1\n")
    assert one.ask("GET", "/ollama/api/tags?x=s3cret", headers={"Origin": "http://evil.test"}).status == 403
    assert one.wait_log(r" method=GET route=/ollama/api/tags status=403 .*trouble=foreign_origin")
    assert one.ask("GET", "/ollama/api/tags").status == 502
    assert one.wait_log(r" method=GET route=/ollama/\* status=502 ")


def test_the_log_can_be_json(house):
    one = house("[server]\nlog = json\n", args=["--debug"])
    one.ask("GET", "/health", headers={"x-request-id": "id-1", "Authorization": "Bearer t0ken", "X-Odd": 'a "b" c'})
    assert one.wait_log('"request"')
    records = [json.loads(line) for line in one.log.splitlines() if not line.startswith("llmproxy ")]
    (shown,) = [record["headers"] for record in records if record["message"] == "request headers"]
    assert (shown["Authorization"], shown["X-Odd"]) == ("***", 'a "b" c')
    (told,) = [record for record in records if record["message"] == "request"]
    assert (told["id"], told["route"], told["status"], told["level"]) == ("id-1", "/health", 200, "info")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])
    assert "t0ken" not in one.log


def test_nobody_can_write_a_line_of_the_log(house):
    one = house(args=["--debug"])
    one.ask("GET", "/health", headers={"x-request-id": "x\u00ff", "X-A": 'status=200 "\u00e9'})
    one.ask("GET", "/a=b%0a'\"")
    assert one.wait_log("route=")
    for line in one.log.splitlines()[1:]:
        assert re.match(r"\d{4}-\d\d-\d\dT\S+Z (INFO|DEBUG) ", line), line
        assert line.isascii()


# the end


def stream_under_way(one):
    """Ask for a stream and hear its first word."""
    response = one.open("POST", "/llm", STREAM)
    assert b"data" in response.readline()
    return response


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_lets_open_streams_finish(house, upstream, number, workers):
    up = upstream(talking("first", 0.4, "last"))
    one = house(openai_at(up), args=["--workers", str(workers)])
    with stream_under_way(one) as response:
        one.process.send_signal(number)
        assert until(lambda: refuses(one.port))
        rest = response.read()
    assert b"last" in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert one.process.wait(LONG) == 0


def refuses(port) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@POSIX
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_it_now(house, upstream, workers):
    up = upstream(talking("first", LONG, "last"))
    one = house(openai_at(up), args=["--workers", str(workers)])
    one.excused = True
    with stream_under_way(one):
        one.process.send_signal(signal.SIGTERM)
        assert until(lambda: refuses(one.port), 8)  # the drain takes 10 s
        begun = time.monotonic()
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(LONG)
        assert time.monotonic() - begun < 8  # the drain takes 10 s


@POSIX
def test_a_drain_has_an_end(house, upstream):
    up = upstream(talking("first", LONG, "last"))
    one = house("[server]\ndrain = 0.2\n" + openai_at(up))
    with stream_under_way(one) as response:
        begun = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - begun < 8
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
            raise http.client.IncompleteRead(b"")  # 3.9 to 3.11 read chunks that were cut without complaint


@POSIX
def test_a_signal_at_any_moment_of_the_start_ends_it_well(house):
    for _ in range(3):
        assert house().stop() == 0
        assert house(args=["--workers", "2"]).stop() == 0


# a new version beside the old


@POSIX
def test_a_hang_up_brings_a_new_version_up(house, who, upstream):
    up = upstream(talking("first", 1.5, "last"))
    one = house(openai_at(up), program=who / "llmproxy.py")
    assert asked_who(one)[1] == "default first first"
    with stream_under_way(one) as response:
        one.config.write_text(openai_at(up) + "[providers.who]\nword = changed\n")
        (who / "providers" / "_word.py").write_text('"""A word."""\n\nWORD = "second"\n')
        one.process.send_signal(signal.SIGHUP)
        assert one.wait_log("a new version answers", LONG)
        assert asked_who(one) == (one.process.pid, "changed second second")
        assert response.read().endswith(b"data: [DONE]\n\n")  # what was under way goes on


@POSIX
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.ini", "[sever]\n", "unknown section [sever]; did you mean server?"),
        ("providers/broken.py", "1 / 0\n", "broken.py:1: ZeroDivisionError: division by zero"),
        ("providers/who.py", "def f(:\n", "who.py:1: invalid syntax"),
        (
            "providers/_word.py",
            "WARD = 1\n",
            "who.py:7: AttributeError: module 'providers._word' has no attribute 'WORD'",
        ),
        ("providers/broken.py", "raise ValueError('two\\nlines')\n", "broken.py:1: ValueError: two lines"),
        (
            "plugins/broken.py",
            "from . import Plugin\n\n\nclass A(Plugin):\n    def routes(self):\n        return {}[1]\n",
            "broken.py:6: KeyError: 1",
        ),
    ],
)
def test_a_new_version_that_is_broken_leaves_the_old_one(house, who, name, text, words):
    one = house("[providers.who]\nword = old\n", program=who / "llmproxy.py")
    path = one.config if name == "config.ini" else who / name
    before = path.read_text() if path.exists() else None
    (who / "providers" / "_word.py").write_text('"""A word."""\n\nWORD = "second"\n')
    path.write_text(text)
    one.process.send_signal(signal.SIGHUP)
    assert one.wait_log("keeping the old version: ", LONG)
    assert words in one.log
    assert asked_who(one)[1] == "old first first"
    path.unlink() if before is None else path.write_text(before.replace("first", "second"))
    one.process.send_signal(signal.SIGHUP)
    assert one.wait_log("a new version answers", LONG)
    assert asked_who(one)[1] == "old second second"


@POSIX
def test_a_new_version_cannot_open_the_door_to_strangers(house):
    secret = "a secret that is longer than thirty-two bytes"
    guarded = f"[server]\nhost = 0.0.0.0\n[plugins.auth]\nenabled = {{}}\nsecret = {secret}\n"
    one = house(guarded.format("yes"))
    one.config.write_text(guarded.format("no").replace("0.0.0.0", "127.0.0.1"))  # the socket stays where it is
    one.process.send_signal(signal.SIGHUP)
    assert one.wait_log("keeping the old version: 0.0.0.0 can be reached by others", LONG)
    assert one.ask("POST", "/llm", {}).status == 401


def test_a_change_of_a_file_can_bring_a_new_version_up(house, who):
    one = house("[server]\nreload = yes\n", program=who / "llmproxy.py")
    (who / "providers" / "_word.py").write_text('"""A word."""\n\nWORD = "second"\n')
    assert one.wait_log("a new version answers", LONG)
    assert asked_who(one)[1] == "default second second"


# several processes


@POSIX
def test_a_worker_that_dies_is_replaced_by_one_of_the_newest_version(house, who):
    one = house(args=["--workers", "2"], program=who / "llmproxy.py")
    dead, words = asked_who(one)
    assert (words, dead != one.process.pid) == ("default first first", True)
    one.config.write_text("[providers.who]\nword = changed\n")
    one.process.send_signal(signal.SIGHUP)
    assert until(lambda: one.log.count("a new version answers") == 2)
    os.kill(dead, signal.SIGKILL)
    assert one.wait_log("another takes its place", LONG)
    assert until(lambda: one.log.count("a new version answers") == 3)
    asked = [asked_who(one) for _ in range(20)]
    assert {words for _, words in asked} == {"changed first first"}
    assert dead not in {pid for pid, _ in asked}


@POSIX
def test_a_ctrl_c_that_reaches_all_processes_still_drains(house, who, upstream):
    up = upstream(talking("first", 0.4, "last"))
    one = house(openai_at(up), args=["--workers", "2"], program=who / "llmproxy.py")
    workers = set()
    assert until(lambda: workers.add(asked_who(one)[0]) or len(workers) == 2)
    with stream_under_way(one) as response:
        for pid in (*workers, one.process.pid):
            os.kill(pid, signal.SIGINT)
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert one.process.wait(LONG) == 0


@POSIX
def test_workers_end_when_nobody_is_left_to_tell_them(house):
    one = house(args=["--workers", "2"])
    one.excused = True
    one.process.kill()
    one.process.wait(LONG)
    assert until(lambda: refuses(one.port))
