"""What is promised of `plugins/_settings.py`: one value from four sources, and no name that nobody declared."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Dict

import pytest

from plugins import Plugin
from plugins._settings import (
    SERVER,
    Classes,
    Settings,
    SettingsError,
    arguments,
    converted,
    nearest,
    read_file,
    shown,
    words_of,
)
from providers import Provider


class Openai(Provider):
    """A remote provider."""

    options: ClassVar[Dict[str, Any]] = {
        "base_url": ("https://api.example.com", "Where it lives.", "OPENAI_BASE_URL"),
        "api_key": ("", "Its key.", "OPENAI_API_KEY", "OTHER_API_KEY"),
        "models": (("a", "b"), "Its models."),
        "retries": (2, "How often 100% of it is asked again."),
        "timeout": (600.0, "Seconds."),
    }


class Ollama(Provider):
    """A local provider."""

    options: ClassVar[Dict[str, Any]] = {
        "port": (11434, "Its port."),
        "base_url": ("", "Where it lives.", "OLLAMA_BASE_URL", "OLLAMA_HOST"),
    }


class Auth(Plugin):
    """A guard."""

    options: ClassVar[Dict[str, Any]] = {
        "enabled": (False, "Whether it is there.", "--enable-auth"),
        "secret": ("", "Its secret.", "JWT_SECRET", "--jwt-secret"),
        "old_secrets": ((), "Its secrets before."),
        "leeway": (30, "Seconds."),
    }
    commands: ClassVar[Dict[str, Any]] = {"token": lambda *_: 0}


class Quiet(Plugin):
    """A plugin without options."""


CLASSES = Classes(
    {"openai": Openai, "ollama": Ollama},
    {"auth": Auth, "quiet": Quiet},
    {
        "providers.openai": "Asks a remote one.",
        "providers.ollama": "Asks a local one.",
        "plugins.auth": "Guards the door.",
        "plugins.quiet": "Says nothing.",
    },
)


@pytest.fixture
def settled(tmp_path):
    """Give a maker of settings: from a file's text, an environment and a command line."""

    def make(text=None, argv=(), environ=None, classes=CLASSES):
        beside = tmp_path / "config.ini"
        if text is not None:
            beside.write_text(text, "utf-8")
        elif beside.exists():
            beside.unlink()
        return Settings(classes, list(argv), environ or {}, beside)

    return make


@pytest.fixture
def unsettled(settled):
    """Give the one line that settings fail with."""

    def make(*args, **more):
        with pytest.raises(SettingsError) as caught:
            settled(*args, **more)
        message = str(caught.value)
        assert message
        assert "\n" not in message
        return message

    return make


# where a value comes from


def test_without_a_word_everything_is_at_its_default(settled):
    settings = settled()
    assert settings.file is None
    assert settings.command == "serve"
    assert settings.of("server") == {name: row[0] for name, row in SERVER.items()}
    assert settings.of("providers.openai") == {
        "enabled": True,
        **{name: row[0] for name, row in Openai.options.items()},
    }
    assert [settings.enabled(name) for name in ("providers.openai", "plugins.auth", "plugins.quiet")] == [
        True,
        False,
        True,
    ]
    assert settings.aliases == {}
    assert settings.types == {"openai": "openai", "ollama": "ollama"}


SOURCES = [
    ("api_key = file", {}, (), "file"),
    ("api_key = file", {"OPENAI_API_KEY": "environment"}, (), "environment"),
    ("api_key = file", {"OPENAI_API_KEY": "environment"}, ("--openai-api-key", "line"), "line"),
    ("api_key = file", {}, ("--openai-api-key=line",), "line"),
    ("", {"OPENAI_API_KEY": "environment"}, ("--openai-api-key", "line"), "line"),
    ("", {"OPENAI_API_KEY": "environment"}, (), "environment"),
    ("", {"OPENAI_API_KEY": "first", "OTHER_API_KEY": "second"}, (), "first"),
    ("", {"OPENAI_API_KEY": "", "OTHER_API_KEY": "second"}, (), "second"),
    ("api_key = file", {"OPENAI_API_KEY": ""}, (), "file"),
    ("api_key = file", {}, ("--openai-api-key", ""), ""),
]


@pytest.mark.parametrize(("line", "environ", "argv", "value"), SOURCES)
def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(settled, line, environ, argv, value):
    assert settled(f"[providers.openai]\n{line}\n", argv, environ).of("providers.openai")["api_key"] == value


@pytest.mark.parametrize("argv", [["--debug"], ["serve", "--debug"], ["--debug", "serve"]])
def test_flags_stand_before_or_behind_the_command(settled, argv):
    settings = settled(argv=argv)
    assert (settings.command, settings.of("server")["debug"]) == ("serve", True)


def test_a_switch_can_be_turned_off_again(settled):
    text = "[server]\ndebug = yes\n[plugins.quiet]\nenabled = no\n"
    assert settled(text, ["--no-debug"]).of("server")["debug"] is False
    assert settled(text, ["--quiet-enabled"]).enabled("plugins.quiet")
    assert not settled(text).enabled("plugins.quiet")


def test_an_option_may_have_another_flag(settled):
    settings = settled(argv=["--enable-auth", "--jwt-secret", "s"])
    assert settings.enabled("plugins.auth")
    assert settings.of("plugins.auth")["secret"] == "s"
    assert settled(argv=["--auth-secret", "t"]).of("plugins.auth")["secret"] == "t"


# the file


def test_the_file_beside_is_read_only_if_it_is_there_and_none_was_named(settled, tmp_path):
    other = tmp_path / "other.ini"
    other.write_text("[server]\nport = 1\n", "utf-8")
    another = tmp_path / "another.ini"
    another.write_text("[server]\nport = 2\n", "utf-8")
    beside = "[server]\nport = 3\n"
    assert settled(beside).of("server")["port"] == 3
    assert settled(beside, environ={"LLMPROXY_CONFIG": str(other)}).of("server")["port"] == 1
    for argv in (["--config", str(another)], [f"--config={another}"], ["doctor", "--config", str(another), "--debug"]):
        settings = settled(beside, argv, {"LLMPROXY_CONFIG": str(other)})
        assert settings.of("server")["port"] == 2
        assert settings.file == another


def test_a_file_that_was_named_and_is_not_there_stops_the_start(unsettled, tmp_path):
    assert "missing.ini" in unsettled(argv=["--config", str(tmp_path / "missing.ini")])
    assert "missing.ini" in unsettled(environ={"LLMPROXY_CONFIG": str(tmp_path / "missing.ini")})
    assert str(tmp_path) in unsettled(argv=["--config", str(tmp_path)])


def test_a_flag_without_its_file_is_told_in_one_line(unsettled, capfd):
    assert "--config" in unsettled(argv=["--config"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text",
    ["port = 1\n", "[server\n", "[server]\nport\n", "[server]\nport = 1\nport = 2\n", "[server]\n[server]\n", "\x00"],
)
def test_a_file_that_cannot_be_read_is_named(unsettled, text):
    assert "config.ini" in unsettled(text)


def test_a_file_in_another_encoding_is_named(unsettled, tmp_path):
    path = tmp_path / "latin.ini"
    path.write_bytes("[server]\nhost = \xe9\n".encode("latin-1"))
    assert "latin.ini" in unsettled(argv=["--config", str(path)])


def test_a_file_may_begin_with_a_byte_order_mark(settled, tmp_path):
    path = tmp_path / "windows.ini"
    path.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 1\r\n")
    assert settled(argv=["--config", str(path)]).of("server")["port"] == 1


def test_percent_signs_and_colons_are_letters_like_others(settled):
    text = "[providers.openai]\nbase_url = http://h:1/%41%(x)s\n[models]\nllama3:8b = ollama/llama3:8b\n"
    settings = settled(text)
    assert settings.of("providers.openai")["base_url"] == "http://h:1/%41%(x)s"
    assert settings.aliases == {"llama3:8b": ["ollama/llama3:8b"]}


def test_names_are_taken_from_the_environment(settled):
    text = "[providers.openai]\napi_key = ${A}-${B_2}\nbase_url = $A ${}\n[models]\nfast = ollama/${A}\n"
    settings = settled(text, environ={"A": "x=${B_2}", "B_2": "y"})
    assert settings.of("providers.openai")["api_key"] == "x=${B_2}-y"
    assert settings.of("providers.openai")["base_url"] == "$A ${}"
    assert settings.aliases == {"fast": ["ollama/x=${B_2}"]}


def test_a_name_the_environment_lacks_stops_the_start(unsettled):
    assert "NOT_THERE" in unsettled("[providers.openai]\napi_key = ${NOT_THERE}\n")


def test_no_file_says_nothing():
    assert read_file(None, {}) == {}


def test_aliases_are_lists(settled):
    text = "[models]\nfast = ollama/llama3.2, openai/gpt-4o-mini\nBig = openai/gpt ,\nnone =\n"
    assert settled(text).aliases == {
        "fast": ["ollama/llama3.2", "openai/gpt-4o-mini"],
        "Big": ["openai/gpt"],
        "none": [],
    }


# types


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("yes", False, True),
        ("On", False, True),
        ("1", False, True),
        ("no", True, False),
        ("OFF", True, False),
        ("7", 1, 7),
        (" -7 ", 1, -7),
        ("7", 1.0, 7.0),
        ("0.5", 1.0, 0.5),
        ("a, b,,c ", ("x",), ("a", "b", "c")),
        ("", ("x",), ()),
        ("a", ["x"], ["a"]),
        ("text", "", "text"),
        ("", "x", ""),
    ],
)
def test_the_default_gives_the_type(text, default, value):
    found = converted(text, default, "it")
    assert found == value
    assert type(found) is type(default)


@pytest.mark.parametrize(
    ("text", "default", "told"),
    [
        ("maybe", False, "yes or no"),
        ("", True, "yes or no"),
        ("x", 1, "whole number"),
        ("", 1, "whole number"),
        ("1.5", 1, "whole number"),
        ("9" * 20, 1, "whole number"),
        ("9" * 5000, 1, "whole number"),
        ("x", 1.0, "number"),
        ("nan", 1.0, "number"),
        ("inf", 1.0, "number"),
        ("-Infinity", 1.0, "number"),
        ("1e400", 1.0, "number"),
        ("10 s", 1.0, "number"),
    ],
)
def test_what_is_not_of_the_type_is_refused_with_the_place_it_stands_in(text, default, told):
    with pytest.raises(SettingsError, match=f"^the place must be .*{told}"):
        converted(text, default, "the place")


def test_each_source_is_named_when_its_value_is_wrong(unsettled):
    class Timed(Provider):
        """Has a number from the environment."""

        options: ClassVar[Dict[str, Any]] = {"wait": (1.0, "Seconds.", "WAIT")}

    classes = Classes({"timed": Timed}, {}, {})
    assert unsettled("[providers.timed]\nwait = x\n", classes=classes).startswith("[providers.timed] wait must be")
    assert unsettled(environ={"WAIT": "x"}, classes=classes).startswith("WAIT must be")
    assert unsettled(argv=["--timed-wait", "x"], classes=classes).startswith("--timed-wait must be")


# names nobody declared


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[servr]\n", "unknown section [servr]; did you mean server?"),
        ("[Server]\n", "did you mean server?"),
        ("[model]\n", "did you mean models?"),
        ("[DEFAULT]\nport = 1\n", "unknown section [DEFAULT]"),
        ("[plugins.aut]\n", "did you mean plugins.auth?"),
        ("[plugins]\n", "unknown section [plugins]"),
        ("[providers]\n", "unknown section [providers]"),
        ("[providers.]\n", "unknown section [providers.]"),
        ("[providers.openay]\n", "unknown section [providers.openay]; did you mean openai?"),
        ("[providers.groq]\napi_key = x\n", "`type = ...`"),
        ("[providers.groq]\ntype = opnai\n", "[providers.groq] type: unknown 'opnai'; did you mean openai?"),
        ("[providers.Groq]\ntype = openai\n", "a provider's name"),
        ("[providers.a/b]\ntype = openai\n", "a provider's name"),
        ("[server]\nprot = 1\n", "[server] unknown option 'prot'; did you mean port?"),
        ("[server]\nPort = 1\n", "[server] unknown option 'Port'; did you mean port?"),
        ("[server]\ntype = x\n", "[server] unknown option 'type'"),
        ("[providers.openai]\napikey = x\n", "[providers.openai] unknown option 'apikey'; did you mean api_key?"),
    ],
)
def test_an_unknown_name_in_the_file_stops_the_start_with_the_nearest_that_exists(unsettled, text, told):
    assert told in unsettled(text)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--prot", "1"], "unknown option --prot; did you mean --port?"),
        (["--prot=1"], "unknown option --prot; did you mean --port?"),
        (["--por", "1"], "unknown option --por; did you mean --port?"),
        (["--opnai-api-key=SECRET"], "unknown option --opnai-api-key; did you mean --openai-api-key?"),
        (["--opnai-api-key", "SECRET"], "unknown option --opnai-api-key; did you mean --openai-api-key?"),
        (["-x"], "unknown option -x"),
        (["--confg", "f"], "did you mean --config?"),
        (["serv"], "unknown command 'serv'; did you mean serve?"),
        (["serve", "doctor"], "doctor"),
        (["--port"], "--port needs a value"),
        (["--port", "--debug"], "--port needs a value"),
        (["--openai-api-key", "-SECRET"], "written --openai-api-key=-..."),
        (["--debug=yes"], "--debug takes no value"),
        (["--jwt-secret", "SECRET", "--no-debug=SECRET"], "--no-debug takes no value"),
        (["--enable-auth", "--jwt-secrt", "SECRET", "doctor"], "did you mean --jwt-secret?"),
    ],
)
def test_an_unknown_name_on_the_command_line_does_too_and_no_secret_is_told(unsettled, capfd, argv, told):
    message = unsettled(argv=argv)
    assert told in message
    assert "SECRET" not in message
    assert capfd.readouterr() == ("", "")


def test_the_nearest_name_is_told_only_if_it_is_near():
    assert nearest("prot", ["port", "host"]) == "; did you mean port?"
    assert nearest("zzz", ["port", "host"]) == ""
    assert nearest("x", []) == ""


# port and base_url


@pytest.mark.parametrize(
    ("text", "environ", "argv", "url", "port"),
    [
        ("", {}, [], "", 11434),
        ("base_url = http://f", {}, [], "http://f", 11434),
        ("base_url = http://f\nport = 1", {}, [], "http://f", 1),
        ("base_url = http://f", {}, ["--ollama-port", "2"], "", 2),
        ("port = 1", {"OLLAMA_HOST": "http://e"}, [], "http://e", 1),
        ("", {"OLLAMA_HOST": "http://e"}, ["--ollama-port", "2"], "", 2),
        ("", {}, ["--ollama-port", "2", "--ollama-base-url", "http://l"], "http://l", 2),
        ("port = 1", {}, [], "", 1),
    ],
)
def test_of_port_and_base_url_the_one_said_closer_to_the_person_counts(settled, text, environ, argv, url, port):
    found = settled(f"[providers.ollama]\n{text}\n", argv, environ).of("providers.ollama")
    assert (found["base_url"], found["port"]) == (url, port)


# more providers of a type


def test_a_section_with_a_type_is_another_provider(settled):
    text = "[providers.groq]\ntype = openai\nbase_url = https://groq\n[providers.my-ollama.2]\ntype = ollama\n"
    settings = settled(text, ["--groq-api-key", "k"], {"OPENAI_API_KEY": "o", "OLLAMA_HOST": "h"})
    assert settings.types == {"openai": "openai", "ollama": "ollama", "groq": "openai", "my-ollama.2": "ollama"}
    assert settings.of("providers.groq")["base_url"] == "https://groq"
    assert settings.of("providers.groq")["api_key"] == "k"
    assert settings.of("providers.openai")["api_key"] == "o"
    assert settings.of("providers.my-ollama.2")["base_url"] == ""
    assert settings.enabled("providers.groq")


def test_the_environment_speaks_of_the_original_only(settled):
    settings = settled("[providers.groq]\ntype = openai\nbase_url = x\n", environ={"OPENAI_API_KEY": "theirs"})
    assert settings.of("providers.groq")["api_key"] == ""


def test_another_provider_needs_a_place_of_its_own(unsettled, settled):
    told = "[providers.groq] base_url is needed: else it would be openai itself, "
    assert told in unsettled(
        "[providers.groq]\ntype = openai\napi_key = gsk\n", environ={"OPENAI_BASE_URL": "http://o"}
    )
    assert (
        settled("[providers.groq]\ntype = openai\n", ["--groq-base-url", "x"]).of("providers.groq")["base_url"] == "x"
    )
    assert settled("[providers.other]\ntype = ollama\n").types["other"] == "ollama"  # that is on this machine anyway


def test_a_known_name_may_have_another_type(settled):
    settings = settled("[providers.openai]\ntype = ollama\nport = 7\n", environ={"OPENAI_API_KEY": "k"})
    assert settings.types["openai"] == "ollama"
    assert settings.of("providers.openai")["port"] == 7
    assert settled("[providers.openai]\ntype = openai\nretries = 7\n").of("providers.openai")["retries"] == 7


@pytest.mark.parametrize("name", ["auth", "head", "server", "quiet", "open-ai", "open_ai", "no"])
def test_another_provider_may_have_any_name(settled, name):
    other = "[providers.open_ai]\ntype = openai\nbase_url = x\n" if name == "open-ai" else ""
    settings = settled(
        f"[providers.{name}]\ntype = openai\nbase_url = x\nretries = 7\n{other}", ["--port", "1", "--enable-auth"]
    )
    assert settings.of(f"providers.{name}")["retries"] == 7
    assert settings.of("server")["port"] == 1
    assert settings.enabled("plugins.auth")


# the command line


def test_a_value_stands_behind_its_flag_or_in_it_and_the_last_one_counts(settled):
    settings = settled(argv=["--port", "1", "doctor", "--openai-api-key=-a=b", "--debug", "--port=2", "--no-debug"])
    assert settings.command == "doctor"
    assert settings.of("providers.openai")["api_key"] == "-a=b"
    assert (settings.of("server")["port"], settings.of("server")["debug"]) == (2, False)


def test_a_value_may_be_empty(settled):
    assert settled(argv=["--openai-api-key="], environ={"OPENAI_API_KEY": "k"}).of("providers.openai")["api_key"] == ""
    assert settled(argv=["--openai-api-key", ""], environ={"OPENAI_API_KEY": "k"}).secrets(2) == []


def test_commands_of_plugins_are_known_and_keep_what_stands_behind_them(settled):
    settings = settled(argv=["token", "--sub", "alice", "--debug", "--claim", "a=b"])
    assert settings.command == "token"
    assert settings.rest == ["--sub", "alice", "--claim", "a=b"]
    assert settings.of("server")["debug"]


@pytest.mark.parametrize("command", ["serve", "doctor", "config"])
def test_other_commands_take_options_only(settled, unsettled, command):
    assert settled(argv=[command]).command == command
    assert "--sub" in unsettled(argv=[command, "--sub", "alice"])


def test_help_tells_every_flag_with_its_default_and_its_variable(settled, capsys):
    with pytest.raises(SystemExit) as caught:
        settled("[providers.groq]\ntype = openai\n", ["--help"])
    assert caught.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for word in ("--port", "--openai-api-key", "OPENAI_API_KEY", "--jwt-secret", "--enable-auth", "--groq-base-url"):
        assert word in told
    for word in ("default 3500", "How often 100% of it", "default a, b", "token", "--config FILE"):
        assert word in told
    assert "--no-debug" not in told


def test_version_is_told(settled, capsys):
    with pytest.raises(SystemExit):
        settled(argv=["--version"])
    assert re.match(r"llmproxy \d+\.\d+", capsys.readouterr().out)


def test_secrets_are_known_by_their_names_and_by_where_they_were_said(settled):
    text = "[plugins.auth]\nsecret = from-file\nold_secrets = old, older"
    settings = settled(text, environ={"OPENAI_API_KEY": "from-environment"})
    assert [settings.secrets(rank) for rank in (1, 2, 3)] == [["from-file", "old", "older"], ["from-environment"], []]
    argv = ["--openai-api-key", "k1", "--jwt-secret=s2", "--port", "1", "--ollama-base-url", "http://u:p3@h/"]
    assert sorted(settled(text, argv).secrets(3)) == ["http://u:p3@h/", "k1", "s2"]
    assert settled(argv=["--openai-api-key", ""]).secrets(3) == []


def test_variables_with_secrets_are_known_by_their_names_by_their_looks_and_by_who_takes_them(settled):
    environ = {
        "OPENAI_API_KEY": "a",
        "ODD": "b",
        "HOME": "c",
        "HTTPS_PROXY": "http://u:p@h:1",
        "GH_TOKEN": "d",
        "K": "",
    }
    settings = settled("[providers.openai]\nbase_url = http://h\n[plugins.auth]\nsecret = ${ODD}", environ=environ)
    assert settings.secret_variables(environ) == ["OPENAI_API_KEY", "ODD", "HTTPS_PROXY", "GH_TOKEN"]


OWN = {
    "sub": ("", "Who it is for."),
    "ttl": ("24h", "How long."),
    "claim": ((), "More."),
    "new_secret": (False, "Print one."),
}


def test_a_plugins_own_command_is_read_by_a_table_too():
    assert arguments("token", OWN, []) == {"sub": "", "ttl": "24h", "claim": (), "new_secret": False}
    found = arguments("token", OWN, ["--sub", "alice", "--claim", "a=b", "--claim", "c=d", "--new-secret"])
    assert (found["sub"], list(found["claim"]), found["new_secret"]) == ("alice", ["a=b", "c=d"], True)


@pytest.mark.parametrize("argv", [["--sbu", "alice"], ["alice"], ["--sub"], ["--new-secret=1"]])
def test_and_refuses_what_it_does_not_know(argv):
    with pytest.raises(SettingsError):
        arguments("token", OWN, argv)


# the example


def test_the_example_tells_every_option_with_its_help(settled):
    told = "\n".join(words_of(settled(), CLASSES))
    for section in ("server", "providers.openai", "providers.ollama", "plugins.auth", "plugins.quiet", "models"):
        assert f"\n[{section}]\n" in told
    assert "# Guards the door." in told
    assert "# Its key. Environment: OPENAI_API_KEY, OTHER_API_KEY.\n#api_key =\n" in told
    assert "#models = a, b\n" in told
    assert "#timeout = 600.0\n" in told
    assert "#enabled = no\n" in told


def test_the_example_changes_nothing_as_it_is_nor_with_its_comments_taken_off(settled):
    example = "\n".join(words_of(settled(), CLASSES))
    default = settled()
    for text in (example, re.sub(r"(?m)^#(\[|\w+ =)", r"\1", example)):
        settings = settled(text, environ={"GROQ_API_KEY": "k"})
        for section in default.sections:
            assert settings.of(section) == default.of(section)
    assert settings.of("providers.groq")["api_key"] == "k"
    assert settings.aliases["fast"] == ["ollama/llama3.2", "openai/gpt-4o-mini"]


def test_the_example_is_the_same_whatever_the_settings_are(settled):
    text = "[server]\nport = 1\n[providers.groq]\ntype = openai\nbase_url = x\n"
    plain, changed = settled(), settled(text, ["--debug"])
    assert list(words_of(changed, CLASSES)) == list(words_of(plain, CLASSES))


@pytest.mark.parametrize(
    ("value", "text"), [(True, "yes"), (False, "no"), (("a", "b"), "a, b"), ((), ""), (1.5, "1.5")]
)
def test_a_default_is_spelled_as_the_file_would(value, text):
    assert shown(value) == text
    assert converted(text, value, "it") == value
