"""What is promised of `plugins/cors.py`: who may ask is asked first, and what a browser is told of it."""

from __future__ import annotations

import re
import shutil
import socket
from typing import Any, Callable, List, Optional, Tuple

import pytest

from conftest import ROOT
from plugins import Plugin, Refusal, Request, Response
from plugins.auth import sign
from plugins.cors import EXPOSED, Cors
from providers import Provider
from providers._http import Fields
from upstream import Reply, json_reply

OURS = [
    "http://localhost",
    "http://localhost:1",
    "https://localhost:65535",
    "http://127.0.0.1",
    "http://127.0.0.1:3500",
    "https://127.0.0.1:8443",
    "http://[::1]",
    "https://[::1]:5173",
    "app://",
    "app://-",
    "app://obsidian.md",
    "file://",
    "tauri://localhost",
    "vscode-webview://0a1b2c-d_e",
]
FOREIGN = [
    "null",
    "",
    "*",
    "http://",
    "localhost",
    "//localhost",
    "http:localhost",
    "http:/localhost",
    "http://evil.test",
    "http://localhost.evil.test",
    "http://localhostevil.test",
    "http://evil-localhost",
    "http://evil.test/localhost",
    "http://evil.test#localhost",
    "http://127.0.0.1.evil.test",
    "http://127.0.0.10",
    "http://127.0.0.2",
    "http://127.1",
    "http://0.0.0.0",
    "http://0x7f.1",
    "http://2130706433",
    "http://[::]",
    "http://[::ffff:127.0.0.1]",
    "http://::1",
    "http://[::1",
    "http://loc\u0430lhost",
    "http://localhost.",
    "http://localhost/",
    "http://localhost:",
    "http://localhost:80a",
    "http://localhost:123456",
    "http://localhost:-1",
    "http://localhost:\xb2",
    "http://localhost:80:80",
    "http://localhost:80@evil.test",
    "http://localhost@evil.test",
    "http://evil.test@localhost",
    "http://user:pass@127.0.0.1",
    "http://localhost evil.test",
    "http://localhost,http://evil.test",
    "http://evil.test, http://localhost",
    "http://localhost http://localhost",
    "http://localhost\t",
    "http://localhost\\evil.test",
    "http://localhost%00.evil.test",
    "http://loca\xadlhost",
    "http://l\xf6calhost",
    "http://LOCALHOST",
    "HTTP://localhost",
    "Http://127.0.0.1",
    "ftp://localhost",
    "ws://localhost",
    "xhttp://localhost",
    "http+unix://localhost",
    "chrome-extension://abcdef",
    "app",
    "app:",
    "app:evil",
    "data://x",
    "app:/",
    "APP://x",
    "app://x/y",
    "app://x@evil.test",
    "app://x evil",
    "xapp://x",
    "web+app://x",
    "http://app://x",
    "file:///",
    "file:///etc/passwd",
    "tauri://localhost/",
    "vscode-webview://x?y",
    "vscode-webview://\xe9",
]
HOSTS = ["localhost", "LocalHost", "LOCALHOST:3500", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:65535"]
STRANGE_HOSTS = [
    "",
    "evil.test",
    "evil.test:3500",
    "localtest.me",
    "127.0.0.1.nip.io",
    "app.localhost",
    "localhost.",
    "localhost.localdomain",
    "localhost.evil.test",
    "evil-localhost",
    "127.1",
    "127.0.1",
    "127.0.0.2",
    "127.0.0.1.",
    "127.000.000.001",
    "0177.0.0.1",
    "0x7f.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "0.0.0.0",
    "0",
    "[::]",
    "::1",
    "[::1",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::1%25lo]",
    "localhost:",
    "localhost:x",
    "localhost:80x",
    "localhost:+80",
    "localhost:123456",
    "localhost:80:80",
    "localhost:\xb2",
    "localhost@evil.test",
    "user@localhost",
    "evil.test@localhost",
    "localhost/",
    "localhost,evil.test",
    "localhost evil.test",
    "local\xadhost",
    "http://localhost",
]


def plugin(**options: Any) -> Cors:
    return Cors({"origins": (), "hosts": (), **options}, Provider("up", {}))


def asking(
    origin: Optional[str] = None,
    method: str = "POST",
    public: bool = False,
    local: str = "127.0.0.1",
    **fields: str,
) -> Request:
    """Make a request whose body must not be read."""
    pairs = [(name.replace("_", "-"), value) for name, value in {"host": "localhost:3500", **fields}.items()]
    pairs += [("Origin", origin)] if origin is not None else []
    request = Request(method, "/llm", Fields(pairs), local=local, read=unread)
    request.public = public
    return request


def unread() -> bytes:
    raise AssertionError("the body was read")


def ok(_: Request) -> Response:
    return Response(200, {"Content-Type": "text/plain"}, b"ok")


def answer(request: Request, cors: Optional[Cors] = None, inner: Callable[[Request], Response] = ok) -> Response:
    """Give the answer, or the refusal as it is told."""
    try:
        return (cors or plugin()).handle(request, inner)
    except Refusal as refusal:
        return Plugin({}, Provider("up", {})).error(refusal)


def of_browsers(headers: Any) -> List[Tuple[str, str]]:
    """Give the headers that are there for browsers, Vary aside."""
    return sorted((name.lower(), value) for name, value in headers if name.lower().startswith("access-control-"))


def granted(origin: str) -> List[Tuple[str, str]]:
    return [("access-control-allow-origin", origin), ("access-control-expose-headers", EXPOSED)]


def vary(headers: Any) -> str:
    """Give the one Vary there is."""
    (value,) = [value for name, value in headers if name.lower() == "vary"]
    return value


# who may ask


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("origin", OURS)
def test_loopback_pages_and_desktop_apps_may_ask(origin, method):
    response = answer(asking(origin, method))
    assert response.status == 200
    assert of_browsers(response.headers) == granted(origin)
    assert vary(response.headers) == "Origin"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
@pytest.mark.parametrize("origin", FOREIGN)
def test_all_others_are_refused_unread_and_told_nothing(origin, method):
    for fields in (
        {},
        {"authorization": "Bearer x"},
        {"content_type": "text/plain"},
        {"sec_fetch_site": "same-origin"},
    ):
        response = answer(asking(origin, method, **fields), inner=unasked)
        assert response.status == 403
        assert of_browsers(response.headers) == []
        assert vary(response.headers) == "Origin"
        assert b'"foreign_origin"' in response.body


def unasked(_: Request) -> Response:
    raise AssertionError("it was asked")


@pytest.mark.parametrize("origin", FOREIGN)
def test_what_is_public_is_served_to_anybody_but_no_foreign_page_can_read_it(origin):
    for method in ("GET", "HEAD"):
        response = answer(asking(origin, method, public=True))
        assert response.status == 200
        assert of_browsers(response.headers) == []
        assert vary(response.headers) == "Origin"
    for method in ("POST", "OPTIONS", "DELETE"):
        assert answer(asking(origin, method, public=True), inner=unasked).status == 403


@pytest.mark.parametrize("second", ["http://localhost", "http://evil.test", ""])
@pytest.mark.parametrize("public", [False, True])
def test_two_origins_are_none(second, public):
    request = asking("http://localhost", "GET", public)
    request.fields = Fields([*request.fields.pairs, ("origin", second)])
    assert answer(request, inner=unasked).status == 403


def test_a_client_without_an_origin_is_served_and_a_cache_knows_of_them():
    response = answer(asking())
    assert response.status == 200
    assert of_browsers(response.headers) == []
    assert vary(response.headers) == "Origin"


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-origin", 200), ("same-site", 200), ("none", 200), ("", 200)]
)
def test_images_links_and_frames_of_foreign_pages_are_refused_though_they_have_no_origin(site, status):
    assert answer(asking(method="GET", sec_fetch_site=site)).status == status
    assert answer(asking(method="POST", sec_fetch_site=site)).status == status
    assert answer(asking(method="POST", public=True, sec_fetch_site=site)).status == status
    assert answer(asking(method="GET", public=True, sec_fetch_site=site)).status == 200


def test_a_page_that_may_ask_may_do_so_from_another_site():
    assert answer(asking("http://localhost:8000", sec_fetch_site="cross-site")).status == 200


@pytest.mark.parametrize("given", ["https://chat.example.com", "https://chat.example.com/", "HTTPS://Chat.Example.com"])
def test_more_origins_can_be_named(given):
    cors = plugin(origins=(given, "capacitor://MyApp", "http://[2001:db8::1]:8080"))
    for origin in ("https://chat.example.com", "capacitor://MyApp", "http://[2001:db8::1]:8080", "http://localhost"):
        assert of_browsers(answer(asking(origin), cors).headers) == granted(origin)
    for origin in (
        "http://chat.example.com",
        "https://chat.example.com:8443",
        "https://chat.example.com.evil.test",
        "https://evil.chat.example.com",
        "https://chat.example.com/",
        "HTTPS://CHAT.EXAMPLE.COM",
        "capacitor://yourapp",
        "null",
        "*",
    ):
        assert answer(asking(origin), cors, unasked).status == 403


@pytest.mark.parametrize(
    "given",
    ["*", "null", "chat.example.com", "https://*.example.com", "https://a.test/chat", "https://a@b.test", "://"],
)
def test_an_origin_that_no_page_has_or_every_page_can_have_is_no_option(given):
    with pytest.raises(ValueError, match="origins: name them one by one"):
        plugin(origins=("https://good.example.com", given))


@pytest.mark.parametrize("scheme", ["app://", "ionic://"])
def test_a_scheme_can_be_named_without_a_host(scheme):
    assert answer(asking(scheme), plugin(origins=(scheme,))).status == 200


# by what name


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("local", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", ""])
def test_this_machine_goes_by_three_names(host, local):
    assert answer(asking(host=host, local=local)).status == 200


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_on_a_loopback_address_every_other_name_is_refused(host):
    for method, public in (("POST", False), ("GET", True), ("OPTIONS", False)):
        for origin in (None, "http://localhost", f"http://{host}"):
            request = asking(origin, method, public, host=host, access_control_request_method="POST")
            response = answer(request, inner=unasked)
            assert response.status == 421
            assert of_browsers(response.headers) == []
            assert vary(response.headers) == "Origin"


def test_an_address_that_is_not_known_is_taken_for_a_loopback_one():
    assert answer(asking(host=STRANGE_HOSTS[0], local=""), inner=unasked).status == 421


def test_a_request_that_names_no_host_is_refused():
    assert answer(Request("GET", "/health", Fields([]), local="127.0.0.1"), inner=unasked).status == 421


def test_where_others_can_reach_us_they_know_our_name_better():
    for local in ("192.0.2.7", "2001:db8::1", "fe80::1%eth0"):
        assert answer(asking(host="proxy.example.com", local=local)).status == 200


def test_more_names_can_be_given():
    cors = plugin(hosts=("Proxy.Example.com", "exact.example.com:8080", "[fd00::1]"))
    for host in ("proxy.example.com", "PROXY.example.com:443", "exact.example.com:8080", "[FD00::1]:80", "localhost"):
        assert answer(asking(host=host), cors).status == 200
    for host in ("a.proxy.example.com", "proxy.example.com.", "proxy.example.com:x", "exact.example.com", "evil.test"):
        assert answer(asking(host=host), cors, unasked).status == 421


@pytest.mark.parametrize("given", ["*", "*.example.com", "https://proxy.example.com", "a/b", "a:b", "a@b", "b\xfccher"])
def test_a_name_that_no_host_can_have_is_no_option(given):
    with pytest.raises(ValueError, match="hosts: name them one by one"):
        plugin(hosts=(given,))


# what a browser is told


def test_what_others_said_to_browsers_is_replaced_and_their_vary_kept():
    def inner(_: Request) -> Response:
        theirs = [("vary", "Accept-Encoding, origin"), ("Access-Control-Allow-Origin", "*"), ("X-A", "1")]
        return Response(200, [*theirs, ("access-control-allow-credentials", "true"), ("Vary", "X-B,"), ("X-A", "2")])

    for origin in (None, "http://localhost"):
        response = answer(asking(origin), inner=inner)
        assert of_browsers(response.headers) == (granted(origin) if origin else [])
        assert vary(response.headers) == "Accept-Encoding, X-B, Origin"
        assert [pair for pair in response.headers if pair[0] == "X-A"] == [("X-A", "1"), ("X-A", "2")]


def test_a_preflight_is_answered_here():
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "x-api-key,X-Stainless-OS"}
    response = answer(asking("http://localhost:5173", "OPTIONS", **asked), inner=unasked)
    assert (response.status, response.body) == (204, b"")
    assert dict(response.headers) == {
        "Access-Control-Allow-Origin": "http://localhost:5173",
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": "content-type, authorization, x-api-key, x-stainless-os",
        "Access-Control-Max-Age": "86400",
        "Vary": "Origin, Access-Control-Request-Headers",
    }


@pytest.mark.parametrize("asked", [{}, {"access_control_request_method": "GET", "access_control_request_headers": ""}])
def test_content_type_and_authorization_are_always_granted(asked):
    asked = {"access_control_request_method": "DELETE", **asked}
    response = answer(asking("app://x", "OPTIONS", **asked), inner=unasked)
    assert dict(response.headers)["Access-Control-Allow-Headers"] == "content-type, authorization"


def test_what_a_preflight_asks_for_is_granted_within_bounds():
    def allowed(*lines: str) -> List[str]:
        request = asking("http://localhost", "OPTIONS", access_control_request_method="POST")
        names = [("Access-Control-Request-Headers", line) for line in lines]
        request.fields = Fields([*request.fields.pairs, *names])
        return dict(answer(request).headers)["Access-Control-Allow-Headers"].split(", ")

    own = ["content-type", "authorization"]
    assert allowed("a, b", "B , c") == [*own, "a", "b", "c"]
    assert allowed("Authorization,content-type,*,<script>,a b,x\x7f,\xe9,x:y,,;") == own
    assert allowed("x" * 64 + "," + "y" * 65) == [*own, "x" * 64]
    assert len(allowed(",".join(f"x-{n}" for n in range(2000)))) == 66
    assert allowed(",".join(["again"] * 50)) == [*own, "again"]


@pytest.mark.parametrize(("asked", "said"), [("true", "true"), ("false", None), ("", None), ("1", None)])
def test_leave_for_the_private_network_is_given_when_it_is_asked_for(asked, said):
    for network, given in ((asked, said), (None, None)):
        fields = {} if network is None else {"access_control_request_private_network": network}
        request = asking("http://localhost", "OPTIONS", access_control_request_method="POST", **fields)
        assert dict(answer(request).headers).get("Access-Control-Allow-Private-Network") == given


def test_options_that_is_no_preflight_goes_its_way():
    assert answer(asking("http://localhost", "OPTIONS")).body == b"ok"
    assert answer(asking(method="OPTIONS", access_control_request_method="POST")).body == b"ok"


# in a whole house

CHAT = {"provider": "echo", "model": "echo", "messages": [{"role": "user", "content": "hello"}]}
SECRET = "0123456789abcdef0123456789abcdef"
AUTH = f"[plugins.auth]\nenabled = yes\nsecret = {SECRET}\n"
BROKEN = '''"""Fails, and says what is not its to say."""

from . import Plugin, Refusal, Response


class Broken(Plugin):
    options = {}

    def routes(self):
        return {"GET /bug": self.fail, "GET /late": self.late, "GET /all": self.all}

    def fail(self, request):
        raise LookupError

    def late(self, request):
        return Response(200, {}, iter([b"a", 1]))

    def all(self, request):
        return Response(200, {"Access-Control-Allow-Origin": "*"}, b"")
'''
PAGE = "http://localhost:5173"


def told_once(response: Any, origin: str = PAGE) -> None:
    """See that an answer says once to a browser whose page may read it."""
    assert of_browsers(response.fields) == granted(origin), response
    assert "Origin" in vary(response.fields)


def told_nothing(response: Any) -> None:
    assert of_browsers(response.fields) == [], response
    assert "Origin" in vary(response.fields)


@pytest.mark.parametrize("origin", [PAGE, None])
def test_every_answer_says_it_and_the_errors_and_streams_too(house, upstream, origin):
    def theirs(asked):
        cors = [("Vary", "Accept-Encoding"), ("Access-Control-Allow-Origin", "*"), ("access-control-max-age", "9")]
        return Reply(200 if asked.method == "GET" else 503, cors, [b"a", b"b"])

    up = upstream(theirs)
    one = house(f"[providers.ollama]\nbase_url = {up.url}\nretries = 0\n[server]\nmax_body = 5000")
    seen = told_once if origin else told_nothing
    sent = {"Origin": origin} if origin else {}
    for status, method, path, body, fields in [
        (200, "GET", "/health", None, {}),
        (200, "HEAD", "/health", None, {}),
        (200, "POST", "/llm", CHAT, {}),
        (200, "POST", "/llm", {**CHAT, "stream": True}, {}),
        (204, "OPTIONS", "/llm", None, {}),
        (400, "POST", "/llm", {}, {}),
        (404, "GET", "/nowhere", None, {}),
        (405, "DELETE", "/llm", None, {}),
        (413, "POST", "/llm", b" " * 6000, {"Content-Type": "application/json"}),
        (415, "POST", "/llm", b"{}", {"Content-Type": "text/plain"}),
        (503, "POST", "/llm", {**CHAT, "provider": "ollama"}, {}),
        (200, "GET", "/ollama/api/tags", None, {}),
        (503, "DELETE", "/ollama/api/delete", None, {}),
        (502, "GET", "/lmstudio/v1/models", None, {}),
    ]:
        got = one.ask(method, path, body, {**fields, **sent})
        assert got.status == status, (method, path, got)
        seen(got)
        assert ("Accept-Encoding" in vary(got.fields)) == path.startswith("/ollama")


def test_a_bug_is_told_to_the_page_too(house, tmp_path):
    for name in ("providers", "plugins"):
        shutil.copytree(str(ROOT / name), str(tmp_path / name))
    shutil.copy2(str(ROOT / "llmproxy.py"), str(tmp_path))
    (tmp_path / "plugins" / "broken.py").write_text(BROKEN)
    one = house(program=tmp_path / "llmproxy.py")
    one.excused = True  # its log holds the traceback
    for path, status in (("/bug", 500), ("/all", 200)):
        got = one.ask("GET", path, None, {"Origin": PAGE})
        assert got.status == status
        told_once(got)
        told_nothing(one.ask("GET", path))
    with one.open("GET", "/late", None, {"Origin": PAGE}) as response:
        assert response.getheader("Access-Control-Allow-Origin") == PAGE


def test_a_preflight_needs_no_token_and_is_not_counted(house):
    one = house(AUTH + "[plugins.rate_limit]\nrate = 1\nburst = 2\n")
    token = {"Authorization": "Bearer " + sign({"sub": "alice"}, SECRET.encode())}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for path in ["/llm", "/ollama/api/chat", "/nowhere", "/health"] * 3:
        got = one.ask("OPTIONS", path, None, {"Origin": PAGE, **asked})
        assert (got.status, got.body) == (204, b"")
        assert got.headers["access-control-allow-origin"] == PAGE
        got = one.ask("OPTIONS", path, None, {"Origin": "http://evil.test", **asked, **token})
        assert got.status == 403
        told_nothing(got)
    got = one.ask("POST", "/llm", CHAT, {"Origin": PAGE})
    assert got.status == 401
    told_once(got)
    statuses = []
    for _ in range(3):
        got = one.ask("POST", "/llm", CHAT, {"Origin": PAGE, **token})
        statuses.append(got.status)
        told_once(got)
    assert statuses == [200, 200, 429]
    assert "retry-after" in got.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "GET", "OPTIONS"])
def test_nothing_of_a_foreign_page_is_passed_on(house, upstream, method):
    up = upstream(json_reply({}))
    one = house(f"[providers.ollama]\nbase_url = {up.url}")
    for kind in (
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ):
        for path in ("/ollama/api/generate", "/llm", "/execute", "/nowhere"):
            got = one.ask(method, path, b"{}", {"Origin": "http://evil.test", "Content-Type": kind})
            assert got.status == 403
            told_nothing(got)
    assert up.asked == []


def said(port: int, data: bytes) -> bytes:
    """Say something to a house and give all it answers, to the end."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock, sock.makefile("rb") as stream:
        sock.sendall(data)
        return stream.read()


def test_a_foreign_page_is_refused_before_its_body_comes(house):
    one = house()
    head = b"POST /llm HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Type: application/json\r\n"
    for more in (b"Content-Length: 9999999\r\n\r\n", b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"):
        assert said(one.port, head + more).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("path", ["/health", "/", "/llm", "/ollama/api/tags", "*", "http://evil.test/health"])
def test_a_rebound_name_reaches_nothing(house, path):
    one = house()
    lines = "Origin: http://evil.test\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n"
    for method in ("GET", "POST", "OPTIONS") if path != "*" else ("OPTIONS",):
        for host in ("evil.test", f"evil.test:{one.port}", "127.1", "0.0.0.0", "", "localhost."):
            if path.startswith("http"):
                host = "localhost"  # the target's name counts
            got = said(one.port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}".encode())
            assert got.startswith(b"HTTP/1.1 421 "), got
            assert b"access-control" not in got.lower()
            assert re.search(rb"\r\nVary: Origin\r\n", got)


def test_the_target_names_the_host_and_not_the_field(house):
    one = house()
    evil, localhost = (f"Host: {name}\r\nConnection: close\r\n\r\n" for name in ("evil.test", "localhost"))
    got = said(one.port, f"GET http://localhost:{one.port}/health HTTP/1.1\r\n{evil}".encode())
    assert got.startswith(b"HTTP/1.1 200 ")
    assert said(one.port, f"GET http://evil.test/health HTTP/1.1\r\n{localhost}".encode()).startswith(b"HTTP/1.1 421 ")
    assert said(one.port, f"GET http://localhost@evil.test/ HTTP/1.1\r\n{localhost}".encode())[9:12] in (b"400", b"421")
    assert said(one.port, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")


def test_options_add_origins_and_names(house):
    one = house("[plugins.cors]\norigins = https://chat.example.com, app://mine\nhosts = proxy.example.com\n")
    for origin in ("https://chat.example.com", "app://mine"):
        told_once(one.ask("POST", "/llm", CHAT, {"Origin": origin, "Host": "proxy.example.com:8443"}), origin)
    assert one.ask("GET", "/health", headers={"Host": "proxy.example.org"}).status == 421
