"""A client of Google's."""

from __future__ import annotations

import json
from typing import Any, List

from . import JSON, Client, Said, image_of, names_of, parts_of, system_of

CONFIG = {"temperature": "temperature", "max_tokens": "maxOutputTokens", "seed": "seed"}
FINISH = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}
MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def content(said: JSON, names: JSON) -> JSON:
    if "_own" in said:
        return said["_own"].turn
    if said["role"] == "tool":
        name, id_ = names[said["tool_call_id"]], said["tool_call_id"]
        response = {"id": id_, "name": name, "response": {"output": said["content"]}}
        return {"role": "user", "parts": [{"functionResponse": response}]}
    parts: List[JSON] = []
    for part in parts_of(said.get("content")):
        if part["type"] == "text":
            parts.append({"text": part["text"]})
        else:
            mime, data = image_of(part)
            parts.append({"inlineData": {"mimeType": mime, "data": data}})
    for call in said.get("tool_calls") or ():
        function = call["function"]
        told = {"id": call["id"], "name": function["name"], "args": json.loads(function["arguments"])}
        parts.append({"functionCall": told})
    return {"role": "model" if said["role"] == "assistant" else "user", "parts": parts}


def joined(contents: List[JSON]) -> List[JSON]:
    """Put what one speaker says in a row into one content: results of one turn stand together here."""
    told: List[JSON] = []
    for one in contents:
        if told and told[-1]["role"] == one["role"]:
            told[-1] = {"role": one["role"], "parts": [*told[-1]["parts"], *one["parts"]]}
        else:
            told.append(one)
    return told


def body_of(chat: JSON) -> JSON:
    names, messages = names_of(chat["messages"]), chat["messages"]
    body: JSON = {"contents": joined([content(one, names) for one in messages if one["role"] != "system"])}
    if system_of(messages):
        body["systemInstruction"] = {"parts": [{"text": system_of(messages)}]}
    if chat.get("tools"):
        functions = [tool["function"] for tool in chat["tools"]]
        declared = [
            {("parametersJsonSchema" if name == "parameters" else name): value for name, value in function.items()}
            for function in functions
        ]
        body["tools"] = [{"functionDeclarations": declared}]
    choice = chat.get("tool_choice")
    if choice:
        named = (
            {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]} if isinstance(choice, dict) else {}
        )
        body["toolConfig"] = {"functionCallingConfig": named or {"mode": MODES[choice]}}
    config: JSON = {CONFIG[name]: value for name, value in chat.items() if name in CONFIG}
    if chat.get("stop"):
        config["stopSequences"] = [chat["stop"]] if isinstance(chat["stop"], str) else chat["stop"]
    format_ = chat.get("response_format") or {}
    if format_:
        config["responseMimeType"] = "application/json"
    if format_.get("type") == "json_schema":
        config["responseJsonSchema"] = format_["json_schema"]["schema"]
    if chat.get("reasoning_effort"):
        config["thinkingConfig"] = {"includeThoughts": True, "thinking_level": chat["reasoning_effort"].upper()}
    return {**body, **({"generationConfig": config} if config else {})}


class Gemini(Client):
    name = "gemini"

    def chat(self, chat: JSON, *, stream: bool = False) -> Said:
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        headers = {"x-goog-api-key": "none", **self.headers}
        answer = self.house.ask("POST", f"/llm/v1beta/models/{chat['model']}:{verb}", body_of(chat), headers)
        warnings = answer.headers.get("x-llmproxy-warnings", "")
        documents = answer.events if stream and answer.status == 200 else [answer.json]
        error = next((one["error"] for one in documents if "error" in one), {})
        if answer.status != 200:
            assert error["code"] == answer.status
            return Said(answer.status, error=error["message"], kind=error["status"], warnings=warnings)
        candidates = [candidate for one in documents for candidate in one.get("candidates") or ()]
        parts = [part for candidate in candidates for part in (candidate.get("content") or {}).get("parts") or ()]
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        texts = [part for part in parts if "text" in part]
        finish = next((c["finishReason"] for c in reversed(candidates) if c.get("finishReason")), "")
        usage: JSON = next((one["usageMetadata"] for one in reversed(documents) if one.get("usageMetadata")), {})
        answered = usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
        return Said(
            200,
            "".join(part["text"] for part in texts if not part.get("thought")),
            "".join(part["text"] for part in texts if part.get("thought")),
            tuple((call.get("id", ""), call["name"], call.get("args") or {}) for call in calls),
            "tool_calls" if calls and finish == "STOP" else FINISH.get(finish, finish),
            (usage.get("promptTokenCount", 0), answered),
            warnings,
            error.get("message", ""),
            error.get("status", ""),
            {"role": "model", "parts": [part for part in parts if part != {"text": ""}]},
            bool(finish) and not error,
        )

    def embed(self, model: str, texts: List[str]) -> List[List[float]]:
        entries = [{"model": f"models/{model}", "content": {"parts": [{"text": text}]}} for text in texts]
        path = f"/llm/v1beta/models/{model}:batchEmbedContents"
        answer = self.house.ask("POST", path, {"requests": entries}, self.headers)
        assert answer.status == 200, answer.text
        vectors: Any = [one["values"] for one in answer.json["embeddings"]]
        return vectors

    def models(self) -> List[str]:
        headers = {"x-goog-api-key": "none", **self.headers}
        page = self.house.ask("GET", "/llm/v1beta/models?pageSize=1000", headers=headers).json
        return [model["name"].partition("/")[2] for model in page["models"]]
