"""Runs the tests on every Python from 3.9 to 3.14 that is here, each in a venv of its own.

    python3 tests/run.py [--python 3.9] [anything pytest takes]

Needs nothing but Python itself. The venvs are made when they are missing, in `.cache/` of the tree, in
`$LLMPROXY_TEST_CACHE`, or in the user's cache when the tree cannot be written. Nothing is installed
anywhere else. Prints a line per Python, failures in full once, and the sum at the end.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
MINORS = range(9, 15)
PINS = ("pytest==8.4.2", "responses==0.26.0")
LONGEST = 700  # seconds the tests may take on one Python

PLACES = (
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
    "~/.local/share/mise/installs/python/*/bin",
    "~/.asdf/installs/python/*/bin",
    "~/.local/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/opt/*/bin",
    "/opt/*/*/bin",
    "/opt/homebrew/opt/python@3*/bin",
    "/Library/Frameworks/Python.framework/Versions/3*/bin",
    "~/AppData/Local/Programs/Python/Python3*",
)
PROBE = (
    "import importlib.util as u, json, sys\n"
    "has = lambda *names: all(u.find_spec(name) for name in names)\n"
    "print(json.dumps([sys.version_info[:2], sys.version_info[3] == 'final',"
    " has('venv', 'ensurepip'), has('pytest', 'responses')]))"
)


class Python(NamedTuple):
    """An interpreter that runs."""

    path: str
    version: str  # "3.9"
    final: bool  # not a pre-release
    makes_venvs: bool
    has_packages: bool  # pytest and responses, installed by somebody


class Result(NamedTuple):
    """What pytest said on one Python."""

    python: Python
    output: str
    counts: Dict[str, int]
    seconds: float
    trouble: Optional[Unusable] = None  # why there is no result

    @property
    def failed(self) -> int:
        return self.counts.get("failed", 0) + self.counts.get("error", 0)


class Unusable(Exception):
    """A Python on which nothing can be run: why, and what to do about it."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


# which Pythons are here


def candidates() -> Iterator[str]:
    """Name everything that could be one of our Pythons, the likeliest first, each once."""
    seen = set()
    folders = [folder for place in PLACES for folder in sorted(glob.glob(os.path.expanduser(place)), reverse=True)]
    names = [f"python3.{minor}" for minor in MINORS] + ["python3", "python"]
    named = (os.path.join(folder, name) for folder in [*folders, *os.get_exec_path()] for name in names)
    for path in (sys.executable, *named):
        real = os.path.realpath(shutil.which(path) or "") if path else ""
        if real and real not in seen and os.path.isfile(real):
            seen.add(real)
            yield path


def probed(path: str) -> Optional[Python]:
    """Start it and ask what it is; None when it does not run."""
    try:
        said = subprocess.run(
            [path, "-c", PROBE], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True, cwd=str(ROOT)
        )
        (major, minor), final, makes_venvs, has_packages = json.loads(said.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Python(path, f"{major}.{minor}", final, makes_venvs, has_packages)


def found() -> Dict[str, Python]:
    """Give the best Python of each version that is here, by version, oldest first."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [python for python in pool.map(probed, candidates()) if python]
    wanted = [f"3.{minor}" for minor in MINORS]
    by_version: Dict[str, Python] = {}
    for version in wanted:
        of_it = [python for python in running if python.version == version]
        if of_it:
            by_version[version] = max(
                of_it, key=lambda p: (p.final, p.makes_venvs, p.has_packages)
            )  # the first of equals
    return by_version


# a venv for each


def cache() -> Path:
    """Give the folder the venvs live in."""
    given = os.environ.get("LLMPROXY_TEST_CACHE")
    users = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "llmproxy-tests"
    for folder in [Path(given)] if given else [ROOT / ".cache", users, Path(tempfile.gettempdir()) / "llmproxy-tests"]:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder.resolve()
    raise Unusable("no folder to keep venvs in can be written: set LLMPROXY_TEST_CACHE to one that can")


def in_venv(folder: Path) -> str:
    """Give the interpreter of a venv."""
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def equipped(python: Python, name: str, pins: Tuple[str, ...]) -> str:
    """Give an interpreter with these packages: a venv's, made when there is none that fits.

    A venv is made beside its place and put there when it is whole, so that two runs at once, or one
    that is interrupted, leave none that is half made.
    """
    home = cache() / name
    stamp = json.dumps([os.path.realpath(python.path), *pins])
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if (home / "stamp").read_text("utf-8") == stamp:
            subprocess.run([in_venv(home), "-c", ""], check=True, capture_output=True, timeout=30)
            return in_venv(home)
    making = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=str(home.parent)))
    try:
        made([python.path, "-m", "venv", str(making)], python)
        made([in_venv(making), "-m", "pip", "install", "-q", "--prefer-binary", *pins], python)
        (making / "stamp").write_text(stamp, "utf-8")
        if home.exists():
            shutil.rmtree(home, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run was faster: its venv is as good
            making.rename(home)
        return in_venv(home)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def made(command: List[str], python: Python) -> None:
    """Run one step of the making; raises Unusable with what to do."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        subprocess.run(command, env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", b"") or b"") + (getattr(error, "output", b"") or b"")
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        raise unusable(python, command, lines) from error


def unusable(python: Python, command: List[str], lines: List[str]) -> Unusable:
    """Say what went wrong and what helps."""
    if "venv" in command:
        last = "ensurepip is missing" if not python.makes_venvs else (lines or ["no reason given"])[-1].strip()
        return Unusable(
            f"{python.path} cannot make a venv: {last}",
            f"install what it lacks (on Debian or Ubuntu `apt install python{python.version}-venv`)",
        )
    last = next((line.strip() for line in reversed(lines) if "ERROR" in line), "pip failed or took too long")
    return Unusable(
        f"pip could not install what is needed: {last[:200]}",
        f"with no network, put the wheels of {' and '.join(PINS)} in a folder "
        "and set PIP_NO_INDEX=1 PIP_FIND_LINKS=folder; behind a proxy, set HTTPS_PROXY",
    )


def runner(python: Python) -> str:
    """Give the interpreter that runs the tests; one that has what they need already will do when no venv can be had."""
    try:
        return equipped(python, f"venv-{python.version}", PINS)
    except Unusable:
        if python.has_packages:
            return python.path
        raise


# the tests


#: names the marks of tests that are left to other Pythons of the same run: they try the kernel or the wire
LEAVE = "LLMPROXY_TESTS_LEAVE"


def left_to_others(python: Python, pythons: List[Python]) -> str:
    """Name the marks that are for other Pythons: `newest`, and `outermost` for the oldest and the newest."""
    if python == pythons[-1]:
        return ""
    return "newest" if python == pythons[0] else "newest outermost"


def tested(python: Python, args: List[str], leave: str = "") -> Result:
    """Run pytest on one Python."""
    start = time.monotonic()
    try:
        command = [runner(python), "-m", "pytest", "-q", "--color=no", "--tb=short", "-rfEs"]
        command += ["-o", f"cache_dir=.cache/pytest-{python.version}", *args]
    except Unusable as error:
        return Result(python, "", {}, 0, error)
    with tempfile.TemporaryFile() as out:
        try:
            code = subprocess.run(
                command,
                cwd=str(ROOT),
                env={**os.environ, LEAVE: leave},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=LONGEST,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        out.seek(0)
        output = out.read().decode("utf-8", "replace")
    counts = counted(output)
    nothing_failed = not counts.get("failed") and not counts.get("error")
    if nothing_failed and (code not in (0, 5) or (code == 5 and not narrowed(args))):
        counts["failed"] = 1  # it broke, was interrupted, or found no tests at all
        output += f"\npytest ended with {code}\n" if code != -1 else f"\npytest took more than {LONGEST} s\n"
    return Result(python, output, counts, time.monotonic() - start)


def one_of(pythons: List[Python], args: List[str], python: Python) -> Result:
    return tested(python, args, left_to_others(python, pythons))


def narrowed(args: List[str]) -> bool:
    """Tell whether somebody chose among the tests, so that none at all may be meant."""
    return any(arg.startswith(("-k", "-m", "--lf")) for arg in args)


def counted(output: str) -> Dict[str, int]:
    """Read pytest's last line: `1 failed, 2 passed in 0.1s`."""
    for line in reversed(output.splitlines()):
        if re.search(r" in [0-9.]+s\b", line):
            return {name.rstrip("s"): int(n) for n, name in re.findall(r"(\d+) (passed|failed|errors?|skipped)", line)}
    return {}


def told(result: Result, known: Dict[str, str]) -> None:
    """Print one Python's line, and what failed there unless it failed on another one before."""
    counts = result.counts
    failed: List[str] = re.findall(r"^(?:FAILED|ERROR) (\S+)", result.output, re.MULTILINE)
    line = f"{counts.get('passed', 0)} passed" + (f", {result.failed} failed" if result.failed else "")
    line += f", {counts['skipped']} skipped" if counts.get("skipped") else ""
    print(f"Python {result.python.version:5} {line} in {result.seconds:.0f} s", flush=True)
    if not result.failed:
        return
    if failed and all(name in known for name in failed):
        more = [f"  and {len(failed) - 5} more that are told above"] if failed[5:] else []
        print("\n".join([*(f"  as on {known[name]}: {name}" for name in failed[:5]), *more]), flush=True)
        return
    known.update((name, result.python.version) for name in failed if name not in known)
    start = re.search(r"^=+ (FAILURES|ERRORS) =+$", result.output, re.MULTILINE)
    print(result.output[start.start() :] if start else result.output, flush=True)


def summed(results: List[Result]) -> int:
    """Print what was left out and why, and the last line; give the exit code."""
    for remedy in sorted({result.trouble.remedy for result in results if result.trouble and result.trouble.remedy}):
        print(f"to test there too: {remedy}")
    skips = {m for r in results for m in re.findall(r"^SKIPPED \[\d+\] (.*)$", r.output, re.MULTILINE)}
    for reason in sorted(
        {re.sub(r"^.*: (?=tries the )", "", skip) for skip in skips}
    ):  # those are many, for one reason
        print(f"skipped: {reason}")
    passed, skipped = (sum(result.counts.get(of, 0) for result in results) for of in ("passed", "skipped"))
    failed = sum(result.failed for result in results)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or all(result.trouble for result in results) else 0


def rooted(args: List[str]) -> List[str]:
    """Make the paths among the arguments good for any folder; with none among them, all tests are meant."""
    out, named = [], False
    for arg in args:
        path, colons, rest = arg.partition("::")
        if not arg.startswith("-") and os.path.exists(path):
            out.append(os.path.abspath(path) + colons + rest)
            named = True
        else:
            out.append(arg)
    return out if named else [*out, str(ROOT / "tests")]


def chosen(here: Dict[str, Python], wanted: List[str]) -> List[Python]:
    """Give the Pythons to run on; raises Unusable for one that was asked for and is not here."""
    if not wanted:
        return list(here.values())
    out = []
    for name in wanted:
        python = here.get(name) or (probed(name) if os.path.exists(name) else None)
        if python is None:
            raise Unusable(f"Python {name} is not here; found: {' '.join(here) or 'none'}")
        out.append(python)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests/run.py", allow_abbrev=False, description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--python", action="append", default=[], metavar="3.X", help="only on this one; may be repeated"
    )
    options, args = parser.parse_known_args()
    here = found()
    missing = [f"3.{minor}" for minor in MINORS if f"3.{minor}" not in here]
    try:
        pythons = chosen(here, options.python)
    except Unusable as error:
        print(error)
        return 2
    if not options.python:
        print(f"found Python {' '.join(here)}" + (f"; not here: {' '.join(missing)}" if missing else ""), flush=True)
    results: List[Result] = []
    known: Dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(2 if (os.cpu_count() or 1) > 1 else 1) as pool:
        longest_first = [*pythons[-1:], *pythons[:-1]]
        run = functools.partial(one_of, pythons, rooted(args))
        for result in pool.map(run, longest_first):
            results.append(result)
            if result.trouble:
                print(f"Python {result.python.version:5} not tested: {result.trouble}", flush=True)
            else:
                told(result, known)
    code = summed(results)
    return 1 if options.python and any(result.trouble for result in results) else code


if __name__ == "__main__":
    sys.exit(main())
