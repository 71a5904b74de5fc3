"""A client of OpenAI's Chat Completions, which is nearly what the canonical words are."""

from __future__ import annotations

import json
from typing import Any, List

from strict.openai import add

from . import JSON, Client, Said


def body_of(chat: JSON, *, stream: bool) -> JSON:
    messages = [message["_own"].turn if "_own" in message else message for message in chat["messages"]]
    streaming = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {**chat, "messages": messages, **streaming}


def folded(events: List[Any]) -> JSON:
    """Make of a stream what a client makes of it; what it may not say is not in it."""
    choice: JSON = {"index": 0, "message": {}, "finish_reason": None}
    usage: JSON = {}
    for chunk in events:
        assert chunk["object"] == "chat.completion.chunk"
        assert "usage" in chunk, "who asks for the usage finds it in every chunk, if only as null"
        assert bool(chunk["usage"]) == (not chunk["choices"])
        usage = chunk["usage"] or usage
        for one in chunk["choices"]:
            assert one.keys() <= {"index", "delta", "finish_reason", "logprobs"}
            assert not choice["finish_reason"], "something was said after the end"
            add(choice["message"], one["delta"])
            choice["finish_reason"] = one["finish_reason"]
    return {"choices": [choice], "usage": usage}


class OpenAI(Client):
    name = "openai"

    def chat(self, chat: JSON, *, stream: bool = False) -> Said:
        answer = self.house.ask("POST", "/llm/v1/chat/completions", body_of(chat, stream=stream), self.headers)
        warnings = answer.headers.get("x-llmproxy-warnings", "")
        if answer.status != 200:
            error = answer.json["error"]
            assert error.keys() >= {"message", "type", "param", "code"}
            return Said(answer.status, error=error["message"], kind=error["type"], warnings=warnings)
        events = answer.events if stream else [answer.json, "[DONE]"]
        ended = events[-1] == "[DONE]"
        error = next((one["error"] for one in events if isinstance(one, dict) and "error" in one), {})
        whole = folded([one for one in events if isinstance(one, dict) and "error" not in one]) if stream else events[0]
        if not stream:
            assert whole["object"] == "chat.completion"
            assert whole["choices"][0].keys() == {"index", "message", "finish_reason", "logprobs"}
        (choice,) = whole["choices"]
        turn = {key: value for key, value in choice["message"].items() if value not in (None, [])}
        turn.setdefault("content", None)
        usage = whole["usage"] or {}
        return Said(
            200,
            turn.get("content") or turn.get("refusal") or "",
            turn.get("reasoning_content", ""),
            tuple(
                (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in turn.get("tool_calls", ())
                if ended
            ),
            choice["finish_reason"] or "",
            (usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)),
            warnings,
            error.get("message", ""),
            error.get("type", ""),
            turn,
            ended,
        )

    def embed(self, model: str, texts: List[str]) -> List[List[float]]:
        asked = {"model": model, "input": texts, "encoding_format": "float"}
        answer = self.house.ask("POST", "/llm/v1/embeddings", asked, self.headers)
        assert answer.status == 200, answer.text
        assert [one["index"] for one in answer.json["data"]] == list(range(len(texts)))
        return [one["embedding"] for one in answer.json["data"]]

    def models(self) -> List[str]:
        return [model["id"] for model in self.house.ask("GET", "/llm/v1/models", headers=self.headers).json["data"]]
