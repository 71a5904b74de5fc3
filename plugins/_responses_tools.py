"""The tools of a Responses question as canonical functions, and their calls as what they were called by. No I/O.

A function in a namespace bears both names in one. A custom tool, whose input is a text and no JSON, is told as a
function with that text as its one argument. What OpenAI runs itself nobody else can: it is left out where it only
stands beside other tools, as an agent offers all that it has, and refused where it is all that there is to call.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from providers import Pocket

from . import JSON
from ._json import refuse, shown

LONGEST_NAME = 64
ONLY_OPENAI = "only for OpenAI's own Responses API"
#: hosted tools that agents offer with every question
OFFERED = frozenset({"image_generation", "tool_search", "web_search", "web_search_preview"})
INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


class Tool(NamedTuple):
    """What a function was before it was one."""

    name: str
    namespace: str = ""
    custom: bool = False


class Tools:
    """The tools of one question; what cannot be said of them is told to its pocket."""

    def __init__(self, pocket: Pocket) -> None:
        self.pocket = pocket
        self.functions: List[JSON] = []
        self.places: List[str] = []  # of each: where it stood
        self.known: Dict[str, Tool] = {}
        self._hosted: List[Tuple[str, str]] = []  # where, and its type

    def add(self, tools: Any, path: str, namespace: str = "") -> None:
        """Read a list of tools."""
        for at, tool in enumerate(of(tools, (list,), path)):
            place = f"{path}[{at}]"
            kind = text(of(tool, (dict,), place), "type", place)
            if kind == "namespace":
                self.add(tool.get("tools"), f"{place}.tools", text(tool, "name", place))
            elif kind in ("function", "custom"):
                self._add(tool, place, Tool(text(tool, "name", place), namespace, kind == "custom"))
            else:
                self._hosted.append((place, kind))

    def _add(self, tool: JSON, place: str, what: Tool) -> None:
        name = flat(what.name, what.namespace)
        self.known[name] = what
        told: JSON = {key: tool[key] for key in ("description", "parameters", "strict") if tool.get(key) is not None}
        if what.custom:
            told = {"description": _described(tool), "parameters": INPUT}
            self.pocket.losses[place] = "a custom tool is told as a function"
        self.functions.append({"type": "function", "function": {"name": name, **told}})
        self.places.append(place)

    def told(self, choice: Any) -> JSON:
        """Give the canonical `tools` and `tool_choice`."""
        for place, kind in self._hosted:
            told = self.pocket.losses if kind in OFFERED and self.functions else self.pocket.musts
            told[place] = f"{shown(kind)} is {ONLY_OPENAI}"
        chosen = self._chosen(choice) if isinstance(choice, dict) else choice
        if not self.functions:
            if chosen not in (None, "auto", "none") and not self.pocket.musts:
                refuse("tool_choice", "there are no tools to choose from")
            return {}
        return {"tools": self.functions, **({} if chosen is None else {"tool_choice": chosen})}

    def _chosen(self, choice: JSON) -> Optional[JSON]:
        if choice.get("type") != "allowed_tools":
            return self._named(choice, "tool_choice")
        allowed = of(choice.get("tools"), (list,), "tool_choice.tools")
        places = [f"tool_choice.tools[{at}]" for at in range(len(allowed))]
        named = [self._named(of(tool, (dict,), place), place) for tool, place in zip(allowed, places)]
        mode = choice.get("mode") or "auto"
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [tool for tool in named if tool]}}

    def _named(self, choice: JSON, place: str) -> Optional[JSON]:
        if choice.get("type") not in ("function", "custom"):
            self.pocket.musts[place] = f"{shown(choice.get('type'))} is {ONLY_OPENAI}"
            return None
        name = flat(text(choice, "name", place), str(choice.get("namespace") or ""))
        return {"type": "function", "function": {"name": name}}

    def call(self, item: JSON, path: str) -> JSON:
        """Translate a call that was made before."""
        custom = item["type"] == "custom_tool_call"
        said: Any = of(item.get("input" if custom else "arguments") or "", (str, dict), f"{path}.arguments")
        arguments = json.dumps({"input": said}, ensure_ascii=False) if custom else said
        name = flat(text(item, "name", path), str(item.get("namespace") or ""))
        return {
            "id": text(item, "call_id", path),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }


def flat(name: str, namespace: str) -> str:
    """Give one name for both; one too long for a function is cut, and still its own."""
    whole = f"{namespace}__{name}" if namespace else name
    if not namespace or len(whole) <= LONGEST_NAME:
        return whole
    return whole[: LONGEST_NAME - 9] + "_" + hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()


def _described(tool: JSON) -> str:
    """Describe what the input of a custom tool is like."""
    format_ = tool.get("format")
    description = str(tool.get("description") or "")
    if not isinstance(format_, dict) or not format_.get("definition"):
        return description
    return f"{description}\n\nThe input keeps to this {format_.get('syntax')} grammar:\n{format_['definition']}".strip()


# what a client wrote, of the kind it must be


WORDS = {str: "a string", dict: "an object", list: "a list", bool: "true or false"}


def of(value: Any, kinds: Tuple[type, ...], path: str) -> Any:
    """Give a value of one of these kinds; refuse any other."""
    if value is None:
        refuse(path, "is required", "missing_required_parameter")
    if not isinstance(value, kinds):
        refuse(path, f"must be {' or '.join(WORDS[kind] for kind in kinds)}", "invalid_type")
    return value


def text(item: JSON, key: str, path: str) -> str:
    return str(of(item.get(key), (str,), f"{path}.{key}"))
