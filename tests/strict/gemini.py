"""A Gemini that takes nothing amiss but what is: it checks every field, and answers from what was asked.

`SHAPES` says what may be sent (both spellings of a name, as the service has it); the rules below it are
the ones between fields. Signatures are bound to the model and to what they sign. Besides what all
stand-ins understand, `blocked` blocks the prompt and `go on` makes an answer of two requests.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from urllib.parse import parse_qs, unquote

from upstream import Asked, Reply

JSON = Dict[str, Any]
CHAT = ("gemini-3.8-flash", "gemini-3.1-pro", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.0-flash")
EMBED = ("gemini-embedding-2", "gemini-embedding-001")
DUMMY = "skip_thought_signature_validator"


class Refused(Exception):
    def __init__(self, message: str, status: int = 400, details: Tuple[JSON, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


# what may be sent


def one_of(words: str) -> Callable[[Any], bool]:
    return lambda value: value in words.split()


def between(low: float, high: float, kind: Any = (int, float)) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high


def is_(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def standard(data: str) -> str:
    """Spell base64 with the usual letters: Google's client sends the URL-safe ones, and the service takes both."""
    return data.translate(str.maketrans("-_", "+/"))


def is_base64(value: Any) -> bool:
    try:
        return bool(isinstance(value, str) and base64.b64decode(standard(value), validate=True))
    except binascii.Error:
        return False


def matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value))


INT32 = between(-(2**31), 2**31 - 1, int)
MIME = matches(r"(image/(png|jpeg|webp|heic|heif|gif)|audio/(wav|mp3|ogg|flac|aac)|video/\w+|application/pdf|text/\w+)")
NAME = matches(r"[A-Za-z_][\w.:-]{0,127}")
SCHEMA = is_(dict)
REQUEST: JSON = {  # a name is a shape, a list holds one, a function is a check
    "contents": ["Content"],
    "systemInstruction": "Content",
    "tools": ["Tool"],
    "toolConfig": "ToolConfig",
    "safetySettings": ["SafetySetting"],
    "generationConfig": "GenerationConfig",
    "cachedContent": is_(str),
    "serviceTier": one_of("standard flex priority"),
    "labels": SCHEMA,
    "store": is_(bool),
    "continuationToken": is_base64,
}
SHAPES: Dict[str, JSON] = {
    "generateContent": REQUEST,
    "streamGenerateContent": REQUEST,
    "countTokens": {"contents": ["Content"], "generateContentRequest": "Counted"},
    "Counted": {**REQUEST, "model": is_(str)},
    "batchEmbedContents": {"requests": ["embedContent"]},
    "embedContent": {
        "model": is_(str),
        "content": "Content",
        "taskType": one_of("RETRIEVAL_QUERY RETRIEVAL_DOCUMENT SEMANTIC_SIMILARITY CLASSIFICATION CLUSTERING"),
        "title": is_(str),
        "outputDimensionality": between(1, 3072, int),
    },
    "Content": {"role": one_of("user model"), "parts": ["Part"]},
    "Part": {
        "text": is_(str),
        "inlineData": {"mimeType": MIME, "data": is_base64},
        "fileData": {"mimeType": MIME, "fileUri": matches(r"https?://\S+")},
        "functionCall": {"id": is_(str), "name": NAME, "args": SCHEMA},
        "functionResponse": {"id": is_(str), "name": NAME, "response": SCHEMA},
        "thought": is_(bool),
        "thoughtSignature": is_(str),
    },
    "Tool": {"functionDeclarations": ["Function"], "googleSearch": SCHEMA, "codeExecution": SCHEMA},
    "Function": {
        "name": NAME,
        "description": is_(str),
        **dict.fromkeys(("parameters", "parametersJsonSchema", "response", "responseJsonSchema"), SCHEMA),
    },
    "ToolConfig": {
        "functionCallingConfig": {"mode": one_of("AUTO ANY NONE VALIDATED"), "allowedFunctionNames": [NAME]}
    },
    "SafetySetting": {
        "category": matches("HARM_CATEGORY_[A-Z_]+"),
        "threshold": one_of("BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_ONLY_HIGH BLOCK_NONE OFF"),
    },
    "GenerationConfig": {
        "temperature": between(0, 2),
        "topP": between(0, 1),
        "topK": between(1, 1000, int),
        "candidateCount": between(1, 8, int),
        "maxOutputTokens": between(1, 65536, int),
        "stopSequences": [matches(r"(?s).+")],
        "seed": INT32,
        "presencePenalty": between(-2, 2),
        "frequencyPenalty": between(-2, 2),
        "responseLogprobs": is_(bool),
        "logprobs": between(0, 20, int),
        "responseMimeType": one_of("text/plain application/json"),
        "responseModalities": [one_of("TEXT")],
        "responseSchema": SCHEMA,
        "responseJsonSchema": SCHEMA,
        "thinkingConfig": {
            "includeThoughts": is_(bool),
            "thinkingBudget": between(-1, 32768, int),
            "thinkingLevel": one_of("MINIMAL LOW MEDIUM HIGH XHIGH"),
        },
    },
}


def camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found.group(1).upper(), name)


def read(value: Any, shape: Any, at: str) -> Any:
    """Give the value with its names in one spelling, or refuse it."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise Refused(f"Invalid value at '{at}': a list is wanted")
        return [read(item, shape[0], f"{at}[{n}]") for n, item in enumerate(value)]
    fields = SHAPES[shape] if isinstance(shape, str) else shape
    if not isinstance(fields, dict):
        if not fields(value):
            raise Refused(f"Invalid value at '{at}': {json.dumps(value)[:80]}")
        return value
    if not isinstance(value, dict):
        raise Refused(f"Invalid value at '{at}': an object is wanted")
    unknown = [name for name in value if camel(name) not in fields]
    if unknown:
        message = f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at '{at}': Cannot find field."
        raise Refused(message)
    return {camel(name): read(one, fields[camel(name)], f"{at}.{name}") for name, one in value.items()}


# the rules between fields


def generation(model: str) -> float:
    found = re.search(r"gemini-(\d\.\d)", model)
    return float(found.group(1)) if found else 0


def sign(model: str, what: Any) -> str:
    digest = hashlib.sha256(json.dumps([model, what], sort_keys=True).encode()).digest()
    return base64.b64encode(b"sig" + digest[:12]).decode()


def demand(true: Any, message: str) -> None:
    if not true:
        raise Refused(message)


def texts(content: JSON) -> str:
    return "".join(part["text"] for part in content["parts"] if "text" in part and not part.get("thought"))


def calls(content: Optional[JSON]) -> List[JSON]:
    return [part for part in (content or {"parts": ()})["parts"] if "functionCall" in part]


def check_contents(contents: List[JSON], model: str) -> None:
    demand(contents, "contents is not specified")
    demand(contents[0].get("role") == "user", "Please ensure that the first content has the role user.")
    before: Optional[JSON] = None
    for content in contents:
        demand(content.get("role"), "Please use a valid role: user, model.")
        check_parts(content, model)
        check_results(content, before)
        before = content
    demand(not calls(before), "Please ensure that function call turn is followed by its responses.")


def check_parts(content: JSON, model: str) -> None:
    demand(content.get("parts"), "contents.parts must not be empty.")
    for part in content["parts"]:
        kinds = part.keys() - {"thought", "thoughtSignature"}
        demand(len(kinds) == 1, "A part must have exactly one data field.")
        empty = part.get("text") == "" and content["role"] == "user"  # a model's own may come back as it ended
        demand(not empty, "Unable to submit an empty text.")
        mine = {"user": "functionResponse inlineData fileData text", "model": "functionCall inlineData text"}
        demand(kinds <= set(mine[content["role"]].split()), f"{kinds} is not a part of role {content['role']}")
        if "thoughtSignature" in part:
            check_signature(part, content, model)
        if "functionCall" in part:
            demand("id" not in part["functionCall"] or generation(model) >= 3, "function_call.id: not known here")
    made = calls(content)
    if made and generation(model) >= 3:
        name = made[0]["functionCall"]["name"]
        demand("thoughtSignature" in made[0], f"Function call `{name}` is missing a `thought_signature`.")


def check_signature(part: JSON, content: JSON, model: str) -> None:
    what = part["functionCall"] if "functionCall" in part else texts(content)
    mine = [sign(model, what)]
    if calls(content)[:1] == [part] and generation(model) >= 3:
        mine.append(DUMMY)
    known = part["thoughtSignature"] in mine or standard(part["thoughtSignature"]) in mine
    demand(known, "Corrupted thought signature.")


def check_results(content: JSON, before: Optional[JSON]) -> None:
    """Refuse results that do not answer the calls before them one by one, in their order; ids may be left out."""
    made = [(part["functionCall"]["name"], part["functionCall"].get("id")) for part in calls(before)]
    results = [part.get("functionResponse") for part in content["parts"]]
    got = [(result["name"], result.get("id")) for result in results if result]
    demand(None not in results[: len(got)], "Please ensure that function responses come first.")
    without_ids = [(name, None) for name, _ in made]
    message = "Please ensure that the function response parts answer the function call parts of the turn before."
    demand(got in (made, without_ids), message)


def merged(contents: List[JSON]) -> List[JSON]:
    """Make neighbours of one role one: Google's own client sends the pieces of a stream back as they came."""
    made: List[JSON] = []
    for content in contents:
        if made and made[-1].get("role") == content.get("role"):
            made[-1] = {**content, "parts": made[-1].get("parts", []) + content.get("parts", [])}
        else:
            made.append(content)
    return made


def check_request(body: JSON, model: str) -> None:
    body["contents"] = merged(body.get("contents") or [])
    check_contents(body["contents"], model)
    for part in body.get("systemInstruction", {"parts": ()})["parts"]:
        demand(part.keys() == {"text"}, "system_instruction: text only")
    declared = functions(body)
    demand(len(declared) == len({one["name"] for one in declared}), "Duplicate function declaration found.")
    demand(all(not {"parameters", "parametersJsonSchema"} <= one.keys() for one in declared), "parameters twice")
    choice = body.get("toolConfig", {}).get("functionCallingConfig", {})
    demand(declared or not choice, "Function calling config is set without function_declarations.")
    allowed = choice.get("allowedFunctionNames")
    demand(allowed is None or choice.get("mode") == "ANY", "allowed_function_names only with mode ANY")
    demand(set(allowed or ()) <= {one["name"] for one in declared}, "allowed_function_names: not declared")
    check_config(body.get("generationConfig", {}), model)


def check_config(config: JSON, model: str) -> None:
    demand(len(config.get("stopSequences", ())) <= 5, "The number of stop sequences exceeds the limit of 5.")
    demand("logprobs" not in config or config.get("responseLogprobs"), "logprobs without response_logprobs")
    schemas = config.keys() & {"responseSchema", "responseJsonSchema"}
    demand(len(schemas) < 2, "Only one of the schemas can be set.")
    is_json = config.get("responseMimeType") == "application/json"
    demand(not schemas or is_json, "A response schema needs the mime type application/json.")
    thinking = config.get("thinkingConfig", {})
    level = thinking.get("thinkingLevel")
    demand(generation(model) >= 2.5 or not thinking, "Thinking is not supported by this model.")
    demand(not level or "thinkingBudget" not in thinking, "Only one of thinking_budget and thinking_level.")
    demand(level is None or generation(model) >= 3, "Thinking level is not supported for this model.")
    demand("thinkingBudget" not in thinking or generation(model) < 3, "Thinking budget: use a level.")
    levels = ("LOW", "MEDIUM", "HIGH") if "pro" in model else ("MINIMAL", "LOW", "MEDIUM", "HIGH")
    demand(level in (None, *levels), f"Thinking level {level} is not supported for this model.")
    demand("pro" not in model or thinking.get("thinkingBudget") != 0, "This model only works in thinking mode.")


def functions(body: JSON) -> List[JSON]:
    return [one for tool in body.get("tools", ()) for one in tool.get("functionDeclarations", ())]


# what is answered


def said(body: JSON, model: str) -> Tuple[List[JSON], str]:
    """Give the parts of the answer and why it ends."""
    text = asked_now(body["contents"])
    config = body.get("generationConfig", {})
    thinks = "think" in text and generation(model) >= 2.5
    parts: List[JSON] = []
    if thinks and config.get("thinkingConfig", {}).get("includeThoughts"):
        parts.append({"text": f"thinking about: {text}", "thought": True})
    wanted = called(text, body)
    if wanted:
        for at, (name, args) in enumerate(wanted):
            call: JSON = {"name": name, "args": args}
            if generation(model) >= 3:
                call["id"] = "g" + hashlib.sha256(json.dumps([name, args, at]).encode()).hexdigest()[:8]
            signs = at == 0 and (generation(model) >= 3 or thinks)
            parts.append({"functionCall": call, **({"thoughtSignature": sign(model, call)} if signs else {})})
        return parts, "STOP"
    words = written(body, text)
    parts.append({"text": words, **({"thoughtSignature": sign(model, words)} if thinks else {})})
    return parts, "MAX_TOKENS" if "length" in text else "STOP"


def asked_now(contents: List[JSON]) -> str:
    """Give what the user asks for now: of `this then that`, that is after the results of this."""
    text, done = "", 0
    for content in contents:
        if content["role"] == "user":
            text, done = (texts(content), 0) if texts(content) else (text, done + 1)
    return dict(enumerate(text.split(" then "))).get(done, "")


def called(text: str, body: JSON) -> List[Tuple[str, JSON]]:
    choice = body.get("toolConfig", {}).get("functionCallingConfig", {})
    names = choice.get("allowedFunctionNames") or [one["name"] for one in functions(body)]
    if choice.get("mode") == "NONE":
        return []
    found = re.finditer(r"call ([\w.:-]+) (?=\{)", text)
    wanted = [(one.group(1), json.JSONDecoder().raw_decode(text, one.end())[0]) for one in found]
    wanted = [one for one in wanted if one[0] in names]
    return wanted or ([(names[0], {})] if choice.get("mode") == "ANY" else [])


def written(body: JSON, text: str) -> str:
    config = body.get("generationConfig", {})
    if config.get("responseMimeType") == "application/json":
        schema = config.get("responseJsonSchema") or config.get("responseSchema") or {"type": "object"}
        return json.dumps(instance(schema))
    results = [part["functionResponse"] for part in body["contents"][-1]["parts"] if "functionResponse" in part]
    if results and not text:
        told = ((one.get("id") or one["name"], next(iter(one["response"].values()))) for one in results)
        plain = (f"{id_}={told if isinstance(told, str) else json.dumps(told)}" for id_, told in told)
        return f"results: {'; '.join(plain)}"
    return f"echo: {text}"


def instance(schema: JSON) -> Any:
    """Give the least that a schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    least = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "null": None}
    kind = str(schema.get("type", "")).lower()  # in capitals where it is Google's own
    if kind in least:
        return least[kind]
    return {
        name: instance(one) for name, one in schema.get("properties", {}).items() if name in schema.get("required", ())
    }


def words_in(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(words_in, items))


def words_asked(body: JSON) -> int:
    return words_in([content["parts"] for content in [*body["contents"], body.get("systemInstruction", {"parts": []})]])


def answered(body: JSON, model: str) -> JSON:
    """Give the whole answer."""
    text = texts(body["contents"][-1])
    about: JSON = {"modelVersion": model, "responseId": "resp-1"}
    asked = words_asked(body)
    if "blocked" in text:
        usage = {"promptTokenCount": asked, "totalTokenCount": asked}
        return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage, **about}
    parts, end = said(body, model)
    spoken = words_in([p for p in parts if not p.get("thought")])
    thought = words_in([p for p in parts if p.get("thought")])
    config = body.get("generationConfig", {})
    candidates = [candidate(parts, end, n, config) for n in range(config.get("candidateCount", 1))]
    usage = {"promptTokenCount": asked, "candidatesTokenCount": spoken, "totalTokenCount": asked + spoken + thought}
    if thought:
        usage["thoughtsTokenCount"] = thought
    if "go on" in text:
        continue_(candidates[0], "continuationToken" in body)
    return {"candidates": candidates, "usageMetadata": usage, **about}


def candidate(parts: List[JSON], end: str, index: int, config: JSON) -> JSON:
    made: JSON = {"content": {"role": "model", "parts": parts}, "finishReason": end, "index": index}
    if index:
        made["content"] = {"role": "model", "parts": [{"text": f"{part.get('text')} #{index}"} for part in parts]}
    if config.get("responseLogprobs"):
        chosen = [{"token": word, "logProbability": -0.5} for word in texts(made["content"]).split()]
        rivals = [{"candidates": [one] * config.get("logprobs", 0)} for one in chosen]
        made["logprobsResult"] = {"chosenCandidates": chosen, "topCandidates": rivals}
    return made


def continue_(one: JSON, second: bool) -> None:
    """Make it one half of an answer of two requests."""
    last = one["content"]["parts"][-1]
    middle = len(last["text"]) // 2
    half = {"text": last["text"][middle:] if second else last["text"][:middle]}
    one["content"] = {"role": "model", "parts": [half]}
    if not second:
        one.update(finishReason="CONTINUATION", continuationToken="bW9yZQ==")


def streamed(whole: JSON) -> Iterator[JSON]:
    """Cut an answer into events: words, whole calls, and an end that carries a text's signature."""
    about = {name: whole[name] for name in ("modelVersion", "responseId", "usageMetadata")}
    if "candidates" not in whole:
        yield whole
        return
    for one in whole["candidates"]:
        index = one["index"]
        ending: JSON = {"text": ""}
        for part in one["content"]["parts"]:
            pieces = re.findall(r"\s*\S+|\s+$", part["text"]) if "text" in part else [None]
            for piece in pieces:
                new = part if piece is None else {**part, "text": piece}
                if piece is not None and "thoughtSignature" in new:
                    ending["thoughtSignature"] = new.pop("thoughtSignature")
                yield {"candidates": [{"content": {"role": "model", "parts": [new]}, "index": index}], **about}
        last = {**one, "content": {"role": "model", "parts": [ending]}}
        yield {"candidates": [last], **about}


def vector(text: str, size: int = 8) -> List[float]:
    """Give the embedding of a text."""
    digest = hashlib.sha256(text.encode()).digest() * (size // 32 + 1)
    return [(byte - 128) / 128 for byte in digest[:size]]


# the house


STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def refusal(status: int, message: str, details: Tuple[JSON, ...] = ()) -> Reply:
    error: JSON = {"code": status, "message": message, "status": STATUS.get(status, "UNKNOWN")}
    if details:
        error["details"] = list(details)
    return reply({"error": error}, status)


def reply(document: Any, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(document, indent=1).encode())


def answer(asked: Asked) -> Reply:
    try:
        return routed(asked)
    except Refused as refused:
        return refusal(refused.status, str(refused), refused.details)


def routed(asked: Asked) -> Reply:
    path, _, query = asked.target.partition("?")
    fields = parse_qs(query)
    admit(asked.headers.get("x-goog-api-key", ""), fields)
    found = re.fullmatch(r"/(?:v1|v1beta)/models(?:/([^/:]+)(?::(\w+))?)?", path)
    if not found:
        raise Refused("Requested entity was not found.", 404)
    model, verb = unquote(found.group(1) or ""), found.group(2)
    if not model:
        return page(int(fields.get("pageSize", ["50"])[0]), int(fields.get("pageToken", ["0"])[0]))
    if model not in CHAT + EMBED:
        raise Refused(f"models/{model} is not found for API version v1beta.", 404)
    if verb is None:
        return reply(listed(model))
    if asked.method != "POST" or verb not in VERBS or (model in EMBED) != ("embed" in verb.lower()):
        raise Refused(f"models/{model} is not supported for {verb}.", 404)
    return VERBS[verb](read(asked.json, verb, "request"), model, fields)


def admit(key: str, fields: Dict[str, List[str]]) -> None:
    demand("key" not in fields, "A key has no business in an address.")
    if not key:
        raise Refused("Method doesn't allow unregistered callers.", 403)
    if "bad" in key:
        detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        raise Refused("API key not valid. Please pass a valid API key.", 400, (detail,))


def listed(model: str) -> JSON:
    methods = ["embedContent", "countTokens"] if model in EMBED else ["generateContent", "countTokens"]
    return {"name": f"models/{model}", "version": "001", "supportedGenerationMethods": methods}


def page(size: int, at: int) -> Reply:
    """Give one page of the models, never more than three on one."""
    every = [listed(model) for model in CHAT + EMBED]
    size = min(size, 3)
    more = {"nextPageToken": str(at + size)} if at + size < len(every) else {}
    return reply({"models": every[at : at + size], **more})


def generate(body: JSON, model: str, _: JSON) -> Reply:
    return reply(generated(body, model))


def generated(body: JSON, model: str) -> JSON:
    check_request(body, model)
    told = re.search(r"error (\d{3})", texts(body["contents"][-1]))
    if told:
        waits = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
        raise Refused("You asked for it.", int(told.group(1)), (waits,) if told.group(1) == "429" else ())
    return answered(body, model)


def stream(body: JSON, model: str, fields: JSON) -> Reply:
    events = list(streamed(generated(body, model)))
    if fields.get("alt") != ["sse"]:
        return reply(events)
    cut = "cut" in texts(body["contents"][-1])
    lines = [b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\r\n\r\n" for one in events]
    return Reply(200, {"Content-Type": "text/event-stream"}, lines[: len(lines) // 2] if cut else lines, cut)


def count(body: JSON, model: str, _: JSON) -> Reply:
    inner = body.get("generateContentRequest", body)
    demand(inner.get("model", f"models/{model}") == f"models/{model}", "generate_content_request.model")
    check_request({name: value for name, value in inner.items() if name != "model"}, model)
    return reply({"totalTokens": words_asked(inner)})


def embedded(one: JSON, model: str) -> JSON:
    demand(one.get("model", f"models/{model}") == f"models/{model}", "model does not match the path")
    return {"values": vector(texts(one["content"]), one.get("outputDimensionality", 8))}


def embed(body: JSON, model: str, _: JSON) -> Reply:
    return reply({"embedding": embedded(body, model)})


def embed_batch(body: JSON, model: str, _: JSON) -> Reply:
    demand(1 <= len(body["requests"]) <= 100, "at most 100 requests can be in one batch")
    demand(all("model" in one for one in body["requests"]), "requests[0].model is required")
    return reply({"embeddings": [embedded(one, model) for one in body["requests"]]})


VERBS: Dict[str, Callable[[JSON, str, JSON], Reply]] = {
    "generateContent": generate,
    "streamGenerateContent": stream,
    "countTokens": count,
    "embedContent": embed,
    "batchEmbedContents": embed_batch,
}
