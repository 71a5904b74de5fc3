"""Conversations that every provider is led through, as data: what is asked, and what is to come of it.

A column is a model that is asked in a way of its own. What is said of a conversation holds in every column;
`warned`, `refused`, `sent`, `lost` and `models` say in which it is otherwise.
"""

from __future__ import annotations

import base64
import json
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

JSON = Dict[str, Any]
NOTHING: Mapping[str, Any] = MappingProxyType({})

MODELS = {
    "openai": "openai/gpt-4o",
    "responses": "openai/gpt-6-sol",
    "anthropic": "anthropic/claude-opus-5-5",
    "haiku": "anthropic/claude-haiku-4-5-20251001",
    "gemini": "gemini/gemini-3.8-flash",
    "gemini-2.5": "gemini/gemini-2.5-flash",
    "ollama": "ollama/qwen3:8b",
    "lmstudio": "lmstudio/qwen/qwen3-8b",
    "echo": "echo/echo",
}
#: what goes with every question of a column: this model is asked by the Responses API when it is to think
ALWAYS: Mapping[str, JSON] = {"responses": {"reasoning_effort": "low"}}


class Conversation(NamedTuple):
    messages: List[JSON]
    fields: Mapping[str, Any] = NOTHING
    says: Tuple[str, ...] = ()  # all of it is in the answer's text
    is_json: Any = None  # what the answer's text spells
    calls: Tuple[Tuple[str, JSON], ...] = ()
    finish: str = "stop"
    thinks: Tuple[str, ...] = ()  # columns whose answer has readable reasoning; the others have none
    sent: Mapping[str, JSON] = NOTHING  # column -> what the upstream's body holds
    lost: Mapping[str, Tuple[str, ...]] = NOTHING  # column -> what the upstream is not told
    warned: Mapping[str, str] = NOTHING  # column -> the fields that are named in x-llmproxy-warnings
    refused: Mapping[str, Optional[str]] = NOTHING  # column -> the param of a 400
    models: Mapping[str, str] = NOTHING  # column -> the model that is asked instead
    only: Tuple[str, ...] = tuple(MODELS)

    def asked(self, column: str) -> JSON:
        """Give the canonical question, without its provider."""
        model = self.models.get(column, MODELS[column])
        return {"model": model, **ALWAYS.get(column, {}), **self.fields, "messages": self.messages}


def alike(columns: str, value: Any) -> JSON:
    """Say the same of several columns."""
    return dict.fromkeys(columns.split(), value)


def message(role: str, content: Any, **more: Any) -> JSON:
    return {"role": role, "content": content, **more}


def user(*parts: Any) -> JSON:
    """Give what the user says: one text, or parts, texts among them."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return message("user", parts[0])
    return message("user", [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts])


def data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def image(mime: str, data: bytes) -> JSON:
    return {"type": "image_url", "image_url": {"url": data_url(mime, data), "detail": "high"}}


def file(name: str, mime: str, data: bytes) -> JSON:
    return {"type": "file", "file": {"filename": name, "file_data": data_url(mime, data)}}


def tool(name: str, description: str, **properties: str) -> JSON:
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    function = {"name": name, "description": description, "parameters": {**schema, "required": list(properties)}}
    return {"type": "function", "function": function}


def called(*calls: Tuple[str, str, JSON], content: Optional[str] = None) -> JSON:
    """Give an assistant's message that calls tools, each by (id, name, arguments)."""
    made = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for id_, name, arguments in calls
    ]
    return message("assistant", content, tool_calls=made)


def result(id_: str, content: Any, **more: Any) -> JSON:
    return message("tool", content, tool_call_id=id_, **more)


def wish(name: str, arguments: JSON) -> str:
    """Give the words that have every stand-in call a tool."""
    return f"call {name} {json.dumps(arguments, ensure_ascii=False)}"


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PDF = b"%PDF-1.7\n" + bytes(range(255, -1, -1))
LETTERS = 'naïve Ω 日本語 \u2028 \u0000 👩‍👩‍👧 🌧 \U00010348 "quoted" \\back\\ \x7f'
RAIN = {"city": "Zürich 🌧", "days": [1, 2.5, None, True, -0.125], "at": {"id": 9007199254740993, "": ""}}
NOON = {"zone": "Europe/Zurich"}
WEATHER = tool("getWeather", "Tells the weather of a city.", city="string", days="array", at="object")
CLOCK = tool("clock", "Tells the time.", zone="string")
PING = {"type": "function", "function": {"name": "ping"}}
TOOLS = {"tools": [WEATHER, CLOCK, PING]}
NAMED = {"type": "function", "function": {"name": "clock"}}
ASKED = user(f"Please {wish('getWeather', RAIN)} and {wish('clock', NOON)}")
BOTH = called(("call_1", "getWeather", RAIN), ("call_2", "clock", NOON))
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "sure": {"type": "boolean"}},
    "required": ["city", "sure"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}

UNSIGNED = {"gemini": "messages"}  # the calls are none of its own
UNFORCED = {"anthropic": None}  # refused in the upstream's own words
UNHEARD = ("getWeather", "Tells the weather of a city.", "ping", WEATHER["function"]["parameters"])
MODE = "functionCallingConfig"
THINKING = tuple(column for column in MODELS if column != "openai")


CONVERSATIONS: Mapping[str, Conversation] = {
    "plain": Conversation([user("Hello there.")], says=("Hello there.",)),
    "unicode": Conversation([message("system", LETTERS[::-1]), user(LETTERS)], says=(LETTERS,)),
    "system": Conversation(
        [message("system", "Be brief."), message("system", 'Speak "plainly".'), user("Hello.")],
        says=("Hello.",),
        sent={
            "responses": {"instructions": 'Be brief.\n\nSpeak "plainly".'},
            "anthropic": {"system": 'Be brief.\n\nSpeak "plainly".'},
            "gemini": {"systemInstruction": {"parts": [{"text": "Be brief."}, {"text": 'Speak "plainly".'}]}},
        },
    ),
    "system in parts": Conversation(
        [message("system", user("Be brief.", "Be kind.")["content"]), user("Hello.", "Are you there?")],
        says=("Are you there?",),
    ),
    "system late": Conversation(
        [user("One."), message("assistant", "Two."), message("system", "Now whisper."), user("Three.")],
        says=("Three.",),
        warned={
            **alike("anthropic haiku", "messages[2].role"),
            **alike("gemini gemini-2.5", "messages"),
        },
    ),
    "system last": Conversation(
        [user("One."), message("assistant", "Two."), user("Three."), message("system", "Now whisper.")],
        sent={"anthropic": {"messages": [{}, {}, {}, {"role": "system", "content": "Now whisper."}]}},
        warned={"haiku": "messages[3].role", **alike("gemini gemini-2.5", "messages")},
    ),
    "developer": Conversation([message("developer", "Be brief."), user("Hello.")], says=("Hello.",)),
    "turns": Conversation(
        [
            *(user("A."), user("B.", "C."), message("assistant", "D."), message("assistant", "E."), user("F.")),
            *(message("assistant", "G."), user("H."), user("I.")),
        ],
        says=("I.",),
    ),
    "assistant first": Conversation(
        [message("assistant", "Can I help?"), user("Yes.")],
        says=("Yes.",),
        warned=alike("anthropic haiku gemini gemini-2.5", "messages"),
    ),
    "picture": Conversation(
        [user("What is this?", image("image/png", PNG), "Tell me.")],
        says=("Tell me.",),
        models={"ollama": "ollama/llava:7b"},
    ),
    "picture for the blind": Conversation(
        [user("What is this?", image("image/png", PNG))], refused={"ollama": "messages"}, only=("ollama",)
    ),
    "document": Conversation(
        [user("Read this.", file("a.pdf", "application/pdf", PDF))],
        says=("Read this.",),
        refused={"ollama": "messages[0].content[1].file", "lmstudio": "messages[0].content[1].type"},
    ),
    "text file": Conversation(
        [user("Read this.", file("a.txt", "text/plain", LETTERS.encode()))], says=("Read this.",)
    ),
    "one tool": Conversation(
        [user(f"Please {wish('getWeather', RAIN)}")],
        TOOLS,
        calls=(("getWeather", RAIN),),
        finish="tool_calls",
    ),
    "two tools": Conversation([ASKED], TOOLS, calls=(("getWeather", RAIN), ("clock", NOON)), finish="tool_calls"),
    "no arguments": Conversation([user("Please call ping {}")], TOOLS, calls=(("ping", {}),), finish="tool_calls"),
    "results": Conversation(
        [ASKED, BOTH, result("call_2", "12:00 🕛"), result("call_1", '{"degrees": 19.5}')],
        TOOLS,
        says=("12:00 🕛", '"degrees": 19.5'),
        warned=UNSIGNED,
    ),
    "results and a question": Conversation(
        [ASKED, BOTH, result("call_1", "[19, 20]"), result("call_2", user("12:", "00")["content"]), user("Thanks.")],
        TOOLS,
        warned=UNSIGNED,
    ),
    "results with odd ids": Conversation(
        [
            user("Go."),
            called(("a/b:c", "ping", {}), ("d e", "clock", NOON), content="Wait."),
            *(result("d e", "noon"), result("a/b:c", "pong")),
        ],
        TOOLS,
        says=("noon", "pong"),
        warned=UNSIGNED,
    ),
    "a failed tool": Conversation(
        [user("Go."), called(("call_1", "ping", {})), result("call_1", "No route.", is_error=True)],
        TOOLS,
        says=("No route.",),
        sent={
            "anthropic": {"messages": [{}, {}, {"content": [{"tool_use_id": "call_1", "is_error": True}]}]},
            "gemini": {"contents": [{}, {}, {"parts": [{"functionResponse": {"response": {"error": "No route."}}}]}]},
        },
        warned=UNSIGNED,
    ),
    "choice auto": Conversation(
        [user(f"Please {wish('clock', NOON)}")],
        {**TOOLS, "tool_choice": "auto"},
        calls=(("clock", NOON),),
        finish="tool_calls",
        sent={"openai": {"tool_choice": "auto"}, "gemini": {"toolConfig": {MODE: {"mode": "AUTO"}}}},
    ),
    "choice none": Conversation(
        [user(f"Please {wish('clock', NOON)}")],
        {"tools": [CLOCK], "tool_choice": "none"},
        says=("Please call clock",),
        sent={
            **alike("openai responses lmstudio", {"tool_choice": "none"}),
            **alike("anthropic haiku", {"tool_choice": {"type": "none"}}),
            "gemini": {"toolConfig": {MODE: {"mode": "NONE"}}},
        },
        lost={"ollama": tuple(CLOCK["function"].values())},
    ),
    "choice required": Conversation(
        [user(f"Please {wish('clock', NOON)}")],
        {**TOOLS, "tool_choice": "required"},
        calls=(("clock", NOON),),
        finish="tool_calls",
        sent={
            **alike("openai responses lmstudio", {"tool_choice": "required"}),
            "haiku": {"tool_choice": {"type": "any"}},
            "gemini": {"toolConfig": {MODE: {"mode": "ANY"}}},
        },
        warned={"ollama": "tool_choice"},
        refused=UNFORCED,
    ),
    "choice named": Conversation(
        [user(f"Please {wish('clock', NOON)}")],
        {**TOOLS, "tool_choice": NAMED},
        calls=(("clock", NOON),),
        finish="tool_calls",
        sent={
            "openai": {"tool_choice": NAMED},
            "responses": {"tool_choice": {"type": "function", "name": "clock"}},
            "haiku": {"tool_choice": {"type": "tool", "name": "clock"}},
            "gemini": {"toolConfig": {MODE: {"mode": "ANY", "allowedFunctionNames": ["clock"]}}},
            "lmstudio": {"tool_choice": "required"},
        },
        warned=alike("ollama lmstudio", "tool_choice"),
        lost=alike("ollama lmstudio", UNHEARD),
        refused=UNFORCED,
    ),
    "a schema": Conversation(
        [user("Is it sure?")],
        {"response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}}},
        is_json={"city": "", "sure": False},
        sent={
            "openai": {"response_format": {"json_schema": {"name": "verdict", "schema": SCHEMA}}},
            "responses": {"text": {"format": {"type": "json_schema", "name": "verdict", "schema": SCHEMA}}},
            **alike("anthropic haiku", {"output_config": {"format": {"schema": SCHEMA}}}),
            "gemini": {"generationConfig": {"responseJsonSchema": SCHEMA}},
            "ollama": {"format": SCHEMA},
            "lmstudio": {"response_format": {"json_schema": {"schema": SCHEMA}}},
        },
    ),
    "any JSON": Conversation(
        [user("Answer in JSON.")],
        {"response_format": {"type": "json_object"}},
        sent={
            "openai": {"response_format": {"type": "json_object"}},
            "responses": {"text": {"format": {"type": "json_object"}}},
            "gemini": {"generationConfig": {"responseMimeType": "application/json"}},
            "ollama": {"format": "json"},
            "lmstudio": {"response_format": {"type": "json_schema"}},
        },
        warned=alike("anthropic haiku", "response_format"),
    ),
    "effort low": Conversation(
        [user("Please think about it.")],
        {"reasoning_effort": "low"},
        says=("Please think about it.",),
        thinks=THINKING,
        sent={
            "responses": {"reasoning": {"effort": "low", "summary": "auto"}},
            "anthropic": {"output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}},
            "haiku": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "gemini": {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}},
            "gemini-2.5": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1024}}},
            "ollama": {"think": "low"},
            "lmstudio": {"reasoning_effort": "low"},
        },
        refused={"openai": None},  # this model does not think, and the upstream's words do not name the field
    ),
    "effort high": Conversation(
        [user("Please think about it.")],
        {"reasoning_effort": "high"},
        says=("Please think about it.",),
        thinks=THINKING,
        sent={
            "responses": {"reasoning": {"effort": "high", "summary": "auto"}},
            "anthropic": {"output_config": {"effort": "high"}, "thinking": {"type": "adaptive"}},
            "haiku": {"thinking": {"type": "enabled", "budget_tokens": 16384}},
            "gemini": {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}},
            "gemini-2.5": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 24576}}},
            "ollama": {"think": "high"},
            "lmstudio": {"reasoning_effort": "high"},
        },
        refused={"openai": None},
    ),
    "effort none": Conversation(
        [user("Please think about it.")],
        {"reasoning_effort": "none"},
        says=("Please think about it.",),
        thinks=("lmstudio",),  # it does as it likes
        sent={
            "responses": {"reasoning_effort": "none"},
            "anthropic": {"output_config": {"effort": "low"}},
            "haiku": {"thinking": {"type": "disabled"}},
            "gemini": {"generationConfig": {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}},
            "gemini-2.5": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}},
            "ollama": {"think": False},
            "lmstudio": {"reasoning_effort": "none"},
        },
        warned=alike("anthropic gemini", "reasoning_effort"),
        refused={"openai": None},
    ),
    "a stop": Conversation(
        [user("One HALT two.")],
        {"stop": "HALT"},
        says=("One",),
        sent={
            "openai": {"stop": "HALT"},
            **alike("anthropic haiku", {"stop_sequences": ["HALT"]}),
            "gemini": {"generationConfig": {"stopSequences": ["HALT"]}},
            "ollama": {"options": {"stop": ["HALT"]}},
            "lmstudio": {"stop": "HALT"},
        },
        warned={"responses": "stop"},
    ),
    "a length": Conversation(
        [user("Go to any length.")],
        {"max_tokens": 2},
        finish="length",
        sent={
            "openai": {"max_tokens": 2},
            "responses": {"max_output_tokens": 2},
            **alike("anthropic haiku", {"max_tokens": 2}),
            "gemini": {"generationConfig": {"maxOutputTokens": 2}},
            "ollama": {"options": {"num_predict": 2}},
            "lmstudio": {"max_tokens": 2},
        },
    ),
    "a long answer": Conversation(  # Anthropic is asked for a stream then, whatever was asked for here
        [user("Please think and call clock {}")],
        {**TOOLS, "max_completion_tokens": 32000},
        calls=(("clock", {}),),
        finish="tool_calls",
        thinks=("responses", "ollama", "lmstudio"),
        sent=alike("anthropic haiku", {"max_tokens": 32000, "stream": True}),
    ),
    "a refusal": Conversation([user("Please refuse.")], finish="content_filter", only=("anthropic", "haiku")),
    "a refusal in words": Conversation([user("Please refuse.")], only=("openai", "responses")),
    "a block": Conversation([user("I am blocked.")], finish="content_filter", only=("gemini", "gemini-2.5")),
    "two requests": Conversation(
        [user("Please go on and on.")], says=("Please go on and on.",), only=("gemini", "gemini-2.5")
    ),
}
