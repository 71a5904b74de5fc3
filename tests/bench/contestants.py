"""What is measured: the upstream alone, this proxy, an earlier one, and what others run in its place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple

from . import front
from .clients import chat, got, posted
from .machine import HERE, Program, Unusable, free_port

ALONE = "upstream alone"
PASSED = "passed on"
SAME = "OpenAI to OpenAI"
OTHER = "OpenAI to Anthropic"
ROADS = (PASSED, SAME, OTHER)


class Road(NamedTuple):
    """Where to ask, what stands before the model's name, and further headers."""

    path: str
    prefix: str = ""
    headers: Mapping[str, str] = MappingProxyType({})

    def request(self, model: str = "bench", stream: bool = False) -> bytes:
        return posted(self.path, chat(self.prefix + model, stream), **self.headers)

    def once(self) -> bytes:
        """Give a request after which the connection is closed."""
        return posted(self.path, chat(f"{self.prefix}bench"), **self.headers, Connection="close")


class Contestant(NamedTuple):
    """One that is measured: `command(folder, port, upstream)` is how it is started."""

    name: str
    roads: Dict[str, Road]
    command: Callable[[Path, int, int], List[str]]
    ready: bytes
    of: str = ""  # whom it is compared with
    ours: bool = True

    def start(self, folder: Path, upstream: int) -> Program:
        """Start it in a new folder. Raises Unusable."""
        folder.mkdir()
        port = free_port()
        return Program(self.command(folder, port, upstream), port, self.ready, folder)


# this proxy

BY_PREFIX = {SAME: Road("/v1/chat/completions", "openai/"), OTHER: Road("/v1/chat/completions", "anthropic/")}
OUR_ROADS = {
    PASSED: Road("/openai/v1/chat/completions"),
    SAME: Road("/llm", "openai/"),
    OTHER: Road("/llm/v1/chat/completions", "anthropic/"),
}


def settings(root: Path, upstream: int) -> str:
    """Give the settings that lead to the upstream, with no guard that counts requests."""
    ini = "".join(
        f"[providers.{name}]\nbase_url = http://127.0.0.1:{upstream}\napi_key = bench\n"
        for name in ("openai", "anthropic")
        if (root / "providers" / f"{name}.py").exists()
    )
    return ini + unlimited(root)


def unlimited(root: Path) -> str:
    return "[plugins.rate_limit]\nenabled = no\n" if (root / "plugins" / "rate_limit.py").exists() else ""


def ours(
    root: Path, name: str, args: List[str], workers: int = 1, of: str = "", sampled: str = "", ini: str = ""
) -> Contestant:
    """Give the proxy of a tree, `ini` instead of our settings; with `sampled` it writes there where its time goes."""

    def command(folder: Path, port: int, upstream: int) -> List[str]:
        config = folder / "config.ini"
        config.write_text(ini or settings(root, upstream), "utf-8")
        told = ["--config", str(config), "--port", str(port), *args]
        told += ["--workers", str(workers)] if workers > 1 else []
        through = [str(HERE / "sampler.py"), sampled] if sampled else []
        return [sys.executable, *through, str(root / "llmproxy.py"), *told]

    return Contestant(name, OUR_ROADS, command, got("/health"), of)


# what others run


class Means(NamedTuple):
    """What peers are started with: a Python that has their packages, the upstream's port, a folder with node's."""

    python: str
    upstream: int
    portkey: str = ""


def nginx(_: Means) -> Contestant:
    program = front.nginx()
    if not program:
        raise Unusable("it is not installed")
    return other("nginx", {PASSED: Road("/v1/chat/completions")}, lambda *at: front.command(program, *at))


def other(name: str, roads: Dict[str, Road], command: Callable[[Path, int, int], List[str]]) -> Contestant:
    return Contestant(name, roads, command, next(iter(roads.values())).once(), ours=False)


def in_python(name: str, script: str, *modules: str) -> Callable[[Means], Contestant]:
    """Give the maker of a proxy that a script of this folder is."""

    def make(means: Means) -> Contestant:
        wanted(means.python, *modules)
        file = str(HERE / f"{script}.py")
        return other(name, BY_PREFIX, lambda _, port, upstream: [means.python, file, str(port), str(upstream)])

    return make


def wanted(python: str, *modules: str) -> None:
    """Raise Unusable when this Python lacks one of the modules."""
    code = "import importlib.util as u, sys; print(*[m for m in sys.argv[1:] if not u.find_spec(m)])"
    done = subprocess.run([python, "-c", code, *modules], stdout=subprocess.PIPE, check=True)
    missing = done.stdout.decode().split()
    if missing:
        raise Unusable(f"{python} has no {', '.join(missing)}")


LITELLM = """
model_list:
  - model_name: openai/*
    litellm_params: {{model: "openai/*", api_base: "http://127.0.0.1:{upstream}/v1", api_key: bench}}
  - model_name: anthropic/*
    litellm_params: {{model: "anthropic/*", api_base: "http://127.0.0.1:{upstream}", api_key: bench}}
litellm_settings: {{telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""


def litellm(means: Means) -> Contestant:
    wanted(means.python, "litellm", "fastapi", "uvicorn")

    def command(folder: Path, port: int, upstream: int) -> List[str]:
        config = folder / "config.yaml"
        config.write_text(LITELLM.format(upstream=upstream), "utf-8")
        code = (
            "import os; os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'\n"  # else it asks GitHub at its start
            "from litellm.proxy.proxy_cli import run_server; run_server()"
        )
        told = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        return [means.python, "-c", code, *told]

    return other("LiteLLM", BY_PREFIX, command)


def portkey(means: Means) -> Contestant:
    node = shutil.which("node")
    if not node:
        raise Unusable("there is no node")
    places = [Path(means.portkey)] if means.portkey else list(node_modules())
    found = [file for place in places for file in place.glob("**/@portkey-ai/gateway/build/start-server.js")]
    if not found:
        raise Unusable("@portkey-ai/gateway is not installed (--portkey names a folder that has it)")
    roads = {}
    for road, name in ((SAME, "openai"), (OTHER, "anthropic")):  # where the upstream is, each request says
        there = f"http://127.0.0.1:{means.upstream}/v1"
        told = {"x-portkey-provider": name, "x-portkey-custom-host": there}
        roads[road] = Road("/v1/chat/completions", "", told)
    return other("Portkey", roads, lambda _, port, __: [node, str(found[0]), f"--port={port}", "--headless"])


def node_modules() -> Iterator[Path]:
    """Give the folders where packages of node may be."""
    npm = shutil.which("npm")
    if npm:
        done = subprocess.run([npm, "root", "-g"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        yield Path(done.stdout.decode().strip() or ".")
    yield from (Path(place) / "node_modules" for place in (os.getcwd(), os.path.expanduser("~")))


PEERS: Dict[str, Callable[[Means], Contestant]] = {
    "nginx": nginx,
    "Flask + requests": in_python("Flask + requests", "peer_flask", "flask", "requests"),
    "FastAPI + httpx": in_python("FastAPI + httpx", "peer_fastapi", "fastapi", "httpx", "uvicorn"),
    "LiteLLM": litellm,
    "Portkey": portkey,
}
