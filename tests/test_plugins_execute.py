"""What POST /execute promises: the semantics, by a table, bare and behind the real walls; and how it refuses."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List

import pytest

from conftest import ROOT, clean_environment
from plugins import Refusal, Request
from plugins._sandbox import plan as plans
from plugins._sandbox.keeper import Outcome, Report
from plugins.execute import Execute, verdict
from programs import AB, ADD, CASES, Case, check
from providers import Provider, UpstreamError
from providers._http import Fields
from unconfined import HELD, Unconfined

pytestmark = pytest.mark.outermost

DEFAULTS = {name: option[0] for name, option in Execute.options.items()}


def asking(body: Any, **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = Fields([("Content-Type", "application/json"), *((k.replace("_", "-"), v) for k, v in headers.items())])
    return Request("POST", "/execute", fields, read=data)


def execute(keeper: Any = Unconfined, **options: Any) -> Execute:
    one = Execute({**DEFAULTS, **options}, Provider("none", {}), keeper)
    one.start(guarded=True)
    return one


def answered(one: Execute, body: Any) -> Dict[str, Any]:
    response = one.run(asking(body))
    assert response.status == 200
    return json.loads(response.body)


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.promise.replace(" ", "-"))


def seconds_for(case: Case) -> float:
    return 1.0 if case.expected.get("error_type") == "TimeoutError" else 30.0


@every_case
def test_a_program_is_run_as_promised(case):
    check(case, answered(execute(timeout=seconds_for(case)), case.body))


@pytest.fixture(scope="module", params=[(), ("namespaces", "landlock")], ids=["every-layer", "no-file-at-all"])
def walled(request):
    """Give the real thing, for short and for long programs."""
    pair = {seconds: execute(None, without=request.param, timeout=seconds) for seconds in (1.0, 30.0)}
    for one in pair.values():
        one.keeper.start()
    yield pair
    for one in pair.values():
        one.close()


@every_case
def test_a_program_is_run_as_promised_behind_walls(case, walled):
    one = walled[seconds_for(case)]
    missing = one.keeper.report().missing
    if missing:
        pytest.skip(f"no program can be run here: {missing}")
    check(case, answered(one, case.body))


# what is judged from outside

TOKEN = "t" * 32
OWN = {"token": TOKEN, "success": True, "called": True, "result": 1, "error": "", "error_type": None}


def outcome(frame: Any = b"", **more: Any) -> Outcome:
    told = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
    usual = {"stdout": b"", "stderr": b"", "truncated": False, "status": 0, "cpu": 0.01, "peak": 9000}
    return Outcome(**{"result": told, **usual, "stopped": "", "seconds": 0.25, **more})


def judged(ending: Outcome) -> Dict[str, Any]:
    answer = verdict(ending, TOKEN, plans.Limits())
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    return answer


@pytest.mark.parametrize(
    ("ending", "kind", "words"),
    [
        (outcome(OWN, stopped="timeout"), "TimeoutError", "10 s"),
        (outcome(OWN, stopped="output"), "OutputTooLarge", "output"),
        (outcome(OWN, stopped="result"), "ResultTooLarge", "4194304"),
        (outcome(OWN, status=9), "Crashed", "SIGKILL"),
        (outcome(status=9, cpu=9.6), "TimeoutError", "10 s of processor time"),
        (outcome(status=24, cpu=9.6), "TimeoutError", "processor"),
        (outcome(status=11), "Crashed", "SIGSEGV"),
        (outcome(status=11 | 128), "Crashed", "SIGSEGV"),
        (outcome(status=33), "Crashed", "signal 33"),
        (outcome(OWN, status=77 << 8), "MemoryError", "256 MiB"),
        (outcome(OWN, status=3 << 8), "SystemExit", "3"),
        (outcome(status=0), "SystemExit", "0"),
    ],
)
def test_how_a_program_ended_is_told_by_what_was_seen_outside(ending, kind, words):
    answer = judged(ending)
    assert (answer["success"], answer["error_type"], answer["result"]) == (False, kind, None)
    assert words in answer["error"]
    assert answer["duration_ms"] == 250


@pytest.mark.parametrize(
    "frame",
    [
        json.dumps({**OWN, "token": "another"}).encode(),
        json.dumps({name: value for name, value in OWN.items() if name != "token"}).encode(),
        json.dumps({**OWN, "stdout": "forged"}).encode(),
        json.dumps({**OWN, "success": 1}).encode(),
        json.dumps({**OWN, "called": 0}).encode(),
        json.dumps({**OWN, "called": 1}).encode(),
        json.dumps({**OWN, "success": False}).encode(),
        json.dumps({**OWN, "success": False, "error_type": ""}).encode(),
        json.dumps({**OWN, "success": False, "error_type": ["a"]}).encode(),
        json.dumps({**OWN, "success": False, "error_type": "A", "error": None}).encode(),
        json.dumps({**OWN, "error_type": "A"}).encode(),
        json.dumps({**OWN, "called": False}).encode(),
        json.dumps({**OWN, "result": float("nan")}).encode(),
        json.dumps({**OWN, "result": 0.5}).replace("0.5", "1e999").encode(),
        json.dumps(OWN).encode() * 2,
        json.dumps(OWN).encode() + b"x",
        json.dumps({**OWN, "result": "é"}, ensure_ascii=False).encode(),
        b"[" * 100,
        b"]" * 100,
        b'"' + TOKEN.encode(),
        b"null",
        b"\x06",
        b"\xff\xfe",
    ],
)  # fmt: skip
def test_what_is_no_frame_of_the_runner_is_no_result(frame):
    answer = judged(outcome(frame))
    assert (answer["success"], answer["error_type"], answer["result"]) == (False, "ProtocolError", None)


@pytest.mark.parametrize(
    "result",
    ["[" * 200 + "]" * 200, "[" * 90000, "1" * 5000, "[0, -" + "1" * 4001 + "]"],
)
def test_what_would_be_hard_to_read_is_not_read(result):
    began = time.monotonic()
    answer = judged(outcome(json.dumps(OWN).replace('"result": 1', f'"result": {result}').encode()))
    assert (answer["success"], answer["error_type"]) == (False, "ResultNotSerializable")
    assert time.monotonic() - began < 1


MANY = 100_001


@pytest.mark.parametrize(
    "result",
    [
        *(
            "[" + "1," * MANY + "1]",
            "[" + "[]," * MANY + "1]",
            "{" + '"",' * MANY + "1}",
            "[" + '"",' * 1_300_000 + "1]",
        ),
        *("[" + ("7" * 3999 + ",") * 26 + "1]", "1" * 4_000_000),
    ],
    ids=range(6),
)
def test_a_result_of_too_many_values_is_not_read(result):
    answer = judged(outcome(json.dumps(OWN).replace('"result": 1', f'"result": {result}').encode()))
    assert (answer["success"], answer["error_type"]) == (False, "ResultTooLarge")


@pytest.mark.parametrize(
    "result",
    [[1] * 99_000, "a,[{" * 100_000, '\\"",' * 100_000, ['","'] * 90_000, "8" * 200_000, [int("9" * 3999)] * 25],
    ids=range(6),
)
def test_a_result_of_many_is_a_result(result):
    assert judged(outcome({**OWN, "result": result}))["result"] == result


@pytest.mark.parametrize(
    "frame", [b"1" * 3999 + b",", b'"', b'\\"', b"\\", b'"' + b'\\"' * 9, b"[" * 99 + b"]" * 99 + b","], ids=range(6)
)
def test_nothing_a_program_writes_takes_long_to_be_judged(frame):
    began = time.process_time()
    judged(outcome(frame * (plans.Limits().result // len(frame))))
    assert time.process_time() - began < 1


def test_a_text_of_many_digits_is_a_text():
    assert judged(outcome({**OWN, "result": "1" * 9000}))["output"] == "1" * 9000


def test_the_words_of_a_failure_are_cut():
    answer = judged(outcome({**OWN, "success": False, "result": None, "error_type": "E" * 9000, "error": "x" * 9000}))
    assert (len(answer["error_type"]), len(answer["error"])) == (4096, 4096)


def test_output_is_read_as_utf8_whatever_it_is():
    answer = judged(outcome(OWN, stdout=b"\xff\xc3\xa9", stderr=b"\x80", truncated=True))
    assert (answer["stdout"], answer["stderr"], answer["truncated"]) == ("\ufffdé", "\ufffd", True)


def test_the_largest_answer_there_can_be_is_under_64_mb():
    most = int(3 * plans.MIB)
    script = {**OWN, "called": False, "result": None}
    with_output = {"stdout": b"\0" * most, "stderr": b"\xff" * most}
    assert len(json.dumps(judged(outcome(script, **with_output)))) < 64_000_000
    with_result = {**OWN, "result": ["\0" * (plans.Limits().result // 6)]}
    assert len(json.dumps(judged(outcome(with_result, **with_output)))) < 64_000_000


# what is asked


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "code", "missing_required_parameter"),
        ({"code": None}, "code", "missing_required_parameter"),
        ({"code": 1}, "code", "invalid_type"),
        ({"code": ["x"]}, "code", "invalid_type"),
        ({"code": " \n"}, "code", "invalid_value"),
        ({"code": ADD, "function": 1}, "function", "invalid_type"),
        ({"code": ADD, "function": ""}, "function", "invalid_value"),
        ([ADD], None, "invalid_json"),
        (b"", None, "invalid_json"),
        (b"{", None, "invalid_json"),
        (b'{"code": "1", "input": NaN}', "input", "invalid_value"),
        (b'{"code": "1", "code": "2"}', "code", "invalid_value"),
        (b'{"code": "\\ud800"}', "code", "invalid_value"),
        (b'{"code": "1", "input": ' + b"[" * 200 + b"]" * 200 + b"}", None, "invalid_json"),
    ],
)
def test_a_bad_request_is_400_and_names_the_field(body, param, code):
    one = execute()
    with pytest.raises(Refusal) as caught:
        one.run(asking(body))
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert one.keeper.asked == []


def test_a_body_that_does_not_say_it_is_json_is_415():
    request = Request("POST", "/execute", Fields([("Content-Type", "text/plain")]), read=b'{"code": "1"}')
    with pytest.raises(Refusal) as caught:
        execute().run(request)
    assert caught.value.status == 415


def test_a_field_nobody_knows_is_told_of():
    body = {"code": "1", "timeout": 5}
    assert dict(execute().run(asking(body)).headers)["x-llmproxy-warnings"] == "timeout=not a field of /execute"
    with pytest.raises(UpstreamError) as caught:
        execute().run(asking(body, x_llmproxy_strict="true"))
    assert (caught.value.status, caught.value.param) == (400, "timeout")


def test_the_request_holds_the_program_and_a_token_that_nobody_knows():
    one = execute()
    answered(one, {"code": "1", "input": None})
    answered(one, {"code": "1"})
    first, second = map(json.loads, one.keeper.asked)
    assert len(first.pop("token")) == 32
    assert second.pop("token") not in (None, first)
    assert (first, second) == ({"code": "1", "input": None}, {"code": "1"})


# who is let in


class Slow(Unconfined):
    """Runs nothing until it is told to."""

    def run(self, request: bytes, scope: Any) -> Outcome:
        self.asked.append(request)
        self.go = getattr(self, "go", None) or threading.Event()
        assert self.go.wait(10)
        return outcome({**OWN, "token": json.loads(request)["token"]})


def test_no_more_run_than_may_at_the_same_time():
    one = execute(Slow, concurrency=2)
    one.keeper.go = threading.Event()
    answers: List[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(answered(one, {"code": "1"}))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(one.keeper.asked) < 2:
        time.sleep(0.001)
    with pytest.raises(Refusal) as caught:
        one.run(asking({"code": "1"}))
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
    with pytest.raises(Refusal, match="code"):  # what is wrong is told first
        one.run(asking({}))
    one.keeper.go.set()
    for thread in threads:
        thread.join()
    assert [answer["result"] for answer in answers] == [1, 1]
    assert answered(one, {"code": "1"})["success"]


def test_a_place_is_free_again_whatever_happened():
    class Breaking(Unconfined):
        def run(self, request: bytes, scope: Any) -> Outcome:
            raise ZeroDivisionError

    one = execute(Breaking, concurrency=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            one.run(asking({"code": "1"}))


def test_where_nothing_holds_nothing_is_run():
    missing = "what is missing: seccomp (no seccomp in this kernel)"
    one = execute(lambda limits: Unconfined(limits, Report({}, "", (), missing)))
    with pytest.raises(Refusal, match="no seccomp in this kernel") as caught:
        one.run(asking({"code": "1"}))
    assert (caught.value.status, caught.value.code) == (503, "sandbox_unavailable")


@pytest.mark.parametrize(
    ("guarded", "allow_open", "runs"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_it_is_off_where_strangers_could_ask(guarded, allow_open, runs):
    one = Execute({**DEFAULTS, "allow_open": allow_open}, Provider("none", {}), Unconfined)
    one.start(guarded=guarded)
    if runs:
        assert not one.keeper.started, "it is when there is something to run"
        assert answered(one, {"code": "print(1)"})["stdout"] == "1\n"
    else:
        with pytest.raises(Refusal) as caught:
            one.run(asking({"code": "print(1)"}))
        assert (caught.value.status, caught.value.code) == (403, "execute_off")
        assert json.loads(one.tell(asking({})).body)["available"] is False
    one.close()
    assert one.keeper is None or one.keeper.closed


# what is said of it


def told(report: Report) -> Dict[str, Any]:
    return json.loads(execute(lambda limits: Unconfined(limits, report)).tell(asking({})).body)


def test_it_tells_what_holds():
    everything = told(HELD)
    assert (everything["available"], everything["level"], everything["missing"]) == (True, "A", None)
    assert [layer["in_force"] for layer in everything["layers"].values()] == [True] * len(plans.LAYERS)
    assert everything["promised"] == plans.promises("A")
    assert everything["not_promised"] == []
    assert everything["limits"]["memory"] == 256


def test_it_tells_what_does_not():
    layers = {**dict.fromkeys(plans.LAYERS, ""), "namespaces": "switched off"}
    some = told(Report(layers, "B", ("see a file",), ""))
    assert some["layers"]["namespaces"] == {
        "in_force": False,
        "what": plans.LAYERS["namespaces"],
        "why_not": "switched off",
    }
    assert some["got_through"] == ["see a file"]
    assert some["not_promised"] != []
    assert some["promised"] == plans.promises("B")


@pytest.mark.parametrize("level", ["", "B"])
def test_it_promises_nothing_where_it_runs_nothing(level):
    none = told(Report({}, level, (), "landlock was required"))
    assert (none["available"], none["missing"], none["promised"]) == (False, "landlock was required", [])
    assert not any(layer["in_force"] for layer in none["layers"].values())


@pytest.mark.parametrize(("require", "broken"), [((), None), (("landlock",), False)])
def test_doctor_finds_fault_only_where_something_was_required(require, broken):
    report = Report(
        {**dict.fromkeys(plans.LAYERS, ""), "landlock": "not in this kernel"}, "", (), "landlock is missing"
    )
    options = {**DEFAULTS, "require": require}
    found = list(Execute(options, Provider("none", {}), lambda limits: Unconfined(limits, report)).checks())
    assert (None, "sandbox layer landlock", "not in this kernel") in found
    assert (True, "sandbox layer seccomp", "") in found
    assert found[-1] == (broken, "POST /execute", "landlock is missing")


def test_doctor_closes_what_it_opened():
    made: List[Unconfined] = []
    one = Execute(DEFAULTS, Provider("none", {}), lambda limits: made.append(Unconfined(limits)) or made[0])
    assert list(one.checks())[-1] == (True, "POST /execute, level A", "")
    assert made[0].closed


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"cpu": 0}, "cpu"),
        ({"memory": 10}, "memory must be between 64"),
        ({"output": 4.0}, "output must be between 0.001 and 3"),
        ({"concurrency": 0}, "concurrency"),
        ({"spares": -1}, "spares"),
        ({"require": ("secomp",)}, "require: there is no layer 'secomp'"),
        ({"without": ("x",)}, "without"),
    ],
)
def test_an_option_that_makes_no_sense_stops_the_start(option, words):
    with pytest.raises(ValueError, match=words):
        Execute({**DEFAULTS, **option}, Provider("none", {}))


def test_the_defaults_are_those_of_the_plan():
    assert execute().limits == plans.Limits()


# over real sockets

ON = "[plugins.rate_limit]\nenabled = no\n[plugins.execute]\nconcurrency = 2\n"


@pytest.fixture
def running(house):
    def build(ini: str = ON, **more: Any) -> Any:
        one = house(ini, **more)
        report = one.ask("GET", "/execute").json
        if not report["available"]:
            pytest.skip(f"no program can be run here: {report['missing']}")
        return one

    return build


def test_a_whole_house_runs_a_program(running):
    answer = running().ask("POST", "/execute", {"code": ADD, "input": AB})
    assert answer.status == 200
    told_ = answer.json
    assert told_.pop("duration_ms") > 0
    assert told_ == {
        "success": True,
        "output": "3",
        "result": 3,
        "error": "",
        "error_type": None,
        "stdout": "",
        "stderr": "",
        "truncated": False,
    }


def test_a_client_that_leaves_makes_room_at_once(running):
    one = running(ON.replace("concurrency = 2", "concurrency = 1\ntimeout = 60"))
    body = b'{"code": "while True: pass"}'
    head = f"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", one.port), 10) as client:
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        assert select.select([client], [], [], 0.5)[0] == []  # it runs
        assert one.ask("POST", "/execute", {"code": "1"}).status == 429
    deadline = time.monotonic() + 2
    while one.ask("POST", "/execute", {"code": "1"}).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_64_at_once_get_an_answer_or_a_clean_429(running):
    one = running()
    answers: List[Any] = []
    body = {"code": "import time\ndef f(n):\n    time.sleep(0.05)\n    return n"}

    def ask(n: int) -> None:
        answers.append((n, one.ask("POST", "/execute", {**body, "input": n})))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for _, answer in answers} <= {200, 429}
    good = [(n, answer.json["result"]) for n, answer in answers if answer.status == 200]
    assert len(good) >= 2
    assert all(n == result for n, result in good)
    assert all(a.headers["retry-after"] and a.json["error"]["code"] for _, a in answers if a.status == 429)


def test_doctor_tells_the_layers(running, tmp_path):
    running()
    command = [sys.executable, str(ROOT / "llmproxy.py"), "doctor"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean_environment(tmp_path), cwd=tmp_path, timeout=60
    )
    for layer in plans.LAYERS:
        assert f"sandbox layer {layer}" in done.stdout
    assert "POST /execute, level " in done.stdout
