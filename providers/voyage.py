"""Voyage AI's embedding models, which stand in for the ones Anthropic does not have."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Iterable, Iterator, List, Mapping, Tuple

from . import JSON, Call, Options, Provider, Scope, UpstreamError, Warn, _canonical, _transport

BASE_URL = "https://api.voyageai.com/v1"
ATLAS_URL = "https://ai.mongodb.com/v1"  # where keys that begin with `al-` are known
MODELS = "voyage-4-large, voyage-4, voyage-4-lite, voyage-code-3, voyage-finance-2, voyage-law-2, voyage-code-2"

MOST_TEXTS = 1000  # in one request
#: tokens in one request, by a word in the model's name
MOST_TOKENS = {"lite": 1_000_000, "large": 120_000, "code": 120_000, "law": 120_000, "finance": 120_000}
MOST_TOKENS_ELSE = 320_000
LONGEST = 32_000  # tokens of one text: what is longer is truncated

ANSWERED = frozenset({"model", "input", "dimensions", "encoding_format", "provider", "type", "provider_options"})
INPUT_TYPES = frozenset({"query", "document"})


def question(chat: JSON, default_model: str, warn: Warn) -> JSON:
    """Translate an embeddings request, all but its texts. Numbers come back as such unless asked otherwise."""
    body: JSON = {"model": chat.get("model") or default_model}
    if chat.get("dimensions") is not None:
        body["output_dimension"] = chat["dimensions"]
    known = set(ANSWERED)
    if chat.get("input_type") in INPUT_TYPES:
        body["input_type"] = chat["input_type"]
        known.add("input_type")
    _canonical.warn_dropped(chat, known, warn, "voyage")
    own = _canonical.own_options(chat, "voyage")
    return _canonical.merged(body, {k: v for k, v in own.items() if k not in ("input", "encoding_format")})


def batches(texts: List[str], model: str) -> Iterator[List[str]]:
    """Cut a list of texts into requests that Voyage takes, in order: by their number and by their estimated tokens."""
    most = next((most for word, most in MOST_TOKENS.items() if word in model), MOST_TOKENS_ELSE)
    batch: List[str] = []
    size = 0
    for text in texts:
        tokens = estimated(text)
        if batch and (size + tokens > most or len(batch) == MOST_TEXTS):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += tokens
    if batch:
        yield batch


def estimated(text: str) -> int:
    """Estimate the tokens of a text, rather too many than too few."""
    return min(LONGEST, len(text.encode("utf-8", "replace")) // 3 + 1)


def embedded(expected: int, name: str, answer: JSON) -> Tuple[List[List[float]], int]:
    """Give the vectors of one answer in the order of its texts, and the tokens they took."""
    data = sorted(answer.get("data") or (), key=lambda item: item.get("index") or 0)
    if len(data) != expected:
        told = f"{name} gave {len(data)} vectors for {expected} texts"
        raise UpstreamError(502, told, code="provider_error", provider=name)
    return [_canonical.floats(item["embedding"]) for item in data], int(
        (answer.get("usage") or {}).get("total_tokens") or 0
    )


def worded(name: str, status: int, headers: Mapping[str, str], body: Any) -> UpstreamError:
    """Word a refusal: its `detail` is a text, or a list of what is wrong with which field."""
    detail = body.get("detail") if isinstance(body, dict) else None
    items = [item for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []
    wrong = [(_place(item), str(item.get("msg") or "")) for item in items]
    return _canonical.upstream_error(
        name,
        status,
        detail if isinstance(detail, str) else "; ".join(": ".join(filter(None, pair)) for pair in wrong),
        wait=_canonical.retry_after(headers),
        param=(wrong[0][0] or None) if wrong else None,
    )


def _place(item: JSON) -> str:
    """Name the field a complaint is about: `["body", "input", 0]` is `input[0]`."""
    steps = item.get("loc") or ()
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps[1:]).lstrip(".")


class Voyage(Provider):
    """Asks `/embeddings`; it has nothing else of ours."""

    blocks = False
    options: ClassVar[Options] = {
        **_transport.OPTIONS,
        "base_url": (BASE_URL, f"Where it lives; keys that begin with al- go to {ATLAS_URL}."),
        "api_key": ("", "Its key.", "VOYAGE_API_KEY"),
        "default_model": ("voyage-4", "The model that is meant where none is named."),
        "models": (MODELS, "The models to list; it has no list of its own."),
    }

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        key, base_url = options["api_key"], options["base_url"]
        self.configured = bool(key) or base_url != BASE_URL
        if key.startswith("al-") and base_url == BASE_URL:
            base_url = ATLAS_URL
        self.default_model = options["default_model"]
        self.listed = [model.strip() for model in options["models"].split(",") if model.strip()]
        headers = [("Authorization", f"Bearer {key}")] if key else []
        self.door = _transport.Door(name, base_url, options, partial(worded, name), headers=headers)

    def models(self) -> List[JSON]:
        model = {"object": "model", "created": 0, "owned_by": "voyage", "capabilities": ["embedding"]}
        return [{"id": id_, **model} for id_ in self.listed]

    def embed(self, call: Call) -> JSON:
        self._check()
        body = question(call.chat, self.default_model, call.warn)
        vectors: List[List[float]] = []
        tokens = 0
        for texts in batches(_canonical.texts_of(call.chat), body["model"]):
            told = partial(embedded, len(texts), self.name)
            more, spent = self.door.ask("POST", "/embeddings", call.scope, told, {**body, "input": texts})
            vectors += more
            tokens += spent
        return _canonical.vectors(vectors, f"{self.name}/{body['model']}", tokens)

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        return self.door.relay(method, path, fields, body, scope)

    def close(self) -> None:
        self.door.close()

    def _check(self) -> None:
        if not self.configured:
            message = f"no API key for {self.name}: set VOYAGE_API_KEY or [providers.{self.name}] api_key"
            raise UpstreamError(401, message, code="provider_auth", provider=self.name)
