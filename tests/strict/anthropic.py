"""An Anthropic that takes amiss what it can: it checks every field, and answers from what was asked.

`REQUEST` and `BLOCKS` say what may be sent; the rules below them are the ones between fields. Thoughts are
signed over the model and all that stood before them, and a call that was thought over (its id begins with
`toolu_T`) is not taken back without its thought by the model that made it. Besides what all stand-ins
understand, `refuse` declines the request, `redact` hides a second thought, and `error 429 spend` is about money.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any, Callable, Dict, Iterator, List, Tuple
from urllib.parse import parse_qs

from upstream import Asked, Reply

JSON = Dict[str, Any]
Check = Callable[[Any, str], None]
OLD, NEW = "2023-06-01", "2026-10-21"
EFFORTS = ("low", "medium", "high", "xhigh", "max")

#: id -> (version, thinking types, efforts, largest max_tokens, created)
MODELS: Dict[str, Tuple[Tuple[int, int], str, Tuple[str, ...], int, str]] = {
    "claude-opus-5-5": ((5, 5), "adaptive", EFFORTS, 128000, "2026-09-22T00:00:00Z"),
    "claude-sonnet-5-5": ((5, 5), "adaptive between_tools", EFFORTS, 128000, "2026-09-28T00:00:00Z"),
    "claude-opus-4-8": ((4, 8), "adaptive disabled", EFFORTS, 128000, "2026-05-28T00:00:00Z"),
    "claude-sonnet-4-6": ((4, 6), "adaptive enabled disabled", EFFORTS[:3], 64000, "2026-02-17T00:00:00Z"),
    "claude-haiku-4-5-20251001": ((4, 5), "enabled disabled", (), 64000, "2025-10-01T00:00:00Z"),
    "claude-3-haiku-20240307": ((3, 0), "disabled", (), 4096, "2024-03-07T00:00:00Z"),
}
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Refused(Exception):
    def __init__(self, message: str, status: int = 400, details: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


def need(true: Any, message: str, status: int = 400) -> None:
    if not true:
        raise Refused(message, status)


# what may be sent


def is_(kind: Any, low: float = float("-inf"), high: float = float("inf")) -> Check:
    def check(value: Any, path: str) -> None:
        numeric = kind in (int, (int, float))
        need(
            isinstance(value, kind) and not (numeric and isinstance(value, bool)),
            f"{path}: Input should be a valid {kind}",
        )
        need(not numeric or low <= value <= high, f"{path}: Input should be between {low} and {high}")

    return check


def one_of(words: str) -> Check:
    return lambda value, path: need(value in words.split(), f"{path}: Input should be one of {words}")


def matching(pattern: str) -> Check:
    def check(value: Any, path: str) -> None:
        need(isinstance(value, str) and re.fullmatch(pattern, value), f"{path}: String should match '{pattern}'")

    return check


def list_of(check: Check, least: int = 0) -> Check:
    def checked(value: Any, path: str) -> None:
        need(isinstance(value, list) and len(value) >= least, f"{path}: Input should be a valid list")
        for at, one in enumerate(value):
            check(one, f"{path}.{at}")

    return checked


def shape(required: str = "", **fields: Check) -> Check:
    def check(value: Any, path: str) -> None:
        need(isinstance(value, dict), f"{path}: Input should be an object")
        for field, one in value.items():
            need(field in fields, f"{path}.{field}: Extra inputs are not permitted")
            fields[field](one, f"{path}.{field}")
        for field in required.split():
            need(field in value, f"{path}.{field}: Field required")

    return check


def tagged(**shapes: Check) -> Check:
    def check(value: Any, path: str) -> None:
        need(isinstance(value, dict), f"{path}: Input should be an object")
        need(value.get("type") in shapes, f"{path}: Input tag {value.get('type')!r} does not match {sorted(shapes)}")
        shapes[value["type"]]({key: one for key, one in value.items() if key != "type"}, path)

    return check


def either(text: Check, other: Check) -> Check:
    return lambda value, path: (text if isinstance(value, str) else other)(value, path)


def base64_(value: Any, path: str) -> None:
    try:
        need(isinstance(value, str) and base64.b64decode(value, validate=True), f"{path}: Base64 is empty")
    except ValueError:
        raise Refused(f"{path}: Invalid base64 data") from None


def closed(schema: Any, path: str) -> None:
    """Every object of a schema must name all that it may hold."""
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        closed(inner, path)
    if isinstance(schema, dict) and schema.get("type") == "object":
        named = schema.get("additionalProperties") is False
        need(named, f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false")


TEXT = matching(r"(?s).*\S.*")
URL = matching(r"https?://\S+")
ID = matching(r"[a-zA-Z0-9_-]+")
NAME = matching(r"[a-zA-Z0-9_-]{1,128}")
CACHE = tagged(ephemeral=shape(ttl=one_of("5m 1h")))
text = shape("text", text=TEXT, cache_control=CACHE)
IMAGE = tagged(
    base64=shape("media_type data", media_type=one_of("image/jpeg image/png image/gif image/webp"), data=base64_),
    url=shape("url", url=URL),
)
DOCUMENT = tagged(
    base64=shape("media_type data", media_type=one_of("application/pdf"), data=base64_),
    text=shape("media_type data", media_type=one_of("text/plain"), data=is_(str)),
    url=shape("url", url=URL),
)
image = shape("source", source=IMAGE, cache_control=CACHE)
document = shape("source", source=DOCUMENT, cache_control=CACHE, title=is_(str), context=is_(str))
RESULT = tagged(text=text, image=image, document=document)
tool_result = shape(
    "tool_use_id",
    tool_use_id=ID,
    content=either(is_(str), list_of(RESULT)),
    is_error=is_(bool),
    cache_control=CACHE,
)
BLOCKS = {
    "system": tagged(text=text),
    "user": tagged(
        text=text,
        image=image,
        document=document,
        tool_result=tool_result,
    ),
    "assistant": tagged(
        text=text,
        tool_use=shape("id name input", id=ID, name=NAME, input=is_(dict), cache_control=CACHE),
        thinking=shape("thinking signature", thinking=is_(str), signature=base64_),
        redacted_thinking=shape("data", data=base64_),
    ),
}


def message(value: Any, path: str) -> None:
    shape("role content", role=one_of("user assistant system"), content=lambda *_: None)(value, path)
    either(TEXT, list_of(BLOCKS[value["role"]], 1))(value["content"], f"{path}.content")


def object_schema(value: Any, path: str) -> None:
    need(isinstance(value, dict) and value.get("type") == "object", f"{path}.type: Input should be 'object'")


tool = shape(
    "name input_schema",
    name=NAME,
    input_schema=object_schema,
    description=is_(str),
    strict=is_(bool),
    cache_control=CACHE,
    type=one_of("custom"),
    input_examples=list_of(is_(dict)),
    eager_input_streaming=is_(bool),
    defer_loading=is_(bool),
)
CHOICE = {"disable_parallel_tool_use": is_(bool)}
COUNT = {
    "model": is_(str),
    "messages": list_of(message, 1),
    "system": either(TEXT, list_of(tagged(text=text), 1)),
    "tools": list_of(tool),
    "tool_choice": tagged(
        auto=shape(**CHOICE), any=shape(**CHOICE), tool=shape("name", name=NAME, **CHOICE), none=shape()
    ),
    "thinking": tagged(
        adaptive=shape(display=one_of("summarized omitted")),
        enabled=shape("budget_tokens", budget_tokens=is_(int, 1024), display=one_of("summarized omitted")),
        disabled=shape(),
        between_tools=shape(),
    ),
    "output_config": shape(effort=one_of(" ".join(EFFORTS)), format=tagged(json_schema=shape("schema", schema=closed))),
    "cache_control": CACHE,
    "speed": one_of("standard fast"),
}
REQUEST = {
    **COUNT,
    "max_tokens": is_(int, 0),
    "stop_sequences": list_of(TEXT),
    "stream": is_(bool),
    "metadata": shape(user_id=is_(str)),
    "service_tier": one_of("auto standard_only"),
    "temperature": is_((int, float), 0, 1),
    "top_p": is_((int, float), 0, 1),
    "top_k": is_(int, 0),
}


def blocks_of(content: Any) -> List[JSON]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def types_of(message: JSON) -> List[str]:
    return [block["type"] for block in blocks_of(message["content"])]


# the rules between fields


def check(body: JSON, version: str) -> None:
    """Refuse what the service would, or might."""
    need(body["model"] in MODELS, f"model: {body['model']}", 404)
    model, kinds, efforts, most, _ = MODELS[body["model"]]
    need(
        body.get("max_tokens", 0) <= most,
        f"max_tokens: {body.get('max_tokens')} > {most}, the most for {body['model']}",
    )
    check_sampling(body, model, version)
    check_thinking(body, model, kinds, efforts)
    check_tools(body, model)
    check_turns(body["messages"], model)
    for at, turn in enumerate(body["messages"]):
        if turn["role"] == "assistant":
            check_thoughts(body, at)


def check_sampling(body: JSON, model: Tuple[int, int], version: str) -> None:
    for field in {"temperature", "top_p", "top_k"} & body.keys():
        need(version == OLD, f"{field}: Extra inputs are not permitted")
        need(model <= (4, 6), f"{field}: this model only takes the default")
        need(body.get("thinking", {}).get("type") not in ("adaptive", "enabled"), f"{field}: not when thinking")


def check_thinking(body: JSON, model: Tuple[int, int], kinds: str, efforts: Tuple[str, ...]) -> None:
    thinking, effort = body.get("thinking", {}), body.get("output_config", {}).get("effort")
    kind = thinking.get("type", "")
    need(not kind or kind in kinds.split(), f"thinking.type: {kind!r} is not supported for this model")
    need(effort is None or effort in efforts, f"output_config.effort: {effort!r} is not supported for this model")
    need(
        thinking.get("budget_tokens", 0) < body.get("max_tokens", 10**9),
        "thinking.budget_tokens: must be less than max_tokens",
    )
    off = kind in ("disabled", "between_tools")
    need(not (off and effort in ("xhigh", "max")), f"thinking.type: {kind!r} is not supported at this effort")


def check_tools(body: JSON, model: Tuple[int, int]) -> None:
    tools, choice = body.get("tools", []), body.get("tool_choice", {})
    names = [tool["name"] for tool in tools]
    need(len(set(names)) == len(names), "tools: Tool names must be unique.")
    for at, tool in enumerate(tools):
        if tool.get("strict"):
            closed(tool["input_schema"], f"tools.{at}.input_schema")
    used = any({"tool_use", "tool_result"} & set(types_of(message)) for message in body["messages"])
    need(tools or not used, "Requests which include `tool_use` or `tool_result` blocks must define tools")
    need(tools or not choice, "tool_choice: may only be specified while providing tools")
    need(
        choice.get("name", *names[:1] or [None]) in [*names, None],
        f"tool_choice: Tool {choice.get('name')!r} not found in provided tools",
    )
    if choice.get("type") in ("any", "tool"):
        need(model < (5, 1), "tool_choice: forced tool use is not supported on this model")
        need("thinking" not in body or model > (4, 6), "Thinking may not be enabled when tool_choice forces tool use.")


def check_turns(messages: List[JSON], model: Tuple[int, int]) -> None:
    need(messages[0]["role"] != "system", "messages.0: use the top-level 'system' parameter")
    need(messages[0]["role"] == "user", "messages: first message must use the user role")
    last = messages[-1]
    if last["role"] == "assistant":
        need(model < (4, 6), "This model does not support assistant message prefill.")
        texts = [block["text"] for block in blocks_of(last["content"])[-1:] if block["type"] == "text"]
        need(
            texts == [text.rstrip() for text in texts],
            "messages: final assistant content cannot end with trailing whitespace",
        )
    asked: List[str] = []  # the ids of the calls that wait for their results
    for at, message in enumerate(messages):
        types, before = types_of(message), messages[at - 1]["role"] if at else ""
        need(message["role"] != before, f"messages.{at}: roles must alternate")
        if message["role"] == "system":
            need(model >= (4, 8), f"messages.{at}: role 'system' is not supported on this model")
            after = [later["role"] for later in messages[at + 1 : at + 2]]
            need(
                before == "user" and after in ([], ["assistant"]), f"messages.{at}: a system message may not stand here"
            )
            continue
        need(types[-1] not in ("thinking", "redacted_thinking"), f"messages.{at}: the final block may not be thinking")
        results = [block["tool_use_id"] for block in blocks_of(message["content"]) if block["type"] == "tool_result"]
        need(
            types[: len(results)] == ["tool_result"] * len(results),
            f"messages.{at}: tool_result blocks must come first",
        )
        lost = [id_ for id_ in asked if id_ not in results]
        need(
            not lost, f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {lost}"
        )
        stray = [id_ for id_ in results if id_ not in asked]
        need(
            not stray and len(set(results)) == len(results),
            f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {stray}",
        )
        asked = [block["id"] for block in blocks_of(message["content"]) if block["type"] == "tool_use"]
        need(len(set(asked)) == len(asked), f"messages.{at}: `tool_use` ids must be unique")
    need(not asked, f"messages.{len(messages) - 1}: `tool_use` ids without results: {asked}")


def check_thoughts(body: JSON, at: int) -> None:
    """A thought comes back as it was and where it was, and with every call that was thought over."""
    blocks = blocks_of(body["messages"][at]["content"])
    for number, block in enumerate(blocks):
        if block["type"] == "thinking":
            right = block["signature"] == signature(body, at, block["thinking"])
            need(right, f"messages.{at}.content.{number}: Invalid `signature` in `thinking` block")
        if block["type"] == "redacted_thinking":
            need(
                block["data"] == signature(body, at, "redacted"),
                f"messages.{at}.content.{number}: Invalid `data` in `redacted_thinking` block",
            )
    thought = any(block.get("id", "").startswith(f"toolu_{maker(body)}") for block in blocks)
    need(
        not thought or blocks[0]["type"] == "thinking",
        f"messages.{at}.content.0.type: Expected `thinking`, but found `{blocks[0]['type']}`",
    )


def maker(body: JSON) -> str:
    """Mark the calls that this model thought over: those of another may come without their thoughts."""
    return f"T{hashlib.sha256(body['model'].encode()).hexdigest()[:6]}_"


def signature(body: JSON, at: int, thought: str) -> str:
    """Sign a thought of the turn `at`: over the model, the system prompt and all turns before."""
    turns = [[turn["role"], blocks_of(turn["content"])] for turn in body["messages"][:at]]
    signed = json.dumps([body["model"], body.get("system"), turns, thought], sort_keys=True)
    return base64.b64encode(hashlib.sha256(signed.encode()).digest()).decode()


# what is answered


def words(*values: Any) -> int:
    return sum(len(json.dumps(value).split()) for value in values if value)


def counted(body: JSON) -> int:
    return words(body.get("system"), body["messages"], body.get("tools"))


def instance(schema: JSON) -> Any:
    """Give the least that a schema allows."""
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("type") == "object":
        return {name: instance(inner) for name, inner in schema.get("properties", {}).items()}
    kind = schema["type"][0] if isinstance(schema.get("type"), list) else schema.get("type")
    return {"string": "", "integer": 0, "number": 0, "boolean": False, "array": []}.get(str(kind))


def calls_in(text: str) -> Iterator[Tuple[str, JSON]]:
    for found in re.finditer(r"\bcall (\w+) (?=\{)", text):
        yield found.group(1), json.JSONDecoder().raw_decode(text, found.end())[0]


def told(result: JSON) -> str:
    content = result.get("content", "")
    return content if isinstance(content, str) else " ".join(block.get("text", block["type"]) for block in content)


def thoughts(body: JSON, text: str) -> List[JSON]:
    thinking = body.get("thinking", {})
    thinks = thinking.get("type") in ("adaptive", "enabled") or (
        "thinking" not in body and MODELS[body["model"]][0] >= (5, 0)
    )
    if not thinks or "think" not in text:
        return []
    shown = thinking.get("display", "summarized" if MODELS[body["model"]][0] <= (4, 6) else "omitted") == "summarized"
    thought, at = f"Thinking about: {text}" if shown else "", len(body["messages"])
    blocks = [{"type": "thinking", "thinking": thought, "signature": signature(body, at, thought)}]
    return blocks + (
        [{"type": "redacted_thinking", "data": signature(body, at, "redacted")}] if "redact" in text else []
    )


def asked_now(users: List[JSON]) -> str:
    """Give what the user asks for now: of `this then that`, that is after the results of this."""
    text, done = "", 0
    for turn in users:
        texts = [block["text"] for block in blocks_of(turn["content"]) if block["type"] == "text"]
        text, done = (texts[-1], 0) if texts else (text, done + 1)
    return dict(enumerate(text.split(" then "))).get(done, "")


def content_of(body: JSON) -> Tuple[List[JSON], str]:
    """Give the blocks of the answer, and why it stops."""
    users = [turn for turn in body["messages"] if turn["role"] == "user"]
    text = asked_now(users)
    results = [block for block in blocks_of(users[-1]["content"]) if block["type"] == "tool_result"]
    thinking = thoughts(body, text)
    if "refuse" in text:
        return [], "refusal"
    names = [tool["name"] for tool in body.get("tools", [])]
    if body.get("tool_choice", {}).get("type") != "none":
        mark = maker(body) if thinking else ""
        uses = [
            {"type": "tool_use", "id": f"toolu_{mark}{len(body['messages'])}_{at}", "name": name, "input": given}
            for at, (name, given) in enumerate(calls_in(text))
            if name in names
        ]
        if uses:
            return [*thinking, {"type": "text", "text": "Calling."}, *uses], "tool_use"
    said = f"echo: {text}"
    if results:
        said = "results: " + "; ".join(f"{result['tool_use_id']}={told(result)}" for result in results)
    if body.get("output_config", {}).get("format"):
        said = json.dumps(instance(body["output_config"]["format"]["schema"]))
    return [*thinking, {"type": "text", "text": said}], "max_tokens" if "length" in text else "end_turn"


def stopped(blocks: List[JSON], stops: List[str]) -> Tuple[List[JSON], Any]:
    """Cut the last text at the first stop string in it."""
    said = blocks[-1]["text"] if blocks and blocks[-1]["type"] == "text" else ""
    for stop in stops:
        if stop in said:
            return [*blocks[:-1], {"type": "text", "text": said[: said.index(stop)]}], stop
    return blocks, None


def message_of(body: JSON) -> JSON:
    blocks, reason = content_of(body)
    blocks, stop = stopped(blocks, body.get("stop_sequences", []))
    made: JSON = {"id": f"msg_{len(body['messages'])}", "type": "message", "role": "assistant", "model": body["model"]}
    usage: JSON = {"input_tokens": counted(body), "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    usage["output_tokens"] = words(*blocks)
    thought = words(*(block["thinking"] for block in blocks if block["type"] == "thinking"))
    if any(block["type"] == "thinking" for block in blocks):
        usage["output_tokens_details"] = {"thinking_tokens": thought}
    made.update(content=blocks, stop_reason="stop_sequence" if stop else reason, stop_sequence=stop, usage=usage)
    if reason == "refusal":
        made["stop_details"] = {"type": "refusal", "category": None, "explanation": "This was declined."}
    return made


# how it is told


def pieces(text: str) -> List[str]:
    return re.findall(r"\S+\s*|\s+", text)


def deltas(block: JSON) -> Iterator[JSON]:
    """Give the deltas that a block comes in."""
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": piece} for piece in pieces(block["text"]))
    elif block["type"] == "thinking":
        yield from ({"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"]))
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "tool_use":
        told = json.dumps(block["input"]) if block["input"] else ""
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces(told)))


EMPTY: Dict[str, JSON] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}


def events(made: JSON) -> Iterator[JSON]:
    small = {**made["usage"], "output_tokens": 1}
    small.pop("output_tokens_details", None)
    start = {**made, "content": [], "stop_reason": None, "stop_sequence": None, "usage": small}
    start.pop("stop_details", None)
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for at, block in enumerate(made["content"]):
        yield {"type": "content_block_start", "index": at, "content_block": {**block, **EMPTY.get(block["type"], {})}}
        for delta in deltas(block):
            yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    end = {field: made[field] for field in ("stop_reason", "stop_sequence", "stop_details") if field in made}
    yield {
        "type": "message_delta",
        "delta": end,
        "usage": {k: v for k, v in made["usage"].items() if k.startswith("output")},
    }
    yield {"type": "message_stop"}


def json_reply(document: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(
        status, {"Content-Type": "application/json", "request-id": "req_1", **named}, json.dumps(document).encode()
    )


def error_reply(error: Refused) -> Reply:
    kind = ERRORS.get(error.status, "api_error")
    told: JSON = {"type": kind, "message": str(error), **({"details": error.details} if error.details else {})}
    wait = {"retry_after": "1"} if error.status == 429 and not error.details else {}
    return json_reply({"type": "error", "error": told, "request_id": "req_1"}, error.status, **wait)


def fail_as_asked(text: str) -> None:
    found = re.search(r"\berror (\d{3})( spend)?", text)
    if found:
        spend = {"error_code": "enforced_spend_limit_reached"} if found.group(2) else None
        raise Refused("This went wrong, as you wished.", int(found.group(1)), spend)


def messages(asked: Asked) -> Reply:
    body = body_of(asked, REQUEST, "model max_tokens messages")
    made, text = message_of(body), json.dumps(body["messages"][-1])
    fail_as_asked(text)
    if not body.get("stream"):
        return json_reply(made)
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events(made)]
    cut = "cut" in text
    return Reply(200, {"Content-Type": "text/event-stream"}, lines[: len(lines) // 2] if cut else lines, cut=cut)


def count(asked: Asked) -> Reply:
    return json_reply({"input_tokens": counted(body_of(asked, COUNT, "model messages"))})


def body_of(asked: Asked, fields: Dict[str, Check], required: str) -> JSON:
    try:
        body = asked.json
    except ValueError:
        raise Refused("The request body is not valid JSON") from None
    shape(required, **fields)(body, "body")
    check(body, asked.headers["anthropic-version"])
    return dict(body)


def supported(names: str, all_: str) -> JSON:
    return {name: {"supported": name in names.split()} for name in all_.split()}


def item(id_: str) -> JSON:
    """Give the entry of a model in the list."""
    _, kinds, efforts, most, created = MODELS[id_]
    thinking = {"supported": kinds != "disabled", "types": supported(kinds, "adaptive between_tools disabled enabled")}
    capabilities = {
        **supported(
            "batch citations image_input pdf_input structured_outputs",
            "batch citations code_execution image_input pdf_input structured_outputs",
        ),
        "context_management": {"supported": False},
        "server_tools": {"supported": False, **supported("", "web_search code_execution")},
        "effort": {"supported": bool(efforts), **supported(" ".join(efforts), " ".join(EFFORTS))},
        "thinking": thinking,
    }
    times = {"created_at": created, "deprecated_at": None, "retires_at": None}
    return {
        "type": "model",
        "id": id_,
        "display_name": id_.title(),
        **times,
        "lifecycle": "active",
        "line": re.findall("haiku|sonnet|opus", id_)[0],
        "max_input_tokens": 1000000,
        "max_tokens": most,
        "capabilities": capabilities,
    }


def models(asked: Asked) -> Reply:
    path, _, query = asked.target.partition("?")
    one = path.partition("/v1/models/")[2]
    if one:
        need(one in MODELS, f"model: {one}", 404)
        return json_reply(item(one))
    fields = {name: values[-1] for name, values in parse_qs(query).items()}
    need(fields.keys() <= {"limit", "after_id"}, "query: Extra inputs are not permitted")
    is_(int, 1, 1000)(int(fields.get("limit", 20)), "limit")
    after, ids = fields.get("after_id"), list(MODELS)
    need(after in [*ids, None], f"after_id: {after} is unknown")
    ids = ids[ids.index(after) + 1 if after else 0 :]
    page = ids[: min(int(fields.get("limit", 20)), 4)]
    return json_reply(
        {
            "data": [item(id_) for id_ in page],
            "has_more": len(page) < len(ids),
            "first_id": page[0],
            "last_id": page[-1],
        }
    )


ROUTES = {
    ("POST", "/v1/messages"): messages,
    ("POST", "/v1/messages/count_tokens"): count,
    ("GET", "/v1/models"): models,
}


def admitted(asked: Asked) -> None:
    """Look at the headers: one key, in one place, and a version."""
    keys = [asked.headers.get("x-api-key", ""), asked.headers.get("authorization", "").partition("Bearer ")[2]]
    need(sum(map(bool, keys)) == 1, "one of x-api-key and authorization is required, not both", 401)
    need("wrong" not in "".join(keys), "invalid x-api-key", 401)
    need(asked.headers.get("anthropic-version") in (OLD, NEW), "anthropic-version: header is required")
    need(
        asked.method == "GET" or asked.headers.get("content-type", "").startswith("application/json"),
        "content-type must be application/json",
    )


def answer(asked: Asked) -> Reply:
    path = re.sub(r"^(/v1/models)/.*", r"\1", asked.path)
    try:
        need((asked.method, path) in ROUTES, "Not Found", 404)
        admitted(asked)
        return ROUTES[asked.method, path](asked)
    except Refused as error:
        return error_reply(error)
