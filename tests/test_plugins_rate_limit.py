"""What is promised of `plugins/rate_limit.py`."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from plugins import Refusal, Request, Response
from plugins.auth import sign
from plugins.rate_limit import RateLimit
from providers import Provider
from providers._http import Fields
from scripted import closed_port
from test_plugins__redis import real

redis = real  # where one is installed

OPTIONS = {name: row[0] for name, row in RateLimit.options.items()}
SECOND = 10**9
SECRET = "only-for-this-test-only-for-this"
PROC = Path("/proc")
MODELS = b'{"type":"models","provider":"echo"}'
SLOW = "rate = 0.01"  # a minute: while a test lasts nothing comes back


class Clock:
    """A clock that is set by hand, in nanoseconds."""

    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock) -> Callable[..., RateLimit]:
    """Give a maker of the plugin, on the clock that is set by hand."""
    return lambda **options: RateLimit({**OPTIONS, **options}, Provider("up", {}), clock=clock)


def asked(user: str = "", address: str = "192.0.2.1", path: str = "/llm", method: str = "POST", **fields) -> Request:
    pairs = [(name.replace("_", "-"), value) for name, value in fields.items()]
    request = Request(method, path, Fields(pairs), address)
    request.user = user
    return request


def served(plugin: RateLimit, *args: Any, times: int = 1000, **kwargs: Any) -> int:
    """Ask so many times; gives how often it was let through."""
    return sum(answer(plugin, asked(*args, **kwargs)).status == 204 for _ in range(times))


def answer(plugin: RateLimit, request: Request) -> Any:
    """Give the answer, or the refusal."""
    try:
        return plugin.handle(request, lambda _: Response(204))
    except Refusal as refusal:
        return refusal


def test_by_default_120_come_at_once_and_600_a_minute(limit, clock):
    plugin = limit()
    assert served(plugin) == 120
    clock.wait(0.1)
    assert served(plugin) == 1
    clock.wait(6)
    assert served(plugin) == 60
    clock.wait(3600)
    assert served(plugin) == 120


@pytest.mark.parametrize(("rate", "burst"), [(600.0, 120), (7.0, 3), (1234.5, 2)])
def test_a_minute_lets_through_what_was_promised(limit, clock, rate, burst):
    plugin = limit(rate=rate, burst=burst)
    served(plugin, times=burst)
    got = 0
    for _ in range(6000):
        clock.wait(0.01)
        got += served(plugin, times=1)
    assert abs(got - rate) <= max(1, rate * 0.02)


@pytest.mark.parametrize("rate", [0.5, 7.0, 59.0, 60.0, 61.0, 600.0, 100_000.0])
@pytest.mark.parametrize("late", [0.0, 0.4, 0.999999])
def test_retry_after_is_true_to_the_second(limit, clock, rate, late):
    def emptied() -> Tuple[RateLimit, int]:
        plugin = limit(rate=rate, burst=3)
        served(plugin, times=3)
        clock.wait(late * min(1.0, 60 / rate))
        refusal = answer(plugin, asked())
        assert refusal.status == 429
        return plugin, int(refusal.headers["Retry-After"])

    plugin, wait = emptied()
    assert wait >= 1
    clock.wait(wait)
    assert answer(plugin, asked()).status == 204
    plugin, wait = emptied()
    clock.wait(wait - 1)
    assert answer(plugin, asked()).status == 429


def test_a_refusal_says_what_a_client_has_to_know(limit):
    plugin = limit(rate=6.0, burst=1)
    answer(plugin, asked())
    refusal = answer(plugin, asked())
    assert refusal.document()["error"] == {
        "message": "too many requests: try again in 10 s",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert refusal.headers == {
        "Retry-After": "10",
        "RateLimit-Limit": "1",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "10",
    }


def test_every_answer_tells_how_the_bucket_stands(limit, clock):
    plugin = limit(rate=60.0, burst=3)

    def told() -> Dict[str, str]:
        return dict(answer(plugin, asked()).headers)

    assert told() == {"RateLimit-Limit": "3", "RateLimit-Remaining": "2", "RateLimit-Reset": "1"}
    clock.wait(0.5)
    assert told() == {"RateLimit-Limit": "3", "RateLimit-Remaining": "1", "RateLimit-Reset": "2"}
    clock.wait(1.5)
    assert told() == {"RateLimit-Limit": "3", "RateLimit-Remaining": "2", "RateLimit-Reset": "1"}


def test_what_an_upstream_says_of_its_limit_does_not_contradict_ours(limit):
    theirs = [("ratelimit-limit", "9"), ("RateLimit", "limit=9"), ("x-ratelimit-limit-requests", "9"), ("A", "b")]
    response = limit().handle(asked(), lambda _: Response(200, theirs))
    names = [name for name, _ in response.headers]
    assert names == ["x-ratelimit-limit-requests", "A", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]


def test_a_user_is_counted_wherever_they_come_from(limit):
    plugin = limit(burst=5)
    assert served(plugin, "alice", "192.0.2.1", times=3) == 3
    assert served(plugin, "alice", "192.0.2.2") == 2
    assert served(plugin, "bob", "192.0.2.1") == 5


def test_an_address_is_counted_where_there_is_no_user(limit):
    plugin = limit(burst=5)
    assert served(plugin, "", "192.0.2.1") == 5
    assert served(plugin, "", "192.0.2.2") == 5
    assert served(plugin, "192.0.2.1", "192.0.2.3") == 5  # somebody may be called that


def test_an_ipv6_client_has_its_whole_64_and_an_ipv4_one_its_address(limit):
    plugin = limit(burst=5)
    assert served(plugin, address="2001:db8::1", times=3) == 3
    assert served(plugin, address="2001:db8::ffff:0:2") == 2
    assert served(plugin, address="2001:db8:0:1::1") == 5
    assert served(plugin, address="192.0.2.1", times=3) == 3
    assert served(plugin, address="::ffff:192.0.2.1") == 2


def test_by_ip_counts_the_address_whoever_it_is(limit):
    plugin = limit(burst=5, by="ip")
    assert served(plugin, "alice", times=3) == 3
    assert served(plugin, "bob") == 2
    assert served(plugin, "alice", "192.0.2.2") == 5


def test_by_both_wants_some_left_of_each(limit, clock):
    plugin = limit(rate=60.0, burst=5, by="both")
    assert served(plugin, "alice", "192.0.2.1", times=3) == 3
    assert dict(answer(plugin, asked("bob", "192.0.2.1")).headers)["RateLimit-Remaining"] == "1"
    assert served(plugin, "carol", "192.0.2.1") == 1
    assert served(plugin, "carol", "192.0.2.2") == 4  # the refusals of the address cost her nothing
    assert served(plugin, "", "192.0.2.1") == 0
    clock.wait(1)
    assert served(plugin, "alice", "192.0.2.1") == 1
    assert served(plugin, "alice", "192.0.2.3") == 2


@pytest.mark.parametrize("by", ["user", "ip", "both"])
def test_what_a_client_says_of_its_address_changes_nothing(limit, by):
    plugin = limit(burst=5, by=by)
    spoofs = [
        {"x_forwarded_for": f"10.0.0.{n}", "forwarded": f"for=10.0.0.{n}", "x_real_ip": "1.1.1.1"} for n in range(9)
    ]
    assert sum(served(plugin, times=1, **spoof) for spoof in spoofs) == 5


def test_execute_has_a_budget_of_its_own(limit):
    plugin = limit(burst=5, execute_burst=2)
    assert served(plugin, path="/execute") == 2
    assert served(plugin, path="/executes") == 5
    assert answer(plugin, asked(path="/execute")).headers["RateLimit-Limit"] == "2"
    assert served(limit(burst=1, execute_burst=7), path="/execute") == 7


def test_what_is_public_and_what_a_browser_asks_before_is_free(limit):
    plugin = limit(burst=1)
    for _ in range(5):
        public = asked(path="/health", method="GET")
        public.public = True
        assert answer(plugin, public).headers == []
        assert answer(plugin, asked(method="OPTIONS")).headers == []
    assert served(plugin) == 1


@pytest.mark.parametrize(
    "user", ["x" * 256, "é" * 256, "名前", "a\0b", "\ud800", "\udfff", "🙂", " ", "a b", "192.0.2.1"]
)
def test_a_user_may_be_called_anything(limit, user):
    plugin = limit(burst=2)
    served(plugin, "somebody else")
    assert served(plugin, user) == 2


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("rate", 0.0, "rate must be a number above 0, not 0"),
        ("rate", -1.0, "above 0"),
        ("rate", float("nan"), "above 0"),
        ("rate", float("inf"), "above 0"),
        ("execute_rate", 0.0, "execute_rate must"),
        ("burst", 0, "burst must be at least 1, not 0"),
        ("execute_burst", -3, "execute_burst must"),
        ("rate", 1e-9, "100 years"),
        ("burst", 10**18, "100 years"),
        ("by", "name", "by must be user or ip or both, not 'name'"),
        ("store", "disk", "store must be memory or like redis://"),
    ],
)
def test_what_is_no_limit_stops_the_start(limit, option, value, told):
    with pytest.raises(ValueError, match=told):
        limit(**{option: value})


def test_the_longest_wait_there_is_can_be_told(limit):
    plugin = limit(rate=1e-6, burst=50)
    assert served(plugin) == 50
    assert answer(plugin, asked()).headers["Retry-After"] == str(60 * 10**6)


# in a house


class Client:
    """One connection to a house, kept open, on a bare socket."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.ahead = b""

    def ask(self, line: str = "POST /llm", *fields: str, body: bytes = MODELS) -> Tuple[int, Dict[str, str]]:
        """Ask, and give status and headers; the body is read and dropped."""
        head = [f"{line} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *fields]
        head += [f"Content-Length: {len(body)}", "", ""]
        self.sock.sendall("\r\n".join(head).encode() + body)
        while b"\r\n\r\n" not in self.ahead:
            self._more()
        text, _, self.ahead = self.ahead.partition(b"\r\n\r\n")
        lines = text.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines[1:])}
        length = int(headers.get("content-length", 0))
        while len(self.ahead) < length:
            self._more()
        self.ahead = self.ahead[length:]
        return int(lines[0].split()[1]), headers

    def _more(self) -> None:
        block = self.sock.recv(65536)
        assert block, "the house hung up"
        self.ahead += block

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def together(port: int, clients: int, each: int) -> Counter:
    """Have so many clients ask at once, on a connection each; gives how often each status came."""
    start = threading.Barrier(clients)
    got: List[int] = []

    def work() -> None:
        with Client(port) as client:
            start.wait()
            got.extend(client.ask()[0] for _ in range(each))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(got)


def test_a_house_lets_64_clients_at_once_have_the_burst_exactly(house):
    up = house(f"[plugins.rate_limit]\n{SLOW}\nburst = 120")
    assert together(up.port, 64, 4) == {200: 120, 429: 136}


def test_a_house_tells_every_answer_and_exempts_what_is_free(house):
    up = house(f"[plugins.rate_limit]\n{SLOW}\nburst = 3")
    with Client(up.port) as client:
        assert client.ask()[1]["ratelimit-remaining"] == "2"
        assert client.ask("GET /nothing", "X-Forwarded-For: 10.1.1.1", body=b"")[1]["ratelimit-remaining"] == "1"
        assert client.ask("POST /llm", "X-Forwarded-For: 10.1.1.2", body=b"{")[1]["ratelimit-remaining"] == "0"
        status, headers = client.ask("POST /llm", "X-Forwarded-For: 10.1.1.3", "Forwarded: for=10.1.1.3")
        assert (status, headers["ratelimit-limit"], headers["retry-after"]) == (429, "3", "6000")
        for line, free in (("GET /health", 200), ("OPTIONS /llm", 204)):
            status, headers = client.ask(line, body=b"")
            assert (status, "ratelimit-limit" in headers) == (free, False)


def test_a_house_keeps_its_word_for_a_few_seconds(house):
    """Between two refusals, when the bucket is as good as empty, comes what the time between them brings."""
    up = house("[plugins.rate_limit]\nrate = 1200\nburst = 40")

    def emptied(client: Client) -> Tuple[int, float, float]:
        """Ask until refused; gives how often it was answered, and between which times the refusal was."""
        got = 0
        while True:
            before = time.monotonic()
            status, headers = client.ask()
            if status == 429:
                assert headers["retry-after"] == "1"
                return got, before, time.monotonic()
            got += 1

    with Client(up.port) as client:
        _, earliest, latest = emptied(client)
        got, before, after = 0, 0.0, 0.0
        while before < latest + 1.2:
            more, before, after = emptied(client)
            got += more
    assert (before - latest) * 20 - 1 <= got <= (after - earliest) * 20 + 1


def test_a_token_that_was_not_believed_neither_gets_nor_drains_a_bucket(house):
    up = house(f"[plugins.auth]\nenabled = yes\nsecret = {SECRET}\n[plugins.rate_limit]\n{SLOW}\nburst = 3\nby = both")

    def bearer(user: str, secret: str = SECRET) -> str:
        return f"Authorization: Bearer {sign({'sub': user}, secret.encode())}"

    with Client(up.port) as client:
        for _ in range(9):
            status, headers = client.ask("POST /llm", bearer("alice", "another secret, of just any kind"))
            assert (status, "ratelimit-limit" in headers) == (401, False)
        odd = ["alice", "é" * 256, "\ud800"]
        assert [client.ask("POST /llm", bearer(user))[0] for user in odd] == [200, 200, 200]
        assert client.ask("POST /llm", bearer("alice"))[0] == 429


def workers_of(pid: int) -> List[int]:
    """Give the children of a process."""
    found = []
    for path in PROC.glob("[0-9]*/stat"):
        try:
            stat = path.read_text("utf-8", "replace")
        except OSError:
            continue  # it has ended
        if int(stat.rpartition(")")[2].split()[1]) == pid:
            found.append(int(path.parent.name))
    return found


def wait_for(what: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no workers here")
def test_workers_let_64_clients_at_once_have_the_burst_exactly(house):
    up = house(f"[plugins.rate_limit]\n{SLOW}\nburst = 120", args=["--workers", "2"])
    assert together(up.port, 64, 4) == {200: 120, 429: 136}


@pytest.mark.skipif(not PROC.joinpath("self/stat").exists(), reason="a process's children cannot be seen here")
def test_what_was_spent_at_one_worker_is_spent_at_all_and_outlives_them(house):
    up = house(f"[plugins.rate_limit]\n{SLOW}\nburst = 20", args=["--workers", "2"])
    assert together(up.port, 4, 3) == {200: 12}
    old = workers_of(up.process.pid)
    assert len(old) == 2
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len([pid for pid in workers_of(up.process.pid) if pid not in old]) == 2)
    assert together(up.port, 4, 5) == {200: 8, 429: 12}


def test_a_house_that_is_told_nonsense_does_not_start(house):
    with pytest.raises(AssertionError, match=r"\[plugins.rate_limit\] store must be memory or like"):
        house("[plugins.rate_limit]\nstore = disk")


def test_where_nobody_counts_nobody_is_let_in(house, limit):
    port = closed_port()
    store = f"redis://:geheim@127.0.0.1:{port}/0"
    up = house(f"[plugins.rate_limit]\nstore = {store}\n[plugins.cors]\norigins = https://a.test")
    for _ in range(3):
        answer = up.ask("POST", "/llm", {"type": "models", "provider": "echo"}, {"Origin": "https://a.test"})
        assert (answer.status, answer.json["error"]["code"]) == (503, "rate_limit_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["access-control-allow-origin"] == "https://a.test"
    assert up.ask("GET", "/health").status == 200
    assert up.log.count("nobody is let in") == 1
    assert "geheim" not in up.log
    found = [*limit(store=store).checks()]
    assert [(good, remedy) for good, _, remedy in found] == [(False, "see [plugins.rate_limit] store")]
    assert "geheim" not in str(found)


def test_a_redis_counts_for_all_houses_and_over_a_reload(house, limit, redis):
    store = f"[plugins.rate_limit]\n{SLOW}\nburst = 20\nstore = {redis}"
    ups = [house(store, args=["--workers", "2"]), house(store)]
    assert together(ups[0].port, 16, 1) + together(ups[1].port, 8, 1) == {200: 20, 429: 4}
    ups[1].process.send_signal(signal.SIGHUP)
    assert ups[1].wait_log("a new version answers")
    assert together(ups[1].port, 4, 1) == {429: 4}
    plugin = limit(store=redis)
    assert [good for good, _, _ in plugin.checks()] == [True]
    plugin.close()


def test_counts_in_memory_are_not_taken_over_by_a_redis(limit):
    kept, there = limit(), limit(store="redis://127.0.0.1")
    there.follow(kept)
    assert there.buckets is there.store
    kept.follow(there)
    assert kept.buckets is not there.buckets
    there.close()


def test_a_reload_keeps_the_counts(house):
    up = house(f"[plugins.rate_limit]\n{SLOW}\nburst = 20", args=["--workers", "2"])
    assert together(up.port, 4, 3) == {200: 12}
    up.process.send_signal(signal.SIGHUP)
    wait_for(lambda: up.log.count("a new version answers") == 2)
    assert together(up.port, 16, 5) == {200: 8, 429: 72}


def test_a_forwarded_address_counts_only_when_a_proxy_is_trusted_with_it(house):
    asked = {"type": "models", "provider": "echo"}
    for trusted, seen in (("", [200, 429]), ("trusted_proxies = 127.0.0.0/8", [200, 200])):
        up = house(f"[server]\n{trusted}\n[plugins.rate_limit]\n{SLOW}\nburst = 1")
        headers = [{"X-Forwarded-For": f"203.0.113.{last}"} for last in (1, 2)]
        assert [up.ask("POST", "/llm", asked, headers=one).status for one in headers] == seen


def test_a_trusted_proxy_that_is_no_address_stops_the_start(house):
    with pytest.raises(AssertionError, match=r"\[server\] 'nonsense' does not appear to be"):
        house("[server]\ntrusted_proxies = nonsense")
