"""Throws mutated bytes at whatever reads what strangers send, and watches what comes of it.

    python3 tests/fuzz.py --inputs 200000 --seed 1 [--only heads|chunks|jwt|sse|json|answers|house] [--at NUMBER]

Needs nothing but Python itself. An input is told by the name of its target, the seed and its number, and by nothing
else: the same three give the same bytes again, and `--at` tries that one number alone. What is found is printed with
the smallest input that still shows it, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import re
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterable, NamedTuple, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fuzz_answers
import fuzz_house
import fuzz_readers
from fuzz_words import HTTP, JSON, NUMBERS, ODD_OCTETS, STREAMS, TOKENS
from providers import _events

Check = Callable[[bytes], Any]  # raises for an input that is read wrong
Grow = Callable[[random.Random, Sequence[bytes], Sequence[bytes]], bytes]
LARGEST = 200_000  # bytes of an input
WORDS = (re.compile(rb"[A-Za-z][A-Za-z-]+|[0-9]+|[^A-Za-z0-9]+"), re.compile(rb"[0-9]+"))


# mutation


def mutated(rng: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Give a seed in which a few spans were changed; now and then none, or a lot of them."""
    data = rng.choice(seeds)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 6, 9))):
        start, end = span(rng, data)
        data = data[:start] + changed(rng, data[start:end], seeds, words) + data[end:]
    return data[:LARGEST]


def span(rng: random.Random, data: bytes) -> Tuple[int, int]:
    """Choose a place, an octet or a few, a word or a number, a line; rarely all the rest."""
    at = rng.randrange(len(data) + 1)
    ways = (
        lambda: (at, at),
        lambda: (at, at + rng.choice((1, 1, 2, 4, rng.randrange(1, 40)))),
        lambda: rng.choice([word.span() for word in rng.choice(WORDS).finditer(data[:5000])] or [(at, at)]),
        lambda: (data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at) + 1 or len(data)),
        lambda: (at, len(data)),
    )
    return rng.choices(ways, (6, 7, 4, 2, 1))[0]()


def changed(rng: random.Random, was: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Give what stands in the place of a span: often a word that means something to somebody."""
    other = rng.choice(seeds)
    times = rng.choice((2, 2, 2, 3, 4, 10, 150, rng.choice((2, 20_000))))  # rarely so often that it meets a limit
    if was.isdigit() and len(was) < 20 and rng.random() < 0.7:
        return rng.choice((b"%d" % (int(was) + 1), b"%d" % (int(was) - 1), rng.choice(NUMBERS)))
    ways = (
        lambda: rng.choice(words),
        lambda: rng.choice(words),
        lambda: bytes(rng.choices(ODD_OCTETS, k=rng.choice((1, 1, 1, 2, 3)))),
        lambda: other[slice(*span(rng, other))],
        lambda: was[:-1] + bytes(octet ^ 1 << rng.randrange(8) for octet in was[-1:]),
        lambda: (was * times)[: LARGEST // 2],
        lambda: was.swapcase(),
        lambda: b"",
    )
    return rng.choice(ways if was else ways[:4])()


# targets


class Target(NamedTuple):
    """One reader: its share of a hundred inputs, what they grow from, and what gives its check."""

    share: int
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    opened: Callable[[], ContextManager[Check]]
    grown: Grow = mutated


def pure(check: Check) -> Callable[[], ContextManager[Check]]:
    return lambda: contextlib.nullcontext(check)


TARGETS = {
    "heads.request": Target(19, fuzz_readers.REQUESTS, HTTP, pure(fuzz_readers.request_heads)),
    "heads.answer": Target(10, fuzz_readers.ANSWERS, HTTP, pure(fuzz_readers.answer_heads)),
    "chunks": Target(16, fuzz_readers.CHUNKS, HTTP, pure(fuzz_readers.chunked_bodies)),
    "jwt.token": Target(8, fuzz_readers.AUTHORIZATIONS, TOKENS, pure(fuzz_readers.authorizations)),
    "jwt.claims": Target(8, fuzz_readers.SIGNED, TOKENS, pure(fuzz_readers.signed_claims)),
    "sse.events": Target(9, fuzz_readers.EVENTS, STREAMS, pure(partial(fuzz_readers.streamed, _events.sse))),
    "sse.lines": Target(5, fuzz_readers.LINES, STREAMS, pure(partial(fuzz_readers.streamed, _events.ndjson))),
    "json": Target(12, fuzz_readers.BODIES, JSON, pure(fuzz_readers.json_bodies)),
    "answers": Target(5, fuzz_answers.SEEDS, (), fuzz_answers.told, fuzz_answers.misshapen),
    "house.requests": Target(5, fuzz_house.REQUESTS, HTTP, fuzz_house.asked),
    "house.answers": Target(3, fuzz_house.ANSWERS, (*HTTP, *STREAMS), fuzz_house.answered),
}


class Finding(NamedTuple):
    """An input that a reader gets wrong, as small as it could be made."""

    name: str
    seed: int
    number: int
    data: bytes
    error: BaseException

    def __str__(self) -> str:
        why = "".join(traceback.format_exception(type(self.error), self.error, self.error.__traceback__)[-4:])
        data = re.sub(r"(.{1,40}?)\1{9,}", lambda run: f"<{run[1]} x {len(run[0]) // len(run[1])}>", repr(self.data))
        command = f"python3 tests/fuzz.py --only {self.name} --seed {self.seed} --at {self.number}"
        size = len(self.data)
        return f"FOUND, again by: {command}\n{why[:3000]}\nthe smallest input, {size} bytes:\n{data[:3000]}"


def tried(name: str, target: Target, seed: int, numbers: Iterable[int]) -> Optional[Finding]:
    """Try inputs until one is found that its reader gets wrong."""
    with target.opened() as check:
        for at in numbers:
            data = target.grown(random.Random(f"{name} {seed} {at}"), target.seeds, target.words)
            error = failure(check, data)
            if error is not None:
                small = shrunk(data, lambda part: failure(check, part) is not None)
                return Finding(name, seed, at, small, failure(check, small) or error)
    return None


def failure(check: Check, data: bytes) -> Optional[BaseException]:
    try:
        check(data)
    except Exception as error:
        return error
    return None


def shrunk(data: bytes, fails: Callable[[bytes], bool], seconds: float = 20.0) -> bytes:
    """Leave out what can be left out, in ever smaller pieces; greedy, and not for ever."""
    deadline = time.monotonic() + seconds
    size = len(data) // 2
    while size:
        at, before = 0, len(data)
        while at < len(data) and time.monotonic() < deadline:
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        if len(data) == before or size > 1:
            size //= 2
    return data


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="one of " + ", ".join(TARGETS) + ", or what stands before its dot")
    parser.add_argument("--at", type=int, help="try the input of this number alone")
    asked = parser.parse_args(argv)
    chosen = {name: row for name, row in TARGETS.items() if asked.only in ("", name, name.partition(".")[0])}
    if not chosen:
        parser.error(f"--only {asked.only}: there is no such target")
    shares = sum(row.share for row in chosen.values())
    began, inputs, found = time.monotonic(), 0, 0
    for name, target in chosen.items():
        numbers = range(-(-asked.inputs * target.share // shares)) if asked.at is None else [asked.at]
        started = time.monotonic()
        finding = tried(name, target, asked.seed, numbers)
        print(f"{name}: {len(numbers)} inputs, {time.monotonic() - started:.1f} s", finding or "", flush=True)
        inputs, found = inputs + len(numbers), found + bool(finding)
    print(f"seed {asked.seed}: {inputs} inputs, {found} found, {time.monotonic() - began:.0f} s")
    return min(found, 1)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # what is refused is told in warnings, a great many of them
    sys.exit(main())
