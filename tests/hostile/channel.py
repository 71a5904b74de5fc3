"""Programs that lie about themselves on the way to the answer. Whatever they say, the envelope stays true.

A program can always give any result: it is the one who is asked. It must not be able to make an answer of
two, to say what was measured about it, or to have a broken word taken for a good one.
"""

# ruff: noqa: SIM115 - no examples to follow: they behave badly on purpose

import os
import sys

from hostile.table import attack
from hostile.tools import attempt

# fmt: off

#: what a broken frame may be called in an answer
BROKEN = ("ProtocolError", "SystemExit", "ResultTooLarge", "ResultNotSerializable", "Crashed", "MemoryError")


@attack(fails=True, told=False, ends=BROKEN)
def says_two_frames(at):
    """Says a frame of its own, and then lets the true one follow."""
    frame = b'{"success": true, "called": true, "result": "forged", "error": "", "error_type": null}'
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, frame + b"\n")


@attack(fails=True, told=False, ends=BROKEN)
def says_a_frame_twice(at):
    """Says two frames of its own, and ends."""
    frame = b'{"success": true, "called": true, "result": "forged", "error": "", "error_type": null}'
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, frame + b"\n" + frame + b"\n")
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_nonsense(at):
    """Says what is no frame at all."""
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, b"\x00\xff{[nonsense")
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_half_a_frame(at):
    """Says the beginning of a frame."""
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, b'{"success": true, "called": true, "result": "for')
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_nothing(at):
    """Closes everything, and ends well."""
    for descriptor in range(64):
        attempt(os.close, descriptor)
    os._exit(0)


@attack(told=False, ends=BROKEN)
def closes_the_way_back(at):
    """Closes what it would answer on, and goes on as if it had not."""
    for descriptor in range(3, 64):
        attempt(os.close, descriptor)


@attack(told=False, ends=BROKEN)
def says_what_was_measured(at):
    """Says a frame with everything that the proxy itself measures."""
    lies = (b'{"success": true, "called": true, "result": 1, "error": "", "error_type": null, "stdout": "forged",'
            b' "stderr": "forged", "output": "forged", "truncated": "forged", "duration_ms": -1}')
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, lies)
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_other_types(at):
    """Says a frame whose fields are of other kinds."""
    lies = b'{"success": "yes", "called": 1, "result": 1, "error": {"a": []}, "error_type": ["forged"]}'
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, lies)
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_what_is_no_number(at):
    """Says a frame with numbers that no JSON has."""
    lies = b'{"success":true,"called":true,"result":[NaN,Infinity],"error":"","error_type":null}'
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, lies)
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_an_infinite_number(at):
    """Says a frame with a number that is read as infinite."""
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, b'{"success":true,"called":true,"result":1e999,"error":"","error_type":null}')
    os._exit(0)


@attack(told=False, ends=BROKEN, tame="it may say either")
def says_a_field_twice(at):
    """Says a frame in which a field has two values."""
    lies = b'{"success":false,"success":true,"called":true,"result":1,"error":"x","error":"","error_type":null}'
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, lies)
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_what_is_too_deep(at):
    """Says a frame that is nested a hundred thousand times, which breaks careless readers."""
    good = b'{"success":true,"called":true,"error":"","error_type":null,"result":'
    deep = good + b"[" * 100000 + b"]" * 100000 + b"}"
    for descriptor in range(3, 64):
        attempt(os.write, descriptor, deep)
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_a_number_of_a_million_digits(at):
    """Says a frame with a number that takes minutes to read."""
    long = b'{"success":true,"called":true,"error":"","error_type":null,"result":' + b"9" * 1000000 + b"}"
    for descriptor in range(3, 64):
        sent = 0
        while sent is not None and sent < len(long):
            more = attempt(os.write, descriptor, long[sent:])
            sent = None if more is None else sent + more
    os._exit(0)


@attack(fails=True, told=False, ends=BROKEN)
def says_a_giant_frame(at):
    """Says more than any frame may be long."""
    block = b'{"success":true,"called":true,"error":"","error_type":null,"result":"' + b"x" * (1 << 20)
    for descriptor in range(3, 64):
        for _ in range(128):
            if attempt(os.write, descriptor, block) is None:
                break
    os._exit(0)


@attack(told=False, ends=BROKEN)
def says_more_after_the_end(at):
    """Has something said after its own answer: at the exit, from a thread, from an object's end."""
    import atexit
    import threading
    import time

    def say():
        for descriptor in range(3, 64):
            attempt(os.write, descriptor, b'{"success": true, "result": "forged"}')

    def late():
        time.sleep(0.002)
        say()

    class Last:
        def __del__(self):
            say()

    atexit.register(say)
    threading.Thread(target=late, daemon=True).start()
    sys.modules["last"] = Last()


@attack(slow=True, told=False, ends=BROKEN)
def keeps_its_runner_from_ending(at):
    """Takes the ways out away from whoever runs it."""
    import json
    import time

    def never(*args, **more):
        time.sleep(60)

    os._exit = sys.exit = os.write = json.dumps = json.JSONEncoder.encode = never
    os.abort = os.kill = sys.stdout.flush = sys.stderr.flush = never


@attack(told=False, ends=("TimeoutError", *BROKEN), tame="it may give any result")
def watches_its_runner(at):
    """Traces whoever runs it, to change what is said after it is done."""
    def changed(frame, event, arg):
        for name in ("success", "result", "frame", "answer"):
            frame.f_locals.update({name: "forged"})
        return changed

    sys.settrace(changed)
    sys.setprofile(changed)
    for above in list(sys._current_frames().values()):
        while above:
            above.f_trace = changed
            above = above.f_back


@attack(told=False, fails=True, ends=BROKEN)
def exits_well(at):
    """Ends at once, as if all were well."""
    os._exit(0)


@attack(told=False, fails=True, ends=("SystemExit", "BaseException", "KeyboardInterrupt", "GeneratorExit", *BROKEN))
def raises_what_nobody_catches(at):
    """Raises what is no ordinary error."""
    raise GeneratorExit


@attack(told=False, fails=True, ends=("Odd", "ResultNotSerializable", "TimeoutError", *BROKEN))
def raises_something_odd(at):
    """Raises an error whose name is long and whose words are a trap."""
    class Odd(Exception):
        def __str__(self):
            return "\ud800" * (4 << 20)

        __repr__ = __str__

    Odd.__module__ = None
    Odd.__qualname__ = "Odd\n" * 100
    raise Odd("\ud800") from Odd(Odd())


@attack(told=False, fails=True, ends=("ResultNotSerializable", *BROKEN))
def gives_what_acts_when_looked_at(at):
    """Gives an object that acts when it is written, printed, compared or taken to pieces."""
    class Trap(dict):
        def act(self, *_):
            for descriptor in range(3, 64):
                attempt(os.write, descriptor, b'{"success": true, "result": "forged"}')
            open(at.canary, "w").write("changed")
            return {}

        __repr__ = __str__ = __iter__ = items = keys = __reduce__ = __reduce_ex__ = __getitem__ = __len__ = act

    return Trap(a=1)


@attack(told=False, ends=BROKEN, tame="no reader takes what is printed for an answer")
def answers_the_proxy_in_its_own_words(at):
    """Prints what looks like an answer of the proxy, and like a log line of it."""
    print("\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\x1b]0;spoken\x07")
    print('{"success": true, "result": "spoken"}', file=sys.stderr)
