from __future__ import annotations

import pytest

from plugins import Refusal, Request, Response
from plugins.cors import Cors, is_loopback, preflight
from providers import Provider
from providers._http import Fields

OPTIONS = {name: row[0] for name, row in Cors.options.items()}


def cors(**options) -> Cors:
    return Cors({**OPTIONS, **options}, Provider("up", {}))


def asked(method="POST", host="127.0.0.1:3500", local="127.0.0.1", public=False, fields=()) -> Request:
    request = Request(method, "/llm", Fields([("Host", host), *fields]), "127.0.0.1", local=local)
    request.public = public
    return request


def served(request: Request, **options) -> Response:
    return cors(**options).handle(request, lambda _: Response(200, {"Vary": "Accept"}, b"{}"))


ALLOWED = [
    "http://localhost",
    "http://localhost:8080",
    "https://127.0.0.1:1",
    "http://[::1]:3000",
    "app://obsidian.md",
    "app://-",
    "file://",
    "tauri://localhost",
    "vscode-webview://1a2b",
]
FOREIGN = [
    "null",
    "",
    "http://evil.test",
    "http://localhost.evil.test",
    "http://localhost@evil.test",
    "http://evil.test#localhost",
    "http://localhost:80x",
    "http://localhost:123456",
    "http://localhost/",
    "http://127.0.0.1.evil.test",
    "http://127.1",
    "http://0.0.0.0",
    "http://2130706433",
    "http://[::1",
    "http://localhost, http://localhost",
    "http://locаlhost",  # noqa: RUF001  (a Cyrillic letter is the point)
    "app:evil",
    "ftp://localhost",
    "data://x",
]


@pytest.mark.parametrize("origin", ALLOWED)
def test_an_allowed_origin_is_answered_by_name_and_once(origin):
    headers = served(asked(fields=[("Origin", origin)])).headers
    assert [value for name, value in headers if name == "Access-Control-Allow-Origin"] == [origin]
    assert ("Vary", "Origin") in headers and ("Vary", "Accept") in headers


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_foreign_origin_is_refused_before_anything_is_read(origin, method):
    request = asked(method, fields=[("Origin", origin), ("Access-Control-Request-Method", "POST")])
    with pytest.raises(Refusal) as caught:
        cors().handle(request, lambda _: pytest.fail("it went on"))
    assert caught.value.status == 403 and caught.value.headers == {"Vary": "Origin"}


def test_two_origins_are_none():
    with pytest.raises(Refusal):
        served(asked(fields=[("Origin", "http://localhost"), ("Origin", "http://localhost")]))


def test_what_is_public_is_served_to_a_foreign_page_that_cannot_read_it():
    response = served(asked("GET", public=True, fields=[("Origin", "http://evil.test")]))
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
    with pytest.raises(Refusal):
        served(asked("POST", public=True, fields=[("Origin", "http://evil.test")]))


def test_a_request_from_another_site_without_an_origin_is_refused():
    with pytest.raises(Refusal):
        served(asked("GET", fields=[("Sec-Fetch-Site", "cross-site")]))
    assert served(asked("GET", public=True, fields=[("Sec-Fetch-Site", "cross-site")])).status == 200
    assert served(asked("GET", fields=[("Sec-Fetch-Site", "same-origin")])).status == 200


def test_a_client_that_is_no_browser_is_served():
    headers = served(asked()).headers
    assert ("Vary", "Origin") in headers and not [n for n, _ in headers if n.startswith("Access-Control")]


def test_more_origins_can_be_named_but_not_all():
    assert served(asked(fields=[("Origin", "https://chat.test")]), origins=("https://chat.test/",)).status == 200
    with pytest.raises(Refusal):
        served(asked(fields=[("Origin", "https://chat.test:8443")]), origins=("https://chat.test",))
    with pytest.raises(ValueError, match="one by one"):
        cors(origins=("*",))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:3500"])
def test_our_own_names_are_ours(host):
    assert served(asked(host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.test",
        "evil.test:3500",
        "localhost.",
        "localhost.evil.test",
        "127.1",
        "0x7f.0.0.1",
        "2130706433",
        "0.0.0.0",
        "localhost:x",
        "localhost:123456",
        "user@localhost",
        "[::1",
        "[::ffff:127.0.0.1]",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("public", [True, False])
def test_any_other_name_is_a_rebound_one(host, method, public):
    with pytest.raises(Refusal) as caught:
        served(asked(method, host=host, public=public))
    assert caught.value.status == 421


def test_a_name_of_this_machine_can_be_added():
    assert served(asked(host="proxy.test:8443"), hosts=("Proxy.test",)).status == 200


def test_on_an_address_that_others_reach_any_name_may_lead_here():
    assert served(asked(host="box.lan:3500", local="192.0.2.7")).status == 200


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("", True),
    ],
)
def test_an_address_that_is_not_known_counts_as_loopback(address, loopback):
    assert is_loopback(address) is loopback


def test_a_preflight_grants_what_was_asked_within_bounds():
    asked_for = "X-Api-Key, anthropic-version, bad name, x\x7f, " + ", ".join(f"x-{n}" for n in range(500))
    response = preflight(asked("OPTIONS", fields=[("Access-Control-Request-Headers", asked_for)]), "http://localhost")
    headers = dict(response.headers)
    granted = headers["Access-Control-Allow-Headers"].split(", ")
    assert granted[:4] == ["content-type", "authorization", "x-api-key", "anthropic-version"]
    assert len(granted) <= 66 and "bad name" not in granted
    assert response.status == 204 and "Access-Control-Allow-Private-Network" not in headers


def test_a_preflight_into_a_private_network_is_granted_to_our_own_pages():
    fields = [("Origin", "http://localhost:5173"), ("Access-Control-Request-Method", "POST")]
    request = asked("OPTIONS", fields=[*fields, ("Access-Control-Request-Private-Network", "true")])
    assert ("Access-Control-Allow-Private-Network", "true") in served(request).headers


def test_in_a_whole_house_every_answer_carries_what_a_page_needs(house, upstream):
    from upstream import Reply

    up = upstream(Reply(200, {"Vary": "Accept", "Access-Control-Allow-Origin": "*"}, b"{}"))
    secret = "0123456789abcdef0123456789abcdef"
    proxy = house(
        f"[plugins.auth]\nenabled = yes\nsecret = {secret}\n[providers.ollama]\nbase_url = {up.url}\n"
        "[plugins.rate_limit]\nrate = 1\nburst = 1"
    )
    page = {"Origin": "http://localhost:5173"}
    for method, path, status in (("POST", "/llm", 401), ("GET", "/nowhere", 401), ("GET", "/health", 200)):
        answer = proxy.ask(method, path, b"" if method == "POST" else None, headers=page)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, page["Origin"])
    asking = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for _ in range(3):  # no token, and not counted
        assert proxy.ask("OPTIONS", "/llm", headers=asking).status == 204
    from plugins.auth import sign

    token = {"Authorization": "Bearer " + sign({"sub": "a"}, secret.encode())}
    answer = proxy.ask("GET", "/ollama/api/tags", headers={**page, **token})
    assert [v for n, v in answer.fields if n.lower() == "access-control-allow-origin"] == [page["Origin"]]
    assert sorted(v for n, v in answer.fields if n.lower() == "vary") == ["Accept", "Origin"]
    refused = proxy.ask("GET", "/ollama/api/tags", headers={**page, **token})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (429, page["Origin"])
    assert proxy.ask("POST", "/llm", {}, headers={"Origin": "http://evil.test", **token}).status == 403
    assert len(up.asked) == 1
