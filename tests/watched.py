"""A copy of the program in which nobody waits unseen where all wait together: in the loop."""

from __future__ import annotations

import shutil
from pathlib import Path

from houses import ROOT

#: what is logged when somebody does, and where
BLOCKED = "blocked the loop"

WATCHMAN = f'''"""Tells when somebody waits in the loop."""

import logging
import threading

from providers import Scope

from . import Plugin

wait = Scope.wait


def watched(scope, sock, seconds, **more):
    if scope.client is not None and threading.current_thread() is threading.main_thread():
        logging.getLogger("llmproxy").error("{BLOCKED}", stack_info=True, exc_info=RuntimeError("{BLOCKED}"))
    return wait(scope, sock, seconds, **more)


class Watchman(Plugin):
    blocks = False

    def start(self, *, guarded):
        Scope.wait = watched
'''


def watched(folder: Path) -> Path:
    """Copy the program, with a watchman in it; gives what to run."""
    folder.mkdir(exist_ok=True)
    for name in ("providers", "plugins"):
        shutil.copytree(str(ROOT / name), str(folder / name), ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(str(ROOT / "llmproxy.py"), str(folder))
    (folder / "plugins" / "watchman.py").write_text(WATCHMAN, "utf-8")
    return folder / "llmproxy.py"
