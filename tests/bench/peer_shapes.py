"""What the peers written here share: a chat in OpenAI's shape, asked of OpenAI or Anthropic, and the way back."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, Tuple

JSON = Dict[str, Any]


def question(chat: JSON) -> Tuple[str, JSON]:
    """Give the path and the body to ask upstream; the part of the model's name before `/` says whom."""
    provider, _, model = chat["model"].partition("/")
    if provider != "anthropic":
        return "/v1/chat/completions", {**chat, "model": model}
    system = "\n".join(one["content"] for one in chat["messages"] if one["role"] == "system")
    asked = {
        "model": model,
        "max_tokens": chat.get("max_tokens", 4096),
        "system": system,
        "messages": [one for one in chat["messages"] if one["role"] != "system"],
        "temperature": chat.get("temperature", 1.0),
        "stream": bool(chat.get("stream")),
    }
    return "/v1/messages", asked


def answer(path: str, said: JSON) -> JSON:
    """Give the whole answer in OpenAI's shape."""
    if path != "/v1/messages":
        return said
    text = "".join(block["text"] for block in said["content"])
    message = {"role": "assistant", "content": text}
    usage = said["usage"]
    return {
        "id": said["id"],
        "object": "chat.completion",
        "created": 0,
        "model": said["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]},
    }


def event(path: str, line: str) -> Iterator[str]:
    """Give what a line of the upstream's stream becomes."""
    if not line.startswith("data: "):
        return
    if path != "/v1/messages":
        yield f"{line}\n\n"
        return
    said = json.loads(line[6:])
    if said["type"] == "content_block_delta":
        choice = {"index": 0, "delta": {"content": said["delta"]["text"]}, "finish_reason": None}
        chunk = {"id": "peer", "object": "chat.completion.chunk", "created": 0, "model": "bench", "choices": [choice]}
        yield f"data: {json.dumps(chunk)}\n\n"
    elif said["type"] == "message_stop":
        yield "data: [DONE]\n\n"
