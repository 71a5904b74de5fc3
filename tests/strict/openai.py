"""An OpenAI that takes nothing amiss but what is: every field is checked, and answers are made from what was asked.

`CHAT`, `RESPONSE` and their like say what may be sent; the rules below them are the ones between fields. Models
named `gpt-6...` think: they call tools on /responses only (unless told to think nothing) and know no sampling.
Reasoning is sealed: what `think` led to is refused when it comes back without its seal. `This then that` asks for
that after the results of this, in all stand-ins. Besides what they all understand, `refuse` makes a refusal.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from upstream import Asked, Reply, json_reply

JSON = Dict[str, Any]
Rule = Callable[[Any, str], None]
NOW = 1795000000
MODELS = ("gpt-3.5-turbo", "gpt-4o", "gpt-4o-mini", "gpt-6-sol", "gpt-6-luna", "text-embedding-3-small")


class Refused(Exception):
    def __init__(self, message: str, param: Optional[str] = None, code: Optional[str] = None, status: int = 400):
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


def demand(true: Any, message: str, param: Optional[str] = None, code: Optional[str] = None) -> None:
    if not true:
        raise Refused(message, param, code)


# what may be sent


def fits(true: Callable[[Any], Any], words: str) -> Rule:
    return lambda value, at: demand(true(value), f"Invalid value for '{at}': expected {words}.", at, "invalid_type")


def kind(*kinds: type) -> Rule:
    return fits(lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)), str(kinds))


def between(low: float, high: float, *kinds: type) -> Rule:
    def rule(value: Any, at: str) -> None:
        kind(*(kinds or (int, float)))(value, at)
        demand(low <= value <= high, f"Invalid '{at}': out of range.", at, "invalid_value")

    return rule


def one_of(words: str) -> Rule:
    return fits(lambda value: isinstance(value, str) and value in words.split(), f"one of {words}")


def matching(pattern: str) -> Rule:
    return fits(lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL), pattern)


def maybe(rule: Rule) -> Rule:
    return lambda value, at: None if value is None else rule(value, at)


def each(rule: Rule, least: int = 1, most: int = 4096) -> Rule:
    def every(value: Any, at: str) -> None:
        kind(list)(value, at)
        demand(least <= len(value) <= most, f"Invalid '{at}': {len(value)} items.", at, "invalid_value")
        for place, item in enumerate(value):
            rule(item, f"{at}[{place}]")

    return every


def text_or(rule: Rule) -> Rule:
    return lambda value, at: None if isinstance(value, str) else rule(value, at)


def record(needed: Mapping[str, Rule], others: Optional[Mapping[str, Rule]] = None) -> Rule:
    rules = {**needed, **(others or {})}

    def rule(value: Any, at: str) -> None:
        kind(dict)(value, at)
        dot = f"{at}." if at else ""
        for name in value:
            demand(name in rules, f"Unknown parameter: '{dot}{name}'.", dot + name, "unknown_parameter")
        for name in needed:
            missing = f"Missing required parameter: '{dot}{name}'."
            demand(name in value, missing, dot + name, "missing_required_parameter")
        for name, one in value.items():
            rules[name](one, dot + name)

    return rule


def by(key: str, rules: Mapping[str, Rule], otherwise: str = "") -> Rule:
    def rule(value: Any, at: str) -> None:
        kind(dict)(value, at)
        named = value.get(key, otherwise)
        demand(named in rules, f"Invalid value: '{named}'.", f"{at}.{key}", "invalid_value")
        rules[named](value, at)

    return rule


def typed(needed: Mapping[str, Rule], others: Optional[Mapping[str, Rule]] = None) -> Rule:
    return record({"type": TEXT, **needed}, others)


TEXT, FLAG, OBJECT = kind(str), kind(bool), kind(dict)
NAME = matching(r"[A-Za-z0-9_-]{1,64}")
URL = matching(r"https?://\S+|data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/]+=*")
EFFORT = one_of("none minimal low medium high xhigh max")
SCHEMA: Mapping[str, Rule] = {"name": NAME, "schema": OBJECT}
MORE_SCHEMA: Mapping[str, Rule] = {"description": TEXT, "strict": maybe(FLAG)}
EITHER: Mapping[str, Rule] = {  # known to both APIs
    "metadata": maybe(OBJECT),
    "parallel_tool_calls": FLAG,
    "prompt_cache_key": TEXT,
    "safety_identifier": matching(".{1,128}"),
    "service_tier": one_of("auto default flex scale priority fast"),
    "store": maybe(FLAG),
    "stream": maybe(FLAG),
    "temperature": maybe(between(0, 2)),
    "top_logprobs": between(0, 20, int),
    "top_p": maybe(between(0, 1)),
    "user": TEXT,
}

TEXT_PART = typed({"text": TEXT}, {"prompt_cache_breakpoint": OBJECT})
TEXTS = text_or(each(by("type", {"text": TEXT_PART})))
IMAGE = record({"url": URL}, {"detail": one_of("auto low high original")})
FILE: Mapping[str, Rule] = {"filename": TEXT, "file_data": matching("data:.+;base64,.+"), "file_id": TEXT}
USER_PARTS = {
    "text": TEXT_PART,
    "image_url": typed({"image_url": IMAGE}),
    "input_audio": typed({"input_audio": record({"data": TEXT, "format": one_of("wav mp3")})}),
    "file": typed({"file": record({}, FILE)}),
}
CALL = by(
    "type",
    {
        "function": typed({"id": TEXT, "function": record({"name": NAME, "arguments": TEXT})}),
        "custom": typed({"id": TEXT, "custom": record({"name": NAME, "input": TEXT})}),
    },
)
ASSISTANT: Mapping[str, Rule] = {
    "content": maybe(text_or(each(by("type", {"text": TEXT_PART, "refusal": typed({"refusal": TEXT})})))),
    "refusal": maybe(TEXT),
    "name": TEXT,
    "audio": maybe(record({"id": TEXT})),
    "annotations": kind(list),
    "tool_calls": each(CALL),
}
SYSTEM = record({"role": TEXT, "content": TEXTS}, {"name": TEXT})
MESSAGE = by(
    "role",
    {
        "system": SYSTEM,
        "developer": SYSTEM,
        "user": record({"role": TEXT, "content": text_or(each(by("type", USER_PARTS)))}, {"name": TEXT}),
        "assistant": record({"role": TEXT}, ASSISTANT),
        "tool": record({"role": TEXT, "tool_call_id": TEXT, "content": TEXTS}),
    },
)
FUNCTION: Mapping[str, Rule] = {"description": TEXT, "parameters": OBJECT, "strict": maybe(FLAG)}
NAMED = by("type", {one: typed({one: record({"name": NAME})}) for one in ("function", "custom")})
TOOL = by(
    "type",
    {
        "function": typed({"function": record({"name": NAME}, FUNCTION)}),
        "custom": typed({"custom": record({"name": NAME}, {"description": TEXT, "format": OBJECT})}),
    },
)
ALLOWED = {"mode": one_of("auto required"), "tools": each(OBJECT)}
CHOICE = by("type", {"function": NAMED, "custom": NAMED, "allowed_tools": typed({"allowed_tools": record(ALLOWED)})})
MODE = one_of("none auto required")
FORMAT = {"text": typed({}), "json_object": typed({})}
CHAT = record(
    {"model": TEXT, "messages": each(MESSAGE)},
    {
        **EITHER,
        "audio": record({"voice": TEXT, "format": TEXT}),
        "frequency_penalty": between(-2, 2),
        "logit_bias": OBJECT,
        "logprobs": FLAG,
        "max_completion_tokens": between(1, 10**6, int),
        "max_tokens": between(1, 10**6, int),
        "modalities": each(one_of("text audio")),
        "n": between(1, 128, int),
        "prediction": typed({"content": TEXTS}),
        "presence_penalty": between(-2, 2),
        "reasoning_effort": EFFORT,
        "response_format": by("type", {**FORMAT, "json_schema": typed({"json_schema": record(SCHEMA, MORE_SCHEMA)})}),
        "seed": kind(int),
        "stop": text_or(each(TEXT, most=4)),
        "stream_options": record({}, {"include_usage": FLAG, "include_obfuscation": FLAG}),
        "tool_choice": lambda value, at: (MODE if isinstance(value, str) else CHOICE)(value, at),
        "tools": each(TOOL),
        "verbosity": one_of("low medium high"),
        "web_search_options": OBJECT,
    },
)

IN_PARTS = {
    "input_text": TEXT_PART,
    "input_image": typed({}, {"detail": one_of("auto low high original"), "image_url": URL, "file_id": TEXT}),
    "input_file": typed({}, FILE),
}
OUT_PARTS = {
    "output_text": typed({"text": TEXT}, {"annotations": kind(list), "logprobs": kind(list)}),
    "refusal": typed({"refusal": TEXT}),
}
SPOKEN = text_or(each(by("type", IN_PARTS)))
#: an item of an answer may be sent back as it came
AS_IT_CAME: Mapping[str, Rule] = {"id": TEXT, "status": one_of("completed incomplete")}
OUTPUT = typed({"call_id": TEXT, "output": SPOKEN})
ITEM = by(
    "type",
    {
        "message": by(
            "role",
            {
                "assistant": record(
                    {"role": TEXT, "content": text_or(each(by("type", OUT_PARTS)))}, {"type": TEXT, **AS_IT_CAME}
                ),
                **dict.fromkeys(
                    ("user", "system", "developer"), record({"role": TEXT, "content": SPOKEN}, {"type": TEXT})
                ),
            },
        ),
        "function_call": typed({"call_id": TEXT, "name": NAME, "arguments": TEXT}, AS_IT_CAME),
        "custom_tool_call": typed({"call_id": TEXT, "name": NAME, "input": TEXT}, AS_IT_CAME),
        "function_call_output": OUTPUT,
        "custom_tool_call_output": OUTPUT,
        "reasoning": typed(
            {"id": TEXT, "summary": each(typed({"text": TEXT}), least=0)},
            {"encrypted_content": maybe(TEXT), "status": AS_IT_CAME["status"]},
        ),
    },
    "message",
)
FLAT_TOOL = by(
    "type",
    {
        "function": typed(
            {"name": NAME, "parameters": maybe(OBJECT)}, {"description": maybe(TEXT), "strict": maybe(FLAG)}
        ),
        "custom": typed({"name": NAME}, {"description": maybe(TEXT), "format": OBJECT}),
        "namespace": typed({"name": NAME, "description": TEXT, "tools": each(lambda value, at: FLAT_TOOL(value, at))}),
        "web_search": typed({}, {"external_web_access": FLAG}),
    },
)
FLAT_NAMED = typed({"name": NAME})
FLAT_CHOICE = by(
    "type",
    {"function": FLAT_NAMED, "custom": FLAT_NAMED, "allowed_tools": typed({**ALLOWED, "tools": each(FLAT_NAMED)})},
)
TEXT_FORMAT = by("type", {**FORMAT, "json_schema": typed(SCHEMA, MORE_SCHEMA)})
COUNTED: Mapping[str, Rule] = {
    "instructions": maybe(TEXT),
    "parallel_tool_calls": FLAG,
    "reasoning": record({}, {"effort": EFFORT, "summary": maybe(one_of("auto concise detailed"))}),
    "text": record({}, {"format": TEXT_FORMAT, "verbosity": one_of("low medium high")}),
    "tool_choice": lambda value, at: (MODE if isinstance(value, str) else FLAT_CHOICE)(value, at),
    "tools": each(FLAT_TOOL),
}
ASKED = {"model": TEXT, "input": text_or(each(ITEM))}
COUNT = record(ASKED, COUNTED)
INCLUDED = one_of("reasoning.encrypted_content message.output_text.logprobs")
RESPONSE = record(
    ASKED,
    {
        **EITHER,
        **COUNTED,
        "client_metadata": OBJECT,
        "include": each(INCLUDED, least=0),
        "max_output_tokens": between(1, 10**6, int),
        "stream_options": record({}, {"include_obfuscation": FLAG}),
    },
)


def embeddable(value: Any, at: str) -> None:
    tokens = each(kind(int), most=8192)
    if isinstance(value, list) and value and isinstance(value[0], int):
        tokens(value, at)
    elif isinstance(value, list) and value and isinstance(value[0], list):
        each(tokens, most=2048)(value, at)
    else:
        text_or(each(TEXT, most=2048))(value, at)


EMBEDDINGS = record(
    {"model": TEXT, "input": embeddable},
    {"dimensions": between(1, 3072, int), "encoding_format": one_of("float base64"), "user": TEXT},
)


# the rules between fields

UNSAMPLED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "stop")


def thinks(model: str) -> bool:
    return model.startswith("gpt-6")


def check_model(body: JSON) -> None:
    if body["model"] not in MODELS:
        raise Refused(f"The model `{body['model']}` does not exist.", "model", "model_not_found", 404)


def check_sampling(body: JSON, effort: Optional[str]) -> None:
    if thinks(body["model"]) and effort != "none":
        for name in UNSAMPLED:
            neutral = name not in body or (name in ("temperature", "top_p") and body[name] == 1)
            demand(neutral, f"Unsupported value: '{name}' with this model.", name, "unsupported_value")


def check_chat(body: JSON) -> None:
    CHAT(body, "")
    check_model(body)
    effort = body.get("reasoning_effort")
    demand(effort is None or thinks(body["model"]), "Unrecognized request argument supplied: reasoning_effort")
    if thinks(body["model"]):
        told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        demand("max_tokens" not in body, told, "max_tokens", "unsupported_parameter")
        told = "Function tools with reasoning_effort are not supported for this model on this endpoint."
        demand(effort == "none" or "tools" not in body, told, "reasoning_effort")
    check_sampling(body, effort)
    demand("stream_options" not in body or body.get("stream"), "only with stream", "stream_options")
    demand("top_logprobs" not in body or body.get("logprobs"), "only with logprobs", "top_logprobs")
    demand("tools" in body or "tool_choice" not in body, "only with tools", "tool_choice")
    check_results(body["messages"])


def check_results(messages: List[JSON]) -> None:
    """Refuse results without a call before them, and calls without results behind them."""
    open_: List[str] = []
    for at, message in enumerate(messages):
        param = f"messages[{at}]"
        if message["role"] == "tool":
            demand(message["tool_call_id"] in open_, "tool without a preceding tool_calls", f"{param}.role")
            open_.remove(message["tool_call_id"])
            continue
        demand(not open_, f"tool_call_ids without a response: {open_}", f"{param}.role")
        open_ = [call["id"] for call in message.get("tool_calls", ())]
        silent = message["role"] == "assistant" and message.get("content") is None
        spoken = open_ or message.get("refusal") or message.get("audio")
        demand(not silent or spoken, "an assistant message has content or tool_calls", f"{param}.content")
    demand(not open_, f"tool_call_ids without a response: {open_}", f"messages[{len(messages)}]")


def check_response(body: JSON) -> None:
    RESPONSE(body, "")
    check_model(body)
    effort = body.get("reasoning", {}).get("effort")
    demand(
        thinks(body["model"]) or "reasoning" not in body, "Unsupported parameter", "reasoning", "unsupported_parameter"
    )
    demand(not body.get("store"), "this stand-in stores nothing", "store")
    check_sampling(body, effort)
    check_items(body["input"], body["model"])


def check_items(items: Any, model: str) -> None:
    if isinstance(items, str):
        return
    open_: Dict[str, str] = {}
    for at, item in enumerate(items):
        type_, param = item.get("type", "message"), f"input[{at}]"
        if type_.endswith("_call"):
            open_[item["call_id"]] = type_
        elif type_.endswith("_output"):
            told = f"No tool call found for function call output with call_id {item['call_id']}."
            demand(open_.pop(item["call_id"], "") == type_[: -len("_output")], told, param)
        else:
            demand(type_ == "reasoning" or not open_, f"No tool output found for function call {open_}.", param)
    demand(not open_, f"No tool output found for function call {open_}.", "input")
    check_seals(items, model)


def check_seals(items: List[JSON], model: str) -> None:
    """Refuse reasoning that is broken, or led to nothing, and calls that came of it and are without it."""
    sealed = ""
    for at, item in enumerate(items):
        if item.get("type") == "reasoning":
            following = [one.get("type", "message") for one in items[at + 1 : at + 2]]
            told = f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
            demand(following and following[0] in ("message", "function_call", "custom_tool_call"), told, f"input[{at}]")
            sealed = item.get("encrypted_content") or ""
            demand(sealed == seal(model, item["id"]), "The encrypted content could not be verified.", f"input[{at}]")
        elif item.get("type") == "function_call" and item["call_id"].startswith("call_t"):
            demand(sealed, f"Item '{item['call_id']}' was provided without its 'reasoning' item.", f"input[{at}]")
        elif item.get("type", "message") == "message" and item["role"] == "user":
            sealed = ""


def seal(*what: str) -> str:
    return "gAAAA" + hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


# what is answered


class Said(NamedTuple):
    """An answer in neither API's words."""

    text: str
    calls: List[Tuple[str, str, str]]  # id, name, arguments
    thought: str
    refusal: str
    finish: str
    asked: int  # tokens
    cut: bool


def words(value: Any) -> int:
    """Count the words of all texts: they are this model's tokens."""
    if isinstance(value, str):
        return len(value.split())
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(words, items))


def spoken(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content or ())


def said(body: JSON, messages: List[JSON], names: List[str], schema: Optional[JSON]) -> Said:
    """Make up an answer; `messages` are a chat's, or a response's items."""
    asked = words(messages) + words(body.get("instructions"))
    results = []
    text = last_asked(messages)
    while messages and "role" in messages[-1] and messages[-1]["role"] == "tool":
        results.insert(0, f"{messages[-1]['tool_call_id']}={spoken(messages[-1]['content'])}")
        messages = messages[:-1]
    failing = re.search(r"error (\d{3})", text)
    if failing:
        raise Failing(int(failing.group(1)))
    thought = f"Thinking about: {text}" if has("think", text) and thinks(body["model"]) else ""
    answer = f"results: {'; '.join(results)}" if results else f"echo: {text}"
    made = Said(answer, [], thought, "", "length" if has("length", text) else "stop", asked, has("cut", text))
    calls = called(text, names, "call_t" if thought else "call_")
    if calls and body.get("tool_choice") != "none":
        return made._replace(text="", calls=calls, finish="tool_calls")
    if has("refuse", text):
        return made._replace(text="", refusal=f"I cannot help with: {text}")
    return made if schema is None else made._replace(text=json.dumps(instance(schema)))


def last_asked(messages: List[JSON]) -> str:
    """Give what the user asks for now; nothing when all of it is done."""
    text, done, before = "", 0, None
    for one in messages:
        role = one.get("role")
        if role == "user":
            text, done = spoken(one["content"]), 0
        elif role == "tool" != before:
            done += 1
        before = role
    return dict(enumerate(text.split(" then "))).get(done, "")


def has(word: str, text: str) -> bool:
    return bool(re.search(rf"\b{word}\b", text))


def called(text: str, names: List[str], prefix: str) -> List[Tuple[str, str, str]]:
    made = []
    for found in re.finditer(r"call ([\w.-]+) (?=\{)", text):
        if found.group(1) in names:
            _, end = json.JSONDecoder().raw_decode(text, found.end())
            arguments = text[found.end() : end]
            made.append((seal(text, str(len(made))).replace("gAAAA", prefix), found.group(1), arguments))
    return made


def instance(schema: JSON) -> Any:
    """Give the least that a schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    least = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "null": None}
    if schema.get("type") in least:
        return least[schema["type"]]
    return {name: instance(one) for name, one in schema.get("properties", {}).items()}


class Failing(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def pieces(text: str, size: int = 5) -> List[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


# chat completions


def answer_chat(body: JSON) -> Reply:
    check_chat(body)
    names = [tool[tool["type"]]["name"] for tool in body.get("tools", ())]
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    one = said(body, body["messages"], names, schema)
    answers = [choice(one, at, body) for at in range(body.get("n", 1))]
    head = {"id": "chatcmpl-strict", "created": NOW, "model": f"{body['model']}-2026-11-01", "service_tier": "default"}
    after = sum(words(answer["message"]) - 1 for answer in answers) + words(one.thought)
    usage = {"prompt_tokens": one.asked, "completion_tokens": after, "total_tokens": one.asked + after}
    usage["completion_tokens_details"] = {"reasoning_tokens": words(one.thought)}  # type: ignore[assignment]
    if not body.get("stream"):
        return json_reply({**head, "object": "chat.completion", "choices": answers, "usage": usage})
    deltas = [delta for answer in answers for delta in streamed(answer)]
    wants = body.get("stream_options", {}).get("include_usage")
    chunk = {**head, "object": "chat.completion.chunk", "obfuscation": "x7"}
    chunks = [{**chunk, "choices": [delta], **({"usage": None} if wants else {})} for delta in deltas]
    if wants:
        chunks.append({**chunk, "choices": [], "usage": usage})
    return events([f"data: {json.dumps(event)}\n\n" for event in chunks] + ["data: [DONE]\n\n"], one)


def choice(one: Said, at: int, body: JSON) -> JSON:
    message: JSON = {
        "role": "assistant",
        "content": one.text or None,
        "refusal": one.refusal or None,
        "annotations": [],
    }
    if at and one.text:
        message["content"] += f" #{at}"
    if one.calls:
        message["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id_, name, arguments in one.calls
        ]
    told = None
    if body.get("logprobs"):
        told = {"content": [{"token": one.text, "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}
    return {"index": at, "message": message, "logprobs": told, "finish_reason": one.finish}


def streamed(answer: JSON) -> Iterator[JSON]:
    message, place = answer["message"], {"index": answer["index"], "logprobs": None, "finish_reason": None}
    yield {**place, "delta": {"role": "assistant", "content": "" if message["content"] else None, "refusal": None}}
    for at, piece in enumerate(pieces(message["content"] or "")):
        yield {**place, "delta": {"content": piece}, "logprobs": None if at else answer["logprobs"]}
    for piece in pieces(message["refusal"] or ""):
        yield {**place, "delta": {"refusal": piece}}
    for at, call in enumerate(message.get("tool_calls", ())):
        begun = {**call, "index": at, "function": {**call["function"], "arguments": ""}}
        yield {**place, "delta": {"tool_calls": [begun]}}
        for piece in pieces(call["function"]["arguments"]):
            yield {**place, "delta": {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}}
    yield {**place, "delta": {}, "finish_reason": answer["finish_reason"]}


def events(lines: List[str], one: Said) -> Reply:
    lines = lines[: len(lines) // 2] if one.cut else lines
    return Reply(200, {"Content-Type": "text/event-stream"}, [line.encode() for line in lines], cut=one.cut)


# responses


def answer_response(body: JSON) -> Reply:
    check_response(body)
    tools = [tool["name"] for tool in body.get("tools", ()) if tool["type"] in ("function", "custom")]
    schema = body.get("text", {}).get("format", {}).get("schema")
    one = said(body, [as_message(item) for item in items_of(body)], tools, schema)
    spent = words([one.text, one.refusal, [call[1:] for call in one.calls], one.thought])
    whole = {
        "id": "resp_strict",
        "object": "response",
        "created_at": NOW,
        "status": "completed",
        "model": f"{body['model']}-2026-11-01",
        "output": list(outputs(one, body)),
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "usage": {
            "input_tokens": one.asked,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": spent,
            "output_tokens_details": {"reasoning_tokens": words(one.thought)},
            "total_tokens": one.asked + spent,
        },
    }
    if one.finish == "length":
        whole.update(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    if not body.get("stream"):
        return json_reply(whole)
    told = [{**event, "sequence_number": at} for at, event in enumerate(response_events(whole))]
    return events([f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in told], one)


def items_of(body: JSON) -> List[JSON]:
    given = body["input"]
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def as_message(item: JSON) -> JSON:
    if item.get("type", "").endswith("_output"):
        return {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
    return item


def outputs(one: Said, body: JSON) -> Iterator[JSON]:
    if one.thought:
        id_ = "rs_" + seal(one.thought)[5:15]
        sealed = "reasoning.encrypted_content" in body.get("include", ())
        shown = body.get("reasoning", {}).get("summary")
        summary = [{"type": "summary_text", "text": text} for text in (one.thought, "Done.")] if shown else []
        item = {"id": id_, "type": "reasoning", "summary": summary}
        yield {**item, "encrypted_content": seal(body["model"], id_)} if sealed else item
    done = {"status": "completed"}
    parts: List[JSON] = []
    if one.text:
        parts.append({"type": "output_text", "text": one.text, "annotations": [], "logprobs": []})
    if one.refusal:
        parts.append({"type": "refusal", "refusal": one.refusal})
    if parts:
        yield {"id": "msg_strict", "type": "message", "role": "assistant", "content": parts, **done}
    for at, (id_, name, arguments) in enumerate(one.calls):
        told = {"call_id": id_, "name": name, "arguments": arguments}
        yield {"id": f"fc_{at}", "type": "function_call", **told, **done}


def response_events(whole: JSON) -> Iterator[JSON]:
    empty = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    for type_ in ("created", "in_progress"):
        yield {"type": f"response.{type_}", "response": empty}
    for at, item in enumerate(whole["output"]):
        begun = {**item, **{key: type(item[key])() for key in ("content", "summary", "arguments") if key in item}}
        place = {"output_index": at, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "output_index": at, "item": begun}
        yield from item_events(item, place)
        yield {"type": "response.output_item.done", "output_index": at, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def item_events(item: JSON, place: JSON) -> Iterator[JSON]:
    for piece in pieces(item.get("arguments", "")):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
    if item["type"] == "function_call":
        yield {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]}
    for at, part in enumerate(item.get("summary", ())):
        here = {**place, "summary_index": at}
        yield {"type": "response.reasoning_summary_part.added", **here, "part": {**part, "text": ""}}
        for piece in pieces(part["text"]):
            yield {"type": "response.reasoning_summary_text.delta", **here, "delta": piece}
        yield {"type": "response.reasoning_summary_text.done", **here, "text": part["text"]}
        yield {"type": "response.reasoning_summary_part.done", **here, "part": part}
    for at, part in enumerate(item.get("content", ())):
        here, key = {**place, "content_index": at}, "text" if "text" in part else "refusal"
        more: JSON = {"logprobs": []} if key == "text" else {}
        yield {"type": "response.content_part.added", **here, "part": {**part, key: ""}}
        for piece in pieces(part[key]):
            yield {"type": f"response.{part['type']}.delta", **here, "delta": piece, **more}
        yield {"type": f"response.{part['type']}.done", **here, key: part[key], **more}
        yield {"type": "response.content_part.done", **here, "part": part}


# the rest, and the door


def answer_count(body: JSON) -> Reply:
    COUNT(body, "")
    check_model(body)
    check_items(body["input"], body["model"])
    counted = words(body["input"]) + words(body.get("instructions")) + words(body.get("tools"))
    return json_reply({"object": "response.input_tokens", "input_tokens": counted})


def answer_embeddings(body: JSON) -> Reply:
    EMBEDDINGS(body, "")
    check_model(body)
    given = body["input"]
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    demand(all(inputs), "Input cannot be an empty string.", "input", "invalid_value")
    demand(body.get("encoding_format") == "float", "this stand-in has floats only", "encoding_format")
    data = [{"object": "embedding", "index": at, "embedding": vector(one)} for at, one in enumerate(inputs)]
    tokens = sum(len(one.split()) if isinstance(one, str) else len(one) for one in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_reply({"object": "list", "data": data, "model": body["model"], "usage": usage})


def vector(one: Any) -> List[float]:
    """Give numbers that tell one input from another, and that a float32 can hold."""
    digest = hashlib.sha256(json.dumps(one).encode()).digest()
    return [byte / 256 - 0.5 for byte in digest[:4]]


def answer_models(_: Any) -> Reply:
    items = [{"id": id_, "object": "model", "created": NOW, "owned_by": "system"} for id_ in MODELS]
    return json_reply({"object": "list", "data": items})


ROUTES: Mapping[Tuple[str, str], Callable[[Any], Reply]] = {
    ("POST", "/v1/chat/completions"): answer_chat,
    ("POST", "/v1/responses"): answer_response,
    ("POST", "/v1/responses/input_tokens"): answer_count,
    ("POST", "/v1/embeddings"): answer_embeddings,
    ("GET", "/v1/models"): answer_models,
}
FAILURES: Mapping[int, Tuple[str, Optional[str]]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "credit_balance_exhausted"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("server_error", "server_is_overloaded"),
}


def failed(status: int) -> Reply:
    type_, code = FAILURES.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    error = {"message": f"Told to answer {status}.", "type": type_, "param": None, "code": code}
    reply = json_reply({"error": error}, 429 if status == 402 else status)
    return reply._replace(headers={**dict(reply.headers), "retry-after": "7"}) if status == 429 else reply


def answer(asked: Asked) -> Reply:
    try:
        if not re.fullmatch(r"Bearer sk-[\w-]+", asked.headers.get("authorization", "")):
            raise Refused("Incorrect API key provided: sk-wr***ng.", None, "invalid_api_key", 401)
        route = ROUTES.get((asked.method, asked.path))
        if route is None:
            raise Refused(f"Unknown request URL: {asked.method} {asked.path}.", None, "unknown_url", 404)
        if asked.method == "POST" and asked.headers.get("content-type", "").split(";")[0] != "application/json":
            raise Refused("unsupported content type", status=415)
        return route(asked.json)
    except Refused as refused:
        return json_reply({"error": refused.error}, refused.status)
    except Failing as failing:
        return failed(failing.status)


# a client


def folded(parts: List[JSON]) -> JSON:
    """Make of a stream what a client makes of it: a whole answer, without what only one of the two has."""
    if parts[0]["object"] == "chat.completion":
        (whole,) = parts
        return bare(whole)
    choices: Dict[int, JSON] = {}
    usage = None
    for part in parts:
        usage = part.get("usage") or usage
        for one in part["choices"]:
            made = choices.setdefault(one["index"], {"index": one["index"], "message": {}, "finish_reason": None})
            add(made["message"], one["delta"])
            if one.get("logprobs"):
                made["logprobs"] = one["logprobs"]
            assert made["finish_reason"] is None, "something was said after the end"
            made["finish_reason"] = one["finish_reason"]
    return bare({**parts[-1], "choices": list(choices.values()), "usage": usage})


def add(message: JSON, delta: JSON) -> None:
    for key, value in delta.items():
        if key == "tool_calls":
            for fragment in value:
                add_call(message.setdefault(key, []), fragment)
        elif isinstance(value, (str, list)) and message.get(key):
            message[key] += value
        else:
            message[key] = value


def add_call(calls: List[JSON], fragment: JSON) -> None:
    more = {key: value for key, value in fragment.items() if key != "index"}
    if fragment["index"] == len(calls):
        calls.append({**more, "function": dict(more["function"])})
        return
    assert more.keys() == {"function"}, "an id or a type was told twice"
    assert more["function"].keys() == {"arguments"}, "a name was told twice"
    calls[fragment["index"]]["function"]["arguments"] += more["function"]["arguments"]


def bare(whole: JSON) -> JSON:
    told = {key: whole.get(key) for key in ("id", "created", "model", "usage")}
    choices = []
    for one in whole["choices"]:
        message = {key: value for key, value in one["message"].items() if value not in (None, [], "")}
        more = {"logprobs": one["logprobs"]} if one.get("logprobs") else {}
        choices.append({"index": one["index"], "message": message, "finish_reason": one["finish_reason"], **more})
    return {**told, "choices": choices}
