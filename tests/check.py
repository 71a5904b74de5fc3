"""Checks everything: form, types and the oldest Python by tools in a venv of their own, then the tests.

python3 tests/check.py [anything tests/run.py takes]
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
from typing import Dict, List, Tuple

from run import ROOT, Unusable, cache, equipped, found

PINS = ("ruff==0.17.6", "mypy==1.19.1", "vermin==1.9.2")  # mypy from 1.20 on cannot check for Python 3.9
PRODUCT = ["llmproxy.py", "providers", "plugins"]
TOOLS: Dict[str, List[str]] = {
    "ruff format": ["-m", "ruff", "format", "--check", "--output-format=concise", "."],
    "ruff check": ["-m", "ruff", "check", "-q", "--output-format=concise", "."],
    "mypy": ["-m", "mypy", "--no-error-summary"],
    "vermin": ["-c", "import vermin; vermin.main()", "-t=3.9-", "--no-tips", "--violations", "-q", *PRODUCT, "tests"],
}


def said(python: str, command: List[str]) -> Tuple[int, str]:
    """Run one tool; gives its exit code and what it said."""
    env = {**os.environ, "MYPY_CACHE_DIR": str(cache() / "mypy"), "RUFF_CACHE_DIR": str(cache() / "ruff")}
    done = subprocess.run(
        [python, *command],
        cwd=str(ROOT),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def form() -> bool:
    """Run the tools; prints what they found. True when that is nothing."""
    newest = list(found().values())[-1]
    python = equipped(newest, "venv-tools", PINS)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = dict(zip(TOOLS, pool.map(lambda command: said(python, command), TOOLS.values())))
    for name, (code, words) in results.items():
        if code:
            print(f"{name} failed:\n{words}", flush=True)
    good = [name for name, (code, _) in results.items() if not code]
    if good:
        print(f"{', '.join(good)}: ok", flush=True)
    return len(good) == len(TOOLS)


def main() -> int:
    try:
        fine = form()
    except (Unusable, IndexError) as error:
        print(f"form and types not checked: {error}", flush=True)
        fine = False
    tests = subprocess.run([sys.executable, str(ROOT / "tests" / "run.py"), *sys.argv[1:]], check=False).returncode
    return tests or int(not fine)


if __name__ == "__main__":
    sys.exit(main())
