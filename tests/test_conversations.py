"""The whole way: a client, the house as a process, and strict stand-ins for all upstreams, on real sockets.

Each conversation is led through POST /llm with every provider, whole and streamed; what the upstreams got is
searched for all that was said.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import pytest

from conftest import Answer, House
from conversations import CONVERSATIONS, JSON, LETTERS, MODELS, TOOLS, Conversation, message, result, user, wish
from scripted import closed_port
from strict import anthropic, gemini, lmstudio, ollama, openai, voyage
from strict.openai import folded
from upstream import Asked, Reply, Upstream
from watched import watched
from witness import CHUNK, ERROR, WHOLE, bare, check_stream, holds, in_order, leaves, same, untold

LONG = 30.0  # seconds that nobody is to wait for
Exchanges = List[Tuple[Asked, Reply]]


# the stand-ins, and the house before them


def half(reply: Reply) -> List[bytes]:
    """Give the first half of a streamed answer."""
    assert not isinstance(reply.body, bytes), "only a stream can be stopped on its way"
    lines = [line for line in reply.body if isinstance(line, bytes)]
    return lines[: len(lines) // 2]


#: words of a question that change how it is answered
MOODS: Mapping[bytes, Callable[[Reply], Reply]] = {
    b"SILENT": lambda reply: reply._replace(wait=LONG),
    b"HESITANT": lambda reply: reply._replace(body=[LONG]),
    b"STALLING": lambda reply: reply._replace(body=[*half(reply), LONG]),
    b"ABSENT": lambda reply: reply._replace(body=half(reply)),  # ends in good order, and is not at its end
    b"SNAPPING": lambda reply: reply._replace(cut=True),
}
EVENT = b'event: error\ndata: {"type": "error", "error": {"type": "%s", "message": "Broken."}}\n\n'
#: how each stand-in tells trouble under way, by the last word of the path
BREAKDOWNS = {
    "completions": b'data: {"error": {"type": "server_error", "message": "Broken.", "code": null, "param": null}}\n\n',
    "responses": EVENT % b"server_error",
    "messages": EVENT % b"overloaded_error",
    "streamGenerateContent": b'data: {"error": {"code": 503, "message": "Broken.", "status": "UNAVAILABLE"}}\r\n\r\n',
    "chat": b'{"error": "Broken."}\n',
}


class Strict(Upstream):
    """A strict stand-in that has moods, and remembers what it answered."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        super().__init__(self.moody)
        self.strictly = answer
        self.given: Exchanges = []

    def moody(self, asked: Asked) -> Reply:
        reply = self.strictly(asked)
        for word, change in MOODS.items():
            if word in asked.body:
                reply = change(reply)
        if b"BREAKDOWN" in asked.body:
            reply = reply._replace(body=[*half(reply), BREAKDOWNS[asked.path.replace(":", "/").rpartition("/")[2]]])
        self.given.append((asked, reply))
        return reply

    def since(self, before: int) -> Exchanges:
        """Give what was asked since then, without the questions about models."""
        return [one for one in self.given[before:] if one[0].method == "POST" and one[0].path != "/api/show"]


INI = """
[providers.openai]
base_url = {openai}/v1
api_key = sk-house
responses_models = gpt-6
[providers.anthropic]
base_url = {anthropic}
api_key = sk-ant-house
[providers.gemini]
base_url = {gemini}
api_key = AIza-house
[providers.ollama]
base_url = {ollama}
[providers.lmstudio]
base_url = {lmstudio}/v1/
[providers.voyage]
base_url = {voyage}
api_key = pa-house
[providers.dead]
type = openai
base_url = {dead}
retries = 0
[plugins.rate_limit]
enabled = no
"""


class Cell(NamedTuple):
    """One conversation with one model: whole, and streamed."""

    chat: JSON
    answers: Tuple[Answer, Answer]
    exchanges: Tuple[Exchanges, Exchanges]


class World:
    """The house, and all there is behind it."""

    def __init__(self, house: House, ups: Mapping[str, Strict]) -> None:
        self.house = house
        self.ups = ups
        self.cells: Dict[Tuple[str, str], Cell] = {}

    def ask(self, question: JSON, **headers: str) -> Answer:
        return self.house.ask("POST", "/llm", question, {name.replace("_", "-"): one for name, one in headers.items()})

    def of(self, model: str) -> Optional[Strict]:
        return self.ups.get(model.partition("/")[0])

    def heard(self, question: JSON, **headers: str) -> Tuple[Answer, Exchanges]:
        """Ask, and give what was asked and answered behind the house meanwhile."""
        up = self.of(question["model"])
        before = len(up.given) if up else 0
        answer = self.ask(question, **headers)
        return answer, up.since(before) if up else []

    def cell(self, name: str, column: str) -> Cell:
        """Lead a conversation with a model, once, in both ways there are to put a question."""
        if (name, column) not in self.cells:
            chat = CONVERSATIONS[name].asked(column)
            provider, _, model = chat["model"].partition("/")
            options = {field: one for field, one in chat.items() if field not in ("model", "messages")}
            whole = {"provider": provider, "model": model, "messages": chat["messages"], "options": options}
            up = self.of(chat["model"])
            marks, answers = [len(up.given) if up else 0], []
            for question in (whole, {**chat, "type": "chat", "stream": True}):
                answers.append(self.ask(question))
                marks.append(len(up.given) if up else 0)
            exchanges = [up.since(at) if up else [] for at in marks]
            first = exchanges[0][: len(exchanges[0]) - len(exchanges[1])]
            self.cells[name, column] = Cell(chat, (answers[0], answers[1]), (first, exchanges[1]))
        return self.cells[name, column]


@pytest.fixture(scope="module", autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """Let the stand-ins live from test to test; at their end there is nothing left."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    doors = {"openai": openai, "anthropic": anthropic, "gemini": gemini, "ollama": ollama, "lmstudio": lmstudio}
    ups = {name: Strict(door.answer) for name, door in {**doors, "voyage": voyage}.items()}
    ini = INI.format(dead=f"http://127.0.0.1:{closed_port()}", **{name: up.url for name, up in ups.items()})
    house = House(tmp_path_factory.mktemp("house"), ini, {}, (), watched(tmp_path_factory.mktemp("copy")))
    try:
        yield World(house, ups)
        assert house.stop() == 0, house.log
        assert "Traceback" not in house.log, house.log
        assert not [trouble for up in ups.values() for trouble in up.troubles]
    finally:
        house.stop()
        for up in ups.values():
            up.close()


# the conversations

CELLS = [(name, column) for name, one in CONVERSATIONS.items() for column in one.only]
REFUSED = [(name, column) for name, column in CELLS if column in CONVERSATIONS[name].refused]
ANSWERED = [cell for cell in CELLS if cell not in REFUSED]
UPSTREAM = [(name, column) for name, column in ANSWERED if column != "echo"]
REMOTE = [column for column in MODELS if column != "echo"]
every_remote = pytest.mark.parametrize("column", REMOTE)


def of_each(cells: List[Tuple[str, str]]) -> Any:
    return pytest.mark.parametrize(("name", "column"), cells, ids=[f"{name}-{column}" for name, column in cells])


def warnings(answer: Answer) -> List[str]:
    told = answer.headers.get("x-llmproxy-warnings", "")
    return [one.partition("=")[0].strip() for one in told.split(",") if one]


@of_each(UPSTREAM)
def test_the_upstream_is_told_all_of_it(world, name, column):
    cell, one = world.cell(name, column), CONVERSATIONS[name]
    for exchanges in cell.exchanges:
        body = exchanges[-1][0].json
        assert [piece for piece in untold(cell.chat, body) if piece not in one.lost.get(column, ())] == []
        assert in_order(cell.chat, body)
        assert holds(body, one.sent.get(column, {})), body


@of_each(ANSWERED)
def test_the_answer_is_what_it_was_to_be(world, name, column):
    one, (whole, _) = CONVERSATIONS[name], world.cell(name, column).answers
    assert whole.status == 200, whole.text
    WHOLE(whole.json, "")
    (choice,) = whole.json["choices"]
    said = choice["message"]
    calls = [call["function"] for call in said.get("tool_calls", ())]
    assert [call["name"] for call in calls] == [name for name, _ in one.calls]
    assert all(same(json.loads(call["arguments"]), given) for call, (_, given) in zip(calls, one.calls))
    assert choice["finish_reason"] == one.finish
    assert all(text in (said["content"] or "") for text in one.says), said
    assert one.is_json is None or json.loads(said["content"]) == one.is_json
    assert ("reasoning_content" in said) == (column in one.thinks), said
    assert whole.json["content"] == (said["content"] or "")
    provider = MODELS[column].partition("/")[0]
    assert (whole.json["provider"], whole.json["model"].partition("/")[0]) == (provider, provider)


@of_each(ANSWERED)
def test_the_stream_adds_up_to_the_whole_answer(world, name, column):
    whole, streamed = world.cell(name, column).answers
    assert (whole.status, streamed.status) == (200, 200), whole.text + streamed.text
    assert streamed.headers["content-type"] == "text/event-stream"
    assert bare(check_stream(streamed.events)) == bare([whole.json])


#: what stand-ins call the tokens before an answer (0), and those of it (1)
COUNTS = {
    **dict.fromkeys(("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count"), 0),
    **dict.fromkeys(("completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count"), 1),
    "thoughtsTokenCount": 1,
}


def counted(exchanges: Exchanges) -> List[int]:
    """Add up the tokens that were counted upstream."""
    sums = [0, 0]
    for _, reply in exchanges:
        pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
        texts = [piece.decode().partition("{") for piece in pieces if isinstance(piece, bytes)]
        told = [leaf for _, mark, rest in texts if mark for leaf in leaves(json.loads(mark + rest))]
        last = {key: leaf[key] for leaf in told if isinstance(leaf, dict) for key in leaf.keys() & COUNTS.keys()}
        for key, tokens in last.items():
            sums[COUNTS[key]] += tokens
    return sums


@of_each(UPSTREAM)
def test_the_usage_is_what_the_upstream_counted(world, name, column):
    cell = world.cell(name, column)
    for answer, exchanges in zip(cell.answers, cell.exchanges):
        usage = answer.json["usage"] if answer.body.startswith(b"{") else answer.events[-2]["usage"]
        assert [usage["prompt_tokens"], usage["completion_tokens"]] == counted(exchanges)
        assert usage["total_tokens"] == sum(counted(exchanges)) > 0


@of_each(ANSWERED)
def test_what_was_changed_is_told_and_the_strict_are_refused(world, name, column):
    cell, expected = world.cell(name, column), CONVERSATIONS[name].warned.get(column)
    fields = [expected] if expected else []
    assert [warnings(answer) for answer in cell.answers] == [fields, fields]
    answer, exchanges = world.heard({**cell.chat, "stream": True}, x_llmproxy_strict="true")
    assert answer.status == (400 if fields else 200)
    if fields:
        ERROR(answer.json, "")
        assert answer.json["error"]["param"] == expected
        assert exchanges == []


@of_each(REFUSED)
def test_what_cannot_be_is_refused(world, name, column):
    cell = world.cell(name, column)
    for answer in cell.answers:
        assert answer.status == 400
        ERROR(answer.json, "")
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert answer.json["error"]["param"] == CONVERSATIONS[name].refused[column]


@every_remote
@pytest.mark.parametrize("escaped", [True, False])
def test_letters_arrive_however_they_are_spelled(world, column, escaped):
    question = {"model": MODELS[column], "messages": [user(LETTERS)]}
    body = json.dumps(question, ensure_ascii=escaped).encode()
    assert (b"\\ud83c\\udf27" in body) == escaped
    up = world.of(MODELS[column])
    before = len(up.given)
    answer = world.house.ask("POST", "/llm", body, {"Content-Type": "application/json"})
    assert LETTERS in answer.json["content"]
    assert untold(question, up.since(before)[-1][0].json) == []


# rounds of tools

ROUNDS = [
    [("getWeather", {"city": "Bern"}), ("clock", {"zone": "UTC"})],
    [("clock", {"zone": "CET"})],
    [("getWeather", {"city": "Basel"}), ("getWeather", {"city": "Genf"}), ("ping", {})],
]
WISHES = " then ".join("please think and redact and " + " and ".join(wish(*call) for call in calls) for calls in ROUNDS)


@every_remote
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("forgetful", [False, True], ids=["", "forgetful"])
def test_rounds_of_tools_keep_their_reasoning(world, column, streamed, forgetful):
    """A client sends each turn back as it came; a forgetful one only what it knows of."""
    effort = {} if column == "openai" else {"reasoning_effort": "high"}
    way = "streamed" if streamed else "whole"
    chat = {"model": MODELS[column], **TOOLS, **effort, "messages": [user(f"{way} {forgetful} {WISHES}")]}
    sent = {**chat, "messages": list(chat["messages"]), "stream": streamed}
    for calls in ROUNDS:
        answer, _ = world.heard(sent)
        assert (answer.status, warnings(answer)) == (200, []), answer.text
        parts = check_stream(answer.events) if streamed else [answer.json]
        (choice,) = folded(parts)["choices"]
        turn = choice["message"]
        made = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in turn["tool_calls"]]
        assert made == calls
        results = [result(call["id"], f"it is {at}") for at, call in enumerate(turn["tool_calls"])][::-1]
        kept = {key: turn[key] for key in ("role", "content", "tool_calls") if key in turn} if forgetful else turn
        chat["messages"] += [turn, *results]
        sent["messages"] += [kept, *results]
    answer, exchanges = world.heard(sent)
    content = "".join(choice["delta"].get("content") or "" for one in answer.events[:-1] for choice in one["choices"])
    content = content if streamed else answer.json["content"]
    assert content.startswith("results: ")
    assert {one["content"] for one in results} == {one.partition("=")[2] for one in content[9:].split("; ")}
    body = exchanges[-1][0].json
    assert untold(chat, body) == []
    thoughts = [turn["reasoning_content"] for turn in chat["messages"] if "reasoning_content" in turn]
    assert len(thoughts) == (0 if column == "openai" else 3)
    if column == "ollama":
        told = [turn.get("thinking") for turn in body["messages"] if turn["role"] == "assistant"]
        assert told == ([None] * 3 if forgetful else thoughts)


@every_remote
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_answer_can_be_sent_back_as_it_came(world, column, streamed):
    effort = {} if column == "openai" else {"reasoning_effort": "low"}
    chat = {"model": MODELS[column], **effort, "messages": [user("please think of a word")], "stream": streamed}
    for text in ("please think of another", "and one more", "thanks"):
        answer = world.ask(chat)
        assert (answer.status, warnings(answer)) == (200, []), answer.text
        (choice,) = folded(answer.events[:-1] if streamed else [answer.json])["choices"]
        chat["messages"] = [*chat["messages"], choice["message"], user(text)]
    answer, exchanges = world.heard(chat)
    assert answer.status == 200, answer.text
    assert untold(chat, exchanges[-1][0].json) == []
    assert in_order(chat, exchanges[-1][0].json)


# fields of their own

FIELDS: Mapping[str, Any] = {
    "temperature": 0.625,
    "top_p": 0.375,
    "top_k": 17,
    "min_p": 0.0625,
    "repeat_penalty": 1.125,
    "presence_penalty": 0.875,
    "frequency_penalty": -0.875,
    "seed": 421,
    "logit_bias": {"1734": -7},
    "user": "somebody-7",
    "safety_identifier": "somebody-8",
    "verbosity": "low",
    "service_tier": "flex",
    "metadata": {"k7": "v7"},
    "logprobs": True,
    "parallel_tool_calls": False,
}


def arrived(field: str, value: Any, body: JSON) -> bool:
    """Tell whether a value is in a body; one that may stand for many things by the name of its field."""
    if isinstance(value, bool):
        return field.partition("_")[0] in json.dumps(body).lower()
    return any(same(leaf, value) for leaf in leaves(body))


@every_remote
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_arrives_or_is_told_of(world, column, field):
    conversation = Conversation([user("Hello.")], {field: FIELDS[field]})
    tools = TOOLS if field.startswith("parallel") else {}
    chat = {**conversation.asked(column), **tools}
    answer, exchanges = world.heard(chat)
    assert answer.status == 200, answer.text
    told = warnings(answer)
    assert told in ([], [field])
    assert arrived(field, FIELDS[field], exchanges[-1][0].json) == (not told)
    strict = world.ask(chat, x_llmproxy_strict="true")
    assert strict.status == (400 if told else 200)
    assert not told or strict.json["error"]["param"] == field


@every_remote
def test_a_field_that_nobody_knows_is_told_of(world, column):
    answer = world.ask({**Conversation([user("Hello.")], {"frobnicate": 7}).asked(column)})
    if column in ("openai", "responses"):  # who knows: it is for the upstream to say
        assert (answer.status, answer.json["error"]["param"]) == (400, "frobnicate")
    else:
        assert (answer.status, warnings(answer)) == (200, ["frobnicate"])


# trouble

#: what the upstream answers -> what is told: status, type, code
TROUBLES: Mapping[int, Tuple[int, str, Optional[str]]] = {
    400: (400, "invalid_request_error", None),
    401: (401, "authentication_error", "provider_auth"),
    402: (429, "insufficient_quota", "insufficient_quota"),
    403: (403, "permission_error", None),
    404: (404, "not_found_error", "model_not_found"),
    413: (413, "invalid_request_error", "request_too_large"),
    429: (429, "rate_limit_error", "rate_limit_exceeded"),
    500: (502, "api_error", "provider_error"),
    503: (503, "overloaded_error", "provider_overloaded"),
    504: (504, "timeout_error", "provider_timeout"),
    529: (503, "overloaded_error", "provider_overloaded"),
}
WAITS = {"openai": "7", "responses": "7", "anthropic": "1", "haiku": "1", "gemini": "7", "gemini-2.5": "7"}


def times_asked(column: str, status: int) -> int:
    """Tell how often a question is put that fails with a status: twice more if it may pass, once if one has to wait."""
    if status == 429:
        return 1 if WAITS.get(column) == "7" else 2
    return 3 if status in (500, 503, 529) else 1


class Failure(NamedTuple):
    answer: Answer
    asked: int


@pytest.fixture(scope="module")
def failures(world) -> Dict[Tuple[str, int, bool], Failure]:
    """Have everything go wrong that can, all at the same time, for what may pass is waited for."""
    cases = [(column, status, stream) for column in REMOTE for status in TROUBLES for stream in (False, True)]

    def fail(case: Tuple[str, int, bool]) -> Failure:
        column, status, stream = case
        text = f"{column} {stream}: error {status}"
        question = {**Conversation([user(text)]).asked(column), "stream": stream}
        answer = world.ask(question)
        asked = [one for one in world.of(MODELS[column]).asked if f'"{text}"'.encode() in one.body]
        return Failure(answer, len(asked))

    with ThreadPoolExecutor(32) as pool:
        return dict(zip(cases, pool.map(fail, cases)))


@every_remote
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", TROUBLES)
def test_trouble_has_its_class_and_only_what_passes_is_tried_again(failures, column, status, stream):
    answer, asked = failures[column, status, stream]
    ERROR(answer.json, "")
    error = answer.json["error"]
    assert (answer.status, error["type"], error["code"]) == TROUBLES[status]
    assert error["provider"] == MODELS[column].partition("/")[0]
    assert ("the proxy's own key" in error["message"]) == (status == 401)
    assert "house" not in answer.text, "that is our key"
    assert answer.headers.get("retry-after") == (WAITS.get(column) if status == 429 else None)
    assert asked == times_asked(column, status)


def test_an_upstream_that_is_not_there_is_told_so(world):
    for stream in (False, True):
        answer = world.ask({"model": "dead/m", "messages": [user("Hello.")], "stream": stream})
        error = answer.json["error"]
        assert (answer.status, error["code"], error["provider"]) == (502, "provider_unreachable", "dead")


def broken(world: World, column: str, text: str) -> Tuple[JSON, List[JSON]]:
    """Ask for a stream that does not come to its end; gives the trouble, and what was said before."""
    answer, exchanges = world.heard({**Conversation([user(text)]).asked(column), "stream": True})
    assert answer.status == 200
    assert len(exchanges) == 1, "nothing is asked again once it has begun to be answered"
    *parts, error = answer.events
    for part in parts:
        CHUNK(part, "")
    assert not [choice for part in parts for choice in part["choices"] if choice["finish_reason"]]
    assert "[DONE]" not in answer.text
    ERROR(error, "")
    return error["error"], parts


@every_remote
def test_trouble_under_way_is_the_last_event(world, column):
    error, parts = broken(world, column, "BREAKDOWN, some words before it")
    overloads = MODELS[column].partition("/")[0] in ("anthropic", "gemini")
    kind = ("overloaded_error", "provider_overloaded") if overloads else ("api_error", "provider_error")
    assert (error["type"], error["code"], error["provider"]) == (*kind, MODELS[column].partition("/")[0])
    assert error["message"].endswith("Broken.")
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"


@every_remote
@pytest.mark.parametrize("text", ["please cut this one short", "ABSENT before this one is at its end"])
def test_a_stream_that_breaks_off_does_not_look_whole(world, column, text):
    error, _ = broken(world, column, text)
    assert (error["type"], error["code"]) == ("api_error", "stream_truncated")


@every_remote
def test_a_whole_answer_that_breaks_off_is_none(world, column):
    answer, exchanges = world.heard(Conversation([user("SNAPPING")]).asked(column))
    assert (answer.status, answer.json["error"]["code"]) == (502, "stream_truncated")
    assert len(exchanges) == 1


# clients that leave

LEAVING = {
    "while waiting for a whole answer": ("SILENT", False),
    "before the upstream's first byte": ("SILENT", True),
    "before the first token": ("HESITANT", True),
    "in the middle": ("STALLING", True),
}


@contextlib.contextmanager
def asking(house: House, question: JSON) -> Iterator[socket.socket]:
    """Ask, and leave at the end."""
    body = json.dumps(question).encode()
    head = f"POST /llm HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", house.port), 10) as client:
        client.sendall(head.encode() + b"\r\n" + body)
        yield client


@every_remote
@pytest.mark.parametrize("when", LEAVING)
def test_a_client_that_leaves_frees_the_upstream(world, column, when):
    word, stream = LEAVING[when]
    up = world.of(MODELS[column])
    gone, given = len(up.gone), len(up.given)
    question = {**Conversation([user(f"{word} for more than a few words")]).asked(column), "stream": stream}
    with asking(world.house, question) as client:
        assert up.until(lambda: up.since(given))
        if word == "STALLING":
            heard = b""
            while b'"content":"' not in heard.replace(b'"content":""', b""):
                heard += client.recv(65536)
        left = time.monotonic()
    assert up.wait_closed(1.0, gone + 1), "it goes on"
    assert up.gone[-1] - left < 1.0


# embeddings, models, counts

EMBEDDERS: Mapping[str, Callable[[str], List[float]]] = {
    "openai/text-embedding-3-small": openai.vector,
    "gemini/gemini-embedding-001": gemini.vector,
    "ollama/embeddinggemma:latest": lambda text: ollama.vector(text, 4),
    "lmstudio/text-embedding-nomic-embed-text-v1.5": openai.vector,
    "voyage/voyage-4": lambda text: voyage.vector(text, {"model": "voyage-4"}),
    "anthropic/claude-2": lambda text: voyage.vector(text, {"model": "voyage-4"}),
}
TEXTS: Mapping[str, Any] = {
    "one": LETTERS,
    "a list": ["one", "two words", LETTERS],
    "many": [f"text {at}" for at in range(150)],
}


@pytest.mark.parametrize("model", EMBEDDERS)
@pytest.mark.parametrize("many", TEXTS)
def test_embeddings_come_in_the_order_of_their_texts(world, model, many):
    texts = TEXTS[many]
    provider = "voyage" if model.startswith("anthropic") else model.partition("/")[0]
    before = len(world.ups[provider].given)
    question = {"type": "embeddings", "model": model, "input": texts}
    floats, packed = (world.ask({**question, "encoding_format": form}).json for form in ("float", "base64"))
    vectors = [EMBEDDERS[model](text) for text in ([texts] if isinstance(texts, str) else texts)]
    assert [item["embedding"] for item in floats["data"]] == vectors
    assert [item["index"] for item in packed["data"]] == list(range(len(vectors)))
    for item, vector in zip(packed["data"], vectors):
        assert base64.b64decode(item["embedding"]) == struct.pack(f"<{len(vector)}f", *vector)
    assert (floats["object"], floats["provider"]) == ("list", provider)
    assert floats["usage"] == packed["usage"]
    asked = world.ups[provider].since(before)
    assert len(asked) == (4 if provider == "gemini" and many == "many" else 2)
    told = [leaf for one, _ in asked[: len(asked) // 2] for leaf in leaves(one.json) if isinstance(leaf, str)]
    assert [text for text in told if text in texts] == ([texts] if isinstance(texts, str) else texts)


LISTS = {
    "openai": openai.MODELS,
    "anthropic": tuple(anthropic.MODELS),
    "gemini": gemini.CHAT + gemini.EMBED,
    "ollama": tuple(ollama.MODELS),
    "lmstudio": lmstudio.MODELS,
    "echo": ("echo", "echo-embedding"),
}


@pytest.mark.parametrize("provider", LISTS)
def test_the_models_of_a_provider_are_listed(world, provider):
    answer = world.ask({"type": "models", "provider": provider.upper()})
    assert [model["id"] for model in answer.json["data"]] == list(LISTS[provider])
    for model in answer.json["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert model["owned_by"]
        assert model["provider"] == provider


def test_a_dead_provider_takes_nothing_from_the_list_of_all(world):
    answer = world.ask({"type": "models"}).json
    found = {model["id"] for model in answer["data"]}
    assert found >= {f"{provider}/{model}" for provider, models in LISTS.items() for model in models}
    assert answer["errors"].keys() == {"dead"}


@pytest.mark.parametrize("column", MODELS)
def test_tokens_are_counted_where_somebody_counts_them(world, column):
    chat = CONVERSATIONS["results"].asked(column)
    answer, exchanges = world.heard({**chat, "type": "count_tokens"})
    if column in ("ollama", "lmstudio"):
        assert (answer.status, answer.json["error"]["code"]) == (501, "unsupported_operation")
        return
    assert answer.status == 200, answer.text
    assert answer.json["input_tokens"] > 0
    for asked, reply in exchanges:
        assert answer.json["input_tokens"] in json.loads(reply.body).values()
        assert untold(chat, asked.json) == []


def test_a_message_stays_as_it_is_when_it_is_sent_back_elsewhere(world):
    """What one provider answered is understood by all others; its reasoning is none of their business."""
    chat = {"messages": [user(f"please think and {wish('ping', {})}")], **TOOLS, "reasoning_effort": "high"}
    for first in REMOTE[1:]:
        turn = world.ask({**chat, "model": MODELS[first]}).json["choices"][0]["message"]
        done = [*chat["messages"], turn, result(turn["tool_calls"][0]["id"], "pong"), message("user", "Thanks.")]
        for second in (column for column in REMOTE if column != first):
            asked = {"model": MODELS[second], **TOOLS, "messages": done}
            answer, exchanges = world.heard(asked)
            assert answer.status == 200, (first, second, answer.text)
            assert "Thanks." in answer.json["content"] or "pong" in answer.json["content"]
            plain = {**asked, "messages": [{**one, "reasoning_details": []} for one in done]}
            assert untold(plain, exchanges[-1][0].json) == []
