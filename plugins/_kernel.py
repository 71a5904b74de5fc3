"""The kernel: settings, modules, the pipeline and the command. It knows no provider and no endpoint by name.

It is no part of llmproxy.py, which runs as `__main__` and so is compiled at each start.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import re
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, Type, cast

from providers import BRIEFLY, LARGE, Gone, Provider, Trouble, chat_aside
from providers._all import Everything

from . import VERSION, Finding, Handler, Plugin, Refusal, Request, Response, Waiting, _logging, late
from ._addresses import is_loopback
from ._server import Server
from ._settings import Classes, Settings, SettingsError, nearest, words_of

HERE = Path(__file__).resolve().parent.parent
KERNEL = (
    "providers._all",
    "plugins._client",
    "plugins._crew",
    "plugins._kernel",
    "plugins._logging",
    "plugins._server",
    "plugins._settings",
)  # rooms that stay as they are while it runs
RARELY = (10_000, 20, 50)  # when to look for cycles: requests leave few, and each look goes over all that are under way
PR_SET_DUMPABLE = 4  # prctl(2)
OTHERS_READ = 0o044
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
log = logging.getLogger("llmproxy")


# Modules: found by being there


def discovered() -> Classes:
    """Import every module of the two folders; a broken one stops with its name and line."""
    summaries: Dict[str, str] = {}
    found = []
    for folder, contract in (("providers", Provider), ("plugins", Plugin)):
        classes = {}
        for path in sorted((HERE / folder).glob("[!_.]*.py")):
            module = imported(f"{folder}.{path.stem}", path)
            classes[path.stem] = the_one(module, contract, path)
            summaries[f"{folder}.{path.stem}"] = (module.__doc__ or "").strip().partition("\n")[0]
        found.append(classes)
    return Classes(cast(Dict[str, Type[Provider]], found[0]), cast(Dict[str, Type[Plugin]], found[1]), summaries)


def imported(name: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        raise SettingsError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except Exception as error:
        raise SettingsError(located(error, path, "<module>")) from error


def located(error: BaseException, path: object, function: str = "") -> str:
    """Say where in this house something went wrong, in whatever function or in those of one name: `file:line: what`."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(HERE)) and (not function or frame.name == function)
    ]
    where, line = (frames[-1].filename, frames[-1].lineno) if frames else (path, 0)
    return f"{where}:{line}: {type(error).__name__}: {error}"


def the_one(module: ModuleType, contract: type, path: Path) -> type:
    """Give the one class of the contract that a module defines."""
    mine = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, contract) and item.__module__ == module.__name__
    ]
    public = [item for item in mine if not item.__name__.startswith("_")]
    if len(public) != 1:
        raise SettingsError(f"{path}:1: holds {len(public)} {contract.__name__}s, not one")
    return public[0]


def forget_modules() -> Callable[[], None]:
    """Have every room but the contracts and the kernel's own read anew by the next import; gives what undoes this."""
    gc.unfreeze()
    names = [name for name in sys.modules if re.match(r"(providers|plugins)\.", name) and name not in KERNEL]
    old = {name: sys.modules.pop(name) for name in names}
    for name in names:  # `from . import room` looks here first
        floor, _, room = name.partition(".")
        vars(sys.modules[floor]).pop(room, None)
    importlib.invalidate_caches()

    def undo() -> None:
        sys.modules.update(old)
        for name, module in old.items():
            floor, _, room = name.partition(".")
            setattr(sys.modules[floor], room, module)

    return undo


# The pipeline: one request's way through the house


class Proxy:
    """The house brought up from its settings: providers, plugins, and each route's chain."""

    def __init__(self, settings: Settings, classes: Classes) -> None:
        self.settings = settings
        self.classes = classes
        providers = [
            self._made(f"providers.{name}", partial(classes.providers[kind], name))
            for name, kind in settings.types.items()
            if settings.enabled(f"providers.{name}")
        ]
        self.upstream = Everything(providers, self._aliases(providers))
        self.plugins: List[Plugin] = [
            self._made(f"plugins.{name}", partial(plugin, upstream=self.upstream))
            for name, plugin in classes.plugins.items()
            if settings.enabled(f"plugins.{name}")
        ]
        self.plugins.sort(key=lambda plugin: plugin.order)
        self._surround()
        self.exact: Dict[str, Dict[str, Handler]] = {}
        self.below: Dict[str, Dict[str, Handler]] = {}
        self._owners: Dict[str, List[Tuple[Plugin, Handler]]] = {}
        for plugin in self.plugins:
            for route, handler in plugin.routes().items():
                self._add(route, handler, plugin)
        for plugin in self.plugins:
            for alias, path in plugin.aliases().items():
                self._also(alias, path, plugin)
        self.nowhere = self._chain(self._refuse, Plugin({}, self.upstream), "")

    def _made(self, section: str, make: Callable[[Dict[str, Any]], Any]) -> Any:
        try:
            return make(self.settings.of(section))
        except ValueError as error:
            raise SettingsError(f"[{section}] {error}") from None
        except SettingsError:
            raise
        except Exception as error:
            raise SettingsError(f"[{section}] {located(error, HERE)}") from error

    def _aliases(self, providers: List[Provider]) -> Dict[str, List[str]]:
        names = [provider.name for provider in providers]
        for alias, models in self.settings.aliases.items():
            for model in models or [""]:
                name = model.partition("/")[0].lower()
                if name not in names or "/" not in model:
                    hint = nearest(name, names)
                    raise SettingsError(f"[models] {alias}: {model!r} is no provider/model of this proxy{hint}")
        return self.settings.aliases

    def _surround(self) -> None:
        """Put the plugins that stand around every chat around it, the outermost first."""
        for plugin in reversed(self.plugins):
            if type(plugin).chat is not Plugin.chat:
                ask = partial(plugin.chat, inner=self.upstream.ask)
                self.upstream.ask = partial(chat_aside, ask) if plugin.blocks else ask

    def _add(self, route: str, handler: Handler, owner: Plugin) -> None:
        method, _, path = route.partition(" ")
        table, path = (self.below, path[:-2]) if path.endswith("/*") else (self.exact, path)
        owners = self._owners.setdefault(route, [])
        owners.append((owner, self._chain(handler, owner, route.partition(" ")[2])))
        owners.sort(key=lambda pair: takes_all(pair[0]))
        if len(owners) > 1 and takes_all(owners[-2][0]):
            raise SettingsError(f"{route} is served twice: {type(owner).__module__} is the second")
        table.setdefault(path, {})[method] = owners[0][1] if len(owners) == 1 else partial(spoken_by, owners)

    def _also(self, alias: str, path: str, owner: Plugin) -> None:
        """Serve below `alias` what is served below `path`."""
        for table in (self.exact, self.below):
            for known in [one for one in table if f"{one}/".startswith(f"{path}/")]:
                if table.setdefault(alias + known[len(path) :], table[known]) is not table[known]:
                    raise SettingsError(f"{alias} is served twice: {type(owner).__module__} is the second")

    def _chain(self, handler: Handler, owner: Plugin, route: str) -> Handler:
        """Put every plugin that stands around requests around a handler; its owner words the trouble."""

        def noted(request: Request) -> Response:
            # of one that is refused before it comes here, the log tells the path
            request.notes["route"] = route or None
            return handler(request)

        chain = worded(blocking(noted) if owner.blocks else with_body(noted), owner)
        for plugin in reversed(self.plugins):
            if type(plugin).handle is not Plugin.handle:
                stands_around = partial(plugin.handle, inner=chain)
                chain = worded(blocking(stands_around) if plugin.blocks else stands_around, owner)

        def entered(request: Request) -> Response:
            request.public, request.key_headers = owner.public, owner.key_headers
            return chain(request)

        return entered

    def respond(self, request: Request) -> Response:
        """Find the route's chain and go through it."""
        methods = self._methods(request.path)
        chain = methods.get(request.method) or methods.get("*" if request.method != "OPTIONS" else "")
        if chain is None and request.method == "HEAD":
            chain = methods.get("GET")
        return (chain or self.nowhere)(request)

    def _methods(self, path: str) -> Dict[str, Handler]:
        methods = self.exact.get(path)
        while methods is None and path:
            path = path.rpartition("/")[0]
            methods = self.below.get(path)
        return methods or {}

    def _refuse(self, request: Request) -> Response:
        """Answer where no handler is: 404, or 405 with what is allowed, which is what OPTIONS asks."""
        methods = self._methods(request.path)
        if request.path == "*":
            return Response(204)
        if not methods:
            raise Refusal(404, "there is nothing at this path", code="not_found")
        allowed = ", ".join(sorted({*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])} - {"*"}))
        if "*" in methods:
            allowed = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
        if request.method == "OPTIONS":
            return Response(204, {"Allow": allowed})
        raise Refusal(405, f"this path takes {allowed}", {"Allow": allowed}, code="method_not_allowed")

    def following(self, old: Proxy) -> Proxy:
        """Have each plugin take over from the one it replaces."""
        before = {type(plugin).__module__: plugin for plugin in old.plugins}
        for plugin in self.plugins:
            if type(plugin).__module__ in before:
                plugin.follow(before[type(plugin).__module__])
        return self

    def start(self, *, guarded: bool) -> None:
        for plugin in self.plugins:
            plugin.start(guarded=guarded)

    def close(self) -> None:
        for plugin in self.plugins:
            plugin.close()
        self.upstream.close()


def takes_all(plugin: Plugin) -> bool:
    return type(plugin).speaks is Plugin.speaks


def spoken_by(owners: List[Tuple[Plugin, Handler]], request: Request) -> Response:
    """Have a request answered by the first of a route's owners whose language it is, else by the last."""
    for owner, chain in owners[:-1]:
        if owner.speaks(request):
            return chain(request)
    return owners[-1][1](request)


def blocking(handler: Handler) -> Handler:
    """Have a thread call a handler that may block, and do all that comes after it as well."""

    def promised(request: Request) -> Response:
        return Response.aside(request.scope, partial(handler, request), stays=True)

    return promised


def with_body(handler: Handler) -> Handler:
    """Call a handler that must not block once the request's body is there; a large one takes long to read."""

    @late
    def arrived(request: Request) -> Waiting[Response]:
        yield from request.arriving()
        if len(request.body()) > LARGE:
            yield from request.scope.aside(BRIEFLY)
        return (yield from handler(request).awaited())

    def answer(request: Request) -> Response:
        return handler(request) if request.is_light else arrived(request)

    return answer


def worded(handler: Handler, owner: Plugin) -> Handler:
    """Have trouble told in the words of the route's owner; a bug is told too, but not what it was."""

    def told(error: Exception, request: Request) -> Response:
        known = error if isinstance(error, Trouble) else Trouble(500, "internal error", code="internal_error")
        if known is not error:
            log.error("%s: failed", request.id, exc_info=error)
        known.request = request.id
        request.notes["trouble"] = known.code or known.kind
        response = owner.error(known)
        response.headers += request.warnings()
        return response

    def run(request: Request) -> Response:
        try:
            return handler(request).rescued(told, request)
        except Gone:
            raise
        except Exception as error:  # noqa: BLE001  (it is told, and logged)
            return told(error, request)

    return run


def brought_up(argv: List[str]) -> Proxy:
    """Bring the house up from what is there now; raises SettingsError."""
    classes = discovered()
    settings = Settings(classes, argv, os.environ, HERE / "config.ini")
    ca_file = settings.of("server")["ca_file"]
    if ca_file:
        if not os.access(ca_file, os.R_OK):
            raise SettingsError(f"[server] ca_file: cannot read {ca_file}")
        os.environ["SSL_CERT_FILE"] = ca_file
    return Proxy(settings, classes)


# The command


def serve(proxy: Proxy) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    keep_to_ourselves()
    for _, what, remedy in checked_config(proxy.settings):
        log.warning("%s: %s", what, remedy)
    server_options = proxy.settings.of("server")
    make_room(server_options["max_connections"])
    house = House(proxy)
    host, port = server_options["host"], server_options["port"]
    try:
        server = Server((host, port), server_options, house.respond)
    except ValueError as error:
        raise SettingsError(f"[server] {error}") from None
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
        ) from None
    address = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    announce = partial(print, f"llmproxy {VERSION} listening on {address}", file=sys.stderr, flush=True)
    if server_options["workers"] > 1 and hasattr(os, "fork"):
        return Workers(server_options["workers"], server, house).run(announce)
    return work(server, house, announce)


def make_room(connections: int) -> None:
    """Have the system let us hold so many connections, and one to an upstream for each, as far as it does."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # ImportError: not here (Windows)
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * connections + 256
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def work(server: Server, house: House, announce: Callable[[], None], parent: int = 0) -> int:
    """Run one server process to its end; that of a worker comes with its parent's."""

    def stop(_: int, __: Optional[FrameType]) -> None:
        if server.draining:
            os._exit(1)
        server.drain()

    def look_around() -> None:
        if parent and os.getppid() != parent and not server.draining:
            server.drain()
        house.look_for_news()

    def renew(_: int, __: Optional[FrameType]) -> None:
        house.ask_for_news()
        server.hurry()

    listen_to({"SIGTERM": stop, "SIGINT": signal.SIG_IGN if parent else stop, "SIGHUP": renew})
    signal.set_wakeup_fd(server.bells()[1].fileno(), warn_on_full_buffer=False)  # one may come to any of the threads
    server.on_tick = look_around
    house.start()
    announce()
    with server:
        server.serve_forever()
        signal.set_wakeup_fd(-1)
    house.proxy.close()
    return 0


def listen_to(handlers: Mapping[str, Any]) -> None:
    """Have these signals handled, those that this system has, also if they have come already."""
    for name, handler in handlers.items():
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def admit(proxy: Proxy, host: str) -> bool:
    """Tell whether only those can ask who are on this machine, or whom something asks who they are.

    Raises SettingsError for an address that strangers can reach, unless that is meant.
    """
    guarded = host == "localhost" or is_loopback(host) or any(plugin.authenticates for plugin in proxy.plugins)
    if not guarded and not proxy.settings.of("server")["allow_open"]:
        raise SettingsError(f"{host} can be reached by others: use --enable-auth, or --allow-open if you mean it")
    return guarded


class House:
    """The proxy that answers now, and how a newer one takes its place."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._host: str = proxy.settings.of("server")["host"]  # that of the socket, whatever a reload says
        self._guarded = admit(proxy, self._host)
        self._wanted = False
        self._seen = self._stamps()

    def start(self) -> None:
        self.proxy.start(guarded=self._guarded)

    def respond(self, request: Request) -> Response:
        return self.proxy.respond(request)

    def ask_for_news(self) -> None:
        self._wanted = True

    def look_for_news(self) -> None:
        """Bring up the new version beside the old if it is asked for, or keep the old one and log why."""
        if not self._wanted and not (self.proxy.settings.of("server")["reload"] and self._changed()):
            return
        self._wanted = False
        self._seen = self._stamps()
        undo = forget_modules()
        try:
            new = brought_up(sys.argv[1:])
            self._guarded = admit(new, self._host)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with the new one, the old one is here)
            undo()
            told = error if isinstance(error, SettingsError) else located(error, HERE)
            log.error("keeping the old version: %s", told)  # noqa: TRY400  (one line says it all)
            return
        old, self.proxy = self.proxy, new.following(self.proxy)
        self.start()
        old.close()
        log.info("a new version answers")

    def _changed(self) -> bool:
        return self._seen != self._stamps()

    def _stamps(self) -> Dict[str, int]:
        """Give the time of the last change of everything a reload reads."""
        paths = [*HERE.glob("providers/**/*.py"), *HERE.glob("plugins/**/*.py")]
        paths += [self.proxy.settings.file] if self.proxy.settings.file else []
        stamps = {}
        for path in paths:
            with contextlib.suppress(OSError):
                stamps[str(path)] = path.stat().st_mtime_ns
        return stamps


class Workers:
    """Several processes on one port: a dead one is replaced, and signals reach them all."""

    def __init__(self, number: int, server: Server, house: House) -> None:
        self._number = number
        self._server = server
        self._house = house
        self._alive: Dict[int, float] = {}
        self._stopping = False

    def run(self, announce: Callable[[], None]) -> int:
        listen_to({"SIGTERM": self._stop, "SIGINT": self._stop, "SIGHUP": self._renew})
        self._fill()
        announce()
        while self._alive:
            pid, status = os.wait()
            started = self._alive.pop(pid, 0.0)
            if not self._stopping:
                log.error("a worker ended with status %d: another takes its place", status)
                time.sleep(max(0.0, 1.0 - (time.monotonic() - started)))  # one that dies at birth must not spin
                self._fill()
        return 0

    def _fill(self) -> None:
        while len(self._alive) < self._number and not self._stopping:
            self._start()

    def _start(self) -> None:
        """Start a worker. No signal comes between its birth and our knowing of it, nor before it can listen."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._alive[pid] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return
        code = 1
        try:
            code = work(self._server, self._house, lambda: None, parent)
        except BaseException:
            log.exception("a worker failed")
        finally:
            os._exit(code)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._server.server_close()  # else it would go on taking connections that nobody serves
        self._tell(signal.SIGTERM)  # a terminal's Ctrl-C reaches the workers too: they leave it to us

    def _renew(self, *_: object) -> None:
        self._house.ask_for_news()  # for those that are born later
        self._tell(signal.SIGHUP)

    def _tell(self, number: int) -> None:
        for pid in list(self._alive):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def print_config(proxy: Proxy) -> int:
    """Print the example config from the modules' own tables."""
    print("\n".join(words_of(proxy.settings, proxy.classes)))
    return 0


def doctor(proxy: Proxy) -> int:
    """Print what is in order here and what is not, each with its remedy; 1 when something asked for is broken."""
    findings = [*checked_machine(), *checked_config(proxy.settings), *checked_providers(proxy)]
    for plugin in proxy.plugins:
        findings += plugin.checks()
    for good, what, remedy in findings:
        mark = {True: "ok  ", False: "FAIL", None: "-   "}[good]
        print(f"{mark}  {what}" if good or not remedy else f"{mark}  {what}: {remedy}")
    return 1 if any(good is False for good, _, _ in findings) else 0


def checked_machine() -> Iterator[Finding]:
    """Look at Python, TLS and the proxy variables."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield sys.version_info >= (3, 9), f"Python {version}", "3.9 or later is needed"
    try:
        from providers._connection import tls

        roots = tls().cert_store_stats()["x509_ca"]
        yield (True if roots else None), f"{roots} root certificates", "https needs some: set [server] ca_file"
    except (Trouble, OSError) as error:
        yield False, "TLS", f"{error}: see SSL_CERT_FILE or [server] ca_file"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value:
            yield True, f"{name} is set", ""


def checked_providers(proxy: Proxy) -> Iterator[Finding]:
    """Ask each provider for its models. What was set for it and fails is broken; what was not is merely absent."""
    for name, provider in proxy.upstream.providers.items():
        asked_for = any(value.rank for value in proxy.settings.sections[f"providers.{name}"].values())
        if not provider.configured:
            yield (False if asked_for else None), name, f"no key: see [providers.{name}] api_key"
            continue
        try:
            yield True, f"{name}: {len(provider.models())} models", ""
        except Trouble as trouble:
            yield (False if asked_for else None), name, trouble.message


def hide_secrets(settings: Settings) -> None:
    """Blot secrets out of this process's own command line and environment, where others could read them.

    Every user of the machine can read the one, every program of the same user the other, and what we start inherits
    it. `os.environ` is Python's own copy, and stays as it is.
    """
    spelled = [os.fsencode(secret) for secret in settings.secrets(3)]
    named = [os.fsencode(f"{name}={os.environ[name]}") for name in settings.secret_variables(os.environ)]
    if not sys.platform.startswith("linux") or not (spelled or named):
        return
    with contextlib.suppress(OSError, ValueError, IndexError, ImportError):
        numbers = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
        line, environment = (slice(*map(int, numbers[at : at + 2])) for at in (45, 47))  # arg_start, env_start: proc(5)
        blot(line, [(secret, secret) for secret in spelled])
        blot(environment, [(entry, entry.partition(b"=")[2]) for entry in named])


def blot(place: slice, secrets: List[Tuple[bytes, bytes]]) -> None:
    """Overwrite a place of our own memory wherever the first of a pair stands, by as much as the second is long."""
    import ctypes

    text = ctypes.string_at(place.start, place.stop - place.start)
    for known, secret in secrets:
        at = text.find(known)
        while at >= 0:
            ctypes.memset(place.start + at + len(known) - len(secret), ord("*"), len(secret))
            at = text.find(known, at + 1)


def keep_to_ourselves() -> None:
    """Have the kernel show this process's memory, environment and open files to nobody but root (Linux).

    Without this every program of the same user could read them. It goes for what is forked, not for what is started.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError, ImportError):
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, *map(ctypes.c_ulong, (0, 0, 0, 0)))


def checked_config(settings: Settings) -> Iterator[Finding]:
    """Look at whether others can read the secrets that stand in the config file."""
    file = settings.file
    with contextlib.suppress(OSError):  # it may be gone by now
        if file and os.name == "posix" and file.stat().st_mode & OTHERS_READ:
            text = file.read_text("utf-8-sig")
            if any(secret in text for secret in settings.secrets(1)):  # one from ${NAME} does not stand there
                yield None, f"{file} holds a secret and others can read it", f"chmod 600 {file}"


def run(proxy: Proxy, command: str) -> int:
    """Run one of our own commands, or a plugin's."""
    own = {"serve": serve, "config": print_config, "doctor": doctor}.get(command)
    if own:
        return own(proxy)
    for name, plugin in proxy.classes.plugins.items():
        if command in plugin.commands:
            return plugin.commands[command](proxy.settings.of(f"plugins.{name}"), proxy.settings.rest)
    raise SettingsError(f"unknown command {command}")


def main() -> int:
    """Run the command; what is wrong with the settings is one line and exit 2."""
    try:
        proxy = brought_up(sys.argv[1:])
        hide_secrets(proxy.settings)
        _logging.set_up(proxy.settings.of("server"))
        gc.freeze()  # nothing of the house is looked at again, nor copied for a worker by being looked at
        gc.set_threshold(*RARELY)
        gc.enable()
        return run(proxy, proxy.settings.command)
    except SettingsError as error:
        print("llmproxy:", *str(error).split(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
