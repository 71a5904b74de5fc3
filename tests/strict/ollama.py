"""An Ollama that ignores nothing: what the real one passes over in silence is refused here, field by field.

`SHAPES` says what may be sent; the rules below it are the ones between fields. The results of tools
are answered as `results: ID=CONTENT; ...`, with the tool's name where the call had no id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any, Callable, Dict, Iterator, List, Tuple

from upstream import Asked, Reply, json_reply

JSON = Dict[str, Any]
NOW = "2026-11-20T10:00:00.000000001Z"
MODELS = {
    "qwen3:8b": ["completion", "tools", "thinking"],
    "llama3.2:latest": ["completion", "tools"],
    "llava:7b": ["completion", "vision"],
    "embeddinggemma:latest": ["embedding"],
}


class Refused(Exception):
    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


# what may be sent

Check = Callable[[Any], bool]


def is_(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def between(low: float, high: float, *kinds: type) -> Check:
    return lambda value: is_(*(kinds or (int, float)))(value) and low <= value <= high


def is_bare_base64(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(base64.b64decode(value, validate=True))
    except binascii.Error:
        return False


def is_duration(value: Any) -> bool:
    return is_(int, float)(value) or (
        isinstance(value, str) and bool(re.fullmatch(r"-?(\d+(\.\d+)?(ms|s|m|h))+", value))
    )


INTEGER = between(-(2**31), 2**31 - 1, int)
TEXT, FLAG, OBJECT = is_(str), is_(bool), is_(dict)
SHAPES: Dict[str, JSON] = {  # a name is a shape, a list holds one, a function is a check
    "/api/chat": {
        "model": TEXT,
        "messages": ["message"],
        "stream": FLAG,
        "tools": ["tool"],
        "format": lambda value: value == "json" or OBJECT(value),
        "think": lambda value: FLAG(value) or value in ("low", "medium", "high", "max"),
        "keep_alive": is_duration,
        "options": "options",
        "logprobs": FLAG,
        "top_logprobs": between(0, 20, int),
        "truncate": FLAG,
        "shift": FLAG,
    },
    "/api/generate": {
        **dict.fromkeys(("model", "prompt", "suffix", "system", "template"), TEXT),
        **dict.fromkeys(("stream", "raw", "truncate", "shift", "logprobs"), FLAG),
        "images": [is_bare_base64],
        "format": lambda value: value == "json" or OBJECT(value),
        "think": lambda value: FLAG(value) or value in ("low", "medium", "high", "max"),
        "context": [is_(int)],
        "keep_alive": is_duration,
        "options": "options",
    },
    "/api/embed": {
        "model": TEXT,
        "input": lambda value: TEXT(value) or (isinstance(value, list) and all(map(TEXT, value))),
        "truncate": FLAG,
        "dimensions": between(1, 8192, int),
        "keep_alive": is_duration,
        "options": "options",
    },
    "/api/show": {"model": TEXT},
    "message": {
        "role": lambda value: value in ("system", "user", "assistant", "tool"),
        "content": TEXT,
        "images": [is_bare_base64],
        "thinking": TEXT,
        "tool_calls": ["call"],
        "tool_name": TEXT,
        "tool_call_id": TEXT,
    },
    "call": {"id": TEXT, "function": {"index": between(0, 999, int), "name": TEXT, "arguments": OBJECT}},
    "tool": {
        "type": lambda value: value == "function",
        "function": {"name": TEXT, "description": TEXT, "parameters": OBJECT},
    },
    "options": {
        **dict.fromkeys(("temperature", "repeat_penalty"), between(0, 10)),
        **dict.fromkeys(("top_p", "min_p", "typical_p"), between(0, 1)),
        **dict.fromkeys(("presence_penalty", "frequency_penalty"), between(-2, 2)),
        **dict.fromkeys(("top_k", "num_predict", "num_ctx", "seed", "repeat_last_n", "num_keep", "num_batch"), INTEGER),
        **dict.fromkeys(("num_gpu", "main_gpu", "num_thread", "draft_num_predict"), INTEGER),
        "stop": [TEXT],
        "use_mmap": FLAG,
    },
}
NEEDED = {
    "/api/chat": ("model", "messages", "stream"),
    "/api/generate": ("model", "stream"),
    "/api/embed": ("model", "input"),
    "/api/show": ("model",),
    "message": ("role",),
}


def read(value: Any, shape: Any, at: str) -> None:
    """Refuse what is not of this shape."""
    if callable(shape):
        if not shape(value):
            raise Refused(f"json: cannot take {value!r:.80} for {at}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise Refused(f"json: {at} must be of type array")
        for n, item in enumerate(value):
            read(item, shape[0], f"{at}[{n}]")
    else:
        if not isinstance(value, dict):
            raise Refused(f"json: {at} must be of type object")
        fields = SHAPES[shape] if isinstance(shape, str) else shape
        for name in NEEDED.get(shape, ()) if isinstance(shape, str) else ():
            if name not in value:
                raise Refused(f"{at}: {name} is required")
        for name, item in value.items():
            if name not in fields:
                raise Refused(f"{at}: unknown field {name!r}")
            read(item, fields[name], f"{at}.{name}")


def in_order(messages: List[JSON]) -> None:
    """Refuse results without their calls, calls without their results, and fields of another role."""
    pending: List[Tuple[str, str]] = []
    for n, message in enumerate(messages):
        belongs = {
            "tool": {"tool_name", "tool_call_id", "images"},
            "assistant": {"thinking", "tool_calls"},
            "user": {"images"},
        }
        strange = message.keys() - {"role", "content"} - belongs.get(message["role"], set())
        if "content" not in message and not message.get("tool_calls"):
            raise Refused(f"messages[{n}]: content is required")
        if strange:
            raise Refused(f"messages[{n}]: {sorted(strange)} in a message of role {message['role']}")
        if message["role"] == "tool":
            took = [
                c for c in pending if message.get("tool_call_id", c[0]) == c[0] and message.get("tool_name") == c[1]
            ]
            if not took:
                raise Refused(f"messages[{n}]: the result of no call, or its tool_name is missing")
            pending.remove(took[0])
        elif pending:
            raise Refused(f"messages[{n}]: no result yet for {pending}")
        calls = message.get("tool_calls") or ()
        pending = pending or [(call.get("id", ""), call["function"]["name"]) for call in calls]
    if pending:
        raise Refused(f"no results for {pending}")


def able(body: JSON, need: str) -> str:
    """Give the full name of a model that can do what is needed."""
    model = body["model"] if ":" in body["model"] else body["model"] + ":latest"
    if model not in MODELS:
        raise Refused(f"model '{body['model']}' not found", 404)
    if need and need not in MODELS[model]:
        raise Refused(f'"{body["model"]}" does not support {need}')
    return model


# what is answered


def chat(body: JSON) -> Reply:
    messages = body["messages"]
    in_order(messages)
    needs = {"completion": True, "tools": body.get("tools"), "thinking": body.get("think")}
    needs["vision"] = any(message.get("images") for message in messages)
    for need in (need for need, there in needs.items() if there):
        able(body, need)
    if not messages:
        return json_reply({**whole(body), "message": {"role": "assistant", "content": ""}, "done_reason": "load"})
    text = asked_now(messages)
    failing = re.search(r"\berror (\d{3})\b", text)
    if failing:
        raise Refused(f"told to fail with {failing[1]}", int(failing[1]))
    lines = list(spoken(body, text))
    if not body["stream"]:
        return json_reply(folded(lines), cut="cut" in text.split())
    written = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines]
    headers = {"Content-Type": "application/x-ndjson"}
    if "cut" in text.split():
        return Reply(200, headers, written[: max(1, len(written) // 2)], cut=True)
    return Reply(200, headers, written)


def generate(body: JSON) -> Reply:
    """Answer a prompt as a chat of one message, in this endpoint's own shape."""
    asked = {"role": "user", "content": body.get("prompt", ""), "images": body.get("images", [])}
    reply = chat({**body, "messages": [asked] if body.get("prompt") else []})
    lines = reply.body.splitlines(keepends=True) if isinstance(reply.body, bytes) else reply.body
    return reply._replace(
        body=b"".join(map(generated, lines)) if body["stream"] is False else list(map(generated, lines))
    )


def generated(line_: Any) -> bytes:
    told = json.loads(line_)
    said = told.pop("message")
    return (
        json.dumps({**told, "response": said.pop("content"), **{k: v for k, v in said.items() if k != "role"}}).encode()
        + b"\n"
    )


def asked_now(messages: List[JSON]) -> str:
    """Give what the user asks for now: of `this then that`, that is after the results of this."""
    text, done, before = "", 0, None
    for message in messages:
        role = message["role"]
        if role == "user":
            text, done = message.get("content", ""), 0
        elif role == "tool" != before:
            done += 1
        before = role
    return dict(enumerate(text.split(" then "))).get(done, "")


def whole(body: JSON) -> JSON:
    return {"model": body["model"], "created_at": NOW, "done": True}


def spoken(body: JSON, text: str) -> Iterator[JSON]:
    """Give the lines of a streamed answer."""
    calls = calls_of(body, text)
    words, reason = limited(re.findall(r"\s*\S+", "" if calls else reply(body, text)), body.get("options") or {}, text)
    thought = f"I think about: {text}" if "think" in text.split() and thinks(body) else ""
    for word in re.findall(r"\s*\S+", thought):
        yield line(body, {"content": "", "thinking": word})
    for word in words:
        yield {**line(body, {"content": word}), **logprobs(body, word)}
    for call in calls:
        yield line(body, {"content": "", "tool_calls": [call]})
    asked = sum(len(message.get("content", "").split()) for message in body["messages"])
    said = len(thought.split()) + len(words) + len(calls)
    counts = {"total_duration": 1874560334, "prompt_eval_count": asked, "eval_count": said}
    yield {**line(body, {"content": ""}), "done": True, "done_reason": reason, **{k: v for k, v in counts.items() if v}}


def line(body: JSON, said: JSON) -> JSON:
    return {**whole(body), "done": False, "message": {"role": "assistant", **said}}


def thinks(body: JSON) -> bool:
    return "thinking" in MODELS[able(body, "completion")] and body.get("think") is not False


def reply(body: JSON, text: str) -> str:
    results = [f"{m.get('tool_call_id') or m['tool_name']}={m['content']}" for m in after_calls(body["messages"])]
    if body.get("format"):
        return json.dumps(instance(body["format"]) if isinstance(body["format"], dict) else {})
    return f"results: {'; '.join(results)}" if results else f"echo: {text}"


def after_calls(messages: List[JSON]) -> List[JSON]:
    """Give the tool messages that the conversation ends with."""
    others = [n for n, message in enumerate(messages) if message["role"] != "tool"]
    return messages[max(others, default=-1) + 1 :]


def calls_of(body: JSON, text: str) -> List[JSON]:
    """Give the calls that the text tells to make; `index` is of no use, as on the real one."""
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    calls = []
    for found in re.finditer(r"\bcall ([\w-]+) ?", text):
        if found[1] in names:
            arguments = json.JSONDecoder().raw_decode(text, found.end())[0] if text[found.end() :][:1] == "{" else {}
            place = f"{len(body['messages'])} {found.start()}"
            id_ = "call_" + hashlib.sha256(place.encode()).hexdigest()[:8]
            calls.append({"id": id_, "function": {"index": 0, "name": found[1], "arguments": arguments}})
    return calls


def limited(words: List[str], options: JSON, text: str) -> Tuple[List[str], str]:
    """Cut an answer where the options say, and tell why it ends."""
    most = options.get("num_predict", -1)
    if "length" in text.split() or 0 <= most < len(words):
        return words[: most if most >= 0 else max(1, len(words) - 1)], "length"
    said = "".join(words)
    ends = [said.find(stop) for stop in options.get("stop") or () if stop in said]
    return re.findall(r"\s*\S+", said[: min(ends)]) if ends else words, "stop"


def logprobs(body: JSON, word: str) -> JSON:
    one = {"token": word, "logprob": -0.5}
    others = [one] * (body.get("top_logprobs") or 0)
    return {"logprobs": [{**one, **({"top_logprobs": others} if others else {})}]} if body.get("logprobs") else {}


def folded(lines: List[JSON]) -> JSON:
    """Put the lines of a stream together to a whole answer."""
    messages = [line_["message"] for line_ in lines]
    message: JSON = {"role": "assistant", "content": "".join(m["content"] for m in messages)}
    thought = "".join(m.get("thinking", "") for m in messages)
    calls = [call for m in messages for call in m.get("tool_calls") or ()]
    probable = [entry for line_ in lines for entry in line_.get("logprobs") or ()]
    more = {"thinking": thought, "tool_calls": calls}
    message.update((name, value) for name, value in more.items() if value)
    return {**lines[-1], "message": message, **({"logprobs": probable} if probable else {})}


def instance(schema: JSON) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    made = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "null": None}
    known = schema.get("properties") or {}
    return made.get(
        schema.get("type", "object"), {name: instance(known[name]) for name in schema.get("required") or ()}
    )


def embed(body: JSON) -> Reply:
    able(body, "embedding")
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    for text in texts:
        if re.fullmatch(r"error \d{3}", text):
            raise Refused("told to fail", int(text[-3:]))
    vectors = [vector(text, body.get("dimensions") or 4) for text in texts]
    return json_reply(
        {"model": body["model"], "embeddings": vectors, "prompt_eval_count": sum(len(t.split()) for t in texts)}
    )


def vector(text: str, dimensions: int) -> List[float]:
    digest = hashlib.shake_128(text.encode()).digest(dimensions)
    length = sum(n * n for n in digest) ** 0.5
    return [n / length for n in digest]


def show(body: JSON) -> Reply:
    return json_reply({"details": details(), "model_info": {}, "capabilities": MODELS[able(body, "")]})


def tags(_: JSON) -> Reply:
    def entry(name: str, can: List[str]) -> JSON:
        digest = hashlib.sha256(name.encode()).hexdigest()
        told = {"modified_at": "2026-11-01T08:00:00.123456789Z", "size": 5225388164, "digest": digest}
        return {"name": name, "model": name, **told, "details": details(), "capabilities": can}

    return json_reply({"models": [entry(name, can) for name, can in MODELS.items()]})


def details() -> JSON:
    return {"format": "gguf", "family": "qwen3", "parameter_size": "8.2B", "context_length": 40960}


ROUTES = {
    "POST /api/chat": chat,
    "POST /api/generate": generate,
    "POST /api/embed": embed,
    "POST /api/show": show,
    "GET /api/tags": tags,
    "GET /api/ps": lambda _: json_reply({"models": []}),
    "GET /api/version": lambda _: json_reply({"version": "0.33.0"}),
    "GET /": lambda _: Reply(200, {"Content-Type": "text/plain"}, b"Ollama is running"),
}


def answer(asked: Asked) -> Reply:
    """Answer one request."""
    route = ROUTES.get(f"{asked.method} {asked.path}")
    if route is None:
        return Reply(404, {"Content-Type": "text/plain"}, b"404 page not found")
    try:
        if "authorization" in asked.headers and not re.fullmatch(r"Bearer \S+", asked.headers["authorization"]):
            raise Refused("unauthorized", 401)
        if asked.method == "POST":
            if not asked.headers.get("content-type", "").startswith("application/json"):
                raise Refused("the body must be application/json")
            read(asked.json, asked.path, "body")
        return route(asked.json)
    except Refused as refused:
        return json_reply({"error": str(refused)}, refused.status)
    except ValueError as error:
        return json_reply({"error": f"invalid JSON: {error}"}, 400)
