"""Serves Ollama's own API below /llm/api over every provider: chat, generate, embed, and what its clients look up.

Ollama's clients forget the ids of tool calls, by which providers remember what belongs to them; so the ids of a bounded
number of calls are remembered here, by what the conversation said before them and by what they are.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from functools import partial
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from providers import Pocket, Provider, Trouble, UpstreamError
from providers._memory import Remembered

from . import JSON, Handler, Refusal, Request, Response, Waiting, aside, late, written
from ._dialect import Asked, Dialect, arguments_of, created, gather, naming, with_field
from ._json import parsed, refuse, shown
from ._question import EMBEDDINGS, checked
from ._stream import whole

VERSION = "0.33.0"  # of the API that is served; clients look at it before they use what is new
ROLES = ("system", "user", "assistant", "tool")

#: key of `options` -> canonical field
SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
    "num_predict": "max_completion_tokens",
}
WHOLE = ("top_k", "seed", "num_predict")  # numbers that some clients send as floats
#: canonical field -> what clients call it here
NAMES = {
    **{canonical: f"options.{name}" for name, canonical in SAMPLING.items()},
    "reasoning_effort": "think",
    "response_format": "format",
}
EFFORTS = {True: "medium", False: "none"}  # of `think`; words are the same in both
FINISH = {"length": "length"}  # all else is `stop`

Kinds = Tuple[type, ...]
#: field -> what it may be; any other field is only for an upstream that speaks as we do here
SHARED: Dict[str, Kinds] = {
    "model": (str,),
    "stream": (bool,),
    "format": (str, dict),
    "think": (bool, str),
    "options": (dict,),
    "logprobs": (bool,),
    "top_logprobs": (int,),
}
CHAT: Dict[str, Kinds] = {**SHARED, "messages": (list,), "tools": (list,)}
GENERATE: Dict[str, Kinds] = {**SHARED, "prompt": (str,), "system": (str,), "images": (list,)}
EMBED: Dict[str, Kinds] = {"model": (str,), "input": (str, list), "prompt": (str,), "dimensions": (int,)}
#: what would make another question of it if it were dropped
MUSTS = {"suffix": (str,), "raw": (bool,), "context": (list,), "template": (str,)}
MESSAGE: Dict[str, Kinds] = {
    "role": (str,),
    "content": (str,),
    "images": (list,),
    "thinking": (str,),
    "tool_calls": (list,),
    "tool_name": (str,),
    "tool_call_id": (str,),
}
CALL: Dict[str, Kinds] = {"id": (str,), "function": (dict,)}
FUNCTION: Dict[str, Kinds] = {"name": (str,), "arguments": (dict,)}
WORDS = {str: "a string", bool: "true or false", dict: "an object", list: "a list", int: "an integer"}


# questions


def fields(body: Any, kinds: Mapping[str, Kinds], path: str = "") -> JSON:
    """Give the fields of an object that are known here and not null; refuse those of a wrong kind."""
    if not isinstance(body, dict):
        refuse(path, "must be an object", "invalid_type")
    known = {name: body[name] for name in kinds if body.get(name) is not None}
    for name, value in known.items():
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and bool not in kinds[name]):
            words = " or ".join(WORDS[kind] for kind in kinds[name])
            refuse(f"{path}.{name}" if path else name, f"must be {words}", "invalid_type")
    return known


def chat_question(body: JSON, ids: Callable[[str], Optional[str]]) -> Asked:
    """Translate what is asked of `/api/chat`; `ids` finds the id of a call by its name in `_trail`."""
    told = fields(body, CHAT)
    chat = common(told)
    chat["messages"] = messages(told.get("messages") or [], str(chat.get("model")), ids)
    if told.get("tools"):
        chat["tools"] = told["tools"]
    pocket = pocket_for(body, told, "/api/chat")
    pocket.body = {**body, "messages": with_tool_names(told.get("messages") or [], chat["messages"])}
    return Asked(chat, pocket)


def with_tool_names(asked: List[JSON], told: List[JSON]) -> List[JSON]:
    """Name the tool of each result that only says its call: some models' templates read nothing else."""
    calls = (call for message in told for call in message.get("tool_calls") or ())
    names = {call["id"]: call["function"]["name"] for call in calls}
    return [
        {**theirs, "tool_name": names[ours["tool_call_id"]]} if "tool_call_id" in ours else theirs
        for theirs, ours in zip(asked, told)
    ]


def generate_question(body: JSON) -> Asked:
    """Translate what is asked of `/api/generate`."""
    told = fields(body, GENERATE)
    chat = common(told)
    chat["messages"] = [{"role": "system", "content": told["system"]}] if told.get("system") else []
    if told.get("prompt") or told.get("images"):
        message = {"role": "user", "content": told.get("prompt") or "", "images": told.get("images") or []}
        chat["messages"] += messages([message], "", lambda _: None)
    return Asked(chat, pocket_for(body, told, "/api/generate"))


def common(told: JSON) -> JSON:
    """Translate what both have: all but the messages and the tools."""
    options = {name: whole_of(name, value) for name, value in (told.get("options") or {}).items() if name in SAMPLING}
    chat: JSON = {"model": told.get("model"), "stream": told.get("stream", True)}
    chat.update((SAMPLING[name], value) for name, value in options.items() if not is_endless(name, value))
    chat.update({name: told[name] for name in ("logprobs", "top_logprobs") if name in told})
    if "think" in told:
        chat["reasoning_effort"] = EFFORTS.get(told["think"], told["think"])
    if told.get("format"):
        chat["response_format"] = response_format(told["format"])
    return chat


def whole_of(name: str, value: Any) -> Any:
    return int(value) if name in WHOLE and isinstance(value, float) and value.is_integer() else value


def is_endless(name: str, value: Any) -> bool:
    """Tell whether an option says that an answer may be as long as it likes."""
    return name == "num_predict" and type(value) is int and value <= 0


def response_format(format_: Any) -> JSON:
    if format_ == "json":
        return {"type": "json_object"}
    if not isinstance(format_, dict):
        refuse("format", 'must be "json" or a JSON schema')
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": format_}}


def own_path(canonical: str, *, generates: bool = False) -> str:
    """Give a field's path in the client's words; what `/api/generate` asks has no messages."""
    name, _, index = canonical.partition(".")[0].partition("[")
    if name == "messages":
        own = re.sub(r"\.content\[.*", ".images", canonical, flags=re.DOTALL)  # the text among the parts is good
        if generates:
            return own.partition(".")[2] if ".images" in own else "prompt"
        return own
    return NAMES[name] + (f"[{index}" if index else "") if name in NAMES else canonical


def pocket_for(body: JSON, told: JSON, path: str) -> Pocket:
    """Keep the client's own words; whoever does not read them has to tell what is lost."""
    pocket = Pocket(body, path=path)
    for name, value in body.items():
        if value is None or name in told:
            continue
        if name in fields(body, MUSTS) and value:
            pocket.musts[name] = "only models of Ollama's own take this"
        else:
            pocket.losses[name] = "only for models of Ollama's own"
    for name in told.get("options") or {}:
        if name not in SAMPLING:
            pocket.losses[f"options.{shown(name)}"] = "only for models of Ollama's own"
    return pocket


def messages(asked: List[Any], model: str, ids: Callable[[str], Optional[str]]) -> List[JSON]:
    """Translate the messages: calls have ids, their results name them, and images are parts."""
    told: List[JSON] = []
    open_calls: List[Tuple[str, str]] = []  # id and name of those whose results are not there yet
    trail = trail_of(model)
    for at, item in enumerate(asked):
        path = f"messages[{at}]"
        message = fields(item, MESSAGE, path)
        role = str(message.get("role") or "").lower()
        if role not in ROLES:
            refuse(f"{path}.role", f"must be one of {', '.join(ROLES)}, not {shown(role)!r}")
        if role == "assistant":
            told.append(_assistant(message, path, at, trail.copy(), ids, open_calls))
            continue
        trail.update(json.dumps([role, message.get("content")]).encode())
        if role == "tool":
            told.append(_result(message, path, open_calls))
        else:
            told.append({"role": role, "content": _content(message, path)})
    return told


def _content(message: JSON, path: str) -> Any:
    text = message.get("content") or ""
    if not message.get("images"):
        return text
    pictures = [
        {"type": "image_url", "image_url": {"url": data_url(image, f"{path}.images[{n}]")}}
        for n, image in enumerate(message["images"])
    ]
    return [*([{"type": "text", "text": text}] if text else ()), *pictures]


#: how the base64 of an image begins -> what it is
BEGINNINGS = {"/9j/": "jpeg", "iVBORw0KGgo": "png", "R0lGOD": "gif", "UklGR": "webp"}


def data_url(image: Any, path: str) -> str:
    """Give bare base64 as a data URL; what kind of image it is, its first bytes tell."""
    if not isinstance(image, str) or not image:
        refuse(path, "must be an image in base64", "invalid_type")
    kind = next((kind for beginning, kind in BEGINNINGS.items() if image.startswith(beginning)), "png")
    return image if image.startswith("data:") else f"data:image/{kind};base64,{image}"


def _assistant(  # what a turn of the model's needs to be told again
    message: JSON,
    path: str,
    at: int,
    trail: Any,
    ids: Callable[[str], Optional[str]],
    open_calls: List[Tuple[str, str]],
) -> JSON:
    told: JSON = {"role": "assistant", "content": message.get("content") or ""}
    if message.get("thinking"):
        told["reasoning_content"] = message["thinking"]
    calls = []
    for n, item in enumerate(message.get("tool_calls") or ()):
        where = f"{path}.tool_calls[{n}]"
        call = fields(item, CALL, where)
        function = fields(call.get("function"), FUNCTION, f"{where}.function")
        name, arguments = str(function.get("name") or ""), dumped(function.get("arguments") or {})
        id_ = call.get("id") or ids(named(trail, name, arguments)) or f"call_{at}_{n}"
        open_calls.append((id_, name))
        calls.append({"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}})
    return {**told, "tool_calls": calls} if calls else told


def _result(message: JSON, path: str, open_calls: List[Tuple[str, str]]) -> JSON:
    """Translate a result: it belongs to the call it names, else to the oldest of that tool without one."""
    id_, name = message.get("tool_call_id"), message.get("tool_name")
    fits = [call for call in open_calls if (call[0] == id_ if id_ else name in (None, call[1]))]
    if not fits:
        refuse(path, "is the result of no call before it")
    open_calls.remove(fits[0])
    return {"role": "tool", "tool_call_id": fits[0][0], "content": _content(message, path)}


def dumped(arguments: JSON) -> str:
    return json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)


def trail_of(model: str) -> Any:
    """Begin the hash of what a conversation has said to a model; only what is not the model's own goes in."""
    return hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16)


def named(trail: Any, name: str, arguments: str) -> str:
    """Name a call by what was said before it, its tool, and its arguments in whatever order."""
    own = trail.copy()
    own.update(json.dumps([name, json.loads(arguments)], sort_keys=True).encode())
    return str(own.hexdigest())


def trail_behind(asked: List[Any], model: str) -> Any:
    """Give the trail at the end of a question, where the model's answer comes."""
    trail = trail_of(model)
    for message in asked:
        role = str(message.get("role") or "").lower()
        if role != "assistant":
            trail.update(json.dumps([role, message.get("content")]).encode())
    return trail


def embed_question(body: JSON) -> Asked:
    """Translate what is asked of `/api/embed`, or of `/api/embeddings`, its older form."""
    told = fields(body, EMBED)
    chat: JSON = {"model": told.get("model"), "input": told.get("input", told.get("prompt"))}
    if "dimensions" in told:
        chat["dimensions"] = told["dimensions"]
    return Asked(chat, pocket_for(body, told, "/api/embed"))


# answers


class Voice(NamedTuple):
    """How an answer is told: the model as the client named it, since when it waits, and the endpoint's own shape."""

    model: str
    since: float
    generates: bool = False

    def line(self, said: JSON, more: JSON) -> JSON:
        """Give one line of an answer; `said` has `content`, and may have `thinking` and `tool_calls`."""
        told = {"role": "assistant", **said}
        if self.generates:
            told["response"] = told.pop("content")
            del told["role"]
        body = told if self.generates else {"message": told}
        return {"model": self.model, "created_at": stamp(time.time()), **body, **more}

    def last(self, finish: str, usage: JSON) -> JSON:
        """Give what the last line has besides."""
        counts = {"prompt_eval_count": usage.get("prompt_tokens"), "eval_count": usage.get("completion_tokens")}
        return {
            "done": True,
            "done_reason": FINISH.get(finish, "stop"),
            "total_duration": int((time.monotonic() - self.since) * 1e9),
            **{name: count for name, count in counts.items() if count},
        }


Keep = Callable[[List[JSON]], None]


def answer(voice: Voice, keep: Keep, completion: JSON) -> JSON:
    """Word a whole answer."""
    choice = completion["choices"][0]
    message = choice["message"]
    said: JSON = {"content": message.get("content") or message.get("refusal") or ""}
    if message.get("reasoning_content"):
        said["thinking"] = message["reasoning_content"]
    if message.get("tool_calls"):
        said["tool_calls"] = [called(call, n) for n, call in enumerate(message["tool_calls"])]
        keep(message["tool_calls"])
    more = voice.last(choice.get("finish_reason") or "stop", completion.get("usage") or {})
    return voice.line(said, {**more, **logprobs(choice)})


def speak(voice: Voice, keep: Keep, parts: Iterable[JSON]) -> Iterator[bytes]:
    """Say the parts of a stream, a line each; calls are said whole, and all at the end."""
    calls: Dict[int, JSON] = {}
    finish: str = "stop"
    usage: JSON = {}
    for part in parts:
        usage = part.get("usage") or usage
        if not part:
            yield b""
        for choice in part.get("choices") or ():
            delta, finish = choice["delta"], choice.get("finish_reason") or finish
            gather(calls, delta.get("tool_calls") or ())
            said = {"content": delta.get("content") or delta.get("refusal") or ""}
            if delta.get("reasoning_content"):
                said["thinking"] = delta["reasoning_content"]
            if said["content"] or len(said) > 1:
                yield line(voice.line(said, {"done": False, **logprobs(choice)}))
    if calls:
        made = [calls[index] for index in sorted(calls)]
        said = {"content": "", "tool_calls": [called(call, n) for n, call in enumerate(made)]}
        keep(made)
        yield line(voice.line(said, {"done": False}))
    yield line(voice.line({"content": ""}, voice.last(finish, usage)))


def called(call: JSON, index: int) -> JSON:
    """Word a call: its arguments are an object here."""
    function = call["function"]
    told = {"index": index, "name": function["name"], "arguments": arguments_of(function)}
    return {"id": call.get("id") or "", "function": told}


def logprobs(choice: JSON) -> JSON:
    content = (choice.get("logprobs") or {}).get("content")
    return {"logprobs": content} if content else {}


def line(document: JSON) -> bytes:
    return written(document) + b"\n"


def stamp(seconds: float) -> str:
    """Give a time as Ollama writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"


# models


def details_of(model: JSON) -> JSON:
    family = str(model.get("id")).partition("/")[0]
    told = {"parent_model": "", "format": "", "family": family, "families": [family]}
    return {**told, "parameter_size": "", "quantization_level": ""}


def capabilities_of(model: JSON) -> List[str]:
    """Name what a model can do; who does not tell is thought to chat and to call tools."""
    return list(model.get("capabilities") or ("completion", "tools"))


def tag(model: JSON) -> JSON:
    """Give a model's entry in the list of those that are there."""
    name = str(model["id"])
    return {
        "name": name,
        "model": name,
        "modified_at": stamp(created(model)),
        "size": 0,
        "digest": hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest(),
        "details": details_of(model),
        "capabilities": capabilities_of(model),
    }


def shown_model(model: JSON) -> JSON:
    """Give what `/api/show` tells of a model."""
    family = details_of(model)["family"]
    info: JSON = {"general.architecture": family}
    if model.get("context_length"):
        info[f"{family}.context_length"] = model["context_length"]
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": details_of(model),
        "model_info": info,
        "capabilities": capabilities_of(model),
        "modified_at": stamp(created(model)),
    }


class OllamaApi(Dialect):
    """Answers Ollama's clients; what manages models on a disk is not for a proxy."""

    dialect = "ollama"
    blocks = False
    life = b""  # its clients would take a life sign for an answer

    def __init__(self, options: Mapping[str, Any], upstream: Provider) -> None:
        super().__init__(options, upstream)
        self.ids = Remembered(10_000)

    def routes(self) -> Mapping[str, Handler]:
        return {
            "POST /llm/api/chat": self.chatted,
            "POST /llm/api/generate": self.generated,
            "POST /llm/api/embed": self.embedded,
            "POST /llm/api/embeddings": self.embedded_one,
            "POST /llm/api/show": self.shown,
            "GET /llm/api/tags": self.listed,
            "GET /llm/api/ps": lambda _: Response.of({"models": []}),
            "GET /llm/api/version": lambda _: Response.of({"version": VERSION}),
            "GET /llm/": lambda _: Response(200, {"Content-Type": "text/plain"}, b"Ollama is running"),
            "* /llm/api/*": self.refused,
        }

    def error(self, trouble: Trouble) -> Response:
        return Response.of({"error": with_field(trouble)}, trouble.status, trouble.headers)

    def failed(self, trouble: Trouble) -> bytes:
        return line({"error": with_field(trouble)})

    def spelled(self, event: JSON) -> bytes:
        return line(event)

    def streamed(self, body: Iterable[bytes]) -> Response:
        return Response(200, {"Content-Type": "application/x-ndjson"}, body)

    @late
    def chatted(self, request: Request) -> Waiting[Response]:
        body = read(request)
        asked = chat_question(body, self._id)
        model = str(asked.chat.get("model"))
        keep = partial(self._keep, trail_behind(body.get("messages") or [], model))
        return self._talked(request, asked, Voice(model, time.monotonic()), keep)

    @late
    def generated(self, request: Request) -> Waiting[Response]:
        with naming(partial(own_path, generates=True)):
            asked = generate_question(read(request))
        voice = Voice(str(asked.chat.get("model")), time.monotonic(), generates=True)
        return self._talked(request, asked, voice, lambda _: None)

    def _talked(self, request: Request, asked: Asked, voice: Voice, keep: Keep) -> Waiting[Response]:
        if not asked.chat["messages"]:
            return (yield from self._loaded(request, asked, voice))
        with naming(partial(own_path, generates=voice.generates)):
            spoken = partial(answer, voice, keep), partial(speak, voice, keep)
            return (yield from self.converse(request, asked, *spoken))

    def _loaded(self, request: Request, asked: Asked, voice: Voice) -> Waiting[Response]:
        """Answer a question without words, which asks to load the model, or with `keep_alive` 0 to unload it."""
        asked.pocket.musts[NOTHING] = "there are none"
        call = request.call({"model": self._known(asked.chat.get("model")), "messages": [], "_ollama": asked.pocket})
        try:
            return Response.of((yield from whole(self.upstream.chat(call)))["_ollama"])
        except UpstreamError as error:
            if error.param != NOTHING:
                raise
        unloads = asked.pocket.body.get("keep_alive") in (0, "0", "0s")
        done = {"done": True, "done_reason": "unload" if unloads else "load"}
        return Response.of(voice.line({"content": ""}, done))

    def _keep(self, trail: Any, calls: List[JSON]) -> None:
        """Remember the ids of calls, which come back without them."""
        for call in calls:
            function = call["function"]
            name = named(trail, function["name"], function.get("arguments") or "{}")
            self.ids.keep([name], [{"id": call.get("id")}])

    def _id(self, name: str) -> Optional[str]:
        found = self.ids.recall([name])
        return found[0]["id"] if found else None

    @aside
    def embedded(self, request: Request) -> Response:
        answer_, vectors = self._embeddings(request, "input")
        own = answer_.get("_ollama")
        return self._with_warnings(
            request, own or {"model": answer_["model"], "embeddings": vectors, **counts(answer_)}
        )

    @aside
    def embedded_one(self, request: Request) -> Response:
        vectors = self._embeddings(request, "prompt")[1]
        return self._with_warnings(request, {"embedding": vectors[0] if vectors else []})

    def _embeddings(self, request: Request, field: str) -> Tuple[JSON, List[Any]]:
        """Have the texts of a field embedded: the answer, and its vectors; no text has none."""
        asked = embed_question(read(request))
        if asked.chat["input"] in ([], ""):
            return {"model": self._known(asked.chat["model"])}, []
        with naming(lambda path: field + path[len("input") :] if path.startswith("input") else path):
            chat = {**checked(asked.chat, EMBEDDINGS, ("model", "input")), "_ollama": asked.pocket}
            request.notes["model"] = shown(chat["model"], 120)
            found = self.upstream.embed(request.call(chat))
        request.notes["usage"] = found.get("usage")
        return {**found, "model": asked.chat["model"]}, [item["embedding"] for item in found["data"]]

    def _with_warnings(self, request: Request, document: JSON) -> Response:
        return Response.of(document, headers=request.warnings())

    @aside
    def listed(self, request: Request) -> Response:
        return Response.of({"models": [tag(model) for model in self.upstream.survey(request.scope)[0]]})

    @aside
    def shown(self, request: Request) -> Response:
        body = read(request)
        told = fields(body, {"model": (str,), "name": (str,)})
        name = self._known(told.get("model", told.get("name")))
        model = self.upstream.describe(request.call({"model": name, "_ollama": Pocket(body, path="/api/show")}))
        return Response.of(model.get("_ollama") or shown_model(model))

    def _known(self, model: Any) -> str:
        if not model:
            refuse("model", "is required", "missing_required_parameter")
        if not self.upstream.knows(str(model)):
            raise Refusal(404, f"model {shown(model)!r} not found", code="model_not_found", param="model")
        return str(model)

    def refused(self, request: Request) -> Response:
        raise Refusal(501, "not supported by this proxy", code="unsupported_operation")


#: the field that is wrong with a question without words, where nobody reads it in our dialect
NOTHING = "messages"


def counts(answer_: JSON) -> JSON:
    tokens = (answer_.get("usage") or {}).get("prompt_tokens")
    return {"prompt_eval_count": tokens} if tokens else {}


def read(request: Request) -> JSON:
    """Read the body; its clients do not always say that it is JSON, and a program that is no browser need not."""
    browsed = request.header("origin") or any(name.startswith("sec-fetch-") for name in request.fields.first())
    return parsed(request.json() if browsed else request.body())
