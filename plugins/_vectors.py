"""Embeddings as OpenAI's clients ask for them: as numbers, or packed."""

from __future__ import annotations

import base64
import struct
from typing import List

from providers import Provider, UpstreamError

from . import JSON, Request
from ._json import shown
from ._question import EMBEDDINGS, checked


def embedded(upstream: Provider, request: Request, question: JSON) -> JSON:
    """Have an embeddings request answered, in the `encoding_format` it wants; raises Refusal for a wrong field."""
    asked = checked(question, EMBEDDINGS, ("model", "input"))
    request.notes["model"] = shown(asked["model"], 120)
    wanted = asked.pop("encoding_format", "float")
    answer = upstream.embed(request.call(asked))
    request.notes["usage"] = answer.get("usage")
    if wanted == "base64":
        answer["data"] = [{**item, "embedding": packed(item["embedding"])} for item in answer["data"]]
    return answer


def packed(vector: List[float]) -> str:
    """Give a vector as OpenAI's base64: little-endian 32-bit floats."""
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (struct.error, OverflowError):
        raise UpstreamError(502, "a vector is not made of 32-bit floats", code="provider_error") from None
