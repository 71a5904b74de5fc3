from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path

import pytest

from plugins import Refusal, Request, Response
from plugins._settings import SettingsError
from plugins.auth import Auth, BadSignature, BadToken, Rules, print_token, sign, verify
from providers import Provider
from providers._http import Fields
from upstream import Reply

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
JSON_TYPE = {"Content-Type": "application/json"}
PLUGINS = Path(__file__).parent.parent / "plugins"
OPTIONS = {name: row[0] for name, row in Auth.options.items()}
VECTORS = json.loads((Path(__file__).parent / "vectors" / "wycheproof_jws.json").read_text("utf-8"))["tests"]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def made(header: object, claims: object, secret: bytes = SECRET) -> str:
    """Make a token of anything, rightly signed: strings are taken as they stand."""
    parts = [b64((p if isinstance(p, str) else json.dumps(p)).encode()) for p in (header, claims)]
    signature = hmac.new(secret, ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, b64(signature)])


HS256 = {"alg": "HS256", "typ": "JWT"}


def test_what_is_signed_verifies():
    assert verify(sign({"sub": "alice", "exp": NOW + 1}, SECRET), SECRET, NOW) == {"sub": "alice", "exp": NOW + 1}


def test_the_example_of_rfc_7515_holds_until_it_expires():
    key = base64.urlsafe_b64decode(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
    )
    token = (
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    assert verify(token, key, 1300819379)["iss"] == "joe"
    with pytest.raises(BadToken, match="expired"):
        verify(token, key, 1300819380)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['tcId']}-{v['comment'][:40]}")
def test_no_public_vector_is_let_in_by_our_key_or_its_own(vector):
    keys = [SECRET] + ([base64.urlsafe_b64decode(vector["k"] + "==")] if vector.get("k") else [])
    for key in keys:
        with pytest.raises(BadToken):
            verify(vector["jws"], key, NOW)


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v.get("alg") == "HS256" and v.get("k")], ids=lambda v: v["tcId"]
)
def test_the_signature_of_a_public_vector_gets_its_verdict(vector):
    """Their payloads are no claims, so only whether the signature was believed can be compared."""
    key = base64.urlsafe_b64decode(vector["k"] + "==")
    with pytest.raises(BadToken) as caught:
        verify(vector["jws"], key, NOW)
    strict = re.fullmatch(r"[\w.-]+", vector["jws"], re.ASCII)  # two of their valid ones hold a letter base64url lacks
    if vector["result"] == "valid" and strict:
        assert not isinstance(caught.value, BadSignature) and "JSON" in str(caught.value)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c.d",
        "..",
        made({"alg": "none"}, {}),
        b64(b'{"alg":"none"}') + "." + b64(b"{}") + ".",
        made({"alg": "hs256"}, {}),
        made({"alg": "HS384"}, {}),
        made({"alg": ["HS256"]}, {}),
        made({"alg": None}, {}),
        made({}, {}),
        made({**HS256, "crit": ["exp"]}, {}),
        made({**HS256, "crit": []}, {}),
        made({**HS256, "b64": False}, {}),
        made('{"alg":"HS256","alg":"HS256"}', {}),
        made('{"alg":"none","alg":"HS256"}', {}),
        made(HS256, '{"sub":"a","sub":"b"}'),
        made(HS256, "[]"),
        made(HS256, '"text"'),
        made(HS256, "{"),
        made(HS256, '{"exp":NaN}'),
        made(HS256, '{"exp":Infinity}'),
        made(HS256, '{"exp":1e400}'),
        made(HS256, "[" * 100_000),
        made(HS256, '{"exp":' + "9" * 5000 + "}"),
        made(HS256, {"exp": "1900000000"}),
        made(HS256, {"exp": True}),
        made(HS256, {"exp": None}),
        made(HS256, {"exp": NOW}),
        made(HS256, {"nbf": NOW + 1}),
        made(HS256, {"nbf": "0"}),
        made(HS256, {"iat": []}),
        made(HS256, {"sub": 7}),
        made(HS256, {"sub": "x" * 300}),
        made(HS256, {}) + "=",
        made(HS256, {}) + "\n",
        " " + made(HS256, {}),
        made(HS256, {}, b"another secret"),
        made(HS256, {"padding": "x" * 20_000}),
        "\u0435" + made(HS256, {})[1:],
    ],
)
def test_a_bad_token_is_refused_and_nothing_else_happens(token):
    with pytest.raises(BadToken):
        verify(token, SECRET, NOW)


def test_only_one_spelling_of_a_signature_is_accepted():
    token = sign({"sub": "a"}, SECRET)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for letter in letters:
        try:
            verify(token[:-1] + letter, SECRET, NOW)
            accepted.append(letter)
        except BadToken:
            pass
    assert accepted == [token[-1]]


def test_a_huge_time_is_a_time():
    assert verify(made(HS256, '{"exp":' + "9" * 400 + "}"), SECRET, NOW)
    with pytest.raises(BadToken, match="not valid yet"):
        verify(made(HS256, '{"nbf":' + "9" * 400 + "}"), SECRET, NOW)


def test_leeway_is_for_clocks_that_differ():
    rules = Rules(leeway=30)
    verify(made(HS256, {"exp": NOW - 29, "nbf": NOW + 29}), SECRET, NOW, rules)
    for claims in ({"exp": NOW - 30}, {"nbf": NOW + 31}):
        with pytest.raises(BadToken):
            verify(made(HS256, claims), SECRET, NOW, rules)


@pytest.mark.parametrize(
    ("rules", "claims", "good"),
    [
        (Rules(audience="a"), {"aud": "a"}, True),
        (Rules(audience="a"), {"aud": ["b", "a"]}, True),
        (Rules(audience="a"), {"aud": "ab"}, False),
        (Rules(audience="a"), {"aud": ["b"]}, False),
        (Rules(audience="a"), {"aud": {"a": 1}}, False),
        (Rules(audience="a"), {}, False),
        (Rules(issuer="i"), {"iss": "i"}, True),
        (Rules(issuer="i"), {"iss": ["i"]}, False),
        (Rules(issuer="i"), {}, False),
        (Rules(require_exp=True), {}, False),
        (Rules(require_exp=True), {"exp": NOW + 1}, True),
    ],
)
def test_what_is_configured_is_asked_for(rules, claims, good):
    token = made(HS256, claims)
    if good:
        verify(token, SECRET, NOW, rules)
    else:
        with pytest.raises(BadToken):
            verify(token, SECRET, NOW, rules)


def auth(**options) -> Auth:
    return Auth({**OPTIONS, "secret": SECRET.decode(), **options}, Provider("up", {}), clock=lambda: NOW)


def asked(*lines: str, path: str = "/llm", **also) -> Request:
    pairs = [("Authorization", line) for line in lines] + [(k.replace("_", "-"), v) for k, v in also.items()]
    return Request("POST", path, Fields(pairs))


def test_a_token_tells_the_user():
    request = asked("bearer  " + sign({"sub": "alice"}, SECRET))
    assert auth().handle(request, lambda _: Response(204)).status == 204
    assert request.user == "alice"


def test_an_old_secret_is_good_until_it_is_taken_away():
    token = sign({"sub": "bob"}, b"the old secret, which is long enough")
    with pytest.raises(Refusal):
        auth().user(asked(f"Bearer {token}"))
    assert auth(old_secrets=("the old secret, which is long enough",)).user(asked(f"Bearer {token}")) == "bob"


@pytest.mark.parametrize("lines", [(), ("Basic YTpi",), ("Bearer",), ("Bearer a b",), ("Bearer a", "Bearer a")])
def test_without_a_good_token_there_is_a_401_that_says_what_is_wanted(lines):
    with pytest.raises(Refusal) as caught:
        auth().handle(asked(*lines), lambda _: Response(200))
    challenge = caught.value.headers["WWW-Authenticate"]
    assert caught.value.status == 401
    assert challenge.startswith("Bearer ") and ("error=" in challenge) == bool(lines)


def test_a_401_says_why_and_nothing_of_the_secret():
    with pytest.raises(Refusal) as caught:
        auth().user(asked("Bearer " + sign({"exp": 1}, SECRET)))
    told = caught.value.headers["WWW-Authenticate"] + caught.value.message
    assert 'error="invalid_token"' in told and "expired" in told
    assert SECRET.decode() not in told and not re.search(r"[A-Za-z0-9_-]{40,}", told)


def test_what_is_public_needs_no_token():
    request = asked(path="/health")
    request.public = True
    assert auth().handle(request, lambda _: Response(200)).status == 200


def test_a_dialect_may_have_its_key_elsewhere():
    token = sign({"sub": "carol"}, SECRET)
    request = asked(x_api_key=token)
    with pytest.raises(Refusal):
        auth().user(request)
    request.key_headers = ("x-api-key",)
    assert auth().user(request) == "carol"


@pytest.mark.parametrize(
    ("claims", "one", "other", "whole"),
    [
        ({}, True, True, True),
        ({"providers": ["Ollama"]}, True, False, True),
        ({"models": ["OLLAMA/llama*"]}, True, False, False),
        ({"models": ["*"]}, True, True, True),
        ({"providers": ["*"]}, False, False, False),
        ({"providers": ["ollama", "openai"], "models": ["ollama/*"]}, True, False, True),
        ({"providers": ["openai"], "models": ["ollama/*"]}, False, False, False),
        ({"providers": []}, False, False, False),
        ({"models": []}, False, False, False),
    ],
)
def test_a_token_can_limit_its_user(claims, one, other, whole):
    request = asked(f"Bearer {sign(claims, SECRET)}")
    auth().user(request)
    allowed = request.scope.allowed
    told = allowed.one("ollama", "llama3.2"), allowed.one("openai", "gpt-4o"), allowed.whole("ollama")
    assert told == (one, other, whole)
    auth(claims=False).user(request)
    assert request.scope.allowed.one("openai", "gpt-4o")


@pytest.mark.parametrize("name", ["providers", "models"])
@pytest.mark.parametrize("value", [None, "ollama/*", True, 1, {"ollama/*": 1}, [1], ["ollama/*", None], [["ollama/*"]]])
def test_a_limit_that_is_no_list_of_names_lets_nobody_in(name, value):
    token = sign({"sub": "alice", name: value}, SECRET)
    with pytest.raises(Refusal, match=f"its {name} is not a list of names") as caught:
        auth().handle(asked(f"Bearer {token}"), lambda _: Response(200))
    assert caught.value.status == 401
    assert auth(claims=False).user(asked(f"Bearer {token}")) == "alice"


def test_the_command_makes_no_token_that_nobody_could_use(capsys):
    options = {**OPTIONS, "secret": SECRET.decode()}
    with pytest.raises(SettingsError, match="its models is not a list of names"):
        print_token(options, ["--sub", "alice", "--claim", "models=ollama/*"])
    assert print_token(options, ["--claim", 'models=["ollama/*"]']) == 0
    assert verify(capsys.readouterr().out.strip(), SECRET, 0)["models"] == ["ollama/*"]
    assert print_token({**options, "claims": False}, ["--claim", "models=all"]) == 0


def test_no_secret_is_no_auth():
    with pytest.raises(ValueError, match="JWT_SECRET"):
        auth(secret="")


def test_the_command_prints_tokens_and_secrets(capsys):
    options = {**OPTIONS, "secret": SECRET.decode(), "audience": "us"}
    assert print_token(options, ["--sub", "alice", "--ttl", "2h", "--claim", "level=3", "--claim", "team=red"]) == 0
    token = capsys.readouterr().out.strip()
    claims = verify(token, SECRET, 0, Rules(audience="us"))
    assert claims["exp"] - claims["iat"] == 7200
    assert (claims["sub"], claims["level"], claims["team"]) == ("alice", 3, "red")
    assert print_token(OPTIONS, ["--new-secret"]) == 0
    assert len(capsys.readouterr().out.strip()) >= 43


def test_the_kernel_asks_for_a_token_where_one_is_needed(house):
    up = house("[plugins.auth]\nenabled = yes\nsecret = " + SECRET.decode())
    assert up.ask("GET", "/health").status == 200
    assert up.ask("POST", "/llm", {"type": "models"}).status == 401
    assert up.ask("GET", "/nowhere").status == 401
    token = sign({"sub": "alice"}, SECRET)
    answer = up.ask(
        "POST", "/llm", {"type": "models", "provider": "echo"}, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status == 200


def test_a_limited_user_reaches_what_is_allowed_and_nothing_else_by_any_way(house, upstream):
    up = upstream(Reply(body=b'{"object": "list", "data": [{"id": "gpt-4o"}, {"id": "gpt-5"}]}', headers=JSON_TYPE))
    one = house(
        "[plugins.auth]\nenabled = yes\n[plugins.passthrough]\nv1 = openai\n[models]\nany = openai/gpt-5, echo/echo\n"
        "best = openai/gpt-5, ollama/x\n[plugins.rate_limit]\nenabled = no",
        env={"JWT_SECRET": SECRET.decode(), "OPENAI_BASE_URL": up.url, "OPENAI_API_KEY": "k"},
    )
    token = sign({"sub": "alice", "models": ["echo/*", "openai/gpt-4o*"]}, SECRET)
    bearer = {"Authorization": f"Bearer {token}"}
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    forbidden = [
        ("POST", "/llm", {**chat, "model": "openai/gpt-5"}),
        ("POST", "/llm", {**chat, "model": "openai/gpt-5", "stream": True}),
        ("POST", "/llm", {**chat, "provider": "OpenAI", "model": "gpt-5"}),
        ("POST", "/llm", {**chat, "model": "best"}),
        ("POST", "/llm", {**chat, "model": "openai/gpt-4o", "provider_options": {"openai": {"model": "gpt-5"}}}),
        ("POST", "/llm", {"type": "embeddings", "model": "openai/text-embedding-3-small", "input": "x"}),
        ("POST", "/llm", {"type": "count_tokens", **chat, "model": "openai/gpt-5"}),
        ("POST", "/llm", {"type": "models", "provider": "ollama"}),
        ("POST", "/openai/v1/chat/completions", {**chat, "model": "gpt-4o"}),
        ("GET", "/openai/v1/models", None),
        ("HEAD", "/openai/v1/models", None),
        ("POST", "/v1/chat/completions", {**chat, "model": "gpt-4o"}),
        ("GET", "/ollama/api/tags", None),
    ]
    gemini = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    dialects = {
        "openai_api": [
            ("/llm/v1/chat/completions", {**chat, "model": "openai/gpt-5", "stream": True}),
            ("/llm/v1/embeddings", {"model": "best", "input": "x"}),
        ],
        "responses_api": [("/llm/v1/responses", {"model": "openai/gpt-5", "input": "hi"})],
        "anthropic_api": [
            ("/llm/v1/messages", {**chat, "model": "openai/gpt-5", "max_tokens": 9}),
            ("/llm/v1/messages/count_tokens", {**chat, "model": "openai/gpt-5"}),
        ],
        "gemini_api": [
            ("/llm/v1beta/models/openai/gpt-5:generateContent", gemini),
            ("/llm/v1beta/models/openai/gpt-5:streamGenerateContent?alt=sse", gemini),
            ("/llm/v1beta/models/openai/gpt-5:countTokens", gemini),
        ],
        "ollama_api": [
            ("/llm/api/chat", {**chat, "model": "openai/gpt-5"}),
            ("/llm/api/generate", {"model": "best", "prompt": "hi"}),
            ("/llm/api/embed", {"model": "openai/gpt-5", "input": "x"}),
            ("/llm/api/show", {"model": "openai/gpt-5"}),
        ],
    }
    for path, body in [row for name, rows in dialects.items() if (PLUGINS / f"{name}.py").exists() for row in rows]:
        assert one.ask("POST", path, body, bearer).status == 403, path
    for method, path, body in forbidden:
        answer = one.ask(method, path, body, bearer)
        assert answer.status == 403, (method, path, body)
        if method != "HEAD":
            error = answer.json["error"]
            assert (error["type"], error["code"][-12:]) == ("permission_error", "_not_allowed"), (path, body)
    assert up.asked == []
    assert one.ask("POST", "/llm", {**chat, "model": "any"}, bearer).json["provider"] == "echo"
    listed = one.ask("POST", "/llm", {"type": "models"}, bearer).json
    names = {model["id"] for model in listed["data"]}
    assert names == {"openai/gpt-4o", "any", *(name for name in names if name.startswith("echo/"))}
    assert "ollama" not in listed.get("errors", {})
    assert one.ask("GET", "/openai/v1/models", headers={"Authorization": f"Bearer {sign({}, SECRET)}"}).status == 200
