"""A Voyage that takes nothing amiss but what is: it checks every field, and answers vectors made from what was asked.

A vector tells its text, its `input_type` and its length apart; a token is a word. The text `error 429`
is answered with that status, and the model `voyage-4-tiny` takes 10 tokens in a request.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from typing import Any, Callable, Dict, List

from upstream import Asked, Reply, json_reply

JSON = Dict[str, Any]
DIMENSIONS = {
    **dict.fromkeys(("voyage-4-large", "voyage-4", "voyage-4-lite", "voyage-4-tiny"), (1024, 256, 512, 2048)),
    "voyage-code-3": (1024, 256, 512, 2048),
    "voyage-finance-2": (1024,),
    "voyage-law-2": (1024,),
    "voyage-code-2": (1536,),
}
MOST_TOKENS = {"lite": 1_000_000, "large": 120_000, "code": 120_000, "law": 120_000, "finance": 120_000, "tiny": 10}


class Refused(Exception):
    def __init__(self, detail: Any, status: int = 400) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


def is_input(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(text, str) for text in value))


def is_whole(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


FIELDS: Dict[str, Callable[[Any], bool]] = {
    "input": is_input,
    "model": lambda value: isinstance(value, str),
    "input_type": lambda value: value in (None, "query", "document"),
    "truncation": lambda value: isinstance(value, bool),
    "output_dimension": is_whole,
    "output_dtype": lambda value: value in (None, "float"),  # the others are not for us
    "encoding_format": lambda value: value in (None, "base64"),  # "float" is none of its values
}


def check(body: Any) -> List[str]:
    """Give the texts of a request, or refuse it."""
    if not isinstance(body, dict):
        raise Refused("The request body is not valid JSON.")
    wrong = [name for name in ("input", "model") if name not in body]
    wrong += [name for name, value in body.items() if not FIELDS.get(name, lambda _: False)(value)]
    if wrong:
        raise Refused([{"loc": ["body", name], "msg": "Invalid field", "type": "value_error"} for name in wrong], 422)
    if body["model"] not in DIMENSIONS:
        raise Refused(f"Model {body['model']} is not supported.")
    if body.get("output_dimension") not in (None, *DIMENSIONS[body["model"]]):
        raise Refused(f"output_dimension {body['output_dimension']} is not supported by {body['model']}.")
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    if not 1 <= len(texts) <= 1000:
        raise Refused(f"The batch size limit is 1000. Your batch size is {len(texts)}.")
    most = next((most for word, most in MOST_TOKENS.items() if word in body["model"]), 320_000)
    if tokens(texts) > most:
        raise Refused(f"The max allowed tokens per submitted batch is {most}.")
    return texts


def tokens(texts: List[str]) -> int:
    return sum(len(text.split()) for text in texts)


def vector(text: str, body: JSON) -> List[float]:
    """Give the vector of a text; its numbers are float32."""
    size = body.get("output_dimension") or DIMENSIONS[body["model"]][0]
    digest = hashlib.shake_128(f"{body.get('input_type')} {text}".encode()).digest(size)
    return [(byte - 128) / 128 for byte in digest]


def embeddings(body: JSON) -> JSON:
    texts = check(body)
    for text in texts:
        if re.fullmatch(r"error \d{3}", text):
            raise Refused("told to fail", int(text[-3:]))
    made: List[Any] = [vector(text, body) for text in texts]
    if body.get("encoding_format"):
        made = [base64.b64encode(struct.pack(f"<{len(one)}f", *one)).decode() for one in made]
    data = [{"object": "embedding", "embedding": one, "index": at} for at, one in enumerate(made)]
    return {"object": "list", "data": data, "model": body["model"], "usage": {"total_tokens": tokens(texts)}}


def answer(asked: Asked) -> Reply:
    """Answer one request."""
    try:
        if (asked.method, asked.target) != ("POST", "/v1/embeddings"):
            raise Refused("Not Found", 404)
        if not re.fullmatch(r"Bearer (pa-|al-)\S+", asked.headers.get("authorization", "")):
            raise Refused("Provided API key is invalid.", 401)
        if not asked.headers.get("content-type", "").startswith("application/json"):
            raise Refused("The request body is not valid JSON.")
        return json_reply(embeddings(asked.json))
    except Refused as refused:
        headers = {"Content-Type": "application/json"}
        told = json_reply({"detail": refused.detail}, refused.status)
        return told._replace(headers={**headers, "Retry-After": "1"}) if refused.status == 429 else told
    except ValueError:
        return json_reply({"detail": "The request body is not valid JSON."}, 400)
