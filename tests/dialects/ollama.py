"""A client of Ollama's: like the official one, it forgets the ids of calls."""

from __future__ import annotations

import json
from typing import Any, List

from . import JSON, Client, Said, image_of, names_of, parts_of

SAMPLING = {"temperature": "temperature", "max_tokens": "num_predict", "stop": "stop", "seed": "seed"}


def message(said: JSON, names: JSON) -> JSON:
    if "_own" in said:
        return said["_own"].turn
    parts = parts_of(said.get("content"))
    told: JSON = {"role": said["role"], "content": "".join(p["text"] for p in parts if p["type"] == "text")}
    images = [image_of(part)[1] for part in parts if part["type"] == "image_url"]
    calls = [
        {"function": {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in said.get("tool_calls") or ()
    ]
    if said["role"] == "tool":
        told["tool_name"] = names[said["tool_call_id"]]
    return {**told, **({"images": images} if images else {}), **({"tool_calls": calls} if calls else {})}


def body_of(chat: JSON, *, stream: bool) -> JSON:
    names = names_of(chat["messages"])
    body: JSON = {
        "model": chat["model"],
        "messages": [message(one, names) for one in chat["messages"]],
        "stream": stream,
    }
    if chat.get("tools"):
        body["tools"] = chat["tools"]
    options = {SAMPLING[name]: value for name, value in chat.items() if name in SAMPLING}
    if options:
        body["options"] = options
    format_ = chat.get("response_format") or {}
    if format_:
        body["format"] = format_["json_schema"]["schema"] if format_["type"] == "json_schema" else "json"
    if chat.get("reasoning_effort"):
        body["think"] = chat["reasoning_effort"]
    return body


class Ollama(Client):
    name = "ollama"

    def chat(self, chat: JSON, *, stream: bool = False) -> Said:
        answer = self.house.ask("POST", "/llm/api/chat", body_of(chat, stream=stream), self.headers)
        warnings = answer.headers.get("x-llmproxy-warnings", "")
        lines = [json.loads(line) for line in answer.body.splitlines() if line]
        failed = next((line["error"] for line in lines if "error" in line), "")
        if answer.status != 200:
            return Said(answer.status, error=failed, warnings=warnings)
        good = [line for line in lines if "message" in line]
        assert all(line["message"]["role"] == "assistant" and "created_at" in line for line in good)
        calls = [call["function"] for line in good for call in line["message"].get("tool_calls") or ()]
        text = "".join(line["message"]["content"] for line in good)
        thought = "".join(line["message"].get("thinking", "") for line in good)
        last = good[-1] if good else {}
        turn: JSON = {"role": "assistant", "content": text, **({"thinking": thought} if thought else {})}
        if calls:
            turn["tool_calls"] = [{"function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls]
        return Said(
            200,
            text,
            thought,
            tuple((f"{len(chat['messages'])} {n}", call["name"], call["arguments"]) for n, call in enumerate(calls)),
            "tool_calls" if calls else last.get("done_reason", ""),
            (last.get("prompt_eval_count", 0), last.get("eval_count", 0)),
            warnings,
            failed,
            "",
            turn,
            bool(last.get("done")),
        )

    def embed(self, model: str, texts: List[str]) -> List[List[float]]:
        answer = self.house.ask("POST", "/llm/api/embed", {"model": model, "input": texts}, self.headers)
        assert answer.status == 200, answer.text
        vectors: Any = answer.json["embeddings"]
        return vectors

    def models(self) -> List[str]:
        return [entry["model"] for entry in self.house.ask("GET", "/llm/api/tags", headers=self.headers).json["models"]]
