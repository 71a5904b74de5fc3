"""A client of Anthropic's, which takes amiss a stream whose blocks do not follow one another."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Dict, List, Tuple

from . import JSON, Client, Said, image_of, parts_of

VERSION = "2023-06-01"
MOST = 4096  # tokens of an answer where a conversation does not say
SAME = ("model", "temperature", "top_p", "top_k")
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
CHOICES = {"auto": "auto", "none": "none", "required": "any"}


# questions


def block(part: JSON) -> JSON:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image_url":
        mime, data = image_of(part)
        return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}}
    mime, data = image_of({"image_url": {"url": part["file"]["file_data"]}})
    source = {"type": "base64", "media_type": mime, "data": data}
    if mime == "text/plain":
        source = {"type": "text", "media_type": mime, "data": base64.b64decode(data).decode()}
    return {"type": "document", "source": source, "title": part["file"]["filename"]}


def content(said: JSON) -> List[JSON]:
    blocks = [block(part) for part in parts_of(said.get("content")) if part.get("text") != ""]
    if said["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": said["tool_call_id"], "content": said["content"]}
        if not isinstance(said["content"], str):
            result["content"] = blocks
        return [{**result, **({"is_error": True} if said.get("is_error") else {})}]
    for call in said.get("tool_calls") or ():
        function = call["function"]
        told = {"id": call["id"], "name": function["name"], "input": json.loads(function["arguments"])}
        blocks.append({"type": "tool_use", **told})
    return blocks


def turns(messages: List[JSON]) -> Tuple[List[JSON], List[JSON]]:
    """Give the system's blocks and the turns; what one side says in several messages is one turn."""
    system: List[JSON] = []
    told: List[JSON] = []
    for message in messages:
        if "_own" in message:
            told.append(message["_own"].turn)
        elif message["role"] in ("system", "developer") and not told:
            system += content(message)
        else:
            role = {"tool": "user", "developer": "system"}.get(message["role"], message["role"])
            if told and told[-1]["role"] == role and not isinstance(told[-1]["content"], str):
                told[-1] = {"role": role, "content": [*told[-1]["content"], *content(message)]}
            else:
                told.append({"role": role, "content": content(message)})
    return system, told


def tool_of(tool: JSON) -> JSON:
    function = dict(tool["function"])
    schema = function.pop("parameters", {"type": "object", "properties": {}})
    return {**function, "input_schema": schema}


def body_of(chat: JSON) -> JSON:
    system, messages = turns(chat["messages"])
    most = chat.get("max_completion_tokens", chat.get("max_tokens", MOST))
    body: JSON = {**{name: chat[name] for name in SAME if name in chat}, "max_tokens": most, "messages": messages}
    if system:
        body["system"] = system
    if chat.get("tools"):
        body["tools"] = [tool_of(tool) for tool in chat["tools"]]
    choice = chat.get("tool_choice")
    if isinstance(choice, dict):
        body["tool_choice"] = {"type": "tool", "name": choice["function"]["name"]}
    elif choice:
        body["tool_choice"] = {"type": CHOICES[choice]}
    if chat.get("parallel_tool_calls") is False:
        body["tool_choice"] = {"type": "auto", **body.get("tool_choice", {}), "disable_parallel_tool_use": True}
    if chat.get("stop"):
        body["stop_sequences"] = [chat["stop"]] if isinstance(chat["stop"], str) else chat["stop"]
    format_, config = chat.get("response_format") or {}, {}
    if format_.get("type") == "json_schema":
        config["format"] = {"type": "json_schema", "schema": format_["json_schema"]["schema"]}
    effort = chat.get("reasoning_effort")
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif effort:
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        config["effort"] = effort
    return {**body, **({"output_config": config} if config else {})}


# answers

#: type of block -> its type of delta, the delta's field
DELTAS: Dict[str, Dict[str, str]] = {
    "text": {"text_delta": "text"},
    "thinking": {"thinking_delta": "thinking", "signature_delta": "signature"},
    "tool_use": {"input_json_delta": "partial_json"},
}


def events_of(text: str) -> List[JSON]:
    """Give the events of a stream, each of which is named twice."""
    told = []
    for event in text.split("\n\n")[:-1]:
        named = re.fullmatch(r"event: (\w+)\ndata: (\{.*\})", event)
        assert named, event
        told.append(json.loads(named[2]))
        assert told[-1]["type"] == named[1], event
    return told


def added_up(events: List[JSON]) -> JSON:
    """Give the message of a stream that began; it may have broken off, but nothing in it is out of its place."""
    message: JSON = {"content": [], "stop_reason": None}
    written, state = "", "begin"
    for event in (event for event in events if event["type"] not in ("ping", "error")):
        kind, blocks = event["type"], message["content"]
        if kind == "message_start":
            assert state == "begin", event
            message, state = event["message"], "between"
            assert (message["content"], message["stop_reason"]) == ([], None)
        elif kind == "content_block_start":
            assert (state, event["index"]) == ("between", len(blocks)), event
            blocks.append(dict(event["content_block"]))
            written, state = "", "inside"
        elif kind == "content_block_delta":
            assert (state, event["index"]) == ("inside", len(blocks) - 1), event
            field = DELTAS[blocks[-1]["type"]][event["delta"]["type"]]
            if field == "partial_json":
                written += event["delta"][field]
            else:
                blocks[-1][field] += event["delta"][field]
        elif kind == "content_block_stop":
            assert (state, event["index"]) == ("inside", len(blocks) - 1), event
            if written:
                blocks[-1]["input"] = json.loads(written)
            state = "between"
        elif kind == "message_delta":
            assert state in ("between", "end"), event
            message = {**message, **event["delta"], "usage": {**message["usage"], **event["usage"]}}
            state = "end"
        else:
            assert (kind, state) == ("message_stop", "end"), event
            state = "ended"
    return {**message, "_state": state}


def prompt_of(usage: JSON) -> int:
    return int(
        usage["input_tokens"]
        + (usage.get("cache_creation_input_tokens") or 0)
        + (usage.get("cache_read_input_tokens") or 0)
    )


class Anthropic(Client):
    name = "anthropic"
    embeds = False

    def ask(self, path: str, body: Any, **headers: str) -> Any:
        told = {"x-api-key": "none", "anthropic-version": VERSION, **self.headers, **headers}
        return self.house.ask("POST", path, body, told)

    def chat(self, chat: JSON, *, stream: bool = False) -> Said:
        body = {**body_of(chat), **({"stream": True} if stream else {})}
        return said_of(self.ask("/llm/v1/messages?beta=true", body), stream=stream)

    def count(self, chat: JSON) -> Tuple[int, str]:
        """Count the tokens of a chat; the second is what the warnings say."""
        body = {name: value for name, value in body_of(chat).items() if name != "max_tokens"}
        answer = self.ask("/llm/v1/messages/count_tokens?beta=true", body)
        assert answer.status == 200, answer.text
        return answer.json["input_tokens"], answer.headers.get("x-llmproxy-warnings", "")

    def models(self) -> List[str]:
        told: List[str] = []
        headers, more, after = {"x-api-key": "none", "anthropic-version": VERSION, **self.headers}, True, ""
        while more:
            page = self.house.ask("GET", f"/llm/v1/models?limit=7{after}", headers=headers).json
            told += [model["id"] for model in page["data"]]
            more, after = page["has_more"], f"&after_id={page['last_id']}"
        return told


def said_of(answer: Any, *, stream: bool) -> Said:
    warnings = answer.headers.get("x-llmproxy-warnings", "")
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    if answer.status != 200:
        error = answer.json["error"]
        assert (answer.json["type"], answer.json["request_id"]) == ("error", answer.headers["request-id"])
        return Said(answer.status, error=error["message"], kind=error["type"], warnings=warnings, ended=False)
    events = events_of(answer.text) if stream else []
    message = added_up(events) if stream else {**answer.json, "_state": "ended"}
    error = next((event["error"] for event in events if event["type"] == "error"), {})
    assert (message["type"], message["role"], message["id"][:4]) == ("message", "assistant", "msg_")
    blocks = message["content"]
    calls = [(one["id"], one["name"], one["input"]) for one in blocks if one["type"] == "tool_use"]
    usage = message["usage"]
    return Said(
        200,
        "".join(one["text"] for one in blocks if one["type"] == "text"),
        "".join(one["thinking"] for one in blocks if one["type"] == "thinking"),
        tuple(calls),
        FINISH.get(message["stop_reason"] or "", ""),
        (prompt_of(usage), usage["output_tokens"]),
        warnings,
        error.get("message", ""),
        error.get("type", ""),
        {"role": "assistant", "content": blocks},
        message["_state"] == "ended" and not error,
    )
