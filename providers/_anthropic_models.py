"""What each of Anthropic's models can do: as their list tells it, or, where it cannot be had, as their names do."""

from __future__ import annotations

import datetime
import re
import threading
import time
from functools import lru_cache
from typing import Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Tuple

from . import JSON, Scope, UpstreamError

EFFORTS = ("low", "medium", "high", "xhigh", "max")

HOUR = 3600.0
MINUTE = 60.0

_NAME = re.compile(r"claude\D*?-(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_LINE = re.compile(r"haiku|sonnet|opus|fable|mythos")
_DATED = re.compile(r"-(?:\d{8}|latest)")
_NEWEST = (99, 0)


class Model(NamedTuple):
    """What may be asked of a model."""

    version: Tuple[int, int]  # (5, 5) for 5.5; a name that tells none counts as newer than all
    thinking: FrozenSet[str]  # the values of `thinking.type` that it takes
    efforts: Tuple[str, ...]  # the values of `output_config.effort` that it takes, the least first
    most: Optional[int] = None  # the largest `max_tokens`, where it is known

    @property
    def samples(self) -> bool:
        """Tell whether it takes `temperature` and the like."""
        return self.version <= (4, 6)

    @property
    def continues(self) -> bool:
        """Tell whether it goes on with an assistant message that stands last."""
        return self.version < (4, 6)

    @property
    def heeds_system_turns(self) -> bool:
        """Tell whether it takes system messages in the midst of a conversation."""
        return self.version >= (4, 8)

    @property
    def can_be_forced(self) -> bool:
        """Tell whether it takes a `tool_choice` that leaves it no choice."""
        return self.version < (5, 1)


#: (lines, or all; since which version; types of thinking; efforts; largest max_tokens): the first row that fits holds
_BY_NAME: Tuple[Tuple[str, Tuple[int, int], str, Tuple[str, ...], Optional[int]], ...] = (
    ("sonnet", (5, 5), "adaptive between_tools", EFFORTS, None),
    ("haiku", (5, 5), "adaptive disabled", EFFORTS, None),
    ("fable mythos", (0, 0), "adaptive", EFFORTS, None),
    ("", (5, 1), "adaptive", EFFORTS, None),
    ("", (4, 7), "adaptive disabled", EFFORTS, None),
    ("", (4, 6), "adaptive enabled disabled", ("low", "medium", "high", "max"), None),
    ("opus", (4, 5), "enabled disabled", (), None),
    ("opus", (4, 0), "enabled disabled", (), 32000),
    ("", (3, 7), "enabled disabled", (), None),
    ("", (3, 5), "", (), 8192),
    ("", (0, 0), "", (), 4096),
)


def version_of(name: str) -> Tuple[int, int]:
    """Read a model's version out of its name."""
    found = _NAME.search(name)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else _NEWEST


@lru_cache(maxsize=256)  # clients name them
def named(name: str) -> Model:
    """Tell by its name what a model can do."""
    version = version_of(name)
    found = _LINE.search(name)
    line = found.group() if found else "another"
    for lines, since, thinking, efforts, most in _BY_NAME:
        if version >= since and (not lines or line in lines.split()):
            return Model(version, frozenset(thinking.split()), efforts, most)
    raise AssertionError("the last row fits all")


def listed(item: JSON) -> Model:
    """Tell by its entry in the list what a model can do; by its name what the entry does not tell."""
    guess = named(str(item.get("id") or ""))
    told = item.get("capabilities") or {}
    most = int(item.get("max_tokens") or 0) or guess.most
    if not told.get("thinking"):
        return guess._replace(most=most)
    types = frozenset(_supported(told["thinking"].get("types")))
    version = (4, 6) if guess.version == _NEWEST and "enabled" in types else guess.version
    efforts = _supported(told.get("effort"))
    return Model(version, types, tuple(effort for effort in EFFORTS if effort in efforts), most)


def _supported(told: Optional[JSON]) -> List[str]:
    """Name those of an object's members that say they are supported."""
    return [name for name, it in (told or {}).items() if isinstance(it, dict) and it.get("supported")]


def models_of(page: JSON) -> List[JSON]:
    """Translate a page of the list; what is retired cannot be asked for."""
    return [model_of(item) for item in page.get("data") or () if item.get("lifecycle") != "retired"]


#: what a model can do, in Ollama's words -> what the list calls it
_WORDS = {"vision": "image_input", "thinking": "thinking"}


def model_of(item: JSON) -> JSON:
    able = _supported(item.get("capabilities"))
    told = {
        "id": str(item.get("id") or ""),
        "object": "model",
        "created": _seconds(str(item.get("created_at") or "")),
        "owned_by": "anthropic",
        "capabilities": ["completion", "tools", *(word for word, name in _WORDS.items() if name in able)],
    }
    return {**told, **({"context_length": item["max_input_tokens"]} if item.get("max_input_tokens") else {})}


def abilities(page: JSON) -> Dict[str, Model]:
    """Tell what each model of a page of the list can do, by its id, and by its id without the date."""
    found: Dict[str, Model] = {}
    for item in page.get("data") or ():
        id_, model = str(item.get("id")), listed(item)
        found[id_] = model
        found.setdefault(_DATED.sub("", id_), model)
    return found


def _seconds(time_: str) -> int:
    try:
        return max(0, int(datetime.datetime.fromisoformat(time_.replace("Z", "+00:00")).timestamp()))
    except ValueError:
        return 0


Ask = Callable[[Scope, Callable[[JSON], Dict[str, Model]]], Iterable[Dict[str, Model]]]


class Catalogue:
    """What the models can do, as `ask(scope, abilities)` tells page by page of the list.

    It is asked once an hour, and only when it matters. While the list cannot be had, names have to do: it
    is asked for again after a minute.
    """

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._models: Dict[str, Model] = {}
        self._stale_at = clock()

    def is_old(self) -> bool:
        """Tell whether the list would be asked for."""
        with self._lock:
            return self._clock() >= self._stale_at

    def find(self, name: str, scope: Scope, *, matters: bool) -> Model:
        """Give what is known about a model; the list is asked for if it is old, and if what it says `matters`."""
        if matters and self.is_old():
            self._learn(scope)
        with self._lock:
            return self._models.get(name) or self._models.get(_DATED.sub("", name)) or named(name)

    def _learn(self, scope: Scope) -> None:
        models: Dict[str, Model] = {}
        try:
            for page in self._ask(scope, abilities):
                models = {**page, **models}
        except UpstreamError:
            pass  # the names have to do
        with self._lock:
            self._models = models or self._models
            self._stale_at = self._clock() + (HOUR if models else MINUTE)
