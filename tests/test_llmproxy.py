"""What a house that was asked for little has in memory: what takes long or much is imported when it is first wanted."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

#: each takes more than the smallest of our own rooms, and OpenSSL (the first four bring it) as much as all of them
SELDOM = ["ssl", "_ssl", "hashlib", "_hashlib", "hmac", "secrets", "html", "html.entities", "ipaddress", "mimetypes"]
SELDOM += [
    "urllib.request",
    "tempfile",
    "random",
    "argparse",
    "gettext",
    "locale",
    "asyncio",
    "difflib",
    "inspect",
    "sqlite3",
    "subprocess",
]

LOADED = '''"""Tells what is loaded, and which threads there are."""

import sys
import threading

from . import Plugin, Response


class Loaded(Plugin):
    def routes(self):
        return {"GET /loaded": self.loaded, "GET /threads": self.threads}

    def loaded(self, request):
        return Response.of([name for name, module in list(sys.modules.items()) if type(module).__name__ != "Later"])

    def threads(self, request):
        return Response.of([thread.name for thread in threading.enumerate()])
'''

USING = '''"""Uses what others never do, as any library would."""

import hashlib
import http.client
import random
import ssl
from importlib.util import find_spec

from . import Plugin, Response


def mine():
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Using(Plugin):
    def routes(self):
        return {"GET /hash": self.hash, "GET /tls": self.tls, "GET /package": self.package}

    def hash(self, request):
        return Response(200, (), hashlib.sha256(b"x").hexdigest().encode())

    def tls(self, request):
        import ssl as late

        ssl._create_default_https_context = mine  # as those do who trust everybody
        made = http.client.HTTPSConnection("up.test")._context
        told = [isinstance(made, ssl.SSLContext), late.OPENSSL_VERSION == ssl.OPENSSL_VERSION]
        return Response.of([*told, late._create_default_https_context is mine, find_spec("ssl").name])

    def package(self, request):
        from html import unescape
        from html.parser import HTMLParser

        import html
        import html.entities

        return Response.of([unescape("&lt;"), html.entities.html5["lt;"], "escape" in dir(html), HTMLParser.__name__])
'''

CHAT = {"model": "echo/echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def inhabited(tmp_path, house):
    """Give a maker of houses, every plugin at its default, with these dropped in."""

    def build(**texts):
        for floor in ("providers", "plugins"):
            shutil.copytree(str(ROOT / floor), str(tmp_path / floor))
        shutil.copy2(str(ROOT / "llmproxy.py"), str(tmp_path))
        for name, text in texts.items():
            (tmp_path / "plugins" / f"{name}.py").write_text(text)
        return house("[plugins.execute]\n[plugins.rate_limit]\n", program=tmp_path / "llmproxy.py")

    return build


def test_what_few_questions_need_is_not_there_before_one_comes(inhabited):
    one = inhabited(loaded=LOADED)
    assert one.ask("GET", "/health").text == "ok"
    assert one.ask("POST", "/llm", CHAT).json["content"]
    there = one.ask("GET", "/loaded").json
    assert "http.server" in there
    assert [name for name in SELDOM if name in there and name not in already()] == []


def already():
    """Give what this Python has before any program, for there are some that bring a good deal."""
    words = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.decode().split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nothing else holds a program")
def test_the_sandbox_begins_when_something_is_asked_of_it(inhabited):
    one = inhabited(loaded=LOADED)
    assert "sandbox" not in one.ask("GET", "/threads").json
    assert one.ask("GET", "/execute").json["limits"]["spares"] == 2
    assert "sandbox" in one.ask("GET", "/threads").json


def test_whoever_wants_it_finds_it_whole_from_however_many_threads(inhabited):
    one = inhabited(using=USING)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        hashes = set(pool.map(lambda _: one.ask("GET", "/hash").text, range(24)))
        secured = {json.dumps(answer.json) for answer in pool.map(lambda _: one.ask("GET", "/tls"), range(24))}
        packages = {json.dumps(answer.json) for answer in pool.map(lambda _: one.ask("GET", "/package"), range(24))}
    assert hashes == {"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    assert secured == {'[true, true, true, "ssl"]'}
    assert packages == {'["<", "<", true, "HTMLParser"]'}
