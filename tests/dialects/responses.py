"""A client of OpenAI's Responses API that keeps the conversation itself: every item of an answer comes back."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from . import JSON, Client, Said, parts_of

SAMPLING = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}
REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
ENDS = ("response.completed", "response.incomplete")


def items_of(message: JSON) -> List[JSON]:
    if "_own" in message:
        own: List[JSON] = message["_own"].turn
        return own
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": content_of(message)}]
    items: List[JSON] = []
    if message.get("content"):
        items.append({"type": "message", "role": message["role"], "content": content_of(message)})
    calls = message.get("tool_calls") or ()
    return items + [{"type": "function_call", "call_id": call["id"], **call["function"]} for call in calls]


def content_of(message: JSON) -> Any:
    if isinstance(message["content"], str):
        return message["content"]
    kind = "output_text" if message["role"] == "assistant" else "input_text"
    return [
        {"type": kind, "text": part["text"]}
        if part["type"] == "text"
        else {"type": "input_image", "detail": "auto", "image_url": part["image_url"]["url"]}
        for part in parts_of(message["content"])
    ]


def body_of(chat: JSON, *, stream: bool) -> JSON:
    body: JSON = {"model": chat["model"], "store": False, "include": ["reasoning.encrypted_content"]}
    body["input"] = [item for message in chat["messages"] for item in items_of(message)]
    body.update((SAMPLING[name], value) for name, value in chat.items() if name in SAMPLING)
    if stream:
        body["stream"] = True
    if chat.get("tools"):
        body["tools"] = [
            {"type": "function", "strict": None, "parameters": None, **tool["function"]} for tool in chat["tools"]
        ]
    choice = chat.get("tool_choice")
    if choice:
        body["tool_choice"] = {"type": "function", **choice["function"]} if isinstance(choice, dict) else choice
    format_ = chat.get("response_format") or {}
    if format_:
        body["text"] = {"format": {"type": format_["type"], **format_.get("json_schema", {})}}
    if chat.get("reasoning_effort"):
        body["reasoning"] = {"effort": chat["reasoning_effort"], "summary": "auto"}
    return body


def checked(events: List[JSON]) -> JSON:
    """Give the response that a stream of events ends with: each in its order, and nothing in it that was not told."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    told: Dict[int, str] = {}
    done: Dict[int, JSON] = {}
    for event in events[2:]:
        at = event.get("output_index")
        if event["type"] == "response.output_item.added":
            assert at == len(told), "items are told in their order"
            told[at] = ""
        elif event["type"].endswith(".delta"):
            assert at in told.keys() - done.keys()
            told[at] += event["delta"]
        elif event["type"] == "response.output_item.done":
            assert at in told.keys() - done.keys()
            done[at] = event["item"]
            assert spelled(event["item"]) == told[at]
    last: JSON = events[-1]
    if last["type"] in ENDS:
        assert last["response"]["output"] == [done[at] for at in range(len(told))]
    return last.get("response") or {"error": last}


def spelled(item: JSON) -> str:
    """Give all that the deltas of an item say."""
    parts = [*item.get("summary", ()), *item.get("content", ())]
    texts = [part.get("text") or part.get("refusal") or "" for part in parts]
    return "".join([*texts, item.get("arguments", ""), item.get("input", "")])


class Responses(Client):
    name = "responses"
    embeds = False

    def chat(self, chat: JSON, *, stream: bool = False) -> Said:
        answer = self.house.ask("POST", "/llm/v1/responses", body_of(chat, stream=stream), self.headers)
        warnings = answer.headers.get("x-llmproxy-warnings", "")
        if answer.status != 200:
            error = answer.json["error"]
            assert error.keys() >= {"message", "type", "param", "code"}
            return Said(answer.status, error=error["message"], kind=error["type"], warnings=warnings)
        assert "[DONE]" not in answer.text
        response = checked(answer.events) if stream else answer.json
        output, error = response.get("output") or [], response.get("error") or {}
        calls = [item for item in output if item["type"] == "function_call"]
        parts = [part for item in output if item["type"] == "message" for part in item["content"]]
        finish = "tool_calls" if calls else "stop"
        if response["status"] == "incomplete":
            finish = REASONS[response["incomplete_details"]["reason"]]
        usage = response.get("usage") or {"input_tokens": 0, "output_tokens": 0}
        return Said(
            200,
            "".join(part.get("text") or part.get("refusal") or "" for part in parts),
            "\n\n".join(part["text"] for item in output if item["type"] == "reasoning" for part in item["summary"]),
            tuple((item["call_id"], item["name"], json.loads(item["arguments"])) for item in calls),
            finish if response["status"] != "failed" else "",
            (usage["input_tokens"], usage["output_tokens"]),
            warnings,
            error.get("message", ""),
            str(error.get("code") or ""),
            output,
            response["status"] in ("completed", "incomplete"),
        )

    def models(self) -> List[str]:
        return [model["id"] for model in self.house.ask("GET", "/llm/v1/models", headers=self.headers).json["data"]]
