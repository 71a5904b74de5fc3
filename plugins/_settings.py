"""Settings: what the modules declare, and what the file, the environment and the command line say.

Command line beats environment beats file beats default. Nothing is read here that was not handed in but
the config file itself, and a name that nobody declared stops the start.

argparse writes the help, and nothing else: to be told all our options takes it longer than all else here.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

from providers import Options, Provider

from . import VERSION, Plugin

SERVER: Options = {
    "host": ("127.0.0.1", "Address to listen on."),
    "port": (3500, "Port to listen on; 0 takes any free one."),
    "workers": (1, "Processes that share the port (POSIX)."),
    "allow_open": (False, "Accept an address that others can reach, without anything that asks who they are."),
    "trusted_proxies": ((), "Addresses or networks of proxies whose X-Forwarded-For is believed."),
    "debug": (False, "Log more: request headers, with secrets masked."),
    "log": ("text", "How to log: text, or json."),
    "ca_file": ("", "PEM file of the root certificates to trust, as SSL_CERT_FILE."),
    "reload": (False, "Bring up a new version when the config, a provider or a plugin changes; SIGHUP always does."),
    "drain": (10.0, "Seconds that open answers have to finish after SIGTERM or Ctrl-C."),
    "threads": (
        1024,
        "Threads for what may block, like programs and modules of your own; one request more is told 503.",
    ),
    "max_connections": (10000, "Connections held open at the same time; one more is told 503."),
    "max_body": (32 * 1024 * 1024, "Bytes a request's body may have."),
    "head_timeout": (10.0, "Seconds a client may take to say what it wants."),
    "idle_timeout": (75.0, "Seconds a connection may wait for its next request."),
    "write_timeout": (60.0, "Seconds a client may take to take what it is sent."),
}


class Classes(NamedTuple):
    """What the two folders hold, by the names of their files."""

    providers: Dict[str, Type[Provider]]
    plugins: Dict[str, Type[Plugin]]
    summaries: Dict[str, str]


class SettingsError(Exception):
    """What is wrong with the settings, in one line for the person who made them."""


class Value(NamedTuple):
    """A setting and where it was made: 0 default, 1 file, 2 environment, 3 command line."""

    rank: int
    value: Any


Values = Dict[str, Value]


class Flag(NamedTuple):
    """What a word of the command line sets; `text` is what it says by itself, None for what needs a word behind it."""

    section: str
    name: str
    text: Optional[str] = None


Flags = Dict[str, Flag]

COMMANDS = ("serve", "doctor", "config")
CONFIG = Flag("", "config")
TOLD = ("-h", "--help", "--version")
BOOLEANS = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}
MOST = 1e15  # what no number here can be meant to reach
SECRET = re.compile(r"(^|_)(key|secrets?|token|password)$")  # options that hold one
SECRETIVE = re.compile("key|secret|token|passw", re.IGNORECASE)  # variables that may
LOGIN = re.compile(r"://[^/?#\s]*@")  # a URL with a password in it


def nearest(name: str, known: Iterable[str]) -> str:
    """Give a hint at the name somebody may have meant."""
    import difflib

    found = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {found[0]}?" if found else ""


def converted(text: str, default: Any, where: str) -> Any:
    """Read a setting as the type of its default."""
    if isinstance(default, bool):
        if text.lower() not in BOOLEANS:
            raise SettingsError(f"{where} must be yes or no, not {text!r}")
        return BOOLEANS[text.lower()]
    if isinstance(default, (int, float)):
        with contextlib.suppress(ValueError):
            number = type(default)(text)
            if -MOST < number < MOST:  # neither is nan
                return number
        kind = "number" if isinstance(default, float) else "whole number"
        raise SettingsError(f"{where} must be a {kind}, not {text!r}")
    if isinstance(default, (tuple, list)):
        return type(default)(item.strip() for item in text.split(",") if item.strip())
    return text


def read_file(path: Optional[Path], environ: Mapping[str, str]) -> Dict[str, Dict[str, str]]:
    """Read the config file: section -> name -> value, `${NAME}` filled in from the environment."""
    if path is None:
        return {}
    import configparser

    parser = configparser.ConfigParser(interpolation=None, default_section="", delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(path.read_text("utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise SettingsError(" ".join(f"{path}: {error}".split())) from None

    def filled(match: re.Match[str]) -> str:
        if match.group(1) not in environ:
            raise SettingsError(f"{path}: the environment has no {match.group(1)}")
        return environ[match.group(1)]

    return {
        section: {name: re.sub(r"\$\{(\w+)\}", filled, value) for name, value in parser.items(section)}
        for section in parser.sections()
    }


def environment_of(options: Options) -> Iterator[Tuple[str, str]]:
    """Give (option, variable) of each environment variable in a table."""
    for name, (_, _, *more) in options.items():
        yield from ((name, word) for word in more if not word.startswith("--"))


def flags_of(section: str, name: str, options: Options) -> List[str]:
    """Give the command line's names of an option: `--port`, `--ollama-port`, and what its table adds."""
    prefix = "" if section == "server" else section.partition(".")[2] + "-"
    own = f"--{prefix}{name}".replace("_", "-")
    return [own, *(word for word in options[name][2:] if word.startswith("--"))]


def taken(argv: Sequence[str], flags: Flags) -> Tuple[List[Tuple[str, str]], List[str]]:
    """Take the flags out of a command line: (flag, text) of each, and the words that are none."""
    found, rest = [], []
    words = iter(argv)
    for word in words:
        flag, given, text = word.partition("=")
        if flag not in flags:
            rest.append(word)
            continue
        alone = flags[flag].text
        if alone is not None and given:
            raise SettingsError(f"{flag} takes no value")
        behind = next(words, "-") if alone is None and not given else ""
        if behind.startswith("-"):
            raise SettingsError(f"{flag} needs a value (one that begins with - is written {flag}=-...)")
        found.append((flag, alone or text or behind))
    return found, rest


class Settings:
    """Every option of the kernel and of the modules, from all four sources.

    `sections` maps `server`, `providers.NAME` and `plugins.NAME` to their values; `types` names the
    module of each provider.
    """

    def __init__(
        self, classes: Classes, argv: Sequence[str], environ: Mapping[str, str], beside: Optional[Path] = None
    ) -> None:
        self.file = self._find(argv, environ, beside)
        said = read_file(self.file, environ)
        self.aliases = {
            name: [model.strip() for model in models.split(",") if model.strip()]
            for name, models in said.pop("models", {}).items()
        }
        self.types = self._types(classes, said)
        self.tables = self._tables(classes)
        self.sections: Dict[str, Values] = {
            section: {name: Value(0, row[0]) for name, row in table.items()} for section, table in self.tables.items()
        }
        self._take_file(said)
        self._take_environment(environ)
        commands = [*COMMANDS, *(name for plugin in classes.plugins.values() for name in plugin.commands)]
        self.command, self.rest = self._take_arguments(argv, commands)
        self._check_places()

    @staticmethod
    def _find(argv: Sequence[str], environ: Mapping[str, str], beside: Optional[Path]) -> Optional[Path]:
        said, _ = taken(argv, {"--config": CONFIG})
        named = said[-1][1] if said else environ.get("LLMPROXY_CONFIG")
        if named:
            return Path(named)
        return beside if beside is not None and beside.exists() else None

    @staticmethod
    def _types(classes: Classes, said: Mapping[str, Mapping[str, str]]) -> Dict[str, str]:
        """Give the module of each provider; sections of the file may add providers of a `type`."""
        types = {name: name for name in classes.providers}
        for section, values in said.items():
            floor, _, name = section.partition(".")
            if floor == "providers" and name and (name not in types or "type" in values):
                kind = values.get("type")
                if kind is None:
                    hint = nearest(name, classes.providers)
                    raise SettingsError(f"unknown section [{section}]{hint} (another provider needs `type = ...`)")
                if kind not in classes.providers:
                    raise SettingsError(f"[{section}] type: unknown {kind!r}{nearest(kind, classes.providers)}")
                if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
                    raise SettingsError(f"[{section}] a provider's name is made of a-z, 0-9, _, . and -")
                types[name] = kind
        return types

    def _tables(self, classes: Classes) -> Dict[str, Options]:
        enabled = {"enabled": (True, "Whether it is there at all.")}
        tables: Dict[str, Options] = {"server": SERVER}
        for name, kind in self.types.items():
            table = {**enabled, **classes.providers[kind].options}
            if name != kind:  # the environment and the defaults speak of the original
                table = {option: row[:2] for option, row in table.items()}
            tables[f"providers.{name}"] = table
        for name, plugin in classes.plugins.items():
            tables[f"plugins.{name}"] = {**enabled, **plugin.options}
        return tables

    def _set(self, rank: int, section: str, name: str, text: str, where: str) -> None:
        self.sections[section][name] = Value(rank, converted(text, self.tables[section][name][0], where))

    def _take_file(self, said: Mapping[str, Mapping[str, str]]) -> None:
        for section, values in said.items():
            if section not in self.tables:
                raise SettingsError(f"unknown section [{section}]{nearest(section, [*self.tables, 'models'])}")
            for name, text in values.items():
                if name == "type" and section.startswith("providers."):
                    continue
                if name not in self.tables[section]:
                    raise SettingsError(f"[{section}] unknown option {name!r}{nearest(name, self.tables[section])}")
                self._set(1, section, name, text, f"[{section}] {name}")

    def _take_environment(self, environ: Mapping[str, str]) -> None:
        for section, table in self.tables.items():
            taken = set()
            for name, variable in environment_of(table):
                if environ.get(variable) and name not in taken:
                    taken.add(name)
                    self._set(2, section, name, environ[variable], variable)

    def _take_arguments(self, argv: Sequence[str], commands: Sequence[str]) -> Tuple[str, List[str]]:
        """Take the flags; gives the command, and what else stood there for a plugin's own command."""
        flags = self.flags()
        said, rest = taken(argv, {**flags, "--config": CONFIG})
        for word in rest:
            if word in TOLD:
                self._tell(word, commands)
        command = next((word for word in rest if not word.startswith("-")), "serve")
        flag = next((word for word in rest if word.startswith("-")), "")
        if command not in commands and not flag:
            told = f"{command!r}{nearest(command, commands)}; there are {', '.join(commands)}"
            raise SettingsError(f"unknown command {told}")
        if command in rest:
            rest.remove(command)
        if rest and command not in commands[len(COMMANDS) :]:
            flag = (flag or rest[0]).partition("=")[0]
            raise SettingsError(f"unknown option {flag}{nearest(flag, [*flags, '--config', '--version', '--help'])}")
        for flag, text in said:
            if flag in flags:
                self._set(3, flags[flag].section, flags[flag].name, text, flag)
        return command, rest

    def _check_places(self) -> None:
        """Refuse another provider without a place of its own: its key would go to where its type is at home."""
        for name, kind in self.types.items():
            url = self.sections[f"providers.{name}"].get("base_url")
            if name != kind and url and url.value and not url.rank:
                raise SettingsError(
                    f"[providers.{name}] base_url is needed: else it would be {kind} itself, {url.value}"
                )

    def flags(self) -> Flags:
        """Give every flag; a provider of the file may be named so that its flags are another's, which are its then."""
        flags: Flags = {}
        for section, table in self.tables.items():
            for name, row in table.items():
                names = flags_of(section, name, table)
                switch = isinstance(row[0], bool)
                flags.update(dict.fromkeys(names, Flag(section, name, "yes" if switch else None)))
                if switch:
                    flags[names[0].replace("--", "--no-", 1)] = Flag(section, name, "no")
        return flags

    def _tell(self, word: str, commands: Sequence[str]) -> None:
        """Print the help or the version, and exit."""
        import argparse

        parser = argparse.ArgumentParser(
            prog="llmproxy.py",
            description="One local address for every model you can reach.",
            conflict_handler="resolve",
        )
        parser.add_argument(
            "command", nargs="?", default="serve", help=f"one of {', '.join(commands)}; serve by default"
        )
        parser.add_argument(
            "--config", metavar="FILE", help="config file (LLMPROXY_CONFIG; config.ini beside llmproxy.py)"
        )
        parser.add_argument("--version", action="version", version=f"llmproxy {VERSION}")
        for section, table in self.tables.items():
            group = parser.add_argument_group(f"[{section}]")
            for name, (default, help_, *more) in table.items():
                names = flags_of(section, name, table)
                variables = [word for word in more if not word.startswith("--")]
                told = f"{help_} ({', '.join([f'default {shown(default)}', *variables])})".replace("%", "%%")
                if isinstance(default, bool):
                    group.add_argument(*names, action="store_true", help=told)
                else:
                    group.add_argument(*names, metavar=name.upper(), help=told)
        parser.parse_args([word])

    def of(self, section: str) -> Dict[str, Any]:
        """Give a section's options, as its module gets them."""
        values = self.sections[section]
        port, url = values.get("port"), values.get("base_url")
        if port and url and port.rank > url.rank:  # what was said closer to the person wins
            values = {**values, "base_url": Value(0, "")}
        return {name: value.value for name, value in values.items()}

    def enabled(self, section: str) -> bool:
        return bool(self.sections[section]["enabled"].value)

    def secrets(self, rank: int) -> List[str]:
        """Give the secrets that the file (1), the environment (2) or the command line (3) had the last word on."""
        return [
            text
            for section in self.sections.values()
            for name, value in section.items()
            if value.rank == rank
            for text in (value.value if isinstance(value.value, tuple) else [str(value.value)])
            if text and (SECRET.search(name) or LOGIN.search(text))
        ]

    def secret_variables(self, environ: Mapping[str, str]) -> List[str]:
        """Name the variables of the environment that hold a secret, ours or by their looks anybody's."""
        known = {*self.secrets(1), *self.secrets(2)}
        return [
            name
            for name, text in environ.items()
            if text and (text in known or SECRETIVE.search(name) or LOGIN.search(text))
        ]


def shown(default: Any) -> str:
    """Spell a default as the config file would."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, (tuple, list)):
        return ", ".join(default)
    return str(default)


def arguments(command: str, table: Options, argv: Sequence[str]) -> Dict[str, Any]:
    """Read what stands behind a plugin's own command, by a table like any other; a list's flag may be repeated."""
    flags = {
        "--" + name.replace("_", "-"): Flag(command, name, "yes" if isinstance(row[0], bool) else None)
        for name, row in table.items()
    }
    said, rest = taken(argv, flags)
    if rest:
        raise SettingsError(f"{command}: unknown option {rest[0]}{nearest(rest[0], flags)}")
    found = {name: row[0] for name, row in table.items()}
    for flag, text in said:
        name = flags[flag].name
        old = found[name]
        found[name] = (*old, text) if isinstance(old, tuple) else converted(text, old, f"{command}: {flag}")
    return found


def words_of(settings: Settings, classes: Classes) -> Iterator[str]:
    """Write the example config: every option at its default, commented out, with its help."""
    yield "# Every option of llmproxy at its default. Copy this file to config.ini and change what you need."
    yield "# The command line beats the environment, which beats this file. ${NAME} is taken from the environment."
    for section, table in settings.tables.items():
        if section not in classes.summaries and section != "server":
            continue  # made by the file
        yield from ("", f"[{section}]")
        if section in classes.summaries:
            yield f"# {classes.summaries[section]}"
        for name, (default, help_, *more) in table.items():
            variables = [word for word in more if not word.startswith("--")]
            yield f"# {help_}{' Environment: ' + ', '.join(variables) + '.' if variables else ''}"
            yield f"#{name} = {shown(default)}".rstrip()
    yield from (
        "",
        "# Another upstream of a known type, without code:",
        "#[providers.groq]",
        "#type = openai",
        "#base_url = https://api.groq.com/openai/v1",
        "#api_key = ${GROQ_API_KEY}",
        "",
        "# Names for models, with what answers when the first cannot:",
        "[models]",
        "#fast = ollama/llama3.2, openai/gpt-4o-mini",
        "# A name that ends in * stands for all that begin so, a * behind the provider for the rest of the name.",
        "#claude-* = anthropic/claude-*",
    )
