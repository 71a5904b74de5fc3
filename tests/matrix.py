#!/usr/bin/env python3
"""What works between every dialect and every provider: asks a house before strict stand-ins, and prints a table.

`python3 tests/matrix.py` prints the table as the README has it, `-v` tells how long the slowest took. A cell that
cannot be has its reason in `IMPOSSIBLE`; any other that is not proven is a failure, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

from conversations import PNG, TOOLS, image, message, result, user, wish
from dialects import JSON, Client, Said, own
from dialects.anthropic import Anthropic
from dialects.gemini import Gemini
from dialects.ollama import Ollama
from dialects.openai import OpenAI
from dialects.responses import Responses
from houses import House
from strict import anthropic, gemini, lmstudio, ollama, openai, voyage
from upstream import Asked, Reply, Upstream
from watched import BLOCKED, watched

DIALECTS: Sequence[Type[Client]] = (OpenAI, Responses, Anthropic, Gemini, Ollama)
LETTERS = {"openai": "C", "responses": "R", "anthropic": "A", "gemini": "G", "ollama": "L"}


class Column(NamedTuple):
    """A provider: its models for what is asked of it."""

    title: str
    model: str
    thinks: str
    sees: str
    embeds: str


COLUMNS: Mapping[str, Column] = {
    "openai": Column("OpenAI", "gpt-4o", "gpt-6-sol", "gpt-4o", "text-embedding-3-small"),
    "anthropic": Column("Anthropic", *["claude-haiku-4-5-20251001"], "claude-opus-5-5", "claude-opus-5-5", "claude-x"),
    "gemini": Column("Gemini", "gemini-2.5-flash", *["gemini-3.8-flash"] * 2, "gemini-embedding-001"),
    "ollama": Column("Ollama", "llama3.2:latest", "qwen3:8b", "llava:7b", "embeddinggemma"),
    "lmstudio": Column("LM Studio", *["qwen/qwen3-8b"] * 3, "text-embedding-nomic-embed-text-v1.5"),
}
INI = """
[providers.openai]
base_url = {openai}/v1
api_key = sk-house
responses_models = gpt-6
retries = 0
[providers.anthropic]
base_url = {anthropic}
api_key = sk-ant-house
retries = 0
[providers.gemini]
base_url = {gemini}
api_key = AIza-house
retries = 0
[providers.ollama]
base_url = {ollama}
retries = 0
[providers.lmstudio]
base_url = {lmstudio}
retries = 0
[providers.voyage]
base_url = {voyage}
api_key = pa-house
[plugins.rate_limit]
enabled = no
[plugins.execute]
enabled = no
"""
STAND_INS = {"openai": openai, "anthropic": anthropic, "gemini": gemini, "ollama": ollama, "lmstudio": lmstudio}

NO_STOP = "the Responses API has no stop sequences"
NO_EMBEDDINGS = "the API has no embeddings"
#: (dialect, capability) -> why it cannot be
IMPOSSIBLE: Mapping[Tuple[str, str], str] = {
    ("responses", "stop sequence"): NO_STOP,
    ("responses", "embeddings"): NO_EMBEDDINGS,
    ("anthropic", "embeddings"): NO_EMBEDDINGS,
}


# the world


def broken_off(reply: Reply) -> Reply:
    """Give the first half of a stream, and a cut."""
    assert not isinstance(reply.body, bytes)
    lines = [line for line in reply.body if isinstance(line, bytes)]
    return reply._replace(body=lines[: len(lines) // 2], cut=True)


def stalling(reply: Reply) -> Reply:
    """Give the first half of a stream, and then nothing for long."""
    assert not isinstance(reply.body, bytes)
    lines = [line for line in reply.body if isinstance(line, bytes)]
    return reply._replace(body=[*lines[: len(lines) // 2], 30.0])


class Moody(Upstream):
    """A strict stand-in that breaks off or stalls when a question says so."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        self._strictly = answer
        super().__init__(self._moody)

    def _moody(self, asked: Asked) -> Reply:
        reply = self._strictly(asked)
        for word, change in ((b"SNAPPING", broken_off), (b"STALLING", stalling)):
            reply = change(reply) if word in asked.body else reply
        return reply


class World(NamedTuple):
    house: House
    ups: Mapping[str, Upstream]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Bring a house up before all stand-ins."""
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        ups = {name: Moody(module.answer) for name, module in STAND_INS.items()}
        made = {**ups, "voyage": Upstream(voyage.answer)}
        for up in made.values():
            stack.callback(up.close)
        ini = INI.format(**{name: up.url for name, up in made.items()})
        house = House(Path(folder), ini, {}, (), watched(Path(folder) / "copy"))
        stack.callback(house.stop)
        yield World(house, ups)
        assert BLOCKED not in house.log, house.log


class Cell(NamedTuple):
    """A dialect's client and a provider."""

    client: Client
    provider: str
    up: Upstream

    @property
    def column(self) -> Column:
        return COLUMNS[self.provider]

    def ask(self, text: str, model: str = "", *, stream: bool = False, **more: Any) -> Said:
        """Ask for an answer that has to be a good one."""
        said = self.client.chat(self.chat([user(text)], model, **more), stream=stream)
        assert (said.status, said.error, said.ended) == (200, "", True), said
        return said

    def chat(self, messages: List[JSON], model: str = "", **more: Any) -> JSON:
        return {"model": f"{self.provider}/{model or self.column.model}", "messages": messages, **more}


# what can be asked


def chats(cell: Cell) -> None:
    said = cell.ask("Hello there.")
    assert ("Hello there." in said.text, said.finish, said.calls) == (True, "stop", ()), said


def streams(cell: Cell) -> None:
    said = cell.ask("Hello there.", stream=True)
    assert ("Hello there." in said.text, said.finish, said.calls) == (True, "stop", ()), said
    assert said.text == cell.ask("Hello there.").text


def is_told_by_the_system(cell: Cell) -> None:
    told = cell.chat([message("system", "Speak Gaelic."), user("Hello.")])
    assert cell.client.chat(told).status == 200
    assert b"Speak Gaelic." in cell.up.asked[-1].body


def remembers_turns(cell: Cell) -> None:
    first = cell.ask("My name is Ada.")
    said = cell.client.chat(cell.chat([user("My name is Ada."), own(first), user("What is it?")]))
    assert "What is it?" in said.text, said
    body = cell.up.asked[-1].body
    assert b"My name is Ada." in body
    assert first.text.encode() in body


def calls(cell: Cell) -> None:
    said = cell.ask(f"Please {wish('clock', {'zone': 'UTC'})}", **TOOLS)
    assert [call[1:] for call in said.calls] == [("clock", {"zone": "UTC"})], said
    assert said.finish == "tool_calls", said


RAIN = {"city": "Zürich 🌧", "days": [1, 2.5, None, True], "at": {"": ""}}
TWO = [("getWeather", RAIN), ("clock", {"zone": "CET"})]
BOTH = f"Please {wish(*TWO[0])} and {wish(*TWO[1])}"


def calls_in_parallel(cell: Cell) -> None:
    assert [call[1:] for call in cell.ask(BOTH, **TOOLS).calls] == TWO


def calls_in_a_stream(cell: Cell) -> None:
    said = cell.ask(BOTH, stream=True, **TOOLS)
    assert ([call[1:] for call in said.calls], said.finish) == (TWO, "tool_calls"), said


ROUNDS = [TWO, [("clock", {"zone": "UTC"})], [*TWO, ("ping", {})]]
WISHES = " then ".join("please think and " + " and ".join(wish(*call) for call in calls) for calls in ROUNDS)


def goes_three_rounds(cell: Cell, *, stream: bool = False) -> None:
    """Lead a loop of tools with parallel calls and reasoning; each turn comes back as this client keeps it."""
    messages = [user(f"{stream} {WISHES}")]
    chat = {**cell.chat(messages, cell.column.thinks, **TOOLS), "reasoning_effort": "high"}
    for wanted in ROUNDS:
        said = cell.client.chat(chat, stream=stream)
        assert (said.status, said.error, said.ended) == (200, "", True), said
        assert [call[1:] for call in said.calls] == wanted, said
        messages += [own(said), *(result(id_, f"it is {at}") for at, (id_, _, _) in enumerate(said.calls))]
    said = cell.client.chat(chat, stream=stream)
    assert (said.status, said.finish) == (200, "stop"), said
    assert said.text.startswith("results: "), said
    assert all(f"it is {at}" in said.text for at in range(3)), said


def goes_three_rounds_streaming(cell: Cell) -> None:
    goes_three_rounds(cell, stream=True)


def sees(cell: Cell) -> None:
    asked = cell.chat([user("What is this?", image("image/png", PNG))], cell.column.sees)
    said = cell.client.chat(asked)
    assert (said.status, "What is this?" in said.text) == (200, True), said
    data = asked["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2]
    assert data.encode() in cell.up.asked[-1].body.replace(b"\\/", b"/")


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "sure": {"type": "boolean"}},
    "required": ["city", "sure"],
    "additionalProperties": False,
}


def keeps_a_schema(cell: Cell) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}
    said = cell.ask("Is it sure?", cell.column.sees if cell.provider != "ollama" else "", response_format=format_)
    assert json.loads(said.text) == {"city": "", "sure": False}, said


def thinks(cell: Cell) -> None:
    for stream in (False, True):
        said = cell.ask("Please think about it.", cell.column.thinks, stream=stream, reasoning_effort="high")
        assert said.reasoning, said
        assert "Please think about it." in said.text, said


def ends_for_length(cell: Cell) -> None:
    for stream in (False, True):
        said = cell.ask("Go to any length now.", stream=stream, max_tokens=16)
        assert said.finish == "length", said


def ends_at_a_stop(cell: Cell) -> None:
    said = cell.ask("One HALT two.", stop=["HALT"])
    assert "One" in said.text, said
    assert cell.up.asked[-1].body.count(b"HALT") == 2, "not every stand-in stops there, but each has to be told"


def tells_what_it_cost(cell: Cell) -> None:
    whole, streamed = cell.ask("Count these words."), cell.ask("Count these words.", stream=True)
    assert whole.usage == streamed.usage, (whole, streamed)
    assert min(whole.usage) > 0, whole


#: status of the upstream -> statuses that may come of it, in any dialect
TROUBLES = {401: (401, 502), 403: (403,), 404: (404,), 429: (429,), 500: (500, 502), 503: (503, 529)}


def words_trouble(cell: Cell) -> None:
    for status, expected in TROUBLES.items():
        for stream in (False, True):
            said = cell.client.chat(cell.chat([user(f"error {status}")]), stream=stream)
            assert said.status in expected, (status, said)
            assert said.error, said


def refuses_bad_questions(cell: Cell) -> None:
    said = cell.client.chat(cell.chat([user("Hello.")], temperature="hot"))
    assert (said.status, bool(said.error)) == (400, True), said
    said = cell.client.chat({**cell.chat([user("Hello.")]), "model": "nobody/nothing"})
    assert (said.status, "nobody/nothing" in said.error) == (404, True), said


def does_not_hide_a_break(cell: Cell) -> None:
    said = cell.client.chat(
        cell.chat([user("Please think of SNAPPING strings and tell me of many of them.")]), stream=True
    )
    assert (said.status, said.ended, bool(said.error)) == (200, False, True), said


class Overheard(Exception):
    pass


class Listening:
    """Stands in for a house to hear what a client would ask it."""

    def ask(self, *asked: Any) -> None:
        raise Overheard(*asked)


def frees_the_upstream(cell: Cell) -> None:
    """Leave in the middle of a stream."""
    client = type(cell.client)(Listening(), cell.client.headers)
    try:
        client.chat(cell.chat([user("Tell me of STALLING engines at some length.")]), stream=True)
    except Overheard as overheard:
        asked = overheard.args
    before = cell.up.connections
    with cell.client.house.open(*asked) as answer:
        assert answer.status == 200
        answer.read(1)
    deadline = time.monotonic() + 2
    while cell.up.connections > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cell.up.connections <= before, "the upstream is still held"


def embeds(cell: Cell) -> None:
    texts, model = ["lantern", "rope", "a third"], f"{cell.provider}/{cell.column.embeds}"
    vectors = cell.client.embed(model, texts)
    told = cell.client.house.ask("POST", "/llm", {"type": "embeddings", "model": model, "input": texts}).json["data"]
    assert len(vectors) == len(texts)
    for vector, item in zip(vectors, told):
        assert all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) for a, b in zip(vector, item["embedding"]))
        assert len(vector) == len(item["embedding"])


def lists_models(cell: Cell) -> None:
    models = cell.client.models()
    assert f"{cell.provider}/{cell.column.thinks}" in models, models


CAPABILITIES: Mapping[str, Callable[[Cell], None]] = {
    "chat": chats,
    "stream": streams,
    "system": is_told_by_the_system,
    "turns": remembers_turns,
    "tool call": calls,
    "parallel tool calls": calls_in_parallel,
    "tool calls, streamed": calls_in_a_stream,
    "3 rounds of tools, reasoning on": goes_three_rounds,
    "3 rounds of tools, streamed": goes_three_rounds_streaming,
    "images": sees,
    "JSON schema": keeps_a_schema,
    "reasoning": thinks,
    "length limit": ends_for_length,
    "stop sequence": ends_at_a_stop,
    "usage": tells_what_it_cost,
    "upstream errors (6 kinds)": words_trouble,
    "bad requests": refuses_bad_questions,
    "broken stream": does_not_hide_a_break,
    "cancel": frees_the_upstream,
    "embeddings": embeds,
    "models": lists_models,
}


# the table


class Proof(NamedTuple):
    """What came of a cell: nothing (it is proven), why it cannot be, or how it failed."""

    impossible: str = ""
    failure: str = ""
    seconds: float = 0.0


def proven(cell: Cell, capability: str) -> Proof:
    impossible = IMPOSSIBLE.get((cell.client.name, capability), "")
    if impossible:
        return Proof(impossible)
    started = time.monotonic()
    try:
        CAPABILITIES[capability](cell)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Proof("", f"{place.name}:{place.lineno}: {type(error).__name__}: {str(error)[:600]}")
    return Proof(seconds=time.monotonic() - started)


Proofs = Dict[Tuple[str, str, str], Proof]  # dialect, provider, capability


def all_proofs(here: World) -> Proofs:
    cells = [Cell(dialect(here.house), name, here.ups[name]) for dialect in DIALECTS for name in COLUMNS]
    return {
        (c.client.name, c.provider, capability): proven(c, capability) for c in cells for capability in CAPABILITIES
    }


def table(proofs: Proofs) -> List[str]:
    """Draw the table: a row a capability, a column a provider, in each cell the dialects it is proven with."""
    reasons: List[str] = []
    rows = []
    for capability in CAPABILITIES:
        row = []
        for provider in COLUMNS:
            told = [proofs[dialect.name, provider, capability] for dialect in DIALECTS]
            marks = "".join(
                LETTERS[dialect.name] if not (one.impossible or one.failure) else "·" if one.impossible else "✗"
                for dialect, one in zip(DIALECTS, told)
            )
            for one in told:
                if one.impossible and one.impossible not in reasons:
                    reasons.append(one.impossible)
            notes = sorted({reasons.index(one.impossible) + 1 for one in told if one.impossible})
            row.append(" ".join([f"`{marks}`", *(f"({note})" for note in notes)]))
        rows.append(f"| {capability} | {' | '.join(row)} |")
    head = ["| | " + " | ".join(column.title for column in COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    notes = [f"({at}) {reason}." for at, reason in enumerate(reasons, 1)]
    legend = "C OpenAI Chat Completions, R OpenAI Responses, A Anthropic Messages, G Gemini, L Ollama; · cannot be."
    return [*head, *rows, "", " ".join([legend, *notes])]


def main(argv: Optional[List[str]] = None) -> int:
    with world() as here:
        proofs = all_proofs(here)
    sys.stdout.write("\n".join(table(proofs)) + "\n")
    failures = {where: proof.failure for where, proof in proofs.items() if proof.failure}
    for where, failure in failures.items():
        sys.stderr.write(f"{' > '.join(where)}: {failure}\n")
    if "-v" in (sys.argv[1:] if argv is None else argv):
        for where, proof in sorted(proofs.items(), key=lambda item: -item[1].seconds)[:20]:
            sys.stderr.write(f"{proof.seconds * 1000:6.0f} ms  {' > '.join(where)}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
