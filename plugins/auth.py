"""Asks every client who it is: a JWT signed with HS256 (RFC 7515, 7519, 8725), in `Authorization: Bearer`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import math
import os
import re
import sys
import time
from typing import Any, Callable, ClassVar, List, Mapping, NamedTuple, NoReturn, Optional, Tuple

from providers import Allowed, Options, Provider

from . import JSON, Commands, Handler, Plugin, Refusal, Request, Response
from ._settings import SettingsError, arguments

log = logging.getLogger("llmproxy")

LONGEST_TOKEN = 16 * 1024
LONGEST_USER = 256
SHORTEST_SECRET = 32  # bytes: the length of the hash (RFC 7518, section 3.2)

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE | re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class BadToken(ValueError):  # noqa: N818  (the token is bad, not the program)
    """Why a token is not accepted, in words that say nothing of the secret."""


class BadSignature(BadToken):
    """The token is not signed with this secret."""


class Rules(NamedTuple):
    """What a token has to say; empty strings ask for nothing. `leeway` in seconds, for clocks that differ."""

    issuer: str = ""
    audience: str = ""
    leeway: float = 0.0
    require_exp: bool = False


ANY = Rules()


def sign(claims: JSON, secret: bytes) -> str:
    """Make a token."""
    header = {"alg": "HS256", "typ": "JWT"}
    signed = ".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{signed}.{_signature(signed, secret)}"


def verify(token: str, secret: bytes, now: float, rules: Rules = ANY) -> JSON:
    """Give the claims of a token that `secret` signed and that holds at `now`; raises BadToken.

    The algorithm is ours, not the token's, and nothing of a token is parsed before its signature is known.
    The signature is compared as text: decoded, four spellings of its last letter would be the same.
    """
    parts = token.split(".")
    if len(token) > LONGEST_TOKEN or len(parts) != 3 or not all(map(_PART.fullmatch, parts)):
        raise BadToken("it is no compact JWS")
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_signature(signed, secret).encode(), signature.encode()):
        raise BadSignature("its signature does not match")
    _check_header(_object(parts[0]))
    claims = _object(parts[1])
    _check_times(claims, now, rules)
    _check_names(claims, rules)
    return claims


def allowed(claims: JSON) -> Allowed:
    """Give what a token's `providers` and `models` let its user ask for; raises BadToken where they are no lists."""
    lists = {name: claims[name] for name in PATTERNS if name in claims}
    for name, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
            raise BadToken(f"its {name} is not a list of names")
    return Allowed(*([PATTERNS[name](item) for item in names] for name, names in lists.items()))


def _of_provider(name: str) -> str:
    return f"{name.lower()}/*"


def _of_model(name: str) -> str:
    provider, slash, model = name.partition("/")
    return f"{provider.lower()}{slash}{model}"


def unlimited(_: JSON) -> Allowed:
    return Allowed()


#: claim -> how one of its names is told to `Allowed`
PATTERNS: Mapping[str, Callable[[str], str]] = {"providers": _of_provider, "models": _of_model}


def _signature(signed: str, secret: bytes) -> str:
    return _encoded(hmac.new(secret, signed.encode("ascii"), hashlib.sha256).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _object(part: str) -> JSON:
    """Decode one part: canonical base64url of a UTF-8 JSON object that names nothing twice."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except BadToken:
        raise
    except (ValueError, RecursionError):  # no base64, no UTF-8, no JSON, a number of 5,000 digits
        raise BadToken("it does not hold JSON") from None
    if not isinstance(found, dict):
        raise BadToken("it does not hold JSON objects")
    if _encoded(data) != part:
        raise BadToken("its encoding is not canonical")
    return found


def _unique(pairs: List[Tuple[str, Any]]) -> JSON:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadToken("it names something twice")
    return found


def _no_constant(_: str) -> NoReturn:
    raise BadToken("it does not hold JSON")


def _check_header(header: JSON) -> None:
    if header.get("alg") != "HS256" or isinstance(header.get("alg"), bool):
        raise BadToken("its algorithm is not HS256")
    if "crit" in header or header.get("b64", True) is not True:
        raise BadToken("it asks for an extension that is not understood")


def _check_times(claims: JSON, now: float, rules: Rules) -> None:
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_finite(claims[name]):
            raise BadToken(f"its {name} is not a number")
    if rules.require_exp and "exp" not in claims:
        raise BadToken("it never expires")
    if "exp" in claims and now - rules.leeway >= claims["exp"]:
        raise BadToken("it has expired")
    if "nbf" in claims and now + rules.leeway < claims["nbf"]:
        raise BadToken("it is not valid yet")


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _check_names(claims: JSON, rules: Rules) -> None:
    user = claims.get("sub", "")
    if not isinstance(user, str) or len(user) > LONGEST_USER:
        raise BadToken("its sub is no short text")
    if rules.issuer and claims.get("iss") != rules.issuer:
        raise BadToken("its issuer is another")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if rules.audience and not any(isinstance(a, str) and a == rules.audience for a in audiences):
        raise BadToken("its audience is another")


TOKEN: Options = {
    "sub": ("", "The user."),
    "ttl": ("24h", "How long it holds: seconds, or a number with s, m, h or d; 0 for ever."),
    "claim": ((), "More to say, as name=value; a value that is JSON is taken as such."),
    "new_secret": (False, "Print a good secret instead."),
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def print_token(options: Mapping[str, Any], argv: List[str]) -> int:
    """Print a token for a user, or a new secret."""
    asked = arguments("token", TOKEN, argv)
    if asked["new_secret"]:
        sys.stdout.write(_encoded(os.urandom(SHORTEST_SECRET)) + "\n")
        return 0
    if not options["secret"]:
        raise SettingsError("a token needs a secret to sign it: set JWT_SECRET (`token --new-secret` makes one)")
    claims = dict(_claim(text) for text in asked["claim"])
    now = int(time.time())
    ttl = _seconds(asked["ttl"])
    claims.update({"sub": asked["sub"]} if asked["sub"] else {}, iat=now, **({"exp": now + ttl} if ttl else {}))
    claims.update(
        {name: options[option] for name, option in (("iss", "issuer"), ("aud", "audience")) if options[option]}
    )
    if options["claims"]:
        try:
            allowed(claims)
        except BadToken as error:
            raise SettingsError(f'nobody could use this token: {error}, like models=["ollama/*"]') from None
    sys.stdout.write(sign(claims, options["secret"].encode()) + "\n")
    return 0


def _claim(text: str) -> Tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingsError(f"--claim must be name=value, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _seconds(text: str) -> int:
    number, unit = (text[:-1], text[-1]) if text[-1:] in SECONDS else (text, "s")
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise SettingsError(f"--ttl must be like 90s, 30m, 24h or 7d, not {text!r}")
    return int(number) * SECONDS[unit]


class Auth(Plugin):
    options: ClassVar[Options] = {
        "enabled": (False, "Whether clients have to show a token.", "--enable-auth"),
        "secret": (
            "",
            "The secret that tokens are signed with; `token --new-secret` makes one.",
            "--jwt-secret",
            "JWT_SECRET",
        ),
        "old_secrets": ((), "Secrets that are still accepted while a new one spreads."),
        "issuer": ("", "The `iss` a token must have; empty: any."),
        "audience": ("", "The `aud` a token must have, or have among others; empty: any."),
        "leeway": (30.0, "Seconds that clocks may differ."),
        "require_exp": (False, "Whether a token must expire."),
        "claims": (
            True,
            'Whether a token limits its user by what it says: providers ["ollama"], models ["openai/gpt-4o*"].',
        ),
    }
    order = 20
    blocks = False
    authenticates = True
    commands: ClassVar[Commands] = {"token": print_token}

    def __init__(self, options: Mapping[str, Any], upstream: Provider, clock: Callable[[], float] = time.time) -> None:
        super().__init__(options, upstream)
        if not options["secret"]:
            raise ValueError("auth needs a secret: set JWT_SECRET (`token --new-secret` makes one)")
        self.secrets = [secret.encode() for secret in (options["secret"], *options["old_secrets"])]
        if min(map(len, self.secrets)) < SHORTEST_SECRET:
            log.warning("a JWT secret is shorter than %d bytes: it can be guessed", SHORTEST_SECRET)
        self.rules = Rules(options["issuer"], options["audience"], options["leeway"], options["require_exp"])
        self.limits = allowed if options["claims"] else unlimited
        self.clock = clock

    def handle(self, request: Request, inner: Handler) -> Response:
        if not request.public:
            request.user = self.user(request)
        return inner(request)

    def user(self, request: Request) -> str:
        """Give who a request comes from, and have it carry what they may ask for; raises the 401 that tells why not."""
        token = shown_token(request)
        if token is None:
            raise _unknown("this needs a token: Authorization: Bearer ...")
        try:
            claims = self.claims(token)
            request.scope.allowed = self.limits(claims)
            return str(claims.get("sub", ""))
        except BadToken as error:
            raise _unknown("the token is not accepted", str(error)) from None

    def claims(self, token: str) -> JSON:
        """Give the claims of a token that any of the secrets signed."""
        for secret in self.secrets:
            try:
                return verify(token, secret, self.clock(), self.rules)
            except BadSignature as error:
                unsigned = error
        raise unsigned


def shown_token(request: Request) -> Optional[str]:
    """Give the token a client shows, "" for one that cannot be one; None when there is none at all.

    Besides `Authorization` it may stand where the route's dialect puts its key.
    """
    lines = request.fields.all("authorization")
    if lines:
        match = _BEARER.fullmatch(lines[0]) if len(lines) == 1 else None
        return match.group(1) if match else ""
    for header in request.key_headers:
        if header in request.fields:
            return request.header(header)
    return None


def _unknown(message: str, why: str = "") -> Refusal:
    challenge = 'Bearer realm="llmproxy"'
    if why:
        challenge += f', error="invalid_token", error_description="{why}"'
    return Refusal(
        401,
        f"{message}: {why}" if why else message,
        {"WWW-Authenticate": challenge},
        code="invalid_token" if why else "no_token",
    )
