"""What Gemini's clients ask, in canonical words. Pure.

Their bodies mix `camelCase` and `snake_case`, also within one object; both are read. Calls and results may come without
ids: calls get some, and a result without one belongs to the oldest call of its name that has none yet.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from providers import Pocket

from . import JSON
from ._dialect import Asked
from ._json import refuse, shown
from ._state import opened

#: what tells Google's validator that a call was not made by Gemini
DUMMY_SIGNATURE = "skip_thought_signature_validator"
ONLY = "only for Gemini's own models"

Kinds = Tuple[type, ...]
WORDS = {
    str: "a string",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    int: "an integer",
    float: "a number",
}
NUMBER: Kinds = (int, float)
REQUEST: Dict[str, Kinds] = {
    "contents": (list,),
    "systemInstruction": (dict, str),
    "tools": (list,),
    "toolConfig": (dict,),
    "generationConfig": (dict,),
    "serviceTier": (str,),
    "model": (str,),  # said in the path as well
}
CONTENT: Dict[str, Kinds] = {"role": (str,), "parts": (list,)}
PART: Dict[str, Kinds] = {
    "text": (str,),
    "thought": (bool,),
    "thoughtSignature": (str,),
    "inlineData": (dict,),
    "fileData": (dict,),
    "functionCall": (dict,),
    "functionResponse": (dict,),
}
CALL: Dict[str, Kinds] = {"id": (str,), "name": (str,), "args": (dict,)}
RESPONSE: Dict[str, Kinds] = {"id": (str,), "name": (str,), "response": (dict,), "parts": (list,)}
MEDIA: Dict[str, Kinds] = {"mimeType": (str,), "data": (str,), "fileUri": (str,), "displayName": (str,)}
DECLARATION: Dict[str, Kinds] = {
    "name": (str,),
    "description": (str,),
    "parameters": (dict,),
    "parametersJsonSchema": (dict,),
}
CALLING: Dict[str, Kinds] = {"mode": (str,), "allowedFunctionNames": (list,)}
#: field of generationConfig -> canonical field, where only the name differs
SAMPLING = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "candidateCount": "n",
    "maxOutputTokens": "max_completion_tokens",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "stopSequences": "stop",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
WHOLE = ("topK", "candidateCount", "maxOutputTokens", "seed", "logprobs")  # numbers that some clients send as floats
CONFIG: Dict[str, Kinds] = {
    **dict.fromkeys(SAMPLING, NUMBER),
    "stopSequences": (list,),
    "responseLogprobs": (bool,),
    "responseMimeType": (str,),
    "responseSchema": (dict,),
    "responseJsonSchema": (dict, bool),
    "responseModalities": (list,),
    "thinkingConfig": (dict,),
}
THINKING: Dict[str, Kinds] = {"includeThoughts": (bool,), "thinkingBudget": NUMBER, "thinkingLevel": (str,)}


#: canonical field -> what clients call it here
NAMES = {
    **{canonical: f"generationConfig.{name}" for name, canonical in SAMPLING.items()},
    "dimensions": "outputDimensionality",
    "input": "content",
    "input_type": "taskType",
    "messages": "contents",
    "reasoning_effort": "generationConfig.thinkingConfig.thinkingLevel",
    "response_format": "generationConfig.responseSchema",
    "service_tier": "serviceTier",
    "thinking_budget": "generationConfig.thinkingConfig.thinkingBudget",
    "tool_choice": "toolConfig.functionCallingConfig",
}
TIERS = {"standard": "default"}  # any other is called the same


class Told(NamedTuple):
    """The fields of an object that are known here, by their camelCase names, and the names of the others."""

    fields: JSON
    strange: List[str]


def read(value: Any, kinds: Mapping[str, Kinds], path: str) -> Told:
    """Read an object in either case; refuse what is no object, and a known field of a wrong kind."""
    if not isinstance(value, dict):
        refuse(path, "must be an object", "invalid_type")
    told, strange = {}, []
    for name, item in value.items():
        known = camel(name)
        if item is None:
            continue
        if known not in kinds:
            strange.append(name)
            continue
        if not isinstance(item, kinds[known]) or (isinstance(item, bool) and bool not in kinds[known]):
            words = " or ".join(WORDS[kind] for kind in kinds[known])
            refuse(f"{path}.{name}" if path else name, f"must be {words}", "invalid_type")
        told[known] = item
    return Told(told, strange)


def camel(name: str) -> str:
    head, *more = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in more) if head else name


# questions


class Turned(NamedTuple):
    """A question translated, and where its messages and tools stood: canonical path -> the client's."""

    asked: Asked
    places: Dict[str, str]


def own_path(places: Mapping[str, str], canonical: str, *, below: str = "") -> str:
    """Give a field's path in the client's words; of a message no more than which content it is of."""
    place, _, rest = canonical.partition(".")
    name, index = place.partition("[")[::2]
    if name == "messages":
        return places.get(place, "contents")
    if place in places:
        return f"{places[place]}.{rest[len('function.') :]}".rstrip(".")
    return below + NAMES[name] + (f"[{index}" if index else "") if name in NAMES else canonical


def question(body: JSON, model: str, *, stream: bool) -> Turned:
    """Translate a generateContent request."""
    told, strange = read(body, REQUEST, "")
    pocket = Pocket(_outward(body))
    for name in strange:
        pocket.losses[shown(name)] = ONLY
    conversation = Conversation(pocket)
    chat: JSON = {"model": model, "stream": stream}
    instructed = system(told.get("systemInstruction"))
    chat["messages"] = [*instructed, *conversation.messages(told.get("contents") or [])]
    if not chat["messages"]:
        refuse("contents", "is required", "missing_required_parameter")
    stood = ["systemInstruction"] * len(instructed) + conversation.places
    places = {f"messages[{at}]": place for at, place in enumerate(stood)}
    chat.update(tools(told, pocket, places), **config(told.get("generationConfig") or {}, pocket))
    if "serviceTier" in told:
        tier = told["serviceTier"].lower()
        chat["service_tier"] = TIERS.get(tier, tier)
    return Turned(Asked(chat, pocket), places)


def system(instruction: Any) -> List[JSON]:
    if not instruction:
        return []
    if isinstance(instruction, str):
        return [{"role": "system", "content": instruction}]
    parts = read(instruction, CONTENT, "systemInstruction").fields.get("parts") or []
    texts = []
    for at, part in enumerate(parts):
        path = f"systemInstruction.parts[{at}]"
        texts.append(read(part, PART, path).fields.get("text") or "")
    return [{"role": "system", "content": "\n".join(texts)}] if any(texts) else []


class Conversation:
    """Translates contents one after the other; knows the calls whose results have not come yet."""

    def __init__(self, pocket: Pocket) -> None:
        self.places: List[str] = []  # of each message: where it stood
        self._pocket = pocket
        self._open: List[Tuple[str, str]] = []  # id and name

    def messages(self, contents: List[Any]) -> List[JSON]:
        told: List[JSON] = []
        for at, item in enumerate(contents):
            path = f"contents[{at}]"
            content, strange = read(item, CONTENT, path)
            self._lose(path, strange)
            role = str(content.get("role") or "user").lower()
            if role not in ("user", "model", "function"):
                refuse(f"{path}.role", f"must be user or model, not {shown(role)!r}")
            turn = self._model if role == "model" else self._user
            for message in turn(content.get("parts") or [], f"{path}.parts", at):
                told[-1:] = joined(told[-1:], message)
                self.places[len(told) - 1 :] = [path]
        return told

    def _lose(self, path: str, names: List[str]) -> None:
        for name in names:
            self._pocket.losses[f"{path}.{shown(name)}"] = ONLY

    def _parts(self, parts: List[Any], path: str) -> Iterator[Tuple[JSON, str]]:
        for at, part in enumerate(parts):
            where = f"{path}[{at}]"
            told, strange = read(part, PART, where)
            self._lose(where, strange)
            yield told, where

    def _user(self, parts: List[Any], path: str, _: int) -> Iterator[JSON]:
        """Give the results of a turn, a message each, and what the user says besides."""
        said = []
        for part, where in self._parts(parts, path):
            if "functionResponse" in part:
                yield self._result(part["functionResponse"], f"{where}.functionResponse")
            else:
                said += self._piece(part, where)
        if said:
            texts = [piece["text"] for piece in said if piece["type"] == "text"]
            yield {"role": "user", "content": texts[0] if len(said) == len(texts) == 1 else said}

    def _piece(self, part: JSON, path: str) -> List[JSON]:
        if "inlineData" in part:
            return [inline(part["inlineData"], f"{path}.inlineData")]
        if "fileData" in part:
            return self._file(part["fileData"], f"{path}.fileData")
        return [{"type": "text", "text": part["text"]}] if part.get("text") else []

    def _file(self, value: Any, path: str) -> List[JSON]:
        """Take an image at an address; what lies at Google no other can fetch."""
        file = read(value, MEDIA, path).fields
        url = str(file.get("fileUri") or "")
        if str(file.get("mimeType") or "image/").startswith("image/") and re.match("https?://", url):
            return [{"type": "image_url", "image_url": {"url": url}}]
        self._pocket.musts[path] = "only Gemini's own models can fetch this file"
        return []

    def _result(self, value: Any, path: str) -> JSON:
        response = read(value, RESPONSE, path).fields
        id_, name = response.get("id"), response.get("name")
        fits = [call for call in self._open if (call[0] == id_ if id_ else name in (None, call[1]))]
        if not fits and id_:  # some clients give ids of their own to results
            fits = [call for call in self._open if call[1] == name]
        if not fits:
            refuse(path, "is the result of no call before it")
        self._open.remove(fits[0])
        message: JSON = {"role": "tool", "tool_call_id": fits[0][0], **outcome(response.get("response") or {})}
        shown_ = [inline(read(p, PART, path).fields.get("inlineData") or {}, path) for p in response.get("parts") or ()]
        if shown_:
            message["content"] = [{"type": "text", "text": message["content"]}, *shown_]
        return message

    def _model(self, parts: List[Any], path: str, turn: int) -> Iterator[JSON]:
        """Give the turn of a model: one message."""
        told: JSON = {"role": "assistant", "content": None}
        texts: List[str] = []
        thoughts: List[str] = []
        calls: List[JSON] = []
        details: List[JSON] = []
        for part, where in self._parts(parts, path):
            details += opened(part.get("thoughtSignature")) or []
            if "functionCall" in part:
                calls.append(self._call(part["functionCall"], f"{where}.functionCall", f"call_{turn}_{len(calls)}"))
            elif part.get("text"):
                (thoughts if part.get("thought") else texts).append(part["text"])
        more = {
            "content": "".join(texts),
            "reasoning_content": "".join(thoughts),
            "tool_calls": calls,
            "reasoning_details": details,
        }
        told.update((name, value) for name, value in more.items() if value)
        if told["content"] or calls or thoughts:
            yield told

    def _call(self, value: Any, path: str, spare: str) -> JSON:
        call = read(value, CALL, path).fields
        if not call.get("name"):
            refuse(f"{path}.name", "is required", "missing_required_parameter")
        id_ = call.get("id") or spare
        self._open.append((id_, call["name"]))
        arguments = json.dumps(call.get("args") or {}, separators=(",", ":"), ensure_ascii=False)
        return {"id": id_, "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def joined(before: List[JSON], message: JSON) -> List[JSON]:
    """Give a message behind the one before; a turn of the model's that a client took apart is one again."""
    if not before or not before[0]["role"] == message["role"] == "assistant":
        return [*before, message]
    one = before[0]
    both = {
        name: (one.get(name) or type(value)()) + value for name, value in message.items() if name != "role" and value
    }
    return [{**one, **both}]


def outcome(response: JSON) -> JSON:
    """Give what a tool's response says: what clients wrap it in is taken off."""
    for name in ("output", "result", "error"):
        if response.keys() == {name}:
            failed = {"is_error": True} if name == "error" else {}
            return {"content": spelled(response[name]), **failed}
    return {"content": spelled(response)}


def spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_URL_SAFE = str.maketrans("-_", "+/")


def inline(value: Any, path: str) -> JSON:
    """Translate media by its type; some clients write base64 in the alphabet of URLs."""
    media = read(value, MEDIA, path).fields
    mime, data = str(media.get("mimeType") or "").lower(), str(media.get("data") or "").translate(_URL_SAFE)
    if not mime or not data:
        refuse(path, "needs a mimeType and data", "missing_required_parameter")
    data += "=" * (-len(data) % 4)
    kind, _, form = mime.partition("/")
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}}
    if kind == "audio" and form in ("wav", "mp3", "mpeg", "x-wav"):
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav" if "wav" in form else "mp3"}}
    name = {"filename": media["displayName"]} if media.get("displayName") else {}
    return {"type": "file", "file": {"file_data": f"data:{mime};base64,{data}", **name}}


def _outward(body: JSON) -> JSON:
    """Give the client's body as Gemini can take it: state of other providers' is none of Gemini's."""
    told = dict(body)
    for name, value in body.items():
        if camel(name) == "systemInstruction" and isinstance(value, str):
            told[name] = {"parts": [{"text": value}]}
        elif name == "contents" and isinstance(value, list):
            told[name] = [_own(content) for content in value]
    return told


def _own(content: Any) -> Any:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not any(map(_is_foreign, parts)):
        return content
    return {**content, "parts": [_dummied(part) if _is_foreign(part) else part for part in parts]}


def _is_foreign(part: Any) -> bool:
    return isinstance(part, dict) and any(opened(part.get(n)) for n in ("thoughtSignature", "thought_signature"))


def _dummied(part: JSON) -> JSON:
    return {name: DUMMY_SIGNATURE if camel(name) == "thoughtSignature" else value for name, value in part.items()}


# tools


def tools(told: JSON, pocket: Pocket, places: Dict[str, str]) -> JSON:
    """Give `tools` and `tool_choice`; what Google hosts has no other. Where each tool stood goes into `places`."""
    functions: List[JSON] = []
    for at, tool in enumerate(told.get("tools") or ()):
        declared, hosted = read(tool, {"functionDeclarations": (list,)}, f"tools[{at}]")
        for name in hosted:
            pocket.musts[f"tools[{at}].{shown(name)}"] = "a tool that only Google hosts"
        for n, item in enumerate(declared.get("functionDeclarations") or ()):
            path = f"tools[{at}].functionDeclarations[{n}]"
            places[f"tools[{len(functions)}]"] = path
            functions.append(declaration(item, path))
    if not functions:
        return {}
    return {"tools": functions, **choice(told.get("toolConfig") or {})}


def declaration(value: Any, path: str) -> JSON:
    told = read(value, DECLARATION, path).fields
    function = {name: told[name] for name in ("name", "description") if name in told}
    if "parametersJsonSchema" in told:
        function["parameters"] = told["parametersJsonSchema"]
    elif "parameters" in told:
        function["parameters"] = json_schema(told["parameters"])
    return {"type": "function", "function": function}


def choice(config_: JSON) -> JSON:
    calling = read(config_, {"functionCallingConfig": (dict,)}, "toolConfig").fields.get("functionCallingConfig") or {}
    told = read(calling, CALLING, "toolConfig.functionCallingConfig").fields
    names = [name for name in told.get("allowedFunctionNames") or () if isinstance(name, str)]
    mode = str(told.get("mode") or "").upper()
    if mode == "NONE":
        return {"tool_choice": "none"}
    if mode != "ANY":
        return {"tool_choice": "auto"} if mode else {}
    named = [{"type": "function", "function": {"name": name}} for name in names]
    if len(named) == 1:
        return {"tool_choice": named[0]}
    many = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named}}
    return {"tool_choice": many if named else "required"}


def json_schema(schema: Any) -> Any:
    """Give a schema of Google's, whose types are in capitals, as JSON Schema."""
    if isinstance(schema, list):
        return [json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    told: JSON = {}
    for name, value in schema.items():
        known = camel(name)
        if known not in ("nullable", "propertyOrdering"):
            told[RENAMED.get(known, known)] = SCHEMA.get(known, _as_it_is)(value)
    if schema.get("nullable") and isinstance(told.get("type"), str):
        told["type"] = [told["type"], "null"]
    return told


def _as_it_is(value: Any) -> Any:
    return value


_INT64 = re.compile(r"[0-9]{1,19}")


def _number(value: Any) -> Any:
    """Read a number that protobuf's JSON writes as text."""
    return int(value) if isinstance(value, str) and _INT64.fullmatch(value) else value


def _named_schemas(value: Any) -> Any:
    return {name: json_schema(item) for name, item in value.items()} if isinstance(value, dict) else value


#: what stands under a key of a schema
SCHEMA: Dict[str, Callable[[Any], Any]] = {
    "type": lambda value: value.lower() if isinstance(value, str) else value,
    **dict.fromkeys(("properties", "defs"), _named_schemas),
    **dict.fromkeys(("items", "anyOf", "additionalProperties"), json_schema),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), _number),
}
RENAMED = {"defs": "$defs", "ref": "$ref"}


# what is left: numbers, formats and thinking


def config(value: JSON, pocket: Pocket) -> JSON:
    told, strange = read(value, CONFIG, "generationConfig")
    for name in strange:
        pocket.losses[f"generationConfig.{shown(name)}"] = ONLY
    whole = {name: int(told[name]) for name in WHOLE if isinstance(told.get(name), float) and told[name].is_integer()}
    chat = {SAMPLING[name]: item for name, item in {**told, **whole}.items() if name in SAMPLING}
    if any(str(kind).upper() != "TEXT" for kind in told.get("responseModalities") or ()):
        pocket.musts["generationConfig.responseModalities"] = "only text is answered"
    return {**chat, **response_format(told, pocket), **thinking(told.get("thinkingConfig") or {})}


def response_format(told: JSON, pocket: Pocket) -> JSON:
    mime = str(told.get("responseMimeType") or "").lower()
    if mime == "text/x.enum":
        pocket.musts["generationConfig.responseMimeType"] = (
            "only Gemini's own models answer with a bare word of an enum"
        )
    if mime != "application/json":
        return {}
    schema: Optional[Any] = told.get("responseJsonSchema")
    if schema is None and "responseSchema" in told:
        schema = json_schema(told["responseSchema"])
    if schema is None:
        return {"response_format": {"type": "json_object"}}
    format_ = {"name": "response", "schema": schema if isinstance(schema, dict) else {}}
    return {"response_format": {"type": "json_schema", "json_schema": format_}}


def thinking(value: JSON) -> JSON:
    told = read(value, THINKING, "generationConfig.thinkingConfig").fields
    if "thinkingLevel" in told:
        level = told["thinkingLevel"].lower()
        return {} if level == "thinking_level_unspecified" else {"reasoning_effort": level}
    budget = told.get("thinkingBudget", -1)
    if budget < 0:
        return {}
    return {"thinking_budget": int(budget)} if budget else {"reasoning_effort": "none"}


def shows_thoughts(body: JSON) -> bool:
    """Tell whether a client wants to see thoughts."""
    configured = read(body, REQUEST, "").fields.get("generationConfig") or {}
    told = read(configured, CONFIG, "generationConfig").fields.get("thinkingConfig") or {}
    return bool(read(told, THINKING, "generationConfig.thinkingConfig").fields.get("includeThoughts"))


# embeddings

EMBED: Dict[str, Kinds] = {
    "model": (str,),
    "content": (dict,),
    "taskType": (str,),
    "title": (str,),
    "outputDimensionality": NUMBER,
}
#: taskType -> canonical `input_type`
TASKS = {"RETRIEVAL_QUERY": "query", "RETRIEVAL_DOCUMENT": "document"}


class Embedding(NamedTuple):
    """One text to embed, and how."""

    text: str
    how: Tuple[Tuple[str, Any], ...]  # canonical fields


def embedding(value: Any, path: str, pocket: Pocket) -> Embedding:
    """Translate one embedding request."""
    told, strange = read(value, EMBED, path)
    for name in [*strange, *(name for name in ("title",) if name in told)]:
        pocket.losses[shown(name)] = ONLY
    where = f"{path}.content" if path else "content"
    parts = read(told.get("content") or {}, CONTENT, where).fields.get("parts") or []
    texts = []
    for at, part in enumerate(parts):
        piece = read(part, PART, f"{where}.parts[{at}]").fields
        if "text" not in piece:
            pocket.musts[f"{where}.parts[{at}]"] = "only texts are embedded"
        texts.append(piece.get("text") or "")
    how: Dict[str, Any] = {}
    if "outputDimensionality" in told:
        how["dimensions"] = int(told["outputDimensionality"])
    if told.get("taskType") in TASKS:
        how["input_type"] = TASKS[told["taskType"]]
    elif "taskType" in told:
        pocket.losses["taskType"] = ONLY
    return Embedding("\n".join(texts), tuple(sorted(how.items())))
